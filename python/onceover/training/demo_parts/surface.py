"""What all demo parts are drawn with: a supersampled canvas, smooth noise, soft shapes, strokes and light.

Coordinates are pixels of the final image, (y, x), pixel centers at half integers; the canvas has SUPERSAMPLING
samples per pixel along each axis. Colors are linear light 0 … 1, planes first: (3, CANVAS, CANVAS).
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

SIZE = 288
SUPERSAMPLING = 1.5
CANVAS = int(SIZE * SUPERSAMPLING)


@lru_cache(maxsize=1)
def grid() -> tuple[Float, Float]:
    """(y, x) of every canvas sample, (CANVAS, CANVAS) each."""
    line = (np.arange(CANVAS, dtype=np.float32) + 0.5) / SUPERSAMPLING
    y, x = (np.ascontiguousarray(a) for a in np.meshgrid(line, line, indexing="ij"))
    y.flags.writeable = x.flags.writeable = False
    return y, x


def distance(point: tuple[float, float]) -> Float:
    """Distance of every canvas sample from a point (y, x)."""
    y, x = grid()
    dy, dx = y - np.float32(point[0]), x - np.float32(point[1])
    return np.asarray(np.sqrt(dy * dy + dx * dx), np.float32)


def noise(rng: np.random.Generator, scale_y: float, scale_x: float | None = None, samples: int = CANVAS) -> Float:
    """Smooth noise with features of the given size in pixels, standard deviation about 1, (samples, samples)."""
    scale_x = scale_y if scale_x is None else scale_x
    rows, columns = int(np.ceil(SIZE / scale_y)) + 2, int(np.ceil(SIZE / scale_x)) + 2
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    coarse *= np.float32(1.3)  # what interpolation takes away
    return np.asarray(cv2.resize(coarse, (samples, samples), interpolation=cv2.INTER_CUBIC), np.float32)


def clouds(rng: np.random.Generator, coarsest: float, octaves: int) -> Float:
    """Noise of several scales, each half as large and 0.55 times as strong as the one before."""
    total = np.zeros((SIZE, SIZE), np.float32)  # none of the scales needs the samples between the pixels
    for octave in range(octaves):
        total += np.float32(0.55**octave) * noise(rng, coarsest / 2**octave, samples=SIZE)
    return np.asarray(cv2.resize(total, (CANVAS, CANVAS)), np.float32)


def profile(rng: np.random.Generator, length: float, scale: float) -> Float:
    """Noise along a line: one value per tenth of a pixel over `length` pixels, features of `scale` pixels."""
    coarse = rng.standard_normal((1, int(length / scale) + 3), dtype=np.float32)
    return np.asarray(1.2 * cv2.resize(coarse, (int(length * 10), 1), interpolation=cv2.INTER_CUBIC)[0], np.float32)


def along(values: Float, position: Float) -> Float:
    """The noise of `profile` at these positions (pixels), held constant beyond its ends."""
    return values[np.clip(position * 10, 0, len(values) - 1).astype(np.int32)]


def inside(signed_distance: Float, softness: float = 0.5) -> Float:
    """1 where the signed distance is negative, 0 where positive, smooth over ±softness pixels."""
    t = np.clip(0.5 - signed_distance / np.float32(2 * softness), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def blob(rng: np.random.Generator, center: tuple[float, float], radius: float, roughness: float) -> Float:
    """Signed distance (about) to an irregular closed outline around `center`."""
    y, x = grid()
    dy, dx = y - np.float32(center[0]), x - np.float32(center[1])
    stretch, turn = np.float32(rng.uniform(1.0, 1.5)), float(rng.uniform(0, np.pi))
    a = np.cos(turn) * dx + np.sin(turn) * dy
    b = np.cos(turn) * dy - np.sin(turn) * dx
    edge = clouds(rng, max(4.0, 0.8 * radius), 3)
    return np.asarray(np.sqrt((a / stretch) ** 2 + (b * stretch) ** 2) - radius * (1 + roughness * edge), np.float32)


def walk(rng: np.random.Generator, start: tuple[float, float], heading: float, length: float, bend: float) -> Float:
    """A wandering line, (n, 2) points (y, x), one per 2 pixels. bend: radians of turn per pixel (deviation)."""
    count = max(2, int(length / 2))
    turns = np.cumsum(rng.standard_normal(count) * bend * 2) + rng.normal(0, bend) * 2 * np.arange(count)
    angles = heading + turns
    steps = 2 * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    return np.asarray(np.asarray(start) + np.cumsum(steps, axis=0), np.float32)


def stroke(points: Float, width: float) -> Float:
    """Coverage 0 … 1 of a polyline of this width in pixels, antialiased."""
    canvas = np.zeros((CANVAS, CANVAS), np.uint8)
    fixed = np.round((points[:, ::-1] * SUPERSAMPLING - 0.5) * 16).astype(np.int32)
    cv2.polylines(canvas, [fixed], False, 255, max(1, round(width * SUPERSAMPLING)), cv2.LINE_AA, shift=4)
    return np.asarray(canvas / np.float32(255), np.float32)


def blur(canvas: Float, sigma: float) -> Float:
    """Gaussian blur, sigma in pixels of the image."""
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), sigma * SUPERSAMPLING), np.float32)


def slopes(height: Float) -> tuple[Float, Float]:
    """(dh/dy, dh/dx) of a height map in pixels."""
    gain = SUPERSAMPLING / 8.0
    down = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=gain)
    right = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=gain)
    return np.asarray(down, np.float32), np.asarray(right, np.float32)


def light(height: Float, azimuth: float, elevation: float) -> tuple[Float, Float]:
    """(diffuse, mirror) of a height map under a lamp: cosines with the lamp, and with half way to the camera.

    azimuth: where the lamp stands, radians, 0 is right and π/2 is the lower edge of the image.
    """
    down, right = slopes(height)
    length = 1 / np.sqrt(1 + down * down + right * right)
    ly, lx, lz = np.sin(azimuth) * np.cos(elevation), np.cos(azimuth) * np.cos(elevation), np.sin(elevation)
    diffuse = np.clip((lz - right * np.float32(lx) - down * np.float32(ly)) * length, 0, 1)
    half = np.sqrt(lx * lx + ly * ly + (lz + 1) ** 2)
    mirror = np.clip((lz + 1 - right * np.float32(lx) - down * np.float32(ly)) * length / np.float32(half), 0, 1)
    return np.asarray(diffuse, np.float32), np.asarray(mirror, np.float32)


def paint(red: float, green: float, blue: float) -> Float:
    """A color that multiplies with planes, (3, 1, 1)."""
    return np.asarray((red, green, blue), np.float32).reshape(3, 1, 1)


def mix(below: Float, above: Float, cover: Float) -> Float:
    """`above` laid over `below`, cover 0 … 1; gray (CANVAS, CANVAS) or color (3, CANVAS, CANVAS)."""
    return np.asarray(below + cover * (above - below), np.float32)


def expose(rng: np.random.Generator, canvas: Float, gradient: float) -> Float:
    """Uneven and slightly varying lamp light and the lens: canvas, gray or color → (SIZE, SIZE, 3)."""
    y, x = grid()
    turn, brightness = rng.uniform(0, 2 * np.pi), rng.uniform(0.94, 1.06)
    slope = (np.cos(turn) * (x - SIZE / 2) + np.sin(turn) * (y - SIZE / 2)) * np.float32(gradient / SIZE)
    vignette = 1 - np.float32(0.22 / SIZE**2) * ((x - SIZE / 2) ** 2 + (y - SIZE / 2) ** 2)
    lamp = (np.float32(brightness) * (1 + slope) * vignette).astype(np.float32)
    planes = canvas[None] if canvas.ndim == 2 else canvas
    small = [cv2.resize(plane * lamp, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for plane in planes]
    soft = [cv2.GaussianBlur(plane, (0, 0), 0.55) for plane in small]
    return np.stack([np.asarray(plane, np.float32) for plane in (soft if len(soft) == 3 else soft * 3)], axis=-1)
