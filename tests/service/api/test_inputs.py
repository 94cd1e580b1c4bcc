"""Whatever a client may send wrongly: each mistake has its documented status and names its field; none is a 500."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from service.api.inputs import MAX_BODY_BYTES, MAX_LATENTS_BODY_BYTES
from tests.service.api.harness import LABELS, Z_DIM, Connection, a_bundle, assert_problem, faked, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

LATENT = [0.0] * Z_DIM
HUGE = "9" * 4000
INTEGERS = ["", "x", "1.5", "1e1", "0x1", "NaN", "inf", "true", "null", "[1]", "1,2", HUGE]
FLOATS = ["", "x", "nan", "NaN", "inf", "-Infinity", "1e999", "true", "0,5", "0.5x"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def drawn() -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of a service whose pictures cost nothing, and whose limits are small."""
    async with faked(max_n=6, max_megapixels=0.06, max_frames=12) as (client, _, _):
        yield client


def bad_number(name: str, below: str, above: str, wrong: list[str]) -> list[tuple[str, str]]:
    """Return query strings in which one number is out of range or none."""
    return [(f"{name}={value}", f"/{name}") for value in (below, above, *wrong)]


COMMON_QUERIES = [
    *bad_number("truncation_psi", "-0.01", "1.01", FLOATS),
    *bad_number("size", "15", "1025", INTEGERS),
    *bad_number("quality", "0", "101", INTEGERS),
    ("quality=50&format=png", "/quality"),
    ("quality=50", "/quality"),
    ("label=hat", "/label"),
    ("label=3", "/label"),
    ("label=-1", "/label"),
    ("label=", "/label"),
    (f"label={'x' * 65}", "/label"),
    ("label=%D9%A1", "/label"),
    ("format=bmp", "/format"),
    ("format=PNG", "/format"),
    ("format=", "/format"),
    ("layout=grid", "/layout"),
    ("background=red", "/background"),
    ("background=%23ff0000", "/background"),
    ("background=transparent", "/background"),
    ("background=", "/background"),
    ("background=nocolour&model=veil", "/background"),
    ("background=%23ff00&model=veil", "/background"),
    ("background=%23gggggg&model=veil", "/background"),
    (f"background={'x' * 33}&model=veil", "/background"),
    ("metadata=maybe", "/metadata"),
    ("metadata=", "/metadata"),
    ("metadata=2", "/metadata"),
    ("model=", "/model"),
    (f"model={'x' * 129}", "/model"),
    ("colour=red", "/colour"),
    ("int=1", "/int"),
    ("seeds[]=1", "/seeds[]"),
    ("a/b~c=1", "/a~1b~0c"),
    ("size=16&size=16", "/size"),
    ("label=1&label=2", "/label"),
    ("kid=k&exp=1&sig=s", "/sig"),
    ("include=b64", "/include"),
]
GENERATE_QUERIES = [
    *COMMON_QUERIES,
    *bad_number("n", "0", "17", ["-1", *INTEGERS]),
    *bad_number("columns", "0", "17", INTEGERS),
    ("seed=", "/seed"),
    (f"seed={'x' * 129}", "/seed"),
    (f"seed={'x' * 20000}", "/seed"),
    ("seed=1&seed=2", "/seed"),
    ("n=2&layout=single", "/layout"),
    ("n=16&columns=16&size=1024&format=webp", "/size"),
    ("download=", "/download"),
    ("download=..%2Fetc", "/download"),
    ("download=a%22b", "/download"),
    ("download=a%0D%0Ab", "/download"),
    (f"download={'x' * 65}", "/download"),
    ("latents=1", "/latents"),
    ("seeds=1,2", "/seeds"),
    ("labels=1", "/labels"),
]
INTERPOLATE_QUERIES = [
    *COMMON_QUERIES,
    *bad_number("steps", "1", "121", INTEGERS),
    *bad_number("fps", "0", "61", INTEGERS),
    ("label_to=hat", "/label_to"),
    ("label_to=3", "/label_to"),
    ("mode=cubic", "/mode"),
    ("easing=bounce", "/easing"),
    ("loop=forever", "/loop"),
    ("format=jpeg", "/format"),
    ("format=auto", "/format"),
    ("format=gif&quality=50", "/quality"),
    ("layout=strip&format=webp", "/format"),
    ("layout=frames&format=gif", "/format"),
    ("keyframes=1", "/keyframes"),
    ("steps=120&size=1024", "/size"),
]


