"""Encoded pictures that were asked for before, and one computation for requests that ask for the same at once.

A picture is known by its `ETag`, which names everything that its bytes depend on. The first request for a key computes
it in its own task, so that a picture nobody else wants costs one future; the others wait. If the first one leaves or
runs out of time, one of the others takes over: nobody waits for somebody else's deadline.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from service.errors import DeadlineExceeded

Note = TypeVar("Note")

OVERHEAD_BYTES = 512  # of an entry: its key, its place in the order, the body's object
LARGEST_PART = 8  # an entry takes at most this part of the whole, so that one animation does not empty it


class PictureCache(Generic[Note]):
    """Bytes by key, the least recently used ones given up first. For one event loop.

    Args:
        max_bytes: For bodies and overhead; with 0 nothing is kept, and only what is asked for at once is shared.
        count: Told "hit", "miss" or "shared" for each request.
        clock: Seconds from any origin, never falling.
    """

    def __init__(
        self,
        max_bytes: int,
        count: Callable[[str], None] = lambda result: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_bytes, self._count, self._clock = max_bytes, count, clock
        self._bodies: OrderedDict[str, bytes] = OrderedDict()
        self._flights: dict[tuple[str, int], asyncio.Future[tuple[bytes, Note] | None]] = {}
        self.num_bytes = 0

    def find(self, key: str) -> bytes | None:
        """Return the body that is kept for `key`, and count a hit; `None` if there is none."""
        body = self._bodies.get(key)
        if body is not None:
            self._bodies.move_to_end(key)
            self._count("hit")
        return body

    def is_being_made(self, key: str, urgency: int) -> bool:
        """Tell whether a request of this urgency that asked now would wait for another one's work."""
        return (key, urgency) in self._flights

    async def get(
        self, key: str, make: Callable[[float], Awaitable[tuple[bytes, Note]]], *, timeout_s: float, urgency: int = 0
    ) -> tuple[bytes, Note]:
        """Return what `make` returns for `key`, from whichever request of the same urgency computes it first.

        Args:
            key: Names everything that the body depends on.
            make: Computes the body within the seconds that it is given, and says something about how.
            timeout_s: Seconds from now until this request's deadline.
            urgency: Of this request: nobody waits for a less urgent one.

        Returns:
            The body, and what `make` said.

        Raises:
            DeadlineExceeded: At this request's deadline.
            Exception: Whatever `make` raised; everybody who waited gets it, and nothing is kept.
        """
        deadline = self._clock() + timeout_s
        counted = False
        while (flight := self._flights.get((key, urgency))) is not None:
            if not counted:
                self._count("shared")
                counted = True
            try:
                async with asyncio.timeout(max(deadline - self._clock(), 0)) as limit:
                    found = await asyncio.shield(flight)
            except TimeoutError:
                if not limit.expired():  # the work's own
                    raise
                raise DeadlineExceeded(f"not drawn within {timeout_s:g} s") from None
            if found is not None:
                return found
        if not counted:
            self._count("miss")
        return await self._fly(key, urgency, make, deadline - self._clock())

    async def _fly(
        self, key: str, urgency: int, make: Callable[[float], Awaitable[tuple[bytes, Note]]], timeout_s: float
    ) -> tuple[bytes, Note]:
        """Compute for everybody; where this request cannot, whoever waits is told to try."""
        flight = self._flights[key, urgency] = asyncio.get_running_loop().create_future()
        try:
            made = await make(timeout_s)
        except DeadlineExceeded:
            flight.set_result(None)
            raise
        except Exception as error:
            flight.set_exception(error)
            flight.exception()  # nobody else may have been waiting for it
            raise
        except BaseException:
            flight.set_result(None)
            raise
        else:
            self._keep(key, made[0])
            flight.set_result(made)
            return made
        finally:
            del self._flights[key, urgency]

    def _keep(self, key: str, body: bytes) -> None:
        size = len(body) + OVERHEAD_BYTES
        if size > self._max_bytes // LARGEST_PART:
            return
        self.num_bytes += size
        before = self._bodies.pop(key, None)
        if before is not None:
            self.num_bytes -= len(before) + OVERHEAD_BYTES
        self._bodies[key] = body
        while self.num_bytes > self._max_bytes:
            _, oldest = self._bodies.popitem(last=False)
            self.num_bytes -= len(oldest) + OVERHEAD_BYTES
