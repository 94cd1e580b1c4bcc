"""Attributes of pictures, against pictures whose attributes are known."""

import pytest
import torch
from torch import Tensor

from training.attributes import measure


def rectangle(height: int, width: int, colour: tuple[int, ...], background: tuple[int, ...]) -> Tensor:
    """Return one picture, uint8 (1, 20, 20, C), with a rectangle in its middle."""
    pixels = torch.tensor(background, dtype=torch.uint8).expand(1, 20, 20, len(background)).clone()
    top, left = (20 - height) // 2, (20 - width) // 2
    pixels[:, top : top + height, left : left + width] = torch.tensor(colour, dtype=torch.uint8)
    return pixels


@pytest.mark.parametrize(
    ("colour", "background"),
    [((200,), (0,)), ((90,), (255,)), ((200, 100, 50), (255, 255, 255)), ((200, 100, 50, 255), (0, 0, 0, 0))],
)
def test_extent_is_the_objects(colour: tuple[int, ...], background: tuple[int, ...]) -> None:
    """Size, width and height are the object's, whatever lies behind it, be it black, white or nothing."""
    values = measure(rectangle(10, 4, colour, background))

    assert values["size"].item() == pytest.approx(0.1)
    assert values["width"].item() == pytest.approx(0.2)
    assert values["height"].item() == pytest.approx(0.5)


def test_tone_and_colour_are_the_objects() -> None:
    """Means over the object alone; red and blue count as positive."""
    values = measure(rectangle(10, 4, (200, 100, 50, 255), (0, 0, 0, 0)))

    assert values["brightness"].item() == pytest.approx(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert values["contrast"].item() == pytest.approx(0, abs=1e-3)
    assert values["red-green"].item() == pytest.approx(100)
    assert values["blue-yellow"].item() == pytest.approx(-100)


def test_contrast_is_the_deviation_within_the_object() -> None:
    """Half of the object 40 levels darker than the other half deviates by 20."""
    pixels = rectangle(10, 4, (200,), (0,))
    pixels[:, :10][pixels[:, :10] > 0] = 160

    assert measure(pixels)["contrast"].item() == pytest.approx(20)


def test_grey_pictures_have_no_colours() -> None:
    """What cannot be measured is not there."""
    assert set(measure(rectangle(4, 4, (200,), (0,)))) == {"brightness", "contrast", "size", "width", "height"}


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_empty_picture_has_finite_attributes(channels: int) -> None:
    """Without an object every attribute is zero, not a division by zero."""
    values = measure(torch.zeros(2, 16, 16, channels, dtype=torch.uint8))

    assert {name: value.tolist() for name, value in values.items()} == {name: [0.0, 0.0] for name in values}
