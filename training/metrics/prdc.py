"""Precision, recall, density and coverage: fidelity and diversity of samples, told apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Rows of one block of the distance matrix: 1,000 x 10,000 in float64 is 80 MB.
_CHUNK = 1000
# Two rows nearer than 1e-6 of their size are the same picture: features are float32 and were taken in batches.
_SAME = 1e-12
# A row at exactly the k-th distance is inside the ball, whichever way the two matrix products were rounded.
_TIE = 1.0 + 1e-9


@dataclass(frozen=True)
class Prdc:
    """The four measures.

    Attributes:
        precision: Share of fakes inside the real manifold, [0, 1].
        recall: Share of real pictures inside the manifold of the fakes, [0, 1].
        density: Mean number of real balls around a fake, over k; [0, inf), 1 when the distributions agree.
        coverage: Share of real balls that hold a fake, [0, 1].
    """

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: Tensor, fake: Tensor, k: int = 5) -> Prdc:
    """Return precision, recall, density and coverage of fakes against real pictures.

    The ball of a row reaches to its k-th nearest neighbour in its own set, itself not counted, border included.
    All four depend on the numbers of rows, so compare only values with the same N and M. Memory is O(N + M) and one
    block of the distances; 5,000 against 5,000 take about a second.

    Args:
        real: Features of real pictures, any floating type, (N, D), finite; N > k.
        fake: Features of generated pictures, any floating type, (M, D), finite; M > k.
        k: Neighbours that make a ball, >= 1.

    Returns:
        The four measures.

    Raises:
        ValueError: If the shapes do not fit, a set has no more than `k` rows, or a value is not finite.

    Kynkaanniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models", arXiv:1904.06991.
    Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models", arXiv:2002.09797.
    """
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(f"real and fake must be (N, D) and (M, D), got {tuple(real.shape)} and {tuple(fake.shape)}")
    if k < 1 or min(real.shape[0], fake.shape[0]) <= k:
        raise ValueError(f"k must be at least 1 and below both numbers of rows {len(real)} and {len(fake)}, got {k}")
    if not bool(torch.isfinite(real).all()) or not bool(torch.isfinite(fake).all()):
        raise ValueError("features must be finite")

    # Distances do not change under a shift, and the products below lose less in rounding near the origin.
    origin = real.to(torch.float64).mean(dim=0)
    real, fake = real.to(torch.float64) - origin, fake.to(torch.float64) - origin
    real_reach, fake_reach = _reach(real, k), _reach(fake, k)

    inside_real = 0
    balls = 0
    inside_fake = torch.zeros(real.shape[0], dtype=torch.bool, device=real.device)
    covered = torch.zeros_like(inside_fake)
    for rows, distances in _squared_distances(fake, real):
        in_real_ball = distances <= real_reach
        inside_real += int(in_real_ball.any(dim=1).sum())
        balls += int(in_real_ball.sum())
        covered |= in_real_ball.any(dim=0)
        inside_fake |= (distances <= fake_reach[rows, None]).any(dim=0)
    return Prdc(
        precision=inside_real / fake.shape[0],
        recall=int(inside_fake.sum()) / real.shape[0],
        density=balls / (k * fake.shape[0]),
        coverage=int(covered.sum()) / real.shape[0],
    )


def _reach(rows: Tensor, k: int) -> Tensor:
    """Return the squared distance of each row to its k-th neighbour in its own set, float64, (N,)."""
    # The nearest of all is the row itself, at distance 0.
    nearest = [block.topk(k + 1, dim=1, largest=False).values[:, k] for _, block in _squared_distances(rows, rows)]
    return torch.cat(nearest) * _TIE


def _squared_distances(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield squared distances of blocks of rows of `a` (N, D) to all rows of `b` (M, D), float64, (<= 1000, M)."""
    b_squares = b.square().sum(dim=1)
    for start in range(0, a.shape[0], _CHUNK):
        rows = slice(start, min(start + _CHUNK, a.shape[0]))
        squares = a[rows].square().sum(dim=1)[:, None] + b_squares
        # By a matrix product: 0.3 s for 5,000 x 5,000 x 128 on one thread, where torch.cdist without it takes 2.5 s.
        distances = torch.addmm(squares, a[rows], b.T, alpha=-2.0)
        yield rows, distances.masked_fill_(distances < squares.mul_(_SAME), 0.0)
