"""Where a generator lies, and in how large batches it runs there."""

import torch


def batch_sizes(max_batch_size: int, device: torch.device) -> tuple[int, ...]:
    """Return the batch sizes that will run, ascending; others are padded.

    Each of them takes part of the start, when it is compared with the largest. So there are powers of two on a GPU,
    where a few rows more cost little, and on a CPU every size up to 8, then every 2nd up to 16, every 4th up to 32 and
    so on: less than a fifth of a batch is padding.
    """
    if device.type == "cpu":
        sizes = {size for size in range(1, max_batch_size + 1) if size % _step(size) == 0}
    else:
        sizes = {1 << exponent for exponent in range(max_batch_size.bit_length())}
    return tuple(sorted({size for size in sizes if size <= max_batch_size} | {max_batch_size}))


def _step(size: int) -> int:
    """Return 1 up to 8, 2 up to 16, 4 up to 32 and so on."""
    return 1 << max((size - 1).bit_length() - 3, 0)


def choose_device(name: str) -> torch.device:
    """Return the device to run on.

    Args:
        name: "auto", "cpu" or "cuda".

    Returns:
        The device; for "auto" CUDA where there is one.

    Raises:
        ValueError: If CUDA was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("VITRINE_DEVICE=cuda, but this torch sees no CUDA device; use auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def make_repeatable() -> None:
    """Have cuDNN give the same bytes every time, in the whole process.

    Left to itself it may take kernels, for transposed convolutions above all, that add in the order in which threads
    happen to finish.
    """
    torch.backends.cudnn.deterministic = True


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether torch ran out of memory, on a GPU or a CPU; TorchScript leaves nothing but the message."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    message = str(error)
    return any(words in message for words in ("out of memory", "can't allocate memory", "not enough memory"))


def reason(error: RuntimeError) -> str:
    """Return the line of an error that says what happened.

    TorchScript puts where it happened before it, and CUDA puts advice after it.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return next((line for line in lines if "CUDA error" in line or "CUDA out of memory" in line), lines[-1])


def answers(device: torch.device) -> bool:
    """Tell whether a device still computes: after some CUDA errors it does not until the process ends."""
    try:
        torch.ones(1, device=device).add_(1).item()
    except RuntimeError:
        return False
    return True
