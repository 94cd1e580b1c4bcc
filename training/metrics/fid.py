"""FID, in the Inception network, by two published protocols: the figures that compare with the literature's."""

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from training.errors import TrainingError
from training.metrics.evaluation import Metric
from training.metrics.frechet import frechet_distance, statistics
from training.metrics.inception import FEATURES, Inception

LUCIC10K: Final = "lucic10k"
CLEAN: Final = "clean"
PROTOCOLS: Final = (LUCIC10K, CLEAN)
LUCIC_IMAGES = 10_000
MIN_FLOOR_IMAGES = 100
_SUBSET_SEED = 0

Say = Callable[[str], None]


class Fid:
    """FID of samples by one protocol.

    `lucic10k` (Lucic et al. 2018, "Are GANs Created Equal? A Large-Scale Study", arXiv:1711.10337): 10,000 hold-out
    pictures against 10,000 samples, resized by the network's file. Its floor has 10,000 training pictures in place of
    the samples.

    `clean` (Parmar et al. 2022, "On Aliased Resizing and Surprising Subtleties in GAN Evaluation", arXiv:2104.11222):
    all training pictures against the samples, resized by `inception.bicubic`. Its floor has the hold-out pictures in
    place of the samples.

    Args:
        protocol: One of `PROTOCOLS`.
        inception: The network.
        train: Training pictures, uint8 (N, H, W, C).
        holdout: Hold-out pictures, of the same size.
        num_samples: How many samples there will be.

    Raises:
        TrainingError: If there are too few pictures, or not as many samples as the protocol wants.
    """

    def __init__(self, protocol: str, inception: Inception, train: Tensor, holdout: Tensor, num_samples: int) -> None:
        self.protocol, self.inception = protocol, inception
        sides = [("training pictures", len(train)), ("hold-out pictures", len(holdout)), ("samples", num_samples)]
        if protocol == LUCIC10K:
            if num_samples != LUCIC_IMAGES:
                raise TrainingError(f"--protocol {protocol} takes {LUCIC_IMAGES} samples, got --samples {num_samples}")
            _check(protocol, sides, [LUCIC_IMAGES] * 3)
            self._reference, self._instead = _subset(holdout), _subset(train)
        else:
            # With no more pictures than features a covariance is singular, and the bias larger than most differences.
            _check(protocol, sides, [FEATURES + 1, MIN_FLOOR_IMAGES, FEATURES + 1])
            self._reference, self._instead = train, holdout

    @property
    def name(self) -> str:
        """Name of the figure."""
        return f"fid_{self.protocol}"

    def score(self, samples: Tensor, say: Say) -> Metric:
        """Return FID of samples beside its floor.

        Args:
            samples: As many as the constructor was told, uint8 (N, H, W, C).
            say: Told how many pictures go through the network, which takes longer than all else.

        Returns:
            The figure: `n_real` pictures against `n_fake` samples, and for the floor against `n_floor` real ones.

        Raises:
            ValueError: If the samples are of another size than the pictures.
        """
        if samples.shape[1:] != self._reference.shape[1:]:
            raise ValueError(f"samples must be {tuple(self._reference.shape[1:])}, got {tuple(samples.shape[1:])}")
        sets = (self._reference, samples, self._instead)
        say(f"measuring {self.name}: {sum(map(len, sets))} pictures through the Inception network")
        features = self.inception.own_resize if self.protocol == LUCIC10K else self.inception.clean_resize
        reference, of_samples, of_floor = (statistics(features(images)) for images in sets)
        return Metric(
            self.name,
            frechet_distance(reference, of_samples),
            frechet_distance(reference, of_floor),
            *(found.n for found in (reference, of_samples, of_floor)),
        )


def _check(protocol: str, sides: Sequence[tuple[str, int]], least: Sequence[int]) -> None:
    """Raise `TrainingError` unless every side has as many pictures as it needs."""
    for (side, count), needed in zip(sides, least, strict=True):
        if count < needed:
            raise TrainingError(f"--protocol {protocol} needs at least {needed} {side}, there are {count}")


def _subset(images: Tensor) -> Tensor:
    """Return `LUCIC_IMAGES` random pictures, the same ones every time: files may be sorted by class."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(_SUBSET_SEED))
    return images[order[:LUCIC_IMAGES]]
