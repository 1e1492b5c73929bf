"""Flange: a turned steel ring with four bolt holes on a dark rubber belt, under one lamp and a monochrome camera."""

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
    profile,
    stroke,
    walk,
)

OUTER, BORE, HUB, BOLT_CIRCLE, BOLT_HOLE, CHAMFER = 116.0, 42.0, 60.0, 87.0, 12.5, 3.0


@dataclass
class _Part:
    """The ring as it lies under the camera, and what a defect may change of it."""

    center: tuple[float, float]
    holes: list[tuple[float, float]]
    edge: Float  # signed distance to the metal, negative inside
    relief: Float  # height added to the face, pixels
    reflectance: Float  # factor on the brightness of the metal
    gloss: Float  # factor on its highlights


def render(rng: np.random.Generator, defect: Defect | None) -> Float:
    """(SIZE, SIZE, 3) gray."""
    y, x = grid()
    part, turn = _place(rng)
    lamp = -2.2 + float(rng.normal(0, 0.03))
    dy, dx = y - np.float32(part.center[0]), x - np.float32(part.center[1])
    radius, angle = np.sqrt(dy * dy + dx * dx), np.arctan2(dy, dx)
    belt, grooves, patina = _belt(rng), _grooves(rng, radius, angle - np.float32(turn)), clouds(rng, 70, 4)
    grain = noise(rng, 0.9)
    if defect is not None:
        DEFECTS[defect.kind](defect.rng, part)

    metal = inside(part.edge)
    height = np.clip(-part.edge, 0, CHAMFER) + 1.6 * inside(radius - HUB, 2.0) + part.relief
    diffuse, mirror = light(height, lamp, 0.95)
    # Turning leaves circular grooves, so a lamp is mirrored along two opposite sectors of the ring.
    sector = np.abs(np.cos(angle - np.float32(lamp)))
    sheen = 0.30 * sector**10 + 0.16 * sector**2
    steel = 0.26 * diffuse - 0.11 + part.gloss * (sheen * (1 + 0.42 * grooves) + 0.9 * mirror**60)
    steel = part.reflectance * (steel * (1 + 0.11 * grooves + 0.035 * patina + 0.02 * grain))
    shadow = blur(np.roll(metal, (8, 9), (0, 1)), 4.0)
    picture = mix(belt * (1 - 0.6 * shadow), np.clip(steel, 0.02, 1), metal)
    return expose(rng, picture, 0.16)


def _place(rng: np.random.Generator) -> tuple[_Part, float]:
    center = (SIZE / 2 + float(rng.uniform(-4, 4)), SIZE / 2 + float(rng.uniform(-4, 4)))
    turn = 0.4 + float(rng.uniform(-0.12, 0.12))
    angles = turn + np.arange(4) * np.pi / 2
    holes = [(center[0] + BOLT_CIRCLE * float(np.sin(a)), center[1] + BOLT_CIRCLE * float(np.cos(a))) for a in angles]
    radius = distance(center)
    edge = np.maximum(radius - OUTER, BORE - radius)
    for hole in holes:
        edge = np.maximum(edge, BOLT_HOLE - distance(hole))
    flat, ones = np.zeros((CANVAS, CANVAS), np.float32), np.ones((CANVAS, CANVAS), np.float32)
    return _Part(center, holes, edge.astype(np.float32), flat, ones, ones.copy()), turn


def _belt(rng: np.random.Generator) -> Float:
    """Ribbed rubber with some dust; the belt moves, so its pattern has another phase under every part."""
    y, x = grid()
    shift = np.float32(rng.uniform(0, 9))
    ribs = np.sin((x + y + shift) * np.float32(2 * np.pi / 9)) * np.sin((x - y) * np.float32(2 * np.pi / 9))
    dust = np.clip(noise(rng, 2.5) - 2.6, 0, 1)
    rubber = 0.062 + 0.014 * ribs + 0.004 * clouds(rng, 40, 4) + 0.007 * noise(rng, 0.8) + 0.05 * dust
    return np.asarray(rubber, np.float32)


def _grooves(rng: np.random.Generator, radius: Float, angle: Float) -> Float:
    """Marks of the tool: noise over the radius, fading in and out along the turn; standard deviation about 1."""
    wobble = radius + 0.4 * np.sin(angle * 3 + np.float32(rng.uniform(0, 6.28)))
    fine, middle = along(profile(rng, 150, 0.9), wobble), along(profile(rng, 150, 2.5), wobble)
    feed = np.sin(wobble * np.float32(2 * np.pi / 2.4))
    presence = 0.75 + 0.25 * noise(rng, 45)
    return np.asarray(presence * (0.6 * fine + 0.5 * middle + 0.35 * feed), np.float32)


