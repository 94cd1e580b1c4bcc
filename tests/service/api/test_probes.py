"""/livez, /readyz, /startupz, /healthz and /metrics."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from service.pipeline import ServedModel
from tests.service.api.harness import (
    Connection,
    FakeEngine,
    a_bundle,
    assert_problem,
    client_of,
    faked,
    queued,
    settings,
    started,
    until,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

PROBES = ("/livez", "/readyz", "/startupz", "/healthz")


async def statuses(client: httpx.AsyncClient) -> dict[str, int]:
    """Return what each probe says."""
    return {path: (await client.get(path)).status_code for path in PROBES}


async def measured(client: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    """Return every sample of /metrics by name and label values, in the order of the labels' names."""
    families = text_string_to_metric_families((await client.get("/metrics")).text)
    return {
        (sample.name, *(sample.labels[key] for key in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
    }


async def test_probes_of_a_ready_service_are_200(client: httpx.AsyncClient) -> None:
    """Once its models are loaded a service is alive, started and ready."""
    assert await statuses(client) == dict.fromkeys(PROBES, 200)
    answer = await client.get("/readyz")
    assert answer.json() == {"status": "ok"}
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"


async def test_service_that_is_starting_is_alive_but_not_ready() -> None:
    """Before its models are loaded the service answers: probes with the reason, pictures with 503 and Retry-After."""
    async with client_of(create_app(settings(Path("nowhere")))) as client:
        assert await statuses(client) == {"/livez": 200, "/readyz": 503, "/startupz": 503, "/healthz": 503}
        assert (await client.get("/readyz")).json()["reasons"] == ["models are being loaded"]
        for path in ("/generate", "/interpolate?from=1&to=2", "/i/tiny@1/7.png"):
            answer = await client.get(path)
            assert_problem(answer, 503, "starting")
            assert answer.headers["retry-after"].isdecimal()


def truncate(folder: Path) -> None:
    content = (folder / "generator.pt").read_bytes()
    (folder / "generator.pt").write_bytes(content[: len(content) // 2])


def alter(folder: Path) -> None:
    content = bytearray((folder / "generator.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "generator.pt").write_bytes(content)


def truncate_manifest(folder: Path) -> None:
    content = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(content[: len(content) // 2])


SPOILT: list[tuple[Callable[[Path], None], str]] = [
    (truncate, "generator.pt has"),
    (alter, "generator.pt has SHA-256"),
    (truncate_manifest, "manifest.json: Invalid JSON"),
    (lambda folder: (folder / "generator.pt").unlink(), "generator.pt: No such file"),
    (lambda folder: (folder / "manifest.json").unlink(), "manifest.json: No such file"),
]


@pytest.mark.parametrize(("spoil", "reason"), SPOILT)
async def test_bundle_that_does_not_hold_keeps_the_service_unready(
    spoil: Callable[[Path], None], reason: str, tiny_copy: Path
) -> None:
    """A damaged bundle leaves the process alive and not ready, says why, and gives 503 for pictures."""
    spoil(tiny_copy)
    async with started(create_app(settings(tiny_copy.parents[1]))) as client:
        assert await statuses(client) == {"/livez": 200, "/readyz": 503, "/startupz": 503, "/healthz": 503}
        assert f"tiny@1: {reason}" in "\n".join((await client.get("/readyz")).json()["reasons"])
        answer = await client.get("/generate")
        assert reason in assert_problem(answer, 503, "starting")["detail"]
        assert answer.headers["retry-after"].isdecimal()
        assert (await measured(client))["vitrine_ready",] == 0


async def test_older_version_serves_where_the_newest_does_not_hold(tiny_copy: Path) -> None:
    """With a damaged newer version beside a good one, the service is ready on the good one."""
    newer = Path(shutil.copytree(tiny_copy, tiny_copy.with_name("2")))
    truncate(newer)
    async with started(create_app(settings(tiny_copy.parents[1]))) as client:
        assert await statuses(client) == dict.fromkeys(PROBES, 200)
        answer = await client.get("/generate?seed=1")
        assert (answer.status_code, answer.headers["x-model"]) == (200, "tiny@1")
        document = assert_problem(await client.get("/generate?model=tiny@2"), 404, "model-not-found")
        assert document["detail"].startswith("tiny@2 was refused: ")
        assert document["detail"].endswith("; there are: tiny@1")
        assert [model["id"] for model in (await client.get("/models")).json()["models"]] == ["tiny@1"]


async def test_default_that_names_a_damaged_version_is_not_ready(tiny_copy: Path) -> None:
    """A default model of a certain version is not replaced by another one, and readiness says so."""
    truncate(Path(shutil.copytree(tiny_copy, tiny_copy.with_name("2"))))
    async with started(create_app(settings(tiny_copy.parents[1], default_model="tiny@2"))) as client:
        assert (await client.get("/readyz")).status_code == 503
        assert_problem(await client.get("/generate"), 503, "starting")
        assert (await client.get("/generate?model=tiny@1")).status_code == 200


@pytest.mark.parametrize("exists", [True, False])
async def test_folder_without_bundles_is_the_reason(tmp_path: Path, exists: bool) -> None:
    """An empty or absent models folder is named, and the process stays up."""
    folder = tmp_path / "models"
    if exists:
        (folder / "lost+found").mkdir(parents=True)
    async with started(create_app(settings(folder))) as client:
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert str(folder) in "\n".join(answer.json()["reasons"])
        assert (await client.get("/livez")).status_code == 200
        assert_problem(await client.get("/generate"), 503, "starting")


async def test_draining_service_is_not_ready_but_still_draws() -> None:
    """While it drains, a service tells balancers to go elsewhere and serves who comes nevertheless."""
    async with faked() as (client, _, app):
        app.state.services.catalogue.draining = True
        assert await statuses(client) == {"/livez": 200, "/readyz": 503, "/startupz": 200, "/healthz": 503}
        assert (await client.get("/readyz")).json()["reasons"] == ["draining"]
        assert (await client.get("/generate")).status_code == 200
        assert (await measured(client))["vitrine_ready",] == 0


async def test_batcher_that_has_been_drained_gives_503() -> None:
    """A request that comes after the end is told to come back to another process."""
    async with faked() as (client, _, app):
        await app.state.services.catalogue.drain(1)
        answer = await client.get("/generate")
        assert_problem(answer, 503, "draining")
        assert answer.headers["retry-after"].isdecimal()


async def test_batch_that_hangs_makes_the_process_dead_until_it_returns() -> None:
    """A batch that is on the device for too long turns liveness and readiness off; its end turns them on again."""
    async with faked(stall_s=0.01) as (client, engine, app):
        engine.open.clear()
        request = asyncio.create_task(client.get("/generate"))
        await until(lambda: bool(app.state.services.catalogue.stalled()))
        assert await statuses(client) == {"/livez": 503, "/readyz": 503, "/startupz": 200, "/healthz": 503}
        assert "tiny@1" in (await client.get("/livez")).json()["reasons"][0]
        engine.open.set()
        await request
        assert await statuses(client) == dict.fromkeys(PROBES, 200)


async def test_lost_device_makes_the_process_dead() -> None:
    """Only a new process helps, so /livez asks for one, and nobody sends requests here."""
    async with faked() as (client, engine, _):
        engine.failure = "CUDA error: an illegal memory access"
        assert await statuses(client) == {"/livez": 503, "/readyz": 503, "/startupz": 200, "/healthz": 503}
        assert (await client.get("/livez")).json()["reasons"] == [
            "tiny@1: the device is lost: CUDA error: an illegal memory access"
        ]


async def test_metrics_of_a_fresh_service_have_every_promised_series() -> None:
    """Every metric of this version is there before the first request."""
    async with faked() as (client, _, _):
        text = (await client.get("/metrics")).text
    families = {family.name: family.type for family in text_string_to_metric_families(text)}
    histograms = ("request_duration_seconds", "queue_wait_seconds", "forward_seconds", "encode_seconds", "batch_images")
    counters = ("requests", "images", "rejected", "cancelled")
    gauges = ("queue_images", "inflight_images", "queue_limit_images", "batch_limit_images", "ready", "draining")
    gauges += ("model_info", "model_load_seconds")
    for kind, names in (("histogram", histograms), ("counter", counters), ("gauge", gauges)):
        for name in names:
            assert families[f"vitrine_{name}"] == kind
    assert "process_resident_memory_bytes" in families


async def test_metrics_are_prometheus_text(client: httpx.AsyncClient) -> None:
    """/metrics is sent as what Prometheus reads, and is not cached."""
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert answer.headers["cache-control"] == "no-store"


async def test_loaded_models_stand_in_the_metrics(client: httpx.AsyncClient) -> None:
    """Model, version, digest, type and device are labels of a gauge; the limits are gauges."""
    values = await measured(client)
    digest = (await client.get("/models/tiny@2")).json()["digest"].removeprefix("sha256:")
    device = (await client.get("/version")).json()["device"]
    assert values["vitrine_model_info", device, digest, "float32", "tiny", "2"] == 1
    assert values["vitrine_queue_limit_images",] == 512
    assert values["vitrine_batch_limit_images",] == 4
    assert values["vitrine_ready",] == 1
    assert values["vitrine_draining",] == 0


async def test_drawing_moves_the_metrics() -> None:
    """A request counts as one, with its status; its pictures, batches, waits and its encoding are measured."""
    async with faked() as (client, _, _):
        await client.post("/generate", json={"seed": 1, "n": 6})
        await client.get("/generate?n=0")
        await client.get("/nothing/here")
        values = await measured(client)
    assert values["vitrine_requests_total", "tiny", "ok", "/generate", "200"] == 1
    assert values["vitrine_requests_total", "", "client_error", "/generate", "422"] == 1
    assert values["vitrine_requests_total", "", "client_error", "unmatched", "404"] == 1
    assert values["vitrine_request_duration_seconds_count", "tiny", "/generate"] == 1
    assert values["vitrine_images_total", "tiny"] == 6
    assert (values["vitrine_batch_images_count", "tiny"], values["vitrine_batch_images_sum", "tiny"]) == (2, 6)
    assert values["vitrine_queue_wait_seconds_count", "tiny"] == 6
    assert values["vitrine_forward_seconds_count", "tiny"] == 2
    assert values["vitrine_encode_seconds_count", "png"] == 1


async def test_waiting_refused_and_departed_stand_in_the_metrics() -> None:
    """The gauges follow the queue, and those who were refused or left are counted."""
    async with faked(max_queue_images=4, max_batch_images=2) as (client, engine, app):
        engine.open.clear()
        first = Connection(app, "/generate", b'{"n": 2}')
        await until(lambda: len(engine.batches) == 1)
        second = Connection(app, "/generate", b'{"n": 3}')
        await until(lambda: queued(app) == 3)
        assert (await client.post("/generate", json={"n": 2})).status_code == 429
        values = await measured(client)
        assert (values["vitrine_queue_images",], values["vitrine_inflight_images",]) == (3, 2)
        assert values["vitrine_rejected_total", "full"] == 1
        await second.leave()
        await first.leave()
        values = await measured(client)
        assert values["vitrine_queue_images",] == 0
        assert values["vitrine_cancelled_total", "queued"] == 1
        assert values["vitrine_cancelled_total", "running"] == 1
        assert values["vitrine_requests_total", "", "client_error", "/generate", "499"] == 2


async def test_gauges_are_of_all_models_together() -> None:
    """The queue that is measured is that of every model, not of the one that changed last."""
    async with faked(max_batch_images=1) as (client, engine, app):
        services = app.state.services
        other = a_bundle(name="other")
        second = FakeEngine(other.manifest, max_batch_size=1)
        services.catalogue.add(
            ServedModel(other, second, encoder=services.encoder, metrics=services.metrics, max_queue_images=9)
        )
        engine.open.clear()
        request = asyncio.create_task(client.post("/generate", json={"n": 3}))
        await until(lambda: queued(app) == 2)
        assert (await client.get("/generate?model=other")).status_code == 200
        values = await measured(client)
        assert (values["vitrine_queue_images",], values["vitrine_inflight_images",]) == (2, 1)
        engine.open.set()
        await request
        assert (await measured(client))["vitrine_queue_images",] == 0
