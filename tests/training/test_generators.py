"""Trained generators, read back from a run's snapshots and from bundles."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.builders import tiny_generator
from training.checkpoint import save_snapshot
from training.data import to_uint8
from training.errors import TrainingError
from training.generators import from_bundle, from_snapshot, run_facts, sample, snapshots
from training.latents import latents

GENERATOR = tiny_generator()
DETAILS = {"nimg": 4000, "elapsed_s": 90.0}


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    path = tmp_path / "snapshots" / "000004.safetensors"
    save_snapshot(path, GENERATOR, DETAILS)
    return path


def test_snapshots_come_oldest_first(tmp_path: Path) -> None:
    """The last one is the newest, and what is not a snapshot is passed over."""
    for name in ("000010", "000002", "000100"):
        save_snapshot(tmp_path / "snapshots" / f"{name}.safetensors", GENERATOR, DETAILS)
    (tmp_path / "snapshots" / "000004.png").write_bytes(b"")

    assert [path.stem for path in snapshots(tmp_path)] == ["000002", "000010", "000100"]


def test_run_without_snapshots_says_what_to_do(tmp_path: Path) -> None:
    """The error names the folder and the command that is missing."""
    with pytest.raises(TrainingError, match="holds no snapshots; train first: python -m training train"):
        snapshots(tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff"])
def test_folder_that_is_no_run_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """Neither a missing nor a damaged `run.json` ends in a traceback."""
    if content is not None:
        (tmp_path / "run.json").write_bytes(content)

    with pytest.raises(TrainingError, match="is not the folder of a run"):
        run_facts(tmp_path)


def test_facts_of_a_run_are_read(tmp_path: Path) -> None:
    """What `train` wrote comes back as it was."""
    (tmp_path / "run.json").write_text(json.dumps({"config": {"preset": "tiny"}}), encoding="utf-8")

    assert run_facts(tmp_path) == {"config": {"preset": "tiny"}}


def test_snapshot_gives_the_generator_back(snapshot: Path) -> None:
    """The pictures are the same, bit for bit, and it is known how much training they took."""
    trained = from_snapshot(snapshot, GENERATOR.config)
    z, labels = latents(range(6), 8), torch.arange(6) % 3

    assert torch.equal(sample(trained.generator, z, labels), sample(GENERATOR, z, labels))
    assert (trained.nimg, trained.elapsed_s, trained.source) == (4000, 90.0, snapshot)
    assert not trained.generator.training
    assert not any(parameter.requires_grad for parameter in trained.generator.parameters())


def test_snapshot_of_another_network_is_refused(snapshot: Path) -> None:
    """Weights that do not fit are named, not read in part."""
    with pytest.raises(TrainingError, match=r"000004\.safetensors is no snapshot of this network"):
        from_snapshot(snapshot, replace(GENERATOR.config, w_dim=32))


def _missing(path: Path) -> None:
    path.unlink()


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _without_details(path: Path) -> None:
    save_file(load_file(path), path)


@pytest.mark.parametrize("spoil", [_missing, _cut_off, _without_details])
def test_damaged_snapshot_is_refused(snapshot: Path, spoil: Callable[[Path], None]) -> None:
    """A file that is not a whole snapshot ends in one line."""
    spoil(snapshot)

    with pytest.raises(TrainingError, match=r"000004\.safetensors is no snapshot of this network"):
        from_snapshot(snapshot, GENERATOR.config)


def test_bundle_gives_the_generator_back(tiny_models: Path) -> None:
    """A bundle's durable form is the generator that was exported, bit for bit."""
    trained = from_bundle(tiny_models / "tiny/1")
    z, labels = latents(range(6), 8), torch.arange(6) % 3

    assert torch.equal(sample(trained.generator, z, labels), sample(GENERATOR, z, labels))
    assert trained.generator.config == GENERATOR.config
    assert (trained.nimg, trained.source.name) == (0, "1")


def _architecture(**changes: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "architecture.json"
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
        path.write_text(json.dumps(content | changes), encoding="utf-8")

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: _missing(folder / "architecture.json"),
        lambda folder: _missing(folder / "weights.safetensors"),
        lambda folder: _cut_off(folder / "weights.safetensors"),
        lambda folder: (folder / "manifest.json").write_text("{}"),
        lambda folder: (folder / "architecture.json").write_text("[]"),
        _architecture(family="dcgan/1"),
        _architecture(config={"widths": [16, 16]}),
    ],
)
def test_folder_that_is_no_bundle_of_this_family_is_refused(tiny_copy: Path, spoil: Callable[[Path], object]) -> None:
    """Missing, damaged or foreign files end in one line that names the folder."""
    spoil(tiny_copy)

    with pytest.raises(TrainingError, match="1 is neither the folder of a run nor a bundle"):
        from_bundle(tiny_copy)


def test_samples_do_not_depend_on_the_batch() -> None:
    """Pictures come in the order of the latents, whatever number is drawn at a time."""
    z, labels = latents(range(7), 8), torch.arange(7) % 3
    whole = sample(GENERATOR, z, labels)

    assert whole.shape == (7, 16, 16, 1)
    assert whole.dtype == torch.uint8
    assert torch.equal(whole, to_uint8(GENERATOR(z, labels)))
    for batch_size in (1, 3, 7):
        parts = sample(GENERATOR, z, labels, batch_size)
        assert (parts.int() - whole.int()).abs().max() <= 1  # other kernels may round otherwise
