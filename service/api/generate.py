"""`/generate` and the permanent link: pictures by seed."""

import base64
import json
import math
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from service import negotiation
from service.api import answers
from service.api.connection import while_connected
from service.api.inputs import consecutive, first_seed, parse_body, parse_query, terms_of
from service.api.looks import look
from service.api.routes import PlainRoute
from service.batcher import Terms
from service.encoder import ENCODER_VERSION, StillFormat
from service.errors import InvalidParameters, NotFound
from service.negotiation import MEDIA_TYPES, Representation
from service.pipeline import Look, ServedModel
from service.resolver import Order
from service.sampler import seed_from
from service.schemas import (
    GenerateBody,
    GenerateQuery,
    PermalinkQuery,
    openapi_body,
    openapi_parameters,
    openapi_responses,
)
from service.services import Services, services_of

router = APIRouter(tags=["pictures"], route_class=PlainRoute)
FORMATS: tuple[StillFormat, ...] = ("png", "jpeg", "webp", "avif")
_IMAGES = tuple(MEDIA_TYPES[form] for form in FORMATS)


@dataclass(frozen=True, slots=True)
class Job:
    """A request for pictures, resolved against its model."""

    model: ServedModel
    orders: list[Order]
    look: Look
    representation: Representation
    columns: int  # of the sheet; 0: not a sheet
    metadata: bool
    link_look: dict[str, object]

    @property
    def form(self) -> StillFormat:
        """The pictures' format."""
        form: StillFormat = self.representation.format  # type: ignore[assignment]
        return form

    @property
    def headers(self) -> dict[str, str]:
        """The headers that say what was drawn; with the permanent link, where it is one picture that has one."""
        headers = answers.model_headers(self.model)
        if self.representation.vary:
            headers["Vary"] = "Accept"
        if self.orders[0].seed is not None:
            headers["X-Seed"] = ",".join(str(order.seed) for order in self.orders)
        if self.representation.kind == "image" and not self.columns:
            url = answers.picture_url(self.model, self.orders[0], self.form, self.link_look)
            if url:
                headers["Content-Location"] = url
        return headers


@router.get(
    "/generate",
    responses=openapi_responses(*_IMAGES, negotiation.JSON),
    response_class=Response,
    openapi_extra={"parameters": openapi_parameters(GenerateQuery)},
)
async def get_generate(request: Request) -> Response:
    """Draw one picture, or a contact sheet, for an `<img src>`."""
    query = parse_query(request, GenerateQuery)
    services = services_of(request)
    model = services.catalogue.get(query.model)
    label = None if query.label is None else model.resolver.label(query.label)
    _check_n("n", query.n, services)
    seeds = consecutive(first_seed(query.seed, request), query.n)
    orders = model.resolver.orders(seeds, [label] * query.n, query.truncation_psi)
    job = _job(request, services, model, orders, query)
    cache = negotiation.cache_control(versioned="@" in (query.model or ""), seeded=query.seed is not None)
    return await _answer_get(request, services, job, cache, query.download)


@router.get(
    "/i/{model_id}/{file_name}",
    responses=openapi_responses(*_IMAGES),
    response_class=Response,
    openapi_extra={
        "parameters": [
            {"name": "model_id", "in": "path", "required": True, "schema": {"type": "string"}},
            {"name": "file_name", "in": "path", "required": True, "schema": {"type": "string"}},
            *openapi_parameters(PermalinkQuery),
        ]
    },
)
async def get_permalink(request: Request) -> Response:
    """Draw the picture of a permanent link, `/i/{model}@{version}/{seed}.{ext}`."""
    model_id, file_name = request.path_params["model_id"], request.path_params["file_name"]
    seed_text, dot, extension = file_name.rpartition(".")
    name, at, version = model_id.partition("@")
    if not (dot and at and name and version.isdecimal() and extension in negotiation.EXTENSIONS and seed_text):
        known = ", ".join(negotiation.EXTENSIONS)
        raise NotFound(f"{request.url.path} is no permanent link: /i/{{model}}@{{version}}/{{seed}}.{{{known}}}")
    query = parse_query(request, PermalinkQuery)
    services = services_of(request)
    model = services.catalogue.get(model_id)
    try:
        seed = seed_from(seed_text)
    except ValueError as error:
        raise InvalidParameters.of("/seed", str(error)) from error
    form = negotiation.EXTENSIONS[extension]
    label = None if query.label is None else model.resolver.label(query.label)
    orders = model.resolver.orders([seed], [label], query.truncation_psi)
    job = Job(
        model,
        orders,
        _look(services, model, query, form, query.quality),
        Representation("image", form, vary=False),
        columns=0,
        metadata=query.metadata,
        link_look=_link_look(query, form),
    )
    return await _answer_get(request, services, job, negotiation.IMMUTABLE, query.download)


