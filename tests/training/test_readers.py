import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.errors import TrainingError
from training.readers import RawData, read_idx, read_image, read_source

Write = Callable[..., Path]


def read(source: Path, *, size: int | None = 16, channels: int | None = None) -> RawData:
    return read_source(source, size=size, channels=channels)


def turned(folder: Path) -> None:
    """Turn the pictures in a folder by a right angle: others than those of the same names elsewhere."""
    for path in folder.rglob("*.png"):
        with Image.open(path) as image:
            changed = image.transpose(Image.Transpose.ROTATE_90)
        changed.save(path)


def header(*shape: int, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)


@pytest.mark.parametrize("compress", [gzip.compress, bytes])
def test_read_idx_returns_the_array(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    """Gzipped or plain, shape and bytes are those of the file."""
    path = tmp_path / "array"
    path.write_bytes(compress(header(2, 3) + bytes(range(6))))
    assert read_idx(path).tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file"),
        (b"PNG and more", "not an IDX file"),
        (header(4, kind=0x0D) + bytes(16), "not an IDX file of unsigned bytes"),
        (header(4) + bytes(3), "says shape .4,. but holds 3 bytes"),
        (header(4) + bytes(5), "but holds 5 bytes"),
        (header(2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(5), "but holds 5 bytes"),
        (header(4, 4)[:7], "cut short"),
        (bytes([0, 0, 8, 0]), "cut short or damaged"),
        (gzip.compress(header(4) + bytes(4))[:-9], "damaged gzip"),
        (b"\x1f\x8b\x08\x00" + b"\xff" * 40, "damaged gzip"),
        (b"\x1f\x8b", "damaged gzip"),
    ],
)
def test_read_idx_of_a_damaged_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """Whatever is wrong with the bytes, the message names the file and the fault."""
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=f"broken .*{message}"):
        read_idx(path)


def test_idx_folder_is_read_as_it_is(idx_folder: Write) -> None:
    """Both splits keep their order; classes are named by their numbers."""
    raw = read(idx_folder(), size=None)
    assert raw.train.images.shape == (12, 16, 16, 1)
    assert raw.holdout.images.shape == (6, 16, 16, 1)
    assert raw.train.labels.tolist() == [0, 1, 2] * 4
    assert raw.label_names == ["0", "1", "2"]
    assert raw.skipped == []


def test_fashion_mini_is_read_with_all_its_classes(fashion_mini: Path) -> None:
    """The real files, under their real names, give 200 and 100 pictures of 28x28."""
    raw = read(fashion_mini, size=None)
    assert raw.train.images.shape == (200, 28, 28, 1)
    assert raw.holdout.images.shape == (100, 28, 28, 1)
    assert len(raw.label_names) == 10


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"train_labels": np.zeros(11, np.uint8)}, "do not match"),
        ({"t10k_images": np.zeros((6, 256), np.uint8)}, "do not match"),
        ({"train_images": np.zeros((0, 16, 16), np.uint8), "train_labels": np.zeros(0, np.uint8)}, "no pictures"),
        ({"t10k_images": np.zeros((6, 8, 8), np.uint8)}, "pictures of two sizes: train .16, 16., t10k .8, 8."),
    ],
)
def test_idx_folder_that_does_not_fit_together_is_refused(
    idx_folder: Write, replaced: dict[str, np.ndarray], message: str
) -> None:
    """Files of different lengths or sizes, or without pictures, are named."""
    folder = idx_folder(**replaced)
    with pytest.raises(TrainingError, match=message):
        read(folder, size=None)


@pytest.mark.parametrize("missing", ["train-labels", "t10k-images", "t10k-labels"])
def test_idx_folder_with_a_file_missing_is_refused(idx_folder: Write, missing: str) -> None:
    """All four files are needed."""
    folder = idx_folder()
    next(folder.glob(f"{missing}*")).unlink()
    with pytest.raises(TrainingError, match=r"lacks (train|t10k)-images or"):
        read(folder, size=None)


@pytest.mark.parametrize(("size", "channels"), [(32, None), (None, 3)])
def test_idx_folder_is_not_resized(idx_folder: Write, size: int | None, channels: int | None) -> None:
    """Options for image files are refused rather than ignored."""
    folder = idx_folder()
    with pytest.raises(TrainingError, match=r"^--(size|channels) does not apply to IDX files"):
        read(folder, size=size, channels=channels)


def test_class_folders_become_labels(picture_folder: Write) -> None:
    """One folder per class, in alphabetical order, a tenth or so held out."""
    raw = read(picture_folder("shoes", "bags", count=40))
    assert raw.label_names == ["bags", "shoes"]
    assert len(raw.train.labels) + len(raw.holdout.labels) == 80
    assert 0 < len(raw.holdout.labels) < 30
    shoes = raw.train.images[raw.train.labels == 1]
    assert (shoes[:, 2].mean(), shoes[:, 8].mean()) > (100, 0)  # `picture` puts the first class's band on top
    assert shoes[:, 8].max() == 0


