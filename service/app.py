"""The one place where things are built. Lifespan: listen, load, verify, warm up, ready, drain."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi

import service
from service import problems
from service.api import catalogue as catalogue_routes
from service.api import generate, interpolate, probes
from service.api.answers import EXPOSED_HEADERS
from service.cache import PictureCache
from service.catalogue import Catalogue
from service.encoder import Encoder
from service.gate import Gate
from service.known import KnownRequests
from service.memory import give_back_memory
from service.metrics import Metrics
from service.middleware import RequestMiddleware
from service.schemas import GenerateBody, InterpolateBody
from service.services import Services
from service.settings import Settings
from service.shortcut import Shortcut
from service.watchdog import Watchdog

KNOWN_BYTES = 4 << 20  # for what requests mean: five hundred kinds of them


def create_app(settings: Settings) -> FastAPI:
    """Return the application. It answers probes at once, and pictures as soon as the models are loaded."""
    metrics = Metrics()
    encoder = Encoder(settings.encode_threads)
    results = {result: metrics.cache.labels(result) for result in ("hit", "miss", "shared")}
    cache: PictureCache[str] = PictureCache(int(settings.cache_mb * 1e6), lambda result: results[result].inc())
    known = KnownRequests(KNOWN_BYTES)
    catalogue = Catalogue(settings, encoder, metrics, on_change=known.forget)
    services = Services(settings, catalogue, encoder, metrics, cache, known)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(_load(services.catalogue))
        watchdog = Watchdog(catalogue.stalled, limit_s=settings.stall_s)
        watchdog.start()
        try:
            yield
        finally:
            watchdog.stop()
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        await services.catalogue.drain(settings.drain_timeout_s)
        await asyncio.to_thread(encoder.close)

    app = FastAPI(
        title="Vitrine",
        version=service.__version__,
        description=service.__doc__ or "",
        lifespan=lifespan,
        redirect_slashes=False,
        # Its own traces; merely looking for somebody to send them to took an eighth of the event loop's time.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.services = services
    routes = [route for faces in (generate, interpolate, catalogue_routes, probes) for route in faces.router.routes]
    app.router.routes += routes  # an included router would look for its route twice
    problems.install(app, routes)
    app.add_middleware(Gate, catalogue=catalogue, routes=routes)
    app.add_middleware(Shortcut, services=services)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=[origin.strip() for origin in settings.cors_origins.split(",")],
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
        )
    app.add_middleware(RequestMiddleware, metrics=metrics)
    _describe_bodies(app)
    return app


async def _load(catalogue: Catalogue) -> None:
    await catalogue.load()
    await asyncio.to_thread(give_back_memory)
    # What stands now stands until the end. Otherwise the collector visits it again and again, and nothing is answered
    # for 0.1 s each time.
    await asyncio.to_thread(gc.collect)
    gc.freeze()


def _describe_bodies(app: FastAPI) -> None:
    """Put the bodies, which the routes parse themselves, into the OpenAPI document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for model in (GenerateBody, InterpolateBody):
                schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas.update(schema.pop("$defs", {}))
                schemas[model.__name__] = schema
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
