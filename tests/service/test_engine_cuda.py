"""Graphs and copies on a CUDA device: whatever the device does first, each batch gets its own pictures."""

import asyncio
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from structlog.testing import capture_logs
from torch import Tensor

from service.bundle import Bundle, verify
from service.engine import LocalEngine, Pixels
from service.engine.cuda import GraphedSynthesis
from service.engine.devices import make_repeatable, reason
from service.generator import load
from service.sample import Sample
from tests.service import fake_cuda

CPU = torch.device("cpu")
SIZES = (1, 2, 4)
W_SHAPE = (3, 4)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class FakeGenerator:
    """Pictures of 2x1x2 bytes, which are the first components of w."""

    def synthesis(self, w: Tensor) -> Tensor:
        return (w[:, 0] * 50 + 100).round().clamp(0, 255).to(torch.uint8).reshape(-1, 2, 1, 2)


@pytest.fixture
def bundle(tiny_models: Path) -> Bundle:
    return verify(tiny_models / "tiny" / "1")


def captured(generator: FakeGenerator) -> GraphedSynthesis:
    graphs = GraphedSynthesis(generator, CPU, W_SHAPE)  # type: ignore[arg-type]
    graphs.capture(SIZES)
    return graphs


def batches(count: int) -> list[Tensor]:
    chance = random.Random(count)
    return [torch.randn(chance.choice(SIZES), *W_SHAPE) for _ in range(count)]


@pytest.mark.parametrize("seed", range(40))
def test_batches_in_flight_keep_their_pictures(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Of any sizes, waited for in any order: no input, output or page is used again too early."""
    cuda, generator = fake_cuda.install(monkeypatch, seed), FakeGenerator()
    work = batches(12)
    with cuda:
        graphs = captured(generator)
        with torch.cuda.stream(torch.cuda.Stream(CPU)):  # where the styles are made, late as everything
            travelling = [graphs.submit(w.clone()) for w in work]
        order = random.Random(seed).sample(range(len(work)), len(work))
        arrived = {number: travelling[number].wait() for number in order}
    assert graphs.sizes == SIZES
    for number, w in enumerate(work):
        np.testing.assert_array_equal(arrived[number], generator.synthesis(w).numpy())


def test_threads_share_the_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread waits for its own batch while others submit."""
    cuda, generator = fake_cuda.install(monkeypatch, 0), FakeGenerator()
    work = batches(60)
    with cuda:
        graphs = captured(generator)

    def draw(w: Tensor) -> Pixels:
        with cuda, torch.inference_mode():
            return graphs(w)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(draw, work))
    for w, pixels in zip(work, found, strict=True):
        np.testing.assert_array_equal(pixels, generator.synthesis(w).numpy())


def test_size_without_a_graph_is_drawn_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph runs at one size only."""
    cuda, generator = fake_cuda.install(monkeypatch, 0), FakeGenerator()
    w = torch.randn(3, *W_SHAPE)
    with cuda:
        graphs = captured(generator)
        np.testing.assert_array_equal(graphs(w), generator.synthesis(w).numpy())
        with pytest.raises(KeyError):
            graphs.submit(w)


def test_failed_capture_is_logged_and_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures come without graphs, and the log says why."""
    cuda, generator = fake_cuda.install(monkeypatch, 0), FakeGenerator()
    cuda.failure = RuntimeError("somewhere in TorchScript\noperation not permitted when stream is capturing")
    w = torch.randn(2, *W_SHAPE)
    with cuda, capture_logs() as logs:
        graphs = captured(generator)
        np.testing.assert_array_equal(graphs(w), generator.synthesis(w).numpy())
    assert graphs.sizes == ()
    assert [(entry["log_level"], entry["reason"]) for entry in logs] == [
        ("warning", "operation not permitted when stream is capturing")
    ]


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            "CUDA error: an illegal memory access\nSearch for it.\nCompile with this.",
            "CUDA error: an illegal memory access",
        ),
        ("In TorchScript:\nfile.py, line 7\nRuntimeError: sizes differ", "RuntimeError: sizes differ"),
        ("In TorchScript:\nCUDA out of memory. Tried to allocate", "CUDA out of memory. Tried to allocate"),
        ("", "RuntimeError"),
    ],
)
def test_reason_is_the_line_that_says_what_happened(message: str, line: str) -> None:
    """Neither the place before it nor the advice after it."""
    assert reason(RuntimeError(message)) == line


