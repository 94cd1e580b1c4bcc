"""A gate before the export: samples must not lie closer to training pictures than pictures never seen do."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from training.data import PictureSet
from training.errors import TrainingError
from training.generators import sample
from training.metrics.features import FeatureNet, extract
from training.neighbours import nearest_distances, thumbnails
from training.networks.families import GeneratorNetwork

DEFAULT_RATIO = 0.5  # the shipped fashion model measures 1.05 in pixels and 1.09 in features
NUM_SAMPLES = 2000
MIN_HOLDOUT = 100  # below that a quantile of 1 % is the single nearest picture
QUANTILE = 0.01


@dataclass(frozen=True, slots=True)
class Closeness:
    """The 1 % quantile of the distances to the nearest training picture, of samples and of hold-out pictures."""

    space: str
    samples: float
    holdout: float
    n_samples: int
    n_holdout: int

    def __str__(self) -> str:
        """Return the figures as a clause."""
        return (
            f"{self.space}: {self.samples:.3g} for {self.n_samples} samples, {self.holdout:.3g} for {self.n_holdout} "
            f"hold-out pictures ({self.samples / max(self.holdout, 1e-12):.2f} times)"
        )


def privacy_gate(
    generator: nn.Module, data: PictureSet, *, ratio: float, net: FeatureNet | None = None
) -> list[Closeness]:
    """Refuse a generator whose samples lie too close to training pictures.

    A screen for memorised pictures, not a proof that there are none: it compares the nearest 1 % of the samples with
    the nearest 1 % of pictures that the generator has never seen. Every distance is the lesser of the picture's and of
    its mirror image's, since training may have mirrored.

    Args:
        generator: The averaged generator, on the CPU.
        data: What it was trained on, with its hold-out pictures.
        ratio: How near samples may lie, as a multiple of the hold-out pictures' distance, above 0.
        net: A feature network for these pictures, to compare in its space as well as in pixels.

    Returns:
        The figures, of pixels at 16x16 in grey levels and of the features.

    Raises:
        TrainingError: If the samples lie closer than that in any space, there are too few hold-out pictures to tell, or
            those repeat training pictures.

    Meehan et al. 2020, "A Non-Parametric Test to Detect Data-Copying in Generative Models", arXiv:2004.05675, for
    judging copies by the distances of held-out pictures.
    """
    if not 0 < ratio < float("inf"):
        raise TrainingError(f"--privacy-gate {ratio} is not a number above 0")
    if len(data.holdout) < MIN_HOLDOUT:
        raise TrainingError(
            f"--privacy-gate needs {MIN_HOLDOUT} hold-out pictures, {data.name} has {len(data.holdout)}"
        )
    random = torch.Generator().manual_seed(3)
    z_dim = cast("GeneratorNetwork", generator).config.z_dim
    z = torch.randn(NUM_SAMPLES, z_dim, generator=random)
    label = data.train.labels[torch.randint(len(data.train), (NUM_SAMPLES,), generator=random)]
    chosen = torch.randperm(len(data.holdout), generator=random)[:NUM_SAMPLES]
    samples, holdout = sample(generator, z, label), data.holdout.images[chosen]
    found = [_closeness("pixels at 16x16", samples, holdout, data.train.images, None)]
    if net is not None:
        found.append(_closeness(f"features of {net.name}", samples, holdout, data.train.images, net))
    figures = "; ".join(map(str, found))
    if any(closeness.holdout == 0 for closeness in found):
        raise TrainingError(
            f"the hold-out pictures repeat training pictures, which tells nothing of samples: {figures}"
        )
    if any(closeness.samples < ratio * closeness.holdout for closeness in found):
        raise TrainingError(
            f"samples lie too close to training pictures, nearer than {ratio:g} times what hold-out pictures do "
            f"(quantile of {QUANTILE:.0%} of the distances to the nearest training picture): {figures}"
        )
    return found


def _closeness(space: str, samples: Tensor, holdout: Tensor, train: Tensor, net: FeatureNet | None) -> Closeness:
    """Return the figures in the space of a feature network, or of pixels without one."""

    def rows(pixels: Tensor) -> Tensor:
        return thumbnails(pixels) if net is None else extract(net, pixels).features

    others = rows(train)
    near = [
        torch.minimum(nearest_distances(rows(p), others), nearest_distances(rows(p.flip(2)), others)).quantile(QUANTILE)
        for p in (samples, holdout)
    ]
    return Closeness(space, near[0].item(), near[1].item(), len(samples), len(holdout))
