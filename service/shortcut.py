"""Pure ASGI before the routes: answers requests whose like was made before without parsing them."""

from fastapi import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import answers
from service.errors import VitrineError
from service.problems import problem_response
from service.services import Services


class Shortcut:
    """Answer a GET whose meaning is known: by 304, by the kept file, or by one that is drawn.

    Args:
        app: The routes.
        services: With what requests mean, and the cache.
    """

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app, self._services = app, services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand the request on."""
        services = self._services
        found = services.known.find(scope) if scope["type"] == "http" and scope["method"] == "GET" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        picture, route = found
        answer = answers.at_once(picture, scope, services)
        if answer is None and picture.make is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        response: Response
        try:
            response = answer or await answers.drawn(picture, scope, receive, services)
        except VitrineError as error:
            response = problem_response(error, scope["vitrine.request_id"])
        await response(scope, receive, send)
