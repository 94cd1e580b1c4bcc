"""Pictures to HTTP answers: headers, JSON entries, provenance."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastapi import Request, Response

from service import negotiation
from service.api.connection import while_connected
from service.batcher import BatchTiming, Terms
from service.known import Known, RawHeaders
from service.pipeline import ServedModel
from service.resolver import Order
from service.services import Services

TRAINED_ALGORITHMIC_MEDIA = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
KEPT_TIMING = 'cache;desc="hit", queue;dur=0, forward;dur=0, encode;dur=0'
KEPT_BY_304 = ("ETag", "Cache-Control", "Content-Location", "Vary")
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


async def cacheable(
    request: Request,
    services: Services,
    headers: Mapping[str, str],
    media_type: str,
    make: Callable[[Terms], Awaitable[tuple[bytes, str]]],
    terms: Terms,
) -> Response:
    """Answer a request whose file has an `ETag`: by 304, by the kept file, or by one that is made now for all who ask.

    Args:
        request: Whose client may leave.
        services: With the cache, and with what requests asked for before, which now holds this one.
        headers: Of the answer, `ETag` among them; without those that differ from one answer to the next.
        media_type: Of the file.
        make: Makes file and `Server-Timing`.
        terms: This request's deadline and urgency.

    Returns:
        The response.

    Raises:
        VitrineError: As `make`.
        ClientLeft: If the client left.
    """
    key = headers["ETag"]
    known = Known(
        key, _raw(headers, media_type), _raw({name: headers[name] for name in KEPT_BY_304 if name in headers})
    )
    services.known.keep(request.scope, known)
    if negotiation.matches(request.headers.get("if-none-match"), key):
        return not_modified(headers)

    def made(timeout_s: float) -> Awaitable[tuple[bytes, str]]:
        return make(replace(terms, timeout_s=timeout_s))

    kept = services.cache.find(key)
    if kept is not None:
        return _file(kept, KEPT_TIMING, known)
    work = services.cache.get(key, made, timeout_s=terms.timeout_s, urgency=terms.urgency)
    return _file(*await while_connected(request, work), known)


def _raw(headers: Mapping[str, str], media_type: str | None = None) -> RawHeaders:
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return raw if media_type is None else [*raw, (b"content-type", media_type.encode())]


def _file(body: bytes, timing: str, known: Known) -> Response:
    response = Response(body)
    response.raw_headers = [*known.headers, (b"server-timing", timing.encode()), *response.raw_headers]
    return response


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


def not_modified(headers: Mapping[str, str]) -> Response:
    """Return a 304 with the headers that a 200 would have had (RFC 9110, section 15.4.5)."""
    return Response(status_code=304, headers={name: headers[name] for name in KEPT_BY_304 if name in headers})


def link_parameters(model: ServedModel, order: Order, look: Mapping[str, object]) -> dict[str, object]:
    """Return a permanent link's parameters: the label always, the rest where it differs from the default."""
    parameters: dict[str, object] = {}
    if model.manifest.labels:
        parameters["label"] = model.manifest.labels[order.label].name
    if order.sample.truncation_psi != model.manifest.defaults.truncation_psi:
        parameters["truncation_psi"] = order.sample.truncation_psi  # every digit: the link is to give these pixels
    return parameters | {name: value for name, value in look.items() if value is not None}


def picture_url(model: ServedModel, order: Order, form: str, look: Mapping[str, object]) -> str | None:
    """Return the permanent link to one picture; `None` for one drawn from a latent, which has no seed."""
    if order.seed is None:
        return None
    return negotiation.permalink(model.manifest.id, order.seed, form, link_parameters(model, order, look))
