"""The training loop: D phase, G phase, EMA; then status, snapshot, checkpoint.

One batch of fakes serves both updates: the generator's step reuses it, and the discriminator's real logits from before
its own update. All randomness is a function of the seed and the position, so a resumed run repeats the whole one.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training import checkpoint, schedules
from training.data import EndlessSampler, PictureSet, to_float, to_uint8
from training.ema import copy_for_ema, update_ema
from training.errors import DivergedError, TrainingError
from training.losses import gradient_penalty, relativistic_loss
from training.networks.style_residual import Discriminator, Generator
from training.parallel import ShardPool, set_mean_gradients
from training.presets import TrainConfig
from training.progress import append_stats, duration, save_grid

GAP_LIMIT, GAP_STEPS = 2.0, 200  # a healthy run stays below 1; beyond this for 200 steps it never came back
GRID_ROWS, GRID_COLUMNS = 10, 10


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to train: minutes of this machine, or thousands of images (which is exactly repeatable)."""

    minutes: float | None = None
    kimg: float | None = None

    def __post_init__(self) -> None:
        """Refuse a budget of both kinds, of none, or not above zero.

        Raises:
            TrainingError: See above.
        """
        given = [value for value in (self.minutes, self.kimg) if value is not None]
        if len(given) != 1 or not given[0] > 0 or not math.isfinite(given[0]):
            raise TrainingError("give either --minutes or --kimg, a number above 0")

    def progress(self, elapsed_s: float, nimg: int) -> float:
        """Return the part of the budget that is used, 0 at the start, 1 or more at the end."""
        if self.minutes is not None:
            return elapsed_s / (self.minutes * 60)
        return nimg / (float(self.kimg or 0) * 1000)


@dataclass(frozen=True, slots=True)
class StepStats:
    """Means over one batch: both losses, both penalties, and the logit gap between real and fake."""

    d_loss: float
    g_loss: float
    r1: float
    r2: float
    gap: float


@dataclass(slots=True)
class _Shard:
    """A shard's way through one step."""

    real: Tensor
    label: Tensor
    z: Tensor
    fake: Tensor | None = None
    real_logits: Tensor | None = None


