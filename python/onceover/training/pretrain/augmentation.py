"""A view of an image from a seed: nothing else decides what it looks like, so a seed is all that records keep of it.

Only `Generator.random` is drawn from, whose stream numpy keeps; the resize is the core's own, the rest is arithmetic
on bytes and float32 that every machine does alike.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from onceover import _core
from onceover.training.procedural import MATERIALS, draw_material

Pixels = NDArray[np.uint8]  # (H, W, 3) RGB

MIN_CROP = 16  # pixels of the image that a view shows at least, as far as the image has them
VARIATES = 16  # drawn for every view, used or not: a new transform does not shift the draws of the others


@dataclass(frozen=True)
class Augmentation:
    """How far a view may be from its image. Every number is part of the fingerprint of the records."""

    smallest_crop: float = 0.15  # of the short side
    largest_zoom: float = 4.0  # pixels of the view per pixel of the image, where the image is large enough
    stretch: float = 1.25  # height over width of the crop, and the reverse
    gray: float = 0.35  # chance
    saturation: tuple[float, float] = (0.5, 1.4)
    contrast: tuple[float, float] = (0.4, 1.4)
    brightness: float = 50.0  # levels, up or down
    cast: float = 0.1  # gain of red and blue, up or down
    blur: float = 0.2  # chance
    blur_sigma: tuple[float, float] = (0.4, 1.6)  # pixels of the view
    noise: float = 0.25  # chance
    noise_sigma: float = 10.0  # levels, at most


DEFAULT = Augmentation()


def draw_view(image: Pixels, seed: int, size: int, augmentation: Augmentation = DEFAULT) -> Pixels:
    """A random crop, turned, mirrored, recolored, blurred and noisy as the seed says: (size, size, 3)."""
    draws = _Draws(np.random.Generator(np.random.PCG64(seed)).random(VARIATES))
    view = _core.resize(_crop(image, draws, size, augmentation), size, size)
    view = np.rot90(view, draws.integer(4))
    view = view[:, ::-1] if draws.chance(0.5) else view
    blurred, sigma = draws.chance(augmentation.blur), draws.between(*augmentation.blur_sigma)
    pixels = _recolored(view, draws, augmentation)
    noisy, deviation = draws.chance(augmentation.noise), draws.between(0, augmentation.noise_sigma)
    if noisy:
        pixels = pixels + np.float32(deviation) * _bell_noise(seed, size)
    levels = np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)
    if blurred:  # in bytes, where OpenCV's blur is exact on every machine
        levels = np.asarray(cv2.GaussianBlur(levels, (0, 0), sigma), dtype=np.uint8)
    return np.ascontiguousarray(levels)


class _Draws:
    """Uniform numbers in 0 … 1, taken one after the other."""

    def __init__(self, variates: NDArray[np.float64]) -> None:
        self._variates = iter(variates.tolist())

    def between(self, low: float, high: float) -> float:
        return float(low + (high - low) * next(self._variates))

    def integer(self, count: int) -> int:
        return int(count * next(self._variates))

    def chance(self, share: float) -> bool:
        return bool(next(self._variates) < share)


def _crop(image: Pixels, draws: _Draws, size: int, augmentation: Augmentation) -> Pixels:
    height, width = image.shape[:2]
    short = min(height, width)
    least = max(augmentation.smallest_crop * short, size / augmentation.largest_zoom, MIN_CROP)
    side = draws.between(min(least, short), short)
    stretch = draws.between(1 / augmentation.stretch, augmentation.stretch)
    rows = max(1, min(height, round(side * max(1.0, stretch))))
    columns = max(1, min(width, round(side / min(1.0, stretch))))
    top, left = draws.integer(height - rows + 1), draws.integer(width - columns + 1)
    return image[top : top + rows, left : left + columns]


def _recolored(view: Pixels, draws: _Draws, augmentation: Augmentation) -> NDArray[np.float32]:
    """Saturation (or gray), contrast around mid-gray, brightness, a cast of red against blue; not yet clipped."""
    gray = draws.chance(augmentation.gray)
    saturation = draws.between(*augmentation.saturation)
    contrast, brightness = draws.between(*augmentation.contrast), draws.between(-1, 1) * augmentation.brightness
    cast = draws.between(-1, 1) * augmentation.cast
    weights = np.array([77, 150, 29], np.int32)  # of red, green and blue in the luma, in 256ths
    luma = ((view.astype(np.int32) * weights).sum(axis=2, keepdims=True) >> 8).astype(np.float32)
    color = view.astype(np.float32) - luma
    pixels = luma + np.float32(0 if gray else saturation) * color
    if not gray:
        pixels = pixels * np.array([1 + cast, 1, 1 - cast], np.float32)
    return np.asarray((pixels - np.float32(127.5)) * np.float32(contrast) + np.float32(127.5 + brightness))


def _bell_noise(seed: int, size: int) -> NDArray[np.float32]:
    """(size, size, 1), mean 0, variance 1: sums of four uniform numbers, the same anywhere, as logarithms are not."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 1])))
    sums = generator.random((4, size, size, 1)).sum(axis=0) - 2
    return np.asarray(sums * np.sqrt(3), dtype=np.float32)


def pipeline_fingerprint(augmentation: Augmentation = DEFAULT) -> dict[str, Any]:
    """What makes the pixels: the settings, and hashes of what they come to here, for views and for each material.

    The hashes, not version numbers, decide whether two machines draw alike.
    """
    ramp = np.arange(192, dtype=np.int32)
    image = np.stack([ramp[:, None] * 2 + 0 * ramp, ramp[:, None] ^ ramp, 255 - ramp - ramp[:, None]], axis=2)
    picture = image.astype(np.uint8)  # (192, 192, 3), without any random or floating-point step
    views = hashlib.sha256()
    for seed in range(24):
        views.update(draw_view(picture, seed, 128 if seed % 2 else 40, augmentation).tobytes())
    materials = hashlib.sha256()
    for index, name in enumerate(MATERIALS):
        materials.update(draw_material(np.random.Generator(np.random.PCG64(index)), 48, name).tobytes())
    return {"settings": _plain(asdict(augmentation)), "views": views.hexdigest(), "materials": materials.hexdigest()}


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}


__all__ = ["DEFAULT", "Augmentation", "Pixels", "draw_view", "pipeline_fingerprint"]
