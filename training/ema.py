"""Exponential moving average of the generator."""

import copy

import torch
from torch import nn


def copy_for_ema(generator: nn.Module) -> nn.Module:
    """Return a copy of `generator` that takes no gradients."""
    return copy.deepcopy(generator).eval().requires_grad_(False)


@torch.no_grad()
def update_ema(generator_ema: nn.Module, generator: nn.Module, decay: float) -> None:
    """Move the average one step: ema = decay * ema + (1 - decay) * weights; buffers are copied.

    Karras et al. 2017, arXiv:1710.10196, section 4.1.
    """
    torch._foreach_lerp_(list(generator_ema.parameters()), list(generator.parameters()), 1 - decay)
    for averaged, buffer in zip(generator_ema.buffers(), generator.buffers(), strict=True):
        averaged.copy_(buffer)
