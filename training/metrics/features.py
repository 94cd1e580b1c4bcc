"""The feature space of the measures: a small classifier of the shop's own pictures.

An Inception network knows ImageNet, not 28x28 grey shirts. A classifier of the data at hand sees what tells its
pictures apart, costs a minute on one core, and needs no download. Its name says how it was trained:

- `labels-cnn/1`: the training split's labels.
- `rotation-cnn/1`: no labels (or one); which of four quarter turns a picture was given.

A value measured in one space means nothing in another, so every report carries the name and `FeatureNet.digest()`.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from training.files import replacing
from training.metrics.accuracy import sample_accuracy

Split = tuple[Tensor, Tensor]
"""Pictures uint8, (N, H, W, C), and labels int64, (N,), in [0, num_classes); with no classes labels are not read."""

FEATURES = 128
_WIDTHS = (32, 64, FEATURES)
_MIN_SIZE = 8
_TURNS = 4


class FeatureNet(nn.Module):
    """Classifier whose pooled activations are the feature space: three blocks of conv3x3, BN, ReLU, max-pool.

    ReLU and max-pool give the same in either order, so the pooling comes first: a sixth less time in training.
    Pooling drops the last row and column of an odd size (28 -> 14 -> 7 -> 3), as the published figures have it; the
    convolution before it has seen them. Keeping them (7 -> 4) is another space: on Fashion-MNIST its FCDs are 0.5 to
    0.75 of those here.
    With fewer than two classes there is nothing to tell apart, and the head names quarter turns instead. A network
    fresh from the constructor has weights from torch's global generator.

    Args:
        num_classes: Labels to tell apart; 0 or 1 for the rotation pretext.
        channels: Channels of the pictures, 1, 3 or 4.

    Raises:
        ValueError: If `num_classes` is negative or `channels` is none of 1, 3, 4.
    """

    def __init__(self, num_classes: int, channels: int = 1) -> None:
        super().__init__()
        if num_classes < 0 or channels not in (1, 3, 4):
            raise ValueError(f"need num_classes >= 0 and channels of 1, 3 or 4, got {num_classes} and {channels}")
        self.num_classes = num_classes
        self.channels = channels
        layers: list[nn.Module] = []
        for before, after in zip((channels, *_WIDTHS), _WIDTHS, strict=False):
            layers += [
                nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.MaxPool2d(2),
                nn.ReLU(inplace=True),
            ]
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(FEATURES, num_classes if self.labelled else _TURNS)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def labelled(self) -> bool:
        """Whether the head names labels, not quarter turns."""
        return _is_labelled(self.num_classes)

    @property
    def name(self) -> str:
        """Name of the feature space, for reports."""
        return _space(self.num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and logits of pictures.

        Args:
            images: uint8, (N, H, W, C), in [0, 255]; H and W at least 8.

        Returns:
            Features float32, (N, 128), in [0, inf), and logits float32, (N, num_classes) or (N, 4).
        """
        # Permuting NHWC gives the channels_last strides of NCHW, without a copy.
        scaled = images.permute(0, 3, 1, 2).to(torch.float32).div_(255)
        if self.channels == 4:  # colours count as far as they are seen
            scaled[:, :3] *= scaled[:, 3:]
        features = self.blocks(scaled).mean(dim=(2, 3))
        return features, self.head(features)

    def digest(self) -> str:
        """Return the SHA-256 of names, types, shapes and bytes of the state, in the order of the names, in hex."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(_bytes(tensor))
        return digest.hexdigest()


class Features(NamedTuple):
    """What a feature network says of pictures.

    Attributes:
        features: float32, (N, 128), in [0, inf), on the CPU.
        predicted: Most likely class, int64, (N,), on the CPU.
    """

    features: Tensor
    predicted: Tensor


@dataclass(frozen=True)
class FeatureCard:
    """Where a stored feature network comes from.

    Attributes:
        name: Name of the feature space.
        seed: Seed of its weights and batches.
        num_classes: Classes of the data.
        channels: Channels of the pictures.
        epochs: Passes over the training split.
        batch_size: Pictures in a step.
        max_lr: Peak learning rate.
        data_digest: `data_digest` of the training split.
        digest: `FeatureNet.digest` of the weights; fixed by the above on one machine, torch and number of threads.
        accuracy: Share of hold-out pictures named rightly, in [0, 1]; of their quarter turns without labels.
        torch: Version of torch that trained it.
    """

    name: str
    seed: int
    num_classes: int
    channels: int
    epochs: int
    batch_size: int
    max_lr: float
    data_digest: str
    digest: str
    accuracy: float
    torch: str


def train_feature_net(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    seed: int,
    epochs: int = 3,
    batch_size: int = 128,
    max_lr: float = 4e-3,
    progress: Callable[[float, float], None] | None = None,
) -> FeatureNet:
    """Train a feature network on the CPU: Adam with a one-cycle schedule, cross-entropy.

    The same arguments give the same bytes on one machine with one number of threads. torch's global generator is left
    as it was. Without labels each picture of a batch gets a random quarter turn, and the turn is the label; pictures
    that are not square are cropped to their middle square for it.

    Args:
        images: uint8, (N, H, W, C) with H and W >= 8 and C of 1, 3 or 4.
        labels: int64, (N,), in [0, num_classes); not read if `num_classes` is below 2.
        num_classes: Number of classes; 0 or 1 trains on quarter turns.
        seed: Seed of weights, order and turns, in [0, 2**53).
        epochs: Passes over the pictures; the spaces named `/1` have 3.
        batch_size: Pictures in a step.
        max_lr: Peak learning rate of the cycle.
        progress: Called after each step with the share done, in (0, 1], and the loss of the step.

    Returns:
        The network in evaluation mode.

    Raises:
        ValueError: If a tensor has the wrong type, shape or range, or a number is below 1.
        RuntimeError: If the loss stops being finite.

    Smith and Topin 2017, "Super-Convergence", arXiv:1708.07120. The pretext: Gidaris et al. 2018, "Unsupervised
    Representation Learning by Predicting Image Rotations", arXiv:1803.07728.
    """
    check_split((images, labels), num_classes)
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs and batch_size must be at least 1, got {epochs} and {batch_size}")
    generator = torch.Generator().manual_seed(seed)
    net = _build(num_classes, images.shape[3], generator).train()
    if not net.labelled:
        images = _middle_square(images)

    # A last batch that is not full is left out: one of a single picture would leave its mark on the running statistics.
    batch_size = min(batch_size, images.shape[0])
    steps = epochs * (images.shape[0] // batch_size)
    optimizer = torch.optim.Adam(net.parameters(), lr=max_lr, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=max_lr, total_steps=steps)
    for step, rows in enumerate(_batches(images.shape[0], batch_size, epochs, generator), start=1):
        batch = images[rows]
        if net.labelled:
            target = labels[rows]
        else:
            target = torch.randint(_TURNS, rows.shape, generator=generator)
            batch = _turned(batch, target)
        loss = functional.cross_entropy(net(batch)[1], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        value = loss.item()
        if not value < float("inf"):
            raise RuntimeError(f"the loss of the feature network is {value} at step {step} of {steps}")
        if progress is not None:
            progress(step / steps, value)
    return net.eval()


def extract(net: FeatureNet, images: Tensor, batch: int = 64) -> Features:
    """Return features and most likely classes of pictures, in batches on the network's device.

    Args:
        net: A trained network; it is used in evaluation mode, and left as it is.
        images: uint8, (N, H, W, C), on any device; H and W >= 8.
        batch: Pictures at a time, >= 1. On a CPU 64 of 28x28 are a quarter faster than 500, which leave the cache.

    Returns:
        Features and classes, on the CPU, in the order of the pictures.

    Raises:
        ValueError: If `images` has the wrong type or shape, or other channels than the network.
    """
    _check_images(images)
    if images.shape[3] != net.channels or batch < 1:
        raise ValueError(
            f"need pictures of {net.channels} channels and batch >= 1, got {tuple(images.shape)} and {batch}"
        )
    device = net.head.weight.device
    features = torch.empty(images.shape[0], FEATURES)
    predicted = torch.empty(images.shape[0], dtype=torch.int64)
    folded = _folded(net)
    with torch.inference_mode():
        for start in range(0, images.shape[0], batch):
            pooled, logits = folded(images[start : start + batch].to(device))
            features[start : start + batch] = pooled.cpu()
            predicted[start : start + batch] = logits.argmax(dim=1).cpu()
    return Features(features, predicted)


def holdout_accuracy(net: FeatureNet, holdout: Split) -> float:
    """Return the share of pictures whose label, or quarter turn, the network names rightly.

    Args:
        net: A trained network.
        holdout: Pictures it was not trained on, and their labels.

    Returns:
        Accuracy in [0, 1].

    Raises:
        ValueError: If the pictures or labels do not fit the network.
    """
    images, labels = holdout
    check_split(holdout, net.num_classes)
    if net.labelled:
        return sample_accuracy(extract(net, images).predicted, labels)
    square = _middle_square(images)
    turns = [torch.full((square.shape[0],), turn) for turn in range(_TURNS)]
    return sum(sample_accuracy(extract(net, _turned(square, turn)).predicted, turn) for turn in turns) / _TURNS


def data_digest(images: Tensor, labels: Tensor) -> str:
    """Return the SHA-256 of pictures uint8, (N, H, W, C), and labels int64, (N,), in hex."""
    digest = hashlib.sha256(f"{tuple(images.shape)} {tuple(labels.shape)}\n".encode())
    digest.update(_bytes(images))
    digest.update(_bytes(labels))
    return digest.hexdigest()


def save(net: FeatureNet, path: Path, card: FeatureCard) -> None:
    """Write a network as safetensors with its card, all or nothing.

    Args:
        net: The network.
        path: File to write or replace; its folder is made if it is not there.
        card: Where the network comes from.

    Raises:
        ValueError: If the card is of another network.
        OSError: If the file cannot be written; what was at `path` before is still there.
    """
    if card.digest != net.digest():
        raise ValueError(f"the card is of network {card.digest}, not of {net.digest()}")
    state = {name: tensor.cpu().contiguous() for name, tensor in net.state_dict().items()}
    with replacing(path) as beside:
        safetensors.torch.save_file(state, beside, metadata={"card": json.dumps(asdict(card), sort_keys=True)})


def read_card(path: Path) -> FeatureCard:
    """Read the card of a stored network, without its weights.

    Args:
        path: File written by `save`.

    Returns:
        The card.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a whole file written by `save`.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = cast("dict[str, str] | None", file.metadata())
        return FeatureCard(**json.loads((metadata or {})["card"]))
    except (safetensors.SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a feature network: {error}") from error


def load(path: Path) -> FeatureNet:
    """Read a stored network onto the CPU and check it against its card.

    Args:
        path: File written by `save`.

    Returns:
        The network in evaluation mode.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a whole file written by `save`, is of a space not made here, or its weights are not
            those of its card.
    """
    card = read_card(path)
    with _private_global_generator():
        net = FeatureNet(card.num_classes, card.channels)
    try:
        net.load_state_dict(safetensors.torch.load_file(path))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} is not a feature network: {error}") from error
    if net.name != card.name:
        raise ValueError(f"{path} is of feature space {card.name}, not of {net.name}")
    if net.digest() != card.digest:
        raise ValueError(f"{path} has weights {net.digest()}, its card says {card.digest}")
    return net.eval()


