"""Features inside somebody's own network, by name: what shapes can be read as a map of patches, and how."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onceover.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

MAX_STRIDE = 64
BY_LIKELIHOOD = sorted(range(1, MAX_STRIDE + 1), key=lambda stride: (stride & (stride - 1) != 0, stride))  # 2^n first
MIN_CHANNELS = 4
EXTRA_TOKENS = (0, 1, 2, 4, 5, 8, 9)  # a class token or two, and registers


@dataclass(frozen=True)
class Tap:
    """A feature map of the network: `name`, and (C, h, w) at `stride` pixels of the image per cell.

    order: where the network keeps the channels; "first" (1, C, h, w), "last" (1, h, w, C), "tokens" (1, skipped + h·w,
    C) as in vision transformers, whose class and register tokens come first and are skipped.
    """

    name: str
    channels: int
    height: int
    width: int
    stride: int
    order: str
    skipped: int = 0

    def as_map(self, features: Tensor) -> Tensor:
        """What the network gives → (1, C, h, w)."""
        if self.order == "first":
            return features
        if self.order == "tokens":
            features = features[:, self.skipped :].reshape(1, self.height, self.width, self.channels)
        return features.permute(0, 3, 1, 2)  # (1, h, w, C) → (1, C, h, w)

    def describe(self) -> str:
        """For messages."""
        return f"{self.name} (stride {self.stride}, {self.channels} channels)"


def read_tap(name: str, shape: Sequence[int], height: int, width: int) -> Tap:
    """The tap that a tensor of this shape is, for an image of (height, width).

    Raises UsageError where the shape is that of no feature map. A map whose channels could be first or last is taken
    to have them first, as ONNX has.
    """
    found = tap_of(name, shape, height, width)
    if found is None:
        raise UsageError(
            f"tap {name!r}: its shape {tuple(shape)} is no feature map of an image of {height}x{width}; it must be "
            "(1, C, h, w), (1, h, w, C) or (1, h*w, C) with a cell for every so many pixels in both directions"
        )
    return found


def tap_of(name: str, shape: Sequence[int], height: int, width: int) -> Tap | None:
    """`read_tap`, or None."""
    if len(shape) == 4 and shape[0] == 1:
        for order, (channels, h, w) in (("first", shape[1:]), ("last", (shape[3], shape[1], shape[2]))):
            stride = _stride(h, w, height, width)
            if stride and channels >= MIN_CHANNELS:
                return Tap(name, channels, h, w, stride, order)
    if len(shape) == 3 and shape[0] == 1 and shape[2] >= MIN_CHANNELS:
        for skipped in EXTRA_TOKENS:
            for stride in BY_LIKELIHOOD:
                h, w = height // stride, width // stride
                if h * w >= max(4, 2 * skipped) and h * w == shape[1] - skipped:
                    return Tap(name, shape[2], h, w, stride, "tokens", skipped)
    return None


def _stride(h: int, w: int, height: int, width: int) -> int:
    """Pixels per cell, the same in both directions, a power of two where several fit; 0 where none does."""
    fitting = (s for s in BY_LIKELIHOOD if h in _cells(height, s) and w in _cells(width, s) and (h > 1 or w > 1))
    return next(fitting, 0)


def _cells(pixels: int, stride: int) -> set[int]:
    """Networks round up or, without padding, down."""
    return {pixels // stride, (pixels + stride - 1) // stride}


def finest_first(taps: Iterable[Tap]) -> list[Tap]:
    """In the order in which patch embeddings join them."""
    return sorted(taps, key=lambda tap: tap.stride)


def last_of_each_stride(shapes: Mapping[str, Sequence[int]], height: int, width: int) -> list[Tap]:
    """What to propose: `shapes` are those of all values of a network, in the order in which it computes them."""
    last: dict[int, Tap] = {}
    for name, shape in shapes.items():
        found = tap_of(name, shape, height, width)
        if found is not None and found.stride > 1:
            last[found.stride] = found
    return finest_first(last.values())


def check_names(taps: Sequence[str], known: Collection[str], label: str, propose: Callable[[], list[Tap]]) -> None:
    """UsageError for none and for repeated ones, UnknownNameError for one that is not there; both with proposals."""
    if len(set(taps)) != len(taps):
        raise UsageError(f"{label}: a tap is named twice: {', '.join(taps)}")
    missing = [name for name in taps if name not in known]
    if taps and not missing:
        return
    listed = "; ".join(tap.describe() for tap in propose()) or "none was recognized"
    if not taps:
        raise UsageError(f"{label}: name taps; the last feature map of each stride: {listed}")
    near = difflib.get_close_matches(missing[0], known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    raise UnknownNameError(f"{label}: unknown tap {missing[0]!r}{hint} The last feature map of each stride: {listed}")


__all__ = ["Tap", "check_names", "finest_first", "last_of_each_stride", "read_tap", "tap_of"]
