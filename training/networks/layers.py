"""Layers shared by the network families: initialised convolutions, norms, dropout, resampling."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training import noise

LRELU_SLOPE = 0.2
# Gain that keeps the variance through a leaky ReLU of slope 0.2: 2 / (1 + 0.2^2) (He et al. 2015, arXiv:1502.01852).
HE_GAIN = math.sqrt(2 / (1 + LRELU_SLOPE**2))


def lrelu(x: Tensor) -> Tensor:
    """Apply a leaky ReLU of slope 0.2 to `x`, float, any shape."""
    return F.leaky_relu(x, 0.2)


def pixel_norm(x: Tensor) -> Tensor:
    """Scale every row of `x`, float (N, D), to a mean square of one.

    Karras et al. 2017, "Progressive Growing of GANs", arXiv:1710.10196, section 4.2.
    """
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


def conv(in_channels: int, out_channels: int, kernel_size: int, gain: float) -> nn.Conv2d:
    """Return a size-keeping convolution without bias, weights N(0, gain^2 / fan_in)."""
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(in_channels * kernel_size**2))
    return layer


class UpConv(nn.Conv2d):
    """A 1x1 convolution to another width, then bilinear doubling; between two stages of a generator."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1, bias=False)
        nn.init.normal_(self.weight, std=1 / math.sqrt(in_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return float (N, C', 2H, 2W) for `x`, float (N, C, H, W)."""
        widened: Tensor = self._conv_forward(x, self.weight, self.bias)
        return F.interpolate(widened, scale_factor=2.0, mode="bilinear", align_corners=False)


class DownConv(nn.Conv2d):
    """Halving by the mean, then a 1x1 convolution to another width; between two stages of a discriminator."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1, bias=False)
        nn.init.normal_(self.weight, std=1 / math.sqrt(in_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return float (N, C', H/2, W/2) for `x`, float (N, C, H, W)."""
        halved: Tensor = self._conv_forward(F.avg_pool2d(x, 2), self.weight, self.bias)
        return halved


def linear(in_features: int, out_features: int, gain: float, bias: float = 0.0) -> nn.Linear:
    """Return a linear layer, weights N(0, gain^2 / in_features), constant bias."""
    layer = nn.Linear(in_features, out_features)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(in_features))
    nn.init.constant_(layer.bias, bias)
    return layer


def blur(x: Tensor) -> Tensor:
    """Convolve `x`, float (N, C, H, W), with [1 2 1] x [1 2 1] / 16, zeros beyond the border.

    Two 2x2 means give that kernel; on a CPU they cost a fraction of a depthwise convolution.
    """
    return F.avg_pool2d(F.avg_pool2d(x, 2, 1, 1), 2, 1)


class BatchNorm(nn.Module):
    """Batch norm whose running statistics are not tracked while training.

    A generator is served with averaged weights, for which statistics tracked along the way are wrong; they are measured
    when it is needed (`training.ema.measure_batch_norms`). So threads that share the module have nothing to race for.

    Args:
        channels: Of (N, channels) or (N, channels, H, W).

    Ioffe & Szegedy 2015, arXiv:1502.03167.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`, float (N, channels, ...), normalised: by its own batch in training mode."""
        if self.training:
            return F.batch_norm(x, None, None, self.weight, self.bias, True)
        return F.batch_norm(x, self.mean, self.variance, self.weight, self.bias, False)


class Dropout(nn.Module):
    """Dropout that draws from `training.noise`; for discriminators, which are never exported.

    Args:
        rate: Part of the values that is dropped, in [0, 1), in steps of 1 / 256.

    Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting".
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.threshold = round(rate * 256)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`, float, any shape, with values dropped and the rest scaled up in training mode."""
        if not self.training:
            return x
        # A byte decides over each value: eight of them come out of one draw, and drawing is what dropout costs.
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device)
        words.random_(-(2**63), None, generator=noise.generator())
        layout = torch.empty_like(x)  # dense, with the strides of x
        kept = words.view(torch.uint8)[: x.numel()].as_strided(layout.shape, layout.stride()) >= self.threshold
        return x * kept.to(x.dtype).mul_(256 / (256 - self.threshold))


class ResidualBlock(nn.Module):
    """x + conv3_0(lrelu(conv3(x) + b)); the last convolution starts at zero (Zhang et al. 2019, arXiv:1901.09321).

    Args:
        channels: Width of the block.
        num_blocks: Residual blocks in the whole network; the first gain falls with its fourth root.
    """

    def __init__(self, channels: int, num_blocks: int) -> None:
        super().__init__()
        self.conv_in = conv(channels, channels, 3, HE_GAIN * num_blocks**-0.25)
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.conv_out = conv(channels, channels, 3, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for `x`, float (N, C, H, W), of the same shape."""
        out: Tensor = x + self.conv_out(lrelu(self.conv_in(x) + self.bias))
        return out


class StyledBlock(nn.Module):
    """The residual block with its inner activations scaled per channel by an affine function of w.

    Args:
        channels: Width of the block.
        w_dim: Size of the style vector.
        num_blocks: Residual blocks in the whole network.
    """

    def __init__(self, channels: int, w_dim: int, num_blocks: int) -> None:
        super().__init__()
        self.conv_in = conv(channels, channels, 3, HE_GAIN * num_blocks**-0.25)
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.style = linear(w_dim, channels, 0.5, bias=1.0)
        self.conv_out = conv(channels, channels, 3, 0.0)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the block's output for `x`, float (N, C, H, W), and its styles `w`, float (N, w_dim)."""
        style = self.style(w)[:, :, None, None]
        out: Tensor = x + self.conv_out(style * lrelu(self.conv_in(x) + self.bias))
        return out
