"""Admission, workers, settlement.

Admission is one synchronous step: a request's waiting items are counted against `max_queue` before anything can
suspend, so concurrent requests cannot overshoot it. Items in the run function no longer count; `workers`, `spares` and
`max_batch_size` bound those. A free worker takes at once what is waiting. Each request is a `Ticket` with a single
future, and `_settle` is the only place that resolves it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Generic, cast

from service.batcher.ceiling import Ceiling
from service.batcher.failures import (
    BackendFailure,
    DeadlineExceeded,
    Draining,
    OutOfMemory,
    QueueFull,
    RequestTooLarge,
)
from service.batcher.halving import divided, still_wanted
from service.batcher.observer import Observer
from service.batcher.queue import FairQueue
from service.batcher.rate import DrainRate
from service.batcher.ticket import BatchTiming, Done, Entry, Item, Result, Terms, Ticket
from service.batcher.waitlist import Waitlist

CROWDED = 0.5  # of the queue's limit, from where on spares take batches
HELD_S = 0.3  # of work that spares hand over: nobody can overtake it, and nobody who leaves takes it back
RETURNERS = 0.5  # of the queue's limit: what those who were refused and come back when told may take beyond it


class Batcher(Generic[Item, Result]):
    """Run the items of many requests in shared batches; a request ends with its results, or with one error.

    Args:
        run: Turns a batch of items into as many results in the same order; when cancelled, it ends soon. If it raises
            `MemoryError`, the batch is run again in halves, and later ones are smaller for a while.
        max_batch_size: Items per call of `run`, at least 1.
        max_queue: Items that may wait, over all requests, at least 1; those in `run` are not counted, but for what
            spares hold there, and those that come back after a refusal may be half as many more.
        workers: Calls of `run` at the same time, at least 1.
        spares: Further calls while the queue is crowded, for `run` to hold ready: an event loop that has thousands of
            requests to refuse comes too late to hand over one batch when another is done.
        observer: Told about what happens.
        sizes: Returns the sizes that batches have in `run`, ascending, the last one `max_batch_size`; it pads others.
            Without it every size runs as it is.
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
        spares: int = 0,
        observer: Observer | None = None,
        sizes: Callable[[], Sequence[int]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if min(max_batch_size, max_queue, workers) < 1:
            raise ValueError(f"limits must be at least 1: {max_batch_size=}, {max_queue=}, {workers=}")
        self._run = run
        self._ceiling = Ceiling(max_batch_size, sizes or (lambda: range(1, max_batch_size + 1)))
        self._max_queue, self._max_batch_size = max_queue, max_batch_size
        self._num_workers, self._num_spares = workers, spares
        self._observer = observer or Observer()
        self._clock = clock
        self._queue: FairQueue[Item, Result] = FairQueue()
        self._open: set[Ticket[Item, Result]] = set()
        self._in_flight = 0
        self._started: dict[int, float] = {}  # worker -> start of its batch, oldest first
        self._workers: list[asyncio.Task[None]] = []
        self._work_waiting, self._crowded = asyncio.Event(), asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._admitting = True
        self._closed = False
        self._rate = DrainRate(workers)
        self._waitlist = Waitlist()

    @property
    def queued(self) -> int:
        """Items that wait for a worker."""
        return len(self._queue)

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
        return self._rate.items_per_s

    @property
    def ceiling(self) -> int:
        """Items that a batch may have now."""
        return self._ceiling.value

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
        numbers = range(self._num_workers + self._num_spares)
        self._workers = [asyncio.create_task(self._supervise(number)) for number in numbers]

    async def submit(self, items: Sequence[Item], terms: Terms) -> list[Done[Result]]:
        """Run a request's items and return their results in the order of the items.

        Cancelling the caller gives its waiting items' slots back; its items in `run` finish, and are discarded.

        Args:
            items: The request; no items give no results.
            terms: Its deadline and its urgency.

        Returns:
            One result per item.

        Raises:
            QueueFull: At once, if it does not fit or the deadline cannot be met.
            Draining: If the batcher is shutting down.
            DeadlineExceeded: At the deadline, also when items are in `run`.
            BackendFailure: If a batch with one of its items failed.
            OutOfMemory: If one of its items did not fit into memory alone.
        """
        if not len(items):
            return []
        ticket = self._admit(tuple(items), terms)
        timer = asyncio.get_running_loop().call_later(terms.timeout_s, self._expire, ticket)
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
        finished = not (self.queued or self._in_flight)
        await self.close()
        return finished

    async def close(self) -> None:
        """Fail every open request with `Draining` at once, cancel what runs, and return when it has ended."""
        self._stop()
        await asyncio.gather(*self._workers, return_exceptions=True)

    def _admit(self, items: Sequence[Item], terms: Terms) -> Ticket[Item, Result]:
        """Reserve the request's slots, or refuse it as `submit` says."""
        size, queued = len(items), self._outstanding
        if not self._admitting:
            self._observer.rejected("draining")
            raise Draining("the batcher is shutting down")
        if terms.timeout_s <= 0:
            raise DeadlineExceeded(f"no time left: timeout_s={terms.timeout_s}")
        now = self._clock()
        if size > self._max_queue:
            self._observer.rejected("too_large")
            raise RequestTooLarge(f"{size} items never fit a queue of {self._max_queue}", 1)
        came_back = self._waitlist.claim(terms.key, now)
        if queued + size > self._max_queue * (1 + RETURNERS * came_back):
            self._observer.rejected("full")
            message = f"{queued} of {self._max_queue} slots taken, {size} wanted"
            raise QueueFull(message, self._come_again_s(size, terms.key, now))
        if self._too_late(size, terms):
            self._observer.rejected("deadline")
            message = f"{queued} items waiting, not done in {terms.timeout_s:.3g} s"
            raise QueueFull(message, self._come_again_s(size, terms.key, now))
        future = asyncio.get_running_loop().create_future()
        ticket: Ticket[Item, Result] = Ticket(
            items, terms.urgency, now, now + terms.timeout_s, [None] * size, size, future
        )
        self._open.add(ticket)
        self._queue.add(ticket)
        self._work_waiting.set()
        if self._is_crowded:
            self._crowded.set()
        self._changed()
        return ticket

    def refusal_s(self, key: Hashable) -> int | None:
        """Refuse a request before anything is known of it but its key.

        Args:
            key: By which it will be known again.

        Returns:
            Seconds after which to come again, as `submit` would raise them; `None` if `submit` may admit it.
        """
        now = self._clock()
        if self._outstanding < self._max_queue or not self._admitting or self._waitlist.has(key, now):
            return None
        self._observer.rejected("full")
        return self._come_again_s(1, key, now)

    def _come_again_s(self, size: int, key: Hashable, now: float) -> int:
        seconds_for = self._rate.seconds_for
        return self._waitlist.book(key, now, free_in_s=seconds_for(self._outstanding), items_s=seconds_for(size))

    def _too_late(self, size: int, terms: Terms) -> bool:
        """Say whether a request's last item certainly misses its deadline.

        An optimist's answer: batches in flight and later arrivals count for nothing, and a request that finds nobody
        waiting is always tried, so that an outdated estimate cannot lock everyone out.
        """
        if not self.queued or not self._rate.is_trusted:
            return False
        if self._rate.seconds_for(self.queued + size) <= terms.timeout_s:
            return False
        return self._rate.seconds_for(size + self._queue.ahead_of(size, terms.urgency)) > terms.timeout_s

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
        is_spare = number >= self._num_workers
        signal = self._crowded if is_spare else self._work_waiting
        while not self._closed:
            if (not is_spare or self._is_crowded) and (batch := self._take()):
                await self._serve(number, batch)
            else:
                signal.clear()
                await signal.wait()

    @property
    def _is_crowded(self) -> bool:
        """Whether so much waits, and so little of it in `run`, that spares shall hand over more."""
        return self._outstanding > CROWDED * self._max_queue and self._in_flight < HELD_S * self.drain_rate

    @property
    def _outstanding(self) -> int:
        """Items that wait: in the queue, or handed over by spares, which count against the limit as well."""
        return self.queued + max(self._in_flight - self._num_workers * self._max_batch_size, 0)

    def _take(self) -> list[Entry[Item, Result]]:
        """Move up to a batch of items from the queue into flight."""
        batch, dead = self._queue.take(self._ceiling.value, self._clock())
        self._in_flight += len(batch)  # before anything can look idle
        for ticket in dead:
            self._expire(ticket)
        if dead:
            self._changed()
        return batch

    async def _serve(self, number: int, batch: Sequence[Entry[Item, Result]]) -> None:
        """Run one batch and settle the requests it completes; after any error, every request that is part of it."""
        size = len(batch)
        self._started[number] = started = self._clock()
        try:
            self._changed()
            self._observer.batch_started(size)
            for ticket, _ in batch:
                self._observer.waited(started - ticket.arrived)
            left = await self._run_and_settle(batch)
            while left:
                if part := still_wanted(left.pop()):
                    left += await self._run_and_settle(part)
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

    async def _run_and_settle(self, batch: Sequence[Entry[Item, Result]]) -> list[Sequence[Entry[Item, Result]]]:
        """Run a batch and settle the requests that it completes; return its parts if it did not fit into memory."""
        size, started = len(batch), self._clock()
        behind = max(len(self._started) / self._num_workers, 1)  # batches that it waits for in `run`, and itself
        try:
            results = await self._run([ticket.items[index] for ticket, index in batch])
        except MemoryError as exc:
            self._observer.out_of_memory()
            parts = divided(batch, self._ceiling)
            if not parts:
                for ticket, _ in batch:
                    self._settle(ticket, OutOfMemory(f"the smallest batch does not fit into memory: {exc}"))
            return parts  # to be run when the exception, which keeps alive what the batch had allocated, is gone
        if len(results) != size:
            raise ValueError(f"{size} items gave {len(results)} results")
        run_s = self._clock() - started
        self._rate.measure(size, run_s / behind, full=size >= min(self._ceiling.value, self._max_queue))
        self._ceiling.fitted(size)
        for (ticket, index), value in zip(batch, results, strict=True):
            ticket.results[index] = Done(value, BatchTiming(started - ticket.arrived, run_s, size))
            ticket.missing -= 1
            if not ticket.missing:
                self._settle(ticket, None)
        return []

    def _settle(self, ticket: Ticket[Item, Result], error: Exception | None) -> None:
        """Resolve a request, unless it is resolved already, and free the slots it still holds."""
        self._withdraw(ticket)
        if not ticket.future.done():
            ticket.future.set_result(error)

    def _expire(self, ticket: Ticket[Item, Result]) -> None:
        self._settle(ticket, DeadlineExceeded(f"{ticket.missing} of {len(ticket.items)} items not done in time"))

    def _withdraw(self, ticket: Ticket[Item, Result]) -> None:
        """Free the slots of a request's waiting items, if it has any."""
        if self._queue.withdraw(ticket):
            self._changed()

    def _stop(self) -> None:
        self._admitting, self._closed = False, True
        for ticket in tuple(self._open):
            self._settle(ticket, Draining("the batcher was closed"))
        for worker in self._workers:
            worker.cancel()

    def _changed(self) -> None:
        if self._queue or self._in_flight:
            self._idle.clear()
        else:
            self._idle.set()
