"""The Inception network of FID, from the TorchScript file that its user has, and its features in two ways.

The widely used `inception-2015-12-05.pt` is the network of the original FID. This project neither ships nor fetches it.
Loading TorchScript runs code of the file, so it has to come from somebody whom the user trusts; its SHA-256 stands
beside every figure.
"""

import hashlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from training.errors import TrainingError

FEATURE_SPACE = "inception-2015-12-05"
FEATURES = 2048
SIZE = 299
_BATCH = 32


class InceptionNetwork(Protocol):
    """What the file holds."""

    layers: Callable[[Tensor], Tensor]
    """Features for images, float32 (N, 3, 299, 299) in [-1, 1)."""

    def __call__(self, images: Tensor, return_features: bool) -> Tensor:
        """Return features, float32 (N, 2048), for images, uint8 (N, 3, H, W), which it resizes as TensorFlow 1 did."""


class Inception:
    """The network, on the CPU.

    Args:
        network: What the file holds.
        digest: SHA-256 of the file.
    """

    def __init__(self, network: InceptionNetwork, digest: str) -> None:
        self._network, self.digest = network, digest

    def own_resize(self, images: Tensor) -> Tensor:
        """Return features of pictures that the network itself resizes.

        Args:
            images: Pictures, uint8 (N, H, W, C), C of 1, 3 or 4.

        Returns:
            Features, float32 (N, 2048).
        """

        def run(part: Tensor) -> Tensor:
            return self._network(as_rgb(part).permute(0, 3, 1, 2).contiguous(), return_features=True)

        return _batched(run, images)

    def clean_resize(self, images: Tensor) -> Tensor:
        """Return features of pictures that were resized with a filter that does not alias, and not rounded.

        Args:
            images: Pictures, uint8 (N, H, W, C), C of 1, 3 or 4.

        Returns:
            Features, float32 (N, 2048).

        Parmar et al. 2022, "On Aliased Resizing and Surprising Subtleties in GAN Evaluation", arXiv:2104.11222.
        """
        return _batched(lambda part: self._network.layers((bicubic(as_rgb(part)) - 128) / 128), images)


def load(path: Path) -> Inception:
    """Load the file and try both ways to its features.

    Args:
        path: The TorchScript file.

    Returns:
        The network.

    Raises:
        TrainingError: If there is no such file, it is not TorchScript, or it is another network.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TrainingError(f"--inception {path}: {error.strerror or error}") from error
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
            module: Any = torch.jit.load(io.BytesIO(content), map_location="cpu")
            module.eval()
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"--inception {path} is not a TorchScript file, as inception-2015-12-05.pt is") from error
    inception = Inception(cast("InceptionNetwork", module), hashlib.sha256(content).hexdigest())
    probe = torch.zeros(2, 8, 8, 1, dtype=torch.uint8)
    for what, features in (
        ("forward(images, return_features=True)", inception.own_resize),
        ("layers(images)", inception.clean_resize),
    ):
        try:
            features(probe)
        except (RuntimeError, AttributeError, TypeError, ValueError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise TrainingError(
                f"--inception {path} has not the interface of inception-2015-12-05.pt: {what} fails with: {reason}"
            ) from error
    return inception


def as_rgb(images: Tensor) -> Tensor:
    """Return pictures in three channels: grey is repeated, transparent pictures are laid on white.

    Args:
        images: Pictures, uint8 (N, H, W, C), C of 1, 3 or 4 (straight alpha).

    Returns:
        uint8 (N, H, W, 3).
    """
    if images.shape[3] == 1:
        return images.expand(-1, -1, -1, 3)
    if images.shape[3] == 3:
        return images
    colours, alpha = images[..., :3].float(), images[..., 3:].float() / 255
    return (colours * alpha + 255 * (1 - alpha)).round().to(torch.uint8)


def bicubic(images: Tensor) -> Tensor:
    """Return pictures at 299x299 by Pillow's bicubic filter, each channel in float: no level is rounded.

    Args:
        images: Pictures, uint8 (N, H, W, 3).

    Returns:
        float32 (N, 3, 299, 299), in [0, 255]: where the filter overshoots it is clipped, as pictures are.
    """
    channels = images.permute(0, 3, 1, 2).to(torch.float32).numpy()
    resized = np.empty((*channels.shape[:2], SIZE, SIZE), np.float32)
    for index in np.ndindex(*channels.shape[:2]):
        resized[index] = np.asarray(Image.fromarray(channels[index]).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    return torch.from_numpy(resized).clamp_(0, 255)


def _batched(run: Callable[[Tensor], Any], images: Tensor) -> Tensor:
    """Return the features that `run` gives for pictures, uint8 (N, H, W, C), float32 (N, `FEATURES`).

    Raises:
        ValueError: If it gives anything else.
    """
    features = torch.empty(len(images), FEATURES)
    with torch.inference_mode():
        for start in range(0, len(images), _BATCH):
            part = images[start : start + _BATCH]
            found = run(part)
            if not isinstance(found, Tensor) or found.shape.numel() != len(part) * FEATURES:
                given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise ValueError(f"it gives {given}, not features ({len(part)}, {FEATURES})")
            features[start : start + _BATCH] = found.reshape(len(part), FEATURES)
    return features
