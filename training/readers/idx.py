"""IDX files, gzipped or not: the sets that are shaped like MNIST."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from training.errors import TrainingError
from training.readers.raw import Found, Pictures, Pixels


def find_idx(folder: Path, stem: str) -> Path | None:
    """Return the first file in `folder` whose name starts with `stem`, if there is one."""
    matches = sorted(path for path in folder.iterdir() if path.name.startswith(stem) and path.is_file())
    return matches[0] if matches else None


def read_idx_folder(folder: Path) -> Found:
    """Read the four files of an IDX set.

    Args:
        folder: Where they are.

    Returns:
        Both splits, as the files have them.

    Raises:
        TrainingError: If a file is missing or damaged, or they do not fit together.
    """
    splits = []
    for prefix in ("train", "t10k"):
        images, labels = find_idx(folder, f"{prefix}-images"), find_idx(folder, f"{prefix}-labels")
        if images is None or labels is None:
            raise TrainingError(
                f"{folder} lacks {prefix}-images or {prefix}-labels; IDX sets have both, for train and t10k"
            )
        pixels = read_idx(images)
        targets = read_idx(labels)
        if pixels.ndim != 3 or targets.ndim != 1 or len(pixels) != len(targets):
            raise TrainingError(
                f"{images.name} has shape {pixels.shape}, {labels.name} {targets.shape}: they do not match"
            )
        if not pixels.size:
            raise TrainingError(f"{images.name} has shape {pixels.shape}: it holds no pictures")
        names = [f"{images.name}[{index}]" for index in range(len(pixels))]
        splits.append((pixels[..., None], targets, names))
    sizes = [images.shape[1:3] for images, _, _ in splits]
    if sizes[0] != sizes[1]:
        raise TrainingError(f"{folder} holds pictures of two sizes: train {sizes[0]}, t10k {sizes[1]}")
    num_classes = int(max(targets.max() for _, targets, _ in splits)) + 1
    train, holdout = (Pictures(list(images), list(map(str, targets)), names) for images, targets, names in splits)
    return Found(train, holdout, [str(index) for index in range(num_classes)])


def read_idx(path: Path) -> Pixels:
    """Return the array of an IDX file, gzipped or not; uint8 only.

    Args:
        path: The file.

    Returns:
        uint8, of the shape in the file's header.

    Raises:
        TrainingError: If the file is not IDX of unsigned bytes, or is shorter than its header says.
    """
    raw = path.read_bytes()
    try:
        data = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise TrainingError(f"{path} is a damaged gzip file: {error}") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise TrainingError(
            f"{path} is not an IDX file of unsigned bytes: it starts with {data[:4].hex()!r}, not 000008.."
        )
    ndim = data[3]
    shape = struct.unpack_from(f">{ndim}I", data, 4) if len(data) >= 4 + 4 * ndim else ()
    body = data[4 + 4 * ndim :]
    if not shape or len(body) != math.prod(shape):
        raise TrainingError(f"{path} says shape {shape} but holds {len(body)} bytes: it is cut short or damaged")
    return np.frombuffer(body, np.uint8).reshape(shape)
