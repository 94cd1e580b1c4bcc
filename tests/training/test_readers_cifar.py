"""CIFAR sets in their four versions, and pickles that want more than data."""

import copyreg
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.errors import TrainingError
from training.readers import RawData, read_source
from training.readers.unpickling import load_pickle

COUNT = 6


def pixels(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def labels(count: int) -> list[int]:
    return [index % 3 for index in range(count)]


def python2(value: Any) -> bytes:
    """Return a pickle as Python 2 wrote it: protocol 2, numpy under its old name, text as strings of bytes."""
    return pickle.dumps(value, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def write_python(folder: Path, hundred: bool, protocol: int = 2) -> None:
    head = b"fine_" if hundred else b""
    names = {head + b"label_names": [b"plane", b"car", b"bird"]}
    files = ("train",) if hundred else ("data_batch_1", "data_batch_2")
    for seed, name in enumerate((*files, "test" if hundred else "test_batch")):
        batch = {b"data": pixels(COUNT, seed), head + b"labels": labels(COUNT), b"coarse_labels": [9] * COUNT}
        (folder / name).write_bytes(python2(batch) if protocol == 2 else pickle.dumps(batch, protocol))
    (folder / ("meta" if hundred else "batches.meta")).write_bytes(python2(names))


def write_binary(folder: Path, hundred: bool) -> None:
    names = ("train.bin", "test.bin") if hundred else ("data_batch_1.bin", "data_batch_2.bin", "test_batch.bin")
    head = b"\x09" if hundred else b""
    for seed, name in enumerate(names):
        rows = zip(labels(COUNT), pixels(COUNT, seed), strict=True)
        (folder / name).write_bytes(b"".join(head + bytes([label]) + row.tobytes() for label, row in rows))
    (folder / ("fine_label_names.txt" if hundred else "batches.meta.txt")).write_text("plane\ncar\nbird\n\n")


def read(folder: Path) -> RawData:
    return read_source(folder, size=None, channels=None)


@pytest.mark.parametrize("write", [write_python, write_binary])
@pytest.mark.parametrize("hundred", [False, True])
def test_cifar_is_read_as_it_is(tmp_path: Path, write: Callable[[Path, bool], None], hundred: bool) -> None:
    """Planes become channels last; batches are joined; fine labels count; classes have their names."""
    write(tmp_path, hundred)
    raw = read(tmp_path)
    batches = 1 if hundred else 2
    assert raw.train.images.shape == (batches * COUNT, 32, 32, 3)
    assert raw.holdout.images.shape == (COUNT, 32, 32, 3)
    assert raw.train.labels.tolist() == labels(COUNT) * batches
    assert raw.label_names == ["plane", "car", "bird"]
    first = pixels(COUNT, 0)[0]
    assert raw.train.images[0, 0, 1].tolist() == [first[1], first[1025], first[2049]]


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_cifar_of_newer_pickles_is_read(tmp_path: Path, protocol: int) -> None:
    """Batches that were written again by Python 3 hold the same."""
    write_python(tmp_path, hundred=False, protocol=protocol)
    assert np.array_equal(read(tmp_path).holdout.images[0].transpose(2, 0, 1).reshape(-1), pixels(COUNT, 2)[0])


def test_cifar_in_its_usual_folder_and_without_names_is_read(tmp_path: Path) -> None:
    """The folder that the archive makes is looked into; without a list of names classes are numbers."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    write_binary(folder, hundred=False)
    (folder / "batches.meta.txt").unlink()
    assert read(tmp_path).label_names == ["0", "1", "2"]


class Call:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


ARRAY = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
HOSTILE = {
    "system": lambda mark: pickle.dumps({"data": Call(os.system, f"touch {mark}")}, 2),
    "eval": lambda mark: pickle.dumps({"data": Call(eval, f"open({str(mark)!r}, 'w')")}, 4),
    "open": lambda mark: pickle.dumps(Call(open, str(mark), "w"), 0),
    "getattr": lambda mark: pickle.dumps(Call(getattr, "", "join"), 2),
    "numpy-load": lambda mark: b"\x80\x02cnumpy\nload\nX\x01\x00\x00\x00x\x85R.",
    "dotted": lambda mark: b"\x80\x04\x8c\x05numpy\x8c\x0bndarray.sum\x93.",
    "persistent": lambda mark: b"\x80\x02Pname\n.",
    "extension": lambda mark: b"\x80\x02\x82\x01.",
    "object": lambda mark: b"\x80\x02cnumpy\nndarray\n)\x81.",
    "state-of-a-function": lambda mark: b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}X\x01\x00\x00\x00aK\x01sb.",
    "call-of-text": lambda mark: b"\x80\x02X\x01\x00\x00\x00a)R.",
    "array-of-objects": lambda mark: pickle.dumps({"data": np.array([{}, []], dtype=object)}, 2),
    "array-too-large": lambda mark: ARRAY + b"(K\x01J\xff\xff\xff\x7f\x85cnumpy\ndtype\nU\x02u1\x85R\x89U\x01atb.",
    "huge-memo": lambda mark: b"\x80\x02K\x01r\xff\xff\xff\x7f.",
    "huge-buffer": lambda mark: b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".",
    "huge-text": lambda mark: b"\x80\x04\x8d" + (2**40).to_bytes(8, "little") + b".",
    "endless-number": lambda mark: b"\x80\x02\x8b" + (2**30).to_bytes(4, "little") + b".",
    "nested-key": lambda mark: b"\x80\x02})" + b"q\x00h\x00\x86" * 90 + b"K\x01s.",  # (((..),(..)),..)
    "cut-short": lambda mark: pickle.dumps({"data": [1, 2, 3]}, 2)[:-3],
    "empty": lambda mark: b"",
    "no-dict": lambda mark: pickle.dumps([1, 2], 2),
    "nonsense": lambda mark: b"not a pickle at all",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_pickle_does_nothing(tmp_path: Path, kind: str) -> None:
    """Whatever a pickle asks for but data, nothing is called, nothing is reserved, and the file is named."""
    mark = tmp_path / "mark"
    path = tmp_path / "data_batch_1"
    path.write_bytes(HOSTILE[kind](mark))
    before = dict(copyreg.dispatch_table)
    with pytest.raises(TrainingError, match="data_batch_1 is damaged or holds more than arrays, bytes"):
        load_pickle(path)
    assert not mark.exists()
    assert copyreg.dispatch_table == before


def test_pickle_of_many_instructions_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty lists cost one byte in the file and fifty in memory."""
    monkeypatch.setattr("training.readers.unpickling.MAX_INSTRUCTIONS", 1000)
    path = tmp_path / "many"
    path.write_bytes(b"\x80\x02" + b"]0" * 600 + b"}.")
    with pytest.raises(TrainingError, match="instruction 1000"):
        load_pickle(path)


def test_pickle_that_is_too_large_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size is looked at first."""
    monkeypatch.setattr("training.readers.unpickling.MAX_BYTES", 10)
    path = tmp_path / "large"
    path.write_bytes(python2({b"data": [1, 2, 3]}))
    with pytest.raises(TrainingError, match=r"large has \d+ bytes; a pickle of pictures may have 10"):
        load_pickle(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_batch_1.bin", bytes(100), "not a multiple of 3073"),
        ("data_batch_1.bin", b"", "not a multiple of 3073"),
        ("data_batch_1.bin", b"\x07" + bytes(3072), "has the label 7; batches.meta.txt names 3 classes"),
        ("data_batch_1", pickle.dumps({b"labels": [0]}, 2), "'data' is not a uint8 array"),
        ("data_batch_1", pickle.dumps({b"data": pixels(1, 0)[:, :9], b"labels": [0]}, 2), "'data' is not a uint8"),
        ("data_batch_1", pickle.dumps({b"data": pixels(1, 0), b"labels": [-1]}, 2), "'labels' is not a list of 0"),
        ("data_batch_1", pickle.dumps({b"data": pixels(1, 0), b"labels": [0, 1]}, 2), "do not match"),
        ("batches.meta", pickle.dumps({b"label_names": 3}, 2), "'label_names' is not a list of names"),
        ("test_batch", None, "lacks test_batch; CIFAR sets have"),
    ],
)
def test_damaged_cifar_is_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    """The message names the file and what is wrong."""
    (write_binary if name.endswith(".bin") else write_python)(tmp_path, False)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TrainingError, match=message):
        read(tmp_path)
