"""Server processes to measure: started, awaited, looked at, stopped."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

READY_LIMIT_S = 300.0


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is ready: its port on 127.0.0.1, and its process id."""

    port: int
    pid: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process holds: resident memory and the part of it that is no file's, descriptors, threads."""

    resident_mb: float
    anonymous_mb: float
    descriptors: int
    threads: int


def usage(pid: int) -> Usage:
    """Return what a process holds now, from Linux's /proc.

    Raises:
        RuntimeError: If there is no such process, or no /proc.
    """
    folder = Path(f"/proc/{pid}")
    try:
        lines = (folder / "status").read_text().splitlines()
        descriptors = len(list((folder / "fd").iterdir()))
    except OSError as error:
        raise RuntimeError(f"nothing is known of process {pid}: {error}") from error
    facts = dict(line.split(":", 1) for line in lines)
    resident, anonymous = (int(facts[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon"))
    return Usage(resident, anonymous, descriptors, int(facts["Threads"]))


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(module: str, settings: Mapping[str, str]) -> Iterator[Running]:
    """Run `python -m module` and yield once /readyz says 200; stop it afterwards.

    Raises:
        RuntimeError: If it does not become ready, or ends by itself.
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
            if process.poll() is not None:
                raise RuntimeError(f"{module} ended with status {process.returncode} before it was ready")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{module} was not ready after {READY_LIMIT_S:g} s")
            try:
                if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == httpx.codes.OK:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        yield Running(port, process.pid)
        if process.poll() is not None:
            raise RuntimeError(f"{module} ended with status {process.returncode} while it was measured")
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


@contextmanager
def serving(write: Callable[[Path], object], settings: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Run the service, without its cache of pictures, on what `write` puts into a folder; stop it afterwards.

    Args:
        write: Puts bundles into a folder.
        settings: Further settings.

    Yields:
        The service.
    """
    with tempfile.TemporaryDirectory(prefix="models-") as folder:
        write(Path(folder))
        fixed = {"VITRINE_MODELS_DIR": folder, "VITRINE_CACHE_MB": "0"}
        with server("service", fixed | dict(settings or {})) as running:
            yield running


def metric(port: int, name: str) -> float:
    """Return the sum over all label sets of a metric, by its sample name."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} "))
    )
