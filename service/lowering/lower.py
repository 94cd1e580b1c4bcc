"""All passes, in order."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from service.lowering.batch_norm import fold_batch_norms
from service.lowering.graph import function_of, graph_of
from service.lowering.pack import pack_convolutions, pack_linears, pack_transposed_convolutions
from service.lowering.shapes import shapes_of
from service.lowering.wide import widen


def lower(method: Any, example: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function that does what a frozen method does, at less cost.

    Args:
        method: Of one tensor besides the module, on the CPU; it is run once, and stays as it is.
        example: What the function is to be fast for, with N rows; it takes any number of them.

    Returns:
        The function.

    Raises:
        RuntimeError: If this torch cannot.
    """
    try:
        return _lowered(method, example)
    except Exception as error:  # of another torch, or of a graph that nobody has thought of
        raise RuntimeError(f"cannot be packed ({type(error).__name__}: {str(error).strip()})") from error


def _lowered(method: Any, example: Tensor) -> Callable[..., Any]:
    graph = graph_of(method)
    shapes = shapes_of(graph, method, example)
    fold_batch_norms(graph, shapes)
    widen(graph, shapes)
    pack_transposed_convolutions(graph, shapes)
    pack_convolutions(graph, shapes)
    pack_linears(graph, shapes)
    torch._C._jit_pass_dce(graph)
    graph.lint()
    return function_of(graph)


def detached(method: Any) -> Callable[..., Any]:
    """Return a function that does what a frozen method does, and does not keep the rest of the module alive.

    Args:
        method: A frozen method.

    Returns:
        The function; the method itself where it needs its module.
    """
    try:
        return function_of(graph_of(method))
    except RuntimeError:
        function: Callable[..., Any] = method
        return function
