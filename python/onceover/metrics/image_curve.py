"""ROC and precision-recall curve of images, thresholds at a rate, and how sure image metrics are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onceover.arrays import real_number
from onceover.errors import InputError, UsageError
from onceover.metrics import bootstrap as bootstrapping
from onceover.metrics.bootstrap import Interval
from onceover.metrics.images import rank_images, scores_and_labels


@dataclass(frozen=True)
class ImagePoint:
    """What the prediction `score >= threshold` does. precision is 1 where nothing is predicted."""

    threshold: float
    fpr: float
    tpr: float
    precision: float


@dataclass(frozen=True, eq=False)
class ImageCurve:
    """Vertices by descending threshold, (V,) float64 each: (0, 0) above all scores, then every distinct score.

    Over fpr, tpr is a straight line between vertices, and precision a step.
    """

    thresholds: NDArray[np.float64]
    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]
    precision: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.thresholds)

    def at(self, threshold: float) -> ImagePoint:
        """The point of `score >= threshold`, exact for any threshold. Raises UsageError for a NaN."""
        threshold = real_number(threshold, "threshold")
        if np.isnan(threshold):
            raise UsageError("threshold is NaN; nothing is at or above it")
        index = int(np.searchsorted(-self.thresholds, -threshold, side="right")) - 1  # the last vertex at or above it
        return ImagePoint(threshold, *(float(array[index]) for array in (self.fpr, self.tpr, self.precision)))

    def threshold_at_fpr(self, limit: float) -> float:
        """The lowest score that is a threshold with a false positive rate of at most `limit`; +inf if none is.

        Found with the labels of these images in hand: what it does to other images, calibration tells. Raises
        UsageError for a limit outside [0, 1], and when so many normal scores are +inf that no threshold keeps it.
        """
        if not 0 <= real_number(limit, "fpr_limit") <= 1:
            raise UsageError(f"fpr_limit is {limit}; it must lie in [0, 1]")
        index = int(np.searchsorted(self.fpr, limit, side="right")) - 1
        if index == 0 and np.isposinf(self.thresholds[1]):
            raise UsageError(f"no threshold keeps a false positive rate of {limit}: too many normal scores are +inf")
        return float(self.thresholds[index])

    def threshold_at_tpr(self, rate: float) -> float:
        """The highest threshold that finds at least this share of the anomalous images, in (0, 1].

        `curve.at(curve.threshold_at_tpr(0.95)).fpr` is what is known as FPR95. Raises UsageError for another rate.
        """
        if not 0 < real_number(rate, "rate") <= 1:
            raise UsageError(f"rate is {rate}; it must lie in (0, 1]")
        return float(self.thresholds[np.searchsorted(self.tpr, rate, side="left")])


def image_curve(scores: ArrayLike, labels: ArrayLike) -> ImageCurve:
    """Every operating point of image scores; input and errors as for image_auroc, and InputError for a single class."""
    values, truth = scores_and_labels(scores, labels)
    normal, anomalous = int((~truth).sum()), int(truth.sum())
    if normal == 0 or anomalous == 0:
        lacking = "anomalous" if anomalous == 0 else "normal"
        raise InputError(f"there is no curve: no {lacking} image in the test set")
    order = np.argsort(values, kind="stable")[::-1]
    values, truth = values[order], truth[order]
    last = np.append(values[1:] != values[:-1], True)  # of each distinct score, by value: −0 and 0 are one
    found, false = np.cumsum(truth)[last], np.cumsum(~truth)[last]
    return ImageCurve(
        thresholds=np.append(np.inf, values[last].astype(np.float64)),
        fpr=np.append(0.0, false / normal),
        tpr=np.append(0.0, found / anomalous),
        precision=np.append(1.0, found / (found + false)),
    )


def image_intervals(
    scores: ArrayLike, labels: ArrayLike, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Bootstrap confidence intervals of "image_auroc", "average_precision" and "f1_max", images drawn with replacement.

    Percentile intervals (Efron & Tibshirani 1993, ch. 13): how far a value would move with another draw of as many
    images. Draws of one class are left out and counted. The same images in any order, arguments and machine give the
    same numbers. Input, warning and InputError as for image_auroc; UsageError for level, resamples and seed.
    """
    level, resamples, seed = bootstrapping.checked(level, resamples, seed)
    ranks = rank_images(scores, labels)
    values, truth = scores_and_labels(scores, labels)
    order = np.lexsort((truth, values))[::-1]
    exact = {
        "image_auroc": ranks.auroc(),
        "average_precision": ranks.average_precision(),
        "f1_max": ranks.f1_max()[1],
    }
    return bootstrapping.image_intervals(values[order], truth[order], exact, level, resamples, seed)
