"""The five classic systems: their published sizes, and what every generator and discriminator must do."""

import pytest
import torch
from torch import nn

from training import noise
from training.networks.classic import ClassicConfig, ClassicDiscriminator, ClassicGenerator
from training.networks.layers import BatchNorm
from training.presets import PRESETS, preset

CLASSIC = sorted(name for name in PRESETS if name.startswith("classic-"))
SIZES = {"classic-dcgan64": (64, 64, 3)}


def config_of(name: str, num_classes: int = 10) -> ClassicConfig:
    network = preset(name).network(size=SIZES.get(name, (28, 28, 1)), num_classes=num_classes)
    assert isinstance(network, ClassicConfig)
    return network


@pytest.mark.parametrize("name", CLASSIC)
@pytest.mark.parametrize("num_classes", [0, 10])
def test_networks_have_the_shapes_of_their_config(name: str, num_classes: int) -> None:
    """Latents become bounded pictures of the data's size, pictures become one logit each, with labels or without."""
    config = config_of(name, num_classes)
    generator, discriminator = ClassicGenerator(config), ClassicDiscriminator(config)
    z, label = torch.randn(3, config.z_dim), torch.arange(3)
    images = generator(z, label)

    assert generator.mapping(z, label).shape == (3, config.num_ws, config.w_dim)
    assert images.shape == (3, config.channels, config.resolution, config.resolution)
    assert images.abs().max() <= 1
    with noise.seeded(0, torch.device("cpu")):
        assert discriminator(images, label).shape == (3,)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("classic-conv4", 3.4),
        ("classic-mlp-lsgan", 0.13),
        ("classic-dcgan64", 3.6),
        ("classic-gen7", 1.9),
        ("classic-mlp-bn", 23.4),
    ],
)
def test_generator_has_the_published_size(name: str, millions: float) -> None:
    """Without labels, which the tutorials had none of."""
    parameters = sum(weight.numel() for weight in ClassicGenerator(config_of(name, 0)).parameters())
    assert parameters / 1e6 == pytest.approx(millions, abs=0.06)


def test_reference_dcgan_has_the_sizes_of_the_example() -> None:
    """The networks of PyTorch's example, with its 100 latents and 64 filters, have these numbers of parameters."""
    config = preset("dcgan").network(size=(64, 64, 3), num_classes=0)
    assert isinstance(config, ClassicConfig)
    generator, discriminator = ClassicGenerator(config), ClassicDiscriminator(config)
    assert sum(weight.numel() for weight in generator.parameters()) == 3_576_704
    # The plane of a label is never used without labels, and not part of the example.
    assert sum(weight.numel() for weight in discriminator.body.parameters()) == 2_765_568
    z, label = torch.randn(2, 100), torch.zeros(2, dtype=torch.int64)
    assert discriminator(generator(z, label), label).shape == (2,)


@pytest.mark.parametrize("name", CLASSIC)
def test_label_changes_the_picture_and_the_verdict(name: str) -> None:
    """Both networks are conditional, and a weight of 0 takes the label out of the generator."""
    config = config_of(name)
    generator, discriminator = ClassicGenerator(config).eval(), ClassicDiscriminator(config).eval()
    z, a, b = torch.randn(2, config.z_dim), torch.tensor([0, 1]), torch.tensor([2, 3])

    assert not torch.equal(generator(z, a), generator(z, b))
    assert torch.equal(generator(z, a, 0.0), generator(z, b, 0.0))
    images = generator(z, a)
    assert not torch.equal(discriminator(images, a), discriminator(images, b))


def test_unconditional_latent_is_its_own_style() -> None:
    """Networks without a mapping return z itself."""
    generator = ClassicGenerator(config_of("classic-mlp-lsgan", 0))
    z = torch.randn(4, 100)
    assert torch.equal(generator.mapping(z, torch.zeros(4, dtype=torch.int64))[:, 0], z)


def test_modern_discriminator_has_no_dropout() -> None:
    """A gradient penalty wants the same function twice."""
    discriminator = ClassicDiscriminator(
        preset("classic-conv4", modern=True).network(size=(28, 28, 1), num_classes=3)  # type: ignore[arg-type]
    )
    images, label = torch.randn(2, 1, 28, 28), torch.arange(2)
    assert torch.equal(discriminator(images, label), discriminator(images, label))


def test_dropout_draws_from_the_threads_noise() -> None:
    """The same seed drops the same values; outside of a seeded block there is nothing to draw from."""
    discriminator = ClassicDiscriminator(config_of("classic-conv4"))
    images, label = torch.randn(2, 1, 28, 28), torch.arange(2)
    verdicts = []
    for seed in (5, 5, 6):
        with noise.seeded(seed, torch.device("cpu")):
            verdicts.append(discriminator(images, label))

    assert torch.equal(verdicts[0], verdicts[1])
    assert not torch.equal(verdicts[0], verdicts[2])
    with pytest.raises(RuntimeError, match="outside of"):
        discriminator(images, label)


def test_batch_norm_is_torchs_and_keeps_no_statistics_in_training() -> None:
    """In training mode the batch's own statistics, and nothing is written; else the measured ones."""
    ours, torchs = BatchNorm(3), nn.BatchNorm2d(3)
    x = torch.randn(8, 3, 4, 4) * 3 + 1
    torch.testing.assert_close(ours(x), torchs(x))
    assert torch.equal(ours.mean, torch.zeros(3))

    ours.eval()
    ours.mean.copy_(x.mean(dim=(0, 2, 3)))
    ours.variance.copy_(x.var(dim=(0, 2, 3), correction=0))
    torch.testing.assert_close(ours(x), torchs(x))


@pytest.mark.parametrize("name", CLASSIC)
def test_fresh_generator_scripts_and_gives_the_same_pictures(name: str) -> None:
    """What is exported is what was trained."""
    config = config_of(name)
    generator = ClassicGenerator(config).eval()
    z, label = torch.randn(2, config.z_dim), torch.arange(2)
    torch.testing.assert_close(torch.jit.script(generator)(z, label), generator(z, label))
