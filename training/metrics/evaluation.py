"""All measures of a generator's samples, each beside the value that real pictures reach."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import torch
from torch import Tensor

from training.metrics.accuracy import sample_accuracy
from training.metrics.class_fcd import ENOUGH, ClassDistance, class_counts, class_distances
from training.metrics.features import FeatureNet, Features, Split, check_split, extract
from training.metrics.frechet import frechet_distance, statistics
from training.metrics.kid import NUM_SUBSETS, Kid, kid
from training.metrics.memorisation import Memorisation, MemorisationScreen
from training.metrics.prdc import prdc

K = 5
"""Neighbours of precision, recall, density and coverage."""

WORST_CLASSES = 3
"""Classes that an evaluation names: those of the largest FCD."""

# The rows for the neighbour measures are the same in every evaluation of the same data.
_SUBSET_SEED = 0


@dataclass(frozen=True)
class Metric:
    """One measured value.

    Attributes:
        name: `fcd`, `accuracy`, `precision`, `recall`, `density`, `coverage`, `kid`, `kid_std` (over its subsets),
            `fcd_class_mean`, or `fcd_class/` and the name of a class, for the worst ones.
        value: Of the samples.
        floor: Of hold-out pictures in the place of the samples: what a perfect generator would reach.
        n_real: Real pictures behind `value` and `floor`; 0 for `accuracy`, which has no reference.
        n_fake: Samples behind `value`.
        n_floor: Hold-out pictures behind `floor`. All but `accuracy` and `kid` are biased by the numbers of pictures,
            so `value` and `floor` compare fully only if this is `n_fake`, as it always is for classes.
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
        quick: Whether all but FCD and accuracy were left out. Such an evaluation is for steering only: FCD hardly feels
            lost diversity, and is not to be published without recall and coverage.
        notes: What was left out besides, and why.
    """

    metrics: tuple[Metric, ...]
    feature_space: str
    feature_digest: str
    k: int
    quick: bool
    notes: tuple[str, ...] = ()

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
        return asdict(self) | {"metrics": [asdict(metric) for metric in self.metrics], "notes": list(self.notes)}

    def to_json(self) -> str:
        """Return the evaluation as JSON on one line, every number finite."""
        return json.dumps(self.to_dict(), allow_nan=False)


class Evaluator:
    """Measures samples against one data set; beside the pictures it keeps 512 bytes of features for each.

    Args:
        net: Trained feature network of this data.
        train: Pictures and labels that the generator learns from; the reference of all measures.
        holdout: Pictures and labels that neither the generator nor `net` has seen; they give the floors.
        num_prdc: Rows on each side of precision, recall, density and coverage; fewer where there are fewer.
        num_subsets: Random subsets of KID.
        label_names: Names of the classes, for the metrics of single classes; their numbers by default.

    Attributes:
        net: As given.
        train: As given.
        holdout: As given.

    Raises:
        ValueError: If pictures or labels are of the wrong type, shape or range, the two splits differ in the size of
            their pictures, or there are no more than `K` rows for the neighbours.
    """

    def __init__(
        self,
        net: FeatureNet,
        train: Split,
        holdout: Split,
        *,
        num_prdc: int = 5000,
        num_subsets: int = NUM_SUBSETS,
        label_names: Sequence[str] = (),
    ) -> None:
        check_split(train, net.num_classes)
        check_split(holdout, net.num_classes)
        if train[0].shape[1:] != holdout[0].shape[1:]:
            raise ValueError(f"pictures differ: training {tuple(train[0].shape)}, hold-out {tuple(holdout[0].shape)}")
        if min(num_prdc, train[0].shape[0], holdout[0].shape[0]) <= K:
            raise ValueError(f"need more than {K} rows, got {len(train[0])}, {len(holdout[0])} and num_prdc {num_prdc}")
        self.net, self.train, self.holdout = net, train, holdout
        self._digest = net.digest()
        self._num_prdc, self._num_subsets = num_prdc, num_subsets
        self._label_names = label_names or [str(label) for label in range(net.num_classes)]
        self._real_features = extract(net, train[0]).features
        self._real = statistics(self._real_features)
        self._held_out = extract(net, holdout[0])
        self._quick_floors = self._quick_values(self._held_out, holdout[1])

    def floors(self) -> Evaluation:
        """Return the measures of the hold-out pictures against the training pictures: real against real.

        Returns:
            An evaluation whose values are their own floors.
        """
        return self._measure(self._held_out, self.holdout[1], quick=False)

    def score(self, fake_images: Tensor, fake_labels: Tensor | None, *, quick: bool = False) -> Evaluation:
        """Return the measures of samples against the training pictures.

        FCD takes all training pictures and all samples, KID random subsets of them, the neighbour measures a fixed
        random `num_prdc` of each, FCD by class as many samples as there are hold-out pictures of the class.

        Args:
            fake_images: Samples, uint8, (N, H, W, C), of the size of the real pictures; 10,000 by custom.
            fake_labels: Labels they were made with, int64, (N,), in [0, num_classes); not read if the feature network
                has no labels.
            quick: Measure FCD and accuracy only.

        Returns:
            The values beside their floors.

        Raises:
            ValueError: If samples or labels are of the wrong type, shape or range, or are too few: 2, and `K` + 1
                unless `quick`.
        """
        self._check_size(fake_images)
        if fake_labels is None:
            if self.net.labelled:
                raise ValueError(f"{self.net.name} needs the labels of the samples, got none")
            fake_labels = torch.zeros(fake_images.shape[0], dtype=torch.int64)
        check_split((fake_images, fake_labels), self.net.num_classes)
        return self._measure(extract(self.net, fake_images), fake_labels, quick=quick)

    def memorisation(self, fake_images: Tensor) -> Memorisation:
        """Return how near samples are to training pictures, in pixels and in this feature space.

        Args:
            fake_images: Samples, uint8, (N, H, W, C), of the size of the real pictures.

        Returns:
            Distances beside those of hold-out pictures, C_T, and the closest pairs.

        Raises:
            ValueError: If the samples are of the wrong type or shape.
        """
        self._check_size(fake_images)
        return self._screen.screen(fake_images, extract(self.net, fake_images).features)

    def _check_size(self, fake_images: Tensor) -> None:
        size = self.train[0].shape[1:]
        if fake_images.shape[1:] != size:
            raise ValueError(f"samples must be (N, {', '.join(map(str, size))}), got {tuple(fake_images.shape)}")

    def _measure(self, samples: Features, labels: Tensor, *, quick: bool) -> Evaluation:
        n, n_floor = len(samples.features), len(self.holdout[0])
        n_real = {"fcd": self._real.n, "accuracy": 0}
        metrics = [
            Metric(name, value, self._quick_floors[name], n_real[name], n, n_floor)
            for name, value in self._quick_values(samples, labels).items()
        ]
        notes: list[str] = []
        if not quick:
            metrics += self._neighbours(samples.features)
            metrics += self._kernel_distance(samples.features)
            metrics += self._by_class(samples.features, labels, notes)
        return Evaluation(tuple(metrics), self.net.name, self._digest, K, quick, tuple(notes))

    def _quick_values(self, samples: Features, labels: Tensor) -> dict[str, float]:
        """Return FCD, and the accuracy where there are labels."""
        values = {"fcd": frechet_distance(self._real, statistics(samples.features))}
        if self.net.labelled:
            values["accuracy"] = sample_accuracy(samples.predicted, labels.cpu())
        return values

    def _neighbours(self, features: Tensor) -> list[Metric]:
        """Return precision, recall, density and coverage."""
        fake = self._subset(features)
        counts = (len(self._real_rows), len(fake), len(self._holdout_rows))
        found = asdict(prdc(self._real_rows, fake, K))
        return [Metric(name, value, self._neighbour_floors[name], *counts) for name, value in found.items()]

    def _kernel_distance(self, features: Tensor) -> list[Metric]:
        """Return KID's mean and standard deviation; its subsets are drawn from the numbers of pictures they name."""
        found, floor = kid(self._real_features, features, num_subsets=self._num_subsets), self._kid_floor
        counts = (self._real.n, len(features), len(self.holdout[0]))
        return [Metric("kid", found.mean, floor.mean, *counts), Metric("kid_std", found.std, floor.std, *counts)]

    def _by_class(self, features: Tensor, labels: Tensor, notes: list[str]) -> list[Metric]:
        """Return the mean FCD over classes and that of the worst ones; what is missing goes to `notes`."""
        if not self.net.labelled:
            notes.append("no FCD by class and no accuracy: the data has no labels")
            return []
        sides = (self._real_features, self.train[1]), (features, labels), (self._held_out.features, self.holdout[1])
        found = class_distances(*sides, self.net.num_classes)
        if len(found) < self.net.num_classes:
            notes.append(self._missing_classes(found, labels))
        if not found:
            return []
        worst = sorted(found, key=lambda distance: -distance.value)[:WORST_CLASSES]
        total = sum(distance.n for distance in found)
        mean = Metric(
            "fcd_class_mean",
            sum(distance.value for distance in found) / len(found),
            sum(distance.floor for distance in found) / len(found),
            sum(distance.n_real for distance in found),
            total,
            total,
        )
        return [mean] + [
            Metric(f"fcd_class/{self._label_names[of.label]}", of.value, of.floor, of.n_real, of.n, of.n)
            for of in worst
        ]

    def _missing_classes(self, found: list[ClassDistance], labels: Tensor) -> str:
        """Say how many classes have no FCD, and on which side they are short of pictures."""
        classes = self.net.num_classes
        sides = {"training pictures": self.train[1], "hold-out pictures": self.holdout[1], "samples": labels}
        short = [
            f"{few} of them in {side}"
            for side, of_side in sides.items()
            if (few := sum(count < ENOUGH for count in class_counts(of_side, classes)))
        ]
        return (
            f"FCD by class covers {len(found)} of {classes} classes: the others have fewer than {ENOUGH} pictures "
            f"({', '.join(short)})"
        )

    @cached_property
    def _real_rows(self) -> Tensor:
        return self._subset(self._real_features)

    @cached_property
    def _holdout_rows(self) -> Tensor:
        return self._subset(self._held_out.features)

    @cached_property
    def _neighbour_floors(self) -> dict[str, float]:
        return asdict(prdc(self._real_rows, self._holdout_rows, K))

    @cached_property
    def _kid_floor(self) -> Kid:
        return kid(self._real_features, self._held_out.features, num_subsets=self._num_subsets)

    @cached_property
    def _screen(self) -> MemorisationScreen:
        real, held_out = (self.train[0], self._real_features), (self.holdout[0], self._held_out.features)
        return MemorisationScreen(self.net, real, held_out)

    def _subset(self, features: Tensor) -> Tensor:
        """Return the rows for the neighbours, float32, (min(N, num_prdc), 128): any order of labels comes in."""
        order = torch.randperm(features.shape[0], generator=torch.Generator().manual_seed(_SUBSET_SEED))
        return features[order[: self._num_prdc]]
