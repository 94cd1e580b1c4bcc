"""The application in this process: its lifespan run by hand, no socket, and an engine that a test can hold or break."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI
from PIL import Image

from service.app import create_app
from service.bundle import Bundle
from service.engine import EngineStatus
from service.manifest import Manifest
from service.pipeline import ServedModel
from service.sample import Sample
from service.services import Services
from service.settings import Settings

Z_DIM = 8
SIDE = 16
LABELS = ("Ankle boot", "bag", "t-shirt/top")
ALIASES = {"Ankle boot": ("boot", "bootie"), "bag": ("handbag", "purse"), "t-shirt/top": ("tee",)}


def settings(models_dir: Path, **changes: Any) -> Settings:
    """Return the configuration of a service for tests: open, small batches, one engine thread, nothing measured."""
    facts = {"auth": "off", "get_policy": "open", "engine_threads": 1, "max_batch_images": 4, "encode_threads": 1}
    facts |= {"dtype": "float32", "memory_format": "channels_last", "torch_threads": 1}
    facts["stall_s"] = 3600  # a loop that rests between tests is not blocked
    return Settings(models_dir=models_dir, **(facts | changes))


def client_of(app: FastAPI) -> httpx.AsyncClient:
    """Return a client of an application; an exception that the application lets out fails the test."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://vitrine.test")


@asynccontextmanager
async def started(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Run an application from its start to its end, and yield a client once its models are loaded or refused."""
    async with app.router.lifespan_context(app), client_of(app) as client:
        await until(lambda: app.state.services.catalogue.loaded)
        yield client


def a_bundle(*, name: str = "tiny", version: int = 1, channels: int = 1, labels: Sequence[str] = LABELS) -> Bundle:
    """Return a bundle that is only a manifest."""
    thumbnail = base64.b64encode(bytes(SIDE * SIDE * channels)).decode()
    manifest = Manifest.model_validate(
        {
            "schema": 1,
            "name": name,
            "version": version,
            "created": "2026-01-01T00:00:00+00:00",
            "files": {"generator.pt": {"sha256": "0" * 64, "bytes": 0}},
            **{"z_dim": Z_DIM, "w_dim": 16, "num_ws": 2, "height": SIDE, "width": SIDE, "channels": channels},
            "labels": [{"name": label, "aliases": ALIASES.get(label, ())} for label in labels],
            "rng": "philox-bm-1",
            "defaults": {},
            "golden": [{"seed": 1, "label": 0, "truncation_psi": 1.0, "thumbnail": thumbnail, "tolerance": 0}],
            **{"training": {}, "intended_use": "Tests.", "licence": "Apache-2.0"},
        }
    )
    return Bundle(manifest, "d" * 64, Path("nowhere") / name / str(version))


class FakeEngine:
    """Draw plain squares; hold every batch while `open` is not set, and raise `error` instead if there is one.

    Args:
        manifest: What a picture looks like.
        max_batch_size: Images per batch.
    """

    workers = 1
    dtype = "float32"
    fingerprint = "0" * 16

    def __init__(self, manifest: Manifest, *, max_batch_size: int = 4) -> None:
        self.max_batch_size = max_batch_size
        self.shape = (manifest.height, manifest.width, manifest.channels)
        self.batches: list[Sequence[Sample]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.error: Exception | None = None
        self.failure: str | None = None
        self.closed = False

    async def generate(
        self, samples: Sequence[Sample], finish: Callable[[Sequence[np.ndarray]], Any] | None = None
    ) -> Any:
        self.batches.append(samples)
        await self.open.wait()
        if self.error is not None:
            raise self.error
        pictures = [np.full(self.shape, sample.label, np.uint8) for sample in samples]
        return pictures if finish is None else finish(pictures)

    def status(self) -> EngineStatus:
        return EngineStatus("fake", 0, tuple(range(1, self.max_batch_size + 1)), self.failure)

    async def drain(self) -> None:
        self.closed = True


@asynccontextmanager
async def faked(
    bundle: Bundle | None = None, **changes: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, FakeEngine, FastAPI]]:
    """Yield a ready application with one model whose engine is fake, a client of it, and that engine."""
    bundle = bundle or a_bundle()
    app = create_app(settings(Path("nowhere"), default_model=bundle.manifest.name, **changes))
    services: Services = app.state.services
    engine = FakeEngine(bundle.manifest, max_batch_size=services.settings.max_batch_images or 4)
    limit = services.settings.max_queue_images
    services.catalogue.add(
        ServedModel(bundle, engine, encoder=services.encoder, metrics=services.metrics, max_queue_images=limit)
    )
    services.catalogue.loaded = True
    try:
        async with client_of(app) as client:
            yield client, engine, app
    finally:
        engine.open.set()
        await services.catalogue.drain(5)
        services.encoder.close()


class Connection:
    """One request by raw ASGI, whose client can leave before its answer.

    Args:
        app: The application.
        target: Path and query.
        body: For a POST; `None` is a GET.
        whole: Whether the body is all of it, or the client leaves in the midst of sending.
    """

    def __init__(self, app: FastAPI, target: str, body: bytes | None = None, *, whole: bool = True) -> None:
        path, _, query = target.partition("?")
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": "GET" if body is None else "POST",
            **{"path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": ""},
            "headers": [(b"host", b"vitrine.test"), (b"content-type", b"application/json")],
            **{"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)},
        }
        self._chunks = [{"type": "http.request", "body": body or b"", "more_body": not whole}]
        self._left = asyncio.Event()
        self.sent: list[dict[str, Any]] = []
        self.handled = asyncio.create_task(app(self._scope, self._receive, self._send))

    async def leave(self) -> None:
        """Close the client's side, and return when the application has done with the request."""
        self._left.set()
        await self.handled

    async def _receive(self) -> dict[str, Any]:
        if self._chunks:
            return self._chunks.pop()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.sent.append(message)


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop go round until a condition holds."""
    while not condition():  # noqa: ASYNC110  what it waits for has no event
        await asyncio.sleep(0.001)


def queued(app: FastAPI) -> int:
    """Return how many pictures of an application's default model wait for its engine."""
    services: Services = app.state.services
    return services.catalogue.get(None).batcher.queued


def pixels(content: bytes) -> np.ndarray:
    """Return an encoded picture as an array, (H, W) or (H, W, C)."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


def frames(content: bytes) -> list[np.ndarray]:
    """Return the pictures of an encoded animation."""
    pictures = []
    with Image.open(io.BytesIO(content)) as image:
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            pictures.append(np.asarray(image.copy()))
    return pictures


def assert_problem(answer: httpx.Response, status: int, slug: str, pointer: str | None = None) -> dict[str, Any]:
    """Check an answer against the contract of failures, and return its document."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    document: dict[str, Any] = answer.json()
    assert document["type"].rsplit("/", 1)[-1] == slug
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert document["instance"] == answer.headers["x-request-id"]
    if pointer is not None:
        assert pointer in [entry["pointer"] for entry in document["errors"]], document
        assert all(entry["detail"] for entry in document["errors"])
    return document
