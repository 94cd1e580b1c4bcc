"""Several processes that train one model: started by torchrun, one per device, each with its part of every batch.

Every process draws the indices, latents and noise of the whole batch and keeps its own rows, so that any number of
processes takes the step that one would take on the joint batch.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist

from training.errors import LostProcessError, TrainingError

CPU = torch.device("cpu")
TIMEOUT = timedelta(minutes=5)  # a process that says nothing for so long is lost; rank 0 may be writing a checkpoint


@dataclass(frozen=True, slots=True)
class Group:
    """The processes of a run: this one's `rank`, of `size`; rank 0 writes and speaks for all.

    `local_size` of them are on this machine.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1
    device: torch.device = CPU

    @property
    def leads(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def sum(self, values: Iterable[float]) -> list[float]:
        """Return the sums of numbers over all processes, in float64."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(list(values), dtype=torch.float64, device=self.device)
        self._together(lambda: dist.all_reduce(tensor))
        return [float(value) for value in tensor.tolist()]

    @torch.no_grad()
    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors, float32, by their means over all processes, in one message."""
        if self.size == 1:
            return
        parts = list(tensors)
        flat = torch.cat([part.reshape(-1) for part in parts])
        self._together(lambda: dist.all_reduce(flat))
        flat /= self.size
        for part, mean in zip(parts, flat.split([part.numel() for part in parts]), strict=True):
            part.copy_(mean.view(part.shape))

    def _together(self, message: Callable[[], object]) -> None:
        try:
            message()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise LostProcessError(
                f"rank {self.rank} lost another process of the group ({reason}); the run's last checkpoint is whole, "
                "start the same command again to resume it"
            ) from error


@contextmanager
def joined(device: torch.device) -> Iterator[Group]:
    """Join the group that torchrun's environment describes; alone without one.

    Args:
        device: Where this process trains; "cuda" becomes the device of its local rank.

    Yields:
        The group; it is left at the end of the block.

    Raises:
        TrainingError: If the other processes do not come.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group(device=device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"the processes of the group did not meet: {error}") from error
    try:
        yield Group(dist.get_rank(), size, int(os.environ.get("LOCAL_WORLD_SIZE", str(size))), device)
    except LostProcessError:
        raise  # a broken group cannot be left in order
    except BaseException:
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()
