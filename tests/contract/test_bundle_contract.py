"""The bundle, from both sides: what training writes is what the service reads, checks and draws."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import service.bundle
import service.generator
import service.manifest
import service.rng
import training.latents
import training.manifest
from service.batcher import Terms
from service.bundle import Bundle
from service.catalogue import Catalogue
from service.encoder import Encoder
from service.engine import LocalEngine, check_golden
from service.generator import Generator
from service.metrics import Metrics
from service.operators import forbidden_operators
from service.sample import Sample
from service.settings import Settings
from tests.builders import (
    export_tiny_bundle,
    random_networks,
    rewrite_manifest,
    tiny_facts,
    tiny_generator,
    tiny_pictures,
)
from training.data import to_float, to_uint8
from training.directions import Direction
from training.export import ExportedGenerator, export_bundle, mean_styles
from training.generators import from_bundle, sample
from training.manifest import DirectionEntry
from training.networks.classic import ClassicConfig
from training.networks.families import Architecture
from training.networks.style_residual import StyleResidualConfig

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data/philox_bm_1.json").read_text("utf-8"))
CPU = torch.device("cpu")
# So far every machine gave equal bytes. Another order of the same float32 operations (a matrix product that picks its
# kernel by the number of rows, `w_avg + 1 * (w - w_avg)` for w) may move a value across one rounding boundary.
ROUNDING = 1


@dataclass(frozen=True)
class Served:
    """An exported bundle, the generator it was made from, and both on the service's side."""

    folder: Path
    exported: ExportedGenerator
    bundle: Bundle
    generator: Generator

    def inputs(self, count: int) -> tuple[Tensor, Tensor]:
        z = training.latents.latents(range(count), self.bundle.manifest.z_dim)
        return z, torch.arange(count) % max(self.bundle.manifest.num_classes, 1)

    def draw(self, psi: float, count: int = 6) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return the engine's pictures of the first seeds, uint8 (N, H, W, C)."""
        z, labels = self.inputs(count)
        engine = LocalEngine(self.generator, self.bundle.manifest, device=CPU, max_batch_size=count, threads=1)
        samples = [Sample(row, label, psi) for row, label in zip(z.numpy(), labels.tolist(), strict=True)]
        try:
            return np.stack(asyncio.run(engine.generate(samples)))
        finally:
            asyncio.run(engine.drain())


KINDS = {"conditional": (1, 3), "unconditional": (1, 0), "one class": (1, 1), "rgb": (3, 3), "rgba": (4, 2)}