def test_holdout_does_not_depend_on_names(picture_folder: Write) -> None:
    """A picture stays in its split when its file and its class are renamed, so that runs stay comparable."""
    before, after = read(picture_folder("a", "b")), read(picture_folder("x", "y", under="renamed"))
    assert np.array_equal(before.train.images, after.train.images)
    assert np.array_equal(before.holdout.images, after.holdout.images)


def test_train_and_test_folders_are_the_splits(picture_folder: Write) -> None:
    """Given splits are taken as they are."""
    folder = picture_folder("a", "b", count=3, under="set/train")
    turned(picture_folder("a", "b", count=2, under="set/test"))
    raw = read(folder.parent)
    assert raw.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert raw.holdout.labels.tolist() == [0, 0, 1, 1]


def test_class_without_training_pictures_is_skipped(picture_folder: Write) -> None:
    """A class that only the test folder knows cannot be learnt; its files are named."""
    folder = picture_folder("a", "b", count=3, under="set/train")
    turned(picture_folder("a", "c", count=2, under="set/test"))
    raw = read(folder.parent)
    assert raw.label_names == ["a", "b"]
    assert raw.holdout.labels.tolist() == [0, 0]
    assert len(raw.skipped) == 2
    assert "class 'c' is not among the training classes" in raw.skipped[0]


def test_flat_folder_has_no_classes(picture_folder: Write) -> None:
    """Pictures without class folders make an unconditional set."""
    raw = read(picture_folder("", count=12))
    assert raw.label_names == []
    assert set(raw.train.labels.tolist()) == {0}


def test_pictures_beside_class_folders_are_skipped(picture_folder: Write) -> None:
    """A preview at the top is not a class of its own."""
    folder = picture_folder("a", "b")
    Image.new("RGB", (20, 20)).save(folder / "preview.png")
    raw = read(folder)
    assert raw.label_names == ["a", "b"]
    assert raw.skipped == [f"{folder / 'preview.png'}: lies beside the class folders"]


def test_hidden_files_are_left_out(picture_folder: Write) -> None:
    """What a desktop leaves behind is neither read nor reported."""
    folder = picture_folder("a", "b")
    (folder / ".thumbnails").mkdir()
    for name in (".thumbnails/x.png", "a/._a-000.png"):
        (folder / name).write_bytes(b"not a picture")
    raw = read(folder)
    assert raw.label_names == ["a", "b"]
    assert raw.skipped == []


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + bytes(40), b"GIF89a" + bytes(9)])
def test_corrupt_files_are_skipped_and_named(picture_folder: Write, content: bytes) -> None:
    """One bad file does not cost the set."""
    folder = picture_folder("a", "b")
    (folder / "a" / "bad.png").write_bytes(content)
    raw = read(folder)
    assert len(raw.train.labels) + len(raw.holdout.labels) == 60
    assert len(raw.skipped) == 1
    assert raw.skipped[0].startswith(f"{folder / 'a' / 'bad.png'}: ")


def test_truncated_picture_is_skipped(picture_folder: Write) -> None:
    """A download that broke off is found when its pixels are read."""
    folder = picture_folder("a", "b")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "a" / "cut.jpg")
    (folder / "a" / "cut.jpg").write_bytes((folder / "a" / "cut.jpg").read_bytes()[:1500])
    assert "cut.jpg" in read(folder).skipped[0]


def test_class_of_corrupt_files_only_is_no_class(picture_folder: Write) -> None:
    """A class that nothing could be read of would be a label without pictures."""
    folder = picture_folder("a", "b", "c")
    for path in (folder / "b").iterdir():
        path.write_bytes(b"broken " + path.name.encode())
    raw = read(folder)
    assert raw.label_names == ["a", "c"]
    assert set(raw.train.labels.tolist()) == {0, 1}
    assert len(raw.skipped) == 30


def test_folder_of_corrupt_files_only_is_refused(picture_folder: Write) -> None:
    """With nothing left to train on, the first reason is given."""
    folder = picture_folder("a", count=2)
    for path in (folder / "a").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(TrainingError, match=r"no picture to train on; .*skipped: .*a-00\d\.png: cannot identify"):
        read(folder)


