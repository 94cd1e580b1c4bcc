"""What one shard of a batch adds to the gradients of both networks: losses, penalties and augmentation."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training import augment, noise
from training.losses import LOSSES, gradient_penalty, unit_gradient_penalty
from training.networks.layers import BatchNorm
from training.presets import TrainConfig

PHASES = 3  # of a step that draw random numbers in a shard: discriminator, generator, a look at hold-out pictures


@dataclass(slots=True)
class Shard:
    """A shard's way through one step; `noise_seed` and the `PHASES - 1` numbers after it are its own.

    `fake` keeps its graph for the generator's step, unless there are more shards than threads: then that step makes it
    again, so that only the shards at work take memory.
    """

    noise_seed: int
    real: Tensor
    label: Tensor
    z: Tensor
    keeps_graph: bool = True
    fake: Tensor | None = None
    real_logits: Tensor | None = None


class Objective:
    """The losses of both networks, as the settings weigh and penalise them.

    Args:
        config: Hyper-parameters.
        generator: Makes images of z, label and the label's strength.
        discriminator: Makes logits of images, label and the label's strength.
        device: Of both networks and the shards.
        amp: Run the forward passes in bfloat16.
        augmentations: Keys of `training.augment.AUGMENTATIONS`, in their order; `augment_probability`, at first 0, says
            how often the discriminator sees them.
    """

    def __init__(
        self,
        config: TrainConfig,
        generator: nn.Module,
        discriminator: nn.Module,
        *,
        device: torch.device,
        amp: bool,
        augmentations: tuple[str, ...],
    ) -> None:
        self.config, self.loss = config, LOSSES[config.loss]
        self.generator, self.discriminator = generator, discriminator
        self.g_parameters, self.d_parameters = list(generator.parameters()), list(discriminator.parameters())
        self.device, self.amp = device, amp
        self.augmentations, self.augment_probability = augmentations, 0.0
        # Batch norm would tell real from generated pictures by the mean of a batch that holds both.
        self.separates = any(isinstance(module, BatchNorm) for module in self.discriminator.modules())

    def discriminator_gradients(
        self, shard: Shard, gamma: float, label_weight: float
    ) -> tuple[tuple[Tensor | None, ...], Tensor]:
        """Return the gradients of the discriminator's loss, and leave what the generator's step reuses in the shard.

        Args:
            shard: Without `fake` and `real_logits`, which it gets.
            gamma: Twice the weight of the gradient penalties; with 0 they are not computed.
            label_weight: The label's strength, in [0, 1].

        Returns:
            A gradient per parameter, `None` for an unused one; and means, float32 (4,): loss, penalty on real and on
            generated images, logit gap.
        """
        config = self.config
        with noise.seeded(shard.noise_seed, self.device):
            with self._autocast():
                with torch.set_grad_enabled(shard.keeps_graph):
                    shard.fake = self.generator(shard.z, shard.label, label_weight)
                images = self._augmented(torch.cat([shard.real, shard.fake.detach()])).requires_grad_()
                parts = images.chunk(2) if self.separates else (images,)
                labels = torch.cat([shard.label, shard.label]).chunk(len(parts))
                verdicts = [self.discriminator(*part, label_weight) for part in zip(parts, labels, strict=True)]
                logits = torch.cat(verdicts)
                penalised = gamma > 0 and (config.r1 or config.r2)
                penalty = gradient_penalty(images, logits) if penalised else torch.zeros_like(logits)
            real_logits, fake_logits = logits.chunk(2)
            r1, r2 = penalty.chunk(2)
            losses = self.loss.discriminator(real_logits, fake_logits)
            # Without classes the embeddings of both networks are unused.
            loss = (losses + gamma / 2 * (r1 * config.r1 + r2 * config.r2)).mean()
            if config.gp:
                loss = loss + config.gp * self._between(shard, label_weight).mean()
            loss = loss + self._kernel_penalty(self.d_parameters)
            gradients = torch.autograd.grad(loss, self.d_parameters, allow_unused=True)
        shard.real_logits = real_logits.detach()
        with torch.no_grad():
            gap = (real_logits - fake_logits).mean()
            return gradients, torch.stack([losses.mean(), r1.mean(), r2.mean(), gap])

    def generator_gradients(self, shard: Shard, label_weight: float) -> tuple[tuple[Tensor | None, ...], Tensor]:
        """Return the gradients of the generator's loss.

        Args:
            shard: As `discriminator_gradients` left it.
            label_weight: The label's strength, in [0, 1].

        Returns:
            A gradient per parameter, `None` for an unused one; and the mean loss, float32 scalar.
        """
        assert shard.fake is not None
        assert shard.real_logits is not None
        with noise.seeded(shard.noise_seed + 1, self.device), self._autocast():
            if not shard.keeps_graph:
                shard.fake = self.generator(shard.z, shard.label, label_weight)
            fake_logits = self.discriminator(self._augmented(shard.fake), shard.label, label_weight)
        losses = self.loss.generator(fake_logits, shard.real_logits).mean()
        loss = losses + self._kernel_penalty(self.g_parameters)
        if self.config.mse:
            loss = loss + self.config.mse * (shard.fake - shard.real).square().mean()
        gradients = torch.autograd.grad(loss, self.g_parameters, allow_unused=True)
        shard.fake = shard.fake.detach()
        return gradients, losses.detach()

    @torch.no_grad()
    def mean_logits(self, shard: Shard, images: Tensor, label: Tensor, label_weight: float) -> list[float]:
        """Return the discriminator's mean logits for training, hold-out and generated images, none of them augmented.

        Args:
            shard: As `discriminator_gradients` left it.
            images: Hold-out images, float32 (N, C, H, W) in [-1, 1], on any device.
            label: Their labels, int64 (N,).
            label_weight: The label's strength, in [0, 1].

        Returns:
            The three means.
        """
        assert shard.fake is not None
        sides = ((shard.real, shard.label), (images, label), (shard.fake.detach(), shard.label))
        with noise.seeded(shard.noise_seed + 2, self.device), self._autocast():
            return [
                self.discriminator(side.to(self.device), classes.to(self.device), label_weight).mean().item()
                for side, classes in sides
            ]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp)

    def _augmented(self, images: Tensor) -> Tensor:
        return augment.augmented(images, self.augmentations, self.augment_probability)

    def _between(self, shard: Shard, label_weight: float) -> Tensor:
        """Return WGAN-GP's penalty at random points between real and generated pictures, float32 (N,)."""
        assert shard.fake is not None
        share = torch.rand(len(shard.real), 1, 1, 1, generator=noise.generator(), device=self.device)
        images = torch.lerp(shard.real, shard.fake.detach(), share).requires_grad_()
        with self._autocast():
            return unit_gradient_penalty(images, self.discriminator(images, shard.label, label_weight))

    def _kernel_penalty(self, parameters: list[nn.Parameter]) -> Tensor | float:
        """Return the weighted absolute and squared kernels; biases and gains are left alone."""
        if not (self.config.l1 or self.config.l2):
            return 0.0
        kernels = [parameter for parameter in parameters if parameter.ndim > 1]
        absolute = sum(kernel.abs().sum() for kernel in kernels) if self.config.l1 else 0.0
        squared = sum(kernel.square().sum() for kernel in kernels) if self.config.l2 else 0.0
        return self.config.l1 * absolute + self.config.l2 * squared
