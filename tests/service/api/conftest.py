"""A running service for the tests of the routes: three tiny bundles, two of them versions of one model."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

pytest.register_assert_rewrite("tests.service.api.harness")


@pytest.fixture(scope="session")
def gallery(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a models folder, for reading only: `tiny/1`, `tiny/2`, and `veil/1` with alpha and without labels."""
    from tests.builders import export_tiny_bundle

    folder = tmp_path_factory.mktemp("gallery")
    shutil.copytree(tiny_models / "tiny" / "1", folder / "tiny" / "1")
    export_tiny_bundle(folder, name="tiny", version=2, seed=2)
    export_tiny_bundle(folder, name="veil", version=1, channels=4, num_classes=0)
    return folder


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client(gallery: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of a service of real bundles; a test that uses it runs in the session's event loop."""
    from service.app import create_app
    from tests.service.api.harness import settings, started

    async with started(create_app(settings(gallery))) as ready:
        yield ready
