"""How many items a batch may have: as configured, until the device says that they do not fit."""

RECOVER_AFTER = 256  # batches that fitted before one more item is tried again


class Ceiling:
    """The largest batch that is handed out.

    Args:
        maximum: As configured.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = self.value = maximum
        self._fitted = 0

    def did_not_fit(self, size: int) -> None:
        """Halve what did not fit."""
        self.value = max(1, min(self.value, size // 2))
        self._fitted = 0

    def fitted(self) -> None:
        """Note a batch that fitted; after enough of them, allow one item more."""
        if self.value == self._maximum:
            return
        self._fitted += 1
        if self._fitted >= RECOVER_AFTER:
            self._fitted = 0
            self.value += 1
