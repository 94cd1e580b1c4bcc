"""Gradients of one batch on several CPU threads.

Each thread takes a shard through the same weights with one OpenMP thread of its own. Two OpenMP threads on one shard
meet at every layer; beside other work on the machine that fell from 160 to 20 images/s, two shards to 107.
"""

import ctypes
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

Shard = TypeVar("Shard")
Result = TypeVar("Result")


WIDE_VALUES = 4_000_000  # their update waits for memory longer than threads wait for each other

# glibc's mallopt: what is freed stays with the process, for the next step allocates the same again.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_NEVER = 2**31 - 1


class ShardPool:
    """Runs a function on every shard of a batch, in order, on threads of its own."""

    def __init__(self, num_threads: int) -> None:
        self.num_threads = num_threads
        torch.set_num_threads(1)
        _keep_freed_memory()
        self._pool = ThreadPoolExecutor(num_threads, "shard", initializer=torch.set_num_threads, initargs=(1,))

    def map(self, function: Callable[[Shard], Result], shards: Sequence[Shard]) -> list[Result]:
        """Return `function(shard)` for every shard, in order."""
        if self.num_threads == 1:
            return [function(shard) for shard in shards]
        return list(self._pool.map(function, shards))

    def set_mean_gradients(
        self,
        parameters: Sequence[nn.Parameter],
        function: Callable[[Shard], tuple[Sequence[Tensor | None], Result]],
        shards: Sequence[Shard],
    ) -> list[Result]:
        """Set each parameter's gradient to the mean over equally large shards, summed in shard order.

        The gradient gets the strides of its parameter: fused Adam walks both by address, and with a channels-last
        weight and a plain gradient it would update the wrong elements without a word.

        Args:
            parameters: Of the network that is to be trained.
            function: Returns a shard's gradients, one per parameter or `None` for an unused one, and something else.
            shards: At most one per thread is at work at a time; their gradients are added up as they come.

        Returns:
            What `function` returned beside the gradients, in order of the shards.
        """
        for parameter in parameters:
            parameter.grad = None
        others = []
        for wave in (shards[start : start + self.num_threads] for start in range(0, len(shards), self.num_threads)):
            for gradients, other in self.map(function, wave):
                others.append(other)
                with self.all_threads(parameters):
                    for parameter, gradient in zip(parameters, gradients, strict=True):
                        _add(parameter, gradient)
        with self.all_threads(parameters):
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.div_(len(shards))
        return others

    @contextmanager
    def all_threads(self, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
        """Let the caller's own operations on parameters take all threads, where these are so many that it pays.

        Element by element, so that the bits are the same.
        """
        if self.num_threads == 1 or sum(parameter.numel() for parameter in parameters) < WIDE_VALUES:
            yield
            return
        torch.set_num_threads(self.num_threads)
        try:
            yield
        finally:
            torch.set_num_threads(1)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def _keep_freed_memory() -> None:
    """Stop the C library from giving memory back at every tensor that is freed; elsewhere than on glibc do nothing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _NEVER)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
        mallopt(_M_TOP_PAD, 64 * 2**20)


def _add(parameter: nn.Parameter, gradient: Tensor | None) -> None:
    if gradient is None:
        return
    if parameter.grad is None:
        parameter.grad = torch.empty_like(parameter).copy_(gradient)
    else:
        parameter.grad.add_(gradient)
