"""The five classic systems, as the tutorials meant them, conditional on a label and repaired so that they train.

A sixth, "dcgan", is the DCGAN of PyTorch's examples (Radford et al. 2015), for comparisons.

Repairs: logits instead of sigmoids, one initialisation (DCGAN's), and batch norm whose statistics belong to the
averaged weights. The label enters as a one-hot vector beside the latent and as a learned plane beside the picture
(Mirza & Osindero 2014, arXiv:1411.1784).
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from training.networks.layers import BatchNorm, Dropout

System = Literal["conv4", "mlp-lsgan", "dcgan64", "gen7", "mlp-bn", "dcgan"]
RESOLUTIONS: dict[System, range] = {
    "conv4": range(25, 33),  # makes 32 and crops
    "mlp-lsgan": range(8, 65),
    "dcgan64": range(64, 65),
    "gen7": range(28, 29),
    "mlp-bn": range(8, 65),
    "dcgan": range(64, 65),
}
WEIGHT_STD = 0.02  # Radford et al. 2015, arXiv:1511.06434, section 4
DROPOUT = 0.3


@dataclass(frozen=True, slots=True)
class ClassicConfig:
    """Shape of both networks; without `dropout` the discriminator suits a gradient penalty."""

    system: System
    channels: int
    num_classes: int
    resolution: int
    z_dim: int = 100
    dropout: bool = True

    @property
    def w_dim(self) -> int:
        """Length of what the synthesis takes: the latent, and a one-hot label."""
        return self.z_dim + self.num_classes

    @property
    def num_ws(self) -> int:
        """Style vectors that the synthesis takes: one."""
        return 1


class ClassicGenerator(nn.Module):
    """Latents and labels to images in [-1, 1]."""

    one_hot: Tensor

    def __init__(self, config: ClassicConfig) -> None:
        super().__init__()
        self.config = config
        self.conditional = config.num_classes > 0
        self.register_buffer("one_hot", torch.eye(max(config.num_classes, 1)))
        self.body = nn.Sequential(*_generator_layers(config))
        self.resolution = config.resolution
        _initialise(self)

    def mapping(self, z: Tensor, label: Tensor, label_weight: float = 1.0) -> Tensor:
        """Return the latent with the one-hot label beside it.

        Args:
            z: float32 (N, z_dim), standard normal.
            label: Class per row, int64 (N,).
            label_weight: Strength of the label, in [0, 1].

        Returns:
            float32 (N, 1, w_dim).
        """
        w = torch.cat([z, self.one_hot[label] * label_weight], dim=1) if self.conditional else z
        return w.unsqueeze(1)

    def synthesis(self, w: Tensor) -> Tensor:
        """Return images, float32 (N, C, H, W) in [-1, 1], for `w`, float32 (N, 1, w_dim)."""
        images: Tensor = torch.tanh(self.body(w[:, 0]).float())
        margin = (images.shape[2] - self.resolution) // 2
        return images[:, :, margin : margin + self.resolution, margin : margin + self.resolution]

    def forward(self, z: Tensor, label: Tensor, label_weight: float = 1.0) -> Tensor:
        """Return images, float32 (N, C, H, W) in [-1, 1], for latents and labels (see `mapping`)."""
        return self.synthesis(self.mapping(z, label, label_weight))


class ClassicDiscriminator(nn.Module):
    """Images to one logit each."""

    def __init__(self, config: ClassicConfig) -> None:
        super().__init__()
        self.conditional = config.num_classes > 0
        self.resolution = config.resolution
        self.body = nn.Sequential(*_discriminator_layers(config))
        _initialise(self)
        self.plane = nn.Embedding(max(config.num_classes, 1), config.resolution**2)

    def forward(self, images: Tensor, label: Tensor, label_weight: float = 1.0) -> Tensor:
        """Return logits, float32 (N,), of images, float (N, C, H, W) in [-1, 1], and labels, int64 (N,)."""
        if self.conditional:
            plane = self.plane(label).reshape(-1, 1, self.resolution, self.resolution) * label_weight
            images = torch.cat([images, plane.type_as(images)], dim=1)
        logits: Tensor = self.body(images)
        return logits.squeeze(1).float()


def _generator_layers(config: ClassicConfig) -> Iterator[nn.Module]:
    """Yield the layers from (N, w_dim) to (N, C, H, W), before tanh."""
    pixels = config.channels * config.resolution**2
    picture = nn.Unflatten(1, (config.channels, config.resolution, config.resolution))
    match config.system:
        case "conv4" | "dcgan64" | "dcgan":
            widths = [512, 256, 128] if config.system == "conv4" else [512, 256, 128, 64]
            bias = config.system != "dcgan"
            yield nn.Linear(config.w_dim, widths[0] * 16, bias)
            yield from (nn.Unflatten(1, (widths[0], 4, 4)), BatchNorm(widths[0]), nn.ReLU())
            for before, after in itertools.pairwise(widths):
                yield from (_up(before, after, bias), BatchNorm(after), nn.ReLU())
            yield _up(widths[-1], config.channels, bias)
        case "gen7":
            yield from (
                nn.Linear(config.w_dim, 256 * 49),
                nn.Unflatten(1, (256, 7, 7)),
                nn.LeakyReLU(0.2),
                BatchNorm(256),
            )
            yield from (_up(256, 128), BatchNorm(128), nn.LeakyReLU(0.2))
            yield from (_up(128, 64), BatchNorm(64), nn.LeakyReLU(0.2))
            yield nn.Conv2d(64, config.channels, 3, padding=1)
        case "mlp-lsgan":
            for before, after in ((config.w_dim, 128), (128, 128)):
                yield from (nn.Linear(before, after), nn.LeakyReLU(0.2))
            yield from (nn.Linear(128, pixels), picture)
        case "mlp-bn":
            widths = [config.w_dim, 256, 512, 1024, 12544]
            for before, after in itertools.pairwise(widths):
                yield from (nn.Linear(before, after), BatchNorm(after), nn.ReLU())
            yield from (nn.Linear(widths[-1], pixels), picture)


def _discriminator_layers(config: ClassicConfig) -> Iterator[nn.Module]:
    """Yield the layers from (N, C, H, W), with a label's plane if there are labels, to (N, 1)."""
    channels = config.channels + (config.num_classes > 0)
    match config.system:
        case "conv4" | "dcgan64" | "gen7":
            widths = (channels, 512, 256) if config.system == "conv4" else (channels, 64, 128)
            for before, after in itertools.pairwise(widths):
                yield from (nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2))
                if config.dropout:
                    yield Dropout(DROPOUT)
            yield from (nn.Flatten(), nn.Linear(widths[-1] * (config.resolution // 4) ** 2, 1))
        case "dcgan":
            yield from (nn.Conv2d(channels, 64, 4, 2, 1, bias=False), nn.LeakyReLU(0.2))
            for before, after in ((64, 128), (128, 256), (256, 512)):
                yield from (nn.Conv2d(before, after, 4, 2, 1, bias=False), BatchNorm(after), nn.LeakyReLU(0.2))
            yield from (nn.Flatten(), nn.Linear(512 * 16, 1, bias=False))
        case "mlp-lsgan" | "mlp-bn":
            hidden = (128, 128) if config.system == "mlp-lsgan" else (512, 256)
            widths = (channels * config.resolution**2, *hidden)
            yield nn.Flatten()
            for before, after in itertools.pairwise(widths):
                yield from (nn.Linear(before, after), nn.LeakyReLU(0.2))
            yield nn.Linear(widths[-1], 1)


def _up(in_channels: int, out_channels: int, bias: bool = True) -> nn.ConvTranspose2d:
    """Return a transposed convolution that doubles height and width."""
    return nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1, bias=bias)


def _initialise(network: nn.Module) -> None:
    """Set convolutions as DCGAN does, and linear layers by He's rule, which 0.02 is too small for in a deep MLP."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=WEIGHT_STD)
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, a=0.2)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