@pytest.mark.parametrize(("query", "pointer"), GENERATE_QUERIES)
async def test_bad_query_of_generate_names_the_field(client: httpx.AsyncClient, query: str, pointer: str) -> None:
    """GET /generate refuses what is out of range, of a wrong type, empty, unknown or repeated."""
    assert_problem(await client.get(f"/generate?{query}"), 422, "invalid-parameters", pointer)


@pytest.mark.parametrize(("query", "pointer"), INTERPOLATE_QUERIES)
async def test_bad_query_of_interpolate_names_the_field(client: httpx.AsyncClient, query: str, pointer: str) -> None:
    """GET /interpolate refuses what is out of range, of a wrong type, empty, unknown or repeated."""
    assert_problem(await client.get(f"/interpolate?from=1&to=2&{query}"), 422, "invalid-parameters", pointer)


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("", "/from"),
        ("from=1", "/to"),
        ("to=1", "/from"),
        ("from=&to=1", "/from"),
        (f"from=1&to={'x' * 129}", "/to"),
        ("from=1&to=2&to=3", "/to"),
        ("seed_from=1&to=2", "/seed_from"),
    ],
)
async def test_bad_ends_of_interpolate_name_the_field(client: httpx.AsyncClient, query: str, pointer: str) -> None:
    """GET /interpolate needs both ends, once each."""
    assert_problem(await client.get(f"/interpolate?{query}"), 422, "invalid-parameters", pointer)


def bad_values(name: str, *values: Any) -> list[tuple[dict[str, Any], str]]:
    """Return bodies in which one field has a value that it may not have."""
    return [({name: value}, f"/{name}") for value in values]


