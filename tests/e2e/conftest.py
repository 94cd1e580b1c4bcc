"""The service as its users have it: a process of its own, on a free port, spoken to over a socket."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_S = 240  # for what has to happen some time; a shared machine can be very slow
OPEN = {"auth": "off", "get_policy": "open", "port": 0, "drain_delay_s": 0}


def until(condition: Callable[[], Any]) -> Any:
    """Return what a condition gives as soon as it is something."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return found


def get(url: str) -> httpx.Response:
    """Return an answer, by a connection of its own."""
    return httpx.get(url, timeout=PATIENCE_S)


class Process:
    """A `python -m service` of its own.

    Args:
        log: Where its standard output goes.
        settings: By the settings' names, in lower case or as variables.
    """

    def __init__(self, log: Path, **settings: object) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("VITRINE_")}
        environment |= {f"VITRINE_{name.upper()}": str(value) for name, value in settings.items()}
        self._log = log
        with log.open("wb") as stdout:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "service"], cwd=ROOT, env=environment, stdout=stdout, stderr=subprocess.STDOUT
            )

    @property
    def output(self) -> str:
        """Everything that it has written so far."""
        return self._log.read_text(encoding="utf-8")

    @property
    def entries(self) -> list[dict[str, Any]]:
        """Its log, every line of it."""
        return [json.loads(line) for line in self.output.splitlines()]

    @property
    def url(self) -> str:
        """Where it listens; waits until it does."""

        def listening() -> str | None:
            assert self.popen.poll() is None, self.output
            found = re.search(r"Uvicorn running on (http://[\d.:]+)", self.output)
            return found.group(1) if found else None

        return str(until(listening))

    def wait_until_ready(self) -> None:
        """Return when it wants requests."""
        url = self.url
        until(lambda: get(f"{url}/readyz").status_code == 200)

    def stop(self) -> int:
        """Ask it to end, and return its exit status."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(PATIENCE_S)

    def kill(self) -> None:
        """End it whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            self.popen.kill()
        self.popen.wait(PATIENCE_S)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Return what starts a service with the given settings; it is gone after the test."""
    processes: list[Process] = []

    def start(**settings: object) -> Process:
        processes.append(Process(tmp_path / f"{len(processes)}.log", **(OPEN | settings)))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()


@pytest.fixture(scope="session")
def server(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Return a service of the bundle `tiny/1`, ready, that all tests share."""
    process = Process(tmp_path_factory.mktemp("server") / "log", cache_mb=0, models_dir=tiny_models, **OPEN)
    try:
        process.wait_until_ready()
        yield process
        assert process.stop() == 0, process.output
    finally:
        process.kill()
