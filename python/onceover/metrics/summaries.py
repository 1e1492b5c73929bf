"""What the bootstrap keeps of an image: its scores counted in intervals of their keys. To bytes and back.

A key is a score's float bits made order-preserving, so a constant map, a narrow range and sixty octaves resolve alike.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceover.errors import InputError
from onceover.metrics.inputs import Map, Mask
from onceover.metrics.regions import Components

INTERVALS = 4096
_HEADER = struct.Struct("<4I")  # intervals with normal and with anomalous pixels, regions, channels


@dataclass(frozen=True, eq=False)
class ImageSummary:
    """The scores of an image in up to 4096 intervals: mean key of the pixels in each and their number.

    The mean is exact where an interval holds one distinct score. channel_weights: sums of 1 / saturation area over the
    pixels that count; zeros without channels.
    """

    normal_keys: NDArray[np.uint32]
    normal_counts: NDArray[np.uint32]
    anomalous_keys: NDArray[np.uint32]
    anomalous_counts: NDArray[np.uint32]
    region_weights: NDArray[np.float64]
    channel_weights: NDArray[np.float64]
    regions: int
    channels: int

    def to_bytes(self) -> bytes:
        head = _HEADER.pack(len(self.normal_keys), len(self.anomalous_keys), self.regions, self.channels)
        return head + b"".join(getattr(self, name).astype(kind).tobytes() for name, (kind, _) in _ARRAYS.items())

    @staticmethod
    def from_bytes(data: bytes) -> ImageSummary:
        """Raises InputError when the sizes do not add up."""
        if len(data) < _HEADER.size:
            raise InputError(f"the summary of an image has {len(data)} bytes, expected at least {_HEADER.size}")
        *lengths, regions, channels = _HEADER.unpack_from(data)
        expected = _HEADER.size + sum(np.dtype(kind).itemsize * lengths[of] for kind, of in _ARRAYS.values())
        if len(data) != expected:
            raise InputError(f"the summary of an image has {len(data)} bytes, expected {expected}")
        arrays: list[NDArray[Any]] = []
        offset = _HEADER.size
        for kind, of in _ARRAYS.values():
            arrays.append(np.frombuffer(data, kind, lengths[of], offset))
            offset += arrays[-1].nbytes
        return ImageSummary(**dict(zip(_ARRAYS, arrays, strict=True)), regions=regions, channels=channels)


_NORMAL, _ANOMALOUS = 0, 1
_ARRAYS = {  # attribute → stored dtype, and whose number of intervals is its length
    "normal_keys": ("<u4", _NORMAL),
    "normal_counts": ("<u4", _NORMAL),
    "anomalous_keys": ("<u4", _ANOMALOUS),
    "anomalous_counts": ("<u4", _ANOMALOUS),
    "region_weights": ("<f8", _ANOMALOUS),
    "channel_weights": ("<f8", _ANOMALOUS),
}


def summarize(
    anomaly_map: Map, components: Components | None, channels: list[Mask], saturation_areas: list[int]
) -> ImageSummary:
    """components: the regions of the image's mask; None for a good image."""
    keys = _keys(anomaly_map)
    first = keys.min()
    offsets = keys - first
    bins = _intervals(offsets)
    nothing = np.zeros(0, np.int64)
    pixels, regions = (nothing, nothing) if components is None else components.pixels()
    is_normal = np.ones(len(keys), bool)
    is_normal[pixels] = False
    _, normal_keys, normal_counts = _count(bins[is_normal], offsets[is_normal], first)
    anomalous, anomalous_keys, anomalous_counts = _count(bins[pixels], offsets[pixels], first)
    areas = np.ones(0) if components is None else components.areas[regions]
    region_weights = np.bincount(bins[pixels], 1.0 / areas, INTERVALS).astype(np.float64)  # no pixels: integers
    channel_weights = np.zeros(INTERVALS)
    for mask, area in zip(channels, saturation_areas, strict=True):
        inside = np.flatnonzero(mask)  # its `area` highest pixels count; which of those that tie does not matter
        highest = np.sort(bins[inside])[::-1][:area]
        channel_weights += np.bincount(highest, minlength=INTERVALS) / area
    return ImageSummary(
        normal_keys=normal_keys,
        normal_counts=normal_counts,
        anomalous_keys=anomalous_keys,
        anomalous_counts=anomalous_counts,
        region_weights=region_weights[anomalous],
        channel_weights=channel_weights[anomalous],
        regions=0 if components is None else len(components),
        channels=len(channels),
    )


def _intervals(offsets: NDArray[np.uint32]) -> NDArray[np.int64]:
    """(n,) keys from the lowest up → (n,) numbers of their intervals, all of one width, below 4096.

    Only the parts of the range that hold scores are divided: an exact 0 beside scores near 1 is 127 octaves away, which
    would leave little for the rest. The width is a power of two, chosen so that the occupied parts just fit.
    """
    shift = max(0, int(offsets.max()).bit_length() - 16)
    occupied = np.bincount((offsets >> np.uint32(shift)).astype(np.int64), minlength=1 << 16) > 0
    while int(occupied.sum()) > INTERVALS:
        occupied = occupied[::2] | occupied[1::2]
        shift += 1
    finer = min(shift, (INTERVALS // int(occupied.sum())).bit_length() - 1)  # bits that still fit in
    slots = np.cumsum(occupied) - 1
    parts = slots[(offsets >> np.uint32(shift)).astype(np.int64)]
    within = (offsets >> np.uint32(shift - finer)).astype(np.int64) & ((1 << finer) - 1)
    return np.asarray(parts << finer | within)


def _count(
    bins: NDArray[np.int64], offsets: NDArray[np.uint32], first: np.uint32
) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.uint32]]:
    """Of the intervals that occur in `bins`: their numbers, mean keys and counts. Sums stay exact below 2^53."""
    counts = np.bincount(bins, minlength=INTERVALS)
    sums = np.bincount(bins, offsets.astype(np.float64), INTERVALS)
    used = np.flatnonzero(counts)
    means = np.rint(sums[used] / counts[used]).astype(np.uint32) + first
    return used, means, counts[used].astype(np.uint32)


def _keys(anomaly_map: NDArray[Any]) -> NDArray[np.uint32]:
    """(H · W,) uint32 in the order of the scores: float32 bits, the sign bit flipped, all bits of negatives flipped."""
    bits = (anomaly_map.astype(np.float32).ravel() + np.float32(0)).view(np.uint32)  # + 0: −0 and 0 are one score
    return np.asarray(np.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31)))
