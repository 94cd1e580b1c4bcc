"""Group the items of concurrent requests into batches.

Admission is one synchronous step: a request's waiting items are counted against `max_queue` before anything can
suspend, so concurrent requests cannot overshoot it. Items in the run function no longer count; `workers` and
`max_batch_size` bound those. A free worker takes at once what is waiting, one item per request in rotation. Each
request is a `_Ticket` with a single future, and `_settle` is the only place that resolves it.
"""

# ruff: noqa: N818  the exceptions are named after what happened, as in httpx

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

Item = TypeVar("Item")
Result = TypeVar("Result")

_RETRY_AFTER_UNKNOWN_S = 1.0  # what a refused caller is told before any batch has been measured
_EWMA_WEIGHT = 0.2  # of the newest batch: the estimate follows a change within about five batches
_TRUSTED_FULL_BATCHES = 8  # measured at full size before the estimate may refuse anybody


class QueueFull(Exception):
    """The request does not fit into the queue, or cannot be served before its deadline.

    Args:
        message: What is full.
        retry_after_s: Seconds in which the items now waiting will have been worked off.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
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


class Observer(Protocol):
    """What a metrics collector is told. It is called on the hot path, and must neither block nor raise."""

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

    def depth(self, queued: int, in_flight: int) -> None:
        """Note the number of items waiting and of items in the run function, after each change."""


class _Silent:
    """The observer of a batcher that has none."""

    def batch_started(self, size: int) -> None: ...
    def batch_finished(self, size: int, seconds: float) -> None: ...
    def waited(self, seconds: float) -> None: ...
    def rejected(self, reason: str) -> None: ...
    def cancelled(self, stage: str) -> None: ...
    def depth(self, queued: int, in_flight: int) -> None: ...


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
class _Ticket(Generic[Item, Result]):
    """One admitted request; its items before `taken` have been handed to a worker."""

    items: Sequence[Item]
    arrived: float
    deadline: float
    results: list[Done[Result] | None]
    missing: int
    future: asyncio.Future[Exception | None]  # an error is a result here: one that nobody awaits needs no retrieval
    taken: int = 0

    @property
    def waiting(self) -> int:
        return len(self.items) - self.taken


class Batcher(Generic[Item, Result]):
    """Run the items of many requests in shared batches; a request ends with its results, or with one error.

    Args:
        run: Turns a batch of items into as many results in the same order; when cancelled, it ends soon.
        max_batch_size: Items per call of `run`, at least 1.
        max_queue: Items that may wait, over all requests, at least 1; those in `run` are not counted.
        workers: Calls of `run` at the same time, at least 1.
        observer: Told about every change.
        clock: Seconds from any origin, never falling.

    Raises:
        ValueError: If a limit is below 1.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        max_batch_size: int,
        max_queue: int,
        workers: int = 1,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if min(max_batch_size, max_queue, workers) < 1:
            raise ValueError(f"limits must be at least 1: {max_batch_size=}, {max_queue=}, {workers=}")
        self._run = run
        self._max_batch_size = max_batch_size
        self._max_queue = max_queue
        self._num_workers = workers
        self._observer: Observer = observer or _Silent()
        self._clock = clock
        self._rotation: OrderedDict[_Ticket[Item, Result], None] = OrderedDict()  # requests with waiting items
        self._open: set[_Ticket[Item, Result]] = set()
        self._queued = 0
        self._in_flight = 0
        self._started: dict[int, float] = {}  # worker -> start of its batch, oldest first
        self._workers: list[asyncio.Task[None]] = []
        self._work_waiting = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._admitting = True
        self._closed = False
        self._item_s = 0.0  # seconds of one worker per item, EWMA; 0 = not measured yet
        self._full_batches = 0

    @property
    def queued(self) -> int:
        """Items that wait for a worker."""
        return self._queued

    @property
    def in_flight(self) -> int:
        """Items in the run function, those of departed requests included."""
        return self._in_flight

    @property
    def limit(self) -> int:
        """Items that may wait."""
        return self._max_queue

    @property
    def drain_rate(self) -> float:
        """Items per second that all workers together get through; 0 when unknown."""
        return self._num_workers / self._item_s if self._item_s else 0.0

    @property
    def oldest_in_flight_s(self) -> float:
        """Seconds since the oldest running batch was started; 0 when none is running."""
        return self._clock() - next(iter(self._started.values())) if self._started else 0.0

    def start(self) -> None:
        """Create the workers in the running loop.

        Raises:
            RuntimeError: If called twice, or after `close`.
        """
        if self._workers or self._closed:
            raise RuntimeError("a batcher starts once")
        self._workers = [asyncio.create_task(self._supervise(number)) for number in range(self._num_workers)]

    async def submit(self, items: Sequence[Item], *, timeout_s: float) -> list[Done[Result]]:
        """Run a request's items and return their results in the order of the items.

        Cancelling the caller gives its waiting items' slots back; its items in `run` finish, and are discarded.

        Args:
            items: The request; no items give no results.
            timeout_s: Seconds from now until its deadline.

        Returns:
            One result per item.

        Raises:
            QueueFull: At once, if it does not fit or the deadline cannot be met.
            Draining: If the batcher is shutting down.
            DeadlineExceeded: At the deadline, also when items are in `run`.
            BackendFailure: If a batch with one of its items failed.
        """
        if not len(items):
            return []
        ticket = self._admit(tuple(items), timeout_s)
        timer = asyncio.get_running_loop().call_later(timeout_s, self._expire, ticket)
        try:
            error = await ticket.future
        finally:
            timer.cancel()
            self._open.discard(ticket)
            self._withdraw(ticket)
            if ticket.future.cancelled():  # which only the cancellation of this very await does
                self._observer.cancelled("running" if ticket.taken else "queued")
        if error is not None:
            raise error
        return cast("list[Done[Result]]", ticket.results)

    async def drain(self, timeout_s: float) -> bool:
        """Admit no more requests, finish the admitted ones, then close.

        Args:
            timeout_s: Seconds after which the rest fails with `Draining`.

        Returns:
            Whether everything was finished in time.
        """
        self._admitting = False
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            pass
        finished = not (self._queued or self._in_flight)
        await self.close()
        return finished

    async def close(self) -> None:
        """Fail every open request with `Draining` at once, cancel what runs, and return when it has ended."""
        self._stop()
        await asyncio.gather(*self._workers, return_exceptions=True)

    def _admit(self, items: Sequence[Item], timeout_s: float) -> _Ticket[Item, Result]:
        """Reserve the request's slots, or refuse it as `submit` says."""
        size = len(items)
        if not self._admitting:
            self._observer.rejected("draining")
            raise Draining("the batcher is shutting down")
        if timeout_s <= 0:
            raise DeadlineExceeded(f"no time left: {timeout_s=}")
        if size > self._max_queue:
            self._observer.rejected("too_large")
            raise RequestTooLarge(f"{size} items never fit a queue of {self._max_queue}", self._retry_after_s())
        if self._queued + size > self._max_queue:
            self._observer.rejected("full")
            raise QueueFull(f"{self._queued} of {self._max_queue} slots taken, {size} wanted", self._retry_after_s())
        if self._too_late(size, timeout_s):
            self._observer.rejected("deadline")
            raise QueueFull(f"{self._queued} items waiting, not done in {timeout_s:.3g} s", self._retry_after_s())
        now = self._clock()
        future = asyncio.get_running_loop().create_future()
        ticket: _Ticket[Item, Result] = _Ticket(items, now, now + timeout_s, [None] * size, size, future)
        self._open.add(ticket)
        self._rotation[ticket] = None
        self._queued += size
        self._work_waiting.set()
        self._changed()
        return ticket

    def _retry_after_s(self) -> float:
        return self._queued * self._item_s / self._num_workers if self._item_s else _RETRY_AFTER_UNKNOWN_S

    def _too_late(self, size: int, timeout_s: float) -> bool:
        """Say whether a request's last item certainly misses its deadline.

        An optimist's answer: batches in flight and later arrivals count for nothing, and a request that finds nobody
        waiting is always tried, so that an outdated estimate cannot lock everyone out.
        """
        affordable = timeout_s * self._num_workers / self._item_s if self._item_s else float("inf")
        if not self._queued or self._full_batches < _TRUSTED_FULL_BATCHES or self._queued + size <= affordable:
            return False
        # In rotation, each request that is waiting has as many turns before our last item as we have items.
        return size + sum(min(ticket.waiting, size) for ticket in self._rotation) > affordable

    def _measure(self, size: int, seconds: float) -> None:
        """Update the drain rate: full batches show it, smaller ones only that it is at least so high."""
        full = size >= min(self._max_batch_size, self._max_queue)
        item_s = seconds / size
        self._full_batches += full
        if not self._item_s:
            self._item_s = item_s
        elif full or item_s < self._item_s:
            self._item_s += _EWMA_WEIGHT * (item_s - self._item_s)

    async def _supervise(self, number: int) -> None:
        """Keep a worker going until the batcher is closed, or the loop itself ends and cancels this task."""
        task, loop = cast("asyncio.Task[None]", asyncio.current_task()), asyncio.get_running_loop()
        while not self._closed:
            try:
                await self._work(number)
            except BaseException as exc:
                if not loop.is_running():  # this coroutine is being destroyed, with a loop that was not shut down
                    raise
                # A cancellation that leaked out of `run` leaves `cancelling` at 0; one meant for this task does not.
                if task.cancelling() or isinstance(exc, (GeneratorExit, KeyboardInterrupt, SystemExit)):
                    self._stop()
                    raise
                context: dict[str, Any] = {"message": "batcher worker restarted", "exception": exc, "task": task}
                loop.call_exception_handler(context)

    async def _work(self, number: int) -> None:
        while not self._closed:
            if batch := self._take():
                await self._serve(number, batch)
            else:
                self._work_waiting.clear()
                await self._work_waiting.wait()

    def _take(self) -> list[tuple[_Ticket[Item, Result], int]]:
        """Move up to a batch of items, one per request in rotation, from the queue into flight."""
        now = self._clock()
        batch: list[tuple[_Ticket[Item, Result], int]] = []
        while self._rotation and len(batch) < self._max_batch_size:
            ticket = next(iter(self._rotation))
            if ticket.future.done():  # its caller was cancelled, but has not run since
                self._withdraw(ticket)
            elif ticket.deadline <= now:
                self._expire(ticket)
            else:
                batch.append((ticket, ticket.taken))
                ticket.taken += 1
                self._queued -= 1
                self._in_flight += 1
                if ticket.waiting:
                    self._rotation.move_to_end(ticket)
                else:
                    del self._rotation[ticket]
        return batch

    async def _serve(self, number: int, batch: Sequence[tuple[_Ticket[Item, Result], int]]) -> None:
        """Run one batch and settle the requests it completes; after any error, every request that is part of it."""
        size = len(batch)
        self._started[number] = started = self._clock()
        try:
            self._changed()
            self._observer.batch_started(size)
            for ticket, _ in batch:
                self._observer.waited(started - ticket.arrived)
            results = await self._run([ticket.items[index] for ticket, index in batch])
            if len(results) != size:
                raise ValueError(f"{size} items gave {len(results)} results")
            run_s = self._clock() - started
            self._measure(size, run_s)
            for (ticket, index), value in zip(batch, results, strict=True):
                ticket.results[index] = Done(value, BatchTiming(started - ticket.arrived, run_s, size))
                ticket.missing -= 1
                if not ticket.missing:
                    self._settle(ticket, None)
        except BaseException as exc:
            for ticket, _ in batch:
                failure = BackendFailure(f"a batch of {size} failed: {type(exc).__name__}")
                failure.__cause__ = exc
                self._settle(ticket, failure)
            if not isinstance(exc, Exception):
                raise
        finally:
            del self._started[number]
            self._in_flight -= size
            self._observer.batch_finished(size, self._clock() - started)
            self._changed()

    def _settle(self, ticket: _Ticket[Item, Result], error: Exception | None) -> None:
        """Resolve a request, unless it is resolved already, and free the slots it still holds."""
        self._withdraw(ticket)
        if not ticket.future.done():
            ticket.future.set_result(error)

    def _expire(self, ticket: _Ticket[Item, Result]) -> None:
        self._settle(ticket, DeadlineExceeded(f"{ticket.missing} of {len(ticket.items)} items not done in time"))

    def _withdraw(self, ticket: _Ticket[Item, Result]) -> None:
        """Free the slots of a request's waiting items, if it has any."""
        if ticket in self._rotation:
            del self._rotation[ticket]
            self._queued -= ticket.waiting
            self._changed()

    def _stop(self) -> None:
        self._admitting, self._closed = False, True
        for ticket in tuple(self._open):
            self._settle(ticket, Draining("the batcher was closed"))
        for worker in self._workers:
            worker.cancel()

    def _changed(self) -> None:
        if self._queued or self._in_flight:
            self._idle.clear()
        else:
            self._idle.set()
        self._observer.depth(self._queued, self._in_flight)