NO_INTEGER = ["1", "x", 1.5, 1.0, True, [], {}, float("nan"), float("inf"), 10**400]
COMMON_BODIES = [
    *bad_values("truncation_psi", -0.01, 1.01, "0.5", True, [], {}, float("nan"), float("inf"), float("-inf"), 2),
    *bad_values("size", 15, 1025, 0, -1, *NO_INTEGER),
    *bad_values("quality", 0, 101, *NO_INTEGER),
    *bad_values("label", 3, -1, "hat", "", "x" * 65, 1.0, True, [], {}, 10**400, float("nan")),
    *bad_values("format", "bmp", "PNG", "", 1, True, []),
    *bad_values("layout", "grid", "", 1, None),
    *bad_values("background", "red", "", "x" * 33, 1, None, []),
    *bad_values("metadata", "true", 1, 0, "no", None, []),
    *bad_values("model", "", "x" * 129, 1, True, [], {}),
    *bad_values("download", "x"),
    *bad_values("preset", "x"),
    *bad_values("", 1),
    ({"a/b~c": 1}, "/a~1b~0c"),
    ({"quality": 50, "format": "png"}, "/quality"),
    ({"quality": 50}, "/quality"),
    ({"model": "veil", "background": "nocolour"}, "/background"),
    ({"model": "veil", "label": 0}, "/label"),
]
GENERATE_BODIES = [
    *COMMON_BODIES,
    *bad_values("n", 0, -1, 65, 1025, *NO_INTEGER),
    *bad_values("columns", 0, 17, *NO_INTEGER),
    *bad_values("seed", -1, 2**53, 10**400, "", "x" * 129, 1.0, True, [], {}, float("nan")),
    *bad_values("seeds", [], 1, "1", {}, list(range(65)), list(range(1025))),
    *bad_values("labels", [], "bag", {}, [0] * 65),
    *bad_values("latents", [], 1, {}, "x", [[0.0] * Z_DIM] * 65),
    *bad_values("include", "b64", {}, 1),
    ({"include": ["everything"]}, "/include/0"),
    ({"seeds": [1, -1]}, "/seeds/1"),
    ({"seeds": [1, True]}, "/seeds/1"),
    ({"seeds": [1, None]}, "/seeds/1"),
    ({"labels": [0, "hat"]}, "/labels/1"),
    ({"labels": [0, 3]}, "/labels/1"),
    ({"labels": [0, None]}, "/labels/1"),
    ({"latents": [LATENT, [0.0] * (Z_DIM - 1)]}, "/latents/1"),
    ({"latents": [[0.0] * (Z_DIM + 1)]}, "/latents/0"),
    ({"latents": [[]]}, "/latents/0"),
    ({"latents": [[*LATENT[1:], 10.01]]}, f"/latents/0/{Z_DIM - 1}"),
    ({"latents": [[-10.01, *LATENT[1:]]]}, "/latents/0/0"),
    ({"latents": [[float("nan"), *LATENT[1:]]]}, "/latents/0/0"),
    ({"latents": [[float("inf"), *LATENT[1:]]]}, "/latents/0/0"),
    ({"latents": [["0", *LATENT[1:]]]}, "/latents/0/0"),
    ({"latents": [[True, *LATENT[1:]]]}, "/latents/0/0"),
    ({"latents": [0.0] * Z_DIM}, "/latents/0"),
    ({"seed": 1, "seeds": [1]}, "/seeds"),
    ({"seed": 1, "latents": [LATENT]}, "/latents"),
    ({"seeds": [1], "latents": [LATENT]}, "/seeds"),
    ({"label": 0, "labels": [0]}, "/labels"),
    ({"n": 2, "seeds": [1]}, "/seeds"),
    ({"n": 2, "seeds": [1]}, "/n"),
    ({"n": 2, "labels": [0, 1, 2]}, "/labels"),
    ({"n": 1, "latents": [LATENT, LATENT]}, "/latents"),
    ({"seeds": [1, 2], "labels": [0]}, "/labels"),
    ({"latents": [LATENT], "labels": [0, 1]}, "/labels"),
    ({"n": 2, "layout": "single"}, "/layout"),
    ({"n": 64, "size": 1024}, "/size"),
    ({"seeds": list(range(62)), "size": 1024}, "/size"),
    ({"n": 16, "columns": 1, "size": 1024, "format": "webp"}, "/size"),
]
TWO_ENDS = {"from": 1, "to": 2}
TWO_STOPS = [{"seed": 1}, {"seed": 2}]
INTERPOLATE_BODIES = [
    *(({**TWO_ENDS, **body}, pointer) for body, pointer in COMMON_BODIES),
    *(({**TWO_ENDS, "steps": value}, "/steps") for value in (1, 121, *NO_INTEGER)),
    *(({**TWO_ENDS, "fps": value}, "/fps") for value in (0, 61, *NO_INTEGER)),
    *(({**TWO_ENDS, "from": value}, "/from") for value in (-1, 2**53, "", "x" * 129, 1.0, True, [], None)),
    *(({**TWO_ENDS, "label_to": value}, "/label_to") for value in ("hat", 3, -1, 1.0, True)),
    ({**TWO_ENDS, "mode": "cubic"}, "/mode"),
    ({**TWO_ENDS, "easing": 1}, "/easing"),
    ({**TWO_ENDS, "loop": None}, "/loop"),
    ({**TWO_ENDS, "format": "jpeg"}, "/format"),
    ({**TWO_ENDS, "format": "gif", "quality": 5}, "/quality"),
    ({**TWO_ENDS, "seed": 1}, "/seed"),
    ({**TWO_ENDS, "n": 1}, "/n"),
    ({}, "/from"),
    ({"from": 1}, "/to"),
    ({"to": 1}, "/from"),
    *(({"keyframes": value}, "/keyframes") for value in ([], TWO_STOPS[:1], TWO_STOPS * 9, 1, "x", {})),
    ({"keyframes": [{"seed": 1}, {}]}, "/keyframes/1"),
    ({"keyframes": [{"seed": 1}, {"seed": 1, "latent": LATENT}]}, "/keyframes/1"),
    ({"keyframes": [{"seed": 1}, 2]}, "/keyframes/1"),
    ({"keyframes": [{"seed": 1}, {"seed": -1}]}, "/keyframes/1/seed"),
    ({"keyframes": [{"seed": 1}, {"seed": 1, "label": "hat"}]}, "/keyframes/1/label"),
    ({"keyframes": [{"seed": 1}, {"seed": 1, "colour": "red"}]}, "/keyframes/1/colour"),
    ({"keyframes": [{"seed": 1}, {"latent": [0.0]}]}, "/keyframes/1/latent"),
    ({"keyframes": [{"seed": 1}, {"latent": [11.0] * Z_DIM}]}, "/keyframes/1/latent/0"),
    ({"keyframes": [{"seed": 1}, {"latent": [float("nan")] * Z_DIM}]}, "/keyframes/1/latent/0"),
    ({"keyframes": TWO_STOPS, "from": 1}, "/from"),
    ({"keyframes": TWO_STOPS, "from": 1, "to": 2}, "/keyframes"),
    ({"keyframes": TWO_STOPS, "label": 1}, "/label"),
    ({"keyframes": TWO_STOPS, "label_to": 1}, "/label_to"),
    ({"keyframes": TWO_STOPS * 2, "steps": 82}, "/steps"),
    ({**TWO_ENDS, "steps": 120, "size": 1024}, "/size"),
    ({**TWO_ENDS, "steps": 120, "loop": "bounce", "size": 520}, "/size"),
]


