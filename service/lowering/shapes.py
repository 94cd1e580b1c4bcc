"""What shapes a graph's layers see, found out by running it once."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from service.lowering.graph import Graph, Shapes, constant_of, inputs_of

LAYERS = ("aten::conv2d", "aten::conv_transpose2d", "aten::linear")
_INPUTS = {  # of the operators that those become: which arguments their input and their weight are
    torch.ops.aten.convolution.default: (0, 1),
    torch.ops.aten.addmm.default: (1, 2),
    torch.ops.aten.mm.default: (0, 1),
}


class _Recorder(TorchDispatchMode):
    """Notes the shapes of the layers' inputs and weights in the order in which they run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[tuple[list[int], list[int]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operator."""
        if func in _INPUTS:
            x, weight = (args[position] for position in _INPUTS[func])
            self.seen.append((list(x.shape), sorted(weight.shape)))  # that of a product is transposed
        return func(*args, **(kwargs or {}))


def shapes_of(graph: Graph, function: Callable[[Tensor], Tensor], example: Tensor) -> Shapes:
    """Return the shapes of the inputs of a graph's layers, by the values' names.

    Args:
        graph: What `function` runs, from top to bottom.
        function: Takes `example`.
        example: An input.

    Returns:
        The shapes; none if what ran is not what the graph lists, so that they cannot be told apart.
    """
    layers = [node for node in graph.nodes() if node.kind() in LAYERS]
    # In inference mode nothing would be recorded.
    with torch.inference_mode(False), torch.no_grad(), _Recorder() as recorder:
        function(example.clone())
    weights = [constant_of(inputs_of(node)[1]) for node in layers]
    listed = [sorted(weight.shape) if isinstance(weight, Tensor) else None for weight in weights]
    if listed != [weight for _, weight in recorder.seen]:
        return {}
    names = (inputs_of(node)[0].debugName() for node in layers)
    return dict(zip(names, (shape for shape, _ in recorder.seen), strict=True))
