"""Requests to validated parameters: the query, the JSON body, the headers."""

import hashlib
import json
import re
import secrets
from collections import Counter
from collections.abc import Hashable
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from service.api.connection import ClientLeft
from service.batcher import DEFAULT_URGENCY, Terms
from service.errors import FieldError, InvalidParameters, Malformed, TooLarge, UnsupportedMediaType
from service.problems import invalid_parameters, pointer_to
from service.rng import MAX_SEED
from service.sampler import seed_from

Model = TypeVar("Model", bound=BaseModel)
MAX_BODY_BYTES, MAX_LATENTS_BODY_BYTES = 64 << 10, 1 << 20
_URGENCY = re.compile(r"(?:^|[,\s])u\s*=\s*([0-7])\s*(?:$|[,;])")
_PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?(?:$|[,;\s])")


def parse_query(request: Request, model: type[Model]) -> Model:
    """Return the query's parameters.

    Args:
        request: The request.
        model: What the parameters may be.

    Returns:
        The parameters, validated.

    Raises:
        InvalidParameters: If one is unknown, repeated, missing or out of range.
    """
    pairs = request.query_params.multi_items()
    _refuse_repeated(pairs)
    try:
        return model.model_validate(dict(pairs))
    except ValidationError as error:
        raise invalid_parameters(error) from error


async def parse_body(request: Request, model: type[Model]) -> Model:
    """Return the JSON body.

    Args:
        request: The request.
        model: What the body may be.

    Returns:
        The body, validated.

    Raises:
        UnsupportedMediaType: If it is not sent as JSON.
        TooLarge: If it is longer than allowed.
        Malformed: If it is not JSON.
        InvalidParameters: If a field is unknown, repeated, missing or out of range.
        ClientLeft: If the client left before the body's end.
    """
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaType(f"the body is sent as {media_type!r}; send application/json")
    body = await _read_bounded(request)
    request.scope["vitrine.body"] = hash(body)
    if not body:
        raise Malformed("the body is empty; send a JSON object, {} for all defaults")
    try:
        parsed = model.model_validate_json(body)
    except ValidationError as error:
        raise invalid_parameters(error) from error
    json.loads(body, object_pairs_hook=_refuse_repeated)
    return parsed


async def _read_bounded(request: Request) -> bytes:
    """Return the body, of which only one that names latents may have more than `MAX_BODY_BYTES`."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_LATENTS_BODY_BYTES:
                raise TooLarge(f"the body is longer than {MAX_LATENTS_BODY_BYTES} bytes")
    except ClientDisconnect:
        raise ClientLeft from None
    if len(body) > MAX_BODY_BYTES and b'"latent' not in body:
        raise TooLarge(
            f"the body is longer than {MAX_BODY_BYTES} bytes; only latents may take {MAX_LATENTS_BODY_BYTES}"
        )
    return bytes(body)


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
    """Refuse names that are given more than once, in a query or in an object of a body."""
    if len(pairs) == len({name for name, _ in pairs}):
        return
    repeated = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if repeated:
        fields = tuple(FieldError(pointer_to(name), "given more than once") for name in repeated)
        raise InvalidParameters(f"{', '.join(repeated)}: given more than once", errors=fields)


def first_seed(given: int | str | None, request: Request) -> int:
    """Return the request's seed: the given one, else the hash of its `Idempotency-Key`, else a random one."""
    if given is not None:
        return seed_from(given)
    key = request.headers.get("idempotency-key")
    if key:
        return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 11
    return secrets.randbelow(MAX_SEED + 1)


def consecutive(seed: int, count: int) -> list[int]:
    """Return `count` seeds from `seed` on, modulo 2**53."""
    return [(seed + index) % (MAX_SEED + 1) for index in range(count)]


def terms_of(scope: Scope, limit_s: float) -> Terms:
    """Return what a request asks of the queue.

    Args:
        scope: The request; with `Prefer: wait=N` (RFC 7240) it takes less time than the service's limit, with
            `Priority: u=N` (RFC 9218) it has another urgency than 3; what these headers hold besides, or wrongly, is
            ignored.
        limit_s: The service's limit.

    Returns:
        Deadline, urgency and key.
    """
    timeout_s, urgency = limit_s, DEFAULT_URGENCY
    for name, value in scope["headers"]:
        if name == b"prefer" and (wait := _PREFER_WAIT.search(value.decode("latin-1"))):
            timeout_s = min(limit_s, float(wait.group(1)))
        elif name == b"priority" and (given := _URGENCY.search(value.decode("latin-1"))):
            urgency = int(given.group(1))
    return Terms(timeout_s, urgency, key_of(scope))


def key_of(scope: Scope) -> Hashable:
    """Return by what a request is known again if it is refused and comes back: a digest of client, target and body."""
    client = scope.get("client")
    return hash((client[0] if client else "", scope["path"], scope["query_string"], scope.get("vitrine.body")))
