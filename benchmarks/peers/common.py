"""What the peers share: settings, the generator, latents by seed, PNG files.

It imports torch, NumPy and Pillow only: the peers' environments have nothing of this project.
"""

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

MAX_BATCH = 32
"""Requests in one batch, and pictures in one forward pass: on a CPU more gain nothing, and no longer fit the cache."""

MAX_WAIT_MS = 2
"""How long a batch waits for company."""

MAX_PICTURES = 16
"""Pictures in one request."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where a peer listens, what it serves, and how many processes run the generator."""

    port: int
    bundle: Path
    workers: int

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read `PEER_PORT`, `PEER_BUNDLE` and `PEER_WORKERS`, which `launch` sets."""
        return cls(
            int(os.environ["PEER_PORT"]), Path(os.environ["PEER_BUNDLE"]), int(os.environ.get("PEER_WORKERS", "1"))
        )

    @property
    def threads(self) -> int:
        """Threads of torch in each worker, so that the workers together have all cores and no more."""
        return max(1, (os.cpu_count() or 1) // self.workers)


class Generator:
    """The bundle's generator, frozen and warm.

    Args:
        folder: The bundle.
        threads: Threads of torch for one forward pass.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        torch.set_num_threads(min(threads, torch.get_num_threads()))  # OMP_NUM_THREADS may say less
        manifest = json.loads((folder / "manifest.json").read_text())
        self._z_dim = int(manifest["z_dim"])
        module: Any = torch.jit.load(str(folder / "generator.pt"), map_location="cpu").eval()
        self._module = torch.jit.freeze(module)  # `forward` alone stays
        for count in (1, 1, MAX_BATCH):  # the first calls compile
            self.pixels(range(count))

    @torch.inference_mode()
    def pixels(self, seeds: Sequence[int]) -> Tensor:
        """Return the pictures of seeds, uint8 (N, H, W, C); label 0, no truncation."""
        parts = [self._forward(seeds[start : start + MAX_BATCH]) for start in range(0, len(seeds), MAX_BATCH)]
        return torch.cat(parts)

    def pngs(self, seeds: Sequence[int]) -> list[bytes]:
        """Return the pictures of seeds as PNG files."""
        return [png(picture) for picture in self.pixels(seeds)]

    def bodies(self, requests: Sequence[range]) -> list[bytes]:
        """Return the body of each request, given its seeds; one batch for all of them."""
        files = iter(self.pngs([seed for seeds in requests for seed in seeds]))
        return [b"".join(next(files) for _ in seeds) for seeds in requests]

    def _forward(self, seeds: Sequence[int]) -> Tensor:
        z = torch.stack([latent(seed, self._z_dim) for seed in seeds])
        pixels: Tensor = self._module(z, torch.zeros(len(seeds), dtype=torch.int64), torch.ones(len(seeds)))
        return pixels


def latent(seed: int, z_dim: int) -> Tensor:
    """Return the latent of a seed, float32 (z_dim,): its own stream, so that company in a batch changes nothing."""
    return torch.randn(z_dim, generator=torch.Generator().manual_seed(seed))


def png(pixels: Tensor) -> bytes:
    """Return a picture, uint8 (H, W, C) with 1, 3 or 4 channels, as a PNG file at Pillow's defaults."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1).numpy()).save(buffer, "png")
    return buffer.getvalue()


def seeds_of(seed: int, n: int = 1) -> range:
    """Return the seeds of a request.

    Raises:
        ValueError: If `n` is not in 1..16.
    """
    if not 1 <= n <= MAX_PICTURES:
        raise ValueError(f"n must be in 1..{MAX_PICTURES}, it is {n}")
    return range(seed, seed + n)


def media_type(seeds: range) -> str:
    """Return the media type of a request's body."""
    return "image/png" if len(seeds) == 1 else "application/octet-stream"
