"""The result of a segmentation test: metrics, counts, and why a metric is NaN."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SegmentationReport:
    """Pixel metrics of a test set. A metric is NaN when there is no anomalous, or no normal, pixel; `reason` says so.

    aupro, auspro: one value for each limit on the false positive rate; auspro is empty without channels (LOCO).
    f1_max_threshold: the lowest score that reaches f1_max, chosen with the labels in hand: not a threshold to deploy.
    bounds: what each metric lies between for certain, when a page budget coarsened the counters; keys are like
    "aupro@0.3" and "pixel_auroc". None: every value is exact.
    by_defect: the anomalous pixels of one kind of defect against the normal pixels of all images.
    """

    aupro: dict[float, float]
    pixel_auroc: float
    average_precision: float
    f1_max: float
    f1_max_threshold: float
    images: int
    regions: int
    normal_pixels: int
    anomalous_pixels: int
    auspro: dict[float, float] = field(default_factory=dict)
    reason: str | None = None
    bounds: dict[str, tuple[float, float]] | None = None
    by_defect: dict[str, SegmentationReport] = field(default_factory=dict)

    def values(self) -> dict[str, float]:
        """The metrics by flat names: "aupro@0.3", "auspro@0.05", "pixel_auroc", "average_precision", "f1_max"."""
        return {
            **{f"aupro@{limit}": value for limit, value in self.aupro.items()},
            **{f"auspro@{limit}": value for limit, value in self.auspro.items()},
            "pixel_auroc": self.pixel_auroc,
            "average_precision": self.average_precision,
            "f1_max": self.f1_max,
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON takes it: limits are strings, NaN is None, an infinite threshold is "inf" or "-inf"."""
        plain: dict[str, Any] = {
            "aupro": {f"{limit}": _plain(value) for limit, value in self.aupro.items()},
            "auspro": {f"{limit}": _plain(value) for limit, value in self.auspro.items()},
            "by_defect": {name: report.to_dict() for name, report in self.by_defect.items()},
            "bounds": None if self.bounds is None else {name: list(pair) for name, pair in self.bounds.items()},
            "reason": self.reason,
        }
        for name in ("pixel_auroc", "average_precision", "f1_max", "f1_max_threshold"):
            plain[name] = _plain(getattr(self, name))
        for name in ("images", "regions", "normal_pixels", "anomalous_pixels"):
            plain[name] = getattr(self, name)
        return plain


def report_of(result: dict[str, Any], limits: tuple[float, ...], images: int) -> SegmentationReport:
    """What `_core.SegmentationState.compute(limits)` answered, by names. images: how many it is about."""
    normal, anomalous = int(result["normal_pixels"]), int(result["anomalous_pixels"])
    lacking = "anomalous" if anomalous == 0 else "normal" if normal == 0 else None
    lower, upper = result["lower"], result["upper"]
    bounds = None
    if lower is not None and upper is not None and lacking is None:
        low, high = (_flat(result | ends, limits) for ends in (lower, upper))
        bounds = {name: (low[name], high[name]) for name in low}
    return SegmentationReport(
        aupro=dict(zip(limits, result["aupro"], strict=True)),
        auspro=dict(zip(limits, result["auspro"], strict=True)) if result["channels"] else {},
        pixel_auroc=float(result["pixel_auroc"]),
        average_precision=float(result["average_precision"]),
        f1_max=float(result["f1_max"]),
        f1_max_threshold=float(result["f1_max_threshold"]),
        images=images,
        regions=int(result["regions"]),
        normal_pixels=normal,
        anomalous_pixels=anomalous,
        reason=None if lacking is None else f"no {lacking} pixel in the test set: its metrics are NaN",
        bounds=bounds,
    )


def _flat(result: dict[str, Any], limits: tuple[float, ...]) -> dict[str, float]:
    flat = {f"aupro@{limit}": float(value) for limit, value in zip(limits, result["aupro"], strict=True)}
    if result["channels"]:
        flat |= {f"auspro@{limit}": float(value) for limit, value in zip(limits, result["auspro"], strict=True)}
    return flat | {name: float(result[name]) for name in ("pixel_auroc", "average_precision", "f1_max")}


def _plain(value: float) -> float | str | None:
    return None if math.isnan(value) else str(value) if math.isinf(value) else value
