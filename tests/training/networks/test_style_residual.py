import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.layers import lrelu
from training.networks.style_residual import Discriminator, Generator, StyleResidualConfig
from training.presets import preset

TINY = StyleResidualConfig(channels=1, num_classes=3, base_size=4, widths=(32, 16), z_dim=16, w_dim=24)
CONFIGS = [
    TINY,
    replace(TINY, num_classes=0),
    replace(TINY, channels=3, blocks_per_stage=2),
    replace(TINY, base_size=7, widths=(16,)),
]


def randomised(network: nn.Module) -> nn.Module:
    """Return `network` with every weight moved, so that no path is closed by a zero."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return network


def make(config: StyleResidualConfig) -> tuple[Generator, Discriminator]:
    torch.manual_seed(0)
    generator, discriminator = Generator(config), Discriminator(config)
    randomised(generator)
    randomised(discriminator)
    return generator, discriminator


def inputs(count: int, config: StyleResidualConfig = TINY) -> tuple[Tensor, Tensor]:
    z = torch.randn(count, config.z_dim, generator=torch.Generator().manual_seed(1))
    return z, torch.arange(count) % max(config.num_classes, 1)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("config", CONFIGS)
def test_networks_have_the_shapes_of_their_config(config: StyleResidualConfig) -> None:
    """Latents become images of the config's size, and images become one logit each."""
    generator, discriminator = make(config)
    z, label = inputs(5, config)
    w = generator.mapping(z, label)
    images = generator(z, label)
    assert w.shape == (5, config.num_ws, config.w_dim)
    assert config.num_ws == 1 + len(config.widths) * config.blocks_per_stage
    assert images.shape == (5, config.channels, config.resolution, config.resolution)
    assert config.channels == 3 or images.abs().max() <= 1  # photographs are not bounded
    assert discriminator(images, label).shape == (5,)
    assert discriminator.features(images).shape == (5, config.widths[0])


def test_fashion28_has_the_measured_sizes() -> None:
    """The preset's networks hold 0.94 and 0.25 million parameters."""
    network = preset("fashion28").network(size=(28, 28, 1), num_classes=10)
    assert parameters(Generator(network)) / 1e6 == pytest.approx(0.94, abs=0.005)
    assert parameters(Discriminator(network)) / 1e6 == pytest.approx(0.25, abs=0.005)


def test_state_dict_names_are_those_of_checkpoints() -> None:
    """Checkpoints and bundles that exist name their tensors so; another name would orphan them."""
    generator, discriminator = make(TINY)
    block = {"conv_in.weight", "bias", "conv_out.weight"}
    styled = {f"stages.{stage}.0.{name}" for stage in (0, 1) for name in block | {"style.weight", "style.bias"}}
    layers = {f"{name}.{kind}" for name in ("map_in", "map_out", "base") for kind in ("weight", "bias")}
    convolutions = {"embed.weight", "transitions.0.weight", "head.weight", "to_image.weight"}
    assert set(generator.state_dict()) == styled | layers | convolutions
    plain = {f"stages.{stage}.0.{name}" for stage in (0, 1) for name in block}
    rest = {"stem.weight", "transitions.0.weight", "pool_weight", "pool_bias", "embed.weight"}
    assert set(discriminator.state_dict()) == plain | rest | {"logit.weight", "logit.bias"}


def test_mapping_gives_every_layer_the_same_style() -> None:
    """Mixing and truncation happen on w, one vector per layer, which training keeps equal."""
    generator, _ = make(TINY)
    w = generator.mapping(*inputs(4))
    assert torch.equal(w, w[:, :1].expand_as(w))
    assert not torch.allclose(w[0], w[1])


def test_mapping_ignores_the_length_of_a_latent() -> None:
    """Only the direction of z counts, as samples lie near a sphere."""
    generator, _ = make(TINY)
    z, label = inputs(4)
    torch.testing.assert_close(generator.mapping(3 * z, label), generator.mapping(z, label))


def test_forward_is_mapping_then_synthesis() -> None:
    """The two halves, as the bundle uses them, make the whole."""
    generator, _ = make(TINY)
    z, label = inputs(4)
    assert torch.equal(generator(z, label), generator.synthesis(generator.mapping(z, label)))


