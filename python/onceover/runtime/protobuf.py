"""The protobuf wire format, read and written directly: devices have an engine but no module `onnx`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Content = memoryview | bytes
Value = int | Content  # a whole number, or bytes: a text, a message, a fixed-size number


class Malformed(ValueError):
    """What was read is no protobuf message."""


def fields_of(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, whole number or bytes) of one message; fixed-size numbers are given as bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(message, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise Malformed(f"wire type {wire} at byte {at}")
        if number == 0 or size > len(message) - at:
            raise Malformed(f"field {number} of {size} bytes at byte {at} of {len(message)}")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for i, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    raise Malformed(f"a number that does not end at byte {at}")


def message_of(fields: Iterable[tuple[int, Value]]) -> bytes:
    """The bytes of a message of whole numbers from 0 and of texts or messages; fixed-size numbers cannot be told."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts += [_varint_of(number << 3), _varint_of(value)]
        else:
            parts += [_varint_of(number << 3 | 2), _varint_of(len(value)), bytes(value)]
    return b"".join(parts)


def _varint_of(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


__all__ = ["Content", "Malformed", "Value", "fields_of", "message_of"]
