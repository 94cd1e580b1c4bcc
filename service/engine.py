"""Samples to pixels on the device.

Engine threads run torch with one intra-op thread each; on a CPU there is one per core, and all take from one queue.
OpenMP inside a batch is faster only on an idle machine, and rounds differently at batch 1.

Mapping always runs at one fixed number of rows, so a row's `w` cannot depend on its neighbours. Synthesis runs only at
batch sizes that gave the same bytes as the largest one at start-up: kernels for few rows may add in another order.
"""

import asyncio
import base64
import functools
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from service import rng
from service.bundle import BundleError
from service.generator import Generator
from service.manifest import GOLDEN_SIZE, Golden, Manifest
from service.sample import Sample

Pixels = NDArray[np.uint8]
WARM_UP_ROUNDS = 2  # TorchScript's profiling executor settles in the second call of a shape
MAX_WARM_UP_ROUNDS = 16
# What a batch size has to reproduce. Sums in another order change about one byte in 10,000 (float32, 28x28, AVX512).
PROBE_BYTES = 100_000


class Engine(Protocol):
    """Where pixels come from."""

    @property
    def max_batch_size(self) -> int:
        """Images that one call may have."""

    @property
    def dtype(self) -> str:
        """What the pictures are computed in, as "float32"."""

    @property
    def workers(self) -> int:
        """Calls that can run at the same time."""

    async def generate(self, samples: Sequence[Sample]) -> Sequence[Pixels]:
        """Return one picture per sample, uint8 (H, W, C), in order."""

    def close(self) -> None:
        """Give the device back."""


