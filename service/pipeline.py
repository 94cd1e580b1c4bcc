"""One served model: drawing and encoding. The only file that sees batcher, engine and encoder together."""

import functools
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from service import batcher, errors
from service.batcher import Batcher, BatchTiming, Done, Terms
from service.bundle import Bundle
from service.encoder import (
    AnimationFormat,
    Encoder,
    StillFormat,
    encode_animation,
    encode_png,
    encode_pngs,
    encode_still,
    flatten,
    resize,
    sheet,
    strip,
)
from service.engine import Engine, Pixels
from service.manifest import Manifest
from service.metrics import BatchMetrics, Metrics
from service.resolver import Order, Resolver
from service.sample import Sample

OUT_OF_SERVICE_RETRY_S = "5"
# A queue that refuses thousands may starve the engine, so batches are handed over ahead of time; not of a small queue,
# whose limit is meant.
SPARES, LARGE_QUEUE = 16, 256
# Up to this size a picture that is wanted as PNG is encoded with its batch: handing it to a thread of its own costs
# more than encoding it. Larger ones are encoded side by side.
BATCHED_PNG_BYTES = 128 * 128 * 4


@dataclass(frozen=True, slots=True)
class Look:
    """What is done to pixels after they are drawn."""

    size: int | None = None
    background: tuple[int, int, int] | None = None
    quality: int = 85


@dataclass(frozen=True, slots=True)
class Piece:
    """What the queue holds: a row of work, and the text of the PNG to make of it, or `None` for pixels only."""

    sample: Sample
    png_text: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Drawn:
    """What comes out of the queue: pixels, uint8 (H, W, C), and the PNG if one was wanted, with the seconds it took.

    `error` is why there is no PNG; it is of this picture alone.
    """

    pixels: Pixels
    png: bytes = b""
    encode_s: float = 0.0
    error: ValueError | None = None


