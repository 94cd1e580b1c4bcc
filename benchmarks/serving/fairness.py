"""What a client that asks for 64 pictures at a time does to one that asks for a single picture.

The lone client is an `<img>`: GET, one connection, one request after the other. The other one posts n = 64 again and
again on a connection of its own, once for JSON and once for a contact sheet, from a process of its own, so that its
reading of large answers does not hold up the lone client's clock. Nothing is cached. All three in every round.
"""

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import median

from benchmarks.serving.load import Outcome, Request, expect_good, lone, post, run_round
from benchmarks.serving.models import dcgan
from benchmarks.serving.servers import serving
from benchmarks.store import Result, Verdict, arguments, store, table

PICTURES = 64
LIMIT = 2.0  # of the median beside the crowd, in medians alone
LEAD_S = 1.0  # the crowd comes earlier and leaves later than the measurement


def as_json(number: int) -> bytes:
    """Return a request for 64 pictures, as JSON."""
    return post("/generate", _body(number), accept="application/json")


def as_sheet(number: int) -> bytes:
    """Return a request for 64 pictures, as one PNG."""
    return post("/generate", _body(number))


def _body(number: int) -> bytes:
    return json.dumps({"seed": number, "n": PICTURES}).encode()


CROWDS: dict[str, Request | None] = {"nobody": None, "64 as JSON": as_json, "64 as a sheet": as_sheet}


@dataclass(frozen=True, slots=True)
class Beside:
    """The lone client beside somebody: latency, and the pictures per second that the other one got."""

    who: str
    median_ms: float
    p99_ms: float
    pictures_per_s: float = 0.0


def main() -> None:
    """Measure, print and store."""
    parser = arguments("benchmarks.serving.fairness", __doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement in a round")
    options = parser.parse_args()
    with serving(dcgan) as service, ProcessPoolExecutor(1, get_context("spawn")) as elsewhere:
        for who in CROWDS:
            _beside(service.port, who, min(1.0, options.seconds), elsewhere)
        rounds = []
        for number in range(options.rounds):
            rounds.append([_beside(service.port, who, options.seconds, elsewhere) for who in CROWDS])
            seen = ", ".join(f"{one.who} {one.median_ms:.1f}" for one in rounds[-1])
            print(f"round {number + 1}: median in ms beside {seen}", flush=True)
    _store(rounds, options)


def _beside(port: int, who: str, seconds: float, elsewhere: Executor) -> Beside:
    request = CROWDS[who]
    if request is None:
        alone = lone(port, seconds)
        return Beside(who, alone.quantile_ms(0.5), alone.quantile_ms(0.99))
    crowd = elsewhere.submit(_crowd, port, seconds + 2 * LEAD_S, request)
    time.sleep(LEAD_S)
    seen, other = lone(port, seconds), crowd.result()
    return Beside(who, seen.quantile_ms(0.5), seen.quantile_ms(0.99), PICTURES * other.requests_per_s)


def _crowd(port: int, seconds: float, request: Request) -> Outcome:
    return expect_good(run_round(port, connections=1, seconds=seconds, request=request))


def _store(rounds: Sequence[Sequence[Beside]], options: argparse.Namespace) -> None:
    columns = dict(zip(CROWDS, zip(*rounds, strict=True), strict=True))
    alone = columns["nobody"]
    ratios = {
        who: median(one.median_ms / quiet.median_ms for one, quiet in zip(column, alone, strict=True))
        for who, column in columns.items()
    }
    rows = [
        [
            who,
            median(one.median_ms for one in column),
            median(one.p99_ms for one in column),
            ratios[who],
            median(one.pictures_per_s for one in column) if CROWDS[who] else "",
        ]
        for who, column in columns.items()
    ]
    heads = ["beside", "median ms", "p99 ms", "median / alone", "pictures/s of the other"]
    facts = {
        "seconds": options.seconds,
        "pictures_of_the_other": PICTURES,
        "rows": [dict(zip(("beside", "median_ms", "p99_ms", "ratio", "other"), row, strict=True)) for row in rows],
        "median_ms_of_rounds": {who: [one.median_ms for one in column] for who, column in columns.items()},
    }
    verdicts = [
        Verdict(f"median of a lone request beside {who}, in medians alone", ratios[who], LIMIT)
        for who, request in CROWDS.items()
        if request is not None
    ]
    how = (
        f"medians of {len(rounds)} interleaved rounds of {options.seconds:g} s each, DCGAN at 64x64x3, no cache; "
        "the clients run on the same cores"
    )
    store(
        Result("fairness", "A lone request beside requests for 64", how, facts, table(heads, rows), verdicts), options
    )


if __name__ == "__main__":
    main()
