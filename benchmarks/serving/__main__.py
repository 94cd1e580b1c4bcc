"""`make bench`: one picture per request, and sixteen, here and in other servers, beside what the machine could do.

Every server has the machine to itself while it is measured: in each round each of them is started, warmed up, loaded
and ended in turn, on the same TorchScript generator, by the same load.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers.launch import PEERS, Peer, running
from benchmarks.serving.limit import images_per_s
from benchmarks.serving.load import Outcome, get, run_round
from benchmarks.serving.models import dcgan
from benchmarks.serving.servers import server
from benchmarks.store import Result, Verdict, arguments, store, table

FASHION = Path(__file__).parents[2] / "models" / "fashion" / "2"
OURS, LIMIT = "vitrine", "limit"
N = 16
CONNECTIONS = {1: 64, N: 16}
WARM_UP_S = 1.5
BARS = {"dcgan64": {"peer": 3.0, "limit 1": 0.75, "limit 16": 0.9}, "fashion": {"peer": 3.0}}

Ask = Callable[[int, int], bytes]


@dataclass
class Side:
    """One server of the comparison: pictures per second, round by round, by pictures per request.

    Attributes:
        name: Its name and version.
        start: Runs it on a bundle and yields its port; `None` for the limit.
        request: Makes the request for a number of pictures from a seed on.
    """

    name: str
    start: Callable[[Path], Any] | None
    request: Ask | None
    rounds: dict[int, list[float]] = field(default_factory=lambda: {1: [], N: []})
    latencies_ms: dict[int, list[tuple[float, float]]] = field(default_factory=lambda: {1: [], N: []})
    failed: int = 0

    def images_per_s(self, n: int) -> float:
        """Return the median over the rounds."""
        return median(self.rounds[n])

    def measure(self, bundle: Path, seconds: float) -> None:
        """Start it, load it with both kinds of requests, end it."""
        if self.start is None or self.request is None:
            found = images_per_s(bundle, seconds)
            for n in self.rounds:
                self.rounds[n].append(found)
            return
        request = self.request
        with self.start(bundle) as port:
            for n in self.rounds:

                def load(lasting_s: float, n: int = n) -> Outcome:
                    return run_round(
                        port,
                        connections=CONNECTIONS[n],
                        seconds=lasting_s,
                        request=lambda number: request(number * N % 2**52, n),
                    )

                load(WARM_UP_S)
                outcome = load(seconds)
                self.rounds[n].append(outcome.requests_per_s * n)
                self.latencies_ms[n].append((outcome.quantile_ms(0.5), outcome.quantile_ms(0.99)))
                self.failed += outcome.failed


@contextmanager
def ours(bundle: Path) -> Iterator[int]:
    """Run the service on one bundle, as it is configured by default."""
    name = json.loads((bundle / "manifest.json").read_text())["name"]
    with server("service", {"VITRINE_MODELS_DIR": str(bundle.parents[1]), "VITRINE_DEFAULT_MODEL": name}) as up:
        yield up.port


def _ask_ours(seed: int, n: int) -> bytes:
    return get(f"/generate?seed={seed}" + (f"&n={n}" if n > 1 else ""))


def _ask_json(seed: int, n: int) -> bytes:
    return get(f"/generate?seed={seed}&n={n}", accept="application/json")


def _side(peer: Peer) -> Side:
    return Side(f"{peer.name} {peer.version}", lambda bundle: running(peer, bundle), peer.request)


def main() -> None:
    """Measure, print and store."""
    parser = arguments("benchmarks.serving", __doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--models", nargs="+", default=list(BARS), choices=list(BARS))
    parser.add_argument("--peers", nargs="*", default=[peer.name for peer in PEERS], help="default: all")
    options = parser.parse_args()
    facts: dict[str, Any] = {"rounds": options.rounds, "seconds_per_round": options.seconds}
    lines: list[str] = []
    verdicts: list[Verdict] = []
    for model in options.models:
        sides = [
            Side(OURS, ours, _ask_ours),
            Side(f"{OURS}, JSON", ours, _ask_json),
            *(_side(peer) for peer in PEERS if peer.name in options.peers),
            Side(LIMIT, None, None),
        ]
        with tempfile.TemporaryDirectory(prefix="models-") as folder:
            bundle = _bundle(model, Path(folder))
            for number in range(options.rounds):
                for side in sides:
                    side.measure(bundle, options.seconds)
                    shown = "  ".join(f"n={n}: {found[-1]:8.1f}" for n, found in side.rounds.items())
                    print(f"{model} round {number + 1}  {side.name:20} {shown} pictures/s", flush=True)
            variant = json.loads((bundle.parents[1] / ".variants.json").read_text())
        facts[model] = {"variant": variant, "sides": [_facts(side) for side in sides]}
        lines += [f"## {model}", "", *_table(sides), ""]
        verdicts += _verdicts(model, sides)
    how = (
        f"medians of {options.rounds} rounds of {options.seconds:g} s in which every server had its turn, alone on "
        f"the machine but for the load; {CONNECTIONS[1]} connections for one picture per request, {CONNECTIONS[N]} for "
        f"{N}. Vitrine answers n = {N} with a contact sheet, or with {N} files in JSON, the others with {N} files; the "
        "limit has neither requests nor answers"
    )
    name = "serving" if len(options.models) == len(BARS) else f"serving-{'-'.join(options.models)}"
    store(Result(name, "Pictures per second", how, facts, lines, verdicts), options)


def _bundle(model: str, models_dir: Path) -> Path:
    """Return the one bundle of a models folder."""
    if model == "dcgan64":
        return dcgan(models_dir)
    target = models_dir / "fashion" / FASHION.name
    shutil.copytree(FASHION, target)
    return target


def _facts(side: Side) -> dict[str, Any]:
    return {"name": side.name, "images_per_s": side.rounds, "latencies_ms": side.latencies_ms, "failed": side.failed}


def _table(sides: list[Side]) -> list[str]:
    heads = ("", "one per request", "of ours", "median ms", "p99 ms", f"{N} per request", "of ours", "failed")
    best = sides[0]
    rows = []
    for side in sides:
        latency = side.latencies_ms[1]
        middle, late = (median(part) for part in zip(*latency, strict=True)) if latency else (float("nan"),) * 2
        one, many = side.images_per_s(1), side.images_per_s(N)
        shares = one / best.images_per_s(1), many / best.images_per_s(N)
        rows.append((side.name, one, f"{shares[0]:.2f}", middle, late, many, f"{shares[1]:.2f}", side.failed))
    return table(heads, rows)


def _verdicts(model: str, sides: list[Side]) -> list[Verdict]:
    best, _, *peers, limit = sides
    bars, found = BARS[model], list[Verdict]()
    if peers:
        peer = max(peers, key=lambda side: side.images_per_s(1))
        ratio = best.images_per_s(1) / peer.images_per_s(1)
        found.append(Verdict(f"{model}, one per request, times {peer.name}", ratio, bars["peer"], at_least=True))
    for n in (1, N):
        if f"limit {n}" in bars:
            share = best.images_per_s(n) / limit.images_per_s(n)
            claim = f"{model}, {n} per request, of the limit"
            found.append(Verdict(claim, share, bars[f"limit {n}"], at_least=True))
    return found


if __name__ == "__main__":
    main()
