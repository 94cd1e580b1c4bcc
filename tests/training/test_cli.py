import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from training import data as datasets
from training.cli import main
from training.data import PictureSet
from training.loop import Budget, Run
from training.presets import PRESETS, TrainConfig, preset
from training.trainer import Trainer

ROOT = Path(__file__).parents[2]
Write = Callable[..., Path]
Output = pytest.CaptureFixture[str]


@pytest.fixture
def tiny_preset(monkeypatch: pytest.MonkeyPatch, tiny_config: TrainConfig) -> None:
    """Let the command line know the tiny settings as the preset "tiny"."""
    monkeypatch.setitem(PRESETS, "tiny", tiny_config)


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def assert_one_line_error(status: int, capsys: Output, pattern: str) -> None:
    output = capsys.readouterr()
    assert status == 1
    assert re.fullmatch(rf"error: .*{pattern}.*\n", output.err), output.err


def test_help_lists_the_commands(capsys: Output) -> None:
    """Every command stands in the overview with a line about it."""
    with pytest.raises(SystemExit) as ended:
        run("--help")
    assert ended.value.code == 0
    lines = capsys.readouterr().out
    for command in ("prepare", "train", "evaluate", "export", "sample"):
        assert re.search(rf"^ +{command} +\w+", lines, re.MULTILINE)


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["train"], ["prepare", "x", "y", "--channels", "2"]])
def test_command_line_that_cannot_be_parsed_exits_with_2(arguments: list[str], capsys: Output) -> None:
    """A usage mistake shows the usage."""
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m training")


def test_prepare_of_idx_files_packs_and_reports(fashion_mini: Path, tmp_path: Path, capsys: Output) -> None:
    """Size, counts per class and the written file are shown; name and licence come from the folder."""
    out = tmp_path / "data" / "fashion.safetensors"
    assert run("prepare", fashion_mini, out) == 0
    text = capsys.readouterr().out
    data = datasets.load(out)
    assert text.startswith(f"fashion-mini: 28x28x1, data hash {data.digest[:16]}\n")
    assert re.search(r"│ 9 9 +│ 20 +│ 10 +│", text)
    assert re.search(r"│ all +│ 200 +│ 100 +│", text)
    assert text.endswith(f"wrote {out}; 0 files skipped\n")
    assert data.name == "fashion-mini"
    assert data.licence.startswith("The MIT License (MIT) Copyright © 2017 Zalando SE")
    assert [label.name for label in data.labels] == [str(index) for index in range(10)]


def test_prepare_takes_names_labels_and_licence(idx_folder: Write, tmp_path: Path, capsys: Output) -> None:
    """What the user says about the set is kept, aliases included, and brackets are not markup."""
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(["top [a]", {"name": "middle", "aliases": ["centre", "mid"]}, {"name": ":bug:"}]))
    out = tmp_path / "set.safetensors"
    status = run("prepare", idx_folder(), out, "--name", "[bold]bands", "--labels", labels, "--licence", "CC0-1.0")
    data = datasets.load(out)
    text = capsys.readouterr().out
    assert status == 0
    assert (data.name, data.licence) == ("[bold]bands", "CC0-1.0")
    assert [(label.name, label.aliases) for label in data.labels] == [
        ("top [a]", ()),
        ("middle", ("centre", "mid")),
        (":bug:", ()),
    ]
    assert all(word in text for word in ("[bold]bands: 16x16x1", "0 top [a]", "2 :bug:"))


