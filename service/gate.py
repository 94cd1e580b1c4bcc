"""Pure ASGI before the routes: refuses pictures while the queue is full, before anything is parsed.

A server that is asked for three times what it can do has to say no twice as often as yes; what a refusal costs, the
pictures lack.
"""

from collections.abc import Sequence
from urllib.parse import parse_qs

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.inputs import key_of
from service.catalogue import Catalogue
from service.problems import problem_response

PREFIXES = ("/generate", "/interpolate", "/i/")


class Gate:
    """Refuse GETs for pictures of a model whose queue is full; whoever has been told to come now is let through.

    Args:
        app: The routes.
        catalogue: The served models.
        routes: The routes of pictures, for logs and metrics.
    """

    def __init__(self, app: ASGIApp, catalogue: Catalogue, routes: Sequence[BaseRoute]) -> None:
        self._app, self._catalogue = app, catalogue
        self._routes = {
            prefix: next(route for route in routes if getattr(route, "path", "").startswith(prefix))
            for prefix in PREFIXES
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or hand it on."""
        asked = scope["type"] == "http" and scope["method"] == "GET"
        prefix = next((prefix for prefix in PREFIXES if scope["path"].startswith(prefix)), None) if asked else None
        if prefix is not None:
            model = self._catalogue.find(_model_of(scope))
            refusal = model.refusal(key_of(scope)) if model is not None else None
            if refusal is not None:
                scope["route"] = self._routes[prefix]
                await problem_response(refusal, scope["vitrine.request_id"])(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _model_of(scope: Scope) -> str | None:
    """Return the model that a path or a query names."""
    if scope["path"].startswith("/i/"):
        return str(scope["path"]).split("/")[2]
    if b"model=" not in scope["query_string"]:
        return None
    query: bytes = scope["query_string"]
    return parse_qs(query.decode("latin-1")).get("model", [""])[0]
