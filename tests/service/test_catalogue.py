"""The models that are served: what is found, what is refused and why, and which one a name means."""

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from service.batcher import Terms
from service.bundle import Bundle
from service.catalogue import Catalogue
from service.encoder import Encoder
from service.errors import ModelNotFound, ShuttingDown, Starting
from service.generator import load
from service.metrics import Metrics
from service.pipeline import ServedModel
from service.variants import Candidate, Pins, Variant
from tests.builders import rewrite_manifest
from tests.service.api.harness import FakeEngine, a_bundle, settings, until

Make = Callable[..., Catalogue]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """Return a function that makes a catalogue of a models folder, drained at the end of the test."""
    made: list[Catalogue] = []
    encoder = Encoder(1)

    def catalogue(models_dir: Path = tmp_path / "models", **changes: Any) -> Catalogue:
        made.append(Catalogue(settings(models_dir, **({"max_batch_images": 1} | changes)), encoder, Metrics()))
        return made[-1]

    yield catalogue
    for one in made:
        await one.drain(1)
    encoder.close()


def fake(catalogue: Catalogue, name: str = "tiny", version: int = 1) -> FakeEngine:
    """Serve a model whose engine the test holds."""
    bundle = a_bundle(name=name, version=version)
    engine = FakeEngine(bundle.manifest)
    encoder = catalogue._encoder
    catalogue.add(ServedModel(bundle, engine, encoder=encoder, metrics=Metrics(), max_queue_images=8))
    return engine


def copy_of(folder: Path, version: int, name: str = "tiny") -> Path:
    """Put a bundle beside itself under another name and version."""
    target = folder.parents[1] / name / str(version)
    shutil.copytree(folder, target)
    rewrite_manifest(target, lambda manifest: manifest.update(name=name, version=version))
    return target


@pytest.mark.usefixtures("one_thread")
async def test_models_are_loaded_and_bad_ones_noted(make: Make, tiny_copy: Path) -> None:
    """A bundle that does not hold is refused with its reason, and the others are served."""
    spoilt = copy_of(tiny_copy, 2)
    with (spoilt / "generator.pt").open("ab") as file:
        file.write(b"\0")
    copy_of(tiny_copy, 1, "other")
    catalogue = make()
    await catalogue.load()

    size = (spoilt / "generator.pt").stat().st_size
    assert catalogue.refused == {"tiny@2": f"generator.pt has {size} bytes, the manifest says {size - 1}"}
    assert [model.manifest.id for model in catalogue] == ["other@1", "tiny@1"]
    assert catalogue.loaded
    assert catalogue.reasons() == []
    pixels, _ = await catalogue.get("tiny").draw(
        [catalogue.get("tiny").resolver.orders([7], [None], None)[0].sample], Terms(60)
    )
    assert pixels[0].shape == (16, 16, 1)


@pytest.mark.usefixtures("one_thread")
async def test_bundle_that_draws_other_pictures_is_refused(make: Make, tiny_copy: Path) -> None:
    """The golden pictures are drawn before a model is served."""
    black = base64.b64encode(bytes(256)).decode()
    rewrite_manifest(tiny_copy, lambda manifest: manifest["golden"][0].update(thumbnail=black))
    catalogue = make()
    await catalogue.load()

    assert list(catalogue) == []
    assert "golden picture of seed 1, label 0 differs by" in catalogue.refused["tiny@1"]
    assert catalogue.reasons()[0] == "the default model tiny is not served"
    assert "tiny@1: golden picture" in catalogue.reasons()[1]


