"""Pure ASGI before the routes: answers 304 and kept pictures to requests that were made before."""

from starlette.types import ASGIApp, Receive, Scope, Send

from service import negotiation
from service.api.answers import KEPT_TIMING
from service.cache import PictureCache
from service.known import KnownAnswers

_TIMING = (b"server-timing", KEPT_TIMING.encode())


class Shortcut:
    """Answer a GET without parsing it, where what it asks for is known and the client or the cache has it.

    Args:
        app: The routes.
        known: What requests asked for before.
        cache: Encoded pictures.
    """

    def __init__(self, app: ASGIApp, known: KnownAnswers, cache: PictureCache[str]) -> None:
        self._app, self._known, self._cache = app, known, cache

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand the request on."""
        found = self._known.find(scope) if scope["type"] == "http" and scope["method"] == "GET" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        known, route = found
        given = next((value for name, value in scope["headers"] if name == b"if-none-match"), None)
        if given is not None and negotiation.matches(given.decode("latin-1"), known.etag):
            scope["route"] = route
            await send({"type": "http.response.start", "status": 304, "headers": known.not_modified})
            await send({"type": "http.response.body", "body": b""})
            return
        body = self._cache.find(known.etag)
        if body is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        headers = [*known.headers, _TIMING, (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
