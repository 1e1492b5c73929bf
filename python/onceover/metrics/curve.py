"""PRO, ROC and precision-recall curve of a test set, by their vertices: nothing is sampled, nothing is lost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onceover.arrays import real_number
from onceover.errors import UsageError


@dataclass(frozen=True)
class OperatingPoint:
    """What the prediction `score >= threshold` does: shares of normal pixels, of each region, of anomalous pixels.

    spro is 0 without channels. precision is 1 where nothing is predicted.
    """

    threshold: float
    fpr: float
    pro: float
    spro: float
    tpr: float
    precision: float


@dataclass(frozen=True, eq=False)
class SegmentationCurve:
    """Vertices by descending threshold, (V,) each: thresholds float32 from +inf, the rest float64, fpr from 0 to 1.

    Every distinct anomalous score is a vertex. Where normal scores lie between two anomalous ones, the point just above
    the lower one is a vertex too; between vertices every curve over fpr is a straight line.
    """

    thresholds: NDArray[np.float32]
    fpr: NDArray[np.float64]
    pro: NDArray[np.float64]
    spro: NDArray[np.float64]
    tpr: NDArray[np.float64]
    precision: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.thresholds)

    def at(self, threshold: float) -> OperatingPoint:
        """The point of `score >= threshold`.

        Exact at every anomalous score, at any threshold passed to SegmentationMetrics.curve, and wherever no normal
        score lies between the neighboring vertices. Elsewhere only pro, spro and tpr are known: UsageError.
        """
        threshold = real_number(threshold, "threshold")
        if np.isnan(threshold):
            raise UsageError("threshold is NaN; nothing is at or above it")
        lowest = float32_at_or_above(threshold)  # what a float32 score must reach
        index = int(np.searchsorted(-self.thresholds, -lowest, side="right")) - 1  # the last vertex at or above it
        is_vertex = index > 0 and self.thresholds[index] == lowest  # the first, (0, 0), is above +inf
        if not is_vertex and index + 1 < len(self) and self.fpr[index + 1] != self.fpr[index]:
            raise UsageError(
                f"threshold {threshold} lies between the vertices {self.thresholds[index]} and "
                f"{self.thresholds[index + 1]} with normal scores between them; ask for curve(thresholds=[{threshold}])"
            )
        return self._point(index, float(threshold))

    def threshold_at_fpr(self, limit: float) -> float:
        """The lowest threshold of the curve whose false positive rate is at most `limit`; +inf if no finite one is.

        A still lower one, before the next vertex, could only predict more normal pixels. Raises UsageError for a limit
        outside [0, 1], and when not even +inf keeps it, because so many normal scores are +inf.
        """
        if not 0 <= real_number(limit, "fpr_limit") <= 1:
            raise UsageError(f"fpr_limit is {limit}; it must lie in [0, 1]")
        index = int(np.searchsorted(self.fpr, limit, side="right")) - 1
        if index == 0 and np.isposinf(self.thresholds[1]):  # the first vertex, (0, 0), is above +inf
            raise UsageError(f"no threshold keeps a false positive rate of {limit}: too many normal scores are +inf")
        return float(self.thresholds[index])

    def _point(self, index: int, threshold: float) -> OperatingPoint:
        arrays = (self.fpr, self.pro, self.spro, self.tpr, self.precision)
        fpr, pro, spro, tpr, precision = (float(array[index]) for array in arrays)
        return OperatingPoint(threshold, fpr, pro, spro, tpr, precision)


def float32_at_or_above(threshold: float) -> np.float32:
    """The lowest float32 that is not below a float64: the same prediction for float32 scores."""
    with np.errstate(over="ignore"):
        nearest: np.float32 = np.float32(threshold)
    if float(nearest) < threshold:
        nearest = np.float32(np.nextafter(nearest, np.float32(np.inf)))
    return nearest


def with_points(
    curve: SegmentationCurve, thresholds: NDArray[np.float32], fpr: NDArray[np.float64], normal: int, anomalous: int
) -> SegmentationCurve:
    """The curve with further vertices at `thresholds`, of which the false positive rates are known."""
    order = np.argsort(-thresholds, kind="stable")
    thresholds, fpr = thresholds[order], fpr[order]
    at = np.searchsorted(-curve.thresholds, -thresholds, side="right")
    pro, spro, tpr = (array[at - 1] for array in (curve.pro, curve.spro, curve.tpr))
    found, false = np.rint(tpr * anomalous), np.rint(fpr * normal)  # whole numbers of pixels below 2^52
    precision = np.where(found + false > 0, found / np.maximum(found + false, 1), 1.0)
    return SegmentationCurve(
        thresholds=np.insert(curve.thresholds, at, thresholds),
        fpr=np.insert(curve.fpr, at, fpr),
        pro=np.insert(curve.pro, at, pro),
        spro=np.insert(curve.spro, at, spro),
        tpr=np.insert(curve.tpr, at, tpr),
        precision=np.insert(curve.precision, at, precision),
    )
