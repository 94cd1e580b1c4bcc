"""One picture: any mode, upright, fitted into the square, with the alpha that was asked for."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from training.alpha import border_colour, from_border, from_threshold
from training.readers.raw import AlphaSource, Fit, Pixels

CUTS = {"border": from_border, "threshold": from_threshold}


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what Pillow says about damaged metadata and the like; a picture is read or it is not.

    Filters belong to the process, so this stands around a pool of threads, never inside one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_image(path: Path, size: int, mode: str, alpha: AlphaSource = "file", fit: Fit = "crop") -> Pixels:
    """Return a picture, upright and fitted into a square (Lanczos).

    Transparent pictures are laid on white unless alpha is kept; 16-bit greys are scaled to 8 bits.

    Args:
        path: The file.
        size: Height and width of the result.
        mode: "L", "RGB" or "RGBA".
        alpha: Where the alpha of "RGBA" comes from: the "file", a plain background that touches the "border", or a
            "threshold" of the distance from the border's colour.
        fit: "crop" to the central square, "pad" with the border's median colour (transparency in "RGBA"), or "stretch".

    Returns:
        uint8 (size, size, C).

    Raises:
        ValueError: If the pixels have no known range: 32-bit integers or floats.
    """
    with quiet():
        return decode(path.read_bytes(), size, mode, alpha, fit)


def decode(content: bytes, size: int, mode: str, alpha: AlphaSource = "file", fit: Fit = "crop") -> Pixels:
    """Do the work of `read_image` for a file's content; to be called inside `quiet`.

    Args:
        content: The encoded picture.
        size: Height and width of the result.
        mode: As for `read_image`.
        alpha: As for `read_image`.
        fit: As for `read_image`.

    Returns:
        uint8 (size, size, C).

    Raises:
        ValueError: If the pixels have no known range.
    """
    cut = CUTS.get(alpha) if mode == "RGBA" else None
    with Image.open(BytesIO(content)) as opened:
        opened.draft(None, (2 * size, 2 * size))  # a large JPEG is decoded at an eighth of its size or more
        image = _flat(ImageOps.exif_transpose(opened), keep_alpha=mode == "RGBA" and cut is None)
        image = fitted(image.convert("RGB" if cut else mode), size, fit)
    pixels = np.asarray(image)
    if cut is not None:
        pixels = cut(pixels)
    if mode == "RGBA":
        pixels = np.where(pixels[..., 3:] > 0, pixels, 0).astype(np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def fitted(image: Image.Image, size: int, fit: Fit) -> Image.Image:
    """Return `image` as a square of `size` pixels: cropped, padded or stretched."""
    square = size, size
    if fit == "crop":
        return ImageOps.fit(image, square, Image.Resampling.LANCZOS)
    if fit == "stretch":
        return image.resize(square, Image.Resampling.LANCZOS)
    longest = max(image.size)
    width, height = (max(1, round(side * size / longest)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    colour = (0, 0, 0, 0) if image.mode == "RGBA" else tuple(int(level) for level in border_colour(np.asarray(image)))
    padded = Image.new(image.mode, square, colour if len(colour) > 1 else colour[0])
    padded.paste(image, ((size - width) // 2, (size - height) // 2))
    return padded


def _flat(image: Image.Image, *, keep_alpha: bool) -> Image.Image:
    """Return `image` with 8 bits per channel, laid on white unless alpha is kept."""
    if image.mode in {"I", "F"}:
        raise ValueError(f"pixels of mode {image.mode!r} have no known range")
    if image.mode in {"LAB", "HSV"}:
        return image.convert("RGB")  # Pillow has no way from these to grey
    if image.mode.startswith("I;16"):
        return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    if image.has_transparency_data and not keep_alpha:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA"))
    return image
