"""Board: a bare circuit board, green solder mask over copper, tinned pads, white legend; one layout, drawn once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from onceover.training.demo_parts.product import Defect, Product
from onceover.training.demo_parts.surface import (
    CANVAS,
    SIZE,
    SUPERSAMPLING,
    Float,
    blob,
    blur,
    clouds,
    expose,
    inside,
    light,
    mix,
    noise,
    paint,
    stroke,
    walk,
)

Box = tuple[float, float, float, float]  # top, left, bottom, right in pixels of the image
GREEN, OVER_COPPER, RESIN = paint(0.018, 0.105, 0.046), paint(0.030, 0.195, 0.072), paint(0.30, 0.31, 0.15)
COPPER, TIN, WHITE, DARK = paint(0.42, 0.22, 0.11), paint(0.52, 0.53, 0.54), paint(0.66, 0.67, 0.64), paint(0, 0, 0)
PIN_PITCH, PIN_ROWS, PIN_LEFT = 21.0, ((60.0, 86.0), (160.0, 186.0)), 40.0
PINS: tuple[Box, ...] = tuple(
    (top, left, bottom, left + 12)
    for top, bottom in PIN_ROWS
    for left in (PIN_LEFT + PIN_PITCH * pin for pin in range(8))
)
CHIPS: tuple[Box, ...] = tuple(
    (top, left, top + 22, left + 18) for top in (66.0, 112.0, 158.0) for left in (226.0, 256.0)
) + tuple((226.0, left, 248.0, left + 18) for left in (66.0, 96.0, 146.0, 176.0))
VIAS = (
    (30.0, 60.0), (30.0, 123.0), (36.0, 186.0), (123.0, 82.0), (123.0, 145.0), (212.0, 40.0),
    (214.0, 209.0), (262.0, 128.0),
)  # fmt: skip
# Legend: closed or open polylines (y, x); defects address them by index.
LEGEND: tuple[tuple[tuple[float, float], ...], ...] = (
    ((94, 36), (94, 206), (152, 206), (152, 36), (130, 36), (130, 44), (116, 44), (116, 36), (94, 36)),
    ((60, 220), (60, 280), (94, 280), (94, 220), (60, 220)),
    ((106, 220), (106, 280), (140, 280), (140, 220), (106, 220)),
    ((152, 220), (152, 280), (186, 280), (186, 220), (152, 220)),
    ((220, 60), (220, 120), (254, 120), (254, 60), (220, 60)),
    ((220, 140), (220, 200), (254, 200), (254, 140), (220, 140)),
)
GLYPHS = {  # strokes on a 4 × 6 grid (row, column)
    "R": (((6, 0), (0, 0), (0, 3), (1, 4), (2, 4), (3, 3), (3, 0)), ((3, 2), (6, 4))),
    "U": (((0, 0), (5, 0), (6, 1), (6, 3), (5, 4), (0, 4)),),
    "C": (((1, 4), (0, 3), (0, 1), (1, 0), (5, 0), (6, 1), (6, 3), (5, 4)),),
    "1": (((1, 1), (0, 2), (6, 2)), ((6, 1), (6, 3))),
    "2": (((1, 0), (0, 1), (0, 3), (1, 4), (2, 4), (6, 0), (6, 4)),),
    "4": (((6, 3), (0, 3), (4, 0), (4, 4)),),
    "7": (((0, 0), (0, 4), (6, 1)),),
}
TEXTS = (("U2", 116.0, 108.0, 2.6), ("R1", 42.0, 236.0, 2.0), ("R2", 196.0, 236.0, 2.0), ("C4", 262.0, 78.0, 2.0),
         ("C7", 262.0, 158.0, 2.0), ("R7C1", 16.0, 222.0, 2.0))  # fmt: skip


@dataclass(frozen=True)
class _Design:
    """Covers 0 … 1 of the layers as designed, and which pad a sample belongs to (0: none); (CANVAS, CANVAS)."""

    copper: Float
    solder: Float
    legend: Float
    opening: Float
    numbers: NDArray[np.uint8]
    drill: Float


@dataclass
class _Layers:
    """Covers 0 … 1 of the layers in board coordinates, (CANVAS, CANVAS), and heights added to the solder."""

    copper: Float
    solder: Float
    legend: Float
    opening: Float  # where the mask is open: copper shows unless solder covers it
    relief: Float = field(default_factory=lambda: np.zeros((CANVAS, CANVAS), np.float32))


def render(rng: np.random.Generator, defect: Defect | None) -> Float:
    """(SIZE, SIZE, 3) RGB."""
    shift, print_shift = rng.uniform(-2.5, 2.5, 2), rng.normal(0, 0.35, 2)
    turn = float(rng.normal(0, 0.006))
    amounts = rng.uniform(0.85, 1.15, len(PINS) + len(CHIPS) + 1).astype(np.float32)
    weave, mottle = noise(rng, 2.5, 9) + noise(rng, 9, 2.5), clouds(rng, 60, 3)
    grain, tarnish = noise(rng, 1.0), clouds(rng, 9, 3)
    ink, lamp = np.clip(0.5 + 0.13 * noise(rng, 2.2), 0.2, 0.8), -2.0 + float(rng.normal(0, 0.04))
    design = _layout()
    layers = _Layers(*(layer.copy() for layer in (design.copper, design.solder, design.legend, design.opening)))
    if defect is not None:
        DEFECTS[defect.kind](defect.rng, layers)

    copper, solder, opening, relief = (
        _place(a, shift, turn) for a in (layers.copper, layers.solder, layers.opening, layers.relief)
    )
    legend = inside(ink - _place(layers.legend, shift + print_shift, turn), 0.12)
    amount = amounts[cv2.warpAffine(design.numbers, _affine(shift, turn), (CANVAS, CANVAS), flags=cv2.INTER_NEAREST)]
    mask_height = 0.9 * blur(copper, 0.7) + 0.03 * weave - 0.7 * blur(opening, 0.5)
    dome = 2.6 * amount * blur(solder, 1.6) * solder + relief
    diffuse, mirror = light(mask_height + dome + 0.25 * legend, lamp, 0.85)

    mask = mix(GREEN, OVER_COPPER, copper)
    lit = (0.35 + 0.8 * diffuse) * (1 + 0.05 * weave + 0.05 * mottle)
    board = mask * lit + 0.22 * mirror**50
    bare = (0.3 + 0.75 * diffuse) * (1 + 0.08 * grain + 0.07 * tarnish)
    ground = mix(RESIN, COPPER, copper)
    board = mix(board, bare * ground, opening)
    # Tin mirrors a bright lamp box over a dark room: the dome shows a band of each.
    tin = 0.18 + 0.5 * diffuse + 0.75 * inside(0.955 - mirror, 0.05) + 0.05 * tarnish + 0.04 * grain
    board = mix(board, tin * TIN, solder)
    board = mix(board, (0.45 + 0.6 * diffuse) * (1 + 0.03 * grain) * WHITE, legend)
    drill = _place(design.drill, shift, turn)
    return expose(rng, mix(board, DARK, drill), 0.18)


def _affine(shift: NDArray[np.float64], turn: float) -> NDArray[np.float64]:
    matrix = np.array(cv2.getRotationMatrix2D((CANVAS / 2, CANVAS / 2), float(np.degrees(turn)), 1.0), np.float64)
    matrix[:, 2] += np.asarray(shift * SUPERSAMPLING)
    return matrix


def _place(layer: Float, shift: NDArray[np.float64], turn: float) -> Float:
    """Board coordinates → camera."""
    return np.asarray(cv2.warpAffine(layer, _affine(shift, turn), (CANVAS, CANVAS)), np.float32)


@lru_cache(maxsize=1)
def _layout() -> _Design:
    """The drawing that all boards are made from."""
    copper, solder, legend, drill = (np.zeros((CANVAS, CANVAS), np.float32) for _ in range(4))
    numbers = np.zeros((CANVAS, CANVAS), np.uint8)
    for number, box in enumerate((*PINS, *CHIPS), start=1):
        pad = rounded_box(box)
        solder = np.maximum(solder, pad)
        numbers[cv2.dilate(pad, np.ones((5, 5))) > 0] = number
    for trace in _traces():
        copper = np.maximum(copper, stroke(np.asarray(trace, np.float32), 4.5))
    for via in VIAS:
        copper, drill = np.maximum(copper, _disc(via, 6.5)), np.maximum(drill, _disc(via, 2.6))
    plane = rounded_box((268, 0, 300, 60)) + rounded_box((200, 256, 300, 300))
    copper = np.maximum(copper, np.clip(plane, 0, 1))
    copper = np.maximum(copper, cv2.dilate(solder, np.ones((5, 5))))
    for line in (*LEGEND, *_letters()):
        legend = np.maximum(legend, stroke(np.asarray(line, np.float32), 1.4))
    fiducial, hole = _disc((30, 24), 7.0), (236.0, 30.0)
    solder, copper = np.maximum(solder, fiducial), np.maximum(copper, _disc(hole, 19))
    solder = np.maximum(solder, _disc(hole, 15))
    opening = np.asarray(cv2.dilate(solder, np.ones((3, 3))), np.float32)
    legend = np.maximum(legend, _disc((104, 46), 2.6)) * (1 - opening)
    return _Design(copper, solder, legend, opening, numbers, np.maximum(drill, _disc(hole, 10.5)))


def _traces() -> list[list[tuple[float, float]]]:
    """Copper runs from pad to via or pad, with 45° corners."""

    def pin(index: int) -> tuple[float, float]:
        top, left, bottom, right = PINS[index]
        return (top + bottom) / 2, (left + right) / 2

    runs = [[pin(1), (44.0, pin(1)[1]), (30.0, 60.0), (14.0, 60.0), (0.0, 74.0)]]
    runs += [[pin(4), (39.0, pin(4)[1]), (30.0, 123.0)], [pin(10), (210.0, pin(10)[1]), (237.0, 75.0)]]
    runs += [[pin(7), (36.0, pin(7)[1]), (36.0, 186.0)], [pin(2), (110.0, pin(2)[1]), (123.0, 82.0)]]
    runs += [[pin(13), (132.0, pin(13)[1]), (123.0, 145.0)], [pin(8), (200.0, pin(8)[1]), (212.0, 40.0)]]
    runs += [[pin(15), (206.0, pin(15)[1]), (214.0, 209.0), (237.0, 209.0), (237.0, 185.0)]]
    runs += [[(77.0, 265.0), (77.0, 300.0)], [(123.0, 235.0), (169.0, 235.0)], [(169.0, 265.0), (123.0, 265.0)]]
    runs += [[(237.0, 105.0), (237.0, 112.0), (262.0, 128.0), (290.0, 128.0)]]
    return runs


def _letters() -> list[list[tuple[float, float]]]:
    return [
        [(top + row * scale, left + (column + 6 * place) * scale) for row, column in line]
        for text, top, left, scale in TEXTS for place, letter in enumerate(text) for line in GLYPHS[letter]
    ]  # fmt: skip


def rounded_box(box: Box, radius: float = 2.5) -> Float:
    """Cover of a box with round corners."""
    canvas = np.zeros((CANVAS, CANVAS), np.uint8)
    (top, left), (bottom, right) = (np.asarray(box).reshape(2, 2) * SUPERSAMPLING).astype(int)
    cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), 255, -1)
    soft = cv2.GaussianBlur(canvas.astype(np.float32) / 255, (0, 0), radius * 0.8)
    return inside((0.5 - np.asarray(soft, np.float32)) * 4, 0.5)


def _disc(center: tuple[float, float], radius: float) -> Float:
    rows, columns = np.mgrid[:CANVAS, :CANVAS].astype(np.float32) / SUPERSAMPLING
    return inside((np.hypot(rows - np.float32(center[0]), columns - np.float32(center[1])) - radius).astype(np.float32))


def _missing_solder(rng: np.random.Generator, layers: _Layers) -> None:
    """The tin did not wet a pad, wholly or but for a remainder: dull copper shows."""
    pads = (*PINS, *CHIPS)
    top, left, bottom, right = pads[int(rng.integers(len(pads)))]
    pad = rounded_box((top - 2, left - 2, bottom + 2, right + 2))
    rest = blob(rng, (float(rng.uniform(top, bottom)), float(rng.uniform(left, right))), float(rng.uniform(0, 5)), 0.2)
    layers.solder *= 1 - pad * (1 - inside(rest, 0.8))


def _bridge(rng: np.random.Generator, layers: _Layers) -> None:
    """Tin runs from one pin to the next: a short circuit."""
    row, pin = int(rng.integers(2)), int(rng.integers(7))
    top, _, bottom, right = PINS[row * 8 + pin]
    center = (float(rng.uniform(top + 6, bottom - 6)), right + (PIN_PITCH - 12) / 2)
    y, x = (a.astype(np.float32) / SUPERSAMPLING for a in np.mgrid[:CANVAS, :CANVAS])
    sideways = np.abs(x - np.float32(center[1])) - np.float32(PIN_PITCH / 2)
    half = np.float32(rng.uniform(4, 7.5)) + 0.06 * sideways**2 + 0.8 * noise(rng, 6)  # wider where it meets a pin
    waist = np.abs(y - np.float32(center[0])) - half
    run = inside(np.maximum(waist, sideways), 0.7)
    layers.solder = np.maximum(layers.solder, run)
    layers.relief += 1.2 * blur(run, 2.0)


def _misprint(rng: np.random.Generator, layers: _Layers) -> None:
    """Legend ink that slipped, is missing, or was smeared with a wet edge."""
    anchors = [(line[0][0] + 12, line[0][1] + 25) for line in LEGEND]
    anchors += [(top + 6, left + 10) for _, top, left, _ in TEXTS]
    where = anchors[int(rng.integers(len(anchors)))]
    region = inside(blob(rng, where, float(rng.uniform(22, 30)), 0.1), 2.0)
    kind = int(rng.integers(3))
    if kind == 0:
        moved = np.roll(layers.legend, tuple(int(v) for v in rng.choice([-11, -9, 9, 11], 2)), (0, 1))
        layers.legend = mix(layers.legend, moved, region)
    elif kind == 1:
        layers.legend *= 1 - region * inside(noise(rng, 7) - 0.9, 0.3)
    else:
        length = int(rng.integers(12, 22))
        smear = np.asarray(cv2.filter2D(layers.legend * region, -1, np.eye(length, dtype=np.float32) * (5 / length)))
        layers.legend = np.maximum(layers.legend, np.clip(smear, 0, 1) * (0.75 + 0.25 * noise(rng, 3)))


def _scratch(rng: np.random.Generator, layers: _Layers) -> None:
    """A tool slipped: the mask is scraped off a line, bare copper shines where there was any under it."""
    start = (float(rng.uniform(60, SIZE - 60)), float(rng.uniform(60, SIZE - 60)))
    path = walk(rng, start, float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(60, 130)), 0.006)
    groove = blur(stroke(path, float(rng.uniform(1.8, 3.0))), 0.4) * np.clip(0.9 + 0.3 * noise(rng, 12), 0.2, 1)
    layers.relief -= 1.2 * groove
    layers.legend *= 1 - np.clip(1.5 * groove, 0, 1)
    layers.opening = np.maximum(layers.opening, np.clip(1.2 * groove, 0, 0.85))


DEFECTS = {"missing_solder": _missing_solder, "bridge": _bridge, "misprint": _misprint, "scratch": _scratch}
PRODUCT = Product("board", tuple(DEFECTS), render)
