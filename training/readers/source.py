"""Which reader a source needs: decided by what lies in it, without a flag."""

import zipfile
from dataclasses import replace
from pathlib import Path

from training.duplicates import Duplicates
from training.errors import TrainingError
from training.readers.archive import unpacked
from training.readers.cifar import find_cifar, read_cifar
from training.readers.folder import find_image_files
from training.readers.idx import find_idx, read_idx_folder
from training.readers.parquet import find_parquet_files, read_parquet
from training.readers.pool import common_mode, read_pictures
from training.readers.raw import AlphaSource, Encoded, Fit, Found, RawData, Wishes
from training.readers.splits import as_raw

DEFAULT_SIZE = 64
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
LICENCE_NAMES = ("LICENSE", "LICENCE", "LICENSE.txt", "LICENSE.md")
KINDS = "give a folder with IDX or CIFAR files, with Parquet files or with images, a .zip of one, or a .parquet file"


def read_source(
    source: Path,
    *,
    size: int | None,
    channels: int | None,
    alpha: AlphaSource | None = None,
    fit: Fit | None = None,
    labels_file: Path | None = None,
) -> RawData:
    """Read a source of pictures, whichever kind it is.

    Args:
        source: A folder with the four IDX(.gz) files, with a CIFAR set, with Parquet files, or with image files: one
            folder per class, or all in one; `train/` and `test/` inside it are taken as the splits. Or a zip of such a
            folder, or one Parquet file.
        size: Height and width to fit pictures into, in pixels; `None` makes them 64x64, and keeps IDX and CIFAR
            pictures as they are.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA); `None`: as the source has it.
        alpha: Where the alpha of RGBA comes from: the "file", a plain background that touches the "border", or a
            "threshold" of the distance from the border's colour.
        fit: How pictures become square: "crop" (as with `None`), "pad" or "stretch".
        labels_file: CSV or JSON with the classes of image files, on the disk or in the source.

    Returns:
        Both splits; files that could not be used are named in `skipped`, pictures that are there twice in `duplicates`.

    Raises:
        TrainingError: If the source does not exist, is of no known kind or holds no readable picture.
    """
    wishes = Wishes(size, channels, alpha, fit, labels_file)
    if alpha is not None and channels not in (None, 4):
        raise TrainingError(f"--alpha {alpha} makes RGBA, and --channels {channels} has no alpha")
    if source.is_dir():
        return _read_folder(source, wishes)
    if not source.is_file():
        raise TrainingError(f"source {str(source)!r} is not a folder or a file; {KINDS}")
    if source.suffix.lower() == ".parquet":
        return _read_encoded(source, _parquet([source], wishes), wishes)
    if not zipfile.is_zipfile(source):
        raise TrainingError(f"source {str(source)!r} is not a folder, a zip or a .parquet file; {KINDS}")
    with unpacked(source) as folder:
        try:
            return _renamed(_read_folder(folder, wishes), str(folder), str(source))
        except TrainingError as error:
            raise TrainingError(str(error).replace(str(folder), str(source))) from error


def _read_folder(source: Path, wishes: Wishes) -> RawData:
    folder = _unwrapped(source)
    licence = next((text for path in (source, folder) if (text := _licence_in(path))), "")
    if find_idx(folder, "train-images") is not None:
        _refuse(wishes, wishes.flags(), "IDX files: they are read as they are")
        raw = _as_raw(folder, read_idx_folder(folder))
    elif (layout := find_cifar(folder)) is not None:
        _refuse(wishes, wishes.flags(), "CIFAR files: they are read as they are")
        raw = _as_raw(folder, read_cifar(folder, layout))
    elif paths := find_parquet_files(folder):
        raw = _read_encoded(folder, _parquet(paths, wishes), wishes)
    else:
        raw = _read_encoded(folder, find_image_files(folder, _labels_file(folder, wishes)), wishes)
    return replace(raw, licence=licence)


def _unwrapped(folder: Path) -> Path:
    """Return `folder`, or the folder that it holds if it holds nothing else: archives often wrap what is in them."""
    while len(inside := [path for path in folder.iterdir() if path.name[0] != "."]) == 1 and inside[0].is_dir():
        folder = inside[0]
    return folder


def _licence_in(folder: Path) -> str:
    for name in LICENCE_NAMES:
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8", errors="replace").strip()
    return ""


def _labels_file(folder: Path, wishes: Wishes) -> Path | None:
    """Return the labels file, which may lie in the source."""
    path = wishes.labels_file
    inside = path is not None and not path.is_absolute() and ".." not in path.parts and not path.exists()
    return folder / path if path is not None and inside and (folder / path).is_file() else path


def _parquet(paths: list[Path], wishes: Wishes) -> Encoded:
    _refuse(wishes, ["--labels-file"], "Parquet files: their labels are in a column")
    return read_parquet(paths)


def _refuse(wishes: Wishes, flags: list[str], why: str) -> None:
    if given := [flag for flag in flags if flag in wishes.flags()]:
        verb = "do" if len(given) > 1 else "does"
        raise TrainingError(f"{', '.join(given)} {verb} not apply to {why}")


def _read_encoded(source: Path, encoded: Encoded, wishes: Wishes) -> RawData:
    channels = 4 if wishes.alpha is not None else wishes.channels
    mode = MODES[channels] if channels else common_mode(encoded.sample)
    skipped = encoded.skipped
    train, holdout = read_pictures(
        encoded.items(), wishes.size or DEFAULT_SIZE, mode, wishes.alpha or "file", wishes.fit or "crop", skipped
    )
    return _as_raw(source, Found(train, holdout, encoded.order, skipped))


def _as_raw(source: Path, found: Found) -> RawData:
    if not found.train.names:
        first = f"; the first of {len(found.skipped)} skipped: {found.skipped[0]}" if found.skipped else ""
        raise TrainingError(f"{source} holds no picture to train on{first}")
    return as_raw(found)


def _renamed(raw: RawData, before: str, after: str) -> RawData:
    """Return `raw` with the folder that a zip was unpacked into called by the zip's name."""

    def renamed(lines: list[str]) -> list[str]:
        return [line.replace(before, after) for line in lines]

    found = raw.duplicates
    lists = {name: renamed(getattr(found, name)) for name in ("leaks", "copies", "near_examples")}
    duplicates = Duplicates(num_near=found.num_near, num_near_across=found.num_near_across, **lists)
    return replace(raw, skipped=renamed(raw.skipped), duplicates=duplicates)
