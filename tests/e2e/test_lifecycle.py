"""From the start of a process to its end: it listens before it is ready, and drains before it is gone."""

import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.conftest import PATIENCE_S, Process, until

pytestmark = pytest.mark.e2e


def reasons(url: str) -> list[str]:
    """Return why a service is not ready; nothing if it is."""
    return list(httpx.get(f"{url}/readyz").json().get("reasons", []))


def test_server_listens_before_its_models_are_loaded(
    run: Callable[..., Process], tiny_models: Path, tmp_path: Path
) -> None:
    """While a bundle is being read the service answers that it is starting; what is then refused harms no other."""
    models = Path(shutil.copytree(tiny_models, tmp_path / "models"))
    slow = models / "slow" / "1" / "manifest.json"
    slow.parent.mkdir(parents=True)
    os.mkfifo(slow)  # who reads it waits until this test writes
    process = run(models_dir=models, default_model="tiny")
    url = process.url
    until(lambda: reasons(url) == ["models are being loaded"])
    assert httpx.get(f"{url}/livez").status_code == 200
    assert httpx.get(f"{url}/startupz").status_code == 503
    refused = httpx.get(f"{url}/generate?model=slow")
    assert refused.status_code == 503
    assert refused.json()["type"].endswith("/starting")
    assert refused.headers["retry-after"].isdecimal()
    slow.write_bytes(b"no manifest")
    until(lambda: reasons(url) == [])
    assert httpx.get(f"{url}/startupz").status_code == 200
    assert httpx.get(f"{url}/generate").status_code == 200
    assert process.stop() == 0


def test_request_in_flight_is_finished_before_the_end(run: Callable[..., Process], tiny_models: Path) -> None:
    """After SIGTERM nobody new is let in, a request that has begun gets its picture, and the exit status is 0."""
    process = run(models_dir=tiny_models)
    process.wait_until_ready()
    address = urlsplit(process.url)
    body = b'{"seed": 1}'
    head = (
        f"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port), PATIENCE_S) as connection:
        connection.sendall(head.encode() + body[:4])
        until(lambda: httpx.get(f"{process.url}/livez").status_code == 200)  # the half request has arrived, too
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
    process = run(models_dir=tiny_models, drain_delay_s=600)
    process.wait_until_ready()
    process.popen.send_signal(signal.SIGTERM)
    until(lambda: reasons(process.url) == ["draining"])
    assert httpx.get(f"{process.url}/livez").status_code == 200
    assert httpx.get(f"{process.url}/generate?seed=1").status_code == 200
    assert "vitrine_draining 1.0" in httpx.get(f"{process.url}/metrics").text
    assert process.popen.poll() is None
    process.popen.send_signal(signal.SIGINT)
    assert process.popen.wait(PATIENCE_S) == 0
    assert "draining" in [entry["event"] for entry in process.entries]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"auth": "off", "max_queue": "9"}, "VITRINE_MAX_QUEUE"),
        ({"auth": "on"}, "VITRINE_AUTH"),
        ({"auth": "off", "get_policy": "signed"}, "VITRINE_GET_POLICY"),
        ({"auth": "off", "max_n": "many"}, "VITRINE_MAX_N"),
    ],
)
def test_wrong_configuration_stops_the_start(tmp_path: Path, settings: dict[str, str], named: str) -> None:
    """An unknown variable, a wrong value, or access that this version cannot control: exit 2, and the name."""
    process = Process(tmp_path / "log", **({"get_policy": "open", "port": 0} | settings))
    try:
        assert process.popen.wait(PATIENCE_S) == 2
    finally:
        process.kill()
    assert named in process.output
    assert "Traceback" not in process.output


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), PATIENCE_S).close()
    except OSError:
        return False
    return True
