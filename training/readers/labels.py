"""The labels of image files, from a CSV or JSON file with `file` and `label`."""

import csv
import json
from pathlib import Path, PurePosixPath
from typing import Any

from training.errors import TrainingError

EXPECTED = "expected CSV with the columns file,label, or a JSON list of {file, label} or object of file: label"
MAX_BYTES = 1 << 30


class Labels:
    """Labels by the files' names: paths below the source, or bare names where only one entry has them.

    Files are only ever looked up here by names that were found on the disk, so an entry cannot lead elsewhere.

    Args:
        path: The file that they come from.
        entries: Label by name.
    """

    def __init__(self, path: Path, entries: dict[str, str]) -> None:
        self.path = path
        self._entries = entries
        self._found: set[str] = set()

    def find(self, name: str) -> str | None:
        """Return the label of the file `name`, relative to the source with `/` between the parts, if it has one."""
        for key in (name, PurePosixPath(name).name):
            if key in self._entries:
                self._found.add(key)
                return self._entries[key]
        return None

    def unused(self) -> list[str]:
        """Return the entries that no file was found for."""
        return [name for name in self._entries if name not in self._found]


def read_labels(path: Path) -> Labels:
    """Return the labels in a file.

    Args:
        path: A file that ends in .csv or .json.

    Returns:
        All of them.

    Raises:
        TrainingError: If the file is missing, of another kind or shape, or gives a file two labels.
    """
    readers = {".csv": _csv_rows, ".json": _json_rows}
    if path.suffix.lower() not in readers:
        raise TrainingError(f"--labels-file {path}: ends in {path.suffix!r}, not in .csv or .json; {EXPECTED}")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has {path.stat().st_size} bytes, more than {MAX_BYTES}")
        rows = readers[path.suffix.lower()](path.read_text(encoding="utf-8-sig"))
        entries: dict[str, str] = {}
        for row in rows:
            name, label = _name(row[0]), _label(row)
            if entries.setdefault(name, label) != label:
                raise ValueError(f"{name!r} has two labels, {entries[name]!r} and {label!r}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        fault = f"no {error} there" if isinstance(error, KeyError) else error
        raise TrainingError(f"--labels-file {path}: {fault}; {EXPECTED}") from error
    return Labels(path, entries)


def _csv_rows(text: str) -> list[tuple[Any, Any]]:
    header = text.partition("\n")[0]
    delimiter = next((mark for mark in ",;\t" if mark in header), ",")
    return [(row["file"], row["label"]) for row in csv.DictReader(text.splitlines(), delimiter=delimiter, strict=True)]


def _json_rows(text: str) -> list[tuple[Any, Any]]:
    value = json.loads(text)
    if isinstance(value, dict):
        return list(value.items())
    if not isinstance(value, list):
        raise TypeError(f"not a list or an object but {type(value).__name__}")
    return [(entry["file"], entry["label"]) for entry in value]


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"a file's name is {value!r}")
    return str(PurePosixPath(value.replace("\\", "/")))


def _label(row: tuple[Any, Any]) -> str:
    name, label = row
    if isinstance(label, bool) or not isinstance(label, str | int) or not str(label).strip():
        raise ValueError(f"the label of {name!r} is {label!r}, not a word or a number")
    return str(label).strip()
