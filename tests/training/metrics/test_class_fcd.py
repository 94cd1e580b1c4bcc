import pytest
import torch
from torch import Tensor

from training.metrics.class_fcd import ENOUGH, class_distances
from training.metrics.frechet import frechet_distance, statistics

Side = tuple[Tensor, Tensor]


def side(seed: int, counts: list[int], shift: float = 0.0) -> Side:
    """Rows of each class, mixed; those of class 1 are shifted."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    rows = torch.randn(len(labels), 128, generator=torch.Generator().manual_seed(seed))
    return rows + shift * (labels == 1)[:, None], labels


def test_each_class_has_the_distance_of_its_own_rows() -> None:
    """Class by class it is the Frechet distance; the shifted class alone stands out, by |shift|^2."""
    real, fake, holdout = side(0, [400, 300]), side(1, [200, 200], shift=1.0), side(2, [200, 200])
    first, second = class_distances(real, fake, holdout, 2)
    expected = frechet_distance(*(statistics(rows[labels == 1]) for rows, labels in (real, fake)))
    assert second.value == pytest.approx(expected)
    assert second.value - second.floor == pytest.approx(128, rel=0.2)
    assert first.value == pytest.approx(first.floor, rel=0.1)
    assert (first.label, first.n_real, first.n, second.label, second.n_real) == (0, 400, 200, 1, 300)


def test_value_and_floor_are_of_as_many_rows() -> None:
    """Of 500 samples beside 150 hold-out pictures 150 are measured, or their bias would differ."""
    (found,) = class_distances(side(3, [300]), side(4, [500]), side(5, [150]), 1)
    assert found.n == 150
    assert found.value == pytest.approx(found.floor, rel=0.1)


@pytest.mark.parametrize("short", [0, 1, 2])
def test_class_with_too_few_rows_on_any_side_is_left_out(short: int) -> None:
    """With 128 rows a covariance of 128 features is singular; the next class is measured all the same."""
    counts = [[ENOUGH - 1 if place == short else ENOUGH, ENOUGH] for place in range(3)]
    found = class_distances(*(side(6 + place, counts[place]) for place in range(3)), 2)
    assert [distance.label for distance in found] == [1]
