"""`evaluate --inception --protocol`: FID beside the other figures, from the command line to the bundle's manifest."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.inception_files import write_inception
from training.checkpoint import save_snapshot
from training.cli import main
from training.data import Label, pack
from training.metrics import fid, inception
from training.networks.style_residual import Generator
from training.presets import PRESETS, TrainConfig
from training.readers import RawData, RawSplit

Output = pytest.CaptureFixture[str]


@pytest.fixture
def run_folder(tiny_config: TrainConfig, tiny_raw: RawData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a run with one snapshot; the network has few features and so needs few pictures."""
    monkeypatch.setitem(PRESETS, "tiny", tiny_config)
    train, holdout = (
        RawSplit(np.tile(split.images, (times, 1, 1, 1)), np.tile(split.labels, times))
        for split, times in ((tiny_raw.train, 3), (tiny_raw.holdout, 9))
    )
    raw = RawData(train, holdout, tiny_raw.label_names)
    labels = [Label(name) for name in raw.label_names]
    data = pack(raw, tmp_path / "tiny.safetensors", name="tiny", labels=labels, licence="none")
    for module in (inception, fid):
        monkeypatch.setattr(module, "FEATURES", 8)
    folder = tmp_path / "run"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = Generator(tiny_config.network(size=data.size, num_classes=3))
    save_snapshot(folder / "snapshots" / "000001.safetensors", generator, {"nimg": 1000, "elapsed_s": 60.0})
    facts = {
        "config": asdict(tiny_config),
        "budget": {"minutes": 1.0, "kimg": None},
        "data": {"file": str(tmp_path / "tiny.safetensors"), "name": data.name, "digest": data.digest},
        "environment": {"device": "cpu", "threads": 1, "git_revision": "f" * 40},
    }
    (folder / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


def evaluate(run_folder: Path, *arguments: object) -> int:
    return main(["evaluate", str(run_folder), "--samples", "100", *map(str, arguments)])


def test_fid_stands_beside_the_other_figures(run_folder: Path, tmp_path: Path, capsys: Output) -> None:
    """Printed, and kept with counts, floor and the digest of the file, for the manifest and the report."""
    path = write_inception(tmp_path / "i.pt", features=8)
    assert evaluate(run_folder, "--inception", path, "--protocol", "clean") == 0
    kept = json.loads((run_folder / "evaluation.json").read_text("utf-8"))
    entry: dict[str, Any] = kept["metrics"][-1]

    assert entry["name"] == "fid_clean"
    assert 0 < entry["floor"] < entry["value"]
    assert (entry["n_real"], entry["n_fake"], entry["n_floor"]) == (144, 100, 108)
    assert entry["feature_space"] == "inception-2015-12-05"
    assert entry["feature_digest"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert any(note.startswith("fid_clean: its floor is of 108 real pictures") for note in kept["notes"])
    output = capsys.readouterr().out
    assert "measuring fid_clean: 352 pictures through the Inception network" in output
    assert f"feature space inception-2015-12-05, SHA-256 of the file {entry['feature_digest']}" in output

    assert main(["report", str(run_folder)]) == 0
    html = (run_folder / "report.html").read_text("utf-8")
    assert "as Parmar et al. 2022" in html
    assert f"feature space inception-2015-12-05, {entry['feature_digest'][:16]}" in html


def test_both_protocols_are_measured_at_once(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option may be given twice, and once is enough for each."""
    monkeypatch.setattr(fid, "LUCIC_IMAGES", 100)
    path = write_inception(tmp_path / "i.pt", features=8)
    twice = ("--protocol", "lucic10k", "--protocol", "clean", "--protocol", "lucic10k")
    assert evaluate(run_folder, "--inception", path, *twice) == 0
    entries = json.loads((run_folder / "evaluation.json").read_text("utf-8"))["metrics"]
    counts = {entry["name"]: (entry["n_real"], entry["n_fake"], entry["n_floor"]) for entry in entries[-2:]}
    assert counts == {"fid_lucic10k": (100, 100, 100), "fid_clean": (144, 100, 108)}
    assert sum(entry["name"].startswith("fid") for entry in entries) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--protocol", "clean"), "--protocol clean needs the Inception network: --inception FILE"),
        (("--inception", "i.pt"), "--inception i.pt needs --protocol, lucic10k or clean"),
        (("--inception", "i.pt", "--protocol", "clean"), "--inception i.pt: No such file or directory"),
        (
            ("--inception", "{file}", "--protocol", "lucic10k"),
            "--protocol lucic10k takes 10000 samples, got --samples 100",
        ),
    ],
)
def test_mistake_is_refused_before_anything_is_measured(
    run_folder: Path, tmp_path: Path, capsys: Output, arguments: tuple[str, ...], message: str
) -> None:
    """One line, and no feature network was trained for nothing."""
    path = write_inception(tmp_path / "tiny.pt", features=8)
    assert evaluate(run_folder, *(argument.format(file=path) for argument in arguments)) == 1
    output = capsys.readouterr()
    assert output.err == f"error: {message}\n"
    assert output.out == ""
    assert not list(tmp_path.glob("*.features-*"))
