"""A lowered function draws what the method draws, for any number of rows, and calls packed kernels."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from service.lowering import detached, lower
from service.lowering.wide import WIDEST

EXAMPLE_ROWS = 4
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 0.03}
PACKED_TRANSPOSED = "mkldnn::_convolution_transpose_pointwise"


class Drawing(nn.Module):
    """What is exported: a module with a method of one tensor."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]

    @torch.jit.export
    def synthesis(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]


class Norm(nn.Module):
    """Batch normalisation at inference, with drawn statistics."""

    def __init__(self, channels: int, *, affine: bool = True) -> None:
        super().__init__()
        self.mean, self.variance = nn.Buffer(torch.randn(channels)), nn.Buffer(torch.rand(channels) + 0.5)
        self.scale = nn.Parameter(torch.randn(channels)) if affine else None
        self.shift = nn.Parameter(torch.randn(channels)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        return functional.batch_norm(x, self.mean, self.variance, self.scale, self.shift)


def method_of(dtype: torch.dtype, *layers: nn.Module) -> Any:
    """Return the frozen method of a network with drawn weights."""
    torch.manual_seed(0)
    network = Drawing(*layers).eval()
    network.requires_grad_(False).to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return torch.jit.freeze(torch.jit.script(network), preserved_attrs=["synthesis"]).synthesis


def kinds_of(function: Any) -> list[str]:
    return [node.kind() for node in function.graph.nodes() if not node.kind().startswith("prim::")]


def check(dtype: torch.dtype, shape: tuple[int, ...], *layers: nn.Module) -> list[str]:
    """Compare a lowered network with itself at several numbers of rows; return what the lowered one calls."""
    method = method_of(dtype, *layers)
    lowered = lower(method, torch.zeros(EXAMPLE_ROWS, *shape, dtype=dtype))
    with torch.inference_mode():
        for rows in (1, 2, EXAMPLE_ROWS, 7):
            x = torch.randn(rows, *shape).to(dtype)
            expected, found = method(x), lowered(x)
            assert (found.dtype, found.shape) == (dtype, expected.shape)
            assert (found - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max()
    return kinds_of(lowered)


DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])


@DTYPES
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(0.2), nn.Tanh(), nn.Identity()], ids=str)
@pytest.mark.parametrize("width", [4, WIDEST + 1])
def test_transposed_convolution(
    dtype: torch.dtype, affine: bool, bias: bool, activation: nn.Module, width: int
) -> None:
    """Normalisation and activation are done by the kernel, also of maps that are laid side by side."""
    layers = (nn.ConvTranspose2d(6, 5, 4, 2, 1, bias=bias), Norm(5, affine=affine), activation)
    kinds = check(dtype, (6, 4, width), *layers)

    assert "aten::batch_norm" not in kinds
    assert PACKED_TRANSPOSED in kinds
    assert not {"aten::conv_transpose2d", "aten::relu", "aten::leaky_relu"} & set(kinds)
    assert ("aten::constant_pad_nd" in kinds) == (width == 4)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "output_padding", "is_laid_out"),
    [
        (4, 2, 1, 0, True),
        (2, 2, 0, 0, True),
        (3, 2, 1, 1, True),
        (6, 2, 2, 0, True),
        (8, 4, 2, 0, True),
        (3, 1, 1, 0, True),
        (3, 2, 1, 0, False),  # one less than twice as wide
        (4, 1, 0, 0, False),
        (5, 2, 1, 0, False),
    ],
)
def test_maps_side_by_side_do_not_see_each_other(
    kernel: int, stride: int, padding: int, output_padding: int, is_laid_out: bool
) -> None:
    """Whatever the kernel's reach; what does not become a whole number of times as wide stays by itself."""
    layer = nn.ConvTranspose2d(3, 4, kernel, stride, padding, output_padding)
    kinds = check(torch.float32, (3, 3, 5), layer, nn.ReLU())

    assert PACKED_TRANSPOSED in kinds
    assert ("aten::reshape" in kinds) == is_laid_out


