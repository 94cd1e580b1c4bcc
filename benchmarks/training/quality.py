"""What a generator reached in a given time; shared by the benchmarks that train."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from math import isnan, nan
from pathlib import Path

import torch

from benchmarks.machine import revision
from training.cli.train import usable_threads
from training.data import PictureSet
from training.errors import DivergedError
from training.loop import Budget, Run
from training.metrics.evaluation import Evaluation, Evaluator
from training.presets import TrainConfig
from training.trainer import Trainer

SAMPLES = 10_000
COLUMNS = ("FCD", "recall", "coverage", "accuracy")


@dataclass(frozen=True)
class Figures:
    """Of one run; those that cannot be measured are not a number."""

    fcd: float
    recall: float
    coverage: float
    accuracy: float
    images: int
    images_per_s: float

    def cells(self) -> list[str]:
        """Return the figures of `COLUMNS`; what is not a number is left empty."""
        values = (self.fcd, self.recall, self.coverage, self.accuracy)
        return ["" if isnan(value) else f"{value:.2f}" for value in values]


def trainer_for(config: TrainConfig, data: PictureSet, threads: int | None = None) -> Trainer:
    """Return a trainer on up to so many threads, as far as they share the batch evenly; else on all cores."""
    return Trainer(config, data, threads=usable_threads(config.batch_size, threads))


@dataclass(frozen=True)
class Origin:
    """When a run was begun, by which commit, on how many threads."""

    date: str
    commit: str
    threads: int


def train(trainer: Trainer, folder: Path, minutes: float) -> Origin:
    """Train for so many minutes, or finish what the folder holds; a run that diverges ends with what it has."""
    path = folder / "origin.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        path.write_text(json.dumps(asdict(Origin(now, revision(), trainer.pool.num_threads))), encoding="utf-8")
    session = Run(trainer, folder, Budget(minutes), snapshot_s=1e9, checkpoint_s=300, status=lambda line: None)
    session.resume()
    try:
        session.train()
    except DivergedError as error:
        print(f"{folder.name} diverged: {error}", flush=True)
        session.snapshot()
    return Origin(**json.loads(path.read_text(encoding="utf-8")))


def figures(trainer: Trainer, judge: Evaluator, *, quick: bool = False) -> tuple[Figures, Evaluation]:
    """Return what `SAMPLES` samples of the averaged generator reach, from fixed latents, classes in equal shares."""
    label = torch.arange(SAMPLES) % max(trainer.data.num_classes, 1)
    z = torch.randn(SAMPLES, trainer.config.z_dim, generator=torch.Generator().manual_seed(0))
    evaluation = judge.score(trainer.sample(z, label), label, quick=quick)
    found = {metric.name: metric.value for metric in evaluation.metrics}
    speed = trainer.nimg / max(trainer.elapsed_s, 1e-9)
    return of_metrics(found, trainer.nimg, speed), evaluation


def of_metrics(found: dict[str, float], images: int, images_per_s: float) -> Figures:
    """Return the figures among metrics by their names."""
    fcd, recall, coverage, accuracy = (found.get(key, nan) for key in ("fcd", "recall", "coverage", "accuracy"))
    return Figures(fcd, recall, coverage, accuracy, images, images_per_s)
