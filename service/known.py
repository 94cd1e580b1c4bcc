"""What requests asked for before: a request's target and `Accept`, and which picture that is.

A GET that names its seed means the same picture until the served models change. So the second one needs no parsing: its
`ETag` is known, and with it whether the client has the picture already, or the cache does.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from starlette.types import Scope

OVERHEAD_BYTES = 2048  # of an entry: about thirty small objects
MAX_TARGET_BYTES = 2048  # longer ones are not worth their place

Key = tuple[str, bytes, bytes]
RawHeaders = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Known:
    """An answer that depends on the request's target and `Accept` alone.

    Attributes:
        etag: Its validator, by which the cache knows the body.
        headers: Those of a 200, but for what is of one answer: length, timing, id.
        not_modified: Those of a 304.
    """

    etag: str
    headers: RawHeaders
    not_modified: RawHeaders


class KnownAnswers:
    """Answers by request, the least recently used given up first. For one event loop.

    Args:
        max_bytes: For all entries, estimated.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._answers: OrderedDict[Key, tuple[Known, Any, int]] = OrderedDict()
        self._num_bytes = 0

    def find(self, scope: Scope) -> tuple[Known, Any] | None:
        """Return what a request asks for, and the route that answered it, if it was asked for before."""
        key = _key(scope)
        entry = self._answers.get(key)
        if entry is None:
            return None
        self._answers.move_to_end(key)
        return entry[:2]

    def keep(self, scope: Scope, known: Known) -> None:
        """Remember what a request asks for."""
        key = _key(scope)
        size = sum(map(len, key)) + OVERHEAD_BYTES
        if size > MAX_TARGET_BYTES + OVERHEAD_BYTES or size > self._max_bytes or key in self._answers:
            return
        self._answers[key] = known, scope.get("route"), size
        self._num_bytes += size
        while self._num_bytes > self._max_bytes:
            self._num_bytes -= self._answers.popitem(last=False)[1][2]

    def forget(self) -> None:
        """Forget everything, because names may now mean other models."""
        self._answers.clear()
        self._num_bytes = 0


def _key(scope: Scope) -> Key:
    accept = b""
    for name, value in scope["headers"]:
        if name == b"accept":
            accept = value
            break
    return scope["path"], scope["query_string"], accept
