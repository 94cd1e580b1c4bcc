"""One picture in any format; everything but PNG by Pillow."""

import io
from collections.abc import Mapping
from typing import Any, Literal, get_args

from service.encoder.layout import flatten
from service.encoder.pixels import Pixels, check_pixels, to_image
from service.encoder.png import encode_png
from service.encoder.text import check_text, xmp

StillFormat = Literal["png", "jpeg", "webp", "avif"]

WHITE = (255, 255, 255)

# Compromises of time and bytes: `make bench-png` measures them beside their neighbours, benchmarks/results/png.md
# has the figures. One thread for AVIF, as a pool calls this.
CODEC_OPTIONS: dict[str, dict[str, Any]] = {
    "jpeg": {"optimize": True},
    "webp": {"method": 2},
    "avif": {"speed": 8, "max_threads": 1},
}


def encode_still(
    pixels: Pixels,
    format: StillFormat,
    *,
    quality: int,
    text: Mapping[str, str] | None = None,
    background: tuple[int, int, int] | None = None,
) -> bytes:
    """Encode one picture.

    Args:
        pixels: uint8, (H, W, C), C in {1, 3, 4}.
        format: 'png' is without loss; the others are not.
        quality: Of the lossy formats, in [1, 100]; PNG has none.
        text: Keyword to value, embedded as text chunks in PNG and as an XMP packet (see `service.encoder.text.xmp`)
            in the others.
        background: RGB colour, each in [0, 255], to lay RGBA on; `None` keeps alpha, but JPEG, which has none, is
            laid on white.

    Returns:
        The file.

    Raises:
        ValueError: If `pixels` is not a picture, `format` is unknown, a number is out of range, `text` is not allowed
            or longer than JPEG's 65,502 bytes, or there is a `background` and no alpha.
    """
    check_pixels(pixels, 3)
    if format not in get_args(StillFormat):
        raise ValueError(f"format must be one of {get_args(StillFormat)}, got {format!r}")
    if background is not None:
        pixels = flatten(pixels, background)
    if format == "png":
        return encode_png(pixels, text=text)
    check_quality(quality)
    if format == "jpeg" and pixels.shape[-1] == 4:
        pixels = flatten(pixels, WHITE)
    options: dict[str, Any] = {"quality": quality, **CODEC_OPTIONS[format]}
    if text:
        check_text(text)
        options["xmp"] = xmp(text)
    buffer = io.BytesIO()
    to_image(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def check_quality(quality: int) -> None:
    """Refuse a quality outside [1, 100].

    Args:
        quality: Of a lossy format.

    Raises:
        ValueError: If it is out of range.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be in [1, 100], got {quality}")
