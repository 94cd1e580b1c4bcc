"""GET /models and /version: what is served."""

import json
import platform
from pathlib import Path

import httpx
import pytest
import torch

import service
from service.app import create_app
from tests.service.api.harness import LABELS, assert_problem, client_of, settings

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_list_has_every_version_newest_first(client: httpx.AsyncClient) -> None:
    """/models lists what can be named in `model`, and what each can draw."""
    answer = await client.get("/models")
    assert answer.headers["content-type"] == "application/json"
    models = answer.json()["models"]
    assert [model["id"] for model in models] == ["tiny@2", "tiny@1", "veil@1"]
    for model in models:
        picture = await client.get("/generate", params={"model": model["id"], "seed": 1})
        assert picture.headers["x-model-digest"] == model["digest"]


async def test_model_tells_what_its_manifest_says(client: httpx.AsyncClient, gallery: Path) -> None:
    """/models/{name}@{version} has labels with their aliases, sizes, defaults, licence and metrics."""
    manifest = json.loads((gallery / "tiny" / "1" / "manifest.json").read_text(encoding="utf-8"))
    document = (await client.get("/models/tiny@1")).json()
    for key in ("name", "version", "created", "width", "height", "channels", "z_dim", "defaults", "metrics", "licence"):
        assert document[key] == manifest[key]
    assert [(label["index"], label["name"]) for label in document["labels"]] == list(enumerate(LABELS))
    assert document["labels"][0]["aliases"] == ["boot", "bootie"]


async def test_name_alone_is_the_newest_version(client: httpx.AsyncClient) -> None:
    """/models/{name} describes the version that `model=name` draws."""
    assert (await client.get("/models/tiny")).json() == (await client.get("/models/tiny@2")).json()


@pytest.mark.parametrize("name", ["other", "tiny@3", "tiny@", "tiny@1@1", "TINY", "tiny@" + "1" * 5000])
async def test_unknown_model_is_404_and_names_those_there_are(client: httpx.AsyncClient, name: str) -> None:
    """A name that is not served is answered by those that are."""
    document = assert_problem(await client.get(f"/models/{name}"), 404, "model-not-found")
    assert "tiny@2, tiny@1, veil@1" in document["detail"]


@pytest.mark.parametrize("path", ["/models", "/models/tiny"])
async def test_known_etag_is_answered_304(client: httpx.AsyncClient, path: str) -> None:
    """A client that has the document is not sent it again."""
    answer = await client.get(path)
    again = await client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == answer.headers["etag"]
    assert (await client.get(path, headers={"If-None-Match": '"old"'})).status_code == 200


async def test_version_names_build_torch_device_and_models(client: httpx.AsyncClient) -> None:
    """/version says what is running, and is not cached."""
    answer = await client.get("/version")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json() == {
        "version": service.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": "cpu" if not torch.cuda.is_available() else "cuda",
        "models": ["tiny@2", "tiny@1", "veil@1"],
    }


async def test_catalogue_is_empty_before_models_are_loaded() -> None:
    """The catalogue and the version answer at once; a model that may yet come is 503, not 404."""
    async with client_of(create_app(settings(Path("nowhere")))) as client:
        assert (await client.get("/models")).json() == {"models": []}
        assert (await client.get("/version")).json()["models"] == []
        answer = await client.get("/models/tiny")
        assert_problem(answer, 503, "starting")
        assert answer.headers["retry-after"].isdecimal()
