"""How fast the queue drains, from the batches that went by."""

_EWMA_WEIGHT = 0.2  # of the newest batch: the estimate follows a change within about five batches
_TRUSTED_FULL_BATCHES = 8  # measured at full size before the estimate may refuse anybody


class DrainRate:
    """The seconds that all workers together need per item.

    Args:
        workers: Batches that run at the same time.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._item_s = 0.0  # seconds of one worker per item, EWMA; 0 = not measured yet
        self._full_batches = 0

    @property
    def items_per_s(self) -> float:
        """Items per second of all workers together; 0 when unknown."""
        return self._workers / self._item_s if self._item_s else 0.0

    @property
    def is_trusted(self) -> bool:
        """Whether enough was measured to refuse somebody for it."""
        return self._full_batches >= _TRUSTED_FULL_BATCHES

    def measure(self, size: int, seconds: float, *, full: bool) -> None:
        """Learn from a batch: full ones show the rate, smaller ones only that it is at least so high."""
        item_s = seconds / size
        self._full_batches += full
        if not self._item_s:
            self._item_s = item_s
        elif full or item_s < self._item_s:
            self._item_s += _EWMA_WEIGHT * (item_s - self._item_s)

    def seconds_for(self, items: int) -> float:
        """Return how long so many items take; 0 when unknown."""
        return items * self._item_s / self._workers
