"""The batcher as a state machine: Hypothesis submits, cancels, answers, fails, waits, drains and closes in any order.

The event loop is the machine's own. It runs one iteration at a time, and its clock moves only when a rule says so; a
rule may thus come between any two steps of the batcher, and every example can be replayed.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.batcher import BackendFailure, Batcher, DeadlineExceeded, Draining, QueueFull, Terms

Item = tuple[int, int]  # number of the request, index within it
Value = tuple[str, int, int]

ENOUGH = 25  # iterations of the loop until nothing moves any more, whatever has happened
LATE = 6  # batches before the batcher may be ended
SIZES = st.integers(1, 6)
TIMEOUTS = st.sampled_from([500.0, 500.0, 5.0, 1.0])
INDICES = st.integers(0, 59)
PACES = st.sampled_from([ENOUGH, 0, 1, 2, 3])


class Crash(BaseException):
    """What a run function should never raise."""


class ManualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still until it is moved."""

    now = 1000.0

    def time(self) -> float:
        return self.now

    def step(self) -> None:
        """Run one iteration: what is ready now, and nothing that follows from it."""
        self.call_soon(self.stop)
        self.run_forever()


@dataclass
class Request:
    """What the model knows of one request."""

    number: int
    size: int
    timeout_s: float
    task: asyncio.Task[None] = field(init=False)
    deadline: float = float("inf")
    taken: int = 0
    served: int = 0
    failed: bool = False
    cancelled: bool = False
    outcome: str | None = None

    @property
    def is_open(self) -> bool:
        return self.outcome is None and not self.cancelled


@dataclass
class Call:
    """One call of the backend; the rules answer it."""

    items: list[Item]
    answer: asyncio.Future[list[Value]]


class Diary:
    """An observer that counts the batches that have started and not ended, and keeps the last refusal."""

    def __init__(self) -> None:
        self.running: Counter[int] = Counter()
        self.reason = ""

    def batch_started(self, size: int) -> None:
        self.running[size] += 1

    def batch_finished(self, size: int, seconds: float) -> None:
        self.running[size] -= 1

    def waited(self, seconds: float) -> None: ...

    def rejected(self, reason: str) -> None:
        self.reason = reason

    def cancelled(self, stage: str) -> None: ...


