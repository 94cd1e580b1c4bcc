"""Which batch sizes draw the same bytes as the largest, found out by drawing.

Kernels for few rows may add in another order. Such a sum differs in its last bits, of which a pixel, rounded to a byte,
shows so little that a hundred small pictures may look the same. So a size has to reproduce a million bytes, and is
dropped at the first that differs. Where the sizes are known from an earlier start, and a digest of some pictures says
that nothing has changed since, they are only warmed up.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from service.engine.protocol import Pixels
from service.manifest import Manifest
from service.sample import Sample

PROBE_BYTES = 1_000_000
MAX_PROBES = 2048  # pictures, where they are so small that a million bytes would take too long
MIN_ROUNDS = 2  # TorchScript's profiling executor settles in the second call of a shape
# Of which a fingerprint is made: as many whatever the batch size, so that engines can be compared.
FINGERPRINT_PICTURES = 16

Draw = Callable[[Tensor], Pixels]


def probes(manifest: Manifest, *, thorough: bool, batch: int, parts: int) -> list[list[Sample]]:
    """Return samples of which no two are alike, in equal parts of whole batches.

    Args:
        manifest: The model's.
        thorough: As many as it takes to find out; else, what every size must have run to be warm.
        batch: Images of the largest batch.
        parts: Threads among which they are shared out.

    Returns:
        As many lists of samples as `parts`.
    """
    picture_bytes = manifest.height * manifest.width * manifest.channels
    wanted = min(math.ceil(PROBE_BYTES / picture_bytes), MAX_PROBES) if thorough else 0
    least = max(MIN_ROUNDS, math.ceil(FINGERPRINT_PICTURES / batch))
    each = max(least, math.ceil(wanted / (batch * parts))) * batch
    rows = np.random.default_rng(0).standard_normal((each * parts, manifest.z_dim), np.float32)
    samples = [Sample(z, number % max(manifest.num_classes, 1), 1.0) for number, z in enumerate(rows)]
    return [samples[part * each : (part + 1) * each] for part in range(parts)]


def drawn(draw: Draw, w: Tensor, batch: int) -> Pixels:
    """Return what all styles, a multiple of `batch` of them, look like, uint8 (N, H, W, C)."""
    return np.concatenate([draw(w[start : start + batch]) for start in range(0, len(w), batch)])


def exact_sizes(draw: Draw, w: Tensor, expected: Pixels, sizes: Sequence[int]) -> set[int]:
    """Find the batch sizes that change nothing.

    Args:
        draw: Draws a batch.
        w: Styles, at least as many as the largest size.
        expected: What they look like, uint8 (N, H, W, C).
        sizes: Sizes to try.

    Returns:
        Those in which the styles are drawn as expected.
    """
    return {size for size in sizes if _reproduces(draw, w, expected, size)}


def _reproduces(draw: Draw, w: Tensor, expected: Pixels, size: int) -> bool:
    """Draw in batches of exactly `size`, the last two of which may overlap, until one differs.

    The first begins in the middle of the first expected one, so that of the largest size too no picture has the place
    that it had there.
    """
    for start in range(size // 2, len(w), size):
        first = min(start, len(w) - size)
        if not np.array_equal(draw(w[first : first + size]), expected[first : first + size]):
            return False
    return True
