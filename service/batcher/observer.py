"""What a metrics collector is told."""


class Observer:
    """Told about what happens, on the hot path: it must neither block nor raise. This one ignores everything."""

    def batch_started(self, size: int) -> None:
        """Note that a batch goes to the run function."""

    def batch_finished(self, size: int, seconds: float) -> None:
        """Note that a batch is back, successful or not."""

    def waited(self, seconds: float) -> None:
        """Note how long one item waited for its batch."""

    def rejected(self, reason: str) -> None:
        """Note a refused request: `full`, `too_large`, `deadline` or `draining`."""

    def cancelled(self, stage: str) -> None:
        """Note a request whose caller left: `queued` if no item of it had been taken yet, else `running`."""

    def out_of_memory(self) -> None:
        """Note a batch that did not fit."""
