"""Three times the load that the service can take: what is still done, what the refused are told, what comes of it.

Each round finds the saturation throughput S anew (closed loop), and then asks in two ways.

The open loop sends 3 S requests per second, whatever becomes of them; nobody comes back. It shows the goodput (good
answers per second until the last answer), and whether every other answer is a 429 that says when to come again.

The population shows what that advice is worth. An open loop cannot: if those who are refused come back while 3 S new
ones arrive, then nobody can serve more than a third. In truth clients are a closed set, and one who waits asks for
nothing else meanwhile. So there are N = 3 S T clients, each with a connection of its own, as browsers have. A client
looks at what it has for a time drawn from an exponential distribution of mean T, then asks for a picture: were it
always answered at once, all together would ask 3 S times per second. If it is refused, it waits for exactly
`Retry-After` seconds and asks once more for the same picture; refused again, it gives up and goes on as if answered.
A retry that would fall after the end of the round is not counted. N has to be more than the queue holds (512 pictures),
or nobody is refused: a longer T makes it so on a slow machine.

What can be reached: the longer the service tells people to wait, the fewer ask. If Retry-After is W, the share of
attempts that is admitted is p, and answers come at once, then each client's round takes T + (1 - p) W, and from
3 S T p (2 - p) = S (T + (1 - p) W) a retry succeeds in a third of the cases for W = T, and in nine of ten for W = 20 T.
"""

import argparse
import asyncio
import random
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import uvloop

from benchmarks.serving.load import (
    GOOD,
    PATIENCE_S,
    SATURATION_CONNECTIONS,
    Answer,
    Connection,
    Outcome,
    connect,
    numbers,
    picture,
    run_at_rate,
    saturate,
)
from benchmarks.serving.models import dcgan
from benchmarks.serving.servers import serving
from benchmarks.store import Result, Verdict, arguments, store, table

OVERLOAD = 3.0
GOODPUT_LIMIT, RETRY_LIMIT = 0.9, 0.9
REFUSED = 429
CONNECTIONS = 1024  # of the open loop: the queue holds 512, and those who are refused are gone at once
IDLE_S = 4.0  # uvicorn hangs up after 5; a client that kept a connection for longer would write into a closed one
WARM_UP_S = 3.0


@dataclass(frozen=True, slots=True)
class Round:
    """One round; rates in requests per second, `first` and `second` are the attempts of the population."""

    saturation: float
    open_loop: Outcome
    clients: int
    first: Outcome
    second: Outcome

    @property
    def goodput_share(self) -> float:
        """Goodput of the open loop, of the saturation throughput."""
        return self.open_loop.requests_per_s / self.saturation

    @property
    def offered_share(self) -> float:
        """Requests of the open loop per second that it really sent, of the saturation throughput."""
        return sum(self.open_loop.statuses.values()) / self.open_loop.seconds / self.saturation

    @property
    def population_share(self) -> float:
        """Goodput of the population, of the saturation throughput."""
        return (self.first.requests_per_s + self.second.requests_per_s) / self.saturation

    @property
    def attempts_share(self) -> float:
        """Attempts of the population per second, of the saturation throughput."""
        attempts = sum(self.first.statuses.values()) + sum(self.second.statuses.values())
        return attempts / self.first.seconds / self.saturation

    @property
    def retry_share(self) -> float:
        """Retries that were answered well, of all that the population made."""
        tried = sum(self.second.statuses.values())
        return len(self.second.latencies_s) / tried if tried else float("nan")

    @property
    def served_share(self) -> float:
        """Requests of the population answered well in one or two attempts, of those that were answered or given up."""
        served = len(self.first.latencies_s) + len(self.second.latencies_s)
        return served / max(served + self.second.failed, 1)

    @property
    def wrong(self) -> int:
        """Answers that are neither good nor a 429 with Retry-After."""
        return sum(_wrong(outcome) for outcome in (self.open_loop, self.first, self.second))


def _wrong(outcome: Outcome) -> int:
    refused = outcome.statuses.get(REFUSED, 0)
    return outcome.failed - refused + abs(refused - len(outcome.waits_s))


