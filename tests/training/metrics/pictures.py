"""Pictures that the tests of the metrics share."""

import torch
from torch import Tensor

from training.metrics.features import Split

SIZE = 12
NUM_CLASSES = 3  # of `blobs`


def stripes(n: int, seed: int, channels: int = 1) -> Split:
    """Two classes: lying and standing stripes at a random phase, with noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (n,), generator=generator)
    phase = torch.randint(4, (n, 1), generator=generator)
    wave = ((torch.arange(SIZE) + phase) % 4 < 2).float()
    lying = wave[:, :, None].expand(n, SIZE, SIZE)
    field = torch.where(labels[:, None, None] == 0, lying, lying.transpose(1, 2))
    noisy = field * 150 + torch.rand(n, SIZE, SIZE, generator=generator) * 100
    return noisy.to(torch.uint8)[..., None].repeat(1, 1, 1, channels), labels


def arrows(n: int, seed: int) -> Tensor:
    """Pictures with an upside: bright above, dark below, uint8, (n, 12, 10, 3)."""
    ramp = torch.linspace(200, 0, SIZE)[None, :, None, None]
    noise = torch.rand(n, SIZE, SIZE - 2, 3, generator=torch.Generator().manual_seed(seed)) * 50
    return (ramp + noise).to(torch.uint8)


def blobs(n: int, seed: int) -> Split:
    """Three classes in equal numbers: a soft disc, a bar or a frame, of random place, size and brightness, 12x12."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % NUM_CLASSES
    place, size, light = torch.rand(3, n, 1, 1, generator=generator)
    axis = torch.arange(12.0) - 5.5
    x, y = (axis - 3 * (place - 0.5))[:, 0, None, :], axis[None, :, None]
    disc = (2 + 2 * size - (x.square() + y.square()).sqrt()).clamp(0, 1)
    bar = (1 + size - x.abs()).clamp(0, 1).expand(n, 12, 12)
    frame = (1 - (torch.maximum(x.abs(), y.abs()) - 2 - 2 * size).abs()).clamp(0, 1)
    field = torch.stack([disc, bar, frame])[labels, torch.arange(n)]
    noise = torch.rand(n, 12, 12, generator=generator)
    return (field * (120 + 100 * light) + noise * 30).to(torch.uint8)[..., None], labels
