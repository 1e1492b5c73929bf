"""Bootstrap over images: how far the metrics of a test set would move with another draw of as many images.

Percentile intervals, Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13. Resampling the pixels of
each image again and again would be exact and slow, so each image keeps a summary: its scores counted in up to 4096
intervals. What that costs is measured, see Interval.summary_error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceover.arrays import real_number, whole_number
from onceover.errors import UsageError
from onceover.metrics.summaries import ImageSummary

Array = NDArray[np.float64]
_CUTS = 768  # of each kind, see _common_cells
_BLOCK = 256  # images, or resamples, that are worked on at a time
_VALUES = 1 << 21  # of a block of resamples of single scores: 16 MiB an array


@dataclass(frozen=True)
class Interval:
    """lower and upper end of a confidence interval at `level`; NaN when no resample has pixels of both kinds.

    summary_error: |value from the summaries − exact value| of the whole set; the interval was moved by it, to lie
    around the exact value. left_out: resamples without an anomalous, or without a normal, pixel.
    """

    lower: float
    upper: float
    level: float
    summary_error: float
    left_out: int = 0


def checked(level: float, resamples: int, seed: int) -> tuple[float, int, int]:
    """The arguments of a bootstrap. Raises UsageError."""
    level, resamples = real_number(level, "level"), whole_number(resamples, "resamples")
    if not 0 < level < 1 or resamples < 1:
        raise UsageError(f"level is {level} and resamples {resamples}; expected between 0 and 1, and at least 1")
    seed = whole_number(seed, "seed")
    if seed < 0:
        raise UsageError(f"seed is {seed}, expected 0 or more")
    return level, resamples, seed


def intervals(
    summaries: Sequence[ImageSummary], exact: dict[str, float], level: float, resamples: int, seed: int
) -> dict[str, Interval]:
    """One interval for each metric of `exact`, whose names are those of SegmentationReport.values."""
    counts = np.vstack([np.ones(len(summaries)), _resampled_counts(len(summaries), resamples, seed)])
    pooled = _pool(summaries, counts)
    parts = [_metrics(pooled.rows(i, i + _BLOCK), list(exact)) for i in range(0, len(counts), _BLOCK)]
    found: dict[str, Interval] = {}
    for name, value in exact.items():
        whole, *resampled = np.concatenate([part[name] for part in parts]).tolist()
        found[name] = _interval(value, whole, resampled, level)
    return found


def image_intervals(
    values: NDArray[Any], anomalous: NDArray[np.bool_], exact: dict[str, float], level: float, resamples: int, seed: int
) -> dict[str, Interval]:
    """Of images by descending score, (n,) each: a cell is a distinct score, so that nothing is lost."""
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
    block = min(_BLOCK, max(1, _VALUES // len(values)))
    names = ["pixel_auroc" if name == "image_auroc" else name for name in exact]
    parts: list[dict[str, Array]] = []
    for drawn in _draws(len(values), resamples, seed, block):
        normal, found = (np.add.reduceat(drawn * kind, starts, axis=1) for kind in (~anomalous, anomalous))
        nothing = np.zeros((len(drawn), 1))
        parts.append(_metrics(_Pooled(normal, found, nothing, nothing, nothing, nothing), names))
    resampled = [np.concatenate([part[name] for part in parts]).tolist() for name in names]
    return {
        name: _interval(value, value, samples, level)
        for (name, value), samples in zip(exact.items(), resampled, strict=True)
    }


def _interval(value: float, whole: float, resampled: list[float], level: float) -> Interval:
    """whole: what the summaries make of the value; resampled: of each draw, NaN where a class is missing."""
    usable = [sample for sample in resampled if not math.isnan(sample)]
    lower, upper = np.quantile(usable, ((1 - level) / 2, (1 + level) / 2)) if usable else (math.nan, math.nan)
    shift = value - whole
    low, high = (float(np.clip(end + shift, 0, 1)) for end in (lower, upper))
    return Interval(low, high, level, abs(shift), len(resampled) - len(usable))


def _resampled_counts(images: int, resamples: int, seed: int) -> Array:
    """(resamples, images): how often each image is drawn."""
    return np.vstack(list(_draws(images, resamples, seed, _BLOCK)))


def _draws(images: int, resamples: int, seed: int, block: int) -> Iterator[Array]:
    """The same in blocks of rows. PCG64's raw stream is the same in every version of numpy."""
    stream = np.random.PCG64(seed)
    for first in range(0, resamples, block):
        counts = np.empty((min(block, resamples - first), images))
        for row in counts:
            drawn = (stream.random_raw(images) >> np.uint64(32)) * np.uint64(images) >> np.uint64(32)
            row[:] = np.bincount(drawn.astype(np.int64), minlength=images)
        yield counts


@dataclass(frozen=True)
class _Pooled:
    """S sets of images over G cells of scores, cells by descending score. Counts are whole and below 2^53."""

    normal: Array  # (S, G) pixels
    anomalous: Array  # (S, G) pixels
    region_weights: Array  # (S, G) sums of 1 / area of the region
    channel_weights: Array  # (S, G) sums of 1 / saturation area
    regions: Array  # (S, 1)
    channels: Array  # (S, 1)

    def rows(self, first: int, end: int) -> _Pooled:
        return _Pooled(**{field.name: getattr(self, field.name)[first:end] for field in fields(self)})


