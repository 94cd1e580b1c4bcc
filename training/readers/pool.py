"""Encoded pictures to pixels, on a few threads: Pillow's codecs and filters leave the interpreter's lock to others."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TypeVar

from PIL import Image

from training.readers.picture import decode, quiet
from training.readers.raw import AlphaSource, Fit, Item, Pictures, Pixels

SAMPLE = 32  # pictures from which the mode of a set is found
GREY_MODES = {"1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N"}
SEEN_THROUGH = 128  # alpha below this, somewhere, makes a picture a transparent one; softer edges are left by editors
CHUNK = 16
MAX_THREADS = 8

Argument = TypeVar("Argument")
Result = TypeVar("Result")


def read_pictures(
    items: Iterable[Item], size: int, mode: str, alpha: AlphaSource, fit: Fit, skipped: list[str]
) -> tuple[Pictures, Pictures | None]:
    """Return the pictures of `items`, in order.

    Args:
        items: Encoded pictures; asked for one by one, no faster than they are decoded.
        size: Height and width of the results.
        mode: "L", "RGB" or "RGBA".
        alpha: As for `read_image`.
        fit: As for `read_image`.
        skipped: What cannot be read is added, by name and with the reason.

    Returns:
        Those to train on and those held out; the latter `None` if the items come without splits.
    """

    def read(item: Item) -> tuple[Item, Pixels | None, bytes | str]:
        try:
            content = _content(item)
            return item, decode(content, size, mode, alpha, fit), hashlib.sha256(content).digest()
        except Exception as error:  # on a damaged file a codec raises anything, SyntaxError and RuntimeError among it
            return item, None, f"{item.name}: {_reason(error)}"

    splits: dict[str, tuple[list[Pixels], list[str], list[str], list[bytes]]]
    splits = {split: ([], [], [], []) for split in ("train", "holdout", "")}
    with quiet():
        for item, pixels, key in in_order(read, items):
            if pixels is None or isinstance(key, str):
                skipped.append(str(key))
                continue
            for column, value in zip(splits[item.split], (pixels, item.label, item.name, key), strict=True):
                column.append(value)  # type: ignore[attr-defined]
    whole, train, holdout = (Pictures(*splits[split]) for split in ("", "train", "holdout"))
    return (train, holdout) if train.names or holdout.names else (whole, None)


def in_order(function: Callable[[Argument], Result], arguments: Iterable[Argument]) -> Iterator[Result]:
    """Yield `function(argument)` for all, in order, computed ahead on a thread per core, a few chunks at most."""
    num_threads = min(os.cpu_count() or 1, MAX_THREADS)
    remaining = iter(arguments)
    waiting: deque[Future[list[Result]]] = deque()

    def run(chunk: list[Argument]) -> list[Result]:
        return [function(argument) for argument in chunk]

    with ThreadPoolExecutor(num_threads, "decode") as pool:
        try:
            while True:
                while len(waiting) < 4 * num_threads and (chunk := list(islice(remaining, CHUNK))):
                    waiting.append(pool.submit(run, chunk))
                if not waiting:
                    return
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def common_mode(sample: Iterable[Item]) -> str:
    """Return the mode that suits a few pictures.

    Args:
        sample: Some of a set's pictures; those that cannot be read have no say.

    Returns:
        "RGBA" if most are transparent somewhere, else "L" if all are grey, else "RGB".
    """
    modes, transparent = [], 0
    with quiet():
        for item in sample:
            with suppress(Exception), Image.open(BytesIO(_content(item))) as image:
                image.draft(None, (64, 64))
                image.load()
                modes.append(image.mode)
                if image.has_transparency_data:
                    lowest = image.convert("RGBA").getchannel("A").getextrema()[0]
                    transparent += isinstance(lowest, int) and lowest < SEEN_THROUGH
    if 2 * transparent > len(modes):
        return "RGBA"
    return "L" if modes and set(modes) <= GREY_MODES else "RGB"


def spread(items: list[Item]) -> list[Item]:
    """Return at most `SAMPLE` of `items`, evenly spaced, so that every class folder has a say."""
    step = max(1, -(-len(items) // SAMPLE))
    return items[::step]


def _content(item: Item) -> bytes:
    if item.fault:
        raise ValueError(item.fault)
    return item.content.read_bytes() if isinstance(item.content, Path) else item.content


def _reason(error: Exception) -> str:
    """Return what Pillow says, without the address of the buffer that it read from."""
    text = str(error) or type(error).__name__
    return "cannot identify image file" if text.startswith("cannot identify image file") else text
