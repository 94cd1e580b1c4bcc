"""One way to run a generator, and what of it a user has fixed."""

from dataclasses import dataclass
from typing import Literal

Dtype = Literal["float32", "bfloat16"]
MemoryFormat = Literal["channels_last", "contiguous", "packed"]


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run a generator.

    Attributes:
        dtype: What the synthesis computes in.
        memory_format: How weights and activations lie in memory; "packed" is channels_last with weights in the
            kernels' own order (`service.lowering`).
        engine_threads: Batches that run at the same time.
        torch_threads: Threads that torch takes for each of them.
        max_batch_images: Images per batch.
        batch_sizes: Those that draw the same bytes as the largest, ascending; empty: not known.
        fingerprint: The engine's when they were found.
    """

    dtype: Dtype
    memory_format: MemoryFormat
    engine_threads: int
    torch_threads: int
    max_batch_images: int
    batch_sizes: tuple[int, ...] = ()
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Pins:
    """What is not to be chosen; `None` is. The fields are those of `Variant` that can be."""

    dtype: Dtype | None = None
    memory_format: MemoryFormat | None = None
    engine_threads: int | None = None
    torch_threads: int | None = None
    max_batch_images: int | None = None