@pytest.mark.parametrize(("body", "pointer"), GENERATE_BODIES)
async def test_bad_body_of_generate_names_the_field(
    client: httpx.AsyncClient, body: dict[str, Any], pointer: str
) -> None:
    """POST /generate refuses what is out of range, of a wrong type, unknown, or does not go together."""
    answer = await client.post("/generate", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert_problem(answer, 422, "invalid-parameters", pointer)


@pytest.mark.parametrize(("body", "pointer"), INTERPOLATE_BODIES)
async def test_bad_body_of_interpolate_names_the_field(
    client: httpx.AsyncClient, body: dict[str, Any], pointer: str
) -> None:
    """POST /interpolate refuses what is out of range, of a wrong type, unknown, or does not go together."""
    answer = await client.post("/interpolate", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert_problem(answer, 422, "invalid-parameters", pointer)


@pytest.mark.parametrize("value", ["hat", 3, -1])
@pytest.mark.parametrize("path", ["/generate", "/interpolate"])
async def test_unknown_label_is_answered_by_the_valid_ones(
    client: httpx.AsyncClient, path: str, value: int | str
) -> None:
    """The problem lists every label with its index."""
    ends = {} if path == "/generate" else TWO_ENDS
    document = assert_problem(
        await client.post(path, json={**ends, "label": value}), 422, "invalid-parameters", "/label"
    )
    for index, name in enumerate(LABELS):
        assert f"{index} {name}" in document["detail"]


async def test_every_wrong_field_is_named_but_never_too_many(client: httpx.AsyncClient) -> None:
    """Several mistakes are told at once, and thousands of them do not make a long answer."""
    document = assert_problem(
        await client.post("/generate", json={"n": 0, "size": 1, "what": 1, "label": True}), 422, "invalid-parameters"
    )
    assert {entry["pointer"] for entry in document["errors"]} == {"/n", "/size", "/what", "/label"}
    for body in ({str(index): 1 for index in range(5000)}, {"latents": [["a"] * 100_000]}, {"seeds": [{}] * 1000}):
        answer = await client.post("/generate", json=body)
        assert_problem(answer, 422, "invalid-parameters")
        assert len(answer.content) < 10_000


@pytest.mark.parametrize(
    "body",
    [
        b'{"seed": 1, "seed": 1}',
        b'{"seed": 1, "n": 1, "s\\u0065ed": 2}',
        b'{"keyframes": [{"seed": 1, "seed": 2}, {"seed": 3}]}',
    ],
)
async def test_repeated_field_of_a_body_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    """A field that is given twice in one object is refused, however it is spelt."""
    path = "/interpolate" if b"keyframes" in body else "/generate"
    answer = await client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, 422, "invalid-parameters", "/seed")


@pytest.mark.parametrize("path", ["/generate", "/interpolate"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"{'seed': 1}",
        b'{"seed": 1,}',
        b'{"seed": 1}}',
        b'{"seed": 01}',
        b"seed=1",
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf{}",
        b'{"seed": "\xff"}',
        b'{"seed": "\\ud800"}',
        b'{"seed": ' + b"1" * 4301 + b"}",
        b"[" * 5000,
        b'{"a":' * 5000,
        b"\x00",
    ],
    ids=lambda body: repr(body[:24]),
)
async def test_body_that_is_no_json_is_400(client: httpx.AsyncClient, path: str, body: bytes) -> None:
    """What cannot be parsed is malformed, however deep or odd it is."""
    answer = await client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, 400, "malformed")


