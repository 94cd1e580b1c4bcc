"""How a generator is run: measured where it is left open, obeyed where it is said, and remembered."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.bundle import Bundle, BundleError, verify
from service.generator import load
from service.rng import latents
from service.variants import Memo, Pins, Variant, choice, choose, in_float32
from service.variants.measure import seconds_per_image

CPU = torch.device("cpu")
PINNED = Pins("float32", "channels_last", 1, 1, 4)
VARIANT = Variant("float32", "channels_last", 2, 1, 16)


@pytest.fixture(scope="module")
def bundle(tiny_models: Path) -> Bundle:
    return verify(tiny_models / "tiny" / "1")


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice.os, "sched_getaffinity", lambda pid: {0, 1})


def chosen(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, pins: Pins, **speed: Any) -> Variant:
    """Choose on a machine on which each property makes a picture take as many times as long as said."""
    loaded: dict[int, tuple[str, str]] = {}
    kept = []

    def remember(bundle: Bundle, device: torch.device, dtype: str, memory_format: str) -> object:
        generator = object()
        kept.append(generator)
        loaded[id(generator)] = (dtype, memory_format)
        return generator

    def measure(generator: object, *arguments: object, batch_images: int, **how: int) -> float:
        dtype, memory_format = loaded[id(generator)]
        threads = how.get("torch_threads", 1)
        factors = (speed.get(dtype, 1.0), speed.get(memory_format, 1.0), speed.get(f"torch{threads}", 1.0))
        return float(np.prod(factors)) * speed.get("batch", {}).get(batch_images, 1.0)

    monkeypatch.setattr(choice, "_load", remember)
    found = choose(bundle, CPU, pins, measure=measure)
    assert loaded[id(found.generator)] == (found.variant.dtype, found.variant.memory_format)
    return found.variant


@pytest.mark.parametrize(
    ("speed", "expected"),
    [
        ({}, Variant("float32", "channels_last", 2, 1, 8)),
        ({"bfloat16": 0.5}, Variant("bfloat16", "channels_last", 2, 1, 8)),
        ({"bfloat16": 0.9, "contiguous": 0.95, "torch2": 0.9}, Variant("float32", "channels_last", 2, 1, 8)),
        ({"contiguous": 0.5}, Variant("float32", "contiguous", 2, 1, 8)),
        ({"packed": 0.5, "contiguous": 0.8}, Variant("float32", "packed", 2, 1, 8)),
        ({"bfloat16": 0.5, "contiguous": 0.1}, Variant("bfloat16", "contiguous", 2, 1, 8)),
        ({"torch2": 0.5}, Variant("float32", "channels_last", 1, 2, 8)),
        ({"batch": {8: 1.2, 16: 1.0, 32: 0.99}}, Variant("float32", "channels_last", 2, 1, 16)),
        ({"batch": {8: 1.2, 16: 1.1, 32: 1.0}}, Variant("float32", "channels_last", 2, 1, 32)),
    ],
)
def test_what_is_clearly_faster_is_chosen(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, speed: dict[str, Any], expected: Variant
) -> None:
    """Noise changes nothing: the usual variant stays until another is better by a margin."""
    assert chosen(bundle, monkeypatch, Pins(), **speed) == expected


@pytest.mark.parametrize(
    ("pins", "expected"),
    [
        (Pins(dtype="float32"), Variant("float32", "contiguous", 1, 2, 32)),
        (Pins(memory_format="channels_last"), Variant("bfloat16", "channels_last", 1, 2, 32)),
        (Pins(engine_threads=3), Variant("bfloat16", "contiguous", 3, 1, 32)),
        (Pins(torch_threads=1), Variant("bfloat16", "contiguous", 2, 1, 32)),
        (Pins(engine_threads=3, torch_threads=5), Variant("bfloat16", "contiguous", 3, 5, 32)),
        (Pins(max_batch_images=5), Variant("bfloat16", "contiguous", 1, 2, 5)),
    ],
)
def test_what_is_said_is_taken(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, pins: Pins, expected: Variant) -> None:
    """The rest is chosen all the same."""
    speed = {"bfloat16": 0.5, "contiguous": 0.5, "torch2": 0.5, "batch": {8: 2.0, 16: 2.0, 32: 1.0}}

    assert chosen(bundle, monkeypatch, pins, **speed) == expected


@pytest.mark.parametrize(
    ("pins", "threads"),
    [(Pins(), (2, 1)), (Pins(engine_threads=4), (4, 1)), (Pins(torch_threads=3), (2, 3))],
)
def test_gpu_has_two_batches_in_flight(pins: Pins, threads: tuple[int, int]) -> None:
    """One is drawn while the other travels; cores have no part in it, and nothing is measured for it."""
    assert choice._threads(torch.device("cuda"), pins, lambda **how: 1 / 0) == threads


def test_nothing_is_measured_when_all_is_said_or_known(bundle: Bundle) -> None:
    """Then the start costs no measurement."""

    def never(*arguments: object, **how: object) -> float:
        raise AssertionError("measured")

    found = choose(bundle, CPU, PINNED, measure=never)
    assert (found.variant, found.measured) == (Variant("float32", "channels_last", 1, 1, 4), {})
    assert choose(bundle, CPU, Pins(), VARIANT, measure=never).variant == VARIANT


def test_real_measurement_is_of_seconds(bundle: Bundle) -> None:
    """What is compared is a number of seconds of the synthesis itself, and the log can say it."""
    seconds = seconds_per_image(
        load(bundle, CPU), bundle.manifest, CPU, batch_images=2, engine_threads=2, torch_threads=1
    )
    assert 0 < seconds < 1

    found = choose(bundle, CPU, Pins(dtype="float32", memory_format="channels_last", engine_threads=1))
    assert list(found.measured) == ["batches of 8", "batches of 16", "batches of 32"]
    assert all(0 < microseconds < 1e6 for microseconds in found.measured.values())


def test_network_that_runs_in_float32_only_is_served_in_it(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle that does not load in bfloat16 is no error, unless bfloat16 was asked for."""

    def only_float32(bundle: Bundle, device: torch.device, dtype: torch.dtype, *form: Any, **how: Any) -> object:
        if dtype != torch.float32:
            raise BundleError("mixed types")
        return load(bundle, device, dtype, *form, **how)

    monkeypatch.setattr(choice, "load", only_float32)

    assert choose(bundle, CPU, Pins(memory_format="channels_last", engine_threads=1)).variant.dtype == "float32"
    with pytest.raises(BundleError, match="mixed types"):
        choose(bundle, CPU, Pins(dtype="bfloat16"))


