"""What a request costs each thread of the service: a new picture, a kept one, a refused one.

Processor time of the event loop and of all other threads, from Linux's /proc, per answer; the load is another process
on the same cores. New pictures are asked for by 64 connections in a closed loop, kept ones too; the refused ones by an
open loop at three times what the closed one brought.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.serving.load import Outcome, get, picture, run_at_rate, run_round, saturate
from benchmarks.serving.models import dcgan
from benchmarks.serving.servers import Running, serving
from benchmarks.store import Result, arguments, store, table

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
KEPT = 64  # pictures
OVERLOAD, CONNECTIONS = 3.0, 1024
WARM_UP_S = 1.5


@dataclass(frozen=True, slots=True)
class Cost:
    """Core-milliseconds per answer of the event loop and of the other threads, answers per second, share refused."""

    loop_ms: float
    others_ms: float
    answers_per_s: float
    refused: float


def main() -> None:
    """Measure, print and store."""
    parser = arguments("benchmarks.serving.threads", __doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    found: dict[str, list[Cost]] = {"new": [], "refused": [], "kept": []}
    with serving(dcgan) as service:
        saturate(service.port, WARM_UP_S)
        for _ in range(options.rounds):
            rate = saturate(service.port, 1.0).requests_per_s
            found["new"].append(_cost(service, lambda: saturate(service.port, options.seconds)))
            found["refused"].append(_cost(service, partial(_overloaded, service, OVERLOAD * rate, options.seconds)))
            print(f"new {found['new'][-1]}, refused {found['refused'][-1]}", flush=True)
    with serving(dcgan, {"VITRINE_CACHE_MB": "64"}) as service:
        run_round(service.port, connections=4, seconds=WARM_UP_S, request=_kept)
        for _ in range(options.rounds):
            load = _cost(service, lambda: run_round(service.port, connections=64, seconds=2.0, request=_kept))
            found["kept"].append(load)
    _store(found, options)


def _kept(number: int) -> bytes:
    return get(f"/generate?seed={number % KEPT}")


def _overloaded(service: Running, rate: float, seconds: float) -> Outcome:
    return run_at_rate(service.port, rate=rate, connections=CONNECTIONS, seconds=seconds, request=picture)


def _cost(service: Running, load: Callable[[], Outcome]) -> Cost:
    before = _ticks(service.pid)
    outcome = load()
    spent = {thread: ticks - before.get(thread, 0) for thread, ticks in _ticks(service.pid).items()}
    answers = sum(outcome.statuses.values())
    each = 1000 / TICKS_PER_S / answers
    loop = spent.pop(service.pid)
    refused = outcome.statuses.get(429, 0) / answers
    return Cost(loop * each, sum(spent.values()) * each, answers / outcome.seconds, refused)


def _ticks(pid: int) -> dict[int, int]:
    """Return the clock ticks that each thread of a process has taken; the event loop's id is the process's."""
    found = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        fields = (thread / "stat").read_text().rpartition(")")[2].split()
        found[int(thread.name)] = int(fields[11]) + int(fields[12])
    return found


def _store(found: dict[str, list[Cost]], options: argparse.Namespace) -> None:
    def middle(costs: list[Cost], name: str) -> float:
        return median(getattr(cost, name) for cost in costs)

    names = ("loop_ms", "others_ms", "answers_per_s", "refused")
    rows: list[list[Any]] = [[kind, *(middle(costs, name) for name in names)] for kind, costs in found.items()]
    how = (
        f"medians of {options.rounds} rounds of {options.seconds:g} s, DCGAN at 64x64x3, one picture per request; "
        f"refused: {OVERLOAD:g} times as many requests as the service can draw, all answers counted"
    )
    heads = ["answers", "event loop, core-ms each", "other threads, core-ms each", "answers/s", "share refused"]
    facts = {kind: [asdict(cost) for cost in costs] for kind, costs in found.items()}
    store(Result("threads", "What an answer costs", how, facts, table(heads, rows)), options)


if __name__ == "__main__":
    main()
