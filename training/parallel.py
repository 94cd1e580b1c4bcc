"""Gradients of one batch on several CPU threads.

Each thread takes a shard through the same weights with one OpenMP thread of its own. Two OpenMP threads on one shard
meet at every layer; beside other work on the machine that fell from 160 to 20 images/s, two shards to 107.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor, nn

Shard = TypeVar("Shard")
Result = TypeVar("Result")


class ShardPool:
    """Runs a function on every shard of a batch, in order, on threads of its own."""

    def __init__(self, num_threads: int) -> None:
        self.num_threads = num_threads
        torch.set_num_threads(1)
        self._pool = ThreadPoolExecutor(num_threads, "shard", initializer=torch.set_num_threads, initargs=(1,))

    def map(self, function: Callable[[Shard], Result], shards: Sequence[Shard]) -> list[Result]:
        """Return `function(shard)` for every shard, in order."""
        if self.num_threads == 1:
            return [function(shard) for shard in shards]
        return list(self._pool.map(function, shards))

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def set_mean_gradients(parameters: Sequence[nn.Parameter], shards: Sequence[Sequence[Tensor | None]]) -> None:
    """Set each parameter's gradient to the mean over equally large shards, summed in shard order.

    The gradient gets the strides of its parameter: fused Adam walks both by address, and with a channels-last weight
    and a plain gradient it would update the wrong elements without a word.
    """
    for index, parameter in enumerate(parameters):
        gradients = [gradient for shard in shards if (gradient := shard[index]) is not None]
        parameter.grad = torch.empty_like(parameter) if gradients else None
        if parameter.grad is not None:
            torch.mean(torch.stack(gradients), dim=0, out=parameter.grad)
