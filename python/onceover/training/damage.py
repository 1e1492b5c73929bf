"""Damage drawn into images of good parts, for adapting features to a product; every draw comes from one generator.

Cut and paste as in CutPaste (Li et al. 2021, arXiv:2104.04015) and foreign textures as in DRAEM (Zavrtanik et al. 2021,
arXiv:2108.07610), beside changed light and lost sharpness. What judges features (`export.judging_images.draw_defect`)
is drawn by other code, on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from onceover.training.procedural import draw_material

Pixels = NDArray[np.uint8]  # (H, W, 3) RGB
Levels = NDArray[np.float32]  # (H, W, 3), 0 … 255

SPOTS = 4  # in one image
SIZES = (0.02, 0.12)  # half a spot's longer side over the side of the image; log-uniform
LINES = 0.35  # share of spots that are lines: cracks, hairs
STEPS = 6  # corners of a line


def pasted(rng: np.random.Generator, image: Levels, other: Pixels) -> Levels:
    """Another part, moved: everything is there, but not here."""
    height, width = image.shape[:2]
    return np.roll(other, (int(rng.integers(height)), int(rng.integers(width))), (0, 1)).astype(np.float32)


def foreign(rng: np.random.Generator, image: Levels, other: Pixels) -> Levels:
    """A drawn material, more or less opaque."""
    height, width = image.shape[:2]
    opacity = np.float32(rng.uniform(0.4, 1))
    material = draw_material(rng, max(height, width))[:height, :width].astype(np.float32)
    return np.asarray(image + opacity * (material - image))


def shaded(rng: np.random.Generator, image: Levels, other: Pixels) -> Levels:
    """Brighter or darker."""
    return np.asarray(image * np.float32(np.exp(rng.uniform(0.2, 0.8) * rng.choice([-1, 1]))))


def blurred(rng: np.random.Generator, image: Levels, other: Pixels) -> Levels:
    """Worn smooth."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), float(rng.uniform(1.5, 4))), np.float32)


KINDS: Mapping[str, Callable[[np.random.Generator, Levels, Pixels], Levels]] = {
    "pasted": pasted,
    "foreign": foreign,
    "shaded": shaded,
    "blurred": blurred,
}


def draw_damage(
    rng: np.random.Generator,
    image: Pixels,
    other: Pixels,
    kind: str,
    spots: int = SPOTS,
    side: int | None = None,
    places: NDArray[np.int64] | None = None,
) -> tuple[Pixels, NDArray[np.bool_]]:
    """`image` with spots of damage of one of KINDS, and where they are, bool (H, W).

    other: another image of the product, of the same size (H, W, 3). side: in pixels, what their size is a share of;
    None: the shorter side of the image. places: (n, 2), x and y of where their centers may be; None: anywhere.
    """
    mask = np.zeros(image.shape[:2], np.uint8)
    for _ in range(spots):
        _draw_spot(rng, mask, min(image.shape[:2]) if side is None else side, places)
    inside = mask.astype(np.bool_)
    damaged = image.copy()
    found = KINDS[kind](rng, image.astype(np.float32), other)
    damaged[inside] = np.clip(np.rint(found[inside]), 0, 255).astype(np.uint8)
    return damaged, inside


def _draw_spot(rng: np.random.Generator, mask: NDArray[np.uint8], side: int, places: NDArray[np.int64] | None) -> None:
    height, width = mask.shape
    size = side * float(np.exp(rng.uniform(*np.log(SIZES))))
    if places is None:
        center = rng.uniform(0, 1, 2) * (width, height)
    else:
        center = places[rng.integers(len(places))].astype(np.float64)
    if rng.random() < LINES:
        corners = center + rng.normal(0, size / 1.5, (STEPS, 2)).cumsum(axis=0)
        cv2.polylines(mask, [np.rint(corners).astype(np.int32)], False, 1, thickness=max(1, round(size / 5)))
    else:
        long, turned = max(2, round(size)), float(rng.uniform(0, 180))
        short = max(2, round(size * rng.uniform(0.4, 1)))
        cv2.ellipse(mask, (int(center[0]), int(center[1])), (long, short), turned, 0, 360, 1, -1)


__all__ = ["KINDS", "draw_damage"]
