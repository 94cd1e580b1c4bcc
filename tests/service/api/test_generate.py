"""GET and POST /generate: one picture, a sheet or JSON; seeds, labels, looks, headers, overload."""

import asyncio
import base64
import io
import itertools
import re

import httpx
import numpy as np
import pytest
from PIL import Image

from service.api.answers import TRAINED_ALGORITHMIC_MEDIA
from tests.service.api.harness import LABELS, Connection, assert_problem, faked, pixels, queued, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

MAX_SEED = 2**53 - 1


async def picture(client: httpx.AsyncClient, **parameters: object) -> np.ndarray:
    """Return the pixels that GET /generate gives."""
    answer = await client.get("/generate", params=parameters)
    assert answer.status_code == 200, answer.text
    return pixels(answer.content)


async def entries(client: httpx.AsyncClient, **body: object) -> list[dict]:
    """Return the `images` of a JSON answer."""
    answer = await client.post("/generate", json=body, headers={"Accept": "application/json"})
    assert answer.status_code == 200, answer.text
    return answer.json()["images"]


async def test_sixteen_pictures_come_as_one_sheet_of_four_by_four(client: httpx.AsyncClient) -> None:
    """POST {"seed": 1, "n": 16} gives one PNG, in reading order the pictures of seeds 1 to 16."""
    answer = await client.post("/generate", json={"seed": 1, "n": 16})
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-seed"] == ",".join(map(str, range(1, 17)))
    sheet = pixels(answer.content)
    assert sheet.shape == (64, 64)
    for index in (0, 5, 15):
        row, column = divmod(index, 4)
        cell = sheet[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
        np.testing.assert_array_equal(cell, await picture(client, seed=1 + index))


async def test_same_seed_gives_the_same_bytes_alone_in_a_batch_and_among_strangers(client: httpx.AsyncClient) -> None:
    """A picture's bytes do not depend on what is drawn beside it."""
    alone = (await client.get("/generate?seed=7")).content
    batch = await entries(client, seed=1, n=16)
    assert base64.b64decode(batch[6]["b64"]) == alone
    strangers = [client.get("/generate", params={"seed": 1000 + i, "truncation_psi": i / 31}) for i in range(31)]
    among, *_ = await asyncio.gather(client.get("/generate?seed=7"), *strangers)
    assert among.content == alone


async def test_seeds_count_up_and_wrap_at_two_to_the_53(client: httpx.AsyncClient) -> None:
    """Picture i of a request has seed + i, modulo 2**53."""
    answer = await client.get("/generate", params={"seed": MAX_SEED, "n": 3})
    assert answer.headers["x-seed"] == f"{MAX_SEED},0,1"


async def test_string_seed_is_one_number_for_ever(client: httpx.AsyncClient) -> None:
    """A string is echoed as the integer that it stands for, which gives the same picture."""
    answer = await client.get("/generate", params={"seed": "sku-4711"})
    number = int(answer.headers["x-seed"])
    assert number == 8_197_715_898_328_827  # the top 53 bits of its SHA-256, computed elsewhere
    by_number = await client.post("/generate", json={"seed": number})
    by_string = await client.post("/generate", json={"seed": "sku-4711"})
    assert answer.content == by_number.content == by_string.content


async def test_string_of_digits_is_that_integer(client: httpx.AsyncClient) -> None:
    """The seeds "007" and 7 are one, in the query and in the body."""
    assert (await client.get("/generate?seed=007")).headers["x-seed"] == "7"
    assert [entry["seed"] for entry in await entries(client, seeds=["007", 7])] == [7, 7]


async def test_request_without_seed_gets_a_random_one_and_is_not_cached(client: httpx.AsyncClient) -> None:
    """Two requests without a seed differ, and the echoed seed gives the same picture again."""
    first, second = await client.get("/generate"), await client.get("/generate")
    assert first.headers["x-seed"] != second.headers["x-seed"]
    assert first.headers["cache-control"] == "no-store"
    assert "etag" not in first.headers
    assert (await client.get("/generate", params={"seed": first.headers["x-seed"]})).content == first.content


async def test_idempotency_key_makes_a_retry_give_the_same_pictures(client: httpx.AsyncClient) -> None:
    """Without a seed, the seeds come from the key; a seed wins over it."""

    async def seeds(key: str, **body: object) -> str:
        answer = await client.post("/generate", json={"n": 3, **body}, headers={"Idempotency-Key": key})
        return answer.headers["x-seed"]

    assert await seeds("order-1") == await seeds("order-1")
    assert await seeds("order-1") != await seeds("order-2")
    assert await seeds("order-1", seed=5) == "5,6,7"


@pytest.mark.parametrize("label", [0, "0", "Ankle boot", "ankle BOOT", "boot", "bootie"])
async def test_label_is_known_by_index_name_and_alias(client: httpx.AsyncClient, label: int | str) -> None:
    """Every way to say a label gives the same picture, by GET and by POST."""
    expected = await picture(client, seed=3, label=0)
    np.testing.assert_array_equal(await picture(client, seed=3, label=label), expected)
    answer = await client.post("/generate", json={"seed": 3, "label": label})
    np.testing.assert_array_equal(pixels(answer.content), expected)


async def test_different_labels_give_different_pictures(client: httpx.AsyncClient) -> None:
    """The label matters, and is echoed with its name."""
    answers = await entries(client, seeds=[3, 3, 3], labels=["bag", 2, "boot"])
    assert [entry["label"] for entry in answers] == [{"index": index, "name": LABELS[index]} for index in (1, 2, 0)]
    assert len({entry["b64"] for entry in answers}) == 3


async def test_label_is_drawn_from_the_seed_where_none_is_given(client: httpx.AsyncClient) -> None:
    """Without a label many seeds meet every label, and a seed always meets the same."""
    once, again = await entries(client, seed=0, n=24), await entries(client, seed=0, n=24)
    labels = [entry["label"]["index"] for entry in once]
    assert set(labels) == {0, 1, 2}
    assert labels == [entry["label"]["index"] for entry in again]


async def test_labels_alone_say_how_many(client: httpx.AsyncClient) -> None:
    """A list of labels gives one picture for each, with seeds that count up."""
    answers = await entries(client, seed=4, labels=[2, 1])
    assert [(entry["seed"], entry["label"]["index"]) for entry in answers] == [(4, 2), (5, 1)]


async def test_truncation_of_zero_makes_all_seeds_of_a_label_one(client: httpx.AsyncClient) -> None:
    """At psi 0 every picture of a label is its mean; at psi 1 seeds differ, and 1 is the default."""
    np.testing.assert_array_equal(
        await picture(client, seed=1, label=1, truncation_psi=0),
        await picture(client, seed=2, label=1, truncation_psi=0),
    )
    full = await picture(client, seed=1, label=1)
    assert (full != await picture(client, seed=2, label=1)).any()
    assert (full != await picture(client, seed=1, label=1, truncation_psi=0.5)).any()
    np.testing.assert_array_equal(full, await picture(client, seed=1, label=1, truncation_psi=1))


async def test_latent_draws_what_its_seed_draws(client: httpx.AsyncClient) -> None:
    """The latent that a JSON answer includes gives the same picture, which then has no seed and no permanent link."""
    (entry,) = await entries(client, seed=9, label=1, include=["latent", "b64"], metadata=False)
    assert "url" not in entry
    answer = await client.post("/generate", json={"latents": [entry["latent"]], "label": 1, "metadata": False})
    assert answer.content == base64.b64decode(entry["b64"])
    assert "x-seed" not in answer.headers
    assert "content-location" not in answer.headers
    (drawn,) = await entries(client, latents=[entry["latent"]], label=1)
    assert (drawn["seed"], drawn["url"]) == (None, None)


async def test_json_answer_has_the_documented_form(client: httpx.AsyncClient) -> None:
    """A JSON answer names model, digest, timing, and for each picture all that is needed to have it again."""
    answer = await client.post(
        "/generate", json={"seed": 7, "n": 2, "truncation_psi": 0.7, "size": 32}, headers={"Accept": "application/json"}
    )
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert document["model"] == "tiny@2" == answer.headers["x-model"]
    assert document["digest"] == answer.headers["x-model-digest"]
    assert set(document["timing_ms"]) == {"queue", "forward", "encode"}
    assert [entry["index"] for entry in document["images"]] == [0, 1]
    first = document["images"][0]
    assert {key: first[key] for key in ("seed", "truncation_psi", "width", "height", "media_type")} == {
        **{"seed": 7, "truncation_psi": 0.7, "width": 32, "height": 32},
        "media_type": "image/png",
    }
    assert pixels(base64.b64decode(first["b64"])).shape == (32, 32)
    assert (await client.get(first["url"])).content == base64.b64decode(first["b64"])


@pytest.mark.parametrize("size", [16, 17, 100])
async def test_size_is_the_longest_side(client: httpx.AsyncClient, size: int) -> None:
    """A picture has the size that was asked for."""
    assert (await picture(client, seed=1, size=size)).shape == (size, size)


@pytest.mark.parametrize("form", ["png", "jpeg", "webp", "avif"])
async def test_format_decides_the_media_type(client: httpx.AsyncClient, form: str) -> None:
    """Each format is sent under its own media type, and is that format."""
    answer = await client.get("/generate", params={"seed": 1, "format": form})
    assert answer.headers["content-type"] == f"image/{form}"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert (image.format, image.size) == (form.upper(), (16, 16))


async def test_quality_changes_the_file(client: httpx.AsyncClient) -> None:
    """A lossy picture of low quality is shorter than one of high quality; 85 is the default."""
    query = {"seed": 1, "size": 128, "format": "jpeg"}
    files = [(await client.get("/generate", params={**query, "quality": q})).content for q in (10, 85, 100)]
    assert len(files[0]) < len(files[1]) < len(files[2])
    assert (await client.get("/generate", params=query)).content == files[1]


@pytest.mark.parametrize(
    ("accept", "form", "media_type"),
    [
        (None, None, "image/png"),
        ("*/*", None, "image/png"),
        ("image/*", None, "image/png"),
        ("image/png", None, "image/png"),
        ("image/avif,image/webp,image/apng,image/*,*/*;q=0.8", None, "image/png"),
        ("image/webp", None, "image/webp"),
        ("image/jpeg", None, "image/jpeg"),
        ("image/avif", None, "image/avif"),
        ("image/avif,image/webp,*/*;q=0.8", "auto", "image/avif"),
        ("image/webp,*/*;q=0.8", "auto", "image/webp"),
        ("*/*", "auto", "image/png"),
        ("image/png", "webp", "image/webp"),
        ("application/json", None, "application/json"),
        ("application/json", "webp", "application/json"),
        ("application/json, text/plain, */*", None, "application/json"),
        ("application/json;q=0.5, image/png", None, "image/png"),
    ],
)
@pytest.mark.parametrize("n", [1, 2])
async def test_accept_decides_the_representation(
    client: httpx.AsyncClient, accept: str | None, form: str | None, media_type: str, n: int
) -> None:
    """What is sent follows the table of media types, for one picture and for several, by GET and by POST."""
    headers = {"Accept": accept} if accept else {}
    body = {"seed": 1, "n": n} | ({"format": form} if form else {})
    request = client.build_request("GET", "/generate", params=body, headers=headers)
    if accept is None:
        del request.headers["Accept"]
    assert (await client.send(request)).headers["content-type"] == media_type
    assert (await client.post("/generate", json=body, headers=headers)).headers["content-type"] == media_type


async def test_answers_that_differ_by_accept_say_so(client: httpx.AsyncClient) -> None:
    """Where two Accept headers get different media types at one address, both answers have `Vary: Accept`."""
    headers = ("*/*", "image/webp", "image/png", "application/json")
    for query in ("", "&format=png", "&format=webp", "&format=auto", "&n=2"):
        answers = [await client.get(f"/generate?seed=1{query}", headers={"Accept": accept}) for accept in headers]
        for one, other in itertools.combinations(answers, 2):
            if one.headers["content-type"] != other.headers["content-type"]:
                assert one.headers["vary"] == other.headers["vary"] == "Accept"
                assert one.headers["etag"] != other.headers["etag"]


@pytest.mark.parametrize(
    ("parameters", "shape"),
    [
        ({"n": 5}, (32, 48)),
        ({"n": 5, "columns": 2}, (48, 32)),
        ({"n": 2, "columns": 16}, (16, 32)),
        ({"n": 1, "layout": "sheet"}, (16, 16)),
        ({"n": 2, "layout": "sheet", "size": 20}, (20, 40)),
        ({"n": 1, "layout": "single"}, (16, 16)),
    ],
)
async def test_sheet_has_the_columns_that_were_asked_for(
    client: httpx.AsyncClient, parameters: dict[str, object], shape: tuple[int, int]
) -> None:
    """A sheet has ceil(sqrt n) columns, or as many as were asked for but no more than pictures."""
    assert (await picture(client, seed=1, **parameters)).shape == shape


async def test_single_layout_of_many_is_json_entries(client: httpx.AsyncClient) -> None:
    """`layout=single` goes together with several pictures where each has a place of its own."""
    assert len(await entries(client, seed=1, n=2, layout="single")) == 2


async def test_background_is_laid_under_alpha(client: httpx.AsyncClient) -> None:
    """A colour makes a picture with alpha opaque; `transparent` and `auto` keep its alpha, except in JPEG."""
    drawn = await picture(client, model="veil", seed=1)
    assert drawn.shape == (16, 16, 4)
    np.testing.assert_array_equal(await picture(client, model="veil", seed=1, background="transparent"), drawn)
    red = await picture(client, model="veil", seed=1, background="#ff0000")
    np.testing.assert_array_equal(red, await picture(client, model="veil", seed=1, background="Red"))
    assert red.shape == (16, 16, 3)
    alpha = drawn[..., 3:] / 255
    np.testing.assert_allclose(red, drawn[..., :3] * alpha + np.array([255, 0, 0]) * (1 - alpha), atol=0.51)
    assert (await picture(client, model="veil", seed=1, format="jpeg")).shape == (16, 16, 3)


async def test_picture_tells_where_it_comes_from(client: httpx.AsyncClient) -> None:
    """A PNG holds model, digest, seed, label, psi and that it is synthetic, unless that is switched off."""
    answer = await client.get("/generate", params={"seed": 5, "label": "bag", "truncation_psi": 0.25})
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.text == {
            "Software": "Vitrine",
            "Model": "tiny@2",
            "Model digest": answer.headers["x-model-digest"],
            "Truncation psi": "0.25",
            "Digital source type": TRAINED_ALGORITHMIC_MEDIA,
            "Seed": "5",
            "Label": "bag",
        }
    plain = await client.get("/generate?seed=5&metadata=false")
    with Image.open(io.BytesIO(plain.content)) as image:
        assert image.text == {}
    sheet = await client.get("/generate?seed=5&n=2")
    with Image.open(io.BytesIO(sheet.content)) as image:
        assert image.text["Seeds"] == "5, 6"


async def test_download_is_an_attachment(client: httpx.AsyncClient) -> None:
    """`download` names the file in which a browser puts the picture."""
    answer = await client.get("/generate?seed=1&download=boot_1.png")
    assert answer.headers["content-disposition"] == 'attachment; filename="boot_1.png"'
    assert "content-disposition" not in (await client.get("/generate?seed=1")).headers


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_picture_has_every_documented_header(client: httpx.AsyncClient, method: str) -> None:
    """A picture tells its seed, model, digest, permanent link and timing, and may be used on other sites."""
    parameters = {"seed": 1, "truncation_psi": 0.123456789, "label": "t-shirt/top"}
    if method == "GET":
        answer = await client.get("/generate", params=parameters)
        assert re.fullmatch(r'W/"[\w-]{22}"', answer.headers["etag"])
    else:
        answer = await client.post("/generate", json=parameters)
    assert answer.headers["x-seed"] == "1"
    assert answer.headers["x-model"] == "tiny@2"
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", answer.headers["x-model-digest"])
    number = r"\d+\.\d+"
    assert re.fullmatch(
        f"queue;dur={number}, forward;dur={number}, encode;dur={number}", answer.headers["server-timing"]
    )
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-request-id"]
    assert (await client.get(answer.headers["content-location"])).content == answer.content


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("model=tiny@2&seed=1", "public, max-age=31536000, immutable"),
        ("model=tiny@2&seed=sku", "public, max-age=31536000, immutable"),
        ("model=tiny&seed=1", "public, max-age=60, stale-while-revalidate=600"),
        ("seed=1", "public, max-age=60, stale-while-revalidate=600"),
        ("model=tiny@2", "no-store"),
        ("", "no-store"),
    ],
)
async def test_cache_control_follows_what_the_address_names(
    client: httpx.AsyncClient, query: str, expected: str
) -> None:
    """Only an address that names version and seed stays true for ever."""
    assert (await client.get(f"/generate?{query}")).headers["cache-control"] == expected


