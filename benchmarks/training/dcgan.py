"""`make compare-dcgan`: this trainer against the training loop of PyTorch's DCGAN example, at 64x64x3.

The reference is written from the example's description: its networks, batch of 64, Adam, losses and order of
operations, in float32, with labels unknown to it. Ours trains the same networks by its own loop. Rounds of both
alternate, so that the ratio is of one machine in one state; then both train for equal minutes, and so does the modern
generator.
"""

import json
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.store import Result, arguments, store, table
from training import data as datasets
from training.cli.train import usable_threads
from training.data import PictureSet, to_float, to_uint8
from training.evaluate import evaluators
from training.loop import Budget, Run
from training.metrics.evaluation import Evaluator
from training.presets import preset
from training.trainer import Trainer

RUNS = Path("runs/dcgan")
SAMPLES, CHUNK = 10_000, 500
BATCH, Z_DIM, WIDTH = 64, 100, 64
ROUNDS, ROUND_S = 5, 15.0
MODERN = "product64-cpu"


@dataclass(frozen=True)
class Quality:
    """What a generator reached."""

    name: str
    images: int
    fcd: float
    recall: float
    coverage: float


def reference_generator() -> nn.Sequential:
    """Return the example's generator: (N, 100, 1, 1) to (N, 3, 64, 64)."""
    layers: list[nn.Module] = [nn.ConvTranspose2d(Z_DIM, WIDTH * 8, 4, 1, 0, bias=False)]
    for before, after in ((8, 4), (4, 2), (2, 1)):
        layers += [nn.BatchNorm2d(WIDTH * before), nn.ReLU(inplace=True)]
        layers += [nn.ConvTranspose2d(WIDTH * before, WIDTH * after, 4, 2, 1, bias=False)]
    layers += [nn.BatchNorm2d(WIDTH), nn.ReLU(inplace=True), nn.ConvTranspose2d(WIDTH, 3, 4, 2, 1, bias=False)]
    return nn.Sequential(*layers, nn.Tanh())