def _pool(summaries: Sequence[ImageSummary], counts: Array) -> _Pooled:
    cuts = _common_cells(summaries)
    cells, sets = len(cuts) + 1, len(counts)
    sums = np.zeros((4, sets, cells))
    for start in range(0, len(summaries), _BLOCK):
        block = summaries[start : start + _BLOCK]
        drawn = counts[:, start : start + _BLOCK]
        dense = np.zeros((4, len(block), cells))
        for row, summary in enumerate(block):
            # The number of cuts above a key is its cell, counted from the highest score.
            normal = cells - 1 - np.searchsorted(cuts, summary.normal_keys, side="right")
            anomalous = cells - 1 - np.searchsorted(cuts, summary.anomalous_keys, side="right")
            dense[0, row] = np.bincount(normal, summary.normal_counts, cells)
            dense[1, row] = np.bincount(anomalous, summary.anomalous_counts, cells)
            dense[2, row] = np.bincount(anomalous, summary.region_weights, cells)
            dense[3, row] = np.bincount(anomalous, summary.channel_weights, cells)
        sums += drawn @ dense  # (S, block) · (4, block, G)
    regions = counts @ np.array([float(summary.regions) for summary in summaries])
    channels = counts @ np.array([float(summary.channels) for summary in summaries])
    normal_pixels, anomalous_pixels, region_weights, channel_weights = sums
    return _Pooled(
        normal_pixels, anomalous_pixels, region_weights, channel_weights, regions[:, None], channels[:, None]
    )


def _common_cells(summaries: Sequence[ImageSummary]) -> NDArray[np.uint32]:
    """Ascending cut points among the keys of all images; a cell begins at each.

    Few distinct scores each get a cell of their own. Otherwise equal shares of the anomalous pixels, of the region
    weights, and of the normal pixels, the latter also in equal ratios of the false positive rate, where curves bend.
    """
    keys, counts, weights = (
        np.concatenate([getattr(summary, name) for summary in summaries])
        for name in ("anomalous_keys", "anomalous_counts", "region_weights")
    )
    normal_keys, normal_counts = (
        np.concatenate([getattr(summary, name) for summary in summaries]) for name in ("normal_keys", "normal_counts")
    )
    distinct = np.unique(np.concatenate([keys, normal_keys]))
    if len(distinct) <= 4 * _CUTS:
        return distinct
    even = np.arange(_CUTS) / _CUTS
    ratios = 1 - float(max(normal_counts.sum(), 1)) ** -even
    chosen = [_quantiles(keys, counts, even), _quantiles(keys, weights, even)]
    chosen += [_quantiles(normal_keys, normal_counts, even), _quantiles(normal_keys, normal_counts, ratios)]
    return np.unique(np.concatenate(chosen))


def _quantiles(keys: NDArray[np.uint32], weights: NDArray[Any], shares: Array) -> NDArray[np.uint32]:
    """The keys at which the sum of the sorted weights passes each of `shares`."""
    if len(keys) == 0:
        return keys
    order = np.argsort(keys, kind="stable")
    reached = np.cumsum(weights[order], dtype=np.float64)
    at = np.searchsorted(reached, shares * reached[-1], side="right")
    return np.asarray(keys[order][at.clip(max=len(keys) - 1)])


def _metrics(pooled: _Pooled, names: Sequence[str]) -> dict[str, Array]:
    """(S,) of each metric; NaN where a set lacks a class. Scores of one cell are taken as tied."""
    normal = pooled.normal.sum(axis=1, keepdims=True)
    anomalous = pooled.anomalous.sum(axis=1, keepdims=True)
    false, found = np.cumsum(pooled.normal, axis=1), np.cumsum(pooled.anomalous, axis=1)
    lacking = ((normal == 0) | (anomalous == 0))[:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        b = false / normal
        a = b - pooled.normal / normal
        values: dict[str, Array] = {}
        for name in names:
            kind, _, limit = name.partition("@")
            if kind == "aupro":
                values[name] = _area(pooled.region_weights, a, b, float(limit)) / pooled.regions[:, 0]
            elif kind == "auspro":
                values[name] = _area(pooled.channel_weights, a, b, float(limit)) / pooled.channels[:, 0]
            elif kind == "pixel_auroc":
                values[name] = _area(pooled.anomalous, a, b, 1.0) / anomalous[:, 0]
            elif kind == "average_precision":
                values[name] = np.nansum(pooled.anomalous * (found / (found + false)), axis=1) / anomalous[:, 0]
            else:
                values[name] = np.max(2 * found / (found + false + anomalous), axis=1)
    for value in values.values():
        value[lacking] = np.nan
    return values


def _area(weights: Array, a: Array, b: Array, limit: float) -> Array:
    """(S,): each cell's weight times the part of [0, limit] behind it, by `limit`; a and b as in csrc/metrics."""
    run = np.where(b > a, b - a, 1.0)
    ramp = np.maximum(limit - a, 0.0) ** 2 / (2 * run)
    return np.asarray((weights * np.where(b <= limit, limit - (a + b) / 2, ramp)).sum(axis=1) / limit)
