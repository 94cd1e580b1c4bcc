from pathlib import Path

import pytest
import torch

from tests.training.metrics.pictures import stripes
from training.metrics.cas import PIXELS, CasPlan, plan, real_floor, train_and_test


def test_classifier_trained_on_good_samples_knows_real_pictures() -> None:
    """Pictures of the right distribution teach it; wrong labels teach it the opposite."""
    images, labels = stripes(512, 0)
    holdout = stripes(128, 1)
    good, wrong = (train_and_test((images, taught), holdout, 2, 8) for taught in (labels, 1 - labels))
    assert good.accuracy > 0.95
    assert wrong.accuracy < 0.05
    assert good.digest != wrong.digest
    assert (good.num_images, good.n_holdout) == (512, 128)


def test_without_labels_there_is_nothing_to_learn() -> None:
    """One class or none is refused."""
    with pytest.raises(ValueError, match="at least 2 classes"):
        train_and_test((stripes(8, 0)[0], torch.zeros(8, dtype=torch.int64)), stripes(8, 1), 1, 1)


@pytest.mark.parametrize(
    ("available", "size", "num_images", "epochs"),
    [(10_000, 28, 10_000, 6), (60_000, 28, 20_000, 3), (10_000, 64, 3828, 3), (100, 28, 100, 30), (10, 5000, 1, 3)],
)
def test_plan_keeps_to_the_budget(available: int, size: int, num_images: int, epochs: int) -> None:
    """Few pictures are shown often, many or large ones three times, as many as the budget holds."""
    found = plan(available, size, size)
    assert (found.num_images, found.epochs) == (num_images, epochs)
    assert num_images == 1 or found.num_images * found.epochs * size**2 <= PIXELS


def test_floor_is_trained_once(tmp_path: Path) -> None:
    """The classifier of real pictures is kept; another plan makes another one."""
    path, train, holdout = tmp_path / "floor", stripes(256, 0), stripes(64, 1)
    spent = CasPlan(64, 3)
    first = real_floor(train, holdout, 2, spent, path)
    stamp = path.stat().st_mtime_ns
    assert real_floor(train, holdout, 2, spent, path) == first
    assert path.stat().st_mtime_ns == stamp
    assert real_floor(train, holdout, 2, CasPlan(32, 3), path).digest != first.digest
    assert (first.num_images, first.n_holdout) == (64, 64)
