"""Ways to make files of pictures: the service's own, other people's, and its own with a part replaced.

A part is replaced where the encoder looks for it, so that an alternative differs from what is served in nothing else.
"""

import io
import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

from isal import isal_zlib

from benchmarks.serving.filters import FILTERS, PAETH, filtered, filtered_by_row
from service.encoder import encode_png, encode_pngs, encode_still, png, still
from service.encoder.pixels import Pixels, to_image
from service.pipeline import BATCHED_PNG_BYTES

try:
    import cv2
except ImportError:
    cv2 = None

SERVED, WORDED, BASE = "Vitrine", "Vitrine, with provenance", "Pillow"
QUALITY = 85
CODECS: dict[str, list[dict[str, Any]]] = {
    "jpeg": [{"optimize": True}, {"optimize": False}],
    "webp": [{"method": 0}, {"method": 2}, {"method": 4}],
    "avif": [{"speed": 8}, {"speed": 6}],
}
FACTS = {
    "Software": "Vitrine",
    "Model": "fashion@2",
    "Model digest": f"sha256:{'0123456789abcdef' * 4}",
    "Truncation psi": "1.0",
    "Digital source type": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
    "Label": "ankle-boot",
}
"""What the service embeds in a picture, but for its seed."""

_seeds = itertools.count()


@dataclass(frozen=True)
class Way:
    """A function from pictures to files, and what has to be in force meanwhile."""

    name: str
    encode: Callable[[Pixels], list[bytes]]
    replaced: Callable[[], AbstractContextManager[object]] = nullcontext


def png_ways() -> Iterator[Way]:
    """Yield ways to make PNGs."""
    yield Way(SERVED, as_served)
    yield Way(WORDED, with_provenance)
    yield Way(BASE, by_pillow)
    yield Way("Pillow, compress_level=1", partial(by_pillow, compress_level=1))
    if cv2 is not None:
        rle = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
        yield Way("OpenCV", by_opencv)
        yield Way("OpenCV, level 1, RLE", partial(by_opencv, parameters=rle))
    yield Way("Vitrine, 16 at once", at_once)
    yield Way("Vitrine, one by one", one_by_one)
    for name, parts in _replacements().items():
        yield Way(name, as_served, partial(patch.multiple, png, **parts))


def _replacements() -> dict[str, dict[str, Any]]:
    """Return what takes the place of which functions of `service.encoder.png`."""
    by_row, paeth = {"_filter": filtered_by_row}, {"_filter": partial(filtered, kind=PAETH)}
    rle = {"_deflate": deflated_by_rle}
    return {
        **{f"filter {name}": {"_filter": partial(filtered, kind=kind)} for kind, name in enumerate(FILTERS)},
        "filter of least sum, row by row": by_row,
        **{f"ISA-L level {level}": {"_deflate": partial(isal_zlib.compress, level=level)} for level in (0, 1, 2, 3)},
        **{f"zlib level {level}": {"_deflate": partial(zlib.compress, level=level)} for level in (1, 6, 9)},
        "zlib RLE": rle,
        "filter Paeth, zlib RLE": paeth | rle,
        "filter of least sum, zlib RLE": by_row | rle,
    }


def still_ways() -> Iterator[Way]:
    """Yield ways to make files of the lossy formats; those that are served are marked."""
    for form, alternatives in CODECS.items():
        for options in alternatives:
            served = still.CODEC_OPTIONS[form]
            name = ", ".join(f"{key}={value}" for key, value in options.items())
            yield Way(
                f"{form}, {name}" + (" (served)" if served == served | options else ""),
                partial(by_still, form=form),
                partial(patch.dict, still.CODEC_OPTIONS, {form: served | options}),
            )


def as_served(pictures: Pixels) -> list[bytes]:
    """Encode small pictures at once and larger ones one by one."""
    return _as_served(pictures, [{}] * len(pictures))


def with_provenance(pictures: Pixels) -> list[bytes]:
    """Do as `as_served`, with the texts that the service embeds, each with a seed that was not there before."""
    return _as_served(pictures, [FACTS | {"Seed": str(next(_seeds))} for _ in pictures])


def _as_served(pictures: Pixels, texts: Sequence[Mapping[str, str]]) -> list[bytes]:
    if pictures[0].size <= BATCHED_PNG_BYTES:
        return encode_pngs(pictures, texts)
    return [encode_png(one, text=text) for one, text in zip(pictures, texts, strict=True)]


def at_once(pictures: Pixels) -> list[bytes]:
    """Encode all in one call, whatever their size."""
    return encode_pngs(pictures, [{}] * len(pictures))


def one_by_one(pictures: Pixels) -> list[bytes]:
    """Encode each in a call of its own, whatever their size."""
    return [encode_png(one) for one in pictures]


def by_pillow(pictures: Pixels, **options: int) -> list[bytes]:
    """Encode with Pillow."""
    buffers = [io.BytesIO() for _ in pictures]
    for one, buffer in zip(pictures, buffers, strict=True):
        to_image(one).save(buffer, "png", **options)
    return [buffer.getvalue() for buffer in buffers]


def by_opencv(pictures: Pixels, parameters: tuple[int, ...] | list[int] = ()) -> list[bytes]:
    """Encode with OpenCV, which wants blue first."""
    orders = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    order = orders.get(pictures.shape[-1])
    turned = pictures if order is None else [cv2.cvtColor(one, order) for one in pictures]
    return [cv2.imencode(".png", one, parameters)[1].tobytes() for one in turned]


def by_still(pictures: Pixels, form: still.StillFormat) -> list[bytes]:
    """Encode in a lossy format."""
    return [encode_still(one, form, quality=QUALITY) for one in pictures]


def deflated_by_rle(scanlines: Pixels) -> bytes:
    """Return a zlib stream that knows no matches but runs of one byte; what is noisy has few others."""
    compressor = zlib.compressobj(1, strategy=zlib.Z_RLE)
    return compressor.compress(scanlines) + compressor.flush()
