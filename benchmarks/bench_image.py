"""Preparing a 5-megapixel frame and drawing its map at full size, beside Pillow and OpenCV for the same result.

    python -m pytest -q benchmarks/bench_image.py

One thread. Contenders take turns; ratios are of median thread CPU times. Pillow's resize is the one ours agrees with
within a gray level; OpenCV's map is the same up to rounding (both are checked here before anything is timed).
Of its limit: how much of the time it takes to read as many bytes as the frame has from the shared cache, and to write
as many as the map has into memory that was written before. Maps are drawn into an array of their own each time, as
numpy users do, where clearing the system's pages is a large part of it; and into the same array again, as sessions do
in C.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from machine_limits import machine_limits
from numpy.typing import NDArray
from PIL import Image
from suite.recording import Cell, Measured, Recorder

from onceover import _core

HEIGHT, WIDTH = 1944, 2592  # 5 megapixels
SIZE, GRID, SIGMA = 256, 32, 4.0
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ROUNDS = 15
TITLE = f"A frame of {HEIGHT} × {WIDTH} prepared for {SIZE} × {SIZE}, its map drawn at full size; one thread, CPU ms"
MAP_BYTES = 4 * HEIGHT * WIDTH

Contender = Callable[[], NDArray[np.float32]]


def frame() -> NDArray[np.uint8]:
    """(H, W, 3): seeded noise, blurred so that it looks like a photograph to a resize."""
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2.0)


def in_turn(contenders: dict[str, Contender], rounds: int) -> dict[str, float]:
    """name → median milliseconds of thread CPU time."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.thread_time()
            run()
            times[name].append(time.thread_time() - start)
    return {name: 1e3 * float(np.median(each)) for name, each in times.items()}


def report(
    record: Recorder, what: str, ours: Contender, peers: dict[str, Contender], read: int = 0, written: int = 0
) -> None:
    """read, written: bytes of the frame and of the map at full size, which must be moved at the least."""
    cv2.setNumThreads(1)
    found = in_turn({"onceover": ours, **peers}, record.choose(ROUNDS, 1))
    own, limits = found["onceover"], machine_limits()
    limit_ms = 1e-6 * (read / limits.shared_cache + written / limits.write["again"])
    for name in peers:
        cells: dict[str, Cell] = {"onceover ms": Measured(own), "of its limit": Measured(limit_ms / own)}
        cells |= {"peer ms": Measured(found[name]), "× faster": Measured(found[name] / own)}
        record.row(TITLE, f"{what}; {name}", cells)


def bench_prepare(record: Recorder) -> None:
    """(1944, 2592, 3) uint8 → (3, 256, 256) float32, normalized."""
    image = frame()
    picture = Image.fromarray(image)
    mean, std = np.float32(MEAN), np.float32(STD)

    def ours() -> NDArray[np.float32]:
        return _core.prepare(image, SIZE, SIZE, MEAN, STD)

    def pillow() -> NDArray[np.float32]:
        small = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32)
        return np.ascontiguousarray(((small / 255 - mean) / std).transpose(2, 0, 1))

    assert np.abs(ours() - pillow()).max() <= 1.01 / 255 / min(STD)  # a gray level
    report(record, "prepare", ours, {"Pillow": pillow}, read=image.nbytes)


@pytest.mark.parametrize("into", ["its own array", "the same array"])
def bench_map(record: Recorder, into: str) -> None:
    """(32, 32) patch scores → blurred (256, 256) → (1944, 2592)."""
    scores = np.random.default_rng(1).random((GRID, GRID), np.float32)
    radius = int(4 * SIGMA + 0.5)
    side = 2 * radius + 1
    out = np.ones((HEIGHT, WIDTH), np.float32) if into == "the same array" else None

    def ours() -> NDArray[np.float32]:
        return _core.resize_map(_core.draw_anomaly_map(scores, SIZE, SIZE, SIGMA), HEIGHT, WIDTH, out)

    def opencv() -> NDArray[np.float32]:
        large = cv2.resize(scores, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        blurred = cv2.GaussianBlur(large, (side, side), SIGMA, borderType=cv2.BORDER_REFLECT)
        return cv2.resize(blurred, (WIDTH, HEIGHT), dst=out, interpolation=cv2.INTER_LINEAR)

    assert np.abs(ours().copy() - opencv()).max() < 1e-5
    report(record, f"map, into {into}", ours, {"OpenCV": opencv}, written=MAP_BYTES)


def bench_prepare_and_map(record: Recorder) -> None:
    """Both, beside the chain of Pillow's resize and OpenCV's blur at full size, as peers draw their maps."""
    image = frame()
    picture = Image.fromarray(image)
    mean, std = np.float32(MEAN), np.float32(STD)
    scores = np.random.default_rng(1).random((GRID, GRID), np.float32)
    side = 2 * int(4 * SIGMA + 0.5) + 1

    def ours() -> NDArray[np.float32]:
        _core.prepare(image, SIZE, SIZE, MEAN, STD)
        return _core.resize_map(_core.draw_anomaly_map(scores, SIZE, SIZE, SIGMA), HEIGHT, WIDTH)

    def prepared() -> None:
        small = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32)
        np.ascontiguousarray(((small / 255 - mean) / std).transpose(2, 0, 1))

    def same_result() -> NDArray[np.float32]:
        prepared()
        large = cv2.resize(scores, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        blurred = cv2.GaussianBlur(large, (side, side), SIGMA, borderType=cv2.BORDER_REFLECT)
        return cv2.resize(blurred, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)

    def blurred_at_full_size() -> NDArray[np.float32]:
        prepared()
        large = cv2.resize(scores, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
        return cv2.GaussianBlur(large, (side, side), SIGMA, borderType=cv2.BORDER_REFLECT)

    peers = {"Pillow + OpenCV": same_result, "Pillow + OpenCV blur at full size": blurred_at_full_size}
    report(record, "both", ours, peers, read=image.nbytes, written=MAP_BYTES)
