"""The fastest variant on this machine, found one property after the other.

bfloat16 is three times as fast as float32 where the processor multiplies it in hardware, and ten times slower where it
does not; channels_last doubles the speed of some networks and slows others; packed weights double that of a network
with large transposed convolutions, and do little for others. What a processor claims says little about a given network,
so all of this is measured, as the engine will run it.

The usual answer stays unless another is clearly better: that keeps equal machines, and restarts of one, from choosing
differently because of noise. One engine thread per core is the usual answer also because of what cannot be seen at
start-up: OpenMP's threads wait for each other, so beside HTTP, encoding and other work they collapse.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from service.bundle import Bundle, BundleError
from service.generator import Generator, load
from service.variants.measure import seconds_per_image
from service.variants.variant import Dtype, MemoryFormat, Pins, Variant

CLEARLY = {"dtype": 1.25, "memory_format": 1.1, "threads": 1.25}  # the speed-up that is worth leaving the usual answer
USUAL_BATCH = 16
CPU_BATCHES, GPU_BATCHES = (8, 16, 32), (16, 32, 64, 128)
# The least with which one batch is drawn while another travels or is encoded; not measured on a GPU yet.
GPU_ENGINE_THREADS = 2
NEARLY = 1.05  # a smaller batch, which keeps nobody waiting, is taken if it costs at most this much more per image
DTYPES: dict[Dtype, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FORMATS: dict[MemoryFormat, torch.memory_format] = {
    "channels_last": torch.channels_last,
    "contiguous": torch.contiguous_format,
    "packed": torch.channels_last,
}

Measure = Callable[..., float]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A variant with the generator that it runs, and microseconds per image of what it was compared with."""

    variant: Variant
    generator: Generator
    measured: dict[str, float] = field(default_factory=dict)


def choose(
    bundle: Bundle,
    device: torch.device,
    pins: Pins,
    known: Variant | None = None,
    measure: Measure = seconds_per_image,
) -> Candidate:
    """Load a bundle in the variant that shall serve it.

    Args:
        bundle: The verified bundle.
        device: Where the generator shall lie.
        pins: What is not to be chosen.
        known: What was found before for this bundle on this machine with these pins; it is not measured again.
        measure: As `seconds_per_image`.

    Returns:
        The variant and its generator.

    Raises:
        BundleError: If the bundle cannot be loaded in float32, or in the type that was asked for.
    """
    if known is not None:
        return Candidate(known, _load(bundle, device, known.dtype, known.memory_format))
    return _measured(bundle, device, pins, measure)


def in_float32(bundle: Bundle, device: torch.device, variant: Variant, pins: Pins) -> Candidate | None:
    """Load a bundle as `variant`, but in float32 and unpacked, as far as that is not pinned otherwise.

    Args:
        bundle: The verified bundle.
        device: Where the generator shall lie.
        variant: What did not draw as it should.
        pins: What is not to be changed.

    Returns:
        The plainer variant and its generator; `None` if it would be the same.

    Raises:
        BundleError: If it cannot be loaded so.
    """
    unpacked: MemoryFormat = "channels_last" if variant.memory_format == "packed" else variant.memory_format
    plain = Variant(
        pins.dtype or "float32",
        pins.memory_format or unpacked,
        variant.engine_threads,
        variant.torch_threads,
        variant.max_batch_images,
    )
    if (plain.dtype, plain.memory_format) == (variant.dtype, variant.memory_format):
        return None
    return Candidate(plain, _load(bundle, device, plain.dtype, plain.memory_format))


def _measured(bundle: Bundle, device: torch.device, pins: Pins, measure: Measure) -> Candidate:
    """Choose type and layout on one thread, then the threads, then the batch."""
    figures: dict[str, float] = {}
    batch = pins.max_batch_images or USUAL_BATCH

    def seconds(name: str, generator: Generator, **how: int) -> float:
        found = measure(generator, bundle.manifest, device, **{"batch_images": batch, **how})
        figures[name] = round(found * 1e6, 1)
        return found

    def both(name: str, generator: Generator) -> float:
        """Return the geometric mean of what a picture takes alone and in a batch: latency counts as throughput does."""
        return math.sqrt(seconds(f"{name}, alone", generator, batch_images=1) * seconds(name, generator))

    dtype: Dtype = pins.dtype or "float32"
    memory_format: MemoryFormat = pins.memory_format or "channels_last"
    generator = _load(bundle, device, dtype, memory_format)
    if pins.dtype is None or pins.memory_format is None:
        best = both(f"{dtype} {memory_format}", generator)
        trials: list[tuple[str, object, Dtype | None, MemoryFormat | None]] = [
            ("dtype", pins.dtype, "bfloat16", None),
            ("memory_format", pins.memory_format, None, "contiguous"),
            ("memory_format", pins.memory_format, None, "packed"),
        ]
        for what, pinned, trial_dtype, trial_format in trials:
            if pinned is not None or (trial_format == "packed" and device.type != "cpu"):
                continue
            other_dtype, other_format = trial_dtype or dtype, trial_format or memory_format
            try:
                other = _load(bundle, device, other_dtype, other_format)
                other_s = both(f"{other_dtype} {other_format}", other)
            # A network may mix types in a way that only works in float32, or not be packable.
            except (BundleError, RuntimeError):
                continue
            if best > CLEARLY[what] * other_s:
                dtype, memory_format, generator, best = other_dtype, other_format, other, other_s
    engine_threads, torch_threads = _threads(device, pins, lambda **how: seconds(_words(how), generator, **how))
    if pins.max_batch_images is None:
        arrangement = {"engine_threads": engine_threads, "torch_threads": torch_threads}
        sizes = CPU_BATCHES if device.type == "cpu" else GPU_BATCHES
        per_image = {size: seconds(f"batches of {size}", generator, **arrangement, batch_images=size) for size in sizes}
        batch = min(size for size in sizes if per_image[size] <= NEARLY * min(per_image.values()))
    return Candidate(Variant(dtype, memory_format, engine_threads, torch_threads, batch), generator, figures)


def _threads(device: torch.device, pins: Pins, seconds: Callable[..., float]) -> tuple[int, int]:
    """Return engine threads, and threads of torch for each of them."""
    if pins.engine_threads is not None:
        return pins.engine_threads, pins.torch_threads or 1
    if device.type != "cpu":
        return GPU_ENGINE_THREADS, pins.torch_threads or 1
    cores = len(os.sched_getaffinity(0))
    if pins.torch_threads is not None:
        return max(cores // pins.torch_threads, 1), pins.torch_threads
    if cores == 1:
        return 1, 1
    usual = seconds(engine_threads=cores, torch_threads=1)
    together = seconds(engine_threads=1, torch_threads=cores)
    return (1, cores) if usual > CLEARLY["threads"] * together else (cores, 1)


def _words(how: dict[str, int]) -> str:
    return f"{how['engine_threads']} engine threads, {how['torch_threads']} of torch each"


def _load(bundle: Bundle, device: torch.device, dtype: Dtype, memory_format: MemoryFormat) -> Generator:
    return load(bundle, device, DTYPES[dtype], FORMATS[memory_format], packed=memory_format == "packed")