def _polar(part: _Part, radius: float, angle: float) -> tuple[float, float]:
    return part.center[0] + radius * float(np.sin(angle)), part.center[1] + radius * float(np.cos(angle))


def _scratch(rng: np.random.Generator, part: _Part) -> None:
    """A furrow with raised lips, its burnished bottom brighter or darker than the face."""
    angle = float(rng.uniform(0, 2 * np.pi))
    start = _polar(part, float(rng.uniform(64, 104)), angle)
    heading = angle + float(rng.choice([-1, 1])) * float(rng.uniform(1.3, 2.2))
    path = walk(rng, start, heading, float(rng.uniform(55, 110)), 0.004)
    width = float(rng.uniform(1.6, 2.6))
    pressure = np.clip(0.9 + 0.25 * noise(rng, 14), 0.3, 1.2)
    furrow = blur(stroke(path, width), 0.35) * pressure
    part.relief -= 0.8 * furrow
    part.reflectance *= 1 + np.float32(rng.choice([-0.6, 1.3])) * furrow


def _chip(rng: np.random.Generator, part: _Part) -> None:
    """A piece broken out of the rim, with a rough fracture behind it."""
    angle = float(rng.uniform(0, 2 * np.pi))
    piece = blob(rng, _polar(part, OUTER + 1, angle), float(rng.uniform(10, 16)), 0.10)
    fracture = inside(piece - 4 - 1.2 * noise(rng, 8), 1.2)
    part.relief += fracture * (0.5 * clouds(rng, 6, 2) + 0.35 * np.minimum(piece, 4) - 1.4)
    part.reflectance *= 1 + 0.25 * fracture
    part.gloss *= 1 - 0.6 * fracture
    part.edge = np.maximum(part.edge, -piece)


def _rust(rng: np.random.Generator, part: _Part) -> None:
    """A dull, mottled stain with a dark rim and satellites."""
    center = _polar(part, float(rng.uniform(66, 100)), float(rng.uniform(0, 2 * np.pi)))
    stain = blob(rng, center, float(rng.uniform(11, 20)), 0.2)
    cover = inside(stain, 3.0) * np.clip(0.85 + 0.2 * clouds(rng, 7, 3), 0.1, 1)
    rim = inside(np.abs(stain) - np.float32(1), 2.0)
    part.reflectance *= 1 - 0.3 * cover - 0.2 * rim
    part.gloss *= 1 - 0.8 * cover
    part.relief += 0.22 * cover * clouds(rng, 3, 2)


def _burr(rng: np.random.Generator, part: _Part) -> None:
    """A jagged bright lip left by the tool, hanging into the bore or a bolt hole, or over the rim."""
    y, x = grid()
    kind = int(rng.integers(3))
    center, radius = ((part.center, BORE), (part.holes[int(rng.integers(4))], BOLT_HOLE), (part.center, OUTER))[kind]
    dy, dx = y - np.float32(center[0]), x - np.float32(center[1])
    middle = np.float32(rng.uniform(-np.pi, np.pi))
    apart = np.abs((np.arctan2(dy, dx) - middle + np.float32(np.pi)) % np.float32(2 * np.pi) - np.float32(np.pi))
    arc = apart * np.float32(radius) - np.float32(rng.uniform(20, 28))  # signed distance to the arc's ends
    reach = (4.6 + 1.4 * noise(rng, 3.5) + 0.9 * noise(rng, 10)) * inside(arc, 6.0)
    overhang = (distance(center) - np.float32(radius)) * (1 if kind == 2 else -1)  # pixels beyond the edge
    lip = inside(np.maximum(overhang - reach, -overhang - 2.5), 0.6) * inside(arc, 2.0)
    part.edge = np.where(lip > 0.5, np.minimum(part.edge, np.maximum(overhang - reach, -CHAMFER)), part.edge)
    part.relief += lip * (1.5 + 0.9 * noise(rng, 2.5))
    part.reflectance *= 1 + 0.6 * lip


DEFECTS = {"scratch": _scratch, "chip": _chip, "rust": _rust, "burr": _burr}
PRODUCT = Product("flange", tuple(DEFECTS), render, monochrome=True)
