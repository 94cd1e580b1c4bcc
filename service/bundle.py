"""The bundles of the models folder, and everything about them that can be checked without running them.

Loading TorchScript runs code of the archive, so all that can be checked before is checked before: the manifest, every
file's length and SHA-256, the archive's members, and the operators that its code names.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from service.manifest import GENERATOR_NAME, FileEntry, Manifest
from service.operators import forbidden_operators

MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 20


class BundleError(Exception):
    """A bundle that must not be served; the message says which check failed, and how."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle. `digest` is the SHA-256 of its manifest, which names every file's."""

    manifest: Manifest
    digest: str
    folder: Path


def discover(models_dir: Path) -> dict[str, dict[int, Path]]:
    """Return the bundle folders by name and version; whatever is hidden, empty or no version is passed over.

    Args:
        models_dir: The models folder.

    Returns:
        Names to versions to folders, in the order of the names.

    Raises:
        BundleError: If the models folder cannot be read.
    """
    try:
        folders = sorted(folder for folder in models_dir.iterdir() if folder.is_dir() and folder.name[0] != ".")
    except OSError as error:
        raise BundleError(f"models folder {models_dir}: {error.strerror or error}") from error
    found = {folder.name: _versions(folder) for folder in folders}
    return {name: versions for name, versions in found.items() if versions}


def _versions(folder: Path) -> dict[int, Path]:
    """Return the versions in a model's folder; none if it cannot be read, as a volume's `lost+found` cannot."""
    try:
        return {int(v.name): v for v in sorted(folder.iterdir()) if v.name.isascii() and v.name.isdecimal()}
    except OSError:
        return {}


def verify(folder: Path) -> Bundle:
    """Check everything about a bundle that can be checked without running it.

    Args:
        folder: The bundle's folder, `<name>/<version>`.

    Returns:
        The bundle, which may be loaded.

    Raises:
        BundleError: If the manifest, a file's length or digest, or an operator of the generator does not hold.
    """
    try:
        manifest_bytes = _read_bounded(folder / MANIFEST_NAME)
        manifest = Manifest.model_validate_json(manifest_bytes)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{MANIFEST_NAME}: {where + ': ' if where else ''}{first['msg']}") from error
    if (manifest.name, str(manifest.version)) != (folder.parent.name, folder.name):
        raise BundleError(f"{MANIFEST_NAME} says {manifest.id}, the folder {folder.parent.name}@{folder.name}")
    for name, entry in manifest.files.items():
        _check_file(folder, name, entry)
    forbidden = forbidden_operators(folder / GENERATOR_NAME)
    if forbidden:
        raise BundleError(f"{GENERATOR_NAME} is refused: {'; '.join(forbidden[:5])}")
    return Bundle(manifest, hashlib.sha256(manifest_bytes).hexdigest(), folder)


def _read_bounded(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise BundleError(f"{path.name}: {error.strerror or error}") from error
    if len(content) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{path.name} is longer than {MAX_MANIFEST_BYTES} bytes")
    return content


def _check_file(folder: Path, name: str, entry: FileEntry) -> None:
    path = folder / name
    if Path(name).name != name or name in ("", ".", ".."):
        raise BundleError(f"files names {name!r}, which is not a plain file name")
    try:
        size = path.stat().st_size
        if path.is_symlink() or not path.is_file():
            raise BundleError(f"{name} is not a regular file")
        if size != entry.bytes:
            raise BundleError(f"{name} has {size} bytes, the manifest says {entry.bytes}")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise BundleError(f"{name}: {getattr(error, 'strerror', None) or error}") from error
    if digest != entry.sha256:
        raise BundleError(f"{name} has SHA-256 {digest}, the manifest says {entry.sha256}")
