"""GETs that ask for the same picture: drawn once, kept, and shared; what must not be kept is not."""

import asyncio

import httpx
import pytest
from fastapi import FastAPI

from service.pipeline import ServedModel
from tests.service.api.harness import Connection, FakeEngine, a_bundle, faked, queued, until

PERMALINK = "/i/tiny@1/5.png?label=bag"


def cached(app: FastAPI, result: str) -> float:
    return app.state.services.metrics.registry.get_sample_value("vitrine_cache_total", {"result": result}) or 0.0


def lasting(answer: httpx.Response) -> dict[str, str]:
    """Return the headers that do not depend on when the answer was given."""
    return {name: value for name, value in answer.headers.items() if name not in ("server-timing", "x-request-id")}


@pytest.mark.parametrize(
    "target",
    [
        PERMALINK,
        "/generate?seed=5",
        "/generate?seed=5&n=3",
        "/generate?seed=5&format=webp",
        "/interpolate?from=1&to=2&steps=3",
        "/interpolate?from=1&to=2&steps=3&layout=strip",
    ],
)
async def test_second_get_is_answered_without_the_engine(target: str) -> None:
    """The kept picture has the same bytes and headers, and says that it was kept."""
    async with faked() as (client, engine, app):
        first = await client.get(target)
        assert first.status_code == 200
        drawn = len(engine.batches)
        assert drawn
        second = await client.get(target)
        assert len(engine.batches) == drawn
        assert second.content == first.content
        assert lasting(second) == lasting(first)
        assert 'cache;desc="hit"' in second.headers["server-timing"]
        assert "cache" not in first.headers["server-timing"]
        assert (cached(app, "miss"), cached(app, "hit")) == (1, 1)


async def test_one_picture_by_several_addresses_is_drawn_once() -> None:
    """The cache knows pictures, not addresses; each answer keeps the headers of its own address."""
    async with faked() as (client, engine, _):
        permanent = await client.get(PERMALINK)
        query = await client.get("/generate?model=tiny@1&seed=5&label=handbag&format=png&download=bag.png")
        assert query.content == permanent.content
        assert query.headers["content-disposition"] == 'attachment; filename="bag.png"'
        assert query.headers["vary"] == "Accept"
        assert "vary" not in permanent.headers
        assert len(engine.batches) == 1


async def test_burst_of_identical_gets_runs_the_model_once() -> None:
    """A thousand browsers that ask for one picture at once cost one row of one batch."""
    async with faked() as (client, engine, app):
        engine.open.clear()
        requests = [asyncio.create_task(client.get(PERMALINK)) for _ in range(1000)]
        await until(lambda: cached(app, "shared") == 999)
        engine.open.set()
        answers = await asyncio.gather(*requests)
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert sum(map(len, engine.batches)) == 1


@pytest.mark.parametrize(
    ("method", "target", "arguments"),
    [
        ("GET", "/generate?label=bag", {}),
        ("GET", "/generate?seed=5", {"headers": {"Accept": "application/json"}}),
        ("POST", "/generate", {"json": {"seed": 5}}),
        ("POST", "/interpolate", {"json": {"from": 1, "to": 2, "steps": 3}}),
    ],
)
async def test_what_may_not_be_kept_is_drawn_each_time(method: str, target: str, arguments: dict[str, object]) -> None:
    """Answers without a seed of their own, answers to POST, and JSON, which tells its own timing."""
    async with faked() as (client, engine, app):
        for times in (1, 2):
            answer = await client.request(method, target, **arguments)
            assert answer.status_code == 200
            batches = len(engine.batches)
            assert batches >= times
        assert sum(map(len, engine.batches)) in (2, 6)
        assert cached(app, "hit") == cached(app, "miss") == 0


async def test_failure_is_not_kept() -> None:
    """After the engine failed the same address is drawn anew."""
    async with faked() as (client, engine, _):
        engine.error = RuntimeError("device lost")
        assert (await client.get(PERMALINK)).status_code == 503
        engine.error = None
        assert (await client.get(PERMALINK)).status_code == 200
        assert len(engine.batches) == 2


async def test_client_that_leaves_does_not_take_the_picture_from_the_others() -> None:
    """The one that computes leaves while the engine works: the other one gets its picture nevertheless."""
    async with faked() as (client, engine, app):
        engine.open.clear()
        leaving = Connection(app, PERMALINK)
        await until(lambda: len(engine.batches) == 1)
        staying = asyncio.create_task(client.get(PERMALINK))
        await until(lambda: cached(app, "shared") == 1)
        await leaving.leave()
        await until(lambda: queued(app) == 1)
        engine.open.set()
        assert (await staying).status_code == 200


async def test_two_ways_never_have_one_etag() -> None:
    """Seeds are any text, line ends and equals signs included; the same numbers spelt otherwise are the same way."""
    async with faked() as (client, _, _):
        pairs = [("a\nseed_to=b", "c"), ("a", "b\nseed_to=c"), ("7", "c"), ("007", "c")]
        tags = []
        for start, end in pairs:
            answer = await client.get("/interpolate", params={"from": start, "to": end, "steps": 2})
            assert answer.status_code == 200
            tags.append(answer.headers["etag"])
        assert len(set(tags)) == 3
        assert tags[2] == tags[3]


