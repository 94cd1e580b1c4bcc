"""`export` on the command line: what an older run lacks, and the privacy gate."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.builders import random_networks
from training.checkpoint import save_snapshot
from training.cli import main
from training.data import PictureSet
from training.presets import PRESETS, TrainConfig

Output = pytest.CaptureFixture[str]


@pytest.fixture
def run_folder(tiny_config: TrainConfig, tiny_set: PictureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of an evaluated run whose first snapshot is of an older version, and its second of this one."""
    monkeypatch.setitem(PRESETS, "tiny", tiny_config)
    monkeypatch.setattr("training.directions.find_directions", lambda generator, data: [])
    folder = tmp_path / "run"
    generator, discriminator = random_networks(tiny_config.network(size=tiny_set.size, num_classes=3))
    details = {"nimg": 1000, "elapsed_s": 60.0}
    save_snapshot(folder / "snapshots" / "000001.safetensors", generator, details)
    save_snapshot(folder / "snapshots" / "000002.safetensors", generator, details, discriminator)
    facts = {
        "config": asdict(tiny_config),
        "data": {"file": str(tmp_path / "tiny.safetensors"), "name": tiny_set.name, "digest": tiny_set.digest},
        "environment": {"device": "cpu", "threads": 1, "git_revision": "f" * 40},
    }
    (folder / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


def export(run_folder: Path, snapshot: str, *options: str) -> int:
    """Export a snapshot as if `evaluate` had chosen it."""
    kept = {"snapshot": f"{snapshot}.safetensors", "metrics": []}
    (run_folder / "evaluation.json").write_text(json.dumps(kept), encoding="utf-8")
    return main(
        ["export", str(run_folder), "--name", "shapes", "--models", str(run_folder.parent / "models"), *options]
    )


def manifest_of(run_folder: Path) -> dict[str, Any]:
    path = run_folder.parent / "models" / "shapes" / "1" / "manifest.json"
    manifest: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return manifest


def test_older_snapshot_is_exported_without_a_discriminator(run_folder: Path, capsys: Output) -> None:
    """The command says that there is none, and so does the manifest."""
    assert export(run_folder, "000001") == 0
    assert "without a discriminator: the snapshot, of an older version, holds none" in capsys.readouterr().out
    assert manifest_of(run_folder)["discriminator"] is None


def test_discriminator_of_the_snapshot_is_exported(run_folder: Path, capsys: Output) -> None:
    """A snapshot of this version brings it along, calibrated on the run's data."""
    assert export(run_folder, "000002") == 0
    assert "without a discriminator" not in capsys.readouterr().out
    manifest = manifest_of(run_folder)
    assert "discriminator.pt" in manifest["files"]
    assert [scores["n_holdout"] for scores in manifest["discriminator"]["labels"]] == [4, 4, 4]


def test_privacy_gate_shows_its_figures(run_folder: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    """What passes is exported, and how near the samples came is said."""
    monkeypatch.setattr("training.privacy.MIN_HOLDOUT", 12)
    assert export(run_folder, "000001", "--privacy-gate", "0.001") == 0
    assert "nearest training pictures in pixels at 16x16: " in capsys.readouterr().out


def test_privacy_gate_that_refuses_leaves_no_bundle(
    run_folder: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is one line with the figures."""
    monkeypatch.setattr("training.privacy.MIN_HOLDOUT", 12)
    assert export(run_folder, "000001", "--privacy-gate", "100000") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: samples lie too close to training pictures, nearer than 100000 times")
    assert not (run_folder.parent / "models").exists()


def test_privacy_gate_without_a_number_takes_the_default(run_folder: Path, capsys: Output) -> None:
    """Twelve hold-out pictures are too few to judge by, which refuses the export."""
    assert export(run_folder, "000001", "--privacy-gate") == 1
    assert "--privacy-gate needs 100 hold-out pictures, tiny has 12" in capsys.readouterr().err
