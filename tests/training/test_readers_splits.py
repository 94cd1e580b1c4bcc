"""The hold-out split, duplicates, and that neither depends on the order of files."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.readers import RawData, read_source
from training.readers.holdout import held_out
from training.readers.pool import in_order

Write = Callable[..., Path]


def read(source: Path, size: int = 16) -> RawData:
    return read_source(source, size=size, channels=None)


def digits(count: int, salt: int = 0) -> list[bytes]:
    return [np.random.default_rng([salt, index]).bytes(8) for index in range(count)]


def noise(seed: int, side: int = 16) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


@pytest.mark.parametrize(("count", "held"), [(1, 0), (2, 1), (3, 1), (14, 1), (16, 2), (40, 4), (1000, 100)])
def test_a_tenth_of_a_class_is_held_out(count: int, held: int) -> None:
    """At least one of two pictures, and never the only one."""
    keys = digits(count)
    assert sum(held_out(["a"] * count, keys, keys)) == held


def test_every_class_is_held_out_by_its_own_share() -> None:
    """A rare class does not depend on luck."""
    classes = ["common"] * 300 + ["rare"] * 3 + ["single"]
    keys = digits(304)
    flags = held_out(classes, keys, keys)
    assert Counter(name for name, flag in zip(classes, flags, strict=True) if flag) == {"common": 30, "rare": 1}


def test_order_of_pictures_does_not_matter() -> None:
    """The same pictures are held out, however they are shuffled."""
    classes, keys = ["a", "b"] * 50, digits(100)
    held = {key for key, flag in zip(keys, held_out(classes, keys, keys), strict=True) if flag}
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(100)
        shuffled = [keys[index] for index in order]
        flags = held_out([classes[index] for index in order], shuffled, shuffled)
        assert {key for key, flag in zip(shuffled, flags, strict=True) if flag} == held


def test_further_pictures_leave_most_where_they_were() -> None:
    """Of a hundred pictures, those held out stay so or come in, as the set grows."""
    keys = digits(110)
    before, after = (held_out(["a"] * count, keys[:count], keys[:count]) for count in (100, 110))
    assert sum(flag != grown for flag, grown in zip(before, after, strict=False)) <= 3


def test_the_same_pixels_stay_on_one_side() -> None:
    """However often a picture is there, and under whatever bytes."""
    keys, digests = digits(60), digits(20, salt=1) * 3
    flags = held_out(["a"] * 60, keys, digests)
    assert flags[:20] == flags[20:40] == flags[40:]
    assert sum(flags) == 6


def test_a_picture_of_two_classes_is_trained_on() -> None:
    """Held out, it would be wrong under one of them."""
    keys = digits(4)
    assert held_out(["a", "b", "a", "b"], keys, [b"same"] * 4) == [False] * 4


def test_files_in_another_order_make_the_same_set(picture_folder: Write, tmp_path: Path) -> None:
    """What the file system lists first plays no part, nor do threads."""
    folder = picture_folder("a", "b", "c", count=20)
    (folder / "b" / "bad.png").write_bytes(b"broken")
    again = tmp_path / "again"
    paths = sorted(folder.rglob("*.png"))
    for index in np.random.default_rng(0).permutation(len(paths)):
        target = again / paths[index].relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(paths[index], target)
    first, second = read(folder), read(again)
    for name in ("train", "holdout"):
        assert np.array_equal(getattr(first, name).images, getattr(second, name).images)
        assert np.array_equal(getattr(first, name).labels, getattr(second, name).labels)
    assert len(first.skipped) == len(second.skipped) == 1


def test_renamed_files_are_held_out_all_the_same(picture_folder: Write) -> None:
    """The content decides, so a set that is sorted otherwise is split as before."""
    folder = picture_folder("a", "b", count=20)
    before = {image.tobytes() for image in read(folder).holdout.images}
    for index, path in enumerate(sorted(folder.rglob("*.png"), reverse=True)):
        path.rename(path.with_name(f"{index:03}.png"))
    assert {image.tobytes() for image in read(folder).holdout.images} == before


def test_the_size_does_not_change_the_split(tmp_path: Path) -> None:
    """The same files are held out at 16 and at 32 pixels."""
    for seed in range(30):
        noise(seed, 32).save(tmp_path / f"{seed:02}.png")
    small, large = read(tmp_path, 16), read(tmp_path, 32)
    halved = [
        np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.LANCZOS)) for image in large.holdout.images
    ]
    assert np.array_equal(small.holdout.images, np.stack(halved))


def test_leaks_of_given_splits_are_dropped_from_the_holdout(tmp_path: Path) -> None:
    """The same pixels in another file format are the same picture."""
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
    for seed in range(3):
        noise(seed).save(tmp_path / "train" / f"{seed}.png")
    noise(1).save(tmp_path / "test" / "again.bmp")
    noise(7).save(tmp_path / "test" / "new.png")
    raw = read(tmp_path)
    assert (len(raw.train.labels), len(raw.holdout.labels)) == (3, 1)
    assert raw.duplicates.leaks == [f"{tmp_path}/test/again.bmp: same pixels as {tmp_path}/train/1.png"]
    assert raw.duplicates.copies == []


def test_copies_within_a_split_are_reported_and_kept(tmp_path: Path) -> None:
    """Nothing leaks through them, so the weights of the set stay the user's."""
    for seed in range(12):
        noise(seed).save(tmp_path / f"{seed:02}.png")
    noise(5).save(tmp_path / "copy.tif")
    raw = read(tmp_path)
    assert len(raw.train.labels) + len(raw.holdout.labels) == 13
    assert raw.duplicates.leaks == []
    assert raw.duplicates.copies == [f"{tmp_path}/copy.tif: same pixels as {tmp_path}/05.png"]


