"""Requests at a full queue: refused before they are parsed, told when to come again, and admitted then."""

import asyncio

import httpx
import pytest

from tests.service.api.harness import faked, queued, until


async def fill(client: httpx.AsyncClient, app: object, count: int = 5) -> list["asyncio.Task[httpx.Response]"]:
    """Have one picture drawn, by an engine that is held, and the others wait."""
    tasks = []
    for seed in range(count):
        tasks.append(asyncio.create_task(client.get(f"/generate?seed={seed}")))
        await until(lambda: queued(app) == max(seed, 0))  # noqa: B023 (awaited here)
    return tasks


@pytest.mark.parametrize(
    "target",
    [
        "/generate?seed=77",
        "/generate?seed=77&model=tiny@1",
        "/generate?nonsense=1",
        "/interpolate?from=1&to=2",
        "/i/tiny@1/77.png",
    ],
)
async def test_full_queue_is_refused_before_anything_is_parsed(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same answer as otherwise: 429, when to come again, and the request's id."""
    async with faked(max_queue_images=4, max_batch_images=1) as (client, engine, app):
        engine.open.clear()
        tasks = await fill(client, app)
        monkeypatch.setattr("service.api.inputs.parse_query", None)
        answer = await client.get(target, headers={"X-Request-ID": "one"})
        engine.open.set()
        await asyncio.gather(*tasks)

        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"].endswith("overloaded")
        assert answer.json()["instance"] == "one"
        assert answer.headers["cache-control"] == "no-store"
        count = app.state.services.metrics.registry.get_sample_value
        route = {"/gen": "/generate", "/int": "/interpolate", "/i/t": "/i/{model_id}/{file_name}"}[target[:4]]
        labels = {"route": route, "model": "", "status": "429", "outcome": "client_error"}
        assert count("vitrine_requests_total", labels) == 1
        assert count("vitrine_rejected_total", {"reason": "full"}) == 1


async def test_other_requests_pass_a_full_queue() -> None:
    """Probes, the catalogue, unknown models, and whatever is not asked by GET, have their own answers."""
    async with faked(max_queue_images=4, max_batch_images=1) as (client, engine, app):
        engine.open.clear()
        tasks = await fill(client, app)
        statuses = [(await client.get(path)).status_code for path in ("/livez", "/models", "/generate?model=no&seed=1")]
        statuses.append((await client.post("/generate", content=b"{")).status_code)
        engine.open.set()
        await asyncio.gather(*tasks)
        assert statuses == [200, 200, 404, 400]


async def test_who_comes_back_when_told_is_admitted_to_a_queue_that_is_full() -> None:
    """Another client, at the same moment, is not."""
    async with faked(max_queue_images=4, max_batch_images=1) as (client, engine, app):
        now = asyncio.get_running_loop().time
        model = app.state.services.catalogue.get(None)
        offset = 0.0
        model.batcher._clock = lambda: now() + offset
        engine.open.clear()
        tasks = await fill(client, app)
        refused = await client.get("/generate?seed=77")
        offset = float(refused.headers["retry-after"])
        again = asyncio.create_task(client.get("/generate?seed=77"))
        await until(lambda: queued(app) == 5)
        assert (await client.get("/generate?seed=78")).status_code == 429
        engine.open.set()
        assert (await again).status_code == 200
        assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200}


async def test_post_is_known_again_by_its_body() -> None:
    """What came back with another body is another request."""
    async with faked(max_queue_images=4, max_batch_images=1) as (client, engine, app):
        offset = 0.0
        now = asyncio.get_running_loop().time
        app.state.services.catalogue.get(None).batcher._clock = lambda: now() + offset
        engine.open.clear()
        tasks = await fill(client, app)
        assert (await client.post("/generate", json={"seed": 77})).status_code == 429
        offset = 1.0
        assert (await client.post("/generate", json={"seed": 78})).status_code == 429
        again = asyncio.create_task(client.post("/generate", json={"seed": 77}))
        await until(lambda: queued(app) == 5)
        engine.open.set()
        assert (await again).status_code == 200
        await asyncio.gather(*tasks)
