"""The modern family: residual blocks without normalisation, a style space, a projection discriminator.

The generator is mapping (z, label -> w) and synthesis (w -> image). Widths and depths come from `StyleResidualConfig`.
"""

import math
from dataclasses import dataclass
from itertools import pairwise, starmap

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.layers import (
    HE_GAIN,
    DownConv,
    ResidualBlock,
    StyledBlock,
    UpConv,
    blur,
    conv,
    linear,
    lrelu,
    pixel_norm,
)

HEAD_CHANNELS = 16  # after the pixel shuffle; channel counts stay multiples of 16, others ran at a quarter of the speed


@dataclass(frozen=True, slots=True)
class StyleResidualConfig:
    """Shape of both networks of the family.

    `widths[i]` channels at resolution `base_size * 2**i`; the head doubles the last to `base_size * 2**len(widths)`.
    """

    channels: int
    num_classes: int
    base_size: int
    widths: tuple[int, ...]
    blocks_per_stage: int = 1
    z_dim: int = 64
    w_dim: int = 128

    @property
    def resolution(self) -> int:
        """Height and width of the pictures, in pixels."""
        return int(self.base_size * 2 ** len(self.widths))

    @property
    def num_blocks(self) -> int:
        """Residual blocks of one network."""
        return len(self.widths) * self.blocks_per_stage

    @property
    def num_ws(self) -> int:
        """Style vectors that the synthesis takes: one for the base, one per block."""
        return 1 + self.num_blocks


class Generator(nn.Module):
    """Latents and labels to images in [-1, 1]."""

    def __init__(self, config: StyleResidualConfig) -> None:
        super().__init__()
        self.config = config
        self.num_ws = config.num_ws
        self.base_size = config.base_size
        self.bounded = config.channels != 3
        self.conditional = config.num_classes > 0
        label_dim = config.z_dim if self.conditional else 0
        self.embed = nn.Embedding(max(config.num_classes, 1), config.z_dim)
        self.map_in = linear(config.z_dim + label_dim, config.w_dim, HE_GAIN)
        self.map_out = linear(config.w_dim, config.w_dim, HE_GAIN)

        self.base = linear(config.w_dim, config.widths[0] * config.base_size**2, 1.0)
        self.stages = nn.ModuleList(
            nn.ModuleList(StyledBlock(width, config.w_dim, config.num_blocks) for _ in range(config.blocks_per_stage))
            for width in config.widths
        )
        self.transitions = nn.ModuleList([*starmap(UpConv, pairwise(config.widths)), nn.Identity()])
        self.head = conv(config.widths[-1], HEAD_CHANNELS * 4, 3, 1.0)
        self.to_image = conv(HEAD_CHANNELS, config.channels, 3, 0.5)

    def mapping(self, z: Tensor, label: Tensor, label_weight: float = 1.0) -> Tensor:
        """Return the styles of latents.

        Args:
            z: Latents, float32 (N, z_dim), standard normal.
            label: Class per row, int64 (N,); ignored by an unconditional generator.
            label_weight: Strength of the label, in [0, 1]; training warms it up.

        Returns:
            Styles w, float32 (N, num_ws, w_dim), the same for every layer.
        """
        x = pixel_norm(z)
        if self.conditional:
            x = torch.cat([x, pixel_norm(self.embed(label)) * label_weight], dim=1)
        w = lrelu(self.map_out(lrelu(self.map_in(x))))
        return w.unsqueeze(1).expand(-1, self.num_ws, -1)

    def synthesis(self, w: Tensor) -> Tensor:
        """Return images for styles.

        Greys and transparent pictures lie at the ends of the range, and are bounded by tanh; photographs do not.

        Args:
            w: float32 (N, num_ws, w_dim).

        Returns:
            Images, float32 (N, C, H, W), in [-1, 1]; with three channels about so.
        """
        size = self.base_size
        # Channels last from the start: the linear layer's rows are pixels, not planes.
        x = self.base(w[:, 0]).reshape(w.shape[0], size, size, -1).permute(0, 3, 1, 2)
        layer = 1
        for stage, transition in zip(self.stages, self.transitions):  # noqa: B905 (TorchScript has no strict)
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, w[:, layer])
                layer += 1
            x = transition(x)
        x = lrelu(blur(F.pixel_shuffle(self.head(x), 2)))
        images: Tensor = self.to_image(x).float()
        return torch.tanh(images) if self.bounded else images

    def forward(self, z: Tensor, label: Tensor, label_weight: float = 1.0) -> Tensor:
        """Return images, float32 (N, C, H, W) in [-1, 1], for latents and labels (see `mapping`)."""
        return self.synthesis(self.mapping(z, label, label_weight))


class Discriminator(nn.Module):
    """Images to one logit each; the label enters by projection (Miyato & Koyama 2018, arXiv:1802.05637)."""

    def __init__(self, config: StyleResidualConfig) -> None:
        super().__init__()
        widths = config.widths[::-1]
        self.stem = conv(config.channels * 4, widths[0], 3, 1.0)
        self.stages = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width, config.num_blocks) for _ in range(config.blocks_per_stage)))
            for width in widths
        )
        self.transitions = nn.ModuleList([*starmap(DownConv, pairwise(widths)), nn.Identity()])
        # A depthwise valid convolution to 1x1, written as a weighted sum (several times faster on a CPU).
        self.pool_weight = nn.Parameter(
            torch.randn(1, widths[-1], config.base_size, config.base_size) / config.base_size
        )
        self.pool_bias = nn.Parameter(torch.zeros(widths[-1]))
        self.logit = linear(widths[-1], 1, 1.0)
        self.conditional = config.num_classes > 0
        self.embed = nn.Embedding(max(config.num_classes, 1), widths[-1])
        nn.init.normal_(self.embed.weight)

    def features(self, images: Tensor) -> Tensor:
        """Return features, float32 (N, D), of images, float (N, C, H, W) in [-1, 1]."""
        x = self.stem(F.pixel_unshuffle(images, 2))
        for stage, transition in zip(self.stages, self.transitions):  # noqa: B905 (TorchScript has no strict)
            x = transition(stage(x))
        pooled: Tensor = (x.float() * self.pool_weight).sum(dim=(2, 3)) + self.pool_bias
        return lrelu(pooled)

    def forward(self, images: Tensor, label: Tensor, label_weight: float = 1.0) -> Tensor:
        """Return logits.

        Args:
            images: float (N, C, H, W) in [-1, 1].
            label: Class per image, int64 (N,); ignored by an unconditional discriminator.
            label_weight: Strength of the label, in [0, 1].

        Returns:
            Logits, float32 (N,).
        """
        features = self.features(images)
        logits: Tensor = self.logit(features).squeeze(1)
        if self.conditional:
            projection = (self.embed(label) * features).sum(dim=1) / math.sqrt(features.shape[1])
            logits = logits + label_weight * projection
        return logits.float()
