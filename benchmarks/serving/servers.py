"""Server processes to measure: started, awaited, stopped."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx

READY_LIMIT_S = 120.0


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(module: str, settings: Mapping[str, str]) -> Iterator[int]:
    """Run `python -m module` and yield its port once /readyz says 200; stop it afterwards.

    Raises:
        RuntimeError: If it does not become ready.
    """
    port = free_port()
    fixed = {
        "VITRINE_PORT": str(port),
        "VITRINE_AUTH": "off",
        "VITRINE_GET_POLICY": "open",
        "VITRINE_DRAIN_DELAY_S": "0",
    }
    environment = os.environ | fixed | {"VITRINE_LOG_LEVEL": "warning"} | dict(settings)
    process = subprocess.Popen([sys.executable, "-m", module], env=environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + READY_LIMIT_S
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{module} did not become ready (exit status {process.poll()})")
            try:
                if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == httpx.codes.OK:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def metric(port: int, name: str) -> float:
    """Return the sum over all label sets of a metric, by its sample name."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} "))
    )
