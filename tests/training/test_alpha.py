import numpy as np
import pytest

from training.alpha import border_colour, connected_to_border, from_border, from_threshold

WHITE, BLUE = (250, 250, 250), (20, 40, 160)


def ring(size: int = 24) -> np.ndarray:
    """Return a blue square with a white hole on white, uint8 (size, size, 3)."""
    pixels = np.full((size, size, 3), WHITE, np.uint8)
    pixels[4:-4, 4:-4] = BLUE
    pixels[10:-10, 10:-10] = WHITE
    return pixels


def test_border_keeps_what_the_object_encloses() -> None:
    """The background goes, a white spot inside the object stays."""
    found = from_border(ring())
    assert found[0, 0].tolist() == [0, 0, 0, 0]
    assert found[6, 6].tolist() == [*BLUE, 255]
    assert found[12, 12].tolist() == [*WHITE, 255]


def test_threshold_sees_through_holes() -> None:
    """Whatever has the border's colour goes, connected or not."""
    found = from_threshold(ring())
    assert found[0, 0].tolist() == found[12, 12].tolist() == [0, 0, 0, 0]
    assert found[6, 6].tolist() == [*BLUE, 255]


@pytest.mark.parametrize("cut", [from_border, from_threshold])
def test_edge_is_a_mix_without_fringe(cut: object) -> None:
    """A pixel half blue, half background gets half alpha and all of the blue."""
    pixels = ring()
    pixels[4, 5:-5] = (np.array(WHITE) + BLUE) // 2
    found = cut(pixels)[4, 12]
    assert abs(int(found[3]) - 128) <= 2
    assert np.abs(found[:3].astype(int) - BLUE).max() <= 3


@pytest.mark.parametrize("cut", [from_border, from_threshold])
def test_plain_picture_is_all_transparent(cut: object) -> None:
    """Nothing but background leaves nothing."""
    assert cut(np.full((8, 8, 3), 90, np.uint8)).max() == 0


@pytest.mark.parametrize(("level", "alpha"), [(250 - 24, 0), (250 - 25, 255)])
def test_threshold_is_the_distance_of_the_widest_channel(level: int, alpha: int) -> None:
    """24 grey levels from the border's colour are background, 25 are not."""
    pixels = np.full((20, 20, 3), WHITE, np.uint8)
    pixels[6:14, 6:14, 1] = level
    assert from_threshold(pixels)[10, 10, 3] == alpha


def test_border_colour_is_the_median_per_channel() -> None:
    """A corner that differs has no say; grey pictures have one channel."""
    pixels = ring()
    pixels[:5, :5] = 0
    assert border_colour(pixels).tolist() == list(WHITE)
    assert border_colour(pixels[..., 0]).tolist() == [250]


def test_connected_to_border_turns_corners_but_does_not_jump() -> None:
    """A winding way in is found, a diagonal gap is none."""
    mask = np.array([[1, 0, 0, 0, 0], [1, 1, 1, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]], bool)
    found = connected_to_border(mask)
    assert found[2, 2]
    assert not found[3, 3]
