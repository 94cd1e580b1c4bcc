"""The way from a run to a bundle, on the command line: evaluate, export, sample."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.builders import export_tiny_bundle
from training.checkpoint import save_snapshot
from training.cli import main
from training.data import PictureSet, pack
from training.errors import TrainingError
from training.evaluate import evaluators, feature_epochs, judge
from training.generators import from_bundle, sample
from training.latents import latents
from training.networks.style_residual import Generator
from training.presets import PRESETS, TrainConfig
from training.readers import RawData, RawSplit

Output = pytest.CaptureFixture[str]
QUICK = {"fcd", "accuracy", "precision", "recall", "density", "coverage", "fcd_2", "kid", "kid_std", "cas"}
NEAR = {f"{space}{mirrored}" for space in ("pixels", "features") for mirrored in ("", "_mirrored")}
MEMORISATION = {f"nearest_{name}_{what}" for name in NEAR for what in ("median", "q01")} | {
    f"ct_{name}" for name in NEAR
}
METRICS = QUICK | MEMORISATION
SAMPLES = "120"


def command(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def error_of(output: Output) -> str:
    """Return the one line that a command wrote to standard error."""
    (line,) = output.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def a_generator(config: TrainConfig, data: PictureSet, seed: int) -> Generator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Generator(config.network(size=data.size, num_classes=data.num_classes))


@pytest.fixture
def run_folder(tiny_config: TrainConfig, tiny_set: PictureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a run with three snapshots, none of which has learnt anything."""
    monkeypatch.setitem(PRESETS, "tiny", tiny_config)
    folder = tmp_path / "run"
    for number in (1, 2, 3):
        generator = a_generator(tiny_config, tiny_set, number)
        details = {"nimg": number * 1000, "elapsed_s": number * 60.0}
        save_snapshot(folder / "snapshots" / f"{number:06}.safetensors", generator, details)
    facts = {
        "config": asdict(tiny_config),
        "budget": {"minutes": None, "kimg": 3.0},
        "data": {"file": str(tmp_path / "tiny.safetensors"), "name": tiny_set.name, "digest": tiny_set.digest},
        "environment": {"device": "cpu", "threads": 1, "git_revision": "f" * 40},
    }
    (folder / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return content


def test_run_becomes_a_bundle_and_a_picture(
    run_folder: Path, tiny_set: PictureSet, tmp_path: Path, capsys: Output
) -> None:
    """The best snapshot is found, measured and exported with its figures, and the bundle gives pictures by seed."""
    models, picture = tmp_path / "models", tmp_path / "out" / "grid.png"
    assert command("evaluate", run_folder, "--samples", SAMPLES) == 0
    assert command("export", run_folder, "--name", "shapes", "--models", models, "--licence", "CC0-1.0") == 0
    assert command("sample", models / "shapes" / "1", picture, "--columns", 4, "--first-seed", 7, "--zoom", 1) == 0

    scores, kept = read(run_folder / "scores.json"), read(run_folder / "evaluation.json")
    best = min(scores["fcd"], key=scores["fcd"].__getitem__)
    assert len(scores["fcd"]) == 3
    assert scores["best"] == kept["snapshot"] == best
    assert {entry["name"] for entry in kept["metrics"]} == METRICS

    manifest = read(models / "shapes" / "1" / "manifest.json")
    number = int(best.partition(".")[0])
    assert manifest["metrics"] == kept["metrics"]
    assert manifest["licence"] == "CC0-1.0"
    assert [label["name"] for label in manifest["labels"]] == ["top", "middle", "bottom"]
    facts = {name: manifest["training"][name] for name in ("preset", "images_seen", "minutes", "device", "data_digest")}
    assert facts == {
        "preset": "tiny",
        "images_seen": number * 1000,
        "minutes": number * 1.0,
        "device": "cpu, 1 threads",
        "data_digest": tiny_set.digest,
    }

    seeds = [7, 8, 9, 10]
    generator = from_bundle(models / "shapes" / "1").generator
    rows = sample(generator, latents(seeds * 3, 16), torch.arange(3).repeat_interleave(4)).numpy()
    expected = np.vstack([np.hstack(rows[4 * label : 4 * label + 4, :, :, 0]) for label in range(3)])
    with Image.open(picture) as image:
        assert np.array_equal(np.asarray(image), expected)

    output = capsys.readouterr()
    assert output.err == ""
    assert f"next: python -m training export {run_folder}" in output.out
    assert "real against real" in output.out


def test_sample_of_a_run_takes_its_newest_snapshot(
    run_folder: Path, tiny_config: TrainConfig, tiny_set: PictureSet, tmp_path: Path
) -> None:
    """Before anything is evaluated, the last state of a run can be looked at."""
    assert command("sample", run_folder, tmp_path / "grid.png", "--columns", 2, "--zoom", 2) == 0

    generator = a_generator(tiny_config, tiny_set, 3).eval()
    pixels = sample(generator, latents([0, 1] * 3, 16), torch.arange(3).repeat_interleave(2)).numpy()
    with Image.open(tmp_path / "grid.png") as image:
        assert image.size == (2 * 16 * 2, 3 * 16 * 2)
        shown = np.asarray(image)[::2, ::2]
    assert np.abs(shown[:16, :16].astype(int) - pixels[0, :, :, 0]).max() <= 1


def test_figures_are_repeatable_and_feature_networks_are_kept(run_folder: Path, tmp_path: Path, capsys: Output) -> None:
    """The yardstick is made once and lies beside the data; a second look with it gives the same figures."""
    assert command("evaluate", run_folder, "--samples", SAMPLES) == 0
    networks = {path: path.read_bytes() for path in tmp_path.glob("tiny.features-*.safetensors")}
    first, said = read(run_folder / "evaluation.json"), capsys.readouterr().out
    assert command("evaluate", run_folder, "--samples", SAMPLES) == 0

    assert len(networks) == 2
    assert said.count("training feature network") == 2
    assert "training feature network" not in capsys.readouterr().out
    assert {path: path.read_bytes() for path in networks} == networks
    assert read(run_folder / "evaluation.json") == first


def test_every_figure_can_be_compared(tiny_set: PictureSet, tmp_path: Path) -> None:
    """A figure comes with its real-against-real floor, its numbers of pictures and its feature space."""
    judges = evaluators(tiny_set, tmp_path / "tiny.safetensors", print)
    bundle = from_bundle(export_tiny_bundle(tmp_path / "models"))
    judgement = judge(bundle, judges, 150, tmp_path / "tiny.safetensors", print)
    entries = {entry.name: entry for entry in judgement.metrics()}

    assert set(entries) == METRICS
    cas = entries.pop("cas")
    assert (cas.n_real, cas.n_fake, cas.n_floor, cas.feature_space) == (12, 48, 48, "samples-cnn/1")
    assert cas.value < cas.floor
    assert {entry.n_fake for entry in entries.values()} == {150}
    assert {entry.n_floor for entry in entries.values()} == {12}
    assert entries["nearest_pixels_median"].feature_space == "pixels/1"
    assert entries["nearest_features_median"].feature_digest == entries["fcd"].feature_digest
    assert judgement.notes[0].startswith("FCD by class covers 0 of 3 classes: the others have fewer than 129 pictures")
    assert entries["fcd"].n_real == 48
    assert entries["fcd"].floor < entries["fcd"].value
    assert entries["fcd"].feature_space == "labels-cnn/1"
    assert entries["fcd"].feature_digest != entries["fcd_2"].feature_digest


def test_closest_pairs_of_a_run_are_shown(run_folder: Path, tiny_set: PictureSet, capsys: Output) -> None:
    """16 samples, each beside a training picture, four pairs in a row; the verdict is printed and kept."""
    assert command("evaluate", run_folder, "--samples", SAMPLES) == 0

    with Image.open(run_folder / "memorisation.png") as image:
        assert image.size == (8 * 16 * 7, 4 * 16 * 7)
        shown = np.asarray(image)[::7, ::7]
    originals = {picture.numpy().tobytes() for split in (tiny_set.train.images,) for picture in split}
    originals |= {picture.numpy().tobytes() for picture in tiny_set.train.images.flip(2)}
    beside = [shown[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] for row in range(4) for column in (1, 3)]
    assert {np.ascontiguousarray(picture).tobytes() for picture in beside} <= originals
    assert read(run_folder / "evaluation.json")["memorisation_suspected"] is False
    assert "no sign of memorisation" in capsys.readouterr().out


def test_data_without_labels_has_no_figures_of_classes(tiny_raw: RawData, tiny_copy: Path, tmp_path: Path) -> None:
    """What cannot be measured without labels is left out, with the reason."""
    path = tmp_path / "plain.safetensors"
    splits = (RawSplit(split.images, split.labels * 0) for split in (tiny_raw.train, tiny_raw.holdout))
    data = pack(RawData(*splits, []), path, name="plain", labels=[], licence="none")
    judgement = judge(from_bundle(tiny_copy), evaluators(data, path, print), 120, path, print)

    assert {entry.name for entry in judgement.metrics()} == METRICS - {"accuracy", "cas"}
    assert judgement.notes == (
        "no FCD by class and no accuracy: the data has no labels",
        "no classifier was trained on samples: the data has no labels",
    )


def test_small_figures_keep_their_digits(tiny_set: PictureSet, tiny_copy: Path, tmp_path: Path) -> None:
    """KID is of the order of 1e-4, which four decimals would swallow."""
    path = tmp_path / "tiny.safetensors"
    judgement = judge(from_bundle(tiny_copy), evaluators(tiny_set, path, print), 120, path, print)
    kid = judgement.evaluations[0].metric("kid").floor
    assert next(entry for entry in judgement.metrics() if entry.name == "kid").floor == pytest.approx(kid, rel=1e-3)


def test_bundle_is_evaluated_against_given_data(
    tiny_set: PictureSet, tiny_copy: Path, tmp_path: Path, capsys: Output
) -> None:
    """A bundle is measured like a run, and nothing is written into it."""
    before = {file.name: file.read_bytes() for file in tiny_copy.iterdir()}

    assert command("evaluate", tiny_copy, "--data", tmp_path / "tiny.safetensors", "--samples", SAMPLES) == 0
    output = capsys.readouterr().out
    assert re.search(r"fcd .*\d\.\d{3}", output)
    assert "0 images seen, against tiny" in output
    assert {file.name: file.read_bytes() for file in tiny_copy.iterdir()} == before


def test_bundle_without_data_is_refused(tiny_copy: Path, capsys: Output) -> None:
    """A bundle does not hold its pictures, so they have to be named."""
    assert command("evaluate", tiny_copy) == 1
    assert "to evaluate a bundle give its data by --data" in error_of(capsys)


def test_data_of_another_size_is_refused(tiny_raw: RawData, tiny_copy: Path, tmp_path: Path, capsys: Output) -> None:
    """Figures against pictures of another size would mean nothing."""
    splits = (
        RawSplit(split.images.repeat(2, axis=1).repeat(2, axis=2), split.labels)
        for split in (tiny_raw.train, tiny_raw.holdout)
    )
    pack(RawData(*splits, []), tmp_path / "large.safetensors", name="large", labels=[], licence="none")

    assert command("evaluate", tiny_copy, "--data", tmp_path / "large.safetensors", "--samples", SAMPLES) == 1
    assert "does not fit the data: samples must be (N, 32, 32, 1), got (120, 16, 16, 1)" in error_of(capsys)


def test_data_that_is_too_small_is_refused(tiny_raw: RawData, tmp_path: Path) -> None:
    """A handful of pictures is no yardstick."""
    few = RawSplit(tiny_raw.holdout.images[:3], tiny_raw.holdout.labels[:3])
    data = pack(RawData(tiny_raw.train, few, []), tmp_path / "few.safetensors", name="few", labels=[], licence="none")

    with pytest.raises(TrainingError, match=r"few\.safetensors cannot be a yardstick: need more than 5 rows"):
        evaluators(data, tmp_path / "few.safetensors", print)


def test_too_few_samples_are_refused(run_folder: Path, capsys: Output) -> None:
    """A figure of some samples is noise."""
    assert command("evaluate", run_folder, "--samples", 99) == 1
    assert "--samples 99 is too few to measure anything; at least 100" in error_of(capsys)


def test_run_that_has_not_been_evaluated_is_not_exported(run_folder: Path, tmp_path: Path, capsys: Output) -> None:
    """Which snapshot is the best has to be known; the error says the command."""
    assert command("export", run_folder, "--name", "shapes", "--models", tmp_path / "models") == 1
    assert f"has not been evaluated; first: python -m training evaluate {run_folder}" in error_of(capsys)
    assert not (tmp_path / "models").exists()


def test_second_export_needs_another_version(run_folder: Path, tmp_path: Path, capsys: Output) -> None:
    """A version that exists is refused and stays; the next one is written beside it."""
    models = tmp_path / "models"
    evaluation = {"snapshot": "000001.safetensors", "metrics": []}
    (run_folder / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    export = ("export", run_folder, "--name", "shapes", "--models", models)
    assert command(*export) == 0
    before = (models / "shapes" / "1" / "manifest.json").read_bytes()
    capsys.readouterr()

    assert command(*export, "--version", 1) == 1
    assert "shapes/1 exists; bundles are never overwritten, choose another --version" in error_of(capsys)
    assert command(*export) == 0
    assert (models / "shapes" / "1" / "manifest.json").read_bytes() == before
    assert sorted(folder.name for folder in (models / "shapes").iterdir()) == ["1", "2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--name", "Shapes"), "--name 'Shapes' is not made of lower case letters"),
        (("--name", "../shapes"), "--name '../shapes' is not made of"),
        (("--name", "shapes", "--version", "0"), "--version 0 is not 1 or more"),
    ],
)
def test_impossible_name_or_version_is_refused(
    run_folder: Path, tmp_path: Path, capsys: Output, arguments: tuple[str, ...], message: str
) -> None:
    """What could not be a folder of the models folder is refused before any work."""
    assert command("export", run_folder, "--models", tmp_path / "models", *arguments) == 1
    assert message in error_of(capsys)


