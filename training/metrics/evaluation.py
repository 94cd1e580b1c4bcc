"""All measures of a generator's samples, each beside the value that real pictures reach."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property

import torch
from torch import Tensor

from training.metrics.accuracy import sample_accuracy
from training.metrics.features import FeatureNet, Features, Split, check_split, extract
from training.metrics.frechet import frechet_distance, statistics
from training.metrics.prdc import prdc

K = 5
"""Neighbours of precision, recall, density and coverage."""

# The rows for the neighbour measures are the same in every evaluation of the same data.
_SUBSET_SEED = 0


@dataclass(frozen=True)
class Metric:
    """One measured value.

    Attributes:
        name: `fcd`, `precision`, `recall`, `density`, `coverage` or `accuracy`.
        value: Of the samples.
        floor: Of hold-out pictures in the place of the samples: what a perfect generator would reach.
        n_real: Real pictures behind `value` and `floor`; 0 for `accuracy`, which has no reference.
        n_fake: Samples behind `value`.
        n_floor: Hold-out pictures behind `floor`. All but `accuracy` are biased by the numbers of pictures, so `value`
            and `floor` compare fully only if this is `n_fake`.
    """

    name: str
    value: float
    floor: float
    n_real: int
    n_fake: int
    n_floor: int


@dataclass(frozen=True)
class Evaluation:
    """What was measured, and in which feature space.

    Attributes:
        metrics: The values.
        feature_space: Name of the feature space.
        feature_digest: `FeatureNet.digest` of the network.
        k: Neighbours of precision, recall, density and coverage.
        quick: Whether these four were left out. Such an evaluation is for steering only: FCD hardly feels lost
            diversity, and is not to be published without recall and coverage.
    """

    metrics: tuple[Metric, ...]
    feature_space: str
    feature_digest: str
    k: int
    quick: bool

    def metric(self, name: str) -> Metric:
        """Return one of the metrics.

        Args:
            name: Its name.

        Returns:
            The metric.

        Raises:
            KeyError: If it was not measured.
        """
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise KeyError(f"{name} was not measured, only {', '.join(metric.name for metric in self.metrics)}")

    def to_dict(self) -> dict[str, object]:
        """Return the evaluation as plain dicts, lists, strings and numbers, for a manifest."""
        return asdict(self) | {"metrics": [asdict(metric) for metric in self.metrics]}

    def to_json(self) -> str:
        """Return the evaluation as JSON on one line, every number finite."""
        return json.dumps(self.to_dict(), allow_nan=False)


class Evaluator:
    """Measures samples against one data set; of the real pictures it keeps features only, about 10 MB.

    Args:
        net: Trained feature network of this data.
        train: Pictures and labels that the generator learns from; the reference of all measures.
        holdout: Pictures and labels that neither the generator nor `net` has seen; they give the floors.
        num_prdc: Rows on each side of precision, recall, density and coverage; fewer where there are fewer.

    Raises:
        ValueError: If pictures or labels are of the wrong type, shape or range, the two splits differ in the size of
            their pictures, or there are no more than `K` rows for the neighbours.
    """

    def __init__(self, net: FeatureNet, train: Split, holdout: Split, *, num_prdc: int = 5000) -> None:
        check_split(train, net.num_classes)
        check_split(holdout, net.num_classes)
        if train[0].shape[1:] != holdout[0].shape[1:]:
            raise ValueError(f"pictures differ: training {tuple(train[0].shape)}, hold-out {tuple(holdout[0].shape)}")
        if min(num_prdc, train[0].shape[0], holdout[0].shape[0]) <= K:
            raise ValueError(f"need more than {K} rows, got {len(train[0])}, {len(holdout[0])} and num_prdc {num_prdc}")
        self._net = net
        self._digest = net.digest()
        self._num_prdc = num_prdc
        self._picture = train[0].shape[1:]
        real = extract(net, train[0]).features
        self._real = statistics(real)
        self._real_rows = self._subset(real)
        held_out = extract(net, holdout[0])
        self._n_floor = holdout[0].shape[0]
        self._holdout_rows = self._subset(held_out.features)
        self._quick_floors = self._quick_values(held_out, holdout[1])

    def floors(self) -> Evaluation:
        """Return the measures of the hold-out pictures against the training pictures: real against real.

        Returns:
            An evaluation whose values are their own floors.
        """
        return self._evaluation(self._quick_floors | self._neighbour_floors, self._n_floor, quick=False)

    def score(self, fake_images: Tensor, fake_labels: Tensor | None, *, quick: bool = False) -> Evaluation:
        """Return the measures of samples against the training pictures.

        FCD takes all training pictures and all samples, the neighbour measures a fixed random `num_prdc` of each.

        Args:
            fake_images: Samples, uint8, (N, H, W, C), of the size of the real pictures; 10,000 by custom.
            fake_labels: Labels they were made with, int64, (N,), in [0, num_classes); not read if the feature network
                has no labels.
            quick: Leave out precision, recall, density and coverage.

        Returns:
            The values beside their floors.

        Raises:
            ValueError: If samples or labels are of the wrong type, shape or range, or are too few: 2, and `K` + 1
                unless `quick`.
        """
        if fake_images.shape[1:] != self._picture:
            raise ValueError(
                f"samples must be (N, {', '.join(map(str, self._picture))}), got {tuple(fake_images.shape)}"
            )
        if fake_labels is None:
            if self._net.labelled:
                raise ValueError(f"{self._net.name} needs the labels of the samples, got none")
            fake_labels = torch.zeros(fake_images.shape[0], dtype=torch.int64)
        check_split((fake_images, fake_labels), self._net.num_classes)
        samples = extract(self._net, fake_images)
        values = self._quick_values(samples, fake_labels)
        if not quick:
            values |= asdict(prdc(self._real_rows, self._subset(samples.features), K))
        return self._evaluation(values, fake_images.shape[0], quick=quick)

    def _quick_values(self, samples: Features, labels: Tensor) -> dict[str, float]:
        """Return FCD, and the accuracy where there are labels."""
        values = {"fcd": frechet_distance(self._real, statistics(samples.features))}
        if self._net.labelled:
            values["accuracy"] = sample_accuracy(samples.predicted, labels.cpu())
        return values

    @cached_property
    def _neighbour_floors(self) -> dict[str, float]:
        return asdict(prdc(self._real_rows, self._holdout_rows, K))

    def _subset(self, features: Tensor) -> Tensor:
        """Return the rows for the neighbours, float32, (min(N, num_prdc), 128): any order of labels comes in."""
        order = torch.randperm(features.shape[0], generator=torch.Generator().manual_seed(_SUBSET_SEED))
        return features[order[: self._num_prdc]]

    def _evaluation(self, values: dict[str, float], n: int, *, quick: bool) -> Evaluation:
        """Put each value beside its floor and its numbers of pictures."""
        floors = self._quick_floors if quick else self._quick_floors | self._neighbour_floors
        counts = {"fcd": (self._real.n, n, self._n_floor), "accuracy": (0, n, self._n_floor)}
        neighbours = (len(self._real_rows), min(n, self._num_prdc), len(self._holdout_rows))
        return Evaluation(
            metrics=tuple(
                Metric(name, value, floors[name], *counts.get(name, neighbours)) for name, value in values.items()
            ),
            feature_space=self._net.name,
            feature_digest=self._digest,
            k=K,
            quick=quick,
        )
