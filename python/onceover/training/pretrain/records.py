"""What a folder of records is about: header.json, and the layout of one record in the shards beside it.

The digest of the header stands in every shard, so that no shard can be mistaken for one of another recording.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onceover import _core
from onceover.errors import InputError, UsageError
from onceover.training.pretrain.sources import ImageFile, Sources

FORMAT = "onceover pretraining records"
RECORD_VERSION = 1
HEADER_NAME = "header.json"
SHARD_BYTES = 8 << 20  # about; what an interruption loses at most
DRAWN_PER_VIEW = 1.25  # side of a procedural image per side of a view: room for a crop


@dataclass(frozen=True)
class Tap:
    """One stage of the teacher as it is stored: (channels, height, width) float16 per view."""

    name: str
    stride: int
    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class RecordHeader:
    """Everything that all records share.

    backbone: the teacher, with its weights card as JSON, whose hash says which file, and how it looks at a view
    (`teacher.Look`). top_k 0: no probabilities.
    locations: where images and weights were, a hint that is not part of the digest.
    """

    backbone: str
    card: dict[str, Any]
    enlarge: int
    mirrors: int
    taps: tuple[Tap, ...]
    top_k: int
    classes: int
    view_size: int
    views: int
    seed: int
    procedural: int
    images: tuple[ImageFile, ...]
    fingerprint: dict[str, Any]
    locations: dict[str, str]
    shard_records: int = 0  # in every shard but the last; 0: as many as make SHARD_BYTES

    def __post_init__(self) -> None:
        if self.shard_records == 0:
            object.__setattr__(self, "shard_records", max(1, min(4096, SHARD_BYTES // self.dtype.itemsize)))

    def __len__(self) -> int:
        """Records: every view of every image, those of an image in a row, then one view of every drawn image."""
        return len(self.images) * self.views + self.procedural

    def place(self, record: int) -> tuple[int, int]:
        """The record's image (drawn ones behind the files) and which view of it."""
        drawn = record - len(self.images) * self.views
        return (len(self.images) + drawn, 0) if drawn >= 0 else divmod(record, self.views)

    @property
    def dtype(self) -> np.dtype[np.void]:
        """One record, little-endian and packed; class numbers take 16 bits up to 65,536 classes."""
        fields: list[tuple[Any, ...]] = [("image", "<u4"), ("seed", "<u8"), ("pixels_crc32", "<u4")]
        if self.top_k:
            fields.append(("classes", "<u2" if self.classes <= 1 << 16 else "<u4", (self.top_k,)))
            fields.append(("probabilities", "<f2", (self.top_k,)))
        shapes = ((tap.channels, tap.height, tap.width) for tap in self.taps)
        fields += [(f"tap{index}", "<f2", shape) for index, shape in enumerate(shapes)]
        return np.dtype(fields)

    @property
    def shards(self) -> int:
        return -(-len(self) // self.shard_records)

    def shard_range(self, shard: int) -> range:
        """The records of a shard."""
        return range(shard * self.shard_records, min(len(self), (shard + 1) * self.shard_records))

    def sources(self, folder: Path | None = None) -> Sources:
        """The images, in `folder` or where they were when they were recorded."""
        place = folder or (Path(self.locations["images"]) if "images" in self.locations else None)
        return Sources(place, self.images, self.procedural, round(DRAWN_PER_VIEW * self.view_size), self.seed)

    def facts(self) -> dict[str, Any]:
        """All but the locations, as JSON values."""
        return {
            "format": FORMAT,
            "version": RECORD_VERSION,
            "teacher": {
                "backbone": self.backbone,
                "card": self.card,
                "enlarge": self.enlarge,
                "mirrors": self.mirrors,
            },
            "taps": [[tap.name, tap.stride, tap.channels, tap.height, tap.width] for tap in self.taps],
            "top_k": self.top_k,
            "classes": self.classes,
            "view_size": self.view_size,
            "views": self.views,
            "seed": self.seed,
            "procedural": self.procedural,
            "shard_records": self.shard_records,
            "images": [[file.name, file.sha256] for file in self.images],
            "fingerprint": self.fingerprint,
        }

    def digest(self) -> bytes:
        """SHA-256 of the facts, 32 bytes."""
        return hashlib.sha256(json.dumps(self.facts(), sort_keys=True).encode()).digest()

    def check_pipeline(self, here: dict[str, Any]) -> None:
        """UsageError when this machine would draw other pixels than those that the teacher saw."""
        parts = ("settings", "views", "materials") if self.procedural else ("settings", "views")
        other = [part for part in parts if self.fingerprint.get(part) != here[part]]
        if other:
            raise UsageError(
                f"the augmentation here is not the one of these records ({', '.join(other)} differ): another version "
                "of onceover, numpy or OpenCV; install that one, record again, or pass --accept-other-pixels"
            )


def write_header(folder: Path, header: RecordHeader) -> None:
    text = json.dumps({**header.facts(), "locations": header.locations}, indent=1, sort_keys=True)
    _core.save_atomically(folder / HEADER_NAME, text.encode())


def read_header(folder: Path) -> RecordHeader:
    """InputError when the folder holds no records, those of another version, or a damaged header."""
    path = folder / HEADER_NAME
    try:
        facts = json.loads(path.read_bytes())
    except OSError as error:
        what = f"{folder}: holds no records ({error.strerror})"
        raise InputError(f"{what}; make some: onceover pretrain record") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({type(error).__name__}); record again") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise InputError(f"{path}: is not the header of pretraining records; give the folder of `pretrain record -o`")
    if facts.get("version") != RECORD_VERSION:
        found = facts.get("version")
        raise InputError(f"{path}: records of version {found!r}, expected {RECORD_VERSION}; record again")
    try:
        header = _from_facts(facts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: the header is damaged ({type(error).__name__}: {error}); record again") from error
    if {**header.facts(), "locations": header.locations} != facts or not _is_sane(header):
        raise InputError(f"{path}: the header is damaged, its values do not fit together; record again")
    return header


def _from_facts(facts: dict[str, Any]) -> RecordHeader:
    return RecordHeader(
        backbone=str(facts["teacher"]["backbone"]),
        card=dict(facts["teacher"]["card"]),
        enlarge=int(facts["teacher"]["enlarge"]),
        mirrors=int(facts["teacher"]["mirrors"]),
        taps=tuple(Tap(str(tap[0]), *(int(number) for number in tap[1:])) for tap in facts["taps"]),
        top_k=int(facts["top_k"]),
        classes=int(facts["classes"]),
        view_size=int(facts["view_size"]),
        views=int(facts["views"]),
        seed=int(facts["seed"]),
        procedural=int(facts["procedural"]),
        images=tuple(ImageFile(str(name), str(sha256)) for name, sha256 in facts["images"]),
        fingerprint=dict(facts["fingerprint"]),
        shard_records=int(facts["shard_records"]),
        locations={str(key): str(value) for key, value in facts["locations"].items()},
    )


def _is_sane(header: RecordHeader) -> bool:
    """Sizes that a recording can have: nothing is allocated by a damaged number."""
    sides = [side for tap in header.taps for side in (tap.stride, tap.channels, tap.height, tap.width)]
    return (
        bool(header.taps)
        and all(1 <= side <= 1 << 16 for side in (*sides, header.view_size, header.views, header.shard_records))
        and 0 <= header.top_k <= header.classes < 1 << 32
        and 0 <= header.procedural < 1 << 31
        and 0 < len(header) < 1 << 40
    )


__all__ = ["RECORD_VERSION", "RecordHeader", "Tap", "read_header", "write_header"]
