"""The application as a whole: its OpenAPI document, CORS, and what its lifespan does."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.openapi.models import OpenAPI

from service.__main__ import main
from service.api.answers import EXPOSED_HEADERS
from service.app import create_app
from service.batcher import Terms
from service.pipeline import ServedModel
from service.schemas import GenerateBody, GenerateQuery, InterpolateBody, InterpolateQuery, PermalinkQuery
from tests.service.api.harness import FakeEngine, a_bundle, assert_problem, client_of, faked, settings, started, until

NOWHERE = Path("nowhere")
SHOP = "https://shop.example"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    return create_app(settings(NOWHERE)).openapi()


def references(node: Any) -> Iterator[str]:
    """Yield every `$ref` of a document."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_openapi_document_is_valid(document: dict[str, Any]) -> None:
    """It has OpenAPI's form, every reference leads somewhere, and every operation has a name of its own."""
    OpenAPI.model_validate(document)
    found = set(references(document))
    assert found
    for reference in found:
        node: Any = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert all(operation.get("description") for operation in operations)


def test_openapi_document_lists_every_route(document: dict[str, Any]) -> None:
    """Each address of this version stands in it with its methods."""
    gets = {"/generate", "/i/{model_id}/{file_name}", "/interpolate", "/models", "/models/{model_id}", "/version"}
    gets |= {"/livez", "/readyz", "/startupz", "/healthz", "/metrics"}
    assert {path for path, methods in document["paths"].items() if "get" in methods} == gets == set(document["paths"])
    assert {path for path, methods in document["paths"].items() if "post" in methods} == {"/generate", "/interpolate"}


@pytest.mark.parametrize(
    ("path", "schema"),
    [("/generate", GenerateQuery), ("/interpolate", InterpolateQuery), ("/i/{model_id}/{file_name}", PermalinkQuery)],
)
def test_openapi_document_lists_every_query_parameter(document: dict[str, Any], path: str, schema: Any) -> None:
    """What the schema takes is what the document offers, with its bounds."""
    listed = {
        entry["name"]: entry["schema"]
        for entry in document["paths"][path]["get"]["parameters"]
        if entry["in"] == "query"
    }
    assert set(listed) == {field.alias or name for name, field in schema.model_fields.items()}
    assert {"minimum": 16, "maximum": 1024, "type": "integer"} in listed["size"]["anyOf"]


@pytest.mark.parametrize(("path", "schema"), [("/generate", GenerateBody), ("/interpolate", InterpolateBody)])
def test_openapi_document_describes_every_body(document: dict[str, Any], path: str, schema: Any) -> None:
    """A POST's body is required JSON, and its component lists what the schema takes and nothing else."""
    body = document["paths"][path]["post"]["requestBody"]
    assert body["required"] is True
    reference = body["content"]["application/json"]["schema"]["$ref"]
    component = document["components"]["schemas"][reference.rsplit("/", 1)[-1]]
    assert set(component["properties"]) == {field.alias or name for name, field in schema.model_fields.items()}
    assert component["additionalProperties"] is False


@pytest.mark.parametrize("path", ["/generate", "/interpolate", "/i/{model_id}/{file_name}"])
def test_openapi_document_lists_every_media_type(document: dict[str, Any], path: str) -> None:
    """A picture's 200 names the image types, and JSON where it can be negotiated."""
    for operation in document["paths"][path].values():
        content = set(operation["responses"]["200"]["content"])
        assert {"image/png", "image/webp", "image/avif"} <= content
        assert ("application/json" in content) == (not path.startswith("/i/"))
        problem = operation["responses"]["default"]["content"]
        assert set(problem) == {"application/problem+json"}


async def test_documentation_is_served() -> None:
    """The document and a page for people are there before any model is."""
    async with client_of(create_app(settings(NOWHERE))) as client:
        assert (await client.get("/openapi.json")).json()["info"]["title"] == "Vitrine"
        assert (await client.get("/docs")).headers["content-type"].startswith("text/html")


