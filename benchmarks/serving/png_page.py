"""The page about PNG and the other formats, made of the figures of `benchmarks.serving.png`."""

import statistics
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.serving.encodings import BASE, SERVED, WORDED

Cell = dict[str, Any]
Cells = dict[tuple[str, str], Cell]


def page(result: dict[str, Any]) -> str:
    """Return the result as Markdown.

    Args:
        result: As it stands in `png.json`.

    Returns:
        The page.
    """
    machine, rounds, noise = result["machine"], result["rounds"], result["noise_of_enlarged"]
    lossless, lossy = ({(cell["way"], cell["pictures"]): cell for cell in result[key]} for key in ("png", "lossy"))
    lines = [
        "# Files of pictures",
        "",
        f"`{result['command']}` at {result['commit']}, {result['date']}: {machine['processor']}, one core, Pillow "
        f"{machine['pillow']}, OpenCV {machine['opencv']}, isal {machine['isal']}, zlib {machine['zlib']}; medians of "
        f"{rounds} interleaved rounds of CPU time, over {result['pictures_per_set']} pictures of each size.",
        "",
        "`models/fashion/2` draws the pictures of 28x28x1, `models/fruits/1` those of 64x64x4; laid on white these are "
        "64x64x3, and those turned grey 64x64x1. All others are enlarged from these by a bicubic filter (one channel: "
        f"from 28x28x1), with noise of {noise:g} grey level, without which they would be too smooth; *by `size=`*: by "
        "the service, without noise.",
        "",
        f"*{SERVED}* is what is served: small pictures are encoded 16 at once, larger ones one by one. A filter or a "
        f"level is *{SERVED}* with that one instead of its own. OpenCV includes the change to its order of colours.",
        "",
        "## PNG: microseconds per picture",
        "",
        *_grid(lossless, lambda cell: _us(cell["us"])),
        "",
        f"## PNG: bytes, relative to {BASE}",
        "",
        *_grid(lossless, lambda cell: f"{cell['bytes'] / lossless[BASE, cell['pictures']]['bytes']:.3f}"),
        "",
        "## Provenance",
        "",
        f"What *{WORDED}* costs more than *{SERVED}*, making the texts included; medians of the rounds' differences.",
        "",
        *_provenance(lossless),
        "",
    ]
    if lossy:
        lines += [
            f"## JPEG, WebP and AVIF at quality {result['lossy_quality']}",
            "",
            "Microseconds, bytes and likeness (PSNR) per picture.",
            "",
            *_grid(lossy, lambda cell: f"{_us(cell['us'])} us, {cell['bytes']:.0f} B, {cell['psnr_db']:.1f} dB"),
            "",
        ]
    return "\n".join(lines)


def _grid(cells: Cells, show: Callable[[Cell], str]) -> Iterator[str]:
    ways, pictures = (list(dict.fromkeys(key)) for key in zip(*cells, strict=True))
    yield "| | " + " | ".join(pictures) + " |"
    yield "|---" * (len(pictures) + 1) + "|"
    for way in ways:
        yield f"| {way} | " + " | ".join(show(cells[way, one]) for one in pictures) + " |"


def _provenance(cells: Cells) -> Iterator[str]:
    yield "| pictures | us | % | bytes |"
    yield "|---|---|---|---|"
    for one in dict.fromkeys(pictures for _, pictures in cells):
        plain, worded = cells[SERVED, one], cells[WORDED, one]
        more = statistics.median(b - a for a, b in zip(plain["us_of_rounds"], worded["us_of_rounds"], strict=True))
        share = 100 * more / plain["us"]
        yield f"| {one} | {more:.1f} | {share:.1f} | {worded['bytes'] - plain['bytes']:.0f} |"


def _us(microseconds: float) -> str:
    return f"{microseconds:.0f}" if microseconds >= 100 else f"{microseconds:.1f}"
