"""Tests of service/encoder/png.py by the readers of others: a thousand pictures in Pillow, OpenCV and pngcheck."""

import io
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from service.encoder import encode_apng, encode_png, encode_pngs

Pixels = NDArray[np.uint8]

COUNT = 1000
CHANNELS = (1, 3, 4)
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# OpenCV keeps blue first.
AS_OPENCV = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}
# Single pixels, rows and columns, and both sides of the 1024 pixels up to which grey pictures are not filtered.
EDGES = [(1, 1), (1, 2), (2, 1), (1, 512), (512, 1), (2, 512), (31, 33), (32, 32), (32, 33), (33, 32), (64, 16)]
LARGE = [(512, 512), (511, 257)]
BATCHED_SIDE = 128
BATCH = 16

needs_pngcheck = pytest.mark.skipif(shutil.which("pngcheck") is None, reason="pngcheck is not installed")


def constant(random: Generator, height: int, width: int, channels: int) -> Pixels:
    return np.broadcast_to(random.integers(0, 256, channels, np.uint8), (height, width, channels))


def gradient(random: Generator, height: int, width: int, channels: int) -> Pixels:
    """Return ramps that wrap around, one for each channel."""
    y, x = np.mgrid[:height, :width, :channels][:2]
    return (random.integers(-3, 4, channels) * y + random.integers(-3, 4, channels) * x).astype(np.uint8)


def smooth(random: Generator, height: int, width: int, channels: int) -> Pixels:
    """Return slow waves, one for each channel."""
    y, x = np.mgrid[:height, :width, :channels][:2] / 32
    return (127 + 100 * np.sin(random.uniform(-3, 3, channels) * y + random.uniform(-3, 3, channels) * x)).astype(
        np.uint8
    )


def grainy(random: Generator, height: int, width: int, channels: int) -> Pixels:
    """Return slow waves with a little noise, as a generator's pictures have it."""
    waves = smooth(random, height, width, channels)
    return np.clip(waves + random.normal(0, 2, waves.shape), 0, 255).astype(np.uint8)


def noisy(random: Generator, height: int, width: int, channels: int) -> Pixels:
    return random.integers(0, 256, (height, width, channels), np.uint8)


KINDS: list[Callable[[Generator, int, int, int], Pixels]] = [constant, gradient, smooth, grainy, noisy]


@dataclass(frozen=True)
class Written:
    """A picture, its kind, the file that was made of it, and with how many it was made (0: by `encode_png`)."""

    kind: str
    pixels: Pixels
    file: bytes
    batch: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.pixels.shape} in a batch of {self.batch}"


def singles(random: Generator) -> Iterator[Written]:
    """Yield every kind of picture at every edge, and a few large ones, each encoded alone."""
    for size, channels, kind in product(EDGES + LARGE, CHANNELS, KINDS):
        pixels = kind(random, *size, channels)
        yield Written(kind.__name__, pixels, encode_png(pixels))


def batches(random: Generator) -> Iterator[Written]:
    """Yield pictures of random sizes, small ones more often, encoded up to 16 at a time; without an end."""
    while True:
        height, width = np.exp(random.uniform(0, np.log(BATCHED_SIDE), 2)).round().astype(int)
        channels, count = random.choice(CHANNELS), random.integers(1, BATCH, endpoint=True)
        kinds = [KINDS[index] for index in random.integers(0, len(KINDS), count)]
        pictures = np.stack([kind(random, height, width, channels) for kind in kinds])
        files = encode_pngs(pictures, [{"Seed": str(index)} for index in range(count)])
        for kind, pixels, file in zip(kinds, pictures, files, strict=True):
            yield Written(kind.__name__, pixels, file, count)


@pytest.fixture(scope="module")
def thousand() -> list[Written]:
    """Return a thousand pictures, the same in every run."""
    random = np.random.default_rng(0)
    written = list(singles(random))
    return [*written, *islice(batches(random), COUNT - len(written))]


def pngcheck(folder: Path, files: Iterable[bytes]) -> None:
    """Let `pngcheck` judge files, all in one call; it must have nothing to say."""
    paths = [folder / f"{number}.png" for number, _ in enumerate(files)]
    for path, file in zip(paths, files, strict=True):
        path.write_bytes(file)
    result = subprocess.run(["pngcheck", "-q", *paths], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_thousand_pictures_are_of_all_sorts(thousand: list[Written]) -> None:
    """Every kind with every number of channels, single and batched, on both sides of the choice of filter."""
    assert len(thousand) == COUNT
    sorts = {(one.kind, one.pixels.shape[-1], one.batch > 0, one.pixels[..., 0].size > 32 * 32) for one in thousand}
    assert len(sorts) == len(KINDS) * len(CHANNELS) * 2 * 2


def test_pillow_reads_what_was_written(thousand: list[Written]) -> None:
    """Every pixel, in the mode of the channels."""
    for one in thousand:
        with Image.open(io.BytesIO(one.file)) as image:
            assert image.mode == MODES[one.pixels.shape[-1]], str(one)
            assert np.array_equal(np.array(image).reshape(one.pixels.shape), one.pixels), str(one)


def test_opencv_reads_what_was_written(thousand: list[Written]) -> None:
    """Every pixel, with as many channels as were written."""
    for one in thousand:
        decoded = cv2.imdecode(np.frombuffer(one.file, np.uint8), cv2.IMREAD_UNCHANGED)
        assert decoded is not None, str(one)
        assert decoded.size == one.pixels.size, str(one)
        expected = one.pixels[..., AS_OPENCV[one.pixels.shape[-1]]]
        assert np.array_equal(decoded.reshape(expected.shape), expected), str(one)


@needs_pngcheck
def test_pngcheck_accepts_what_was_written(thousand: list[Written], tmp_path: Path) -> None:
    """Chunks, CRCs, zlib streams and filter bytes."""
    pngcheck(tmp_path, [one.file for one in thousand])


def animations() -> Iterator[tuple[Pixels, bytes]]:
    """Yield animations of one to six frames, all kinds of pictures in each, and their files."""
    random = np.random.default_rng(1)
    for (height, width), channels, count in product([*EDGES, (64, 64), (200, 150)], CHANNELS, (1, 2, 6)):
        frames = np.stack([KINDS[index % len(KINDS)](random, height, width, channels) for index in range(count)])
        yield frames, encode_apng(frames, fps=12, loops=3, text={"Seeds": "1, 2"})


def test_pillow_reads_every_frame_that_was_written() -> None:
    """As many frames as there were, each with every pixel."""
    for frames, file in animations():
        with Image.open(io.BytesIO(file)) as image:
            decoded = [np.array(frame).reshape(frames.shape[1:]) for frame in ImageSequence.Iterator(image)]
        assert np.array_equal(np.stack(decoded), frames), frames.shape


def test_opencv_reads_every_frame_that_was_written() -> None:
    """As many frames as there were, each with every pixel."""
    for frames, file in animations():
        found, animation = cv2.imdecodeanimation(np.frombuffer(file, np.uint8))
        assert found, frames.shape
        expected = frames[..., AS_OPENCV[frames.shape[-1]]]
        assert np.array_equal(np.stack(animation.frames).reshape(expected.shape), expected), frames.shape


@needs_pngcheck
def test_pngcheck_accepts_animations(tmp_path: Path) -> None:
    """Whoever knows nothing of animation finds a sound PNG."""
    pngcheck(tmp_path, [file for _, file in animations()])
