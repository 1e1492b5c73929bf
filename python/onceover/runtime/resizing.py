"""The same network for images of another size: only the shapes at its ends change, its nodes work at any size.

Only for graphs that say so in their metadata (`resizable`), which the exporter writes after it has compared the answers
at two sizes. Field numbers are those of onnx.proto, which promises not to change them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from onceover.runtime.protobuf import Value, fields_of, message_of

MODEL_GRAPH, MODEL_METADATA = 7, 14
GRAPH_CONSTANT, GRAPH_INPUT, GRAPH_OUTPUT = 5, 11, 12
TENSOR_NAME, TENSOR_CONTENT = 8, 9
TO_THE_SHAPE = (2, 1, 2)  # of a ValueInfoProto: its type, that of a tensor, its shape
SHAPE_DIMENSION, DIMENSION_VALUE = 1, 1
ENTRY_KEY, ENTRY_VALUE = 1, 2
Fields = list[tuple[int, Value]]


def resized_graph(
    graph: bytes,
    image: Sequence[int],
    answer: Sequence[int],
    constants: Mapping[str, Sequence[int]],
    key: str,
    text: str,
) -> bytes:
    """The ONNX file with these shapes of its one input and its one output, and `text` as metadata `key`.

    constants: new values of lists of whole numbers inside the graph.
    """
    fields: Fields = []
    for number, value in _read(graph):
        if number == MODEL_GRAPH:
            value = _with_sizes(value, image, answer, constants)
        elif number == MODEL_METADATA and dict(_read(value)).get(ENTRY_KEY) == key.encode():
            value = message_of([(ENTRY_KEY, key.encode()), (ENTRY_VALUE, text.encode())])
        fields.append((number, value))
    return message_of(fields)


def _read(message: Value) -> Fields:
    assert not isinstance(message, int)  # check_self_contained has walked the graph
    return [(n, v if isinstance(v, int) else bytes(v)) for n, v in fields_of(memoryview(message))]


def _with_sizes(
    graph: Value, image: Sequence[int], answer: Sequence[int], constants: Mapping[str, Sequence[int]]
) -> bytes:
    shapes = {GRAPH_INPUT: image, GRAPH_OUTPUT: answer}
    fields: Fields = []
    for number, value in _read(graph):
        if number in shapes:
            value = _with_shape(value, shapes[number], TO_THE_SHAPE)
        elif number == GRAPH_CONSTANT and constants:
            name = dict(_read(value)).get(TENSOR_NAME, b"")
            assert isinstance(name, bytes)
            value = _with_values(value, constants[name.decode()]) if name.decode() in constants else value
        fields.append((number, value))
    return message_of(fields)


def _with_values(tensor: Value, values: Sequence[int]) -> bytes:
    """int64, as many as before, little-endian."""
    content = struct.pack(f"<{len(values)}q", *values)
    return message_of((number, content if number == TENSOR_CONTENT else value) for number, value in _read(tensor))


def _with_shape(message: Value, shape: Sequence[int], way: Sequence[int]) -> bytes:
    if not way:
        return message_of((SHAPE_DIMENSION, message_of([(DIMENSION_VALUE, side)])) for side in shape)
    fields = _read(message)
    return message_of((n, _with_shape(value, shape, way[1:]) if n == way[0] else value) for n, value in fields)


__all__ = ["resized_graph"]
