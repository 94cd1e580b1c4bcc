"""A verified bundle's generator: its protocol, and the only `torch.jit.load`, which runs code of the archive."""

import hashlib
from collections.abc import Callable
from typing import Protocol, cast

import torch
from torch import Tensor

from service.bundle import Bundle, BundleError
from service.lowering import detached, lower
from service.manifest import GENERATOR_NAME, Manifest
from service.operators import repacked

LOWERED_FOR = 16  # pictures; what is packed for these is right for any number


class Generator(Protocol):
    """What the exported module offers.

    `w_avg` is float32 (max(num_classes, 1), num_ws, w_dim): the mean style per label, towards which psi truncates.
    """

    w_avg: Tensor

    def mapping(self, z: Tensor, label: Tensor) -> Tensor:
        """Return w, float32 (N, num_ws, w_dim), for z, float32 (N, z_dim), and label, int64 (N,)."""

    def synthesis(self, w: Tensor) -> Tensor:
        """Return pixels, uint8 (N, H, W, C), for w, float32 (N, num_ws, w_dim)."""

    def __call__(self, z: Tensor, label: Tensor, truncation_psi: Tensor) -> Tensor:
        """Return pixels for latents, labels and psi, float32 (N,)."""


class ComposedGenerator:
    """A generator whose synthesis is another function, maybe in a shorter type.

    Styles stay float32, since their errors would add up.

    Args:
        w_avg: As in `Generator`.
        mapping: As in `Generator`.
        synthesis: Takes styles in `dtype`.
        dtype: What the synthesis computes in.
    """

    def __init__(
        self,
        w_avg: Tensor,
        mapping: Callable[[Tensor, Tensor], Tensor],
        synthesis: Callable[[Tensor], Tensor],
        dtype: torch.dtype,
    ) -> None:
        self.w_avg, self.mapping = w_avg, mapping
        self._synthesis, self._dtype = synthesis, dtype

    def synthesis(self, w: Tensor) -> Tensor:
        """Return pixels, uint8 (N, H, W, C), for w, float32 (N, num_ws, w_dim)."""
        return self._synthesis(w.to(self._dtype))

    def __call__(self, z: Tensor, label: Tensor, truncation_psi: Tensor) -> Tensor:
        """Return pixels, uint8 (N, H, W, C), for latents, labels and psi, float32 (N,)."""
        w_avg = self.w_avg[label]
        return self.synthesis(w_avg + truncation_psi[:, None, None] * (self.mapping(z, label) - w_avg))


def load(
    bundle: Bundle,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.channels_last,
    *,
    packed: bool = False,
) -> Generator:
    """Load a verified bundle's generator and check its methods, shapes and types on two rows.

    Args:
        bundle: What `verify` returned.
        device: Where the generator shall lie.
        dtype: What its synthesis computes in.
        memory_format: How its weights lie in memory, which activations follow.
        packed: Lower the synthesis (`service.lowering`); on a CPU only.

    Returns:
        The generator, frozen.

    Raises:
        BundleError: If the archive does not load, or the module is not what the manifest says or not in that dtype.
    """
    try:
        content = (bundle.folder / GENERATOR_NAME).read_bytes()
        if hashlib.sha256(content).hexdigest() != bundle.manifest.files[GENERATOR_NAME].sha256:
            raise BundleError(f"{GENERATOR_NAME} has changed since it was verified")
        generator = _frozen(content, device, torch.float32, memory_format, ["mapping", "synthesis", "w_avg"])
        if packed or dtype != torch.float32:
            synthesis = _frozen(content, device, dtype, memory_format, ["synthesis"]).synthesis
            w_shape = (LOWERED_FOR, bundle.manifest.num_ws, bundle.manifest.w_dim)
            example = torch.zeros(w_shape, dtype=dtype, device=device)
            function = lower(synthesis, example) if packed else detached(synthesis)
            generator = ComposedGenerator(generator.w_avg, detached(generator.mapping), function, dtype)
    except (RuntimeError, ValueError, OSError, AttributeError) as error:
        raise BundleError(f"{GENERATOR_NAME} does not load: {str(error).strip().splitlines()[0]}") from error
    try:
        with torch.inference_mode():
            _check_shapes(generator, bundle.manifest, device)
    except (RuntimeError, AttributeError, TypeError, IndexError) as error:
        raise BundleError(f"{GENERATOR_NAME} does not run: {str(error).strip().splitlines()[-1]}") from error
    return generator


def _frozen(
    content: bytes, device: torch.device, dtype: torch.dtype, memory_format: torch.memory_format, kept: list[str]
) -> Generator:
    module = torch.jit.load(repacked(content), map_location=device)
    module.eval()
    module.to(dtype=dtype, memory_format=memory_format)
    return cast("Generator", torch.jit.freeze(module, preserved_attrs=kept))


def _check_shapes(generator: Generator, manifest: Manifest, device: torch.device) -> None:
    z = torch.zeros(2, manifest.z_dim, device=device)
    label = torch.zeros(2, dtype=torch.int64, device=device)
    w_shape = (2, manifest.num_ws, manifest.w_dim)
    pixel_shape = (2, manifest.height, manifest.width, manifest.channels)
    w = generator.mapping(z, label)
    for what, tensor, dtype, shape in (
        ("w_avg", generator.w_avg, torch.float32, (max(manifest.num_classes, 1), *w_shape[1:])),
        ("mapping", w, torch.float32, w_shape),
        ("synthesis", generator.synthesis(w), torch.uint8, pixel_shape),
        ("forward", generator(z, label, torch.ones(2, device=device)), torch.uint8, pixel_shape),
    ):
        if tensor.dtype != dtype or tensor.shape != shape:
            raise BundleError(
                f"{GENERATOR_NAME}: {what} gives {tensor.dtype} {tuple(tensor.shape)}, "
                f"the manifest says {dtype} {shape}"
            )
