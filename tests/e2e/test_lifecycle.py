"""From the start of a process to its end: it listens before it is ready, and drains before it is gone."""

import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.conftest import PATIENCE_S, Process, get, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
SMALL = {"engine_threads": 1, "max_batch_images": 2}


def reasons(url: str) -> list[str]:
    """Return why a service is not ready; nothing if it is."""
    return list(get(f"{url}/readyz").json().get("reasons", []))


def test_server_listens_before_its_models_are_loaded(
    run: Callable[..., Process], tiny_models: Path, tmp_path: Path
) -> None:
    """While a bundle is being read the service answers that it is starting; what is then refused harms no other."""
    models = Path(shutil.copytree(tiny_models, tmp_path / "models"))
    slow = models / "slow" / "1" / "manifest.json"
    slow.parent.mkdir(parents=True)
    os.mkfifo(slow)  # who reads it waits until this test writes
    process = run(models_dir=models, default_model="tiny", **SMALL)
    url = process.url
    until(lambda: reasons(url) == ["models are being loaded"])
    assert get(f"{url}/livez").status_code == 200
    assert get(f"{url}/startupz").status_code == 503
    refused = get(f"{url}/generate?model=slow")
    assert refused.status_code == 503
    assert refused.json()["type"].endswith("/starting")
    assert refused.headers["retry-after"].isdecimal()
    until(lambda: _feed(slow, b"no manifest"))
    until(lambda: reasons(url) == [])
    assert get(f"{url}/startupz").status_code == 200
    assert get(f"{url}/generate").status_code == 200
    assert process.stop() == 0


def test_request_in_flight_is_finished_before_the_end(run: Callable[..., Process], tiny_models: Path) -> None:
    """After SIGTERM nobody new is let in, a request that has begun gets its picture, and the exit status is 0."""
    process = run(models_dir=tiny_models, **SMALL)
    process.wait_until_ready()
    address = urlsplit(process.url)
    body = b'{"seed": 1}'
    head = (
        f"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port), PATIENCE_S) as connection:
        connection.sendall(head.encode() + body[:4])
        until(lambda: get(f"{process.url}/livez").status_code == 200)  # the half request has arrived, too
        process.popen.send_signal(signal.SIGTERM)
        until(lambda: not _accepts(address.hostname or "", address.port or 0))
        assert process.popen.poll() is None
        connection.sendall(body[4:])
        with connection.makefile("rb") as stream:
            answer = stream.read()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"\x89PNG" in answer
    assert process.popen.wait(PATIENCE_S) == 0


def test_draining_service_still_answers_and_a_second_signal_ends_it_at_once(
    run: Callable[..., Process], tiny_models: Path
) -> None:
    """During the drain delay balancers are told to leave and requests are answered; who does not wait signals again."""
    process = run(models_dir=tiny_models, drain_delay_s=600, **SMALL)
    process.wait_until_ready()
    process.popen.send_signal(signal.SIGTERM)
    until(lambda: reasons(process.url) == ["draining"])
    assert get(f"{process.url}/livez").status_code == 200
    assert get(f"{process.url}/generate?seed=1").status_code == 200
    assert "vitrine_draining 1.0" in get(f"{process.url}/metrics").text
    assert process.popen.poll() is None
    process.popen.send_signal(signal.SIGINT)
    assert process.popen.wait(PATIENCE_S) == 0
    assert "draining" in [entry["event"] for entry in process.entries]


def test_wrong_configuration_stops_the_start(run: Callable[..., Process]) -> None:
    """An unknown variable, or access control that this version does not have: exit 2, and the variable's name."""
    processes = {"VITRINE_MAX_QUEUE": run(max_queue=9), "VITRINE_AUTH": run(auth="on")}
    for name, process in processes.items():
        assert process.popen.wait(PATIENCE_S) == 2
        assert name in process.output
        assert "Traceback" not in process.output


def _feed(pipe: Path, content: bytes) -> bool:
    """Write to a named pipe if somebody is reading it."""
    try:
        descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return False
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    return True


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), PATIENCE_S).close()
    except OSError:
        return False
    return True
