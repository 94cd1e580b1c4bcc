"""What a batch costs a device at least: operations and bytes of every operator, and the peaks that bound them.

An operator takes as long as its operations at the device's peak, or as its bytes at the peak of its memory, whichever
is longer; a batch takes the sum. Operators are those of the module as it was written: where a device runs several as
one, or finds activations in its cache, it moves less than is counted here, and may come out above this roofline.

Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model for multicore architectures".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
# `empty` writes nothing; `equal` is TorchScript comparing constants while it compiles.
NO_WORK = {aten.empty, aten.equal}
COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd  # of operators that only call others


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator's work.

    Attributes:
        name: As "aten.convolution".
        operations: Multiplications and additions of convolutions and matrix products; none of all others.
        weight_bytes: Of weights that no operator before has read.
        activation_bytes: Of everything else that it reads, and of what it writes.
    """

    name: str
    operations: int
    weight_bytes: int
    activation_bytes: int


@dataclass(frozen=True, slots=True)
class Peaks:
    """What a device reaches: operations per second in the model's type, bytes per second to and from its memory."""

    operations_per_s: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Work:
    """All operators of a batch."""

    operators: tuple[Operator, ...]

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return sum(operator.operations for operator in self.operators)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights, each read once."""
        return sum(operator.weight_bytes for operator in self.operators)

    @property
    def activation_bytes(self) -> int:
        """Bytes of activations, read and written."""
        return sum(operator.activation_bytes for operator in self.operators)

    def seconds(self, peaks: Peaks) -> float:
        """Return the seconds of the roofline."""
        return sum(max(_seconds(operator, peaks)) for operator in self.operators)

    def share_bound_by_bytes(self, peaks: Peaks) -> float:
        """Return the share of these seconds, 0 to 1, that operators take which wait for memory."""
        pairs = [_seconds(operator, peaks) for operator in self.operators]
        return sum(by_bytes for by_operations, by_bytes in pairs if by_bytes > by_operations) / self.seconds(peaks)


def _seconds(operator: Operator, peaks: Peaks) -> tuple[float, float]:
    moved = operator.weight_bytes + operator.activation_bytes
    return operator.operations / peaks.operations_per_s, moved / peaks.bytes_per_s


def count(call: Callable[[Tensor], Tensor], x: Tensor) -> Work:
    """Return what a call does, by making it.

    Args:
        call: A function, module or method, TorchScript too, on the CPU. TorchScript has to be fresh: from the second
            call of a shape on it may run several operators as one, which are not seen.
        x: Its input, any shape and type; weights are the other tensors that it reads without having made them.

    Returns:
        The work.
    """
    counting = _Counting(x)
    with torch.inference_mode(), counting:
        call(x)
    return Work(tuple(counting.operators))


class _Counting(TorchDispatchMode):
    """Sees every operator below autograd, those of TorchScript's interpreter included."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.operators: list[Operator] = []
        self._activations = {_storage(x)}
        self._weights: set[int] = set()
        self._kept: list[Tensor] = [x]  # so that no address is used again

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), COMPOSITE):
            # Not `func.decompose`, which takes some kernels apart that run as one.
            with self:
                return func._op_dk(COMPOSITE, *args, **kwargs)
        out = func(*args, **kwargs)
        if func._overloadpacket not in NO_WORK:
            self._count(func, args, kwargs, out)
        return out

    def _count(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        written = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if not func._schema.is_mutable and {_storage(one) for one in written} <= {_storage(one) for one in read}:
            return  # a view
        weights = [one for one in read if _storage(one) not in self._activations]
        fresh = {_storage(one): one for one in weights if _storage(one) not in self._weights}
        activations = [one for one in read if _storage(one) in self._activations]
        self._weights |= set(fresh)
        self._activations |= {_storage(one) for one in written}
        self._kept += written
        formula = flop_registry.get(func._overloadpacket)
        self.operators.append(
            Operator(
                str(func._overloadpacket),
                int(formula(*args, **kwargs, out_val=out)) if formula else 0,
                sum(map(_bytes, fresh.values())),
                sum(map(_bytes, activations + written)),
            )
        )


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _bytes(tensor: Tensor) -> int:
    """Return the bytes of a tensor's values, each once however often it is expanded."""
    sizes = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    return math.prod(sizes) * tensor.element_size()
