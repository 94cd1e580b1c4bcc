"""From pictures to raw splits: hold some out, drop what leaks, number the classes, look for duplicates."""

from collections.abc import Sequence

import numpy as np

from training.duplicates import Duplicates, near_pairs, pixel_digest
from training.readers.holdout import held_out
from training.readers.raw import Found, Pictures, RawData, RawSplit

NUM_EXAMPLES = 5


def as_raw(found: Found) -> RawData:
    """Return what was found as two splits.

    Held-out pictures of a class that is not trained on are skipped; those with the pixels of a picture that is trained
    on are dropped.

    Args:
        found: At least one picture to train on.

    Returns:
        Splits, names of the classes (none if there is one class only) and the report.
    """
    train, holdout, skipped = found.train, found.holdout, list(found.skipped)
    digests = [pixel_digest(pixels) for pixels in train.images]
    if holdout is None:
        flags = held_out(train.classes, train.keys, digests)
        train_side = [index for index, flag in enumerate(flags) if not flag]
        holdout_side = [index for index, flag in enumerate(flags) if flag]
        train, holdout = train.subset(train_side), train.subset(holdout_side)
        digests, holdout_digests = ([digests[index] for index in side] for side in (train_side, holdout_side))
    else:
        holdout_digests = [pixel_digest(pixels) for pixels in holdout.images]

    known = set(train.classes)
    classes = [name for name in found.order if name in known] or sorted(known, key=_numbers_by_value)
    duplicates = Duplicates()
    owners = dict(zip(reversed(digests), reversed(train.names), strict=True))
    kept = []
    for index, (name, label, digest) in enumerate(zip(holdout.names, holdout.classes, holdout_digests, strict=True)):
        if label not in known:
            skipped.append(f"{name}: class {label!r} is not among the training classes")
        elif digest in owners:
            duplicates.leaks.append(f"{name}: same pixels as {owners[digest]}")
        else:
            kept.append(index)
    holdout, holdout_digests = holdout.subset(kept), [holdout_digests[index] for index in kept]
    _compare(train, holdout, digests + holdout_digests, duplicates)
    shape = train.images[0].shape
    return RawData(
        _as_split(train, classes, shape),
        _as_split(holdout, classes, shape),
        classes if len(classes) > 1 else [],
        skipped,
        duplicates,
    )


def _numbers_by_value(name: str) -> tuple[int, str]:
    """Return a key that sorts as text does, except that 2 comes before 10."""
    return (int(name), "") if name.isascii() and name.isdigit() else (10**9, name)


def _compare(train: Pictures, holdout: Pictures, digests: Sequence[bytes], duplicates: Duplicates) -> None:
    """Add the copies and the near duplicates of both splits to `duplicates`; leaks are gone by now."""
    images, names = [*train.images, *holdout.images], [*train.names, *holdout.names]
    first: dict[bytes, int] = {}
    for index, digest in enumerate(digests):
        original = first.setdefault(digest, index)
        if original != index:
            duplicates.copies.append(f"{names[index]}: same pixels as {names[original]}")
    distinct = list(first.values())
    pairs = np.array(distinct, np.int64)[near_pairs([images[index] for index in distinct])]
    between = (pairs[:, 0] < len(train.images)) & (pairs[:, 1] >= len(train.images))
    across = pairs[between]
    duplicates.num_near, duplicates.num_near_across = len(np.unique(pairs)), len(np.unique(across[:, 1]))
    chosen = np.concatenate([across[:NUM_EXAMPLES], pairs[~between][:NUM_EXAMPLES]])[:NUM_EXAMPLES]
    duplicates.near_examples = [f"{names[second]}: looks like {names[one]}" for one, second in chosen]


def _as_split(pictures: Pictures, classes: list[str], shape: tuple[int, ...]) -> RawSplit:
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers[label] for label in pictures.classes], np.int64)
    return RawSplit(np.array(pictures.images, np.uint8).reshape(-1, *shape), labels)
