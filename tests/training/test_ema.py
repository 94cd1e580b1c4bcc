import torch
from torch import nn

from training.ema import copy_for_ema, update_ema


def network() -> nn.Module:
    layer = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(1.0)
    return layer


def test_update_ema_moves_by_one_minus_decay() -> None:
    """One step takes a tenth of the way from 1 to 3 at a decay of 0.9."""
    generator = network()
    generator_ema = copy_for_ema(generator)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.fill_(3.0)
    update_ema(generator_ema, generator, 0.9)
    for averaged in generator_ema.parameters():
        torch.testing.assert_close(averaged, torch.full_like(averaged, 1.2))


def test_update_ema_repeated_follows_the_geometric_series() -> None:
    """After k steps towards fixed weights, decay^k of the start is left."""
    generator = network()
    generator_ema = copy_for_ema(generator)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.zero_()
    for _ in range(5):
        update_ema(generator_ema, generator, 0.8)
    for averaged in generator_ema.parameters():
        torch.testing.assert_close(averaged, torch.full_like(averaged, 0.8**5))


def test_update_ema_copies_buffers() -> None:
    """Buffers are not averaged: a mean of step counters means nothing."""
    generator = network()
    generator_ema = copy_for_ema(generator)
    for buffer in generator.buffers():
        buffer.fill_(7)
    update_ema(generator_ema, generator, 0.5)
    for averaged in generator_ema.buffers():
        assert torch.all(averaged == 7)


def test_copy_for_ema_is_independent_and_takes_no_gradients() -> None:
    """The copy stays where it is when the generator moves, and is not trained."""
    generator = network()
    generator_ema = copy_for_ema(generator)
    with torch.no_grad():
        next(generator.parameters()).fill_(5.0)
    assert torch.all(next(generator_ema.parameters()) == 1.0)
    assert not any(parameter.requires_grad for parameter in generator_ema.parameters())
    assert not generator_ema.training
    assert generator.training
