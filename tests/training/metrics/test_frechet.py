import pytest
import scipy.linalg
import torch
from torch import Tensor

from training.metrics.frechet import Statistics, frechet_distance, statistics


def gaussian(mean: Tensor, cov: Tensor) -> Statistics:
    return Statistics(mean=mean.double(), cov=cov.double(), n=1000)


def mixed(seed: int, n: int, d: int = 24) -> Tensor:
    """Correlated features of unlike scales, float32, (n, d)."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator) * torch.logspace(-2, 1, d)
    return torch.randn(n, d, generator=generator) @ mixing + torch.randn(d, generator=generator)


def test_statistics_have_unbiased_covariance_in_float64() -> None:
    """Mean and covariance are torch's own of the same rows in float64, divided by n - 1."""
    features = mixed(0, 50)
    found = statistics(features)
    assert found.n == 50
    assert found.mean.dtype == found.cov.dtype == torch.float64
    torch.testing.assert_close(found.mean, features.double().mean(0))
    torch.testing.assert_close(found.cov, torch.cov(features.double().T))


def test_statistics_of_features_far_from_zero_keep_their_spread() -> None:
    """An offset of a million does not swallow a spread of one, as it would in float32 or without centring."""
    features = mixed(1, 200).double()
    torch.testing.assert_close(statistics(features + 1e6).cov, statistics(features).cov, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 4), (4,), (0, 4), (2, 3, 4)])
def test_statistics_of_too_few_or_misshapen_rows_raise(shape: tuple[int, ...]) -> None:
    """A covariance needs two rows of features."""
    with pytest.raises(ValueError, match="features must be"):
        statistics(torch.zeros(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_statistics_of_non_finite_features_raise(value: float) -> None:
    """A broken feature is an error, not a distance."""
    features = torch.zeros(4, 2)
    features[1, 1] = value
    with pytest.raises(ValueError, match="finite"):
        statistics(features)


def test_frechet_distance_of_equal_covariances_is_the_squared_shift() -> None:
    """With the same covariance only the means count: |(3, 4)|^2 = 25."""
    cov = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    assert frechet_distance(gaussian(torch.zeros(2), cov), gaussian(torch.tensor([3.0, 4.0]), cov)) == pytest.approx(25)


def test_frechet_distance_of_axis_aligned_gaussians_is_the_sum_over_axes() -> None:
    """For diagonal covariances it is the sum of (sigma_a - sigma_b)^2: (1 - 4)^2 + (2 - 3)^2 = 10."""
    a = gaussian(torch.zeros(2), torch.diag(torch.tensor([1.0, 4.0])))
    b = gaussian(torch.zeros(2), torch.diag(torch.tensor([16.0, 9.0])))
    assert frechet_distance(a, b) == pytest.approx(10)


def test_frechet_distance_to_itself_is_zero() -> None:
    """Identical statistics are at distance 0, to rounding and never below."""
    features = statistics(mixed(2, 500))
    assert 0 <= frechet_distance(features, features) < 1e-9


def test_frechet_distance_is_symmetric() -> None:
    """Real against fake is fake against real."""
    a, b = statistics(mixed(3, 300)), statistics(mixed(4, 300))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)


def test_frechet_distance_of_singular_covariances_is_exact() -> None:
    """Covariances of rank one at right angles share nothing: the distance is the sum of the traces."""
    a = gaussian(torch.zeros(3), torch.diag(torch.tensor([4.0, 0.0, 0.0])))
    b = gaussian(torch.zeros(3), torch.diag(torch.tensor([0.0, 9.0, 0.0])))
    assert frechet_distance(a, b) == pytest.approx(13, abs=1e-12)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)


def test_frechet_distance_of_fewer_rows_than_features_to_itself_is_zero() -> None:
    """Ten pictures in 24 features leave a covariance of rank nine, whose rounding must not show."""
    features = statistics(mixed(5, 10))
    assert frechet_distance(features, features) < 1e-9


def test_frechet_distance_to_a_single_point_is_mean_and_trace() -> None:
    """A collapsed generator has no covariance; what is left is |shift|^2 + tr C."""
    spread = gaussian(torch.zeros(2), torch.tensor([[2.0, 1.0], [1.0, 3.0]]))
    point = gaussian(torch.tensor([1.0, 2.0]), torch.zeros(2, 2))
    assert frechet_distance(spread, point) == pytest.approx(5 + 5)


def test_frechet_distance_does_not_change_under_a_rotation() -> None:
    """Turning both sets of features turns no distance."""
    a, b = mixed(6, 300).double(), mixed(7, 300).double()
    turn = torch.linalg.qr(torch.randn(24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(8))).Q
    plain = frechet_distance(statistics(a), statistics(b))
    assert frechet_distance(statistics(a @ turn), statistics(b @ turn)) == pytest.approx(plain, rel=1e-9)


def test_frechet_distance_agrees_with_scipy_square_root() -> None:
    """The formula with scipy's square root of the product of the covariances gives the same number."""
    a, b = statistics(mixed(9, 400)), statistics(mixed(10, 400))
    root = scipy.linalg.sqrtm((a.cov @ b.cov).numpy())
    expected = (a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * root.trace().real
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-9)


def test_frechet_distance_between_unlike_features_raises() -> None:
    """Statistics of different feature spaces do not compare."""
    with pytest.raises(ValueError, match="same features"):
        frechet_distance(statistics(torch.rand(9, 2)), statistics(torch.rand(9, 3)))
