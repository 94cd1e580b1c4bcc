"""Fits, modes and the choice of channels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.errors import TrainingError
from training.readers import read_image, read_source


def wide(mode: str = "RGB") -> Image.Image:
    """Return a picture of 30x10: a grey border and a red middle."""
    pixels = np.full((10, 30, 3), 120, np.uint8)
    pixels[2:8, 4:26] = (200, 0, 0)
    return Image.fromarray(pixels).convert(mode)


def test_pad_fills_with_the_borders_colour(tmp_path: Path) -> None:
    """All of the picture is there, in the middle."""
    wide().save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png", 30, "RGB", fit="pad")
    assert found.shape == (30, 30, 3)
    assert (found[:10] == 120).all()
    assert (found[20:] == 120).all()
    assert np.array_equal(found[10:20], np.asarray(wide()))


@pytest.mark.parametrize(("mode", "filled"), [("L", [120]), ("RGB", [120, 120, 120]), ("RGBA", [0, 0, 0, 0])])
def test_pad_fills_every_mode(tmp_path: Path, mode: str, filled: list[int]) -> None:
    """Transparency where there is alpha."""
    wide("L").save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png", 30, mode, fit="pad")
    assert found[0, 0].tolist() == filled
    assert found[10, 0].tolist() == ([120, 120, 120, 255] if mode == "RGBA" else filled)


@pytest.mark.parametrize("alpha", ["border", "threshold"])
def test_pad_and_cut_leave_the_object(tmp_path: Path, alpha: str) -> None:
    """The padding is background too."""
    wide().save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png", 30, "RGBA", alpha, "pad")
    assert found[0, 0].tolist() == found[10, 0].tolist() == [0, 0, 0, 0]
    assert found[15, 15].tolist() == [200, 0, 0, 255]


def test_stretch_keeps_everything_and_fills_all(tmp_path: Path) -> None:
    """The sides of the picture are the sides of the square."""
    pixels = np.zeros((10, 30), np.uint8)
    pixels[:, 15:] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png", 30, "L", fit="stretch")
    assert (found[:, :10].max(), found[:, 20:].min()) == (0, 255)


@pytest.mark.parametrize("size", [(1, 400), (400, 1), (1, 1)])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_extreme_shapes_are_fitted(tmp_path: Path, size: tuple[int, int], fit: str) -> None:
    """A line or a single pixel is a picture as well."""
    Image.new("RGB", size, (9, 80, 200)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png", 8, "RGB", fit=fit) == (9, 80, 200)).all()


@pytest.mark.parametrize("source", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "LAB"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_every_mode_becomes_every_mode(tmp_path: Path, source: str, mode: str) -> None:
    """Whatever Pillow can save losslessly is read, upright, and opaque where it has no alpha."""
    image = Image.new("I;16", (20, 10), 0x8080) if source == "I;16" else Image.new("RGB", (20, 10), (128,) * 3)
    if source == "LAB":
        image = Image.new("LAB", (20, 10), (137, 128, 128))  # lightness 53.6 of 100
    elif source != "I;16":
        image = image.convert(source)
    image.save(tmp_path / "a.tif")
    found = read_image(tmp_path / "a.tif", 10, mode)
    assert found.shape == (10, 10, len(mode))
    assert abs(float(found[..., : min(3, len(mode))].mean()) - 128) < 6
    assert mode != "RGBA" or found[..., 3].min() == 255


def test_large_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    """Decoding at a fraction of the size changes nothing that shows."""
    x = np.linspace(0, 255, 1600).astype(np.uint8)
    pixels = np.stack(np.broadcast_arrays(x[None, :], x[:1200, None], np.uint8(60)), axis=2)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95)
    exact = Image.fromarray(pixels[:, 200:1400]).resize((32, 32), Image.Resampling.LANCZOS)
    found = read_image(tmp_path / "a.jpg", 32, "RGB").astype(int)
    assert np.abs(found - np.asarray(exact)).max() <= 3


def folder(tmp_path: Path, transparent: int, opaque: int) -> Path:
    for index in range(transparent + opaque):
        image = Image.new("RGBA", (16, 16), (index, 90, 20, 255))
        if index < transparent:
            image.putpixel((3, 3), (0, 0, 0, 0))
        image.save(tmp_path / f"{index:02}.png")
    return tmp_path


@pytest.mark.parametrize(("transparent", "opaque", "channels"), [(4, 2, 4), (3, 3, 3), (0, 5, 3)])
def test_rgba_only_if_most_can_be_seen_through(tmp_path: Path, transparent: int, opaque: int, channels: int) -> None:
    """An alpha channel that is opaque everywhere is none."""
    raw = read_source(folder(tmp_path, transparent, opaque), size=16, channels=None)
    assert raw.train.images.shape[3] == channels


def test_channels_and_alpha_overrule_what_is_found(tmp_path: Path) -> None:
    """The user has the last word."""
    source = folder(tmp_path, 4, 1)
    assert read_source(source, size=16, channels=3).train.images.shape[3] == 3
    assert read_source(source, size=16, channels=None, alpha="threshold").train.images.shape[3] == 4
    with pytest.raises(TrainingError, match="--alpha threshold makes RGBA, and --channels 1 has no alpha"):
        read_source(source, size=16, channels=1, alpha="threshold")


def test_fit_for_idx_is_refused(fashion_mini: Path) -> None:
    """IDX pictures are taken as they are."""
    with pytest.raises(TrainingError, match="--alpha, --fit do not apply to IDX files"):
        read_source(fashion_mini, size=None, channels=None, fit="pad", alpha="file")
