"""`onceover evaluate --report`: the report and its package as a page, and the file it is written to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onceover import _core
from onceover.cli.exporting import check_target
from onceover.cli.output import card_rows, percent
from onceover.errors import UsageError
from onceover.types import Tiling

if TYPE_CHECKING:
    from onceover.report.gallery import Gallery
    from onceover.report.html import EvaluationPage, PixelCurve
    from onceover.report.panels import HeatScale
    from onceover.runtime.inspector import Inspector
    from onceover.training.evaluate import EvaluationReport
    from onceover.types import Calibration


def check_report(path: Path) -> None:
    """Fail before minutes of work: UsageError for a file that is no .html, MissingExtraError for the extra."""
    from onceover.report.html import check_report_extra

    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report {path}: is an HTML page; give a name that ends in .html")
    check_target(path)
    check_report_extra()


def new_gallery(calibration: Calibration) -> Gallery:
    """For the images of one evaluation."""
    from onceover.report.gallery import Gallery

    return Gallery(_scale(calibration))


def write_report(path: Path, report: EvaluationReport, inspector: Inspector, dataset: Path, gallery: Gallery) -> None:
    """The page, put in place whole; raises OutputError."""
    from onceover.report.html import render_page

    today = f"{datetime.now(timezone.utc):%Y-%m-%d}"
    text = render_page(evaluation_page(report, inspector, str(dataset), today), gallery)
    _core.save_atomically(str(path), text.encode("utf-8", "replace"))


def evaluation_page(report: EvaluationReport, inspector: Inspector, dataset: str, date: str) -> EvaluationPage:
    """What the page says of a report; dataset and date are shown as they are."""
    from onceover.report.html import Defect, EvaluationPage, Metric, Rate
    from onceover.report.plots import Threshold
    from onceover.training.calibrate import observed_rate_interval, realised_rate_interval, threshold_interval
    from onceover.training.evaluate import INTERVAL_LEVEL

    calibration, level = inspector.calibration, INTERVAL_LEVEL

    def rate(share: float | None, n: int) -> Rate | None:
        if share is None:
            return None
        wrong = round(share * n)
        return Rate(wrong, n, observed_rate_interval(wrong, n, level))

    threshold = realised = None
    if calibration.threshold is not None:
        threshold = Threshold(calibration.threshold)
        if (
            _object(inspector.product_manifest.get("calibration")).get("method") == "split conformal"
        ):  # what the intervals assume
            interval = threshold_interval(calibration.scores, calibration.false_alarm_rate, level)
            threshold = Threshold(calibration.threshold, interval)
            realised = realised_rate_interval(
                calibration.n, calibration.false_alarm_rate, level, calibration.confidence
            )
    optimistic = "chosen with the labels in hand"
    needs_both = "" if report.good and report.anomalous else "needs good and anomalous images"
    needs_masks = "needs anomalous images with masks" if math.isnan(report.aupro) else ""
    metrics = [
        Metric("Image AUROC", report.image_auroc, report.intervals.get("image_auroc"), needs_both),
        Metric("AUPRO(0.3)", report.aupro, report.intervals.get("aupro"), needs_masks),
        *([] if report.mean_image_auroc is None else [Metric("Mean of kinds, image AUROC", report.mean_image_auroc)]),
        Metric("Pixel AUROC", report.pixel_auroc, report.intervals.get("pixel_auroc")),
        Metric("AUPRO(0.05)", report.aupro_05),
        *(Metric(f"AU-sPRO({limit})", value) for limit, value in report.auspro.items()),
        Metric("Average precision of pixels", report.average_precision),
        Metric("F1-max of images", report.f1_max, note=optimistic),
        Metric("F1-max of pixels", report.pixel_f1_max, note=optimistic),
    ]
    return EvaluationPage(
        title=report.name or inspector.package.path,
        images=report.images,
        good=report.good,
        anomalous=report.anomalous,
        unlabeled=report.unlabeled,
        false_alarms=rate(report.false_alarm_rate, report.good),
        target=report.target_false_alarm_rate,
        misses=rate(report.miss_rate, report.anomalous),
        metrics=metrics,
        defects=[
            Defect(row.defect, row.images, row.detected, row.image_auroc, row.pixel_auroc, row.aupro)
            for row in report.defects
        ],
        threshold=threshold,
        calibration=calibration.scores,
        curve=_curve(report, calibration),
        latency={stage.removesuffix("_ms"): times for stage, times in report.latency_ms.items()},
        facts=_facts(report, inspector, dataset, date),
        problems=report.problems,
        level=level,
        realised=realised,
    )


def _scale(calibration: Calibration) -> HeatScale | None:
    """Of a package without thresholds whose held-out parts are known: their highest map values say what is hot."""
    from onceover.report.panels import HeatScale

    if calibration.calibrated or not calibration.map_maxima.size:
        return None
    highest = float(calibration.map_maxima.max())
    return HeatScale(0.5 * highest, 1.5 * highest, None) if highest > 0 else None


def _curve(report: EvaluationReport, calibration: Calibration) -> PixelCurve | None:
    from onceover.report.html import PixelCurve

    if report.pixel_metrics is None or math.isnan(report.aupro):
        return None
    curve, at = report.pixel_metrics.curve(), None
    if calibration.map_threshold is not None:  # the last vertex at or above it
        at = max(0, int(np.searchsorted(-curve.thresholds, -calibration.map_threshold, side="right")) - 1)
    return PixelCurve(curve.fpr, curve.pro, curve.tpr, at)


def _facts(report: EvaluationReport, inspector: Inspector, dataset: str, date: str) -> list[tuple[str, str]]:
    manifest, calibration = inspector.product_manifest, inspector.calibration
    backbone, data, choice = (_object(manifest.get(key)) for key in ("backbone", "data", "calibration"))
    card, size = dict(card_rows(_object(backbone.get("weights")))), _object(backbone.get("preprocessing"))
    detector = _object(manifest.get("detector"))
    bank = data.get("bank_images")
    tiling = Tiling(*inspector.session.config.tiling)
    parts = f"{calibration.n} held-out parts, {calibration.image_count} images"
    surely = f", with {percent(calibration.confidence)} confidence" if calibration.confidence else ""
    facts = {
        "Package": inspector.package.path,
        "Package id": report.package_id,
        "Data set": f"{dataset} (layout {report.layout})",
        "Evaluated": f"{date}, onceover {_core.__version__}, {inspector.session.engine_version}",
        "Maps compared at": "the size of each mask" if report.resolution == "mask" else f"{report.resolution} pixels",
        "Backbone": str(backbone.get("name", "")),
        "Weights": str(card.get("source", "")),
        "License of weights": str(card.get("license", "")),
        "Network input": f"{size['height']} × {size['width']} pixels" if {"height", "width"} <= size.keys() else "",
        "Tiles": f"{tiling.rows} × {tiling.columns}, the network runs for each" if tiling.count > 1 else "",
        "Region of interest": _region(inspector),
        "Detector": str(detector.get("name", "")),
        "Learned from": f"{len(bank)} good images" if isinstance(bank, list) else "",
        "Calibration": f"{choice.get('method', '')}, {parts}{surely}",
        "Corrections": "" if inspector.applied is None else inspector.applied.describe(),
        "Threshold": "none" if calibration.threshold is None else f"{calibration.threshold:.6g}",
        "Map threshold": "none" if calibration.map_threshold is None else f"{calibration.map_threshold:.6g}",
    }
    return [(name, text) for name, text in facts.items() if text]


def _region(inspector: Inspector) -> str:
    """How much of an image is inspected, "" for all of it; what lies outside is never found."""
    inside = inspector.session.inside(*inspector.session.config.cells)
    return "" if inside is None else f"{percent(float(inside.mean()))} of the patch grid; nothing outside is found"


def _object(value: Any) -> Mapping[str, Any]:
    """The manifest is for people: what is no object there says nothing."""
    return value if isinstance(value, dict) else {}
