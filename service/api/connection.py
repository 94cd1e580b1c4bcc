"""Work that ends when its client leaves."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.types import Receive

T = TypeVar("T")

UNWATCHED_S = 0.05


class ClientLeft(Exception):  # noqa: N818  named after what happened
    """The client closed the connection before its answer."""


async def while_connected(receive: Receive, work: Awaitable[T]) -> T:
    """Return what `work` returns; if the client leaves, cancel it, which frees its images in the queue.

    Nobody looks for the client during the first `UNWATCHED_S`: most work ends sooner, and costs no task.

    Args:
        receive: Of the request, whose body must have been read.
        work: What takes time.

    Returns:
        The result of `work`.

    Raises:
        ClientLeft: If the client left.
    """
    task = asyncio.current_task()
    assert task is not None
    left = False
    watcher: asyncio.Task[None] | None = None

    async def watch() -> None:
        nonlocal left
        while (await receive())["type"] != "http.disconnect":
            pass
        left = True
        task.cancel()

    def begin_to_watch() -> None:
        nonlocal watcher
        watcher = asyncio.create_task(watch())

    timer = asyncio.get_running_loop().call_later(UNWATCHED_S, begin_to_watch)
    try:
        return await work
    except asyncio.CancelledError:
        if left and task.uncancel() == 0:
            raise ClientLeft from None
        raise
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()