async def test_post_is_not_cached(client: httpx.AsyncClient) -> None:
    """A POST's answer is for its caller alone, also where it names version and seed."""
    answer = await client.post("/generate", json={"model": "tiny@2", "seed": 1})
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers


async def test_named_version_is_served_though_there_is_a_newer_one(client: httpx.AsyncClient) -> None:
    """`name@version` gives that version, `name` the newest, and the two differ."""
    old, new, newest = [await picture(client, model=model, seed=1, label=0) for model in ("tiny@1", "tiny@2", "tiny")]
    assert (old != new).any()
    np.testing.assert_array_equal(new, newest)


async def test_known_etag_is_answered_304_without_the_engine() -> None:
    """If-None-Match with the picture's ETag saves the drawing, and the answer has the headers that RFC 9110 wants."""
    async with faked(cache_mb=0) as (client, engine, _):
        full = await client.get("/generate?seed=1&label=bag")
        assert len(engine.batches) == 1
        tag = full.headers["etag"]
        for header in (tag, tag.removeprefix("W/"), f'"other", {tag}', "*"):
            answer = await client.get("/generate?seed=1&label=bag", headers={"If-None-Match": header})
            assert answer.status_code == 304
            assert answer.content == b""
            for name in ("etag", "cache-control", "content-location", "vary"):
                assert answer.headers[name] == full.headers[name]
        assert len(engine.batches) == 1
        changed = await client.get("/generate?seed=1&label=bag", headers={"If-None-Match": '"other"'})
        assert changed.status_code == 200
        assert len(engine.batches) == 2


