import itertools

import pytest
import torch
from torch import Tensor
from torchmetrics.image.kid import poly_mmd

from training.metrics.kid import kid, squared_mmd


def normal(seed: int, n: int, d: int = 6) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_squared_mmd_agrees_with_the_sums_over_pairs() -> None:
    """Means of (x.y / D + 1)^3 over ordered pairs of two different rows within each side, less twice that across."""
    real, fake = normal(0, 7).double(), normal(1, 5).double() + 0.3

    def kernel(x: Tensor, y: Tensor) -> float:
        return float((x @ y / 6 + 1) ** 3)

    def within(rows: Tensor) -> float:
        values = [kernel(x, y) for x, y in itertools.permutations(rows, 2)]
        return sum(values) / len(values)

    across = [kernel(x, y) for x, y in itertools.product(real, fake)]
    expected = within(real) + within(fake) - 2 * sum(across) / len(across)
    assert squared_mmd(real, fake) == pytest.approx(expected, rel=1e-12)


def test_squared_mmd_agrees_with_torchmetrics() -> None:
    """Another's implementation of the same estimate, on features of the size that we have."""
    real, fake = normal(2, 200, 128).double().abs() * 3, normal(3, 200, 128).double().abs() * 3.2
    assert squared_mmd(real, fake) == pytest.approx(float(poly_mmd(real, fake)), rel=1e-9)


def test_squared_mmd_of_two_points_is_the_closed_form() -> None:
    """All real rows at x and all fakes at -x with |x|^2 = D: 2^3 + 2^3 - 2 * 0^3 = 16."""
    assert squared_mmd(torch.ones(4, 3), -torch.ones(5, 3)) == pytest.approx(16)


def test_squared_mmd_does_not_change_under_order_sides_or_rotation() -> None:
    """Rows in another order, sides swapped, or both sets turned alike give the same value."""
    real, fake = normal(4, 40).double(), normal(5, 30).double() + 0.2
    turn = torch.linalg.qr(normal(6, 6).double()).Q
    plain = squared_mmd(real, fake)
    assert squared_mmd(real.flip(0), fake.flip(0)) == pytest.approx(plain, rel=1e-9)
    assert squared_mmd(fake, real) == pytest.approx(plain, rel=1e-9)
    assert squared_mmd(real @ turn, fake @ turn) == pytest.approx(plain, rel=1e-9)


def test_kid_of_one_distribution_is_zero_on_average_however_few_the_rows() -> None:
    """The estimate is unbiased: of 20 rows a side the mean over subsets is far below their spread."""
    found = kid(normal(7, 2000), normal(8, 2000), num_subsets=400, subset_size=20)
    assert abs(found.mean) < 5 * found.std / 400**0.5 + 0.01
    assert (found.num_subsets, found.subset_size) == (400, 20)


def test_kid_of_all_rows_is_the_estimate_itself() -> None:
    """Subsets as large as both sets are those sets, and do not differ."""
    real, fake = normal(9, 50), normal(10, 50) + 0.5
    found = kid(real, fake, num_subsets=3, subset_size=1000)
    assert found.mean == pytest.approx(squared_mmd(real, fake), rel=1e-9)
    assert found.std == pytest.approx(0, abs=1e-12)
    assert found.subset_size == 50


def test_kid_grows_with_the_shift_and_repeats_with_the_seed() -> None:
    """Farther sets are farther; the same seed draws the same subsets, another one others."""
    real, near, far = normal(11, 300), normal(12, 300) + 0.2, normal(12, 300) + 1
    kwargs = {"num_subsets": 5, "subset_size": 100}
    assert 0 < kid(real, near, **kwargs).mean < kid(real, far, **kwargs).mean
    assert kid(real, near, **kwargs) == kid(real, near, **kwargs)
    assert kid(real, near, **kwargs) != kid(real, near, seed=1, **kwargs)


@pytest.mark.parametrize(
    ("real", "fake", "subsets", "message"),
    [
        ((9, 3), (9, 4), 1, "real and fake"),
        ((9,), (9, 4), 1, "real and fake"),
        ((9, 3), (1, 3), 1, "need 2 rows"),
        ((9, 3), (9, 3), 0, "1 subset"),
    ],
)
def test_kid_of_inputs_that_do_not_fit_raises(
    real: tuple[int, ...], fake: tuple[int, ...], subsets: int, message: str
) -> None:
    """Misshapen features, a single row and no subsets are refused."""
    with pytest.raises(ValueError, match=message):
        kid(torch.rand(real), torch.rand(fake), num_subsets=subsets)


def test_kid_of_non_finite_features_raises() -> None:
    """A broken feature is an error, not a distance."""
    with pytest.raises(ValueError, match="finite"):
        kid(torch.full((3, 2), float("nan")), torch.rand(3, 2))
