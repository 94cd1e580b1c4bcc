from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from training.data import EndlessSampler, Label, PictureSet, content_digest, load, pack, to_float, to_uint8
from training.errors import TrainingError
from training.readers import RawData, RawSplit, read_source


def test_to_float_and_to_uint8_are_inverses() -> None:
    """Every one of the 256 values comes back."""
    pixels = torch.arange(256, dtype=torch.uint8).reshape(4, 8, 8, 1)
    assert torch.equal(to_uint8(to_float(pixels)), pixels)


def test_to_float_spans_minus_one_to_one_with_channels_first() -> None:
    """0 becomes -1, 255 becomes 1, and (N, H, W, C) becomes (N, C, H, W)."""
    pixels = torch.zeros(2, 4, 5, 3, dtype=torch.uint8)
    pixels[:, :, :, 1] = 255
    images = to_float(pixels)
    assert images.shape == (2, 3, 4, 5)
    assert images.dtype == torch.float32
    assert images[:, 1].unique().tolist() == [1.0]
    assert images[:, [0, 2]].unique().tolist() == [-1.0]


def test_to_uint8_clips_and_rounds() -> None:
    """Values beyond [-1, 1] end at 0 and 255; the rest goes to the nearest step."""
    images = torch.tensor([-1.5, -1.0, -0.9959, 0.0, 0.9999, 1.7]).reshape(1, 1, 1, 6)
    assert to_uint8(images).flatten().tolist() == [0, 0, 1, 128, 255, 255]


def test_pack_and_load_keep_everything(tiny_raw: RawData, tmp_path: Path) -> None:
    """Pixels, labels, names, aliases and licence come back as they were given."""
    labels = [Label("top", ("upper", "roof")), Label("middle"), Label("bottom")]
    path = tmp_path / "new" / "set.safetensors"
    packed = pack(tiny_raw, path, name="bands", labels=labels, licence="CC0\nno rights reserved")
    data = load(path)
    assert np.array_equal(data.train.images.numpy(), tiny_raw.train.images)
    assert np.array_equal(data.holdout.images.numpy(), tiny_raw.holdout.images)
    assert np.array_equal(data.train.labels.numpy(), tiny_raw.train.labels)
    assert np.array_equal(data.holdout.labels.numpy(), tiny_raw.holdout.labels)
    assert data.labels == tuple(labels)
    assert (data.name, data.licence, data.digest) == ("bands", "CC0\nno rights reserved", packed.digest)
    assert (data.num_classes, data.size, len(data.train), len(data.holdout)) == (3, (16, 16, 1), 48, 12)


def test_pack_of_other_labels_than_classes_is_refused(tiny_raw: RawData, tmp_path: Path) -> None:
    """Two names for three classes are a mistake, and nothing is written."""
    with pytest.raises(TrainingError, match="2 labels were given for 3 classes"):
        pack(tiny_raw, tmp_path / "set", name="x", labels=[Label("a"), Label("b")], licence="")
    assert not list(tmp_path.iterdir())


def test_pack_of_a_set_without_classes_has_no_labels(tiny_raw: RawData, tmp_path: Path) -> None:
    """Pictures of one kind make an unconditional set."""
    data = pack(replace(tiny_raw, label_names=[]), tmp_path / "set", name="x", labels=[], licence="")
    assert data.num_classes == 0


def test_digest_changes_with_a_pixel_and_with_a_label(tiny_raw: RawData) -> None:
    """The digest stands for the content, of both splits."""
    digests = {content_digest(tiny_raw.train, tiny_raw.holdout), content_digest(tiny_raw.holdout, tiny_raw.train)}
    tiny_raw.holdout.images[3, 2, 1, 0] += 1
    digests.add(content_digest(tiny_raw.train, tiny_raw.holdout))
    tiny_raw.train.labels[5] = 0
    digests.add(content_digest(tiny_raw.train, tiny_raw.holdout))
    assert len(digests) == 4


def test_digest_tells_shapes_apart() -> None:
    """The same bytes as 8x2 and as 4x4 pictures are different data."""
    pixels, labels = np.arange(16, dtype=np.uint8), np.zeros(1, np.int64)
    wide, square = (RawSplit(pixels.reshape(1, *shape, 1), labels) for shape in ((8, 2), (4, 4)))
    assert content_digest(wide) != content_digest(square)


