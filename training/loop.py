"""The training loop: steps to the end of the budget, with status, snapshots and checkpoints."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from training import checkpoint
from training.errors import DivergedError, TrainingError
from training.progress import append_stats, duration, save_grid
from training.tensorboard import Board
from training.trainer import StepStats, Trainer

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


class Run:
    """A trainer with its folder: trains to the end of the budget, or until asked to stop.

    Args:
        trainer: What to train.
        folder: Where `checkpoint.pt`, `stats.jsonl`, `snapshots/` and `grids/` go.
        budget: When to end.
        snapshot_s: Seconds between snapshots with their grids.
        checkpoint_s: Seconds between checkpoints: the most that a crash can lose.
        status: Called with a line of text after every step.

    Attributes:
        board: Shown the rows of `stats.jsonl` and the grids too, if it is set.
    """

    board: Board | None = None

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
        trainer = self.trainer
        found = trainer.group.sum([path.exists()])[0]
        if not found:
            return False
        if found < trainer.group.size:
            raise TrainingError(f"{path} is not there for all processes; they need one run folder")
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
        while True:
            progress = self.budget.progress(trainer.elapsed_s, trainer.nimg)
            # All processes follow the first one's clock, and stop together.
            lead = float(trainer.group.leads)
            progress, stops = trainer.group.sum([progress * lead, float(self.stop_requested)])
            if progress >= 1 or stops:
                self.stop_requested = bool(stops)
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
            if trainer.steps % 50 == 0 and trainer.group.leads:
                self._append(stats, progress, speed)
            due = [now - last_snapshot >= self.snapshot_s, now - last_checkpoint >= self.checkpoint_s]
            snapshot_due, checkpoint_due = trainer.group.sum([flag * lead for flag in due])
            if snapshot_due:
                self.snapshot()
                last_snapshot = now
            if checkpoint_due:
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
        row = {
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
            "augment_probability": trainer.augment_probability,
        }
        append_stats(self.folder / "stats.jsonl", row)
        if self.board:
            self.board.row(row)

    def snapshot(self) -> None:
        """Write the averaged generator with the discriminator, and the grid of fixed latents."""
        trainer = self.trainer
        trainer.synchronise()
        if not trainer.group.leads:
            return
        trainer.finish_average()
        name = f"{trainer.nimg // 1000:06d}"
        details = {"nimg": trainer.nimg, "elapsed_s": trainer.elapsed_s}
        path = self.folder / "snapshots" / f"{name}.safetensors"
        checkpoint.save_snapshot(path, trainer.generator_ema, details, trainer.discriminator)
        grid = self.folder / "grids" / f"{name}.png"
        save_grid(grid, trainer.sample(self.grid_z, self.grid_label), GRID_COLUMNS, zoom=2)
        if self.board:
            self.board.grid(grid, trainer.nimg)

    def checkpoint(self) -> None:
        """Write the full state."""
        trainer = self.trainer
        trainer.synchronise()
        if not trainer.group.leads:
            return
        checkpoint.save(
            self.folder / checkpoint.FILE_NAME, trainer.state(), config=trainer.config, data_digest=trainer.data.digest
        )
