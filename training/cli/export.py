"""`export RUN`: the best snapshot as a bundle for the service."""

import argparse
import re
import unicodedata
from pathlib import Path
from typing import Any

from rich.console import Console

from training import data as datasets
from training.cli.evaluate import read_kept
from training.errors import TrainingError
from training.evaluate import FEATURE_SEEDS
from training.export import BundleFacts, export_bundle
from training.generators import from_snapshot, run_facts
from training.manifest import MetricEntry, TrainingFacts
from training.metrics.feature_store import load
from training.metrics.features import FeatureNet
from training.presets import config_of
from training.privacy import DEFAULT_RATIO, privacy_gate
from training.report import REPORT_NAME, render

DEFAULT_USE = "Pictures for web and shop frontends, in the manner of the training data; not a record of real products."


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("export", help="write a run's best snapshot as a bundle")
    parser.add_argument("run_folder", type=Path, metavar="run", help="folder of an evaluated run")
    parser.add_argument(
        "--name", help="name of the model: lower case letters, digits, hyphens (default: made from the data's name)"
    )
    parser.add_argument("--version", type=int, help="version of the model, 1 or more (default: the next free one)")
    parser.add_argument("--models", type=Path, default=Path("models"), help="models folder (default: models)")
    parser.add_argument("--intended-use", default=DEFAULT_USE)
    parser.add_argument("--licence", default="Apache-2.0", help="licence of the model (default Apache-2.0)")
    parser.add_argument(
        "--privacy-gate",
        type=float,
        nargs="?",
        const=DEFAULT_RATIO,
        metavar="RATIO",
        help="refuse to export if the 1 %% quantile of the samples' distances to the nearest training picture is below "
        f"RATIO times that of hold-out pictures (without a number: {DEFAULT_RATIO})",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Export, and say where to."""
    if options.name is not None and not re.fullmatch("[a-z0-9][a-z0-9-]{0,62}", options.name):
        raise TrainingError(f"--name {options.name!r} is not made of lower case letters, digits and hyphens")
    if options.version is not None and options.version < 1:
        raise TrainingError(f"--version {options.version} is not 1 or more")
    facts, kept = run_facts(options.run_folder), read_kept(options.run_folder)
    name = options.name or model_name(facts["data"]["name"])
    version = options.version or next_version(options.models / name)
    data_path = Path(facts["data"]["file"])
    data = datasets.load(data_path)
    network = config_of(facts["config"]).network(size=data.size, num_classes=data.num_classes)
    trained = from_snapshot(options.run_folder / "snapshots" / kept["snapshot"], network)
    console = Console()
    if options.privacy_gate is not None:
        figures = privacy_gate(trained.generator, data, ratio=options.privacy_gate, net=_feature_network(data_path))
        for closeness in figures:
            console.print(f"nearest training pictures in {closeness}", highlight=False, soft_wrap=True)
    environment = facts["environment"]
    bundle = BundleFacts(
        name=name,
        version=version,
        labels=data.labels,
        metrics=[MetricEntry(**entry) for entry in kept["metrics"]],
        training=TrainingFacts(
            preset=facts["config"]["preset"],
            config=facts["config"],
            images_seen=trained.nimg,
            minutes=round(trained.elapsed_s / 60, 1),
            device=f"{environment['device']}, {environment['threads']} threads",
            git_revision=environment.get("git_revision", "unknown"),
            data_name=data.name,
            data_digest=data.digest,
            data_licence=data.licence,
        ),
        intended_use=options.intended_use,
        licence=options.licence,
    )
    folder = export_bundle(
        trained.generator,
        bundle,
        options.models,
        discriminator=trained.discriminator,
        data=data,
        report=render(options.run_folder, f"{name}, version {version}", in_bundle=True),
    )
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    look = f"look at {folder / 'samples.png'} and {REPORT_NAME}"
    console.print(f"wrote {folder} ({size:.1f} MB); {look}", highlight=False, soft_wrap=True)
    if trained.discriminator is None:
        console.print("without a discriminator: the snapshot, of an older version, holds none", soft_wrap=True)


def model_name(data_name: str) -> str:
    """Return the data's name in the letters that a model's name may have; "model" if none is left."""
    plain = unicodedata.normalize("NFKD", data_name).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z0-9]+", "-", plain).strip("-")[:63] or "model"


def next_version(model: Path) -> int:
    """Return one more than the highest version in a model's folder; 1 if there is none."""
    versions = [int(path.name) for path in model.glob("*") if path.name.isdecimal()]
    return max(versions, default=0) + 1


def _feature_network(data_path: Path) -> FeatureNet | None:
    """Return the first feature network that `evaluate` has put beside the data, if it is still there."""
    path = data_path.with_suffix(f".features-{FEATURE_SEEDS[0]}.safetensors")
    try:
        return load(path) if path.exists() else None
    except ValueError as error:
        raise TrainingError(f"{path} is damaged; remove it and evaluate again: {error}") from error
