"""`/models` and `/version`: what is served."""

import hashlib
import json
import platform
from typing import Any

import torch
from fastapi import APIRouter, Request, Response

import service
from service import negotiation
from service.pipeline import ServedModel
from service.services import services_of

router = APIRouter(tags=["catalogue"])


@router.get("/models", response_class=Response)
async def list_models(request: Request) -> Response:
    """List the models that are served, newest version first."""
    catalogue = services_of(request).catalogue
    return _document(request, {"models": [_entry(model) for model in catalogue]})


@router.get("/models/{model_id}", response_class=Response)
async def get_model(model_id: str, request: Request) -> Response:
    """Describe one model, by `name` (its newest version) or `name@version`."""
    return _document(request, _entry(services_of(request).catalogue.get(model_id)))


@router.get("/version", response_class=Response)
async def get_version(request: Request) -> Response:
    """Describe the build."""
    catalogue = services_of(request).catalogue
    facts = {
        "version": service.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": catalogue.device,
        "models": [model.manifest.id for model in catalogue],
    }
    return Response(json.dumps(facts), headers={"Cache-Control": negotiation.NO_STORE}, media_type=negotiation.JSON)


def _entry(model: ServedModel) -> dict[str, Any]:
    manifest = model.manifest
    return {
        "id": manifest.id,
        "name": manifest.name,
        "version": manifest.version,
        "digest": f"sha256:{model.bundle.digest}",
        "created": manifest.created,
        "width": manifest.width,
        "height": manifest.height,
        "channels": manifest.channels,
        "z_dim": manifest.z_dim,
        "labels": [
            {"index": index, "name": label.name, "aliases": list(label.aliases)}
            for index, label in enumerate(manifest.labels)
        ],
        "defaults": manifest.defaults.model_dump(),
        "metrics": list(manifest.metrics),
        "intended_use": manifest.intended_use,
        "licence": manifest.licence,
    }


def _document(request: Request, document: dict[str, Any]) -> Response:
    body = json.dumps(document).encode()
    tag = f'W/"{hashlib.sha256(body).hexdigest()[:22]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if negotiation.matches(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=negotiation.JSON)
