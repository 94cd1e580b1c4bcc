"""Zip files of every kind of source, and those that want to write elsewhere or without end."""

import stat
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from training.errors import TrainingError
from training.readers import read_source
from training.readers.archive import unpacked

Write = Callable[..., Path]


def zipped(folder: Path, wrapped: bool = True) -> Path:
    path = folder.parent / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, file.relative_to(folder.parent if wrapped else folder))
        archive.writestr("__MACOSX/._a.png", b"not a picture")
    return path


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that zips are unpacked into."""
    folder = tmp_path / "scratch" / "deep"
    folder.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("wrapped", [True, False])
def test_zip_of_a_folder_is_as_the_folder(picture_folder: Write, scratch: Path, wrapped: bool) -> None:
    """Same pictures, splits and classes, whether the archive wraps the folder or not; names are those of the zip."""
    folder = picture_folder("a", "b")
    (folder / "a" / "bad.png").write_bytes(b"broken")
    (folder / "LICENSE").write_text("CC0")
    path = zipped(folder, wrapped)
    plain, raw = (read_source(source, size=16, channels=None) for source in (folder, path))
    assert np.array_equal(plain.train.images, raw.train.images)
    assert np.array_equal(plain.holdout.labels, raw.holdout.labels)
    assert raw.label_names == ["a", "b"]
    assert raw.licence == "CC0"
    assert raw.skipped == [f"{path}/{'shop/' if wrapped else ''}a/bad.png: cannot identify image file"]
    assert not list(scratch.iterdir())


def test_zip_of_idx_files_is_read(idx_folder: Write, scratch: Path) -> None:
    """A set that is not of image files works as well, and its faults bear the zip's name."""
    folder = idx_folder()
    assert read_source(zipped(folder), size=None, channels=None).train.images.shape == (12, 16, 16, 1)
    next(folder.glob("t10k-labels*")).unlink()
    with pytest.raises(TrainingError, match=r"^/.*/set\.zip/idx lacks t10k"):
        read_source(zipped(folder), size=None, channels=None)
    assert not list(scratch.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../evil.png", "a path that leads elsewhere"),
        ("a/../../evil.png", "a path that leads elsewhere"),
        ("/tmp/evil.png", "a path that leads elsewhere"),
        ("C:/evil.png", "a path that leads elsewhere"),
        ("a\\..\\evil.png", "a path that leads elsewhere"),
        ("a/" * 40 + "evil.png", "a path that is too long"),
        ("x" * 300 + ".png", "a path that is too long"),
        ("fine.png", "twice"),
        ("fine.png/evil.png", "as a file and as a folder"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip_with_a_path_trick_writes_nothing(tmp_path: Path, scratch: Path, name: str, message: str) -> None:
    """One such name, and nothing of the archive is unpacked, not even its harmless files."""
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("fine.png", b"x")
        archive.writestr(name, b"x")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(TrainingError, match=rf"evil\.zip holds .*{message}; nothing of it is read"):
        read_source(path, size=16, channels=None)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_zip_with_a_link_or_device_is_refused(tmp_path: Path, scratch: Path, kind: int) -> None:
    """A link could lead a later file elsewhere."""
    path = tmp_path / "link.zip"
    member = zipfile.ZipInfo("a/link.png")
    member.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, b"/etc/passwd")
    with pytest.raises(TrainingError, match=r"link\.png', a link or a device"):
        read_source(path, size=16, channels=None)
    assert not list(scratch.iterdir())


def test_zip_bomb_is_refused(tmp_path: Path, scratch: Path) -> None:
    """What it says to unpack to is bounded."""
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.bmp", bytes(1_000_000))
    with pytest.raises(TrainingError, match="unpacks to 1000000 bytes; 999999 are allowed"), unpacked(path, 999_999):
        pass
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("claimed", [10, 2_000_000])
def test_zip_that_lies_about_a_size_is_refused(tmp_path: Path, scratch: Path, claimed: int) -> None:
    """Neither more nor less than it says is taken from a file."""
    path = tmp_path / "liar.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.bmp", bytes(1_000_000))
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 1_000_000), struct.pack("<I", claimed)))
    with pytest.raises(TrainingError, match=r"liar\.zip is damaged or not a zip"):
        read_source(path, size=16, channels=None)
    assert not list(scratch.iterdir())


def test_encrypted_zip_is_refused(tmp_path: Path, scratch: Path) -> None:
    """There is no password to ask for."""
    path = tmp_path / "secret.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"x")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(TrainingError, match="an encrypted file"):
        read_source(path, size=16, channels=None)


@pytest.mark.parametrize("name", ["notes.txt", "set.zip", "set.tar.gz"])
def test_file_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    """What is no zip, whatever its name, is answered with what is allowed."""
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(TrainingError, match=r"is not a folder, a zip or a \.parquet file; give a folder"):
        read_source(tmp_path / name, size=16, channels=None)
