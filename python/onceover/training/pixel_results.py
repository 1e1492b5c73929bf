"""Pixel metrics of an evaluation, gathered image by image: no map is kept. MVTec LOCO's saturated PRO with them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onceover.metrics import Interval, SegmentationMetrics, SegmentationReport
from onceover.training.dataset import Sample
from onceover.training.ground_truth import Size, read_channels, resize_mask
from onceover.training.layouts.mvtec import LOCO_KINDS

FPR_LIMITS = (0.3, 0.05)  # of AUPRO: MVTec AD's, and MVTec AD 2's
LOCO_LIMITS = (0.01, 0.05, 0.1, 0.3, 1.0)  # of sPRO
GOOD = ""  # the part of images without a defect


@dataclass(frozen=True)
class PixelResults:
    """pixels: of all images. auspro: by limit, the mean over LOCO's two protocols; empty for other data sets.

    metrics: what `pixels` was computed from; it knows the curves, which may have a million vertices.
    """

    pixels: SegmentationReport | None = None  # None: no image has a ground truth of its pixels
    metrics: SegmentationMetrics | None = None
    auspro: dict[float, float] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)


class PixelCollector:
    """by_kind: keep the kinds of defects apart, because LOCO judges each with the good images, on its own FPR axis."""

    def __init__(self, by_kind: bool) -> None:
        self._by_kind = by_kind
        self._parts: dict[str, SegmentationMetrics] = {}

    def add(
        self, sample: Sample, anomaly_map: NDArray[np.float32], mask: NDArray[np.bool_], shape: Size, size: Size
    ) -> None:
        """mask: (H, W) at `shape`, that of the image; anomaly_map at `size`."""
        part = self._part(sample.defect if self._by_kind and sample.label == 1 else GOOD)
        if sample.label == 1 and sample.channels and sample.saturations:
            channels, areas = read_channels(sample, shape, size)
            part.update_channels(anomaly_map, channels, areas, defect=sample.defect)
        else:
            part.update(anomaly_map, resize_mask(mask, size), defect=sample.defect if sample.label == 1 else None)

    def results(self, level: float, seed: int) -> PixelResults:
        """Warns where a class is missing. level: of the intervals."""
        if not self._parts:
            return PixelResults()
        whole = SegmentationMetrics(FPR_LIMITS, bootstrap=True)
        for part in self._parts.values():
            whole.merge(part)
        return PixelResults(whole.compute(), whole, self._auspro(), whole.intervals(level, seed=seed))

    def _part(self, kind: str) -> SegmentationMetrics:
        return self._parts.setdefault(kind, SegmentationMetrics(FPR_LIMITS, bootstrap=True))

    def _auspro(self) -> dict[float, float]:
        """MVTec LOCO's protocol: {good + one kind} for each of both kinds, averaged; empty when one has no channels."""
        values = []
        for kind in LOCO_KINDS if self._by_kind else ():
            judged = SegmentationMetrics(LOCO_LIMITS, bootstrap=True)
            for part in {GOOD, kind} & self._parts.keys():
                judged.merge(self._parts[part])
            found = judged.compute().auspro if kind in self._parts else {}
            if not found:
                return {}
            values.append(found)
        return {limit: float(np.mean([value[limit] for value in values])) for limit in LOCO_LIMITS} if values else {}
