"""Judge a trained generator: score a run's snapshots, choose the best, measure it in two feature spaces."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from training.data import PictureSet
from training.errors import TrainingError
from training.files import replacing
from training.generators import SCORES_NAME, Trained, from_snapshot, sample, snapshots
from training.manifest import MetricEntry
from training.metrics.evaluation import Evaluation, Evaluator
from training.metrics.features import load_or_train
from training.networks.families import Architecture

FEATURE_EPOCHS, MAX_FEATURE_EPOCHS = 3, 30
FEATURE_IMAGES = 180_000  # three epochs of 60,000; a small set is shown more often, so that its space is worth the name
FEATURE_SEEDS = (0, 1)  # two independently trained feature networks must agree in order
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A generator with its evaluations, one per feature network; the first one's figures are the ones to quote."""

    trained: Trained
    evaluations: tuple[Evaluation, ...]

    def metrics(self) -> list[MetricEntry]:
        """Return every figure as an entry for a manifest; the second network's FCD as `fcd_2`."""
        entries = []
        for number, evaluation in enumerate(self.evaluations, start=1):
            for metric in evaluation.metrics:
                if number > 1 and metric.name != "fcd":
                    continue
                entries.append(
                    MetricEntry(
                        name=metric.name if number == 1 else f"{metric.name}_{number}",
                        value=round(metric.value, 4),
                        floor=round(metric.floor, 4),
                        n_real=metric.n_real,
                        n_fake=metric.n_fake,
                        n_floor=metric.n_floor,
                        feature_space=evaluation.feature_space,
                        feature_digest=evaluation.feature_digest,
                    )
                )
        return entries


def evaluators(data: PictureSet, data_path: Path, say: Say) -> list[Evaluator]:
    """Return an evaluator per feature network; the networks are trained once and kept beside the data.

    Args:
        data: The data set.
        data_path: Its file.
        say: Told when a network is trained.

    Returns:
        One evaluator per entry of `FEATURE_SEEDS`.

    Raises:
        TrainingError: If the data is too small, or what is kept beside it is damaged.
    """
    train, holdout = ((split.images, split.labels) for split in (data.train, data.holdout))
    made = []
    for seed in FEATURE_SEEDS:
        path = data_path.with_suffix(f".features-{seed}.safetensors")
        if not path.exists():
            say(f"training feature network {seed} on the {len(data.train)} training pictures (once, kept in {path})")
        try:
            net = load_or_train(
                path, train, holdout, data.num_classes, seed=seed, epochs=feature_epochs(len(data.train))
            )
            made.append(Evaluator(net, train, holdout))
        except ValueError as error:
            raise TrainingError(f"{data_path} cannot be a yardstick: {error}") from error
    return made


def feature_epochs(num_pictures: int) -> int:
    """Return the epochs of a feature network for a training split of `num_pictures`."""
    return min(MAX_FEATURE_EPOCHS, max(FEATURE_EPOCHS, FEATURE_IMAGES // max(num_pictures, 1)))


def judge(trained: Trained, judges: list[Evaluator], num_samples: int) -> Judgement:
    """Measure fresh samples of a generator in every feature space.

    Args:
        trained: The generator.
        judges: An evaluator per feature space.
        num_samples: How many samples.

    Returns:
        An evaluation per feature space.

    Raises:
        TrainingError: If the samples are not of the size or the classes of the data.
    """
    images, labels = _samples(trained, num_samples)
    try:
        return Judgement(trained, tuple(evaluator.score(images, labels) for evaluator in judges))
    except ValueError as error:
        raise TrainingError(f"{trained.source} does not fit the data: {error}") from error


def best_snapshot(run: Path, network: Architecture, evaluator: Evaluator, num_samples: int, say: Say) -> Trained:
    """Score every snapshot of a run by FCD and return the lowest one; all scores go to `scores.json`."""
    scores: dict[str, float] = {}
    best: Trained | None = None
    for path in snapshots(run):
        trained = from_snapshot(path, network)
        images, labels = _samples(trained, num_samples)
        scores[path.name] = evaluator.score(images, labels, quick=True).metric("fcd").value
        say(f"snapshot {path.stem}: {trained.nimg} images, FCD {scores[path.name]:.3f} (n = {num_samples})")
        if best is None or scores[path.name] < scores[best.source.name]:
            best = trained
    assert best is not None  # snapshots() has refused an empty run
    with replacing(run / SCORES_NAME) as beside:
        beside.write_text(json.dumps({"best": best.source.name, "fcd": scores}, indent=2) + "\n", encoding="utf-8")
    return best


def _samples(trained: Trained, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pixels and labels of fixed latents; classes in equal shares."""
    config = trained.network
    z = torch.randn(count, config.z_dim, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count) % max(config.num_classes, 1)
    return sample(trained.generator, z, labels), labels
