"""A lean HTTP/1.1 load on raw asyncio protocols: as many connections as wanted, each with one request in flight.

A general client costs more per request than the server that it measures, on the same two cores.

Two ways of asking. `run_round` is a closed loop: every connection sends its next request when it has an answer, which
finds what a server can do. `run_at_rate` is an open loop: requests come when they come, and latency counts from the
moment at which one was due, so that a server that stalls is charged for everything that it kept waiting.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import uvloop

HEAD_END = b"\r\n\r\n"
GOOD = frozenset({200, 304})
LOST = 0  # in the place of a status: the connection was closed before the answer
PATIENCE_S = 60.0  # for what is in flight at the end of a round; longer than any server lets a request wait
TIMER_S = 0.001  # what uvloop's timers resolve
SATURATION_CONNECTIONS = 64

Request = Callable[[int], bytes]
"""Makes the request of a number that no other request of the round has."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: status or `LOST`, length of the body in bytes, `Retry-After` in seconds if it was there."""

    status: int
    length: int
    retry_after_s: float | None = None


@dataclass(slots=True)
class Outcome:
    """What one round saw, and its length until the last answer.

    Attributes:
        seconds: The round's length.
        statuses: Finished requests by status.
        latencies_s: Seconds that each good one took.
        waits_s: The `Retry-After` of each other one that had it.
        body_bytes: Of all bodies.
    """

    seconds: float
    statuses: dict[int, int] = field(default_factory=dict)
    latencies_s: list[float] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)
    body_bytes: int = 0

    def add(self, answer: Answer, seconds: float) -> None:
        """Count one answer."""
        self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
        self.body_bytes += answer.length
        if answer.status in GOOD:
            self.latencies_s.append(seconds)
        elif answer.retry_after_s is not None:
            self.waits_s.append(answer.retry_after_s)

    @property
    def requests_per_s(self) -> float:
        """Requests per second that were answered with 200 or 304."""
        return len(self.latencies_s) / self.seconds

    @property
    def failed(self) -> int:
        """Answers of any other kind."""
        return sum(count for status, count in self.statuses.items() if status not in GOOD)

    def quantile_ms(self, share: float) -> float:
        """Return the latency below which `share` of the good answers lie, in milliseconds."""
        ordered = sorted(self.latencies_s)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] * 1000 if ordered else float("nan")


