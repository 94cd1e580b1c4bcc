"""Responses whose headers are ready to be sent; Starlette makes them from a dictionary, for every response anew."""

from collections.abc import Mapping

from starlette.responses import Response

RawHeaders = list[tuple[bytes, bytes]]


class ReadyResponse(Response):
    """A response as it is sent.

    Args:
        status: The status.
        headers: All of them, `Content-Length` included where there is a body.
        body: The body.
    """

    def __init__(self, status: int, headers: RawHeaders, body: bytes = b"") -> None:
        # Instead of Response's own.
        self.status_code, self.raw_headers, self.body, self.background = status, headers, body, None


def raw(headers: Mapping[str, str]) -> RawHeaders:
    """Return headers as they are sent."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
