"""What every engine must do, whatever it runs on; a new one adds a line to `ENGINES`."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from service.bundle import Bundle, verify
from service.engine import Engine, LocalEngine, Pixels
from service.generator import load
from service.sample import Sample

CPU = torch.device("cpu")
MAX_BATCH = 5


def local(dtype: torch.dtype, threads: int) -> Callable[[Bundle], LocalEngine]:
    def make(bundle: Bundle) -> LocalEngine:
        name = str(dtype).removeprefix("torch.")
        generator = load(bundle, CPU, dtype)
        return LocalEngine(
            generator, bundle.manifest, device=CPU, max_batch_size=MAX_BATCH, dtype=name, threads=threads
        )

    return make


ENGINES: dict[str, Callable[[Bundle], Engine]] = {
    "local": local(torch.float32, 1),
    "local, two threads": local(torch.float32, 2),
    "local, bfloat16": local(torch.bfloat16, 1),
}


@pytest.fixture
def bundle(tiny_models: Path) -> Bundle:
    return verify(tiny_models / "tiny" / "1")


@pytest.fixture(params=ENGINES)
async def engine(request: pytest.FixtureRequest, bundle: Bundle) -> Engine:
    engine = ENGINES[request.param](bundle)
    if isinstance(engine, LocalEngine):
        golden = bundle.manifest.golden
        await engine.warm_up([Sample(one.seed, one.label, one.truncation_psi) for one in golden])
    return engine


def some(count: int, first: int = 0) -> list[Sample]:
    return [Sample(seed, seed % 3, 1.0 if seed % 2 else 0.6) for seed in range(first, first + count)]


async def test_pictures_come_in_order_and_in_the_models_form(engine: Engine, bundle: Bundle) -> None:
    """One picture per sample, uint8 (H, W, C); those of two samples differ."""
    manifest = bundle.manifest
    pictures = await engine.generate(some(MAX_BATCH))
    assert {(picture.shape, str(picture.dtype)) for picture in pictures} == {
        ((manifest.height, manifest.width, manifest.channels), "uint8")
    }
    assert len({picture.tobytes() for picture in pictures}) == MAX_BATCH
    for sample, picture in zip(some(MAX_BATCH), pictures, strict=True):
        np.testing.assert_array_equal((await engine.generate([sample]))[0], picture)
    await engine.drain()


async def test_batches_at_the_same_time_do_not_meet(engine: Engine) -> None:
    """More calls than workers, of all sizes: each has the bytes that it has alone."""
    batches = [some(1 + number % MAX_BATCH, number) for number in range(12)]
    together = await asyncio.gather(*(engine.generate(batch) for batch in batches))
    for batch, pictures in zip(batches, together, strict=True):
        for alone, picture in zip(await engine.generate(batch), pictures, strict=True):
            np.testing.assert_array_equal(alone, picture)
    await engine.drain()


async def test_what_follows_is_done_where_pictures_were_drawn(engine: Engine) -> None:
    """`finish` gets the pictures of its call, away from the event loop, and what it returns or raises is the answer."""

    def finish(pictures: Sequence[Pixels]) -> tuple[int, list[bytes]]:
        return threading.get_ident(), [picture.tobytes() for picture in pictures]

    thread, files = await engine.generate(some(3), finish)
    assert thread != threading.get_ident()
    assert files == [picture.tobytes() for picture in await engine.generate(some(3))]

    def fail(pictures: Sequence[Pixels]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await engine.generate(some(1), fail)
    assert engine.status().failure is None
    await engine.drain()


async def test_too_many_samples_are_refused(engine: Engine) -> None:
    """And the engine goes on."""
    assert engine.max_batch_size == MAX_BATCH
    with pytest.raises(ValueError, match=f"{MAX_BATCH + 1} samples"):
        await engine.generate(some(MAX_BATCH + 1))
    assert len(await engine.generate(some(MAX_BATCH))) == MAX_BATCH
    await engine.drain()


async def test_status_tells_what_is_running(engine: Engine) -> None:
    """A call counts from its start to its end, also to one that failed."""
    assert engine.workers >= 1
    status = engine.status()
    assert (status.batches, status.failure) == (0, None)
    assert max(status.batch_sizes) == MAX_BATCH
    assert torch.device(status.device) == CPU
    calls = [asyncio.ensure_future(engine.generate(some(size))) for size in (2, MAX_BATCH + 1)]
    await asyncio.sleep(0)
    assert engine.status().batches == 2
    await asyncio.gather(*calls, return_exceptions=True)
    assert engine.status().batches == 0
    await engine.drain()


async def test_drain_finishes_what_is_running_and_takes_no_more(engine: Engine) -> None:
    """Whoever was admitted gets their pictures."""
    calls: list[asyncio.Future[Sequence[Pixels]]] = [
        asyncio.ensure_future(engine.generate(some(3, number))) for number in range(4)
    ]
    await asyncio.sleep(0)
    await engine.drain()
    assert [len(pictures) for pictures in await asyncio.gather(*calls)] == [3] * 4
    with pytest.raises(RuntimeError):
        await engine.generate(some(1))
