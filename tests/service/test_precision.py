"""The type that pictures are computed in: measured where it is left open, obeyed where it is said."""

from pathlib import Path

import numpy as np
import pytest
import torch

from service import precision
from service.bundle import Bundle, BundleError, verify
from service.generator import load
from service.precision import candidates
from service.rng import latents

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bundle(tiny_models: Path) -> Bundle:
    return verify(tiny_models / "tiny" / "1")


@pytest.mark.parametrize(
    ("float32_s", "bfloat16_s", "names"),
    [(1.0, 0.5, ["bfloat16", "float32"]), (1.0, 0.9, ["float32"]), (1.0, 9.0, ["float32"])],
)
def test_faster_type_comes_first(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, float32_s: float, bfloat16_s: float, names: list[str]
) -> None:
    """bfloat16 has to be worth it; float32 is always there to fall back on."""
    seconds = iter([float32_s, bfloat16_s])
    monkeypatch.setattr(precision, "_seconds", lambda *arguments: next(seconds))

    assert [name for name, _ in candidates(bundle, CPU, "auto", 4)] == names


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_type_that_is_said_is_taken(bundle: Bundle, name: str) -> None:
    """Nothing is measured, and there is nothing to fall back on."""
    ((chosen, _),) = candidates(bundle, CPU, name, 4)

    assert chosen == name


def test_measurement_takes_time(bundle: Bundle) -> None:
    """What is compared is a number of seconds of the synthesis itself."""
    assert 0 < precision._seconds(load(bundle, CPU), bundle, CPU, 2) < 10


def test_network_that_runs_in_float32_only_is_served_in_it(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle that does not load in bfloat16 is no error, unless bfloat16 was asked for."""

    def only_float32(bundle: Bundle, device: torch.device, dtype: torch.dtype = torch.float32) -> object:
        if dtype != torch.float32:
            raise BundleError("mixed types")
        return load(bundle, device)

    monkeypatch.setattr(precision, "load", only_float32)

    assert [name for name, _ in candidates(bundle, CPU, "auto", 4)] == ["float32"]
    with pytest.raises(BundleError, match="mixed types"):
        candidates(bundle, CPU, "bfloat16", 4)


def test_reduced_pictures_are_close(bundle: Bundle) -> None:
    """bfloat16 keeps 8 bits: the same picture to a few grey levels; the styles are the same numbers."""
    exact, reduced = load(bundle, CPU), load(bundle, CPU, torch.bfloat16)
    z = torch.from_numpy(latents(range(8), bundle.manifest.z_dim))
    label, psi = torch.arange(8) % 3, torch.full((8,), 0.7)
    with torch.inference_mode():
        assert torch.equal(exact.mapping(z, label), reduced.mapping(z, label))
        a, b = exact(z, label, psi).numpy().astype(int), reduced(z, label, psi).numpy().astype(int)

    assert reduced.w_avg.dtype == torch.float32
    assert np.abs(a - b).mean() < 2
    assert not np.array_equal(a, b)
