"""What a device reaches at best: a large matrix product, a large copy within its memory."""

import time
from collections.abc import Callable

import torch

from benchmarks.serving.roofline import Peaks

MATRIX = {"cpu": 1024, "cuda": 8192}  # rows and columns: enough to keep all of a device's units busy
COPY_BYTES = {"cpu": 1 << 27, "cuda": 1 << 30}  # far more than the caches hold
ROUNDS = 5


def measured(device: torch.device, dtype: torch.dtype, seconds: float) -> Peaks:
    """Return the peaks of a device.

    Args:
        device: CPU or CUDA.
        dtype: Of the product; float32 as TF32 where the device has that, since cuDNN's convolutions take it too.
        seconds: How long each may take, about.

    Returns:
        The peaks, each of the best round.
    """
    size = MATRIX[device.type]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    source = torch.zeros(COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        product_s = min(seconds_per_call(lambda: a @ b, device, seconds / ROUNDS) for _ in range(ROUNDS))
    finally:
        torch.set_float32_matmul_precision(precision)
    copy_s = min(seconds_per_call(lambda: target.copy_(source), device, seconds / ROUNDS) for _ in range(ROUNDS))
    return Peaks(2 * size**3 / product_s, 2 * len(source) / copy_s)


def seconds_per_call(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Return how long a call takes on the device when many follow each other.

    Args:
        call: What is called, over and over.
        device: What is waited for at the end.
        seconds: How long to measure, about.

    Returns:
        Seconds, the mean.
    """
    call()
    number = 1
    while True:
        synchronise(device)
        started = time.perf_counter()
        for _ in range(number):
            call()
        synchronise(device)
        spent = time.perf_counter() - started
        if spent >= seconds / 2:
            return spent / number
        number = max(2 * number, int(number * seconds / max(spent, 1e-6)))


def synchronise(device: torch.device) -> None:
    """Wait until a device has done what it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
