import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from training import checkpoint
from training.errors import TrainingError
from training.generators import from_snapshot
from training.networks.families import build_discriminator, build_generator
from training.networks.spectral import add_spectral_norms, update_spectral_norms
from training.networks.style_residual import StyleResidualConfig
from training.presets import TrainConfig

DIGEST = "a" * 64


def save(path: Path, config: TrainConfig, **state: Any) -> None:
    checkpoint.save(path, {"nimg": 64, **state}, config=config, data_digest=DIGEST)


def test_load_returns_what_was_saved(tiny_config: TrainConfig, tmp_path: Path) -> None:
    """Counters, nested states and tensors come back exactly."""
    weights = {"weight": torch.randn(2, 3), "steps": {"step": torch.tensor(7.0)}}
    save(tmp_path / "c.pt", tiny_config, generator=weights, elapsed_s=1.25)
    state = checkpoint.load(tmp_path / "c.pt", config=tiny_config, data_digest=DIGEST)
    assert (state["nimg"], state["elapsed_s"]) == (64, 1.25)
    assert torch.equal(state["generator"]["weight"], weights["weight"])
    assert torch.equal(state["generator"]["steps"]["step"], torch.tensor(7.0))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gamma": (4.0, 0.4)}, r"gamma was \(8.0, 0.8\), is \(4.0, 0.4\)"),
        ({"batch_size": 16, "seed": 2}, "batch_size was 8, is 16, seed was 0, is 2"),
        ({"widths": (16, 32)}, r"widths was \(16, 16\)"),
    ],
)
def test_load_with_other_settings_is_refused(
    tiny_config: TrainConfig, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    """Every setting that differs is named, with both values and a way out."""
    save(tmp_path / "c.pt", tiny_config)
    with pytest.raises(TrainingError, match=f"{message}.*use another --out"):
        checkpoint.load(tmp_path / "c.pt", config=replace(tiny_config, **changed), data_digest=DIGEST)


def test_settings_that_a_checkpoint_does_not_know_have_their_default(tiny_config: TrainConfig, tmp_path: Path) -> None:
    """A run that was begun before a setting existed goes on, and is refused only if that setting is changed now."""
    save(tmp_path / "c.pt", tiny_config)
    state = torch.load(tmp_path / "c.pt", weights_only=True)
    del state["config"]["penalty_every"]
    torch.save(state, tmp_path / "c.pt")
    assert checkpoint.load(tmp_path / "c.pt", config=tiny_config, data_digest=DIGEST)["nimg"] == 64
    with pytest.raises(TrainingError, match="penalty_every was 1, is 4"):
        checkpoint.load(tmp_path / "c.pt", config=replace(tiny_config, penalty_every=4), data_digest=DIGEST)


def test_load_with_other_data_is_refused(tiny_config: TrainConfig, tmp_path: Path) -> None:
    """A run belongs to its pictures."""
    save(tmp_path / "c.pt", tiny_config)
    with pytest.raises(TrainingError, match=r"trained on other data \(aaaaaaaaaaaa, now bbbbbbbbbbbb\)"):
        checkpoint.load(tmp_path / "c.pt", config=tiny_config, data_digest="b" * 64)


@pytest.mark.parametrize("keep", [0, 3, 200, -50])
def test_load_of_a_truncated_file_is_refused(tiny_config: TrainConfig, tmp_path: Path, keep: int) -> None:
    """A checkpoint that was cut short is one clear line, not torch's page of advice."""
    path = tmp_path / "c.pt"
    save(path, tiny_config, generator={"weight": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TrainingError, match=r"c\.pt is damaged or not a checkpoint; remove it"):
        checkpoint.load(path, config=tiny_config, data_digest=DIGEST)


@pytest.mark.parametrize("content", [b"not a checkpoint", b"\x80\x02}q\x00X\x01"])
def test_load_of_another_file_is_refused(tiny_config: TrainConfig, tmp_path: Path, content: bytes) -> None:
    """Bytes that torch did not write are refused."""
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(TrainingError, match="damaged or not a checkpoint"):
        checkpoint.load(tmp_path / "c.pt", config=tiny_config, data_digest=DIGEST)


@pytest.mark.parametrize("content", [{"generator": {}}, {"format": "vitrine-checkpoint/0"}, torch.zeros(3)])
def test_load_of_another_format_is_refused(tiny_config: TrainConfig, tmp_path: Path, content: object) -> None:
    """What torch can read need not be ours."""
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(TrainingError, match="not a checkpoint of this version"):
        checkpoint.load(tmp_path / "c.pt", config=tiny_config, data_digest=DIGEST)


def test_load_does_not_run_code_from_the_file(tiny_config: TrainConfig, tmp_path: Path) -> None:
    """A pickled object of any class is refused, as weights are all that is read."""
    torch.save({"format": checkpoint.FORMAT, "path": tmp_path}, tmp_path / "c.pt")
    with pytest.raises(TrainingError, match="damaged or not a checkpoint"):
        checkpoint.load(tmp_path / "c.pt", config=tiny_config, data_digest=DIGEST)


def test_save_that_fails_keeps_the_previous_checkpoint(tiny_config: TrainConfig, tmp_path: Path) -> None:
    """A state that cannot be written costs nothing that was there."""
    path = tmp_path / "c.pt"
    save(path, tiny_config)
    with pytest.raises(Exception, match="pickle"):
        save(path, tiny_config, nimg=128, broken=lambda: None)
    assert checkpoint.load(path, config=tiny_config, data_digest=DIGEST)["nimg"] == 64
    assert list(tmp_path.iterdir()) == [path]


def test_snapshot_holds_weights_and_details(tmp_path: Path) -> None:
    """The averaged generator can be read without torch's pickles, channels-last weights included."""
    network = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    path = tmp_path / "snapshots" / "000064.safetensors"
    checkpoint.save_snapshot(path, network, {"nimg": 64_000, "elapsed_s": 12.5})
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["details"]) == {"nimg": 64_000, "elapsed_s": 12.5}
        assert set(file.keys()) == set(network.state_dict())
        for name, tensor in network.state_dict().items():
            assert torch.equal(file.get_tensor(name), tensor)


def test_snapshot_holds_the_discriminator_as_it_judges(tmp_path: Path) -> None:
    """Its weights have a prefix; spectral norms are worked in, and the network in training keeps its own."""
    config = StyleResidualConfig(1, 3, base_size=4, widths=(16, 16), z_dim=8, w_dim=16)
    generator, discriminator = build_generator(config), build_discriminator(config)
    add_spectral_norms(discriminator)
    update_spectral_norms(discriminator)
    path = tmp_path / "000001.safetensors"
    checkpoint.save_snapshot(path, generator, {"nimg": 1, "elapsed_s": 1.0}, discriminator.eval())
    trained = from_snapshot(path, config)
    images, label = torch.randn(5, 1, 16, 16), torch.arange(5) % 3

    assert trained.discriminator is not None
    assert not trained.discriminator.training
    assert torch.allclose(trained.discriminator(images, label), discriminator(images, label), atol=1e-5)
    assert torch.nn.utils.parametrize.is_parametrized(discriminator.logit)
    for name, tensor in generator.state_dict().items():
        assert torch.equal(trained.generator.state_dict()[name], tensor)


def test_snapshot_of_an_older_version_holds_no_discriminator(tmp_path: Path) -> None:
    """A snapshot with the generator alone is read as before, and it is known that there is no discriminator."""
    config = StyleResidualConfig(1, 3, base_size=4, widths=(16, 16), z_dim=8, w_dim=16)
    path = tmp_path / "000001.safetensors"
    checkpoint.save_snapshot(path, build_generator(config), {"nimg": 1, "elapsed_s": 1.0})

    assert from_snapshot(path, config).discriminator is None
