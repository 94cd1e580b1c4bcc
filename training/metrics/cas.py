"""Classification accuracy score: what a classifier learns about real pictures from samples alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from training.metrics.feature_store import load_or_train, read_card
from training.metrics.feature_training import holdout_accuracy, train_feature_net
from training.metrics.features import Split

PIXELS = 60_000 * 28 * 28
"""Pixels that a training sees in all: less than a minute of one core, at any size of picture."""

MIN_EPOCHS, MAX_EPOCHS = 3, 30
_SEED = 0


@dataclass(frozen=True)
class CasPlan:
    """How the budget is spent.

    Attributes:
        num_images: Pictures to train on.
        epochs: Passes over them.
    """

    num_images: int
    epochs: int


@dataclass(frozen=True)
class Cas:
    """Accuracy on hold-out pictures of a classifier.

    Attributes:
        accuracy: In [0, 1].
        digest: `FeatureNet.digest` of the classifier.
        num_images: Pictures that it was trained on.
        n_holdout: Pictures that it was tested on.
    """

    accuracy: float
    digest: str
    num_images: int
    n_holdout: int


def plan(available: int, height: int, width: int) -> CasPlan:
    """Return how many pictures to train on and how often, within `PIXELS`.

    Args:
        available: Pictures there are, of samples and of training pictures: the smaller number.
        height: Of a picture.
        width: Of a picture.

    Returns:
        Up to 30 passes over all of them; where three passes are too many, three over fewer pictures.
    """
    views = PIXELS // (height * width)
    num_images = max(1, min(available, views // MIN_EPOCHS))
    return CasPlan(num_images, min(MAX_EPOCHS, max(MIN_EPOCHS, views // num_images)))


def train_and_test(train: Split, holdout: Split, num_classes: int, epochs: int) -> Cas:
    """Train the feature network's architecture on some pictures and test it on hold-out pictures.

    Trained on samples this is the classification accuracy score; trained on as many real pictures, in the same way, it
    is what samples of a perfect generator would reach. The paper trains on as many samples as there are training
    pictures and a ResNet-50; its values do not compare with these.

    Args:
        train: Pictures and labels to learn from: samples with the labels they were made with, or training pictures.
        holdout: Pictures and labels to be right about.
        num_classes: Number of classes, >= 2.
        epochs: Passes over the pictures.

    Returns:
        The accuracy.

    Raises:
        ValueError: If there are no labels to learn, or pictures and labels do not fit.

    Ravuri and Vinyals 2019, "Classification Accuracy Score for Conditional Generative Models", arXiv:1905.10887.
    """
    if num_classes < 2:
        raise ValueError(f"need at least 2 classes to tell apart, got {num_classes}")
    net = train_feature_net(*train, num_classes, seed=_SEED, epochs=epochs)
    return Cas(holdout_accuracy(net, holdout), net.digest(), len(train[0]), len(holdout[0]))


def real_floor(train: Split, holdout: Split, num_classes: int, spent: CasPlan, path: Path) -> Cas:
    """Return what `train_and_test` gives for a fixed random choice of training pictures; it is kept in a file.

    Args:
        train: All training pictures and their labels.
        holdout: Pictures and labels to be right about.
        num_classes: Number of classes, >= 2.
        spent: How many of the training pictures to take, and how often.
        path: File of the trained classifier; one of other pictures or another plan is replaced.

    Returns:
        The accuracy.

    Raises:
        ValueError: If pictures and labels do not fit, or the file is damaged or something else.
    """
    order = torch.randperm(len(train[0]), generator=torch.Generator().manual_seed(_SEED))[: spent.num_images]
    chosen = train[0][order], train[1][order]
    load_or_train(path, chosen, holdout, num_classes, seed=_SEED, epochs=spent.epochs)
    card = read_card(path)
    return Cas(card.accuracy, card.digest, len(order), len(holdout[0]))
