"""Whether a sample shows the label that it was asked for."""

from __future__ import annotations

import torch
from torch import Tensor


def sample_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Return the share of samples that the classifier gives the label they were made with.

    Args:
        predicted: Classes named by the classifier, int64, (N,).
        labels: Classes asked of the generator, int64, (N,).

    Returns:
        Share of agreeing rows, in [0, 1].

    Raises:
        ValueError: If the shapes differ, are not (N,), or N is 0.

    With a classifier trained on real pictures this is GAN-test: Shmelkov et al. 2018, "How good is my GAN?",
    arXiv:1807.09499.
    """
    if predicted.ndim != 1 or predicted.shape != labels.shape or predicted.shape[0] == 0:
        raise ValueError(
            f"predicted and labels must be (N,), N >= 1, got {tuple(predicted.shape)} and {tuple(labels.shape)}"
        )
    return float((predicted == labels).to(torch.float64).mean())