@pytest.mark.parametrize("body", ["[]", "1", "null", '"x"', "true", "[{}]"])
async def test_body_that_is_no_object_is_422(client: httpx.AsyncClient, body: str) -> None:
    """JSON that is not an object has no parameters."""
    answer = await client.post("/generate", content=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, 422, "invalid-parameters", "")


@pytest.mark.parametrize("path", ["/generate", "/interpolate"])
@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json", ""],
)
async def test_body_of_another_media_type_is_415(client: httpx.AsyncClient, path: str, media_type: str) -> None:
    """Only JSON is read, and a body has to say that it is."""
    answer = await client.post(path, content=b"{}", headers={"Content-Type": media_type})
    assert_problem(answer, 415, "unsupported-media-type")


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "Application/JSON"])
async def test_media_type_of_json_may_be_written_in_other_ways(client: httpx.AsyncClient, media_type: str) -> None:
    """Parameters and case of the media type do not matter."""
    answer = await client.post("/generate", content=b'{"seed": 1}', headers={"Content-Type": media_type})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b" " * MAX_BODY_BYTES + b"{}",
        b'{"seed": "' + b"x" * MAX_BODY_BYTES + b'"}',
        b'{"latents": [' + b" " * MAX_LATENTS_BODY_BYTES + b"]}",
    ],
    ids=["spaces", "long seed", "many latents"],
)
async def test_body_that_is_too_long_is_413(client: httpx.AsyncClient, body: bytes) -> None:
    """More than 64 KiB, or with latents 1 MiB, is not read."""
    answer = await client.post("/generate", content=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, 413, "too-large")


