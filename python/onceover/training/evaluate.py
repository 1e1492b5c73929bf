"""Package and labelled data set → one report: detection, localization, errors at the threshold, latency."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceover import metrics
from onceover.detectors.detector import Progress, no_progress
from onceover.errors import InputError, UsageError
from onceover.images import MIN_SIDE, read_image
from onceover.runtime.inspector import Inspector
from onceover.training.dataset import Dataset, Sample, read_dataset
from onceover.training.ground_truth import read_ground_truth, resize_mask
from onceover.training.layouts.mvtec import LOCO_KINDS
from onceover.types import Image, Verdict

STAGES = ("prepare_ms", "engine_ms", "score_ms", "map_ms", "total_ms")
MAX_RESOLUTION = 8192  # pixels; every map is kept until the end, 268 MB each at this size
# Called with every image as it is inspected: sample, image, ground-truth mask (None: unknown), verdict.
Observer = Callable[[Sample, Image, "NDArray[np.bool_] | None", Verdict], None]


@dataclass(frozen=True)
class DefectRow:
    """One kind of defect: how many, how many found, and how well it separates from the good images."""

    defect: str
    images: int
    detected: int | None  # None when the package is uncalibrated
    image_auroc: float


@dataclass(frozen=True)
class EvaluationReport:
    """Every rate is a share of images; NaN where a class is missing.

    aupro is integrated to FPR 0.3 and divided by it. resolution: "mask" (maps drawn at each mask's size) or pixels.
    unlabeled: images whose label nobody told; they have a score, and count in nothing else. mean_image_auroc: MVTec
    LOCO's figure, the mean of the AUROC of logical and that of structural anomalies; None for other layouts.
    """

    name: str
    package_id: str
    layout: str
    images: int
    good: int
    anomalous: int
    unlabeled: int
    image_auroc: float
    mean_image_auroc: float | None
    pixel_auroc: float
    aupro: float
    f1_max: float
    f1_max_threshold: float
    threshold: float | None
    target_false_alarm_rate: float | None
    false_alarm_rate: float | None
    miss_rate: float | None
    resolution: str | int
    defects: tuple[DefectRow, ...]
    latency_ms: dict[str, dict[str, float]]  # stage → p50, p99
    problems: tuple[str, ...]
    scores: dict[str, float] = field(repr=False)  # relative path → image score

    def to_dict(self) -> dict[str, Any]:
        """For JSON: NaN becomes null."""
        return {key: _without_nan(value) for key, value in asdict(self).items()}


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, (list, tuple)) else value


def evaluate(
    inspector: Inspector,
    data: str | os.PathLike[str] | Dataset,
    resolution: str | int = "mask",
    progress: Progress = no_progress,
    observe: Observer | None = None,
) -> EvaluationReport:
    """Inspect every test image of a data set and compare with its labels and masks.

    data: its folder (or table) in any layout that is found by itself, or what `read_dataset` returned. resolution:
    "mask" compares at each mask's own size; a number compares at that many pixels squared, with nearest-neighbor masks
    (as published reproductions do). Raises InputError, EngineError.
    """
    if resolution != "mask" and not (isinstance(resolution, int) and MIN_SIDE <= resolution <= MAX_RESOLUTION):
        raise UsageError(f"resolution must be 'mask' or {MIN_SIDE} to {MAX_RESOLUTION} pixels, got {resolution!r}")
    dataset = data if isinstance(data, Dataset) else read_dataset(data)
    samples = dataset.test
    if not samples:
        raise InputError(f"{dataset.name}: no test images (layout {dataset.layout}); expected some, such as test/good")
    collected = _Collected()
    odd: list[str] = []
    for i, sample in enumerate(samples):
        progress("inspecting", i, len(samples))
        image = read_image(sample.path)
        size = image.shape[:2] if resolution == "mask" else (int(resolution), int(resolution))
        verdict = inspector.inspect(image, map_size=size)
        mask = read_ground_truth(sample, image.shape[:2])
        problem = "" if sample.label == 0 or mask is None else _lost(mask, size)
        if problem:  # its defect pixels would count as normal
            odd.append(f"{sample.relative}: anomalous, but {problem}; left out of the pixel metrics")
            mask = None
        collected.add(sample, verdict, mask, size)
        if observe is not None:
            observe(sample, image, mask, verdict)
    progress("inspecting", len(samples), len(samples))
    with warnings.catch_warnings(record=True) as caught:  # what is undefined, and why, belongs into the report
        warnings.simplefilter("always")
        report = collected.report(inspector, resolution, dataset.layout)
    if report.unlabeled:
        odd.append(f"{report.unlabeled} of {report.images} images have no known label: scores, but no metric for them")
    problems = dict.fromkeys([*dataset.problems, *odd, *(str(warning.message) for warning in caught)])
    return replace(report, problems=tuple(problems))


def _lost(mask: NDArray[np.bool_], size: tuple[int, int]) -> str:
    """Why the mask of an anomalous image says nothing at this size; empty when it does."""
    if not mask.any():
        return "its mask is empty"
    return "" if resize_mask(mask, size).any() else f"nothing of its mask is left at {size[0]} × {size[1]} pixels"


def _mean_of_kinds(defects: tuple[DefectRow, ...]) -> float:
    """Logical and structural anomalies weigh the same, however many images each has; NaN when one is missing."""
    values = [row.image_auroc for row in defects if row.defect in LOCO_KINDS]
    return float(np.mean(values)) if len(values) == len(LOCO_KINDS) else np.nan


class _Collected:
    """What evaluation keeps of each image."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.verdicts: list[Verdict] = []  # without their maps
        self.maps: list[NDArray[np.float32]] = []
        self.masks: list[NDArray[np.bool_]] = []

    def add(self, sample: Sample, verdict: Verdict, mask: NDArray[np.bool_] | None, size: tuple[int, int]) -> None:
        self.samples.append(sample)
        if mask is not None:
            self.maps.append(verdict.anomaly_map)
            self.masks.append(resize_mask(mask, size))
        self.verdicts.append(replace(verdict, anomaly_map=np.zeros((0, 0), np.float32)))

    def report(self, inspector: Inspector, resolution: str | int, layout: str) -> EvaluationReport:
        labels = np.array([sample.label for sample in self.samples])
        scores = np.array([verdict.score for verdict in self.verdicts], np.float32)
        pixel_auroc, aupro = self._pixel_metrics()
        known = labels >= 0
        image_auroc, (f1, f1_threshold) = np.nan, (np.nan, np.nan)
        if known.any():
            image_auroc = metrics.image_auroc(scores[known], labels[known])
            f1, f1_threshold = metrics.f1_max(scores[known], labels[known])
        calibration = inspector.calibration
        flagged = scores > (np.inf if calibration.threshold is None else calibration.threshold)
        good, bad = labels == 0, labels == 1
        defects = self._defects(scores, flagged, calibration.calibrated)
        return EvaluationReport(
            name=str(inspector.manifest.get("name", "")),
            package_id=inspector.package.id,
            layout=layout,
            images=len(labels),
            good=int(good.sum()),
            anomalous=int(bad.sum()),
            unlabeled=int((~known).sum()),
            image_auroc=image_auroc,
            mean_image_auroc=_mean_of_kinds(defects) if layout == "mvtec_loco" else None,
            pixel_auroc=pixel_auroc,
            aupro=aupro,
            f1_max=f1,
            f1_max_threshold=f1_threshold,
            threshold=calibration.threshold,
            target_false_alarm_rate=calibration.false_alarm_rate if calibration.calibrated else None,
            false_alarm_rate=float(flagged[good].mean()) if calibration.calibrated and good.any() else None,
            miss_rate=float(1 - flagged[bad].mean()) if calibration.calibrated and bad.any() else None,
            resolution=resolution,
            defects=defects,
            latency_ms=self._latency(),
            problems=(),
            scores={sample.relative: float(score) for sample, score in zip(self.samples, scores, strict=True)},
        )

    def _pixel_metrics(self) -> tuple[float, float]:
        """Pixel AUROC and AUPRO(0.3); NaN when no image has a ground truth of its pixels."""
        if not self.maps:
            return np.nan, np.nan
        report = metrics.segmentation_metrics(self.maps, self.masks, fpr_limits=(0.3,))
        return report.pixel_auroc, report.aupro[0.3]

    def _defects(
        self, scores: NDArray[np.float32], flagged: NDArray[np.bool_], calibrated: bool
    ) -> tuple[DefectRow, ...]:
        kinds = np.array([sample.defect for sample in self.samples])
        labels = np.array([sample.label for sample in self.samples])
        rows = []
        for kind in sorted({sample.defect for sample in self.samples if sample.label == 1}):
            chosen = (kinds == kind) & (labels == 1)
            against_good = chosen | (labels == 0)
            auroc = metrics.image_auroc(scores[against_good], labels[against_good]) if (labels == 0).any() else np.nan
            detected = int(flagged[chosen].sum()) if calibrated else None
            rows.append(DefectRow(kind, int(chosen.sum()), detected, auroc))
        return tuple(rows)

    def _latency(self) -> dict[str, dict[str, float]]:
        stages = {}
        for stage in STAGES:
            values = np.array([getattr(verdict.timing, stage) for verdict in self.verdicts])
            p50, p99 = np.percentile(values, [50, 99])
            stages[stage] = {"p50": round(float(p50), 4), "p99": round(float(p99), 4)}
        return stages