def test_near_duplicates_are_counted_with_examples(tmp_path: Path) -> None:
    """Those across the splits are counted apart, and all are kept."""
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
    for seed in range(6):
        noise(seed, 6).resize((40, 40), Image.Resampling.BICUBIC).save(tmp_path / "train" / f"{seed}.png")
    with Image.open(tmp_path / "train" / "2.png") as image:
        image.save(tmp_path / "test" / "2.jpg", quality=80)
    with Image.open(tmp_path / "train" / "4.png") as image:
        image.save(tmp_path / "train" / "4.jpg", quality=80)
    raw = read(tmp_path, 40)
    assert (len(raw.train.labels), len(raw.holdout.labels)) == (7, 1)
    assert (raw.duplicates.num_near, raw.duplicates.num_near_across) == (4, 1)
    assert raw.duplicates.near_examples == [
        f"{tmp_path}/test/2.jpg: looks like {tmp_path}/train/2.png",
        f"{tmp_path}/train/4.png: looks like {tmp_path}/train/4.jpg",
    ]


@pytest.mark.parametrize("name", ["val", "validation", "valid"])
def test_other_names_of_the_holdout_are_known(picture_folder: Write, name: str) -> None:
    """`train` and `val` are not two classes."""
    picture_folder("a", "b", count=3, under="set/train")
    folder = picture_folder("a", "b", count=5, under=f"set/{name}").parent
    raw = read(folder)
    assert raw.label_names == ["a", "b"]
    assert (len(raw.holdout.labels), len(raw.duplicates.leaks)) == (4, 6)


def test_a_second_holdout_is_left_out_and_named(picture_folder: Write) -> None:
    """With `test` there, `val` is not used, and that is said."""
    for name in ("train", "val", "test"):
        folder = picture_folder("a", "b", count=2, under=f"set/{name}").parent
    assert read(folder).skipped == [f"{folder}/val: left out, test/ is the hold-out"]


def test_in_order_keeps_the_order_and_reads_no_further_than_it_must() -> None:
    """Results come as the arguments did; a long source is not swallowed whole."""
    taken = []

    def arguments() -> object:
        for index in range(10_000):
            taken.append(index)
            yield index

    results = in_order(lambda index: index * 2, arguments())
    assert [next(results) for _ in range(100)] == list(range(0, 200, 2))
    assert len(taken) < 2000
    results.close()


def test_in_order_hands_on_an_error() -> None:
    """What goes wrong on a thread is raised here."""

    def fail(index: int) -> int:
        raise OSError(f"number {index}")

    with pytest.raises(OSError, match="number 0"):
        list(in_order(fail, range(100)))
