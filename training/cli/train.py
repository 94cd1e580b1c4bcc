"""`train DATA`: a run to the end of its budget, or until it is interrupted; run again, it goes on."""

import argparse
import json
import os
import signal
import subprocess
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console

from training import data as datasets
from training.data import PictureSet
from training.distributed import Group, joined
from training.errors import TrainingError
from training.files import replacing
from training.loop import Budget, Run
from training.losses import LOSSES
from training.presets import PRESETS, TrainConfig, preset, suited_to
from training.progress import StatusLine, duration
from training.tensorboard import Board, check_installed
from training.trainer import Trainer


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("train", help="train a generator; the same command again resumes it")
    parser.add_argument("data", type=Path, help="file made by 'prepare'")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--preset", choices=sorted(PRESETS), help="default: by the pictures' size; see 'presets'")
    parser.add_argument("--minutes", type=float, help="budget in minutes; all schedules stretch to it (default 30)")
    parser.add_argument(
        "--kimg",
        type=float,
        help="budget in thousands of images instead: exactly repeatable with equal --threads and --micro-batch",
    )
    parser.add_argument("--seed", type=int, default=0)
    _add_settings(parser)
    parser.add_argument("--threads", type=int, help="CPU threads, a shard of the batch each (default: all cores)")
    parser.add_argument(
        "--micro-batch",
        type=int,
        metavar="N",
        help="pictures that a thread takes at once; gradients of more are added up (default: what fits into memory)",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--sync-every", type=int, default=1, help="under torchrun: average weights every N steps, not gradients"
    )
    parser.add_argument("--snapshot-minutes", type=float, help="between snapshots (default: a twelfth of the budget)")
    parser.add_argument("--checkpoint-minutes", type=float, default=5.0, help="the most that a crash can lose")
    parser.add_argument(
        "--tensorboard", action="store_true", help="write curves and grids for TensorBoard too (needs the extra)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Train, and leave a folder from which the run can be resumed, evaluated and exported."""
    if options.minutes is None and options.kimg is None:
        options.minutes = 30.0
    budget = Budget(options.minutes, options.kimg)
    if options.tensorboard:
        check_installed()
    data = datasets.load(options.data)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device cuda: torch finds no CUDA device on this machine")
    name = options.preset or suited_to(data.size, device)
    config = preset(name, modern=options.modern, seed=options.seed, **_settings(options))
    with joined(torch.device(device)) as group:
        _train(options, budget, data, config, group)


def _train(options: argparse.Namespace, budget: Budget, data: PictureSet, config: TrainConfig, group: Group) -> None:
    device = group.device.type
    threads = 1 if device == "cuda" else options.threads
    if threads is None:
        threads = usable_threads(config.batch_size // group.size)
    trainer = Trainer(
        config, data, threads=threads, group=group, sync_every=options.sync_every, micro_batch=options.micro_batch
    )

    console = Console(markup=False, emoji=False, highlight=False, quiet=not group.leads)
    status = StatusLine(console)
    snapshot_minutes = options.snapshot_minutes or min(max((options.minutes or 60) / 12, 0.5), 10)
    session = Run(
        trainer,
        options.out,
        budget,
        snapshot_s=snapshot_minutes * 60,
        checkpoint_s=options.checkpoint_minutes * 60,
        status=status.show,
    )
    resumed = session.resume()
    if options.tensorboard and group.leads:
        session.board = Board(options.out, trainer.nimg)
    if group.leads:
        _write_run_file(options, trainer, threads)
    _stop_on_signals(session)
    console.print(
        f"{'resuming' if resumed else 'training'} {config.preset} on {data.name}: {len(data.train)} pictures, "
        f"{data.num_classes} classes; {device}, {threads} threads, {'bfloat16' if trainer.amp else 'float32'}"
        f"{_in_micro_batches(trainer)}"
        f"{f', {group.size} processes' if group.size > 1 else ''}; "
        f"run folder {options.out}",
        soft_wrap=True,
    )
    try:
        session.train()
    finally:
        status.close()
        trainer.pool.close()
        if session.board:
            session.board.close()
    verb = "stopped" if session.stop_requested else "finished"
    console.print(
        f"{verb} after {duration(trainer.elapsed_s)} and {trainer.nimg} images; next: "
        f"python -m training evaluate {options.out}",
        soft_wrap=True,
    )


def _in_micro_batches(trainer: Trainer) -> str:
    share = trainer.config.batch_size // (trainer.pool.num_threads * trainer.group.size)
    return f", {trainer.micro_batch} pictures at a time" if trainer.micro_batch < share else ""


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Add what changes a preset."""
    group = parser.add_argument_group(
        "settings", "in place of the preset's; a pair START:END falls along a half cosine"
    )
    group.add_argument("--modern", action="store_true", help="the preset's networks with the modern loss and optimiser")
    group.add_argument("--batch-size", type=int, metavar="N", help="images per step")
    group.add_argument("--loss", choices=sorted(LOSSES))
    group.add_argument("--learning-rate", type=pair, metavar="START[:END]")
    group.add_argument("--gamma", type=pair, metavar="START[:END]", help="weight of the gradient penalties R1 and R2")
    for name in ("r1", "r2"):
        group.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, help=f"penalise {name.upper()}")
    group.add_argument("--penalty-every", type=int, metavar="N", help="R1 and R2 on every N-th step, N times heavier")
    group.add_argument("--gp", type=float, help="weight of WGAN-GP's penalty (10 in the paper)")
    group.add_argument("--spectral", action=argparse.BooleanOptionalAction, help="spectral norm in the discriminator")
    group.add_argument("--l1", type=float, help="weight of the kernels' absolute values")
    group.add_argument("--l2", type=float, help="weight of the kernels' squares")
    group.add_argument("--mse", type=float, help="weight of the distance to the real picture that is paired with it")
    group.add_argument(
        "--half-resolution", action=argparse.BooleanOptionalAction, help="a second discriminator for halved pictures"
    )
    group.add_argument("--augment", metavar="NAMES", help="auto, none, or some of translation,cutout,colour")
    group.add_argument("--mirror", action=argparse.BooleanOptionalAction, help="show every other picture mirrored")


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    names = (
        "batch_size",
        "loss",
        "learning_rate",
        "gamma",
        "r1",
        "r2",
        "penalty_every",
        "gp",
        "spectral",
        "l1",
        "l2",
        "mse",
    )
    return {name: getattr(options, name) for name in (*names, "half_resolution", "augment", "mirror")}


def pair(text: str) -> tuple[float, float]:
    """Return `START:END` as two numbers; one number is both."""
    start, colon, end = text.partition(":")
    return float(start), float(end if colon else start)


def usable_threads(batch_size: int, most: int | None = None) -> int:
    """Return the most threads, one per core of this process and up to `most`, that share a batch evenly."""
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    threads = min(max(cores, 1), batch_size, most or batch_size)
    while batch_size % threads:
        threads -= 1
    return threads


def _stop_on_signals(session: Run) -> None:
    def stop(signum: int, frame: FrameType | None) -> None:
        session.stop_requested = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _write_run_file(options: argparse.Namespace, trainer: Trainer, threads: int) -> None:
    facts = {
        "config": asdict(trainer.config),
        "budget": {"minutes": options.minutes, "kimg": options.kimg},
        "data": {
            "file": str(options.data.resolve()),
            "name": trainer.data.name,
            "digest": trainer.data.digest,
        },
        "environment": {
            "torch": torch.__version__,
            "device": str(trainer.device),
            "threads": threads,
            "micro_batch": trainer.micro_batch,
            "processes": trainer.group.size,
            "bfloat16": trainer.amp,
            "git_revision": _git_revision(),
        },
    }
    with replacing(options.out / "run.json") as beside:
        beside.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _git_revision() -> str:
    """Return the commit of this code, with "-dirty" after it if files differ; "unknown" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
