"""Differentiable augmentation of what the discriminator sees, real and generated alike, for sets of few pictures.

Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training", arXiv:2006.10738. The probability
follows overfitting as in Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data",
arXiv:2006.06676: the discriminator's verdict on hold-out pictures, between those on training and on generated ones.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from training import noise

SHIFT = 1 / 8  # of height and width, at most
CUT = 1 / 2  # of height and width
TARGET = 0.6  # of the overfitting measure; below it the probability falls
FULL_KIMG = 100.0  # thousand images in which the probability can go from 0 to 1
MAX_PROBABILITY = 0.8  # beyond it augmentations leak into the samples
FEW_PICTURES, VERY_FEW_PICTURES = 30_000, 5_000


def chosen_for(num_pictures: int) -> tuple[str, ...]:
    """Return the augmentations that suit a training split of that size; none for a large one."""
    if num_pictures >= FEW_PICTURES:
        return ()
    return ("translation", "cutout", "colour") if num_pictures < VERY_FEW_PICTURES else ("translation", "cutout")


def augmented(images: Tensor, names: tuple[str, ...], probability: float) -> Tensor:
    """Apply each augmentation to each picture with a probability; draws from `training.noise`.

    Args:
        images: float32 (N, C, H, W) in [-1, 1].
        names: Keys of `AUGMENTATIONS`, in the order in which they are applied.
        probability: In [0, 1].

    Returns:
        Images of the same shape, differentiable with respect to `images`.
    """
    if probability <= 0:
        return images
    for name in names:
        chosen = _uniform(images, 1) < probability
        images = torch.where(chosen, AUGMENTATIONS[name](images), images)
    return images


def translation(images: Tensor) -> Tensor:
    """Shift each of `images`, (N, C, H, W), by up to an eighth, repeating its border."""
    count, _, height, width = images.shape
    rows, columns = (
        (torch.arange(side, device=images.device) - _shift(images, side)).clamp(0, side - 1) for side in (height, width)
    )
    which = torch.arange(count, device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _shift(images: Tensor, side: int) -> Tensor:
    reach = int(side * SHIFT)
    return (_uniform(images, 1).reshape(-1, 1) * (2 * reach + 1)).floor().long() - reach


def cutout(images: Tensor) -> Tensor:
    """Set a square of half the side in each of `images`, (N, C, H, W), to 0, the middle of the range."""
    height, width = images.shape[2:]
    inside = []
    for side in (height, width):
        middle = _uniform(images, 1).reshape(-1, 1) * side
        inside.append((torch.arange(side, device=images.device) + 0.5 - middle).abs() < side * CUT / 2)
    hidden = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images.masked_fill(hidden, 0.0)


def colour(images: Tensor) -> Tensor:
    """Change brightness, saturation and contrast of each of `images`, (N, C, H, W); RGBA is left as it is.

    Premultiplied colours have no meaning of their own to change.
    """
    if images.shape[1] == 4:
        return images
    images = images + (_uniform(images, 1) - 0.5)
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * (_uniform(images, 1) * 2)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (_uniform(images, 1) + 0.5)


AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "translation": translation,
    "cutout": cutout,
    "colour": colour,
}


def _uniform(images: Tensor, size: int) -> Tensor:
    """Return uniform numbers in [0, 1), one per picture, (N, 1, 1, 1)."""
    return torch.rand(len(images), size, 1, 1, generator=noise.generator(), device=images.device)


def overfitting(train: float, holdout: float, fake: float) -> float:
    """Return how far the discriminator tells hold-out pictures from training ones, in [-1, 1] or so.

    Args:
        train: Mean logit of training pictures.
        holdout: Of hold-out pictures.
        fake: Of generated pictures.

    Returns:
        0 where hold-out and training pictures get the same verdict, 1 where hold-out pictures get that of generated
        ones; 0 too where training and generated pictures are not told apart.

    Karras et al. 2020, arXiv:2006.06676, equation 1.
    """
    span = train - fake
    return (train - holdout) / span if span > 1e-3 else 0.0


def next_probability(probability: float, measure: float, images: int) -> float:
    """Return the probability after `images` more: it rises while `measure` is above the target, and else falls."""
    step = images / (FULL_KIMG * 1000) * (1 if measure > TARGET else -1)
    return min(max(probability + step, 0.0), MAX_PROBABILITY)
