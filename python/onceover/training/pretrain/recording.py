"""Run the teacher once over all views and store what it says. What is interrupted goes on with the missing shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onceover.backbones.weights import read_card
from onceover.errors import InputError, OutputError, UsageError
from onceover.training.pretrain.augmentation import pipeline_fingerprint
from onceover.training.pretrain.loading import view_batches
from onceover.training.pretrain.records import HEADER_NAME, RecordHeader, read_header, write_header
from onceover.training.pretrain.shards import missing_shards, write_shard
from onceover.training.pretrain.sources import Progress, find_images
from onceover.training.pretrain.teacher import PLAIN_LOOK, Answers, Look, Teacher, choose_device, load_teacher


@dataclass(frozen=True)
class RecordingOptions:
    """What to record. views: stored augmentations per image. procedural: number of drawn images, one view each."""

    teacher: str
    weights: Path
    images: Path | None = None
    procedural: int = 0
    views: int = 4
    view_size: int = 128
    strides: tuple[int, ...] = (8, 16)
    look: Look = PLAIN_LOOK
    top_k: int = 0
    seed: int = 0
    batch: int = 16
    workers: int = 0
    device: str = "auto"

    def check(self) -> None:
        """UsageError for numbers that make no recording."""
        if self.images is None and not self.procedural:
            raise UsageError("there is nothing to record; give a folder of images, --procedural N, or both")
        limits = {"views": (1, 1 << 16), "view_size": (32, 2048), "batch": (1, 4096), "procedural": (0, (1 << 31) - 1)}
        for name, (low, high) in {**limits, "top_k": (0, 1 << 16), "workers": (0, 256)}.items():
            value = int(getattr(self, name))
            if not low <= value <= high:
                raise UsageError(f"{name.replace('_', ' ')} must be {low} to {high}, got {value}")


@dataclass(frozen=True)
class Recording:
    """What `record` did."""

    header: RecordHeader
    written: int  # shards that were written now; the others were there


def record(folder: Path, options: RecordingOptions, progress: Progress) -> Recording:
    """Write the records of all views into `folder`, or those that an interrupted call left out.

    UsageError when the folder holds another recording, InputError for an image that cannot be read.
    """
    options.check()
    teacher, header = _prepare(options, progress)
    missing = _open_folder(folder, header)
    batches = [list(part) for shard in missing for part in _parts(header.shard_range(shard), options.batch)]
    rows = _Rows(header)
    for done, views in enumerate(view_batches(header, header.sources(), batches, options.workers)):
        rows.add(views.records, views.checksums, teacher(views.pixels))
        if rows.full():
            write_shard(folder, header, rows.shard, rows.take())
        progress("recording", done + 1, len(batches))
    return Recording(header, len(missing))


def _parts(ids: range, size: int) -> list[range]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def _prepare(options: RecordingOptions, progress: Progress) -> tuple[Teacher, RecordHeader]:
    card = read_card(options.weights)
    device = choose_device(options.device)
    teacher, classes = load_teacher(
        options.teacher, options.weights, options.strides, options.look, options.top_k, device
    )
    locations = {"weights": str(options.weights.resolve())}
    if options.images is not None:
        locations["images"] = str(options.images.resolve())
    header = RecordHeader(
        backbone=options.teacher,
        card=card.to_json(),
        enlarge=options.look.enlarge,
        mirrors=options.look.mirrors,
        taps=teacher.taps(options.view_size),
        top_k=options.top_k,
        classes=classes,
        view_size=options.view_size,
        views=options.views,
        seed=options.seed,
        procedural=options.procedural,
        images=find_images(options.images, progress) if options.images is not None else (),
        fingerprint=pipeline_fingerprint(),
        locations=locations,
    )
    return teacher, header


def _open_folder(folder: Path, header: RecordHeader) -> list[int]:
    """The shards to write, in a folder that holds the header; UsageError when it is used for something else."""
    if (folder / HEADER_NAME).exists():
        there = read_header(folder)
        if there.digest() != header.digest():
            old, new = there.facts(), header.facts()
            differ = ", ".join(sorted(key for key in new if old[key] != new[key]))
            raise UsageError(f"{folder}: holds another recording (other: {differ}); choose another folder")
        return missing_shards(folder, header)
    if folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise UsageError(f"{folder}: is not empty and holds no records; choose a new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot make the folder ({error.strerror}); choose another place") from error
    write_header(folder, header)
    return list(range(header.shards))


class _Rows:
    """The records of one shard while they are collected."""

    def __init__(self, header: RecordHeader) -> None:
        self._header = header
        self._parts: list[NDArray[np.void]] = []
        self._sources = header.sources()
        self.shard = 0

    def add(self, records: Sequence[int], checksums: Sequence[int], answers: Answers) -> None:
        """Records of the shard that is being collected, in order; its number is told by them."""
        self.shard = records[0] // self._header.shard_records
        rows = np.zeros(len(records), self._header.dtype)
        places = [self._header.place(record) for record in records]
        rows["image"] = [image for image, _ in places]
        rows["seed"] = [self._sources.view_seed(image, view) for image, view in places]
        rows["pixels_crc32"] = checksums
        if self._header.top_k:
            rows["classes"], rows["probabilities"] = answers.classes, answers.probabilities
        for index, (tap, values) in enumerate(zip(self._header.taps, answers.taps, strict=True)):
            with np.errstate(over="ignore"):
                rows[f"tap{index}"] = values
            if not np.isfinite(rows[f"tap{index}"]).all():
                raise InputError(
                    f"{self._sources.name(int(rows['image'][0]))}: the teacher's stage {tap.name} answers values up to "
                    f"{np.abs(values).max():g}, which float16 cannot hold; use another teacher or other strides"
                )
        self._parts.append(rows)

    def full(self) -> bool:
        return sum(map(len, self._parts)) == len(self._header.shard_range(self.shard))

    def take(self) -> NDArray[np.void]:
        rows = np.concatenate(self._parts)
        self._parts.clear()
        return rows


__all__ = ["Recording", "RecordingOptions", "record"]
