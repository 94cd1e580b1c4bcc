"""The packed data set: one safetensors file with both splits, their labels, licence and hash.

Pixels become floats here and nowhere else: `to_float` and `to_uint8` are inverses.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from training.errors import TrainingError
from training.files import replacing
from training.readers import RawData, RawSplit

FORMAT = "vitrine-pictures/1"


@dataclass(frozen=True, slots=True)
class Label:
    """A class: its name, and further words that mean the same."""

    name: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Split:
    """Pictures, uint8 (N, H, W, C), and labels, int64 (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.images)


@dataclass(frozen=True, slots=True)
class PictureSet:
    """A data set in memory. `labels` is empty where there are no classes; `digest` is the SHA-256 of the content."""

    name: str
    train: Split
    holdout: Split
    labels: tuple[Label, ...]
    licence: str
    digest: str

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 for a set without labels."""
        return len(self.labels)

    @property
    def size(self) -> tuple[int, int, int]:
        """Height, width and channels of the pictures."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels


def to_float(pixels: Tensor) -> Tensor:
    """Return images, float32 (N, C, H, W) in [-1, 1], channels last, for `pixels`, uint8 (N, H, W, C).

    Colours of RGBA are multiplied by alpha, so that what nobody sees has one value and edges have no fringe.
    """
    images = pixels.permute(0, 3, 1, 2).to(torch.float32)
    if images.shape[1] == 4:
        images[:, :3] *= images[:, 3:] / 255
    return images.div(127.5).sub(1)


def to_uint8(images: Tensor) -> Tensor:
    """Return pixels, uint8 (N, H, W, C), for `images`, float (N, C, H, W); values beyond [-1, 1] are clipped.

    RGBA gets straight alpha; where alpha is 0, so are the colours.
    """
    levels = images.permute(0, 2, 3, 1).add(1).mul(127.5)
    if levels.shape[3] == 4:
        alpha = levels[:, :, :, 3:].round().clamp(0, 255)
        colours = levels[:, :, :, :3] * (255 / alpha.clamp(min=1)) * (alpha > 0)
        levels = torch.cat([colours, alpha], dim=3)
    return levels.round().clamp(0, 255).to(torch.uint8)


def pack(raw: RawData, out: Path, *, name: str, labels: list[Label], licence: str) -> PictureSet:
    """Write what a reader found as one packed file, atomically, and read it back.

    Args:
        raw: The splits.
        out: Path of the file to write.
        name: Name of the data set.
        labels: One per class of `raw`, in order; empty for a set without classes.
        licence: Licence of the pictures, as text.

    Returns:
        The data set, as `load` gives it.

    Raises:
        TrainingError: If there are other labels than classes.
    """
    if len(labels) != len(raw.label_names):
        raise TrainingError(f"{len(labels)} labels were given for {len(raw.label_names)} classes: {raw.label_names}")
    tensors = {}
    for key, split in (("train", raw.train), ("holdout", raw.holdout)):
        tensors[f"{key}.images"] = torch.from_numpy(np.array(split.images))
        tensors[f"{key}.labels"] = torch.from_numpy(split.labels.copy())
    metadata = {
        "format": FORMAT,
        "name": name,
        "labels": json.dumps([{"name": label.name, "aliases": label.aliases} for label in labels]),
        "licence": licence,
        "digest": content_digest(raw.train, raw.holdout),
    }
    with replacing(out) as beside:
        save_file(tensors, beside, metadata)
    return load(out)


def content_digest(*splits: RawSplit) -> str:
    """Return the SHA-256 over shapes, pixels and labels of `splits`, as hexadecimal digits."""
    sha = hashlib.sha256()
    for split in splits:
        sha.update(repr(split.images.shape).encode())
        sha.update(np.ascontiguousarray(split.images).tobytes())
        sha.update(split.labels.astype("<i8").tobytes())
    return sha.hexdigest()


def load(path: Path) -> PictureSet:
    """Return the data set of a packed file.

    Args:
        path: File that `pack` has written.

    Returns:
        All of it, in memory.

    Raises:
        TrainingError: If the file is missing or was not written by `prepare`.
    """
    if not path.is_file():
        raise TrainingError(
            f"data {str(path)!r} is not a file; make one with: python -m training prepare SOURCE {path}"
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise TrainingError(f"{path} was not written by 'python -m training prepare' (format {FORMAT})")
            train, holdout = (
                Split(file.get_tensor(f"{key}.images"), file.get_tensor(f"{key}.labels"))
                for key in ("train", "holdout")
            )
    except SafetensorError as error:
        raise TrainingError(f"{path} is damaged or not a packed data set: {error}") from error
    labels = tuple(Label(entry["name"], tuple(entry["aliases"])) for entry in json.loads(metadata["labels"]))
    return PictureSet(metadata["name"], train, holdout, labels, metadata["licence"], metadata["digest"])


class EndlessSampler:
    """Shuffled indices without end, as a pure function of the position: a resumed run needs no state.

    Args:
        length: Number of pictures.
        seed: Seed of the shuffles; every epoch has its own.
    """

    def __init__(self, length: int, seed: int) -> None:
        self.length = length
        self.seed = seed
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def indices(self, position: int, count: int) -> Tensor:
        """Return the indices, int64 (count,), at `position`, `position` + 1, ..."""
        parts = []
        while count > 0:
            epoch, start = divmod(position, self.length)
            if epoch != self._epoch:
                generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
                self._epoch, self._order = epoch, torch.randperm(self.length, generator=generator)
            part = self._order[start : start + count]
            parts.append(part)
            position, count = position + len(part), count - len(part)
        return torch.cat(parts)
