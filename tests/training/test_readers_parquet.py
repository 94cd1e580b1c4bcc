"""Parquet files as Hugging Face's `datasets` writes them."""

import importlib
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.errors import TrainingError
from training.readers import RawData, read_source


def encoded(brightness: int, kind: str = "png") -> bytes:
    file = BytesIO()
    Image.new("RGB", (20, 16), (brightness, 50, 90)).save(file, kind)
    return file.getvalue()


def write(path: Path, columns: dict[str, Any], names: list[str] | None = None) -> Path:
    pa = pytest.importorskip("pyarrow")
    table = pa.table(columns)
    if names:
        info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    importlib.import_module("pyarrow.parquet").write_table(table, path)
    return path


def pictures(start: int, count: int) -> list[dict[str, Any]]:
    return [{"bytes": encoded(start + index), "path": f"{index}.png"} for index in range(count)]


def read(source: Path) -> RawData:
    return read_source(source, size=16, channels=None)


def test_parquet_of_structs_and_class_names_is_read(tmp_path: Path) -> None:
    """Classes have the names and the order that the file notes."""
    labels = [index % 2 for index in range(40)]
    path = write(tmp_path / "shop.parquet", {"image": pictures(0, 40), "label": labels}, ["shoe", "bag"])
    raw = read(path)
    assert raw.label_names == ["shoe", "bag"]
    assert (raw.train.images.shape, len(raw.holdout.labels)) == ((36, 16, 16, 3), 4)
    assert (raw.train.images[raw.train.labels == 1][:, 0, 0, 0] % 2 == 1).all()


@pytest.mark.parametrize(
    ("labels", "names"), [([10, 2, 10, 2], ["2", "10"]), (["x", "y", "x", "y"], ["x", "y"]), (None, [])]
)
def test_parquet_of_bytes_is_read(tmp_path: Path, labels: list[Any] | None, names: list[str]) -> None:
    """Pictures may be plain bytes in a column of any name, labels numbers, words or absent."""
    columns = {"photograph": [encoded(level) for level in (1, 2, 3, 4)]} | ({"label": labels} if labels else {})
    raw = read(write(tmp_path / "a.parquet", columns))
    assert raw.label_names == names
    assert len(raw.train.labels) + len(raw.holdout.labels) == 4


def test_parquet_files_of_a_folder_are_the_splits(tmp_path: Path) -> None:
    """The hub's layout: data/train-*, data/test-*; further splits are named as left out."""
    data = tmp_path / "data"
    for part in range(2):
        write(data / f"train-0000{part}-of-00002.parquet", {"image": pictures(10 * part, 3), "label": [0, 1, 0]})
    write(data / "test-00000-of-00001.parquet", {"image": pictures(100, 2), "label": [1, 0]})
    write(data / "validation-00000-of-00001.parquet", {"image": pictures(200, 2), "label": [1, 0]})
    (tmp_path / "README.md").write_text("# a card")
    raw = read(tmp_path)
    assert raw.train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12]
    assert raw.holdout.labels.tolist() == [1, 0]
    assert raw.skipped == [f"{data}/validation-00000-of-00001.parquet: left out, test* is the hold-out"]


def test_rows_that_cannot_be_read_are_skipped_and_named(tmp_path: Path) -> None:
    """No bytes, broken bytes and a label without a class cost a row, not the set."""
    rows = [
        *pictures(0, 4),
        {"bytes": None, "path": "/etc/passwd"},
        {"bytes": b"broken", "path": None},
        *pictures(9, 1),
    ]
    path = write(tmp_path / "a.parquet", {"image": rows, "label": [0, 1, 0, 1, 0, 0, 7]}, ["x", "y"])
    raw = read(path)
    assert len(raw.train.labels) + len(raw.holdout.labels) == 4
    assert raw.skipped == [
        f"{path}[4]: holds no bytes of a picture",
        f"{path}[5]: cannot identify image file",
        f"{path}[6]: label 7 of column 'label' is no class",
    ]


def test_parquet_without_pictures_is_refused(tmp_path: Path) -> None:
    """The columns that are there and those that are expected are named."""
    path = write(tmp_path / "a.parquet", {"text": ["x"], "label": [1]})
    with pytest.raises(TrainingError, match=r"a\.parquet has the columns text, label; expected pictures as bytes"):
        read(path)


@pytest.mark.parametrize("cut", [0, 4, 100])
def test_damaged_parquet_is_refused(tmp_path: Path, cut: int) -> None:
    """A file that broke off is named."""
    path = write(tmp_path / "a.parquet", {"image": pictures(0, 3)})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(TrainingError, match=r"a\.parquet is damaged or not a Parquet file"):
        read(path)


def test_parquet_damaged_in_its_pictures_is_refused(tmp_path: Path) -> None:
    """Damage behind an intact footer is named as well, not taken for pictures."""
    noise = np.random.default_rng(0).bytes
    path = write(tmp_path / "a.parquet", {"image": [noise(3000) for _ in range(50)]})
    content = bytearray(path.read_bytes())
    content[4:40] = bytes(36)
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"a\.parquet is damaged|holds no picture to train on"):
        read(path)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is optional, and its name is in the message."""

    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("training.readers.parquet.import_module", missing)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(TrainingError, match=r"a\.parquet is a Parquet file, and pyarrow.*vitrine\[parquet\]"):
        read(tmp_path)


def test_labels_file_for_parquet_is_refused(tmp_path: Path) -> None:
    """Parquet files bring their own labels."""
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(TrainingError, match="--labels-file does not apply to Parquet"):
        read_source(tmp_path, size=16, channels=None, labels_file=Path("x.csv"))
