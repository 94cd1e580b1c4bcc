"""Kept pictures and shared computations: what is kept, what is given up, and who waits for whom."""

import asyncio
from collections import Counter

import pytest

from service.cache import LARGEST_PART, OVERHEAD_BYTES, PictureCache
from service.errors import DeadlineExceeded, Overloaded


class Maker:
    """Make a body once `open` is set; count how often, and note the seconds that were given."""

    def __init__(self, body: bytes = b"picture") -> None:
        self.body, self.open = body, asyncio.Event()
        self.limits: list[float] = []
        self.error: Exception | None = None

    async def __call__(self, limit_s: float) -> tuple[bytes, str]:
        self.limits.append(limit_s)
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return self.body, f"made {len(self.limits)}"


async def started(*tasks: "asyncio.Task[tuple[bytes, str]]") -> None:
    """Let tasks run until they wait."""
    for _ in range(4):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


async def filled(cache: PictureCache[str], *keys: str, size: int = 100) -> None:
    for key in keys:
        make = Maker(bytes(size))
        make.open.set()
        await cache.get(key, make, timeout_s=1)


async def test_what_was_made_is_kept() -> None:
    """The second request finds the body, and nothing is made."""
    counts: Counter[str] = Counter()
    cache: PictureCache[str] = PictureCache(100_000, lambda result: counts.update([result]))
    assert cache.find("a") is None
    await filled(cache, "a")
    assert cache.find("a") == bytes(100)
    assert counts == {"miss": 1, "hit": 1}


async def test_least_recently_used_is_given_up_first() -> None:
    """Looking at a body keeps it; the memory that is counted never passes the limit."""
    room = LARGEST_PART * (100 + OVERHEAD_BYTES)
    cache: PictureCache[str] = PictureCache(room)
    await filled(cache, *"abcdefgh")
    assert cache.num_bytes == room
    assert cache.find("a") is not None
    await filled(cache, "i")
    assert cache.num_bytes == room
    assert [key for key in "abcdefghi" if cache.find(key) is None] == ["b"]


@pytest.mark.parametrize(
    ("max_bytes", "kept"), [(0, False), (LARGEST_PART * 612 - 1, False), (LARGEST_PART * 612, True)]
)
async def test_body_that_would_take_too_much_is_not_kept(max_bytes: int, kept: bool) -> None:
    """One body takes at most an eighth; with no memory nothing is kept."""
    cache: PictureCache[str] = PictureCache(max_bytes)
    await filled(cache, "a")
    assert (cache.find("a") is not None) is kept
    assert cache.num_bytes == (612 if kept else 0)


async def test_requests_for_the_same_are_made_once() -> None:
    """A thousand requests at once run the work once, and all get its result; another key is another work."""
    counts: Counter[str] = Counter()
    cache: PictureCache[str] = PictureCache(0, lambda result: counts.update([result]))
    make, other = Maker(), Maker(b"other")
    tasks = [asyncio.create_task(cache.get("a", make, timeout_s=5)) for _ in range(1000)]
    tasks.append(asyncio.create_task(cache.get("b", other, timeout_s=5)))
    await started(*tasks)
    make.open.set()
    other.open.set()
    found = await asyncio.gather(*tasks)
    assert found == [(b"picture", "made 1")] * 1000 + [(b"other", "made 1")]
    assert counts == {"miss": 2, "shared": 999}


async def test_error_reaches_everybody_and_is_not_kept() -> None:
    """The next request tries again."""
    cache: PictureCache[str] = PictureCache(100_000)
    make = Maker()
    make.error = Overloaded("full")
    tasks = [asyncio.create_task(cache.get("a", make, timeout_s=5)) for _ in range(3)]
    await started(*tasks)
    make.open.set()
    assert [type(error) for error in await asyncio.gather(*tasks, return_exceptions=True)] == [Overloaded] * 3
    make.error = None
    assert await cache.get("a", make, timeout_s=5) == (b"picture", "made 2")


async def test_client_that_leaves_hands_the_work_on() -> None:
    """If the request that computes is cancelled one that waits takes over; one that waits just goes."""
    cache: PictureCache[str] = PictureCache(100_000)
    make = Maker()
    first, second, third = (asyncio.create_task(cache.get("a", make, timeout_s=5)) for _ in range(3))
    await started(first, second, third)
    third.cancel()
    await started(first, second)
    first.cancel()
    await started(second)
    assert first.cancelled()
    assert third.cancelled()
    assert len(make.limits) == 2
    make.open.set()
    assert await second == (b"picture", "made 2")


async def test_everybody_keeps_their_own_deadline() -> None:
    """A short deadline ends its own request only, whether it computes or waits, and a taker-over has what is left."""
    now = 0.0
    cache: PictureCache[str] = PictureCache(100_000, clock=lambda: now)
    make = Maker()

    async def hurried(limit_s: float) -> tuple[bytes, str]:
        await make.open.wait()
        raise DeadlineExceeded(f"not drawn within {limit_s:g} s")

    first = asyncio.create_task(cache.get("a", hurried, timeout_s=1))
    patient = asyncio.create_task(cache.get("a", make, timeout_s=10))
    await started(first, patient)
    with pytest.raises(DeadlineExceeded, match=r"not drawn within 0\.01 s"):
        await cache.get("a", make, timeout_s=0.01)
    now = 3.0
    make.open.set()
    with pytest.raises(DeadlineExceeded, match="not drawn within 1 s"):
        await first
    assert await patient == (b"picture", "made 1")
    assert make.limits == [7.0]


async def test_nothing_stays_behind() -> None:
    """After errors and departures the next request starts afresh."""
    cache: PictureCache[str] = PictureCache(0)
    make = Maker()
    alone = asyncio.create_task(cache.get("a", make, timeout_s=5))
    await started(alone)
    alone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await alone
    assert cache._flights == {}
    make.open.set()
    assert (await cache.get("a", make, timeout_s=5))[0] == b"picture"
    assert cache._flights == {}


async def test_urgent_request_does_not_wait_for_a_less_urgent_one() -> None:
    """The queue would keep the other one waiting, and this one with it; equals share."""
    cache: PictureCache[str] = PictureCache(100_000)
    make = Maker()
    tasks = [asyncio.create_task(cache.get("a", make, timeout_s=5, urgency=urgency)) for urgency in (7, 0, 0, 7)]
    await started(*tasks)
    assert len(make.limits) == 2
    make.open.set()
    await asyncio.gather(*tasks)
    assert cache.num_bytes == len(make.body) + OVERHEAD_BYTES


async def test_timeout_of_the_work_is_not_the_deadline_of_who_waits() -> None:
    """A TimeoutError that the work raises reaches everybody as it is."""
    cache: PictureCache[str] = PictureCache(0)
    make = Maker()
    make.error = TimeoutError("disk")
    tasks = [asyncio.create_task(cache.get("a", make, timeout_s=5)) for _ in range(2)]
    await started(*tasks)
    make.open.set()
    assert [str(error) for error in await asyncio.gather(*tasks, return_exceptions=True)] == ["disk", "disk"]
