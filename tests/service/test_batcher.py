"""The batcher, driven directly: what shares a batch, who is refused, and who is told what when something goes wrong."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from service.batcher import (
    BackendFailure,
    Batcher,
    BatchTiming,
    DeadlineExceeded,
    Done,
    Draining,
    OutOfMemory,
    QueueFull,
    RequestTooLarge,
    Terms,
)
from service.batcher.ceiling import RECOVER_AFTER

FOREVER_S = 3600.0


class Crash(BaseException):
    """What a run function should never raise."""


class Call:
    """One call of the fake backend, answered by the test."""

    def __init__(self, items: Sequence[str]) -> None:
        self.items = list(items)
        self.answer: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

    def succeed(self) -> None:
        self.answer.set_result([item.upper() for item in self.items])


class Backend:
    """A run function that turns letters into capitals when the test says so."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def __call__(self, items: Sequence[str]) -> list[str]:
        call = Call(items)
        self.calls.append(call)
        return await call.answer

    @property
    def batches(self) -> list[str]:
        return ["".join(call.items) for call in self.calls]


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Diary:
    """An observer that writes everything down."""

    def __init__(self) -> None:
        self.entries: list[tuple[object, ...]] = []

    def batch_started(self, size: int) -> None:
        self.entries.append(("started", size))

    def batch_finished(self, size: int, seconds: float) -> None:
        self.entries.append(("finished", size, seconds))

    def waited(self, seconds: float) -> None:
        self.entries.append(("waited", seconds))

    def rejected(self, reason: str) -> None:
        self.entries.append(("rejected", reason))

    def cancelled(self, stage: str) -> None:
        self.entries.append(("cancelled", stage))

    def out_of_memory(self) -> None:
        self.entries.append(("out of memory",))


async def settle() -> None:
    """Let every callback that is ready, and what follows from it, run."""
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def batching(
    run: Callable[[Sequence[str]], Coroutine[Any, Any, Sequence[str]]], **limits: Any
) -> AsyncIterator[Batcher[str, str]]:
    """Start a batcher with generous limits where none are given, and close it."""
    batcher = Batcher(run, **{"max_batch_size": 8, "max_queue": 64, **limits})
    batcher.start()
    try:
        yield batcher
    finally:
        await batcher.close()
        assert (batcher.queued, batcher.in_flight) == (0, 0)


def submit(batcher: Batcher[str, str], items: str, timeout_s: float = FOREVER_S) -> asyncio.Task[str]:
    """Submit one item per letter from a task, which joins the values."""

    async def request() -> str:
        return "".join(done.value for done in await batcher.submit(items, Terms(timeout_s)))

    task = asyncio.create_task(request())
    task.add_done_callback(lambda task: task.cancelled() or task.exception())  # a test need not await it
    return task


async def occupy(batcher: Batcher[str, str]) -> asyncio.Task[str]:
    """Give one worker the item `-`, so that what comes next has to wait."""
    task = submit(batcher, "-")
    await settle()
    return task


async def test_request_returns_results_in_item_order_with_timing() -> None:
    """A request gets one result per item, in order, each with its waiting time, run time and batch size."""
    backend, clock = Backend(), Clock()
    async with batching(backend, max_batch_size=2, clock=clock) as batcher:
        task = asyncio.create_task(batcher.submit("abc", Terms(FOREVER_S)))
        await asyncio.sleep(0)
        clock.now += 1
        await settle()
        clock.now += 4
        backend.calls[0].succeed()
        await settle()
        clock.now += 8
        backend.calls[1].succeed()

        first, last = BatchTiming(queue_s=1, run_s=4, batch_size=2), BatchTiming(queue_s=5, run_s=8, batch_size=1)
        assert await task == [Done("A", first), Done("B", first), Done("C", last)]


async def test_empty_request_returns_nothing() -> None:
    """A request without items is answered without a batch."""
    backend = Backend()
    async with batching(backend) as batcher:
        assert await batcher.submit([], Terms(1)) == []
    assert backend.calls == []


async def test_free_worker_takes_a_lone_item_at_once() -> None:
    """A single item does not wait for company."""
    backend = Backend()
    async with batching(backend) as batcher:
        task = submit(batcher, "a")
        await settle()
        assert backend.batches == ["a"]
        backend.calls[0].succeed()
        assert await task == "A"


async def test_items_waiting_for_a_busy_worker_share_a_batch() -> None:
    """What arrives during a batch forms the next ones, up to their size limit."""
    backend = Backend()
    async with batching(backend, max_batch_size=3) as batcher:
        tasks = [await occupy(batcher), *(submit(batcher, letter) for letter in "abcd")]
        await settle()
        assert (backend.batches, batcher.queued, batcher.in_flight) == (["-"], 4, 1)
        for index in range(3):
            backend.calls[index].succeed()
            await settle()
        assert backend.batches == ["-", "abc", "d"]
        assert await asyncio.gather(*tasks) == ["-", "A", "B", "C", "D"]


