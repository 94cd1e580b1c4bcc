"""What the routes work with; built once, in `app.py`."""

from dataclasses import dataclass

from fastapi import Request

from service.cache import PictureCache
from service.catalogue import Catalogue
from service.encoder import Encoder
from service.known import KnownRequests
from service.metrics import Metrics
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a running service."""

    settings: Settings
    catalogue: Catalogue
    encoder: Encoder
    metrics: Metrics
    cache: PictureCache[str]  # with the `Server-Timing` of what was drawn
    known: KnownRequests


def services_of(request: Request) -> Services:
    """Return the parts of the service that `request` reached."""
    services: Services = request.app.state.services
    return services
