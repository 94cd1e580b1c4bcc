"""Readers of pictures as shops and researchers keep them: IDX(.gz) files and folders of image files.

Each returns raw splits; `training.data` packs them.
"""

import gzip
import hashlib
import math
import struct
import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from training.alpha import from_border
from training.errors import TrainingError

Pixels = npt.NDArray[np.uint8]
AlphaSource = Literal["file", "border"]
LabelledFile = tuple[Path, str]  # an image file, and the name of its class
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}
GREY_MODES = {"1", "L", "LA", "I;16", "I;16B"}
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


def read_source(source: Path, *, size: int | None, channels: int | None, alpha: AlphaSource | None = None) -> RawData:
    """Read a source of pictures, whichever kind it is.

    Args:
        source: A folder with the four IDX(.gz) files, or a folder of image files: one folder per class, or all in
            one; `train/` and `test/` inside it are taken as the splits.
        size: Height and width to crop and resize to, in pixels; `None` keeps IDX pictures as they are and makes
            image files 64x64.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA); `None`: as the source has it.
        alpha: Where the alpha of RGBA comes from: the "file", or a plain background that touches the "border".

    Returns:
        Both splits; files that could not be used are named in `skipped`.

    Raises:
        TrainingError: If the source does not exist, is of no known kind or holds no readable picture.
    """
    if not source.is_dir():
        raise TrainingError(f"source {str(source)!r} is not a folder; give a folder with IDX files or with images")
    if _find_idx(source, "train-images") is not None:
        if size is not None or channels not in (None, 1) or alpha is not None:
            raise TrainingError("--size, --channels and --alpha do not apply to IDX files: they are read as they are")
        return _read_idx_folder(source)
    if alpha is not None and channels not in (None, 4):
        raise TrainingError(f"--alpha {alpha} makes RGBA, and --channels {channels} has no alpha")
    return _read_image_folder(source, size or 64, channels if alpha is None else 4, alpha or "file")


def _find_idx(folder: Path, stem: str) -> Path | None:
    matches = sorted(path for path in folder.iterdir() if path.name.startswith(stem) and path.is_file())
    return matches[0] if matches else None


def _read_idx_folder(folder: Path) -> RawData:
    splits = []
    for prefix in ("train", "t10k"):
        images, labels = _find_idx(folder, f"{prefix}-images"), _find_idx(folder, f"{prefix}-labels")
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
        splits.append(RawSplit(pixels[..., None], targets.astype(np.int64)))
    sizes = [split.images.shape[1:3] for split in splits]
    if sizes[0] != sizes[1]:
        raise TrainingError(f"{folder} holds pictures of two sizes: train {sizes[0]}, t10k {sizes[1]}")
    num_classes = int(max(split.labels.max() for split in splits)) + 1
    return RawData(splits[0], splits[1], [str(index) for index in range(num_classes)])


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


def _read_image_folder(folder: Path, size: int, channels: int | None, alpha: AlphaSource) -> RawData:
    skipped: list[str] = []
    roots = folder / "train", folder / "test"
    if all(root.is_dir() for root in roots):
        train_files, holdout_files = (_labelled_files(root, skipped) for root in roots)
    else:
        train_files, holdout_files = _hold_out(_labelled_files(folder, skipped))
    if not train_files + holdout_files:
        raise TrainingError(f"{folder} holds no image files ({', '.join(sorted(IMAGE_SUFFIXES))}) and no IDX files")

    mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(channels or 0) or _common_mode(train_files)
    images, names = _read_files(train_files, size, mode, alpha, skipped)
    if not images:
        first = f"; the first skipped: {skipped[0]}" if skipped else ""
        raise TrainingError(f"{folder} holds no picture to train on, of {len(train_files)} image files{first}")
    classes = sorted(set(names))
    strangers = [file for file in holdout_files if file[1] not in classes]
    skipped += [f"{path}: class {name!r} is not among the training classes" for path, name in strangers]
    known = [file for file in holdout_files if file[1] in classes]
    shape = (size, size, len(mode))
    train = _as_split(images, names, classes, shape)
    holdout = _as_split(*_read_files(known, size, mode, alpha, skipped), classes, shape)
    return RawData(train, holdout, classes if len(classes) > 1 else [], skipped)


