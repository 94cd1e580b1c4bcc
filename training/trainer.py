"""One step of training: D phase, G phase, EMA.

One batch of fakes serves both updates: the generator's step reuses it, and the discriminator's real logits from before
its own update. All randomness is a function of the seed and the position, so a resumed run repeats the whole one.
"""

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from training import augment, memory, schedules
from training.data import EndlessSampler, PictureSet, to_float, to_uint8
from training.distributed import Group
from training.ema import copy_for_ema, measure_batch_norms, update_ema
from training.errors import DivergedError, TrainingError
from training.networks.families import GeneratorNetwork, TwoResolutions, build_discriminator, build_generator
from training.networks.layers import BatchNorm
from training.networks.spectral import add_spectral_norms, update_spectral_norms
from training.networks.style_residual import StyleResidualConfig
from training.objective import PHASES, Objective, Shard
from training.parallel import ShardPool
from training.precision import bfloat16_is_faster
from training.presets import TrainConfig

GAP_LIMIT, GAP_STEPS = 2.0, 200  # a healthy relativistic run stays below 1; beyond this it never came back
NORM_LATENTS = 2000  # batch norm's statistics are means over so many pictures
AUGMENT_STEPS = 16  # between two looks at the hold-out pictures
_TRIAL = 2  # pictures of which the memory is measured; batch norm needs two


@dataclass(frozen=True, slots=True)
class StepStats:
    """Means over one batch: both losses, both penalties (of the last step that had them), and the logit gap."""

    d_loss: float
    g_loss: float
    r1: float
    r2: float
    gap: float


