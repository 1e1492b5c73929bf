"""A whole test set in one call: SegmentationMetrics for those who have all maps and masks, or can generate them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from onceover.arrays import real_number, whole_number
from onceover.errors import InputError, UsageError
from onceover.metrics.report import SegmentationReport
from onceover.metrics.segmentation import SegmentationMetrics

_MISSING: Any = object()


def segmentation_metrics(
    maps: Iterable[Any], masks: Iterable[Any], fpr_limits: Sequence[float] = (0.3,)
) -> SegmentationReport:
    """All pixel metrics in one pass.

    maps: float32, float16, uint8 or uint16 (H, W), sizes may differ, ±inf are ordinary scores. masks: bool or unsigned
    (H, W), non-zero is anomalous; None for a good image. Both may be generators. Raises InputError for no images, NaN,
    float64 maps, soft masks, and shapes or counts that differ; UsageError for a limit outside (0, 1].
    """
    return _collect(maps, masks, fpr_limits)._compute(tuple(map(float, fpr_limits)), stacklevel=3)


def aupro(maps: Iterable[Any], masks: Iterable[Any], fpr_limit: float = 0.3) -> float:
    """Area under the per-region overlap curve up to `fpr_limit`, divided by it. Input as for segmentation_metrics."""
    report = _collect(maps, masks, (fpr_limit,))._compute((float(fpr_limit),), stacklevel=3)
    return report.aupro[float(fpr_limit)]


def pixel_auroc(maps: Iterable[Any], masks: Iterable[Any]) -> float:
    """Area under the ROC curve of all pixels pooled. Input as for segmentation_metrics."""
    return _collect(maps, masks, ())._compute((), stacklevel=3).pixel_auroc


def saturation_area(area: int, threshold: float, relative: bool) -> int:
    """Pixels from which a defect of `area` pixels counts as found: MVTec LOCO AD's rule, but never below 1.

    relative: threshold · area, truncated; LOCO's own code truncates small defects to 0 and then divides by it.
    Otherwise: threshold pixels, at most the area. Raises UsageError for an area below 1, and for a negative or infinite
    threshold.
    """
    area, threshold = whole_number(area, "area"), real_number(threshold, "threshold")
    if area < 1 or not 0 <= threshold < math.inf:
        raise UsageError(f"area is {area} and threshold {threshold}; expected at least 1 pixel and at least 0")
    return max(1, int(threshold * area) if relative else min(int(threshold), area))


def _collect(maps: Iterable[Any], masks: Iterable[Any], fpr_limits: Sequence[float]) -> SegmentationMetrics:
    collected = SegmentationMetrics(fpr_limits)
    pairs = itertools.zip_longest(_series(maps, "maps"), _series(masks, "masks"), fillvalue=_MISSING)
    for index, (anomaly_map, mask) in enumerate(pairs):
        if anomaly_map is _MISSING or mask is _MISSING:
            fewer = "maps" if anomaly_map is _MISSING else "masks"
            raise InputError(f"there are only {index} {fewer}; give one map and one mask (or None) for each image")
        collected.update(anomaly_map, mask)
    return collected


def _series(values: Iterable[Any], what: str) -> Iterator[Any]:
    try:
        return iter(values)
    except TypeError as error:
        raise InputError(f"{what} is {type(values).__name__}, expected one array (H, W) for each image") from error
