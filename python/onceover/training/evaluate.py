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
from onceover.training.calibrate import exceedance_p_value, threshold_rank
from onceover.training.dataset import Dataset, Sample, read_dataset
from onceover.training.ground_truth import read_ground_truth, resize_mask
from onceover.training.layouts.mvtec import LOCO_KINDS
from onceover.training.pixel_results import PixelCollector, PixelResults
from onceover.types import Calibration, Image, Verdict

STAGES = ("prepare_ms", "engine_ms", "score_ms", "map_ms", "total_ms")
MAX_RESOLUTION = 8192  # pixels; a map of this size takes 268 MB
INTERVAL_LEVEL, INTERVAL_SEED = 0.95, 0
UNLIKELY = 0.001  # so many false alarms, if the good test parts were like the calibration parts
# Called with every image as it is inspected: sample, image, ground-truth mask (None: unknown), verdict.
Observer = Callable[[Sample, Image, "NDArray[np.bool_] | None", Verdict], None]


@dataclass(frozen=True)
class DefectRow:
    """One kind of defect: how many, how many found, and how well it separates.

    image_auroc: against the good images. pixel_auroc, aupro: its anomalous pixels against the normal pixels of all
    images; NaN when none of them has a mask.
    """

    defect: str
    images: int
    detected: int | None  # None when the package is uncalibrated
    image_auroc: float
    pixel_auroc: float = np.nan
    aupro: float = np.nan


@dataclass(frozen=True)
class EvaluationReport:
    """Every rate is a share of images; NaN where a class is missing.

    aupro is integrated to FPR 0.3 and divided by it, aupro_05 to 0.05. pixel_f1_max and its threshold are chosen with
    the masks in hand, f1_max with the labels: figures for comparison. auspro: MVTec LOCO's, by FPR limit, else empty.
    intervals: metric → 95 % bootstrap interval over images, (lower, upper). resolution: "mask" (maps drawn at each
    mask's size) or pixels. unlabeled: images whose label nobody told; they have a score, and count in nothing else.
    mean_image_auroc: LOCO's figure, the mean of the AUROC of logical and that of structural anomalies, else None.
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
    aupro_05: float
    average_precision: float
    pixel_f1_max: float
    pixel_f1_max_threshold: float
    auspro: dict[str, float]
    intervals: dict[str, tuple[float, float]]
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
    # Of all images with masks, for their curves and for other limits; None when no image has any.
    pixel_metrics: metrics.SegmentationMetrics | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: NaN and infinities become null; without pixel_metrics."""
        plain = asdict(replace(self, pixel_metrics=None))
        return {key: _without_nan(value) for key, value in plain.items() if key != "pixel_metrics"}


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
    collected = _Collected(by_kind=dataset.layout == "mvtec_loco")
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
        collected.add(sample, verdict, mask, image.shape[:2])
        if observe is not None:
            observe(sample, image, mask, verdict)
    progress("inspecting", len(samples), len(samples))
    with warnings.catch_warnings(record=True) as caught:  # what is undefined, and why, belongs into the report
        warnings.simplefilter("always")
        report = collected.report(inspector, resolution, dataset.layout)
    if report.unlabeled:
        odd.append(f"{report.unlabeled} of {report.images} images have no known label: scores, but no metric for them")
    odd += _unlike_calibration(inspector.calibration, report)
    problems = dict.fromkeys([*dataset.problems, *odd, *(str(warning.message) for warning in caught)])
    return replace(report, problems=tuple(problems))


def _unlike_calibration(calibration: Calibration, report: EvaluationReport) -> list[str]:
    """A sentence when the good test images raise more false alarms than the calibration can explain, by exact count.

    Images of the same part count as parts of their own here, so a few of them that alarm together weigh too much.
    """
    if report.false_alarm_rate is None:
        return []
    n, rate = calibration.n, calibration.false_alarm_rate
    alarms = round(report.false_alarm_rate * report.good)
    exceeding = n + 1 - threshold_rank(n, rate, calibration.confidence)
    if exceedance_p_value(alarms, report.good, n, exceeding) >= UNLIKELY:
        return []
    return [
        f"{alarms} of {report.good} good images are false alarms, where {100 * rate:g} % were calibrated on {n} parts "
        "(p < 0.001): the good test parts do not look like the calibration parts; run `onceover calibrate` with parts "
        "of this lot, camera and light"
    ]


def _lost(mask: NDArray[np.bool_], size: tuple[int, int]) -> str:
    """Why the mask of an anomalous image says nothing at this size; empty when it does."""
    if not mask.any():
        return "its mask is empty"
    return "" if resize_mask(mask, size).any() else f"nothing of its mask is left at {size[0]} × {size[1]} pixels"


def _mean_of_kinds(defects: tuple[DefectRow, ...]) -> float:
    """Logical and structural anomalies weigh the same, however many images each has; NaN when one is missing."""
    values = [row.image_auroc for row in defects if row.defect in LOCO_KINDS]
    return float(np.mean(values)) if len(values) == len(LOCO_KINDS) else np.nan