async def test_etag_is_of_the_picture_not_of_its_spelling() -> None:
    """Two ways to ask for one picture have one ETag; each parameter that changes the answer changes it."""
    async with faked() as (client, engine, app):

        async def tag(**parameters: object) -> str:
            return (await client.get("/generate", params=parameters)).headers["etag"]

        plain = {"seed": 7, "label": 1}
        spelt = {"label": "handbag", "seed": "007", "n": 1, "truncation_psi": "1.0", "format": "png"}
        assert await tag(**spelt) == await tag(**plain)
        changes: list[dict[str, object]] = [{}, {"seed": 8}, {"label": 0}, {"truncation_psi": 0.5}, {"size": 32}]
        changes += [{"n": 2}, {"n": 2, "columns": 1}, {"layout": "sheet"}, {"metadata": False}]
        changes += [{"format": "webp"}, {"format": "webp", "quality": 3}]
        tags = [await tag(**(plain | change)) for change in changes]
        engine.fingerprint = "1" * 16  # it draws other bytes, as after another start
        app.state.services.known.forget()
        tags.append(await tag(**plain))
        assert len(set(tags)) == len(changes) + 1


async def test_full_queue_is_refused_at_once_and_hurts_nobody() -> None:
    """A request that does not fit gets 429 with Retry-After while those before it are drawn."""
    async with faked(max_queue_images=4, max_batch_images=2) as (client, engine, app):
        engine.open.clear()
        running = asyncio.create_task(client.post("/generate", json={"seed": 1, "n": 2}))
        await until(lambda: len(engine.batches) == 1)
        waiting = asyncio.create_task(client.post("/generate", json={"seed": 1, "n": 3}))
        await until(lambda: queued(app) == 3)
        refused = await client.post("/generate", json={"seed": 1, "n": 2})
        assert_problem(refused, 429, "overloaded")
        assert re.fullmatch("[1-9][0-9]*", refused.headers["retry-after"])
        assert (await client.get("/readyz")).status_code == 200
        fits = asyncio.create_task(client.get("/generate?seed=1"))
        engine.open.set()
        assert [answer.status_code for answer in await asyncio.gather(running, waiting, fits)] == [200, 200, 200]


