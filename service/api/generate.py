"""`/generate` and the permanent link: pictures by seed."""

import base64
import json
import math
from typing import Any

from fastapi import APIRouter, Request, Response

from service import negotiation
from service.api import answers
from service.api.connection import while_connected
from service.api.inputs import consecutive, first_seed, parse_body, parse_query, terms_of
from service.api.looks import look
from service.api.recipe import Recipe
from service.api.routes import PlainRoute
from service.api.series import Series
from service.batcher import Terms
from service.encoder import StillFormat
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
    recipe = _recipe(request, services, model, query.n, query)
    cache = negotiation.cache_control(versioned="@" in (query.model or ""), seeded=query.seed is not None)
    headers = {"Cache-Control": cache, **_attachment(query.download)}
    series = Series(recipe, count=query.n, label=label, truncation_psi=query.truncation_psi, headers=headers)
    seed = first_seed(query.seed, request)
    if cache != negotiation.NO_STORE and recipe.representation.kind == "image":
        return await _answer(request, services, series, seed)
    orders = series.orders(seed)
    headers = series.headers | {"X-Seed": answers.seeds_header(order.seed for order in orders)}
    if cache != negotiation.NO_STORE:
        headers["ETag"] = series.etag(seed)
        if negotiation.matches(request.headers.get("if-none-match"), headers["ETag"]):
            return answers.not_modified(headers)
    return await _made(request, services, recipe, orders, {"b64", "url"}, headers)


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
    recipe = Recipe(
        model,
        _look(services, model, query, form, query.quality),
        Representation("image", form, vary=False),
        columns=0,
        metadata=query.metadata,
        link_look=_link_look(query, form),
    )
    headers = {"Cache-Control": negotiation.IMMUTABLE, **_attachment(query.download)}
    series = Series(recipe, count=1, label=label, truncation_psi=query.truncation_psi, headers=headers)
    return await _answer(request, services, series, seed)


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
    recipe = _recipe(request, services, model, count, body)
    headers = {"Cache-Control": negotiation.NO_STORE, **recipe.headers}
    if orders[0].seed is not None:
        headers["X-Seed"] = answers.seeds_header(order.seed for order in orders)
    return await _made(request, services, recipe, orders, body.include, headers)


async def _answer(request: Request, services: Services, series: Series, seed: int) -> Response:
    """Answer a GET by a picture that can be kept, and remember what the request means."""
    services.known.keep(request.scope, lambda other: series.picture(seed if other is None else other))
    picture, scope = series.picture(seed), request.scope
    return answers.at_once(picture, scope, services) or await answers.drawn(picture, scope, request.receive, services)


async def _made(
    request: Request,
    services: Services,
    recipe: Recipe,
    orders: list[Order],
    include: set[Any],
    headers: dict[str, str],
) -> Response:
    """Answer by pictures that are made for this request alone."""
    terms = terms_of(request.scope, services.settings.request_timeout_s)
    if recipe.representation.kind == "json":
        return await while_connected(request.receive, _json(recipe, orders, terms, include, headers))
    if recipe.is_one_picture and (link := recipe.link(orders[0])):
        headers["Content-Location"] = link
    body, timing = await while_connected(request.receive, recipe.encoded(orders, terms))
    return Response(body, 200, headers | {"Server-Timing": timing}, MEDIA_TYPES[recipe.form])


def _check_n(counted: str, count: int, services: Services) -> None:
    if count > services.settings.max_n:
        raise InvalidParameters.of(f"/{counted}", f"{count} pictures are more than {services.settings.max_n}")


def _recipe(
    request: Request, services: Services, model: ServedModel, count: int, parameters: GenerateQuery | GenerateBody
) -> Recipe:
    representation = negotiation.represent(request.headers.get("accept"), parameters.format, FORMATS)
    if parameters.layout == "single" and count > 1 and representation.kind == "image":
        raise InvalidParameters.of(
            "/layout", f"single is for one picture, and n is {count}; use sheet, or ask for JSON"
        )
    as_sheet = representation.kind == "image" and (parameters.layout == "sheet" or count > 1)
    columns = (parameters.columns or math.ceil(math.sqrt(count))) if as_sheet else 0
    chosen_for_client = parameters.format == "auto" and representation.format == "png"
    quality = None if chosen_for_client else parameters.quality
    return Recipe(
        model,
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


def _attachment(download: str | None) -> dict[str, str]:
    return {} if download is None else {"Content-Disposition": f'attachment; filename="{download}"'}


async def _json(
    recipe: Recipe, orders: list[Order], terms: Terms, include: set[Any], headers: dict[str, str]
) -> Response:
    model = recipe.model
    pixels, timing = await model.draw([order.sample for order in orders], terms)
    texts = [answers.provenance(model, order) if recipe.metadata else None for order in orders]
    files, encode_s = await model.stills(pixels, recipe.look, recipe.form, texts) if "b64" in include else ([], 0.0)
    width, height = model.resolver.output_size(recipe.look.size)
    images = []
    for index, order in enumerate(orders):
        entry: dict[str, Any] = {
            "index": index,
            "seed": order.seed,
            "label": answers.label_entry(model, order.label),
            "truncation_psi": order.sample.truncation_psi,
            "width": width,
            "height": height,
            "media_type": MEDIA_TYPES[recipe.form],
        }
        if "url" in include:
            entry["url"] = recipe.link(order)
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
