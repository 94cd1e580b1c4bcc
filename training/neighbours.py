"""How near pictures lie to others: plain distances between small copies, or between any rows."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from training.data import to_float
from training.metrics.nearest import nearest_rows

THUMBNAIL_SIZE = 16


@torch.inference_mode()
def thumbnails(pixels: Tensor, batch_size: int = 2048) -> Tensor:
    """Return small copies of pictures as rows.

    Args:
        pixels: uint8, (N, H, W, C).
        batch_size: Pictures at a time.

    Returns:
        Means over an adaptive 16x16 grid in grey levels, float32, (N, C * 256), in [0, 255]; colours of RGBA are
        multiplied by alpha, so that what nobody sees has no distance.
    """
    parts = [F.adaptive_avg_pool2d(to_float(part), THUMBNAIL_SIZE) for part in pixels.split(batch_size)]
    return torch.cat(parts).add(1).mul(127.5).contiguous().flatten(1)


@torch.inference_mode()
def nearest_distances(rows: Tensor, others: Tensor) -> Tensor:
    """Return the distance from each row to the nearest of others.

    Args:
        rows: float32, (N, D).
        others: float32, (M, D), M at least 1.

    Returns:
        Root of the mean squared difference over the D values, float32, (N,), in the unit of the values.
    """
    return nearest_rows(rows, others).distance / math.sqrt(rows.shape[1])
