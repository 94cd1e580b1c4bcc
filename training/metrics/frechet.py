"""The Frechet distance between two sets of features, each seen as a Gaussian."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ROWS = 8192  # at a time: 60,000 rows of 2,048 features twice in float64 would be 2 GB


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and covariance of a set of features.

    Attributes:
        mean: float64, (D,).
        cov: Unbiased covariance, float64, (D, D), symmetric.
        n: Number of rows it was taken from. The distance is biased upwards by O(1 / n), so it is kept for the report.
    """

    mean: Tensor
    cov: Tensor
    n: int


def statistics(features: Tensor) -> Statistics:
    """Return mean and covariance of features, summed in float64.

    Args:
        features: One row per picture, any floating type, (N, D), finite.

    Returns:
        Their statistics, float64.

    Raises:
        ValueError: If `features` is not (N, D) with N >= 2, or holds a value that is not finite.
    """
    if features.ndim != 2 or features.shape[0] < 2:
        raise ValueError(f"features must be (N, D) with N >= 2, got {tuple(features.shape)}")
    if not bool(torch.isfinite(features).all()):
        raise ValueError("features must be finite")
    mean = features.mean(dim=0, dtype=torch.float64)
    cov = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=mean.device)
    for rows in features.split(_ROWS):
        centred = rows.to(torch.float64) - mean
        cov.addmm_(centred.T, centred)
    cov /= features.shape[0] - 1
    return Statistics(mean=mean, cov=(cov + cov.T) / 2, n=features.shape[0])


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """Return the squared Frechet distance between two Gaussians: |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)).

    In the features of `features.FeatureNet` this is FCD, the Frechet classifier distance. It is not FID, which is the
    same formula in one particular Inception network (`fid.Fid`), and its values do not compare with FID's.

    Args:
        a: Statistics of one set, float64, D features.
        b: Statistics of the other set, float64, D features.

    Returns:
        Distance in [0, inf), symmetric in `a` and `b`.

    Raises:
        ValueError: If the two have different numbers of features.

    Dowson and Landau 1982, "The Frechet distance between multivariate normal distributions"; as a score for samples,
    Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium",
    arXiv:1706.08500.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"statistics must have the same features, got {tuple(a.mean.shape)} and {tuple(b.mean.shape)}")
    # tr (C_a C_b)^(1/2) is the sum of the roots of the eigenvalues of the symmetric R_a C_b R_a, with R = C^(1/2).
    # Those roots are the singular values of R_b R_a. Taken so, a zero eigenvalue costs 1e-16 and not its root, 1e-8,
    # which is what keeps singular covariances (fewer pictures than features, dead features) exact.
    cross = torch.linalg.svdvals(_root(b.cov) @ _root(a.cov)).sum()
    distance = (a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * cross
    return max(0.0, float(distance))


def _root(cov: Tensor) -> Tensor:
    """Return the symmetric square root of a covariance; eigenvalues that rounding made negative count as zero."""
    values, vectors = torch.linalg.eigh(cov)
    root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    return root
