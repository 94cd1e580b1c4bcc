"""What the passes need of torch's graphs, in one place: `torch._C.Graph` has neither types nor documentation."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

Graph = Any  # torch._C.Graph
Node = Any  # torch._C.Node
Value = Any  # torch._C.Value

Shapes = dict[str, list[int]]  # of a graph's values, by name

_SCALARS = torch._C.ListType(torch._C.OptionalType(torch._C.NumberType.get()))


def graph_of(method: Any) -> Graph:
    """Return a copy of a frozen method's graph, without the module, of which nothing but constants is left.

    Args:
        method: The method.

    Returns:
        The graph.

    Raises:
        RuntimeError: If the method needs its module.
    """
    graph = method.graph.copy()
    graph.eraseInput(0)
    return graph


def function_of(graph: Graph) -> Callable[..., Any]:
    """Return a function that runs a graph, and keeps nothing alive but the graph's constants."""
    function: Callable[..., Any] = torch._C._create_function_from_graph("lowered", graph)
    return function


def inputs_of(node: Node) -> list[Value]:
    """Return a node's inputs."""
    return list(node.inputs())


def constant_of(value: Value) -> Any:
    """Return a value that is known before the graph runs; `None` for others, and for the constant `None`."""
    return value.toIValue()


def is_constant(value: Value) -> bool:
    """Tell whether a value is known before the graph runs."""
    return bool(value.node().kind() == "prim::Constant")


def only_user(node: Node) -> Node | None:
    """Return the node that alone takes a node's single output; `None` if there are several, or it is the result."""
    uses = list(node.output().uses())
    return uses[0].user if len(uses) == 1 and uses[0].user.kind() != "prim::Return" else None


def insert(graph: Graph, kind: str, inputs: Sequence[Value]) -> Value:
    """Insert a node with one output at the insertion point, and return the output."""
    return graph.insertNode(graph.create(kind, list(inputs), 1)).output()


def insert_tensor(graph: Graph, tensor: torch.Tensor) -> Value:
    """Insert a tensor in oneDNN's own order, which `insertConstant` refuses, as a constant."""
    node = graph.create("prim::Constant", [], 1)
    node.t_("value", tensor)
    node.output().setType(torch._C.TensorType.get())
    return graph.insertNode(node).output()


def insert_scalars(graph: Graph, numbers: Sequence[float]) -> Value:
    """Insert a `Scalar?[]`, as which torch takes the parameters of an activation."""
    value = insert(graph, "prim::ListConstruct", [graph.insertConstant(number) for number in numbers])
    value.setType(_SCALARS)
    return value


def replace(node: Node, value: Value, shapes: Shapes) -> None:
    """Let `value` stand for a node's output, also in `shapes`, and remove the node."""
    shape = shapes.get(node.output().debugName())
    node.output().replaceAllUsesWith(value)
    node.destroy()
    if shape is not None:
        shapes[value.debugName()] = shape
