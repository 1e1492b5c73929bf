"""Image and pixel metrics, exact: AUROC, AUPRO (per-region overlap), average precision, largest F1.

Every distinct score is a threshold and a pixel is positive when its score ≥ threshold. AUPRO is that of Bergmann et
al., "The MVTec Anomaly Detection Dataset", IJCV 2021: regions are 8-connected, the false positive rate counts the
normal pixels of all images, the area is interpolated at the limit and divided by it, so that 1 is perfect.

All of it needs only two ranks of each anomalous score among the normal ones: a = share of normal scores above it and
b = share at or above it. So the normal scores are sorted once, and nothing else has to be.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from onceover.errors import InputError, UsageError

_MISSING: Any = object()


@dataclass(frozen=True)
class SegmentationReport:
    """Pixel metrics of a test set. A metric is NaN when there is no anomalous, or no normal, pixel.

    aupro: one value for each limit on the false positive rate. f1_max_threshold: the lowest score that reaches f1_max.
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


def segmentation_metrics(
    maps: Iterable[NDArray[np.float32]],
    masks: Iterable[NDArray[Any] | None],
    fpr_limits: Sequence[float] = (0.3,),
) -> SegmentationReport:
    """All pixel metrics in one pass and one sort.

    maps: float32 (H, W), sizes may differ, ±inf are ordinary scores. masks: bool or unsigned (H, W), non-zero is
    anomalous; None for a good image. Both may be generators. Raises InputError for no images, NaN, float64 maps, soft
    masks, and shapes or counts that differ; UsageError for a limit outside (0, 1].
    """
    for limit in fpr_limits:
        if not 0 < limit <= 1:
            raise UsageError(f"fpr_limit is {limit}; it must lie in (0, 1], usually 0.3 or 0.05")
    pixels = _PixelScores()
    for index, (anomaly_map, mask) in enumerate(itertools.zip_longest(maps, masks, fillvalue=_MISSING)):
        if anomaly_map is _MISSING or mask is _MISSING:
            fewer = "maps" if anomaly_map is _MISSING else "masks"
            raise InputError(f"there are only {index} {fewer}; give one map and one mask (or None) for each image")
        pixels.add(index, anomaly_map, mask)
    if pixels.images == 0:
        raise InputError("no images: the metrics of an empty test set are undefined; give at least one")
    ranks, areas = pixels.rank()
    if not ranks.defined:
        _warn_undefined("pixel", ranks)
    threshold_f1, best_f1 = ranks.f1_max()
    return SegmentationReport(
        aupro={float(limit): ranks.weighted_area(areas, limit) for limit in fpr_limits},
        pixel_auroc=ranks.auroc(),
        average_precision=ranks.average_precision(),
        f1_max=best_f1,
        f1_max_threshold=threshold_f1,
        images=pixels.images,
        regions=pixels.regions,
        normal_pixels=ranks.normal,
        anomalous_pixels=ranks.anomalous,
    )


def aupro(maps: Iterable[NDArray[np.float32]], masks: Iterable[NDArray[Any] | None], fpr_limit: float = 0.3) -> float:
    """Area under the per-region overlap curve up to `fpr_limit`, divided by it. Input as for segmentation_metrics."""
    return segmentation_metrics(maps, masks, (fpr_limit,)).aupro[float(fpr_limit)]


def pixel_auroc(maps: Iterable[NDArray[np.float32]], masks: Iterable[NDArray[Any] | None]) -> float:
    """Area under the ROC curve of all pixels pooled. Input as for segmentation_metrics."""
    return segmentation_metrics(maps, masks, ()).pixel_auroc


def image_auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Probability that an anomalous image scores above a normal one, ties count half; (n,) scores, (n,) labels 0/1."""
    return _rank_images(scores, labels).auroc()


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Σ (increase of recall) · precision over the distinct scores, a step sum; (n,) scores, (n,) labels 0/1."""
    return _rank_images(scores, labels).average_precision()


