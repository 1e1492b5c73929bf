"""The file of a SegmentationMetrics: everything little-endian, equal contents give equal bytes.

magic "OOSEGMET", uint32 version, uint32 size of the facts, uint64 size of the core's state, uint64 size of the
summaries; facts (JSON, sorted keys); the core's state; summaries, each after its uint32 size; SHA-256 of all that.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onceover.errors import InputError
from onceover.metrics.summaries import ImageSummary

MAGIC = b"OOSEGMET"
VERSION = 1
_HEAD = struct.Struct("<8sIIQQ")
_DIGEST = 32


@dataclass(frozen=True)
class Stored:
    """fpr_limits, connectivity and budget as given; defects: images of each kind; summaries: None without bootstrap."""

    fpr_limits: tuple[float, ...]
    connectivity: int
    page_budget_bytes: int | None
    defects: dict[str, int]
    core: bytes
    summaries: Sequence[bytes] | None


def pack(stored: Stored) -> bytes:
    facts = {
        "bootstrap": stored.summaries is not None,
        "connectivity": stored.connectivity,
        "defects": stored.defects,
        "fpr_limits": stored.fpr_limits,
        "page_budget_bytes": stored.page_budget_bytes,
    }
    told = json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()
    summaries = b"".join(struct.pack("<I", len(one)) + one for one in sorted(stored.summaries or ()))
    head = _HEAD.pack(MAGIC, VERSION, len(told), len(stored.core), len(summaries))
    data = head + told + stored.core + summaries
    return data + hashlib.sha256(data).digest()


def unpack(data: bytes, label: str) -> Stored:
    """Raises InputError, which begins with `label`, for what is foreign, cut, damaged or of another version."""
    if data[: len(MAGIC)] != MAGIC:
        raise InputError(f"{label}: holds no segmentation metrics (it begins with {data[: len(MAGIC)]!r})")
    if len(data) < _HEAD.size + _DIGEST:
        raise InputError(f"{label}: has {len(data)} bytes, expected at least {_HEAD.size + _DIGEST}; copy it again")
    _, version, facts_size, core_size, summaries_size = _HEAD.unpack_from(data)
    if version != VERSION:
        raise InputError(f"{label}: has format version {version}, this onceover reads {VERSION}; compute it again")
    expected = _HEAD.size + facts_size + core_size + summaries_size + _DIGEST
    if len(data) != expected:
        raise InputError(f"{label}: has {len(data)} bytes, expected {expected}; it is cut or damaged, copy it again")
    if hashlib.sha256(data[:-_DIGEST]).digest() != data[-_DIGEST:]:
        raise InputError(f"{label}: its SHA-256 does not match; it is damaged, copy it again")
    core_begin = _HEAD.size + facts_size
    core_end = core_begin + core_size
    try:
        return _stored(json.loads(data[_HEAD.size : core_begin]), data[core_begin:core_end], data[core_end:-_DIGEST])
    except (ValueError, TypeError, KeyError, RecursionError) as error:  # written by something else, with a right digest
        raise InputError(f"{label}: is not as onceover writes it ({error}); compute it again") from error


def _stored(facts: Any, core: bytes, summaries: bytes) -> Stored:
    limits, connectivity, budget = facts["fpr_limits"], facts["connectivity"], facts["page_budget_bytes"]
    defects, bootstrap = facts["defects"], facts["bootstrap"]
    if not (isinstance(limits, list) and all(isinstance(limit, float) and 0 < limit <= 1 for limit in limits)):
        raise ValueError(f"fpr_limits are {limits!r}")
    if type(connectivity) is not int or connectivity not in (4, 8) or type(bootstrap) is not bool:
        raise ValueError(f"connectivity is {connectivity!r}, bootstrap {bootstrap!r}")
    if budget is not None and (type(budget) is not int or not 1 << 22 <= budget < 1 << 63):
        raise ValueError(f"page_budget_bytes is {budget!r}")
    if not isinstance(defects, dict) or not all(type(images) is int and images > 0 for images in defects.values()):
        raise ValueError(f"defects are {defects!r}")
    parts = _split(summaries)
    if parts and not bootstrap:
        raise ValueError("it holds summaries, which it says it does not")
    return Stored(tuple(limits), connectivity, budget, defects, core, parts if bootstrap else None)


def _split(data: bytes) -> list[bytes]:
    parts, offset = [], 0
    while offset < len(data):
        if len(data) - offset < 4:
            raise ValueError("the summaries end within a size")
        (size,) = struct.unpack_from("<I", data, offset)
        parts.append(data[offset + 4 : offset + 4 + size])
        ImageSummary.from_bytes(parts[-1])  # checks that it is whole
        offset += 4 + size
    return parts
