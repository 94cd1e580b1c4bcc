import pytest
import scipy.stats
import torch
from torch import Tensor

from training.metrics.copying import cell_centres, copying_score, mann_whitney_z


def uniform(seed: int, n: int) -> Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(seed))


def test_z_of_disjoint_values_is_the_closed_form() -> None:
    """3 values below 4 others win no pair: (0 - 6) / sqrt(3 * 4 * 8 / 12) = -6 / sqrt(8)."""
    assert mann_whitney_z(torch.arange(3.0), torch.arange(4.0) + 10) == pytest.approx(-6 / 8**0.5)


@pytest.mark.parametrize("levels", [4, 1000])
def test_z_agrees_with_scipy(levels: int) -> None:
    """With many ties and with few it is scipy's statistic and p-value, without its continuity correction."""
    a, b = (uniform(0, 80) * levels).floor(), (uniform(1, 50) * levels * 1.2).floor()
    z = mann_whitney_z(a, b)
    expected = scipy.stats.mannwhitneyu(
        a.double(), b.double(), alternative="less", method="asymptotic", use_continuity=False
    )
    assert scipy.stats.norm.cdf(z) == pytest.approx(expected.pvalue, rel=1e-9)


def test_z_changes_sign_with_the_sides_and_is_zero_for_equal_values() -> None:
    """Swapped sides give the opposite, and values that are all equal give nothing."""
    a, b = uniform(2, 30), uniform(3, 40) + 0.2
    assert mann_whitney_z(a, b) == pytest.approx(-mann_whitney_z(b, a))
    assert mann_whitney_z(torch.zeros(5), torch.zeros(7)) == 0


def test_score_is_the_mean_over_cells_by_holdout_pictures() -> None:
    """Copies in one cell lower the score by that cell's share, and cells with too few of a side do not count."""
    distances, cells = uniform(4, 240), torch.arange(240) % 3
    held, held_cells = uniform(5, 160), torch.tensor([0, 0, 0, 1]).repeat(40)
    expected = sum(
        weight * mann_whitney_z(distances[cells == cell], held[held_cells == cell])
        for cell, weight in ((0, 0.75), (1, 0.25))
    )
    assert copying_score((distances, cells), (held, held_cells)) == pytest.approx(expected)
    copied = torch.where(cells == 1, 0.0, distances)
    assert copying_score((copied, cells), (held, held_cells)) < expected - 1


def test_score_of_few_pictures_takes_them_as_one_cell() -> None:
    """Where no cell has enough the whole is one cell."""
    fake, held = uniform(6, 30), uniform(7, 30)
    cells = torch.arange(30) % 10
    assert copying_score((fake, cells), (held, cells)) == mann_whitney_z(fake, held)


def test_centres_of_apart_groups_are_their_means() -> None:
    """Lloyd's rounds end at the means of groups that are far apart, and repeat."""
    group = torch.arange(90) % 2
    rows = torch.randn(90, 4, generator=torch.Generator().manual_seed(8)) + 100.0 * group[:, None]
    centres = cell_centres(rows, 2)
    expected = torch.stack([rows[group == 0].mean(0), rows[group == 1].mean(0)])
    torch.testing.assert_close(centres[centres[:, 0].argsort()], expected)
    assert torch.equal(cell_centres(rows, 2), centres)


def test_fewer_rows_than_cells_are_cells_of_their_own() -> None:
    """Three pictures make three cells."""
    assert cell_centres(torch.eye(3), 10).shape == (3, 3)
