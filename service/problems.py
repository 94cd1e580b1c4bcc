"""Any failure as RFC 9457 problem+json: never cacheable, never a traceback."""

import json
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from service.errors import FieldError, Internal, InvalidParameters, Malformed, MethodNotAllowed, NotFound, VitrineError
from service.ready import ReadyResponse, raw

TYPE_BASE = "https://vitrine.invalid/problems/"
_HEADERS = [(b"cache-control", b"no-store"), (b"content-type", b"application/problem+json")]
SHOWN_CHARACTERS = 80
KEPT_CHARACTERS = 200
SHOWN_FIELDS = 16
_log = structlog.get_logger()


def problem_response(error: VitrineError, request_id: str) -> Response:
    """Return the answer for `error`; `request_id` stands as `instance`, so that the log's lines can be found."""
    # Only what we say ourselves is kept: details of wrong fields hold the client's words.
    document = _document if not error.errors and len(error.detail) <= KEPT_CHARACTERS else _document.__wrapped__
    before, after = document(error.slug, error.title, error.status, error.detail, error.errors)
    body = f"{before}{json.dumps(request_id)}{after}".encode()
    headers = [*_HEADERS, *raw(error.headers), (b"content-length", str(len(body)).encode())]
    return ReadyResponse(error.status, headers, body)


@lru_cache(256)  # a server that refuses says the same thousands of times
def _document(slug: str, title: str, status: int, detail: str, errors: tuple[FieldError, ...]) -> tuple[str, str]:
    """Return the problem document before and after its `instance`."""
    document: dict[str, Any] = {
        "type": TYPE_BASE + slug,
        "title": title,
        "status": status,
        "detail": detail,
        "instance": "",
    }
    if errors:
        document["errors"] = [{"pointer": field.pointer, "detail": field.detail} for field in errors]
    before, _, after = json.dumps(document).partition('"instance": ""')
    return f'{before}"instance": ', after


def invalid_parameters(error: ValidationError) -> VitrineError:
    """Return pydantic's findings as one error that names every field, what was given and what is allowed."""
    found = error.errors(include_url=False, include_context=False)
    if found and found[0]["type"] == "json_invalid":
        return Malformed(f"the body is not JSON: {found[0]['msg'].removeprefix('Invalid JSON: ')}")
    fields = _fields(found[: 2 * SHOWN_FIELDS])[:SHOWN_FIELDS]  # a wrong seed or label has two entries
    shown = [f"{field.pointer.lstrip('/') or 'body'}: {field.detail}" for field in fields]
    return InvalidParameters("; ".join(shown), errors=fields)


def pointer_to(*steps: object) -> str:
    """Return the JSON pointer (RFC 6901) to a place in a document."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def _fields(found: Sequence[ErrorDetails]) -> tuple[FieldError, ...]:
    """Return one entry per field: of the branches of a union, all messages."""
    fields: dict[str, FieldError] = {}
    for entry in found:
        unknown = entry["type"] == "extra_forbidden"  # whose last step is the client's own word
        last = len(entry["loc"]) - 1
        steps = (step for i, step in enumerate(entry["loc"]) if not _is_union_branch(step) or (unknown and i == last))
        pointer = pointer_to(*steps)
        given = repr(entry["input"])
        shown = given if len(given) <= SHOWN_CHARACTERS else given[:SHOWN_CHARACTERS] + "..."
        message = entry["msg"].removeprefix("Value error, ")
        if unknown:
            message = "unknown parameter"
        detail = message if entry["type"] == "missing" else f"{message}, got {shown}"
        if pointer in fields:
            detail = f"{fields[pointer].detail.rsplit(', got ', 1)[0]}, or: {detail}"
        fields[pointer] = FieldError(pointer, detail)
    return tuple(fields.values())


def _is_union_branch(step: int | str) -> bool:
    """Tell whether a step of a location names a branch of a union rather than a field."""
    return isinstance(step, str) and (step in ("int", "str", "float", "bool") or "[" in step)


def install(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Make every failure of `app` a problem document; `routes` are where it looks for the methods of an address."""

    async def on_vitrine_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, VitrineError)
        return problem_response(error, request_id_of(request))

    async def on_http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path, method = request.url.path, request.method
        if error.status_code == HTTPStatus.NOT_FOUND:
            problem: VitrineError = NotFound(f"there is nothing at {path}")
        elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = ", ".join(sorted(_methods(routes, request.scope))) or (error.headers or {}).get("Allow", "")
            problem = MethodNotAllowed(f"{path} does not take {method}; it takes {allowed}", headers={"Allow": allowed})
        else:
            _log.error("unexpected HTTP exception", status=error.status_code, detail=error.detail)
            problem = Internal("internal error")
        return problem_response(problem, request_id_of(request))

    app.add_exception_handler(VitrineError, on_vitrine_error)
    app.add_exception_handler(HTTPException, on_http_exception)


def _methods(routes: Sequence[BaseRoute], scope: Scope) -> set[str]:
    """Return every method that the request's address takes; the router knows those of one route only."""
    matching = (route for route in routes if isinstance(route, Route) and route.matches(scope)[0] != Match.NONE)
    return {method for route in matching for method in route.methods or ()}


def request_id_of(request: Request) -> str:
    """Return the id that the middleware gave the request."""
    return str(request.scope.get("vitrine.request_id", ""))
