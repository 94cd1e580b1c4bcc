"""`make compare-presets`: every classic system, each with the modern loss, and the modern generator, in equal time.

Needs two packed files (`python -m training prepare`): one of 28x28 and one of 64x64 pictures.
"""

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import describe, revision
from benchmarks.training.quality import SAMPLES, Figures, figures, of_metrics, train, trainer_for
from training import data as datasets
from training.cli.presets import picture_side
from training.evaluate import evaluators
from training.metrics.evaluation import Evaluation, Evaluator
from training.presets import PRESETS, TrainConfig, preset

RESULTS = Path(__file__).parents[1] / "results"
MODERN = {28: "fashion28", 64: "product64-cpu"}
COLUMNS = ("FCD", "at the start", "recall", "coverage", "accuracy", "images/s")


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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training.presets")
    parser.add_argument("--data28", type=Path, required=True)
    parser.add_argument("--data64", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--threads", type=int, help="CPU threads of each run (default: all cores)")
    parser.add_argument("--only", nargs="+", help="names of presets; the other rows of the table stay")
    options = parser.parse_args()
    sets = {28: datasets.load(options.data28), 64: datasets.load(options.data64)}
    paths = {28: options.data28, 64: options.data64}
    threads = options.threads or len(os.sched_getaffinity(0))
    kept, kept_floors = _stored() if options.only else ([], [])
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
            _store(rows, [*floors, _floor(data.name, evaluation)], options.minutes, threads)
        if evaluation is None:
            floors += [floor for floor in kept_floors if floor.data == data.name]
        else:
            floors.append(_floor(data.name, evaluation))
    _store(rows, floors, options.minutes, threads)


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


def _stored() -> tuple[list[Row], list[Row]]:
    """Return the rows of the table that is there, with the commit that they were run at, and its floors."""
    facts = json.loads((RESULTS / "presets.json").read_text(encoding="utf-8"))
    rows = [_row(row, row.get("commit") or facts["commit"]) for row in facts["rows"]]
    return rows, [_row(row, "") for row in facts["floors"]]


def _row(row: dict[str, Any], commit: str) -> Row:
    return Row(row["name"], row["data"], row["fcd_at_start"], Figures(**row["figures"]), commit)


def _floor(data: str, evaluation: Evaluation) -> Row:
    found = {metric.name: metric.floor for metric in evaluation.metrics}
    return Row("floor: real against real", data, float("nan"), of_metrics(found, 0, float("nan")))


def _store(rows: Sequence[Row], floors: Sequence[Row], minutes: float, threads: int) -> None:
    machine = describe()
    facts = {
        "command": "make compare-presets",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": revision(),
        "machine": machine,
        "threads": threads,
        "minutes_each": minutes,
        "samples": SAMPLES,
        "rows": [asdict(row) for row in rows],
        "floors": [asdict(row) for row in floors],
    }
    (RESULTS / "presets.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    lines = [
        "# The presets, equal minutes each",
        "",
        f"`make compare-presets` at {facts['commit']}, {facts['date']}: {machine['processor']}, "
        f"{machine['cores']} cores ({machine['cpu_capability']}), torch {machine['torch']}; "
        f"{minutes:g} minutes each on {threads} threads, {SAMPLES} samples.",
        "",
    ]
    for floor in floors:
        lines += [f"## {floor.data}", "", "| preset | " + " | ".join(COLUMNS) + " |", "|---" * 7 + "|"]
        lines += [_line(row) for row in [*rows, floor] if row.data == floor.data] + [""]
    text = "\n".join(lines)
    (RESULTS / "presets.md").write_text(text, encoding="utf-8")
    print(text)


def _line(row: Row) -> str:
    def shown(value: float, digits: int) -> str:
        return "" if value != value else f"{value:.{digits}f}"

    found = row.figures
    name = f"{row.name} (at {row.commit})" if row.commit else row.name
    cells = [shown(found.fcd, 2), shown(row.fcd_at_start, 1), shown(found.recall, 2), shown(found.coverage, 2)]
    return "| " + " | ".join([name, *cells, shown(found.accuracy, 2), shown(found.images_per_s, 0)]) + " |"


if __name__ == "__main__":
    main()
