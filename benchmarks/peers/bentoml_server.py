"""BentoML: Starlette with adaptive batching, which learns how long to wait; there is no fixed waiting time to set.

Asked by POST, its only method, and with a list: a batchable API takes one, and an item of it is a picture here. It
answers image/png for any number of them, since the media type belongs to the API. The documentation's way to a nicer
request is a second service in front, in a process of its own, which would cost more than the pictures do.

A worker for each core, its `workers="cpu_count"`; each batches for itself. uvloop and httptools are no requirements of
BentoML, but its uvicorn takes them where they are installed, and they are.
"""

import os
import sys
from typing import Annotated

import bentoml
from bentoml.validators import ContentType
from pydantic import PlainSerializer

from benchmarks.peers import common

settings = common.Settings.from_environment()

Files = Annotated[list[bytes], PlainSerializer(b"".join, return_type=bytes), ContentType("image/png")]
"""PNG files, sent one after the other."""


@bentoml.service(workers=settings.workers, logging={"access": {"enabled": False}})
class Pictures:
    """Draws the pictures of a batch of requests."""

    def __init__(self) -> None:
        self._generator = common.Generator(settings.bundle, settings.threads)

    @bentoml.api(batchable=True, max_batch_size=common.MAX_BATCH, route="/generate")
    def generate(self, seeds: list[int]) -> Files:
        """Return the pictures of seeds."""
        return self._generator.pngs(seeds)


def main() -> None:
    """Become `bentoml serve`."""
    os.environ |= {
        "BENTOML_HOME": os.path.join(os.environ["TMPDIR"], "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    service = f"{__package__}.bentoml_server:Pictures"
    options = ["--host", "127.0.0.1", "--port", str(settings.port)]
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", "serve", service, *options])  # noqa: S606


if __name__ == "__main__":
    main()
