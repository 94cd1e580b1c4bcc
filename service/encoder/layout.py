"""Pixels to pixels: contact sheets, strips, sizes and backgrounds."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from service.encoder.pixels import Pixels, check_pixels, from_image, to_image


def sheet(pixels: Sequence[Pixels], columns: int) -> Pixels:
    """Lay pictures out in rows, without gaps, in reading order.

    Cells that the last row leaves open are 0: transparent in RGBA, black otherwise.

    Args:
        pixels: At least one picture, each uint8, (H, W, C), of one shape.
        columns: Pictures per row, at least 1. With fewer pictures than that, the sheet is as wide as they are.

    Returns:
        The sheet, uint8, (rows * H, min(columns, N) * W, C).

    Raises:
        ValueError: If there is no picture, they differ in shape or `columns` is below 1.
    """
    if not pixels or len({picture.shape for picture in pixels}) > 1:
        raise ValueError(f"pictures of one shape are needed, got {[picture.shape for picture in pixels]}")
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    check_pixels(pixels[0], 3)
    height, width, channels = pixels[0].shape
    columns = min(columns, len(pixels))
    cells = np.zeros((math.ceil(len(pixels) / columns), height, columns, width, channels), np.uint8)
    for index, picture in enumerate(pixels):
        cells[index // columns, :, index % columns] = picture
    return cells.reshape(-1, columns * width, channels)


def strip(frames: Pixels) -> Pixels:
    """Lay frames side by side in one row.

    Args:
        frames: uint8, (N, H, W, C), C in {1, 3, 4}; anything else is a ValueError.

    Returns:
        The strip, uint8, (H, N * W, C).
    """
    check_pixels(frames, 4)
    count, height, width, channels = frames.shape
    return frames.transpose(1, 0, 2, 3).reshape(height, count * width, channels)


def resize(pixels: Pixels, longest_side: int) -> Pixels:
    """Scale a picture so that its longer side has the given length, with a Lanczos filter of three lobes.

    RGBA is filtered with premultiplied alpha (Pillow does so), so that the colour of transparent pixels, which nobody
    sees, does not bleed into their neighbours.

    Args:
        pixels: uint8, (H, W, C), C in {1, 3, 4}.
        longest_side: Wanted maximum of height and width, at least 1.

    Returns:
        The scaled picture, uint8, (H', W', C), no side below 1; `pixels` itself if it has that size.

    Raises:
        ValueError: If `pixels` is not a picture or `longest_side` is below 1.

    Duchon 1979, "Lanczos Filtering in One and Two Dimensions".
    """
    check_pixels(pixels, 3)
    if longest_side < 1:
        raise ValueError(f"longest_side must be at least 1, got {longest_side}")
    height, width, _ = pixels.shape
    longest = max(height, width)
    if longest == longest_side:
        return pixels
    size = (max(1, round(width * longest_side / longest)), max(1, round(height * longest_side / longest)))
    return from_image(to_image(pixels).resize(size, Image.Resampling.LANCZOS))


def flatten(pixels: Pixels, colour: tuple[int, int, int]) -> Pixels:
    """Lay RGBA on a colour.

    Args:
        pixels: uint8, (..., 4), straight alpha.
        colour: Red, green and blue, each in [0, 255].

    Returns:
        RGB, uint8, (..., 3), rounded to the nearest.

    Raises:
        ValueError: If there is no alpha or `colour` is out of range.

    Porter and Duff 1984, "Compositing Digital Images", operator "over", doi:10.1145/800031.808606.
    """
    if pixels.dtype != np.uint8 or pixels.shape[-1] != 4:
        raise ValueError(f"only RGBA pixels have a background, got {pixels.dtype} {pixels.shape}")
    if not all(0 <= part <= 255 for part in colour):
        raise ValueError(f"a colour has its parts in [0, 255], got {colour}")
    # At most 255 * 255 + 127, so 16 bits hold it.
    alpha = pixels[..., 3:].astype(np.uint16)
    blended = pixels[..., :3] * alpha + np.array(colour, np.uint16) * (255 - alpha)
    return ((blended + 127) // 255).astype(np.uint8)