@pytest.fixture(scope="module", params=KINDS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Served:
    """Return a bundle of each kind: with and without labels, of every number of channels."""
    channels, num_classes = KINDS[request.param]
    folder = export_tiny_bundle(tmp_path_factory.mktemp("models"), channels=channels, num_classes=num_classes)
    generator = tiny_generator(channels=channels, num_classes=num_classes)
    exported = ExportedGenerator(generator, mean_styles(generator)).eval()
    bundle = service.bundle.verify(folder)
    return Served(folder, exported, bundle, service.generator.load(bundle, CPU))


@pytest.fixture
def encoder() -> Iterator[Encoder]:
    encoder = Encoder(1)
    yield encoder
    encoder.close()


async def test_exported_bundle_is_served(tiny_models: Path, encoder: Encoder) -> None:
    """What the export writes is verified, loaded and warmed, and gives pictures by seed, with nothing to be done."""
    settings = Settings(
        models_dir=tiny_models, auth="off", get_policy="open", dtype="float32", max_batch_images=4, engine_threads=1
    )
    catalogue = Catalogue(settings, encoder, Metrics())
    await catalogue.load()
    try:
        model = catalogue.get("tiny@1")
        orders = model.resolver.orders([7, 8], [None, model.resolver.label("handbag")], None)
        pixels, _ = await model.draw([order.sample for order in orders], Terms(60))
    finally:
        await catalogue.drain(1)

    assert catalogue.refused == {}
    assert [picture.shape for picture in pixels] == [(16, 16, 1)] * 2
    assert orders[1].label == 1
    assert not np.array_equal(*pixels)


def test_bundle_with_a_report_is_accepted(tmp_path: Path) -> None:
    """A page for people is one more listed file: its digest is checked, and nothing else of it is looked at."""
    facts = tiny_facts(name="told", version=1)
    folder = export_bundle(tiny_generator(), facts, tmp_path, report="<!doctype html><p>What it is.")
    assert "report.html" in service.bundle.verify(folder).manifest.files
    service.generator.load(service.bundle.verify(folder), CPU)

    (folder / "report.html").write_text("<!doctype html><p>What it IS.", encoding="utf-8")
    with pytest.raises(service.bundle.BundleError, match=r"report\.html has SHA-256"):
        service.bundle.verify(folder)


def test_golden_pictures_hold_on_the_side_of_the_service(served: Served) -> None:
    """The loaded generator draws the pictures that the export noted, well inside their tolerance."""
    for golden in served.bundle.manifest.golden:
        z = service.rng.latents([golden.seed], served.bundle.manifest.z_dim)
        psi = torch.tensor([golden.truncation_psi])
        pixels = served.generator(torch.from_numpy(z), torch.tensor([golden.label]), psi)[0].numpy()

        check_golden(pixels, golden.model_copy(update={"tolerance": ROUNDING}))


def test_golden_pictures_tell_every_label(served: Served) -> None:
    """The golden pictures are of several seeds and labels, so no part of the generator escapes them."""
    goldens, num_classes = served.bundle.manifest.golden, served.bundle.manifest.num_classes

    assert len({golden.seed for golden in goldens}) == len(goldens) == 4
    assert {golden.label for golden in goldens} == set(range(max(num_classes, 1)))


@pytest.mark.parametrize("psi", [0.0, 0.5, 1.0])
def test_module_and_engine_draw_the_same(served: Served, psi: float) -> None:
    """The module's `forward` and the engine's mapping, truncation and synthesis agree to one grey level."""
    z, labels = served.inputs(6)
    forward = served.generator(z, labels, torch.full((6,), psi)).numpy()

    difference = np.abs(forward.astype(int) - served.draw(psi)).max()

    assert difference <= ROUNDING
    if psi == 0:
        assert difference == 0  # w_avg + 0 * (w - w_avg) has nothing to round


@pytest.mark.parametrize("psi", [0.0, 0.5, 1.0])
def test_module_draws_the_trained_generators_pictures(served: Served, psi: float) -> None:
    """Scripting, saving, loading and freezing change nothing that can be seen."""
    z, labels = served.inputs(6)
    strength = torch.full((6,), psi)
    with torch.inference_mode():
        expected = served.exported(z, labels, strength).numpy()

    assert np.abs(served.generator(z, labels, strength).numpy().astype(int) - expected).max() <= ROUNDING


def test_engine_at_psi_one_draws_the_trained_generators_pictures(served: Served) -> None:
    """Without truncation the service shows what training's own samples show."""
    z, labels = served.inputs(6)

    trained = sample(from_bundle(served.folder).generator, z, labels).numpy()

    assert np.abs(trained.astype(int) - served.draw(1.0)).max() <= ROUNDING


def test_truncation_moves_pictures_towards_the_labels_mean(served: Served) -> None:
    """At psi 0 all seeds of a label are one picture, the one of its mean style; at psi 1 they differ."""
    num_classes = max(served.bundle.manifest.num_classes, 1)
    truncated, free = (served.draw(psi, count=2 * num_classes) for psi in (0.0, 1.0))
    means = served.generator.synthesis(served.generator.w_avg).numpy()

    assert np.array_equal(truncated, np.concatenate([means, means]))
    assert not any(np.array_equal(free[label], free[label + num_classes]) for label in range(num_classes))


def test_durable_form_rebuilds_the_pictures_bit_for_bit(served: Served) -> None:
    """`weights.safetensors` and `architecture.json` give the TorchScript module's pictures without TorchScript."""
    z, labels = served.inputs(6)
    rebuilt = from_bundle(served.folder).generator
    with torch.inference_mode():
        w = rebuilt.mapping(z, labels)
        pixels = to_uint8(rebuilt.synthesis(w))
        expected_w = served.generator.mapping(z, labels)
        expected = served.generator.synthesis(expected_w)

    assert torch.equal(w, expected_w)
    assert torch.equal(pixels, expected)


# All classic systems, at the smallest size of each, and the modern family with colours and alpha.
FAMILIES: dict[str, Architecture] = {
    "classic-conv4": ClassicConfig("conv4", 1, 3, 28),
    "classic-mlp-lsgan": ClassicConfig("mlp-lsgan", 1, 3, 8),
    "classic-dcgan64": ClassicConfig("dcgan64", 3, 3, 64),
    "classic-gen7": ClassicConfig("gen7", 1, 0, 28),
    "classic-mlp-bn": ClassicConfig("mlp-bn", 1, 3, 8),
    "rgb": StyleResidualConfig(3, 3, base_size=4, widths=(16, 16), z_dim=8, w_dim=16),
    "rgba": StyleResidualConfig(4, 3, base_size=4, widths=(16, 16), z_dim=8, w_dim=16),
    "rgba, unconditional": StyleResidualConfig(4, 0, base_size=4, widths=(16, 16), z_dim=8, w_dim=16),
}


@dataclass(frozen=True)
class Whole:
    """A bundle with every file that there may be, and the networks that it was made from."""

    folder: Path
    architecture: Architecture
    discriminator: torch.nn.Module


def export_whole(config: Architecture, models_dir: Path) -> Whole:
    """Export such a bundle of random networks, with one direction in place of those that would be found."""
    generator, discriminator = random_networks(config)
    data = tiny_pictures(channels=config.channels, num_classes=config.num_classes, size=config.resolution)
    facts = tiny_facts(name="whole", version=1, num_classes=config.num_classes)
    vector = torch.nn.functional.one_hot(torch.zeros(config.num_ws, dtype=torch.int64), config.w_dim).float()
    entry = DirectionEntry(name="size", kind="named", range=(-2.0, 3.0), strength=0.9, effect=0.2)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("training.directions.find_directions", lambda *_: [Direction(entry, vector)])
        patched.setattr("training.calibration.MAX_PER_LABEL", 12)
        folder = export_bundle(generator, facts, models_dir, discriminator=discriminator, data=data)
    return Whole(folder, config, discriminator)


@pytest.fixture(scope="module", params=FAMILIES)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Whole:
    """Return a bundle with everything, of each family."""
    return export_whole(FAMILIES[request.param], tmp_path_factory.mktemp("models"))


@pytest.fixture
def rgba(tmp_path: Path, one_thread: None) -> Path:
    """Return the folder of a bundle with everything that the test may spoil."""
    return export_whole(FAMILIES["rgba"], tmp_path).folder


def test_whole_bundle_is_verified_loaded_and_drawn(whole: Whole) -> None:
    """The service takes a bundle with every file, of every family, and draws from it."""
    bundle = service.bundle.verify(whole.folder)
    generator = service.generator.load(bundle, CPU)
    z = training.latents.latents(range(2), whole.architecture.z_dim)

    assert {"discriminator.pt", "directions.safetensors"} < set(bundle.manifest.files)
    assert bundle.manifest.discriminator is not None
    assert [direction.name for direction in bundle.manifest.directions] == ["size"]
    assert generator(z, torch.zeros(2, dtype=torch.int64), torch.ones(2)).shape[0] == 2


def test_damaged_discriminator_is_refused(rgba: Path) -> None:
    """Its digest counts as every file's does."""
    content = bytearray((rgba / "discriminator.pt").read_bytes())
    content[-1] ^= 1
    (rgba / "discriminator.pt").write_bytes(content)

    with pytest.raises(service.bundle.BundleError, match=r"discriminator\.pt has SHA-256"):
        service.bundle.verify(rgba)


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m["files"].pop("discriminator.pt"), "files does not list discriminator.pt"),
        (lambda m: m["files"].pop("directions.safetensors"), "files does not list directions.safetensors"),
        (lambda m: m["discriminator"]["labels"].append(m["discriminator"]["labels"][0]), "discriminator.labels has"),
        (lambda m: m["discriminator"]["levels"].pop(), r"discriminator.labels\[0\] has no ascending quantile"),
        (lambda m: m["discriminator"]["labels"][0]["samples"].reverse(), r"labels\[0\] has no ascending quantile"),
        (lambda m: m["directions"].append(m["directions"][0]), "directions has a name twice"),
        (lambda m: m["directions"][0].update(range=[1.0, 2.0]), r"the range \[1.0, 2.0\] of size is not around 0"),
        (lambda m: m["directions"][0].update(kind="guessed"), "directions.0.kind: Input should be 'named' or"),
    ],
)
def test_entry_that_does_not_hang_together_is_refused(rgba: Path, change: Change, reason: str) -> None:
    """The reason names what is wrong with the discriminator or the directions."""
    rewrite_manifest(rgba, change)

    with pytest.raises(service.bundle.BundleError, match=reason):
        service.bundle.verify(rgba)


