"""A process that cannot be mended ends with 70; one that recovers, or only starts slowly, does not."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from service.watchdog import Watchdog
from tests.service.api.harness import until

BLOCKED = """
import asyncio, time
from service.watchdog import Watchdog

async def main():
    Watchdog(lambda: [], limit_s=0.2).start()
    await asyncio.sleep(0.1)
    time.sleep(60)

asyncio.run(main())
"""


async def ended(enough: Callable[[], bool], *answers: list[str]) -> list[int]:
    """Watch something that says `answers`, the last of them for ever; return the statuses that were asked for."""
    left, statuses = list(answers), list[int]()

    def stalled() -> list[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    watchdog = Watchdog(stalled, limit_s=10, grace_s=0.02, end=statuses.append)
    watchdog.start()
    try:
        await until(lambda: bool(statuses) or (enough() and len(left) == 1))
    finally:
        watchdog.stop()
    return statuses


async def test_stalled_device_ends_the_process(capfd: pytest.CaptureFixture[str]) -> None:
    """After the grace, with the stacks of all threads in the log."""
    started = time.monotonic()
    assert set(await ended(lambda: False, [], ["a batch hangs"])) == {70}
    assert time.monotonic() - started >= 0.02
    assert "most recent call first" in capfd.readouterr().err


async def test_stall_that_passes_is_forgiven() -> None:
    """A batch that was late, and came, is no reason: the grace begins anew with the next stall."""
    patience = time.monotonic() + 0.2
    assert await ended(lambda: time.monotonic() > patience, ["late"], [], ["late"], []) == []


def test_blocked_event_loop_ends_the_process() -> None:
    """Nothing in the loop could do it: no probe is answered, and no task runs."""
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 70
    assert "the event loop has not run for" in done.stdout
    assert "time.sleep" in done.stderr or "most recent call first" in done.stderr


async def test_stopped_watchdog_is_silent() -> None:
    """A drain that blocks the loop for a moment ends as it should."""
    statuses: list[int] = []
    watchdog = Watchdog(lambda: [], limit_s=0.04, end=statuses.append)
    watchdog.start()
    await asyncio.sleep(0.02)
    watchdog.stop()
    time.sleep(0.2)  # noqa: ASYNC251 (the loop is blocked on purpose)
    assert statuses == []


def test_watchdog_ends_with_its_loop() -> None:
    """A program that ends its loop without stopping the watchdog is not ended by it."""
    statuses: list[int] = []
    before = set(threading.enumerate())

    async def begin() -> None:
        Watchdog(lambda: [], limit_s=0.04, end=statuses.append).start()
        await asyncio.sleep(0)

    asyncio.run(begin())
    time.sleep(0.2)
    assert statuses == []
    assert not [thread for thread in threading.enumerate() if thread.name == "watchdog" and thread not in before]
