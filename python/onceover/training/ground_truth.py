"""The ground truth of a sample as arrays: its defective pixels, and MVTec LOCO's one mask for each defect."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from onceover.errors import InputError
from onceover.images import read_image, read_mask
from onceover.training.dataset import Sample

Size = tuple[int, int]  # (H, W)


def read_ground_truth(sample: Sample, shape: Size) -> NDArray[np.bool_] | None:
    """bool (H, W) at the shape of the image; zeros for a normal one, the union of all channels for MVTec LOCO.

    None where nobody knows: an anomalous image without a mask, and an image without a label.
    """
    if sample.label == 0:
        return np.zeros(shape, np.bool_)
    files = sample.channels or ((sample.mask_path,) if sample.mask_path else ())
    if sample.label == -1 or not files:
        return None
    union = np.zeros(shape, np.bool_)
    for file in files:
        union |= read_mask(file, shape, sample.positive_from)
    return union


def resize_mask(mask: NDArray[np.bool_], size: Size) -> NDArray[np.bool_]:
    """Nearest neighbor by pixel centers, so that a mask stays a mask."""
    if mask.shape == tuple(size):
        return mask
    nearest = cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(nearest, dtype=np.bool_)


def read_channels(sample: Sample, shape: Size, size: Size | None = None) -> tuple[list[NDArray[np.bool_]], list[int]]:
    """MVTec LOCO: each defect's mask, bool (H, W), and the area in pixels from which on it counts as found.

    shape: of the image; size: at which maps are compared (default: shape). An absolute area shrinks with the picture.
    The area is truncated to whole pixels as in the official code, but is at least 1, where that code divides by zero.
    A defect that has no pixel left at `size` is left out. Raises InputError for a mask of another size, and for one
    whose gray value is not in defects_config.json (all of them, when `sample.saturations` is empty: no such file).
    """
    size = shape if size is None else size
    known = {saturation.pixel_value: saturation for saturation in sample.saturations}
    masks: list[NDArray[np.bool_]] = []
    areas: list[int] = []
    for file in sample.channels:
        mask = resize_mask(read_mask(file, shape, 1), size)
        values = [int(value) for value in np.unique(read_image(file)) if value]
        if len(values) > 1:
            raise InputError(f"{file}: holds the gray values {values}, expected one value, that of its defect")
        if not mask.any():
            continue
        if values[0] not in known:
            raise InputError(
                f"{file}: gray value {values[0]} is not in defects_config.json, which has {sorted(known) or 'no entry'}"
            )
        saturation, area = known[values[0]], int(mask.sum())
        scale = size[0] * size[1] / (shape[0] * shape[1])
        found = saturation.threshold * (area if saturation.relative else scale)
        masks.append(mask)
        areas.append(max(1, min(int(found), area)))
    return masks, areas
