"""Probes and metrics, for orchestrators and Prometheus."""

import json

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service import negotiation
from service.services import Services, services_of

router = APIRouter(tags=["operation"])


@router.get("/startupz", response_class=Response)
async def startupz(request: Request) -> Response:
    """Say 200 once the models are loaded, verified, warmed and golden-tested."""
    catalogue = services_of(request).catalogue
    return _probe([reason for reason in catalogue.reasons() if reason != "draining"])


@router.get("/readyz", response_class=Response)
@router.get("/healthz", response_class=Response)
async def readyz(request: Request) -> Response:
    """Say 200 while requests should be sent here. A full queue does not change it."""
    return _probe(_reasons(services_of(request)))


@router.get("/livez", response_class=Response)
async def livez(request: Request) -> Response:
    """Say 200 unless a restart would help: the event loop answers, and no batch hangs on the device."""
    return _probe(services_of(request).catalogue.stalled())


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Return the metrics in Prometheus's text format."""
    services = services_of(request)
    services.metrics.ready.set(not _reasons(services))
    ceilings = [model.batcher.ceiling for model in services.catalogue]
    services.metrics.batch_limit_images.set(min(ceilings, default=0))
    body = generate_latest(services.metrics.registry)
    return Response(body, headers={"Cache-Control": negotiation.NO_STORE}, media_type=CONTENT_TYPE_LATEST)


def _reasons(services: Services) -> list[str]:
    return services.catalogue.reasons() + services.catalogue.stalled()


def _probe(reasons: list[str]) -> Response:
    status, document = (503, {"status": "unavailable", "reasons": reasons}) if reasons else (200, {"status": "ok"})
    headers = {"Cache-Control": negotiation.NO_STORE}
    return Response(json.dumps(document), status, headers, negotiation.JSON)
