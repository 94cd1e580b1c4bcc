"""Work that ends when its client leaves."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request

T = TypeVar("T")


class ClientLeft(Exception):  # noqa: N818  named after what happened
    """The client closed the connection before its answer."""


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Return what `work` returns; if the client leaves, cancel it, which frees its images in the queue.

    Args:
        request: Its body must have been read.
        work: What takes time.

    Returns:
        The result of `work`.

    Raises:
        ClientLeft: If the client left.
    """
    task = asyncio.current_task()
    assert task is not None
    left = False

    async def watch() -> None:
        nonlocal left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if left and task.uncancel() == 0:
            raise ClientLeft from None
        raise
    finally:
        watcher.cancel()