def load_or_train(
    path: Path,
    train: Split,
    holdout: Split,
    num_classes: int,
    *,
    seed: int,
    epochs: int = 3,
    batch_size: int = 128,
    max_lr: float = 4e-3,
    progress: Callable[[float, float], None] | None = None,
) -> FeatureNet:
    """Read the network at `path` if it is of this data, seed and recipe; else train one and store it there.

    Args:
        path: The cached file; a network of other data, seed or recipe is replaced.
        train: Pictures and labels to train on.
        holdout: Pictures and labels for the accuracy on the card.
        num_classes: Number of classes; 0 or 1 trains on quarter turns.
        seed: Seed of weights and batches, in [0, 2**53).
        epochs: Passes over the pictures.
        batch_size: Pictures in a step.
        max_lr: Peak learning rate.
        progress: Called after each step with the share done and the loss; not called if nothing is trained.

    Returns:
        The network in evaluation mode; `read_card(path)` has its card.

    Raises:
        ValueError: If the data does not fit, or a file at `path` is damaged or something else; it is left alone.
    """
    images, labels = train
    check_split(train, num_classes)
    check_split(holdout, num_classes)
    recipe: dict[str, Any] = {
        "name": _space(num_classes),
        "seed": seed,
        "num_classes": num_classes,
        "channels": images.shape[3],
        "epochs": epochs,
        "batch_size": batch_size,
        "max_lr": max_lr,
        "data_digest": data_digest(images, labels),
    }
    if path.exists() and recipe.items() <= asdict(read_card(path)).items():
        return load(path)
    net = train_feature_net(
        images, labels, num_classes, seed=seed, epochs=epochs, batch_size=batch_size, max_lr=max_lr, progress=progress
    )
    accuracy = holdout_accuracy(net, holdout)
    save(
        net,
        path,
        FeatureCard(digest=net.digest(), accuracy=accuracy, torch=str(torch.__version__), **recipe),
    )
    return net


