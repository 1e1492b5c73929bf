"""Which input size a product needs: the smallest that keeps what its images show, decided by the images alone.

A network sees only what survives the resize. Fine structures of large images (traces of a circuit board) need a large
input, smooth surfaces and small images do not, and every size costs time on the device: twice the side, four times.
"""

from __future__ import annotations

import math
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
    native, lost = [], []
    for done, path in enumerate(chosen):
        image = to_rgb8(read_image(path))
        native.append(math.sqrt(image.shape[0] * image.shape[1]))
        lost.append([lost_contrast(image, size) for size in sizes])
        progress("input size", done + 1, len(chosen))
    own, shares = float(np.median(native)), np.median(lost, axis=0).tolist()
    of = f"of images as large as {own:.0f} x {own:.0f} pixels"
    for size, share in zip(sizes, shares, strict=True):
        if size >= NEARLY * own:
            return InputSize(size, f"it is the size {of}; a larger input would show no more")
        if share <= MAX_LOST:
            return InputSize(size, f"it loses only {share:.1%} of the local contrast {of}")
    largest = f"the largest that is chosen unasked (it loses {shares[-1]:.1%} of the local contrast {of})"
    return InputSize(sizes[-1], largest)


def lost_contrast(image: NDArray[np.uint8], size: int) -> float:
    """Share of the variance within LOCAL that is gone after a resize to size x size and back; white noise left out.

    (H, W, 3) uint8 → 0 … 1; 0 where there is no contrast beyond the noise.
    """
    height, width = image.shape[:2]
    back = cv2.resize(_core.resize(image, size, size), (width, height), interpolation=cv2.INTER_CUBIC)
    gray = image.astype(np.float32) @ GRAY
    noise = noise_variance(gray)
    local = gray - cv2.GaussianBlur(gray, (0, 0), max(height, width) * LOCAL)
    kept = min(1.0, size / height) * min(1.0, size / width)  # share of white noise that a resize keeps
    gone = float(np.mean((gray - back.astype(np.float32) @ GRAY) ** 2)) - (1 - kept) * noise
    there = float(np.mean(local**2)) - noise
    return min(1.0, max(0.0, gone) / there) if there > noise else 0.0


def noise_variance(gray: NDArray[np.float32]) -> float:
    """Of white noise, by the median of a mask that edges and slopes hardly answer (Immerkaer 1996, eq. 2 and 3)."""
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    answer = cv2.filter2D(gray, -1, mask)
    return float((np.median(np.abs(answer)) / 0.6745 / 6) ** 2)  # 0.6745: the median of a normal variable's size


__all__ = ["MAX_LOST", "SIZES", "InputSize", "choose_size", "lost_contrast", "noise_variance"]
