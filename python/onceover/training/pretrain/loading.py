"""From disk to batches: views by their seeds, records, and an order of training that is a function of the step.

Nothing random happens in a loader worker, so their number changes nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from onceover.errors import InputError, OnceoverError
from onceover.training.pretrain.augmentation import Pixels, draw_view
from onceover.training.pretrain.records import RecordHeader
from onceover.training.pretrain.shards import Records
from onceover.training.pretrain.sources import Sources


def view_of(header: RecordHeader, sources: Sources, record: int) -> tuple[Pixels, int]:
    """The pixels of a record, (size, size, 3), and their CRC-32."""
    image, view = header.place(record)
    pixels = draw_view(sources.read(image), sources.view_seed(image, view), header.view_size)
    return pixels, zlib.crc32(pixels.data)


@dataclass(frozen=True)
class ViewBatch:
    """Views before the teacher saw them; pixels (B, 3, H, W) uint8."""

    records: list[int]
    pixels: Tensor
    checksums: list[int]


Item = TypeVar("Item")
Batch = TypeVar("Batch")


class _Guarded(Dataset[Any], Generic[Item]):
    """Answers an error of ours as if it were an item: torch would bury its message in a worker's traceback."""

    def __init__(self, load: Callable[[int], Item]) -> None:
        self.load = load

    def __getitem__(self, record: int) -> Item | OnceoverError:
        try:
            return self.load(record)
        except OnceoverError as error:
            return error


class _Collate(Generic[Item, Batch]):
    def __init__(self, join: Callable[[list[Item]], Batch]) -> None:
        self.join = join

    def __call__(self, items: list[Item | OnceoverError]) -> Batch | OnceoverError:
        good = []
        for item in items:
            if isinstance(item, OnceoverError):
                return item
            good.append(item)
        return self.join(good)


def _load(
    load: Callable[[int], Item], join: Callable[[list[Item]], Batch], batches: Sequence[list[int]], workers: int
) -> Iterator[Batch]:
    """The batches in their order; raises the error of ours that a worker met."""
    loader = DataLoader(
        _Guarded(load),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_Collate(join),
        worker_init_fn=_calm,
    )
    for batch in loader:
        if isinstance(batch, OnceoverError):
            raise batch
        yield batch


def _calm(worker: int) -> None:
    """OpenCV's threads of every worker would fight for the cores."""
    cv2.setNumThreads(0)


class _Views:
    def __init__(self, header: RecordHeader, sources: Sources) -> None:
        self.header, self.sources = header, sources

    def __call__(self, record: int) -> tuple[int, Pixels, int]:
        return record, *view_of(self.header, self.sources, record)


def view_batches(
    header: RecordHeader, sources: Sources, batches: Sequence[list[int]], workers: int
) -> Iterator[ViewBatch]:
    """Views in the order and the groups of `batches`."""
    return _load(_Views(header, sources), _join_views, batches, workers)


def _join_views(items: list[tuple[int, Pixels, int]]) -> ViewBatch:
    records, pixels, checksums = zip(*items, strict=True)
    return ViewBatch(list(records), _channels_first(np.stack(pixels)), list(checksums))


def _channels_first(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)  # (B, H, W, 3) → (B, 3, H, W)


@dataclass(frozen=True)
class TrainingBatch:
    """Views and what the teacher said of them. Taps (B, C, h, w) float16; classes, probabilities (B, K), K may be 0."""

    pixels: Tensor
    taps: list[Tensor]
    classes: Tensor
    probabilities: Tensor


class RecordedViews:
    """A view, made anew from its seed, and its record."""

    def __init__(self, records: Records, sources: Sources, check_pixels: bool) -> None:
        self.records, self.sources, self.check_pixels = records, sources, check_pixels

    def __call__(self, record: int) -> tuple[Pixels, np.void]:
        row = self.records.row(record)
        image = int(row["image"])
        pixels = draw_view(self.sources.read(image), int(row["seed"]), self.records.header.view_size)
        if self.check_pixels and zlib.crc32(pixels.data) != int(row["pixels_crc32"]):
            raise InputError(
                f"{self.sources.name(image)}: record {record} was made of other pixels than its seed gives here; "
                "run `onceover pretrain check`, or record again"
            )
        return pixels, row


def training_batches(views: RecordedViews, batches: Sequence[list[int]], workers: int) -> Iterator[TrainingBatch]:
    """Views and records in the order and the groups of `batches`."""
    header = views.records.header
    return _load(views, _JoinRecords(len(header.taps), header.top_k), batches, workers)


class _JoinRecords:
    def __init__(self, taps: int, top_k: int) -> None:
        self.taps, self.top_k = taps, top_k

    def __call__(self, items: list[tuple[Pixels, np.void]]) -> TrainingBatch:
        pixels, rows = zip(*items, strict=True)
        taps = [torch.from_numpy(np.stack([row[f"tap{index}"] for row in rows])) for index in range(self.taps)]
        classes = np.zeros((len(rows), 0), np.int64)
        probabilities = np.zeros((len(rows), 0), np.float32)
        if self.top_k:
            classes = np.stack([row["classes"] for row in rows]).astype(np.int64)
            probabilities = np.stack([row["probabilities"] for row in rows]).astype(np.float32)
        images = _channels_first(np.stack(pixels))
        return TrainingBatch(images, taps, torch.from_numpy(classes), torch.from_numpy(probabilities))


class BatchOrder(Sequence[list[int]]):
    """Which records each of `steps` sees: all of them once per epoch, each epoch in an order of its own.

    Epochs follow each other without a gap, so a batch may reach from one into the next. With several processes, each
    takes every `processes`-th record of the batch, which is the same batch for any number of them.
    """

    def __init__(self, steps: range, records: int, batch: int, seed: int, process: int = 0, processes: int = 1) -> None:
        self.steps, self.records, self.batch, self.seed = steps, records, batch, seed
        self.process, self.processes = process, processes
        self._epochs: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, place: Any) -> Any:
        steps = self.steps[place]
        return [self._at(step) for step in steps] if isinstance(steps, range) else self._at(steps)

    def _at(self, step: int) -> list[int]:
        places = range(step * self.batch + self.process, (step + 1) * self.batch, self.processes)
        return [self._epoch(place // self.records)[place % self.records] for place in places]

    def _epoch(self, epoch: int) -> list[int]:
        if epoch not in self._epochs:
            self._epochs.clear()  # one batch may need two of them, which are then made twice: rare, and cheap
            keys = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, epoch]))).random(self.records)
            self._epochs[epoch] = np.argsort(keys, kind="stable").tolist()
        return self._epochs[epoch]


__all__ = [
    "BatchOrder",
    "RecordedViews",
    "TrainingBatch",
    "ViewBatch",
    "training_batches",
    "view_batches",
    "view_of",
]
