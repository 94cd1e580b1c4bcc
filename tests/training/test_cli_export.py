"""`export` on the command line: what an older run lacks, and the privacy gate."""

import base64
import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.builders import random_networks
from training.checkpoint import save_snapshot
from training.cli import main
from training.cli.export import model_name, next_version
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
        "budget": {"minutes": None, "kimg": 3.0},
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


def test_report_of_the_run_goes_into_the_bundle(run_folder: Path, capsys: Output) -> None:
    """Made afresh, headed by the bundle, listed and hashed, without the training machine's paths."""
    (run_folder / "report.html").write_text("an old report", encoding="utf-8")
    (run_folder / "memorisation.png").write_bytes(b"training pictures")
    assert export(run_folder, "000002") == 0
    folder = run_folder.parent / "models" / "shapes" / "1"
    assert "samples.png and report.html" in capsys.readouterr().out
    html = (folder / "report.html").read_bytes()
    entry = {"sha256": hashlib.sha256(html).hexdigest(), "bytes": len(html)}
    assert manifest_of(run_folder)["files"]["report.html"] == entry
    text = html.decode()
    assert "<h1>shapes, version 1</h1>" in text
    assert "Snapshot 000002.safetensors" in text
    assert str(run_folder.parent) not in text
    assert base64.b64encode(b"training pictures").decode() not in text
    assert (run_folder / "report.html").read_text("utf-8") == "an old report"


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


@pytest.mark.parametrize(
    ("data", "model"),
    [("Fruits 360", "fruits-360"), ("Übergröße & Co.", "ubergroe-co"), ("商品", "model"), ("-" + "a" * 80, "a" * 63)],
)
def test_model_is_named_after_its_data(data: str, model: str) -> None:
    """Without --name the data's name is spelled in the letters that a model's name may have."""
    assert model_name(data) == model
    assert re.fullmatch("[a-z0-9][a-z0-9-]{0,62}", model)


def test_next_version_is_one_more_than_the_highest(tmp_path: Path) -> None:
    """Gaps are not filled, for a version that was taken back must not come again; other folders do not count."""
    assert next_version(tmp_path / "shop") == 1
    for name in ("1", "3", "notes"):
        (tmp_path / "shop" / name).mkdir(parents=True)
    assert next_version(tmp_path / "shop") == 4


def test_export_needs_no_name_and_no_version(run_folder: Path, tmp_path: Path, capsys: Output) -> None:
    """Twice without flags gives versions 1 and 2 of a model that is named after the data."""
    kept = {"snapshot": "000002.safetensors", "metrics": []}
    (run_folder / "evaluation.json").write_text(json.dumps(kept), encoding="utf-8")
    for _ in range(2):
        assert main(["export", str(run_folder), "--models", str(tmp_path / "models")]) == 0
    name = model_name(json.loads((run_folder / "run.json").read_text())["data"]["name"])
    assert sorted(path.name for path in (tmp_path / "models" / name).iterdir()) == ["1", "2"]
    assert f"{name}/2" in capsys.readouterr().out
