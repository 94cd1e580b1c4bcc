"""GET /i/{model}@{version}/{seed}.{ext}: the address that is a picture."""

import httpx
import pytest

from tests.service.api.harness import assert_problem, faked

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize(
    "parameters",
    [
        {"seed": 1},
        {"seed": 2**53 - 1, "label": "t-shirt/top"},
        {"seed": "Grüße & more?", "label": 0},
        {"seed": 1, "truncation_psi": 0.1234567890123},
        {"seed": 1, "truncation_psi": 1e-7},
        {"seed": 1, "size": 40, "metadata": False},
        {"seed": 1, "format": "webp", "quality": 30},
        {"seed": 1, "format": "jpeg"},
        {"seed": 1, "format": "avif", "size": 64},
        {"seed": 1, "model": "tiny@1"},
        {"seed": 1, "model": "veil", "background": "#80ff00"},
        {"seed": 1, "model": "veil", "background": "Teal", "format": "jpeg"},
    ],
    ids=str,
)
async def test_content_location_gives_the_same_picture(
    client: httpx.AsyncClient, parameters: dict[str, object]
) -> None:
    """The permanent link of a picture answers with its very bytes, whatever its parameters were."""
    answer = await client.get("/generate", params=parameters)
    again = await client.get(answer.headers["content-location"])
    assert again.status_code == 200, again.text
    assert again.content == answer.content
    assert again.headers["content-type"] == answer.headers["content-type"]
    assert again.headers["content-location"] == answer.headers["content-location"]


async def test_permanent_link_is_immutable_and_depends_on_no_header(client: httpx.AsyncClient) -> None:
    """A permanent link may be kept for ever, and is the same whatever Accept says."""
    answer = await client.get("/i/tiny@1/7.png", headers={"Accept": "application/json"})
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert "vary" not in answer.headers
    assert answer.headers["x-seed"] == "7"
    assert answer.headers["x-model"] == "tiny@1"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"


@pytest.mark.parametrize(
    ("extension", "media_type"),
    [
        ("png", "image/png"),
        ("jpg", "image/jpeg"),
        ("jpeg", "image/jpeg"),
        ("webp", "image/webp"),
        ("avif", "image/avif"),
    ],
)
async def test_extension_is_the_format(client: httpx.AsyncClient, extension: str, media_type: str) -> None:
    """Each extension answers in its format."""
    assert (await client.get(f"/i/tiny@1/7.{extension}")).headers["content-type"] == media_type


async def test_seed_of_a_link_can_be_a_string(client: httpx.AsyncClient) -> None:
    """What stands before the last dot is the seed, dots and all."""
    answer = await client.get("/i/tiny@1/shirt.v2.png")
    assert answer.content == (await client.get("/generate?model=tiny@1&seed=shirt.v2")).content


async def test_known_etag_is_answered_304_without_the_engine() -> None:
    """If-None-Match saves the drawing here too, and the ETag is that of the same picture by /generate."""
    async with faked() as (client, engine, _):
        answer = await client.get("/i/tiny@1/7.png?label=bag")
        again = await client.get("/i/tiny@1/7.png?label=bag", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, len(engine.batches)) == (304, 1)
        assert again.headers["content-location"] == "/i/tiny@1/7.png?label=bag"
        other = await client.get("/generate?seed=7&label=1", headers={"If-None-Match": answer.headers["etag"]})
        assert (other.status_code, len(engine.batches)) == (304, 1)


async def test_link_can_be_a_download(client: httpx.AsyncClient) -> None:
    """`download` works on permanent links."""
    answer = await client.get("/i/tiny@1/7.png?download=seven.png")
    assert answer.headers["content-disposition"] == 'attachment; filename="seven.png"'


@pytest.mark.parametrize(
    "path",
    [
        "/i/tiny/7.png",
        "/i/tiny@/7.png",
        "/i/@1/7.png",
        "/i/tiny@latest/7.png",
        "/i/tiny@1/7",
        "/i/tiny@1/.png",
        "/i/tiny@1/7.gif",
        "/i/tiny@1/7.PNG",
        "/i/tiny@1/7.png/",
        "/i/tiny@1/",
        "/i/tiny@1",
    ],
)
async def test_address_that_is_no_link_is_404(client: httpx.AsyncClient, path: str) -> None:
    """Anything but name, version, seed and a known extension is not found."""
    assert_problem(await client.get(path), 404, "not-found")


@pytest.mark.parametrize("model", ["tiny@3", "tiny@01", "tiny@0", "other@1", "tiny@" + "9" * 5000, "tiny@\u0661"])
async def test_unknown_model_or_version_is_404(client: httpx.AsyncClient, model: str) -> None:
    """A version that is not served is not replaced by another, however it is written."""
    assert_problem(await client.get(f"/i/{model}/7.png"), 404, "model-not-found")


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("/i/tiny@1/7.png?quality=50", "/quality"),
        ("/i/tiny@1/7.png?label=hat", "/label"),
        ("/i/tiny@1/7.png?size=15", "/size"),
        ("/i/tiny@1/7.png?truncation_psi=2", "/truncation_psi"),
        ("/i/tiny@1/7.png?background=red", "/background"),
        ("/i/tiny@1/7.png?model=tiny", "/model"),
        ("/i/tiny@1/7.png?seed=8", "/seed"),
        ("/i/tiny@1/7.png?format=png", "/format"),
        ("/i/tiny@1/7.png?size=20&size=30", "/size"),
        (f"/i/tiny@1/{'x' * 129}.png", "/seed"),
    ],
)
async def test_bad_parameter_of_a_link_is_422(client: httpx.AsyncClient, path: str, pointer: str) -> None:
    """A link's parameters are checked like those of /generate, and what the path says cannot be said again."""
    assert_problem(await client.get(path), 422, "invalid-parameters", pointer)
