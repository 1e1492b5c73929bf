"""Image and pixel metrics, exact: AUROC, AUPRO (per-region overlap), sPRO, average precision, largest F1.

    metrics.aupro(maps, masks)                         # one number of a whole test set
    m = metrics.SegmentationMetrics((0.3, 0.05))       # or image by image, in any order, on any number of workers:
    m.update(anomaly_map, mask); m.merge(other); m.compute().aupro[0.3]

Every distinct score is a threshold and a pixel is positive when its score ≥ threshold. AUPRO is that of Bergmann et
al., "The MVTec Anomaly Detection Dataset", IJCV 2021: regions are 8-connected, the false positive rate counts the
normal pixels of all images, the area is interpolated at the limit and divided by it, so that 1 is perfect. sPRO is that
of Bergmann et al., "Beyond Dents and Scratches", IJCV 2022. Maps are never resized and never normalized.

All of it needs only two ranks of each anomalous score among the normal ones: a = share of normal scores above it and
b = share at or above it. So the normal scores are counted once (csrc/metrics), and nothing else has to be sorted.
"""

from __future__ import annotations

from onceover.metrics.bootstrap import Interval
from onceover.metrics.curve import OperatingPoint, SegmentationCurve
from onceover.metrics.image_curve import ImageCurve, ImagePoint, image_curve, image_intervals
from onceover.metrics.images import average_precision, f1_max, image_auroc
from onceover.metrics.one_call import aupro, pixel_auroc, saturation_area, segmentation_metrics
from onceover.metrics.regions import Components, RegionOverlap, connected_components, region_overlap
from onceover.metrics.report import SegmentationReport
from onceover.metrics.segmentation import SegmentationMetrics

__all__ = [
    "Components",
    "ImageCurve",
    "ImagePoint",
    "Interval",
    "OperatingPoint",
    "RegionOverlap",
    "SegmentationCurve",
    "SegmentationMetrics",
    "SegmentationReport",
    "aupro",
    "average_precision",
    "connected_components",
    "f1_max",
    "image_auroc",
    "image_curve",
    "image_intervals",
    "pixel_auroc",
    "region_overlap",
    "saturation_area",
    "segmentation_metrics",
]
