"""A generator on this machine's CPU or GPU.

Engine threads all take from one queue; how many there are, and how many threads torch takes in each, is the variant's
choice (`service.variants`).

Synthesis runs only at batch sizes that gave the same bytes as the largest one when the model was first loaded: kernels
for few rows may add in another order.
"""

import asyncio
import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import overload

import structlog
import torch
from torch import Tensor

from service.engine.cuda import GraphedSynthesis
from service.engine.devices import answers, batch_sizes, is_out_of_memory, make_repeatable, reason
from service.engine.exactness import FINGERPRINT_PICTURES, drawn, exact_sizes, probes
from service.engine.golden import check_golden
from service.engine.protocol import EngineStatus, Pixels, T
from service.engine.styles import StyleMaker
from service.generator import Generator
from service.manifest import Manifest
from service.sample import Sample

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Warmed:
    """What a thread found: batch sizes that give the bytes of the largest, and a digest of what that one drew."""

    sizes: set[int]
    fingerprint: str


class LocalEngine:
    """An `Engine` over threads of this process.

    Args:
        generator: The loaded module.
        manifest: Its bundle's manifest.
        device: Where the generator lies.
        max_batch_size: Images per batch, at least 1.
        dtype: What the generator computes in.
        threads: Engine threads.
        torch_threads: Threads that torch takes in each of them.
        exact: Leave out batch sizes whose bytes differ from those of the largest.
        known_sizes: Those that are left then, where they are known already; empty: they are found by drawing.
        on_padding: Told by the engine threads how many rows were added to a batch.
    """

    def __init__(
        self,
        generator: Generator,
        manifest: Manifest,
        *,
        device: torch.device,
        max_batch_size: int,
        dtype: str = "float32",
        threads: int = 1,
        torch_threads: int = 1,
        exact: bool = True,
        known_sizes: Sequence[int] = (),
        on_padding: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self._generator, self._manifest, self._device = generator, manifest, device
        self._on_padding = on_padding
        self.max_batch_size, self.dtype = max_batch_size, dtype
        self.workers = threads
        self.fingerprint = ""
        self._exact, self._known_sizes = exact, tuple(known_sizes)
        self._sizes = self._known_sizes if exact and known_sizes else batch_sizes(max_batch_size, device)
        self._styles = StyleMaker(generator, z_dim=manifest.z_dim, rows=2 * max_batch_size, device=device)
        self._graphs: GraphedSynthesis | None = None
        if device.type == "cuda":
            self._graphs = GraphedSynthesis(generator, device, (manifest.num_ws, manifest.w_dim))
            if exact:
                make_repeatable()
        self._running = 0
        self._lock = threading.Lock()
        self._failure: str | None = None
        self._pool = ThreadPoolExecutor(
            self.workers, f"engine-{manifest.name}", initializer=torch.set_num_threads, initargs=(torch_threads,)
        )

    @overload
    async def generate(self, samples: Sequence[Sample]) -> Sequence[Pixels]: ...

    @overload
    async def generate(self, samples: Sequence[Sample], finish: Callable[[Sequence[Pixels]], T]) -> T: ...

    async def generate(
        self, samples: Sequence[Sample], finish: Callable[[Sequence[Pixels]], T] | None = None
    ) -> Sequence[Pixels] | T:
        """Return one picture per sample, uint8 (H, W, C), in order; or what `finish` makes of them.

        Args:
            samples: At most `max_batch_size`.
            finish: Called by the engine thread.

        Returns:
            Pictures, or what `finish` returned.

        Raises:
            ValueError: If there are too many.
            MemoryError: If they do not fit into the device's memory.
        """
        with self._lock:
            self._running += 1
        try:
            batch = self._pool.submit(self._run_and_finish, samples, finish)
        except RuntimeError:
            self._ended(None)
            raise
        batch.add_done_callback(self._ended)
        return await asyncio.wrap_future(batch)

    def _ended(self, batch: object) -> None:
        """Count a batch that has ended, in whichever thread it did."""
        with self._lock:
            self._running -= 1

    def status(self) -> EngineStatus:
        """Return how the engine is."""
        return EngineStatus(str(self._device), self._running, self._sizes, self._failure)

    async def drain(self) -> None:
        """End the engine threads; batches that are running end first."""
        await asyncio.to_thread(self._pool.shutdown)

    async def warm_up(self, golden_samples: Sequence[Sample]) -> None:
        """Run every batch size on every thread, check that batches change nothing, and draw the golden pictures.

        Args:
            golden_samples: One sample per golden picture of the manifest, in order.

        Raises:
            BundleError: If a golden picture is not reproduced.
        """
        loop = asyncio.get_running_loop()
        if self._graphs is not None:
            await loop.run_in_executor(self._pool, self._graphs.capture, self._sizes)
        # As many tasks as threads, which wait for each other, so that every thread warms every size.
        all_there = threading.Barrier(self.workers)
        thorough = self._exact and not self._known_sizes
        parts = probes(self._manifest, thorough=thorough, batch=self.max_batch_size, parts=self.workers)
        warmed = await asyncio.gather(
            *(loop.run_in_executor(self._pool, self._warm_thread, part, all_there) for part in parts)
        )
        self.fingerprint = warmed[0].fingerprint
        if self._exact:
            exact = set.intersection(*(thread.sizes for thread in warmed))
            if self.max_batch_size not in exact:
                _log.warning("batches of one size differ", model=self._manifest.id, batch_size=self.max_batch_size)
            self._sizes = tuple(sorted(exact | {self.max_batch_size}))
        for sample, golden in zip(golden_samples, self._manifest.golden, strict=True):
            (pixels,) = await self.generate([sample])
            check_golden(pixels, golden)

    def _warm_thread(self, samples: Sequence[Sample], all_there: threading.Barrier) -> Warmed:
        """Draw samples in batches of every size."""
        batch = self.max_batch_size
        all_there.wait()
        with torch.inference_mode():
            w = torch.cat([self._styles(samples[start : start + batch]) for start in range(0, len(samples), batch)])
            expected = drawn(self._pixels, w, batch)
            sizes = exact_sizes(self._pixels, w, expected, self._sizes)
        return Warmed(sizes, hashlib.sha256(expected[:FINGERPRINT_PICTURES].tobytes()).hexdigest()[:16])

    def _pixels(self, w: Tensor) -> Pixels:
        if self._graphs is not None:
            return self._graphs(w)
        pixels: Pixels = self._generator.synthesis(w).cpu().numpy()
        return pixels

    def _run_and_finish(
        self, samples: Sequence[Sample], finish: Callable[[Sequence[Pixels]], T] | None
    ) -> Sequence[Pixels] | T:
        pixels = self._run(samples)
        return pixels if finish is None else finish(pixels)

    def _run(self, samples: Sequence[Sample]) -> Sequence[Pixels]:
        try:
            return self._draw(samples)
        except RuntimeError as error:
            # TorchScript makes one plain type of all errors.
            if is_out_of_memory(error):
                raise MemoryError(reason(error)) from error
            if not answers(self._device):
                self._failure = reason(error)
            raise

    def _draw(self, samples: Sequence[Sample]) -> Sequence[Pixels]:
        size = next((size for size in self._sizes if size >= len(samples)), None)
        if size is None:
            raise ValueError(f"{len(samples)} samples do not fit into a batch of {self.max_batch_size}")
        with torch.inference_mode():
            w = self._styles(samples)
            if size > len(samples):
                self._on_padding(size - len(samples))
                w = torch.cat([w, w[:1].expand(size - len(samples), -1, -1)])
            return list(self._pixels(w)[: len(samples)])
