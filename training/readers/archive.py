"""Zip files, unpacked into a folder that goes away: regular files below it only, and no more than fits."""

import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from training.errors import TrainingError

MAX_BYTES = 16 << 30
MAX_FILES = 2_000_000
MAX_DEPTH = 32
BLOCK_BYTES = 1 << 20


@contextmanager
def unpacked(path: Path, max_bytes: int = MAX_BYTES) -> Iterator[Path]:
    """Yield a temporary folder with the files of a zip.

    Everything is checked before the first file is written, and the sizes again while they are.

    Args:
        path: The zip.
        max_bytes: How much it may unpack to.

    Yields:
        The folder; it is removed afterwards.

    Raises:
        TrainingError: If the zip is damaged, encrypted, too large, or a name in it leads elsewhere.
    """
    with tempfile.TemporaryDirectory(prefix="vitrine-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        try:
            with zipfile.ZipFile(path) as archive:
                targets = _targets(path, archive.infolist(), max_bytes, shutil.disk_usage(folder).free)
                for name, member in targets.items():
                    _write(archive, member, folder / name)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeError) as error:
            raise TrainingError(f"{path} is damaged or not a zip file that can be read: {error}") from error
        yield folder


def _targets(path: Path, members: list[zipfile.ZipInfo], max_bytes: int, free: int) -> dict[str, zipfile.ZipInfo]:
    """Return the members to write, by the name below the folder."""
    if len(members) > MAX_FILES:
        raise TrainingError(f"{path} holds {len(members)} files; a zip may hold {MAX_FILES}")
    targets: dict[str, zipfile.ZipInfo] = {}
    for member in members:
        fault = _fault(member)
        name = str(PurePosixPath(member.filename))
        if fault or name in targets:
            raise TrainingError(f"{path} holds {member.filename!r}, {fault or 'twice'}; nothing of it is read")
        parts = PurePosixPath(name).parts
        if not member.is_dir() and not any(part.startswith(".") or part == "__MACOSX" for part in parts):
            targets[name] = member
    for name in targets:
        above = next((str(parent) for parent in PurePosixPath(name).parents if str(parent) in targets), None)
        if above:
            raise TrainingError(f"{path} holds {above!r} as a file and as a folder; nothing of it is read")
    total = sum(member.file_size for member in targets.values())
    if total > min(max_bytes, free):
        raise TrainingError(f"{path} unpacks to {total} bytes; {max_bytes} are allowed, {free} are free for it")
    return targets


def _fault(member: zipfile.ZipInfo) -> str:
    """Return what is wrong with a member, "" if nothing is."""
    name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
    parts = name.split("/")
    if not name.strip("/") or "\\" in name or "\0" in name or ":" in parts[0] or name.startswith("/") or ".." in parts:
        return "a path that leads elsewhere"
    if len(parts) > MAX_DEPTH or len(os.fsencode(max(parts, key=len))) > 255:
        return "a path that is too long"
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        return "a link or a device"
    return "an encrypted file" if member.flag_bits & 1 else ""


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Write one member; it is an error if it holds more than it says."""
    target.parent.mkdir(parents=True, exist_ok=True)
    left = member.file_size
    with archive.open(member) as source, target.open("xb") as file:
        while block := source.read(min(BLOCK_BYTES, left + 1)):
            left -= len(block)
            if left < 0:
                raise zipfile.BadZipFile(f"{member.filename!r} is larger than it says")
            file.write(block)
    if left:
        raise zipfile.BadZipFile(f"{member.filename!r} is cut short")
