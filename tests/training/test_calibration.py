"""Quantiles of a discriminator's scores per label."""

import pytest
import torch
from torch import Tensor

from tests.builders import tiny_generator, tiny_pictures
from training.calibration import LEVELS, calibrate
from training.errors import TrainingError
from training.generators import sample


def mean_level(pixels: Tensor, label: Tensor) -> Tensor:
    """Score pictures by their mean level, a hundred more per label."""
    return pixels.float().mean(dim=(1, 2, 3)) + 100 * label


def test_quantiles_are_those_of_the_labels_pictures() -> None:
    """Each label has its own, of its hold-out pictures and of as many samples as are noted."""
    data, generator = tiny_pictures(count=60), tiny_generator()
    entry = calibrate(mean_level, generator, data)

    assert entry.levels == list(LEVELS)
    assert len(entry.labels) == 3
    for label, scores in enumerate(entry.labels):
        real = data.holdout.images[data.holdout.labels == label]
        expected = mean_level(real, torch.full((len(real),), label)).double().quantile(torch.tensor(LEVELS).double())
        assert scores.n_holdout == len(real) == 10
        assert scores.holdout == pytest.approx(expected.tolist(), abs=1e-3)
        assert scores.samples == sorted(scores.samples)
        assert scores.n_samples == 1000
        z = torch.randn(1000, 8, generator=torch.Generator().manual_seed(label))
        median = mean_level(sample(generator, z, torch.full((1000,), label)), torch.full((1000,), label)).median()
        assert scores.samples[LEVELS.index(0.5)] == pytest.approx(median.item(), abs=0.1)


def test_set_without_labels_has_one_entry() -> None:
    """All hold-out pictures count, whatever labels their file carries."""
    (scores,) = calibrate(mean_level, tiny_generator(num_classes=0), tiny_pictures(num_classes=0)).labels

    assert scores.n_holdout == 30
    assert len(scores.holdout) == len(scores.samples) == len(LEVELS)


def test_label_without_holdout_pictures_has_none_of_their_quantiles() -> None:
    """It is said that there are none, and the samples' quantiles stay."""
    data = tiny_pictures(count=60)
    data.holdout.labels.fill_(1)
    empty, full, _ = calibrate(mean_level, tiny_generator(), data).labels

    assert (empty.n_holdout, empty.holdout) == (0, [])
    assert full.n_holdout == 30
    assert len(empty.samples) == len(LEVELS)


def test_scores_that_are_not_finite_are_refused() -> None:
    """A discriminator that has run away is not exported."""
    with pytest.raises(TrainingError, match="scores that are not finite"):
        calibrate(lambda pixels, label: mean_level(pixels, label) / 0, tiny_generator(), tiny_pictures())
