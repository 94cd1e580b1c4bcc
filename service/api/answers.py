"""Pictures to HTTP answers: headers, JSON entries, provenance."""

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any

from starlette.types import Receive, Scope

from service import negotiation
from service.api.connection import while_connected
from service.api.inputs import terms_of
from service.batcher import BatchTiming, Terms
from service.known import Picture
from service.pipeline import ServedModel
from service.ready import ReadyResponse, raw
from service.resolver import Order
from service.services import Services

TRAINED_ALGORITHMIC_MEDIA = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
KEPT_TIMING = 'cache;desc="hit", queue;dur=0, forward;dur=0, encode;dur=0'
KEPT_BY_304 = (b"etag", b"cache-control", b"content-location", b"vary")
EXPOSED_HEADERS = (
    "ETag",
    "Content-Location",
    "X-Request-ID",
    "X-Seed",
    "X-Model",
    "X-Model-Digest",
    "Server-Timing",
    "Retry-After",
)


def model_headers(model: ServedModel) -> dict[str, str]:
    """Return the headers that every picture of a model carries."""
    return {
        "X-Model": model.manifest.id,
        "X-Model-Digest": f"sha256:{model.bundle.digest}",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "X-Content-Type-Options": "nosniff",
    }


def at_once(picture: Picture, scope: Scope, services: Services) -> ReadyResponse | None:
    """Answer what needs no drawing: 304 if the client has the picture, the file if the cache has it.

    Args:
        picture: What the request asks for.
        scope: The request.
        services: With the cache.

    Returns:
        The answer, if there is one.
    """
    given = next((value for name, value in scope["headers"] if name == b"if-none-match"), None)
    if given is not None and negotiation.matches(given.decode("latin-1"), picture.etag):
        return ReadyResponse(304, [header for header in picture.headers() if header[0] in KEPT_BY_304])
    body = services.cache.find(picture.etag)
    return None if body is None else _file(picture, body, KEPT_TIMING)


async def drawn(picture: Picture, scope: Scope, receive: Receive, services: Services) -> ReadyResponse:
    """Answer by a file that is made now, for all who ask for it.

    Args:
        picture: What the request asks for; it can be made.
        scope: The request.
        receive: Tells when its client leaves.
        services: With the cache, and the time that a request may take.

    Returns:
        The answer.

    Raises:
        VitrineError: If the queue is full, or as `picture.make`.
        ClientLeft: If the client left.
    """
    terms, cache, make = terms_of(scope, services.settings.request_timeout_s), services.cache, picture.make
    assert make is not None
    if not cache.is_being_made(picture.etag, terms.urgency):
        refusal = picture.refusal(terms.key)
        if refusal is not None:
            raise refusal

    def made(timeout_s: float) -> Awaitable[tuple[bytes, str]]:
        return make(Terms(timeout_s, terms.urgency, terms.key))

    work = cache.get(picture.etag, made, timeout_s=terms.timeout_s, urgency=terms.urgency)
    return _file(picture, *await while_connected(receive, work))


def _file(picture: Picture, body: bytes, timing: str) -> ReadyResponse:
    last = [(b"server-timing", timing.encode()), (b"content-length", str(len(body)).encode())]
    return ReadyResponse(200, picture.headers() + last, body)


def server_timing(timing: BatchTiming, encode_s: float) -> str:
    """Return the `Server-Timing` header, in milliseconds."""
    return (
        f"queue;dur={timing.queue_s * 1000:.2f}, forward;dur={timing.run_s * 1000:.2f}, "
        f"encode;dur={encode_s * 1000:.2f}"
    )


def timing_ms(timing: BatchTiming, encode_s: float) -> dict[str, float]:
    """Return the same for a JSON answer."""
    spans = {"queue": timing.queue_s, "forward": timing.run_s, "encode": encode_s}
    return {name: round(seconds * 1000, 2) for name, seconds in spans.items()}


def label_entry(model: ServedModel, label: int) -> dict[str, Any] | None:
    """Return a label as JSON; `None` for an unconditional model."""
    labels = model.manifest.labels
    return {"index": label, "name": labels[label].name} if labels else None


def model_facts(model: ServedModel, truncation_psi: float) -> dict[str, str]:
    """Return what is embedded in all that a model draws: where it comes from, and that it is synthetic (IPTC)."""
    return {
        "Software": "Vitrine",
        "Model": model.manifest.id,
        "Model digest": f"sha256:{model.bundle.digest}",
        "Truncation psi": str(truncation_psi),
        "Digital source type": TRAINED_ALGORITHMIC_MEDIA,
    }


def seeds_fact(seeds: Sequence[int | None]) -> dict[str, str]:
    """Return the seeds behind several pictures, for embedding; nothing where there are none."""
    known = [str(seed) for seed in seeds if seed is not None]
    return {"Seeds": ", ".join(known)} if known else {}


def provenance(model: ServedModel, order: Order) -> dict[str, str]:
    """Return what is embedded in one picture."""
    facts = model_facts(model, order.sample.truncation_psi)
    if order.seed is not None:
        facts["Seed"] = str(order.seed)
    if model.manifest.labels:
        facts["Label"] = model.manifest.labels[order.label].name
    return facts


def not_modified(headers: Mapping[str, str]) -> ReadyResponse:
    """Return a 304 with the headers that a 200 would have had (RFC 9110, section 15.4.5)."""
    return ReadyResponse(304, [header for header in raw(headers) if header[0] in KEPT_BY_304])


def seeds_header(seeds: Iterable[int | None]) -> str:
    """Return `X-Seed`."""
    return ",".join(map(str, seeds))


def link_parameters(model: ServedModel, order: Order, look: Mapping[str, object]) -> dict[str, object]:
    """Return a permanent link's parameters: the label always, the rest where it differs from the default."""
    parameters: dict[str, object] = {}
    if model.manifest.labels:
        parameters["label"] = model.manifest.labels[order.label].name
    if order.sample.truncation_psi != model.manifest.defaults.truncation_psi:
        parameters["truncation_psi"] = order.sample.truncation_psi  # every digit: the link is to give these pixels
    return parameters | {name: value for name, value in look.items() if value is not None}
