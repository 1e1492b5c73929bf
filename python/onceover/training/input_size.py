"""Which input size a product needs: the smallest that keeps what its images show, decided by the images alone.

A network sees only what survives the resize. Fine structures of large images (traces of a circuit board) need a large
input, smooth surfaces and small images do not, and every size costs time on the device: twice the side, four times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from onceover import _core
from onceover.images import read_image, to_rgb8

SIZES = (256, 320, 384, 448, 512)  # beyond the last, the user has to ask
MAX_LOST = 0.02  # share of the local contrast that a resize may take away
NEARLY = 0.95  # of its pixels per side, and an image is as good as whole
SAMPLE = 24  # images looked at
LOCAL = 1 / 32  # of the longer side: contrast within this distance is local; light falls off more slowly
FINE_SIGMA = 8.0  # in pixels: a blur wider than this needs no finer pixels
GRAY = np.array([0.299, 0.587, 0.114], np.float32)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class InputSize:
    """side: of the square input in pixels. reason: one sentence for people."""

    side: int
    reason: str


def choose_size(images: Sequence[Path], sizes: Sequence[int], progress: Progress) -> InputSize:
    """The smallest of `sizes`, which rise, at which the median image is whole or loses little.

    Whole: it has no more pixels. Little: at most MAX_LOST of its local contrast, noise left out.
    """
    chosen = images[:: max(1, -(-len(images) // SAMPLE))]
    shapes, lost = [], []
    for done, path in enumerate(chosen):
        image = to_rgb8(read_image(path))
        shapes.append(image.shape[:2])
        lost.append(lost_contrasts(image, sizes))
        progress("input size", done + 1, len(chosen))
    own, shares = float(np.median(np.sqrt(np.prod(shapes, axis=1)))), np.median(lost, axis=0).tolist()
    one = len(set(shapes)) == 1
    of = "images of {} × {} pixels".format(*shapes[0]) if one else f"images as large as {own:.0f} × {own:.0f} pixels"
    for size, share in zip(sizes, shares, strict=True):
        if size >= NEARLY * own:
            nearly = "" if size >= own else "nearly "
            return InputSize(size, f"it takes {of} {nearly}whole; a larger input would show no more")
        if share <= MAX_LOST:
            return InputSize(size, f"it loses only {share:.1%} of the local contrast of {of}")
    largest = f"the largest that is chosen unasked (it loses {shares[-1]:.1%} of the local contrast of {of})"
    return InputSize(sizes[-1], largest)


def lost_contrast(image: NDArray[np.uint8], size: int) -> float:
    """Share of the variance within LOCAL that is gone after a resize to size x size and back; white noise left out.

    (H, W, 3) uint8 → 0 … 1; 0 where there is no contrast beyond the noise.
    """
    return lost_contrasts(image, (size,))[0]


def lost_contrasts(image: NDArray[np.uint8], sizes: Sequence[int]) -> list[float]:
    """`lost_contrast` for each of `sizes`; what does not depend on them is computed once."""
    height, width = image.shape[:2]
    gray = image.astype(np.float32) @ GRAY
    noise = noise_variance(gray)
    there = float(np.mean((gray - _smooth(gray, max(height, width) * LOCAL)) ** 2)) - noise
    if there <= noise:
        return [0.0] * len(sizes)
    lost = []
    for size in sizes:
        back = cv2.resize(_core.resize(image, size, size), (width, height), interpolation=cv2.INTER_CUBIC)
        kept = min(1.0, size / height) * min(1.0, size / width)  # share of white noise that a resize keeps
        gone = float(np.mean((gray - back.astype(np.float32) @ GRAY) ** 2)) - (1 - kept) * noise
        lost.append(min(1.0, max(0.0, gone) / there))
    return lost


def _smooth(gray: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """A Gaussian blur, of a reduced image where it is wide: of 5 megapixels it takes most of the time otherwise."""
    height, width = gray.shape
    by = max(1, int(sigma / FINE_SIGMA))
    if by == 1:
        return np.asarray(cv2.GaussianBlur(gray, (0, 0), sigma), np.float32)
    small = cv2.resize(gray, (-(-width // by), -(-height // by)), interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(small, (0, 0), sigma / by)
    return np.asarray(cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def noise_variance(gray: NDArray[np.float32]) -> float:
    """Of white noise, by the median of a mask that edges and slopes hardly answer (Immerkaer 1996, eq. 2 and 3)."""
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    answer = cv2.filter2D(gray, -1, mask)
    return float((np.median(np.abs(answer)) / 0.6745 / 6) ** 2)  # 0.6745: the median of a normal variable's size


__all__ = ["MAX_LOST", "SIZES", "InputSize", "choose_size", "lost_contrast", "noise_variance"]
