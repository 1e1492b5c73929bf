"""Image-level metrics from one score and one label per image: AUROC, average precision, largest F1. Exact."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onceover.arrays import view_array
from onceover.errors import InputError


def image_auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Probability that an anomalous image scores above a normal one, ties count half.

    scores: (n,) numbers of any type, higher is more anomalous, ±inf are scores. labels: (n,) 0 or 1, or bool. NaN, with
    a RuntimeWarning, where all images are of one class. Raises InputError for no images, a NaN, other labels, other
    shapes, and what numpy cannot view.
    """
    return rank_images(scores, labels).auroc()


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Σ (increase of recall) · precision over the distinct scores, a step sum as in scikit-learn.

    Input, NaN and errors as for image_auroc.
    """
    return rank_images(scores, labels).average_precision()


def f1_max(scores: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """Largest F1 over all thresholds, and the lowest threshold that reaches it. Input and errors as for image_auroc.

    Chosen with the labels of the test set in hand: a figure for comparison, not a threshold to deploy.
    """
    threshold, value = rank_images(scores, labels).f1_max()
    return value, threshold


@dataclass(frozen=True)
class _Ranks:
    """The distinct anomalous scores, ascending, and how many normal scores lie above them.

    first: index of each in the sorted anomalous scores; count: how often it occurs. above, at_or_above: int64 counts
    of normal scores > and ≥ it. All sums below run over at most 2^63 pixels in int64, quotients in float64.
    """

    values: NDArray[Any]
    first: NDArray[np.int64]
    count: NDArray[np.int64]
    above: NDArray[np.int64]
    at_or_above: NDArray[np.int64]
    normal: int
    anomalous: int

    @staticmethod
    def of_sorted(anomalous: NDArray[Any], normal: NDArray[Any]) -> _Ranks:
        """anomalous: ascending. normal: in any order, sorted in place."""
        normal.sort()
        is_first = np.ones(len(anomalous), bool)
        is_first[1:] = anomalous[1:] != anomalous[:-1]  # by value, so −0 and 0 are one score
        first = np.flatnonzero(is_first)
        values = anomalous[first]
        return _Ranks(
            values=values,
            first=first,
            count=np.diff(first, append=len(anomalous)),
            above=len(normal) - np.searchsorted(normal, values, side="right"),
            at_or_above=len(normal) - np.searchsorted(normal, values, side="left"),
            normal=len(normal),
            anomalous=len(anomalous),
        )

    @property
    def defined(self) -> bool:
        return self.normal > 0 and self.anomalous > 0

    def auroc(self) -> float:
        """Σ (share of the anomalous scores) · (share of normal scores below, those that tie counted half)."""
        if not self.defined:
            return math.nan
        behind = 1 - (self.above / self.normal + self.at_or_above / self.normal) / 2
        return float(np.sum(self.count / self.anomalous * behind))

    def average_precision(self) -> float:
        if not self.defined:
            return math.nan
        found = self._found()
        return float(np.sum(self.count / self.anomalous * (found / (found + self.at_or_above))))

    def f1_max(self) -> tuple[float, float]:
        """(lowest best threshold, F1). The best is always an anomalous score: a normal one only adds false alarms."""
        if not self.defined:
            return math.nan, math.nan
        found = self._found()
        f1 = 2 * found / (found + self.at_or_above + self.anomalous)  # equal ratios divide to equal doubles
        best = int(np.argmax(f1))
        return float(self.values[best]), float(f1[best])

    def _found(self) -> NDArray[np.int64]:
        return self.anomalous - self.first  # anomalous scores ≥ each distinct one


def scores_and_labels(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """(n,) scores without NaN, (n,) True where anomalous. Raises InputError."""
    values, truth = view_array(scores, "scores"), view_array(labels, "labels")
    if values.ndim != 1 or truth.shape != values.shape:
        raise InputError(f"scores have shape {values.shape} and labels {truth.shape}; expected one of each per image")
    if len(values) == 0:
        raise InputError("no images: the metrics of an empty test set are undefined; give at least one")
    if values.dtype.kind not in "fiu":
        raise InputError(f"scores are {values.dtype}, expected numbers")
    if values.dtype.kind == "f" and np.isnan(values).any():
        bad = np.flatnonzero(np.isnan(values))
        raise InputError(f"the score of image {bad[0]} is NaN ({len(bad)} of {len(values)} scores); find out why")
    if truth.dtype.kind not in "biuf" or not np.isin(truth, (0, 1)).all():
        raise InputError("labels must be 0 (normal) or 1 (anomalous)")
    return values, truth.astype(bool)


def rank_images(scores: ArrayLike, labels: ArrayLike) -> _Ranks:
    """Warns at the line that asked the caller."""
    values, anomalous = scores_and_labels(scores, labels)
    ranks = _Ranks.of_sorted(np.sort(values[anomalous]), values[~anomalous])
    if not ranks.defined:
        lacking = "anomalous" if ranks.anomalous == 0 else "normal"
        warnings.warn(f"no {lacking} image in the test set: its metrics are NaN", RuntimeWarning, stacklevel=3)
    return ranks
