"""`/interpolate`: the way between two seeds, or through keyframes."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request, Response

from service import negotiation, rng, sampler
from service.api import answers
from service.api.connection import while_connected
from service.api.inputs import parse_body, parse_query, terms_of
from service.api.looks import look
from service.api.routes import PlainRoute
from service.batcher import Terms
from service.encoder import ENCODER_VERSION, AnimationFormat
from service.engine import Pixels
from service.errors import InvalidParameters, NotAcceptable
from service.known import Picture
from service.negotiation import MEDIA_TYPES, Representation
from service.pipeline import Look, ServedModel
from service.ready import RawHeaders, raw
from service.sample import Sample
from service.sampler import Keyframe, Mode, seed_from
from service.schemas import (
    InterpolateBody,
    InterpolateQuery,
    KeyframeBody,
    openapi_body,
    openapi_parameters,
    openapi_responses,
)
from service.services import Services, services_of

router = APIRouter(tags=["pictures"], route_class=PlainRoute)
FORMATS: tuple[AnimationFormat, ...] = ("png", "webp", "gif", "avif")
_RESPONSES = openapi_responses(*(MEDIA_TYPES[form] for form in FORMATS), negotiation.JSON)


@dataclass(frozen=True, slots=True)
class Stop:
    """A keyframe as the client gave it: a seed or a latent, and a label where one was given."""

    seed: int | None
    latent: Sequence[float] | None
    label: int | None


@dataclass(frozen=True, slots=True)
class Way:
    """A request for a way through pictures, resolved against its model."""

    model: ServedModel
    stops: Sequence[Stop]
    keyframes: Sequence[Keyframe]
    samples: list[Sample]
    look: Look
    representation: Representation
    parameters: InterpolateQuery | InterpolateBody

    @property
    def text(self) -> dict[str, str] | None:
        """What is embedded in every file."""
        if not self.parameters.metadata:
            return None
        seeds = answers.seeds_fact([stop.seed for stop in self.stops])
        return answers.model_facts(self.model, self.samples[0].truncation_psi) | seeds

    @property
    def headers(self) -> dict[str, str]:
        """The headers that say what was drawn."""
        seeds = [stop.seed for stop in self.stops]
        headers = answers.model_headers(self.model)
        if None not in seeds:
            headers["X-Seed"] = ",".join(str(seed) for seed in seeds)
        if self.representation.vary:
            headers["Vary"] = "Accept"
        return headers

    @property
    def etag(self) -> str:
        """The validator: what was asked for, with labels and truncation as they were resolved."""
        words = self.parameters.model_dump(exclude={"model", "label", "label_to", "seed_from", "seed_to"})
        identity = {
            **words,
            "seeds": [stop.seed for stop in self.stops],
            "labels": [keyframe.label for keyframe in self.keyframes],
            "psi": self.samples[0].truncation_psi,
            "as": self.representation,
        }
        return negotiation.Validator(self.model.identity, ENCODER_VERSION, identity).etag(None)


@router.get(
    "/interpolate",
    responses=_RESPONSES,
    response_class=Response,
    openapi_extra={"parameters": openapi_parameters(InterpolateQuery)},
)
async def get_interpolate(request: Request) -> Response:
    """Draw the way between two seeds as an animation for an `<img src>`."""
    query = parse_query(request, InterpolateQuery)
    services = services_of(request)
    model = services.catalogue.get(query.model)
    stops = _ends(model, query, query.seed_from, query.seed_to)
    cache = negotiation.cache_control(versioned="@" in (query.model or ""), seeded=True)
    return await _answer(request, services, model, stops, query, cache)


@router.post(
    "/interpolate",
    responses=_RESPONSES,
    response_class=Response,
    openapi_extra=openapi_body(InterpolateBody),
)
async def post_interpolate(request: Request) -> Response:
    """Draw the way through two seeds or 2..16 keyframes."""
    body = await parse_body(request, InterpolateBody)
    services = services_of(request)
    model = services.catalogue.get(body.model)
    if body.keyframes is not None:
        stops = [_stop(model, frame, f"/keyframes/{index}") for index, frame in enumerate(body.keyframes)]
    else:
        assert body.seed_from is not None  # the schema has seen to both
        assert body.seed_to is not None
        stops = _ends(model, body, body.seed_from, body.seed_to)
    return await _answer(request, services, model, stops, body, negotiation.NO_STORE)


def _ends(
    model: ServedModel, parameters: InterpolateQuery | InterpolateBody, start: int | str, end: int | str
) -> list[Stop]:
    first = None if parameters.label is None else model.resolver.label(parameters.label)
    last = first if parameters.label_to is None else model.resolver.label(parameters.label_to, "/label_to")
    return [Stop(seed_from(start), None, first), Stop(seed_from(end), None, last)]


def _stop(model: ServedModel, frame: KeyframeBody, pointer: str) -> Stop:
    label = None if frame.label is None else model.resolver.label(frame.label, f"{pointer}/label")
    if frame.latent is not None:
        model.resolver.latent(frame.latent, f"{pointer}/latent")
    return Stop(None if frame.seed is None else seed_from(frame.seed), frame.latent, label)


def _keyframes(model: ServedModel, stops: Sequence[Stop]) -> list[Keyframe]:
    """Resolve stops; one without a label has the first one's, so that a way stays within one kind."""
    keyframes: list[Keyframe] = []
    for index, stop in enumerate(stops):
        if stop.latent is not None:
            z = model.resolver.latent(stop.latent, f"/keyframes/{index}/latent")
            default = model.manifest.defaults.label or 0
        else:
            assert stop.seed is not None  # a stop has a seed or a latent
            z = rng.latents([stop.seed], model.manifest.z_dim)[0]
            default = model.resolver.label_of(stop.seed)
        if keyframes:
            default = keyframes[0].label
        keyframes.append(Keyframe(z, default if stop.label is None else stop.label))
    return keyframes