async def test_body_of_latents_may_be_longer(client: httpx.AsyncClient) -> None:
    """Latents may take more than 64 KiB."""
    padded = json.dumps({"latents": [LATENT], "label": 0}) + " " * (MAX_BODY_BYTES + 1)
    answer = await client.post("/generate", content=padded, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200


async def test_endless_body_is_given_up() -> None:
    """A body that does not end is refused after 1 MiB, though its client sends on."""
    async with faked() as (client, _, _):

        async def chunks() -> AsyncIterator[bytes]:
            while True:
                yield b" " * 65536

        answer = await client.post("/generate", content=chunks(), headers={"Content-Type": "application/json"})
        assert_problem(answer, 413, "too-large")


async def test_client_that_leaves_while_sending_is_no_error_of_ours() -> None:
    """A body that breaks off is counted as a client that left, not as a failure, and nothing is answered."""
    async with faked() as (client, engine, app):
        leaver = Connection(app, "/generate", b'{"seed":', whole=False)
        await until(lambda: True)
        await leaver.leave()
        assert leaver.sent == []
        assert engine.batches == []
        metrics = (await client.get("/metrics")).text
    assert 'outcome="client_error",route="/generate",status="499"} 1.0' in metrics
    assert "server_error" not in metrics


@pytest.mark.parametrize("path", ["/generate", "/interpolate?from=1&to=2"])
@pytest.mark.parametrize(
    "accept",
    [
        "text/html",
        "application/zip",
        "multipart/form-data",
        "multipart/mixed",
        "text/event-stream",
        "image/tiff",
        "image/png;q=0",
        "*/*;q=0",
        "audio/*, text/*",
        "nonsense",
        ",;,",
        "image/png;q=nan",
    ],
)
async def test_unacceptable_is_406_and_lists_what_there_is(client: httpx.AsyncClient, path: str, accept: str) -> None:
    """An Accept that names nothing of ours is told the media types that could be had."""
    document = assert_problem(await client.get(path, headers={"Accept": accept}), 406, "not-acceptable")
    assert "image/png" in document["detail"]
    assert "application/json" in document["detail"]


@pytest.mark.parametrize("accept", ["application/zip", "text/event-stream"])
async def test_unacceptable_post_is_406(client: httpx.AsyncClient, accept: str) -> None:
    """What comes in a later version is refused, not answered with something else."""
    assert_problem(await client.post("/generate", json={}, headers={"Accept": accept}), 406, "not-acceptable")


@pytest.mark.parametrize("name", ["other", "tiny@3", "tiny@x", "tiny@", "@", "tiny@1 ", "TINY", "../tiny", "tiny@-1"])
async def test_unknown_model_is_404(client: httpx.AsyncClient, name: str) -> None:
    """A model that is not served is not found, by GET and by POST, and those there are are named."""
    for answer in (
        await client.get("/generate", params={"model": name}),
        await client.post("/generate", json={"model": name}),
        await client.get("/interpolate", params={"model": name, "from": 1, "to": 2}),
        await client.post("/interpolate", json={"model": name, **TWO_ENDS}),
    ):
        assert "tiny@2" in assert_problem(answer, 404, "model-not-found")["detail"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/generate", {"GET", "POST"}),
        ("PUT", "/interpolate", {"GET", "POST"}),
        ("HEAD", "/generate", {"GET", "POST"}),
        ("OPTIONS", "/generate", {"GET", "POST"}),
        ("POST", "/models", {"GET"}),
        ("POST", "/i/tiny@1/7.png", {"GET"}),
        ("POST", "/readyz", {"GET"}),
        ("PATCH", "/metrics", {"GET"}),
    ],
)
async def test_other_methods_are_405_and_told_which_there_are(
    client: httpx.AsyncClient, method: str, path: str, allowed: set[str]
) -> None:
    """A method that an address does not take is answered by all that it takes."""
    answer = await client.request(method, path)
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == allowed
    if method != "HEAD":
        assert_problem(answer, 405, "method-not-allowed")


@pytest.mark.parametrize("path", ["/", "/nothing", "/generate/", "//generate", "/i", "/v1/images/generations", "/%ff"])
async def test_unknown_address_is_404(client: httpx.AsyncClient, path: str) -> None:
    """What is not there, or comes in a later version, is not found."""
    assert_problem(await client.get(path), 404, "not-found")
    assert_problem(await client.post(path, json={}), 404, "not-found")