async def test_items_submitted_before_start_run_after_it() -> None:
    """Admission works before the workers are there."""
    backend = Backend()
    batcher = Batcher(backend, max_batch_size=8, max_queue=8)
    task = submit(batcher, "ab")
    await settle()
    assert (backend.calls, batcher.queued) == ([], 2)
    batcher.start()
    await settle()
    backend.calls[0].succeed()
    assert await task == "AB"
    await batcher.close()


async def test_rotation_takes_requests_in_turn() -> None:
    """A large request gives one item per turn, so that a later single item rides in the next batch."""
    backend = Backend()
    async with batching(backend, max_batch_size=3) as batcher:
        tasks = [await occupy(batcher), submit(batcher, "abcdef"), submit(batcher, "xy"), submit(batcher, "q")]
        await settle()
        for index in range(4):
            backend.calls[index].succeed()
            await settle()
        assert backend.batches == ["-", "axq", "byc", "def"]
        assert await asyncio.gather(*tasks) == ["-", "ABCDEF", "XY", "Q"]


async def test_finished_request_is_forgotten() -> None:
    """Nothing, not even the timer of its deadline, keeps a request's items once it is served."""

    class Payload:
        pass

    async def run(items: Sequence[Payload]) -> Sequence[int]:
        return [id(item) for item in items]

    batcher = Batcher(run, max_batch_size=2, max_queue=2)
    batcher.start()
    payload = Payload()
    trace = weakref.ref(payload)
    await batcher.submit([payload], Terms(FOREVER_S))
    await settle()
    del payload
    gc.collect()
    assert trace() is None
    await batcher.close()


async def test_two_workers_run_batches_side_by_side() -> None:
    """Each worker has a batch of its own, and they may finish in any order."""
    backend = Backend()
    async with batching(backend, max_batch_size=2, workers=2) as batcher:
        tasks = [submit(batcher, "abcde"), submit(batcher, "x")]
        await settle()
        assert (backend.batches, batcher.queued, batcher.in_flight) == (["ax", "bc"], 2, 4)
        for index in (1, 0, 2):
            backend.calls[index].succeed()
            await settle()
        assert backend.batches == ["ax", "bc", "de"]
        assert await asyncio.gather(*tasks) == ["ABCDE", "X"]


async def test_cancelled_waiting_request_returns_its_slots_at_once() -> None:
    """A caller that leaves makes room in the queue, and its items never run."""
    backend, diary = Backend(), Diary()
    async with batching(backend, max_queue=4, observer=diary) as batcher:
        await occupy(batcher)
        leaver, stayer = submit(batcher, "abc"), submit(batcher, "x")
        await settle()
        leaver.cancel()
        await settle()
        assert (batcher.queued, batcher.in_flight) == (1, 1)
        newcomer = submit(batcher, "def")
        await settle()
        for index in range(2):
            backend.calls[index].succeed()
            await settle()
        assert backend.batches == ["-", "xdef"]
        assert (await stayer, await newcomer) == ("X", "DEF")
    assert ("cancelled", "queued") in diary.entries


async def test_request_cancelled_just_before_dispatch_does_not_run() -> None:
    """A worker that comes free between the cancellation and its delivery passes over the dead items."""
    backend = Backend()
    async with batching(backend) as batcher:
        await occupy(batcher)
        leaver, stayer = submit(batcher, "abc"), submit(batcher, "x")
        await settle()
        backend.calls[0].succeed()
        leaver.cancel()
        await settle()
        assert (backend.batches, batcher.queued) == (["-", "x"], 0)
        backend.calls[1].succeed()
        assert await stayer == "X"


async def test_cancelled_item_leaves_batch_mates_unharmed() -> None:
    """A caller that leaves during its batch loses its result, frees its waiting items, and harms nobody."""
    backend, diary = Backend(), Diary()
    async with batching(backend, max_batch_size=2, observer=diary) as batcher:
        leaver, mate = submit(batcher, "abc"), submit(batcher, "x")
        await settle()
        assert (backend.batches, batcher.queued) == (["ax"], 2)
        leaver.cancel()
        await settle()
        assert (batcher.queued, batcher.in_flight) == (0, 2)
        backend.calls[0].succeed()
        assert await mate == "X"
        await settle()
        assert (leaver.cancelled(), backend.batches, batcher.in_flight) == (True, ["ax"], 0)
    assert ("cancelled", "running") in diary.entries


async def test_raising_run_fails_its_batch_and_no_other() -> None:
    """Everyone in the batch learns the cause, and the worker takes the next batch."""
    backend = Backend()
    async with batching(backend, max_batch_size=2) as batcher:
        doomed, mate, other = submit(batcher, "a"), submit(batcher, "b"), submit(batcher, "c")
        await settle()
        boom = RuntimeError("boom")
        backend.calls[0].answer.set_exception(boom)
        for task in (doomed, mate):
            with pytest.raises(BackendFailure, match="RuntimeError") as failure:
                await task
            assert failure.value.__cause__ is boom
        backend.calls[1].succeed()
        assert await other == "C"


