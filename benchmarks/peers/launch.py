"""The peers as processes: their environments, made on first use, and their start and end.

This module runs in our environment, the servers in theirs.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from json import dumps
from pathlib import Path
from socket import create_connection

from benchmarks.peers.processes import end, seconds_spent
from benchmarks.serving.load import get, post
from benchmarks.serving.servers import free_port

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / ".venv-peers"
REQUIREMENTS = Path(__file__).parent / "requirements"
READY_LIMIT_S = 180.0
CALM_CORES = 0.3
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Peer:
    """One server of another framework.

    Attributes:
        name: Of the framework's distribution, and of the file in `requirements/`.
        asked: Makes the request for n pictures from a seed on.
        workers: Processes that run the generator; torch's threads are shared out among them. One per core: each of them
            encodes one picture at a time, and OpenMP threads wait for each other at every layer while HTTP and the
            load want the cores too (760 images/s of one process with two threads fell to 190 beside other work).
        settings: Further environment variables.
    """

    name: str
    asked: Callable[[int, int], bytes]
    workers: int = os.cpu_count() or 1
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """What to run with `python -m`."""
        return f"benchmarks.peers.{self.name}_server"

    @property
    def requirements(self) -> Path:
        """The file that pins everything in its environment."""
        return REQUIREMENTS / f"{self.name}.txt"

    @property
    def version(self) -> str:
        """The framework's version, as its requirements pin it."""
        for line in self.requirements.read_text().splitlines():
            distribution, _, version = line.partition("==")
            if distribution.split("[")[0].lower() == self.name:
                return version.strip()
        raise ValueError(f"{self.requirements} does not pin {self.name}")

    def request(self, number: int, n: int = 1) -> bytes:
        """Return the HTTP/1.1 request for `n` pictures from the seed `number` on."""
        return self.asked(number, n)


def _query(seed: int, n: int) -> bytes:
    return get(f"/generate?seed={seed}" + (f"&n={n}" if n > 1 else ""))


def _json(seed: int, n: int) -> bytes:
    return post("/generate", dumps({"seed": seed} | ({"n": n} if n > 1 else {})).encode())


def _json_list(seed: int, n: int) -> bytes:
    return post("/generate", dumps({"seeds": list(range(seed, seed + n))}).encode())


PEERS = (
    Peer("fastapi", _query),
    Peer("litserve", _json),
    Peer("bentoml", _json_list),
    Peer("ray", _query),
    Peer("mosec", _json),
)


def python_of(peer: Peer) -> Path:
    """Return the interpreter of a peer's environment, which is made if it is not there or its requirements changed.

    Raises:
        RuntimeError: If the installation fails.
    """
    folder = ENVIRONMENTS / peer.name
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    wanted = peer.requirements.read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"making {folder} (minutes, the first time)", file=sys.stderr)
    _install([sys.executable, "-m", "venv", "--clear", str(folder)], peer)
    _install([str(python), "-m", "pip", "install", "--quiet", "-r", str(peer.requirements)], peer)
    stamp.write_text(wanted)
    return python


def _install(command: list[str], peer: Peer) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{peer.name} cannot be installed: {' '.join(command)} ended with status {done.returncode}:\n"
            f"{_tail(done.stdout)}"
        )


@contextmanager
def running(peer: Peer, bundle: Path) -> Iterator[int]:
    """Run a peer on a bundle and yield its port once it has answered a picture; end all its processes afterwards.

    Raises:
        RuntimeError: If it cannot be installed or does not start.
    """
    python, port = python_of(peer), free_port()
    # For sockets, sessions and whatever else a framework leaves.
    with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as scratch:
        own = {
            "PEER_BUNDLE": str(bundle.resolve()),
            "PEER_PORT": str(port),
            "PEER_WORKERS": str(peer.workers),
            "PYTHONPATH": str(ROOT),
            "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "TMPDIR": scratch,
        }
        log = Path(scratch, "log.txt")
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [str(python), "-m", peer.module],
                env=os.environ | own | dict(peer.settings),
                cwd=scratch,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            _await_ready(peer, process, port, log)
            _await_calm(process.pid)
            yield port
        finally:
            end(process)


def _await_ready(peer: Peer, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + READY_LIMIT_S
    seen = "no answer"
    while process.poll() is None and time.monotonic() < deadline:
        try:
            status, kind, body = ask(port, peer.request(1), timeout_s=10.0)
            if status == 200 and kind == "image/png" and body.startswith(PNG_SIGNATURE):
                return
            seen = f"{status} {kind}"
        except (OSError, HTTPException) as error:
            seen = repr(error)
        time.sleep(0.2)
    raise RuntimeError(
        f"{peer.name} did not become ready (exit status {process.poll()}, last seen: {seen}):\n"
        f"{_tail(log.read_text(errors='replace'))}"
    )


def _await_calm(pid: int) -> None:
    """Wait until a server does next to nothing: one worker answers while the others may still be loading."""
    deadline = time.monotonic() + READY_LIMIT_S
    spent = seconds_spent(pid)
    while time.monotonic() < deadline:
        time.sleep(1.0)
        before, spent = spent, seconds_spent(pid)
        if spent - before < CALM_CORES:
            return


def ask(port: int, request: bytes, timeout_s: float = 60.0) -> tuple[int, str, bytes]:
    """Send a raw request to 127.0.0.1 and return status, media type and body."""
    with create_connection(("127.0.0.1", port), timeout_s) as connection:
        connection.sendall(request)
        response = HTTPResponse(connection)
        response.begin()
        return response.status, response.headers.get_content_type(), response.read()


def _tail(text: str, lines: int = 30) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
