"""A lean HTTP/1.1 load: many connections, each with one request in flight, on raw asyncio protocols.

A general client costs more per request than the server that it measures, on the same two cores.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import uvloop

HEAD_END = b"\r\n\r\n"


@dataclass(slots=True)
class Outcome:
    """What one round saw: finished requests by status, seconds each, and the round's length in seconds."""

    seconds: float
    statuses: dict[int, int] = field(default_factory=dict)
    latencies_s: list[float] = field(default_factory=list)
    body_bytes: int = 0

    @property
    def requests_per_s(self) -> float:
        """Successful requests per second."""
        return self.statuses.get(200, 0) / self.seconds

    def quantile_ms(self, share: float) -> float:
        """Return the latency below which `share` of the requests lie, in milliseconds."""
        ordered = sorted(self.latencies_s)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] * 1000 if ordered else float("nan")


class _Connection(asyncio.Protocol):
    """One keep-alive connection; sends the next request when an answer is complete."""

    def __init__(self, host: str, paths: Iterator[str], outcome: Outcome, stop_at: float) -> None:
        self._host, self._paths, self._outcome, self._stop_at = host, paths, outcome, stop_at
        self._buffer = bytearray()
        self._sent = 0.0
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(HEAD_END)
        if head_end < 0:
            return
        head = bytes(self._buffer[:head_end]).lower()
        start = head.index(b"content-length:") + 15
        length = int(head[start:].split(b"\r\n", 1)[0])
        whole = head_end + len(HEAD_END) + length
        if len(self._buffer) < whole:
            return
        now = time.perf_counter()
        status = int(head[9:12])
        self._outcome.statuses[status] = self._outcome.statuses.get(status, 0) + 1
        self._outcome.latencies_s.append(now - self._sent)
        self._outcome.body_bytes += length
        del self._buffer[:whole]
        if now < self._stop_at:
            self._send()
        else:
            self._transport.close()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        path = next(self._paths)
        self._transport.write(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\nAccept: image/png\r\n\r\n".encode())


async def _round(port: int, connections: int, seconds: float, path: Callable[[int], str]) -> Outcome:
    loop = asyncio.get_running_loop()
    paths = (path(number) for number in itertools.count(time.time_ns() % 10**12))
    outcome = Outcome(0.0)
    started = time.perf_counter()
    made = [
        await loop.create_connection(
            lambda: _Connection(f"127.0.0.1:{port}", paths, outcome, started + seconds), "127.0.0.1", port
        )
        for _ in range(connections)
    ]
    await asyncio.gather(*(protocol.closed for _, protocol in made))
    outcome.seconds = time.perf_counter() - started
    return outcome


def run_round(port: int, *, connections: int, seconds: float, path: Callable[[int], str]) -> Outcome:
    """Load a server on 127.0.0.1 and return what was seen.

    Args:
        port: Its port.
        connections: Clients, each with one request in flight.
        seconds: Length of the round; requests in flight at its end are waited for and counted.
        path: The request's path for a number that no other request of the round has.
    """
    return uvloop.run(_round(port, connections, seconds, path))
