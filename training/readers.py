"""Readers of pictures as shops and researchers keep them: IDX(.gz) files and folders of image files.

Each returns raw splits; `training.data` packs them.
"""

import gzip
import hashlib
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from training.errors import TrainingError

Pixels = npt.NDArray[np.uint8]
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}
HOLDOUT_SHARE = 0.1


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


def read_source(source: Path, *, size: int | None, channels: int | None) -> RawData:
    """Read a source of pictures, whichever kind it is.

    Args:
        source: A folder with the four IDX(.gz) files, or a folder of image files: one folder per class, or all in
            one; `train/` and `test/` inside it are taken as the splits.
        size: Height and width to crop and resize to, in pixels; `None` keeps IDX pictures as they are and makes
            image files 64x64.
        channels: 1 (grey) or 3 (RGB); `None`: as the source has it.

    Raises:
        TrainingError: If the source does not exist, is of no known kind or holds no readable picture.
    """
    if not source.is_dir():
        raise TrainingError(f"source {str(source)!r} is not a folder; give a folder with IDX files or with images")
    if _find_idx(source, "train-images") is not None:
        if size is not None or channels not in (None, 1):
            raise TrainingError("--size and --channels do not apply to IDX files: they are read as they are")
        return _read_idx_folder(source)
    return _read_image_folder(source, size or 64, channels)


def _find_idx(folder: Path, stem: str) -> Path | None:
    matches = sorted(path for path in folder.iterdir() if path.name.startswith(stem))
    return matches[0] if matches else None


def _read_idx_folder(folder: Path) -> RawData:
    splits = []
    for prefix in ("train", "t10k"):
        images, labels = _find_idx(folder, f"{prefix}-images"), _find_idx(folder, f"{prefix}-labels")
        if images is None or labels is None:
            raise TrainingError(f"{folder} lacks {prefix}-images or {prefix}-labels; IDX sets have both, for train and t10k")
        pixels = read_idx(images)
        targets = read_idx(labels)
        if pixels.ndim != 3 or targets.ndim != 1 or len(pixels) != len(targets):
            raise TrainingError(f"{images.name} has shape {pixels.shape}, {labels.name} {targets.shape}: they do not match")
        splits.append(RawSplit(pixels[..., None], targets.astype(np.int64)))
    num_classes = int(max(split.labels.max() for split in splits)) + 1
    return RawData(splits[0], splits[1], [str(index) for index in range(num_classes)])


def read_idx(path: Path) -> Pixels:
    """Return the array of an IDX file, gzipped or not; uint8 only.

    Raises:
        TrainingError: If the file is not IDX of unsigned bytes, or is shorter than its header says.
    """
    raw = path.read_bytes()
    try:
        data = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError) as error:
        raise TrainingError(f"{path} is a damaged gzip file: {error}") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise TrainingError(f"{path} is not an IDX file of unsigned bytes: it starts with {data[:4].hex()!r}, not 000008..")
    ndim = data[3]
    shape = struct.unpack_from(f">{ndim}I", data, 4) if len(data) >= 4 + 4 * ndim else ()
    body = data[4 + 4 * ndim :]
    if not shape or len(body) != int(np.prod(shape)):
        raise TrainingError(f"{path} says shape {shape} but holds {len(body)} bytes: it is cut short or damaged")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _read_image_folder(folder: Path, size: int, channels: int | None) -> RawData:
    roots = [folder / "train", folder / "test"]
    split_given = all(root.is_dir() for root in roots)
    files = [sorted(_image_files(root)) for root in (roots if split_given else [folder])]
    if not files[0]:
        raise TrainingError(f"{folder} holds no image files ({', '.join(sorted(IMAGE_SUFFIXES))}) and no IDX files")
    root = roots[0] if split_given else folder
    names = sorted({_class_of(path, root) for path in files[0]})
    skipped: list[str] = []
    mode = {1: "L", 3: "RGB"}.get(channels or 0) or _common_mode(files[0])

    def load(paths: list[Path], base: Path) -> RawSplit:
        images, labels = [], []
        for path in paths:
            name = _class_of(path, base)
            if name not in names:
                skipped.append(f"{path}: class {name!r} is not among the training classes")
                continue
            try:
                images.append(read_image(path, size, mode))
            except (OSError, ValueError, Image.DecompressionBombError) as error:
                skipped.append(f"{path}: {error}")
                continue
            labels.append(names.index(name))
        stacked = np.stack(images) if images else np.zeros((0, size, size, len(mode)), np.uint8)
        return RawSplit(stacked, np.array(labels, np.int64))

    if split_given:
        train, holdout = load(files[0], roots[0]), load(files[1], roots[1])
    else:
        held = [path for path in files[0] if _is_holdout(path)]
        train = load([path for path in files[0] if not _is_holdout(path)], folder)
        holdout = load(held, folder)
    if not len(train.images):
        raise TrainingError(f"none of the {len(files[0])} image files in {folder} could be read; the first: {skipped[0]}")
    return RawData(train, holdout, names if len(names) > 1 else [], skipped)


def _image_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _class_of(path: Path, root: Path) -> str:
    parts = path.relative_to(root).parts
    return parts[0] if len(parts) > 1 else ""


def _is_holdout(path: Path) -> bool:
    """Tell whether a file belongs to the hold-out split: a tenth, fixed by the hash of its content."""
    digest = hashlib.sha256(path.read_bytes()).digest()
    return int.from_bytes(digest[:8], "big") < HOLDOUT_SHARE * 2**64


def _common_mode(paths: list[Path]) -> str:
    """Return "L" if the first readable pictures are all grey, else "RGB"."""
    modes = set()
    for path in paths[:32]:
        try:
            with Image.open(path) as image:
                modes.add(image.mode)
        except OSError:
            continue
    return "L" if modes and modes <= {"1", "L", "LA", "I;16"} else "RGB"


def read_image(path: Path, size: int, mode: str) -> Pixels:
    """Return a picture, uint8 (size, size, C), upright, cropped to its central square and resized (Lanczos).

    Transparent pictures are laid on white.

    Raises:
        OSError: If the file is not a readable picture.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.has_transparency_data:
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image.convert("RGBA"))
            elif image.mode.startswith("I;16"):
                image = image.point(lambda value: value / 257).convert("L")
            image = ImageOps.fit(image.convert(mode), (size, size), Image.Resampling.LANCZOS)
            pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels
