"""Exponential moving average of the generator."""

import copy

import torch
from torch import Tensor, nn

from training.networks.layers import BatchNorm


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


@torch.no_grad()
def measure_batch_norms(generator: nn.Module, z: Tensor, label: Tensor, batch_size: int = 200) -> None:
    """Set the statistics of every `BatchNorm` of a generator to the means over the batches of `z`.

    Averaged weights have statistics of their own, which no average of the training's statistics is.

    Args:
        generator: In evaluation mode, and left in it.
        z: Latents, float32 (N, z_dim).
        label: Classes, int64 (N,).
        batch_size: Pictures in a batch.

    Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization", arXiv:1803.05407,
    section 3.2.
    """
    norms = [module for module in generator.modules() if isinstance(module, BatchNorm)]
    if not norms:
        return
    seen: dict[BatchNorm, list[tuple[Tensor, Tensor]]] = {norm: [] for norm in norms}

    def note(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, BatchNorm)
        (x,) = inputs
        dims = (0, *range(2, x.ndim))
        seen[norm].append((x.mean(dim=dims), x.var(dim=dims, correction=0)))

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    for norm in norms:
        norm.train()
    for part, part_label in zip(z.split(batch_size), label.split(batch_size), strict=True):
        generator(part, part_label)
    for hook in hooks:
        hook.remove()
    for norm, statistics in seen.items():
        norm.eval()
        norm.mean.copy_(torch.stack([mean for mean, _ in statistics]).mean(dim=0))
        norm.variance.copy_(torch.stack([variance for _, variance in statistics]).mean(dim=0))
