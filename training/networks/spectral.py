"""Spectral normalisation (Miyato et al. 2018, arXiv:1802.05957) that several threads can share.

PyTorch's parametrisation advances its estimate of the norm in every forward pass in training mode, in place. Here its
modules stay in evaluation mode, and the trainer advances them once per step.
"""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils import parametrizations


def add_spectral_norms(network: nn.Module) -> None:
    """Normalise every convolution and linear layer of `network`, in place.

    Kernels that start at zero, which have no direction to normalise, start at random instead.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer in layers:
        if not layer.weight.any():
            nn.init.kaiming_normal_(layer.weight)
        parametrizations.spectral_norm(layer)
    for estimate in _estimates(network):
        estimate.eval()


@torch.no_grad()
def update_spectral_norms(network: nn.Module) -> None:
    """Advance every estimate by one power iteration."""
    for module in network.modules():
        for parametrisation in getattr(module, "parametrizations", {}).values():
            for estimate in parametrisation:
                estimate.train()
                estimate(parametrisation.original)
                estimate.eval()


def _estimates(network: nn.Module) -> Iterator[nn.Module]:
    for module in network.modules():
        for parametrisation in getattr(module, "parametrizations", {}).values():
            yield from parametrisation
