"""Latency against load: one picture per request, from 5 % to 100 % of what the service can do.

Every round finds the saturation throughput and the latency of a lone request anew, then asks at each share of that
throughput in an open loop: the machine's speed drifts, and a share of an old figure would be another load. The clients
run on the same cores. Requests come evenly spaced, every one with a seed of its own; nothing is cached.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.serving.load import SATURATION_CONNECTIONS, lone, picture, run_at_rate, saturate
from benchmarks.serving.models import dcgan
from benchmarks.serving.servers import serving
from benchmarks.store import Result, Verdict, arguments, store, table

NAME = "load_curve"
SHARES = (0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 1.00)
HALF = 0.50
LIMIT = 4.0  # of the p99 at half load, in medians of a lone request
CONNECTIONS = 256  # more than are ever in flight below saturation; at it, waiting for one counts as latency
WARM_UP_S = 3.0


@dataclass(frozen=True, slots=True)
class Point:
    """One open loop: requests per second asked for, latency of the good answers, and how many were no good ones."""

    share: float
    rate: float
    median_ms: float
    p99_ms: float
    failed: int


@dataclass(frozen=True, slots=True)
class Round:
    """One round: what the service can do, the median of a lone request, and a point per share."""

    saturation: float
    lone_ms: float
    points: Sequence[Point]

    @property
    def ratio(self) -> float:
        """The p99 at half load in medians of a lone request."""
        return next(point.p99_ms for point in self.points if point.share == HALF) / self.lone_ms


def main() -> None:
    """Measure, draw, print and store."""
    parser = arguments("benchmarks.serving.load_curve", __doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement in a round")
    options = parser.parse_args()
    with serving(dcgan) as service:
        saturate(service.port, min(WARM_UP_S, options.seconds))
        rounds = [_round(service.port, options.seconds, number) for number in range(options.rounds)]
    _store(rounds, options)


def _round(port: int, seconds: float, number: int) -> Round:
    saturation, lone_ms = saturate(port, seconds).requests_per_s, lone(port, seconds).quantile_ms(0.5)
    points = [_point(port, seconds, share, share * saturation) for share in SHARES]
    found = Round(saturation, lone_ms, points)
    print(
        f"round {number + 1}: {saturation:.0f} requests/s at saturation, lone {lone_ms:.1f} ms, p99 in ms: "
        + ", ".join(f"{point.share:.0%} {point.p99_ms:.1f}" for point in points),
        flush=True,
    )
    return found


def _point(port: int, seconds: float, share: float, rate: float) -> Point:
    seen = run_at_rate(port, rate=rate, connections=CONNECTIONS, seconds=seconds, request=picture)
    return Point(share, rate, seen.quantile_ms(0.5), seen.quantile_ms(0.99), seen.failed)


def _medians(rounds: Sequence[Round]) -> list[Point]:
    """Return one point per share: medians over the rounds, and the sum of what failed."""
    columns = [[one.points[index] for one in rounds] for index in range(len(SHARES))]
    return [
        Point(
            column[0].share,
            median(point.rate for point in column),
            median(point.median_ms for point in column),
            median(point.p99_ms for point in column),
            sum(point.failed for point in column),
        )
        for column in columns
    ]


def _store(rounds: Sequence[Round], options: argparse.Namespace) -> None:
    points = _medians(rounds)
    saturation, lone_ms = median(one.saturation for one in rounds), median(one.lone_ms for one in rounds)
    facts: dict[str, Any] = {
        "connections_at_saturation": SATURATION_CONNECTIONS,
        "seconds": options.seconds,
        "saturation_requests_per_s": saturation,
        "lone_median_ms": lone_ms,
        "points": [asdict(point) for point in points],
        "rounds": [asdict(one) for one in rounds],
    }
    rows = [[f"{100 * p.share:.0f} %", p.rate, p.median_ms, p.p99_ms, p.failed] for p in points]
    lines = [
        f"Saturation, {SATURATION_CONNECTIONS} connections in a closed loop: {saturation:,.0f} requests/s. Median of a "
        f"lone request: {lone_ms:.2f} ms.",
        "",
        *table(["load", "requests/s", "median ms", "p99 ms", "failed"], rows),
        "",
        f"![latency against load]({NAME}.png)",
    ]
    claim = "p99 at half load, in medians of a lone request (median over the rounds)"
    how = (
        f"medians of {len(rounds)} interleaved rounds of {options.seconds:g} s each, DCGAN at 64x64x3, one picture "
        "per request, no cache, evenly spaced requests; the clients run on the same cores"
    )
    verdict = Verdict(claim, median(one.ratio for one in rounds), LIMIT)
    store(Result(NAME, "Latency against load", how, facts, lines, [verdict]), options)
    _draw(points, saturation, lone_ms, options.results / f"{NAME}.png")


def _draw(points: Sequence[Point], saturation: float, lone_ms: float, path: Path) -> None:
    """Draw the points; latency is logarithmic, or the last one would flatten all others."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4.2), dpi=150, layout="constrained")
    loads = [100 * point.share for point in points]
    for label, colour, values in (
        ("p99", "#b3361e", [point.p99_ms for point in points]),
        ("median", "#1f5f8b", [point.median_ms for point in points]),
    ):
        axes.plot(loads, values, color=colour, marker="o", markersize=4.5, linewidth=1.8, label=label)
    grey: dict[str, Any] = {"color": "#555555", "linewidth": 1.4}
    limit = f"what the p99 at half load may be: {LIMIT:g} times that"
    axes.axhline(lone_ms, linestyle=(0, (4, 3)), label="median of a lone request", **grey)
    axes.plot([100 * HALF - 6, 100 * HALF + 6], [LIMIT * lone_ms] * 2, label=limit, **grey)
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, position: f"{value:g}"))
    axes.yaxis.set_minor_formatter(
        matplotlib.ticker.FuncFormatter(lambda value, position: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    )
    axes.set_ylim(bottom=0.7 * lone_ms)
    axes.set_xlim(0, 105)
    axes.set_xticks(loads, [f"{load:.0f}" for load in loads])
    axes.set_xlabel(f"load in % of saturation, {saturation:,.0f} pictures per second")
    axes.set_ylabel("latency in ms")
    axes.set_title("Latency against load, one 64x64 picture per request", loc="left", fontsize=11)
    axes.grid(axis="y", which="major", color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
