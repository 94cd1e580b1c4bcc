"""How many pictures go through a step at once, found from what one of them leaves in memory for the backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

# Gradients on their way, temporary results of operators and the allocator's rests come on top of what is saved.
OVERHEAD = 2.0
_MEMINFO, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


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


def free_bytes(device: torch.device, meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int | None:
    """Return the bytes of memory that a device has left.

    Args:
        device: A CPU or a CUDA device.
        meminfo: What a Linux kernel says of the machine's memory, on a CPU.
        cgroup: Where the limits of this process's container are, on a CPU.

    Returns:
        Bytes, caches that would give way included, or `None` where the system does not say.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        free = 1024 * _numbers(meminfo)["MemAvailable:"]
    except (OSError, KeyError):
        return None
    try:
        limit, used = (int((cgroup / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        return min(free, max(limit - used + _numbers(cgroup / "memory.stat").get("inactive_file", 0), 0))
    except (OSError, ValueError):  # no limit is spelt "max"
        return free


def _numbers(path: Path) -> dict[str, int]:
    """Return the numbers of a file that has a name and a number on each line."""
    lines = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdecimal()}


def largest_micro_batch(pictures: int, bytes_per_picture: float, free: int | None, workers: int = 1) -> int:
    """Return the largest equal part of a shard whose step fits into memory.

    Args:
        pictures: Pictures of one worker's shard.
        bytes_per_picture: What autograd saves for one of them.
        free: Bytes that all workers together may take; `None`: enough.
        workers: Threads that take a part each at the same time.

    Returns:
        A divisor of `pictures`; 2 at least, unless there is only one.
    """
    fits = pictures if free is None else free / max(OVERHEAD * bytes_per_picture * workers, 1)
    parts = [part for part in range(min(2, pictures), pictures + 1) if pictures % part == 0]
    return max((part for part in parts if part <= fits), default=parts[0])
