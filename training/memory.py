"""How many pictures go through a step at once, found from what one of them leaves in memory for the backward pass."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

# Gradients on their way, temporary results of operators and the allocator's rests come on top of what is saved.
OVERHEAD = 2.0
_CGROUP = Path("/sys/fs/cgroup")


class SavedTensors:
    """Bytes of the tensors that autograd has saved for a backward pass; each storage counts once."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}

    @property
    def num_bytes(self) -> int:
        """The sum."""
        return sum(self._sizes.values())

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count what is saved in this thread until the block ends."""
        with torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor):
            yield


def free_bytes(device: torch.device, cgroup: Path = _CGROUP) -> int | None:
    """Return the bytes of memory that a device has left for this process.

    Args:
        device: A CPU or a CUDA device.
        cgroup: Where the limits of this process's container are, on a CPU.

    Returns:
        Bytes, or `None` where the system does not say.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
    try:
        limit, used = ((cgroup / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        return free if limit == "max" else min(free, max(int(limit) - int(used), 0))
    except (OSError, ValueError):
        return free


def largest_micro_batch(pictures: int, bytes_per_picture: float, free: int | None, workers: int = 1) -> int:
    """Return the largest equal part of a shard whose step fits into memory.

    Args:
        pictures: Pictures of one worker's shard.
        bytes_per_picture: What autograd saves for one of them.
        free: Bytes that all workers together may take; `None`: enough.
        workers: Threads that take a part each at the same time.

    Returns:
        A divisor of `pictures`; 2 at least where that divides, for batch norm needs two, and else 1.
    """
    fits = pictures if free is None else free / max(OVERHEAD * bytes_per_picture * workers, 1)
    least = 1 if pictures % 2 else 2
    parts = [part for part in range(least, pictures + 1) if pictures % part == 0]
    return max((part for part in parts if part <= fits), default=parts[0])
