"""One served model: pictures in order, and what a request is told when one does not come."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service import errors
from service.batcher import Terms
from service.bundle import Bundle
from service.encoder import Encoder
from service.metrics import Metrics
from service.pipeline import Look, ServedModel
from service.sample import Sample
from tests.service.api.harness import FakeEngine, a_bundle, until

Make = Callable[..., ServedModel]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Return a function that makes a served model with a fake engine; `changes` are of its manifest."""
    made: list[ServedModel] = []
    encoder = Encoder(1)

    def model(bundle: Bundle | None = None, max_queue_images: int = 8, **changes: Any) -> ServedModel:
        bundle = bundle or a_bundle()
        manifest = bundle.manifest.model_copy(update=changes)
        engine = FakeEngine(manifest, max_batch_size=2)
        served = ServedModel(
            Bundle(manifest, bundle.digest, bundle.folder),
            engine,
            encoder=encoder,
            metrics=Metrics(),
            max_queue_images=max_queue_images,
        )
        served.batcher.start()
        made.append(served)
        return served

    yield model
    for served in made:
        await served.batcher.close()
    encoder.close()


def engine_of(model: ServedModel) -> FakeEngine:
    assert isinstance(model.engine, FakeEngine)
    return model.engine


def samples(count: int) -> list[Sample]:
    return [Sample(np.zeros(8, np.float32), index, 1.0) for index in range(count)]


async def test_pictures_come_in_the_order_of_the_samples(make: Make) -> None:
    """A request that is spread over several batches is put together again, with the timing of its slowest picture."""
    model = make()
    pixels, timing = await model.draw(samples(5), Terms(60))

    assert [int(picture[0, 0, 0]) for picture in pixels] == [0, 1, 2, 3, 4]
    assert [len(batch) for batch in engine_of(model).batches] == [2, 2, 1]
    assert timing.batch_size in (1, 2)
    assert timing.queue_s >= 0
    assert timing.run_s >= 0


async def test_request_that_never_fits_is_refused(make: Make) -> None:
    """More pictures than the queue has room for are the request's mistake: 422, and no advice to come back."""
    with pytest.raises(errors.InvalidParameters) as answer:
        await make(max_queue_images=2).draw(samples(3), Terms(60), "/seeds")

    assert (answer.value.status, answer.value.errors[0].pointer) == (422, "/seeds")
    assert "Retry-After" not in answer.value.headers


async def _fill(model: ServedModel, count: int) -> "asyncio.Task[Any]":
    """Let the engine hold a batch, and `count` - 2 more pictures wait."""
    engine_of(model).open.clear()
    drawing = asyncio.create_task(model.draw(samples(count), Terms(60)))
    await until(lambda: model.batcher.in_flight == 2)
    return drawing


async def test_full_queue_is_429_with_retry_after(make: Make) -> None:
    """The answer comes at once and says after how many whole seconds to come back."""
    model = make(max_queue_images=4)
    drawing = await _fill(model, 4)
    with pytest.raises(errors.Overloaded) as answer:
        await model.draw(samples(3), Terms(60))

    assert (answer.value.status, answer.value.slug) == (429, "overloaded")
    assert int(answer.value.headers["Retry-After"]) >= 1
    engine_of(model).open.set()
    await drawing


async def test_missed_deadline_is_504(make: Make) -> None:
    """A picture that is not drawn in time is given up, and the limit is named."""
    model = make()
    drawing = await _fill(model, 2)
    with pytest.raises(errors.DeadlineExceeded, match=r"not drawn within 0\.01 s") as answer:
        await model.draw(samples(1), Terms(0.01))

    assert answer.value.status == 504
    engine_of(model).open.set()
    await drawing


async def test_failing_engine_is_503_with_retry_after(make: Make) -> None:
    """What went wrong on the device is for the log; the client learns that it may come back."""
    model = make()
    engine_of(model).error = RuntimeError("CUDA error: secret")
    with pytest.raises(errors.EngineUnavailable) as answer:
        await model.draw(samples(1), Terms(60))

    assert (answer.value.status, answer.value.headers) == (503, {"Retry-After": "5"})
    assert "secret" not in answer.value.detail
    assert "secret" in str(answer.value.__cause__.__cause__)

    engine_of(model).error = None
    assert len((await model.draw(samples(1), Terms(60)))[0]) == 1