@router.post(
    "/generate",
    responses=openapi_responses(*_IMAGES, negotiation.JSON),
    response_class=Response,
    openapi_extra=openapi_body(GenerateBody),
)
async def post_generate(request: Request) -> Response:
    """Draw 1..n pictures: one image, a contact sheet, or JSON."""
    body = await parse_body(request, GenerateBody)
    services = services_of(request)
    model = services.catalogue.get(body.model)
    counted, count = body.count
    _check_n(counted, count, services)
    if body.labels is not None:
        labels: list[int | None] = [model.resolver.label(value, f"/labels/{i}") for i, value in enumerate(body.labels)]
    else:
        labels = [None if body.label is None else model.resolver.label(body.label)] * count
    if body.latents is not None:
        orders = model.resolver.orders_from_latents(body.latents, labels, body.truncation_psi)
    else:
        if body.seeds is not None:
            seeds = [seed_from(value) for value in body.seeds]
        else:
            seeds = consecutive(first_seed(body.seed, request), count)
        orders = model.resolver.orders(seeds, labels, body.truncation_psi)
    job = _job(request, services, model, orders, body)
    terms = terms_of(request, services.settings.request_timeout_s)
    headers = {"Cache-Control": negotiation.NO_STORE, **job.headers}
    if job.representation.kind == "json":
        return await while_connected(request, _json(job, terms, body.include, headers))
    return await while_connected(request, _image(job, terms, headers))


def _check_n(counted: str, count: int, services: Services) -> None:
    if count > services.settings.max_n:
        raise InvalidParameters.of(f"/{counted}", f"{count} pictures are more than {services.settings.max_n}")


def _job(
    request: Request,
    services: Services,
    model: ServedModel,
    orders: list[Order],
    parameters: GenerateQuery | GenerateBody,
) -> Job:
    representation = negotiation.represent(request.headers.get("accept"), parameters.format, FORMATS)
    count = len(orders)
    if parameters.layout == "single" and count > 1 and representation.kind == "image":
        raise InvalidParameters.of(
            "/layout", f"single is for one picture, and n is {count}; use sheet, or ask for JSON"
        )
    as_sheet = representation.kind == "image" and (parameters.layout == "sheet" or count > 1)
    columns = (parameters.columns or math.ceil(math.sqrt(count))) if as_sheet else 0
    chosen_for_client = parameters.format == "auto" and representation.format == "png"
    quality = None if chosen_for_client else parameters.quality
    return Job(
        model,
        orders,
        _look(services, model, parameters, representation.format, quality, count, columns),
        representation,
        columns=columns,
        metadata=parameters.metadata,
        link_look=_link_look(parameters, representation.format),
    )


def _look(
    services: Services,
    model: ServedModel,
    parameters: GenerateQuery | GenerateBody | PermalinkQuery,
    form: str,
    quality: int | None,
    count: int = 1,
    columns: int = 0,
) -> Look:
    return look(
        model,
        form=form,
        count=count,
        columns=columns,
        size=parameters.size,
        background=parameters.background,
        quality=quality,
        max_megapixels=services.settings.max_megapixels,
    )


def _link_look(parameters: GenerateQuery | GenerateBody | PermalinkQuery, form: str) -> dict[str, object]:
    return {
        "size": parameters.size,
        "quality": parameters.quality if form != "png" else None,
        "background": parameters.background if parameters.background not in ("auto", "transparent") else None,
        "metadata": None if parameters.metadata else "false",
    }


