"""Golden pictures: what the loaded generator must draw."""

import base64

import numpy as np
import torch
from torch.nn import functional as F

from service.bundle import BundleError
from service.engine.protocol import Pixels
from service.manifest import GOLDEN_SIZE, Golden


def check_golden(pixels: Pixels, golden: Golden) -> None:
    """Compare a picture with a golden thumbnail.

    Args:
        pixels: The picture, uint8 (H, W, C).
        golden: What the manifest says about it.

    Raises:
        BundleError: If a value of the thumbnail differs by more than the tolerance.
    """
    channels = pixels.shape[2]
    expected = np.frombuffer(base64.b64decode(golden.thumbnail), np.uint8).reshape(GOLDEN_SIZE, GOLDEN_SIZE, channels)
    means = F.adaptive_avg_pool2d(torch.from_numpy(pixels).permute(2, 0, 1).float(), GOLDEN_SIZE)
    difference = np.abs(means.round().permute(1, 2, 0).numpy() - expected).max()
    if not difference <= golden.tolerance:
        raise BundleError(
            f"golden picture of seed {golden.seed}, label {golden.label} differs by {difference:.0f} grey levels, "
            f"allowed are {golden.tolerance}"
        )
