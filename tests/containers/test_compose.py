"""The stack of docker-compose.yml, up and running, asked over its published port.

`CC_MAIN_URL` is the address that the container check found, some path of the service; without it nothing is up.
"""

import io
import os
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image

pytestmark = pytest.mark.containers


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """Talk to the container, or skip where there is none."""
    url = os.environ.get("CC_MAIN_URL")
    if not url:
        pytest.skip("CC_MAIN_URL is not set: no stack is up")
    with httpx.Client(base_url=httpx.URL(url).join("/"), timeout=30, trust_env=False) as client:
        yield client


def test_container_is_ready(client: httpx.Client) -> None:
    """The service in the container says that it is ready."""
    answer = client.get("/readyz")

    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/json")


def test_container_makes_a_picture(client: httpx.Client) -> None:
    """A plain GET gives a PNG that a decoder accepts and that is not one flat colour."""
    answer = client.get("/generate", params={"seed": 7})

    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-seed"] == "7"
    picture = Image.open(io.BytesIO(answer.content))
    picture.load()
    assert picture.format == "PNG"
    assert picture.convert("L").getextrema()[0] < picture.convert("L").getextrema()[1]


def test_container_repeats_a_picture_byte_for_byte(client: httpx.Client) -> None:
    """The same seed gives the same bytes, another seed gives others; a sheet in between disturbs neither."""
    first = client.get("/generate", params={"seed": 7}).content
    sheet = client.get("/generate", params={"seed": 7, "n": 4})
    again = client.get("/generate", params={"seed": 7}).content
    other = client.get("/generate", params={"seed": 8}).content

    assert sheet.status_code == 200, sheet.text
    assert again == first
    assert other != first


def test_container_serves_the_mounted_models(client: httpx.Client) -> None:
    """The catalogue lists at least one model, and `/generate` names it in its answer."""
    catalogue = client.get("/models").json()

    assert client.get("/generate", params={"seed": 1}).headers["x-model"].split("@")[0] in str(catalogue)