@pytest.mark.parametrize(
    "query",
    [
        *("n=1&seed=0", "seed=9007199254740991", f"seed={'x' * 128}", "seed=-1", "seed=1.5", "seed=%20"),
        *(
            "truncation_psi=0",
            "truncation_psi=1",
            "size=16",
            "n=6&columns=16",
            "columns=1",
            "label=2",
            "label=%20BAG%20",
        ),
        *("quality=1&format=jpeg", "quality=100&format=webp", "quality=50&format=auto", "metadata=true", "metadata=0"),
        *("background=auto", "layout=single", f"download={'x' * 64}", "model=tiny@1"),
    ],
)
async def test_query_at_the_edge_of_what_is_allowed_is_drawn(drawn: httpx.AsyncClient, query: str) -> None:
    """Every limit includes its ends."""
    assert (await drawn.get(f"/generate?{query}")).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {}),
        ("/generate", {"seed": None, "n": None, "label": None, "labels": None, "size": None, "truncation_psi": None}),
        ("/generate", {"n": 6, "seeds": [0, 2**53 - 1, "x", 1, 2, 3], "labels": [0, 1, 2, "tee", "BAG", "boot"]}),
        ("/generate", {"latents": [[10.0] * Z_DIM, [-10] * Z_DIM], "n": 2, "truncation_psi": 1}),
        ("/generate", {"include": []}),
        ("/generate", {"quality": 100, "format": "webp", "size": 16}),
        ("/interpolate", {**TWO_ENDS, "steps": 12, "fps": 60}),
        ("/interpolate", {"keyframes": TWO_STOPS * 4, "steps": 2, "fps": 1, "loop": "wrap"}),
    ],
)
async def test_body_at_the_edge_of_what_is_allowed_is_drawn(
    drawn: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    """Every limit includes its ends, and null is the same as absent."""
    answer = await drawn.post(path, json=body)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/generate", {"n": 7}, "/n"),
        ("/generate", {"seeds": list(range(7))}, "/seeds"),
        ("/generate", {"labels": [0] * 7}, "/labels"),
        ("/generate", {"latents": [LATENT] * 7}, "/latents"),
        ("/generate", {"n": 6, "size": 101}, "/size"),
        ("/interpolate", {**TWO_ENDS, "steps": 13}, "/steps"),
        ("/interpolate", {**TWO_ENDS, "steps": 8, "loop": "bounce"}, "/steps"),
        ("/interpolate", {**TWO_ENDS, "steps": 6, "size": 101}, "/size"),
    ],
)
async def test_limit_of_the_settings_is_kept(
    drawn: httpx.AsyncClient, path: str, body: dict[str, Any], pointer: str
) -> None:
    """An operator's limits on pictures, frames and megapixels hold below the contract's."""
    assert_problem(await drawn.post(path, json=body), 422, "invalid-parameters", pointer)


async def test_mode_w_needs_a_style_space() -> None:
    """A model whose styles are its latents has no mode `w`, and its default is `slerp`."""
    bundle = a_bundle()
    plain = bundle.manifest.model_copy(update={"w_dim": Z_DIM, "num_ws": 1})
    async with faked(type(bundle)(plain, bundle.digest, bundle.folder)) as (client, engine, _):
        assert_problem(await client.get("/interpolate?from=1&to=2&mode=w"), 422, "invalid-parameters", "/mode")
        assert (await client.get("/interpolate?from=1&to=2&steps=3")).status_code == 200
        assert all(sample.z_to is None for batch in engine.batches for sample in batch)


