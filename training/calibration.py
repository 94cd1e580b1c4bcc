"""What a discriminator's scores mean: their quantiles on hold-out pictures and on samples, label by label."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from training.data import PictureSet
from training.errors import TrainingError
from training.generators import sample
from training.manifest import DiscriminatorEntry, LabelScores
from training.networks.families import GeneratorNetwork

LEVELS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
MAX_PER_LABEL, MAX_PICTURES = 1000, 10_000  # samples, and hold-out pictures, that are scored
Score = Callable[[Tensor, Tensor], Tensor]


def calibrate(score: Score, generator: nn.Module, data: PictureSet) -> DiscriminatorEntry:
    """Return the quantiles of a discriminator's score per label.

    With the relativistic loss the score is the log ratio of the densities of real and generated pictures plus a
    constant that nobody knows, and differs from label to label: one score says nothing, its place among these does.

    Args:
        score: Scores, float32 (N,), of pixels, uint8 (N, H, W, C), and labels, int64 (N,).
        generator: The averaged generator, on the CPU.
        data: The data set whose hold-out pictures are scored.

    Returns:
        An entry for the manifest, with one label for a set without labels. The same for the same networks and data.

    Raises:
        TrainingError: If a score is not finite.

    Azadi et al. 2018, "Discriminator Rejection Sampling", arXiv:1810.06758, for what the scores can be used for.
    """
    num_labels = max(data.num_classes, 1)
    count = min(MAX_PER_LABEL, MAX_PICTURES // num_labels)
    return DiscriminatorEntry(
        levels=list(LEVELS), labels=[_scores_of(label, count, score, generator, data) for label in range(num_labels)]
    )


def _scores_of(label: int, count: int, score: Score, generator: nn.Module, data: PictureSet) -> LabelScores:
    images = data.holdout.images
    real = (images[data.holdout.labels == label] if data.num_classes else images)[:count]
    z_dim = cast("GeneratorNetwork", generator).config.z_dim
    z = torch.randn(count, z_dim, generator=torch.Generator().manual_seed(label))
    fake = sample(generator, z, torch.full((count,), label))
    holdout, samples = (_quantiles(_scored(score, pixels, label)) for pixels in (real, fake))
    return LabelScores(n_holdout=len(real), holdout=holdout, n_samples=count, samples=samples)


@torch.inference_mode()
def _scored(score: Score, pixels: Tensor, label: int, batch_size: int = 250) -> Tensor:
    """Return the scores of pictures of one label, float32 (N,)."""
    parts = [score(part, torch.full((len(part),), label)) for part in pixels.split(batch_size) if len(part)]
    return torch.cat(parts) if parts else torch.empty(0)


def _quantiles(scores: Tensor) -> list[float]:
    """Return the quantiles of scores at `LEVELS`, none of no scores."""
    if not scores.isfinite().all():
        raise TrainingError("the discriminator gives scores that are not finite; export another snapshot")
    if not len(scores):
        return []
    values: list[float] = scores.double().quantile(torch.tensor(LEVELS, dtype=torch.float64)).tolist()
    return [round(value, 5) for value in values]
