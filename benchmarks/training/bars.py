"""`make bars`: what the 28x28 generator reaches in 5 and 20 minutes, of three seeds, against the bars of the design.

A run that is there already is finished, or only measured: `runs/bars/MINUTES-SEED`.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.training.quality import SAMPLES, Figures, Origin, figures, train, trainer_for
from training import data as datasets
from training.evaluate import evaluators
from training.presets import preset

RESULTS = Path(__file__).parents[1] / "results"
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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training.bars")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, nargs="+", choices=BARS, default=[5.0, 20.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, help="CPU threads of each run (default: all cores)")
    options = parser.parse_args()
    data = datasets.load(options.data)
    judge = evaluators(data, options.data, print)[0]
    path = RESULTS / "bars.json"
    stored = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    rows = {(row["minutes"], row["seed"]): _row(row) for row in stored}
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
            _store([rows[key] for key in sorted(rows)])


def _row(document: dict[str, Any]) -> Row:
    return Row(**(document | {"figures": Figures(**document["figures"]), "origin": Origin(**document["origin"])}))


def _store(rows: list[Row]) -> None:
    machine = describe()
    facts = {"command": "make bars", "machine": machine, "samples": SAMPLES, "rows": [asdict(row) for row in rows]}
    (RESULTS / "bars.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    lines = [
        "# The bars on Fashion-MNIST",
        "",
        f"`make bars`: {machine['processor']}, {machine['cores']} cores ({machine['cpu_capability']}), torch "
        f"{machine['torch']}; `{PRESET}`, {SAMPLES} samples.",
        "",
        "| minutes | seed | threads | FCD | recall | coverage | accuracy | images | |",
        "|---" * 9 + "|",
    ]
    for row in rows:
        found = row.figures
        numbers = f"{found.fcd:.2f} | {found.recall:.2f} | {found.coverage:.2f} | {found.accuracy:.2f} | {found.images}"
        lines.append(
            f"| {row.minutes:g} | {row.seed} | {row.origin.threads} | {numbers} | {'met' if row.met else 'missed'} |"
        )
    for minutes, (fcd, recall, coverage, accuracy) in BARS.items():
        lines.append(
            f"| {minutes:g} | bar | | at most {fcd:.2f} | {recall:.2f} | {coverage:.2f} | {accuracy:.2f} | | |"
        )
    (RESULTS / "bars.md").write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
