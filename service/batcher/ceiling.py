"""How many items a batch may have: as configured, until the device says that they do not fit."""

from collections.abc import Callable, Sequence

RECOVER_AFTER = 256  # full batches that fitted before a larger one is tried again


class Ceiling:
    """The largest batch that is handed out.

    Args:
        maximum: As configured.
        sizes: Returns the sizes that batches have on the device, ascending, the last one `maximum`; smaller batches are
            padded to the next of them, so only a smaller size takes less memory.
    """

    def __init__(self, maximum: int, sizes: Callable[[], Sequence[int]]) -> None:
        self._maximum = self.value = maximum
        self._sizes = sizes
        self._good = 0  # the largest that has fitted since one of its size did not
        self._fitted = 0

    def did_not_fit(self, size: int) -> int:
        """Learn from a batch that did not fit: back to what has fitted, or else to half.

        Args:
            size: Its items.

        Returns:
            How many of its items to try together now; 0 if no smaller batch can run.
        """
        padded = min(runnable for runnable in self._sizes() if runnable >= size)
        smaller = [runnable for runnable in self._sizes() if runnable < padded]
        if not smaller:
            return 0
        if padded <= self._good:  # there is less memory than there was
            self._good = 0
        wanted = self._good or padded // 2
        part = max((runnable for runnable in smaller if runnable <= wanted), default=smaller[0])
        self.value = min(self.value, part)
        self._fitted = 0
        return part

    def fitted(self, size: int) -> None:
        """Learn from a batch that fitted; after enough full ones, allow the next larger size."""
        self._good = max(self._good, size)
        if size < self.value or self.value == self._maximum:
            return
        self._fitted += 1
        if self._fitted >= RECOVER_AFTER:
            self._fitted = 0
            self.value = min(runnable for runnable in self._sizes() if runnable > self.value)
