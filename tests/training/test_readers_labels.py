"""Labels from CSV and JSON files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from training.errors import TrainingError
from training.readers import RawData, read_source

Write = Callable[..., Path]
ROWS = [(f"picture-{index:03}.png", ("bag", "shoe")[index % 2]) for index in range(6)]
TEXTS = {
    "a.csv": "file,label\n" + "".join(f"{name},{label}\n" for name, label in ROWS),
    "b.csv": "\ufefflabel;id;file\r\n" + "".join(f'{label};7;"./{name}"\r\n' for name, label in ROWS),
    "c.json": json.dumps([{"file": name, "label": label} for name, label in ROWS]),
    "d.json": json.dumps(dict(ROWS)),
}


def read(folder: Path, labels: Path) -> RawData:
    return read_source(folder, size=16, channels=None, labels_file=labels)


@pytest.mark.parametrize("kind", TEXTS)
def test_labels_come_from_a_file(picture_folder: Write, tmp_path: Path, kind: str) -> None:
    """Columns and keys count by name, whatever the order and the delimiter."""
    folder = picture_folder("", count=6)
    (tmp_path / kind).write_text(TEXTS[kind], encoding="utf-8")
    raw = read(folder, tmp_path / kind)
    assert raw.label_names == ["bag", "shoe"]
    assert sorted([*raw.train.labels, *raw.holdout.labels]) == [0, 0, 0, 1, 1, 1]
    assert raw.skipped == []


def test_labels_file_in_the_source_and_bare_names_are_found(picture_folder: Write) -> None:
    """As published sets have it: a table beside a folder of pictures; its folder is not a class then."""
    folder = picture_folder("images", count=6)
    rows = [(name.replace("picture", "images"), label) for name, label in ROWS]
    (folder / "labels.json").write_text(json.dumps(dict(rows)))
    assert read(folder, Path("labels.json")).label_names == ["bag", "shoe"]


def test_numbers_are_classes_in_their_order(picture_folder: Write, tmp_path: Path) -> None:
    """Class 2 comes before class 10."""
    folder = picture_folder("", count=6)
    (tmp_path / "n.json").write_text(json.dumps({name: 10 if label == "bag" else 2 for name, label in ROWS}))
    assert read(folder, tmp_path / "n.json").label_names == ["2", "10"]


def test_what_does_not_match_is_skipped_and_named(picture_folder: Write, tmp_path: Path) -> None:
    """A picture without a label, a label without a picture, and one that points outside the source."""
    folder = picture_folder("", count=6)
    outside = tmp_path / "outside.png"
    outside.write_bytes((folder / "picture-000.png").read_bytes())
    labels = tmp_path / "l.json"
    labels.write_text(json.dumps(dict(ROWS[:5]) | {"gone.png": "bag", "../outside.png": "bag", str(outside): "shoe"}))
    raw = read(folder, labels)
    assert len(raw.train.labels) + len(raw.holdout.labels) == 5
    assert raw.skipped == [
        f"{folder}/picture-005.png: has no label in {labels}",
        *(f"{labels}: {name} is not in {folder}" for name in ("gone.png", "../outside.png", str(outside))),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.txt", "file,label", "ends in '.txt', not in .csv or .json"),
        ("l.csv", "name,label\na.png,1\n", "no 'file' there; expected CSV"),
        ("l.csv", "file,label\na.png\n", "the label of 'a.png' is None"),
        ("l.csv", "file,label\na.png, \n", "not a word or a number"),
        ("l.csv", 'file,label\n"a.png,1\n', "expected CSV"),
        ("l.csv", "file,label\na.png,1\na.png,2\n", "'a.png' has two labels, '1' and '2'"),
        ("l.json", "3", "not a list or an object but int"),
        ("l.json", "[3]", "expected CSV"),
        ("l.json", '[{"file": 3, "label": "x"}]', "a file's name is 3"),
        ("l.json", '{"a.png": true}', "the label of 'a.png' is True"),
        ("l.json", "[" * 100_000, "expected CSV"),
        ("l.json", '{"a.png": "x"}', "names none of the image files"),
        ("missing.csv", None, "No such file"),
    ],
)
def test_impossible_labels_file_is_refused(
    picture_folder: Write, tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    """The flag, the file, the fault and what is allowed are named."""
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(TrainingError, match=rf"--labels-file .*{name}.*{message}"):
        read(picture_folder("", count=2), tmp_path / name)


def test_labels_file_for_idx_is_refused(idx_folder: Write) -> None:
    """IDX files bring their own labels."""
    with pytest.raises(TrainingError, match="--labels-file does not apply to IDX"):
        read_source(idx_folder(), size=None, channels=None, labels_file=Path("labels.csv"))
