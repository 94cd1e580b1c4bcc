"""Work ends when its client leaves, and only then."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import Request

from service.api.connection import ClientLeft, while_connected


class Client:
    """The client's side of a request: quiet until it leaves."""

    def __init__(self, *chunks: dict[str, Any]) -> None:
        self._chunks: Iterator[dict[str, Any]] = iter(chunks)
        self.left = asyncio.Event()
        self.request = Request({"type": "http", "method": "GET", "headers": []}, self._receive)

    async def _receive(self) -> dict[str, Any]:
        for chunk in self._chunks:
            return chunk
        await self.left.wait()
        return {"type": "http.disconnect"}


class Work:
    """Something that takes until it is allowed to end, and notices its cancellation."""

    def __init__(self) -> None:
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()
        self.cancelled = False

    async def __call__(self) -> str:
        self.begun.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return "picture"


async def test_result_is_returned_while_the_client_stays() -> None:
    """A client that waits gets what the work returns, and nothing is left behind."""
    client, work = Client({"type": "http.request", "body": b"", "more_body": False}), Work()
    work.may_end.set()
    assert await while_connected(client.request.receive, work()) == "picture"
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_client_that_leaves_cancels_the_work() -> None:
    """The work of a departed client is cancelled, and its handler told."""
    client, work = Client(), Work()
    task = asyncio.create_task(while_connected(client.request.receive, work()))
    await work.begun.wait()
    client.left.set()
    with pytest.raises(ClientLeft):
        await task
    assert work.cancelled
    assert not task.cancelled()


async def test_error_of_the_work_is_raised() -> None:
    """An error passes through while the client stays."""

    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await while_connected(Client().request.receive, fail())


async def test_cancellation_from_outside_is_not_taken_for_a_departure() -> None:
    """A server that stops cancels handlers; that stays a cancellation."""
    client, work = Client(), Work()
    task = asyncio.create_task(while_connected(client.request.receive, work()))
    await work.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert work.cancelled


async def test_cancellation_together_with_a_departure_stays_a_cancellation() -> None:
    """Where both happen at once the server's wish goes first."""
    client, work = Client(), Work()
    task = asyncio.create_task(while_connected(client.request.receive, work()))
    await work.begun.wait()
    client.left.set()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_departure_after_the_result_changes_nothing() -> None:
    """A client that leaves when its answer is ready does not cancel what comes after."""
    client, work = Client(), Work()
    work.may_end.set()
    assert await while_connected(client.request.receive, work()) == "picture"
    client.left.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (task := asyncio.current_task()) is not None
    assert not task.cancelling()
