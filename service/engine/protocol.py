"""What the rest of the service asks of an engine, whatever it runs on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from service.sample import Sample

Pixels = NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """How an engine is.

    Attributes:
        device: Where it computes, as "cpu" or "cuda:0".
        batches: Calls that are running now.
        batch_sizes: Rows that a batch may have on the device; others are padded.
        failure: Why it will never draw again, if that is so; only a new process helps.
    """

    device: str
    batches: int
    batch_sizes: tuple[int, ...]
    failure: str | None = None


class Engine(Protocol):
    """Where pixels come from.

    The same samples give the same bytes, whatever shares their batch and whichever thread draws it.
    """

    @property
    def max_batch_size(self) -> int:
        """Images that one call may have."""

    @property
    def dtype(self) -> str:
        """What the pictures are computed in, as "float32"."""

    @property
    def fingerprint(self) -> str:
        """A digest of what fixed samples look like here: engines that agree on it draw the same bytes."""

    @property
    def workers(self) -> int:
        """Calls that can run at the same time."""

    @overload
    async def generate(self, samples: Sequence[Sample]) -> Sequence[Pixels]: ...

    @overload
    async def generate(self, samples: Sequence[Sample], finish: Callable[[Sequence[Pixels]], T]) -> T: ...

    async def generate(
        self, samples: Sequence[Sample], finish: Callable[[Sequence[Pixels]], T] | None = None
    ) -> Sequence[Pixels] | T:
        """Return one picture per sample, uint8 (H, W, C), in order; or what `finish` makes of them.

        `finish` is called where the pictures were drawn, so that what follows at once costs no way through the event
        loop.

        Raises `ValueError` for more than `max_batch_size`, `MemoryError` if they do not fit into the device's memory,
        and whatever the device raises.
        """

    def status(self) -> EngineStatus:
        """Return how the engine is; at once, from any thread."""

    async def drain(self) -> None:
        """Finish what is running, take no more, and give the device back."""
