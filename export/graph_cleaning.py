"""What every exported graph goes through: nothing that names this machine, nothing that computes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

IR_VERSION = 9  # of opset 20; the exporter writes 10, which engines before onnxruntime 1.18 refuse for no gain


def clean(graph: Any) -> Any:
    """The same ModelProto without stack traces, comments, inferred shapes and steps that change nothing; in place."""
    body = graph.graph
    del graph.metadata_props[:], body.metadata_props[:], body.value_info[:]
    for part in (*body.node, *body.initializer, *body.input, *body.output):
        del part.metadata_props[:]
        part.doc_string = ""
    graph.doc_string = body.doc_string = ""
    graph.ir_version = min(graph.ir_version, IR_VERSION)
    graph.producer_name, graph.producer_version, body.name = "onceover", "", "patch_embedding"
    _drop_empty_pads(body)
    _drop_unused_constants(body)
    return graph


def _drop_empty_pads(body: Any) -> None:
    """Padding by zero cells, left where windows divide the map; onnxruntime copies the map for it."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in body.initializer}
    needed = {value.name for value in body.output} | {name for node in body.node for name in _read_inside(node)}
    renamed: dict[str, str] = {}
    kept = []
    for node in body.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
        pads = constants.get(node.input[1]) if node.op_type == "Pad" and len(node.input) > 1 else None
        if pads is not None and node.output[0] not in needed and not np.any(numpy_helper.to_array(pads)):
            renamed[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del body.node[:]
    body.node.extend(kept)


def _drop_unused_constants(body: Any) -> None:
    used = {name for node in body.node for name in inputs_of(node)} | {value.name for value in body.output}
    kept = [tensor for tensor in body.initializer if tensor.name in used]
    del body.initializer[:]
    body.initializer.extend(kept)


def inputs_of(node: Any) -> set[str]:
    """Every value a node reads, also inside the branches and loops that are its attributes."""
    return (set(node.input) - {""}) | _read_inside(node)


def _read_inside(node: Any) -> set[str]:
    names: set[str] = set()
    for attribute in node.attribute:
        for branch in (attribute.g, *attribute.graphs):
            names |= {name for inner in branch.node for name in inputs_of(inner)}
            names |= {value.name for value in branch.output}
    return names


__all__ = ["clean", "inputs_of"]
