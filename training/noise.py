"""Random numbers inside a network, as a function of the run's seed and the step.

Several threads take shards of one batch through the same modules, and torch's global generator would serve them in the
order in which they come. Each shard draws from a generator of its own instead, so that a resumed run repeats the whole
one.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_current = threading.local()


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Let `generator` of this thread draw from `seed`, in [0, 2**63), until the block ends."""
    _current.generator = torch.Generator(device).manual_seed(seed)
    try:
        yield
    finally:
        del _current.generator


def generator() -> torch.Generator:
    """Return this thread's generator.

    Returns:
        What the innermost open `seeded` block has seeded.

    Raises:
        RuntimeError: If no `seeded` block is open in this thread.
    """
    try:
        found: torch.Generator = _current.generator
    except AttributeError:
        raise RuntimeError("a network drew random numbers outside of training.noise.seeded") from None
    return found
