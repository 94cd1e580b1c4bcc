"""`make bars`: what the 28x28 generator reaches in 5 and 20 minutes, of three seeds, against the bars of the design.

A run that is there already is finished, or only measured: `runs/bars/MINUTES-SEED`.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.store import Result, arguments, store, stored, table
from benchmarks.training.quality import COLUMNS, SAMPLES, Figures, Origin, figures, train, trainer_for
from training import data as datasets
from training.evaluate import evaluators
from training.presets import preset

RUNS = Path("runs/bars")
PRESET = "fashion28"
# On Fashion-MNIST, two cores with AVX512-BF16, each of three seeds: FCD at most, the others at least.
BARS = {5.0: (1.5, 0.20, 0.65, 0.88), 20.0: (0.60, 0.42, 0.84, 0.89), 60.0: (0.40, 0.50, 0.88, 0.90)}


@dataclass(frozen=True)
class Row:
    """One run."""

    minutes: float
    seed: int
    met: bool
    figures: Figures
    origin: Origin


def main() -> None:
    """Train what is not there, measure, print and store."""
    parser = arguments("benchmarks.training.bars", __doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, nargs="+", choices=BARS, default=[5.0, 20.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, help="CPU threads of each run (default: all cores)")
    options = parser.parse_args()
    data = datasets.load(options.data)
    judge = evaluators(data, options.data, print)[0]
    rows = {(row.minutes, row.seed): row for row in map(_row, stored("bars", options).get("rows", []))}
    for minutes in options.minutes:
        for seed in options.seeds:
            trainer = trainer_for(preset(PRESET, seed=seed), data, options.threads)
            origin = train(trainer, RUNS / f"{minutes:g}-{seed}", minutes)
            found, _ = figures(trainer, judge)
            trainer.pool.close()
            fcd, *least = BARS[minutes]
            reached = (found.recall, found.coverage, found.accuracy)
            met = found.fcd <= fcd and all(value >= bar for value, bar in zip(reached, least, strict=True))
            row = rows[minutes, seed] = Row(minutes, seed, met, found, origin)
            print(json.dumps(asdict(row)), flush=True)
            store(_result([rows[key] for key in sorted(rows)]), options)


def _row(document: dict[str, Any]) -> Row:
    return Row(**(document | {"figures": Figures(**document["figures"]), "origin": Origin(**document["origin"])}))


def _result(rows: list[Row]) -> Result:
    heads = ("minutes", "seed", "threads", *COLUMNS, "images", "")
    shown: list[tuple[object, ...]] = []
    for row in rows:
        cells = (*row.figures.cells(), row.figures.images, "met" if row.met else "missed")
        shown.append((f"{row.minutes:g}", row.seed, row.origin.threads, *cells))
    for minutes, (fcd, *least) in BARS.items():
        shown.append((f"{minutes:g}", "bar", "", f"at most {fcd:.2f}", *(f"{bar:.2f}" for bar in least), "", ""))
    return Result(
        "bars",
        "The bars on Fashion-MNIST",
        f"`{PRESET}`, {SAMPLES} samples",
        {"samples": SAMPLES, "rows": [asdict(row) for row in rows]},
        table(heads, shown),
        command="make bars",
        dates=[row.origin.date for row in rows],
    )


if __name__ == "__main__":
    main()
