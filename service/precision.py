"""The type that a model's synthesis computes in: the fastest here that still draws the golden pictures.

bfloat16 is three times as fast as float32 where the processor multiplies it in hardware, and ten times slower where
it does not. What a processor claims says little about a given network, so this is measured, on one thread, as the
engine will run it.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from service.bundle import Bundle, BundleError
from service.generator import Generator, load

WORTHWHILE = 1.25  # speed-up that pays for the loss of precision; also keeps equal machines from choosing differently
ROUNDS = 4
NAMES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def candidates(bundle: Bundle, device: torch.device, wanted: str, batch_size: int) -> Sequence[tuple[str, Generator]]:
    """Load a bundle in the types that may serve it, best first.

    Args:
        bundle: The verified bundle.
        device: Where the generator shall lie.
        wanted: "float32", "bfloat16", or "auto": bfloat16 if it is faster, and float32 to fall back on.
        batch_size: Images per batch that count.

    Returns:
        Names of types with the generator in each, at least one.

    Raises:
        BundleError: If the bundle cannot be loaded in float32, or in the type asked for.
    """
    if wanted != "auto":
        return [(wanted, load(bundle, device, NAMES[wanted]))]
    exact = load(bundle, device)
    try:
        reduced = load(bundle, device, torch.bfloat16)
    except BundleError:  # a network may mix types in a way that only works in float32
        return [("float32", exact)]
    if _seconds(exact, bundle, device, batch_size) < WORTHWHILE * _seconds(reduced, bundle, device, batch_size):
        return [("float32", exact)]
    return [("bfloat16", reduced), ("float32", exact)]


def _seconds(generator: Generator, bundle: Bundle, device: torch.device, batch_size: int) -> float:
    """Return the least time that one batch takes, on one thread."""
    w = torch.randn(batch_size, bundle.manifest.num_ws, bundle.manifest.w_dim, device=device)

    def measure() -> float:
        started = time.perf_counter()
        with torch.inference_mode():
            generator.synthesis(w).cpu()
        return time.perf_counter() - started

    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as thread:
        return min(thread.submit(measure).result() for _ in range(ROUNDS))
