"""Connected regions of a mask and how much of each a threshold finds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceover import _core
from onceover.arrays import real_number
from onceover.errors import InputError, UsageError
from onceover.metrics import inputs


@dataclass(frozen=True, eq=False)
class Components:
    """The R connected regions of a mask of `shape` (H, W), numbered from 0 in row-major order of their first pixel.

    areas: int64 (R,) pixels. boxes: int32 (R, 4) top, left, bottom, right, the last two exclusive. runs: int32 (n, 4)
    row, first column, end column (exclusive), region: the pixels themselves, without a label image.
    """

    areas: NDArray[np.int64]
    boxes: NDArray[np.int32]
    runs: NDArray[np.int32]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.areas)

    def labels(self) -> NDArray[np.int32]:
        """int32 (H, W): 0 where the mask is 0, else the number of the region plus 1."""
        drawn = np.zeros(self.shape, np.int32)
        pixels, regions = self.pixels()
        drawn.ravel()[pixels] = regions + 1
        return drawn

    def pixels(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(A,) flat indices of all anomalous pixels, run by run, and (A,) the region of each."""
        row, first, end, region = self.runs.astype(np.int64).T
        lengths = end - first
        starts = row * self.shape[1] + first
        before = np.cumsum(lengths) - lengths  # pixels in the runs before each
        pixels = np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)
        return pixels, np.repeat(region, lengths)


@dataclass(frozen=True, eq=False)
class RegionOverlap:
    """Of each region: areas int64 (R,), boxes int32 (R, 4), overlaps float64 (R,), the share ≥ a threshold."""

    areas: NDArray[np.int64]
    boxes: NDArray[np.int32]
    overlaps: NDArray[np.float64]


def connected_components(mask: Any, connectivity: int = 8) -> Components:
    """Regions of mask != 0, bool or integers (H, W), joined over edges and corners (8) or edges only (4).

    Raises InputError for what is no mask, UsageError for another connectivity.
    """
    binary = inputs.binary_mask(mask, None, "mask")
    areas, boxes, runs = _core.connected_components(binary, inputs.connectivity(connectivity))
    return Components(areas, boxes, runs, (binary.shape[0], binary.shape[1]))


def region_overlap(anomaly_map: Any, mask: Any, threshold: float, connectivity: int = 8) -> RegionOverlap:
    """How much of each region of `mask` has a score ≥ threshold; (H, W) each, as for SegmentationMetrics.update.

    The mean of `overlaps` over all regions of a test set is PRO at that threshold. Raises InputError as update does,
    UsageError for a threshold that is NaN or no number.
    """
    if math.isnan(real_number(threshold, "threshold")):
        raise UsageError("threshold is NaN; nothing is at or above it")
    scores = inputs.anomaly_map(anomaly_map, 0)
    if scores.dtype.kind == "f" and (bad := int(np.isnan(scores).sum())):
        raise InputError(f"image 0: {bad} of {scores.size} scores are NaN; a NaN has no rank")
    components = connected_components(inputs.binary_mask(mask, scores.shape, "mask 0"), connectivity)
    pixels, regions = components.pixels()
    # np.float64: numpy would round a Python float to the dtype of the map before it compares
    found = scores.ravel()[pixels] >= np.float64(threshold)
    hits = np.bincount(regions[found], minlength=len(components))
    return RegionOverlap(components.areas, components.boxes, hits / components.areas)