async def test_configured_origin_may_read_pictures_and_their_headers() -> None:
    """CORS is for the origins that were named, exposes the documented headers, and holds for problems too."""
    async with faked(cors_origins=f"{SHOP}, https://other.example") as (client, _, _):
        answer = await client.get("/generate", headers={"Origin": SHOP})
        assert answer.headers["access-control-allow-origin"] == SHOP
        exposed = {name.strip().lower() for name in answer.headers["access-control-expose-headers"].split(",")}
        assert exposed == {name.lower() for name in EXPOSED_HEADERS}
        sent = {name for name in answer.headers if name.startswith("x-") or name in ("etag", "server-timing")}
        assert sent - {"x-content-type-options"} <= exposed
        refused = await client.get("/generate?n=0", headers={"Origin": SHOP})
        assert refused.headers["access-control-allow-origin"] == SHOP
        stranger = await client.get("/generate", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in stranger.headers


async def test_preflight_allows_json_posts() -> None:
    """A browser may ask first, and is told that it may post JSON."""
    async with faked(cors_origins=SHOP) as (client, _, _):
        headers = {
            "Origin": SHOP,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type",
        }
        answer = await client.options("/generate", headers=headers)
        assert answer.status_code == 200
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert answer.headers["x-request-id"]


async def test_without_origins_there_is_no_cors() -> None:
    """Nothing is allowed that was not configured."""
    async with faked() as (client, _, _):
        answer = await client.get("/generate", headers={"Origin": SHOP})
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_end_of_the_lifespan_finishes_what_was_begun(tmp_path: Path) -> None:
    """At the end, requests that are in the engine get their pictures, new ones 503, and the engine is closed."""
    app = create_app(settings(tmp_path, default_model="tiny"))
    services, bundle = app.state.services, a_bundle()
    async with client_of(app) as client:
        async with app.router.lifespan_context(app):
            engine = FakeEngine(bundle.manifest)
            services.catalogue.add(
                ServedModel(bundle, engine, encoder=services.encoder, metrics=services.metrics, max_queue_images=9)
            )
            model = services.catalogue.get(None)
            engine.open.clear()
            orders = model.resolver.orders([1, 2], [0, 1], None)
            drawing = asyncio.create_task(model.draw([order.sample for order in orders], Terms(30)))
            await until(lambda: len(engine.batches) == 1)
            asyncio.get_running_loop().call_later(0.01, engine.open.set)
        pictures, _ = await drawing
        assert len(pictures) == 2
        assert engine.closed
        assert_problem(await client.get("/generate"), 503, "draining")


async def test_lifespan_can_end_before_the_models_are_loaded(tiny_models: Path) -> None:
    """A service that is stopped while it starts stops."""
    app = create_app(settings(tiny_models))
    async with app.router.lifespan_context(app):
        pass
    assert not app.state.services.catalogue.loaded


async def test_apps_in_one_process_share_nothing(tmp_path: Path) -> None:
    """Two services have metrics and catalogues of their own."""
    async with started(create_app(settings(tmp_path))) as one, faked() as (other, _, _):
        assert (await one.get("/readyz")).status_code == 503
        assert (await other.get("/readyz")).status_code == 200
        await other.get("/generate")
        assert "vitrine_images_total{" not in (await one.get("/metrics")).text


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"AUTH": "off", "MAX_QUEUE": "9", "COLOUR": "red"}, "VITRINE_COLOUR, VITRINE_MAX_QUEUE"),
        ({"AUTH": "on"}, "VITRINE_AUTH"),
        ({}, "VITRINE_AUTH"),
        ({"AUTH": "off", "GET_POLICY": "signed"}, "VITRINE_GET_POLICY"),
        ({"AUTH": "off"}, "VITRINE_GET_POLICY"),
        ({"AUTH": "off", "MAX_N": "many"}, "VITRINE_MAX_N"),
        ({"AUTH": "off", "PORT": "70000"}, "VITRINE_PORT"),
    ],
)
def test_wrong_configuration_is_exit_2_with_the_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], environment: dict[str, str], named: str
) -> None:
    """Nothing is started with a configuration that says what is not known, not valid or not kept."""
    for name in [name for name in os.environ if name.startswith("VITRINE_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(f"VITRINE_{name}", value)
    assert main() == 2
    assert named in capsys.readouterr().err


async def test_picture_that_cannot_be_encoded_is_our_mistake() -> None:
    """An engine that breaks its word ends the request without details, and the next one is fine."""
    async with faked() as (client, engine, _):
        good, engine.shape = engine.shape, (2, 2, 7)
        for target in ("/generate?seed=1", "/generate?seed=1&format=webp"):
            document = assert_problem(await client.get(target), 500, "internal")
            assert document["detail"] == "internal error"
        engine.shape = good
        assert (await client.get("/generate?seed=1")).status_code == 200
