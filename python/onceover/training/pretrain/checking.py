"""Prove that records come out again: the same images, the same pixels from the seeds, the same answers of the teacher.

Training makes the views anew and trusts the stored answers to be those of these very pixels; this is the proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onceover.errors import VerificationError
from onceover.training.pretrain.loading import ViewBatch, view_batches
from onceover.training.pretrain.records import RecordHeader
from onceover.training.pretrain.shards import Records
from onceover.training.pretrain.sources import Progress, Sources
from onceover.training.pretrain.teacher import Answers, choose_device, reload_teacher

BATCH = 8
# Of max(|value|, standard deviation of the tap). Rounding to float16 takes 2^-11 = 4.9e-4 of it; the rest is for other
# kernels, batch sizes and devices in float32.
FEATURE_TOLERANCE = 2e-3
# Absolute. Float16 rounds a probability by 2.4e-4 at most; the rest as above, through the softmax.
PROBABILITY_TOLERANCE = 2e-3


@dataclass(frozen=True)
class CheckReport:
    """What was compared, and the largest differences; a feature's is relative to its tolerance's scale."""

    records: int
    compared: int
    images: int
    feature_difference: float
    probability_difference: float
    changed_classes: float  # share of the stored classes that are not among those of today


def check(
    folder: Path, images: Path | None, weights: Path | None, samples: int, seed: int, device: str, progress: Progress
) -> CheckReport:
    """Compare `samples` random records with what images and teacher give today, and the hashes of all images.

    InputError for a changed or missing image, teacher or shard; VerificationError when pixels or answers differ.
    """
    records = Records(folder, progress)
    header, sources = records.header, records.header.sources(images)
    for done in range(len(header.images)):
        sources.verify(done)
        progress("checking images", done + 1, len(header.images))
    teacher = reload_teacher(header, weights, choose_device(device))
    generator = np.random.Generator(np.random.PCG64(seed))
    chosen = np.sort(generator.permutation(len(records))[: max(1, samples)]).tolist()
    batches = [chosen[start : start + BATCH] for start in range(0, len(chosen), BATCH)]
    worst = _Differences(records, sources)
    for done, views in enumerate(view_batches(header, sources, batches, workers=0)):
        worst.add(views, teacher(views.pixels))
        progress("comparing", done + 1, len(batches))
    return CheckReport(len(records), len(chosen), len(sources), worst.feature, worst.probability, worst.changed_share())


class _Differences:
    """The largest differences so far; raises at the first that is too large."""

    def __init__(self, records: Records, sources: Sources) -> None:
        self._records, self._sources = records, sources
        self._header: RecordHeader = records.header
        self._scales = [float(np.sqrt((std**2).mean())) for _, std in records.statistics()]
        self.feature = self.probability = 0.0
        self._changed = self._classes = 0

    def add(self, views: ViewBatch, answers: Answers) -> None:
        for place, record in enumerate(views.records):
            row = self._records.row(record)
            self._compare_pixels(record, row, views.checksums[place])
            for index in range(len(self._header.taps)):
                self._compare_tap(record, index, row[f"tap{index}"].astype(np.float32), answers.taps[index][place])
            if self._header.top_k:
                self._compare_classes(record, row, answers.classes[place], answers.probabilities[place])

    def changed_share(self) -> float:
        return self._changed / max(1, self._classes)

    def _where(self, record: int) -> str:
        image, view = self._header.place(record)
        return f"{self._sources.name(image)}, view {view} (record {record})"

    def _compare_pixels(self, record: int, row: np.void, checksum: int) -> None:
        image, view = self._header.place(record)
        if int(row["image"]) != image or int(row["seed"]) != self._sources.view_seed(image, view):
            raise VerificationError(f"{self._where(record)}: the record is of another view; record again")
        if int(row["pixels_crc32"]) != checksum:
            raise VerificationError(
                f"{self._where(record)}: its seed gives other pixels here than when it was recorded; the augmentation "
                "has changed (onceover, numpy, OpenCV): use those versions, or record again"
            )

    def _compare_tap(self, record: int, index: int, stored: NDArray[np.float32], now: NDArray[np.float32]) -> None:
        scale = np.maximum(np.abs(now), self._scales[index])
        difference = float((np.abs(stored - now) / scale).max())
        self.feature = max(self.feature, difference)
        if not difference <= FEATURE_TOLERANCE:
            raise VerificationError(
                f"{self._where(record)}: stage {self._header.taps[index].name} differs by {difference:.2g} of its "
                f"scale, at most {FEATURE_TOLERANCE:g} is rounding; the teacher computes otherwise here: record again"
            )

    def _compare_classes(
        self, record: int, row: np.void, classes: NDArray[np.int64], probabilities: NDArray[np.float32]
    ) -> None:
        # By rank, not by class: near ties may swap, and then their probabilities are still alike.
        difference = float(np.abs(row["probabilities"].astype(np.float32) - probabilities).max())
        self.probability = max(self.probability, difference)
        self._changed += len(set(row["classes"].tolist()) - set(classes.tolist()))
        self._classes += len(classes)
        if not difference <= PROBABILITY_TOLERANCE:
            raise VerificationError(
                f"{self._where(record)}: a probability differs by {difference:.2g}, at most "
                f"{PROBABILITY_TOLERANCE:g} is rounding; the teacher computes otherwise here: record again"
            )


__all__ = ["FEATURE_TOLERANCE", "PROBABILITY_TOLERANCE", "CheckReport", "check"]
