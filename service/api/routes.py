"""How the routes are called."""

from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send


class PlainRoute(APIRoute):
    """A route whose function takes the request and returns the response.

    FastAPI's own way there solves dependencies, keeps stacks of what they have to close, and serialises results; such a
    function has none of these. Its place in the OpenAPI document stays, and errors go the application's way.
    """

    def __init__(self, path: str, endpoint: Any, **options: Any) -> None:
        super().__init__(path, endpoint, **options)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            response = await endpoint(Request(scope, receive, send))
            await response(scope, receive, send)

        self.app = app
