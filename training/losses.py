"""Adversarial losses, by the names that the literature gives them; pure functions of logits.

A discriminator's loss takes the logits of real and of generated pictures, a generator's those of its own pictures and
of real ones from before the discriminator's step (which only the relativistic loss reads). Pair i shares its label.
Logits are float32 (N,), losses too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

LogitLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class AdversarialLoss:
    """The two sides of a game: `discriminator(real_logits, fake_logits)`, `generator(fake_logits, real_logits)`."""

    discriminator: LogitLoss
    generator: LogitLoss


def relativistic_loss(winner_logits: Tensor, loser_logits: Tensor) -> Tensor:
    """Return the relativistic pairing loss that pushes each winner above its partner.

    The discriminator passes (real, fake), the generator (fake, real); pair i shares its label.

    Args:
        winner_logits: float32 (N,).
        loser_logits: float32 (N,).

    Returns:
        softplus(loser - winner) per pair, float32 (N,); ln 2 where the two are equal.

    Jolicoeur-Martineau 2018, arXiv:1807.00734; Huang et al. 2024, "The GAN is dead; long live the GAN!",
    arXiv:2501.05441, equation 2.
    """
    return F.softplus(loser_logits - winner_logits)


LOSSES = {
    # Goodfellow et al. 2014, arXiv:1406.2661: binary cross-entropy on logits; the generator's form does not saturate.
    "bce": AdversarialLoss(
        discriminator=lambda real, fake: F.softplus(-real) + F.softplus(fake),
        generator=lambda fake, _: F.softplus(-fake),
    ),
    # Mao et al. 2017, "Least Squares Generative Adversarial Networks", arXiv:1611.04076, equation 9 (a = 0, b = c = 1).
    "lsgan": AdversarialLoss(
        discriminator=lambda real, fake: 0.5 * (real - 1).square() + 0.5 * fake.square(),
        generator=lambda fake, _: 0.5 * (fake - 1).square(),
    ),
    # Lim & Ye 2017, "Geometric GAN", arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957.
    "hinge": AdversarialLoss(
        discriminator=lambda real, fake: F.relu(1 - real) + F.relu(1 + fake),
        generator=lambda fake, _: -fake,
    ),
    # Arjovsky et al. 2017, "Wasserstein GAN", arXiv:1701.07875; needs a critic that is kept smooth (penalty "gp").
    "wgan": AdversarialLoss(
        discriminator=lambda real, fake: fake - real,
        generator=lambda fake, _: -fake,
    ),
    "rpgan": AdversarialLoss(discriminator=relativistic_loss, generator=relativistic_loss),
}


def gradient_penalty(images: Tensor, logits: Tensor) -> Tensor:
    """Return the squared gradient norm of the discriminator at `images`.

    At real images this is R1, at generated ones R2.

    Args:
        images: float32 (N, C, H, W), with `requires_grad` set.
        logits: Discriminator output for `images`, float32 (N,).

    Returns:
        Penalty per image, float32 (N,), not yet multiplied by gamma / 2.

    Raises:
        RuntimeError: If `logits` does not depend on `images`.

    Mescheder et al. 2018, "Which Training Methods for GANs do actually Converge?", arXiv:1801.04406.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.float().square().sum(dim=(1, 2, 3))


def unit_gradient_penalty(images: Tensor, logits: Tensor) -> Tensor:
    """Return the squared distance of the discriminator's gradient norm at `images` from 1.

    Args:
        images: Points between real and generated pictures, float32 (N, C, H, W), with `requires_grad` set.
        logits: Discriminator output for `images`, float32 (N,).

    Returns:
        Penalty per image, float32 (N,), not yet multiplied by its weight (10 in the paper).

    Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", arXiv:1704.00028, equation 3.
    """
    return (gradient_penalty(images, logits) + 1e-12).sqrt().sub(1).square()