@pytest.mark.parametrize("layer", range(TINY.num_ws))
def test_every_style_changes_the_image(layer: int) -> None:
    """The synthesis uses each of its style vectors."""
    generator, _ = make(TINY)
    w = generator.mapping(*inputs(2)).clone()
    before = generator.synthesis(w)
    w[:, layer] += 1
    assert (generator.synthesis(w) - before).abs().max() > 1e-3


def test_images_do_not_depend_on_their_batch() -> None:
    """A row alone gives the picture that it gives among others."""
    generator, discriminator = make(TINY)
    z, label = inputs(6)
    together = generator(z, label)
    logits = discriminator(together, label)
    for row in (0, 5):
        one = slice(row, row + 1)
        torch.testing.assert_close(generator(z[one], label[one]), together[one])
        torch.testing.assert_close(discriminator(together[one], label[one]), logits[one])


def test_label_changes_image_and_logit() -> None:
    """Both networks are conditional."""
    generator, discriminator = make(TINY)
    z, label = inputs(3)
    images, other = generator(z, label), (label + 1) % 3
    assert (generator(z, other) - images).abs().amax(dim=(1, 2, 3)).min() > 1e-3
    assert (discriminator(images, other) - discriminator(images, label)).abs().min() > 1e-3


def test_label_of_weight_zero_has_no_effect() -> None:
    """At the start of a run the label is off."""
    generator, discriminator = make(TINY)
    z, label = inputs(3)
    images, other = generator(z, label, 0.0), (label + 1) % 3
    assert torch.equal(generator(z, other, 0.0), images)
    assert torch.equal(discriminator(images, other, 0.0), discriminator(images, label, 0.0))


def test_unconditional_networks_ignore_the_label() -> None:
    """Without classes the label's row is not even looked at."""
    config = replace(TINY, num_classes=0)
    generator, discriminator = make(config)
    z, _ = inputs(3, config)
    images = generator(z, torch.zeros(3, dtype=torch.int64))
    wild = torch.tensor([5, 900, -3])
    assert torch.equal(generator(z, wild), images)
    assert torch.equal(discriminator(images, wild), discriminator(images, torch.zeros(3, dtype=torch.int64)))


def test_discriminators_label_enters_by_projection() -> None:
    """The logit's dependence on the label is <embedding, features> / sqrt(d), times the label's weight."""
    generator, discriminator = make(TINY)
    images, label = generator(*inputs(4)), inputs(4)[1]
    features = discriminator.features(images)
    projection = (discriminator.embed.weight[label] * features).sum(dim=1) / math.sqrt(features.shape[1])
    found = discriminator(images, label, 0.5) - discriminator(images, label, 0.0)
    torch.testing.assert_close(found, projection / 2, rtol=1e-4, atol=1e-5)


def test_discriminators_pooling_is_a_depthwise_convolution() -> None:
    """The weighted sum over the last plane equals the valid convolution that it stands for."""
    _, discriminator = make(replace(TINY, widths=(16,)))
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    plane = discriminator.stages[0](discriminator.stem(F.pixel_unshuffle(images, 2)))
    kernel = discriminator.pool_weight.permute(1, 0, 2, 3)
    expected = F.conv2d(plane, kernel, discriminator.pool_bias, groups=16).flatten(1)
    torch.testing.assert_close(discriminator.features(images), lrelu(expected))


def test_every_weight_takes_part() -> None:
    """No parameter of either network is without a gradient."""
    generator, discriminator = make(TINY)
    z, label = inputs(6)
    discriminator(generator(z, label), label).square().mean().backward()
    for name, parameter in [*generator.named_parameters(), *discriminator.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_channels_last_changes_nothing() -> None:
    """The memory format is a matter of speed."""
    generator, discriminator = make(TINY)
    z, label = inputs(4)
    images = generator(z, label)
    logits = discriminator(images, label)
    for network in (generator, discriminator):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(generator(z, label), images)
    torch.testing.assert_close(discriminator(images, label), logits)