class Trainer:
    """Both networks, their optimisers and the position in the run.

    Args:
        config: Hyper-parameters.
        data: The data set, uint8 in memory.
        threads: Shards per batch on a CPU, a thread each; the batch size must be a multiple of it.
        device: "cpu" or "cuda".
        amp: Run the forward passes in bfloat16; `None`: where the device is faster with it.
        group: The processes that share each batch; `None`: this one alone.
        sync_every: With 1, processes average their gradients; with more, their weights after so many steps.
        micro_batch: Pictures that go through the networks at once in each thread; gradients of more are added up.
            `None`: as many as fit into memory.

    Raises:
        TrainingError: If the preset does not fit the pictures, or the batch does not divide by processes, threads and
            micro-batches.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: PictureSet,
        *,
        threads: int = 1,
        device: str = "cpu",
        amp: bool | None = None,
        group: Group | None = None,
        sync_every: int = 1,
        micro_batch: int | None = None,
    ) -> None:
        self.network = config.network(size=data.size, num_classes=data.num_classes)
        self.group = group or Group(device=torch.device(device))
        if threads < 1 or config.batch_size % (threads * self.group.size):
            processes = f" in each of {self.group.size} processes" if self.group.size > 1 else ""
            raise TrainingError(
                f"batch size {config.batch_size} cannot be shared evenly by {threads} threads{processes}"
            )
        if sync_every < 1:
            raise TrainingError(f"--sync-every {sync_every} is not 1 or more")
        self.config, self.data, self.device, self.sync_every = config, data, self.group.device, sync_every
        self.pool = ShardPool(threads)
        self.amp = bfloat16_is_faster(self.device) if amp is None else amp
        self.augmentations = config.augmentations(len(data.train))
        self._build(learning_rate_scale=1.0)
        self.holdout = data.holdout if len(data.holdout) and self.augmentations else None
        self.images, self.labels = data.train.images.to(self.device), data.train.labels.to(self.device)
        self.sampler = EndlessSampler(len(data.train), config.seed)
        self.micro_batch_is_given = micro_batch is not None
        self.micro_batch = self._micro_batch(micro_batch)

    def _micro_batch(self, given: int | None) -> int:
        """Return the pictures that a thread takes at once, the same in all processes."""
        share = self.config.batch_size // (self.pool.num_threads * self.group.size)
        if given is None:
            given = share if self._has_batch_norm() else self._fitting(share)
        if given < 1 or share % given:
            raise TrainingError(f"--micro-batch {given} does not divide the {share} pictures of a thread")
        return given

    def _has_batch_norm(self) -> bool:
        """Tell whether a picture's gradient depends on its batch, so that parts of it give another step."""
        networks = (self.generator, self.discriminator)
        return any(isinstance(module, BatchNorm) for network in networks for module in network.modules())

    def _fitting(self, share: int) -> int:
        """Return the part of a thread's pictures that fits into memory; what the first process finds is for all."""
        free = memory.free_bytes(self.device)
        if free is not None and self.device.type == "cpu":
            free //= self.group.local_size
        found = memory.largest_micro_batch(share, self._picture_bytes(), free, self.pool.num_threads)
        return round(self.group.sum([found * float(self.group.leads)])[0])

    def _build(self, learning_rate_scale: float) -> None:
        """Set networks, optimisers and counters to their start."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            self.generator = build_generator(self.network)
            if self.config.half_resolution and isinstance(self.network, StyleResidualConfig):
                self.discriminator: nn.Module = TwoResolutions(self.network)
            else:
                self.discriminator = build_discriminator(self.network)
            if self.config.spectral:
                add_spectral_norms(self.discriminator)
        for network in (self.generator, self.discriminator):
            network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.generator_ema = copy_for_ema(self.generator)
        self.objective = Objective(
            self.config,
            self.generator,
            self.discriminator,
            device=self.device,
            amp=self.amp,
            augmentations=self.augmentations,
        )
        self.g_parameters, self.d_parameters = self.objective.g_parameters, self.objective.d_parameters
        rate, betas = self.config.learning_rate[0], (self.config.beta1, self.config.beta2[0])
        self.g_optimiser = torch.optim.Adam(self.g_parameters, rate, betas, fused=True)
        self.d_optimiser = torch.optim.Adam(self.d_parameters, rate, betas, fused=True)
        self.nimg, self.steps, self.elapsed_s = 0, 0, 0.0
        self.learning_rate_scale = learning_rate_scale
        self.wide_gap_steps = 0
        self.penalties = [0.0, 0.0]

    @property
    def augment_probability(self) -> float:
        """How likely each augmentation is now, in [0, 1]."""
        return self.objective.augment_probability

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
        # Lazy regularisation (Karras et al. 2020, arXiv:1912.04958, section 3.1).
        penalised = self.steps % config.penalty_every == 0
        gamma = schedules.cosine(*config.gamma, progress) * config.penalty_every * penalised
        label_weight = schedules.label_weight(progress, config.label_warmup)
        rate = (
            schedules.cosine(*config.learning_rate, progress) * schedules.warmup(self.steps) * self.learning_rate_scale
        )
        for optimiser in (self.g_optimiser, self.d_optimiser):
            for group in optimiser.param_groups:
                group["lr"] = rate
                group["betas"] = (config.beta1, schedules.cosine(*config.beta2, progress))

        shards = self._shards()
        if config.spectral:
            update_spectral_norms(self.discriminator)
        d_values = self.pool.set_mean_gradients(
            self.d_parameters, lambda shard: self.objective.discriminator_gradients(shard, gamma, label_weight), shards
        )
        self._average_gradients(self.d_parameters)
        with self.pool.all_threads(self.d_parameters):
            self.d_optimiser.step()
        g_values = self.pool.set_mean_gradients(
            self.g_parameters, lambda shard: self.objective.generator_gradients(shard, label_weight), shards
        )
        self._average_gradients(self.g_parameters)
        with self.pool.all_threads(self.g_parameters):
            self.g_optimiser.step()

        self.nimg += config.batch_size
        self.steps += 1
        if self.steps % self.sync_every == 0:
            self.synchronise()
        decay = schedules.ema_decay(self.nimg, config.batch_size, config.ema_halflife_kimg)
        with self.pool.all_threads(self.g_parameters):
            update_ema(self.generator_ema, self.generator, decay)
        d_loss, *penalties, gap = torch.stack(d_values).mean(dim=0).tolist()
        self.penalties = penalties if penalised else self.penalties
        g_loss = torch.stack(g_values).mean().item()
        sums = self.group.sum([d_loss, g_loss, *self.penalties, gap])
        stats = StepStats(*(value / self.group.size for value in sums))
        self._guard(stats)
        if self.augmentations and self.steps % AUGMENT_STEPS == 0:
            self._adapt_augmentation(shards[0], label_weight)
        return stats

    def _average_gradients(self, parameters: list[nn.Parameter]) -> None:
        if self.sync_every == 1:
            self.group.average(parameter.grad for parameter in parameters if parameter.grad is not None)

    def synchronise(self) -> None:
        """Make the processes one again, where they step on their own: weights and averages become the means."""
        if self.sync_every > 1:
            networks = (self.generator, self.discriminator, self.generator_ema)
            self.group.average(parameter for network in networks for parameter in network.parameters())

    def _shards(self) -> list[Shard]:
        """Return this process's part of the next batch in equal shards: one for each thread, or more."""
        config, size = self.config, self.config.batch_size
        count = size // self.micro_batch
        own = count // self.group.size
        index = self.sampler.indices(self.nimg, size).to(self.device)
        real, label = to_float(self.images[index]), self.labels[index]
        step_seed = config.seed * 1_000_003 + self.steps
        random = torch.Generator().manual_seed(step_seed)
        z = torch.randn(size, config.z_dim, generator=random).to(self.device)
        if config.mirror:
            mirrored = (torch.rand(size, generator=random) < 0.5).to(self.device)
            real = torch.where(mirrored[:, None, None, None], real.flip(3), real)
        parts = zip(real.chunk(count), label.chunk(count), z.chunk(count), strict=True)
        keeps = own <= self.pool.num_threads
        shards = [
            Shard((step_seed * count + number) * PHASES, *part, keeps_graph=keeps) for number, part in enumerate(parts)
        ]
        return shards[self.group.rank * own : (self.group.rank + 1) * own]

    def _picture_bytes(self) -> float:
        """Return the bytes that autograd saves for one picture of a step, at its widest."""
        saved = []
        for size in (_TRIAL, 2 * _TRIAL):
            index = torch.arange(size, device=self.device) % len(self.images)
            z = torch.randn(size, self.config.z_dim, generator=torch.Generator().manual_seed(0)).to(self.device)
            shard = Shard(0, to_float(self.images[index]), self.labels[index], z)
            counter = memory.SavedTensors()
            with counter.counted():
                self.objective.discriminator_gradients(shard, gamma=max(self.config.gamma), label_weight=1.0)
            saved.append(counter.num_bytes)
        return (saved[1] - saved[0]) / _TRIAL

    def _adapt_augmentation(self, shard: Shard, label_weight: float) -> None:
        """Move the probability of augmentation by how the discriminator takes pictures that it was not trained on."""
        if self.holdout is None:
            return
        index = torch.arange(len(shard.real)) + self.steps * len(shard.real)
        index %= len(self.holdout)
        images, label = to_float(self.holdout.images[index]), self.holdout.labels[index]
        sums = self.group.sum(self.objective.mean_logits(shard, images, label, label_weight))
        overfitting = augment.overfitting(*(value / self.group.size for value in sums))
        self.objective.augment_probability = augment.next_probability(
            self.augment_probability, overfitting, AUGMENT_STEPS * self.config.batch_size
        )

    def _guard(self, stats: StepStats) -> None:
        if not (math.isfinite(stats.d_loss) and math.isfinite(stats.g_loss) and math.isfinite(stats.r1 + stats.r2)):
            raise DivergedError(f"non-finite loss at image {self.nimg}: {stats}")
        # The other losses have gaps of their own: the classic systems' discriminators are sure of themselves.
        wide = self.config.loss == "rpgan" and abs(stats.gap) > GAP_LIMIT
        self.wide_gap_steps = self.wide_gap_steps + 1 if wide else 0
        if self.wide_gap_steps >= GAP_STEPS:
            raise DivergedError(f"logit gap {stats.gap:.1f} stayed above {GAP_LIMIT} for {GAP_STEPS} steps")

    def restart_at_half_rate(self) -> None:
        """Begin again from the start at half the learning rate, keeping the time already used."""
        elapsed_s = self.elapsed_s
        self._build(self.learning_rate_scale / 2)
        self.elapsed_s = elapsed_s

    def finish_average(self) -> None:
        """Give the averaged generator the batch norm statistics that belong to its weights, if it has batch norms."""
        random = torch.Generator().manual_seed(self.config.seed)
        z = torch.randn(NORM_LATENTS, self.config.z_dim, generator=random).to(self.device)
        label = self.labels[self.sampler.indices(0, NORM_LATENTS).to(self.device)]
        measure_batch_norms(self.generator_ema, z, label)

    def sample(self, z: Tensor, label: Tensor, batch_size: int = 250) -> Tensor:
        """Return pixels of the averaged generator, uint8 (N, H, W, C), for `z`, float32 (N, z_dim), and `label`."""
        generator = cast("GeneratorNetwork", self.generator_ema)
        with torch.inference_mode():
            parts = zip(z.split(batch_size), label.split(batch_size), strict=True)
            shards = [(part.to(self.device), part_label.to(self.device)) for part, part_label in parts]
            return torch.cat(self.pool.map(lambda shard: to_uint8(generator(*shard)).cpu(), shards))

    def state(self) -> dict[str, Any]:
        """Return everything that a resumed run needs."""
        return {
            "nimg": self.nimg,
            "steps": self.steps,
            "elapsed_s": self.elapsed_s,
            "learning_rate_scale": self.learning_rate_scale,
            "wide_gap_steps": self.wide_gap_steps,
            "augment_probability": self.augment_probability,
            "micro_batch": self.micro_batch,
            **{name: part.state_dict() for name, part in self._parts().items()},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.nimg, self.steps, self.elapsed_s = state["nimg"], state["steps"], state["elapsed_s"]
        self.learning_rate_scale, self.wide_gap_steps = state["learning_rate_scale"], state["wide_gap_steps"]
        self.objective.augment_probability = state["augment_probability"]
        # The order in which gradients are added up is part of a bitwise resume, whatever memory is free now.
        kept = state.get("micro_batch", self.micro_batch)
        share = self.config.batch_size // (self.pool.num_threads * self.group.size)
        if not self.micro_batch_is_given and share % kept == 0:
            self.micro_batch = kept

    def _parts(self) -> dict[str, Any]:
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "generator_ema": self.generator_ema,
            "g_optimiser": self.g_optimiser,
            "d_optimiser": self.d_optimiser,
        }
