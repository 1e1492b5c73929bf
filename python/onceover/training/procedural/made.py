"""Materials that people make: cloth, knitwear, brushed metal, print, perforated plates, tiles, circuit boards."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from onceover.training.procedural.fields import (
    Float,
    filtered_noise,
    log_uniform,
    pixel_grid,
    random_color,
    spectrum_noise,
    turned_grid,
    two_colors,
)

# Yarn over (1) or under (0): plain weave, two twills, satin; rows are weft, columns are warp.
WEAVES = (
    np.array([[1, 0], [0, 1]]),
    np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]]),
    np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1]]),
    np.array([[0, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 1, 1, 0], [1, 0, 1, 1, 1], [1, 1, 1, 0, 1]]),
)
FOUR_INKS = ((0, 0.6, 0.9), (0.9, 0.1, 0.5), (1, 0.9, 0.1), (0.1, 0.1, 0.1))  # cyan, magenta, yellow, black
SIGNS = "ABCDEFGHKLMNPRSTUVWXYZ0123456789+-/#%*"


def woven(rng: np.random.Generator, size: int) -> Float:
    """Cloth: warp and weft in two colors cross over and under, each yarn round, uneven and twisted."""
    period = log_uniform(rng, 4, size / 10)
    u, v = (axis / np.float32(period) for axis in turned_grid(rng, size, bend=float(rng.uniform(0, 0.3)) * period))
    pattern = WEAVES[int(rng.integers(len(WEAVES)))]
    column, row = np.floor(u).astype(int), np.floor(v).astype(int)
    over = pattern[row % len(pattern), column % len(pattern)] == 1
    across, along = np.where(over, u - column, v - row), np.where(over, v - row, u - column)
    yarn = np.where(over, column, row + 7919) % 64
    uneven = 1 + np.float32(rng.uniform(0, 0.2)) * rng.standard_normal(64, dtype=np.float32)[yarn]
    roundness = np.sin(np.pi * across) ** np.float32(rng.uniform(0.4, 1.2))
    height = roundness * (0.6 + 0.4 * np.sin(np.pi * along)) * uneven
    twist = 1 + np.float32(rng.uniform(0, 0.15)) * np.sin(2 * np.pi * (2 * across + along))
    warp, weft = random_color(rng), random_color(rng)
    colors = np.where(over[..., None], warp, weft if rng.random() < 0.5 else warp * np.float32(0.8))
    return np.asarray(colors * (0.25 + 0.75 * height * twist)[..., None])


def knit(rng: np.random.Generator, size: int) -> Float:
    """Stockinette: columns of V-shaped stitches, in one color or in striped rows."""
    width = log_uniform(rng, 6, size / 7)
    height = width * float(rng.uniform(0.6, 1.1))
    across, along = turned_grid(rng, size, bend=float(rng.uniform(0, 0.2)) * width)
    u, v = across / np.float32(width), along / np.float32(height)
    half = np.abs(u % 1 - 0.5)  # 0 in the middle of a column, 0.5 where two columns meet
    stitch = v + np.float32(rng.uniform(0.8, 1.6)) * half
    height_map = np.sin(np.pi * (stitch % 1)) ** 0.7 * np.sin(np.pi * np.clip(2 * half, 0.05, 0.95)) ** 0.5
    first, second = two_colors(rng)
    striped = (np.floor(stitch) // int(rng.integers(1, 6)) % 2 == 1) & (rng.random() < 0.4)
    fuzz = 1 + np.float32(rng.uniform(0, 0.15)) * rng.standard_normal((size, size), dtype=np.float32)
    return np.asarray(np.where(striped[..., None], second, first) * ((0.2 + 0.8 * height_map) * fuzz)[..., None])


def brushed_metal(rng: np.random.Generator, size: int) -> Float:
    """Fine parallel lines of a brush, or rings of a lathe, with the highlight that such lines make."""
    y, x = pixel_grid(size)
    strength = np.float32(rng.uniform(0.02, 0.12))
    if rng.random() < 0.3:  # turned: one value per ring
        cy, cx = rng.uniform(-0.3 * size, 1.3 * size, 2)
        dy, dx = y - np.float32(cy), x - np.float32(cx)
        rings = rng.standard_normal(4 * size, dtype=np.float32)
        lines = rings[np.hypot(dy, dx).astype(int) % len(rings)]
        angle = np.arctan2(dy, dx)
        shine = np.cos(2 * (angle - np.float32(rng.uniform(0, np.pi))))
    else:
        fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
        turn = 0.0 if rng.random() < 0.4 else float(rng.uniform(0, np.pi))
        along, across = fx * np.cos(turn) + fy * np.sin(turn), fy * np.cos(turn) - fx * np.sin(turn)
        length, width = log_uniform(rng, 10, 2 * size), float(rng.uniform(0.2, 1.2))
        lines = filtered_noise(rng, size, np.exp(-((along * length) ** 2) - (across * width) ** 2))
        shine = spectrum_noise(rng, size, 3.0)
    value = np.float32(rng.uniform(0.35, 0.75)) + strength * lines + np.float32(rng.uniform(0, 0.15)) * shine
    hue = 1 + np.float32(0.06) * rng.standard_normal(3).astype(np.float32)
    return np.asarray(value[..., None] * hue)


def halftone(rng: np.random.Generator, size: int) -> Float:
    """Print: dots that grow with the tone, one ink or four screens at their angles on paper."""
    y, x = pixel_grid(size)
    period = log_uniform(rng, 3, size / 12)
    inks = random_color(rng)[None] * 0.6 if rng.random() < 0.5 else np.array(FOUR_INKS)
    image: Float = np.full((size, size, 3), rng.uniform(0.8, 1.0), np.float32)
    start = float(rng.uniform(0, np.pi / 2))
    for ink, angle in zip(inks, np.radians([15, 75, 0, 45]), strict=False):
        cosine, sine = np.cos(start + angle), np.sin(start + angle)
        u = (x * cosine + y * sine) * np.float32(2 * np.pi / period)
        v = (y * cosine - x * sine) * np.float32(2 * np.pi / period)
        tone = 0.5 + 0.3 * spectrum_noise(rng, size, 2.5)
        dots = np.clip((tone - 0.5 - 0.25 * (np.cos(u) + np.cos(v))) * np.float32(period) + 0.5, 0, 1)
        image = image * (1 - dots[..., None] * (1 - np.asarray(ink, np.float32)))
    return image


def lettering(rng: np.random.Generator, size: int) -> Float:
    """Labels: lines of signs, rules and bar codes in one ink."""
    paper, ink = two_colors(rng, 0.4)
    canvas = np.zeros((size, size), np.uint8)
    top = int(rng.integers(-8, 8))
    while top < size:
        height = int(log_uniform(rng, 6, size / 4))
        kind = rng.random()
        if kind < 0.65:
            _write_line(rng, canvas, top + height, height)
        elif kind < 0.85:
            _bar_code(rng, canvas, top, height)
        else:
            cv2.line(canvas, (0, top), (size, top), 255, int(rng.integers(1, 4)))
        top += int(height * rng.uniform(1.2, 1.9))
    if rng.random() < 0.5:
        turn = cv2.getRotationMatrix2D((size / 2, size / 2), float(rng.uniform(-180, 180)), 1.3)
        canvas = np.asarray(cv2.warpAffine(canvas, turn, (size, size), borderMode=cv2.BORDER_REFLECT), dtype=np.uint8)
    coverage = (canvas.astype(np.float32) / 255)[..., None]
    return np.asarray(paper + coverage * (ink - paper))


def _write_line(rng: np.random.Generator, canvas: NDArray[np.uint8], baseline: int, height: int) -> None:
    text = "".join(SIGNS[int(sign)] for sign in rng.integers(len(SIGNS), size=40))
    font = int(rng.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX]))
    weight = 1 + int(rng.random() < 0.4) * (height // 12)
    left = -int(rng.integers(height))
    cv2.putText(canvas, text, (left, baseline), font, height / 22, 255, weight, cv2.LINE_AA)


def _bar_code(rng: np.random.Generator, canvas: NDArray[np.uint8], top: int, height: int) -> None:
    x = int(rng.integers(8))
    while x < canvas.shape[1]:
        bar, gap = rng.integers(1, 5, 2)
        canvas[max(0, top) : top + height, x : x + int(bar)] = 255
        x += int(bar + gap)


def perforated(rng: np.random.Generator, size: int) -> Float:
    """A plate or mesh with rows of round or square holes, straight or staggered, each with a lit edge."""
    period = log_uniform(rng, 6, size / 4)
    across, along = turned_grid(rng, size, bend=0.02 * period)
    u, v = across / np.float32(period), along / np.float32(period)
    if rng.random() < 0.5:
        v = v * np.float32(2 / np.sqrt(3))
        u = u + 0.5 * (np.floor(v) % 2)  # every second row by half a period
    du, dv = u % 1 - 0.5, v % 1 - 0.5
    reach = float(rng.uniform(0.15, 0.48))
    distance = np.hypot(du, dv) if rng.random() < 0.6 else np.maximum(np.abs(du), np.abs(dv))
    hole = np.clip((reach - distance) * np.float32(period) + 0.5, 0, 1)[..., None]
    rim = np.exp(-(((distance - reach) * np.float32(period)) ** 2) / 2) * np.sign(du + dv)
    plate, depth = two_colors(rng)
    grain = np.float32(rng.uniform(0, 0.08)) * spectrum_noise(rng, size, float(rng.uniform(0, 1.5)))
    return np.asarray((plate + (grain + np.float32(0.2) * rim)[..., None]) * (1 - hole) + depth * hole)


def tiles(rng: np.random.Generator, size: int) -> Float:
    """Bricks, tiles, pixels of a display: cells of one shape with joints, each of its own shade."""
    height = log_uniform(rng, 5, size / 4)
    width = height * float(rng.choice([1.0, 1.0, 2.0, 3.0]))
    across, along = turned_grid(rng, size)
    v = along / np.float32(height)
    u = across / np.float32(width) + np.float32(rng.choice([0.0, 0.5, 0.33])) * np.floor(v)
    joint = float(rng.uniform(0.5, 0.15 * height + 1))
    edge = np.minimum((0.5 - np.abs(u % 1 - 0.5)) * np.float32(width), (0.5 - np.abs(v % 1 - 0.5)) * np.float32(height))
    body = np.clip(edge - joint + 0.5, 0, 1)[..., None]
    shades = 1 + np.float32(rng.uniform(0, 0.3)) * rng.standard_normal(1009, dtype=np.float32)
    cell = (np.floor(u) * 31 + np.floor(v) * 57).astype(int) % len(shades)
    tile, mortar = two_colors(rng)
    grain = np.float32(rng.uniform(0, 0.08)) * spectrum_noise(rng, size, 1.0)
    return np.asarray((tile * shades[cell][..., None] + grain[..., None]) * body + mortar * (1 - body))


def circuit_board(rng: np.random.Generator, size: int) -> Float:
    """Tracks that bend by 45 degrees on a lattice, pads with holes, small parts, white print."""
    pitch = max(4, int(log_uniform(rng, 5, size / 8)))
    board = np.array([0.05, 0.3, 0.15], np.float32) if rng.random() < 0.5 else random_color(rng) * np.float32(0.5)
    copper = np.clip(board * 1.6 + 0.12, 0, 1)
    image = np.full((size, size, 3), _ink(board), np.uint8)  # OpenCV smooths edges in 8 bits only
    for _ in range(int(rng.integers(8, 40))):
        _track(rng, image, pitch, copper)
    metal = float(rng.choice([0.65, 0.8])) * np.array([1.0, rng.uniform(0.8, 1.0), rng.uniform(0.5, 1.0)])
    for _ in range(int(rng.integers(10, 60))):
        y, x = (int(step) * pitch for step in rng.integers(0, size // pitch + 1, 2))
        cv2.circle(image, (x, y), max(2, pitch // 3), _ink(metal), -1, cv2.LINE_AA)
        if rng.random() < 0.6:
            cv2.circle(image, (x, y), max(1, pitch // 7), _ink(board * 0.3), -1, cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 6))):
        _part(rng, image, pitch, metal)
    return np.asarray(image.astype(np.float32) / 255)


def _ink(color: Float) -> list[int]:
    return [round(255 * float(channel)) for channel in np.clip(color, 0, 1)]


def _track(rng: np.random.Generator, image: NDArray[np.uint8], pitch: int, color: Float) -> None:
    steps = np.array([(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)])
    heading = int(rng.integers(8))
    corners = [rng.integers(0, image.shape[0] // pitch + 1, 2)]
    for _ in range(int(rng.integers(2, 7))):
        corners.append(corners[-1] + steps[heading % 8] * int(rng.integers(1, 8)))
        heading += int(rng.choice([-1, 1]))
    points = (
        (np.array(corners) * pitch).astype(np.int32).reshape(-1, 1, 2)
    )  # (corners, 2) → (corners, 1, 2), for OpenCV
    cv2.polylines(image, [points], False, _ink(color), int(rng.integers(1, max(2, pitch // 3) + 1)), cv2.LINE_AA)


def _part(rng: np.random.Generator, image: NDArray[np.uint8], pitch: int, metal: Float) -> None:
    """A dark body between two metal ends, with a sign on it."""
    y, x = (int(corner) for corner in rng.integers(0, image.shape[0], 2))
    height, width = (int(rng.integers(1, 5)) * pitch for _ in range(2))
    cv2.rectangle(image, (x - pitch // 2, y), (x + width + pitch // 2, y + height), _ink(metal), -1)
    body = random_color(rng) * np.float32(0.4)
    cv2.rectangle(image, (x, y), (x + width, y + height), _ink(body), -1)
    sign = SIGNS[int(rng.integers(len(SIGNS)))]
    corner = (x + 1, y + height - 1)
    cv2.putText(image, sign, corner, cv2.FONT_HERSHEY_SIMPLEX, height / 30, (230, 230, 230), 1, cv2.LINE_AA)


__all__ = [
    "brushed_metal",
    "circuit_board",
    "halftone",
    "knit",
    "lettering",
    "perforated",
    "tiles",
    "woven",
]
