"""Random numbers that a seed fixes for ever: `philox-bm-1`, specified in docs/rng.md with test vectors.

Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3", SC11, doi:10.1145/2063384.2063405.
"""

import math
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.random import Philox
from numpy.typing import NDArray

MAX_SEED = 2**53 - 1
"""The greatest seed: the greatest integer that JavaScript holds exactly."""

_ZEROS = (0, 0, 0, 0)
_FROM_TOP_53_BITS = 2.0**-53
# Philox 4x64: multipliers and Weyl increments of the paper, tables 2 and section 3.
_ROUNDS = 10
_WORD = 2**64 - 1
_MULTIPLIER_0, _MULTIPLIER_2 = 0xD2E7470EE14C6C93, 0xCA5A826395121157
_WEYL_0, _WEYL_1 = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B


class _PerThread(threading.local):
    """A bit generator for each thread, so that re-keying one is invisible to the others."""

    def __init__(self) -> None:
        self.philox = Philox(key=0)


_per_thread = _PerThread()


def latents(seeds: Sequence[int], z_dim: int) -> NDArray[np.float32]:
    """Draw one latent per seed by `philox-bm-1`; a row depends on its own seed only.

    Args:
        seeds: N seeds, each in [0, 2**53).
        z_dim: Length of a latent, at least 1.

    Returns:
        Standard normal latents, float32, (N, z_dim), finite, magnitude below 8.6.

    Raises:
        ValueError: If a seed is out of range or `z_dim` is below 1.

    Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3", SC11, doi:10.1145/2063384.2063405;
    Box and Muller 1958, "A Note on the Generation of Random Normal Deviates", doi:10.1214/aoms/1177706645.
    """
    if z_dim < 1:
        raise ValueError(f"z_dim must be at least 1, got {z_dim}")
    pairs = (z_dim + 1) // 2
    words = np.empty((len(seeds), 2 * pairs), np.uint64)
    for row, seed in zip(words, seeds, strict=True):
        _check(seed)
        row[:] = _words(seed, 2 * pairs)
    return np.ascontiguousarray(normals(words)[:, :z_dim])


def normals(words: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Turn pairs of raw words into pairs of normal numbers, by the Box-Muller transform in float64.

    Args:
        words: Uniform raw words, uint64, (N, 2 * pairs).

    Returns:
        Standard normal numbers, float32, (N, 2 * pairs), finite, magnitude below 8.6.
    """
    unit = (words >> 11) * _FROM_TOP_53_BITS
    # Adding 2**-53 is exact, and moves [0, 1) to (0, 1], where the logarithm is finite.
    radius = np.sqrt(-2.0 * np.log(unit[:, 0::2] + _FROM_TOP_53_BITS))
    angle = 2.0 * math.pi * unit[:, 1::2]
    z = np.empty((*radius.shape, 2), np.float32)
    z[..., 0] = radius * np.cos(angle)
    z[..., 1] = radius * np.sin(angle)
    return z.reshape(words.shape)


@lru_cache(4096)  # one answer needs it several times
def label_from(seed: int, num_classes: int) -> int:
    """Draw a label from a seed, uniformly, from a part of its stream that no latent reaches.

    Args:
        seed: In [0, 2**53).
        num_classes: Number of labels, in [1, 2**53].

    Returns:
        The label, in [0, num_classes).

    Raises:
        ValueError: If `seed` or `num_classes` is out of range.
    """
    _check(seed)
    if not 1 <= num_classes <= 2**53:
        raise ValueError(f"num_classes must be in [1, 2**53], got {num_classes}")
    word = _first_word(seed, counter=(1, 0, 0, 1))
    return ((word >> 11) * num_classes) >> 53


def _check(seed: int) -> None:
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"a seed must be in [0, {MAX_SEED}], got {seed}")


def _words(seed: int, count: int) -> NDArray[np.uint64]:
    """Return the first raw words of `Philox(key=seed)`, uint64, (count,).

    A kept generator is set anew, every field of it, so that nothing of the seed before is left: constructing one costs
    several times as much.
    """
    # NumPy's stub wants arrays here; its setter reads items, of tuples faster.
    state: Any = {
        "bit_generator": "Philox",
        "state": {"counter": _ZEROS, "key": (seed, 0)},
        "buffer": _ZEROS,
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
    philox = _per_thread.philox
    philox.state = state
    return philox.random_raw(count)


def _first_word(seed: int, counter: tuple[int, int, int, int]) -> int:
    """Return the first word of one Philox 4x64-10 block.

    In Python, for the event loop: NumPy's generator lets go of the interpreter's lock for every call, and then waits
    behind the threads that draw.
    """
    x0, x1, x2, x3 = counter
    key0, key1 = seed, 0
    for _ in range(_ROUNDS):
        product0, product2 = _MULTIPLIER_0 * x0, _MULTIPLIER_2 * x2
        x0, x1, x2, x3 = (
            (product2 >> 64) ^ x1 ^ key0,
            product2 & _WORD,
            (product0 >> 64) ^ x3 ^ key1,
            product0 & _WORD,
        )
        key0, key1 = (key0 + _WEYL_0) & _WORD, (key1 + _WEYL_1) & _WORD
    return x0
