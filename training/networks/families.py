"""The families of networks: which classes an architecture stands for, by the name that a bundle carries."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, cast

from torch import Tensor, nn
from torch.nn import functional

from training.networks.classic import ClassicConfig, ClassicDiscriminator, ClassicGenerator
from training.networks.style_residual import Discriminator, Generator, StyleResidualConfig

Architecture = StyleResidualConfig | ClassicConfig


class GeneratorNetwork(Protocol):
    """What every family's generator offers; it is an `nn.Module` too."""

    config: Architecture

    def mapping(self, z: Tensor, label: Tensor, label_weight: float = 1.0) -> Tensor:
        """Return w, float32 (N, num_ws, w_dim), for z, float32 (N, z_dim), and label, int64 (N,)."""

    def synthesis(self, w: Tensor) -> Tensor:
        """Return images, float32 (N, C, H, W), about in [-1, 1], for w, float32 (N, num_ws, w_dim)."""

    def __call__(self, z: Tensor, label: Tensor, label_weight: float = 1.0) -> Tensor:
        """Return the synthesis of the mapping."""


@dataclass(frozen=True, slots=True)
class Family:
    """The classes of one family."""

    config: type[Any]
    generator: type[nn.Module]
    discriminator: type[nn.Module]


FAMILIES = {
    "style-residual/1": Family(StyleResidualConfig, Generator, Discriminator),
    "classic/1": Family(ClassicConfig, ClassicGenerator, ClassicDiscriminator),
}


def family_name(architecture: Architecture) -> str:
    """Return the name of an architecture's family."""
    return next(name for name, family in FAMILIES.items() if isinstance(architecture, family.config))


def build_generator(architecture: Architecture) -> nn.Module:
    """Return a generator of that shape, with fresh weights; it is a `GeneratorNetwork`."""
    return FAMILIES[family_name(architecture)].generator(architecture)


def build_discriminator(architecture: Architecture) -> nn.Module:
    """Return a discriminator of that shape, with fresh weights."""
    return FAMILIES[family_name(architecture)].discriminator(architecture)


class TwoResolutions(nn.Module):
    """A discriminator beside another one that sees pictures of half the size; the logits are summed.

    The smaller one judges the whole, the larger one the detail (Wang et al. 2018, "High-Resolution Image Synthesis and
    Semantic Manipulation with Conditional GANs", arXiv:1711.11585, section 3.2).

    Args:
        architecture: Of the full resolution, with at least two stages.
    """

    def __init__(self, architecture: StyleResidualConfig) -> None:
        super().__init__()
        self.fine = Discriminator(architecture)
        self.coarse = Discriminator(replace(architecture, widths=architecture.widths[:-1]))

    def forward(self, images: Tensor, label: Tensor, label_weight: float = 1.0) -> Tensor:
        """Return logits, float32 (N,), of images, float (N, C, H, W) in [-1, 1], and labels, int64 (N,)."""
        halved = self.coarse(functional.avg_pool2d(images, 2), label, label_weight)
        both: Tensor = self.fine(images, label, label_weight) + halved
        return both


def to_dict(architecture: Architecture) -> dict[str, Any]:
    """Return an architecture as JSON can hold it."""
    return {"family": family_name(architecture), "config": asdict(architecture)}


def from_dict(document: dict[str, Any]) -> Architecture:
    """Return the architecture of what `to_dict` made.

    Args:
        document: Family and configuration.

    Returns:
        The architecture.

    Raises:
        ValueError: If the family is unknown.
        TypeError: If the configuration is not that family's.
        KeyError: If a part is missing.
    """
    family = FAMILIES.get(document["family"])
    if family is None:
        raise ValueError(f"its family is {document['family']!r}, known are {', '.join(FAMILIES)}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in document["config"].items()}
    return cast("Architecture", family.config(**values))