class LocalEngine:
    """A generator on this machine's CPU or GPU.

    Args:
        generator: The loaded module.
        manifest: Its bundle's manifest.
        device: Where the generator lies.
        max_batch_size: Images per batch, at least 1.
        dtype: What the generator computes in.
        threads: Engine threads; `None`: one per core on a CPU, one on a GPU.
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
        threads: int | None = None,
        on_padding: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self._generator, self._manifest, self._device = generator, manifest, device
        self._on_padding = on_padding
        self.max_batch_size, self.dtype = max_batch_size, dtype
        self.workers = threads or (1 if device.type == "cuda" else len(os.sched_getaffinity(0)))
        self.sizes = batch_sizes(max_batch_size, device)
        self._pool = ThreadPoolExecutor(
            self.workers, f"engine-{manifest.name}", initializer=torch.set_num_threads, initargs=(1,)
        )

    async def generate(self, samples: Sequence[Sample]) -> Sequence[Pixels]:
        """Return one picture per sample, uint8 (H, W, C), in order.

        Args:
            samples: At most `max_batch_size`.

        Returns:
            Pictures.

        Raises:
            ValueError: If there are too many.
            MemoryError: If they do not fit into the device's memory.
        """
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._run, samples)

    def close(self) -> None:
        """End the engine threads; a batch that is running ends first."""
        self._pool.shutdown(cancel_futures=True)

    async def warm_up(self, golden_samples: Sequence[Sample]) -> float:
        """Run every batch size on every thread, check that batches change nothing, and draw the golden pictures.

        Args:
            golden_samples: One sample per golden picture of the manifest, in order.

        Returns:
            Seconds that it took.

        Raises:
            BundleError: If a golden picture is not reproduced.
        """
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        # As many tasks as threads, which wait for each other, so that every thread warms every size.
        all_there = threading.Barrier(self.workers)
        warm = functools.partial(self._warm_thread, self._probes(), all_there)
        exact = await asyncio.gather(*(loop.run_in_executor(self._pool, warm) for _ in range(self.workers)))
        self.sizes = tuple(sorted(set.intersection(*exact)))
        for sample, golden in zip(golden_samples, self._manifest.golden, strict=True):
            (pixels,) = await self.generate([sample])
            check_golden(pixels, golden)
        return time.monotonic() - started

    def _probes(self) -> list[Sample]:
        """Return samples of which no two are alike, for all rounds of the largest batch, better for `PROBE_BYTES`."""
        manifest = self._manifest
        picture_bytes = manifest.height * manifest.width * manifest.channels
        rounds = max(WARM_UP_ROUNDS, math.ceil(PROBE_BYTES / picture_bytes / self.max_batch_size))
        count = min(rounds, MAX_WARM_UP_ROUNDS) * self.max_batch_size
        rows = np.random.default_rng(0).standard_normal((count, manifest.z_dim), np.float32)
        return [Sample(z, number % max(manifest.num_classes, 1), 1.0) for number, z in enumerate(rows)]

    def _warm_thread(self, probes: Sequence[Sample], all_there: threading.Barrier) -> set[int]:
        """Draw the probes in batches of every size; return the sizes that give the bytes of the largest."""
        all_there.wait()
        expected = self._draw_all(probes, self.max_batch_size)
        return {size for size in self.sizes if np.array_equal(self._draw_all(probes, size), expected)}

    def _draw_all(self, samples: Sequence[Sample], size: int) -> Pixels:
        """Draw samples, at least `size` of them, in batches of exactly `size`; the last two may overlap."""
        pictures: list[Pixels] = []
        for start in range(0, len(samples), size):
            first = min(start, len(samples) - size)
            pictures[first:] = self._run(samples[first : first + size])
        return np.stack(pictures)

    def _run(self, samples: Sequence[Sample]) -> Sequence[Pixels]:
        size = next((size for size in self.sizes if size >= len(samples)), None)
        if size is None:
            raise ValueError(f"{len(samples)} samples do not fit into a batch of {self.max_batch_size}")
        try:
            return self._draw(samples, size)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise MemoryError(str(error).splitlines()[0]) from error

    def _draw(self, samples: Sequence[Sample], size: int) -> Sequence[Pixels]:
        with torch.inference_mode():
            w = self._styles(samples)
            if size > len(samples):
                self._on_padding(size - len(samples))
                w = torch.cat([w, w[:1].expand(size - len(samples), -1, -1)])
            pixels: Pixels = self._generator.synthesis(w)[: len(samples)].cpu().numpy()
        return list(pixels)

    def _styles(self, samples: Sequence[Sample]) -> Tensor:
        """Return truncated styles, float32 (N, num_ws, w_dim), interpolated where a sample has a partner."""
        count, rows = len(samples), 2 * self.max_batch_size
        partners = [index for index, sample in enumerate(samples) if sample.z_to is not None]
        z = np.zeros((rows, self._manifest.z_dim), np.float32)
        label = np.zeros(rows, np.int64)
        psi = np.ones(rows, np.float32)
        seeds = [sample.z for sample in samples if isinstance(sample.z, int)]
        drawn = iter(rng.latents(seeds, self._manifest.z_dim))
        for index, sample in enumerate(samples):
            z[index] = next(drawn) if isinstance(sample.z, int) else sample.z
            label[index], psi[index] = sample.label, sample.truncation_psi
        for row, index in enumerate(partners, start=count):
            sample = samples[index]
            z[row], label[row], psi[row] = sample.z_to, sample.label_to, sample.truncation_psi
        labels = torch.from_numpy(label).to(self._device)
        styles = self._generator.mapping(torch.from_numpy(z).to(self._device), labels)
        if (psi != 1).any():
            w_avg = self._generator.w_avg[labels]
            strength = torch.from_numpy(psi).to(self._device)[:, None, None]
            # At psi 1 the style itself, not w_avg + (w - w_avg), which rounds.
            styles = torch.where(strength == 1, styles, w_avg + strength * (styles - w_avg))
        w = styles[:count]
        if partners:
            t = torch.tensor([samples[index].t for index in partners], device=self._device)[:, None, None]
            w = w.clone()
            w[partners] = torch.lerp(w[partners], styles[count : count + len(partners)], t)
        return w


def batch_sizes(max_batch_size: int, device: torch.device) -> tuple[int, ...]:
    """Return the batch sizes that will run, ascending: every one on a CPU, powers of two and the largest on a GPU."""
    if device.type == "cpu":
        return tuple(range(1, max_batch_size + 1))
    powers = {1 << exponent for exponent in range(max_batch_size.bit_length())}
    return tuple(sorted({size for size in powers if size <= max_batch_size} | {max_batch_size}))


def check_golden(pixels: Pixels, golden: Golden) -> None:
    """Compare a picture with a golden thumbnail.

    Args:
        pixels: The picture, uint8 (H, W, C).
        golden: What the manifest says about it.

    Raises:
        BundleError: If a value of the thumbnail differs by more than the tolerance.
    """
    channels = pixels.shape[2]
    expected = np.frombuffer(base64.b64decode(golden.thumbnail), np.uint8).reshape(GOLDEN_SIZE, GOLDEN_SIZE, channels)
    means = F.adaptive_avg_pool2d(torch.from_numpy(pixels).permute(2, 0, 1).float(), GOLDEN_SIZE)
    difference = np.abs(means.round().permute(1, 2, 0).numpy() - expected).max()
    if not difference <= golden.tolerance:
        raise BundleError(
            f"golden picture of seed {golden.seed}, label {golden.label} differs by {difference:.0f} grey levels, "
            f"allowed are {golden.tolerance}"
        )


def choose_device(name: str) -> torch.device:
    """Return the device to run on.

    Args:
        name: "auto", "cpu" or "cuda".

    Returns:
        The device; for "auto" CUDA where there is one.

    Raises:
        ValueError: If CUDA was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("VITRINE_DEVICE=cuda, but this torch sees no CUDA device; use auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
