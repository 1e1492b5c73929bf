"""What a user hands in → arrays the core reads in place, or an InputError that says which image and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceover.arrays import is_array, view_array, whole_number
from onceover.errors import InputError, UsageError

Map = NDArray[Any]  # float32, float16, uint8 or uint16 (H, W)
Mask = NDArray[Any]  # bool or uint8 (H, W)

_MAP_DTYPES = (np.float32, np.float16, np.uint8, np.uint16)


def anomaly_map(value: Any, index: int) -> Map:
    """(H, W) scores of image `index`; the same memory where it can be read in place. NaN are left to the core."""
    what = f"anomaly map {index}"
    array = _view(value, what)
    if array.ndim != 2 or array.size == 0:
        raise InputError(f"{what} is {array.shape}, expected an array (H, W){_shape_hint(array.shape)}")
    if array.dtype not in _MAP_DTYPES:
        hint = "cast it with .astype(np.float32), knowing that rounding can make different scores equal"
        also = "" if array.dtype == np.float64 else " (or float16, uint8, uint16)"
        raise InputError(f"{what} is {array.dtype}, expected float32{also}; {hint}")
    return array


def binary_mask(value: Any, shape: tuple[int, ...] | None, what: str) -> Mask:
    """(H, W) ground truth, non-zero is anomalous. shape: of its anomaly map; None for a mask on its own.

    bool and uint8 are used in place. Other integers are compared with 0. A soft mask is refused: where it should be
    cut is a decision about the ground truth, and it changes every metric.
    """
    array = _view(value, what)
    if shape is not None and array.shape != shape:
        told = "; neither is resized here" if array.ndim == 2 else _shape_hint(array.shape)
        raise InputError(f"{what} has shape {array.shape}, its anomaly map {shape}{told}")
    if array.ndim != 2 or array.size == 0:
        raise InputError(f"{what} is {array.shape}, expected an array (H, W){_shape_hint(array.shape)}")
    if array.dtype in (np.bool_, np.uint8):
        return array
    if array.dtype.kind not in "uif":
        raise InputError(f"{what} is {array.dtype}, expected bool or uint8")
    if array.dtype.kind == "f" and not np.isin(array, (0, 1, 255)).all():
        raise InputError(f"{what} is soft ({array.dtype}, not only 0, 1 or 255); threshold it first, e.g. mask >= 0.5")
    if array.dtype.kind == "i" and (array < 0).any():
        raise InputError(f"{what} holds negative values; decide which pixels are anomalous first")
    return np.asarray(array != 0)


def channel_masks(
    channels: Iterable[Any], saturation_areas: Iterable[Any], shape: tuple[int, ...], index: int
) -> tuple[list[Mask], list[int]]:
    """The defects of image `index`, one mask each, and the area in pixels from which each counts as found."""
    masks = [binary_mask(channel, shape, f"channel {i} of image {index}") for i, channel in enumerate(channels)]
    areas = list(saturation_areas)
    if len(areas) != len(masks):
        raise InputError(f"image {index} has {len(masks)} channels and {len(areas)} saturation areas; give one each")
    for i, (mask, area) in enumerate(zip(masks, areas, strict=True)):
        if not isinstance(area, (int, np.integer)) or isinstance(area, bool) or area < 1:
            raise InputError(
                f"the saturation area of channel {i} of image {index} is {area!r}, expected whole pixels, at least 1; "
                "metrics.saturation_area computes it"
            )
        if not mask.any():
            raise InputError(f"channel {i} of image {index} is empty; leave a defect without pixels out")
    return masks, [int(area) for area in areas]


def fpr_limits(limits: Iterable[float]) -> tuple[float, ...]:
    """Raises UsageError for a limit outside (0, 1], and for what is no series of numbers."""
    try:
        values = tuple(float(limit) for limit in limits)
    except (TypeError, ValueError) as error:
        raise UsageError(f"fpr_limits is {limits!r}, expected several numbers, such as (0.3, 0.05)") from error
    for limit in values:
        if not 0 < limit <= 1:
            raise UsageError(f"fpr_limit is {limit}; it must lie in (0, 1], usually 0.3 or 0.05")
    return values


def connectivity(value: int) -> int:
    if whole_number(value, "connectivity") not in (4, 8):
        raise UsageError(f"connectivity is {value!r}, expected 8 (the definition of AUPRO) or 4")
    return int(value)


def _shape_hint(shape: tuple[int, ...]) -> str:
    if 1 in shape and len(shape) in (3, 4):
        return "; take away the axes of length 1, of maps (N, 1, H, W) by maps[:, 0]"
    if len(shape) == 3 and shape[2] in (3, 4):
        return "; take one of its channels, as in [..., 0]"
    return "; give maps and masks one by one, as a list, an array (N, H, W) or a generator" if len(shape) == 1 else ""


def _view(value: Any, what: str) -> NDArray[Any]:
    """An array of any shape, aligned, in native order; lists are refused, which may hold anything."""
    if not is_array(value):
        raise InputError(f"{what} is {type(value).__name__}, expected an array (H, W)")
    array = view_array(value, what)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return array if array.flags.aligned else array.copy()
