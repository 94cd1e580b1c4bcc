"""Alpha for pictures that have none: a plain background, known by the border's colour, becomes transparent."""

from typing import cast

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
TOLERANCE = 24  # grey levels from the background's colour that JPEG and its shadows reach


def from_border(pixels: Pixels, tolerance: int = TOLERANCE) -> Pixels:
    """Return a picture with the background that touches its border made transparent.

    The background's colour is the median of the border; what is connected to the border and within `tolerance` of that
    colour is background, so that a white spot inside the object stays. At the object's edge the picture is taken as a
    mix of both: alpha is how far a pixel has left the background, relative to its neighbours inside the object, and the
    background's part of the colour is taken out, which leaves no fringe.

    Args:
        pixels: RGB, uint8 (H, W, 3).
        tolerance: In grey levels, of the channel that differs most.

    Returns:
        RGBA with straight alpha, uint8 (H, W, 4); zeros where it is transparent.

    Porter and Duff 1984, "Compositing digital images", doi:10.1145/800031.808606.
    """
    colour, distance = _from_background(pixels)
    return _cut(pixels, colour, distance, connected_to_border(distance <= tolerance))


def from_threshold(pixels: Pixels, tolerance: int = TOLERANCE) -> Pixels:
    """Return a picture with all that has the border's colour made transparent, inside the object too.

    As `from_border`, but a hole through the object, which the border does not reach, becomes transparent, and so does
    a spot of the background's colour.

    Args:
        pixels: RGB, uint8 (H, W, 3).
        tolerance: In grey levels, of the channel that differs most.

    Returns:
        RGBA with straight alpha, uint8 (H, W, 4); zeros where it is transparent.
    """
    colour, distance = _from_background(pixels)
    return _cut(pixels, colour, distance, distance <= tolerance)


def border_colour(pixels: Pixels) -> Floats:
    """Return the median colour of the outermost pixels, float64 (C,), of `pixels`, uint8 (H, W, C) or (H, W)."""
    rows = pixels.reshape(*pixels.shape[:2], -1)
    return cast(Floats, np.median(np.concatenate([rows[0], rows[-1], rows[:, 0], rows[:, -1]]), axis=0))


def _from_background(pixels: Pixels) -> tuple[Floats, Floats]:
    colour = border_colour(pixels)
    return colour, np.abs(pixels - colour).max(axis=2)


def _cut(pixels: Pixels, colour: Floats, distance: Floats, background: Mask) -> Pixels:
    inside = ~background
    core = inside & ~_grown(_grown(background))
    beyond_edge, anywhere = (_neighbours(np.where(part, distance, 0.0)).max(axis=0) for part in (core, inside))
    reference = np.where(beyond_edge > 0, beyond_edge, anywhere)  # thin parts are all edge
    edge = inside & ~core
    alpha = np.where(inside, 1.0, 0.0)
    alpha[edge] = np.clip(distance[edge] / reference[edge], 0.0, 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        straight = (pixels - (1.0 - alpha[..., None]) * colour) / alpha[..., None]
    rgba = np.zeros((*pixels.shape[:2], 4), np.uint8)
    rgba[..., :3] = np.where(alpha[..., None] > 0, np.clip(np.rint(straight), 0, 255), 0)
    rgba[..., 3] = np.rint(alpha * 255)
    rgba[rgba[..., 3] == 0] = 0
    return rgba


def connected_to_border(mask: Mask) -> Mask:
    """Return the part of `mask`, (H, W), that is connected to the border by steps up, down, left or right."""
    reached = np.zeros_like(mask)
    reached[[0, -1]], reached[:, [0, -1]] = mask[[0, -1]], mask[:, [0, -1]]
    count = -1
    while count != (count := int(reached.sum())):
        reached = _grown(reached) & mask
    return reached


def _grown(mask: Mask) -> Mask:
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def _neighbours(values: Floats) -> Floats:
    """Return every pixel's 5x5 neighbourhood, (25, H, W), zeros beyond the border."""
    height, width = values.shape
    padded = np.pad(values, 2)
    return np.stack([padded[y : y + height, x : x + width] for y in range(5) for x in range(5)])