FUZZED: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("seed", "from", "to"), st.integers(0, 2**53) | st.text(max_size=130)),
    **dict.fromkeys(("label", "label_to"), st.integers(-1, 3) | st.sampled_from(["bag", "BOOT", "hat"])),
    **dict.fromkeys(("n", "columns", "steps", "fps", "quality"), st.integers(0, 7)),
    "size": st.integers(14, 130),
    "truncation_psi": st.floats(-0.1, 1.1) | st.floats(),
    "format": st.sampled_from(["png", "jpeg", "webp", "avif", "gif", "auto"]),
    "layout": st.sampled_from(["auto", "single", "sheet", "animation", "strip", "frames"]),
    "background": st.sampled_from(["auto", "AUTO", "red"]),
    "metadata": st.booleans(),
    "model": st.sampled_from(["tiny", "tiny@1", "tiny@2"]),
    "download": st.text(max_size=4),
    "mode": st.sampled_from(["slerp", "lerp", "w"]),
    "easing": st.sampled_from(["linear", "cosine"]),
    "loop": st.sampled_from(["none", "wrap", "bounce"]),
    "seeds": st.lists(st.integers(-1, 2**53) | st.text(max_size=2), max_size=7),
    "labels": st.lists(st.integers(-1, 3), max_size=7),
    "latents": st.lists(st.lists(st.floats(-11, 11), min_size=Z_DIM, max_size=Z_DIM + 1), max_size=3),
    "include": st.lists(st.sampled_from(["b64", "url", "latent", "x"]), max_size=3),
    "keyframes": st.lists(st.fixed_dictionaries({}, optional={"seed": st.integers(-1, 9), "label": st.integers(0, 3)})),
}
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["1e400", "%", "\x00"])
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def some_of(known: dict[str, st.SearchStrategy[Any]], odd: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy of a few parameters, mostly good ones; one of them may be odd, or of no name."""
    good = st.sets(st.sampled_from(sorted(known)), max_size=4).flatmap(
        lambda chosen: st.fixed_dictionaries({name: known[name] for name in chosen})
    )
    bad = st.dictionaries(st.sampled_from(sorted(known)) | st.text(max_size=3), odd, max_size=1)
    return st.builds(lambda one, other: one | other, good, st.just({}) | bad)


OF_ONE = {"model", "truncation_psi", "size", "quality", "background", "metadata", "label", "format", "layout"}
SHEET = {name: FUZZED[name] for name in OF_ONE | {"seed", "n", "columns"}}
BODY = SHEET | {name: FUZZED[name] for name in ("seeds", "labels", "latents", "include")}
WAY = {name: FUZZED[name] for name in OF_ONE | {"steps", "mode", "easing", "loop", "fps", "label_to", "from", "to"}}
WAY["layout"] = st.sampled_from(["animation", "strip", "frames"])
WAY["format"] = st.sampled_from(["png", "webp", "gif", "avif", "jpeg"])
ACCEPTS = st.sampled_from(["*/*", "image/webp", "application/json", "image/*;q=0.1, application/json", "text/html"])
FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def assert_no_failure_of_ours(answer: httpx.Response) -> None:
    """Check that an answer is a picture, a document, or a problem that is the client's."""
    assert answer.status_code in (200, 400, 404, 406, 413, 422), answer.text
    if answer.status_code != 200:
        assert_problem(answer, answer.status_code, answer.json()["type"].rsplit("/", 1)[-1])


@FUZZ
@given(body=some_of(BODY, ANYTHING), accept=ACCEPTS)
@example(body={"label": 10**4000}, accept="*/*")
async def test_no_body_of_generate_is_a_failure_of_ours(
    drawn: httpx.AsyncClient, body: dict[str, Any], accept: str
) -> None:
    """Whatever JSON is posted, the answer is never a 5xx."""
    headers = {"Content-Type": "application/json", "Accept": accept}
    assert_no_failure_of_ours(await drawn.post("/generate", content=json.dumps(body), headers=headers))


@FUZZ
@given(
    ends=st.just({}) | st.just(TWO_ENDS),
    body=some_of(WAY | {"keyframes": FUZZED["keyframes"]}, ANYTHING),
    accept=ACCEPTS,
)
async def test_no_body_of_interpolate_is_a_failure_of_ours(
    drawn: httpx.AsyncClient, ends: dict[str, Any], body: dict[str, Any], accept: str
) -> None:
    """Whatever JSON is posted, the answer is never a 5xx."""
    headers = {"Content-Type": "application/json", "Accept": accept}
    assert_no_failure_of_ours(await drawn.post("/interpolate", content=json.dumps(ends | body), headers=headers))


@FUZZ
@given(
    start=st.sampled_from(
        [("/generate", {}), ("/interpolate", TWO_ENDS), ("/i/tiny@1/7.png", {}), ("/i/tiny@1/x.webp", {})]
    ),
    query=some_of(SHEET | WAY, SCALARS),
    accept=ACCEPTS,
)
async def test_no_query_is_a_failure_of_ours(
    drawn: httpx.AsyncClient, start: tuple[str, dict[str, Any]], query: dict[str, Any], accept: str
) -> None:
    """Whatever stands in the query, the answer is never a 5xx."""
    path, ends = start
    pairs = [
        (name, str(value).lower() if isinstance(value, bool) else str(value)) for name, value in (ends | query).items()
    ]
    assert_no_failure_of_ours(await drawn.get(path, params=pairs, headers={"Accept": accept}))


@settings(max_examples=60, deadline=None)
@given(body=st.binary(max_size=40))
@example(body=b'{"seed":1}')
async def test_no_bytes_are_a_failure_of_ours(drawn: httpx.AsyncClient, body: bytes) -> None:
    """Whatever bytes are posted, the answer is never a 5xx."""
    answer = await drawn.post("/generate", content=body, headers={"Content-Type": "application/json"})
    assert_no_failure_of_ours(answer)
