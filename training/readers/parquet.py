"""Parquet files with encoded pictures, as Hugging Face's `datasets` writes them; needs the extra `parquet`."""

import json
from collections.abc import Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from training.errors import TrainingError
from training.readers.pool import SAMPLE
from training.readers.raw import Encoded, Item, SplitName

IMAGE_COLUMNS = ("image", "img", "picture", "photo", "bytes")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "category", "target")
BATCH_ROWS = 64


def find_parquet_files(folder: Path) -> list[Path]:
    """Return the Parquet files in a folder and in its `data/`, sorted."""
    return sorted(path for under in (folder, folder / "data") for path in under.glob("*.parquet") if path.is_file())


def read_parquet(paths: list[Path]) -> Encoded:
    """Return the encoded pictures of some Parquet files.

    Args:
        paths: The files, at least one; names that start with train and with test or val make the splits.

    Returns:
        A picture per row, from a column of bytes or of {bytes, path}; rows without bytes are skipped.

    Raises:
        TrainingError: If pyarrow is missing, a file is damaged, or has no column of pictures.
    """
    try:
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError as error:
        raise TrainingError(
            f"{paths[0]} is a Parquet file, and pyarrow, which reads them, is not installed: "
            "install the extra, pip install 'vitrine[parquet]'"
        ) from error
    skipped: list[str] = []
    splits = _splits(paths, skipped)
    names: list[str] = []
    for path in splits:
        columns = _columns(parquet, path)
        names = names or columns[2]

    def items() -> Iterator[Item]:
        for path, split in splits.items():
            yield from _items(parquet, path, split)

    first = next((path for path, split in splits.items() if split != "holdout"), paths[0])
    sample = list(islice(_items(parquet, first, ""), SAMPLE))
    return Encoded(items, sample, names, skipped)


def _splits(paths: list[Path], skipped: list[str]) -> dict[Path, SplitName]:
    """Return the split of each file that is used."""
    train = [path for path in paths if path.name.startswith("train")]
    for start in ("test", "val"):
        holdout = [path for path in paths if path.name.startswith(start)]
        if train and holdout:
            used = dict[Path, SplitName](dict.fromkeys(train, "train"))
            used.update(dict.fromkeys(holdout, "holdout"))
            skipped += [f"{path}: left out, {start}* is the hold-out" for path in paths if path not in used]
            return used
    return dict.fromkeys(paths, "")


def _columns(parquet: Any, path: Path) -> tuple[str, str | None, list[str]]:
    """Return the columns of pictures and of labels, and the names of the classes if the file has them."""
    try:
        schema = parquet.read_schema(path)
    except Exception as error:  # pyarrow raises its own errors, OSError and ValueError
        raise TrainingError(f"{path} is damaged or not a Parquet file: {error}") from error
    kinds = {field.name: field.type for field in schema}
    holding = [name for name, kind in kinds.items() if _holds_bytes(kind)]
    image = next((name for name in IMAGE_COLUMNS if name in holding), holding[0] if len(holding) == 1 else None)
    if image is None:
        raise TrainingError(
            f"{path} has the columns {', '.join(kinds) or 'none'}; expected pictures as bytes or as {{bytes, path}}, "
            f"in the only such column or in one called {', '.join(IMAGE_COLUMNS)}"
        )
    label = next((name for name in LABEL_COLUMNS if name in kinds and name != image), None)
    return image, label, _class_names(schema, label)


def _holds_bytes(kind: Any) -> bool:
    fields = {field.name: field.type for field in kind} if str(kind).startswith("struct<") else {"bytes": kind}
    return str(fields.get("bytes")) in {"binary", "large_binary"}


def _class_names(schema: Any, label: str | None) -> list[str]:
    """Return the names that `datasets` notes for the label's column, if it does."""
    try:
        notes = json.loads((schema.metadata or {})[b"huggingface"])
        names = notes["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def _items(parquet: Any, path: Path, split: SplitName) -> Iterator[Item]:
    image, label, names = _columns(parquet, path)
    row = -1
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=[image, *([label] if label else [])]):
                pictures = batch.column(image).to_pylist()
                labels = batch.column(label).to_pylist() if label else [""] * len(pictures)
                for value, given in zip(pictures, labels, strict=True):
                    row += 1
                    content = value.get("bytes") if isinstance(value, dict) else value
                    word = _word(given, names)
                    fault = "" if content else "holds no bytes of a picture"
                    if word is None:
                        fault = f"label {given!r} of column {label!r} is no class"
                    yield Item(f"{path}[{row}]", word or "", split, content or b"", fault)
    except TrainingError:
        raise
    except Exception as error:
        raise TrainingError(f"{path} is damaged after row {row}: {error}") from error


def _word(label: Any, names: list[str]) -> str | None:
    """Return the name of a label, `None` if there is none for it."""
    if isinstance(label, int) and not isinstance(label, bool):
        return (names[label] if 0 <= label < len(names) else None) if names else str(label)
    return label if isinstance(label, str) else None
