"""The textures that the embedded network learned from: what a seed draws here never changes.

Noise with a 1/f spectrum, gratings, and clutter of boxes and discs, alone or meeting along a soft border. numpy only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from onceover.training.procedural.fields import Float, pixel_grid, random_color, spectrum_noise, tint

Texture = Callable[[np.random.Generator, int], Float]


def draw(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """One random texture, (size, size, 3) uint8 RGB. The same generator state gives the same image."""
    texture = TEXTURES[int(rng.integers(len(TEXTURES)))](rng, size)
    if rng.random() < 0.3:  # two textures meet along a soft border, as parts and background do
        other = TEXTURES[int(rng.integers(len(TEXTURES)))](rng, size)
        blend = np.clip(8 * spectrum_noise(rng, size, 2.0) / 3 + 0.5, 0, 1)[..., None]
        texture = blend * texture + (1 - blend) * other
    texture = texture + np.float32(rng.uniform(0, 0.04)) * rng.standard_normal((size, size, 1), dtype=np.float32)
    return np.asarray(np.clip(texture, 0, 1) * 255).astype(np.uint8)


def noise(rng: np.random.Generator, size: int) -> Float:
    """Noise with a 1/f^a spectrum, a in 0.5 … 2.5; one channel tinted, or three of their own."""
    exponent = float(rng.uniform(0.5, 2.5))
    if rng.random() < 0.5:
        return tint(rng, 0.5 + 0.2 * spectrum_noise(rng, size, exponent))
    return np.stack([0.5 + 0.2 * spectrum_noise(rng, size, exponent) for _ in range(3)], axis=-1)


def grating(rng: np.random.Generator, size: int) -> Float:
    """One to three sine gratings (hardened into stripes half of the time), bent a little by smooth noise."""
    y, x = pixel_grid(size)
    bend = np.float32(rng.uniform(0, 0.6)) * spectrum_noise(rng, size, 2.0)
    value = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        angle, period = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(3), np.log(size / 2)))
        along = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
        value += np.sin(along * np.float32(2 * np.pi / period) + np.float32(rng.uniform(0, 6.3)) + bend)
    if rng.random() < 0.5:
        value = np.tanh(np.float32(rng.uniform(1, 8)) * value)
    return tint(rng, 0.5 + 0.35 * value / max(1e-3, float(np.abs(value).max())))


def clutter(rng: np.random.Generator, size: int) -> Float:
    """Boxes and discs of random colors over a plain ground, each with its own grain of noise."""
    y, x = pixel_grid(size)
    image: Float = np.broadcast_to(random_color(rng), (size, size, 3)).copy()
    for _ in range(int(rng.integers(2, 25))):
        cy, cx = rng.uniform(0, size, 2)
        ry, rx = np.exp(rng.uniform(np.log(2), np.log(size / 3), 2))
        if rng.random() < 0.5:
            inside = (np.abs(y - cy) < ry) & (np.abs(x - cx) < rx)
        else:
            inside = (y - cy) ** 2 + (x - cx) ** 2 < rx * rx
        grain = np.float32(rng.uniform(0, 0.15)) * rng.standard_normal((int(inside.sum()), 1), dtype=np.float32)
        image[inside] = random_color(rng) + grain
    return image


TEXTURES: tuple[Texture, ...] = (noise, grating, clutter)


__all__ = ["TEXTURES", "Texture", "clutter", "draw", "grating", "noise"]
