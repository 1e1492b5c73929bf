"""Whether an ONNX graph is complete in itself: no weights in other files, no operators that only some engine has.

Field numbers are those of onnx.proto, which promises not to change them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from onceover.errors import InputError
from onceover.runtime.protobuf import Malformed, fields_of

STANDARD_DOMAINS = frozenset({b"", b"ai.onnx"})
DEEPEST = 64  # nested messages; graphs within graphs of real networks stay below 20

# Message → number of a field that holds messages → their kind. What is not here is skipped unread.
MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
TENSOR_NAME, TENSOR_EXTERNAL_DATA, TENSOR_DATA_LOCATION, EXTERNAL = 8, 13, 14, 1
NODE_OPERATOR, NODE_DOMAIN = 4, 7
FUNCTION_NAME, FUNCTION_DOMAIN = 1, 10
OperatorName = tuple[bytes, bytes]  # domain, operator


@dataclass
class _Found:
    """What a walk through the whole model meets."""

    external: list[bytes] = field(default_factory=list)  # names of tensors
    operators: set[OperatorName] = field(default_factory=set)
    functions: set[OperatorName] = field(default_factory=set)


def check_self_contained(graph: bytes, label: str) -> None:
    """Raises InputError for a graph whose weights lie in other files, one with operators of another domain than ONNX's
    own that it does not define itself, and for bytes that are no protobuf message. label names it in messages."""
    found = _Found()
    try:
        _walk(memoryview(graph), "model", found, 0)
    except Malformed as error:
        raise InputError(f"{label}: not an ONNX graph ({error}); export it with `onceover export backbone`") from error
    if found.external:
        raise InputError(
            f"{label}: keeps {_list(found.external)} in a file beside it (external data), which a package cannot "
            "carry; export it as one file, e.g. onnx.save(model, path, save_as_external_data=False)"
        )
    custom = sorted(found.operators - found.functions)
    if custom:
        names = [domain + b"." + operator for domain, operator in custom]
        raise InputError(
            f"{label}: uses {_list(names)}, no standard ONNX operators, which not every engine can run; "
            "export it without fused or custom operators"
        )


def _walk(message: memoryview, kind: str, found: _Found, depth: int) -> None:
    if depth > DEEPEST:
        raise Malformed(f"messages nested more than {DEEPEST} deep")
    values: dict[int, int | bytes] = {}  # of the last occurrence, as protobuf reads a repeated scalar
    children = MESSAGES[kind]
    for number, value in fields_of(message):
        if number in children and isinstance(value, memoryview):
            _walk(value, children[number], found, depth + 1)
        elif isinstance(value, memoryview):
            values[number] = bytes(value[:256])  # names; weights need not be copied
        else:
            values[number] = value
    _NOTES.get(kind, _note_nothing)(values, found)


def _note_nothing(values: dict[int, int | bytes], found: _Found) -> None:
    pass


def _note_tensor(values: dict[int, int | bytes], found: _Found) -> None:
    location = values.get(TENSOR_DATA_LOCATION, 0)
    is_external = isinstance(location, int) and location & 0xFFFFFFFF == EXTERNAL  # as protobuf cuts an enum to 32 bits
    if is_external or TENSOR_EXTERNAL_DATA in values:
        found.external.append(_text(values, TENSOR_NAME))


def _note_node(values: dict[int, int | bytes], found: _Found) -> None:
    domain = _text(values, NODE_DOMAIN)
    if domain not in STANDARD_DOMAINS:
        found.operators.add((domain, _text(values, NODE_OPERATOR)))


def _note_function(values: dict[int, int | bytes], found: _Found) -> None:
    found.functions.add((_text(values, FUNCTION_DOMAIN), _text(values, FUNCTION_NAME)))


_NOTES: dict[str, Callable[[dict[int, int | bytes], _Found], None]] = {
    "tensor": _note_tensor,
    "node": _note_node,
    "function": _note_function,
}


def _text(values: dict[int, int | bytes], number: int) -> bytes:
    value = values.get(number, b"")
    return value if isinstance(value, bytes) else b""


def _list(names: list[bytes], shown: int = 3) -> str:
    texts = [name.decode("utf-8", "backslashreplace") for name in names]
    rest = f" and {len(texts) - shown} more" if len(texts) > shown else ""
    return ", ".join(map(repr, texts[:shown])) + rest


__all__ = ["check_self_contained"]