async def test_bundle_that_crashes_takes_nothing_down(
    make: Make, tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that nobody thought of is that bundle's, and says no more than its kind."""

    def crash(*arguments: object, **how: object) -> None:
        raise KeyError("secret")

    monkeypatch.setattr("service.variants.choice.load", crash)
    catalogue = make()
    await catalogue.load()

    assert catalogue.refused == {"tiny@1": "KeyError while loading"}
    assert catalogue.loaded


async def test_model_falls_back_to_float32(make: Make, tiny_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shorter type is used only where the golden pictures hold in it; the metrics name the one that serves."""

    def wrong(bundle: Bundle, device: torch.device, pins: Pins, known: Variant | None) -> Candidate:
        right = load(bundle, device)
        inverted = Mock(w_avg=right.w_avg, mapping=right.mapping, synthesis=lambda w: 255 - right.synthesis(w))
        return Candidate(Variant("bfloat16", "channels_last", 1, 1, 2), inverted)

    monkeypatch.setattr("service.catalogue.choose", wrong)
    catalogue = make(dtype="auto")
    await catalogue.load()
    (model,) = catalogue
    await catalogue.drain(1)

    assert catalogue.refused == {}
    assert model.engine.dtype == "float32"
    (kept,) = json.loads((tiny_copy.parents[1] / ".variants.json").read_text()).values()
    assert kept["dtype"] == "float32"  # so that the next start does not try in vain


async def test_variant_is_measured_once(make: Make, tiny_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next start takes what the first one found, and draws the same bytes."""
    first = make(dtype="auto")
    await first.load()
    monkeypatch.setattr("service.variants.choice._measured", Mock(side_effect=AssertionError("measured again")))
    monkeypatch.setattr("service.engine.exactness.PROBE_BYTES", 10**12)  # which would take for ever
    second = make(dtype="auto")
    await second.load()

    (before,), (after,) = first, second
    assert before.identity == after.identity
    assert before.engine.status().batch_sizes == after.engine.status().batch_sizes
    assert second.refused == {}


async def test_sizes_are_found_anew_when_the_engine_draws_otherwise(
    make: Make, tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A processor, a library or our own code may have changed in a way that the memo's key does not show."""
    first = make(max_batch_images=4)
    await first.load()
    path = tiny_copy.parents[1] / ".variants.json"
    kept = json.loads(path.read_text())
    (key,) = kept
    path.write_text(json.dumps({key: kept[key] | {"batch_sizes": [4], "fingerprint": "of another"}}))
    second = make(max_batch_images=4)
    await second.load()

    assert json.loads(path.read_text()) == kept
    (before,), (after,) = first, second
    assert before.engine.status().batch_sizes == after.engine.status().batch_sizes != (4,)


async def test_sizes_that_are_not_exact_are_not_remembered_as_such(
    make: Make, tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a service that was told to be fast did says nothing of one that shall be exact."""
    monkeypatch.setattr("service.engine.local.exact_sizes", lambda draw, w, expected, sizes: {max(sizes)})
    sizes = []
    for determinism in ("fast", "exact", "fast", "exact"):
        catalogue = make(determinism=determinism, max_batch_images=4)
        await catalogue.load()
        (model,) = catalogue
        sizes.append(len(model.engine.status().batch_sizes))
        await catalogue.drain(1)

    assert sizes[0] == sizes[2] > 1
    assert sizes[1] == sizes[3] == 1


async def test_missing_gpu_is_the_reason(make: Make, tiny_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for CUDA on a machine without it reads so in the probe."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    catalogue = make(device="cuda")
    await catalogue.load()

    assert catalogue.refused["tiny@1"].startswith("VITRINE_DEVICE=cuda, but this torch sees no CUDA device")


async def test_missing_models_folder_is_the_reason(make: Make, tmp_path: Path) -> None:
    """The folder that was looked for is named, in the probe and in the answers."""
    catalogue = make(tmp_path / "nowhere")
    await catalogue.load()

    reason = f"models folder {tmp_path / 'nowhere'}: No such file or directory"
    assert catalogue.reasons() == ["the default model is not served", f"*: {reason}"]
    with pytest.raises(Starting, match="No such file or directory"):
        catalogue.get(None)


async def test_empty_models_folder_is_the_reason(make: Make, tmp_path: Path) -> None:
    """An empty folder is not mistaken for models that are still being loaded."""
    catalogue = make(tmp_path)
    await catalogue.load()

    reasons = ["the default model is not served", f"the models folder {tmp_path} holds no bundle"]
    assert catalogue.reasons() == reasons
    with pytest.raises(Starting) as answer:
        catalogue.get(None)
    assert answer.value.detail == "; ".join(reasons)
    with pytest.raises(ModelNotFound, match="unknown model 'tiny'; there are: none"):
        catalogue.get("tiny")


async def test_nothing_is_found_before_the_models_are_loaded(make: Make) -> None:
    """Until then no model is unknown: it may be on its way, so the client is told to come back."""
    catalogue = make()

    assert catalogue.reasons() == ["models are being loaded"]
    for name in (None, "tiny", "tiny@1", "nonsense"):
        with pytest.raises(Starting, match="models are being loaded") as answer:
            catalogue.get(name)
        assert answer.value.headers == {"Retry-After": "2"}


async def test_name_means_its_newest_version(make: Make) -> None:
    """Versions are compared as numbers, and each can be asked for."""
    catalogue = make()
    for version in (9, 10, 2):
        fake(catalogue, version=version)
    fake(catalogue, "zebra")
    catalogue.loaded = True

    assert catalogue.get("tiny").manifest.id == "tiny@10"
    assert catalogue.get("tiny@2").manifest.id == "tiny@2"
    assert [model.manifest.id for model in catalogue] == ["tiny@10", "tiny@9", "tiny@2", "zebra@1"]


@pytest.mark.parametrize(
    "name", ["", "@", "@1", "nobody", "tiny@3", "tiny@01", "tiny@", "tiny@²", "tiny@1@1", "tiny@" + "1" * 5000]
)
async def test_unknown_model_is_not_found(make: Make, name: str) -> None:
    """The answer lists the models that there are, whatever was asked for."""
    catalogue = make(default_model="tiny")
    fake(catalogue)
    catalogue.loaded = True

    with pytest.raises(ModelNotFound, match="there are: tiny@1"):
        catalogue.get(name)


@pytest.mark.parametrize(("default", "served"), [("tiny@1", "tiny@1"), ("tiny", "tiny@2"), ("other", "other@1")])
async def test_default_model_is_the_configured_one(make: Make, default: str, served: str) -> None:
    """The default is a name, or a name and a version."""
    catalogue = make(default_model=default)
    for name, version in (("tiny", 1), ("tiny", 2), ("other", 1)):
        fake(catalogue, name, version)
    catalogue.loaded = True

    assert catalogue.reasons() == []
    assert catalogue.get(None).manifest.id == served


async def test_missing_default_model_makes_the_service_unready(make: Make) -> None:
    """A version that is not served is no default, even if another version of that model is."""
    catalogue = make(default_model="tiny@2")
    fake(catalogue)
    catalogue.loaded = True

    assert catalogue.reasons()[0] == "the default model tiny@2 is not served"
    with pytest.raises(Starting):
        catalogue.get(None)
    assert catalogue.get("tiny").manifest.id == "tiny@1"


async def test_refused_model_says_why(make: Make) -> None:
    """A model all of whose versions were refused is out of order, not unknown."""
    catalogue = make(default_model="tiny")
    fake(catalogue)
    catalogue.refused = {"broken@1": "generator.pt is missing"}
    catalogue.loaded = True

    for name in ("broken", "broken@1"):
        with pytest.raises(Starting, match=r"broken@1: generator\.pt is missing"):
            catalogue.get(name)
    assert catalogue.reasons() == []


async def test_draining_is_a_reason(make: Make) -> None:
    """A server that stops is not ready, though it still answers."""
    catalogue = make(default_model="tiny")
    catalogue.draining = True
    with pytest.raises(ShuttingDown):
        catalogue.get(None)

    fake(catalogue)
    catalogue.loaded = True
    assert catalogue.reasons() == ["draining"]
    assert catalogue.get(None).manifest.id == "tiny@1"


@asynccontextmanager
async def _held(catalogue: Catalogue, engine: FakeEngine, count: int) -> AsyncIterator[Awaitable[Any]]:
    """Yield a drawing of `count` pictures whose first batch the engine holds."""
    engine.open.clear()
    model = catalogue.get(None)
    samples = [order.sample for order in model.resolver.orders(range(count), [0] * count, None)]
    drawing = asyncio.create_task(model.draw(samples, Terms(60)))
    await until(lambda: bool(engine.batches))
    yield drawing
    engine.open.set()


async def test_stalled_model_is_named(make: Make) -> None:
    """A batch that runs for longer than the limit is reported, one that has just begun is not."""
    patient, hasty = (make(default_model="tiny", stall_s=limit) for limit in (3600, 1e-9))
    for catalogue in (patient, hasty):
        engine = fake(catalogue)
        assert catalogue.stalled() == []
        async with _held(catalogue, engine, 1) as drawing:
            stalled = catalogue.stalled()
        await drawing
        assert bool(stalled) == (catalogue is hasty)
    assert stalled == ["tiny@1: a batch has been running for more than 1e-09 s"]


async def test_drain_finishes_what_is_queued_and_closes_the_engines(make: Make) -> None:
    """Every picture that was promised is drawn before the device is given back."""
    catalogue = make(default_model="tiny")
    engine = fake(catalogue)
    async with _held(catalogue, engine, 6) as drawing:
        draining = asyncio.create_task(catalogue.drain(60))
        await asyncio.sleep(0)
        assert not engine.closed
    await draining
    pixels, _ = await drawing

    assert len(pixels) == 6
    assert np.all(pixels[0] == 0)
    assert engine.closed
