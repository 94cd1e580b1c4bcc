"""Where a generator lies, and in how large batches it runs there."""

import torch


def batch_sizes(max_batch_size: int, device: torch.device) -> tuple[int, ...]:
    """Return the batch sizes that will run, ascending: every one on a CPU, powers of two and the largest on a GPU."""
    if device.type == "cpu":
        return tuple(range(1, max_batch_size + 1))
    powers = {1 << exponent for exponent in range(max_batch_size.bit_length())}
    return tuple(sorted({size for size in powers if size <= max_batch_size} | {max_batch_size}))


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


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether torch ran out of memory, on a GPU or a CPU; TorchScript leaves nothing but the message."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    message = str(error)
    return any(words in message for words in ("out of memory", "can't allocate memory", "not enough memory"))


def answers(device: torch.device) -> bool:
    """Tell whether a device still computes: after some CUDA errors it does not until the process ends."""
    try:
        torch.ones(1, device=device).add_(1).item()
    except RuntimeError:
        return False
    return True
