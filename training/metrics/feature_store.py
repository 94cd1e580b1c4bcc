"""Feature networks as files: one safetensors file with the weights and a card that says where they come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from training.files import replacing
from training.metrics.feature_training import holdout_accuracy, train_feature_net
from training.metrics.features import (
    FeatureNet,
    Split,
    check_split,
    private_global_generator,
    space_name,
    tensor_bytes,
)


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


def data_digest(images: Tensor, labels: Tensor) -> str:
    """Return the SHA-256 of pictures uint8, (N, H, W, C), and labels int64, (N,), in hex."""
    digest = hashlib.sha256(f"{tuple(images.shape)} {tuple(labels.shape)}\n".encode())
    digest.update(tensor_bytes(images))
    digest.update(tensor_bytes(labels))
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
    with private_global_generator():
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
        "name": space_name(num_classes),
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
