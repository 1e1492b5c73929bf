"""Preparing a 5-megapixel frame and drawing its map at full size, beside Pillow and OpenCV for the same result.

    python -m pytest benchmarks/bench_image.py --benchmark-only -s

One thread. Contenders take turns; ratios are of median thread CPU times. Pillow's resize is the one ours agrees with
within a gray level; OpenCV's map is the same up to rounding (both are checked here before anything is timed).
of_moving: how much of the time it takes to read as many bytes as the frame has from the shared cache, and to write as
many as the map has into memory that was written before. Maps are drawn into an array of their own each time, as numpy
users do, where clearing the system's pages is a large part of it; and into the same array again, as sessions do in C.
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
from pytest_benchmark.fixture import BenchmarkFixture

from onceover import _core

HEIGHT, WIDTH = 1944, 2592  # 5 megapixels
SIZE, GRID, SIGMA = 256, 32, 4.0
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ROUNDS = 31
MAP_BYTES = 4 * HEIGHT * WIDTH

Contender = Callable[[], NDArray[np.float32]]


def frame() -> NDArray[np.uint8]:
    """(H, W, 3): seeded noise, blurred so that it looks like a photograph to a resize."""
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2.0)


def in_turn(contenders: dict[str, Contender]) -> dict[str, tuple[float, float]]:
    """name → median milliseconds of thread CPU and of wall time."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()
    for _ in range(ROUNDS):
        for name, run in contenders.items():
            cpu, wall = time.thread_time(), time.perf_counter()
            run()
            times[name].append((time.thread_time() - cpu, time.perf_counter() - wall))
    medians = {name: 1e3 * np.median(np.array(each), axis=0) for name, each in times.items()}
    return {name: (float(cpu), float(wall)) for name, (cpu, wall) in medians.items()}


def report(
    benchmark: BenchmarkFixture, ours: Contender, contenders: dict[str, Contender], read: int = 0, written: int = 0
) -> None:
    """read, written: bytes of the frame and of the map at full size, which must be moved at the least."""
    cv2.setNumThreads(1)
    found = in_turn({"onceover": ours, **contenders})
    benchmark.pedantic(ours, rounds=ROUNDS, warmup_rounds=2)
    own = found["onceover"][0]
    limits = machine_limits()
    limit_ms = 1e-6 * (read / limits.shared_cache + written / limits.write["again"])
    for name, (cpu, wall) in found.items():
        benchmark.extra_info[name] = {
            "cpu_ms": round(cpu, 3),
            "wall_ms": round(wall, 3),
            "times_ours": round(cpu / own, 2),
            "of_moving": round(limit_ms / cpu, 3),
        }
    benchmark.extra_info["isa"] = _core.isa()
    print(f"\n{benchmark.extra_info}")


def bench_prepare(benchmark: BenchmarkFixture) -> None:
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
    report(benchmark, ours, {"Pillow": pillow}, read=image.nbytes)


@pytest.mark.parametrize("into", ["its own array", "the same array"])
def bench_map(benchmark: BenchmarkFixture, into: str) -> None:
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
    report(benchmark, ours, {"OpenCV": opencv}, written=MAP_BYTES)


def bench_prepare_and_map(benchmark: BenchmarkFixture) -> None:
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
    report(benchmark, ours, peers, read=image.nbytes, written=MAP_BYTES)
