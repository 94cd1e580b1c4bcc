"""`sample RUN_OR_BUNDLE`: a grid of pictures by seed, the same seeds as the service's."""

import argparse
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from training import data as datasets
from training.errors import TrainingError
from training.generators import Trained, from_bundle, from_snapshot, run_facts, sample, snapshots
from training.latents import latents
from training.presets import config_of
from training.progress import save_grid


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("sample", help="write a grid of pictures, a row per label")
    parser.add_argument("source", type=Path, help="folder of a run (its newest snapshot), or of a bundle")
    parser.add_argument("out", type=Path, help="PNG file to write")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--columns", type=int, default=10, help="seeds per row, 1..100 (default 10)")
    parser.add_argument("--zoom", type=int, default=2, help="whole factor of enlargement, 1..16 (default 2)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Write the grid."""
    for name, value, low, high in (
        ("--first-seed", options.first_seed, 0, 2**53 - 101),
        ("--columns", options.columns, 1, 100),
        ("--zoom", options.zoom, 1, 16),
    ):
        if not low <= value <= high:
            raise TrainingError(f"{name} {value} is not in {low}..{high}")
    trained = _trained(options.source)
    config = trained.network
    rows, columns = max(config.num_classes, 1), options.columns
    seeds = [options.first_seed + column for column in range(columns)] * rows
    pixels = sample(trained.generator, latents(seeds, config.z_dim), torch.arange(rows).repeat_interleave(columns))
    save_grid(options.out, pixels, columns, zoom=options.zoom)
    Console().print(f"wrote {options.out}: {trained.source}, seeds {seeds[0]}..{seeds[-1]}", highlight=False)


def _trained(source: Path) -> Trained:
    if not (source / "run.json").is_file():
        return from_bundle(source)
    facts = run_facts(source)
    data = datasets.load(Path(facts["data"]["file"]))
    network = config_of(facts["config"]).network(size=data.size, num_classes=data.num_classes)
    return from_snapshot(snapshots(source)[-1], network)
