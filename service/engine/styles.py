"""Samples to truncated styles."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from service import rng
from service.generator import Generator
from service.sample import Sample


class StyleMaker:
    """Runs the mapping at one fixed number of rows, so that a row's style cannot depend on its neighbours.

    Args:
        generator: The loaded module.
        z_dim: Length of a latent.
        rows: Rows of a call, at least two per sample: an interpolated one takes a second row for its partner.
        device: Where the generator lies.
    """

    def __init__(self, generator: Generator, *, z_dim: int, rows: int, device: torch.device) -> None:
        self._generator, self._z_dim, self._rows, self._device = generator, z_dim, rows, device

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        """Return styles, float32 (N, num_ws, w_dim), interpolated where a sample has a partner."""
        count = len(samples)
        partners = [index for index, sample in enumerate(samples) if sample.z_to is not None]
        styles = self._truncated(samples, partners)
        w = styles[:count]
        if partners:
            t = torch.tensor([samples[index].t for index in partners], device=self._device)[:, None, None]
            w = w.clone()
            w[partners] = torch.lerp(w[partners], styles[count : count + len(partners)], t)
        return w

    def _truncated(self, samples: Sequence[Sample], partners: Sequence[int]) -> Tensor:
        """Return the styles of all samples, and after them those of the partners."""
        z = np.zeros((self._rows, self._z_dim), np.float32)
        label = np.zeros(self._rows, np.int64)
        psi = np.ones(self._rows, np.float32)
        drawn = iter(rng.latents([sample.z for sample in samples if isinstance(sample.z, int)], self._z_dim))
        for index, sample in enumerate(samples):
            z[index] = next(drawn) if isinstance(sample.z, int) else sample.z
            label[index], psi[index] = sample.label, sample.truncation_psi
        for row, index in enumerate(partners, start=len(samples)):
            sample = samples[index]
            z[row], label[row], psi[row] = sample.z_to, sample.label_to, sample.truncation_psi
        labels = torch.from_numpy(label).to(self._device)
        styles = self._generator.mapping(torch.from_numpy(z).to(self._device), labels)
        if (psi == 1).all():
            return styles
        w_avg = self._generator.w_avg[labels]
        strength = torch.from_numpy(psi).to(self._device)[:, None, None]
        # At psi 1 the style itself, not w_avg + (w - w_avg), which rounds.
        return torch.where(strength == 1, styles, w_avg + strength * (styles - w_avg))
