"""Ends the process when only a new one helps: status 70, after which whoever supervises it starts another.

Two things are watched. A task of the event loop looks for batches that hang on the device and for devices that are
lost; `/livez` tells of them at once, so that no more requests come, and the process ends a little later. A thread looks
at that task, because a loop that is blocked can neither answer a probe nor end itself.
"""

import asyncio
import faulthandler
import os
import threading
import time
from collections.abc import Callable

import structlog

EXIT_STATUS = os.EX_SOFTWARE  # 70
GRACE_S = 5.0  # between `/livez` 503 and the end, for answers that do not need the device
_log = structlog.get_logger()


class Watchdog:
    """Watch a service from its start to its end.

    Args:
        stalled: Returns what only a new process mends; called by the event loop.
        limit_s: Seconds without a sign of life of the event loop after which the process ends.
        grace_s: Seconds for which something must be wrong before the process ends.
        end: Ends the process with a status, without waiting for anything.
    """

    def __init__(
        self,
        stalled: Callable[[], list[str]],
        *,
        limit_s: float,
        grace_s: float = GRACE_S,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._stalled, self._limit_s, self._grace_s, self._end = stalled, limit_s, grace_s, end
        self._period_s = min(1.0, limit_s / 4, grace_s / 2)
        self._seen_alive = 0.0
        self._stopped = threading.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch the running event loop."""
        self._seen_alive = time.monotonic()
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._watch_device())
        threading.Thread(target=self._watch_loop, args=(loop,), name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Watch no longer."""
        self._stopped.set()
        if self._task is not None:
            self._task.cancel()

    async def _watch_device(self) -> None:
        since: float | None = None
        while True:
            now = self._seen_alive = time.monotonic()
            reasons = self._stalled()
            if not reasons:
                since = None
            elif since is None:
                since = now
                _log.critical("stalled", reasons=reasons, ends_in_s=self._grace_s)
            elif now - since >= self._grace_s:
                self._give_up(reasons)
            await asyncio.sleep(self._period_s)

    def _watch_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        while not (self._stopped.wait(self._period_s) or loop.is_closed()):
            silent_s = time.monotonic() - self._seen_alive
            if silent_s > self._limit_s:
                self._give_up([f"the event loop has not run for {silent_s:.0f} s"])

    def _give_up(self, reasons: list[str]) -> None:
        """Write down where every thread is, and end."""
        _log.critical("the process ends, to be started anew", reasons=reasons, status=EXIT_STATUS)
        faulthandler.dump_traceback(all_threads=True)
        self._end(EXIT_STATUS)
