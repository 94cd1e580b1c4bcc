"""The shipped models draw the same bytes whatever shares a batch: in float32, and as this machine chooses."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.bundle import Bundle, BundleError, verify
from service.engine import LocalEngine
from service.sample import Sample
from service.variants import Candidate, Pins, choose, in_float32

MODELS = Path(__file__).parents[2] / "models"
CPU = torch.device("cpu")
PINS = {"float32": Pins(dtype="float32", max_batch_images=8), "as chosen": Pins()}


@pytest.fixture(scope="module", params=["fashion/2", "fruits/1"])
def folder(request: pytest.FixtureRequest) -> Path:
    return MODELS / request.param


def warm(bundle: Bundle, found: Candidate) -> LocalEngine:
    variant = found.variant
    engine = LocalEngine(
        found.generator,
        bundle.manifest,
        device=CPU,
        max_batch_size=variant.max_batch_images,
        dtype=variant.dtype,
        threads=variant.engine_threads,
        torch_threads=variant.torch_threads,
    )
    asyncio.run(engine.warm_up([Sample(one.seed, one.label, one.truncation_psi) for one in bundle.manifest.golden]))
    return engine


@pytest.fixture(scope="module", autouse=True)
def few_probes() -> None:
    """Here all of them are drawn."""


@pytest.fixture(scope="module", params=PINS)
def engine(request: pytest.FixtureRequest, folder: Path) -> Iterator[LocalEngine]:
    bundle = verify(folder)
    found = choose(bundle, CPU, PINS[request.param])
    try:
        engine = warm(bundle, found)
    except BundleError:  # the golden pictures do not hold in bfloat16
        plain = in_float32(bundle, CPU, found.variant, Pins())
        assert plain is not None
        engine = warm(bundle, plain)
    yield engine
    asyncio.run(engine.drain())


samples = st.builds(Sample, st.integers(0, 2**53 - 1), st.integers(0, 9), st.sampled_from([1.0, 0.7]))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sample=samples, neighbours=st.lists(samples, max_size=31), data=st.data())
def test_picture_does_not_depend_on_its_batch(
    engine: LocalEngine, sample: Sample, neighbours: list[Sample], data: st.DataObject
) -> None:
    """Alone, and at any place among any others that fit; on whichever engine thread."""
    neighbours = neighbours[: engine.max_batch_size - 1]
    place = data.draw(st.integers(0, len(neighbours)))
    batch = [*neighbours[:place], sample, *neighbours[place:]]

    async def draw() -> tuple[bytes, set[bytes]]:
        (alone,) = await engine.generate([sample])
        together = await asyncio.gather(*(engine.generate(batch) for _ in range(engine.workers)))
        return alone.tobytes(), {pictures[place].tobytes() for pictures in together}

    alone, together = asyncio.run(draw())
    assert together == {alone}
