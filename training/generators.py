"""Trained generators from where they lie: a run's snapshot, or a bundle's durable form."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from training.checkpoint import DISCRIMINATOR_PREFIX
from training.data import to_uint8
from training.errors import TrainingError
from training.networks.families import Architecture, TwoResolutions, build_discriminator, build_generator, from_dict
from training.networks.style_residual import StyleResidualConfig

SCORES_NAME = "scores.json"


@dataclass(frozen=True, slots=True)
class Trained:
    """A generator of any family, in evaluation mode on the CPU, and how many images it has seen in how many seconds.

    `discriminator` is its opponent where that was kept: in a snapshot that is not of an older version.
    """

    generator: nn.Module
    network: Architecture
    nimg: int
    elapsed_s: float
    source: Path
    discriminator: nn.Module | None = None


def snapshots(run: Path) -> list[Path]:
    """Return a run's snapshots, oldest first.

    Args:
        run: Folder of a run.

    Returns:
        Paths of safetensors files, at least one.

    Raises:
        TrainingError: If there are none.
    """
    found = sorted((run / "snapshots").glob("*.safetensors"))
    if not found:
        raise TrainingError(f"{run} holds no snapshots; train first: python -m training train DATA --out {run}")
    return found


def run_facts(run: Path) -> dict[str, Any]:
    """Return what `train` wrote about a run.

    Args:
        run: Folder of a run.

    Returns:
        The content of its `run.json`.

    Raises:
        TrainingError: If the folder is not a run.
    """
    try:
        facts: dict[str, Any] = json.loads((run / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{run} is not the folder of a run: {error}") from error
    return facts


def from_snapshot(path: Path, network: Architecture) -> Trained:
    """Return the averaged generator of a snapshot, and the discriminator if it holds one.

    Args:
        path: A file that `snapshots` names.
        network: Shape of the run's networks.

    Returns:
        Both, with what the snapshot says about them.

    Raises:
        TrainingError: If the file is missing or damaged, or belongs to another network.
    """
    generator = build_generator(network)
    try:
        with safe_open(path, "pt") as file:
            details = json.loads(file.metadata()["details"])
        weights = load_file(path)
        opponent = _taken(weights, DISCRIMINATOR_PREFIX)
        generator.load_state_dict(weights)
        judge = _discriminator(network, opponent)
    except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise TrainingError(f"{path} is no snapshot of this network: {error}") from error
    return Trained(_for_inference(generator), network, details["nimg"], details["elapsed_s"], path, judge)


def _discriminator(network: Architecture, weights: dict[str, Tensor]) -> nn.Module | None:
    """Return a snapshot's discriminator, of one resolution or two; `None` without weights."""
    if not weights:
        return None
    two = isinstance(network, StyleResidualConfig) and any(name.startswith("coarse.") for name in weights)
    discriminator = TwoResolutions(network) if two else build_discriminator(network)  # type: ignore[arg-type]
    discriminator.load_state_dict(weights)
    return _for_inference(discriminator)


def from_bundle(folder: Path) -> Trained:
    """Return a bundle's generator, rebuilt from its weights without TorchScript.

    Args:
        folder: Folder of a bundle.

    Returns:
        The generator, with what the manifest says about it.

    Raises:
        TrainingError: If the folder is not a bundle, or one of another family of networks.
    """
    try:
        network = from_dict(json.loads((folder / "architecture.json").read_text(encoding="utf-8")))
        training = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["training"]
        weights = load_file(folder / "weights.safetensors")
        generator = build_generator(network)
        generator.load_state_dict(_taken(weights, "generator."))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise TrainingError(f"{folder} is neither the folder of a run nor a bundle: {error}") from error
    return Trained(_for_inference(generator), network, training["images_seen"], training["minutes"] * 60, folder)


def _taken(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Remove the weights with a prefix, and return them without it."""
    return {name.removeprefix(prefix): weights.pop(name) for name in list(weights) if name.startswith(prefix)}


def _for_inference(network: nn.Module) -> nn.Module:
    network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


@torch.inference_mode()
def sample(generator: nn.Module, z: Tensor, label: Tensor, batch_size: int = 250) -> Tensor:
    """Return pixels, uint8 (N, H, W, C), for latents `z`, float32 (N, z_dim), and labels, int64 (N,)."""
    parts = zip(z.split(batch_size), label.split(batch_size), strict=True)
    return torch.cat([to_uint8(generator(part, part_label)) for part, part_label in parts])