def test_neighbours_in_a_batch_do_not_matter() -> None:
    """One map of enormous numbers beside another changes nothing of that one."""
    lowered = lower(method_of(torch.float32, nn.ConvTranspose2d(2, 3, 4, 2, 1)), torch.zeros(EXAMPLE_ROWS, 2, 4, 4))
    x = torch.randn(3, 2, 4, 4)
    with torch.inference_mode():
        calm = lowered(x)[1]
        loud = lowered(torch.stack([x[0] * 1e30, x[1], x[2] * 1e30]))[1]

    assert torch.equal(calm, loud)


def test_large_negative_slope_and_shared_results_are_kept() -> None:
    """An activation is taken in only where nobody else wants what is before it."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layer(x)
            return torch.relu(y) + y

    kinds = check(torch.bfloat16, (3, 6, 6), Shared(), nn.LeakyReLU(1.5))

    assert "mkldnn::_convolution_pointwise" in kinds
    assert kinds.count("aten::relu") == 1


@DTYPES
def test_convolutions_and_linear_layers(dtype: torch.dtype) -> None:
    """Packed in bfloat16; in float32 they stay what they were."""
    layers = (
        *(nn.Linear(8, 4 * 6 * 6), nn.Unflatten(1, (4, 6, 6)), nn.Conv2d(4, 6, 3, padding=1), nn.LeakyReLU(0.2)),
        *(nn.Conv2d(6, 6, 3, padding=1, groups=2), nn.Conv2d(6, 3, 1, bias=False)),
    )
    kinds = check(dtype, (8,), *layers)

    packed = {"mkldnn::_convolution_pointwise": 3, "mkldnn::_linear_pointwise": 1}
    plain = {"aten::conv2d": 3, "aten::linear": 1}
    expected = packed if dtype == torch.bfloat16 else plain
    assert {kind: kinds.count(kind) for kind in expected} == expected


def test_layers_after_one_that_was_changed_are_found_too() -> None:
    """What is known of their inputs outlives what stood there."""
    layers = [nn.ConvTranspose2d(4, 6, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(6, 3, 4, 2, 1), nn.LeakyReLU(0.2)]
    kinds = check(torch.float32, (4, 4, 4), *layers)
    assert kinds.count("aten::constant_pad_nd") == kinds.count(PACKED_TRANSPOSED) == 2

    linears = [nn.Linear(8, 16), nn.LeakyReLU(0.2), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)]
    kinds = check(torch.bfloat16, (8,), *linears)
    assert kinds == ["mkldnn::_linear_pointwise"] * 3


def test_rows_that_do_not_become_as_many_times_as_high_stay() -> None:
    """Maps are laid side by side only where both sides grow by the stride."""
    layer = nn.ConvTranspose2d(3, 4, (3, 4), 2, 1)
    assert "aten::reshape" not in check(torch.float32, (3, 4, 4), layer)


def test_whatever_goes_wrong_is_one_kind_of_error() -> None:
    """Who lowers is prepared for that one."""
    method = method_of(torch.float32, nn.ConvTranspose2d(2, 3, 4, 2, 1))
    with pytest.raises(RuntimeError, match="cannot be packed"):
        lower(method, "no tensor")  # type: ignore[arg-type]


@pytest.mark.parametrize("groups", [1, 2])
def test_groups_and_dilation_stay_by_themselves(groups: int) -> None:
    """They are packed, and neither folded nor laid side by side."""
    layer = nn.ConvTranspose2d(4, 4, 3, padding=2, dilation=2, groups=groups)
    kinds = check(torch.float32, (4, 4, 4), layer, Norm(4))

    assert PACKED_TRANSPOSED in kinds
    assert "aten::reshape" not in kinds
    assert ("aten::batch_norm" in kinds) == (groups == 2)


def test_method_stays_as_it_was() -> None:
    """Whoever cannot lower runs it on."""
    method = method_of(torch.float32, nn.ConvTranspose2d(2, 3, 4, 2, 1), Norm(3))
    before = str(method.graph)
    lower(method, torch.zeros(2, 2, 4, 4))

    assert str(method.graph) == before


def test_detached_function_is_the_method_without_its_module() -> None:
    """Weights of other methods can then be freed; a method that needs its module keeps it."""
    method = method_of(torch.float32, nn.Linear(3, 4))
    x = torch.randn(5, 3)
    assert torch.equal(detached(method)(x), method(x))

    unfrozen = torch.jit.script(Drawing(nn.Linear(3, 4)).eval()).synthesis
    assert torch.equal(detached(unfrozen)(x), unfrozen(x))