def check_split(split: Split, num_classes: int) -> None:
    """Raise `ValueError` unless pictures and labels are of the types, shapes and ranges that `Split` names.

    Args:
        split: Pictures and labels.
        num_classes: Number of classes; labels are not looked at below 2.

    Raises:
        ValueError: If they are not.
    """
    images, labels = split
    _check_images(images)
    if not _is_labelled(num_classes):
        return
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise ValueError(f"labels must be int64, ({images.shape[0]},), got {labels.dtype}, {tuple(labels.shape)}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels must lie in [0, {num_classes}), got {low} to {high}")


def _check_images(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[0] == 0 or images.shape[3] not in (1, 3, 4):
        raise ValueError(
            f"need uint8, (N, H, W, C) with N >= 1 and C of 1, 3 or 4, got {images.dtype}, {tuple(images.shape)}"
        )
    if min(images.shape[1:3]) < _MIN_SIZE:
        raise ValueError(f"pictures must be at least {_MIN_SIZE} by {_MIN_SIZE}, got {tuple(images.shape)}")


def _is_labelled(num_classes: int) -> bool:
    return num_classes >= 2


def _space(num_classes: int) -> str:
    """Return the name of the feature space; whatever changes the features of the same pictures changes its number."""
    return "labels-cnn/1" if _is_labelled(num_classes) else "rotation-cnn/1"


def _build(num_classes: int, channels: int, generator: torch.Generator) -> FeatureNet:
    """Return a network with weights drawn from `generator`."""
    with _private_global_generator():
        # The CPU's generator only: torch.manual_seed would set those of the accelerators too.
        torch.default_generator.set_state(generator.get_state())
        net = FeatureNet(num_classes, channels)
        generator.set_state(torch.default_generator.get_state())
    return net


@contextmanager
def _private_global_generator() -> Iterator[None]:
    """Put torch's global CPU generator back as it was: layers draw from it and take no other."""
    with torch.random.fork_rng(devices=[]):
        yield


def _batches(n: int, batch_size: int, epochs: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the rows of each step, int64, (batch_size,): each epoch in a new order."""
    for _ in range(epochs):
        order = torch.randperm(n, generator=generator)
        for start in range(0, n - n % batch_size, batch_size):
            yield order[start : start + batch_size]


def _folded(net: FeatureNet) -> FeatureNet:
    """Return a copy in evaluation mode whose convolutions have taken in their batch norms: 40 % less time."""
    folded = copy.deepcopy(net).eval()
    for i, layer in enumerate(folded.blocks):
        if isinstance(layer, nn.BatchNorm2d):
            folded.blocks[i - 1] = fuse_conv_bn_eval(cast("nn.Conv2d", folded.blocks[i - 1]), layer)
            folded.blocks[i] = nn.Identity()
    return folded


def _turned(images: Tensor, turns: Tensor) -> Tensor:
    """Return square pictures, uint8, (N, S, S, C), each turned anticlockwise by its number of quarter turns, (N,)."""
    turned = torch.empty_like(images)
    for turn in range(_TURNS):
        rows = turns == turn
        turned[rows] = images[rows].rot90(turn, dims=(1, 2))
    return turned


def _middle_square(images: Tensor) -> Tensor:
    """Return the middle (N, S, S, C) of pictures (N, H, W, C), S the shorter of H and W."""
    height, width = images.shape[1:3]
    size = min(height, width)
    top, left = (height - size) // 2, (width - size) // 2
    return images[:, top : top + size, left : left + size]


def _bytes(tensor: Tensor) -> bytearray:
    """Return the bytes of a tensor in row-major order, whatever its strides."""
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    content = bytearray(flat.shape[0])
    if content:
        torch.frombuffer(content, dtype=torch.uint8).copy_(flat)
    return content
