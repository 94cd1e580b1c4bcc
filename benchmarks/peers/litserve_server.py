"""LitServe: FastAPI in front, processes with dynamic batching behind.

Asked by POST, its only method. As its documentation wants it: on CPUs a worker for each core, for more than a hundred
requests per second `fast_queue` (ZeroMQ between front and workers), as many HTTP processes as workers.
"""

from collections.abc import Sequence

import litserve
from fastapi import HTTPException, Response

from benchmarks.peers import common


class Pictures(litserve.LitAPI):  # type: ignore[misc]
    """Draws the pictures of a batch of requests."""

    def setup(self, device: str) -> None:
        """Load the generator, in the worker."""
        settings = common.Settings.from_environment()
        self._generator = common.Generator(settings.bundle, settings.threads)

    def decode_request(self, request: dict[str, int]) -> range:
        """Return the seeds of a request."""
        try:
            return common.seeds_of(**request)
        except (TypeError, ValueError) as error:
            raise HTTPException(422, str(error)) from error

    def predict(self, x: Sequence[range]) -> list[tuple[bytes, str]]:
        """Return body and media type for each request of a batch."""
        return [(body, common.media_type(seeds)) for body, seeds in zip(self._generator.bodies(x), x, strict=True)]

    def encode_response(self, output: tuple[bytes, str]) -> Response:
        """Return the answer to one request."""
        body, media_type = output
        return Response(body, media_type=media_type)


def main() -> None:
    """Run the server."""
    settings = common.Settings.from_environment()
    api = Pictures(max_batch_size=common.MAX_BATCH, batch_timeout=common.MAX_WAIT_MS / 1000, api_path="/generate")
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=settings.workers, fast_queue=True)
    server.run(host="127.0.0.1", port=settings.port, log_level="warning", access_log=False, generate_client_file=False)


if __name__ == "__main__":
    main()
