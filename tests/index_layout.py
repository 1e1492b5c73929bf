"""Where a search index keeps what, read from csrc/scoring/search_index.h: for tests that damage one on purpose."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCORING = Path(__file__).resolve().parents[1] / "csrc" / "scoring"
ALIGNMENT = 64
HEADER_BYTES = 128
TYPES: dict[str, np.dtype[Any]] = {
    "uint8_t": np.dtype(np.uint8), "int8_t": np.dtype(np.int8), "uint32_t": np.dtype(np.uint32),
    "int32_t": np.dtype(np.int32), "uint64_t": np.dtype(np.uint64), "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
}  # fmt: skip


TEXT = (SCORING / "search_index.h").read_text(encoding="utf-8")


def _struct(name: str) -> str:
    return TEXT.split(f"struct {name} {{", 1)[1].split("\n};", 1)[0]


def _dtype(kind: str) -> np.dtype[Any]:
    """Of a plain number, of an enum by what it is stored in, of a struct by its fields."""
    stored = re.search(rf"^enum class {kind} : (\w+)", TEXT, re.MULTILINE)
    plain: np.dtype[Any] | None = TYPES.get(stored.group(1) if stored else kind)
    return _fields(kind) if plain is None else plain


def _fields(name: str) -> np.dtype[np.void]:
    """A plain struct of `type a, b; // …` lines as a numpy dtype."""
    fields: list[Any] = []
    for kind, names in re.findall(r"^\s*(\w+) ([^;]+);", _struct(name), re.MULTILINE):
        for field in names.split(", "):
            plain, _, count = field.rstrip("]").partition("[")
            fields.append((plain, TYPES[kind], (int(count),)) if count else (plain, TYPES[kind]))
    return np.dtype(fields)


HEADER = _fields("IndexHeader")
assert HEADER.itemsize == HEADER_BYTES


def aligned_copy(index: bytes) -> NDArray[np.uint8]:
    """A writable copy that starts at a multiple of 64, as a viewed index must."""
    space = np.zeros(len(index) + ALIGNMENT, np.uint8)
    start = -space.ctypes.data % ALIGNMENT
    copy = space[start : start + len(index)]
    copy[:] = np.frombuffer(index, np.uint8)
    return copy


def header_of(index: NDArray[np.uint8]) -> NDArray[np.void]:
    """The header in place: header_of(index)["rank1"] = 64 writes it."""
    return index[:HEADER_BYTES].view(HEADER)


def header_words() -> dict[int, str]:
    """Offset of each 4-byte word of the header → its field."""
    assert HEADER.fields is not None
    names = {where[1]: name for name, where in HEADER.fields.items()}
    return {at: names[max(offset for offset in names if offset <= at)] for at in range(0, HEADER_BYTES, 4)}


def sections_of(index: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """Name → view, flat and in place. The shape of each section is the comment beside its pointer."""
    header = header_of(index)[0]
    padded = -(-int(header["dims"]) // 64) * 64
    sizes = {name: int(header[name]) for name in ("row_count", "slot_count", "rank1", "rank2", "copy_count")}
    sizes |= {"padded_dims": padded, "plane_tiles": padded // 64, "blocks": sizes["slot_count"] // 32, "kOrderAxes": 4}
    absent = {0: {"axes", "projection", "projection_sums"}, 1: set(), 2: {"projection", "projection_sums"}}
    lines = re.findall(r"^  const (\w+)\* (\w+) = nullptr;\s*// \(([^)]*)\)", _struct("SearchIndex"), re.MULTILINE)
    found: dict[str, NDArray[Any]] = {}
    at = HEADER_BYTES
    for kind, name, shape in _with_code_blocks(lines):
        dtype = _dtype(kind)
        count = int(np.prod([eval(size, {}, sizes) for size in shape.split(", ")]))  # "rank2 / 16"
        if name in absent[int(header["representation"])]:
            count = 0
        found[name] = index[at : at + count * dtype.itemsize].view(dtype)
        at += -(-count * dtype.itemsize // ALIGNMENT) * ALIGNMENT
    assert at == len(index), f"index_layout.py takes {at} bytes for sections, the index has {len(index)}"
    return found


def _with_code_blocks(lines: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """CodeBlocks stands before block_errors (kernel_table.h)."""
    at = next(i for i, (_, name, _) in enumerate(lines) if name == "block_errors")
    blocks = [
        ("int8_t", "codes", "slot_count, rank1"),
        ("int32_t", "norms", "slot_count"),
        ("int32_t", "sums", "slot_count"),
    ]
    return [*lines[:at], *blocks, *lines[at:]]


def with_word(index: bytes, offset: int, value: int) -> NDArray[np.uint8]:
    copy = aligned_copy(index)
    struct.pack_into("<I", copy.data, offset, value & 0xFFFFFFFF)
    return copy
