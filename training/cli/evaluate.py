"""`evaluate RUN_OR_BUNDLE`: the figures, each beside its real-against-real floor."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from training import data as datasets
from training.data import PictureSet
from training.errors import TrainingError
from training.evaluate import Judgement, best_snapshot, evaluators, judge
from training.files import replacing
from training.generators import from_bundle, run_facts
from training.metrics import inception
from training.metrics.fid import PROTOCOLS, Fid
from training.presets import config_of
from training.progress import duration, save_grid

EVALUATION_NAME = "evaluation.json"
PAIRS_NAME = "memorisation.png"
_PAIRS_PER_ROW = 4
DEFAULT_SAMPLES = 10_000


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("evaluate", help="measure a run's best snapshot, or a bundle")
    parser.add_argument("source", type=Path, help="folder of a run, or of a bundle")
    parser.add_argument("--data", type=Path, help="file made by 'prepare' (default: the one the run was trained on)")
    parser.add_argument("--samples", type=int, default=DEFAULT_SAMPLES, help=f"samples (default {DEFAULT_SAMPLES})")
    parser.add_argument(
        "--inception", type=Path, metavar="FILE", help="TorchScript Inception network, inception-2015-12-05.pt, for FID"
    )
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        action="append",
        help="how to measure FID; may be given twice; needs --inception",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Measure, print, and for a run keep the result in `evaluation.json`."""
    if options.samples < 100:
        raise TrainingError(f"--samples {options.samples} is too few to measure anything; at least 100")
    console = Console()
    is_run = (options.source / "run.json").is_file()
    data_path = options.data or (Path(run_facts(options.source)["data"]["file"]) if is_run else None)
    if data_path is None:
        raise TrainingError(
            f"{options.source} is not the folder of a run; to evaluate a bundle give its data by --data"
        )
    data = datasets.load(data_path)

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    started = time.monotonic()
    fids = _fids(options, data)  # refused before hours of work, not after
    judges = evaluators(data, data_path, say)
    if is_run:
        network = config_of(run_facts(options.source)["config"]).network(size=data.size, num_classes=data.num_classes)
        trained = best_snapshot(options.source, network, judges[0], say)
    else:
        trained = from_bundle(options.source)
    judgement = judge(trained, judges, options.samples, data_path, say, fids=fids)
    _print(console, judgement, data)
    took = time.monotonic() - started
    if trained.elapsed_s:
        share = f", {took / trained.elapsed_s:.1%} of the training that led to it ({duration(trained.elapsed_s)})"
        say(f"measured in {duration(took)}{share}")
    if is_run:
        _keep(options.source, judgement)
        say(f"closest pairs, sample beside training picture: {options.source / PAIRS_NAME}")
        say(f"next: python -m training export {options.source}")


def _fids(options: argparse.Namespace, data: PictureSet) -> list[Fid]:
    """Return FID by each protocol of the command line, none without."""
    path, protocols = options.inception, options.protocol
    if path is None and not protocols:
        return []
    if path is None:
        raise TrainingError(f"--protocol {protocols[0]} needs the Inception network: --inception FILE")
    if not protocols:
        raise TrainingError(f"--inception {path} needs --protocol, {' or '.join(PROTOCOLS)}")
    network = inception.load(path)
    pictures = (data.train.images, data.holdout.images)
    return [Fid(protocol, network, *pictures, options.samples) for protocol in dict.fromkeys(protocols)]


def _print(console: Console, judgement: Judgement, data: PictureSet) -> None:
    trained = judgement.trained
    first = judgement.evaluations[0]
    title = f"{trained.source.name}: {trained.nimg} images seen, against {data.name}"
    names = Column("metric", overflow="fold")
    table = Table(names, "value", "floor", "n real", "n samples", "n floor", title=title)
    for entry in judgement.metrics():
        numbers = (entry.n_real, entry.n_fake, entry.n_floor)
        table.add_row(entry.name, _shown(entry.value), _shown(entry.floor), *map(str, numbers))
    console.print(table)
    console.print("floor: real against real, hold-out pictures in place of samples", highlight=False, soft_wrap=True)
    for evaluation in judgement.evaluations:
        text = f"feature space {evaluation.feature_space} {evaluation.feature_digest[:16]}, k = {first.k}"
        console.print(text, highlight=False, soft_wrap=True)
    for entry in judgement.fids[:1]:
        text = f"feature space {entry.feature_space}, SHA-256 of the file {entry.feature_digest}"
        console.print(text, highlight=False, soft_wrap=True)
    for note in judgement.notes:
        console.print(note, highlight=False, soft_wrap=True)
    if not judgement.memorisation.suspicions:
        console.print("no sign of memorisation", highlight=False, soft_wrap=True)


def _shown(value: float) -> str:
    return f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.2e}"


def _keep(folder: Path, judgement: Judgement) -> None:
    kept = {
        "snapshot": judgement.trained.source.name,
        "metrics": [entry.model_dump() for entry in judgement.metrics()],
        "notes": list(judgement.notes),
        "memorisation_suspected": bool(judgement.memorisation.suspicions),
    }
    pairs = judgement.memorisation.pairs
    save_grid(folder / PAIRS_NAME, pairs.flatten(0, 1), 2 * _PAIRS_PER_ROW, zoom=max(1, 112 // pairs.shape[2]))
    with replacing(folder / EVALUATION_NAME) as beside:
        beside.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def read_kept(folder: Path) -> dict[str, Any]:
    """Return what `evaluate` kept for a run.

    Args:
        folder: Folder of the run.

    Returns:
        The content of its `evaluation.json`.

    Raises:
        TrainingError: If the run has not been evaluated.
    """
    try:
        kept: dict[str, Any] = json.loads((folder / EVALUATION_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{folder} has not been evaluated; first: python -m training evaluate {folder}") from error
    return kept
