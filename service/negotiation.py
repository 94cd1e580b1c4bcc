"""`Accept`, `ETag`, `Cache-Control` and canonical links; pure functions."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal
from urllib.parse import quote, urlencode

from service.errors import NotAcceptable

MEDIA_TYPES = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "avif": "image/avif",
    "gif": "image/gif",
}
JSON = "application/json"
EXTENSIONS = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp", "avif": "avif"}
SMALLEST_FIRST = ("avif", "webp", "png", "jpeg")
IMMUTABLE = "public, max-age=31536000, immutable"
SHORT = "public, max-age=60, stale-while-revalidate=600"
NO_STORE = "no-store"


@dataclass(frozen=True, slots=True)
class Representation:
    """What to answer with: the body's kind, the pictures' format, and whether `Accept` had a say in it."""

    kind: Literal["image", "json"]
    format: str
    vary: bool


def qualities(accept: str) -> dict[str, float]:
    """Return the media ranges of an `Accept` header with their q-values (RFC 9110, section 12.5.1).

    A q-value that is no number counts as 0; parameters other than q are ignored.
    """
    ranges: dict[str, float] = {}
    for part in accept.split(","):
        media_range, *parameters = (piece.strip() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "q":
                try:
                    quality = min(max(0.0, float(value)), 1.0)  # in this order, "nan" is 0
                except ValueError:
                    quality = 0.0
        if media_range:
            ranges[media_range.lower()] = quality
    return ranges


@lru_cache(1024)  # clients send few kinds of headers; one that varies them only pays for itself
def represent(accept: str | None, explicit: str | None, formats: tuple[str, ...]) -> Representation:
    """Choose the answer's representation.

    PNG unless the client asks otherwise: a header that accepts PNG, be it by a wildcard, gets PNG, so that browsers
    and caches see one picture per URL. JSON has to be named. An explicit format wins over a header that only names
    images; `auto` takes the smallest format that the header names. Since JSON can be had at every address, the answer
    always varies with the header.

    Args:
        accept: The `Accept` header, if there is one.
        explicit: The `format` parameter, if there is one.
        formats: The image formats that can be made here.

    Returns:
        What is to be sent.

    Raises:
        NotAcceptable: If the header names nothing that can be made.
    """
    ranges = qualities(accept or "*/*")
    wildcard = ranges.get("image/*", ranges.get("*/*", 0.0))
    image_quality = {name: ranges.get(MEDIA_TYPES[name], wildcard) for name in formats}
    json_quality = ranges.get(JSON, ranges.get("application/*", 0.0))
    fixed = explicit if explicit != "auto" else None
    any_image = max(
        [*image_quality.values(), wildcard, *(q for name, q in ranges.items() if name.startswith("image/"))]
    )
    usable = max(image_quality.values()) if fixed is None else any_image

    if json_quality > 0 and json_quality >= image_quality["png"] and json_quality >= usable:
        return Representation("json", fixed or "png", vary=True)
    if usable <= 0:
        offered = ", ".join([*(MEDIA_TYPES[name] for name in formats), JSON])
        raise NotAcceptable(f"Accept {accept!r} names nothing that can be made here; it can be one of {offered}")
    if fixed:
        return Representation("image", fixed, vary=True)
    if explicit == "auto":
        named = [name for name in SMALLEST_FIRST if name in formats and ranges.get(MEDIA_TYPES[name], 0.0) > 0]
        return Representation("image", named[0] if named else "png", vary=True)
    if image_quality["png"] > 0:
        return Representation("image", "png", vary=True)
    return Representation("image", max(formats, key=lambda name: image_quality[name]), vary=True)


class Validator:
    """Makes the weak validators of pictures that are drawn by one model and sent in one way.

    Args:
        model: The model's identity.
        encoder: The encoder's version.
        parameters: All that the bytes depend on besides, in canonical form, but for what `etag` is given.
    """

    def __init__(self, model: str, encoder: str, parameters: Mapping[str, object]) -> None:
        lines = [model, encoder, *(f"{key}={parameters[key]!r}" for key in sorted(parameters)), ""]
        self._digest = hashlib.sha256("\n".join(lines).encode())

    def etag(self, pictures: object) -> str:
        """Return the validator of what differs from one picture to the next; its `repr` says all of it."""
        digest = self._digest.copy()
        digest.update(repr(pictures).encode())
        return f'W/"{base64.urlsafe_b64encode(digest.digest()[:16]).decode().rstrip("=")}"'


def matches(if_none_match: str | None, tag: str) -> bool:
    """Tell whether an `If-None-Match` header names `tag`, by weak comparison (RFC 9110, section 13.1.2)."""
    if if_none_match is None:
        return False
    opaque = tag.removeprefix("W/")
    return if_none_match.strip() == "*" or opaque in (
        entry.strip().removeprefix("W/") for entry in if_none_match.split(",")
    )


def cache_control(*, versioned: bool, seeded: bool) -> str:
    """Return the header of a picture fetched by GET: what names its version and seed never changes."""
    if not seeded:
        return NO_STORE
    return IMMUTABLE if versioned else SHORT


def link_query(parameters: Mapping[str, object]) -> str:
    """Return the query of a permanent link; `parameters` are the ones that differ from the default."""
    query = urlencode({key: str(parameters[key]) for key in parameters})
    return f"?{query}" if query else ""


def permalink_base(model_id: str) -> str:
    """Return the beginning of a model's permanent links."""
    return f"/i/{quote(model_id, safe='@')}/"


def permalink(base: str, seed: int, extension: str, query: str) -> str:
    """Return the path of the permanent link to one picture, of `permalink_base` and `link_query`."""
    return f"{base}{seed}.{extension}{query}"
