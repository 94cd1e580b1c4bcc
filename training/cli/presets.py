"""`presets`: what can be trained, how large it is, and what it costs."""

import argparse
from typing import Any, cast

import torch
from rich.console import Console
from rich.table import Column, Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from training.networks.classic import RESOLUTIONS
from training.networks.families import build_discriminator, build_generator
from training.presets import PRESETS, TrainConfig

# FCD after 5 minutes on two cores, of a classic preset also with the modern loss: benchmarks/results/presets.md.
EXPECTED = {
    "classic-conv4": "30 / 20",
    "classic-mlp-lsgan": "27 / 22",
    "classic-dcgan64": "45 / 18",
    "classic-gen7": "11 / 14",
    "classic-mlp-bn": "32 / 29",
    "fashion28": "0.6",
    "product64-cpu": "7.2",
}
COLOUR_FROM = 64  # pixels; smaller pictures are counted in grey
NUM_CLASSES = 10


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("presets", help="list what can be trained")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print a table of the presets."""
    del options
    table = Table(Column("preset", no_wrap=True), Column("pictures", no_wrap=True), "loss", padding=(0, 0))
    for name in ("G params", "G MMAC", "D params", "D MMAC", "batch"):
        table.add_column(name, justify="right")
    table.add_column("FCD", justify="right")
    for config in PRESETS.values():
        table.add_row(*_row(config))
    console = Console()
    console.print(table)
    console.print(
        f"counted with {NUM_CLASSES} labels; MMAC: million multiply-adds for one picture. A step of the modern loss "
        "with both penalties costs about 22 times the forward pass of both networks. Classic presets take --modern. "
        "FCD: what to expect of 5 minutes on two cores, with the preset's loss / with --modern, on Fashion-MNIST "
        "(28x28) or fruits360-64.",
        highlight=False,
    )


def _row(config: TrainConfig) -> list[str]:
    side = picture_side(config)
    channels = 3 if side >= COLOUR_FROM else 1
    network = config.network(size=(side, side, channels), num_classes=NUM_CLASSES)
    generator, discriminator = build_generator(network).eval(), build_discriminator(network).eval()
    label = torch.zeros(1, dtype=torch.int64)
    counts = []
    for module, inputs in (
        (generator, torch.zeros(1, network.z_dim)),
        (discriminator, torch.zeros(1, channels, side, side)),
    ):
        parameters = sum(weight.numel() for weight in module.parameters())
        counts += [f"{parameters / 1e6:.2f} M", f"{multiply_adds(module, inputs, label) / 1e6:.1f}"]
    return [
        config.preset,
        f"{side}x{side}x{channels}",
        config.loss,
        *counts,
        str(config.batch_size),
        EXPECTED.get(config.preset, ""),
    ]


def picture_side(config: TrainConfig) -> int:
    """Return height and width of a preset's pictures, in pixels; 28 for those that make several sizes."""
    if config.system is None:
        return int(config.base_size * 2 ** len(config.widths))
    possible = RESOLUTIONS[config.system]
    return 28 if 28 in possible else possible[0]


def multiply_adds(module: nn.Module, *inputs: torch.Tensor) -> int:
    """Return the multiply-adds of one forward pass."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return cast("int", counter.get_total_flops()) // 2
