"""Materials that grew or broke: clouds, ridges, fractals, dead leaves, cells, spots, grain."""

from __future__ import annotations

import numpy as np

from onceover.training.procedural.fields import (
    Float,
    filtered_noise,
    log_uniform,
    pixel_grid,
    random_color,
    spectrum_noise,
    tint,
    turned_grid,
    two_colors,
)


def plasma(rng: np.random.Generator, size: int) -> Float:
    """Midpoint displacement by diamonds and squares (Fournier, Fussell & Carpenter 1982): clouds, rough casting."""
    roughness = float(rng.uniform(0.4, 0.8))
    steps = int(np.ceil(np.log2(max(2, size - 1))))
    field = rng.standard_normal((2, 2)).astype(np.float32)
    for step in range(steps):
        field = _halved(rng, field, roughness**step)
    field = field[:size, :size]
    low, high = field.min(), field.max()
    return tint(rng, (field - low) / (high - low + np.float32(1e-6)))


def _halved(rng: np.random.Generator, field: Float, amplitude: float) -> Float:
    """(n + 1, n + 1) → (2n + 1, 2n + 1): a point in each square's middle, then one on each edge, each displaced."""
    side = 2 * (len(field) - 1) + 1
    finer = np.zeros((side, side), np.float32)
    finer[::2, ::2] = field
    corners = field[:-1, :-1] + field[1:, :-1] + field[:-1, 1:] + field[1:, 1:]
    finer[1::2, 1::2] = corners / 4 + np.float32(amplitude) * rng.standard_normal(corners.shape, dtype=np.float32)
    padded = np.pad(finer, 1, mode="reflect")
    around = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4
    around += np.float32(amplitude) * rng.standard_normal(around.shape, dtype=np.float32)
    finer[::2, 1::2], finer[1::2, ::2] = around[::2, 1::2], around[1::2, ::2]
    return finer


def ridges(rng: np.random.Generator, size: int) -> Float:
    """Veins and wrinkles: octaves of noise folded at zero, as in marble or crumpled foil."""
    value = np.zeros((size, size), np.float32)
    for octave in range(int(rng.integers(1, 5))):
        value += np.float32(0.6**octave) * (1 - np.abs(_band(rng, size, size / 2 ** (octave + 1.5))))
    value = np.clip(0.5 + 0.3 * value, 0, 1) ** np.float32(rng.uniform(0.7, 3))
    return tint(rng, value)


def _band(rng: np.random.Generator, size: int, period: float) -> Float:
    """Noise around one spatial period, in pixels."""
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    radius = np.hypot(fy, fx) * max(3.0, period)
    return filtered_noise(rng, size, radius**2 * np.exp(-(radius**2)))


def spots(rng: np.random.Generator, size: int) -> Float:
    """Islands of one size: leather, orange peel, cast or sprayed surfaces."""
    value = np.tanh(np.float32(rng.uniform(0.5, 5)) * (_band(rng, size, log_uniform(rng, 4, size / 3)) + rng.normal()))
    return tint(rng, 0.5 + 0.4 * value)


def attractor(rng: np.random.Generator, size: int) -> Float:
    """An iterated function system: a few random contractions, drawn by chance (Barnsley 1988)."""
    maps = int(rng.integers(2, 6))
    angles, scales = rng.uniform(0, 2 * np.pi, maps), rng.uniform(0.35, 0.8, maps)
    shears, offsets = rng.uniform(-0.4, 0.4, maps), rng.uniform(-1, 1, (maps, 2))
    points = rng.uniform(-1, 1, (4000, 2))
    counts = np.zeros((size, size), np.float32)
    for step in range(24):
        which = rng.integers(maps, size=len(points))
        cosine, sine = np.cos(angles[which]), np.sin(angles[which])
        x, y = points[:, 0] + shears[which] * points[:, 1], points[:, 1]
        points = scales[which, None] * np.stack([cosine * x - sine * y, sine * x + cosine * y], 1) + offsets[which]
        if step == 5:  # on the attractor by now: fit the frame to it
            low, high = points.min(axis=0), points.max(axis=0)
        if step >= 5:
            cells = ((points - low) / (high - low + 1e-6) * (size - 1)).round().astype(int)
            inside = ((cells >= 0) & (cells < size)).all(axis=1)
            np.add.at(counts, (cells[inside, 1], cells[inside, 0]), 1)
    value = np.log1p(counts)
    dark, bright = two_colors(rng, 0.4)
    return np.asarray(dark + (value / (value.max() + 1e-6))[..., None] * (bright - dark), dtype=np.float32)


