"""What happens to a surface last: scratches, relief, light that falls off, highlights."""

from __future__ import annotations

import cv2
import numpy as np

from onceover.training.procedural.fields import Float, log_uniform, pixel_grid, random_color, spectrum_noise


def scratched(rng: np.random.Generator, image: Float) -> Float:
    """A few thin lines and arcs, brighter or darker than what they cross, some with a light and a dark side."""
    size = len(image)
    mark = np.zeros((size, size), np.float32)
    for _ in range(int(log_uniform(rng, 1, 25))):
        start = rng.uniform(0, size, 2)
        heading, bend = rng.uniform(0, 2 * np.pi), rng.normal() * 1.5
        along = np.linspace(0, 1, 12)[:, None]
        angles = heading + bend * along
        points = start + log_uniform(rng, size / 12, size) * along * np.concatenate([np.cos(angles), np.sin(angles)], 1)
        fixed = np.round(points * 16).astype(np.int32).reshape(-1, 1, 2)  # (12, 2) → (12, 1, 2), in 16ths of a pixel
        line = np.zeros((size, size), np.uint8)  # OpenCV smooths edges in 8 bits only
        cv2.polylines(line, [fixed], False, 255, 1 + int(rng.random() < 0.2), cv2.LINE_AA, shift=4)
        depth = rng.uniform(0.1, 0.5) * (1 if rng.random() < 0.6 else -1)
        mark += np.float32(depth / 255) * line
    if rng.random() < 0.3:
        mark = mark - np.float32(0.7) * np.roll(mark, (1, 1), (0, 1))
    return np.asarray(image + mark[..., None])


def embossed(rng: np.random.Generator, image: Float) -> Float:
    """The brightness read as height and lit from one side: stamped, molded, etched."""
    height = image.mean(axis=-1)
    dy, dx = np.gradient(height)
    angle = rng.uniform(0, 2 * np.pi)
    relief = np.float32(rng.uniform(1, 4)) * (dx * np.float32(np.cos(angle)) + dy * np.float32(np.sin(angle)))
    kept = np.float32(rng.uniform(0, 0.6))
    ground = random_color(rng) * np.float32(0.6) + np.float32(0.2)
    return np.asarray(kept * image + (1 - kept) * ground + relief[..., None])


def lit(rng: np.random.Generator, image: Float) -> Float:
    """Light that falls off to one side or around a spot, unevenly."""
    y, x = (2 * axis / np.float32(len(image)) - 1 for axis in pixel_grid(len(image)))
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        falloff = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    else:
        cy, cx = rng.uniform(-0.7, 0.7, 2)
        falloff = 0.5 - (y - np.float32(cy)) ** 2 - (x - np.float32(cx)) ** 2
    uneven = np.float32(0.15) * spectrum_noise(rng, len(image), 2.5)
    return np.asarray(image * np.clip(1 + np.float32(rng.uniform(0.1, 0.5)) * (falloff + uneven), 0.1, 2)[..., None])


def glossy(rng: np.random.Generator, image: Float) -> Float:
    """One or two soft highlights, round or stretched, that wash the color out."""
    y, x = pixel_grid(len(image))
    for _ in range(int(rng.integers(1, 3))):
        cy, cx = rng.uniform(0, len(image), 2)
        angle = rng.uniform(0, np.pi)
        dy, dx = y - np.float32(cy), x - np.float32(cx)
        u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        long, short = (log_uniform(rng, len(image) / 20, len(image)) for _ in range(2))
        spot = np.float32(rng.uniform(0.2, 0.9)) * np.exp(-((u / long) ** 2) - (v / short) ** 2)
        image = image + (1 - image) * spot[..., None].astype(np.float32)
    return image


# How often each is applied, in this order.
FINISHES = ((embossed, 0.12), (scratched, 0.25), (lit, 0.45), (glossy, 0.15))


def finished(rng: np.random.Generator, image: Float) -> Float:
    """The image, and on it each finish by its chance."""
    for finish, chance in FINISHES:
        if rng.random() < chance:
            image = finish(rng, image)
    return image


__all__ = ["FINISHES", "embossed", "finished", "glossy", "lit", "scratched"]
