"""Slow, obvious float64 definitions of the numbers onceover publishes. Loops on purpose: compare with these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]


def regions(mask: Array, connectivity: int = 8) -> list[list[tuple[int, int]]]:
    """Connected components of mask != 0 as lists of (row, column), by flood fill, in order of their first pixel."""
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if connectivity == 8 or dy == 0 or dx == 0]
    pixels = [(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)]
    unseen = set(pixels)
    found: list[list[tuple[int, int]]] = []
    for first in pixels:
        if first not in unseen:
            continue
        unseen.remove(first)
        region = [first]
        for y, x in region:  # grows while it is read
            for neighbor in [(y + dy, x + dx) for dy, dx in steps]:
                if neighbor in unseen:
                    unseen.remove(neighbor)
                    region.append(neighbor)
        found.append(sorted(region))
    return found


def pro_curve(maps: Sequence[Array], masks: Sequence[Array], connectivity: int = 8) -> tuple[list[float], list[float]]:
    """(false positive rate, per-region overlap) at (0, 0) and at every distinct score, from the highest down."""
    masks = [np.asarray(mask) != 0 for mask in masks]
    of_regions = [
        np.array([anomaly_map[pixel] for pixel in region], np.float64)
        for anomaly_map, mask in zip(maps, masks, strict=True)
        for region in regions(mask, connectivity)
    ]
    return _overlap_curve(maps, masks, of_regions, [len(scores) for scores in of_regions])


def spro_curve(
    maps: Sequence[Array], channels: Sequence[Sequence[Array]], saturation_areas: Sequence[Sequence[int]]
) -> tuple[list[float], list[float]]:
    """(false positive rate, saturated per-region overlap): each channel counts min(found pixels / its area S, 1).

    Normal is what lies outside all channels of an image.
    """
    masks = [np.any([np.zeros(m.shape, bool), *of_image], axis=0) for m, of_image in zip(maps, channels, strict=True)]
    of_channels = [
        np.asarray(anomaly_map, np.float64)[np.asarray(channel) != 0]
        for anomaly_map, of_image in zip(maps, channels, strict=True)
        for channel in of_image
    ]
    return _overlap_curve(maps, masks, of_channels, [area for areas in saturation_areas for area in areas])


def _overlap_curve(
    maps: Sequence[Array], masks: Sequence[Array], defects: Sequence[Array], areas: Sequence[int]
) -> tuple[list[float], list[float]]:
    everything = np.concatenate([np.asarray(m, np.float64).ravel() for m in maps])
    normal = np.concatenate([np.asarray(m, np.float64)[~k] for m, k in zip(maps, masks, strict=True)])
    rates, overlaps = [0.0], [0.0]
    for threshold in sorted(set(everything.tolist()), reverse=True):
        rates.append(int((normal >= threshold).sum()) / len(normal))
        shares = [min(int((s >= threshold).sum()) / area, 1) for s, area in zip(defects, areas, strict=True)]
        overlaps.append(sum(shares) / len(defects))
    return rates, overlaps


def area_up_to(x: Sequence[float], y: Sequence[float], limit: float) -> float:
    """Trapezoids under a curve of ascending x, cut at `limit` by linear interpolation, divided by `limit`."""
    area = 0.0
    for x0, x1, y0, y1 in zip(x, x[1:], y, y[1:], strict=False):
        if x1 <= limit:
            area += (x1 - x0) * (y0 + y1) / 2
        elif x0 < limit:
            y_limit = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            area += (limit - x0) * (y0 + y_limit) / 2
    return area / limit


def aupro(maps: Sequence[Array], masks: Sequence[Array], fpr_limit: float, connectivity: int = 8) -> float:
    return area_up_to(*pro_curve(maps, masks, connectivity), fpr_limit)


def auspro(
    maps: Sequence[Array],
    channels: Sequence[Sequence[Array]],
    saturation_areas: Sequence[Sequence[int]],
    fpr_limit: float,
) -> float:
    return area_up_to(*spro_curve(maps, channels, saturation_areas), fpr_limit)


def of_one_defect(
    maps: Sequence[Array], masks: Sequence[Array], defects: Sequence[str | None], kind: str
) -> tuple[list[Array], list[Array]]:
    """The set by which a kind of defect is judged: its images whole, of the others only the normal pixels.

    As one-row images with the pixels of other defects left out; a region of `kind` keeps its shape.
    """
    kept_maps: list[Array] = []
    kept_masks: list[Array] = []
    for anomaly_map, mask, defect in zip(maps, masks, defects, strict=True):
        mask = np.asarray(mask) != 0
        if defect == kind:
            kept_maps.append(anomaly_map)
            kept_masks.append(mask)
        elif not mask.all():
            kept_maps.append(anomaly_map[~mask][None])
            kept_masks.append(np.zeros((1, int((~mask).sum())), bool))
    return kept_maps, kept_masks


def region_overlap(anomaly_map: Array, mask: Array, threshold: float, connectivity: int = 8) -> list[float]:
    """Of each region, the share of its pixels whose score ≥ threshold."""
    found = [[float(anomaly_map[pixel]) >= threshold for pixel in region] for region in regions(mask, connectivity)]
    return [sum(hits) / len(hits) for hits in found]


def operating_point(maps: Sequence[Array], masks: Sequence[Array], threshold: float) -> tuple[float, ...]:
    """(false positive rate, per-region overlap, recall, precision) of score >= threshold."""
    scores = np.concatenate([np.asarray(m, np.float64).ravel() for m in maps])
    truth = np.concatenate([(np.asarray(k) != 0).ravel() for k in masks])
    positive = scores >= threshold
    found, false = int((positive & truth).sum()), int((positive & ~truth).sum())
    overlaps = [share for m, k in zip(maps, masks, strict=True) for share in region_overlap(m, k, threshold)]
    precision = found / (found + false) if found + false else 1.0
    return false / int((~truth).sum()), sum(overlaps) / len(overlaps), found / int(truth.sum()), precision


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Share of (anomalous, normal) pairs in the right order; a tie is half a pair."""
    values, truth = np.asarray(scores, np.float64), np.asarray(labels).astype(bool)
    wins = 0.0
    for anomalous in values[truth]:
        wins += int((values[~truth] < anomalous).sum()) + int((values[~truth] == anomalous).sum()) / 2
    return wins / (int(truth.sum()) * int((~truth).sum()))


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Σ (recall gained) · precision, threshold by threshold from the highest score down."""
    values, truth = np.asarray(scores, np.float64), np.asarray(labels).astype(bool)
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(values.tolist()), reverse=True):
        positive = values >= threshold
        recall = int((positive & truth).sum()) / int(truth.sum())
        total += (recall - recall_before) * int((positive & truth).sum()) / int(positive.sum())
        recall_before = recall
    return total


def f1_max(scores: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """(largest F1, lowest threshold that reaches it)."""
    values, truth = np.asarray(scores, np.float64), np.asarray(labels).astype(bool)
    best = (-1.0, 0.0)
    for threshold in sorted(set(values.tolist())):
        positive = values >= threshold
        f1 = 2 * int((positive & truth).sum()) / (int(positive.sum()) + int(truth.sum()))
        if f1 > best[0]:
            best = (f1, threshold)
    return best


def conformal_threshold(scores: ArrayLike, alpha_numerator: int, alpha_denominator: int) -> float:
    """The ⌈(n+1)(1−α)⌉-th smallest score, α as a ratio of whole numbers so that nothing is rounded."""
    ordered = sorted(np.asarray(scores, np.float64).tolist())
    product = (len(ordered) + 1) * (alpha_denominator - alpha_numerator)
    rank = -(-product // alpha_denominator)
    return float(ordered[rank - 1])


def p_value(calibration_scores: ArrayLike, score: float) -> float:
    """(1 + #{calibration ≥ score}) / (n + 1)."""
    calibration = np.asarray(calibration_scores, np.float64)
    return (1 + int((calibration >= score).sum())) / (len(calibration) + 1)


def k_center_greedy(points: Array, count: int, first: int = 0) -> tuple[list[int], float]:
    """(selected rows, distance of the farthest remaining row); lowest index on ties."""
    rows = np.asarray(points, np.float64)
    selected = [first]
    nearest = [float(np.sqrt(((row - rows[first]) ** 2).sum())) for row in rows]
    while len(selected) < count:
        farthest = max(range(len(rows)), key=lambda i: (nearest[i], -i))
        selected.append(farthest)
        for i, row in enumerate(rows):
            nearest[i] = min(nearest[i], float(np.sqrt(((row - rows[farthest]) ** 2).sum())))
    return selected, max(nearest)


def squared_distances(query: Array, rows: Array) -> Array:
    """(D,), (M, D) → (M,) float64 |query − row|², in the order of sums that kernel_table.h promises for squared_f64.

    Element i goes to partial sum i mod 16; then the upper half of the partial sums is added to the lower, four times.
    """
    q, b = np.asarray(query, np.float64), np.asarray(rows, np.float64)
    partial = np.zeros((len(b), 16))
    for start in range(0, len(q), 16):
        difference = b[:, start : start + 16] - q[start : start + 16]
        partial[:, : difference.shape[1]] += difference * difference
    for width in (8, 4, 2, 1):
        partial = partial[:, :width] + partial[:, width : 2 * width]
    return partial[:, 0]


def nearest_neighbor(queries: Array, bank: Array, k: int = 1) -> tuple[Array, Array]:
    """Euclidean distances (Q, k) float64 to the k nearest bank rows and their numbers (Q, k), ascending, lowest first.

    Where there is no neighbor (fewer than k rows, or a query with a NaN or infinity): +inf and −1.
    """
    rows = np.asarray(bank, np.float64)
    distances, indices = np.full((len(queries), k), np.inf), np.full((len(queries), k), -1, np.int64)
    for i, query in enumerate(np.asarray(queries, np.float64)):
        if not np.isfinite(query).all():
            continue
        squared = squared_distances(query, rows)
        nearest = np.argsort(squared, kind="stable")[:k]  # stable: of equal ones, the lowest row first
        distances[i, : len(nearest)] = np.sqrt(squared[nearest])
        indices[i, : len(nearest)] = nearest
    return distances, indices
