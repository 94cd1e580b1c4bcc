import math

import pytest
import torch
from torch.nn import functional as F

from training import noise
from training.networks.layers import (
    HE_GAIN,
    DownConv,
    Dropout,
    ResidualBlock,
    StyledBlock,
    UpConv,
    blur,
    conv,
    linear,
    lrelu,
    pixel_norm,
)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def test_lrelu_keeps_a_fifth_of_negative_values() -> None:
    """The slope is 0.2 below zero and 1 above."""
    torch.testing.assert_close(lrelu(torch.tensor([-5.0, 0.0, 3.0])), torch.tensor([-1.0, 0.0, 3.0]))


def test_pixel_norm_gives_rows_a_mean_square_of_one() -> None:
    """Rows of any length and size end on the same sphere, in their own direction."""
    x = torch.randn(4, 64) * torch.tensor([[0.01], [1.0], [10.0], [1000.0]])
    normed = pixel_norm(x)
    torch.testing.assert_close(normed.square().mean(dim=1), torch.ones(4), rtol=1e-3, atol=0)
    torch.testing.assert_close(F.cosine_similarity(normed, x), torch.ones(4))


def test_pixel_norm_of_zeros_is_zeros() -> None:
    """The latent zero is not a division by zero."""
    assert torch.equal(pixel_norm(torch.zeros(2, 8)), torch.zeros(2, 8))


@pytest.mark.parametrize(("kernel_size", "gain"), [(1, 1.0), (3, 0.5)])
def test_conv_draws_weights_of_its_gain_over_fan_in(kernel_size: int, gain: float) -> None:
    """The standard deviation is gain / sqrt(fan_in), the size stays, and there is no bias."""
    layer = conv(64, 96, kernel_size, gain)
    assert layer.weight.std().item() == pytest.approx(gain / math.sqrt(64 * kernel_size**2), rel=0.05)
    assert layer.bias is None
    assert layer(torch.zeros(1, 64, 7, 7)).shape == (1, 96, 7, 7)


def test_linear_draws_weights_of_its_gain_and_a_constant_bias() -> None:
    """The standard deviation is gain / sqrt(in_features)."""
    layer = linear(128, 256, 0.5, bias=1.0)
    assert layer.weight.std().item() == pytest.approx(0.5 / math.sqrt(128), rel=0.05)
    assert layer.bias.unique().tolist() == [1.0]


def test_he_gain_keeps_the_mean_square_through_lrelu() -> None:
    """Signals neither fade nor grow from layer to layer."""
    x = torch.randn(256, 512)
    for _ in range(4):
        x = lrelu(linear(512, 512, HE_GAIN)(x))
    assert x.square().mean().item() == pytest.approx(1.0, rel=0.15)


def test_blur_is_the_depthwise_convolution_with_1_2_1() -> None:
    """Two means of 2x2 give the kernel, border included."""
    x = torch.randn(2, 3, 6, 5)
    row = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = torch.outer(row, row).expand(3, 1, 3, 3)
    torch.testing.assert_close(blur(x), F.conv2d(x, kernel, padding=1, groups=3))


def test_up_conv_widens_then_doubles() -> None:
    """The layer is a 1x1 convolution and a bilinear enlargement."""
    layer, x = UpConv(4, 6), torch.randn(2, 4, 3, 3)
    expected = F.interpolate(F.conv2d(x, layer.weight), scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(layer(x), expected)


def test_down_conv_halves_then_widens() -> None:
    """The layer is the mean of 2x2 pixels and a 1x1 convolution."""
    layer, x = DownConv(4, 6), torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(layer(x), F.conv2d(F.avg_pool2d(x, 2), layer.weight))


def test_residual_block_starts_as_the_identity() -> None:
    """The last convolution starts at zero, so depth costs nothing at first."""
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(ResidualBlock(8, 2)(x), x)
    assert torch.equal(StyledBlock(8, 16, 2)(x, torch.randn(2, 16)), x)


def test_residual_blocks_first_gain_falls_with_depth() -> None:
    """With sixteen blocks in the network each starts at half the weights."""
    alone, deep = (ResidualBlock(32, num_blocks).conv_in.weight.std().item() for num_blocks in (1, 16))
    assert deep == pytest.approx(alone / 2, rel=0.1)


def test_residual_block_adds_its_inner_path() -> None:
    """With weights of its own the block is x + conv_out(lrelu(conv_in(x) + bias))."""
    block, x = ResidualBlock(8, 2), torch.randn(2, 8, 5, 5)
    with torch.no_grad():
        block.conv_out.weight.normal_()
        block.bias.normal_()
    expected = x + block.conv_out(lrelu(block.conv_in(x) + block.bias))
    torch.testing.assert_close(block(x), expected)
    assert not torch.allclose(block(x), x)


def test_styled_block_of_style_one_is_the_residual_block() -> None:
    """Where the affine map gives ones, the style changes nothing."""
    styled, plain, x = StyledBlock(8, 16, 2), ResidualBlock(8, 2), torch.randn(2, 8, 5, 5)
    with torch.no_grad():
        styled.conv_out.weight.normal_()
    plain.load_state_dict({name: styled.state_dict()[name] for name in plain.state_dict()})
    torch.testing.assert_close(styled(x, torch.zeros(2, 16)), plain(x))  # the bias of the affine map is one


def test_styled_block_scales_channels_by_each_rows_own_style() -> None:
    """Rows of a batch keep their styles to themselves."""
    block, x, w = StyledBlock(8, 16, 2), torch.randn(3, 8, 5, 5), torch.randn(3, 16)
    with torch.no_grad():
        block.conv_out.weight.normal_()
    together = block(x, w)
    for row in range(3):
        torch.testing.assert_close(together[row : row + 1], block(x[row : row + 1], w[row : row + 1]))
    assert not torch.allclose(together, block(x, w.flip(0)))


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dropout_drops_its_part_and_keeps_the_mean(rate: float, memory_format: torch.memory_format) -> None:
    """Values are dropped one by one, in no pattern over channels or places, and the rest makes up for them."""
    x = torch.ones(16, 33, 15, 15).to(memory_format=memory_format)
    with noise.seeded(3, torch.device("cpu")):
        first, second = Dropout(rate)(x), Dropout(rate)(x)
    assert first.stride() == x.stride()
    dropped = first == 0
    for dims in ((1, 2, 3), (0, 2, 3), (0, 1, 2)):
        assert (dropped.float().mean(dim=dims) - rate).abs().max() < 0.05
    assert first.mean() == pytest.approx(1, abs=0.02)
    assert first[~dropped].unique().numel() == 1
    assert torch.equal(first, second) is (rate == 0)
    with noise.seeded(3, torch.device("cpu")):
        assert torch.equal(Dropout(rate)(x), first)
