"""`make bench`: batching and the fast PNG path against the same app without them, in interleaved rounds.

64 clients ask for one picture each, every one with a seed of its own, so nothing is cached.
"""

import argparse
import json
import statistics
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import describe, revision
from benchmarks.serving.load import Outcome, run_round
from benchmarks.serving.servers import metric, server

RESULTS = Path(__file__).parents[1] / "results"
CONNECTIONS = 64
WARM_UP_S = 2.0
COLUMNS = ("name", "requests_per_s", "median_ms", "p99_ms", "images_per_batch", "failed")


@dataclass
class Side:
    """One server of the comparison, and its rounds."""

    name: str
    module: str
    settings: dict[str, str]
    rounds: list[Outcome] = field(default_factory=list)
    images_per_batch: float = float("nan")

    def summary(self) -> dict[str, Any]:
        """Return medians over the rounds."""
        failed = sum(count for one in self.rounds for status, count in one.statuses.items() if status != 200)
        return {
            "name": self.name,
            "requests_per_s": round(statistics.median(one.requests_per_s for one in self.rounds), 1),
            "requests_per_s_of_rounds": [round(one.requests_per_s, 1) for one in self.rounds],
            "median_ms": round(statistics.median(one.quantile_ms(0.5) for one in self.rounds), 1),
            "p99_ms": round(statistics.median(one.quantile_ms(0.99) for one in self.rounds), 1),
            "images_per_batch": round(self.images_per_batch, 2),
            "requests": sum(sum(one.statuses.values()) for one in self.rounds),
            "failed": failed,
        }


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    sides = [
        Side("batched, fast PNG", "service", {}),
        Side("batches of 1, Pillow PNG", "benchmarks.baseline", {"VITRINE_MAX_BATCH_IMAGES": "1"}),
    ]
    ports = {}
    with server(sides[0].module, sides[0].settings) as first, server(sides[1].module, sides[1].settings) as second:
        ports = {sides[0].name: first, sides[1].name: second}
        for side in sides:
            _one_round(ports[side.name], WARM_UP_S)
        for number in range(options.rounds):
            for side in sides:
                side.rounds.append(_one_round(ports[side.name], options.seconds))
                print(
                    f"round {number + 1}  {side.name:26} {side.rounds[-1].requests_per_s:8.1f} requests/s", flush=True
                )
        for side in sides:
            port = ports[side.name]
            side.images_per_batch = metric(port, "vitrine_batch_images_sum") / metric(
                port, "vitrine_batch_images_count"
            )
    _store(sides, options)


def _one_round(port: int, seconds: float) -> Outcome:
    return run_round(port, connections=CONNECTIONS, seconds=seconds, path=lambda number: f"/generate?seed={number}")


def _store(sides: list[Side], options: argparse.Namespace) -> None:
    summaries = [side.summary() for side in sides]
    ratio = summaries[0]["requests_per_s"] / summaries[1]["requests_per_s"]
    result = {
        "command": "make bench",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": revision(),
        "machine": describe(),
        "connections": CONNECTIONS,
        "rounds": options.rounds,
        "seconds_per_round": options.seconds,
        "sides": summaries,
        "ratio": round(ratio, 2),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "batching.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    rows = ["| " + " | ".join(str(summary[column]) for column in COLUMNS) + " |" for summary in summaries]
    machine = result["machine"]
    text = "\n".join(
        [
            "# One picture per request, 64 clients",
            "",
            f"`make bench` at {result['commit']}, {result['date']}: {machine['processor']}, {machine['cores']} cores "
            f"({machine['cpu_capability']}), torch {machine['torch']}; medians of {options.rounds} interleaved rounds "
            f"of {options.seconds:g} s; the clients run on the same cores.",
            "",
            "| server | requests/s | median ms | p99 ms | images per batch | failed |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"Ratio: {ratio:.2f}.",
            "",
        ]
    )
    (RESULTS / "batching.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
