"""Group the items of concurrent requests into batches: who is admitted, who is next, and what becomes of a batch.

`queue` decides who is next, `rate` how long that takes, `waitlist` when the refused shall come again, `ceiling` and
`halving` what a batch is cut down to when memory runs out; `batcher` admits, runs and settles.
"""

from service.batcher.batcher import Batcher
from service.batcher.failures import (
    BackendFailure,
    DeadlineExceeded,
    Draining,
    OutOfMemory,
    QueueFull,
    RequestTooLarge,
)
from service.batcher.observer import Observer
from service.batcher.ticket import DEFAULT_URGENCY, LEAST_URGENT, BatchTiming, Done, Terms

__all__ = [
    "DEFAULT_URGENCY",
    "LEAST_URGENT",
    "BackendFailure",
    "BatchTiming",
    "Batcher",
    "DeadlineExceeded",
    "Done",
    "Draining",
    "Observer",
    "OutOfMemory",
    "QueueFull",
    "RequestTooLarge",
    "Terms",
]
