"""PNG's five filters, for whole batches, and the choice of one for each row.

W3C Portable Network Graphics (PNG) Specification, Third Edition, section 9.
"""

import numpy as np

from service.encoder.pixels import Pixels

FILTERS = ("none", "sub", "up", "average", "Paeth")
NONE, SUB, UP, AVERAGE, PAETH = range(5)


def filtered(pixels: Pixels, kind: int) -> Pixels:
    """Return scanlines as `service.encoder.png` makes them, with one filter for all rows."""
    width, channels = pixels.shape[-2:]
    rows = pixels.reshape(*pixels.shape[:-2], width * channels)
    scanlines = np.empty((*rows.shape[:-1], 1 + width * channels), np.uint8)
    scanlines[..., 0] = kind
    _subtract_prediction(rows, channels, kind, scanlines[..., 1:])
    return scanlines


def filtered_by_row(pixels: Pixels) -> Pixels:
    """Return scanlines, each with the filter of the least sum of absolute differences, as libpng and Pillow choose."""
    candidates = np.stack([filtered(pixels, kind) for kind in range(len(FILTERS))])
    differences = candidates[..., 1:]
    best = np.minimum(differences, -differences).sum(axis=-1, dtype=np.uint32).argmin(axis=0)
    return np.take_along_axis(candidates, best[None, ..., None], axis=0)[0]


def _subtract_prediction(rows: Pixels, channels: int, kind: int, out: Pixels) -> None:
    """Write what a filter leaves of rows, uint8, (..., H, W * C)."""
    if kind == NONE:
        out[...] = rows
    elif kind == SUB:
        out[..., :channels] = rows[..., :channels]
        np.subtract(rows[..., channels:], rows[..., :-channels], out=out[..., channels:])
    elif kind == UP:
        out[..., 0, :] = rows[..., 0, :]
        np.subtract(rows[..., 1:, :], rows[..., :-1, :], out=out[..., 1:, :])
    else:
        padded = np.zeros((*rows.shape[:-2], rows.shape[-2] + 1, rows.shape[-1] + channels), np.uint8)
        padded[..., 1:, channels:] = rows
        left, up, corner = padded[..., 1:, :-channels], padded[..., :-1, channels:], padded[..., :-1, :-channels]
        predicted = (left & up) + ((left ^ up) >> 1) if kind == AVERAGE else _paeth(left, up, corner)
        np.subtract(rows, predicted, out=out)


def _paeth(*neighbours: Pixels) -> Pixels:
    left, up, corner = (one.astype(np.int16) for one in neighbours)
    to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    nearest = np.where(to_up <= to_corner, up, corner)
    return np.where((to_left <= to_up) & (to_left <= to_corner), left, nearest).astype(np.uint8)