class Forgetful(FakeEngine):
    """An engine that returns a picture less than it was asked for."""

    async def generate(self, samples: Sequence[Sample]) -> Sequence[np.ndarray]:
        return (await super().generate(samples))[1:]


async def test_engine_that_loses_a_picture_is_503() -> None:
    """Pictures are never given to the wrong request, so a batch of the wrong length counts as failed."""
    bundle, encoder = a_bundle(), Encoder(1)
    engine = Forgetful(bundle.manifest)
    model = ServedModel(bundle, engine, encoder=encoder, metrics=Metrics(), max_queue_images=8)
    model.batcher.start()
    with pytest.raises(errors.EngineUnavailable):
        await model.draw(samples(2), Terms(60))
    await model.batcher.close()
    encoder.close()


async def test_draining_is_503_with_retry_after(make: Make) -> None:
    """A server that stops takes nothing new; another one will answer in a moment."""
    model = make()
    await model.batcher.drain(1)
    with pytest.raises(errors.ShuttingDown) as answer:
        await model.draw(samples(1), Terms(60))

    assert (answer.value.status, answer.value.slug) == (503, "draining")
    assert answer.value.headers == {"Retry-After": "1"}


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


async def test_stills_sheets_strips_and_animations_are_encoded(make: Make) -> None:
    """Each is of the size that was asked for, and counted by its format."""
    model = make()
    pixels, _ = await model.draw(samples(3), Terms(60))
    look = Look(size=32)

    still, seconds = await model.still(pixels[:1], look, "png", {"Software": "Vitrine"})
    sheet, _ = await model.still(pixels, look, "webp", None, columns=2)
    files, _ = await model.stills(pixels, Look(), "jpeg", [None] * 3)
    moving, _ = await model.animation(pixels, look, "png", 10, None)
    strip, _ = await model.film_strip(pixels, Look(), None)

    assert (opened(still).size, opened(still).text["Software"]) == ((32, 32), "Vitrine")
    assert (opened(sheet).format, opened(sheet).size[0] >= 64) == ("WEBP", True)
    assert [(opened(file).format, opened(file).size) for file in files] == [("JPEG", (16, 16))] * 3
    assert (opened(moving).n_frames, opened(moving).size) == (3, (32, 32))
    assert (opened(strip).size[0] >= 3 * 16, opened(strip).size[1] >= 16) == (True, True)
    assert seconds >= 0
    counted = model._metrics.registry.get_sample_value
    counts = {form: counted("vitrine_encode_seconds_count", {"format": form}) for form in ("png", "webp", "jpeg")}
    assert counts == {"png": 3, "webp": 1, "jpeg": 3}


async def test_transparency_is_laid_on_the_background(make: Make) -> None:
    """A model with alpha gives an opaque picture where a colour was asked for."""
    model = make(a_bundle(channels=4))
    clear = np.zeros((16, 16, 4), np.uint8)
    content, _ = await model.still([clear], Look(background=(255, 0, 0)), "png", None)

    assert opened(content).convert("RGBA").getpixel((3, 3)) == (255, 0, 0, 255)


async def test_picture_that_cannot_be_encoded_fails_alone(make: Make) -> None:
    """Its text is refused, and its batch mates get their files."""
    model = make()
    engine_of(model).open.clear()
    good, bad = ({"Label": "bag"}, {"Label": "no\0thing"})
    orders = model.resolver.orders([1, 2, 3], [0, 1, 2], None)
    blocker = asyncio.create_task(model.picture(orders[0], Look(), "png", good, Terms(60)))
    await until(lambda: len(engine_of(model).batches) == 1)
    tasks = [
        asyncio.create_task(model.picture(order, Look(), "png", text, Terms(60)))
        for order, text in zip(orders[1:], (bad, good), strict=True)
    ]
    await until(lambda: model.batcher.queued == 2)
    engine_of(model).open.set()
    first, refused, mate = await asyncio.gather(blocker, *tasks, return_exceptions=True)
    assert [len(batch) for batch in engine_of(model).batches] == [1, 2]
    assert isinstance(refused, ValueError)
    for drawn in (first, mate):
        assert isinstance(drawn, tuple)
        assert Image.open(io.BytesIO(drawn[0])).text == good