@pytest.mark.parametrize(
    "arguments",
    [("--columns", "0"), ("--columns", "101"), ("--zoom", "17"), ("--first-seed", "-1"), ("--first-seed", 2**53)],
)
def test_impossible_grid_is_refused(
    run_folder: Path, tmp_path: Path, capsys: Output, arguments: tuple[object, object]
) -> None:
    """Numbers out of range are named with their bounds."""
    assert command("sample", run_folder, tmp_path / "grid.png", *arguments) == 1
    assert re.search(rf"{arguments[0]} {arguments[1]} is not in \d+\.\.\d+", error_of(capsys))
    assert not (tmp_path / "grid.png").exists()


@pytest.mark.parametrize("name", ["evaluate", "export", "sample"])
def test_folder_that_is_neither_run_nor_bundle_is_refused(tmp_path: Path, capsys: Output, name: str) -> None:
    """A wrong path ends in one line."""
    extra = {"evaluate": (), "export": ("--name", "shapes"), "sample": (tmp_path / "grid.png",)}[name]

    assert command(name, tmp_path / "nowhere", *extra) == 1
    assert "nowhere" in error_of(capsys)


@pytest.mark.parametrize(
    ("pictures", "side", "epochs"),
    [(60_000, 28, 3), (12_000, 28, 15), (12_000, 64, 3), (300, 28, 30), (1_000_000, 28, 3)],
)
def test_feature_epochs_grow_as_the_set_shrinks(pictures: int, side: int, epochs: int) -> None:
    """A small set is shown more often, within bounds; Fashion-MNIST keeps the three epochs of the published space."""
    assert feature_epochs(pictures, (side, side, 3)) == epochs
