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
        (33, 0, 1, 1),
        (33, 20 * 100, 1, 11),
    ],
)
def test_largest_micro_batch_divides_and_fits(pictures: int, free: int | None, workers: int, expected: int) -> None:
    """Of the equal parts the largest that fits is taken, or the smallest there is."""
    found = largest_micro_batch(pictures, 100 / OVERHEAD, free, workers)
    assert found == expected


def test_free_bytes_keeps_to_the_limit_of_the_container(tmp_path: Path) -> None:
    """A container's limit counts where it is below what the machine has, less what is used already."""
    machine = free_bytes(torch.device("cpu"), tmp_path)
    assert machine is None or machine > 1e6
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    if machine is not None:
        assert free_bytes(torch.device("cpu"), tmp_path) == 3000
        (tmp_path / "memory.max").write_text("max\n")
        assert (free_bytes(torch.device("cpu"), tmp_path) or 0) > 1e6
