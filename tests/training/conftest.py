"""Small inputs for the tests of training: IDX sets, picture folders, a tiny data set and a configuration for it."""

import gzip
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from training.data import Label, PictureSet, pack
from training.presets import TrainConfig
from training.readers import RawData, RawSplit

Array = npt.NDArray[np.uint8]
FASHION_MINI = Path(__file__).parents[1] / "data" / "fashion-mini"


@pytest.fixture(autouse=True)
def process_settings() -> Iterator[None]:
    """Give back torch's thread count and the signal handlers, which a trainer and the command line set.

    One thread in the test: on a machine with other work, two that meet at every layer of a tiny network take seconds.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def idx_bytes(array: Array) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def picture(label: int, brightness: int, size: int = 16) -> Array:
    """Return a grey picture, uint8 (size, size): a bright band whose place depends on the label."""
    pixels = np.zeros((size, size), np.uint8)
    pixels[label * size // 3 : (label + 1) * size // 3] = brightness
    return pixels


def raw_split(num_images: int, seed: int, size: int = 16) -> RawSplit:
    labels = np.arange(num_images, dtype=np.int64) % 3
    brightness = np.random.default_rng(seed).integers(100, 256, num_images)
    images = np.stack([picture(*pair, size=size) for pair in zip(labels, brightness, strict=True)])
    return RawSplit(images[..., None], labels)


@pytest.fixture
def fashion_mini() -> Path:
    """Folder with 200 training and 100 test pictures of Fashion-MNIST, as IDX.gz."""
    return FASHION_MINI


@pytest.fixture
def tiny_raw() -> RawData:
    """Return three classes of grey 16x16 pictures, 48 to train on and 12 held out."""
    return RawData(raw_split(48, seed=0), raw_split(12, seed=1), ["top", "middle", "bottom"])


@pytest.fixture
def tiny_set(tiny_raw: RawData, tmp_path: Path) -> PictureSet:
    """Return `tiny_raw`, packed; the file is `tiny.safetensors` in the test's folder."""
    labels = [Label(name) for name in tiny_raw.label_names]
    return pack(tiny_raw, tmp_path / "tiny.safetensors", name="tiny", labels=labels, licence="none")


@pytest.fixture
def tiny_config() -> TrainConfig:
    """Return settings that train on `tiny_set` at some milliseconds a step."""
    return TrainConfig("tiny", base_size=4, widths=(16, 16), z_dim=16, w_dim=16, batch_size=8)


@pytest.fixture
def idx_folder(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes the four IDX.gz files; an array given by its stem replaces the usual one."""

    def write(**replaced: Array) -> Path:
        folder = tmp_path / "idx"
        folder.mkdir()
        train, holdout = raw_split(12, seed=0), raw_split(6, seed=1)
        arrays = {
            "train_images": train.images[..., 0],
            "train_labels": train.labels.astype(np.uint8),
            "t10k_images": holdout.images[..., 0],
            "t10k_labels": holdout.labels.astype(np.uint8),
        } | replaced
        for stem, array in arrays.items():
            name = f"{stem.replace('_', '-')}-idx{array.ndim}-ubyte.gz"
            (folder / name).write_bytes(gzip.compress(idx_bytes(array)))
        return folder

    return write


@pytest.fixture
def picture_folder(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes PNG pictures, `count` different ones per class, into a folder per class."""

    def write(*classes: str, count: int = 30, under: str = "shop", mode: str = "RGB") -> Path:
        folder = tmp_path / under
        for label, name in enumerate(classes):
            (folder / name).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                pixels = picture(label % 3, 100 + index)
                Image.fromarray(pixels).convert(mode).save(folder / name / f"{name or 'picture'}-{index:03}.png")
        return folder

    return write
