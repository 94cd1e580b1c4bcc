"""Frames in any animated format; everything but PNG by Pillow."""

import io
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal, get_args

from service.encoder.pixels import Pixels, check_pixels, to_image
from service.encoder.png import encode_apng
from service.encoder.still import CODEC_OPTIONS, check_quality
from service.encoder.text import check_text, lines, xmp

AnimationFormat = Literal["png", "webp", "gif", "avif"]

# GIF counts hundredths of a second, and browsers slow a delay of one hundredth down to ten.
_TICK_MS = {"webp": 1, "avif": 1, "gif": 10}
_SHORTEST_MS = {"webp": 1, "avif": 1, "gif": 20}


def encode_animation(
    frames: Pixels,
    format: AnimationFormat,
    *,
    fps: int,
    loops: int = 0,
    quality: int = 85,
    text: Mapping[str, str] | None = None,
) -> bytes:
    """Encode frames as an animation.

    Equal neighbouring frames may become one that is shown longer. GIF has 256 colours a frame, one bit of alpha, and at
    most 50 frames per second.

    Args:
        frames: uint8, (N, H, W, C), C in {1, 3, 4}.
        format: 'png' (APNG) is without loss, and so is 'gif' for grey; the others are not.
        fps: Frames per second, in [1, 1000]. Delays are rounded so that they do not drift.
        loops: How often it plays, in [0, 65535]; 0 = for ever. AVIF is always for ever, as Pillow writes it.
        quality: Of WebP and AVIF, in [1, 100].
        text: Keyword to value, embedded as text chunks in PNG, an ASCII comment in GIF, an XMP packet in the others.

    Returns:
        The file.

    Raises:
        ValueError: If `frames` are not pictures, `format` is unknown, a number is out of range, or `text` is not
            allowed.
    """
    check_pixels(frames, 4)
    if format not in get_args(AnimationFormat):
        raise ValueError(f"format must be one of {get_args(AnimationFormat)}, got {format!r}")
    if not 1 <= fps <= 1000 or not 0 <= loops <= 65535:
        raise ValueError(f"fps must be in [1, 1000] and loops in [0, 65535], got {fps} and {loops}")
    if format == "png":
        return encode_apng(frames, fps=fps, loops=loops, text=text)
    check_quality(quality)
    check_text(text or {})
    durations = _durations_ms(len(frames), fps, _TICK_MS[format], _SHORTEST_MS[format])
    options = _gif_options(loops, text) if format == "gif" else _codec_options(format, loops, quality, text)
    images = [to_image(frame) for frame in frames]
    buffer = io.BytesIO()
    images[0].save(buffer, format, save_all=True, append_images=images[1:], duration=durations, **options)
    return buffer.getvalue()


def _durations_ms(count: int, fps: int, tick_ms: int, shortest_ms: int) -> list[int]:
    """Return how long each frame is shown, whole ticks whose sum stays within half a tick of the true time."""
    ends = [round(1000 * index / (fps * tick_ms)) * tick_ms for index in range(count + 1)]
    return [max(shortest_ms, end - start) for start, end in pairwise(ends)]


def _codec_options(format: str, loops: int, quality: int, text: Mapping[str, str] | None) -> dict[str, Any]:
    options: dict[str, Any] = {"quality": quality, "loop": loops, **CODEC_OPTIONS[format]}
    return options | {"xmp": xmp(text)} if text else options


def _gif_options(loops: int, text: Mapping[str, str] | None) -> dict[str, Any]:
    # "loop" counts repetitions after the first play; without it there are none. Disposal 2 clears a frame before the
    # next, or what is transparent there would show it.
    options: dict[str, Any] = {"disposal": 2}
    if loops != 1:
        options["loop"] = max(0, loops - 1)
    return options | {"comment": lines(text).encode("ascii", "backslashreplace")} if text else options
