"""Adversarial losses and gradient penalties; pure functions."""

import torch
from torch import Tensor
from torch.nn import functional as F


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
