"""`make compare-presets`: every classic system, each with the modern loss, and the modern generator, in equal time.

Needs two packed files (`python -m training prepare`): one of 28x28 and one of 64x64 pictures.
"""

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import Any

from benchmarks.store import Result, arguments, store, stored, table
from benchmarks.training.quality import COLUMNS, SAMPLES, Figures, figures, of_metrics, train, trainer_for
from training import data as datasets
from training.cli.presets import picture_side
from training.evaluate import evaluators
from training.metrics.evaluation import Evaluation, Evaluator
from training.presets import PRESETS, TrainConfig, preset

MODERN = {28: "fashion28", 64: "product64-cpu"}


@dataclass(frozen=True)
class Row:
    """One run: its figures, with the FCD of the untrained generator; not finite figures are of a run that diverged.

    Attributes:
        commit: What it was run at, if not at the commit of the whole table.
    """

    name: str
    data: str
    fcd_at_start: float
    figures: Figures
    commit: str = ""


def main() -> None:
    """Train, measure, print and store."""
    parser = arguments("benchmarks.training.presets", __doc__)
    parser.add_argument("--data28", type=Path, required=True)
    parser.add_argument("--data64", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--threads", type=int, help="CPU threads of each run (default: all cores)")
    parser.add_argument("--only", nargs="+", help="names of presets; the other rows of the table stay")
    options = parser.parse_args()
    sets = {28: datasets.load(options.data28), 64: datasets.load(options.data64)}
    paths = {28: options.data28, 64: options.data64}
    threads = options.threads or len(os.sched_getaffinity(0))
    kept, kept_floors = _stored(options) if options.only else ([], [])
    rows: list[Row] = []
    floors: list[Row] = []
    for side, data in sets.items():
        judge = evaluators(data, paths[side], print)[0]
        evaluation = None
        runs = _runs(side, options.only)
        rows += [row for row in kept if row.data == data.name and row.name not in dict(runs)]
        for name, config in runs:
            row, evaluation = _train(name, config, data, judge, options.minutes, threads)
            rows.append(row)
            print(json.dumps(asdict(row)), flush=True)
            store(_result(rows, [*floors, _floor(data.name, evaluation)], options.minutes, threads), options)
        if evaluation is None:
            floors += [floor for floor in kept_floors if floor.data == data.name]
        else:
            floors.append(_floor(data.name, evaluation))
    store(_result(rows, floors, options.minutes, threads), options)


def _runs(side: int, only: Sequence[str] | None) -> list[tuple[str, TrainConfig]]:
    classic = [name for name, config in PRESETS.items() if name.startswith("classic-") and picture_side(config) == side]
    runs = [(name + suffix, preset(name, modern=bool(suffix))) for name in classic for suffix in ("", " --modern")]
    runs.append((MODERN[side], preset(MODERN[side])))
    return [(name, config) for name, config in runs if only is None or config.preset in only]


def _train(
    name: str, config: TrainConfig, data: datasets.PictureSet, judge: Evaluator, minutes: float, threads: int
) -> tuple[Row, Evaluation]:
    folder = Path("runs/compare") / name.replace(" --", "-")
    shutil.rmtree(folder, ignore_errors=True)
    trainer = trainer_for(config, data, threads)
    trainer.finish_average()
    start, _ = figures(trainer, judge, quick=True)
    train(trainer, folder, minutes)
    found, evaluation = figures(trainer, judge)
    trainer.pool.close()
    return Row(name, data.name, start.fcd, found), evaluation


def _stored(options: argparse.Namespace) -> tuple[list[Row], list[Row]]:
    """Return the rows of the table that is there, with the commit that they were run at, and its floors."""
    facts = stored("presets", options)
    rows = [_row(row, row.get("commit") or facts["commit"]) for row in facts.get("rows", [])]
    return rows, [_row(row, "") for row in facts.get("floors", [])]


def _row(row: dict[str, Any], commit: str) -> Row:
    return Row(row["name"], row["data"], row["fcd_at_start"], Figures(**row["figures"]), commit)


def _floor(data: str, evaluation: Evaluation) -> Row:
    found = {metric.name: metric.floor for metric in evaluation.metrics}
    return Row("floor: real against real", data, float("nan"), of_metrics(found, 0, float("nan")))


def _result(rows: Sequence[Row], floors: Sequence[Row], minutes: float, threads: int) -> Result:
    heads = ("preset", COLUMNS[0], "at the start", *COLUMNS[1:], "images/s")
    lines: list[str] = []
    for floor in floors:
        shown = [_cells(row) for row in [*rows, floor] if row.data == floor.data]
        lines += [f"## {floor.data}", "", *table(heads, shown), ""]
    facts = {
        "threads": threads,
        "minutes_each": minutes,
        "samples": SAMPLES,
        "rows": [asdict(row) for row in rows],
        "floors": [asdict(row) for row in floors],
    }
    how = f"{minutes:g} minutes each on {threads} threads, {SAMPLES} samples"
    return Result("presets", "The presets, equal minutes each", how, facts, lines, command="make compare-presets")


def _cells(row: Row) -> list[str]:
    fcd, *others = row.figures.cells()
    name = f"{row.name} (at {row.commit})" if row.commit else row.name
    start, speed = row.fcd_at_start, row.figures.images_per_s
    return [name, fcd, "" if isnan(start) else f"{start:.1f}", *others, "" if isnan(speed) else f"{speed:.0f}"]


if __name__ == "__main__":
    main()