class Trainer:
    """Both networks, their optimisers and the position in the run.

    Args:
        config: Hyper-parameters.
        data: The data set, uint8 in memory.
        threads: Shards per batch on a CPU, a thread each; the batch size must be a multiple of it.
        device: "cpu" or "cuda".
        amp: Run the forward passes in bfloat16; `None`: where the device is faster with it.

    Raises:
        TrainingError: If the preset does not fit the pictures, or the batch does not divide by the threads.
    """

    def __init__(
        self, config: TrainConfig, data: PictureSet, *, threads: int = 1, device: str = "cpu", amp: bool | None = None
    ) -> None:
        height, width, channels = data.size
        if (height, width) != (config.resolution, config.resolution):
            raise TrainingError(
                f"preset {config.preset} makes {config.resolution}x{config.resolution} pictures, the data has "
                f"{width}x{height}; prepare it with --size {config.resolution}"
            )
        if threads < 1 or config.batch_size % threads:
            raise TrainingError(f"batch size {config.batch_size} cannot be shared evenly by {threads} threads")
        self.config, self.data, self.device = config, data, torch.device(device)
        self.network = config.network(channels=channels, num_classes=data.num_classes)
        self.pool = ShardPool(threads)
        self.amp = bfloat16_is_faster(self.device) if amp is None else amp
        self._build(learning_rate_scale=1.0)
        self.images, self.labels = data.train.images.to(self.device), data.train.labels.to(self.device)
        self.sampler = EndlessSampler(len(data.train), config.seed)

    def _build(self, learning_rate_scale: float) -> None:
        """Set networks, optimisers and counters to their start."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            self.generator = Generator(self.network)
            self.discriminator = Discriminator(self.network)
        for network in (self.generator, self.discriminator):
            network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.generator_ema = copy_for_ema(self.generator)
        self.g_parameters = list(self.generator.parameters())
        self.d_parameters = list(self.discriminator.parameters())
        rate, betas = self.config.learning_rate[0], (self.config.beta1, self.config.beta2[0])
        self.g_optimiser = torch.optim.Adam(self.g_parameters, rate, betas, fused=True)
        self.d_optimiser = torch.optim.Adam(self.d_parameters, rate, betas, fused=True)
        self.nimg, self.steps, self.elapsed_s = 0, 0, 0.0
        self.learning_rate_scale = learning_rate_scale
        self.wide_gap_steps = 0

    def step(self, progress: float) -> StepStats:
        """Train both networks on one batch.

        Args:
            progress: Part of the budget used, in [0, 1]; sets the learning rate, gamma, beta2 and the label's strength.

        Returns:
            Means over the batch.

        Raises:
            DivergedError: If a loss is not finite, or the logit gap has been too wide for too long.
        """
        config = self.config
        gamma = schedules.cosine(*config.gamma, progress)
        label_weight = schedules.label_weight(progress)
        rate = (
            schedules.cosine(*config.learning_rate, progress) * schedules.warmup(self.steps) * self.learning_rate_scale
        )
        for optimiser in (self.g_optimiser, self.d_optimiser):
            for group in optimiser.param_groups:
                group["lr"] = rate
                group["betas"] = (config.beta1, schedules.cosine(*config.beta2, progress))

        shards = self._shards()
        d_results = self.pool.map(lambda shard: self._discriminator_gradients(shard, gamma, label_weight), shards)
        set_mean_gradients(self.d_parameters, [gradients for gradients, _ in d_results])
        self.d_optimiser.step()
        g_results = self.pool.map(lambda shard: self._generator_gradients(shard, label_weight), shards)
        set_mean_gradients(self.g_parameters, [gradients for gradients, _ in g_results])
        self.g_optimiser.step()

        self.nimg += config.batch_size
        self.steps += 1
        decay = schedules.ema_decay(self.nimg, config.batch_size, config.ema_halflife_kimg)
        update_ema(self.generator_ema, self.generator, decay)
        means = torch.stack([values for _, values in d_results]).mean(dim=0).tolist()
        stats = StepStats(means[0], torch.stack([values for _, values in g_results]).mean().item(), *means[1:])
        self._guard(stats)
        return stats

    def _shards(self) -> list[_Shard]:
        size, count = self.config.batch_size, self.pool.num_threads
        index = self.sampler.indices(self.nimg, size).to(self.device)
        real, label = to_float(self.images[index]), self.labels[index]
        random = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.steps)
        z = torch.randn(size, self.config.z_dim, generator=random).to(self.device)
        if self.config.mirror:
            mirrored = (torch.rand(size, generator=random) < 0.5).to(self.device)
            real = torch.where(mirrored[:, None, None, None], real.flip(3), real)
        parts = zip(real.chunk(count), label.chunk(count), z.chunk(count), strict=True)
        return [_Shard(part, part_label, part_z) for part, part_label, part_z in parts]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp)

    def _discriminator_gradients(
        self, shard: _Shard, gamma: float, label_weight: float
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        with self._autocast():
            shard.fake = self.generator(shard.z, shard.label, label_weight)
            images = torch.cat([shard.real, shard.fake.detach()]).requires_grad_()
            logits = self.discriminator(images, torch.cat([shard.label, shard.label]), label_weight)
            penalty = gradient_penalty(images, logits)
        real_logits, fake_logits = logits.chunk(2)
        r1, r2 = penalty.chunk(2)
        losses = relativistic_loss(real_logits, fake_logits)
        # Without classes the embeddings of both networks are unused.
        loss = (losses + gamma / 2 * (r1 + r2)).mean()
        gradients = torch.autograd.grad(loss, self.d_parameters, allow_unused=True)
        shard.real_logits = real_logits.detach()
        with torch.no_grad():
            gap = (real_logits - fake_logits).mean()
            return gradients, torch.stack([losses.mean(), r1.mean(), r2.mean(), gap])

    def _generator_gradients(self, shard: _Shard, label_weight: float) -> tuple[tuple[Tensor, ...], Tensor]:
        assert shard.fake is not None
        assert shard.real_logits is not None
        with self._autocast():
            fake_logits = self.discriminator(shard.fake, shard.label, label_weight)
        loss = relativistic_loss(fake_logits, shard.real_logits).mean()
        gradients = torch.autograd.grad(loss, self.g_parameters, allow_unused=True)
        return gradients, loss.detach()

    def _guard(self, stats: StepStats) -> None:
        if not (math.isfinite(stats.d_loss) and math.isfinite(stats.g_loss) and math.isfinite(stats.r1 + stats.r2)):
            raise DivergedError(f"non-finite loss at image {self.nimg}: {stats}")
        self.wide_gap_steps = self.wide_gap_steps + 1 if abs(stats.gap) > GAP_LIMIT else 0
        if self.wide_gap_steps >= GAP_STEPS:
            raise DivergedError(f"logit gap {stats.gap:.1f} stayed above {GAP_LIMIT} for {GAP_STEPS} steps")

    def restart_at_half_rate(self) -> None:
        """Begin again from the start at half the learning rate, keeping the time already used."""
        elapsed_s = self.elapsed_s
        self._build(self.learning_rate_scale / 2)
        self.elapsed_s = elapsed_s

    def sample(self, z: Tensor, label: Tensor, batch_size: int = 250) -> Tensor:
        """Return pixels of the averaged generator, uint8 (N, H, W, C), for `z`, float32 (N, z_dim), and `label`."""
        with torch.inference_mode():
            parts = zip(z.split(batch_size), label.split(batch_size), strict=True)
            shards = [(part.to(self.device), part_label.to(self.device)) for part, part_label in parts]
            return torch.cat(self.pool.map(lambda shard: to_uint8(self.generator_ema(*shard)).cpu(), shards))

    def state(self) -> dict[str, Any]:
        """Return everything that a resumed run needs."""
        return {
            "nimg": self.nimg,
            "steps": self.steps,
            "elapsed_s": self.elapsed_s,
            "learning_rate_scale": self.learning_rate_scale,
            "wide_gap_steps": self.wide_gap_steps,
            **{name: part.state_dict() for name, part in self._parts().items()},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.nimg, self.steps, self.elapsed_s = state["nimg"], state["steps"], state["elapsed_s"]
        self.learning_rate_scale, self.wide_gap_steps = state["learning_rate_scale"], state["wide_gap_steps"]

    def _parts(self) -> dict[str, Any]:
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "generator_ema": self.generator_ema,
            "g_optimiser": self.g_optimiser,
            "d_optimiser": self.d_optimiser,
        }


def bfloat16_is_faster(device: torch.device) -> bool:
    """Tell whether bfloat16 pays: on a GPU, and on a CPU with AVX512-BF16 (1.6 times the images/s, a tenth without)."""
    return device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()


class Run:
    """A trainer with its folder: trains to the end of the budget, or until asked to stop.

    Args:
        trainer: What to train.
        folder: Where `checkpoint.pt`, `stats.jsonl`, `snapshots/` and `grids/` go.
        budget: When to end.
        snapshot_s: Seconds between snapshots with their grids.
        checkpoint_s: Seconds between checkpoints: the most that a crash can lose.
        status: Called with a line of text after every step.
    """

    def __init__(
        self,
        trainer: Trainer,
        folder: Path,
        budget: Budget,
        *,
        snapshot_s: float,
        checkpoint_s: float,
        status: Callable[[str], None],
    ) -> None:
        self.trainer, self.folder, self.budget = trainer, folder, budget
        self.snapshot_s, self.checkpoint_s, self.status = snapshot_s, checkpoint_s, status
        self.stop_requested = False
        random = torch.Generator().manual_seed(trainer.config.seed)
        self.grid_z = torch.randn(GRID_ROWS * GRID_COLUMNS, trainer.config.z_dim, generator=random)
        self.grid_label = torch.arange(GRID_ROWS).repeat_interleave(GRID_COLUMNS) % max(trainer.data.num_classes, 1)

    def resume(self) -> bool:
        """Continue from the folder's checkpoint, if there is one; tell whether there was."""
        path = self.folder / checkpoint.FILE_NAME
        if not path.exists():
            return False
        trainer = self.trainer
        trainer.load_state(checkpoint.load(path, config=trainer.config, data_digest=trainer.data.digest))
        return True

    def train(self) -> None:
        """Train until the budget is used or `stop_requested` is set; ends with a snapshot and a checkpoint.

        Raises:
            DivergedError: If training diverged late, or again at a quarter of the learning rate.
        """
        trainer, used_s = self.trainer, self.trainer.elapsed_s
        started = last_snapshot = last_checkpoint = time.monotonic()
        first_nimg = trainer.nimg
        while not self.stop_requested:
            progress = self.budget.progress(trainer.elapsed_s, trainer.nimg)
            if progress >= 1:
                break
            try:
                stats = trainer.step(progress)
            except DivergedError:
                if progress > 0.25 or trainer.learning_rate_scale <= 0.25:
                    raise
                trainer.restart_at_half_rate()
                first_nimg, started, used_s = 0, time.monotonic(), trainer.elapsed_s
                continue
            now = time.monotonic()
            trainer.elapsed_s = used_s + now - started
            speed = (trainer.nimg - first_nimg) / (now - started)
            self.status(self._line(stats, progress, speed))
            if trainer.steps % 50 == 0:
                self._append(stats, progress, speed)
            if now - last_snapshot >= self.snapshot_s:
                self.snapshot()
                last_snapshot = now
            if now - last_checkpoint >= self.checkpoint_s:
                self.checkpoint()
                last_checkpoint = now
        self.snapshot()
        self.checkpoint()

    def _line(self, stats: StepStats, progress: float, speed: float) -> str:
        trainer = self.trainer
        if self.budget.minutes is not None:
            left_s = max(self.budget.minutes * 60 - trainer.elapsed_s, 0)
        else:
            left_s = trainer.elapsed_s * (1 - progress) / progress if progress > 0 else math.inf
        left = duration(left_s) if math.isfinite(left_s) else "?"
        return (
            f"{progress:6.1%}  {trainer.nimg / 1000:.1f} kimg  {speed:.0f} images/s  D {stats.d_loss:.3f}  "
            f"G {stats.g_loss:.3f}  gap {stats.gap:+.2f}  left {left}"
        )

    def _append(self, stats: StepStats, progress: float, speed: float) -> None:
        trainer = self.trainer
        append_stats(
            self.folder / "stats.jsonl",
            {
                "kimg": trainer.nimg / 1000,
                "steps": trainer.steps,
                "elapsed_s": round(trainer.elapsed_s, 2),
                "progress": round(progress, 5),
                "images_per_s": round(speed, 1),
                "learning_rate": trainer.g_optimiser.param_groups[0]["lr"],
                "learning_rate_scale": trainer.learning_rate_scale,
                "D_loss": stats.d_loss,
                "G_loss": stats.g_loss,
                "r1_penalty": stats.r1,
                "r2_penalty": stats.r2,
                "logit_gap": stats.gap,
            },
        )

    def snapshot(self) -> None:
        """Write the averaged generator and the grid of fixed latents."""
        trainer = self.trainer
        name = f"{trainer.nimg // 1000:06d}"
        details = {"nimg": trainer.nimg, "elapsed_s": trainer.elapsed_s}
        checkpoint.save_snapshot(self.folder / "snapshots" / f"{name}.safetensors", trainer.generator_ema, details)
        save_grid(
            self.folder / "grids" / f"{name}.png", trainer.sample(self.grid_z, self.grid_label), GRID_COLUMNS, zoom=2
        )

    def checkpoint(self) -> None:
        """Write the full state."""
        trainer = self.trainer
        checkpoint.save(
            self.folder / checkpoint.FILE_NAME, trainer.state(), config=trainer.config, data_digest=trainer.data.digest
        )
