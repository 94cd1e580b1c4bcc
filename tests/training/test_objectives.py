"""Every loss and penalty as the trainer applies it: it learns, it is finite, and a resumed run repeats it exactly."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from training.data import PictureSet, Split
from training.errors import TrainingError
from training.loop import Budget, Run
from training.losses import LOSSES, unit_gradient_penalty
from training.networks.spectral import add_spectral_norms, update_spectral_norms
from training.presets import PRESETS, TrainConfig, modernised, preset
from training.trainer import Trainer

OBJECTIVES: dict[str, dict[str, Any]] = {
    **{f"loss-{loss}": {"loss": loss} for loss in LOSSES},
    "none": {"gamma": (0.0, 0.0)},
    "r1-only": {"r2": False},
    "lazy": {"penalty_every": 2},
    "gp": {"loss": "wgan", "gamma": (0.0, 0.0), "gp": 10.0},
    "spectral": {"loss": "hinge", "gamma": (0.0, 0.0), "spectral": True},
    "kernels": {"l1": 1e-6, "l2": 1e-4},
    "mse": {"loss": "lsgan", "mse": 1e-4},
    "mirror": {"mirror": True},
    "half-resolution": {"half_resolution": True},
    "augment": {"augment": "translation,cutout,colour"},
    "classic": {"system": "mlp-bn", "loss": "bce", "gamma": (0.0, 0.0), "label_warmup": 0.0},
}
Make = Callable[..., Trainer]


@pytest.fixture
def make(tiny_config: TrainConfig, tiny_set: PictureSet) -> Make:
    """Return a function that makes a trainer of the tiny set with changed settings."""

    def trainer(threads: int = 1, **changes: Any) -> Trainer:
        return Trainer(replace(tiny_config, **changes), tiny_set, threads=threads, amp=False)

    return trainer


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective_trains_and_resumes_bit_by_bit(name: str, make: Make, tmp_path: Path) -> None:
    """Two threads, dropout and power iterations included: stopped and resumed gives the weights of the whole run."""

    def run(folder: str, stop_after: int | None = None) -> Trainer:
        trainer = make(threads=2, **OBJECTIVES[name])

        def status(_: str) -> None:
            session.stop_requested = trainer.steps == stop_after

        budget = Budget(kimg=6 * trainer.config.batch_size / 1000)
        session = Run(trainer, tmp_path / folder, budget, snapshot_s=1e9, checkpoint_s=1e9, status=status)
        session.resume()
        session.train()
        trainer.pool.close()
        return trainer

    whole = run("whole")
    run("parts", stop_after=3)
    resumed = run("parts")

    start = make(**OBJECTIVES[name])
    for network in ("generator", "discriminator", "generator_ema"):
        found, expected = getattr(resumed, network).state_dict(), getattr(whole, network).state_dict()
        assert all(torch.equal(found[key], value) for key, value in expected.items())
        moved = [not torch.equal(a, b) for a, b in zip(getattr(whole, network).parameters(),
                 getattr(start, network).parameters(), strict=True)]  # fmt: skip
        assert sum(moved) > len(moved) // 2


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_rewards_what_it_should(loss: str) -> None:
    """A discriminator gains by a higher logit for real and a lower one for fake, a generator by a higher one."""
    sides = LOSSES[loss]
    low, high = torch.tensor([0.0]), torch.tensor([1.0])

    assert sides.discriminator(high, low) < sides.discriminator(low, low)
    assert sides.discriminator(high, low) < sides.discriminator(high, high)
    assert sides.generator(high, low) < sides.generator(low, low)


def test_losses_have_their_published_values() -> None:
    """At logits 0 and 1, by hand."""
    zero, one = torch.zeros(1), torch.ones(1)
    expected = {"bce": 1.3862944, "lsgan": 0.5, "hinge": 2.0, "wgan": 0.0, "rpgan": 0.6931472}
    for name, value in expected.items():
        assert LOSSES[name].discriminator(zero, zero).item() == pytest.approx(value)
    assert LOSSES["lsgan"].discriminator(one, zero).item() == 0
    assert LOSSES["hinge"].discriminator(one, -one).item() == 0
    assert LOSSES["wgan"].generator(one, zero).item() == -1


def test_unit_gradient_penalty_of_a_linear_critic() -> None:
    """(norm - 1)^2 for every picture."""
    images = torch.randn(3, 1, 2, 2, requires_grad=True)
    logits = (images * torch.tensor([[3.0, 0.0], [0.0, 4.0]])).sum(dim=(1, 2, 3))
    torch.testing.assert_close(unit_gradient_penalty(images, logits), torch.full((3,), 16.0))


def test_spectral_norm_converges_to_one() -> None:
    """After enough updates the largest singular value of every normalised kernel is 1."""
    layer = torch.nn.Sequential(torch.nn.Linear(6, 4))
    add_spectral_norms(layer)
    for _ in range(200):
        update_spectral_norms(layer)

    assert torch.linalg.matrix_norm(layer[0].weight, ord=2).item() == pytest.approx(1, abs=1e-3)


def test_mirror_mirrors_about_half(make: Make) -> None:
    """Every real picture is as it was or mirrored."""
    trainer = make(mirror=True)
    plain = make()
    mirrored = same = 0
    for _ in range(4):
        (a,), (b,) = trainer._shards(), plain._shards()
        for one, other in zip(a.real, b.real, strict=True):
            assert torch.equal(one, other) or torch.equal(one, other.flip(2))
            same, mirrored = same + torch.equal(one, other), mirrored + torch.equal(one, other.flip(2))
        trainer.steps, plain.steps = trainer.steps + 1, plain.steps + 1
        trainer.nimg = plain.nimg = trainer.nimg + trainer.config.batch_size
    assert same > 0
    assert mirrored > 0


def test_classic_average_has_statistics_of_its_own(make: Make) -> None:
    """In evaluation mode the averaged generator draws what it draws in training mode on a large batch."""
    trainer = make(system="mlp-bn", loss="bce", gamma=(0.0, 0.0), label_warmup=0.0)
    for _ in range(5):
        trainer.step(0.5)
    trainer.finish_average()
    z, label = torch.randn(1000, trainer.config.z_dim), torch.arange(1000) % 3
    with torch.no_grad():
        measured = trainer.generator_ema(z, label)
        trainer.generator_ema.train()
        own = trainer.generator_ema(z, label)
    assert (measured - own).abs().mean() < 0.1
    assert measured.std() > 0.05


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_modern_objective_is_the_same_for_every_preset(name: str) -> None:
    """Networks stay, the objective is replaced."""
    modern = modernised(PRESETS[name])
    assert (modern.loss, modern.gamma, modern.dropout) == ("rpgan", (8.0, 0.8), False)
    assert (modern.system, modern.widths) == (PRESETS[name].system, PRESETS[name].widths)
    assert preset(name, modern=True) == modern


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "wasserstein"}, "unknown loss 'wasserstein'; known: bce, lsgan, hinge, wgan, rpgan"),
        ({"gamma": (1.0, -1.0)}, "gamma -1.0"),
        ({"gp": float("nan")}, "gp nan"),
        ({"half_resolution": True, "widths": (16,)}, "no second discriminator"),
        ({"augment": "cutout,rotate"}, "unknown augmentation rotate; known: translation, cutout, colour"),
        ({"learning_rate": (0.0, 1e-4)}, "learning rate"),
    ],
)
def test_impossible_objective_is_refused(changes: dict[str, Any], message: str) -> None:
    """Before anything is built."""
    with pytest.raises(TrainingError, match=message):
        preset("fashion28", **changes)


def test_classic_preset_names_the_sizes_it_can_make() -> None:
    """Data of another size is refused with the flag that mends it."""
    with pytest.raises(TrainingError, match=r"makes square pictures of 64 pixels, the data has 28x28; .* --size 64"):
        preset("classic-dcgan64").network(size=(28, 28, 1), num_classes=0)
    with pytest.raises(TrainingError, match=r"25 to 32 pixels, the data has 64x64; .* --size 32"):
        preset("classic-conv4").network(size=(64, 64, 3), num_classes=0)


@pytest.mark.parametrize(("system", "sizes"), [(None, [8, 4]), ("dcgan", [4, 4, 4])])
def test_batch_norm_sees_real_and_generated_pictures_apart(system: Any, sizes: list[int]) -> None:
    """A discriminator with batch norm judges each kind by its own statistics; the others take both in one pass."""
    images, labels = torch.randint(256, (8, 64, 64, 1), dtype=torch.uint8), torch.zeros(8, dtype=torch.int64)
    data = PictureSet("noise", Split(images, labels), Split(images, labels), (), "none", "0")
    config = TrainConfig("tiny", base_size=16, widths=(16, 16), system=system, batch_size=4, gamma=(0.0, 0.0))
    trainer = Trainer(config, data, amp=False)
    seen: list[int] = []
    trainer.discriminator.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    trainer.step(0.5)
    assert seen == sizes


def test_lazy_penalties_are_as_much_heavier_as_they_are_rarer(make: Make) -> None:
    """On every second step the penalty is doubled, and on the others there is none."""
    trainer = make(penalty_every=2, gamma=(6.0, 6.0))
    weights: list[float] = []
    original = trainer.objective.discriminator_gradients

    def spy(shard: Any, gamma: float, label_weight: float) -> Any:
        weights.append(gamma)
        return original(shard, gamma, label_weight)

    trainer.objective.discriminator_gradients = spy  # type: ignore[method-assign]
    r2 = [trainer.step(0.5).r2 for _ in range(4)]
    assert weights == [12.0, 0.0, 12.0, 0.0]
    assert min(r2) > 0
    assert (r2[0], r2[2]) == (r2[1], r2[3])  # a step without them shows those of the last one with them