def test_folder_of_one_picture_holds_none_out(picture_folder: Write) -> None:
    """A single picture is for training."""
    raw = read(picture_folder("", count=1))
    assert (len(raw.train.labels), len(raw.holdout.labels)) == (1, 0)
    assert raw.holdout.images.shape == (0, 16, 16, 3)


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, lambda path: path.write_text("a file")])
def test_source_without_pictures_is_refused(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """A missing folder, an empty one and a file are all explained."""
    make(tmp_path / "source")
    with pytest.raises(TrainingError, match=r"is not a folder|holds no image files"):
        read(tmp_path / "source")


@pytest.mark.parametrize(
    ("modes", "channels", "found"),
    [
        (("L", "LA", "1"), None, 1),
        (("L", "RGB"), None, 3),
        (("RGBA", "P", "CMYK"), None, 3),
        (("RGB",), 1, 1),
        (("L",), 3, 3),
    ],
)
def test_channels_are_those_of_the_pictures_or_as_asked(
    tmp_path: Path, modes: tuple[str, ...], channels: int | None, found: int
) -> None:
    """All grey gives one channel, anything else three, unless the user decides."""
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for mode in modes:
            name = f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}"
            Image.new(mode, (20, 20)).save(tmp_path / split / name)
        (tmp_path / split / "bad.png").write_bytes(b"not a picture")
    raw = read(tmp_path, channels=channels)
    assert raw.train.images.shape == (len(modes), 16, 16, found)
    assert raw.holdout.images.shape == (0, 16, 16, found)
    assert len(raw.duplicates.leaks) == len(modes)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_read_image_crops_to_the_central_square(tmp_path: Path) -> None:
    """The sides of a wide picture go, its middle stays."""
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = (200, 100, 50)
    found = read_image(saved(tmp_path / "wide.png", Image.fromarray(pixels)), 10, "RGB")
    assert found.shape == (10, 10, 3)
    assert (found == (200, 100, 50)).all()


@pytest.mark.parametrize("size", [8, 16, 32])
def test_read_image_resizes(tmp_path: Path, size: int) -> None:
    """Smaller and larger pictures come out at the asked size, with their colours in place."""
    pixels = np.zeros((16, 16), np.uint8)
    pixels[:, 8:] = 255
    found = read_image(saved(tmp_path / "half.png", Image.fromarray(pixels)), size, "L")
    assert found.shape == (size, size, 1)
    assert found[:, 0].max() == 0
    assert found[:, -1].min() == 255


def test_read_image_turns_pictures_upright(tmp_path: Path) -> None:
    """A camera's rotation mark (EXIF 6: turn right) is applied."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, :8] = 255
    found = read_image(saved(tmp_path / "turned.png", Image.fromarray(pixels), exif=exif), 16, "RGB")
    assert found[:8].min() == 255
    assert found[8:].max() == 0


@pytest.mark.parametrize(("suffix", "order"), [("png", "<u2"), ("tif", "<u2"), ("tif", ">u2")])
def test_read_image_scales_16_bits_to_8(tmp_path: Path, suffix: str, order: str) -> None:
    """A 16-bit grey keeps its brightness, in either byte order."""
    pixels = np.repeat(np.array([0, 51_000, 65_535], np.uint16), 3).reshape(3, 3).T.astype(order)
    found = read_image(saved(tmp_path / f"deep.{suffix}", Image.fromarray(pixels)), 3, "L")
    assert found[1, :, 0].tolist() == [0, 198, 255]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_read_image_of_an_unknown_range_is_refused(tmp_path: Path, dtype: type) -> None:
    """Integers of 32 bits and floats could mean any brightness."""
    path = saved(tmp_path / "raw.tif", Image.fromarray(np.full((4, 4), 0.5, dtype)))
    with pytest.raises(ValueError, match="no known range"):
        read_image(path, 4, "L")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_read_image_lays_transparency_on_white(tmp_path: Path, mode: str) -> None:
    """What can be seen through becomes white, as in a shop."""
    image = Image.new(mode, (8, 8), 0)
    path = saved(tmp_path / "clear.png", image, **({"transparency": 0} if mode == "P" else {}))
    assert read_image(path, 8, "RGB").min() == 255
    assert read_image(path, 8, "L").min() == 255


def test_read_image_blends_half_transparent_pixels(tmp_path: Path) -> None:
    """Half of red over white is light red."""
    path = saved(tmp_path / "half.png", Image.new("RGBA", (8, 8), (255, 0, 0, 128)))
    assert np.abs(read_image(path, 8, "RGB")[4, 4].astype(int) - (255, 127, 127)).max() <= 1


def test_read_image_of_cmyk_has_its_colours(tmp_path: Path) -> None:
    """Print colours become screen colours: no cyan, all magenta and yellow is red."""
    path = saved(tmp_path / "print.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=95)
    assert np.abs(read_image(path, 8, "RGB")[4, 4].astype(int) - (255, 0, 0)).max() <= 4


def test_read_image_of_a_palette_has_its_colours(tmp_path: Path) -> None:
    """Indexed pixels are looked up before they are resized."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:] = (10, 200, 30)
    path = saved(tmp_path / "indexed.png", Image.fromarray(pixels).convert("P", palette=Image.Palette.ADAPTIVE))
    assert (read_image(path, 4, "RGB") == (10, 200, 30)).all()
