"""What requests mean that were made before: a GET's target and `Accept` but for the seed, and the picture of each seed.

A GET that names its seed means the same picture until the served models change, and one with another seed the same but
for the seed. So all but the first of them need no parsing.
"""

import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any

from starlette.types import Scope

from service.batcher import Terms
from service.errors import VitrineError
from service.ready import RawHeaders

OVERHEAD_BYTES = 8192  # of an entry: about a hundred small objects
MAX_TARGET_BYTES = 2048  # longer ones are not worth their place
# Decimal seeds below 2**53 in the spelling that everybody uses; any other is a target of its own.
_SEED = r"(0|[1-9][0-9]{0,14})"
_IN_QUERY = re.compile(rb"(?:^|&)seed=" + _SEED.encode() + rb"(?=&|$)")
_IN_PATH = re.compile(rf"/i/[^/]+/{_SEED}\.[a-z]+")

Key = tuple[str, str, bytes, bytes]


@dataclass(frozen=True, slots=True)
class Picture:
    """A file that a request asks for, which depends on nothing but its target and `Accept`.

    Attributes:
        etag: Its validator, by which the cache knows the body.
        headers: Returns those of a 200, but for what is of one answer: length, timing, id.
        make: Makes the file within its terms, and says something about how; `None`: the routes do.
        refusal: Says why a request, known by its key, is not to be tried now.
    """

    etag: str
    headers: Callable[[], RawHeaders]
    make: Callable[[Terms], Awaitable[tuple[bytes, str]]] | None
    refusal: Callable[[Hashable], VitrineError | None]


PictureOf = Callable[[int | None], Picture]


class KnownRequests:
    """What requests mean, the least recently used given up first. For one event loop.

    Args:
        max_bytes: For all entries, estimated.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Key, tuple[PictureOf, Any, int]] = OrderedDict()
        self._num_bytes = 0

    def find(self, scope: Scope) -> tuple[Picture, Any] | None:
        """Return what a request asks for, and the route that answered its like, if there was one."""
        key, seed = _split(scope)
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0](seed), entry[1]

    def keep(self, scope: Scope, picture_of: PictureOf) -> None:
        """Remember what a request means.

        Args:
            scope: The request.
            picture_of: Returns the picture for a seed, and for `None` that of this very request.
        """
        key, _ = _split(scope)
        size = sum(map(len, key)) + OVERHEAD_BYTES
        if size > MAX_TARGET_BYTES + OVERHEAD_BYTES or size > self._max_bytes or key in self._entries:
            return
        self._entries[key] = picture_of, scope.get("route"), size
        self._num_bytes += size
        while self._num_bytes > self._max_bytes:
            self._num_bytes -= self._entries.popitem(last=False)[1][2]

    def forget(self) -> None:
        """Forget everything, because names may now mean other models."""
        self._entries.clear()
        self._num_bytes = 0


def _split(scope: Scope) -> tuple[Key, int | None]:
    """Return a request without its seed, and the seed; `None` where there is not exactly one in the usual spelling."""
    path: str = scope["path"]
    query: bytes = scope["query_string"]
    accept = next((value for name, value in scope["headers"] if name == b"accept"), b"")
    if path == "/generate":
        found = _IN_QUERY.search(query)
        if found is not None:
            # A second seed would be in the rest, where it was refused before anything was kept.
            return (path, "{seed}", query[: found.start()] + query[found.end() :], accept), int(found[1])
    elif (in_path := _IN_PATH.fullmatch(path)) is not None:
        return (path[: in_path.start(1)], path[in_path.end(1) :], query, accept), int(in_path[1])
    return (path, "", query, accept), None
