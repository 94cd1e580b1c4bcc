"""`make compare-settings`: the modern generator of 28x28 pictures with one setting changed at a time, in equal time.

Each run has one thread, so that as many run beside each other as there are cores: figures of one round compare with
each other, not with those of a machine left to one run. Runs chosen by `--only` are added to the results there are.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.store import Result, arguments, store, stored, table
from benchmarks.training.quality import COLUMNS, SAMPLES, Figures, Origin, figures, train, trainer_for
from training import data as datasets
from training.data import PictureSet
from training.evaluate import evaluators
from training.metrics.evaluation import Evaluator
from training.presets import preset

SEED = 1
PRESET = "fashion28"
# What the others change: the published form of the loss, and the first settings that worked.
BASE: dict[str, Any] = {"learning_rate": (1e-3, 1e-4), "gamma": (8.0, 0.8), "penalty_every": 1, "seed": SEED}
VARIATIONS: dict[str, dict[str, Any]] = {
    "base": {},
    "another seed": {"seed": SEED + 1},
    "learning rate 5e-4": {"learning_rate": (5e-4, 5e-5)},
    "gamma 16 to 1.6": {"gamma": (16.0, 1.6)},
    "penalties every 2nd step": {"penalty_every": 2},
    "penalties every 4th step": {"penalty_every": 4},
    "no label warm-up": {"label_warmup": 0.0},
    "gamma 32 to 3.2": {"gamma": (32.0, 3.2)},
    "every 4th, gamma 16 to 1.6": {"penalty_every": 4, "gamma": (16.0, 1.6)},
    "every 8th": {"penalty_every": 8},
    "every 4th, wider: 128, 96": {"penalty_every": 4, "widths": (128, 96)},
    "every 4th, two blocks a stage": {"penalty_every": 4, "blocks_per_stage": 2},
    "every 4th, half-resolution discriminator": {"penalty_every": 4, "half_resolution": True},
    "every 4th, non-saturating, R1 only, gamma 16": {
        "penalty_every": 4,
        "loss": "bce",
        "r2": False,
        "gamma": (16.0, 1.6),
    },
    "every 4th, batch 32": {"penalty_every": 4, "batch_size": 32},
    "every 4th, batch 128": {"penalty_every": 4, "batch_size": 128},
    "every 4th, learning rate 5e-4": {"penalty_every": 4, "learning_rate": (5e-4, 5e-5)},
}


@dataclass(frozen=True)
class Row:
    """One run: what was changed, for how long it trained, and what it reached."""

    name: str
    changes: dict[str, Any]
    minutes: float
    figures: Figures
    origin: Origin


def main() -> None:
    """Train every variation, as many at a time as there are cores; print and store."""
    parser = arguments("benchmarks.training.settings", __doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--only", nargs="+", choices=VARIATIONS, default=list(VARIATIONS), metavar="NAME")
    parser.add_argument("--one", choices=VARIATIONS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    data = datasets.load(options.data)
    judge = evaluators(data, options.data, print)[0]
    if options.one:
        print(json.dumps(asdict(_train(options.one, data, judge, options.minutes))), flush=True)
        return
    rows = {row.name: row for row in map(_row, stored("settings", options).get("rows", []))}
    cores = len(os.sched_getaffinity(0))
    for first in range(0, len(options.only), cores):
        round_ = [_start(name, options) for name in options.only[first : first + cores]]
        for process in round_:
            output, _ = process.communicate()
            print(output, end="", flush=True)
            if process.returncode:
                raise SystemExit(f"a run ended with status {process.returncode}")
            row = _row(json.loads(output.splitlines()[-1]))
            rows[row.name] = row
        store(_result([rows[name] for name in VARIATIONS if name in rows]), options)


def _row(document: dict[str, Any]) -> Row:
    return Row(**(document | {"figures": Figures(**document["figures"]), "origin": Origin(**document["origin"])}))


def _start(name: str, options: argparse.Namespace) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "benchmarks.training.settings", "--data", str(options.data)]
    command += ["--minutes", str(options.minutes), "--one", name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _train(name: str, data: PictureSet, judge: Evaluator, minutes: float) -> Row:
    folder = Path("runs/settings") / name.replace(" ", "-").replace(",", "").replace(":", "")
    shutil.rmtree(folder, ignore_errors=True)
    changes = VARIATIONS[name]
    trainer = trainer_for(preset(PRESET, **(BASE | changes)), data, threads=1)
    origin = train(trainer, folder, minutes)
    found, _ = figures(trainer, judge)
    trainer.pool.close()
    return Row(name, changes, minutes, found, origin)


def _result(rows: list[Row]) -> Result:
    shown = [(row.name, f"{row.minutes:g}", *row.figures.cells(), row.figures.images) for row in rows]
    return Result(
        "settings",
        "One setting at a time",
        f"`{PRESET}`, each on one core, the others busy with other runs, {SAMPLES} samples",
        {"samples": SAMPLES, "rows": [asdict(row) for row in rows]},
        table(("setting", "minutes", *COLUMNS, "images"), shown),
        command="make compare-settings",
        dates=[row.origin.date for row in rows],
    )


if __name__ == "__main__":
    main()
