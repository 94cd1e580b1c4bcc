"""CIFAR-10 and CIFAR-100, as their authors publish them: pickles ("python version") or records ("binary version")."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.errors import TrainingError
from training.readers.raw import Found, Pictures, Pixels
from training.readers.unpickling import load_pickle

SIDE = 32
NUM_VALUES = 3 * SIDE * SIDE


@dataclass(frozen=True, slots=True)
class Layout:
    """How one of the four versions is kept: files, and where in a batch or a record the labels are."""

    train: str  # pattern of names
    test: str
    names: str
    label_key: str = ""  # of the names in a pickle, and of the labels
    names_key: str = ""
    record_head: int = 0  # bytes before a record's pixels; the last of them is the label


LAYOUTS = (
    Layout("data_batch_[0-9]", "test_batch", "batches.meta", label_key="labels", names_key="label_names"),
    Layout("data_batch_[0-9].bin", "test_batch.bin", "batches.meta.txt", record_head=1),
    Layout("train", "test", "meta", label_key="fine_labels", names_key="fine_label_names"),
    Layout("train.bin", "test.bin", "fine_label_names.txt", record_head=2),
)


def find_cifar(folder: Path) -> Layout | None:
    """Return the layout of the CIFAR set in `folder`, if there is one."""
    for layout in LAYOUTS:
        if any(path.is_file() for path in folder.glob(layout.train)):
            return layout
    return None


def read_cifar(folder: Path, layout: Layout) -> Found:
    """Read a CIFAR set.

    Args:
        folder: Where its files are.
        layout: As `find_cifar` gives it.

    Returns:
        Both splits, as the files have them, with the names of the classes or else their numbers.

    Raises:
        TrainingError: If a file is missing or damaged, or a pickle asks for more than arrays.
    """
    if not (folder / layout.test).is_file():
        raise TrainingError(f"{folder} lacks {layout.test}; CIFAR sets have {layout.train} and {layout.test}")
    files = sorted(folder.glob(layout.train)), [folder / layout.test]
    names = _label_names(folder / layout.names, layout)
    splits = []
    for paths in files:
        split = Pictures([], [], [])
        for path in paths:
            pixels, labels = _records(path, layout) if layout.record_head else _batch(path, layout)
            if names and labels.max(initial=0) >= len(names):
                raise TrainingError(f"{path} has the label {labels.max()}; {layout.names} names {len(names)} classes")
            split.images = [*split.images, *pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)]
            split.classes = [*split.classes, *(names[label] if names else str(label) for label in labels)]
            split.names = [*split.names, *(f"{path.name}[{index}]" for index in range(len(labels)))]
        splits.append(split)
    return Found(splits[0], splits[1], names or [str(number) for number in range(256)])


def _records(path: Path, layout: Layout) -> tuple[Pixels, Any]:
    data = np.frombuffer(path.read_bytes(), np.uint8)
    length = layout.record_head + NUM_VALUES
    if not len(data) or len(data) % length:
        raise TrainingError(f"{path} has {len(data)} bytes, not a multiple of {length}: it is cut short or damaged")
    records = data.reshape(-1, length)
    return records[:, layout.record_head :], records[:, layout.record_head - 1]


def _batch(path: Path, layout: Layout) -> tuple[Pixels, Any]:
    batch = load_pickle(path)
    pixels, labels = batch.get("data"), batch.get(layout.label_key)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (NUM_VALUES,):
        raise TrainingError(f"{path} is not a CIFAR batch: its 'data' is not a uint8 array (N, {NUM_VALUES})")
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise TrainingError(f"{path} is not a CIFAR batch: its {layout.label_key!r} is not a list of 0..255")
    if not labels or len(labels) != len(pixels):
        raise TrainingError(f"{path} has {len(pixels)} pictures and {len(labels)} labels: they do not match")
    return pixels, np.array(labels)


def _label_names(path: Path, layout: Layout) -> list[str]:
    """Return the names of the classes, none if the file is not there."""
    if not path.is_file():
        return []
    if layout.record_head:
        return [line.strip() for line in path.read_text("utf-8", "replace").splitlines() if line.strip()]
    names = load_pickle(path).get(layout.names_key)
    if not isinstance(names, list) or not all(type(name) in {bytes, str} for name in names):
        raise TrainingError(f"{path} is not a CIFAR meta file: its {layout.names_key!r} is not a list of names")
    return [name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names]
