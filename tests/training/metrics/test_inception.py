"""The Inception file: both ways to its features, and what is no such file."""

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.builders import save_torchscript
from tests.training.inception_files import TinyInception, WithoutLayers, write_inception
from training.errors import TrainingError
from training.metrics.inception import as_rgb, bicubic, load


def noise(count: int, size: int, channels: int) -> Tensor:
    random = torch.Generator().manual_seed(size + channels)
    return torch.randint(0, 256, (count, size, size, channels), dtype=torch.uint8, generator=random)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_own_resize_gives_the_files_features(tmp_path: Path, channels: int) -> None:
    """Whole pictures, uint8 in three channels, go into the file's forward; the last batch may be smaller."""
    path = write_inception(tmp_path / "i.pt")
    images = noise(35, 16, channels)
    expected = TinyInception(2048)(as_rgb(images).permute(0, 3, 1, 2), return_features=True)
    torch.testing.assert_close(load(path).own_resize(images), expected)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_clean_resize_goes_around_the_files_resize(tmp_path: Path, channels: int) -> None:
    """The layers get the bicubic pictures as (x - 128) / 128."""
    inception = load(write_inception(tmp_path / "i.pt"))
    images = noise(35, 16, channels)
    expected = TinyInception(2048).layers((bicubic(as_rgb(images)) - 128) / 128)
    torch.testing.assert_close(inception.clean_resize(images), expected)
    assert not torch.allclose(inception.own_resize(images), expected, atol=0.1)


def test_digest_is_the_files(tmp_path: Path) -> None:
    """Whoever has the same file finds the same digest."""
    path = write_inception(tmp_path / "i.pt")
    assert load(path).digest == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("size", [28, 64, 512])
def test_bicubic_is_the_filter_that_does_not_alias(size: int) -> None:
    """Torch's antialiased bicubic filter gives the same levels, up and down, in float, clipped to those of pictures."""
    images = noise(2, size, 3)
    images[0] = torch.where(images[0] > 127, 255, 0).to(torch.uint8)  # overshoots
    channels = images.permute(0, 3, 1, 2).float()
    expected = F.interpolate(channels, size=(299, 299), mode="bicubic", antialias=True)
    found = bicubic(images)
    assert expected.min() < -1
    assert expected.max() > 256
    torch.testing.assert_close(found, expected.clamp(0, 255), rtol=0, atol=0.01)
    assert (found != found.round()).float().mean() > 0.5


def test_rgb_of_every_kind_of_picture() -> None:
    """Grey is repeated, colour stays, and transparency shows white, in proportion to it."""
    grey, colour, alpha = noise(2, 4, 1), noise(2, 4, 3), noise(2, 4, 4)
    assert torch.equal(as_rgb(grey), torch.cat([grey] * 3, dim=3))
    assert torch.equal(as_rgb(colour), colour)
    alpha[0, 0, 0] = torch.tensor([9, 9, 9, 0])
    alpha[0, 0, 1] = torch.tensor([9, 80, 200, 255])
    alpha[0, 0, 2] = torch.tensor([0, 100, 255, 51])
    assert as_rgb(alpha)[0, 0, :3].tolist() == [[255, 255, 255], [9, 80, 200], [204, 224, 255]]
    assert as_rgb(alpha).dtype == torch.uint8


def test_what_is_no_torchscript_file_is_refused(tmp_path: Path) -> None:
    """Missing, text, and a module that was pickled instead of scripted: each is said in one line."""
    with pytest.raises(TrainingError, match=r"--inception .*missing\.pt: No such file"):
        load(tmp_path / "missing.pt")
    (tmp_path / "text.pt").write_text("<!doctype html>")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "weights.pt")
    for name in ("text.pt", "weights.pt"):
        with pytest.raises(TrainingError, match=rf"{name} is not a TorchScript file, as inception-2015-12-05\.pt is"):
            load(tmp_path / name)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Linear(2, 2), r"forward\(images, return_features=True\) fails with: .*expected at most 2"),
        (
            TinyInception(64),
            r"forward\(images, return_features=True\) fails with: it gives \(2, 64\), not .*\(2, 2048\)",
        ),
        (WithoutLayers(), r"layers\(images\) fails with: .*layers"),
    ],
)
def test_other_network_is_refused(tmp_path: Path, module: nn.Module, message: str) -> None:
    """What lacks a part of the interface is refused before anything is measured, and the part is named."""
    save_torchscript(module, tmp_path / "other.pt")
    with pytest.raises(TrainingError, match=rf"has not the interface of inception-2015-12-05\.pt: {message}") as caught:
        load(tmp_path / "other.pt")
    assert "\n" not in str(caught.value)
