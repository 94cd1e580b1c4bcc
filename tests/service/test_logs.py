"""The log: one JSON object per line, each line of a request with its id."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def log_of(program: str) -> list[dict[str, Any]]:
    """Run a program of its own, since logging is set up once per process, and return the lines that it logged."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_line_is_an_object() -> None:
    """Our records and the libraries' are alike: event, level, time, and what was said beside them."""
    lines = log_of(
        """
import logging, structlog
from service import logs
logs.configure("info")
log = structlog.get_logger()
log.info("model ready", model="tiny@1", seconds=0.5, path=logs)
log.debug("not shown")
log.warning("two\\nlines", quote='"')
logging.getLogger("uvicorn.error").info("started on %s", "port 8000")
logging.getLogger("asyncio").debug("not shown")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed", secret_id=7)
    logging.getLogger("library").exception("failed in a library")
"""
    )
    ready, two, started, failed, library = lines

    assert (ready["event"], ready["level"], ready["model"], ready["seconds"]) == ("model ready", "info", "tiny@1", 0.5)
    assert (two["event"], two["level"], two["quote"]) == ("two\nlines", "warning", '"')
    assert (started["event"], started["level"]) == ("started on port 8000", "info")
    assert all(line["timestamp"].endswith("Z") for line in lines)
    for line in (failed, library):
        assert (line["level"], line["exception"][0]["exc_type"]) == ("error", "ZeroDivisionError")


def test_tracebacks_do_not_hold_local_variables() -> None:
    """Latents, queries and keys that a function held when it failed stay out of the log."""
    (line,) = log_of(
        """
import structlog
from service import logs
logs.configure("info")
def fail():
    held = "hunter" + str(2)
    raise RuntimeError("broken")
try:
    fail()
except RuntimeError:
    structlog.get_logger().exception("failed")
"""
    )

    assert line["exception"][0]["exc_value"] == "broken"
    assert "hunter2" not in json.dumps(line)


def test_lines_of_a_request_have_its_id() -> None:
    """Whatever is logged while a request is answered can be found by the id that the client got, and only that."""
    lines = log_of(
        """
import asyncio, logging, structlog
from service import logs
from service.metrics import Metrics
from service.middleware import RequestMiddleware
logs.configure("info")
log = structlog.get_logger()

async def app(scope, receive, send):
    log.info("drawing", path=scope["path"])
    await asyncio.sleep(0)
    logging.getLogger("library").warning("slow")
    if scope["path"] == "/broken":
        raise RuntimeError("broken")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-model", b"tiny@1")]})
    await send({"type": "http.response.body", "body": b""})

async def ask(path, request_id):
    async def send(message):
        pass
    headers = [(b"x-request-id", request_id)] if request_id else []
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers}
    await RequestMiddleware(app, Metrics())(scope, None, send)

async def main():
    await asyncio.gather(ask("/a", b"first"), ask("/broken", b"second"), ask("/c", b"not an id!"))

asyncio.run(main())
log.info("done")
"""
    )

    by_id: dict[str | None, list[str]] = {}
    for line in lines:
        by_id.setdefault(line.get("request_id"), []).append(line["event"])
    assert by_id.pop("first") == ["drawing", "slow", "request"]
    assert by_id.pop("second") == ["drawing", "slow", "unhandled error", "request"]
    assert by_id.pop(None) == ["done"]
    ((chosen, events),) = by_id.items()
    assert (len(str(chosen)), events) == (16, ["drawing", "slow", "request"])
    requests = {line["path"]: line for line in lines if line["event"] == "request"}
    assert {path: line["status"] for path, line in requests.items()} == {"/a": 200, "/broken": 500, "/c": 200}
    assert requests["/a"]["model"] == "tiny"
    assert requests["/a"]["method"] == "GET"
