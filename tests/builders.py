"""Bundles for tests: tiny networks with random weights, written by the real export."""

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training.data import Label, PictureSet, Split
from training.export import BundleFacts, export_bundle
from training.manifest import TrainingFacts
from training.networks.families import Architecture, build_discriminator, build_generator
from training.networks.layers import BatchNorm
from training.networks.style_residual import Discriminator, Generator, StyleResidualConfig

TINY_LABELS = (
    Label("Ankle boot", ("boot", "bootie")),
    Label("bag", ("handbag", "purse")),
    Label("t-shirt/top", ("tee",)),
)


def tiny_labels(num_classes: int) -> tuple[Label, ...]:
    """Return the labels of a tiny bundle: at most three with aliases, and any further ones without."""
    return (*TINY_LABELS[:num_classes], *(Label(f"class {index}") for index in range(3, num_classes)))


def tiny_generator(*, channels: int = 1, num_classes: int = 3, seed: int = 0) -> Generator:
    """Return a generator of 16x16 pictures, in evaluation mode, whose pictures differ from seed to seed."""
    config = StyleResidualConfig(channels, num_classes, base_size=4, widths=(16, 16), z_dim=8, w_dim=16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = Generator(config)
        for name, parameter in generator.named_parameters():
            if name.endswith("conv_out.weight"):  # zero in a generator that has not been trained
                nn.init.normal_(parameter, std=0.3)
    return generator.eval().requires_grad_(False)


def tiny_discriminator(*, channels: int = 1, num_classes: int = 3, seed: int = 0) -> Discriminator:
    """Return the opponent of `tiny_generator`, in evaluation mode, whose scores differ from picture to picture."""
    config = StyleResidualConfig(channels, num_classes, base_size=4, widths=(16, 16), z_dim=8, w_dim=16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Discriminator(config).eval().requires_grad_(False)


def random_networks(architecture: Architecture, *, seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """Return generator and discriminator of any family, in evaluation mode, with statistics as after training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = build_generator(architecture), build_discriminator(architecture)
        for module in networks[0].modules():
            if isinstance(module, BatchNorm):
                nn.init.normal_(module.mean, std=0.1)
                nn.init.uniform_(module.variance, 0.5, 2.0)
    return networks[0].eval().requires_grad_(False), networks[1].eval().requires_grad_(False)


def tiny_pictures(*, channels: int = 1, num_classes: int = 3, count: int = 60, size: int = 16) -> PictureSet:
    """Return a data set of noise, half as many held out as to train on; labels in turn."""
    random = torch.Generator().manual_seed(7)
    splits = [
        Split(
            torch.randint(0, 256, (number, size, size, channels), dtype=torch.uint8, generator=random),
            torch.arange(number) % max(num_classes, 1),
        )
        for number in (count, count // 2)
    ]
    return PictureSet("noise", *splits, tiny_labels(num_classes), "CC0-1.0", "0" * 64)


def tiny_facts(*, name: str, version: int, num_classes: int = 3) -> BundleFacts:
    """Return what a tiny bundle's manifest says beyond the network."""
    training = TrainingFacts(
        preset="tiny",
        config={},
        images_seen=0,
        minutes=0.0,
        device="cpu",
        git_revision="unknown",
        data_name="noise",
        data_digest="0" * 64,
        data_licence="CC0-1.0",
    )
    return BundleFacts(name, version, tiny_labels(num_classes), [], training, "Tests.", "Apache-2.0")


def export_tiny_bundle(
    models_dir: Path, *, name: str = "tiny", version: int = 1, channels: int = 1, num_classes: int = 3, seed: int = 0
) -> Path:
    """Export a tiny generator with random weights to `models_dir/<name>/<version>/` and return that folder."""
    generator = tiny_generator(channels=channels, num_classes=num_classes, seed=seed)
    return export_bundle(generator, tiny_facts(name=name, version=version, num_classes=num_classes), models_dir)


def rewrite_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let `change` alter a bundle's manifest in place."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Put other content into a bundle's file and make its manifest agree with it."""
    (folder / name).write_bytes(content)
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    rewrite_manifest(folder, lambda manifest: manifest["files"].__setitem__(name, entry))


def save_torchscript(module: nn.Module, path: Path) -> None:
    """Write a module as a TorchScript archive, as the export does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
        torch.jit.save(torch.jit.script(module), str(path))