async def test_request_that_never_fits_is_the_callers_mistake() -> None:
    """More pictures than the queue has slots are refused as a wrong parameter, since a retry would not help."""
    async with faked(max_queue_images=4) as (client, engine, _):
        assert_problem(await client.post("/generate", json={"n": 5}), 422, "invalid-parameters", "/n")
        assert_problem(await client.get("/interpolate?from=1&to=2&steps=5"), 422, "invalid-parameters", "/steps")
        assert engine.batches == []


async def test_sixty_four_waiting_clients_share_batches() -> None:
    """What waits while the engine works goes to it together."""
    async with faked(max_batch_images=16) as (client, engine, app):
        engine.open.clear()
        requests = [asyncio.create_task(client.get(f"/generate?seed={seed}")) for seed in range(64)]
        await until(lambda: queued(app) + sum(map(len, engine.batches)) == 64)
        engine.open.set()
        assert all(answer.status_code == 200 for answer in await asyncio.gather(*requests))
        assert sum(map(len, engine.batches)) == 64
        assert max(map(len, engine.batches)) == 16


async def test_one_request_for_many_does_not_hold_up_another() -> None:
    """A request for one picture shares the next batch with one for many that came before it."""
    async with faked(max_batch_images=2) as (client, engine, app):
        engine.open.clear()
        many = asyncio.create_task(client.post("/generate", json={"seed": 1, "n": 16, "label": 0}))
        await until(lambda: queued(app) == 14)
        one = asyncio.create_task(client.get("/generate?seed=99&label=2"))
        await until(lambda: queued(app) == 15)
        engine.open.set()
        await asyncio.gather(many, one)
        assert 2 in [sample.label for sample in engine.batches[1]]


