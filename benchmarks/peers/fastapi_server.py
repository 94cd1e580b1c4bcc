"""Plain FastAPI: one forward pass per request, no batching; what one writes first.

The endpoint is a `def`, since it computes, and FastAPI runs it on its pool of threads. Requests run beside each other,
so each forward pass has one torch thread: with two, the threads of all the requests would fight for the cores. A
process for each core, as FastAPI's documentation advises.
"""

from typing import Annotated

import uvicorn
from fastapi import FastAPI, Query, Response

from benchmarks.peers import common


def create_app() -> FastAPI:
    """Load the generator and return the application."""
    generator = common.Generator(common.Settings.from_environment().bundle, threads=1)
    app = FastAPI()

    @app.get("/generate")
    def generate(seed: int, n: Annotated[int, Query(ge=1, le=common.MAX_PICTURES)] = 1) -> Response:
        seeds = common.seeds_of(seed, n)
        return Response(b"".join(generator.pngs(seeds)), media_type=common.media_type(seeds))

    return app


if __name__ == "__main__":
    settings = common.Settings.from_environment()
    uvicorn.run(
        f"{__package__}.fastapi_server:create_app",
        factory=True,
        host="127.0.0.1",
        port=settings.port,
        workers=settings.workers,
        timeout_worker_healthcheck=60,  # loading torch on a busy machine takes longer than the 5 s before a restart
        access_log=False,
        log_level="warning",
    )
