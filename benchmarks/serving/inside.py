"""Pictures per second without HTTP: the bare forward pass, the forward pass with its copies, and the engine."""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.serving.peaks import seconds_per_call
from service.encoder import encode_pngs
from service.engine import LocalEngine, Pixels
from service.engine.cuda import Bucket, GraphedSynthesis
from service.generator import Generator
from service.manifest import Manifest
from service.sample import Sample
from service.variants import Candidate

AHEAD = 2  # batches that the copying loop submits before it waits for the first of them


def bare_s(generator: Generator, w: Tensor, seconds: float) -> float:
    """Return the seconds of a batch's forward pass alone: on CUDA the replay of a graph, into which w is copied.

    Args:
        generator: On the device of `w`.
        w: Styles, float32 (N, num_ws, w_dim).
        seconds: How long to measure, about.

    Returns:
        Seconds of a batch.
    """
    device = w.device
    with torch.inference_mode():
        if device.type != "cuda":
            return seconds_per_call(lambda: generator.synthesis(w), device, seconds)
        stream = torch.cuda.Stream(device)
        with torch.cuda.device(device):
            bucket = Bucket(generator, w.clone(), stream, torch.cuda.graph_pool_handle())
        with torch.cuda.stream(stream):
            return seconds_per_call(lambda: bucket.replay(w), device, seconds)


def copied_s(generator: Generator, w: Tensor, seconds: float) -> float:
    """Return the seconds of a batch when its pixels travel to the host while the next is drawn; arguments as `bare_s`.

    Raises:
        RuntimeError: If there is no graph on CUDA.
    """
    device = w.device
    with torch.inference_mode():
        if device.type != "cuda":
            return seconds_per_call(lambda: generator.synthesis(w).cpu().numpy(), device, seconds)
        graphs = GraphedSynthesis(generator, device, (w.shape[1], w.shape[2]))
        graphs.capture([len(w)])
        if not graphs.sizes:
            raise RuntimeError("there is no CUDA graph to measure; the log says why")
        waiting = deque(graphs.submit(w) for _ in range(AHEAD))

        def one() -> None:
            waiting.append(graphs.submit(w))
            waiting.popleft().wait()

        return seconds_per_call(one, device, seconds)


async def engine_images_per_s(engine: LocalEngine, size: int, seconds: float, *, num_classes: int, png: bool) -> float:
    """Return the pictures per second of a warm engine whose threads are all busy.

    Args:
        engine: The engine.
        size: Images of every batch.
        seconds: How long to measure, at least.
        num_classes: Of the model, over which the pictures spread.
        png: Encode the pictures too, as the service does.

    Returns:
        Pictures per second.
    """
    seeds, classes = itertools.count(), max(num_classes, 1)
    finish: Callable[[Sequence[Pixels]], object] = _encode if png else len
    stop_at, spent, done = 0.0, 1.0, 0

    async def keep_busy() -> None:
        nonlocal done
        while time.perf_counter() < stop_at:
            samples = [Sample(seed, seed % classes, 1.0) for seed in itertools.islice(seeds, size)]
            await engine.generate(samples, finish)
            done += size

    for lasting_s in (seconds / 4, seconds):
        done = 0
        started = time.perf_counter()
        stop_at = started + lasting_s
        await asyncio.gather(*(keep_busy() for _ in range(engine.workers)))
        spent = time.perf_counter() - started
    return done / spent


def _encode(pixels: Sequence[Pixels]) -> list[bytes]:
    return encode_pngs(np.stack(pixels), [{}] * len(pixels))


def engine_of(candidate: Candidate, manifest: Manifest, device: torch.device, threads: int) -> LocalEngine:
    """Return an engine as the service makes it, with other threads than its variant has."""
    variant = replace(candidate.variant, engine_threads=threads)
    return LocalEngine(
        candidate.generator,
        manifest,
        device=device,
        max_batch_size=variant.max_batch_images,
        dtype=variant.dtype,
        threads=variant.engine_threads,
        torch_threads=variant.torch_threads,
    )
