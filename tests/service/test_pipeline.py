"""One served model: what a label means, what an order is, and what a request is told when a picture does not come."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service import errors, rng
from service.batcher import Terms
from service.bundle import Bundle
from service.encoder import Encoder
from service.manifest import LabelEntry
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


@pytest.mark.parametrize(
    ("value", "index"),
    [
        (0, 0),
        (2, 2),
        ("1", 1),
        ("02", 2),
        ("bag", 1),
        ("Ankle boot", 0),
        ("ANKLE BOOT", 0),
        (" bag ", 1),
        ("handbag", 1),
        ("PURSE", 1),
        ("bootie", 0),
        ("t-shirt/top", 2),
        ("tee", 2),
    ],
)
async def test_label_is_found_by_index_name_or_alias(make: Make, value: int | str, index: int) -> None:
    """Names and aliases are compared without regard to case and surrounding spaces; digits are an index."""
    assert make().label(value) == index


@pytest.mark.parametrize(
    "value", [3, -1, "3", "-1", "hat", "", "1.0", "²", "bag\0", "9" * 64, pytest.param(10**4000, id="huge")]
)
async def test_unknown_label_is_refused_with_the_valid_ones(make: Make, value: int | str) -> None:
    """The answer names the field and lists what could have been said, and repeats no more than is readable."""
    with pytest.raises(errors.InvalidParameters) as answer:
        make().label(value, "/labels/4")

    (field,) = answer.value.errors
    assert field.pointer == "/labels/4"
    assert field.detail.startswith("unknown label ")
    assert field.detail.endswith("; tiny@1 has 0 Ankle boot, 1 bag, 2 t-shirt/top")
    assert len(field.detail) < 200


@pytest.mark.parametrize("value", [0, "0", "bag"])
async def test_model_without_labels_takes_none(make: Make, value: int | str) -> None:
    """An unconditional model says so, rather than listing nothing."""
    with pytest.raises(errors.InvalidParameters, match="label: tiny@1 has no labels"):
        make(a_bundle(labels=())).label(value)


async def test_name_goes_before_another_labels_alias(make: Make) -> None:
    """Words that two labels lay claim to go to the one whose name it is, then to the first; digits too."""
    entries = (
        LabelEntry(name="top", aliases=("shirt", "wear", "2")),
        LabelEntry(name="Shirt", aliases=("wear",)),
        LabelEntry(name="hat"),
    )
    model = make(labels=entries)

    assert [model.label(word) for word in ("shirt", "wear", "2", 2)] == [1, 0, 0, 2]


async def test_label_of_a_seed_is_drawn_or_the_default(make: Make) -> None:
    """Who names no label gets the manifest's, else one drawn from the seed, else the only one."""
    drawn, fixed, unconditional = make(), make(), make(a_bundle(labels=()))
    fixed = make(defaults=drawn.manifest.defaults.model_copy(update={"label": 2}))

    assert [drawn.label_of(seed) for seed in range(50)] == [rng.label_from(seed, 3) for seed in range(50)]
    assert {drawn.label_of(seed) for seed in range(50)} == {0, 1, 2}
    assert {fixed.label_of(seed) for seed in range(50)} == {2}
    assert {unconditional.label_of(seed) for seed in range(50)} == {0}


async def test_truncation_is_the_requests_or_the_default(make: Make) -> None:
    """A psi of 0 is a wish like any other, not a missing one."""
    model = make()
    model = make(defaults=model.manifest.defaults.model_copy(update={"truncation_psi": 0.7}))

    assert [model.psi(None), model.psi(0.0), model.psi(1.0)] == [0.7, 0.0, 1.0]
    assert [order.sample.truncation_psi for order in model.orders([1], [None], 0.0)] == [0.0]


async def test_order_holds_the_seeds_latent_and_label(make: Make) -> None:
    """An order is the latent of its seed, and the sample has the label and psi that the answer will name."""
    model = make()
    orders = model.orders([5, 6, 5], [1, None, 2], 0.5)

    assert [(order.seed, order.label) for order in orders] == [(5, 1), (6, rng.label_from(6, 3)), (5, 2)]
    assert np.array_equal([model.latent_of(order) for order in orders], rng.latents([5, 6, 5], 8))
    assert [order.sample.label for order in orders] == [order.label for order in orders]
    assert {order.sample.truncation_psi for order in orders} == {0.5}


async def test_orders_need_a_label_per_seed(make: Make) -> None:
    """Lists of different lengths are our own mistake, and never cut to the shorter one."""
    with pytest.raises(ValueError, match="zip"):
        make().orders([1, 2], [None], None)


@pytest.mark.parametrize(("label", "chosen"), [(None, 2), (0, 0), (1, 1)])
async def test_order_of_a_latent_takes_the_label_that_was_said(make: Make, label: int | None, chosen: int) -> None:
    """Label 0 is a label; only a missing one is replaced by the default."""
    model = make()
    model = make(defaults=model.manifest.defaults.model_copy(update={"label": 2}))
    (order,) = model.orders_from_latents([[0.5] * 8], [label], None)

    assert order.seed is None
    assert order.label == order.sample.label == chosen
    assert order.sample.z.dtype == np.float32
    assert order.sample.z.tolist() == [0.5] * 8


@pytest.mark.parametrize("length", [0, 7, 9])
async def test_latent_of_a_wrong_length_is_refused(make: Make, length: int) -> None:
    """The answer says which latent, how long it is and how long it has to be."""
    with pytest.raises(errors.InvalidParameters) as answer:
        make().orders_from_latents([[0.0] * 8, [0.0] * length], [None, None], None)

    (field,) = answer.value.errors
    assert (field.pointer, field.detail) == ("/latents/1", f"{length} numbers, tiny@1 takes 8")


@pytest.mark.parametrize(
    ("width", "height", "size", "expected"),
    [
        (16, 16, None, (16, 16)),
        (16, 16, 64, (64, 64)),
        (40, 20, 80, (80, 40)),
        (20, 40, 16, (8, 16)),
        (1000, 1, 16, (16, 1)),
    ],
)
async def test_size_is_the_longest_side(
    make: Make, width: int, height: int, size: int | None, expected: tuple[int, int]
) -> None:
    """The picture keeps its shape, and no side vanishes."""
    assert make(width=width, height=height).output_size(size) == expected


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