class Client:
    """One client with one connection, which it opens anew when it was idle for long.

    Args:
        port: Of the server, on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: Connection | None = None
        self._used = 0.0

    async def ask(self, request: bytes) -> tuple[Answer, float]:
        """Return the answer, and the seconds that it took."""
        if (
            self._connection is None
            or self._connection.closed.done()
            or time.perf_counter() - self._used > IDLE_S
        ):  # fmt: skip
            self.close()
            self._connection = await connect(self._port, self._on_answer)
        self._answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._connection.send(request)
        answer = await self._answer
        self._used = time.perf_counter()
        return answer, self._used - self._connection.sent

    def _on_answer(self, connection: Connection, answer: Answer) -> None:
        self._answer.set_result(answer)

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()


async def population(port: int, clients: int, think_s: float, seconds: float) -> tuple[Outcome, Outcome]:
    """Let clients come, look, and come again; return their first and their second attempts."""
    fresh, first, second = numbers(), Outcome(0.0), Outcome(0.0)
    stop_at = time.perf_counter() + seconds
    started = time.perf_counter()

    async def live(seed: int) -> None:
        client, draw = Client(port), random.Random(seed)
        try:
            while await _wait(draw.expovariate(1 / think_s), stop_at):
                request = picture(next(fresh))
                answer, took_s = await client.ask(request)
                first.add(answer, took_s)
                told_s = answer.retry_after_s
                if answer.status in GOOD or told_s is None:
                    continue
                if not await _wait(told_s, stop_at):
                    break
                second.add(*await client.ask(request))
        finally:
            client.close()

    await asyncio.wait_for(asyncio.gather(*(live(number) for number in range(clients))), seconds + PATIENCE_S)
    first.seconds = second.seconds = time.perf_counter() - started
    return first, second


async def _wait(seconds: float, stop_at: float) -> bool:
    """Sleep; say `False` at once if that would last until after the end."""
    if time.perf_counter() + seconds >= stop_at:
        return False
    await asyncio.sleep(seconds)
    return True


def main() -> None:
    """Measure, print and store."""
    parser = arguments("benchmarks.serving.overload", __doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each open loop, and of finding S")
    parser.add_argument("--population-seconds", type=float, default=30.0, help="of each population")
    parser.add_argument("--think", type=float, default=1.0, help="T, seconds for which a client looks at a picture")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection per client; the service inherits it
    with serving(dcgan) as service:
        saturate(service.port, min(WARM_UP_S, options.seconds))
        rounds = []
        for one in _rounds(service.port, options):
            rounds.append(one)
            print(
                f"round {len(rounds)}: {one.saturation:.0f} requests/s at saturation; goodput {one.goodput_share:.2f} "
                f"of it; {one.clients} clients: goodput {one.population_share:.2f}, retries {one.retry_share:.2f}",
                flush=True,
            )
    _store(rounds, options)


def _rounds(port: int, options: argparse.Namespace) -> Iterator[Round]:
    for _ in range(options.rounds):
        rate = saturate(port, options.seconds).requests_per_s
        seen = run_at_rate(
            port, rate=OVERLOAD * rate, connections=CONNECTIONS, seconds=options.seconds, request=picture
        )
        clients = round(OVERLOAD * rate * options.think)
        first, second = uvloop.run(population(port, clients, options.think, options.population_seconds))
        yield Round(rate, seen, clients, first, second)


def _store(rounds: Sequence[Round], options: argparse.Namespace) -> None:
    def middle(name: str) -> float:
        return float(median(getattr(one, name) for one in rounds))

    refused = sum(one.open_loop.statuses.get(REFUSED, 0) for one in rounds)
    told = sorted(wait for one in rounds for wait in one.first.waits_s)
    saturation = middle("saturation")
    rows = [
        [
            "open loop",
            middle("offered_share"),
            middle("goodput_share"),
            median(one.open_loop.quantile_ms(0.5) for one in rounds),
            median(one.open_loop.quantile_ms(0.99) for one in rounds),
            "",
            "",
        ],
        [
            f"{middle('clients'):.0f} clients",
            middle("attempts_share"),
            middle("population_share"),
            median(one.first.quantile_ms(0.5) for one in rounds),
            median(one.first.quantile_ms(0.99) for one in rounds),
            middle("retry_share"),
            middle("served_share"),
        ],
    ]
    heads = ["", "attempts", "goodput", "median ms", "p99 ms", "retries that succeed", "requests that succeed"]
    lines = [
        f"Saturation, {SATURATION_CONNECTIONS} connections in a closed loop: {saturation:,.0f} requests/s; attempts "
        "and goodput are shares of it.",
        "",
        *table(heads, rows),
        "",
        f"Refused in the open loop: {refused:,}. `Retry-After`, as the clients were told: "
        + (f"median {told[len(told) // 2]:g} s, largest {told[-1]:g} s." if told else "never."),
    ]
    facts: dict[str, Any] = {
        "seconds": options.seconds,
        "population_seconds": options.population_seconds,
        "think_s": options.think,
        "saturation_requests_per_s": saturation,
        "goodput_share": middle("goodput_share"),
        "rounds": [_facts(one) for one in rounds],
    }
    verdicts = [
        Verdict("goodput of the open loop, of saturation", middle("goodput_share"), GOODPUT_LIMIT, at_least=True),
        Verdict("answers that are neither good nor a 429 with Retry-After", sum(one.wrong for one in rounds), 0),
        Verdict("retries after Retry-After that succeed", middle("retry_share"), RETRY_LIMIT, at_least=True),
    ]
    how = (
        f"medians of {len(rounds)} interleaved rounds, DCGAN at 64x64x3, one picture per request, no cache; the open "
        f"loop lasts {options.seconds:g} s, the population {options.population_seconds:g} s and looks at a picture for "
        f"{options.think:g} s on average; the clients run on the same cores"
    )
    store(Result("overload", "Three times the load that can be served", how, facts, lines, verdicts), options)


def _facts(one: Round) -> dict[str, Any]:
    """Return a round's figures without the thousands of single latencies."""
    shares = (
        "goodput_share",
        "offered_share",
        "attempts_share",
        "population_share",
        "retry_share",
        "served_share",
        "wrong",
    )
    outcomes = {"open_loop": one.open_loop, "first_attempts": one.first, "second_attempts": one.second}
    return {
        "saturation": one.saturation,
        "clients": one.clients,
        **{name: getattr(one, name) for name in shares},
        **{name: {"seconds": seen.seconds, "statuses": seen.statuses} for name, seen in outcomes.items()},
    }


if __name__ == "__main__":
    main()
