"""One graph for several image sizes: then a device without torch can take the network at another one.

Convolutions work at any size. Attention windows are laid out by lists of sizes, which an export at each size tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onceover.errors import UsageError

# Square inputs at which windows of 7 cells at stride 16 all need padding, and windows of 8 none: the same steps. Larger
# ones would be, too, but windows that are spread over so large an image see worse (docs/weights.md).
WINDOW_SIDES = (256, 384)


def make_resizable(graph: Any, strides: Sequence[int]) -> int:
    """Free the nodes of a static ModelProto from its size, in place; answers what sides must be a multiple of.

    Two kinds of node know the size in a convolutional patch embedding: what brings coarse stages onto the grid of the
    first, and what flattens the grid. UsageError for a graph with others.
    """
    body = graph.graph
    resizes = [node for node in body.node if node.op_type == "Resize"]
    reshapes = [node for node in body.node if node.op_type == "Reshape"]
    if len(resizes) != len(strides) - 1 or len(reshapes) != 1:
        raise UsageError(
            "this architecture has steps that are laid out for one image size; export it without resizable, once for "
            "each size"
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


def constants_by_side(graphs: Mapping[int, Any]) -> dict[str, dict[str, list[int]]]:
    """ModelProtos of one network by the side of their input → side → constant → values, of those that differ.

    UsageError where they differ in more than that: then one cannot stand for the others.
    """
    from onnx import numpy_helper

    smallest = min(graphs)
    tables = {side: {tensor.name: tensor for tensor in graph.graph.initializer} for side, graph in graphs.items()}
    own = tables[smallest]
    for side, graph in graphs.items():
        same_nodes = list(graph.graph.node) == list(graphs[smallest].graph.node)
        if not same_nodes or tables[side].keys() != own.keys():
            raise UsageError(f"at {side} this network has other steps than at {smallest}; export it at each size")
    differing = [name for name in own if any(table[name] != own[name] for table in tables.values())]
    for name in differing:
        if any(table[name].data_type != table[name].INT64 or len(table[name].dims) != 1 for table in tables.values()):
            raise UsageError(f"its constant {name} depends on the image size and is no shape; export it at each size")
        for table in tables.values():  # in the layout that `runtime.resizing` writes
            table[name].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table[name]), name))
    return {
        str(side): {name: numpy_helper.to_array(table[name]).tolist() for name in differing}
        for side, table in tables.items()
    }


__all__ = ["WINDOW_SIDES", "constants_by_side", "make_resizable"]
