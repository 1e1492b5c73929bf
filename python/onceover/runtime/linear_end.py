"""The same network with a matrix behind its answer, written into the ONNX bytes: a device needs no module `onnx`.

Field numbers are those of onnx.proto, which promises not to change them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onceover.errors import InputError
from onceover.runtime.protobuf import Value, fields_of, message_of

MODEL_GRAPH = 7
GRAPH_NODE, GRAPH_CONSTANT, GRAPH_OUTPUT = 1, 5, 12
NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_OPERATOR = 1, 2, 3, 4
TENSOR_DIMENSION, TENSOR_TYPE, TENSOR_NAME, TENSOR_CONTENT = 1, 2, 8, 9
VALUE_NAME = 1
FLOAT32 = 1
Fields = list[tuple[int, Value]]


def with_matrix(graph: bytes, matrix: NDArray[np.float32], name: str) -> bytes:
    """The ONNX file whose one output x, (1, P, D), is x · matrix instead; its name stays, so does the metadata.

    matrix: (D, D). name: of the new constant; what comes out of the network before it is called `name`/input. Raises
    InputError where the graph has a value of that name already.
    """
    fields: Fields = []
    for number, value in _read(graph):
        fields.append((number, _multiplied(value, matrix, name) if number == MODEL_GRAPH else value))
    return message_of(fields)


def _read(message: Value) -> Fields:
    assert not isinstance(message, int)  # check_self_contained has walked the graph
    return [(n, v if isinstance(v, int) else bytes(v)) for n, v in fields_of(memoryview(message))]


def _multiplied(graph: Value, matrix: NDArray[np.float32], name: str) -> bytes:
    fields = _read(graph)
    constants = {dict(_read(value)).get(TENSOR_NAME) for number, value in fields if number == GRAPH_CONSTANT}
    if name.encode() in constants:
        raise InputError(f"the graph already has a constant {name!r}; start from the graph as it was exported")
    output = dict(_read(next(value for number, value in fields if number == GRAPH_OUTPUT)))[VALUE_NAME]
    before = f"{name}/input".encode()
    changed: Fields = []
    for number, value in fields:
        changed.append((number, _renamed(value, output, before) if number == GRAPH_NODE else value))
    product = [(NODE_INPUT, before), (NODE_INPUT, name.encode()), (NODE_OUTPUT, output)]
    node = message_of([*product, (NODE_NAME, name.encode()), (NODE_OPERATOR, b"MatMul")])
    last = max(i for i, (number, _) in enumerate(changed) if number == GRAPH_NODE)
    changed.insert(last + 1, (GRAPH_NODE, node))  # nodes stand in the order in which they can be run
    return message_of([*changed, (GRAPH_CONSTANT, _tensor(matrix, name))])


def _renamed(node: Value, old: Value, new: bytes) -> bytes:
    """The node with a value of another name among its inputs and outputs."""
    return message_of(
        (n, new if n in (NODE_INPUT, NODE_OUTPUT) and value == old else value) for n, value in _read(node)
    )


def _tensor(matrix: NDArray[np.float32], name: str) -> bytes:
    content = np.ascontiguousarray(matrix, "<f4").tobytes()
    dimensions: Fields = [(TENSOR_DIMENSION, side) for side in matrix.shape]
    return message_of([*dimensions, (TENSOR_TYPE, FLOAT32), (TENSOR_NAME, name.encode()), (TENSOR_CONTENT, content)])


__all__ = ["with_matrix"]