@pytest.mark.parametrize("target", [PERMALINK, "/generate?seed=5", "/interpolate?from=1&to=2&steps=3"])
async def test_request_made_before_is_not_parsed_again(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second 304, and the second file, say what the first ones said, in all headers that last."""
    async with faked() as (client, _, app):
        first = await client.get(target)
        tag = {"If-None-Match": first.headers["etag"]}
        app.state.services.known.forget()
        parsed = await client.get(target, headers=tag)
        monkeypatch.setattr(app.router, "routes", [])
        unchanged = await client.get(target, headers=tag)
        again = await client.get(target, headers={"If-None-Match": '"another"'})

        assert (parsed.status_code, unchanged.status_code, unchanged.content) == (304, 304, b"")
        assert lasting(unchanged) == lasting(parsed)
        assert (again.status_code, again.content) == (200, first.content)
        assert lasting(again) == lasting(first)
        assert (await client.get(target + "&size=20")).status_code == 404  # of what is not known, nothing is left
        counted = app.state.services.metrics.registry.get_sample_value
        labels = {"route": target.partition("?")[0], "model": "", "status": "304", "outcome": "ok"}
        if not target.startswith("/i/"):
            assert counted("vitrine_requests_total", labels) == 2


async def test_new_version_ends_what_was_known_of_the_name() -> None:
    """`tiny` now means another model; `tiny@1` does not."""
    async with faked() as (client, _, app):
        targets = ("/generate?model=tiny&seed=5", "/generate?model=tiny@1&seed=5")
        before = [(await client.get(target)).headers for target in targets]
        bundle = a_bundle(version=2)
        services = app.state.services
        model = ServedModel(
            bundle,
            FakeEngine(bundle.manifest),
            encoder=services.encoder,
            metrics=services.metrics,
            max_queue_images=8,
        )
        services.catalogue.add(model)
        after = [(await client.get(target)).headers for target in targets]

        assert [headers["x-model"] for headers in before] == ["tiny@1", "tiny@1"]
        assert [headers["x-model"] for headers in after] == ["tiny@2", "tiny@1"]
        assert before[1]["etag"] == after[1]["etag"]


async def test_known_request_for_a_picture_that_is_gone_is_drawn() -> None:
    """What a request means is kept longer than the file; cross-origin headers are of each request."""
    async with faked(cors_origins="https://shop.example") as (client, engine, app):
        first = await client.get(PERMALINK)
        app.state.services.cache._bodies.clear()
        again = await client.get(PERMALINK, headers={"Origin": "https://shop.example"})
        kept = await client.get(PERMALINK, headers={"Origin": "https://shop.example"})

        assert first.content == again.content == kept.content
        assert len(engine.batches) == 2
        assert "access-control-allow-origin" not in first.headers
        assert again.headers["access-control-allow-origin"] == "https://shop.example"
        assert kept.headers["access-control-allow-origin"] == "https://shop.example"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("/generate?seed=5&n=3&columns=2", "/generate?seed=6&n=3&columns=2"),
        ("/generate?label=bag&seed=5&truncation_psi=0.5", "/generate?label=bag&seed=41&truncation_psi=0.5"),
        ("/generate?seed=5", "/generate?seed=999999999999999"),
        ("/generate?seed=5&download=a.png&metadata=false", "/generate?seed=0&download=a.png&metadata=false"),
        ("/i/tiny@1/5.webp?size=32&quality=50", "/i/tiny@1/77.webp?size=32&quality=50"),
    ],
)
async def test_another_seed_is_answered_as_if_it_were_parsed(
    first: str, second: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Body and all headers that last; and a seed of the same kind is drawn without the routes."""
    async with faked() as (client, _, app):
        parsed = await client.get(second)
        app.state.services.known.forget()
        app.state.services.cache._bodies.clear()
        await client.get(first)
        monkeypatch.setattr(app.router, "routes", [])
        known = await client.get(second)

        assert (known.status_code, known.content) == (200, parsed.content)
        assert lasting(known) == lasting(parsed)


async def test_known_kind_is_refused_while_the_queue_is_full_unless_it_is_being_drawn() -> None:
    """As a problem document with a time to come again; whoever asks for what is being drawn waits for that."""
    async with faked(max_queue_images=1) as (client, engine, _):
        await client.get("/generate?seed=1")
        engine.open.clear()
        waiting = [asyncio.create_task(client.get("/generate?seed=2"))]
        await until(lambda: len(engine.batches) == 2)
        waiting.append(asyncio.create_task(client.get("/generate?seed=3")))
        await asyncio.sleep(0.01)
        refused = await client.get("/generate?seed=4")
        shared = asyncio.create_task(client.get("/generate?seed=3"))
        kept = await client.get("/generate?seed=1")
        engine.open.set()
        answers = await asyncio.gather(*waiting, shared)

        assert (refused.status_code, kept.status_code) == (429, 200)
        assert refused.headers["content-type"] == "application/problem+json"
        assert int(refused.headers["retry-after"]) >= 1
        assert [answer.status_code for answer in answers] == [200, 200, 200]
