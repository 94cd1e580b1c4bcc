"""The kernel distance between two sets of features: unbiased, so that few pictures serve too."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NUM_SUBSETS = 100
SUBSET_SIZE = 1000


@dataclass(frozen=True)
class Kid:
    """Estimates of the squared maximum mean discrepancy from random subsets.

    Attributes:
        mean: Their mean. Its expectation is 0 when the distributions agree, so it may be negative.
        std: Their standard deviation, of one subset, not of the mean; too small where a side has hardly more rows than
            a subset, which then hold the same rows.
        num_subsets: How many there were.
        subset_size: Rows of each side in a subset.
    """

    mean: float
    std: float
    num_subsets: int
    subset_size: int


def kid(
    real: Tensor, fake: Tensor, *, num_subsets: int = NUM_SUBSETS, subset_size: int = SUBSET_SIZE, seed: int = 0
) -> Kid:
    """Return the squared maximum mean discrepancy of features under the kernel (x.y / D + 1)^3, over random subsets.

    In the features of `features.FeatureNet` the scale is that space's own: values do not compare with those of an
    Inception network. The same seed draws the same rows. 100 subsets of 1,000 rows of 128 take seconds on one core.

    Args:
        real: Features of real pictures, any floating type, (N, D), finite.
        fake: Features of generated pictures, any floating type, (M, D), finite.
        num_subsets: Subsets, each drawn without replacement, independently of the others.
        subset_size: Rows of each side in a subset; all of the smaller side where that has fewer.
        seed: Seed of the draws.

    Returns:
        Mean and standard deviation over the subsets.

    Raises:
        ValueError: If the shapes do not fit, a side has fewer than 2 rows, a number is too small, or a value is not
            finite.

    Binkowski et al. 2018, "Demystifying MMD GANs", arXiv:1801.01401; the unbiased estimate is equation 3 of Gretton et
    al. 2012, "A Kernel Two-Sample Test".
    """
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or real.shape[1] == 0:
        raise ValueError(f"real and fake must be (N, D) and (M, D), got {tuple(real.shape)} and {tuple(fake.shape)}")
    size = min(subset_size, real.shape[0], fake.shape[0])
    if size < 2 or num_subsets < 1:
        raise ValueError(
            f"need 2 rows of each side and 1 subset, got {len(real)}, {len(fake)} and {num_subsets} of {subset_size}"
        )
    if not bool(torch.isfinite(real).all()) or not bool(torch.isfinite(fake).all()):
        raise ValueError("features must be finite")
    generator = torch.Generator().manual_seed(seed)
    estimates = torch.tensor(
        [squared_mmd(_draw(real, size, generator), _draw(fake, size, generator)) for _ in range(num_subsets)],
        dtype=torch.float64,
    )
    return Kid(float(estimates.mean()), float(estimates.std(correction=0)), num_subsets, size)


def squared_mmd(real: Tensor, fake: Tensor) -> float:
    """Return the unbiased estimate of the squared maximum mean discrepancy under the kernel (x.y / D + 1)^3.

    Args:
        real: Features of real pictures, any floating type, (N, D), N >= 2.
        fake: Features of generated pictures, any floating type, (M, D), M >= 2.

    Returns:
        The estimate, which may be negative.
    """
    real, fake = real.to(torch.float64), fake.to(torch.float64)
    n, m = real.shape[0], fake.shape[0]
    # A row's kernel with itself is not part of the estimate: that is what makes it unbiased.
    within_real = (_kernel_sum(real, real) - _diagonal_sum(real)) / (n * (n - 1))
    within_fake = (_kernel_sum(fake, fake) - _diagonal_sum(fake)) / (m * (m - 1))
    return within_real + within_fake - 2 * _kernel_sum(real, fake) / (n * m)


def _draw(features: Tensor, size: int, generator: torch.Generator) -> Tensor:
    return features[torch.randperm(features.shape[0], generator=generator)[:size]]


def _kernel_sum(a: Tensor, b: Tensor) -> float:
    base = (a @ b.T).div_(a.shape[1]).add_(1)
    return float(base.square().mul_(base).sum())


def _diagonal_sum(rows: Tensor) -> float:
    return float(rows.square().sum(dim=1).div(rows.shape[1]).add(1).pow(3).sum())
