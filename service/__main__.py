"""Read the settings, serve, drain on SIGTERM."""

import asyncio
import math
import signal
import socket
import sys
from types import FrameType

import structlog
import torch
import uvicorn
from pydantic import ValidationError

from service import logs
from service.app import create_app
from service.services import Services
from service.settings import Settings, unknown_variables

SWITCH_INTERVAL_S = 0.0001  # of the interpreter; the default of 5 ms lets one thread starve the event loop


class DrainingServer(uvicorn.Server):
    """On the first SIGTERM or SIGINT: not ready, serve on for the drain delay, then finish what is in flight.

    A second signal ends at once.
    """

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services
        self._stopping: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal has been handled."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; a second signal ends at once."""
        if self._services.catalogue.draining or self._loop is None:
            self.should_exit = self.force_exit = True
            return
        self._services.catalogue.draining = True
        self._services.metrics.draining.set(1)
        self._loop.call_soon_threadsafe(self._begin_to_stop, signal.Signals(sig).name)

    def _begin_to_stop(self, signal_name: str) -> None:
        delay_s = self._services.settings.drain_delay_s
        structlog.get_logger().info("draining", signal=signal_name, delay_s=delay_s)
        assert self._loop is not None
        self._loop.call_later(delay_s, self._stop)

    def _stop(self) -> None:
        self.should_exit = True


def shared_port(host: str, port: int) -> socket.socket:
    """Return a listening socket for a port on which other processes of the same user may listen too.

    The kernel shares the connections out among them (SO_REUSEPORT).

    Args:
        host: An address or a name.
        port: The port.

    Returns:
        The socket.

    Raises:
        OSError: If somebody has the port and does not share it, or the system knows no sharing.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, reuse_port=True)
    except ValueError as error:
        raise OSError(str(error)) from error
    structlog.get_logger().info("listening on a shared port", host=host, port=listening.getsockname()[1])
    return listening


def main() -> int:
    """Run the service and return the process's exit status: 0 after a drain, 2 for a wrong configuration."""
    unknown = unknown_variables()
    if unknown:
        known = ", ".join(f"VITRINE_{name.upper()}" for name in sorted(Settings.model_fields))
        print(f"error: unknown settings {', '.join(unknown)}; known are {known}", file=sys.stderr)
        return 2
    try:
        settings = Settings()
    except ValidationError as error:
        for entry in error.errors(include_url=False):
            name = "VITRINE_" + str(entry["loc"][0]).upper() + ": " if entry["loc"] else ""
            print(f"error: {name}{entry['msg'].removeprefix('Value error, ')}", file=sys.stderr)
        return 2
    logs.configure(settings.log_level)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    app = create_app(settings)
    structlog.get_logger().info("starting", torch=torch.__version__, **settings.model_dump(mode="json"))
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout_s),
    )
    try:
        sockets = [shared_port(settings.host, settings.port)] if settings.reuse_port else None
    except OSError as error:
        print(f"error: {settings.host} port {settings.port} cannot be shared: {error}", file=sys.stderr)
        return 2
    DrainingServer(config, app.state.services).run(sockets)
    return 0


if __name__ == "__main__":
    sys.exit(main())
