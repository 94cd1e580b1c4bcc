"""Training of a feature network: on labels, or on quarter turns where there are none."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from training.metrics.accuracy import sample_accuracy
from training.metrics.features import TURNS, FeatureNet, Split, check_split, extract, private_global_generator
from training.precision import bfloat16_is_faster


def train_feature_net(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    seed: int,
    epochs: int = 3,
    batch_size: int = 128,
    max_lr: float = 4e-3,
    progress: Callable[[float, float], None] | None = None,
) -> FeatureNet:
    """Train a feature network on the CPU: Adam with a one-cycle schedule, cross-entropy.

    Where the processor is faster in bfloat16, the forward passes are in it, and weights and loss in float32. The same
    arguments give the same bytes on one machine with one number of threads. torch's global generator is left as it
    was. Without labels each picture of a batch gets a random quarter turn, and the turn is the label; pictures that are
    not square are cropped to their middle square for it.

    Args:
        images: uint8, (N, H, W, C) with H and W >= 8 and C of 1, 3 or 4.
        labels: int64, (N,), in [0, num_classes); not read if `num_classes` is below 2.
        num_classes: Number of classes; 0 or 1 trains on quarter turns.
        seed: Seed of weights, order and turns, in [0, 2**53).
        epochs: Passes over the pictures; the spaces named `/1` have 3.
        batch_size: Pictures in a step.
        max_lr: Peak learning rate of the cycle.
        progress: Called after each step with the share done, in (0, 1], and the loss of the step.

    Returns:
        The network in evaluation mode.

    Raises:
        ValueError: If a tensor has the wrong type, shape or range, or a number is below 1.
        RuntimeError: If the loss stops being finite.

    Smith and Topin 2017, "Super-Convergence", arXiv:1708.07120. The pretext: Gidaris et al. 2018, "Unsupervised
    Representation Learning by Predicting Image Rotations", arXiv:1803.07728.
    """
    check_split((images, labels), num_classes)
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs and batch_size must be at least 1, got {epochs} and {batch_size}")
    generator = torch.Generator().manual_seed(seed)
    net = _build(num_classes, images.shape[3], generator).train()
    if not net.labelled:
        images = _middle_square(images)

    # A last batch that is not full is left out: one of a single picture would leave its mark on the running statistics.
    batch_size = min(batch_size, images.shape[0])
    steps = epochs * (images.shape[0] // batch_size)
    optimizer = torch.optim.Adam(net.parameters(), lr=max_lr, fused=True)
    amp = bfloat16_is_faster(torch.device("cpu"))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=max_lr, total_steps=steps)
    for step, rows in enumerate(_batches(images.shape[0], batch_size, epochs, generator), start=1):
        batch = images[rows]
        if net.labelled:
            target = labels[rows]
        else:
            target = torch.randint(TURNS, rows.shape, generator=generator)
            batch = _turned(batch, target)
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            logits = net(batch)[1]
        loss = functional.cross_entropy(logits.float(), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        value = loss.item()
        if not value < float("inf"):
            raise RuntimeError(f"the loss of the feature network is {value} at step {step} of {steps}")
        if progress is not None:
            progress(step / steps, value)
    return net.eval()


def holdout_accuracy(net: FeatureNet, holdout: Split) -> float:
    """Return the share of pictures whose label, or quarter turn, the network names rightly.

    Args:
        net: A trained network.
        holdout: Pictures it was not trained on, and their labels.

    Returns:
        Accuracy in [0, 1].

    Raises:
        ValueError: If the pictures or labels do not fit the network.
    """
    images, labels = holdout
    check_split(holdout, net.num_classes)
    if net.labelled:
        return sample_accuracy(extract(net, images).predicted, labels)
    square = _middle_square(images)
    turns = [torch.full((square.shape[0],), turn) for turn in range(TURNS)]
    return sum(sample_accuracy(extract(net, _turned(square, turn)).predicted, turn) for turn in turns) / TURNS


def _build(num_classes: int, channels: int, generator: torch.Generator) -> FeatureNet:
    """Return a network with weights drawn from `generator`."""
    with private_global_generator():
        # The CPU's generator only: torch.manual_seed would set those of the accelerators too.
        torch.default_generator.set_state(generator.get_state())
        net = FeatureNet(num_classes, channels)
        generator.set_state(torch.default_generator.get_state())
    return net


def _batches(n: int, batch_size: int, epochs: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the rows of each step, int64, (batch_size,): each epoch in a new order."""
    for _ in range(epochs):
        order = torch.randperm(n, generator=generator)
        for start in range(0, n - n % batch_size, batch_size):
            yield order[start : start + batch_size]


def _turned(images: Tensor, turns: Tensor) -> Tensor:
    """Return square pictures, uint8, (N, S, S, C), each turned anticlockwise by its number of quarter turns, (N,)."""
    turned = torch.empty_like(images)
    for turn in range(TURNS):
        rows = turns == turn
        turned[rows] = images[rows].rot90(turn, dims=(1, 2))
    return turned


def _middle_square(images: Tensor) -> Tensor:
    """Return the middle (N, S, S, C) of pictures (N, H, W, C), S the shorter of H and W."""
    height, width = images.shape[1:3]
    size = min(height, width)
    top, left = (height - size) // 2, (width - size) // 2
    return images[:, top : top + size, left : left + size]
