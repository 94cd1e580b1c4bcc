"""What can be wrong with a request or with us: one tree, each class with one status and slug.

VitrineError
├── Malformed 400                 the body is not JSON
├── NotFound 404
│   └── ModelNotFound 404
├── MethodNotAllowed 405
├── NotAcceptable 406
├── TooLarge 413
├── UnsupportedMediaType 415
├── InvalidParameters 422         names every field that is wrong
├── Overloaded 429                the queue is full; Retry-After
├── Internal 500                  no details to the client
├── Unavailable 503
│   ├── Starting                  the model is being loaded, or was refused; Retry-After
│   ├── ShuttingDown              draining; Retry-After
│   ├── EngineUnavailable         the device does not answer
│   └── OutOfMemory               one picture does not fit into its memory
└── DeadlineExceeded 504

`service.problems` turns any of them into RFC 9457 problem+json.
"""

# ruff: noqa: N818  the exceptions are named after what happened, as in httpx

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field: a JSON pointer (RFC 6901) to it, and what was given and what is allowed."""

    pointer: str
    detail: str


class VitrineError(Exception):
    """Base of everything that ends a request with a problem document."""

    status = 500
    slug = "internal"
    title = "Internal error"

    def __init__(
        self, detail: str, *, errors: tuple[FieldError, ...] = (), headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors
        self.headers = headers or {}


class Malformed(VitrineError):
    """The body cannot be read."""

    status, slug, title = 400, "malformed", "Malformed request"


class NotFound(VitrineError):
    """There is nothing at this address."""

    status, slug, title = 404, "not-found", "Not found"


class ModelNotFound(NotFound):
    """No such model, or not this version of it."""

    slug, title = "model-not-found", "Model not found"


class MethodNotAllowed(VitrineError):
    """The address exists, but not for this method."""

    status, slug, title = 405, "method-not-allowed", "Method not allowed"


class NotAcceptable(VitrineError):
    """Nothing that the `Accept` header names can be made here."""

    status, slug, title = 406, "not-acceptable", "Not acceptable"


class TooLarge(VitrineError):
    """The body is longer than allowed."""

    status, slug, title = 413, "too-large", "Request too large"


class UnsupportedMediaType(VitrineError):
    """The body is not sent as JSON."""

    status, slug, title = 415, "unsupported-media-type", "Unsupported media type"


class InvalidParameters(VitrineError):
    """Fields that are missing, unknown, repeated or out of range."""

    status, slug, title = 422, "invalid-parameters", "Invalid parameters"

    @classmethod
    def of(cls, pointer: str, detail: str) -> "InvalidParameters":
        """Return the error of a single field."""
        return cls(f"{pointer.lstrip('/') or 'request'}: {detail}", errors=(FieldError(pointer, detail),))


class Overloaded(VitrineError):
    """The queue is full, or the deadline cannot be met."""

    status, slug, title = 429, "overloaded", "Overloaded"


class Internal(VitrineError):
    """Our mistake; the log has the details, the client has the request id."""


class Unavailable(VitrineError):
    """No capacity at all, at present."""

    status, slug, title = 503, "engine-unavailable", "Unavailable"


class Starting(Unavailable):
    """The model is still being loaded, or could not be."""

    slug, title = "starting", "Starting"


class ShuttingDown(Unavailable):
    """The server finishes what it has and takes nothing new."""

    slug, title = "draining", "Shutting down"


class EngineUnavailable(Unavailable):
    """The device raised an error on this batch."""

    slug, title = "engine-unavailable", "Engine unavailable"


class OutOfMemory(Unavailable):
    """One picture alone does not fit into the device's memory."""

    slug, title = "out-of-memory", "Out of memory"


class DeadlineExceeded(VitrineError):
    """The picture was not ready in time."""

    status, slug, title = 504, "deadline-exceeded", "Deadline exceeded"