class Connection(asyncio.Protocol):
    """One keep-alive connection.

    Args:
        on_answer: Called with each answer, or with `LOST`; it may send the next request, unless `closed` is done.
    """

    def __init__(self, on_answer: Callable[["Connection", Answer], None]) -> None:
        self._on_answer = on_answer
        self._buffer = bytearray()
        self._waiting = False
        self.sent = 0.0
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        """Say that it is over, and that no answer will come if one was due."""
        if not self.closed.done():
            self.closed.set_result(None)
        if self._waiting:
            self._waiting = False
            self._on_answer(self, Answer(LOST, 0))

    def send(self, request: bytes) -> None:
        """Send a whole request; the answer to the one before must have come."""
        self.sent = time.perf_counter()
        self._waiting = True
        self._transport.write(request)

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Collect an answer; whole ones have a `Content-Length`, or 304 and no body."""
        self._buffer += data
        head_end = self._buffer.find(HEAD_END)
        if head_end < 0:
            return
        head = bytes(self._buffer[:head_end]).lower()
        status = int(head[9:12])
        length = 0 if status == 304 else int(_header(head, b"content-length") or b"0")
        whole = head_end + len(HEAD_END) + length
        if len(self._buffer) < whole:
            return
        del self._buffer[:whole]
        retry_after = None if status in GOOD else _header(head, b"retry-after")
        self._waiting = False
        self._on_answer(self, Answer(status, length, None if retry_after is None else float(retry_after)))


def _header(head: bytes, name: bytes) -> bytes | None:
    start = head.find(b"\r\n" + name + b":")
    return None if start < 0 else head[start + len(name) + 3 :].split(b"\r\n", 1)[0].strip()


def get(path: str, **headers: str) -> bytes:
    """Return a GET request; `if_none_match=` becomes `If-None-Match`."""
    return _request("GET", path, {"Accept": "image/png"} | _names(headers), b"")


def picture(number: int) -> bytes:
    """Return the request for one picture, with a seed of its own."""
    return get(f"/generate?seed={number}")


def post(path: str, body: bytes, **headers: str) -> bytes:
    """Return a POST request with a JSON body."""
    fixed = {"Accept": "image/png", "Content-Type": "application/json", "Content-Length": str(len(body))}
    return _request("POST", path, fixed | _names(headers), body)


def _names(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-").title(): value for name, value in headers.items()}


def _request(method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + HEAD_END + body


def numbers() -> "itertools.count[int]":
    """Return numbers that no round before has had."""
    return itertools.count(time.time_ns() % 10**12)


def saturate(port: int, seconds: float) -> Outcome:
    """Find what a server can do: one picture per request, `SATURATION_CONNECTIONS` in a closed loop."""
    return expect_good(run_round(port, connections=SATURATION_CONNECTIONS, seconds=seconds, request=picture))


def lone(port: int, seconds: float) -> Outcome:
    """Ask for one picture after the other on one connection."""
    return expect_good(run_round(port, connections=1, seconds=seconds, request=picture))


def expect_good(outcome: Outcome) -> Outcome:
    """Return a round of which every request must have been answered well.

    Raises:
        RuntimeError: If one was not.
    """
    if outcome.failed or not outcome.latencies_s:
        raise RuntimeError(f"every answer should be good; by status (0: no answer) there were {outcome.statuses}")
    return outcome


def run_round(port: int, *, connections: int, seconds: float, request: Request) -> Outcome:
    """Load a server on 127.0.0.1 in a closed loop and return what was seen.

    Args:
        port: Its port.
        connections: Clients, each with one request in flight.
        seconds: Length of the round; requests in flight at its end are waited for and counted.
        request: Makes a request of a number.
    """
    return uvloop.run(closed_loop(port, connections, seconds, request))


async def closed_loop(port: int, connections: int, seconds: float, request: Request) -> Outcome:
    """Do what `run_round` says, in the running loop."""
    fresh, outcome = numbers(), Outcome(0.0)
    started = time.perf_counter()
    stop_at = started + seconds

    def on_answer(connection: Connection, answer: Answer) -> None:
        now = time.perf_counter()
        outcome.add(answer, now - connection.sent)
        if now < stop_at and not connection.closed.done():
            connection.send(request(next(fresh)))
        else:
            connection.close()

    made = [await connect(port, on_answer) for _ in range(connections)]
    for connection in made:
        connection.send(request(next(fresh)))
    await asyncio.wait_for(asyncio.gather(*(connection.closed for connection in made)), seconds + PATIENCE_S)
    outcome.seconds = time.perf_counter() - started
    return outcome


def run_at_rate(port: int, *, rate: float, connections: int, seconds: float, request: Request) -> Outcome:
    """Load a server on 127.0.0.1 in an open loop, at evenly spaced times, and return what was seen.

    Args:
        port: Its port.
        rate: Requests per second.
        connections: Enough to hold what is in flight; a request that finds none free waits, and its latency shows it.
        seconds: Length of the round.
        request: Makes a request of a number.
    """
    return uvloop.run(open_loop(port, rate, connections, seconds, request))


async def open_loop(port: int, rate: float, connections: int, seconds: float, request: Request) -> Outcome:
    """Do what `run_at_rate` says, in the running loop."""
    fresh, outcome = numbers(), Outcome(seconds)
    due: deque[float] = deque()
    pending: dict[Connection, float] = {}
    all_sent, done = False, asyncio.Event()

    def begin() -> None:
        while due and free:
            connection = free.pop()
            if connection.closed.done():  # servers hang up on a connection that was idle for some seconds
                continue
            at, now = due.popleft(), time.perf_counter()
            # The timer may be off by what it resolves, in either direction, which is not the server's doing.
            pending[connection] = at if now - at > TIMER_S else now
            connection.send(request(next(fresh)))

    def on_answer(connection: Connection, answer: Answer) -> None:
        outcome.add(answer, time.perf_counter() - pending.pop(connection))
        free.append(connection)
        begin()
        if all_sent and not pending:
            done.set()

    free = [await connect(port, on_answer) for _ in range(connections)]
    everyone = list(free)
    started = time.perf_counter()
    for number in range(round(rate * seconds)):
        at = started + number / rate
        wait = at - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        due.append(at)
        begin()
    all_sent = True
    if pending:
        await asyncio.wait_for(done.wait(), PATIENCE_S)
    outcome.seconds = time.perf_counter() - started
    if due:  # no connection is left
        outcome.statuses[LOST] = outcome.statuses.get(LOST, 0) + len(due)
    for connection in everyone:
        connection.close()
    return outcome


async def connect(port: int, on_answer: Callable[[Connection, Answer], None]) -> Connection:
    """Return a connection to a server on 127.0.0.1."""
    _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection(on_answer), "127.0.0.1", port)
    return connection