@pytest.mark.parametrize(
    ("priority", "first"),
    [("u=1", "b"), ("i, u=0", "b"), ("u=2;x", "b"), ("u=5", "a"), ("u=9", "a"), ("nonsense", "a")],
)
async def test_urgent_picture_overtakes(priority: str, first: str) -> None:
    """`Priority: u=` decides who is next; what is not of RFC 9218 is ignored."""
    async with faked(max_batch_images=1, cache_mb=0) as (client, engine, app):
        engine.open.clear()
        requests = [asyncio.create_task(client.get("/generate?seed=0"))]
        await until(lambda: len(engine.batches) == 1)
        requests.append(asyncio.create_task(client.get("/generate?seed=1")))
        await until(lambda: queued(app) == 1)
        requests.append(asyncio.create_task(client.get("/generate?seed=2", headers={"Priority": priority})))
        await until(lambda: queued(app) == 2)
        engine.open.set()
        assert {answer.status_code for answer in await asyncio.gather(*requests)} == {200}
        order = {1: "a", 2: "b"}
        assert order[engine.batches[1][0].z] == first  # type: ignore[index]


async def test_picture_that_does_not_fit_into_memory_is_503() -> None:
    """The client learns that, and when to come again; the metric counts it."""
    async with faked() as (client, engine, app):
        engine.error = MemoryError("device full")
        refused = await client.get("/generate?seed=1")
        assert_problem(refused, 503, "out-of-memory")
        assert refused.headers["retry-after"].isdecimal()
        assert app.state.services.metrics.registry.get_sample_value("vitrine_oom_total") == 1


