"""A package taken apart, changed at will, with all hashes made right again: what only a wrong or hostile writer makes.

Knows the layout of export/FORMAT.md by itself, so that reader and writer cannot be wrong in the same way.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

HEADER_BYTES, ENTRY_BYTES, DIGEST_BYTES = 64, 128, 32
FIELDS = {  # name → (offset in a table entry, struct format)
    "name": (0, "48s"), "flags": (48, "<I"), "type": (52, "<I"), "dimension_count": (56, "<I"),
    "dimensions": (64, "<4Q"), "offset": (96, "<Q"), "size_bytes": (104, "<Q"),
}  # fmt: skip
Value = bytes | int | tuple[int, ...]


@dataclass
class Forgery:
    """Change fields or members by name; `sealed` gives the bytes with right hashes."""

    data: bytearray

    @property
    def member_count(self) -> int:
        return int(struct.unpack_from("<I", self.data, 32)[0])

    @property
    def names(self) -> list[str]:
        return [self.data[at : at + 48].rstrip(b"\0").decode() for at in map(self._entry, range(self.member_count))]

    def get(self, member: str, field: str) -> int:
        offset, kind = FIELDS[field]
        return int(struct.unpack_from(kind, self.data, self._entry(self.names.index(member)) + offset)[0])

    def put(self, member: str, **changes: Value) -> None:
        """Fields of one table entry; `name` last, because it is how the entry is found."""
        at = self._entry(self.names.index(member))
        for field, value in changes.items():
            offset, kind = FIELDS[field]
            struct.pack_into(kind, self.data, at + offset, *(value if isinstance(value, tuple) else (value,)))

    def put_inside(self, member: str, offset: int, kind: str, *values: float) -> None:
        """Numbers in the member's content."""
        struct.pack_into(kind, self.data, self.get(member, "offset") + offset, *values)

    def sealed(self) -> bytes:
        """All member hashes, then the id. What lies outside the file keeps its old hash."""
        digests = HEADER_BYTES + self.member_count * ENTRY_BYTES
        for i in range(self.member_count):
            offset, size = struct.unpack_from("<2Q", self.data, self._entry(i) + FIELDS["offset"][0])
            if offset + size <= len(self.data):
                digest = hashlib.sha256(self.data[offset : offset + size]).digest()
                struct.pack_into("32s", self.data, digests + i * DIGEST_BYTES, digest)
        end = digests + self.member_count * DIGEST_BYTES
        struct.pack_into("32s", self.data, end, hashlib.sha256(self.data[:end]).digest())
        return bytes(self.data)

    def _entry(self, index: int) -> int:
        return HEADER_BYTES + index * ENTRY_BYTES
