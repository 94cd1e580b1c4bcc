"""The commands that help to choose: `presets` and `sweep`."""

import re
from pathlib import Path

import pytest
import torch

from training.cli import main
from training.cli.presets import EXPECTED, multiply_adds
from training.data import PictureSet
from training.networks.layers import conv
from training.presets import PRESETS, TrainConfig


def test_presets_lists_all_with_their_cost(capsys: pytest.MonkeyPatch) -> None:
    """The measured sizes of the design stand in the table."""
    assert main(["presets"]) == 0
    text = capsys.readouterr().out  # type: ignore[attr-defined]
    rows = {line.split("│")[1].strip(): line for line in text.splitlines() if line.count("│") > 3}
    assert rows.keys() >= PRESETS.keys() >= EXPECTED.keys()
    for cell in ("28x28x1", "0.94 M", "30.9", "0.25 M", "23.3", "0.6"):
        assert cell in rows["fashion28"]
    for cell in ("64x64x3", "1.24 M", "81.9", "0.81 M", "64.4"):
        assert cell in rows["product64-cpu"]


def test_multiply_adds_of_a_convolution() -> None:
    """Kernel times channels times pixels."""
    assert multiply_adds(conv(2, 3, 3, 1.0), torch.zeros(1, 2, 5, 5)) == 9 * 2 * 3 * 25


@pytest.fixture
def tiny_preset(monkeypatch: pytest.MonkeyPatch, tiny_config: TrainConfig) -> None:
    monkeypatch.setitem(PRESETS, "tiny", tiny_config)


@pytest.mark.usefixtures("tiny_preset")
def test_sweep_ranks_and_prints_the_command(
    tiny_set: PictureSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every combination is run and ranked by FCD; the best one's command is complete."""
    del tiny_set
    arguments = ["sweep", str(tmp_path / "tiny.safetensors"), "--out", str(tmp_path / "sweep"), "--preset", "tiny"]
    arguments += ["--minutes", "0.02", "--learning-rate", "1e-3", "1e-9:1e-9", "--gamma", "2:0.2", "--threads", "1"]
    assert main(arguments) == 0

    text = capsys.readouterr().out
    assert "2 runs of 0.02 minutes" in text
    assert sorted(folder.name for folder in (tmp_path / "sweep").iterdir()) == [
        "rate-0.001_gamma-2",
        "rate-1e-09_gamma-2",
    ]
    (best,) = (line for line in text.splitlines() if line.startswith("the best: "))
    first_row = next(line for line in text.splitlines() if line.count("│") == 4)
    rate = first_row.split("│")[2].strip()
    assert f"--preset tiny --learning-rate {rate} --gamma 2:0.2 --minutes 60" in best
    figures = [float(found) for found in re.findall(r"│ +(\d+\.\d+) +│", text)]
    assert len(figures) == 2
    assert figures == sorted(figures)