def dead_leaves(rng: np.random.Generator, size: int) -> Float:
    """Opaque shapes that hide each other, sizes by a power law, as in photographs (Lee, Mumford & Huang 2001)."""
    y, x = pixel_grid(size)
    image: Float = np.full((size, size, 3), random_color(rng), np.float32)
    for _ in range(int(rng.integers(60, 220))):
        radius = max(2.0, size / 2.5 * 0.04 ** float(rng.random()))
        cy, cx = rng.uniform(-radius, size + radius, 2)
        top, left = max(0, int(cy - radius)), max(0, int(cx - radius))
        rows, columns = slice(top, int(cy + radius) + 2), slice(left, int(cx + radius) + 2)
        dy, dx = y[rows] - np.float32(cy), x[:, columns] - np.float32(cx)
        inside = _leaf(rng, dy, dx, radius)
        shade = (dx * np.float32(rng.normal()) + dy * np.float32(rng.normal())) * np.float32(0.1 / radius)
        grain = np.float32(rng.uniform(0, 0.08)) * rng.standard_normal(inside.shape, dtype=np.float32)
        leaf = random_color(rng) + (shade + grain)[..., None]
        image[rows, columns] = np.where(inside[..., None], leaf, image[rows, columns])
    return image


def _leaf(rng: np.random.Generator, dy: Float, dx: Float, radius: float) -> Float:
    """Where a disc, an ellipse or a polygon of 3 to 6 sides is, around (0, 0)."""
    angle, kind = float(rng.uniform(0, 2 * np.pi)), rng.random()
    u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    if kind < 0.5:
        flat = 1.0 if kind < 0.25 else float(rng.uniform(0.25, 0.9))
        return np.asarray(u**2 + (v / flat) ** 2 < radius**2)
    turns = 2 * np.pi * np.arange(int(rng.integers(3, 7)))[:, None, None]
    turns = turns / len(turns)
    return np.asarray((u * np.cos(turns) + v * np.sin(turns) < 0.75 * radius).all(axis=0))


def cells(rng: np.random.Generator, size: int) -> Float:
    """Voronoi cells: crystal grains, cracked glaze, foam; colors or heights per cell, with seams or without."""
    y, x = pixel_grid(size)
    count = int(log_uniform(rng, 8, 150))
    sites = rng.uniform(-0.05 * size, 1.05 * size, (count, 2)).astype(np.float32)
    owner, nearest = np.empty((size, size), np.intp), np.empty((size, size, 2), np.float32)
    for row in range(size):  # all rows at once would take a kilobyte for each pixel
        distances = np.sqrt((y[row, :, None] - sites[:, 0]) ** 2 + (x.T - sites[:, 1]) ** 2)  # (size, count)
        owner[row] = distances.argmin(axis=-1)
        nearest[row] = np.partition(distances, 1, axis=-1)[:, :2]
    seam = np.clip((nearest[..., 1] - nearest[..., 0]) / np.float32(rng.uniform(1, 5)), 0, 1)
    base, other = two_colors(rng)
    mixed = rng.random((count, 1), dtype=np.float32)
    palette = base + mixed * (other - base) + np.float32(0.05) * rng.standard_normal((count, 3), dtype=np.float32)
    image = palette[owner]
    if rng.random() < 0.4:  # bulging, as foam or pebbles
        image = image * (1.1 - np.float32(0.6) * (nearest[..., 0] / nearest[..., 0].max())[..., None])
    if rng.random() < 0.7:
        image = image * seam[..., None] + random_color(rng) * (1 - seam[..., None])
    return np.asarray(image)


def wood(rng: np.random.Generator, size: int) -> Float:
    """Growth rings cut lengthwise, with fibers."""
    across, along = turned_grid(rng, size)
    sway = np.float32(rng.uniform(1, 8)) * spectrum_noise(rng, size, 2.5)
    rings = across + sway + np.float32(rng.uniform(0, 0.002)) * (along - along.mean()) ** 2
    phase = rings / np.float32(log_uniform(rng, 4, size / 5)) % 1
    fibers = np.float32(rng.uniform(0.02, 0.12)) * spectrum_noise(rng, size, 0.7)
    return tint(rng, 0.2 + 0.6 * phase ** np.float32(rng.uniform(0.5, 3)) + fibers)


__all__ = ["attractor", "cells", "dead_leaves", "plasma", "ridges", "spots", "wood"]