class BatcherMachine(RuleBasedStateMachine):
    """Drive a batcher and a model of its requests side by side.

    What is wrong inside of a task is put down in `wrong` and raised by an invariant: the batcher would take an
    assertion that fails in its run function for a failure of the backend.
    """

    @initialize(max_batch_size=st.integers(1, 4), max_queue=st.integers(1, 16), workers=st.integers(1, 3))
    def build(self, max_batch_size: int, max_queue: int, workers: int) -> None:
        self.loop = ManualLoop()
        self.loop.set_exception_handler(self.note_report)
        self.max_batch_size, self.max_queue, self.num_workers = max_batch_size, max_queue, workers
        self.requests: list[Request] = []
        self.calls: list[Call] = []
        self.seen: set[Item] = set()
        self.wrong: list[str] = []
        self.restarts = self.crashes = 0
        self.ending: list[asyncio.Task[Any]] = []
        self.diary = Diary()
        self.batcher = Batcher[Item, Value](
            self.run_batch,
            max_batch_size=max_batch_size,
            max_queue=max_queue,
            workers=workers,
            observer=self.diary,
            clock=self.loop.time,
        )
        self.loop.call_soon(self.batcher.start)
        self.proceed(ENOUGH)

    # The two sides of the batcher: its backend and its clients.

    async def run_batch(self, items: Sequence[Item]) -> list[Value]:
        """Check the batch that the worker chose, which it did in this very step, and wait for a rule to answer."""
        before = {request.number: request.size - request.taken for request in self.requests}
        turns: Counter[int] = Counter()
        for number, index in items:
            request = self.requests[number]
            self.expect(index == request.taken, f"item {index} of request {number} is out of turn")
            self.expect(not request.cancelled, f"request {number} is run after its cancellation")
            self.expect(request.outcome is None, f"request {number} is run after its end, {request.outcome}")
            self.expect(self.loop.now < request.deadline, f"request {number} is run after its deadline")
            self.expect((number, index) not in self.seen, f"item {index} of request {number} is run twice")
            self.seen.add((number, index))
            request.taken += 1
            turns[number] += 1
        self.expect(0 < len(items) <= self.max_batch_size, f"a batch of {len(items)}")
        for request in self.requests:
            waiting_still = self.may_be_taken(request) and request.taken < request.size
            if waiting_still and before[request.number]:
                self.expect(len(items) == self.max_batch_size, f"request {request.number} waits beside an empty place")
                fair = turns[request.number] >= max(turns.values()) - max(self.max_batch_size // 2, 1)
                self.expect(fair, f"request {request.number} is left behind: {turns}")
        call = Call(list(items), self.loop.create_future())
        self.calls.append(call)
        return await call.answer

    async def client(self, request: Request) -> None:
        """Submit a request and check that the way in which it ends is one that its history allows."""
        queued = self.batcher.queued
        request.deadline = self.loop.now + request.timeout_s
        items = [(request.number, index) for index in range(request.size)]
        try:
            done = await self.batcher.submit(items, Terms(request.timeout_s))
        except QueueFull as refusal:
            outcome = "refused"
            full = queued + request.size > self.max_queue
            self.expect(full or self.diary.reason == "deadline", f"refused at {queued} of {self.max_queue}")
            self.expect(refusal.retry_after_s >= 0, "Retry-After lies in the past")
        except DeadlineExceeded:
            outcome = "late"
            self.expect(self.loop.now >= request.deadline, "failed before its deadline")
        except Draining:
            outcome = "draining"
            self.expect(bool(self.ending), "Draining although nobody ended the batcher")
        except BackendFailure:
            outcome = "failed"
            self.expect(request.failed, "BackendFailure although no batch of it failed")
        except asyncio.CancelledError:
            outcome = "cancelled"
            self.expect(request.cancelled, "cancelled by nobody")
        else:
            outcome = "served"
            self.expect(not request.failed, "served although a batch of it failed")
            values = [("done", *item) for item in items]
            self.expect([each.value for each in done] == values, f"wrong results {done}")
            self.expect(all(1 <= each.timing.batch_size <= self.max_batch_size for each in done), "wrong batch size")
            self.expect(all(each.timing.queue_s >= 0 <= each.timing.run_s for each in done), "negative time")
        self.expect(request.outcome is None, "a second outcome")
        request.outcome = outcome

    # Rules. Each lets the loop run on for a while, or not at all, so that the next one comes at any moment.

    @precondition(lambda self: sum(request.outcome == "draining" for request in self.requests) < 5)
    @rule(batch=st.lists(st.tuples(SIZES, TIMEOUTS), min_size=1, max_size=3), pace=PACES)
    def submit(self, batch: list[tuple[int, float]], pace: int) -> None:
        for size, timeout_s in batch:
            request = Request(len(self.requests), size, timeout_s)
            self.requests.append(request)
            request.task = self.loop.create_task(self.client(request))
        self.proceed(pace)

    @rule(which=INDICES, pace=PACES)
    @precondition(lambda self: any(request.is_open for request in self.requests))
    def cancel(self, which: int, pace: int) -> None:
        """Cancel a request, also one that has not begun or whose outcome is on its way."""
        candidates = [request for request in self.requests if request.is_open]
        request = candidates[which % len(candidates)]
        request.cancelled = True
        if not self.started(request):
            request.outcome = "cancelled"  # its coroutine never runs
        request.task.cancel()
        self.proceed(pace)

    @rule(turns=st.lists(st.tuples(INDICES, PACES), min_size=1, max_size=8))
    @precondition(lambda self: self.unanswered())
    def backend_succeeds(self, turns: list[tuple[int, int]]) -> None:
        for which, pace in turns:
            if candidates := self.unanswered():
                self.succeed(candidates[which % len(candidates)])
                self.proceed(pace)

    @rule(which=INDICES, how=st.sampled_from(["raise", "crash", "cancel", "short", "long"]), pace=PACES)
    @precondition(lambda self: self.unanswered())
    def backend_fails(self, which: int, how: str, pace: int) -> None:
        candidates = self.unanswered()
        call = candidates[which % len(candidates)]
        values = [("done", *item) for item in call.items]
        if how == "raise":
            call.answer.set_exception(RuntimeError("the backend failed"))
        elif how == "crash":
            call.answer.set_exception(Crash())
        elif how == "cancel":
            call.answer.cancel()
        elif how == "short":
            call.answer.set_result(values[:-1])
        else:
            call.answer.set_result([*values, values[0]])
        self.crashes += how in {"crash", "cancel"}
        for number, _ in call.items:
            self.requests[number].failed = True
        self.proceed(pace)

    @rule(seconds=st.sampled_from([0.25, 1.0, 5.0]), pace=PACES)
    def time_passes(self, seconds: float, pace: int) -> None:
        self.loop.now += seconds
        self.proceed(pace)

    @rule(timeout_s=st.sampled_from([500.0, 2.0, 0.0]), pace=PACES)
    @precondition(lambda self: len(self.calls) >= LATE and len(self.ending) < 2)
    def drain(self, timeout_s: float, pace: int) -> None:
        self.ending.append(self.loop.create_task(self.batcher.drain(timeout_s)))
        self.proceed(pace)

    @rule(pace=PACES)
    @precondition(lambda self: len(self.calls) >= LATE and len(self.ending) < 2)
    def close(self, pace: int) -> None:
        self.ending.append(self.loop.create_task(self.batcher.close()))
        self.proceed(pace)

    def proceed(self, pace: int) -> None:
        """Run a few iterations of the loop; when they are enough for everything to happen, look at the outcome."""
        for _ in range(pace):
            self.loop.step()
        if pace == ENOUGH:
            self.compare()

    def compare(self) -> None:
        """Compare the batcher, which has come to rest, with the model."""
        if any(task.done() for task in self.ending):
            assert (self.batcher.queued, self.batcher.in_flight) == (0, 0)
            assert all(request.outcome for request in self.requests)
            return
        for request in self.requests:
            if request.outcome is None:
                assert not request.cancelled, f"request {request.number} hangs after its cancellation"
                assert not request.failed, f"request {request.number} hangs after a failure"
                assert request.served < request.size, f"request {request.number} hangs although it is served"
                assert self.loop.now < request.deadline, f"request {request.number} hangs past its deadline"
        waiting = sum(request.size - request.taken for request in self.requests if request.outcome is None)
        running = [len(call.items) for call in self.unanswered()]
        assert self.batcher.queued == waiting
        assert self.batcher.in_flight == sum(running)
        assert not waiting or len(running) == self.num_workers, "items wait beside a free worker"
        assert +self.diary.running == Counter(running)

    # What holds between any two steps.

    @invariant()
    def limits_hold(self) -> None:
        assert 0 <= self.batcher.queued <= self.max_queue
        assert 0 <= self.batcher.in_flight <= self.num_workers * self.max_batch_size

    @invariant()
    def nothing_went_wrong(self) -> None:
        assert not self.wrong

    def teardown(self) -> None:
        """Answer what is left; every request has then ended, no slot is taken, and no task is left."""
        if not hasattr(self, "loop"):
            return
        try:
            self.proceed(ENOUGH)
            drained = self.loop.create_task(self.batcher.drain(500.0))
            self.ending.append(drained)
            for _ in range(120):  # a batch of one item takes three iterations, and there are at most 28 items
                for call in self.unanswered():
                    self.succeed(call)
                self.loop.step()
            assert drained.done(), "a slot has leaked"
            assert drained.result() is True
            self.proceed(ENOUGH)
            for task in self.ending:
                task.result()
            for request in self.requests:
                assert request.task.done()
                assert request.task.cancelled() or request.task.exception() is None
                assert request.outcome is not None, f"request {request.number} has no outcome"
                is_clean = not (request.cancelled or request.failed) and self.loop.now < request.deadline
                if is_clean and len(self.ending) == 1:
                    assert request.outcome in {"served", "refused"}
            assert not asyncio.all_tasks(self.loop)
            assert self.restarts <= self.crashes
            if len(self.ending) == 1:
                assert self.restarts == self.crashes
            self.limits_hold()
            self.requests.clear()
            self.calls.clear()
            gc.collect(0)  # tasks and futures report here what nobody retrieved
            self.nothing_went_wrong()
        finally:
            self.loop.close()

    # Helpers.

    def expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.wrong.append(otherwise)

    def note_report(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Count the restarts of workers; every other report of the loop is an error."""
        if isinstance(context.get("exception"), (Crash, asyncio.CancelledError)):
            self.restarts += 1
        else:
            self.wrong.append(f"{context['message']}: {context.get('exception')!r}")

    def started(self, request: Request) -> bool:
        return request.deadline < float("inf")

    def may_be_taken(self, request: Request) -> bool:
        clean = request.is_open and self.started(request) and not request.failed
        return clean and self.loop.now < request.deadline

    def unanswered(self) -> list[Call]:
        return [call for call in self.calls if not call.answer.done()]

    def succeed(self, call: Call) -> None:
        call.answer.set_result([("done", *item) for item in call.items])
        for number, _ in call.items:
            self.requests[number].served += 1


TestBatcherMachine = BatcherMachine.TestCase
TestBatcherMachine.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],  # it times the machine that runs the tests, not the batcher
)
