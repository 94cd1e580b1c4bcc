import hashlib
from pathlib import Path

import pytest

from training.files import replacing, sha256_of


def test_replacing_puts_the_new_file_in_place(tmp_path: Path) -> None:
    """After the block the file holds the new content, its folder was made, and nothing lies beside it."""
    path = tmp_path / "new" / "file.txt"
    with replacing(path) as beside:
        beside.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_replacing_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    """An error half way leaves the old content and no debris."""
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as beside:
            beside.write_text("ne")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_below_a_file_is_an_os_error(tmp_path: Path) -> None:
    """A folder that cannot be made is reported before the writer starts."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"), replacing(tmp_path / "file" / "below.txt"):
        pytest.fail("the block must not run")


def test_sha256_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    """The hash is over the content alone, as hexadecimal digits."""
    (tmp_path / "file").write_bytes(b"pictures")
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"pictures").hexdigest()
