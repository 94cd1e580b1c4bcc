"""Augmentation of the discriminator's pictures: what each does, that gradients pass, and when it is used."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from training import augment, noise
from training.augment import AUGMENTATIONS, augmented, chosen_for, next_probability, overfitting
from training.data import PictureSet
from training.presets import TrainConfig, preset
from training.trainer import AUGMENT_STEPS, Trainer

CPU = torch.device("cpu")


def apply(name: str, images: Tensor, seed: int = 0) -> Tensor:
    with noise.seeded(seed, CPU):
        return AUGMENTATIONS[name](images)


def test_translation_shifts_and_repeats_the_border() -> None:
    """Each picture is the original, moved by whole pixels; all shifts up to an eighth occur."""
    ramp = torch.arange(16.0).reshape(1, 1, 16, 1) * 16 + torch.arange(16.0)
    images = ramp.expand(400, 1, 16, 16)
    shifted = apply("translation", images)
    seen = set()
    for picture in shifted:
        rows, columns = divmod(int(picture[0, 8, 8]), 16)
        dy, dx = 8 - rows, 8 - columns
        expected = ramp[0, 0][(torch.arange(16) - dy).clamp(0, 15)][:, (torch.arange(16) - dx).clamp(0, 15)]
        assert torch.equal(picture[0], expected)
        seen.add((dy, dx))
    assert seen == {(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)}


def test_cutout_hides_at_most_a_quarter() -> None:
    """A square of half the side, cut where it leaves the picture; the rest is as it was."""
    cut = apply("cutout", torch.ones(300, 2, 16, 16))
    hidden = (cut == 0).float().mean(dim=(1, 2, 3))
    assert hidden.max() == pytest.approx(0.25, abs=0.001)
    assert hidden.min() >= 0.25 / 4 * 0.7
    assert set(cut.unique().tolist()) == {0.0, 1.0}


def test_colour_changes_brightness_but_not_transparent_pictures() -> None:
    """Means move by up to a half; premultiplied colours stay."""
    images = torch.zeros(200, 3, 4, 4)
    means = apply("colour", images).mean(dim=(1, 2, 3))
    assert means.abs().max() <= 0.5
    assert means.std() > 0.2
    rgba = torch.rand(3, 4, 4, 4)
    assert torch.equal(apply("colour", rgba), rgba)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation_passes_gradients(name: str) -> None:
    """What the generator drew gets its share of the discriminator's gradient."""
    images = torch.rand(8, 3, 16, 16, requires_grad=True)
    with noise.seeded(1, CPU):
        augmented(images, (name,), 1.0).square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_probability_decides_how_many_are_changed() -> None:
    """0 changes none and draws nothing; a half about half of them."""
    images = torch.rand(1000, 1, 16, 16) + 1
    assert augmented(images, ("cutout",), 0.0) is images
    with noise.seeded(2, CPU):
        changed = (augmented(images, ("cutout",), 0.5) != images).flatten(1).any(dim=1).float().mean()
    assert 0.42 < changed < 0.58


def test_overfitting_is_measured_between_training_and_generated() -> None:
    """1 where hold-out pictures are taken for generated ones; 0 where for training ones, or nothing is told apart."""
    assert overfitting(train=2.0, holdout=2.0, fake=-2.0) == 0
    assert overfitting(train=2.0, holdout=-2.0, fake=-2.0) == 1
    assert overfitting(train=0.1, holdout=-5.0, fake=0.1) == 0


def test_probability_follows_overfitting_and_stays_in_its_range() -> None:
    """Up while the measure is above the target, down below, from 0 to the limit."""
    assert next_probability(0.2, 0.9, 1000) == pytest.approx(0.21)
    assert next_probability(0.2, 0.1, 1000) == pytest.approx(0.19)
    assert next_probability(0.0, 0.1, 1000) == 0
    assert next_probability(0.8, 0.9, 1000) == augment.MAX_PROBABILITY


@pytest.mark.parametrize(
    ("count", "names"),
    [
        (60_000, ()),
        (30_000, ()),
        (29_999, ("translation", "cutout")),
        (4_999, ("translation", "cutout", "colour")),
    ],
)
def test_augmentations_suit_the_number_of_pictures(count: int, names: tuple[str, ...]) -> None:
    """Few pictures are augmented, many are not; a preset may say otherwise."""
    assert chosen_for(count) == names
    assert preset("fashion28").augmentations(count) == names
    assert preset("fashion28", augment="none").augmentations(count) == ()
    assert preset("fashion28", augment="cutout").augmentations(count) == ("cutout",)
    assert preset("classic-conv4").augmentations(count) == ()


def test_trainer_augments_more_when_the_discriminator_overfits(
    tiny_config: TrainConfig, tiny_set: PictureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probability moves every so many steps, and is part of the state."""
    monkeypatch.setattr(augment, "overfitting", lambda *means: 1.0)
    monkeypatch.setattr(augment, "FULL_KIMG", 1.0)
    trainer = Trainer(replace(tiny_config, learning_rate=(1e-4, 1e-4)), tiny_set, amp=False)
    for _ in range(AUGMENT_STEPS):
        trainer.step(0.1)
    moved = AUGMENT_STEPS * trainer.config.batch_size / 1000
    assert trainer.augment_probability == pytest.approx(moved)
    assert trainer.state()["augment_probability"] == trainer.augment_probability
    trainer.step(0.1)
