"""One admitted request, and what comes out of it."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

DEFAULT_URGENCY, LEAST_URGENT = 3, 7  # RFC 9218, section 4.1; 0 is the most urgent


@dataclass(frozen=True, slots=True)
class Terms:
    """What a request asks of the queue.

    Attributes:
        timeout_s: Seconds until its deadline.
        urgency: 0 (first) to 7.
        key: By which it is known again if it is refused and comes back; `None`: it is not.
    """

    timeout_s: float
    urgency: int = DEFAULT_URGENCY
    key: Hashable = None


@dataclass(frozen=True, slots=True)
class BatchTiming:
    """Where one item spent its time: seconds waiting, seconds in the run function, and the size of its batch."""

    queue_s: float
    run_s: float
    batch_size: int


@dataclass(frozen=True, slots=True)
class Done(Generic[Result]):
    """The result of one item, and its timing."""

    value: Result
    timing: BatchTiming


@dataclass(slots=True, eq=False)
class Ticket(Generic[Item, Result]):
    """One admitted request; its items before `taken` have been handed to a worker."""

    items: Sequence[Item]
    urgency: int
    arrived: float
    deadline: float
    results: list[Done[Result] | None]
    missing: int
    future: asyncio.Future[Exception | None]  # an error is a result here: one that nobody awaits needs no retrieval
    taken: int = 0

    @property
    def waiting(self) -> int:
        """Items that no worker has."""
        return len(self.items) - self.taken


Entry: TypeAlias = tuple[Ticket[Item, Result], int]  # of a batch: a request, and the index of one of its items