def test_load_of_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    """The message names the command that makes the file."""
    with pytest.raises(TrainingError, match="python -m training prepare SOURCE"):
        load(tmp_path / "missing.safetensors")


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\x00" * 64])
def test_load_of_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that is not safetensors is named as such."""
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match="damaged or not a packed data set"):
        load(path)


def test_load_of_a_truncated_file_is_refused(tiny_set: PictureSet, tmp_path: Path) -> None:
    """A copy that broke off is noticed."""
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(TrainingError, match="damaged"):
        load(path)


def test_load_of_other_safetensors_is_refused(tmp_path: Path) -> None:
    """Weights are not pictures, though they are safetensors too."""
    path = tmp_path / "weights.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(TrainingError, match="was not written by 'python -m training prepare'"):
        load(path)


def test_fashion_mini_packs_to_its_known_content(fashion_mini: Path, tmp_path: Path) -> None:
    """Real pictures come through: an ankle boot first, light on black, ten classes in equal numbers."""
    raw = read_source(fashion_mini, size=None, channels=None)
    labels = [Label(name) for name in raw.label_names]
    data = pack(raw, tmp_path / "fashion.safetensors", name="fashion-mini", labels=labels, licence="MIT")
    assert (data.size, data.num_classes) == ((28, 28, 1), 10)
    assert data.train.labels.bincount().tolist() == [20] * 10
    assert data.holdout.labels.bincount().tolist() == [10] * 10
    assert data.train.labels[0] == 9
    assert data.train.images[0, 0].max() == 0
    assert data.train.images[0].max() == 255


def test_sampler_shows_every_picture_once_per_epoch() -> None:
    """Each epoch is a permutation, and no two epochs are the same one."""
    sampler = EndlessSampler(50, seed=0)
    epochs = [sampler.indices(50 * epoch, 50) for epoch in range(3)]
    for epoch in epochs:
        assert epoch.sort().values.tolist() == list(range(50))
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 3


def test_sampler_is_a_function_of_the_position() -> None:
    """However the stretch is cut, and wherever a fresh sampler starts, the same indices come."""
    whole = EndlessSampler(7, seed=1).indices(0, 30)
    pieces = EndlessSampler(7, seed=1)
    assert torch.equal(torch.cat([pieces.indices(start, 6) for start in range(0, 30, 6)]), whole)
    assert torch.equal(EndlessSampler(7, seed=1).indices(19, 11), whole[19:])


def test_sampler_serves_batches_larger_than_the_set() -> None:
    """A batch of 20 from 7 pictures runs over three epochs."""
    indices = EndlessSampler(7, seed=2).indices(0, 20)
    assert indices.bincount().tolist() in ([3, 3, 3, 3, 3, 3, 2], *([3] * k + [2] + [3] * (6 - k) for k in range(6)))


def test_sampler_of_another_seed_shuffles_otherwise() -> None:
    """The seed decides the order."""
    assert not torch.equal(EndlessSampler(50, seed=0).indices(0, 50), EndlessSampler(50, seed=1).indices(0, 50))


def test_transparent_pictures_come_back_as_they_were() -> None:
    """Opaque colours exactly, half transparent ones to the precision that alpha leaves, hidden ones as zeros."""
    pixels = torch.randint(0, 256, (4, 8, 8, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels[..., 3] = torch.tensor([0, 1, 128, 255], dtype=torch.uint8)[:, None, None]
    images = to_float(pixels)
    back = to_uint8(images)

    assert images.shape == (4, 4, 8, 8)
    assert images[0].unique().tolist() == [-1.0]
    assert (images[:, :3] <= images[:, 3:] + 1e-6).all()
    assert torch.equal(back[3], pixels[3])
    assert torch.equal(back[2], pixels[2])
    assert torch.equal(back[1], pixels[1])
    assert not back[0].any()


def test_colours_brighter_than_their_alpha_are_clipped() -> None:
    """A generator may draw what no premultiplied picture has; straight colours end at white."""
    images = torch.full((1, 4, 2, 2), 0.5)
    images[:, 3] = -0.5
    assert to_uint8(images)[0, 0, 0].tolist() == [255, 255, 255, 64]
