"""The latents of seeds, on the side of training; the contract tests hold them to the published vectors."""

import numpy as np
import pytest
import torch

from training.latents import latents


@pytest.mark.parametrize("z_dim", [1, 2, 7, 64])
def test_latents_have_a_row_per_seed(z_dim: int) -> None:
    """Odd sizes too, for which half of the last pair is thrown away."""
    z = latents([0, 1, 2**53 - 1], z_dim)

    assert z.shape == (3, z_dim)
    assert z.dtype == torch.float32
    assert torch.isfinite(z).all()


def test_latent_depends_on_its_own_seed_only() -> None:
    """Neighbours, order and torch's own generator have no part in it; other seeds give other latents."""
    alone = latents([7], 8)
    torch.manual_seed(1)

    rows = latents([3, 7, 9, 7], 8)
    assert torch.equal(rows[1], alone[0])
    assert torch.equal(rows[3], alone[0])
    assert len({tuple(row.tolist()) for row in rows}) == 3


def test_shorter_latent_is_the_start_of_a_longer_one() -> None:
    """A seed's numbers come in one order, however many are drawn."""
    assert torch.equal(latents([5], 5), latents([5], 9)[:, :5])


def test_latents_are_standard_normal() -> None:
    """Mean, deviation, skewness and excess of many numbers are those of a normal distribution."""
    values = latents(range(2000), 64).numpy().astype(np.float64).ravel()

    assert abs(values.mean()) < 4 / np.sqrt(values.size)
    assert abs(values.std() - 1) < 4 / np.sqrt(2 * values.size)
    assert abs((values**3).mean()) < 4 * np.sqrt(15 / values.size)
    assert abs((values**4).mean() - 3) < 4 * np.sqrt(96 / values.size)


def test_numbers_of_a_latent_are_independent() -> None:
    """No two components go together, those of one pair of the Box-Muller transform included."""
    z = latents(range(4000), 6).numpy().astype(np.float64)
    for values in (z, z**2):
        off_diagonal = np.corrcoef(values, rowvar=False)[~np.eye(6, dtype=bool)]
        assert np.abs(off_diagonal).max() < 5 / np.sqrt(len(z))
