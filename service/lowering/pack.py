"""Weights in the order that oneDNN's kernels want, and activations within the kernel.

oneDNN developer guide, "Understanding Memory Formats" and "Primitive Attributes: Post-ops".
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from service.lowering.graph import (
    Graph,
    Node,
    Shapes,
    Value,
    constant_of,
    inputs_of,
    insert,
    insert_scalars,
    insert_tensor,
    only_user,
    replace,
)

ACTIVATIONS = ("aten::relu", "aten::leaky_relu")


@dataclass(frozen=True, slots=True)
class Activation:
    """What a kernel does to its result: the node that says so in the graph, oneDNN's name of it, its parameters."""

    node: Node | None = None
    name: str = "none"
    parameters: tuple[float, ...] = ()


def activation_after(node: Node) -> Activation:
    """Return the activation that alone takes a node's output, if a kernel can do it."""
    user = only_user(node)
    if user is None or user.kind() not in ACTIVATIONS:
        return Activation()
    if user.kind() == "aten::relu":
        return Activation(user, "relu")
    slope = constant_of(inputs_of(user)[1])
    return Activation(user, "leaky_relu", (float(slope),)) if slope is not None else Activation()


def pack_convolutions(graph: Graph, shapes: Shapes) -> None:
    """Pack the weights of all convolutions that have constant ones, in place.

    Those in float32 stay: their best order differs from batch to batch, and from one order to another is a long way.

    Args:
        graph: A frozen graph.
        shapes: Of its values, for an example.
    """
    for node in graph.findAllNodes("aten::conv2d"):
        x, weight_value, bias, stride, padding, dilation, groups = inputs_of(node)
        weight = constant_of(weight_value)
        known = isinstance(weight, Tensor) and isinstance(constant_of(padding), list)
        if not known or weight.dtype == torch.float32:
            continue
        packed = torch.ops.mkldnn._reorder_convolution_weight(
            weight.contiguous(), *map(constant_of, (padding, stride, dilation, groups)), shapes.get(x.debugName())
        )
        graph.setInsertPoint(node)
        parameters = [x, insert_tensor(graph, packed), bias, padding, stride, dilation, groups]
        _insert_with_activation(graph, "mkldnn::_convolution_pointwise", node, parameters, shapes)


def pack_transposed_convolutions(graph: Graph, shapes: Shapes) -> None:
    """Pack the weights of all transposed convolutions that have constant ones, in place.

    Args:
        graph: A frozen graph.
        shapes: Of its values, for an example.
    """
    for node in graph.findAllNodes("aten::conv_transpose2d"):
        x, weight_value, bias, stride, padding, output_padding, groups, dilation = inputs_of(node)
        weight = constant_of(weight_value)
        if not isinstance(weight, Tensor) or not isinstance(constant_of(padding), list):
            continue
        settings = [padding, output_padding, stride, dilation, groups]
        packed = torch.ops.mkldnn._reorder_convolution_transpose_weight(
            weight.contiguous(), *map(constant_of, settings), shapes.get(x.debugName())
        )
        graph.setInsertPoint(node)
        parameters = [x, insert_tensor(graph, packed), bias, *settings]
        _insert_with_activation(graph, "mkldnn::_convolution_transpose_pointwise", node, parameters, shapes)


def pack_linears(graph: Graph, shapes: Shapes) -> None:
    """Pack the weights of linear layers, in place; those in float32 go to another library, which is faster there.

    Args:
        graph: A frozen graph.
        shapes: Of its values, for an example.
    """
    for node in graph.findAllNodes("aten::linear"):
        x, weight_value, bias = inputs_of(node)
        weight, shape = constant_of(weight_value), shapes.get(x.debugName())
        if not isinstance(weight, Tensor) or weight.dtype == torch.float32 or shape is None:
            continue
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), shape[0])
        graph.setInsertPoint(node)
        _insert_with_activation(
            graph, "mkldnn::_linear_pointwise", node, [x, insert_tensor(graph, packed), bias], shapes
        )


def _insert_with_activation(graph: Graph, kind: str, node: Node, parameters: list[Value], shapes: Shapes) -> None:
    """Let a kernel stand for a node, and for the activation after it."""
    activation = activation_after(node)
    options = [
        graph.insertConstant(activation.name),
        insert_scalars(graph, activation.parameters),
        graph.insertConstant(""),
    ]
    result = insert(graph, kind, [*parameters, *options])
    if activation.node is not None:
        replace(activation.node, result, shapes)
    replace(node, result, shapes)