def reference_discriminator() -> nn.Sequential:
    """Return the example's discriminator: (N, 3, 64, 64) to probabilities (N, 1, 1, 1)."""
    layers: list[nn.Module] = [nn.Conv2d(3, WIDTH, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
    for before, after in ((1, 2), (2, 4), (4, 8)):
        layers += [nn.Conv2d(WIDTH * before, WIDTH * after, 4, 2, 1, bias=False), nn.BatchNorm2d(WIDTH * after)]
        layers += [nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(WIDTH * 8, 1, 4, 1, 0, bias=False), nn.Sigmoid())


class Reference:
    """The example's loop: a step on real pictures, one on generated ones, one of the generator."""

    def __init__(self, data: PictureSet) -> None:
        torch.manual_seed(0)
        self.generator, self.discriminator = reference_generator(), reference_discriminator()
        for module in (*self.generator, *self.discriminator):
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)
        self.g_optimiser = torch.optim.Adam(self.generator.parameters(), 2e-4, (0.5, 0.999))
        self.d_optimiser = torch.optim.Adam(self.discriminator.parameters(), 2e-4, (0.5, 0.999))
        # Decoded and resized beforehand, which the example does for every picture it takes.
        pictures = TensorDataset(to_float(data.train.images).contiguous())
        self.loader = DataLoader(pictures, BATCH, shuffle=True, drop_last=True)
        self.batches = self._endless()
        self.nimg = 0

    def _endless(self) -> Iterator[Tensor]:
        while True:
            for (real,) in self.loader:
                yield real

    def step(self) -> None:
        """Train both networks on one batch."""
        loss, real = nn.BCELoss(), next(self.batches)
        ones, zeros = torch.ones(BATCH), torch.zeros(BATCH)
        self.discriminator.zero_grad()
        loss(self.discriminator(real).view(-1), ones).backward()
        fake = self.generator(torch.randn(BATCH, Z_DIM, 1, 1))
        loss(self.discriminator(fake.detach()).view(-1), zeros).backward()
        self.d_optimiser.step()
        self.generator.zero_grad()
        loss(self.discriminator(fake).view(-1), ones).backward()
        self.g_optimiser.step()
        self.nimg += BATCH

    def sample(self, z: Tensor) -> Tensor:
        """Return pixels, uint8 (N, 64, 64, 3), for latents (N, 100); batch norm in training mode, as the example."""
        with torch.no_grad():
            return torch.cat([to_uint8(self.generator(part[:, :, None, None])) for part in z.split(CHUNK)])


def main() -> None:
    """Measure, print and store."""
    parser = arguments("benchmarks.training.dcgan", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="packed file of 64x64 RGB pictures")
    parser.add_argument("--minutes", type=float, default=5.0)
    options = parser.parse_args()
    data = datasets.load(options.data)
    judge = evaluators(data, options.data, print)[0]
    unlabelled = replace(data, labels=())
    threads = usable_threads(BATCH)
    speeds = _speeds(unlabelled, threads)
    rows = [
        _reference(unlabelled, judge, options.minutes, threads),
        _ours("the same networks, this trainer", "dcgan", unlabelled, judge, options.minutes),
        _ours(f"{MODERN}, with labels", MODERN, data, judge, options.minutes),
    ]
    store(_result(data.name, speeds, rows, options.minutes), options)


def _speeds(data: PictureSet, threads: int) -> dict[str, list[float]]:
    """Return the images/s of each round, of the reference and of ours."""
    reference, trainer = Reference(data), Trainer(preset("dcgan"), data, threads=threads)
    found: dict[str, list[float]] = {"reference": [], "ours": []}
    for number in range(ROUNDS + 1):
        torch.set_num_threads(threads)
        theirs = _images_per_s(reference.step)
        torch.set_num_threads(1)
        own = _images_per_s(lambda: trainer.step(0.5))
        if number:  # the first round warms up
            found["reference"].append(theirs)
            found["ours"].append(own)
            print(f"round {number}: reference {theirs:.1f}, ours {own:.1f} images/s", flush=True)
    trainer.pool.close()
    return found


def _images_per_s(step: Callable[[], object]) -> float:
    started, steps = time.perf_counter(), 0
    while (took := time.perf_counter() - started) < ROUND_S:
        step()
        steps += 1
    return steps * BATCH / took


def _latents() -> Tensor:
    return torch.randn(SAMPLES, Z_DIM, generator=torch.Generator().manual_seed(0))


def _quality(name: str, nimg: int, samples: Tensor, label: Tensor, judge: Evaluator) -> Quality:
    found = {metric.name: metric.value for metric in judge.score(samples, label).metrics}
    row = Quality(name, nimg, found["fcd"], found["recall"], found["coverage"])
    print(json.dumps(asdict(row)), flush=True)
    return row


def _reference(data: PictureSet, judge: Evaluator, minutes: float, threads: int) -> Quality:
    torch.set_num_threads(threads)
    reference, started = Reference(data), time.monotonic()
    while time.monotonic() - started < minutes * 60:
        reference.step()
    samples = reference.sample(_latents())
    return _quality("reference", reference.nimg, samples, torch.zeros(SAMPLES, dtype=torch.int64), judge)


def _ours(name: str, preset_name: str, data: PictureSet, judge: Evaluator, minutes: float) -> Quality:
    folder = RUNS / preset_name
    shutil.rmtree(folder, ignore_errors=True)
    config = preset(preset_name)
    trainer = Trainer(config, data, threads=usable_threads(config.batch_size))
    Run(trainer, folder, Budget(minutes), snapshot_s=1e9, checkpoint_s=1e9, status=lambda line: None).train()
    label = torch.arange(SAMPLES) % max(data.num_classes, 1)
    samples = trainer.sample(_latents()[:, : config.z_dim], label)
    trainer.pool.close()
    return _quality(name, trainer.nimg, samples, label, judge)


def _result(data: str, speeds: dict[str, list[float]], rows: list[Quality], minutes: float) -> Result:
    ours, reference = (statistics.median(speeds[name]) for name in ("ours", "reference"))
    facts = {
        "data": data,
        "images_per_s": speeds,
        "ratio": ours / reference,
        "minutes_each": minutes,
        "samples": SAMPLES,
        "rows": [asdict(row) for row in rows],
    }
    shown = [(row.name, row.images, f"{row.fcd:.2f}", f"{row.recall:.2f}", f"{row.coverage:.2f}") for row in rows]
    lines = [
        f"Same networks: {ours:.0f} images/s against {reference:.0f}, {facts['ratio']:.2f} times "
        f"(medians of {ROUNDS} alternating rounds of {ROUND_S:g} s).",
        "",
        f"After {minutes:g} minutes each, {SAMPLES} samples:",
        "",
        *table(("", "images", "FCD", "recall", "coverage"), shown),
    ]
    how = f"{data}, batch {BATCH}"
    return Result("dcgan", "The DCGAN of PyTorch's examples", how, facts, lines, command="make compare-dcgan")


if __name__ == "__main__":
    main()
