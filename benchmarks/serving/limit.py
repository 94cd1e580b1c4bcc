"""The limit: the same forward pass and PNG in a bare loop on all cores, without HTTP, queue or event loop.

One process for each of the service's engine threads, so that not even the interpreter's lock is shared; the variant is
the one that the service chose.
"""

import multiprocessing
import time
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch

from service.bundle import Bundle, verify
from service.encoder import encode_pngs
from service.engine.styles import StyleMaker
from service.sample import Sample
from service.variants import Memo, Pins, Variant, choose

CPU = torch.device("cpu")
WARM_UP_BATCHES = 4


def images_per_s(folder: Path, seconds: float) -> float:
    """Return the pictures per second that this machine draws and encodes.

    Args:
        folder: A bundle.
        seconds: How long to measure, at least.
    """
    bundle = verify(folder)
    memo = Memo(folder.parents[1])
    variant = memo.find(bundle.digest, CPU, Pins()) or choose(bundle, CPU, Pins()).variant
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(variant.engine_threads)
    with context.Pool(variant.engine_threads, _keep, (ready,)) as pool:
        work = [(bundle, variant, seconds)] * variant.engine_threads
        return sum(pool.starmap(_draw, work, chunksize=1))


_ready: Barrier


def _keep(ready: Barrier) -> None:
    global _ready  # noqa: PLW0603 (a barrier can only be inherited)
    _ready = ready


def _draw(bundle: Bundle, variant: Variant, seconds: float) -> float:
    torch.set_num_threads(variant.torch_threads)
    pins = Pins(variant.dtype, variant.memory_format, 1, variant.torch_threads, variant.max_batch_images)
    generator = choose(bundle, CPU, pins, replace(variant, engine_threads=1)).generator
    batch, classes = variant.max_batch_images, max(bundle.manifest.num_classes, 1)
    styles = StyleMaker(generator, z_dim=bundle.manifest.z_dim, rows=2 * batch, device=CPU)

    def draw(number: int) -> None:
        samples = [Sample(number * batch + row, row % classes, 1.0) for row in range(batch)]
        encode_pngs(generator.synthesis(styles(samples)).numpy(), [{}] * batch)

    with torch.inference_mode():
        for number in range(WARM_UP_BATCHES):
            draw(number)
        _ready.wait()
        started = time.perf_counter()
        done = 0
        while time.perf_counter() - started < seconds:
            draw(done)
            done += 1
        return done * batch / (time.perf_counter() - started)