def f1_max(scores: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """Largest F1 over all thresholds, and the lowest threshold that reaches it; (n,) scores, (n,) labels 0/1.

    Chosen with the labels of the test set in hand: a figure for comparison, not a threshold to deploy.
    """
    threshold, value = _rank_images(scores, labels).f1_max()
    return value, threshold


@dataclass
class _PixelScores:
    """Collects pixels image by image: 4 bytes per normal pixel, 8 per anomalous one."""

    images: int = 0
    regions: int = 0
    normal: list[NDArray[np.float32]] = field(default_factory=list)
    anomalous: list[NDArray[np.float32]] = field(default_factory=list)
    areas: list[NDArray[np.int32]] = field(default_factory=list)  # of the region of each anomalous pixel

    def add(self, index: int, anomaly_map: NDArray[np.float32], mask: NDArray[Any] | None) -> None:
        _check_map(index, anomaly_map)
        self.images += 1
        defective = None if mask is None else _binary_mask(index, mask, anomaly_map.shape)
        if defective is None or not defective.any():
            self.normal.append(anomaly_map.ravel().copy())  # a copy: a generator may reuse its buffer
            return
        # 32-bit labels: with 16 bits OpenCV overflows above 65535 regions.
        count, labels, stats, _ = cv2.connectedComponentsWithStats(
            defective.view(np.uint8), connectivity=8, ltype=cv2.CV_32S
        )
        self.regions += count - 1
        self.normal.append(anomaly_map[~defective])
        self.anomalous.append(anomaly_map[defective])
        self.areas.append(stats[:, cv2.CC_STAT_AREA][labels[defective]].astype(np.int32))

    def rank(self) -> tuple[_Ranks, NDArray[np.float64]]:
        """Ranks of the pooled pixels, and per distinct score its share of the regions. Empties `self`."""
        normal = _join(self.normal)
        anomalous, areas = _join(self.anomalous), _join(self.areas)
        order = np.argsort(anomalous, kind="stable")
        anomalous, areas = anomalous[order], areas[order]
        ranks = _Ranks.of_sorted(anomalous, normal)
        if ranks.anomalous == 0:
            return ranks, np.zeros(0)
        return ranks, np.add.reduceat(1.0 / areas, ranks.first) / self.regions


@dataclass(frozen=True)
class _Ranks:
    """The distinct anomalous scores, ascending, and how many normal scores lie above them.

    first: index of each in the sorted anomalous scores; count: how often it occurs. above, at_or_above: int64 counts
    of normal scores > and ≥ it. All sums below run over at most 2^63 pixels in int64, areas in float64.
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

    def weighted_area(self, weights: NDArray[np.float64], limit: float) -> float:
        """Area under Σ (weight of anomalous scores ≥ t) against FPR(t), up to `limit`, divided by it.

        Each score adds its weight times the part of [0, limit] behind its own step: full height beyond b, and a ramp
        between a and b where it ties with normal scores.
        """
        if not self.defined:
            return math.nan
        a, b = self.above / self.normal, self.at_or_above / self.normal
        on_ramp = (a < limit) & (limit < b)
        run = np.where(on_ramp, b - a, 1.0)  # 1 only keeps the division defined where it is not used
        part = np.where(b <= limit, limit - (a + b) / 2, np.where(on_ramp, (limit - a) ** 2 / (2 * run), 0.0))
        return float(np.sum(weights * part) / limit)

    def auroc(self) -> float:
        return self.weighted_area(self.count / max(self.anomalous, 1), 1.0)

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


def _rank_images(scores: ArrayLike, labels: ArrayLike) -> _Ranks:
    values, truth = np.asarray(scores), np.asarray(labels)
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
    anomalous = truth.astype(bool)
    ranks = _Ranks.of_sorted(np.sort(values[anomalous]), values[~anomalous])
    if not ranks.defined:
        _warn_undefined("image", ranks)
    return ranks


def _warn_undefined(what: str, ranks: _Ranks) -> None:
    lacking = "anomalous" if ranks.anomalous == 0 else "normal"
    warnings.warn(f"no {lacking} {what} in the test set: its metrics are NaN", RuntimeWarning, stacklevel=4)


def _check_map(index: int, anomaly_map: NDArray[np.float32]) -> None:
    if not isinstance(anomaly_map, np.ndarray) or anomaly_map.ndim != 2:
        shape = getattr(anomaly_map, "shape", type(anomaly_map).__name__)
        raise InputError(f"anomaly map {index} is {shape}, expected an array (H, W)")
    if anomaly_map.dtype != np.float32:
        raise InputError(
            f"anomaly map {index} is {anomaly_map.dtype}, expected float32; cast it with .astype(np.float32), "
            "knowing that rounding can make different scores equal"
        )
    bad = int(np.isnan(anomaly_map).sum())
    if bad:
        raise InputError(f"anomaly map {index} holds {bad} NaN of {anomaly_map.size} pixels; a NaN has no rank")


def _binary_mask(index: int, mask: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    values = np.asarray(mask)
    if values.shape != shape:
        raise InputError(f"mask {index} has shape {values.shape}, its anomaly map {shape}; neither is resized here")
    if values.dtype.kind not in "buif":
        raise InputError(f"mask {index} is {values.dtype}, expected bool or uint8")
    if values.dtype.kind == "f" and not np.isin(values, (0, 1, 255)).all():
        raise InputError(f"mask {index} is soft ({values.dtype} between 0 and 1); threshold it first, e.g. mask >= 0.5")
    if values.dtype.kind == "i" and (values < 0).any():
        raise InputError(f"mask {index} holds negative values; decide which pixels are anomalous first")
    return np.ascontiguousarray(values != 0)


def _join(parts: list[Any]) -> NDArray[Any]:
    """One array from many, freeing each part as soon as it is copied."""
    if not parts:
        return np.zeros(0, np.float32)
    joined = np.empty(sum(map(len, parts)), parts[0].dtype)
    end = len(joined)
    while parts:
        part = parts.pop()
        joined[end - len(part) : end] = part
        end -= len(part)
    return joined
