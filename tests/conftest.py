"""What tests of several folders share: a tiny bundle, exported once."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """Run torch on one thread: on a shared machine tiny layers wait for each other longer than they work."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def few_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for batch sizes that round otherwise among fewer pictures than the service does: it takes seconds."""
    monkeypatch.setattr("service.engine.exactness.PROBE_BYTES", 20_000)


@pytest.fixture(scope="session")
def tiny_models(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a models folder with the conditional bundle `tiny/1`, for reading only."""
    from tests.builders import export_tiny_bundle

    folder = tmp_path_factory.mktemp("models")
    export_tiny_bundle(folder, name="tiny", version=1)
    return folder


@pytest.fixture
def tiny_copy(tiny_models: Path, tmp_path: Path) -> Path:
    """Return the folder of a copy of `tiny/1` that the test may spoil."""
    return Path(shutil.copytree(tiny_models / "tiny" / "1", tmp_path / "models" / "tiny" / "1"))