@pytest.mark.parametrize("preference", ["wait=0", "respond-async, wait=0", 'wait="0"'])
async def test_deadline_that_cannot_be_met_is_504(preference: str) -> None:
    """`Prefer: wait` sets the deadline, in seconds."""
    async with faked() as (client, engine, _):
        assert_problem(await client.get("/generate", headers={"Prefer": preference}), 504, "deadline-exceeded")
        assert engine.batches == []


async def test_deadline_that_passes_is_504_and_frees_the_queue() -> None:
    """A request whose time runs out gets 504; its waiting pictures never reach the engine, and `wait` cannot extend."""
    async with faked(max_batch_images=1, request_timeout_s=0.05) as (client, engine, app):
        engine.open.clear()
        answers = await asyncio.gather(
            client.post("/generate", json={"n": 3}), client.get("/generate", headers={"Prefer": "wait=60"})
        )
        for answer in answers:
            assert "0.05 s" in assert_problem(answer, 504, "deadline-exceeded")["detail"]
        assert queued(app) == 0
        assert len(engine.batches) == 1


async def test_engine_failure_is_503_and_the_next_request_is_fine() -> None:
    """A batch that fails fails its own requests only, without a word of what the engine said."""
    async with faked() as (client, engine, _):
        engine.error = RuntimeError("device on fire")
        refused = await client.get("/generate?seed=1")
        document = assert_problem(refused, 503, "engine-unavailable")
        assert refused.headers["retry-after"].isdecimal()
        assert "fire" not in str(document)
        engine.error = None
        assert (await client.get("/generate?seed=1")).status_code == 200


async def test_client_that_leaves_frees_its_pictures() -> None:
    """The pictures of a departed client leave the queue, and its batch mates are drawn."""
    async with faked(max_batch_images=2) as (client, engine, app):
        engine.open.clear()
        leaver = Connection(app, "/generate", b'{"n": 8}')
        await until(lambda: queued(app) == 6)
        stays = asyncio.create_task(client.get("/generate?seed=1"))
        await until(lambda: queued(app) == 7)
        await leaver.leave()
        assert queued(app) == 1
        assert leaver.sent == []
        engine.open.set()
        assert (await stays).status_code == 200
        assert sum(map(len, engine.batches)) == 3