def test_what_cannot_be_packed_is_served_as_it_is(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lowering uses parts of torch that are not public: without them the generator runs as before."""

    def cannot(*arguments: object) -> None:
        raise AttributeError("no such operator")

    monkeypatch.setattr("service.generator.lower", cannot)

    assert choose(bundle, CPU, Pins(dtype="float32", engine_threads=1)).variant.memory_format != "packed"
    with pytest.raises(BundleError, match="no such operator"):
        choose(bundle, CPU, Pins(memory_format="packed"))


def test_packed_generator_draws_the_same_pictures(bundle: Bundle) -> None:
    """To a grey level, since the activations within the kernels round once less."""
    plain, packed = (load(bundle, CPU, packed=packed) for packed in (False, True))
    z, label = torch.randn(5, bundle.manifest.z_dim), torch.arange(5) % 3
    with torch.inference_mode():
        a, b = (one(z, label, torch.full((5,), 0.7)).numpy().astype(int) for one in (plain, packed))

    assert np.abs(a - b).max() <= 1


def test_reduced_pictures_are_close(bundle: Bundle) -> None:
    """bfloat16 keeps 8 bits: the same picture to a few grey levels; the styles are the same numbers."""
    reduced = choose(bundle, CPU, Pins("bfloat16", "channels_last", 1, 1, 4))
    exact = in_float32(bundle, CPU, reduced.variant, Pins())
    assert exact is not None
    assert exact.variant == Variant("float32", "channels_last", 1, 1, 4)
    z = torch.from_numpy(latents(range(8), bundle.manifest.z_dim))
    label, psi = torch.arange(8) % 3, torch.full((8,), 0.7)
    with torch.inference_mode():
        assert torch.equal(exact.generator.mapping(z, label), reduced.generator.mapping(z, label))
        a = exact.generator(z, label, psi).numpy().astype(int)
        b = reduced.generator(z, label, psi).numpy().astype(int)

    assert reduced.generator.w_avg.dtype == torch.float32
    assert np.abs(a - b).mean() < 2
    assert not np.array_equal(a, b)


def test_plainer_variant_obeys_the_pins(bundle: Bundle) -> None:
    """What was asked for is not left; where nothing else is left to change, there is no plainer one."""
    packed = Variant("bfloat16", "packed", 1, 1, 4, (4,), "f")

    def plainer(variant: Variant, pins: Pins) -> Variant | None:
        found = in_float32(bundle, CPU, variant, pins)
        return None if found is None else found.variant

    assert plainer(packed, Pins()) == Variant("float32", "channels_last", 1, 1, 4)
    assert plainer(packed, Pins(dtype="bfloat16")) == Variant("bfloat16", "channels_last", 1, 1, 4)
    assert plainer(packed, Pins(memory_format="packed")) == Variant("float32", "packed", 1, 1, 4)
    assert plainer(packed, Pins(dtype="bfloat16", memory_format="packed")) is None
    assert plainer(VARIANT, Pins()) is None


def test_memo_keeps_a_variant_for_its_bundle_and_pins(tmp_path: Path) -> None:
    """Another bundle or other settings are another measurement."""
    memo = Memo(tmp_path)
    assert memo.find("a" * 64, CPU, Pins()) is None
    memo.keep("a" * 64, CPU, Pins(), VARIANT)
    memo.keep("b" * 64, CPU, PINNED, VARIANT)

    again = Memo(tmp_path)
    assert again.find("a" * 64, CPU, Pins()) == again.find("b" * 64, CPU, PINNED) == VARIANT
    assert again.find("a" * 64, CPU, PINNED) is None
    assert again.find("b" * 64, CPU, Pins()) is None
    assert [path.name for path in tmp_path.iterdir()] == [".variants.json"]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 1}', "\xff"])
def test_spoilt_memo_costs_a_measurement_only(tmp_path: Path, content: str) -> None:
    """It is read as empty, and written anew."""
    memo = Memo(tmp_path)
    (tmp_path / ".variants.json").write_text(content, encoding="latin-1")
    assert memo.find("a" * 64, CPU, Pins()) is None
    memo.keep("a" * 64, CPU, Pins(), VARIANT)
    assert memo.find("a" * 64, CPU, Pins()) == VARIANT


@pytest.mark.parametrize("entry", [{"dtype": "float32"}, {"colour": 1}, None, [], 7])
def test_entry_of_another_version_is_not_trusted(tmp_path: Path, entry: object) -> None:
    """A variant is all of its fields or none."""
    memo = Memo(tmp_path)
    memo.keep("a" * 64, CPU, Pins(), VARIANT)
    path = tmp_path / ".variants.json"
    (key,) = json.loads(path.read_text())
    path.write_text(json.dumps({key: entry}))
    assert memo.find("a" * 64, CPU, Pins()) is None


def test_memo_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go; what was kept last stays."""
    monkeypatch.setattr("service.variants.memo.MAX_ENTRIES", 2)
    memo = Memo(tmp_path)
    for name in "abc":
        memo.keep(name * 64, CPU, Pins(), VARIANT)
    assert [memo.find(name * 64, CPU, Pins()) for name in "abc"] == [None, VARIANT, VARIANT]


def test_folder_that_cannot_be_written_to_is_no_error(tmp_path: Path) -> None:
    """As in a container, where the models are mounted for reading."""
    memo = Memo(tmp_path / "missing")
    memo.keep("a" * 64, CPU, Pins(), VARIANT)
    assert memo.find("a" * 64, CPU, Pins()) is None
