"""Memorisation: are samples nearer to training pictures than hold-out pictures are? A screen, not a proof."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from torch import Tensor

from training.metrics.copying import cell_centres, copying_score
from training.metrics.features import FeatureNet, extract
from training.metrics.nearest import PictureIndex, nearest_rows

NUM_PAIRS = 16
SPACES = ("pixels", "features")
_NEAR = 0.5
_LOW = 0.01


@dataclass(frozen=True)
class Nearness:
    """How near samples are to training pictures, in one space.

    Attributes:
        space: `pixels`: root mean square difference in grey levels, colours multiplied by alpha; `features`: Euclidean.
        mirrored: Whether mirrored training pictures count too.
        median: Median of the samples' distances to their nearest training picture.
        low: Their 1 % quantile.
        median_floor: Median of the hold-out pictures' distances.
        low_floor: Their 1 % quantile.
        score: C_T, `copying.copying_score`, of the samples against the hold-out pictures.
        score_floor: C_T of every second hold-out picture against the others.
    """

    space: str
    mirrored: bool
    median: float
    low: float
    median_floor: float
    low_floor: float
    score: float
    score_floor: float

    @property
    def name(self) -> str:
        """`pixels`, `pixels_mirrored`, `features` or `features_mirrored`."""
        return f"{self.space}_mirrored" if self.mirrored else self.space

    def figures(self) -> dict[str, tuple[float, float]]:
        """Return value and floor of each figure by its name in a report."""
        return {
            f"nearest_{self.name}_median": (self.median, self.median_floor),
            f"nearest_{self.name}_q01": (self.low, self.low_floor),
            f"ct_{self.name}": (self.score, self.score_floor),
        }

    @property
    def suspicions(self) -> tuple[str, ...]:
        """What is below half of its floor, in words; C_T has no say, for smooth pictures lower it too."""
        return tuple(
            f"{name} {value:.3g} is below half of the hold-out pictures' {floor:.3g}"
            for name, (value, floor) in self.figures().items()
            if name.startswith("nearest_") and value < _NEAR * floor
        )


@dataclass(frozen=True, eq=False)
class Memorisation:
    """What the screen found.

    Attributes:
        nearness: Pixels and features, without and with mirrored training pictures.
        pairs: The samples nearest to a training picture in pixels, mirrored ones included, each beside it; nearest pair
            first, uint8, (P, 2, H, W, C).
        n_train: Training pictures.
        n_fake: Samples.
        n_holdout: Hold-out pictures.
    """

    nearness: tuple[Nearness, ...]
    pairs: Tensor
    n_train: int
    n_fake: int
    n_holdout: int

    @property
    def suspicions(self) -> tuple[str, ...]:
        """Why the samples look memorised, in words; empty if they do not."""
        return tuple(reason for nearness in self.nearness for reason in nearness.suspicions)


@dataclass(frozen=True, eq=False)
class _Distances:
    """Distances to the nearest training picture by space and mirroring, and what the pairs are made of."""

    by_space: dict[tuple[str, bool], Tensor]
    cells: Tensor
    nearest: Tensor
    nearest_is_mirrored: Tensor

    def rows(self, rows: slice, key: tuple[str, bool]) -> tuple[Tensor, Tensor]:
        return self.by_space[key][rows], self.cells[rows]


class MemorisationScreen:
    """Compares samples, and once the hold-out pictures, with all training pictures.

    Args:
        net: Feature network, which has seen neither samples nor hold-out pictures.
        train: Training pictures, uint8, (N, H, W, C), and their features, float32, (N, 128).
        holdout: Hold-out pictures and their features.
    """

    def __init__(self, net: FeatureNet, train: tuple[Tensor, Tensor], holdout: tuple[Tensor, Tensor]) -> None:
        self._net = net
        self._train, self._train_features = train
        self._holdout = holdout

    def screen(self, pictures: Tensor, features: Tensor) -> Memorisation:
        """Return how near samples are to training pictures, beside the same of hold-out pictures.

        Args:
            pictures: Samples, uint8, (M, H, W, C), M >= 1.
            features: Their features, float32, (M, 128).

        Returns:
            The distances' quantiles, C_T, and the closest pairs.
        """
        fake = self._distances(pictures, features)
        nearness = tuple(self._nearness(key, fake) for key in product(SPACES, (False, True)))
        closest = fake.by_space["pixels", True].argsort(stable=True)[:NUM_PAIRS]
        mirrored = fake.nearest_is_mirrored[closest][:, None, None, None]
        originals = self._train[fake.nearest[closest]]
        pairs = torch.stack([pictures[closest], torch.where(mirrored, originals.flip(2), originals)], dim=1)
        return Memorisation(nearness, pairs, len(self._train), len(pictures), len(self._holdout[0]))

    def _nearness(self, key: tuple[str, bool], fake: _Distances) -> Nearness:
        holdout = self._of_holdout
        everything, even, odd = slice(None), slice(0, None, 2), slice(1, None, 2)
        value, floor = fake.by_space[key], holdout.by_space[key]
        return Nearness(
            *key,
            median=_quantile(value, 0.5),
            low=_quantile(value, _LOW),
            median_floor=_quantile(floor, 0.5),
            low_floor=_quantile(floor, _LOW),
            score=copying_score(fake.rows(everything, key), holdout.rows(everything, key)),
            score_floor=copying_score(holdout.rows(even, key), holdout.rows(odd, key)),
        )

    def _distances(self, pictures: Tensor, features: Tensor) -> _Distances:
        # A picture is as near to a mirrored one as its mirror image is to that one: only the queries are mirrored.
        mirrored = pictures.flip(2)
        plain, turned = self._index.nearest(pictures), self._index.nearest(mirrored)
        plain_features = nearest_rows(features, self._train_features).distance
        turned_features = nearest_rows(extract(self._net, mirrored).features, self._train_features).distance
        flipped = turned.distance < plain.distance
        return _Distances(
            by_space={
                ("pixels", False): plain.distance,
                ("pixels", True): torch.minimum(plain.distance, turned.distance),
                ("features", False): plain_features,
                ("features", True): torch.minimum(plain_features, turned_features),
            },
            cells=nearest_rows(features, self._centres).index,
            nearest=torch.where(flipped, turned.index, plain.index),
            nearest_is_mirrored=flipped,
        )

    @cached_property
    def _index(self) -> PictureIndex:
        return PictureIndex(self._train)

    @cached_property
    def _centres(self) -> Tensor:
        return cell_centres(self._train_features)

    @cached_property
    def _of_holdout(self) -> _Distances:
        return self._distances(*self._holdout)


def _quantile(values: Tensor, share: float) -> float:
    return float(values.to(torch.float64).quantile(share))
