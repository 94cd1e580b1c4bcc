"""TensorBoard: read back by its own reader, a run's events are its rows and its grids, also after an interruption."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training import loop
from training.checkpoint import FILE_NAME
from training.cli import main
from training.data import PictureSet
from training.errors import DivergedError
from training.presets import PRESETS, TrainConfig
from training.tensorboard import Board
from training.trainer import Trainer

Output = pytest.CaptureFixture[str]
CURVES = {
    *("steps", "elapsed_s", "progress", "images_per_s", "learning_rate", "learning_rate_scale", "D_loss", "G_loss"),
    *("r1_penalty", "r2_penalty", "logit_gap", "augment_probability"),
}


def events(run: Path) -> EventAccumulator:
    reader = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    return reader.Reload()


def curve(run: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(run).Scalars(name)]


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "stats.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture
def train(tiny_set: PictureSet, tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that trains for so many thousand images, eight a step, into the folder `run`."""
    monkeypatch.setitem(PRESETS, "tiny", tiny_config)

    def run(kimg: float, *options: str) -> int:
        data, out = str(tmp_path / "tiny.safetensors"), str(tmp_path / "run")
        return main(["train", data, "--out", out, "--preset", "tiny", "--threads", "1", "--kimg", str(kimg), *options])

    return run


def test_rows_and_grids_are_written(train: Any, tmp_path: Path) -> None:
    """Every number of every row stands at the images seen, and the grid is the file's, pixel by pixel."""
    assert train(0.8, "--tensorboard") == 0
    run = tmp_path / "run"
    assert set(events(run).Tags()["scalars"]) == CURVES
    for name in CURVES:
        expected = [(round(row["kimg"] * 1000), pytest.approx(row[name], rel=1e-6)) for row in rows(run)]
        assert len(expected) == 2
        assert curve(run, name) == expected
    (grid,) = events(run).Images("grid")
    with Image.open(run / "grids" / "000000.png") as image:
        expected_pixels = np.asarray(image)
    (tmp_path / "grid.png").write_bytes(grid.encoded_image_string)
    with Image.open(tmp_path / "grid.png") as image:
        assert np.array_equal(np.asarray(image.convert("L")), expected_pixels)
    assert grid.step == 800


def test_without_the_option_nothing_is_written(train: Any, tmp_path: Path) -> None:
    """A run is its own folder's files only, unless it is asked for more."""
    assert train(0.4) == 0
    assert len(rows(tmp_path / "run")) == 1
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_resumed_run_continues_at_its_step(train: Any, tmp_path: Path) -> None:
    """What was written after the checkpoint that a run resumes from is hidden; what stood before it stays."""
    run = tmp_path / "run"
    assert train(0.8, "--tensorboard") == 0
    early = (run / FILE_NAME).read_bytes()
    assert train(1.6, "--tensorboard") == 0
    (run / FILE_NAME).write_bytes(early)  # as if the machine had failed before the later checkpoint
    assert train(1.2, "--tensorboard") == 0

    assert [step for step, _ in curve(run, "D_loss")] == [400, 800, 1200]
    last = rows(run)[-1]
    assert last["steps"] == 150
    assert curve(run, "elapsed_s")[-1][1] == pytest.approx(last["elapsed_s"], rel=1e-6)
    assert [grid.step for grid in events(run).Images("grid")] == [800, 1200]


def test_run_that_begins_again_at_half_the_rate_hides_the_first_attempt(tmp_path: Path) -> None:
    """Steps go back when a run restarts; the curve is the new attempt's."""
    board = Board(tmp_path, 0)
    for kimg, loss in ((0.4, 1.0), (0.8, 90.0), (0.4, 2.0)):
        board.row({"kimg": kimg, "D_loss": loss})
    board.close()
    assert curve(tmp_path, "D_loss") == [(400, 2.0)]


def test_run_that_diverges_keeps_its_events(train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends with an error has written what it knew."""
    step = Trainer.step

    def fails(trainer: Trainer, progress: float) -> Any:
        if trainer.steps == 80:
            raise DivergedError("gone")
        return step(trainer, progress)

    monkeypatch.setattr(Trainer, "step", fails)
    assert train(0.8, "--tensorboard") == 1
    assert [step for step, _ in curve(tmp_path / "run", "D_loss")] == [400]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_grid_of_any_kind_of_picture_is_shown(mode: str, tmp_path: Path) -> None:
    """Grey, coloured and transparent grids come back as they are."""
    channels = len(mode)
    values = np.random.default_rng(0).integers(0, 256, (6, 4, channels), np.uint8)
    Image.fromarray(values[..., 0] if channels == 1 else values).save(tmp_path / "in.png")
    board = Board(tmp_path, 0)
    board.grid(tmp_path / "in.png", 5)
    board.close()
    (tmp_path / "out.png").write_bytes(events(tmp_path).Images("grid")[0].encoded_image_string)
    with Image.open(tmp_path / "out.png") as image:
        assert np.array_equal(np.asarray(image.convert(mode)).reshape(values.shape), values)


def test_without_the_extra_the_error_names_it(
    train: Any, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says what to install, before the run's folder is made; without the option all is well."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert train(0.4, "--tensorboard") == 1
    assert capsys.readouterr().err == (
        "error: --tensorboard needs the package tensorboard, which is not installed: install the extra, "
        "pip install 'vitrine[tensorboard]'\n"
    )
    assert not (tmp_path / "run").exists()
    assert train(0.1) == 0
    assert loop.Run.board is None