def _intervals(
    scores: NDArray[np.float32], labels: NDArray[np.int_], found: PixelResults
) -> dict[str, tuple[float, float]]:
    """Of image_auroc, pixel_auroc, aupro: those that are defined."""
    named: dict[str, metrics.Interval] = {}
    if 0 < int((labels == 1).sum()) < len(labels):
        named["image_auroc"] = metrics.image_intervals(scores, labels, INTERVAL_LEVEL, seed=INTERVAL_SEED)[
            "image_auroc"
        ]
    for name, key in (("pixel_auroc", "pixel_auroc"), ("aupro", "aupro@0.3")):
        if key in found.intervals:
            named[name] = found.intervals[key]
    return {name: (each.lower, each.upper) for name, each in named.items() if each.lower == each.lower}


class _Collected:
    """What evaluation keeps of each image."""

    def __init__(self, by_kind: bool) -> None:
        self.samples: list[Sample] = []
        self.verdicts: list[Verdict] = []  # without their maps
        self.pixels = PixelCollector(by_kind)

    def add(self, sample: Sample, verdict: Verdict, mask: NDArray[np.bool_] | None, shape: tuple[int, int]) -> None:
        self.samples.append(sample)
        anomaly_map = verdict.anomaly_map
        if mask is not None:
            self.pixels.add(sample, anomaly_map, mask, shape, (anomaly_map.shape[0], anomaly_map.shape[1]))
        self.verdicts.append(replace(verdict, anomaly_map=np.zeros((0, 0), np.float32)))

    def report(self, inspector: Inspector, resolution: str | int, layout: str) -> EvaluationReport:
        labels = np.array([sample.label for sample in self.samples])
        scores = np.array([verdict.score for verdict in self.verdicts], np.float32)
        found = self.pixels.results(INTERVAL_LEVEL, INTERVAL_SEED)
        pixels = found.pixels
        known = labels >= 0
        image_auroc, (f1, f1_threshold) = np.nan, (np.nan, np.nan)
        if known.any():
            image_auroc = metrics.image_auroc(scores[known], labels[known])
            f1, f1_threshold = metrics.f1_max(scores[known], labels[known])
        calibration = inspector.calibration
        flagged = scores > (np.inf if calibration.threshold is None else calibration.threshold)
        good, bad = labels == 0, labels == 1
        defects = self._defects(scores, flagged, calibration.calibrated, found)
        return EvaluationReport(
            name=str(inspector.product_manifest.get("name", "")),
            package_id=inspector.package.id,
            layout=layout,
            images=len(labels),
            good=int(good.sum()),
            anomalous=int(bad.sum()),
            unlabeled=int((~known).sum()),
            image_auroc=image_auroc,
            mean_image_auroc=_mean_of_kinds(defects) if layout == "mvtec_loco" else None,
            pixel_auroc=np.nan if pixels is None else pixels.pixel_auroc,
            aupro=np.nan if pixels is None else pixels.aupro[0.3],
            aupro_05=np.nan if pixels is None else pixels.aupro[0.05],
            average_precision=np.nan if pixels is None else pixels.average_precision,
            pixel_f1_max=np.nan if pixels is None else pixels.f1_max,
            pixel_f1_max_threshold=np.nan if pixels is None else pixels.f1_max_threshold,
            auspro={str(limit): value for limit, value in found.auspro.items()},
            intervals=_intervals(scores[known], labels[known], found),
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
            pixel_metrics=found.metrics,
        )

    def _defects(
        self, scores: NDArray[np.float32], flagged: NDArray[np.bool_], calibrated: bool, found: PixelResults
    ) -> tuple[DefectRow, ...]:
        kinds = np.array([sample.defect for sample in self.samples])
        labels = np.array([sample.label for sample in self.samples])
        rows = []
        for kind in sorted({sample.defect for sample in self.samples if sample.label == 1}):
            chosen = (kinds == kind) & (labels == 1)
            against_good = chosen | (labels == 0)
            auroc = metrics.image_auroc(scores[against_good], labels[against_good]) if (labels == 0).any() else np.nan
            detected = int(flagged[chosen].sum()) if calibrated else None
            row = DefectRow(kind, int(chosen.sum()), detected, auroc)
            pixels = found.pixels.by_defect.get(kind) if found.pixels is not None else None
            if pixels is not None:
                row = replace(row, pixel_auroc=pixels.pixel_auroc, aupro=pixels.aupro[0.3])
            rows.append(row)
        return tuple(rows)

    def _latency(self) -> dict[str, dict[str, float]]:
        stages = {}
        for stage in STAGES:
            values = np.array([getattr(verdict.timing, stage) for verdict in self.verdicts])
            p50, p99 = np.percentile(values, [50, 99])
            stages[stage] = {"p50": round(float(p50), 4), "p99": round(float(p99), 4)}
        return stages
