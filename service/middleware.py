"""Pure ASGI around every request: its id, its log line, its metrics, and the last net for errors."""

import random
import re
import time

import structlog
from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.connection import ClientLeft
from service.errors import Internal
from service.metrics import Metrics
from service.problems import problem_response

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_PROBES = frozenset({"/livez", "/readyz", "/startupz", "/healthz", "/metrics"})
CLIENT_CLOSED_REQUEST = 499  # nginx's code for a client that left; only in logs and metrics
_random_ids = random.Random()  # no secrets, and no system call for each of them


class RequestMiddleware:
    """Give each request an id, answer anything that is raised, then log and count it.

    Args:
        app: The application.
        metrics: The service's metrics.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics
        self._log = structlog.get_logger().bind()  # resolved once, and not anew for each line
        self._counters: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}  # `labels` costs more than `inc`

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        scope["vitrine.request_id"] = request_id
        status, headers_sent, model = CLIENT_CLOSED_REQUEST, False, ""

        async def send_with_id(message: Message) -> None:
            nonlocal status, headers_sent, model
            if message["type"] == "http.response.start":
                status, headers_sent = message["status"], True
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
                model = next((v.decode().partition("@")[0] for k, v in message["headers"] if k == b"x-model"), "")
            await send(message)

        # Never unbound: each request has a task, and with it a context, of its own.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            await self._app(scope, receive, send_with_id)
        except ClientLeft:
            status = CLIENT_CLOSED_REQUEST
        except Exception:
            self._log.exception("unhandled error", path=scope["path"])
            if not headers_sent:
                await problem_response(Internal("internal error"), request_id)(scope, receive, send_with_id)
        finally:
            self._record(scope, status, model, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, model: str, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        key = (route, model, status)
        counters = self._counters.get(key)
        if counters is None:
            counters = self._counters[key] = self._metrics.of_requests(route, model, status)
        requests, duration = counters
        requests.inc()
        duration.observe(seconds)
        level = self._log.debug if route in _PROBES else self._log.info
        level(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=status,
            duration_ms=round(seconds * 1000, 2),
            model=model,
        )


def _request_id(scope: Scope) -> str:
    """Return the client's `X-Request-ID` if it is one, else a random one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return f"{_random_ids.getrandbits(64):016x}"
