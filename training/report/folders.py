"""Folders of the training machine, which mean nothing to a report's reader, and are nobody's business."""

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

# The folders of an absolute path inside a text; "labels-cnn/1" and "https://" are none.
_POSIX = re.compile(r"(?<![\w.:/])~?/(?:[^\s/:;,'\"<>]+/)+")
_WINDOWS = re.compile(r"(?<!\w)(?:[A-Za-z]:|\\)\\(?:[^\s\\:;,'\"<>]+\\)*")


def without_folders(value: Any) -> Any:
    """Return a JSON value in whose texts absolute paths are cut down to their last names.

    Args:
        value: Dicts, lists, texts, numbers.

    Returns:
        The same, of the same shape; keys stay as they are.
    """
    if isinstance(value, dict):
        return {key: without_folders(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_folders(entry) for entry in value]
    return _shortened(value) if isinstance(value, str) else value


def _shortened(text: str) -> str:
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(text).is_absolute():  # the whole text is a path, perhaps with spaces
            return kind(text).name
    return _WINDOWS.sub("", _POSIX.sub("", text))