@pytest.mark.parametrize("results", [["A"], ["A", "B", "C"], [], None])
async def test_results_of_wrong_length_fail_the_batch(results: list[str]) -> None:
    """Results that cannot be matched to their items reach nobody."""
    backend = Backend()
    async with batching(backend) as batcher:
        tasks = [submit(batcher, "a"), submit(batcher, "b")]
        await settle()
        backend.calls[0].answer.set_result(results)
        for task in tasks:
            with pytest.raises(BackendFailure):
                await task


async def test_failed_item_frees_the_rest_of_its_request() -> None:
    """A request that cannot succeed any more gives its slots back and does not run on."""
    backend = Backend()
    async with batching(backend, max_batch_size=2) as batcher:
        doomed, mate = submit(batcher, "abcdef"), submit(batcher, "xyz")
        await settle()
        assert (backend.batches, batcher.queued) == (["ax"], 7)
        backend.calls[0].answer.set_exception(RuntimeError())
        await settle()
        assert (backend.batches, batcher.queued, batcher.in_flight) == (["ax"], 0, 0)
        for task in (doomed, mate):
            with pytest.raises(BackendFailure):
                await task


async def test_item_of_a_failed_request_in_another_batch_is_discarded() -> None:
    """A request that failed in one batch ignores what its other batch brings; the mate there does not."""
    backend = Backend()
    async with batching(backend, max_batch_size=2, workers=2) as batcher:
        doomed, mate = submit(batcher, "abc"), submit(batcher, "x")
        await settle()
        assert backend.batches == ["ax", "bc"]
        backend.calls[1].answer.set_exception(RuntimeError())
        with pytest.raises(BackendFailure):
            await doomed
        backend.calls[0].succeed()
        assert await mate == "X"


async def test_deadline_of_waiting_request_drops_its_items() -> None:
    """A request whose time runs out in the queue fails then, frees its slots, and is never run."""
    backend = Backend()
    async with batching(backend) as batcher:
        first = await occupy(batcher)
        late = submit(batcher, "abc", timeout_s=0.001)
        with pytest.raises(DeadlineExceeded):
            await late
        assert batcher.queued == 0
        backend.calls[0].succeed()
        assert await first == "-"
        await settle()
        assert backend.batches == ["-"]


async def test_deadline_frees_slots_before_its_caller_is_told() -> None:
    """The slots of a late request are there for whoever comes next in the same iteration of the loop."""
    queued: list[int] = []
    async with batching(Backend()) as batcher:
        await occupy(batcher)
        submit(batcher, "abc", timeout_s=0.001)
        await settle()
        asyncio.get_running_loop().call_later(0.001, lambda: queued.append(batcher.queued))
        time.sleep(0.01)  # noqa: ASYNC251  both timers are due when the loop looks next
        await settle()
    assert queued == [0]


async def test_worker_drops_items_past_their_deadline_before_the_run() -> None:
    """A worker reads the clock itself: a late timer does not send a dead item to the device."""
    backend, clock = Backend(), Clock()
    async with batching(backend, clock=clock) as batcher:
        await occupy(batcher)
        late, patient = submit(batcher, "ab", timeout_s=10), submit(batcher, "x")
        await settle()
        clock.now += 10
        backend.calls[0].succeed()
        await settle()
        assert (backend.batches, batcher.queued) == (["-", "x"], 0)
        with pytest.raises(DeadlineExceeded):
            await late
        backend.calls[1].succeed()
        assert await patient == "X"


async def test_deadline_in_flight_fails_only_its_caller() -> None:
    """A caller is told at its deadline although its item is being run, and the batch goes on for the others."""
    backend = Backend()
    async with batching(backend) as batcher:
        late, mate = submit(batcher, "a", timeout_s=0.001), submit(batcher, "x")
        await settle()
        with pytest.raises(DeadlineExceeded):
            await late
        assert (backend.batches, batcher.in_flight, mate.done()) == (["ax"], 2, False)
        backend.calls[0].succeed()
        assert await mate == "X"


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
async def test_request_without_time_fails_unqueued(timeout_s: float) -> None:
    """A request that comes too late is not admitted."""
    backend = Backend()
    async with batching(backend) as batcher:
        with pytest.raises(DeadlineExceeded):
            await batcher.submit("a", Terms(timeout_s))
        await settle()
    assert backend.calls == []


async def test_thousand_concurrent_requests_never_exceed_the_queue() -> None:
    """Exactly as many items are admitted as there are slots, all others are refused at once, and all slots return."""
    backend, diary = Backend(), Diary()
    async with batching(backend, max_batch_size=4, max_queue=100, observer=diary) as batcher:
        await occupy(batcher)
        tasks, most = [], 0
        for number in range(1000):
            tasks.append(submit(batcher, "ab" if number % 3 else "a"))
            await asyncio.sleep(0)
            most = max(most, batcher.queued)
        await settle()
        assert (most, batcher.queued) == (100, 100)
        refused = [task for task in tasks if task.done()]
        assert all(isinstance(task.exception(), QueueFull) for task in refused)
        while batcher.in_flight:
            backend.calls[-1].succeed()
            await settle()
        answers = [task.result() for task in tasks if task not in refused]
        assert set(answers) == {"A", "AB"}
        assert len("".join(answers)) == 100
    assert batcher.limit == 100
    assert diary.entries.count(("rejected", "full")) == len(refused)


