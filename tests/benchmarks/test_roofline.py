"""Operations and bytes of a module, against numbers computed by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from benchmarks.serving.roofline import Operator, Peaks, Work, count

FLOAT, HALF = 4, 2


def frozen(module: nn.Module) -> torch.jit.ScriptModule:
    return torch.jit.freeze(torch.jit.script(module.eval()))


def totals(work: Work) -> tuple[int, int, int]:
    return work.operations, work.weight_bytes, work.activation_bytes


def test_linear() -> None:
    """Two operations for each weight and row; weights and bias once, the rows in and out."""
    work = count(frozen(nn.Linear(10, 6)), torch.randn(5, 10))
    assert totals(work) == (2 * 5 * 10 * 6, FLOAT * (10 * 6 + 6), FLOAT * (5 * 10 + 5 * 6))


def test_convolution() -> None:
    """3x3 over 8x8 with stride 2 gives 4x4 places, each of 3 * 9 products for each of 7 channels."""
    work = count(frozen(nn.Conv2d(3, 7, 3, stride=2, padding=1, bias=False)), torch.randn(2, 3, 8, 8))
    assert totals(work) == (
        2 * (2 * 4 * 4) * 7 * (3 * 9),
        FLOAT * 7 * 3 * 9,
        FLOAT * (2 * 3 * 8 * 8 + 2 * 7 * 4 * 4),
    )


def test_grouped_convolution() -> None:
    """Each output channel sees only its group's inputs."""
    work = count(frozen(nn.Conv2d(4, 8, 3, padding=1, groups=2, bias=False)), torch.randn(1, 4, 6, 6))
    assert work.operations == 2 * 6 * 6 * 8 * (2 * 9)


def test_transposed_convolution() -> None:
    """Each of the 4x4 places of the input is multiplied with the whole kernel of 3 * 5 * 16 weights."""
    work = count(frozen(nn.ConvTranspose2d(3, 5, 4, stride=2, padding=1, bias=False)), torch.randn(2, 3, 4, 4))
    assert totals(work) == (
        2 * (2 * 4 * 4) * (3 * 5 * 16),
        FLOAT * 3 * 5 * 16,
        FLOAT * (2 * 3 * 4 * 4 + 2 * 5 * 8 * 8),
    )


def test_shorter_type_moves_fewer_bytes() -> None:
    """The operations stay."""
    work = count(frozen(nn.Linear(10, 6, bias=False).to(torch.bfloat16)), torch.randn(5, 10, dtype=torch.bfloat16))
    assert totals(work) == (2 * 5 * 10 * 6, HALF * 10 * 6, HALF * (5 * 10 + 5 * 6))


class TwiceThenReshaped(nn.Module):
    """One weight for two products, then views, then an element-wise operator in place."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(self.linear(x))
        return x.reshape(-1, 2, 2).permute(0, 2, 1)[:, :1].relu_()


def test_weight_is_read_once_and_a_view_is_free() -> None:
    """As in the roofline's assumption: weights once per batch, activations in and out of every operator."""
    work = count(frozen(TwiceThenReshaped()), torch.randn(3, 4))
    products = [operator for operator in work.operators if operator.operations]
    assert [product.weight_bytes for product in products] == [FLOAT * 16, 0]
    assert [operator.name for operator in work.operators if not operator.operations] == ["aten.relu_"]
    assert totals(work) == (2 * (2 * 3 * 4 * 4), FLOAT * 16, FLOAT * (4 * 3 * 4 + 2 * 3 * 2))


def test_expanded_input_is_read_once() -> None:
    """A row that stands for many is one row in memory."""
    work = count(lambda x: x.expand(8, 4) + 1, torch.randn(1, 4))
    assert work.activation_bytes == FLOAT * (4 + 8 * 4)


def test_operator_waits_for_what_takes_longer() -> None:
    """The roofline is the sum over the operators, not the larger of two sums."""
    work = Work((Operator("a", 100, 0, 10), Operator("b", 0, 20, 30)))
    peaks = Peaks(operations_per_s=10, bytes_per_s=10)
    assert math.isclose(work.seconds(peaks), 10 + 5)
    assert work.share_bound_by_bytes(peaks) == pytest.approx(1 / 3)
