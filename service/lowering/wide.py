"""Transposed convolutions over very small maps: a batch's maps side by side, as a single wide one.

A kernel works along a row of the map. Rows of four or eight leave most of a matrix register empty; side by side, with
columns of zeros between them, so that no map sees its neighbours, the rows of a batch fill it. The sums are the same.
"""

import math
from collections.abc import Sequence
from typing import Any

from service.lowering.graph import Graph, Node, Shapes, constant_of, inputs_of, insert, only_user, replace
from service.lowering.pack import ACTIVATIONS

WIDEST = 8  # of a map that is worth it


def widen(graph: Graph, shapes: Shapes) -> None:
    """Lay out the small maps before transposed convolutions side by side, in place.

    Args:
        graph: A frozen graph.
        shapes: Of its values, for an example, which gains those of the wide maps.
    """
    for node in graph.findAllNodes("aten::conv_transpose2d"):
        x, weight, _, *settings = inputs_of(node)
        shape = shapes.get(x.debugName())
        values = [constant_of(value) for value in settings]
        if shape is None or shape[3] > WIDEST or constant_of(weight) is None or None in values:
            continue
        gap = _gap(constant_of(weight).shape[2:], *values)
        if gap is not None:
            _widen(graph, node, shape, gap, values[0], shapes)


def _gap(
    kernel: Sequence[int],
    stride: list[int],
    padding: list[int],
    output_padding: list[int],
    groups: int,
    dilation: list[int],
) -> int | None:
    """Return how many columns of zeros keep maps apart; `None` where a map does not become `stride` times as large."""
    if groups != 1 or dilation != [1, 1]:
        return None
    for side in (0, 1):
        if kernel[side] + output_padding[side] != stride[side] + 2 * padding[side]:
            return None
    # The next map's first column reaches `padding` to the left of its own results, this one's last as far to the right
    # as the kernel is wide.
    return max(0, math.ceil((kernel[1] - padding[1] + output_padding[1]) / stride[1]) - 1)


def _widen(graph: Graph, node: Node, shape: list[int], gap: int, stride: list[int], shapes: Shapes) -> None:
    images, channels, height, width = shape
    pitch = width + gap

    def then(kind: str, value: Any, *arguments: Any) -> Any:
        return insert(graph, f"aten::{kind}", [value, *(graph.insertConstant(one) for one in arguments)])

    graph.setInsertPoint(node)
    rows = then("permute", inputs_of(node)[0], [2, 0, 3, 1])  # H, N, W, C
    apart = then("constant_pad_nd", rows, [0, 0, 0, gap], 0)
    side_by_side = then("permute", then("reshape", apart, [1, height, -1, channels]), [0, 3, 1, 2])
    shapes[side_by_side.debugName()] = [1, channels, height, images * pitch]
    wide = graph.create(node.kind(), [side_by_side, *inputs_of(node)[1:]], 1)
    graph.insertNode(wide)
    result = wide.output()
    activation = only_user(node)
    if activation is not None and activation.kind() in ACTIVATIONS:  # stays next to the layer that can take it in
        result = insert(graph, activation.kind(), [result, *inputs_of(activation)[1:]])
        replace(activation, node.output(), shapes)
    out_channels = constant_of(inputs_of(node)[1]).shape[1]
    rows = then("permute", result, [0, 2, 3, 1])
    maps = then("reshape", rows, [height * stride[0], -1, pitch * stride[1], out_channels])
    kept = then("slice", maps, 2, 0, width * stride[1], 1)
    replace(node, then("permute", kept, [1, 3, 0, 2]), shapes)
