"""Several processes behind one port, as one per GPU would be."""

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.__main__ import shared_port
from tests.e2e.conftest import PATIENCE_S, Process, get, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
SMALL = {"dtype": "float32", "memory_format": "channels_last", "engine_threads": 1, "max_batch_images": 2}
CONNECTIONS = 60  # all to the same of two processes once in 10^18 times


def answered(process: Process) -> int:
    """Return how many pictures a process has answered for."""
    return sum(entry.get("path") == "/generate" and entry.get("status") == 200 for entry in process.entries)


def pictures(url: str, first: int) -> list[int]:
    """Ask for pictures, each by a connection of its own, and return the statuses."""
    with ThreadPoolExecutor(4) as pool:
        seeds = range(first, first + CONNECTIONS)
        return [answer.status_code for answer in pool.map(lambda seed: get(f"{url}/generate?seed={seed}"), seeds)]


def test_processes_share_a_port_and_one_may_go(run: Callable[..., Process], tiny_models: Path) -> None:
    """New connections go to either; when one has drained, all go to the other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    both = [run(models_dir=tiny_models, port=port, reuse_port=True, **SMALL) for _ in range(2)]
    for process in both:
        until(lambda one=process: any(entry["event"] == "model ready" for entry in one.entries))
    url = f"http://127.0.0.1:{port}"
    assert set(pictures(url, 0)) == {200}
    until(lambda: sum(map(answered, both)) == CONNECTIONS)  # a line is written after its answer
    counts = [answered(process) for process in both]
    assert min(counts) > 0
    assert both[0].stop() == 0
    assert set(pictures(url, CONNECTIONS)) == {200}
    until(lambda: answered(both[1]) == counts[1] + CONNECTIONS)
    assert both[1].stop() == 0


def test_port_that_is_not_shared_is_refused(run: Callable[..., Process], tiny_models: Path) -> None:
    """One line says so, and the status is 2."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        process = run(models_dir=tiny_models, port=port, reuse_port=True, **SMALL)
        assert process.popen.wait(PATIENCE_S) == 2
        last = process.output.splitlines()[-1]
    assert last.startswith(f"error: 127.0.0.1 port {port} cannot be shared: ")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_shared_port_is_one_that_may_be_taken_again(host: str) -> None:
    """By either kind of address."""
    try:
        first = shared_port(host, 0)
    except OSError as error:
        pytest.skip(f"no {host} here: {error}")
    with first, shared_port(host, first.getsockname()[1]) as second:
        assert first.getsockname() == second.getsockname()