def _labelled_files(root: Path, skipped: list[str]) -> list[LabelledFile]:
    """Return the image files under `root`, sorted; hidden ones, and those beside class folders, are left out."""
    files = []
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not any(part[0] == "." for part in parts):
            files.append((path, parts[0] if len(parts) > 1 else ""))
    if not any(name for _, name in files):
        return files
    skipped += [f"{path}: lies beside the class folders" for path, name in files if not name]
    return [(path, name) for path, name in files if name]


def _hold_out(files: list[LabelledFile]) -> tuple[list[LabelledFile], list[LabelledFile]]:
    """Return training and hold-out files: a tenth is held out, fixed by the hash of each file's content."""
    splits: tuple[list[LabelledFile], list[LabelledFile]] = ([], [])
    for file in files:
        digest = hashlib.sha256(file[0].read_bytes()).digest()
        splits[int.from_bytes(digest[:8], "big") < HOLDOUT_SHARE * 2**64].append(file)
    return splits


def _read_files(
    files: list[LabelledFile], size: int, mode: str, alpha: AlphaSource, skipped: list[str]
) -> tuple[list[Pixels], list[str]]:
    """Return pictures and the names of their classes; files that cannot be read are added to `skipped`."""
    images, names = [], []
    for path, name in files:
        try:
            images.append(read_image(path, size, mode, alpha))
        except Exception as error:  # on a damaged file a codec raises anything, SyntaxError and RuntimeError among it
            skipped.append(f"{path}: {error}")
        else:
            names.append(name)
    return images, names


def _as_split(images: list[Pixels], names: list[str], classes: list[str], shape: tuple[int, ...]) -> RawSplit:
    labels = np.array([classes.index(name) for name in names], np.int64)
    return RawSplit(np.array(images, np.uint8).reshape(-1, *shape), labels)


def _common_mode(files: list[LabelledFile]) -> str:
    """Return "L" if the first readable pictures are all grey, else "RGB"."""
    modes = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path, _ in files[:32]:
            with suppress(Exception), Image.open(path) as image:
                modes.add(image.mode)
    return "L" if modes and modes <= GREY_MODES else "RGB"


def read_image(path: Path, size: int, mode: str, alpha: AlphaSource = "file") -> Pixels:
    """Return a picture, upright, cropped to its central square and resized (Lanczos).

    Transparent pictures are laid on white unless alpha is kept; 16-bit greys are scaled to 8 bits.

    Args:
        path: The file.
        size: Height and width of the result.
        mode: "L", "RGB" or "RGBA".
        alpha: Where the alpha of "RGBA" comes from: the "file", or a plain background that touches the "border".

    Returns:
        uint8 (size, size, C).

    Raises:
        ValueError: If the pixels have no known range: 32-bit integers or floats.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about damaged metadata and the like; the picture is read or it is not
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode in {"I", "F"}:
                raise ValueError(f"pixels of mode {image.mode!r} have no known range")
            if image.mode.startswith("I;16"):
                image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
            elif image.has_transparency_data and not (mode == "RGBA" and alpha == "file"):
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image.convert("RGBA"))
            cut = mode == "RGBA" and alpha == "border"
            fitted = ImageOps.fit(image.convert("RGB" if cut else mode), (size, size), Image.Resampling.LANCZOS)
            pixels = from_border(np.asarray(fitted)) if cut else np.asarray(fitted)
            if mode == "RGBA":
                pixels = np.where(pixels[..., 3:] > 0, pixels, 0).astype(np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels
