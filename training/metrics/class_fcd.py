"""FCD class by class: what the distance of the whole set averages away."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.metrics.features import FEATURES
from training.metrics.frechet import frechet_distance, statistics

ENOUGH = FEATURES + 1
"""Pictures that a class needs on every side: with fewer a covariance is singular.

Even so most of it is bias there: on Fashion-MNIST the floor is 0.23 at 1,000 pictures of a class, 0.75 at 250 and 1.48
at 129. So read a value beside its floor, which has the same bias.
"""


@dataclass(frozen=True)
class ClassDistance:
    """FCD of one class.

    Attributes:
        label: The class.
        value: Of its samples against its training pictures.
        floor: Of its hold-out pictures against the same.
        n_real: Training pictures.
        n: Samples behind `value`, and hold-out pictures behind `floor`: the same number, so their bias is the same.
    """

    label: int
    value: float
    floor: float
    n_real: int
    n: int


def class_distances(
    real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor], holdout: tuple[Tensor, Tensor], num_classes: int
) -> list[ClassDistance]:
    """Return the Frechet distance of every class that has at least `ENOUGH` pictures on all three sides.

    The bias of a Frechet distance grows as 1 / n, so the larger of samples and hold-out pictures is cut to the number
    of the smaller; the rows that come first are kept.

    Args:
        real: Features of training pictures, (N, 128), and their labels, int64 (N,).
        fake: Features of samples and the labels they were made with.
        holdout: Features of hold-out pictures and their labels.
        num_classes: Number of classes.

    Returns:
        A distance per class with enough pictures, in the order of the classes; none if there are none.

    "Intra FID" of Miyato and Koyama 2018, "cGANs with Projection Discriminator", arXiv:1802.05637, in this space.
    """
    found = []
    for label in range(num_classes):
        of_class = [features[labels.to(features.device) == label] for features, labels in (real, fake, holdout)]
        if min(len(rows) for rows in of_class) < ENOUGH:
            continue
        reference, n = statistics(of_class[0]), min(len(of_class[1]), len(of_class[2]))
        value, floor = (frechet_distance(reference, statistics(rows[:n])) for rows in of_class[1:])
        found.append(ClassDistance(label, value, floor, reference.n, n))
    return found


def class_counts(labels: Tensor, num_classes: int) -> list[int]:
    """Return how many of `labels`, int64 (N,), are of each class."""
    return torch.bincount(labels.cpu(), minlength=num_classes).tolist()
