"""What every reader hands on: pictures with the names of their classes, and the raw splits that come of them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from training.duplicates import Duplicates

Pixels = npt.NDArray[np.uint8]
AlphaSource = Literal["file", "border", "threshold"]
Fit = Literal["crop", "pad", "stretch"]
SplitName = Literal["train", "holdout", ""]


@dataclass(slots=True)
class RawSplit:
    """Pictures, uint8 (N, H, W, C), and their labels, int64 (N,)."""

    images: Pixels
    labels: npt.NDArray[np.int64]


@dataclass(slots=True)
class RawData:
    """What a reader found; `skipped` names the files that could not be read, each with the reason."""

    train: RawSplit
    holdout: RawSplit
    label_names: list[str]
    skipped: list[str] = field(default_factory=list)
    duplicates: Duplicates = field(default_factory=Duplicates)
    licence: str = ""


@dataclass(slots=True)
class Pictures:
    """Pictures of one shape, each uint8 (H, W, C), with the name of its class ("" without classes) and its own name.

    `keys` are digests of the files that they came from, for the hold-out split; readers of given splits leave them out.
    """

    images: Sequence[Pixels]
    classes: Sequence[str]
    names: Sequence[str]
    keys: Sequence[bytes] = ()

    def subset(self, indices: Sequence[int]) -> "Pictures":
        """Return the pictures at `indices`, without keys."""
        return Pictures(
            [self.images[index] for index in indices],
            [self.classes[index] for index in indices],
            [self.names[index] for index in indices],
        )


@dataclass(slots=True)
class Found:
    """The pictures of a source: `train` and `holdout` if it comes split, else all in `train` and no `holdout`.

    `order` are the names of the classes in the order of their labels, where the source says so.
    """

    train: Pictures
    holdout: Pictures | None = None
    order: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Item:
    """An encoded picture: its name, its class, its split if that is given, and its file or its bytes.

    One with a `fault` is skipped for that reason.
    """

    name: str
    label: str
    split: SplitName
    content: Path | bytes
    fault: str = ""


@dataclass(slots=True)
class Encoded:
    """Encoded pictures: `items` gives all of them, in order; `sample` is a few, from which the mode is found."""

    items: Callable[[], Iterable[Item]]
    sample: list[Item]
    order: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked for; `None` where the source or the default decides."""

    size: int | None = None
    channels: int | None = None
    alpha: AlphaSource | None = None
    fit: Fit | None = None
    labels_file: Path | None = None

    def flags(self) -> list[str]:
        """Return the flags that were given."""
        return [f"--{name.replace('_', '-')}" for name in self.__slots__ if getattr(self, name) is not None]
