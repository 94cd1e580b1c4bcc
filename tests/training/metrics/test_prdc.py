import itertools

import pytest
import torch
from torch import Tensor

from training.metrics import prdc as module
from training.metrics.prdc import Prdc, prdc


def normal(seed: int, n: int, d: int = 4) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(real: Tensor, fake: Tensor, k: int) -> Prdc:
    """The papers' sums, one pair at a time."""

    def distance(a: Tensor, b: Tensor) -> float:
        return float((a - b).square().sum().sqrt())

    def reach(rows: Tensor) -> list[float]:
        return [
            sorted(distance(row, other) for j, other in enumerate(rows) if j != i)[k - 1] for i, row in enumerate(rows)
        ]

    real_reach, fake_reach = reach(real), reach(fake)
    between = [[distance(x, y) for y in fake] for x in real]
    pairs = list(itertools.product(range(len(real)), range(len(fake))))
    in_real = {(i, j) for i, j in pairs if between[i][j] <= real_reach[i]}
    in_fake = {(i, j) for i, j in pairs if between[i][j] <= fake_reach[j]}
    return Prdc(
        precision=len({j for _, j in in_real}) / len(fake),
        recall=len({i for i, _ in in_fake}) / len(real),
        density=len(in_real) / (k * len(fake)),
        coverage=len({i for i, _ in in_real}) / len(real),
    )


@pytest.mark.parametrize(
    ("n", "m", "k", "shift"), [(30, 30, 5, 0.5), (25, 40, 3, 1.5), (40, 25, 1, 0.0), (12, 8, 7, 3)]
)
def test_prdc_agrees_with_the_definition(n: int, m: int, k: int, shift: float) -> None:
    """The blocked computation gives the papers' sums over all pairs."""
    real, fake = normal(0, n), normal(1, m) + shift
    assert prdc(real, fake, k) == by_definition(real, fake, k)


def test_prdc_does_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that do not divide the rows leave none out and count none twice."""
    real, fake = normal(2, 50), normal(3, 45)
    whole = prdc(real, fake)
    monkeypatch.setattr(module, "_CHUNK", 7)
    assert prdc(real, fake) == whole


def test_prdc_of_identical_sets_is_perfect() -> None:
    """Equal sets: everything is inside, and each fake lies in k + 1 real balls on average."""
    rows = normal(4, 200, 16).float()
    found = prdc(rows, rows.clone())
    assert (found.precision, found.recall, found.coverage) == (1.0, 1.0, 1.0)
    assert found.density == pytest.approx(6 / 5)


def test_prdc_of_disjoint_sets_is_zero() -> None:
    """Sets far apart share nothing."""
    assert prdc(normal(5, 50), normal(6, 50) + 100) == Prdc(0.0, 0.0, 0.0, 0.0)


def test_prdc_of_a_border_row_counts_it_as_inside() -> None:
    """A fake at exactly the k-th distance is in the ball, though the products round it, far from the origin."""
    direction = normal(17, 1, 128)
    real = torch.tensor([[0.0], [1.0], [2.0], [3.0]]).double() * direction + 10
    fake = torch.tensor([[4.0], [5.0]]).double() * direction + 10
    found = prdc(real, fake, 1)
    assert (found.precision, found.coverage) == (0.5, 0.25)


def test_prdc_of_a_collapsed_generator_has_precision_without_diversity() -> None:
    """One real picture repeated: right everywhere, and nearly nothing covered."""
    real = normal(7, 100)
    found = prdc(real, real[:1].repeat(100, 1))
    assert found.precision == 1.0
    assert found.recall == 0.01
    assert found.coverage < 0.15


def test_prdc_of_one_repeated_point_on_both_sides_is_perfect() -> None:
    """Balls of radius zero hold their own copies, though rounding moves the products."""
    rows = (normal(8, 3, 128).float() * 7).repeat_interleave(10, dim=0)
    found = prdc(rows, rows.flip(0))
    assert (found.precision, found.recall, found.coverage) == (1.0, 1.0, 1.0)


def test_density_withstands_an_outlier_that_fools_precision() -> None:
    """One far real picture makes a huge ball: fakes in it have precision 1, while density stays near 1 / k."""
    real = torch.cat([normal(9, 100, 2), torch.tensor([[40.0, 0.0]])])
    fake = normal(10, 100, 2) * 0.5 + torch.tensor([20.0, 0.0])
    found = prdc(real, fake)
    assert found.precision == 1.0
    assert found.density == pytest.approx(1 / 5)
    assert found.coverage < 0.02


def test_coverage_withstands_an_outlier_that_fools_recall() -> None:
    """One far fake makes a huge ball: real pictures in it have recall 1, while nothing is covered."""
    fake = torch.cat([normal(11, 100, 2), torch.tensor([[40.0, 0.0]])])
    real = normal(12, 100, 2) * 0.5 + torch.tensor([20.0, 0.0])
    found = prdc(real, fake)
    assert found.recall == 1.0
    assert found.coverage == 0.0


def test_density_and_coverage_of_one_distribution_reach_their_expectation() -> None:
    """For equal distributions E[density] = 1 and, for N = M, E[coverage] is about 1 - 2^-k (Naeem et al. 2020)."""
    found = prdc(normal(13, 3000, 8), normal(14, 3000, 8))
    assert found.density == pytest.approx(1.0, abs=0.05)
    assert found.coverage == pytest.approx(1 - 2**-5, abs=0.02)


@pytest.mark.parametrize(
    ("real", "fake", "k", "message"),
    [
        ((9, 3), (9, 4), 5, "real and fake"),
        ((9,), (9, 4), 5, "real and fake"),
        ((5, 3), (9, 3), 5, "k must"),
        ((9, 3), (5, 3), 5, "k must"),
        ((9, 3), (9, 3), 0, "k must"),
    ],
)
def test_prdc_of_inputs_that_do_not_fit_raises(
    real: tuple[int, ...], fake: tuple[int, ...], k: int, message: str
) -> None:
    """Misshapen features, and sets with no k-th neighbour, are refused."""
    with pytest.raises(ValueError, match=message):
        prdc(torch.rand(real), torch.rand(fake), k)


@pytest.mark.parametrize("side", [0, 1])
def test_prdc_of_non_finite_features_raises(side: int) -> None:
    """NaN would compare false and pass for a distant row."""
    sets = [normal(15, 20), normal(16, 20)]
    sets[side][3, 1] = float("nan")
    with pytest.raises(ValueError, match="finite"):
        prdc(*sets)
