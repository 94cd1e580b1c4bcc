"""How a request can end without its results."""

# ruff: noqa: N818  the exceptions are named after what happened, as in httpx


class QueueFull(Exception):
    """The request does not fit into the queue, or cannot be served before its deadline.

    Args:
        message: What is full.
        retry_after_s: Whole seconds after which to come again.
    """

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RequestTooLarge(QueueFull):
    """The request has more items than the queue has slots, so that trying again will not help."""


class Draining(Exception):
    """The batcher is shutting down and takes, or finishes, no more work."""


class DeadlineExceeded(Exception):
    """The request's time ran out before all its results were there."""


class BackendFailure(Exception):
    """The run function raised, or broke its contract, on a batch of this request; `__cause__` says how."""


class OutOfMemory(Exception):
    """The smallest batch that can run did not fit into the device's memory."""
