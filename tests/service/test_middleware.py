"""Around every request: its id, its log line, its metrics, and the last net for errors."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import structlog
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from structlog.testing import LogCapture

from service import middleware
from service.api.connection import ClientLeft
from service.errors import InvalidParameters
from service.metrics import Metrics
from service.middleware import RequestMiddleware
from tests.service.api.harness import assert_problem

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


class Route:
    """What a router leaves in the scope."""

    path = "/pictures/{name}"


async def fine(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as a route does."""
    scope["route"] = Route
    await PlainTextResponse("picture", headers={"X-Model": "tiny@3"})(scope, receive, send)


async def broken(scope: Scope, receive: Receive, send: Send) -> None:
    """Raise what nobody expects."""
    raise ZeroDivisionError("secret of the house")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the list in which the middleware's log entries appear."""
    capture = LogCapture()
    processors = [structlog.contextvars.merge_contextvars, capture]
    logger = structlog.wrap_logger(None, processors, wrapper_class=structlog.make_filtering_bound_logger("debug"))
    monkeypatch.setattr(middleware.structlog, "get_logger", lambda: logger)
    return capture.entries


async def get(handler: Handler, metrics: Metrics, target: str = "/pictures/1", **headers: str) -> httpx.Response:
    """Return what the middleware answers around a handler."""
    transport = httpx.ASGITransport(RequestMiddleware(handler, metrics))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(transport=transport, base_url="http://vitrine.test") as client:
        return await client.get(target, headers=named)


def counted(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Return the requests counted so far, by route, model, status and outcome."""
    return {
        tuple(sample.labels[name] for name in ("route", "model", "status", "outcome")): sample.value
        for family in metrics.requests.collect()
        for sample in family.samples
        if sample.name == "vitrine_requests_total"
    }


@pytest.mark.parametrize("request_id", ["a", "A-Za.z0_9", "0" * 64])
async def test_request_id_of_the_client_is_echoed(metrics: Metrics, request_id: str) -> None:
    """An id of the allowed form is the request's."""
    assert (await get(fine, metrics, X_Request_ID=request_id)).headers["x-request-id"] == request_id


@pytest.mark.parametrize("request_id", ["", "a b", "a\tb", "<script>", "a/b", "0" * 65, "a,b", "a\x7fb"])
async def test_request_id_of_another_form_is_replaced(metrics: Metrics, request_id: str) -> None:
    """What could forge a log line or a header is not taken over."""
    given = (await get(fine, metrics, X_Request_ID=request_id)).headers["x-request-id"]
    assert given != request_id
    assert 1 <= len(given) <= 64


async def test_requests_without_an_id_get_different_ones(metrics: Metrics) -> None:
    """Every request can be found in the log."""
    ids = {(await get(fine, metrics)).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


async def test_request_is_logged_without_its_query(metrics: Metrics, logged: list[Any]) -> None:
    """One line per request: id, method, path, status, duration and model, but nothing of the query."""
    answer = await get(fine, metrics, "/pictures/1?seed=order-of-jane", X_Request_ID="me")
    (entry,) = logged
    assert isinstance(entry.pop("duration_ms"), float)
    assert entry == {
        **{"event": "request", "log_level": "info", "request_id": answer.headers["x-request-id"]},
        **{"method": "GET", "path": "/pictures/1", "status": 200, "model": "tiny"},
    }


async def test_probe_is_logged_for_debugging_only(metrics: Metrics, logged: list[Any]) -> None:
    """An orchestrator's questions do not fill the log."""

    async def probe(scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = type("Probe", (), {"path": "/readyz"})
        await PlainTextResponse("ok")(scope, receive, send)

    await get(probe, metrics, "/readyz")
    assert [entry["log_level"] for entry in logged] == ["debug"]


async def test_unexpected_error_is_a_problem_without_details(metrics: Metrics, logged: list[Any]) -> None:
    """The client learns the request's id and nothing else; the log has the exception under the same id."""
    answer = await get(broken, metrics, "/pictures/1?token=abc")
    document = assert_problem(answer, 500, "internal")
    assert "secret" not in answer.text
    assert "ZeroDivisionError" not in answer.text
    error, request = logged
    assert (error["event"], error["log_level"], error["exc_info"]) == ("unhandled error", "error", True)
    assert error["request_id"] == request["request_id"] == document["instance"]
    assert "abc" not in str(logged)


async def test_error_after_the_head_sends_nothing_more(metrics: Metrics, logged: list[Any]) -> None:
    """An answer that has begun is not followed by a second one."""
    sent: list[Any] = []

    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def receive() -> Any:
        raise AssertionError

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await RequestMiddleware(half, metrics)(scope, receive, send)
    assert sent == ["http.response.start"]
    assert logged[0]["event"] == "unhandled error"


async def test_client_that_left_is_counted_and_not_answered(metrics: Metrics, logged: list[Any]) -> None:
    """A departure is no failure: status 499 in log and metrics, and nothing is sent."""

    async def left(scope: Scope, receive: Receive, send: Send) -> None:
        raise ClientLeft

    async def send(message: Any) -> None:
        raise AssertionError

    async def receive() -> Any:
        raise AssertionError

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await RequestMiddleware(left, metrics)(scope, receive, send)
    assert counted(metrics) == {("unmatched", "", "499", "client_error"): 1}
    assert [(entry["event"], entry["status"]) for entry in logged] == [("request", 499)]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "ok"), (304, "ok"), (422, "client_error"), (429, "client_error"), (503, "server_error")],
)
async def test_answer_is_counted_by_its_outcome(metrics: Metrics, status: int, outcome: str) -> None:
    """Requests and their durations are counted by route and model, never by what the client wrote."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = Route
        await PlainTextResponse("", status)(scope, receive, send)

    await get(answer, metrics, "/pictures/anything-at-all")
    assert counted(metrics) == {("/pictures/{name}", "", str(status), outcome): 1}
    assert metrics.registry.get_sample_value(
        "vitrine_request_duration_seconds_count", {"route": "/pictures/{name}", "model": ""}
    )


async def test_unknown_address_is_counted_as_unmatched(metrics: Metrics) -> None:
    """What a scanner makes up does not become a label."""
    await get(PlainTextResponse("", 404), metrics, "/wp-login.php")
    assert counted(metrics) == {("unmatched", "", "404", "client_error"): 1}


async def test_error_of_our_own_tree_that_nobody_handled_is_internal(metrics: Metrics, logged: list[Any]) -> None:
    """The net takes everything, but only the application knows what may be told."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        raise InvalidParameters.of("/n", "too many")

    assert_problem(await get(refuse, metrics), 500, "internal")
    assert len(logged) == 2


async def test_other_scopes_pass_through(metrics: Metrics) -> None:
    """The lifespan is none of this layer's business."""
    seen: list[str] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    await RequestMiddleware(inner, metrics)({"type": "lifespan"}, nothing, nothing)
    assert seen == ["lifespan"]
    assert counted(metrics) == {}
