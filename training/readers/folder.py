"""Folders of image files: a folder per class, all in one, or labels from a file; `train/` and `test/` as splits."""

from collections.abc import Iterator
from pathlib import Path

from training.errors import TrainingError
from training.readers.labels import Labels, read_labels
from training.readers.pool import spread
from training.readers.raw import Encoded, Item, SplitName

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}
HOLDOUT_NAMES = ("test", "val", "valid", "validation")


def find_image_files(folder: Path, labels_file: Path | None) -> Encoded:
    """Return the image files under a folder; hidden ones are left out.

    Args:
        folder: The folder.
        labels_file: A CSV or JSON file that gives the class of each; `None`: the folders are the classes.

    Returns:
        The files, sorted by path; what has no class while others have one is skipped.

    Raises:
        TrainingError: If there is no image file, or the labels file cannot be used.
    """
    skipped: list[str] = []
    labels = read_labels(labels_file) if labels_file else None
    roots: list[tuple[Path, SplitName]] = [(folder, "")]
    holdouts = [folder / name for name in HOLDOUT_NAMES if (folder / name).is_dir()]
    if (folder / "train").is_dir() and holdouts:
        roots = [(folder / "train", "train"), (holdouts[0], "holdout")]
        skipped += [f"{other}: left out, {holdouts[0].name}/ is the hold-out" for other in holdouts[1:]]
    items: list[Item] = []
    for root, split in roots:
        found = list(_image_files(root))
        items += (
            _by_labels(folder, found, labels, split, skipped) if labels else _by_folder(root, found, split, skipped)
        )
    if not items and not skipped:
        raise TrainingError(f"{folder} holds no image files ({', '.join(sorted(IMAGE_SUFFIXES))}) and no IDX files")
    if labels and not items:
        raise TrainingError(f"--labels-file {labels_file} names none of the image files in {folder}; {skipped[0]}")
    if labels:
        skipped += [f"{labels_file}: {name} is not in {folder}" for name in labels.unused()]
    train = [item for item in items if item.split != "holdout"]
    return Encoded(lambda: items, spread(train), skipped=skipped)


def _image_files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        hidden = any(part[0] == "." for part in path.relative_to(root).parts)
        if path.suffix.lower() in IMAGE_SUFFIXES and not hidden and path.is_file():
            yield path


def _by_folder(root: Path, files: list[Path], split: SplitName, skipped: list[str]) -> list[Item]:
    parts = [path.relative_to(root).parts for path in files]
    items = [_item(path, part[0] if len(part) > 1 else "", split) for path, part in zip(files, parts, strict=True)]
    if not any(item.label for item in items):
        return items
    skipped += [f"{item.name}: lies beside the class folders" for item in items if not item.label]
    return [item for item in items if item.label]


def _by_labels(folder: Path, files: list[Path], labels: Labels, split: SplitName, skipped: list[str]) -> list[Item]:
    items = []
    for path in files:
        label = labels.find(path.relative_to(folder).as_posix())
        if label is None:
            skipped.append(f"{path}: has no label in {labels.path}")
        else:
            items.append(_item(path, label, split))
    return items


def _item(path: Path, label: str, split: SplitName) -> Item:
    return Item(str(path), label, split, path)