def test_prepare_of_mixed_image_files_skips_what_it_cannot_read(
    picture_folder: Write, tmp_path: Path, capsys: Output
) -> None:
    """Grey, transparent, 16-bit, turned, CMYK and palette files are all read; the corrupt one is named."""
    shop = picture_folder("bags", "shoes")
    odd = {
        "grey.png": Image.new("L", (30, 20), 90),
        "clear.webp": Image.new("RGBA", (30, 20), (9, 9, 9, 100)),
        "deep.png": Image.new("I;16", (30, 20), 40000),
        "print.jpg": Image.new("CMYK", (30, 20)),
        "indexed.gif": Image.new("P", (30, 20)),
        "bits.bmp": Image.new("1", (30, 20)),
    }
    for name, image in odd.items():
        image.save(shop / "bags" / name)
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (30, 20), (50, 60, 70)).save(shop / "bags" / "turned.jpg", exif=exif)
    (shop / "shoes" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    (shop / "notes.txt").write_text("not a picture, and not called one")
    assert run("prepare", shop, tmp_path / "shop.safetensors", "--size", 24) == 0
    text = capsys.readouterr().out
    data = datasets.load(tmp_path / "shop.safetensors")
    assert data.size == (24, 24, 3)
    assert [label.name for label in data.labels] == ["bags", "shoes"]
    assert len(data.train) + len(data.holdout) == 2 * 30 + len(odd) + 1
    assert data.licence == "not stated"
    assert re.search(rf"^skipped {re.escape(str(shop))}/shoes/broken\.png: \w.*$", text, re.MULTILINE)
    assert text.endswith("shop.safetensors; 1 files skipped\n")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ('["a", "b"]', "2 labels were given for 3 classes"),
        ('{"a": 1, "b": 2, "c": 3}', "not a list but dict; expected a JSON list"),
        ('["a", "b", {"alias": "c"}]', "expected a JSON list of names"),
        ('["a", "b", {"name": "c", "aliases": "see"}]', "aliases are not a list but 'see'"),
        ('["a", "b", 3]', "expected a JSON list of names"),
        ("[", "expected a JSON list of names"),
    ],
)
def test_prepare_with_impossible_labels_is_one_line(
    idx_folder: Write, tmp_path: Path, capsys: Output, labels: str, message: str
) -> None:
    """A label file that does not fit is explained, and nothing is written."""
    (tmp_path / "labels.json").write_text(labels)
    status = run("prepare", idx_folder(), tmp_path / "out", "--labels", tmp_path / "labels.json")
    assert_one_line_error(status, capsys, message)
    assert not (tmp_path / "out").exists()


def test_prepare_reads_a_licence_of_any_encoding(idx_folder: Write, tmp_path: Path) -> None:
    """A licence that is not UTF-8 is kept as far as it can be read."""
    folder = idx_folder()
    (folder / "LICENSE.txt").write_bytes("© Käufer\n".encode("latin-1"))
    assert run("prepare", folder, tmp_path / "out") == 0
    assert datasets.load(tmp_path / "out").licence.endswith("ufer")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "missing", "out"], "source 'missing' is not a folder"),
        (["prepare", ".", "out", "--size", "4"], r"--size 4 is not in 8\.\.1024"),
        (["prepare", "empty", "out"], "empty holds no image files"),
        (["prepare", "idx", "idx"], "idx"),  # the target is a folder
        (["prepare", "idx", "tiny.safetensors/below"], "tiny.safetensors"),
        (["train", "missing", "--out", "run"], "python -m training prepare SOURCE missing"),
        (["train", "idx", "--out", "run"], "'idx' is not a file"),
        (["train", "tiny.safetensors", "--out", "run"], "16x16; prepare them with --size and one of 28, 32, 64"),
        (["train", "tiny.safetensors", "--out", "run", "--preset", "fashion28"], "prepare it with --size 28"),
        (["train", "tiny.safetensors", "--out", "run", "--minutes", "1", "--kimg", "1"], "either --minutes or --kimg"),
        (["train", "tiny.safetensors", "--out", "run", "--minutes", "0"], "either --minutes or --kimg"),
        (["train", "tiny.safetensors", "--out", "run", "--preset", "tiny", "--seed", "-1"], "seed -1"),
        (["train", "tiny.safetensors", "--out", "run", "--preset", "tiny", "--batch-size", "0"], "batch size 0"),
        (["train", "tiny.safetensors", "--out", "run", "--preset", "tiny", "--threads", "0"], "by 0 threads"),
        (["train", "tiny.safetensors", "--out", "run", "--preset", "tiny", "--threads", "5"], "by 5 threads"),
        (["train", "tiny.safetensors", "--out", "tiny.safetensors", "--preset", "tiny"], "tiny.safetensors"),
    ],
)
@pytest.mark.usefixtures("tiny_set", "tiny_preset")
def test_mistake_is_one_line_and_status_1(
    idx_folder: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
    arguments: list[str],
    message: str,
) -> None:
    """What a user gets wrong is said in one line, without a traceback, and leaves nothing behind."""
    monkeypatch.chdir(tmp_path)
    idx_folder()
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert_one_line_error(main(arguments), capsys, message)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.usefixtures("tiny_set", "tiny_preset")
def test_train_on_a_missing_device_is_one_line(tmp_path: Path, capsys: Output) -> None:
    """Asking for CUDA without it is a mistake, not a crash of torch."""
    status = run("train", tmp_path / "tiny.safetensors", "--out", tmp_path / "run", "--device", "cuda")
    assert_one_line_error(status, capsys, "no CUDA device")