async def _answer_get(request: Request, services: Services, job: Job, cache: str, download: str | None) -> Response:
    headers = {"Cache-Control": cache, **job.headers}
    if download is not None:
        headers["Content-Disposition"] = f'attachment; filename="{download}"'
    terms = terms_of(request, services.settings.request_timeout_s)
    as_json = job.representation.kind == "json"
    if cache != negotiation.NO_STORE:
        headers["ETag"] = _etag(job)
        if not as_json:
            form = MEDIA_TYPES[job.form]
            return await answers.cacheable(request, services, headers, form, lambda terms: _encoded(job, terms), terms)
        if negotiation.matches(request.headers.get("if-none-match"), headers["ETag"]):
            return answers.not_modified(headers)
    if as_json:
        return await while_connected(request, _json(job, terms, {"b64", "url"}, headers))
    return await while_connected(request, _image(job, terms, headers))


def _etag(job: Job) -> str:
    parameters: dict[str, object] = {
        "seeds": [order.seed for order in job.orders],
        "labels": [order.label for order in job.orders],
        "truncation_psi": job.orders[0].sample.truncation_psi,
        "look": job.look,
        "kind": job.representation.kind,
        "format": job.form,
        "columns": job.columns,
        "metadata": job.metadata,
    }
    return negotiation.etag(job.model.identity, ENCODER_VERSION, parameters)


async def _image(job: Job, terms: Terms, headers: dict[str, str]) -> Response:
    body, timing = await _encoded(job, terms)
    return Response(body, 200, headers | {"Server-Timing": timing}, MEDIA_TYPES[job.form])


async def _encoded(job: Job, terms: Terms) -> tuple[bytes, str]:
    """Return the file, and what `Server-Timing` says of it."""
    text = _text(job)
    if job.columns:
        pixels, timing = await job.model.draw([order.sample for order in job.orders], terms)
        body, encode_s = await job.model.still(pixels, job.look, job.form, text, job.columns)
    else:
        body, timing, encode_s = await job.model.picture(job.orders[0], job.look, job.form, text, terms)
    return body, answers.server_timing(timing, encode_s)


def _text(job: Job) -> dict[str, str] | None:
    """Return the provenance of a picture, or of a sheet: what its pictures have in common, and all seeds."""
    if not job.metadata:
        return None
    first, *others = (answers.provenance(job.model, order) for order in job.orders)
    if not others:
        return first
    common = {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}
    return common | answers.seeds_fact([order.seed for order in job.orders])


async def _json(job: Job, terms: Terms, include: set[Any], headers: dict[str, str]) -> Response:
    model = job.model
    pixels, timing = await model.draw([order.sample for order in job.orders], terms)
    texts = [answers.provenance(model, order) if job.metadata else None for order in job.orders]
    files, encode_s = await model.stills(pixels, job.look, job.form, texts) if "b64" in include else ([], 0.0)
    width, height = model.resolver.output_size(job.look.size)
    images = []
    for index, order in enumerate(job.orders):
        entry: dict[str, Any] = {
            "index": index,
            "seed": order.seed,
            "label": answers.label_entry(model, order.label),
            "truncation_psi": order.sample.truncation_psi,
            "width": width,
            "height": height,
            "media_type": MEDIA_TYPES[job.form],
        }
        if "url" in include:
            entry["url"] = answers.picture_url(model, order, job.form, job.link_look)
        if "b64" in include:
            entry["b64"] = base64.b64encode(files[index]).decode()
        if "latent" in include:
            entry["latent"] = [float(value) for value in model.resolver.latent_of(order)]
        images.append(entry)
    document = {
        "model": model.manifest.id,
        "digest": f"sha256:{model.bundle.digest}",
        "images": images,
        "timing_ms": answers.timing_ms(timing, encode_s),
    }
    headers = headers | {"Server-Timing": answers.server_timing(timing, encode_s)}
    return Response(json.dumps(document), 200, headers, negotiation.JSON)
