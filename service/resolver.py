"""What a request's words mean for one model: labels, truncation, sizes, seeds and latents to samples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service import errors, rng
from service.manifest import Manifest
from service.sample import Sample

SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Order:
    """One picture to draw: what the answer says about it, and the row of work."""

    seed: int | None
    label: int
    sample: Sample


class Resolver:
    """Resolves words against a manifest.

    Args:
        manifest: The model's.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._labels = _label_index(manifest)

    def label(self, value: int | str, pointer: str = "/label") -> int:
        """Return a label's index for its index, name or alias; names are compared without regard to case.

        Args:
            value: What the client said.
            pointer: The field that it said it in.

        Returns:
            The index.

        Raises:
            InvalidParameters: If there is no such label; lists the valid ones.
        """
        names = [entry.name for entry in self.manifest.labels]
        if not names:
            raise errors.InvalidParameters.of(pointer, f"{self.manifest.id} has no labels")
        index = self._labels.get(value.strip().lower()) if isinstance(value, str) else value
        if index is None and isinstance(value, str) and value.isascii() and value.isdecimal():
            index = int(value)
        if index is None or not 0 <= index < len(names):
            valid = ", ".join(f"{position} {name}" for position, name in enumerate(names))
            shown = repr(value)[:SHOWN_CHARACTERS]  # an integer may have thousands of digits
            raise errors.InvalidParameters.of(pointer, f"unknown label {shown}; {self.manifest.id} has {valid}")
        return index

    def label_of(self, seed: int) -> int:
        """Return the label that a request without one gets: the manifest's default, else drawn from the seed."""
        if self.manifest.defaults.label is not None:
            return self.manifest.defaults.label
        return rng.label_from(seed, self.manifest.num_classes) if self.manifest.num_classes else 0

    def psi(self, requested: float | None) -> float:
        """Return the truncation to use."""
        return self.manifest.defaults.truncation_psi if requested is None else requested

    def output_size(self, size: int | None) -> tuple[int, int]:
        """Return width and height of a picture whose longest side is `size`; `None`: the model's own."""
        width, height = self.manifest.width, self.manifest.height
        if size is None:
            return width, height
        scale = size / max(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def orders(
        self, seeds: Sequence[int], labels: Sequence[int | None], psi: float | None, pointer: str = "/seed"
    ) -> list[Order]:
        """Return one order per seed; a label of `None` is drawn from its seed."""
        truncation_psi = self.psi(psi)
        chosen = [self.label_of(seed) if label is None else label for seed, label in zip(seeds, labels, strict=True)]
        return [
            Order(seed, label, Sample(seed, label, truncation_psi)) for seed, label in zip(seeds, chosen, strict=True)
        ]

    def latent_of(self, order: Order) -> NDArray[np.float32]:
        """Return an order's latent, float32 (z_dim,), which a seed only stands for."""
        z = order.sample.z
        return rng.latents([z], self.manifest.z_dim)[0] if isinstance(z, int) else z

    def orders_from_latents(
        self, latents: Sequence[Sequence[float]], labels: Sequence[int | None], psi: float | None
    ) -> list[Order]:
        """Return one order per latent; a label of `None` is the manifest's default, else 0.

        Args:
            latents: The client's latents.
            labels: As many labels.
            psi: Truncation; `None` is the manifest's.

        Returns:
            Orders without a seed.

        Raises:
            InvalidParameters: If a latent has the wrong length.
        """
        truncation_psi = self.psi(psi)
        default = self.manifest.defaults.label or 0
        orders = []
        for index, (latent, label) in enumerate(zip(latents, labels, strict=True)):
            z = self.latent(latent, f"/latents/{index}")
            chosen = default if label is None else label
            orders.append(Order(None, chosen, Sample(z, chosen, truncation_psi)))
        return orders

    def latent(self, values: Sequence[float], pointer: str) -> NDArray[np.float32]:
        """Return a client's latent as float32 (z_dim,).

        Args:
            values: Its numbers.
            pointer: The field that they stand in.

        Returns:
            The latent.

        Raises:
            InvalidParameters: If it has the wrong length.
        """
        if len(values) != self.manifest.z_dim:
            raise errors.InvalidParameters.of(
                pointer, f"{len(values)} numbers, {self.manifest.id} takes {self.manifest.z_dim}"
            )
        return np.array(values, np.float32)


def _label_index(manifest: Manifest) -> dict[str, int]:
    """Return every name and alias in lower case with its index; a name goes before another's alias."""
    index: dict[str, int] = {}
    for position, entry in enumerate(manifest.labels):
        index.setdefault(entry.name.lower(), position)
    for position, entry in enumerate(manifest.labels):
        for alias in entry.aliases:
            index.setdefault(alias.lower(), position)
    return index