async def test_items_in_flight_take_no_slots() -> None:
    """Only waiting items count against the queue's limit."""
    backend = Backend()
    async with batching(backend, max_batch_size=2, max_queue=2) as batcher:
        submit(batcher, "ab")
        await settle()
        assert (batcher.queued, batcher.in_flight) == (0, 2)
        submit(batcher, "cd")
        await settle()
        assert (batcher.queued, batcher.in_flight) == (2, 2)
        with pytest.raises(QueueFull):
            await batcher.submit("e", Terms(FOREVER_S))


async def test_request_larger_than_the_queue_is_refused_as_such() -> None:
    """A request that could never fit is told so, even by an empty queue."""
    diary = Diary()
    async with batching(Backend(), max_queue=2, observer=diary) as batcher:
        with pytest.raises(RequestTooLarge, match="3 items never fit a queue of 2"):
            await batcher.submit("abc", Terms(FOREVER_S))
    assert diary.entries == [("rejected", "too_large")]


async def measured(
    batcher: Batcher[str, str],
    backend: Backend,
    clock: Clock,
    *,
    batches: int,
    seconds: float,
    items: str = "abcdefgh",
) -> None:
    """Let some full batches take so many seconds each."""
    for _ in range(batches):
        task = submit(batcher, items)
        await settle()
        clock.now += seconds
        backend.calls[-1].succeed()
        await task


async def test_retry_after_follows_the_drain_rate() -> None:
    """A refused caller is told how long the queue takes at the measured rate, or a second when there is none."""
    backend, clock = Backend(), Clock()
    async with batching(backend, max_queue=8, clock=clock) as batcher:
        assert batcher.drain_rate == 0
        await occupy(batcher)
        waiting = submit(batcher, "abcd")
        await settle()
        with pytest.raises(QueueFull) as unmeasured:
            await batcher.submit("vwxyz", Terms(FOREVER_S))
        assert unmeasured.value.retry_after_s == 1
        backend.calls[0].succeed()
        await settle()
        backend.calls[1].succeed()
        await waiting

        await measured(batcher, backend, clock, batches=1, seconds=16)
        assert batcher.drain_rate == 0.5
        await occupy(batcher)
        submit(batcher, "abcd")
        await settle()
        with pytest.raises(QueueFull) as known:
            await batcher.submit("vwxyz", Terms(FOREVER_S))
        assert known.value.retry_after_s == 8


async def test_requests_take_turns_of_half_a_batch() -> None:
    """So that requests of one size end one after the other, and none waits for the whole of another."""
    backend = Backend()
    async with batching(backend, max_batch_size=4) as batcher:
        first = await occupy(batcher)
        tasks = [submit(batcher, items) for items in ("abcdef", "ghijkl", "m")]
        await settle()
        for number in range(5):
            backend.calls[number].succeed()
            await settle()
        assert backend.batches == ["-", "abgh", "mcdi", "efjk", "l"]
        assert [await task for task in (first, *tasks)] == ["-", "ABCDEF", "GHIJKL", "M"]


async def test_spares_hand_over_batches_only_while_the_queue_is_crowded() -> None:
    """Until it is half empty: what waits in the queue can still be overtaken, what was handed over cannot."""
    backend, clock = Backend(), Clock()
    async with batching(backend, max_batch_size=2, max_queue=8, spares=3, clock=clock) as batcher:
        await measured(batcher, backend, clock, batches=1, seconds=0.01, items="ab")
        tasks = [submit(batcher, letter) for letter in "abcdef"]
        await settle()
        assert (backend.batches[1:], batcher.queued) == (["ab"], 4)
        tasks += [submit(batcher, letter) for letter in "ghij"]
        await settle()
        assert (backend.batches[1:], batcher.queued) == (["ab", "cd", "ef", "gh"], 2)
        with pytest.raises(QueueFull):  # what is held counts
            await batcher.submit("k", Terms(FOREVER_S))
        for number in range(1, 6):
            backend.calls[number].succeed()
            await settle()
        assert backend.batches[1:] == ["ab", "cd", "ef", "gh", "ij"]
        assert [await task for task in tasks] == list("ABCDEFGHIJ")


