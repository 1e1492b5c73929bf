"""Small synthetic test sets for the segmentation metrics, and the comparison of a report with the slow reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from numpy.typing import NDArray
from tolerances import EXACT_METRIC

from onceover import metrics

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden" / "pro"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the golden set {GOLDEN} is not here")

Image = tuple[NDArray[Any], NDArray[np.uint8] | None, str | None]  # map, mask, kind of defect
KINDS = ("hole", "scratch", None)
DTYPES = (np.float32, np.float16, np.uint8, np.uint16)


@dataclass(frozen=True)
class Channels:
    """An image of the LOCO protocol."""

    anomaly_map: NDArray[np.float32]
    masks: list[NDArray[np.uint8]]
    saturation_areas: list[int]


def images(seed: int, count: int = 6, dtype: type | None = np.float32, side: int = 24) -> list[Image]:
    """Coarse scores with ties, blobs that score higher, every third image good, all of other sizes.

    dtype: None takes another one for each image; all hold the same whole numbers exactly.
    """
    rng = np.random.default_rng(seed)
    made: list[Image] = []
    for i in range(count):
        height, width = (int(side + n) for n in rng.integers(0, 8, 2))
        mask = np.zeros((height, width), np.uint8)
        for _ in range(0 if i % 3 == 2 else int(rng.integers(1, 4))):
            y, x = rng.integers(0, side - 6, 2)
            mask[y : y + rng.integers(1, 7), x : x + rng.integers(1, 7)] = rng.integers(1, 256)
        scores = rng.normal(60, 20, mask.shape) + 30 * (mask > 0)
        whole = np.clip(np.rint(scores), 0, 255).astype(DTYPES[i % 4] if dtype is None else dtype)
        made.append((whole, None if i % 6 == 2 else mask, KINDS[i % 3]))
    return made


def loco_images(seed: int, count: int = 4) -> list[Channels]:
    """Overlapping channels, some in two pieces, with relative and absolute saturation; the last image is good."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        anomaly_map = np.rint(rng.normal(60, 20, (18, 21))).astype(np.float32)
        masks, areas = [], []
        for channel in range(0 if i == count - 1 else 1 + i % 3):
            mask = np.zeros(anomaly_map.shape, np.uint8)
            mask[2 : 7 + channel, 3:9] = 1
            mask[12:15, 10 : 14 + channel] = 255
            anomaly_map[mask > 0] += 9
            area = int((mask > 0).sum())
            masks.append(mask)
            areas.append(metrics.saturation_area(area, 0.4 if channel % 2 else 15, channel % 2 == 1))
        made.append(Channels(anomaly_map, masks, areas))
    return made


def collected(
    of: Sequence[Image], fpr_limits: Sequence[float] = (0.3, 0.05), **options: Any
) -> metrics.SegmentationMetrics:
    made = metrics.SegmentationMetrics(fpr_limits, **options)
    for anomaly_map, mask, defect in of:
        made.update(anomaly_map, mask, defect=defect)
    return made


def arrays(of: Sequence[Image]) -> tuple[list[NDArray[Any]], list[NDArray[np.uint8]]]:
    """Maps, and masks with zeros for None."""
    return [m for m, _, _ in of], [np.zeros(m.shape, np.uint8) if k is None else k for m, k, _ in of]


def assert_equals_reference(
    report: metrics.SegmentationReport,
    maps: Sequence[NDArray[Any]],
    masks: Sequence[NDArray[Any]],
    connectivity: int = 8,
) -> None:
    """Every pixel metric and count of the report against reference.py."""
    scores = np.concatenate([np.asarray(m, np.float64).ravel() for m in maps])
    labels = np.concatenate([(np.asarray(k) != 0).ravel() for k in masks])
    curve = reference.pro_curve(maps, masks, connectivity)
    for limit, value in report.aupro.items():
        assert value == pytest.approx(reference.area_up_to(*curve, limit), abs=EXACT_METRIC, rel=0)
    assert report.pixel_auroc == pytest.approx(reference.auroc(scores, labels), abs=EXACT_METRIC, rel=0)
    precision = reference.average_precision(scores, labels)
    assert report.average_precision == pytest.approx(precision, abs=EXACT_METRIC, rel=0)
    best, threshold = reference.f1_max(scores, labels)
    assert report.f1_max == pytest.approx(best, abs=EXACT_METRIC, rel=0)
    assert report.f1_max_threshold == threshold
    assert report.anomalous_pixels == int(labels.sum())
    assert report.normal_pixels == int((~labels).sum())
    assert report.regions == sum(len(reference.regions(mask, connectivity)) for mask in masks)