class ServedModel:
    """A loaded bundle with its engine and its queue.

    Args:
        bundle: The verified bundle.
        engine: Its warmed engine.
        encoder: The pool that encodes, shared by all models.
        metrics: The service's metrics.
        max_queue_images: Images that may wait.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        *,
        encoder: Encoder,
        metrics: Metrics,
        max_queue_images: int,
    ) -> None:
        self.bundle, self.engine, self._encoder, self._metrics = bundle, engine, encoder, metrics
        self.batcher: Batcher[Piece, Drawn] = Batcher(
            self._run,
            max_batch_size=engine.max_batch_size,
            max_queue=max_queue_images,
            workers=engine.workers,
            spares=SPARES if max_queue_images >= LARGE_QUEUE else 0,
            observer=BatchMetrics(metrics, bundle.manifest.name),
            sizes=lambda: engine.status().batch_sizes,
        )
        metrics.watch(self.batcher)
        self.resolver = Resolver(bundle.manifest)

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.bundle.manifest

    @property
    def identity(self) -> str:
        """What makes this model's bytes: the bundle, and how the engine that runs it rounds."""
        return f"{self.bundle.digest} {self.engine.fingerprint}"

    async def draw(
        self, samples: Sequence[Sample], terms: Terms, pointer: str = "/n"
    ) -> tuple[list[Pixels], BatchTiming]:
        """Draw pictures, uint8 (H, W, C) each, in order, and say how long the slowest one took.

        Args:
            samples: At least one.
            terms: Its deadline and its urgency.
            pointer: The field to name if they never fit the queue.

        Returns:
            Pictures, and the timing of the slowest one.

        Raises:
            InvalidParameters: If they never fit the queue.
            Overloaded: If the queue is full or the deadline cannot be met.
            DeadlineExceeded: If they were not ready in time.
            ShuttingDown: If the server is stopping.
            EngineUnavailable: If the engine failed on their batch.
        """
        done = await self._submit([Piece(sample) for sample in samples], terms, pointer)
        slowest = max(done, key=lambda item: item.timing.queue_s + item.timing.run_s)
        return [item.value.pixels for item in done], slowest.timing

    async def picture(
        self, order: Order, look: Look, form: StillFormat, text: Mapping[str, str] | None, terms: Terms
    ) -> tuple[bytes, BatchTiming, float]:
        """Draw and encode one picture.

        Args:
            order: What to draw.
            look: What to do to it.
            form: Its format.
            text: What to embed.
            terms: Its deadline and its urgency.

        Returns:
            The file, the timing of its batch, and the seconds that encoding took.

        Raises:
            ServiceError: As `draw`.
        """
        shape = self.manifest.height * self.manifest.width * self.manifest.channels
        if form == "png" and look.size is None and look.background is None and shape <= BATCHED_PNG_BYTES:
            (done,) = await self._submit([Piece(order.sample, text or {})], terms, "/n")
            if done.value.error is not None:
                raise done.value.error
            return done.value.png, done.timing, done.value.encode_s
        pixels, timing = await self.draw([order.sample], terms)
        body, encode_s = await self.still(pixels, look, form, text)
        return body, timing, encode_s

    async def _run(self, pieces: Sequence[Piece]) -> list[Drawn]:
        """Draw a batch, and encode what is wanted as PNG in one go."""
        samples = [piece.sample for piece in pieces]
        if all(piece.png_text is None for piece in pieces):
            return [Drawn(one) for one in await self.engine.generate(samples)]
        return await self.engine.generate(samples, functools.partial(self._encode_batch, pieces))

    def _encode_batch(self, pieces: Sequence[Piece], pixels: Sequence[Pixels]) -> list[Drawn]:
        """Encode what is wanted at once; if that fails, one by one, so that a picture's text fails it alone."""
        drawn = [Drawn(one) for one in pixels]
        texts = {index: piece.png_text for index, piece in enumerate(pieces) if piece.png_text is not None}
        started = time.perf_counter()
        try:
            files = encode_pngs(np.stack([pixels[index] for index in texts]), list(texts.values()))
            encoded: list[bytes | ValueError] = list(files)
        except ValueError:
            encoded = [_png_or_error(pixels[index], text) for index, text in texts.items()]
        each_s = (time.perf_counter() - started) / len(texts)
        observe = self._metrics.encode.labels("png").observe
        for index, file in zip(texts, encoded, strict=True):
            observe(each_s)
            if isinstance(file, bytes):
                drawn[index] = Drawn(pixels[index], file, each_s)
            else:
                drawn[index] = Drawn(pixels[index], error=file)
        return drawn

    def refusal(self, key: Hashable) -> errors.Overloaded | None:
        """Refuse a request for a picture if the queue is full.

        Args:
            key: By which the request is known again.

        Returns:
            The answer; `None` if the request is to be tried.
        """
        retry_after_s = self.batcher.refusal_s(key)
        if retry_after_s is None:
            return None
        detail = f"all {self.batcher.limit} places of the queue are taken"
        return errors.Overloaded(detail, headers={"Retry-After": str(retry_after_s)})

    async def _submit(self, pieces: Sequence[Piece], terms: Terms, pointer: str) -> list[Done[Drawn]]:
        try:
            return await self.batcher.submit(pieces, terms)
        except batcher.RequestTooLarge as error:
            raise errors.InvalidParameters.of(pointer, str(error)) from error
        except batcher.QueueFull as error:
            raise errors.Overloaded(str(error), headers={"Retry-After": str(error.retry_after_s)}) from error
        except batcher.Draining as error:
            raise errors.ShuttingDown("the server is shutting down", headers={"Retry-After": "1"}) from error
        except batcher.DeadlineExceeded as error:
            raise errors.DeadlineExceeded(f"not drawn within {terms.timeout_s:g} s") from error
        except batcher.OutOfMemory as error:
            retry = {"Retry-After": OUT_OF_SERVICE_RETRY_S}
            raise errors.OutOfMemory("the picture does not fit into the device's memory", headers=retry) from error
        except batcher.BackendFailure as error:
            retry = {"Retry-After": OUT_OF_SERVICE_RETRY_S}
            raise errors.EngineUnavailable("the engine failed on this batch", headers=retry) from error

    async def still(
        self, pixels: Sequence[Pixels], look: Look, form: StillFormat, text: Mapping[str, str] | None, columns: int = 0
    ) -> tuple[bytes, float]:
        """Return one picture, or with `columns` a sheet of several, as a file, and the seconds it took."""
        return await self._encoder.run(_timed_still, self._metrics, pixels, look, form, text, columns)

    async def stills(
        self, pixels: Sequence[Pixels], look: Look, form: StillFormat, texts: Sequence[Mapping[str, str] | None]
    ) -> tuple[list[bytes], float]:
        """Return every picture as a file of its own, and the seconds it took."""

        def encode() -> tuple[list[bytes], float]:
            files = [
                _timed_still(self._metrics, [one], look, form, text, 0) for one, text in zip(pixels, texts, strict=True)
            ]
            return [file for file, _ in files], sum(seconds for _, seconds in files)

        return await self._encoder.run(encode)

    async def animation(
        self, frames: Sequence[Pixels], look: Look, form: AnimationFormat, fps: int, text: Mapping[str, str] | None
    ) -> tuple[bytes, float]:
        """Return frames as an animation, and the seconds it took."""

        def encode() -> tuple[bytes, float]:
            started = time.perf_counter()
            stacked = np.stack([_finish(frame, look) for frame in frames])
            body = encode_animation(stacked, form, fps=fps, quality=look.quality, text=text)
            return body, self._observe(form, started)

        return await self._encoder.run(encode)

    async def film_strip(
        self, frames: Sequence[Pixels], look: Look, text: Mapping[str, str] | None
    ) -> tuple[bytes, float]:
        """Return frames side by side as one PNG, and the seconds it took."""

        def encode() -> tuple[bytes, float]:
            started = time.perf_counter()
            stacked = np.stack([_finish(frame, look) for frame in frames])
            return encode_still(strip(stacked), "png", quality=look.quality, text=text), self._observe("png", started)

        return await self._encoder.run(encode)

    def _observe(self, form: str, started: float) -> float:
        seconds = time.perf_counter() - started
        self._metrics.encode.labels(form).observe(seconds)
        return seconds


def _png_or_error(pixels: Pixels, text: Mapping[str, str]) -> bytes | ValueError:
    try:
        return encode_png(pixels, text=text)
    except ValueError as error:
        return error


def _finish(pixels: Pixels, look: Look) -> Pixels:
    if look.size is not None:
        pixels = resize(pixels, look.size)
    return flatten(pixels, look.background) if look.background is not None else pixels


def _timed_still(
    metrics: Metrics,
    pixels: Sequence[Pixels],
    look: Look,
    form: StillFormat,
    text: Mapping[str, str] | None,
    columns: int,
) -> tuple[bytes, float]:
    started = time.perf_counter()
    finished = [_finish(one, look) for one in pixels]
    body = encode_still(sheet(finished, columns) if columns else finished[0], form, quality=look.quality, text=text)
    seconds = time.perf_counter() - started
    metrics.encode.labels(form).observe(seconds)
    return body, seconds