def test_discriminator_calls_allowed_operators_only(whole: Whole) -> None:
    """A service that will load it needs no wider allow-list than for generators."""
    assert forbidden_operators(whole.folder / "discriminator.pt") == []


def test_discriminator_scores_as_in_training(whole: Whole) -> None:
    """Pixels in, the trained network's logits out, without TorchScript changing them."""
    config, loaded = whole.architecture, torch.jit.load(whole.folder / "discriminator.pt")
    pixels = tiny_pictures(channels=config.channels, size=config.resolution).holdout.images[:6]
    label = torch.arange(6) % max(config.num_classes, 1)
    with torch.inference_mode():
        scores, expected = loaded.score(pixels, label), whole.discriminator(to_float(pixels), label)

    assert scores.dtype == torch.float32
    assert scores.shape == (6,)
    assert torch.allclose(scores, expected, atol=1e-5)


def test_directions_have_the_shape_of_styles(whole: Whole) -> None:
    """A direction is added to w as it is: a row per style, of length 1 or 0."""
    tensors = safetensors.torch.load_file(whole.folder / "directions.safetensors")

    assert set(tensors) == {"size"}
    assert tensors["size"].shape == (whole.architecture.num_ws, whole.architecture.w_dim)


def test_every_family_is_rebuilt_bit_for_bit(whole: Whole) -> None:
    """The durable form gives styles and pictures of the TorchScript module, batch norms and alpha included."""
    config, loaded = whole.architecture, torch.jit.load(whole.folder / "generator.pt")
    rebuilt = from_bundle(whole.folder).generator
    z = training.latents.latents(range(6), config.z_dim)
    label = torch.arange(6) % max(config.num_classes, 1)
    with torch.inference_mode():
        w = rebuilt.mapping(z, label)  # type: ignore[operator]
        loaded.to(memory_format=torch.channels_last)
        assert torch.equal(w, loaded.mapping(z, label))
        assert torch.equal(to_uint8(rebuilt.synthesis(w)), loaded.synthesis(w))  # type: ignore[operator]


