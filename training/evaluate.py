"""Judge a trained generator: score a run's snapshots, choose the best, measure it in two feature spaces."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from training.data import PictureSet
from training.errors import TrainingError
from training.files import replacing
from training.generators import SCORES_NAME, Trained, from_snapshot, sample, snapshots
from training.manifest import MetricEntry
from training.metrics import cas
from training.metrics.cas import Cas
from training.metrics.evaluation import Evaluation, Evaluator
from training.metrics.feature_store import load_or_train
from training.metrics.fid import Fid
from training.metrics.inception import FEATURE_SPACE as INCEPTION_SPACE
from training.metrics.memorisation import Memorisation
from training.networks.families import Architecture

FEATURE_EPOCHS, MAX_FEATURE_EPOCHS = 3, 30
# Three epochs of 60,000 pictures of 28x28; a small set is shown more often, so that its space is worth the name, and
# larger pictures less often, so that it takes minutes.
FEATURE_PIXELS = 180_000 * 28 * 28
FEATURE_SEEDS = (0, 1)  # two independently trained feature networks must agree in order
CHOICE_SAMPLES = 2000  # to choose a snapshot by: their bias is the same for all, and a dozen snapshots take seconds
CAS_SPACE = "samples-cnn/1"  # the classifier trained on samples; its digest is the entry's
PIXEL_SPACE = ("pixels/1", "")  # root mean square difference in grey levels; no network, so no digest
_SMALL = 0.01
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A generator with all that was measured of it.

    Attributes:
        trained: The generator.
        evaluations: One per feature network. The first one's figures are the ones to quote; the others are quick.
        memorisation: How near its samples are to training pictures.
        cas: A classifier trained on samples and one trained on as many training pictures; `None` without labels.
        notes: What was left out, and why; and what the samples look memorised by, if they do.
        fids: FID by each protocol that was asked for.
    """

    trained: Trained
    evaluations: tuple[Evaluation, ...]
    memorisation: Memorisation
    cas: tuple[Cas, Cas] | None
    notes: tuple[str, ...]
    fids: tuple[MetricEntry, ...] = ()

    def metrics(self) -> list[MetricEntry]:
        """Return every figure as an entry for a manifest; the second network's FCD as `fcd_2`."""
        entries = []
        for number, evaluation in enumerate(self.evaluations, start=1):
            for metric in evaluation.metrics:
                if number > 1 and metric.name != "fcd":
                    continue
                name = metric.name if number == 1 else f"{metric.name}_{number}"
                counts = (metric.n_real, metric.n_fake, metric.n_floor)
                space = (evaluation.feature_space, evaluation.feature_digest)
                entries.append(_entry(name, metric.value, metric.floor, counts, space))
        if self.cas:
            on_samples, on_real = self.cas
            counts = (on_samples.n_holdout, on_samples.num_images, on_real.num_images)
            entries.append(_entry("cas", on_samples.accuracy, on_real.accuracy, counts, (CAS_SPACE, on_samples.digest)))
        screen, first = self.memorisation, self.evaluations[0]
        for nearness in screen.nearness:
            space = PIXEL_SPACE if nearness.space == "pixels" else (first.feature_space, first.feature_digest)
            for name, (value, floor) in nearness.figures().items():
                entries.append(_entry(name, value, floor, (screen.n_train, screen.n_fake, screen.n_holdout), space))
        return [*entries, *self.fids]


def _entry(name: str, value: float, floor: float, counts: tuple[int, int, int], space: tuple[str, str]) -> MetricEntry:
    n_real, n_fake, n_floor = counts
    return MetricEntry(
        name=name,
        value=_rounded(value),
        floor=_rounded(floor),
        n_real=n_real,
        n_fake=n_fake,
        n_floor=n_floor,
        feature_space=space[0],
        feature_digest=space[1],
    )


def _rounded(value: float) -> float:
    """Return four decimals, and four digits where those would leave little: KID is of the order of 1e-4."""
    return round(value, 4) if abs(value) >= _SMALL else float(f"{value:.4g}")


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
                path, train, holdout, data.num_classes, seed=seed, epochs=feature_epochs(len(data.train), data.size)
            )
            made.append(Evaluator(net, train, holdout, label_names=[label.name for label in data.labels]))
        except ValueError as error:
            raise TrainingError(f"{data_path} cannot be a yardstick: {error}") from error
    return made


