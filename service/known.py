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
from service.sampler import seed_from

OVERHEAD_BYTES = 8192  # of an entry: about a hundred small objects
MAX_TARGET_BYTES = 2048  # longer ones are not worth their place
# Seeds whose spelling in a URL is the seed itself; one with other characters makes a target of its own.
_SEED = "([A-Za-z0-9_~-]{1,128})"
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
        max_bytes: For all entries, estimated: half for kinds of requests, half for targets that have no seed in them,
            of which there may be any number.
    """

    def __init__(self, max_bytes: int) -> None:
        self._kinds, self._targets = _Recent(max_bytes // 2), _Recent(max_bytes // 2)

    def find(self, scope: Scope) -> tuple[Picture, Any] | None:
        """Return what a request asks for, and the route that answered its like, if there was one."""
        key, seed = _split(scope)
        entry = (self._targets if seed is None else self._kinds).find(key)
        return None if entry is None else (entry[0](seed), entry[1])

    def keep(self, scope: Scope, picture_of: PictureOf) -> None:
        """Remember what a request means.

        Args:
            scope: The request.
            picture_of: Returns the picture for a seed, and for `None` that of this very request.
        """
        key, seed = _split(scope)
        (self._targets if seed is None else self._kinds).keep(key, (picture_of, scope.get("route")))

    def forget(self) -> None:
        """Forget everything, because names may now mean other models."""
        self._kinds.forget()
        self._targets.forget()


class _Recent:
    """Entries by key, the least recently used given up first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Key, tuple[PictureOf, Any]] = OrderedDict()
        self._num_bytes = 0

    def find(self, key: Key) -> tuple[PictureOf, Any] | None:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def keep(self, key: Key, entry: tuple[PictureOf, Any]) -> None:
        size = _bytes_of(key)
        if size > MAX_TARGET_BYTES + OVERHEAD_BYTES or size > self._max_bytes or key in self._entries:
            return
        self._entries[key] = entry
        self._num_bytes += size
        while self._num_bytes > self._max_bytes:
            self._num_bytes -= _bytes_of(self._entries.popitem(last=False)[0])

    def forget(self) -> None:
        self._entries.clear()
        self._num_bytes = 0


def _bytes_of(key: Key) -> int:
    return sum(map(len, key)) + OVERHEAD_BYTES


def _split(scope: Scope) -> tuple[Key, int | None]:
    """Return a request without its seed, and the seed; `None` where there is none, or not in its plain spelling."""
    path: str = scope["path"]
    query: bytes = scope["query_string"]
    accept = next((value for name, value in scope["headers"] if name == b"accept"), b"")
    if path == "/generate":
        found = _IN_QUERY.search(query)
        if found is not None:
            # A second seed would be in the rest, where it was refused before anything was kept.
            rest = query[: found.start()] + query[found.end() :]
            return (path, "{seed}", rest, accept), seed_from(found[1].decode())
    elif (in_path := _IN_PATH.fullmatch(path)) is not None:
        return (path[: in_path.start(1)], path[in_path.end(1) :], query, accept), seed_from(in_path[1])
    return (path, "", query, accept), None
