"""`make bench-cached`: 304 and kept pictures on one core, and a burst of requests for one picture.

The service is confined to the first core and the load to another, so that a figure is what one core does.
"""

import asyncio
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import httpx
import uvloop

from benchmarks.serving.load import Answer, Connection, Outcome, Request, connect, get, run_round
from benchmarks.serving.models import dcgan
from benchmarks.serving.servers import Running, metric, server
from benchmarks.store import Result, Verdict, arguments, store, table

CONNECTIONS = 64
PICTURES = 256
BURST = 1000
BAR = 5000.0


@dataclass
class Kind:
    """A kind of request, and its rounds."""

    name: str
    request: Request
    rounds: list[Outcome] = field(default_factory=list)

    @property
    def requests_per_s(self) -> float:
        """The median over the rounds."""
        return median(one.requests_per_s for one in self.rounds)


def main() -> None:
    """Measure, print and store."""
    parser = arguments("benchmarks.serving.cached", __doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    first, *others = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="models-") as folder:
        dcgan(Path(folder))
        with server("service", {"VITRINE_MODELS_DIR": folder, "VITRINE_DEFAULT_MODEL": "dcgan64"}) as up:
            _confine(up.pid, first)
            os.sched_setaffinity(0, others or {first})
            kinds = _kinds(up)
            for number in range(options.rounds):
                for kind in kinds:
                    kind.rounds.append(_round(up, kind, options.seconds))
                    print(f"round {number + 1}  {kind.name:22} {kind.rounds[-1].requests_per_s:8.0f}/s", flush=True)
            drawn = [_burst(up, seed) for seed in range(options.rounds)]
    rows = [
        (
            kind.name,
            kind.requests_per_s,
            median(one.quantile_ms(0.5) for one in kind.rounds),
            median(one.quantile_ms(0.99) for one in kind.rounds),
            sum(one.failed for one in kind.rounds),
        )
        for kind in kinds
    ]
    facts = {
        "rounds": {kind.name: [one.requests_per_s for one in kind.rounds] for kind in kinds},
        "seconds_per_round": options.seconds,
        "drawn_for_bursts": drawn,
    }
    verdicts = [Verdict(f"{kind.name}, requests/s", kind.requests_per_s, BAR, at_least=True) for kind in kinds[:2]]
    verdicts.append(Verdict(f"pictures drawn for {BURST} identical GETs at once, at worst", max(drawn), 1))
    how = (
        f"medians of {options.rounds} interleaved rounds of {options.seconds:g} s, {CONNECTIONS} connections; the "
        f"service on one core, the load on another; {PICTURES} pictures of 64x64x3"
    )
    lines = table(("", "requests/s", "median ms", "p99 ms", "failed"), rows)
    store(Result("cached", "What was asked for before", how, facts, lines, verdicts), options)


def _kinds(up: Running) -> list[Kind]:
    """Draw every picture once, and return the requests for them."""
    paths = [f"/i/dcgan64@1/{seed}.png" for seed in range(PICTURES)]
    with httpx.Client(base_url=f"http://127.0.0.1:{up.port}", headers={"Accept": "image/png"}) as client:
        tags = [client.get(path).raise_for_status().headers["etag"] for path in paths]
        client.get("/livez").raise_for_status()
    unchanged = [get(path, if_none_match=tag) for path, tag in zip(paths, tags, strict=True)]
    whole = [get(path) for path in paths]
    probe = get("/livez")
    return [
        Kind("304", lambda number: unchanged[number % PICTURES]),
        Kind("kept picture", lambda number: whole[number % PICTURES]),
        Kind("/livez, for comparison", lambda number: probe),
    ]


def _round(up: Running, kind: Kind, seconds: float) -> Outcome:
    run_round(up.port, connections=CONNECTIONS, seconds=0.5, request=kind.request)
    return run_round(up.port, connections=CONNECTIONS, seconds=seconds, request=kind.request)


def _confine(pid: int, core: int) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def _burst(up: Running, seed: int) -> int:
    """Ask for one new picture from many connections at once; return how many were drawn.

    Raises:
        RuntimeError: If an answer was no picture.
    """
    before = metric(up.port, "vitrine_images_total")
    statuses = uvloop.run(_ask_at_once(up.port, get(f"/i/dcgan64@1/{10**9 + seed}.png")))
    if statuses != {200}:
        raise RuntimeError(f"a burst was answered with {sorted(statuses)}")
    return round(metric(up.port, "vitrine_images_total") - before)


async def _ask_at_once(port: int, request: bytes) -> set[int]:
    statuses: list[int] = []
    done = asyncio.Event()

    def on_answer(connection: Connection, answer: Answer) -> None:
        statuses.append(answer.status)
        connection.close()
        if len(statuses) == BURST:
            done.set()

    connections = [await connect(port, on_answer) for _ in range(BURST)]
    for connection in connections:
        connection.send(request)
    await done.wait()
    return set(statuses)


if __name__ == "__main__":
    main()
