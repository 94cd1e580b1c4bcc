"""What pixels are, and their way into and out of Pillow."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels: TypeAlias = NDArray[np.uint8]

CHANNELS = (1, 3, 4)


def check_pixels(pixels: Pixels, ndim: int) -> None:
    """Refuse what is not a picture (`ndim` 3) or a row of pictures (`ndim` 4).

    Args:
        pixels: Expected as uint8, (H, W, C) or (N, H, W, C), C in {1, 3, 4}, no side 0.
        ndim: Number of axes.

    Raises:
        ValueError: If `pixels` is anything else.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != ndim or pixels.shape[-1] not in CHANNELS or 0 in pixels.shape:
        form = "(H, W, C)" if ndim == 3 else "(N, H, W, C)"
        raise ValueError(f"pixels must be uint8 {form} with C 1, 3 or 4, got {pixels.dtype} {pixels.shape}")


def to_image(pixels: Pixels) -> Image.Image:
    """Return one picture, uint8 (H, W, C), as a Pillow image of mode L, RGB or RGBA."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def from_image(image: Image.Image) -> Pixels:
    """Return a Pillow image of mode L, RGB or RGBA as an own array, uint8 (H, W, C)."""
    return np.array(image, np.uint8).reshape(image.height, image.width, -1)
