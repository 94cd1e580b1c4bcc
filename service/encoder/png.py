"""PNG and animated PNG, written here: one filter for the whole picture, DEFLATE by ISA-L.

Pillow chooses a filter for each row and deflates with zlib: smaller files, in several times the time. What that, other
filters, levels and libraries take and save: `make bench-png`, benchmarks/results/png.md.

W3C Portable Network Graphics (PNG) Specification, Third Edition; RFC 2083 (PNG 1.0); RFC 1950 (zlib); RFC 1951.
"""

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from isal import isal_zlib

from service.encoder.pixels import Pixels, check_pixels
from service.encoder.text import XMP_KEYWORD, check_text

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# An IEND chunk: no data, and the CRC of its four letters.
_END = b"\0\0\0\0IEND\xae\x42\x60\x82"
_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}
_FILTER_NONE, _FILTER_UP = 0, 2
_DEFLATE_LEVEL = 1
# Grey pictures of so few rows gain little by up, if anything: benchmarks/results/png.md has both.
_UNFILTERED_GREY_PIXELS = 32 * 32
_MAX_FPS = 2**16 - 1
_MAX_LOOPS = 2**31 - 1


def encode_png(pixels: Pixels, *, text: Mapping[str, str] | None = None) -> bytes:
    """Encode one picture as a PNG, without loss.

    Args:
        pixels: uint8, (H, W, C), C in {1, 3, 4}, any strides; anything else is a ValueError.
        text: Keyword to value; a tEXt chunk for each, or iTXt where the value is not Latin-1. What
            `service.encoder.text.check_text` refuses is a ValueError.

    Returns:
        The file: IHDR, text, IDAT, IEND.
    """
    check_pixels(pixels, 3)
    return encode_pngs(pixels[None], [text or {}])[0]


def encode_pngs(pictures: Pixels, texts: Sequence[Mapping[str, str]]) -> list[bytes]:
    """Encode pictures of one size, each as by `encode_png`; the filter runs over all of them at once.

    Args:
        pictures: uint8, (N, H, W, C), C in {1, 3, 4}; anything else is a ValueError.
        texts: N texts.

    Returns:
        N files.
    """
    check_pixels(pictures, 4)
    return [
        b"".join((_SIGNATURE, *_head(one, text), _chunk(b"IDAT", _deflate(scanlines)), _END))
        for one, scanlines, text in zip(pictures, _filter(pictures), texts, strict=True)
    ]


def encode_apng(frames: Pixels, *, fps: int, loops: int = 0, text: Mapping[str, str] | None = None) -> bytes:
    """Encode frames as an animated PNG, without loss; a viewer without animation shows the first.

    Every frame is a whole picture that replaces the one before, so any of them decodes by itself.

    Args:
        frames: uint8, (N, H, W, C), C in {1, 3, 4}, any strides.
        fps: Frames per second, in [1, 65535].
        loops: How often it plays, in [0, 2**31); 0 = for ever.
        text: As in `encode_png`.

    Returns:
        The file: IHDR, text, acTL, then fcTL and IDAT of the first frame, fcTL and fdAT of each other, and IEND.

    Raises:
        ValueError: If `frames` are not pictures, a number is out of range, or `text` is not allowed in a PNG.
    """
    check_pixels(frames, 4)
    if not 1 <= fps <= _MAX_FPS or not 0 <= loops <= _MAX_LOOPS:
        raise ValueError(f"fps must be in [1, {_MAX_FPS}] and loops in [0, {_MAX_LOOPS}], got {fps} and {loops}")
    count, height, width, _ = frames.shape
    parts = [_SIGNATURE, *_head(frames[0], text), _chunk(b"acTL", struct.pack(">II", count, loops))]
    sequence = 0
    for index, scanlines in enumerate(_filter(frames)):
        # No offset, 1 / fps seconds, dispose: none, blend: source.
        control = struct.pack(">IIIIIHHBB", sequence, width, height, 0, 0, 1, fps, 0, 0)
        parts.append(_chunk(b"fcTL", control))
        sequence += 1
        data = _deflate(scanlines)
        if index == 0:
            parts.append(_chunk(b"IDAT", data))
        else:
            parts.append(_chunk(b"fdAT", struct.pack(">I", sequence) + data))
            sequence += 1
    parts.append(_END)
    return b"".join(parts)


def _head(pixels: Pixels, text: Mapping[str, str] | None) -> list[bytes]:
    """Return the chunks before the picture: IHDR (8 bits, no interlace) and text."""
    height, width, channels = pixels.shape
    head = [_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0))]
    if text:
        head += [_text_chunk(keyword, value) for keyword, value in text.items()]
    return head


@lru_cache(1024)  # all but the seed is the same from picture to picture
def _text_chunk(keyword: str, value: str) -> bytes:
    """Return tEXt, or iTXt (uncompressed, no language) for what is not Latin-1 and for XMP, which demands it."""
    check_text({keyword: value})
    name = keyword.encode("latin-1")
    if keyword != XMP_KEYWORD:
        try:
            return _chunk(b"tEXt", name + b"\0" + value.encode("latin-1"))
        except UnicodeEncodeError:
            pass
    return _chunk(b"iTXt", name + b"\0\0\0\0\0" + value.encode())


def _filter(pixels: Pixels) -> Pixels:
    """Return scanlines, each behind its filter byte.

    Args:
        pixels: uint8, (..., H, W, C).

    Returns:
        Scanlines, uint8, (..., H, 1 + W * C), contiguous.
    """
    height, width, channels = pixels.shape[-3:]
    rows = pixels.reshape(*pixels.shape[:-2], width * channels)
    scanlines = np.empty((*rows.shape[:-1], width * channels + 1), np.uint8)
    if channels == 1 and height * width <= _UNFILTERED_GREY_PIXELS:
        scanlines[..., 0] = _FILTER_NONE
        scanlines[..., 1:] = rows
    else:
        scanlines[..., 0] = _FILTER_UP
        scanlines[..., 0, 1:] = rows[..., 0, :]
        np.subtract(rows[..., 1:, :], rows[..., :-1, :], out=scanlines[..., 1:, 1:])
    return scanlines


def _deflate(scanlines: Pixels) -> bytes:
    # The GIL is free meanwhile.
    return isal_zlib.compress(scanlines, _DEFLATE_LEVEL)


def _chunk(kind: bytes, data: bytes) -> bytes:
    crc = isal_zlib.crc32(data, isal_zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(data)), kind, data, struct.pack(">I", crc)))
