"""Pictures over a socket: sheets, the same bytes for the same seed whatever else is drawn, animations, batches."""

import asyncio
import base64
import io
import re
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from tests.e2e.conftest import PATIENCE_S, Process

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest_asyncio.fixture
async def client(server: Process) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client with as many connections as it wants."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=PATIENCE_S) as ready:
        yield ready


async def batches(client: httpx.AsyncClient) -> tuple[float, float]:
    """Return how many batches were run so far, and how many pictures were in them."""
    text = (await client.get("/metrics")).text
    count, total = (
        re.search(rf'^vitrine_batch_images_{suffix}{{model="tiny"}} (\S+)$', text, re.MULTILINE)
        for suffix in ("count", "sum")
    )
    return (float(count.group(1)), float(total.group(1))) if count and total else (0.0, 0.0)


async def test_sixteen_pictures_are_one_png_of_four_by_four(client: httpx.AsyncClient) -> None:
    """POST {"seed": 1, "n": 16} gives one contact sheet."""
    answer = await client.post("/generate", json={"seed": 1, "n": 16})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    with Image.open(io.BytesIO(answer.content)) as image:
        assert (image.format, image.size) == ("PNG", (64, 64))


async def test_same_seed_is_the_same_bytes_alone_in_a_batch_and_beside_strangers(client: httpx.AsyncClient) -> None:
    """Seed 7 alone, as one of 16, and beside 31 requests of others at the same time: the same file."""
    alone = (await client.get("/generate?seed=7&label=0")).content
    body = {"seeds": [*range(100, 115), 7], "label": 0}
    batch = await client.post("/generate", json=body, headers={"Accept": "application/json"})
    assert base64.b64decode(batch.json()["images"][15]["b64"]) == alone
    before = await batches(client)
    for _ in range(3):
        strangers = [client.get(f"/generate?seed={seed}&truncation_psi={seed % 10 / 10}") for seed in range(31)]
        among, *others = await asyncio.gather(client.get("/generate?seed=7&label=0"), *strangers)
        assert among.content == alone
        assert all(answer.status_code == 200 for answer in others)
    after = await batches(client)
    assert after[1] - before[1] == 96
    assert after[0] - before[0] < 96  # seed 7 has had company, or this test would show nothing


async def test_64_clients_at_once_share_batches_and_all_get_pictures(client: httpx.AsyncClient) -> None:
    """Requests that come together are drawn together."""
    before = await batches(client)

    async def shopper(number: int) -> list[int]:
        return [(await client.get(f"/generate?seed={number * 10 + visit}")).status_code for visit in range(4)]

    statuses = await asyncio.gather(*(shopper(number) for number in range(64)))
    assert {status for visits in statuses for status in visits} == {200}
    count, images = (end - start for end, start in zip(await batches(client), before, strict=True))
    assert images == 256
    assert images / count > 1


async def test_ends_of_an_animation_are_the_pictures_of_its_ends(client: httpx.AsyncClient) -> None:
    """The first and the last frame over the wire are those of /generate, pixel for pixel."""
    answer = await client.get("/interpolate?from=hello&to=42&label=1&steps=5&truncation_psi=0.6")
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.n_frames == 5
        for frame, seed in ((0, "hello"), (4, "42")):
            image.seek(frame)
            picture = await client.get(f"/generate?seed={seed}&label=1&truncation_psi=0.6")
            with Image.open(io.BytesIO(picture.content)) as expected:
                np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


async def test_connection_survives_a_refused_request(client: httpx.AsyncClient) -> None:
    """After problems of every kind, one over-long body among them, the same client gets its picture."""
    body = b'{"latents": [' + b" " * (1 << 20) + b"]}"
    refused = await client.post("/generate", content=body, headers={"Content-Type": "application/json"})
    assert refused.status_code == 413
    for path, status in (("/generate?n=0", 422), ("/nothing", 404), ("/generate?model=x", 404)):
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert (await client.get("/generate?seed=1")).status_code == 200


async def test_unchanged_picture_is_304(client: httpx.AsyncClient) -> None:
    """A cache that asks again is told to keep what it has."""
    first = await client.get("/generate?seed=1&model=tiny@1")
    again = await client.get("/generate?seed=1&model=tiny@1", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_log_is_json_lines_with_request_ids_and_without_queries(
    client: httpx.AsyncClient, server: Process
) -> None:
    """Every line is a JSON object; a request's has its id and path, and nothing of its query or its headers."""
    headers = {"X-Request-ID": "find-me", "Authorization": "Bearer hidden-key"}
    await client.get("/generate?seed=hidden-order", headers=headers)
    await client.get("/generate?n=hidden-number", headers=headers)
    found = [entry for entry in server.entries if entry.get("request_id") == "find-me"]
    assert [(entry["path"], entry["method"], entry["status"]) for entry in found] == [
        ("/generate", "GET", 200),
        ("/generate", "GET", 422),
    ]
    assert all({"event", "level", "timestamp", "duration_ms"} <= set(entry) for entry in found)
    assert "hidden" not in server.output
    starting = next(entry for entry in server.entries if entry["event"] == "starting")
    assert starting["max_queue_images"] == 512