@pytest.mark.parametrize(("seconds", "handed_over"), [(None, 1), (4.0, 1), (0.08, 2), (0.06, 3), (0.01, 4)])
async def test_spares_hand_over_a_moment_of_work(
    seconds: float | None, handed_over: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a slow engine, or of one that nothing is known of, nothing: a batch that waits is not one that hangs."""
    monkeypatch.setattr("service.batcher.batcher.HELD_S", 0.15)
    backend, clock = Backend(), Clock()
    async with batching(backend, max_batch_size=2, max_queue=8, spares=3, clock=clock) as batcher:
        if seconds is not None:
            await measured(batcher, backend, clock, batches=1, seconds=seconds, items="ab")
        before = len(backend.calls)
        tasks = [submit(batcher, letter) for letter in "abcdefgh"]
        await settle()
        tasks += [submit(batcher, letter) for letter in "ijkl"]
        await settle()
        assert len(backend.calls) - before == handed_over
        for task in tasks:
            task.cancel()


async def test_what_waits_behind_others_does_not_slow_the_drain_rate() -> None:
    """Each batch of two takes a second; that those of spares wait for the ones before says nothing of the rate."""
    backend, clock = Backend(), Clock()
    async with batching(backend, max_batch_size=2, max_queue=8, spares=3, clock=clock) as batcher:
        await measured(batcher, backend, clock, batches=1, seconds=0.02, items="ab")
        tasks = [submit(batcher, letter) for letter in "abcdefgh"]
        await settle()
        tasks += [submit(batcher, letter) for letter in "ijkl"]
        await settle()
        first, last = 1, len(backend.calls)
        assert last - first > 2
        for number in range(first, last):
            clock.now += 0.02
            backend.calls[number].succeed()
            await settle()
            assert batcher.drain_rate == pytest.approx(100)
        while not all(task.done() for task in tasks):
            backend.calls[last].succeed()
            await settle()
            last += 1


async def test_drain_rate_counts_all_workers_and_full_batches() -> None:
    """A slow batch that is not full does not lower the rate, a faster one raises it, a failed one does not count."""
    backend, clock = Backend(), Clock()
    async with batching(backend, workers=2, clock=clock) as batcher:
        await measured(batcher, backend, clock, batches=1, seconds=8)
        assert batcher.drain_rate == 2
        for seconds, slower in ((5, True), (0.5, False)):
            task = submit(batcher, "a")
            await settle()
            clock.now += seconds
            backend.calls[-1].succeed()
            await task
            assert (batcher.drain_rate == 2) is slower
        assert batcher.drain_rate == pytest.approx(2 / 0.9)
        task = submit(batcher, "abcdefgh")
        await settle()
        backend.calls[-1].answer.set_exception(RuntimeError())
        with pytest.raises(BackendFailure):
            await task
        assert batcher.drain_rate == pytest.approx(2 / 0.9)


async def test_hopeless_deadline_is_refused_once_the_rate_is_trusted() -> None:
    """A request that must miss its deadline behind the others is refused at once; rotation is taken into account."""
    backend, clock, diary = Backend(), Clock(), Diary()
    async with batching(backend, clock=clock, observer=diary) as batcher:
        await measured(batcher, backend, clock, batches=8, seconds=8)
        await occupy(batcher)
        hopeful = submit(batcher, "abcdefgh", timeout_s=3)
        await settle()
        assert batcher.queued == 8, "nobody is waiting: tried, whatever the estimate says"
        single = submit(batcher, "x", timeout_s=2)
        await settle()
        assert batcher.queued == 9, "one turn of the large request, then this one"
        with pytest.raises(QueueFull) as refusal:
            await batcher.submit("pq", Terms(4))
        assert refusal.value.retry_after_s == 9
        assert diary.entries[-1] == ("rejected", "deadline")
        enough = submit(batcher, "pq", timeout_s=5)
        await settle()
        assert batcher.queued == 11
        for task in (hopeful, single, enough):
            task.cancel()


async def test_hopeless_deadline_is_admitted_while_the_rate_is_young() -> None:
    """A few batches are no ground to refuse anybody."""
    backend, clock = Backend(), Clock()
    async with batching(backend, clock=clock) as batcher:
        await measured(batcher, backend, clock, batches=7, seconds=8)
        await occupy(batcher)
        tasks = [submit(batcher, "abcdefgh"), submit(batcher, "x", timeout_s=1)]
        await settle()
        assert batcher.queued == 9
        assert not any(task.done() for task in tasks)


async def test_drain_finishes_what_was_admitted() -> None:
    """Draining refuses new requests, completes the old ones, and ends the workers."""
    backend, diary = Backend(), Diary()
    async with batching(backend, max_batch_size=2, observer=diary) as batcher:
        task = submit(batcher, "abc")
        await settle()
        drained = asyncio.create_task(batcher.drain(FOREVER_S))
        await settle()
        with pytest.raises(Draining):
            await batcher.submit("x", Terms(FOREVER_S))
        for index in range(2):
            assert not drained.done()
            backend.calls[index].succeed()
            await settle()
        assert (await task, await drained) == ("ABC", True)
        assert asyncio.all_tasks() == {asyncio.current_task()}
    assert ("rejected", "draining") in diary.entries


async def test_drain_waits_for_batches_whose_callers_left() -> None:
    """The device is free when a drain says so."""
    backend = Backend()
    async with batching(backend) as batcher:
        submit(batcher, "a").cancel()
        leaver = submit(batcher, "b")
        await settle()
        leaver.cancel()
        drained = asyncio.create_task(batcher.drain(FOREVER_S))
        await settle()
        assert (drained.done(), batcher.in_flight) == (False, 1)
        backend.calls[0].succeed()
        assert await drained is True


async def test_drain_is_not_fooled_by_items_dropped_at_dispatch() -> None:
    """A batch that is being put together counts while the last of the queue turns out to be dead."""
    backend = Backend()
    async with batching(backend) as batcher:
        await occupy(batcher)
        stayer, leaver = submit(batcher, "a"), submit(batcher, "b")
        drained = asyncio.create_task(batcher.drain(FOREVER_S))
        await settle()
        backend.calls[0].succeed()
        leaver.cancel()
        await settle()
        assert (backend.batches, drained.done()) == (["-", "a"], False)
        backend.calls[1].succeed()
        assert (await stayer, await drained) == ("A", True)


async def test_drain_of_idle_batcher_succeeds_without_time() -> None:
    """With nothing to finish, no time is needed."""
    async with batching(Backend()) as batcher:
        assert await batcher.drain(0) is True


async def test_drain_out_of_time_fails_the_rest() -> None:
    """At the time limit, what waits and what runs fails with `Draining`."""
    backend = Backend()
    async with batching(backend, max_batch_size=2) as batcher:
        tasks = [submit(batcher, "abc"), submit(batcher, "x")]
        await settle()
        assert (batcher.queued, batcher.in_flight) == (2, 2)
        assert await batcher.drain(0.001) is False
        assert (batcher.queued, batcher.in_flight) == (0, 0)
        for task in tasks:
            with pytest.raises(Draining):
                await task
        assert backend.calls[0].answer.cancelled()


async def test_close_fails_everything_open() -> None:
    """Closing does not wait: every caller gets `Draining`, later ones too, and a second close does nothing."""
    backend = Backend()
    async with batching(backend, max_batch_size=2, workers=2) as batcher:
        tasks = [submit(batcher, "abcdef"), submit(batcher, "x")]
        await settle()
        await batcher.close()
        for task in (*tasks, submit(batcher, "y")):
            with pytest.raises(Draining):
                await task
        assert asyncio.all_tasks() == {asyncio.current_task()}
        with pytest.raises(RuntimeError):
            batcher.start()


async def test_close_outlives_a_run_that_swallows_its_cancellation() -> None:
    """A run function that answers a cancellation with results ends its worker all the same."""

    async def stubborn(items: Sequence[str]) -> Sequence[str]:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return items

    async with batching(stubborn) as batcher:
        task = submit(batcher, "a")
        await settle()
        await batcher.close()
        with pytest.raises(Draining):
            await task


@pytest.mark.parametrize("kind", [asyncio.CancelledError, Crash])
async def test_crashed_worker_is_restarted(kind: type[BaseException]) -> None:
    """A run function that raises what no handler expects fails its batch, is reported, and costs no worker."""
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))

    async def run(items: Sequence[str]) -> Sequence[str]:
        if "!" in items:
            raise kind
        return items

    async with batching(run, max_batch_size=2) as batcher:
        doomed = submit(batcher, "a!bc")
        with pytest.raises(BackendFailure) as failure:
            await doomed
        assert isinstance(failure.value.__cause__, kind)
        assert (batcher.queued, batcher.in_flight) == (0, 0)
        assert await submit(batcher, "xyz") == "xyz"
    assert [type(report["exception"]) for report in reports] == [kind]


async def test_raising_observer_leaks_no_slots() -> None:
    """An observer that breaks its word fails a batch, and neither a worker nor a slot is lost."""
    asyncio.get_running_loop().set_exception_handler(lambda _, context: None)

    class Faulty(Diary):
        broken = True

        def batch_started(self, size: int) -> None:
            if self.broken:
                raise OSError

        def batch_finished(self, size: int, seconds: float) -> None:
            if self.broken:
                raise OSError

    async def run(items: Sequence[str]) -> Sequence[str]:
        return items

    faulty = Faulty()
    async with batching(run, observer=faulty) as batcher:
        with pytest.raises(BackendFailure):
            await submit(batcher, "a")
        faulty.broken = False
        assert await submit(batcher, "b") == "b"
        assert batcher.in_flight == 0


def test_loop_that_ends_without_close_leaves_nothing_behind() -> None:
    """A worker that is cancelled with its loop does not come back, and fails what it leaves."""
    batchers: list[Batcher[str, str]] = []

    async def main() -> None:
        batcher = Batcher(Backend(), max_batch_size=1, max_queue=4, workers=2)
        batchers.append(batcher)
        batcher.start()
        submit(batcher, "abc")
        await settle()
        assert (batcher.queued, batcher.in_flight) == (1, 2)

    asyncio.run(main())
    assert (batchers[0].queued, batchers[0].in_flight) == (0, 0)


def test_loop_that_is_closed_under_a_batcher_ends_its_workers() -> None:
    """A worker that is destroyed with a loop that nobody shut down does not try to go on."""

    async def start() -> None:
        Batcher(Backend(), max_batch_size=1, max_queue=1).start()
        await settle()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(start())
    loop.close()
    gc.collect()
    assert not asyncio.all_tasks(loop)


async def test_worker_cancelled_from_outside_closes_the_batcher() -> None:
    """Whoever cancels the batcher's tasks ends it for good: nobody waits for a worker that is gone."""
    backend = Backend()
    async with batching(backend, max_batch_size=1) as batcher:
        (worker,) = asyncio.all_tasks() - {asyncio.current_task()}
        tasks = [submit(batcher, "a"), submit(batcher, "b")]
        await settle()
        worker.cancel()
        with pytest.raises(BackendFailure):
            await tasks[0]
        with pytest.raises(Draining):
            await tasks[1]
        with pytest.raises(Draining):
            await batcher.submit("c", Terms(FOREVER_S))


def test_system_exit_in_run_ends_the_loop() -> None:
    """An order to exit is passed on, not taken for a failed batch."""

    async def run(items: Sequence[str]) -> Sequence[str]:
        raise SystemExit(70)

    async def main() -> None:
        batcher = Batcher(run, max_batch_size=1, max_queue=1)
        batcher.start()
        try:
            await batcher.submit("a", Terms(FOREVER_S))
        finally:
            await batcher.close()

    with pytest.raises(SystemExit, match="70"):
        asyncio.run(main())


async def test_observer_is_told_the_whole_story() -> None:
    """Waiting time per item, start and end of each batch; the depth can be read at any time."""
    backend, clock, diary = Backend(), Clock(), Diary()
    async with batching(backend, max_batch_size=2, clock=clock, observer=diary) as batcher:
        task = submit(batcher, "abc")
        await asyncio.sleep(0)
        assert (batcher.queued, batcher.in_flight) == (3, 0)
        clock.now += 1
        await settle()
        assert (batcher.queued, batcher.in_flight) == (1, 2)
        for index in range(2):
            clock.now += 2
            backend.calls[index].succeed()
            await settle()
        await task
    first = [("started", 2), ("waited", 1), ("waited", 1), ("finished", 2, 2)]
    assert diary.entries == [*first, ("started", 1), ("waited", 3), ("finished", 1, 2)]
    assert (batcher.queued, batcher.in_flight) == (0, 0)


async def test_oldest_in_flight_is_the_age_of_the_longest_running_batch() -> None:
    """A watchdog sees the batch that has been out longest, whichever worker has it."""
    backend, clock = Backend(), Clock()
    async with batching(backend, max_batch_size=1, workers=2, clock=clock) as batcher:
        assert batcher.oldest_in_flight_s == 0
        for letter in "abc":
            submit(batcher, letter)
            await settle()
            clock.now += 5
        assert batcher.oldest_in_flight_s == 15
        backend.calls[0].succeed()
        await settle()
        assert batcher.oldest_in_flight_s == 10


@pytest.mark.parametrize("limit", ["max_batch_size", "max_queue", "workers"])
def test_limit_below_one_is_refused(limit: str) -> None:
    """A batcher that could never run anything is not built."""
    limits: dict[str, Any] = {"max_batch_size": 1, "max_queue": 1, "workers": 1, limit: 0}
    with pytest.raises(ValueError, match=f"{limit}=0"):
        Batcher(Backend(), **limits)


async def test_second_start_is_refused() -> None:
    """A batcher has its workers once."""
    async with batching(Backend()) as batcher:
        with pytest.raises(RuntimeError, match="once"):
            batcher.start()


async def test_more_urgent_requests_go_first() -> None:
    """Urgency decides before the order of arrival; within one urgency requests take turns."""
    backend = Backend()
    async with batching(backend, max_batch_size=2) as batcher:
        blocker = submit(batcher, "_")
        await settle()
        terms = [("abc", 3), ("de", 5), ("xyz", 3), ("!", 0)]
        tasks = [asyncio.create_task(batcher.submit(items, Terms(FOREVER_S, urgency))) for items, urgency in terms]
        await settle()
        while not all(task.done() for task in (blocker, *tasks)):
            backend.calls[-1].succeed()
            await settle()
    assert backend.batches == ["_", "!a", "xb", "yc", "zd", "e"]


async def test_urgent_request_is_not_refused_for_what_comes_after_it() -> None:
    """The estimate that refuses counts only items that have their turn before."""
    backend, clock = Backend(), Clock()
    async with batching(backend, max_batch_size=4, clock=clock) as batcher:
        for _ in range(8):  # full batches of four take a second each
            task = submit(batcher, "abcd")
            await settle()
            clock.now += 1
            backend.calls[-1].succeed()
            await task
        running = submit(batcher, "____")
        await settle()
        waiting = submit(batcher, "x" * 40)
        await settle()
        with pytest.raises(QueueFull):
            await batcher.submit("pqrstuvw", Terms(3.0))
        urgent = asyncio.create_task(batcher.submit("pqrstuvw", Terms(3.0, 1)))
        await settle()
        backend.calls[-1].succeed()
        await settle()
        assert backend.batches[-1] == "pqrs"
        for task in (running, waiting, urgent):
            task.cancel()
        backend.calls[-1].succeed()


class SmallDevice:
    """A run function whose device holds so many items; it notes the batches that were tried."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.tried: list[int] = []

    async def __call__(self, items: Sequence[str]) -> list[str]:
        self.tried.append(len(items))
        if len(items) > self.room:
            raise MemoryError("device full")
        return [item.upper() for item in items]


async def test_batch_that_does_not_fit_is_run_in_halves() -> None:
    """Every item has its result, later batches are as small as what fitted, and the observer knows."""
    device, diary = SmallDevice(3), Diary()
    async with batching(device, max_batch_size=8, observer=diary) as batcher:
        assert await submit(batcher, "abcdefgh") == "ABCDEFGH"
        assert device.tried == [8, 4, 2, 2, 4, 2, 2]
        assert batcher.ceiling == 2
        assert await submit(batcher, "stuv") == "STUV"
        assert device.tried[7:] == [2, 2]
    assert diary.entries.count(("out of memory",)) == 3


async def test_batch_is_not_tried_again_at_a_size_that_takes_as_much() -> None:
    """Where small batches are padded to one size, halves would not fit either: the requests are told at once."""
    device = SmallDevice(0)
    async with batching(device, max_batch_size=8, sizes=lambda: [8]) as batcher:
        with pytest.raises(OutOfMemory):
            await submit(batcher, "abcd")
        assert (device.tried, batcher.ceiling) == ([4], 8)


async def test_one_item_that_does_not_fit_fails_alone() -> None:
    """Its request says so, and its batch mates are served."""
    room = {"a": 1, "B": 9, "c": 1}

    async def run(items: Sequence[str]) -> list[str]:
        if sum(room[item] for item in items) > 2:
            raise MemoryError("device full")
        return [item.upper() for item in items]

    async with batching(run) as batcher:
        first = submit(batcher, "a")
        too_big, last = submit(batcher, "B"), submit(batcher, "c")
        assert await first == "A"
        with pytest.raises(OutOfMemory, match="the smallest batch does not fit into memory: device full"):
            await too_big
        assert await last == "C"


async def test_ceiling_creeps_up_again() -> None:
    """After many full batches that fitted a larger size is tried; smaller batches prove nothing."""
    device = SmallDevice(2)
    async with batching(device, max_batch_size=4) as batcher:
        await submit(batcher, "abcd")
        assert batcher.ceiling == 2
        device.room = 4
        for _ in range(RECOVER_AFTER):
            await submit(batcher, "x")
        assert batcher.ceiling == 2
        for _ in range(RECOVER_AFTER):  # two have been counted: the halves of the first batch
            await submit(batcher, "xy")
        assert batcher.ceiling == 3


async def test_request_that_ends_while_its_batch_is_halved_is_not_run_again() -> None:
    """What nobody waits for any more is left out of the second half."""
    started = asyncio.Event()
    go_on = asyncio.Event()
    batches: list[str] = []

    async def run(items: Sequence[str]) -> list[str]:
        batches.append("".join(items))
        if len(items) > 1:
            raise MemoryError
        started.set()
        await go_on.wait()
        return [item.upper() for item in items]

    async with batching(run, max_batch_size=2) as batcher:
        stays, leaves = submit(batcher, "a"), submit(batcher, "b")
        await started.wait()
        leaves.cancel()
        await settle()
        go_on.set()
        assert await stays == "A"
    assert batches == ["ab", "a"]


async def test_small_requests_do_not_wait_for_full_batches() -> None:
    """While they come beside large ones, every other batch is theirs alone, and the others are an eighth as large."""
    backend, clock = Backend(), Clock()
    large = "abcdefghijklmnopqrstuvwx"
    async with batching(backend, max_batch_size=16, max_queue=64, clock=clock) as batcher:
        tasks = [await occupy(batcher), submit(batcher, large), submit(batcher, "Y"), submit(batcher, "Z")]
        for _ in range(4):
            await settle()
            backend.calls[-1].succeed()
        await settle()
        assert backend.batches[1:5] == ["YZ", "ab", "cd", "ef"]
        clock.now += 1
        for _ in range(3):
            backend.calls[-1].succeed()
            await settle()
        assert backend.batches[5:] == ["ghijklmnopqrstuv", "wx"], "nobody has come for a while"
        await asyncio.gather(*tasks)


async def test_large_requests_alone_fill_their_batches() -> None:
    """Nothing is divided where there is nobody to be spared."""
    backend = Backend()
    async with batching(backend, max_batch_size=16, max_queue=64) as batcher:
        tasks = [submit(batcher, "abcdefghijklmnop"), submit(batcher, "qrstu")]
        for _ in range(2):
            await settle()
            backend.calls[-1].succeed()
        await asyncio.gather(*tasks)
        assert sorted(map(len, backend.batches)) == [5, 16]


async def test_small_request_that_is_too_late_holds_up_no_large_one() -> None:
    """A batch of small requests only is not left empty because none of them is alive."""
    backend, clock = Backend(), Clock()
    async with batching(backend, max_batch_size=16, max_queue=64, clock=clock) as batcher:
        first = await occupy(batcher)
        large, late = submit(batcher, "abcdefgh"), submit(batcher, "Z", timeout_s=0.3)
        await settle()
        clock.now += 0.4
        backend.calls[0].succeed()
        await settle()
        assert backend.batches[1:] == ["ab"]
        for task in (first, large, late):
            task.cancel()
