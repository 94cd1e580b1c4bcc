"""`make bench-png`: what encoding a picture costs and how large the file is, beside Pillow, OpenCV and other choices.

One process on one core, CPU time, every way in every round, so that a machine that changes its pace does it to all.
Before that every file is read back, and every PNG compared with its picture.
"""

import argparse
import io
import json
import math
import os
import statistics
import time
import zlib
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from PIL import Image, features

from benchmarks.machine import describe, revision
from benchmarks.serving import encodings
from benchmarks.serving.encodings import QUALITY, Way, png_ways, still_ways
from benchmarks.serving.pictures import COUNT, NOISE, Pictures, pictures
from benchmarks.serving.png_page import page
from service.encoder.pixels import Pixels, from_image

RESULTS = Path(__file__).parents[1] / "results"
SHORTEST_S = 0.02  # what is faster is repeated until it takes about this long
LOSSY = ("64x64x3", "256x256x3", "512x512x3")


@dataclass
class Cell:
    """One way with one set of pictures: bytes per picture, likeness in dB (none: equal), microseconds per picture."""

    way: str
    pictures: str
    bytes: float
    psnr_db: float | None
    repeats: int
    us: float = 0.0
    us_of_rounds: list[float] = field(default_factory=list)


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.png")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--largest", type=int, default=512, help="leave out larger pictures")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for png.json and png.md")
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    if encodings.cv2 is not None:
        encodings.cv2.setNumThreads(1)
    sets = list(pictures(options.largest))
    lossless = _measured(sets, list(png_ways()), options.rounds)
    lossy = _measured([one for one in sets if one.name in LOSSY], list(still_ways()), options.rounds)
    result = {
        "command": "make bench-png",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": revision(),
        "machine": describe() | _versions(),
        "rounds": options.rounds,
        "pictures_per_set": COUNT,
        "noise_of_enlarged": NOISE,
        "lossy_quality": QUALITY,
        "png": [asdict(cell) for cell in lossless],
        "lossy": [asdict(cell) for cell in lossy],
    }
    text = page(result)
    options.results.mkdir(exist_ok=True)
    (options.results / "png.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (options.results / "png.md").write_text(text, encoding="utf-8")
    print(text)


def _measured(sets: list[Pictures], ways: list[Way], rounds: int) -> list[Cell]:
    work = [(way, one, _first(way, one)) for one in sets for way in ways]
    for number in range(rounds):
        for way, one, cell in work:
            cell.us_of_rounds.append(round(1e6 * _seconds(way, one.pixels, cell.repeats) / COUNT, 3))
        print(f"round {number + 1} of {rounds}: {len(ways)} ways, {len(sets)} sets of pictures", flush=True)
    for _, _, cell in work:
        cell.us = round(statistics.median(cell.us_of_rounds), 3)
    return [cell for _, _, cell in work]


def _first(way: Way, one: Pictures) -> Cell:
    """Look at the files that a way makes, and find out how often it has to be repeated."""
    with way.replaced():
        files = way.encode(one.pixels)
    read = np.stack([from_image(Image.open(io.BytesIO(file))) for file in files])
    error = float(np.mean((read.astype(np.float64) - one.pixels) ** 2))
    if error and files[0].startswith(b"\x89PNG"):
        raise RuntimeError(f"{way.name} at {one.name} does not give back what was encoded")
    psnr_db = round(10 * math.log10(255**2 / error), 2) if error else None
    repeats = max(1, round(SHORTEST_S / _seconds(way, one.pixels, 1)))
    return Cell(way.name, one.name, round(statistics.mean(map(len, files)), 1), psnr_db, repeats)


def _seconds(way: Way, pixels: Pixels, repeats: int) -> float:
    """Return the CPU time that encoding a set takes, the mean of `repeats` times in a row."""
    with way.replaced():
        started = time.process_time()
        for _ in range(repeats):
            way.encode(pixels)
        return (time.process_time() - started) / repeats


def _versions() -> dict[str, str]:
    zlib_ng = features.version_feature("zlib_ng")
    return {
        "pillow": metadata.version("pillow") + (f" (zlib-ng {zlib_ng})" if zlib_ng else ""),
        "opencv": encodings.cv2.__version__ if encodings.cv2 is not None else "not installed",
        "isal": metadata.version("isal"),
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
    }


if __name__ == "__main__":
    main()
