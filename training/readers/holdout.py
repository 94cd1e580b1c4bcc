"""The hold-out split where a source has none: a tenth of every class, fixed by what is in the files."""

from collections import defaultdict
from collections.abc import Sequence

HOLDOUT_SHARE = 0.1


def held_out(classes: Sequence[str], keys: Sequence[bytes], digests: Sequence[bytes]) -> list[bool]:
    """Say of every picture whether it is held out.

    Of each class those with the smallest keys are: a tenth, at least one of two, never all. Neither names nor the order
    matter, and when pictures are added few of the others change sides. The same pixels stay on one side. Under two
    classes they are trained on: they would teach nothing about either in the hold-out.

    Args:
        classes: The class of each picture.
        keys: A digest of each picture's file, which does not depend on how it was fitted.
        digests: The digest of each picture's pixels.

    Returns:
        A flag per picture.
    """
    members = defaultdict(list)
    for index, digest in enumerate(digests):
        members[digest].append(index)
    ranked = defaultdict(list)
    for digest, indices in members.items():
        names = {classes[index] for index in indices}
        if len(names) == 1:
            ranked[names.pop()].append((min(keys[index] for index in indices), digest))
    chosen: set[bytes] = set()
    for candidates in ranked.values():
        if len(candidates) > 1:
            count = max(1, round(HOLDOUT_SHARE * len(candidates)))
            chosen.update(digest for _, digest in sorted(candidates)[:count])
    return [digest in chosen for digest in digests]