def test_error_of_several_lines_becomes_one(idx_folder: Write, tmp_path: Path, capsys: Output) -> None:
    """A line break in a file's name does not break the report."""
    folder = idx_folder().rename(tmp_path / "two\nlines")
    next(folder.glob("t10k-labels*")).unlink()
    assert_one_line_error(run("prepare", folder, tmp_path / "out"), capsys, "two lines lacks t10k-images")


def test_interrupted_command_says_so(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    """Ctrl-C in a command without a way to stop is no traceback either."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.cli.prepare.read_source", interrupted)
    assert run("prepare", "source", "out") == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.usefixtures("tiny_preset")
def test_train_finishes_and_resumes(tiny_set: PictureSet, tmp_path: Path, capsys: Output) -> None:
    """A run leaves its folder; the same command again finds it done; another seed is refused."""
    folder = tmp_path / "runs" / "a"
    command = ["train", tmp_path / "tiny.safetensors", "--out", folder, "--preset", "tiny", "--kimg", "0.024"]
    assert run(*command) == 0
    text = capsys.readouterr().out
    assert text.startswith("training tiny on tiny: 48 pictures, 3 classes; cpu, ")
    assert re.search(
        rf"finished after 0:\d\d and 24 images; next: python -m training evaluate {re.escape(str(folder))}\n$", text
    )
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {"run.json", "checkpoint.pt", "snapshots/000000.safetensors", "grids/000000.png"}
    facts = json.loads((folder / "run.json").read_text())
    assert facts["config"]["preset"] == "tiny"
    assert facts["budget"] == {"minutes": None, "kimg": 0.024}
    assert facts["data"] == {
        "file": str(tmp_path / "tiny.safetensors"),
        "name": "tiny",
        "digest": tiny_set.digest,
    }
    assert run(*command) == 0
    text = capsys.readouterr().out
    assert text.startswith("resuming tiny on tiny")
    assert "and 24 images" in text
    assert_one_line_error(run(*command, "--seed", "1"), capsys, "seed was 0, is 1")


@pytest.mark.usefixtures("tiny_preset", "tiny_set")
def test_train_on_a_damaged_checkpoint_is_one_line(tmp_path: Path, capsys: Output) -> None:
    """A broken file is named, and not overwritten."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "checkpoint.pt").write_bytes(b"broken")
    status = run("train", tmp_path / "tiny.safetensors", "--out", folder, "--preset", "tiny", "--kimg", "0.008")
    assert_one_line_error(status, capsys, r"checkpoint\.pt is damaged or not a checkpoint")
    assert (folder / "checkpoint.pt").read_bytes() == b"broken"


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "training", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_process_exits_with_1_after_a_mistake(tmp_path: Path) -> None:
    """`python -m training` hands the status and the line to the shell."""
    process = start("prepare", tmp_path / "missing", tmp_path / "out")
    out, error = process.communicate(timeout=100)
    assert (process.returncode, out) == (1, "")
    assert re.fullmatch(r"error: source '.*missing' is not a folder.*\n", error)


def test_sigterm_stops_a_run_that_can_be_resumed(fashion_mini: Path, tmp_path: Path, capsys: Output) -> None:
    """A real process that is told to end leaves a whole checkpoint, exits with 0, and its run goes on."""
    path, folder = tmp_path / "fashion.safetensors", tmp_path / "run"
    run("prepare", fashion_mini, path)
    options = ["--out", folder, "--batch-size", 2, "--threads", 1]
    with start("train", path, *options, "--minutes", 60) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        lines += process.stdout.readlines()
        assert (process.wait(timeout=100), process.stderr.read()) == (0, "")
    assert "images/s" in lines[1]  # the first step had been made
    assert lines[-1].startswith("stopped after ")

    trainer = Trainer(preset("fashion28", batch_size=2), datasets.load(path))
    session = Run(trainer, folder, Budget(minutes=60), snapshot_s=1e9, checkpoint_s=1e9, status=lambda _: None)
    assert session.resume()
    steps = trainer.steps
    assert trainer.nimg == 2 * steps > 0
    capsys.readouterr()
    assert run("train", path, *options, "--kimg", (trainer.nimg + 2) / 1000) == 0
    assert f"and {trainer.nimg + 2} images" in capsys.readouterr().out
