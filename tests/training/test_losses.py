import math

import pytest
import torch
from torch import Tensor

from training.losses import gradient_penalty, relativistic_loss


def test_relativistic_loss_of_equal_logits_is_ln_2() -> None:
    """Where the discriminator tells nothing apart, each pair costs ln 2."""
    logits = torch.tensor([-3.0, 0.0, 7.0])
    torch.testing.assert_close(relativistic_loss(logits, logits), torch.full((3,), math.log(2)))


def test_relativistic_loss_matches_its_closed_form() -> None:
    """The loss of a pair is ln(1 + exp(loser - winner))."""
    winner, loser = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([0.0, 1.0, 0.0])
    expected = [math.log1p(math.exp(difference)) for difference in (-2.0, 2.0, -0.5)]
    torch.testing.assert_close(relativistic_loss(winner, loser), torch.tensor(expected))


def test_relativistic_loss_depends_on_the_difference_only() -> None:
    """A constant added to all logits changes nothing: the discriminator's level is free."""
    winner, loser = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(relativistic_loss(winner + 4, loser + 4), relativistic_loss(winner, loser))


def test_relativistic_loss_of_swapped_roles_differs_by_the_gap() -> None:
    """The losses of both players differ by the logit gap: softplus(x) - softplus(-x) = x."""
    real, fake = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    difference = relativistic_loss(fake, real) - relativistic_loss(real, fake)
    torch.testing.assert_close(difference, real - fake)


def test_relativistic_loss_stays_finite_for_large_gaps() -> None:
    """A gap of hundreds of logits costs itself, not infinity."""
    loss = relativistic_loss(torch.tensor([-500.0, 500.0]), torch.tensor([500.0, -500.0]))
    torch.testing.assert_close(loss, torch.tensor([1000.0, 0.0]))


def test_relativistic_loss_pulls_winner_and_loser_apart_with_equal_force() -> None:
    """The gradients of a pair are opposite, and a sigmoid of the gap."""
    winner = torch.tensor([1.0], requires_grad=True)
    loser = torch.tensor([3.0], requires_grad=True)
    winner_gradient, loser_gradient = torch.autograd.grad(relativistic_loss(winner, loser).sum(), [winner, loser])
    torch.testing.assert_close(winner_gradient, -torch.sigmoid(torch.tensor([2.0])))
    torch.testing.assert_close(loser_gradient, -winner_gradient)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(2)).requires_grad_()


def test_gradient_penalty_of_a_linear_discriminator_is_its_squared_weights(images: Tensor) -> None:
    """D(x) = <v, x> has the gradient v everywhere."""
    weights = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(3))
    penalty = gradient_penalty(images, (images * weights).sum(dim=(1, 2, 3)))
    torch.testing.assert_close(penalty, weights.square().sum().expand(4))


def test_gradient_penalty_belongs_to_each_image_alone(images: Tensor) -> None:
    """D(x) = |x|^2 / 2 has the gradient x: the penalty of an image is its own squared norm."""
    penalty = gradient_penalty(images, images.square().sum(dim=(1, 2, 3)) / 2)
    torch.testing.assert_close(penalty, images.square().sum(dim=(1, 2, 3)))
    assert penalty.shape == (4,)


def test_gradient_penalty_matches_finite_differences() -> None:
    """For a network with no closed form, differences of its logits give the same penalty."""
    generator = torch.Generator().manual_seed(4)
    first, second = torch.randn(2, 12, 12, generator=generator, dtype=torch.float64) / 3

    def discriminator(x: Tensor) -> Tensor:
        return (torch.tanh(x.flatten(1) @ first) @ second).tanh().sum(dim=1)

    x = torch.randn(3, 3, 2, 2, generator=generator, dtype=torch.float64).requires_grad_()
    steps = 1e-5 * torch.eye(12, dtype=torch.float64).reshape(12, 1, 3, 2, 2)
    with torch.no_grad():
        slopes = torch.stack([(discriminator(x + step) - discriminator(x - step)) / 2e-5 for step in steps])
    expected = slopes.square().sum(dim=0).float()
    torch.testing.assert_close(gradient_penalty(x, discriminator(x)), expected, rtol=1e-5, atol=0)


def test_gradient_penalty_can_be_differentiated_again(images: Tensor) -> None:
    """D(x) = a |x|^2 / 2 has the penalty a^2 |x|^2, whose slope in the weight a is 2 a |x|^2."""
    scale = torch.tensor(1.5, requires_grad=True)
    penalty = gradient_penalty(images, scale * images.square().sum(dim=(1, 2, 3)) / 2)
    (slope,) = torch.autograd.grad(penalty.sum(), scale)
    torch.testing.assert_close(slope, 2 * scale.detach() * images.detach().square().sum())


def test_gradient_penalty_of_unconnected_logits_raises(images: Tensor) -> None:
    """Logits that do not come from the images have no gradient to measure."""
    with pytest.raises(RuntimeError, match="not have been used in the graph"):
        gradient_penalty(images, torch.ones(4, requires_grad=True) * 2)
