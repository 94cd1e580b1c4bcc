"""`philox-bm-1`, the writer's side: the latent of a seed, as the service will draw it (docs/rng.md).

Golden pictures and samples are made from these. A contract test holds both sides to the published vectors.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

RNG_NAME: Final = "philox-bm-1"


def latents(seeds: Sequence[int], z_dim: int) -> Tensor:
    """Return the latents of seeds, float32 (N, z_dim), standard normal.

    Args:
        seeds: Integers in [0, 2**53).
        z_dim: Size of a latent.

    Returns:
        A row per seed.

    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox4x64-10); Box & Muller 1958.
    """
    pairs = (z_dim + 1) // 2
    words = np.stack([np.random.Philox(key=seed, counter=0).random_raw(2 * pairs) for seed in seeds])
    unit = (words >> np.uint64(11)).astype(np.float64)
    radius = np.sqrt(-2.0 * np.log((unit[:, 0::2] + 1) * 2.0**-53))
    angle = 2.0 * np.pi * (unit[:, 1::2] * 2.0**-53)
    normal = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2).reshape(len(seeds), 2 * pairs)
    return torch.from_numpy(normal[:, :z_dim].astype(np.float32))