def feature_epochs(num_pictures: int, size: tuple[int, int, int]) -> int:
    """Return a feature network's epochs for `num_pictures` training pictures of `size`: height, width, channels."""
    height, width, _ = size
    return min(MAX_FEATURE_EPOCHS, max(FEATURE_EPOCHS, FEATURE_PIXELS // max(num_pictures * height * width, 1)))


def judge(
    trained: Trained,
    judges: list[Evaluator],
    num_samples: int,
    data_path: Path,
    say: Say,
    *,
    fids: Sequence[Fid] = (),
) -> Judgement:
    """Measure fresh samples of a generator: in every feature space, by a classifier, and against the training pictures.

    Args:
        trained: The generator.
        judges: An evaluator per feature space.
        num_samples: How many samples.
        data_path: File of the data; the classifier that is trained on real pictures is kept beside it.
        say: Told what is done.
        fids: Protocols of FID to measure by too, made for `num_samples`.

    Returns:
        All figures.

    Raises:
        TrainingError: If the samples are not of the size or the classes of the data.
    """
    say(f"drawing {num_samples} samples and measuring them")
    images, labels = _samples(trained, num_samples)
    first = judges[0]
    try:
        evaluations = tuple(evaluator.score(images, labels, quick=evaluator is not first) for evaluator in judges)
        notes = list(evaluations[0].notes)
        say("looking for the nearest training pictures")
        memorisation = first.memorisation(images)
        notes += [f"memorisation suspected: {reason}" for reason in memorisation.suspicions]
        scores = _cas(first, images, labels, data_path, say)
        distances = tuple(_fid(fid, images, say) for fid in fids)
    except ValueError as error:
        raise TrainingError(f"{trained.source} does not fit the data: {error}") from error
    if scores is None:
        notes.append("no classifier was trained on samples: the data has no labels")
    notes += [
        f"{entry.name}: its floor is of {entry.n_floor} real pictures, its value of {entry.n_fake} samples; fewer "
        "pictures make either larger"
        for entry in distances
        if entry.n_floor != entry.n_fake
    ]
    return Judgement(trained, evaluations, memorisation, scores, tuple(notes), distances)


def _fid(fid: Fid, images: torch.Tensor, say: Say) -> MetricEntry:
    found = fid.score(images, say)
    counts = (found.n_real, found.n_fake, found.n_floor)
    return _entry(found.name, found.value, found.floor, counts, (INCEPTION_SPACE, fid.inception.digest))


def _cas(
    evaluator: Evaluator, images: torch.Tensor, labels: torch.Tensor, data_path: Path, say: Say
) -> tuple[Cas, Cas] | None:
    """Return the accuracies of classifiers trained on samples and on training pictures; `None` without labels."""
    net, train, holdout = evaluator.net, evaluator.train, evaluator.holdout
    if not net.labelled:
        return None
    spent = cas.plan(min(len(images), len(train[0])), *images.shape[1:3])
    say(f"training a classifier on {spent.num_images} samples, {spent.epochs} epochs")
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[: spent.num_images]
    on_samples = cas.train_and_test((images[chosen], labels[chosen]), holdout, net.num_classes, spent.epochs)
    path = data_path.with_suffix(".cas.safetensors")
    if not path.exists():
        say(f"training a classifier on as many training pictures (once, kept in {path})")
    return on_samples, cas.real_floor(train, holdout, net.num_classes, spent, path)


def best_snapshot(run: Path, network: Architecture, evaluator: Evaluator, say: Say) -> Trained:
    """Score every snapshot of a run by FCD of few samples and return the lowest; all scores go to `scores.json`."""
    scores: dict[str, float] = {}
    best: Trained | None = None
    for path in snapshots(run):
        trained = from_snapshot(path, network)
        images, labels = _samples(trained, CHOICE_SAMPLES)
        scores[path.name] = evaluator.score(images, labels, quick=True).metric("fcd").value
        say(f"snapshot {path.stem}: {trained.nimg} images, FCD {scores[path.name]:.3f} (n = {CHOICE_SAMPLES})")
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
