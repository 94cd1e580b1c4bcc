from pathlib import Path

import pytest
import torch

from training.memory import OVERHEAD, SavedTensors, free_bytes, largest_micro_batch


def test_saved_tensors_counts_each_storage_once() -> None:
    """Two operations that save the same activation take its memory once; a second activation adds its own."""
    x = torch.randn(10, 100, requires_grad=True)
    counter = SavedTensors()
    with counter.counted():
        y = x * 2  # saves nothing of its size
        z = (y.square() + y.square()).sum()  # both save y
    assert counter.num_bytes == 10 * 100 * 4
    with counter.counted():
        z = z + (x * 3).exp().sum()  # saves its result
    assert counter.num_bytes == 2 * 10 * 100 * 4
    z.backward()


@pytest.mark.parametrize(
    ("pictures", "free", "workers", "expected"),
    [
        (32, None, 2, 32),
        (32, 32 * 100, 1, 32),
        (32, 32 * 100, 2, 16),
        (32, 31 * 100, 1, 16),
        (48, 20 * 100, 1, 16),
        (32, 0, 1, 2),
        (33, 0, 1, 3),
        (1, 0, 1, 1),
        (33, 20 * 100, 1, 11),
    ],
)
def test_largest_micro_batch_divides_and_fits(pictures: int, free: int | None, workers: int, expected: int) -> None:
    """Of the equal parts the largest that fits is taken, or the smallest there is."""
    found = largest_micro_batch(pictures, 100 / OVERHEAD, free, workers)
    assert found == expected


def test_free_bytes_count_what_would_give_way(tmp_path: Path) -> None:
    """Of the machine what is available, of a container its limit without caches of files, whichever is less."""
    meminfo, cpu = tmp_path / "meminfo", torch.device("cpu")
    assert free_bytes(cpu, meminfo, tmp_path) is None
    meminfo.write_text("MemTotal: 900 kB\nMemFree: 1 kB\nMemAvailable: 100 kB\n")
    assert free_bytes(cpu, meminfo, tmp_path) == 102_400
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("4500\n")
    (tmp_path / "memory.stat").write_text("anon 1500\ninactive_file 3000\n")
    assert free_bytes(cpu, meminfo, tmp_path) == 3500
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(cpu, meminfo, tmp_path) == 102_400


def test_free_bytes_of_this_machine() -> None:
    """Where it says anything, a test can run in it."""
    found = free_bytes(torch.device("cpu"))
    assert found is None or found > 1e6
