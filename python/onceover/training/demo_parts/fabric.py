"""Fabric: a 2/2 twill of blue warp and paler weft over a dark table; yarns wander, swell and differ in shade."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onceover.training.demo_parts.product import Defect, Product
from onceover.training.demo_parts.surface import (
    CANVAS,
    SIZE,
    Float,
    along,
    blob,
    blur,
    clouds,
    distance,
    expose,
    grid,
    inside,
    light,
    mix,
    noise,
    paint,
    profile,
    stroke,
    walk,
)

PITCH = 5.5  # pixels from yarn to yarn
YARNS = int(SIZE / PITCH) + 12  # with those that reach in from outside
WARP_COLOR, WEFT_COLOR = paint(0.20, 0.26, 0.36), paint(0.36, 0.39, 0.43)
RAW_COLOR, TABLE_COLOR = paint(0.66, 0.60, 0.48), paint(0.012, 0.012, 0.014)  # undyed yarn; what lies below


@dataclass
class _Cloth:
    """The weave, and what a defect may change of it. Maps are (CANVAS, CANVAS)."""

    u: Float  # position across the warp yarns, in yarns
    v: Float  # position across the weft yarns, in yarns
    warp: Float  # how much of each warp yarn is there, 0 … 1
    weft: Float
    relief: Float  # height added, in yarn thicknesses
    tint: Float  # (3, CANVAS, CANVAS) factor on the color
    lump: Float  # cover of yarn that lies on top of the weave


def render(rng: np.random.Generator, defect: Defect | None) -> Float:
    """(SIZE, SIZE, 3) RGB."""
    cloth = _weave(rng)
    warp_shade, weft_shade = (1 + 0.05 * rng.standard_normal(YARNS)).astype(np.float32), _streaks(rng)
    warp_fiber, weft_fiber = noise(rng, 5.0, 0.7), noise(rng, 0.7, 5.0)
    swelling, wear, dye = noise(rng, 25), clouds(rng, 90, 3), (1 + 0.012 * rng.standard_normal(3)).astype(np.float32)
    if defect is not None:
        DEFECTS[defect.kind](defect.rng, cloth)

    width = 0.47 + 0.025 * swelling
    warp_height, warp_twist = _yarn(cloth.u, cloth.v, width, cloth.warp)
    weft_height, weft_twist = _yarn(cloth.v, cloth.u, width, cloth.weft)
    # Two over, two under, moved by one from yarn to yarn: the crossing (i, j) shows the warp where (i + j) % 4 < 2.
    wave = 0.42 * np.sin((cloth.u + cloth.v - 0.5) * np.float32(np.pi / 2))
    warp_top, weft_top = warp_height + wave * cloth.warp, weft_height - wave * cloth.weft
    front = inside(weft_top - warp_top, 0.06)

    columns = np.clip(cloth.u + 4, 0, YARNS - 1).astype(np.int32)
    rows = np.clip(cloth.v + 4, 0, YARNS - 1).astype(np.int32)
    warp_light = warp_shade[columns] * (1 + 0.10 * warp_fiber + 0.07 * warp_twist)
    weft_light = weft_shade[rows] * (1 + 0.07 * weft_fiber + 0.06 * weft_twist)
    top = np.maximum(warp_top, weft_top)
    depth = np.clip(0.5 + 0.45 * top, 0.06, 1.1)
    color = mix(weft_light * WEFT_COLOR, warp_light * WARP_COLOR, front)
    present = inside(0.12 - np.maximum(warp_height * cloth.warp, weft_height * cloth.weft), 0.12)
    diffuse, _ = light((top * present + cloth.relief) * np.float32(0.26 * PITCH), -2.3, 0.9)
    color = color * ((0.25 + 0.95 * diffuse) * depth * (1 + 0.03 * wear)) * paint(*dye)
    color = mix(TABLE_COLOR, color, present)
    knot = (0.3 + 0.9 * diffuse) * (1 + 0.12 * warp_fiber + 0.12 * weft_fiber)
    color = mix(color, knot * RAW_COLOR, cloth.lump)
    return expose(rng, color * cloth.tint, 0.2)


def _weave(rng: np.random.Generator) -> _Cloth:
    y, x = grid()
    skew = np.float32(rng.uniform(-0.015, 0.015))
    u = (x + skew * y + 0.5 * noise(rng, 130) + 0.12 * noise(rng, 40, 14)) / np.float32(PITCH)
    v = (y - skew * x + 0.7 * noise(rng, 130) + 0.12 * noise(rng, 14, 40)) / np.float32(PITCH)
    u += 0.05 * along(profile(rng, SIZE, 9), x) + np.float32(rng.uniform(0, 4))
    v += 0.05 * along(profile(rng, SIZE, 9), y) + np.float32(rng.uniform(0, 4))
    ones, flat = np.ones((CANVAS, CANVAS), np.float32), np.zeros((CANVAS, CANVAS), np.float32)
    return _Cloth(u, v, ones, ones.copy(), flat, np.ones((3, CANVAS, CANVAS), np.float32), flat.copy())


def _streaks(rng: np.random.Generator) -> Float:
    """Shades of the weft yarns: one bobbin after the other, each a little lighter or darker."""
    return (1 + 0.03 * rng.standard_normal(YARNS) + 0.03 * np.repeat(rng.standard_normal(YARNS), 8)[:YARNS]).astype(
        np.float32
    )


def _yarn(across: Float, run: Float, width: Float, present: Float) -> tuple[Float, Float]:
    """(height 0 … 1, twist −1 … 1) of parallel round yarns at this position across and along them, in yarns."""
    offset = (across - np.floor(across) - np.float32(0.5)) / np.maximum(width * np.sqrt(present), 0.02)
    height = np.sqrt(np.clip(1 - offset * offset, 0, 1))
    return height, np.sin(np.float32(2 * np.pi) * (np.float32(1.6) * run + np.float32(0.55) * offset))


def _missing_thread(rng: np.random.Generator, cloth: _Cloth) -> None:
    """One yarn is missing over a stretch; those it held sink, its neighbors lean into the gap."""
    vertical = bool(rng.random() < 0.5)
    across, run = (cloth.u, cloth.v) if vertical else (cloth.v, cloth.u)
    yarn = np.floor(rng.uniform(8, SIZE / PITCH - 8)) + 0.5
    start, length = rng.uniform(-2, 10), rng.uniform(18, 45)
    ends = np.maximum(np.float32(start) - run, run - np.float32(start + length))
    gap = across - np.float32(yarn)
    stretch = inside(ends, 0.8)
    missing = inside(np.abs(gap) - np.float32(0.5), 0.05) * stretch
    (cloth.warp if vertical else cloth.weft)[...] *= 1 - missing
    cloth.tint *= 1 - 0.45 * inside(np.abs(gap) - np.float32(0.45), 0.3) * stretch
    across += 0.1 * np.sign(gap) * np.clip(1.5 - np.abs(gap), 0, 1) * (np.abs(gap) > 0.5) * stretch


def _knot(rng: np.random.Generator, cloth: _Cloth) -> None:
    """A thread was tied: a bump of wound yarn with two loose ends, the weave pushed aside."""
    center = (float(rng.uniform(40, SIZE - 40)), float(rng.uniform(40, SIZE - 40)))
    away = distance(center)
    radius = float(rng.uniform(8, 11))
    push = 0.25 * np.exp(-((away / np.float32(1.3 * radius)) ** 2))
    y, x = grid()
    cloth.u += push * np.float32(1 / radius) * (center[1] - x)
    cloth.v += push * np.float32(1 / radius) * (center[0] - y)
    body = inside(blob(rng, center, radius, 0.12), 0.8)
    heading = float(rng.uniform(0, 2 * np.pi))
    ends = np.zeros_like(body)
    for turn in (0.0, np.pi + float(rng.normal(0, 0.5))):
        ends = np.maximum(ends, stroke(walk(rng, center, heading + turn, rng.uniform(16, 34), 0.05), 2.4))
    winding = np.sin(np.float32(2 * np.pi / 3.2) * (np.cos(heading) * y - np.sin(heading) * x) + 0.6 * noise(rng, 6))
    cover = np.maximum(body, ends)
    cloth.relief += 2.2 * blur(body, 1.5) + 0.8 * blur(ends, 0.7) + 0.3 * body * winding
    cloth.lump = np.maximum(cloth.lump, cover)
    cloth.tint *= 1 - 0.55 * blur(np.roll(cover, (4, 5), (0, 1)), 2.0) * (1 - cover)


def _oil(rng: np.random.Generator, cloth: _Cloth) -> None:
    """A soaked-in stain, browner and darker, running along the yarns, darkest near its rim."""
    center = (float(rng.uniform(40, SIZE - 40)), float(rng.uniform(40, SIZE - 40)))
    stain = blob(rng, center, float(rng.uniform(15, 27)), 0.16) + 1.5 * noise(rng, 12, 2) + 1.5 * noise(rng, 2, 12)
    soaked = inside(stain, 4.0) * (0.85 + 0.08 * clouds(rng, 10, 3)) + 0.12 * inside(np.abs(stain + 2) - 1, 2.0)
    cloth.tint *= 1 - np.clip(soaked, 0, 1.1) * paint(0.55, 0.62, 0.72)


def _hole(rng: np.random.Generator, cloth: _Cloth) -> None:
    """Yarns are cut, each at its own length, so the edge is frayed; a few fibers still cross."""
    center = (float(rng.uniform(40, SIZE - 40)), float(rng.uniform(40, SIZE - 40)))
    radius = float(rng.uniform(10, 16))
    edge = blob(rng, center, radius, 0.12)
    fray = rng.uniform(-1, 4.5, (2, YARNS)).astype(np.float32)
    columns = np.clip(cloth.u + 4, 0, YARNS - 1).astype(np.int32)
    rows = np.clip(cloth.v + 4, 0, YARNS - 1).astype(np.int32)
    cloth.warp *= 1 - inside(edge + fray[0][columns], 1.2)
    cloth.weft *= 1 - inside(edge + fray[1][rows], 1.2)
    for _ in range(int(rng.integers(2, 6))):
        angle = float(rng.uniform(0, 2 * np.pi))
        start = (center[0] + radius * np.sin(angle), center[1] + radius * np.cos(angle))
        fiber = stroke(walk(rng, start, angle + np.pi + rng.normal(0, 0.7), rng.uniform(8, 20), 0.08), 0.8)
        cloth.lump = np.maximum(cloth.lump, 0.7 * fiber)
    cloth.relief -= 0.8 * inside(edge - 2, 4.0)


DEFECTS = {"missing_thread": _missing_thread, "knot": _knot, "oil": _oil, "hole": _hole}
PRODUCT = Product("fabric", tuple(DEFECTS), render)
