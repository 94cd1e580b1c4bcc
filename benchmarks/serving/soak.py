"""Minutes at saturation: does the service keep its speed, and does it keep to its memory?

64 connections in a closed loop, one picture per request, every one with a seed of its own; nothing is cached. What the
process holds is read after each minute, when its connections are gone.
"""

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.serving.load import SATURATION_CONNECTIONS, picture, run_round
from benchmarks.serving.models import dcgan
from benchmarks.serving.servers import Usage, serving, usage
from benchmarks.store import Result, Verdict, arguments, store, table

ALLOWED = frozenset({200, 429})
GROWTH_LIMIT = 0.05
SPEED_LIMIT = 0.95
SETTLE_S = 1.0  # until the server has noticed that its clients have hung up
WARM_UP_S = 3.0


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute: good answers per second, p99, answers by status, and what the process held after it."""

    requests_per_s: float
    p99_ms: float
    statuses: dict[int, int]
    usage: Usage


def main() -> None:
    """Measure, print and store."""
    parser = arguments("benchmarks.serving.soak", __doc__)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60.0, help="of a minute; less for a trial")
    options = parser.parse_args()
    minutes: list[Minute] = []
    with serving(dcgan) as service:
        _minute(service.port, service.pid, min(WARM_UP_S, options.seconds))
        before = usage(service.pid)
        for number in range(options.minutes):
            one = _minute(service.port, service.pid, options.seconds)
            minutes.append(one)
            print(
                f"minute {number + 1}: {one.requests_per_s:.0f} requests/s, {one.usage.resident_mb:.1f} MiB, "
                f"{one.usage.descriptors} descriptors, {one.usage.threads} threads, {one.statuses}",
                flush=True,
            )
    _store(before, minutes, options)


def _minute(port: int, pid: int, seconds: float) -> Minute:
    seen = run_round(port, connections=SATURATION_CONNECTIONS, seconds=seconds, request=picture)
    time.sleep(SETTLE_S)
    return Minute(seen.requests_per_s, seen.quantile_ms(0.99), seen.statuses, usage(pid))


def _store(before: Usage, minutes: Sequence[Minute], options: argparse.Namespace) -> None:
    first, last = minutes[0], minutes[-1]
    requests = sum(sum(one.statuses.values()) for one in minutes)
    wrong = sum(count for one in minutes for status, count in one.statuses.items() if status not in ALLOWED)
    growth = max(one.usage.resident_mb for one in minutes) / first.usage.resident_mb - 1
    speed = last.requests_per_s / first.requests_per_s if first.requests_per_s else math.nan
    facts: dict[str, Any] = {
        "minutes": options.minutes,
        "seconds_of_a_minute": options.seconds,
        "requests": requests,
        "before": asdict(before),
        "rows": [asdict(one) for one in minutes],
    }
    rows = [["before", "", "", *asdict(before).values()]] + [
        [number, one.requests_per_s, one.p99_ms, *asdict(one.usage).values()] for number, one in enumerate(minutes, 1)
    ]
    heads = ["minute", "requests/s", "p99 ms", "resident MiB", "of it anonymous", "descriptors", "threads"]
    verdicts = [
        Verdict("answers that are neither 200 nor 429 (0: no answer)", wrong, 0),
        Verdict("growth of resident memory after the first minute, at its largest", growth, GROWTH_LIMIT),
        Verdict("throughput of the last minute, of the first", speed, SPEED_LIMIT, at_least=True),
    ]
    how = (
        f"{options.minutes} minutes of {options.seconds:g} s, DCGAN at 64x64x3, {SATURATION_CONNECTIONS} connections "
        "in a closed loop, one picture per request, no cache; the clients run on the same cores"
    )
    lines = [f"{requests:,} requests.", "", *table(heads, rows)]
    store(Result("soak", "Minutes at saturation", how, facts, lines, verdicts), options)


if __name__ == "__main__":
    main()
