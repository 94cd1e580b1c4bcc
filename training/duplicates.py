"""Pictures that are there twice: the same pixels, or nearly so.

Two pictures are near duplicates if their difference hashes differ in at most `NEAR_BITS` of 64 bits and their pixels by
at most `NEAR_RMS`. The hash alone, at 4 bits, takes 62 % of 20,000 Fashion-MNIST pictures for duplicates, for plain
shapes share their gradients; of its pairs, 99 % differ by an RMS above 25. A picture of Fashion-MNIST or Fruits-360
saved again as JPEG of quality 60 differs by 7 to 13 (median to 99th percentile), a brighter copy (10 %) by 11 to 18.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]

NEAR_BITS = 4
NEAR_RMS = 16.0  # grey levels
THUMBNAIL = 8, 9  # height and width: 8 x 8 horizontal differences
BLOCK = 16
SEARCH_BLOCK = 64  # times some thousands of hashes: what a core's cache holds
DIRECTIONS = 8


@dataclass(slots=True)
class Duplicates:
    """What is in a set twice, by the names of the pictures.

    `leaks` were held out and are dropped, for the same pixels are trained on; `copies` are in one split and stay. Of
    near duplicates there are `num_near` pictures, `num_near_across` of them held out with one to train on like them.
    """

    leaks: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)
    num_near: int = 0
    num_near_across: int = 0
    near_examples: list[str] = field(default_factory=list)


def pixel_digest(pixels: Pixels) -> bytes:
    """Return 20 bytes that stand for the shape and the pixels of one picture, uint8 (H, W, C)."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=20, key=repr(pixels.shape).encode()).digest()


def thumbnails(images: Sequence[Pixels]) -> Floats:
    """Return the mean grey of each picture's cells, transparency on white.

    Args:
        images: Pictures of one shape, each uint8 (H, W, C).

    Returns:
        float32 (N, 8, 9), in [0, 255].
    """
    parts = [np.empty((0, *THUMBNAIL), np.float32)]
    for start in range(0, len(images), BLOCK):
        levels = _on_white(np.stack(images[start : start + BLOCK]))
        count, height, width, channels = levels.shape
        grey = levels @ np.full(channels, 1 / channels, np.float32)
        narrow = grey.reshape(-1, width) @ _cells(width, THUMBNAIL[1]).T
        small = np.einsum("yh,nhx->nyx", _cells(height, THUMBNAIL[0]), narrow.reshape(count, height, -1))
        parts.append(small.astype(np.float32))
    return np.concatenate(parts)


def dhash(thumbs: Floats) -> Hashes:
    """Return a bit per pair of neighbouring cells, set where it gets brighter to the right.

    Args:
        thumbs: float32 (N, 8, 9), as `thumbnails` gives them.

    Returns:
        uint64 (N,).

    Krawetz 2013, "Kind of like that", The Hacker Factor Blog.
    """
    levels = np.rint(thumbs)  # a plain background has no gradient, whatever the rounding of its sums
    bits = (levels[:, :, 1:] > levels[:, :, :-1]).reshape(-1, 64)
    return np.packbits(bits, axis=1).view(np.uint64).reshape(-1)


def near_pairs(images: Sequence[Pixels], bits: int = NEAR_BITS, rms: float = NEAR_RMS) -> Indices:
    """Return the pairs of pictures that are near duplicates of each other.

    Args:
        images: Pictures of one shape, each uint8 (H, W, C).
        bits: Hamming distance of the hashes that still is near.
        rms: Root mean square of the pixels' differences that still is near, in grey levels.

    Returns:
        int64 (P, 2), sorted; in each pair the first index is the smaller one.
    """
    thumbs = thumbnails(images)
    flat = thumbs.reshape(len(thumbs), math.prod(THUMBNAIL))
    found = [np.empty((0, 2), np.int64)]
    for pairs in _near_hashes(dhash(thumbs), flat, bits, rms):
        # Means of cells differ by less than the pixels do, so this drops no pair that the pixels would keep.
        close = pairs[_rms(flat[pairs[:, 0]], flat[pairs[:, 1]]) <= rms]
        for start in range(0, len(close), BLOCK):
            part = close[start : start + BLOCK]
            first, second = (_on_white(np.stack([images[index] for index in column])) for column in part.T)
            found.append(part[_rms(first, second) <= rms])
    pairs = np.sort(np.concatenate(found), axis=1)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order]


def _near_hashes(hashes: Hashes, flat: Floats, bits: int, rms: float) -> Iterator[Indices]:
    """Yield the pairs within `bits`, of those that can be within `rms`.

    Along some directions two thumbnails are no further apart than in all, and along the widest most are too far.
    """
    if len(flat) < 2:
        return
    centred = flat - flat.mean(axis=0)
    positions = centred @ np.linalg.eigh(centred.T @ centred)[1][:, -DIRECTIONS:]
    order = np.argsort(positions[:, -1], kind="stable")
    positions, hashes = positions[order], hashes[order]
    reach = rms * flat.shape[1] ** 0.5 + 1.0  # one more, for rounding
    for start in range(0, len(order), SEARCH_BLOCK):
        stop = min(start + SEARCH_BLOCK, len(order))
        end = int(np.searchsorted(positions[:, -1], positions[stop - 1, -1] + reach, side="right"))
        distances = np.bitwise_count(hashes[start:stop, None] ^ hashes[None, start:end])
        rows, columns = (found + start for found in np.divmod(np.flatnonzero(distances <= bits), end - start))
        rows, columns = rows[rows < columns], columns[rows < columns]
        close = np.square(positions[rows] - positions[columns]).sum(axis=1) <= reach**2
        yield np.stack([order[rows[close]], order[columns[close]]], axis=1)


def _on_white(pixels: Pixels) -> Floats:
    """Return float32 (N, H, W, C) without alpha for uint8 (N, H, W, C)."""
    levels: Floats = pixels.astype(np.float32)
    if levels.shape[3] < 4:
        return levels
    alpha = levels[..., 3:] / np.float32(255)
    levels = levels[..., :3] * alpha + np.float32(255) * (1 - alpha)
    return levels


def _rms(first: Floats, second: Floats) -> Floats:
    differences = (first - second).reshape(len(first), math.prod(first.shape[1:]))
    means: Floats = np.square(differences).mean(axis=1, dtype=np.float32)
    return np.sqrt(means)


def _cells(size: int, num_cells: int) -> Floats:
    """Return the weights, (num_cells, size), of `size` pixels in the means of `num_cells` equal cells."""
    edges, pixels = np.linspace(0, size, num_cells + 1), np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: Floats = (np.clip(overlap, 0, None) * (num_cells / size)).astype(np.float32)
    return weights
