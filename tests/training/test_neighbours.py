"""Distances to the nearest of other rows, against the plain definition."""

import torch

from training.neighbours import nearest_distances, thumbnails


def test_distance_is_the_root_mean_square_to_the_nearest() -> None:
    """The same as by the definition, for more rows than are taken at once."""
    random = torch.Generator().manual_seed(0)
    rows, others = (torch.rand(count, 12, generator=random) * 255 for count in (300, 70))
    expected = (rows[:, None] - others[None]).square().mean(dim=2).sqrt().min(dim=1).values

    assert torch.allclose(nearest_distances(rows, others), expected, atol=1e-2)


def test_row_among_the_others_has_no_distance() -> None:
    """A copy is found, to a tenth of a grey level, far from the origin too."""
    others = torch.rand(50, 256, generator=torch.Generator().manual_seed(0)) * 20 + 230

    assert nearest_distances(others[:7], others).max() < 0.1


def test_thumbnails_are_means_in_grey_levels() -> None:
    """A picture of twice the size is averaged in squares of two pixels."""
    pixels = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = pixels.float().reshape(3, 16, 2, 16, 2, 3).mean(dim=(2, 4)).permute(0, 3, 1, 2).flatten(1)

    assert torch.allclose(thumbnails(pixels, batch_size=2), expected, atol=1e-2)


def test_thumbnails_show_what_is_seen() -> None:
    """Colours under a transparent pixel make no difference."""
    pixels = torch.randint(0, 256, (2, 16, 16, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels[..., 3] = 0

    rows = thumbnails(pixels)
    assert torch.equal(rows, torch.zeros_like(rows))
