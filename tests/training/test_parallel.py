import threading
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from training.networks.style_residual import Discriminator, StyleResidualConfig
from training.parallel import ShardPool


@pytest.fixture
def discriminator() -> Discriminator:
    torch.manual_seed(0)
    network = Discriminator(StyleResidualConfig(1, 3, 4, (16, 16)))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():  # the last convolutions start at zero, and would hide the gradients of those before them
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return network


def set_mean_gradients(
    parameters: Sequence[torch.nn.Parameter], shards: Sequence[Sequence[Tensor | None]], num_threads: int = 1
) -> list[int]:
    pool = ShardPool(num_threads)
    others = pool.set_mean_gradients(parameters, lambda index: (shards[index], index), range(len(shards)))
    pool.close()
    return others


def whole_and_shards(network: Discriminator, count: int) -> tuple[list[Tensor], list[tuple[Tensor, ...]]]:
    """Return the gradients of the mean of squared logits over 12 images, at once and in `count` shards."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(12, 1, 16, 16, generator=generator)
    labels = torch.arange(12) % 3
    parameters = list(network.parameters())

    def gradients(part: Tensor, part_labels: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(network(part, part_labels).square().mean(), parameters)

    shards = [gradients(*shard) for shard in zip(images.chunk(count), labels.chunk(count), strict=True)]
    return list(gradients(images, labels)), shards


@pytest.mark.parametrize("count", [1, 2, 3])
def test_mean_of_shards_is_the_gradient_of_the_whole_batch(discriminator: Discriminator, count: int) -> None:
    """Equally large shards average to what one thread would have computed."""
    whole, shards = whole_and_shards(discriminator, count)
    set_mean_gradients(list(discriminator.parameters()), shards)
    for parameter, expected in zip(discriminator.parameters(), whole, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-5, atol=1e-6)
    assert max(gradient.abs().max() for gradient in whole) > 0.1


def test_more_shards_than_threads_are_added_up_in_waves(discriminator: Discriminator) -> None:
    """Six shards on two threads give the gradient of the whole batch, and their results in order."""
    whole, shards = whole_and_shards(discriminator, 6)
    assert set_mean_gradients(list(discriminator.parameters()), shards, num_threads=2) == list(range(6))
    for parameter, expected in zip(discriminator.parameters(), whole, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2])
def test_mean_gradients_are_laid_out_like_their_weights(discriminator: Discriminator, count: int) -> None:
    """Fused Adam walks weight and gradient by address, so both need the same strides."""
    set_mean_gradients(list(discriminator.parameters()), whole_and_shards(discriminator, count)[1])
    for parameter in discriminator.parameters():
        assert parameter.grad is not None
        assert parameter.grad.stride() == parameter.stride()


def test_fused_adam_takes_the_same_step_as_plain_adam(discriminator: Discriminator) -> None:
    """With channels-last weights the fused optimiser moves every element by its own gradient."""
    twin = Discriminator(StyleResidualConfig(1, 3, 4, (16, 16)))
    twin.load_state_dict(discriminator.state_dict())
    fused = torch.optim.Adam(discriminator.parameters(), 1e-2, fused=True)
    plain = torch.optim.Adam(twin.parameters(), 1e-2, foreach=False, fused=False)
    for _ in range(2):
        set_mean_gradients(list(discriminator.parameters()), whole_and_shards(discriminator, 2)[1])
        set_mean_gradients(list(twin.parameters()), whole_and_shards(twin, 1)[1])
        fused.step()
        plain.step()
    for moved, expected in zip(discriminator.parameters(), twin.parameters(), strict=True):
        assert (moved - expected).abs().mean() < 1e-5


def test_unused_parameter_gets_no_gradient() -> None:
    """A weight that no shard used is left alone by the optimiser."""
    used, unused = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    unused.grad = torch.ones(2)
    shards = [(torch.full((2,), 1.0), None), (torch.full((2,), 3.0), None)]
    assert set_mean_gradients([used, unused], shards) == [0, 1]
    assert used.grad is not None
    assert used.grad.tolist() == [2.0, 2.0]
    assert unused.grad is None


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_pool_returns_results_in_order(num_threads: int) -> None:
    """The order of the results is that of the shards, not of their completion."""
    pool = ShardPool(num_threads)
    assert pool.map(lambda value: value * 10, [3, 1, 2]) == [30, 10, 20]
    pool.close()


def test_pool_runs_shards_side_by_side() -> None:
    """Two shards that wait for each other both finish."""
    pool, barrier = ShardPool(2), threading.Barrier(2, timeout=30)
    names = pool.map(lambda _: (barrier.wait(), threading.current_thread().name)[1], [0, 1])
    pool.close()
    assert len(set(names)) == 2


@pytest.mark.parametrize("num_threads", [1, 2])
def test_pool_computes_with_one_torch_thread_per_shard(num_threads: int) -> None:
    """No shard spreads over further threads, whatever torch was set to before."""
    torch.set_num_threads(2)
    pool = ShardPool(num_threads)
    assert pool.map(lambda _: torch.get_num_threads(), range(num_threads)) == [1] * num_threads
    pool.close()


def test_pool_passes_errors_on() -> None:
    """An error in a shard reaches the caller."""
    pool = ShardPool(2)
    with pytest.raises(ZeroDivisionError):
        pool.map(lambda value: 1 / value, [1, 0])
    pool.close()
