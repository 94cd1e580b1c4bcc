"""What changes over a run, as functions of progress in [0, 1]; pure functions."""

import math

LEARNING_RATE_WARMUP_STEPS = 200


def cosine(start: float, end: float, progress: float) -> float:
    """Return the value at `progress` of a half cosine from `start` to `end`; `progress` is clipped to [0, 1]."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def label_weight(progress: float, warmup: float) -> float:
    """Return the strength of the label, in [0, 1], after `progress` of a run that raises it over its part `warmup`.

    Warming conditioning up avoids conditional collapse on little data (Shahbazi et al. 2022, arXiv:2201.06578).
    """
    return min(1.0, max(progress, 0.0) / warmup) if warmup > 0 else 1.0


def warmup(step: int) -> float:
    """Return the factor in (0, 1] of the learning rate at optimiser step `step`, counted from 0."""
    return min(1.0, (step + 1) / LEARNING_RATE_WARMUP_STEPS)


def ema_decay(nimg: int, batch_size: int, halflife_kimg: float) -> float:
    """Return the EMA's decay for one step after `nimg` images.

    The half-life is `halflife_kimg` thousand images, at most a twentieth of the images seen, so that the average
    forgets its start quickly.
    """
    halflife = min(halflife_kimg * 1000, 0.05 * nimg)
    return float(0.5 ** (batch_size / max(halflife, 1e-8)))
