"""The threads that encode, so that the event loop does not."""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Encoder:
    """Run functions of this package, or of its callers, on a bounded number of threads.

    Codecs release the GIL, so threads encode side by side. What waits for a thread is bounded by the queue that
    admitted it. Threads start when they are needed.

    Args:
        threads: Upper bound of functions that run at once, at least 1.

    Raises:
        ValueError: If `threads` is below 1.
    """

    def __init__(self, threads: int) -> None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="encode")

    async def run(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function on one of the threads and await what it returns.

        A caller that is cancelled takes its call out of the queue, if it has not begun.

        Args:
            fn: What to call; it must be safe on any thread.
            *args: Its arguments.
            **kwargs: Its keyword arguments.

        Returns:
            What it returned; what it raises is raised here.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, functools.partial(fn, *args, **kwargs))

    def close(self) -> None:
        """Wait for the calls that run, cancel those that do not yet, and take no more; a second time does nothing."""
        self._executor.shutdown(wait=True, cancel_futures=True)