class DependsOnValues(FakeGenerator):
    """A generator that looks at its input on the host: a graph keeps what it saw when it was captured."""

    def synthesis(self, w: Tensor) -> Tensor:
        return super().synthesis(w) if float(w.abs().sum()) == 0 else 255 - super().synthesis(w)


def test_graph_that_draws_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A capture may succeed and be wrong; other styles show it."""
    cuda, generator = fake_cuda.install(monkeypatch, 0), DependsOnValues()
    w = torch.randn(2, *W_SHAPE)
    with cuda, capture_logs() as logs:
        graphs = captured(generator)
        np.testing.assert_array_equal(graphs(w), generator.synthesis(w).numpy())
    assert graphs.sizes == ()
    assert "grey levels off" in logs[-1]["reason"]


class FakeGraphs:
    """Counts what an engine asks for."""

    def __init__(self, generator: object) -> None:
        self.generator, self.asked = generator, list[tuple[str, object]]()

    def capture(self, sizes: Sequence[int]) -> None:
        self.asked.append(("capture", tuple(sizes)))

    def __call__(self, w: Tensor) -> Pixels:
        self.asked.append(("draw", len(w)))
        pixels: Pixels = self.generator.synthesis(w).numpy()  # type: ignore[attr-defined]
        return pixels


def test_engine_captures_first_and_draws_by_graphs(bundle: Bundle) -> None:
    """All sizes are captured before the first batch, and the pictures are those of an engine without graphs."""
    generator = load(bundle, CPU)
    with_graphs, without = (
        LocalEngine(generator, bundle.manifest, device=CPU, max_batch_size=2, threads=threads) for threads in (2, 1)
    )
    graphs = with_graphs._graphs = FakeGraphs(generator)  # type: ignore[assignment]
    samples = [Sample(seed, 0, 1.0) for seed in range(2)]
    golden = [Sample(one.seed, one.label, one.truncation_psi) for one in bundle.manifest.golden]

    async def drawn(engine: LocalEngine) -> Sequence[Pixels]:
        await engine.warm_up(golden)
        pictures = await engine.generate(samples)
        await engine.drain()
        return pictures

    np.testing.assert_array_equal(asyncio.run(drawn(with_graphs)), asyncio.run(drawn(without)))
    assert graphs.asked[0] == ("capture", (1, 2))
    assert {what for what, _ in graphs.asked[1:]} == {"draw"}


def test_kernels_can_be_made_repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice of kernels is told so, for the whole process."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    make_repeatable()
    assert torch.backends.cudnn.deterministic


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gpu_draws_by_graphs_what_it_draws_without(bundle: Bundle, dtype: torch.dtype) -> None:
    """For every size, with many batches in flight."""
    device, manifest = torch.device("cuda"), bundle.manifest
    make_repeatable()
    generator = load(bundle, device, dtype)
    graphs = GraphedSynthesis(generator, device, (manifest.num_ws, manifest.w_dim))
    graphs.capture((1, 2, 4, 8))
    assert graphs.sizes == (1, 2, 4, 8)
    with torch.inference_mode():
        work = [torch.randn(1 << number % 4, manifest.num_ws, manifest.w_dim, device=device) for number in range(64)]
        expected = [generator.synthesis(w).cpu().numpy() for w in work]
        travelling = [graphs.submit(w) for w in work]
    for one, pixels in zip(travelling, expected, strict=True):
        np.testing.assert_array_equal(one.wait(), pixels)


@pytest.mark.gpu
@needs_gpu
def test_gpu_threads_share_the_graphs(bundle: Bundle) -> None:
    """An engine with several threads draws the bytes of one with one thread."""
    device = torch.device("cuda")
    golden = [Sample(one.seed, one.label, one.truncation_psi) for one in bundle.manifest.golden]
    work = [[Sample(seed + row, 0, 1.0) for row in range(1 + seed % 8)] for seed in range(64)]

    async def drawn(threads: int) -> list[Sequence[Pixels]]:
        engine = LocalEngine(load(bundle, device), bundle.manifest, device=device, max_batch_size=8, threads=threads)
        await engine.warm_up(golden)
        assert engine._graphs is not None
        assert engine._graphs.sizes == (1, 2, 4, 8)
        pictures = await asyncio.gather(*map(engine.generate, work))
        await engine.drain()
        return pictures

    for one, other in zip(asyncio.run(drawn(1)), asyncio.run(drawn(4)), strict=True):
        np.testing.assert_array_equal(one, other)
