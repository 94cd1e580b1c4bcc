"""Batch normalisation with constants, folded into the transposed convolution before it.

torch's own freezing does that for plain convolutions only. Ioffe and Szegedy 2015, "Batch Normalization",
arXiv:1502.03167, section 3.1: at inference it is an affine map.
"""

import torch
from torch import Tensor

from service.lowering.graph import Graph, Node, Shapes, constant_of, inputs_of, is_constant, only_user, replace


def fold_batch_norms(graph: Graph, shapes: Shapes) -> None:
    """Fold what can be folded, in place.

    Args:
        graph: A frozen graph.
        shapes: Of its values, for an example.
    """
    for node in graph.findAllNodes("aten::conv_transpose2d"):
        norm = only_user(node)
        if norm is not None and norm.kind() == "aten::batch_norm":
            _fold(graph, node, norm, shapes)


def _fold(graph: Graph, convolution: Node, norm: Node, shapes: Shapes) -> None:
    _, weight_value, bias_value, *_, groups, _ = inputs_of(convolution)
    _, *affine, training, _, eps, _ = inputs_of(norm)
    weight, bias = constant_of(weight_value), constant_of(bias_value)
    scale, shift, mean, variance = (constant_of(value) for value in affine)
    known = isinstance(weight, Tensor) and isinstance(mean, Tensor) and isinstance(variance, Tensor)
    known = known and all(map(is_constant, (bias_value, *affine)))
    if not known or constant_of(training) is not False or constant_of(groups) != 1:
        return
    strength = torch.rsqrt(variance.float() + constant_of(eps))
    if scale is not None:
        strength = strength * scale.float()
    offset = -mean.float() if bias is None else bias.float() - mean.float()
    offset = offset * strength
    if shift is not None:
        offset = offset + shift.float()
    folded = (weight.float() * strength[:, None, None]).to(weight.dtype)
    graph.setInsertPoint(convolution)
    convolution.replaceInput(1, graph.insertConstant(folded))
    convolution.replaceInput(2, graph.insertConstant(offset.to(weight.dtype)))
    replace(norm, convolution.output(), shapes)
