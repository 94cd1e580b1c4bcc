"""mosec: a Rust front with dynamic batching, Python processes behind it.

Asked by POST: mosec knows no other method for inference. The media type belongs to a route and not to an answer, so
that several pictures are labelled image/png too. One stage draws and encodes, in a process for each core, which take
batches from one queue: a stage more would copy the pixels between processes.
"""

import json
import os
from collections.abc import Sequence

from mosec import Server, ValidationError, Worker

from benchmarks.peers import common


class Pictures(Worker):  # type: ignore[misc]
    """Draws the pictures of a batch of requests."""

    resp_mime_type = "image/png"

    def __init__(self) -> None:
        super().__init__()
        settings = common.Settings.from_environment()
        self._generator = common.Generator(settings.bundle, settings.threads)

    def deserialize(self, data: bytes) -> range:
        """Return the seeds of a request."""
        try:
            return common.seeds_of(**json.loads(data))
        except (TypeError, ValueError) as error:
            raise ValidationError(str(error)) from error

    def forward(self, data: Sequence[range]) -> list[bytes]:
        """Return the body for each request of a batch."""
        return self._generator.bodies(data)

    def serialize(self, data: bytes) -> bytes:
        """Return the body as it is."""
        return data


def main() -> None:
    """Run the server."""
    settings = common.Settings.from_environment()
    # mosec reads these or the command line. A request may wait longer than its 3 s: an error would not count.
    os.environ |= {
        "MOSEC_ADDRESS": "127.0.0.1",
        "MOSEC_PORT": str(settings.port),
        "MOSEC_LOG_LEVEL": "warning",
        "MOSEC_TIMEOUT": "60000",
    }
    server = Server()
    server.append_worker(
        Pictures,
        num=settings.workers,
        max_batch_size=common.MAX_BATCH,
        max_wait_time=common.MAX_WAIT_MS,
        route="/generate",
    )
    server.run()


if __name__ == "__main__":
    main()
