import pytest
import torch
from torch import Tensor

from training.metrics import nearest as module
from training.metrics.nearest import PictureIndex, flat_pixels, nearest_rows


def pictures(seed: int, n: int, channels: int = 1) -> Tensor:
    """Smooth pictures, uint8, (n, 10, 9, channels): a few waves of random weight."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(0, 3, 10), torch.linspace(0, 3, 9), indexing="ij")
    waves = torch.stack([torch.sin(a * x + b * y + c) for a, b, c in torch.randint(-2, 3, (8, 3)).tolist()])
    weights = torch.randn(n, 8, channels, generator=generator)
    return (torch.einsum("kyx,nkc->nyxc", waves, weights) * 30 + 128).clamp(0, 255).to(torch.uint8)


def test_nearest_row_is_that_of_all_distances() -> None:
    """By blocks or by the matrix of all distances: the same row at the same distance."""
    queries, rows = torch.randn(300, 12), torch.randn(700, 12) + 5
    expected = torch.cdist(queries.double(), rows.double()).min(dim=1)
    found = nearest_rows(queries, rows)
    assert torch.equal(found.index, expected.indices)
    torch.testing.assert_close(found.distance, expected.values.float(), rtol=1e-5, atol=0)


def test_copied_row_is_at_exactly_zero() -> None:
    """Rounding of a matrix product far from the origin does not hide a copy."""
    rows = torch.rand(500, 128) + 100
    assert bool((nearest_rows(rows[::3], rows).distance == 0).all())


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_nearest_picture_is_that_of_all_distances(channels: int) -> None:
    """Among pictures that components describe, the nearest one by all pixels is found, in grey levels per value."""
    some, queries = pictures(0, 400, channels), pictures(1, 60, channels)
    expected = torch.cdist(flat_pixels(queries).double(), flat_pixels(some).double()).min(dim=1)
    found = PictureIndex(some).nearest(queries)
    levels = expected.values.float() / (90 * channels) ** 0.5
    assert (found.index == expected.indices).float().mean() >= 0.95
    torch.testing.assert_close(found.distance.mean(), levels.mean(), rtol=0.01, atol=0)


def test_nearest_of_noise_is_hardly_farther_than_the_nearest() -> None:
    """Where no component describes the pictures a neighbour is missed at times, never by much."""
    noise = torch.randint(256, (600, 12, 12, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    some, queries = noise[:500], noise[500:]
    exact = torch.cdist(flat_pixels(queries).double(), flat_pixels(some).double()).amin(dim=1) / 12
    found = PictureIndex(some).nearest(queries).distance
    assert bool((found >= exact - 1e-3).all())
    assert float((found / exact).mean()) < 1.02


def test_copied_picture_is_at_exactly_zero() -> None:
    """A copy is found, and named, even among noise."""
    noise = torch.randint(256, (300, 12, 12, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    found = PictureIndex(noise).nearest(noise[100:130])
    assert torch.equal(found.index, torch.arange(100, 130))
    assert bool((found.distance == 0).all())


def test_one_grey_level_is_a_distance_of_one() -> None:
    """Distances are in grey levels whatever the size of the pictures."""
    dark = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    assert PictureIndex(dark).nearest(dark + 1).distance.tolist() == [1.0]


def test_colours_that_nobody_sees_do_not_count() -> None:
    """Transparent pixels of other colours are the same picture; half alpha halves a colour."""
    one = torch.zeros(1, 8, 8, 4, dtype=torch.uint8)
    other = one.clone()
    other[..., :3] = 200
    assert PictureIndex(one).nearest(other).distance.item() == 0
    other[..., 3] = 128
    assert flat_pixels(other)[0, :4].tolist() == [100, 100, 100, 128]


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that do not divide the pictures leave none out."""
    some, queries = pictures(4, 100, 3), pictures(5, 23, 3)
    whole = PictureIndex(some).nearest(queries)
    monkeypatch.setattr(module, "_CHUNK", 7)
    monkeypatch.setattr(module, "_BLOCK_VALUES", 270 * 33)
    parts = PictureIndex(some).nearest(queries)
    torch.testing.assert_close(parts.distance, whole.distance)
