"""A graph whose nodes work at any image size: then a device without torch can take the network at another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onceover.errors import UsageError


def make_resizable(graph: Any, strides: Sequence[int]) -> int:
    """Free the nodes of a static ModelProto from its size, in place; answers what sides must be a multiple of.

    Two kinds of node know the size in a convolutional patch embedding: what brings coarse stages onto the grid of the
    first, and what flattens the grid. UsageError for a graph with others, as attention windows are.
    """
    body = graph.graph
    resizes = [node for node in body.node if node.op_type == "Resize"]
    reshapes = [node for node in body.node if node.op_type == "Reshape"]
    if len(resizes) != len(strides) - 1 or len(reshapes) != 1:
        raise UsageError(
            "this architecture has attention windows or other steps that are laid out for one image size; "
            "export it without resizable, once for each size"
        )
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in body.initializer}
    for node, stride in zip(resizes, strides[1:], strict=True):
        scales = np.array([1, 1, stride / strides[0], stride / strides[0]], np.float32)
        body.initializer.append(numpy_helper.from_array(scales, f"{node.name}_scales"))
        node.input[2:] = [f"{node.name}_scales"]  # X, region, scales; the fourth, sizes, falls away
    target = constants[reshapes[0].input[1]]
    one, dims, _ = numpy_helper.to_array(target)  # (1, D, P)
    target.CopyFrom(numpy_helper.from_array(np.array([one, dims, -1]), target.name))
    return int(max(strides))


__all__ = ["make_resizable"]
