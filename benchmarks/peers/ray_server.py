"""Ray Serve: `serve.batch`, in what its documentation calls high-throughput mode.

That is HAProxy in front instead of a Python proxy, and replicas that answer HTTP themselves: one for each core, which
gathers batches of its own. Drawing and encoding have a thread, so that its event loop goes on meanwhile.
"""

import asyncio
import os
from pathlib import Path

from benchmarks.peers import common

settings = common.Settings.from_environment()

# Ray reads these when it is imported, in each of its processes.
scratch = Path(os.environ["TMPDIR"])
os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(scratch / "haproxy.cfg"),
    "RAY_SERVE_HAPROXY_SOCKET_PATH": str(scratch / "haproxy.sock"),
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(scratch / "haproxy-metrics.sock"),
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(scratch),
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(scratch / "haproxy.state"),
    "RAY_SERVE_HAPROXY_NBTHREAD": str(os.cpu_count()),
}

import ray  # noqa: E402
from ray import serve  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import Response  # noqa: E402


# At most five requests are in a replica by default, which would be the largest batch.
@serve.deployment(  # type: ignore[misc]
    num_replicas=settings.workers,
    max_ongoing_requests=4 * common.MAX_BATCH,
    ray_actor_options={"num_cpus": settings.threads},
)
class Pictures:
    """Draws the pictures of a batch of requests."""

    def __init__(self) -> None:
        self._generator = common.Generator(settings.bundle, settings.threads)

    @serve.batch(  # type: ignore[misc]
        max_batch_size=common.MAX_BATCH, batch_wait_timeout_s=common.MAX_WAIT_MS / 1000
    )
    async def bodies(self, requests: list[range]) -> list[bytes]:
        """Return the body for each request of a batch."""
        return await asyncio.to_thread(self._generator.bodies, requests)

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        seeds = common.seeds_of(**{name: int(value) for name, value in request.query_params.items()})
        return Response(await self.bodies(seeds), media_type=common.media_type(seeds))


def main() -> None:
    """Run the server."""
    ray.init(num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False)
    serve.start(
        http_options={"host": "127.0.0.1", "port": settings.port},
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )
    serve.run(Pictures.bind(), name="pictures", route_prefix="/generate", blocking=True)


if __name__ == "__main__":
    main()
