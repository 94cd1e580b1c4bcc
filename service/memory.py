"""The memory that loading leaves behind."""

import ctypes
import gc
import sys


def give_back_memory() -> None:
    """Return to the system what was only needed to load and to measure; where the C library cannot, do nothing.

    glibc keeps freed memory for later, and the weights of variants that were tried are as large as those that stay.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)