def _samples(
    services: Services,
    model: ServedModel,
    keyframes: Sequence[Keyframe],
    parameters: InterpolateQuery | InterpolateBody,
) -> list[Sample]:
    frames = sampler.frame_count(len(keyframes), parameters.steps, parameters.loop)
    if frames > services.settings.max_frames:
        raise InvalidParameters.of("/steps", f"{frames} frames in all are more than {services.settings.max_frames}")
    manifest = model.manifest
    has_styles = manifest.num_ws > 1 or manifest.w_dim != manifest.z_dim
    mode: Mode = parameters.mode or ("w" if has_styles else "slerp")
    if mode == "w" and not has_styles:
        raise InvalidParameters.of("/mode", f"{manifest.id} has no style space; use slerp or lerp")
    return sampler.path(
        keyframes,
        steps=parameters.steps,
        mode=mode,
        easing=parameters.easing,
        loop=parameters.loop,
        truncation_psi=model.resolver.psi(parameters.truncation_psi),
    )


async def _answer(
    request: Request,
    services: Services,
    model: ServedModel,
    stops: Sequence[Stop],
    parameters: InterpolateQuery | InterpolateBody,
    cache: str,
) -> Response:
    representation = _represent(request, parameters)
    keyframes = _keyframes(model, stops)
    samples = _samples(services, model, keyframes, parameters)
    finish = look(
        model,
        form=representation.format,
        count=len(samples),
        size=parameters.size,
        background=parameters.background,
        quality=parameters.quality,
        max_megapixels=services.settings.max_megapixels,
    )
    way = Way(model, stops, keyframes, samples, finish, representation, parameters)
    headers = {"Cache-Control": cache, **way.headers}
    terms = terms_of(request.scope, services.settings.request_timeout_s)
    form = MEDIA_TYPES[representation.format]
    if cache != negotiation.NO_STORE:
        headers["ETag"] = way.etag
        if representation.kind == "image":
            return await _keepable(request, services, way, raw({**headers, "Content-Type": form}))
        if negotiation.matches(request.headers.get("if-none-match"), headers["ETag"]):
            return answers.not_modified(headers)
    if representation.kind == "json":
        return await while_connected(request.receive, _json(way, headers, terms))
    body, timing = await while_connected(request.receive, _encoded(way, terms))
    return Response(body, 200, headers | {"Server-Timing": timing}, form)


async def _keepable(request: Request, services: Services, way: Way, headers: RawHeaders) -> Response:
    """Answer a GET by an animation that can be kept, and remember what the request means; but not the whole way."""
    picture = Picture(way.etag, lambda: headers, lambda terms: _encoded(way, terms), way.model.refusal)
    lasting = replace(picture, make=None)
    services.known.keep(request.scope, lambda seed: lasting)
    scope = request.scope
    return answers.at_once(picture, scope, services) or await answers.drawn(picture, scope, request.receive, services)


def _represent(request: Request, parameters: InterpolateQuery | InterpolateBody) -> Representation:
    if parameters.layout != "animation" and parameters.format not in (None, "png"):
        raise InvalidParameters.of("/format", f"{parameters.layout} are png, got {parameters.format!r}")
    formats = FORMATS if parameters.layout == "animation" else ("png",)
    representation = negotiation.represent(request.headers.get("accept"), parameters.format, formats)
    if parameters.layout == "frames" and representation.kind != "json":
        raise NotAcceptable("frames are sent as application/json; say so in Accept")
    return representation


async def _encoded(way: Way, terms: Terms) -> tuple[bytes, str]:
    """Return the animation or the strip, and what `Server-Timing` says of it."""
    pixels, timing = await way.model.draw(way.samples, terms, "/steps")
    body, encode_s = await _as_one_file(way, pixels)
    return body, answers.server_timing(timing, encode_s)


async def _as_one_file(way: Way, pixels: Sequence[Pixels]) -> tuple[bytes, float]:
    if way.parameters.layout == "strip":
        return await way.model.film_strip(pixels, way.look, way.text)
    form: AnimationFormat = way.representation.format  # type: ignore[assignment]
    return await way.model.animation(pixels, way.look, form, way.parameters.fps, way.text)


async def _json(way: Way, headers: dict[str, str], terms: Terms) -> Response:
    model = way.model
    pixels, timing = await model.draw(way.samples, terms, "/steps")
    document: dict[str, Any] = {"model": model.manifest.id, "digest": f"sha256:{model.bundle.digest}"}
    if way.parameters.layout == "frames":
        files, encode_s = await model.stills(pixels, way.look, "png", [way.text] * len(pixels))
        width, height = model.resolver.output_size(way.look.size)
        document["fps"] = way.parameters.fps
        document["frames"] = [
            {
                "index": index,
                "width": width,
                "height": height,
                "media_type": "image/png",
                "b64": base64.b64encode(file).decode(),
            }
            for index, file in enumerate(files)
        ]
    else:
        body, encode_s = await _as_one_file(way, pixels)
        document["media_type"] = MEDIA_TYPES[way.representation.format]
        document["frame_count"] = len(pixels)
        document["b64"] = base64.b64encode(body).decode()
    document["timing_ms"] = answers.timing_ms(timing, encode_s)
    headers["Server-Timing"] = answers.server_timing(timing, encode_s)
    return Response(json.dumps(document), 200, headers, negotiation.JSON)
