"""`sweep DATA`: short runs over learning rate and gamma, ranked by FCD, and the command of the best."""

import argparse
import itertools
import shlex
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from training import data as datasets
from training.cli.train import pair, usable_threads
from training.errors import DivergedError, TrainingError
from training.evaluate import evaluators
from training.loop import Budget, Run
from training.presets import PRESETS, preset, suited_to
from training.progress import StatusLine
from training.trainer import Trainer

Pair = tuple[float, float]
SAMPLES = 5000


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("sweep", help="try learning rates and gammas in short runs")
    parser.add_argument("data", type=Path, help="file made by 'prepare'")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--preset", choices=sorted(PRESETS), help="default: by the pictures' size")
    parser.add_argument("--modern", action="store_true", help="the preset's networks with the modern loss")
    parser.add_argument("--minutes", type=float, default=3.0, help="for each run (default 3)")
    parser.add_argument("--learning-rate", type=pair, nargs="+", metavar="START[:END]", help="default: x0.5, x1, x2")
    parser.add_argument("--gamma", type=pair, nargs="+", metavar="START[:END]", help="default: x0.3, x1, x3")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run every combination, rank them, and print the command for the best."""
    data = datasets.load(options.data)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options.preset = options.preset or suited_to(data.size, device)
    base = preset(options.preset, modern=options.modern)
    rates: list[Pair] = options.learning_rate or _around(base.learning_rate, (0.5, 1.0, 2.0))
    gammas: list[Pair] = options.gamma or (_around(base.gamma, (0.3, 1.0, 3.0)) if base.gamma[0] else [base.gamma])
    threads = options.threads or usable_threads(base.batch_size)
    console = Console(markup=False, emoji=False, highlight=False)
    judge = evaluators(data, options.data, lambda text: console.print(text, soft_wrap=True))[0]
    count = len(rates) * len(gammas)
    console.print(f"{count} runs of {options.minutes:g} minutes: about {count * options.minutes:.0f} minutes in all")

    label = torch.arange(SAMPLES) % max(data.num_classes, 1)
    z = torch.randn(SAMPLES, base.z_dim, generator=torch.Generator().manual_seed(0))
    ranking: list[tuple[float, Pair, Pair]] = []
    for rate, gamma in itertools.product(rates, gammas):
        config = preset(options.preset, modern=options.modern, learning_rate=rate, gamma=gamma)
        trainer = Trainer(config, data, threads=1 if device == "cuda" else threads, device=device)
        status = StatusLine(console)
        folder = options.out / f"rate-{rate[0]:g}_gamma-{gamma[0]:g}"
        session = Run(trainer, folder, Budget(options.minutes), snapshot_s=1e9, checkpoint_s=1e9, status=status.show)
        try:
            session.train()
            fcd = judge.score(trainer.sample(z, label), label, quick=True).metric("fcd").value
        except DivergedError as error:
            console.print(f"{folder.name} diverged: {error}", soft_wrap=True)
            fcd = float("inf")
        finally:
            status.close()
            trainer.pool.close()
        ranking.append((fcd, rate, gamma))
        console.print(f"{folder.name}: FCD {fcd:.3f} after {trainer.nimg} images", soft_wrap=True)
    _print(console, sorted(ranking), options)


def _around(pair: Pair, factors: tuple[float, ...]) -> list[Pair]:
    return [(pair[0] * factor, pair[1] * factor) for factor in factors]


def _print(console: Console, ranking: list[tuple[float, Pair, Pair]], options: argparse.Namespace) -> None:
    table = Table("FCD", "learning rate", "gamma", title=f"n = {SAMPLES}, {options.minutes:g} minutes each")
    for fcd, rate, gamma in ranking:
        table.add_row(f"{fcd:.3f}", _shown(rate), _shown(gamma))
    console.print(table)
    best, rate, gamma = ranking[0]
    if best == float("inf"):
        raise TrainingError("every run diverged; try lower learning rates")
    modern = ["--modern"] if options.modern else []
    command = ["python", "-m", "training", "train", str(options.data), "--out", "runs/best", "--preset", options.preset]
    command += [*modern, "--learning-rate", _shown(rate), "--gamma", _shown(gamma), "--minutes", "60"]
    console.print(f"the best: {shlex.join(command)}", soft_wrap=True)


def _shown(pair: Pair) -> str:
    return f"{pair[0]:g}:{pair[1]:g}"
