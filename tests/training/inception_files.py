"""TorchScript files with the interface of `inception-2015-12-05.pt`, and ones that lack a part of it."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.builders import save_torchscript


class Layers(nn.Module):
    """Random projection of a 4x4 picture; only a picture of 299x299 is taken, as the real layers do."""

    def __init__(self, features: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.register_buffer("weight", torch.randn(features, 48, generator=random))

    def forward(self, images: Tensor) -> Tensor:
        assert list(images.shape[1:]) == [3, 299, 299]
        return F.linear(F.adaptive_avg_pool2d(images, [4, 4]).flatten(1), self.weight)


class TinyInception(nn.Module):
    """Bilinear resize without a filter, as TensorFlow 1 had it, then `layers`."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.layers = Layers(features)

    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        assert return_features
        resized = F.interpolate(images.float(), size=[299, 299], mode="bilinear", align_corners=False)
        return self.layers((resized - 128) / 128)


class WithoutLayers(nn.Module):
    """What has the first way to features and not the second."""

    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        return torch.zeros(images.shape[0], 2048)


def write_inception(path: Path, *, features: int = 2048) -> Path:
    """Write a tiny network with the interface of the real one."""
    save_torchscript(TinyInception(features), path)
    return path
