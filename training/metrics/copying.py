"""Whether samples lie nearer to the training pictures than pictures that nobody has trained on do."""

from __future__ import annotations

import torch
from torch import Tensor

from training.metrics.nearest import nearest_rows

NUM_CELLS = 10
ENOUGH = 20
"""Distances of either side that a cell needs for the normal approximation of the rank sum."""

_ROUNDS = 10
_CENTRE_ROWS = 10_000


def mann_whitney_z(a: Tensor, b: Tensor) -> float:
    """Return how many standard deviations `a` stands above `b` in rank, ties at their mean rank.

    Args:
        a: Values, any floating type, (N,), N >= 1.
        b: Values, any floating type, (M,), M >= 1.

    Returns:
        The Mann-Whitney statistic, standardised; about normal if both come from one distribution, 0 if all are equal.

    Mann and Whitney 1947, "On a Test of Whether one of Two Random Variables is Stochastically Larger than the Other".
    """
    n, m = a.shape[0], b.shape[0]
    _, place, counts = torch.unique(torch.cat([a, b]), return_inverse=True, return_counts=True)
    ties = counts.to(torch.float64)
    ranks = ties.cumsum(0) - (ties - 1) / 2
    wins = float(ranks[place[:n]].sum()) - n * (n + 1) / 2
    total = n + m
    tied = float((ties**3 - ties).sum()) / (total * (total - 1))
    variance = n * m / 12 * (total + 1 - tied)
    return (wins - n * m / 2) / float(variance**0.5) if variance > 1e-9 else 0.0


def copying_score(fake: tuple[Tensor, Tensor], holdout: tuple[Tensor, Tensor], num_cells: int = NUM_CELLS) -> float:
    """Return C_T: below 0 samples are nearer to the training pictures than hold-out pictures are, above 0 farther.

    The Mann-Whitney z of the distances is taken in each cell that holds at least `ENOUGH` of both sides, and averaged
    with the hold-out pictures of the cells as weights; where no cell does, all are one cell. The paper says that
    scores far below -3 are copies. So are, to this score, smooth pictures, which are near to everything; and it grows
    with the root of the numbers of pictures. Distances reach over the borders of cells; those of the paper do not.

    Args:
        fake: Distances of samples to their nearest training picture, (N,), and the cells of the samples, int64 (N,).
        holdout: The same of hold-out pictures.
        num_cells: Number of cells; all cells are below it.

    Returns:
        The score.

    Meehan et al. 2020, "A Non-Parametric Test to Detect Data-Copying in Generative Models", arXiv:2004.05675.
    """
    weighted, weights = 0.0, 0
    for cell in range(num_cells):
        of_fake, of_holdout = fake[0][fake[1] == cell], holdout[0][holdout[1] == cell]
        if min(len(of_fake), len(of_holdout)) >= ENOUGH:
            weighted += len(of_holdout) * mann_whitney_z(of_fake, of_holdout)
            weights += len(of_holdout)
    return weighted / weights if weights else mann_whitney_z(fake[0], holdout[0])


def cell_centres(features: Tensor, num_cells: int = NUM_CELLS) -> Tensor:
    """Return the centres of cells: k-means of at most 10,000 rows, from a fixed seed.

    Args:
        features: Features of training pictures, float32, (N, D), N >= 1.
        num_cells: Cells; fewer rows give as many cells as rows.

    Returns:
        Centres, float32, (min(N, num_cells), D).

    Lloyd 1982, "Least Squares Quantization in PCM".
    """
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))[:_CENTRE_ROWS]
    rows = features[order]
    centres = rows[:num_cells].clone()
    for _ in range(_ROUNDS):
        cell = nearest_rows(rows, centres).index
        count = torch.bincount(cell, minlength=len(centres))
        sums = torch.zeros_like(centres).index_add_(0, cell, rows)
        centres = torch.where(count[:, None] > 0, sums / count.clamp_min(1)[:, None], centres)
    return centres