def test_bundle_lists_each_of_its_files(served: Served) -> None:
    """The manifest names every file of the folder but itself, so that nothing in it goes unchecked."""
    files = {file.name for file in served.folder.iterdir()}

    assert set(served.bundle.manifest.files) == files - {"manifest.json"}
    assert files >= {"generator.pt", "weights.safetensors", "architecture.json", "samples.png"}


def _fields(model: dict[str, Any]) -> dict[str, tuple[set[str], set[str]]]:
    """Return names and required names of the fields of a JSON schema's root and of its parts."""
    parts = {"": model, **model["$defs"]}
    return {name: (set(part["properties"]), set(part.get("required", ()))) for name, part in parts.items()}


def test_both_sides_have_the_same_manifest() -> None:
    """Writer and reader know the same fields; the reader leaves open only what is shown and not acted upon."""
    writer = _fields(training.manifest.Manifest.model_json_schema())
    reader = _fields(service.manifest.Manifest.model_json_schema())

    assert {name: fields for name, fields in writer.items() if name not in ("MetricEntry", "TrainingFacts")} == reader


def test_both_sides_keep_the_same_bounds() -> None:
    """A number or pattern that the writer lets pass is not refused by the reader, nor the other way round."""
    writer, reader = (m.model_json_schema() for m in (training.manifest.Manifest, service.manifest.Manifest))
    bounds = ("minimum", "maximum", "exclusiveMaximum", "pattern", "const", "minLength", "maxLength", "minItems")

    for part in ("", *reader["$defs"]):
        ours, theirs = (schema["$defs"][part] if part else schema for schema in (writer, reader))
        for name, field in theirs["properties"].items():
            if name in ("bytes", "channels"):  # the reader also refuses 4 GiB, and 2 channels
                continue
            mine = ours["properties"][name]
            assert {b: field.get(b) for b in bounds} == {b: mine.get(b) for b in bounds}, f"{part}.{name}"


def test_manifest_survives_the_way_unchanged(served: Served) -> None:
    """Every value that the export wrote arrives in the reader's model, defaults included."""
    written = training.manifest.Manifest.model_validate_json((served.folder / "manifest.json").read_bytes())

    assert served.bundle.manifest.model_dump(mode="json") == written.model_dump(mode="json")


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**53 - 1), min_size=1, max_size=5), st.integers(1, 70))
def test_both_sides_draw_the_same_latents(seeds: list[int], z_dim: int) -> None:
    """A seed means the same latent, bit for bit, where pictures are judged and where they are served."""
    ours, theirs = training.latents.latents(seeds, z_dim).numpy(), service.rng.latents(seeds, z_dim)

    assert ours.dtype == theirs.dtype == np.float32
    assert ours.shape == theirs.shape == (len(seeds), z_dim)
    assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("entry", VECTORS["latents"], ids=lambda entry: str(entry["seed"]))
def test_latents_are_the_published_ones(entry: dict[str, Any]) -> None:
    """Both sides give the vectors that anybody can check an implementation of `philox-bm-1` against."""
    expected = np.array([entry["latents"]], np.float32)
    seeds, z_dim = [int(entry["seed"])], expected.shape[1]

    assert np.array_equal(training.latents.latents(seeds, z_dim).numpy(), expected)
    assert np.array_equal(service.rng.latents(seeds, z_dim), expected)
    assert VECTORS["name"] == training.latents.RNG_NAME
