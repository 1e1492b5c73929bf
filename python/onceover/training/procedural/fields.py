"""What the textures are made of: coordinates, noise with a 1/f spectrum, random colors. numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating[Any]]


def pixel_grid(size: int) -> tuple[Float, Float]:
    """Row and column of every pixel, shapes (size, 1) and (1, size)."""
    axis = np.arange(size, dtype=np.float32)
    return axis[:, None], axis[None, :]


def turned_grid(rng: np.random.Generator, size: int, bend: float = 0.0) -> tuple[Float, Float]:
    """Pixel coordinates (across, along), each (size, size), of axes turned at random: upright two times in five.

    bend: pixels by which smooth noise moves each point, as cloth or a crooked camera does.
    """
    y, x = pixel_grid(size)
    angle = 0.0 if rng.random() < 0.4 else float(rng.uniform(0, np.pi))
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    across = x * cosine + y * sine + np.float32(rng.uniform(0, size))
    along = y * cosine - x * sine + np.float32(rng.uniform(0, size))
    if bend:
        across = across + np.float32(bend) * spectrum_noise(rng, size, 2.5)
        along = along + np.float32(bend) * spectrum_noise(rng, size, 2.5)
    return across, along


def spectrum_noise(rng: np.random.Generator, size: int, exponent: float) -> Float:
    """(size, size) noise of mean 0 and standard deviation 1 whose amplitude falls as 1 / frequency^exponent."""
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    radius = np.hypot(fy, fx)
    radius[0, 0] = 1.0  # the mean is removed below
    return _field(np.fft.rfft2(rng.standard_normal((size, size), dtype=np.float32)) / radius**exponent, size)


def filtered_noise(rng: np.random.Generator, size: int, gain: Float) -> Float:
    """White noise times `gain` (size, size // 2 + 1) over the frequencies; mean 0 and standard deviation 1."""
    return _field(np.fft.rfft2(rng.standard_normal((size, size), dtype=np.float32)) * gain, size)


def _field(spectrum: NDArray[np.complexfloating[Any, Any]], size: int) -> Float:
    spectrum[0, 0] = 0.0
    field = np.fft.irfft2(spectrum, (size, size)).astype(np.float32)
    return np.asarray(field / (field.std() + np.float32(1e-6)))


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A size between two: each octave as likely as the next."""
    return float(np.exp(rng.uniform(np.log(low), np.log(max(low, high)))))


def random_color(rng: np.random.Generator) -> Float:
    """A random color, gray half of the time; (3,) in 0 … 1."""
    channels = rng.random(1 if rng.random() < 0.5 else 3, dtype=np.float32)
    return np.asarray(channels * np.ones(3, np.float32))


def tint(rng: np.random.Generator, value: Float) -> Float:
    """(size, size) in about 0 … 1 → (size, size, 3) on the line between two random colors."""
    dark, bright = random_color(rng), random_color(rng)
    return np.asarray(dark + value[..., None] * (bright - dark))


def two_colors(rng: np.random.Generator, least: float = 0.25) -> tuple[Float, Float]:
    """Two random colors that differ by at least `least` in brightness, so that what they draw can be seen."""
    first = random_color(rng)
    shift = float(rng.uniform(least, 0.7)) * (1 if first.mean() < 0.5 else -1)
    second = np.clip(random_color(rng) * 0.4 + first * 0.6 + np.float32(shift), 0, 1)
    return first, np.asarray(second, dtype=np.float32)
