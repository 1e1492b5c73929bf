"""GreedyCoreset beside the plain algorithm in numpy, which is extrapolated from its first steps; one thread.

    python -m pytest -q benchmarks/bench_coreset.py

The plain algorithm measures every row to the newest of the selection: by direct differences, with the same result, or
by a matrix product, which is fast but rounds otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import features
import numpy as np
import pytest
from features import F32
from numpy.typing import NDArray
from peers import one_thread
from suite.recording import Measured, Recorder

from onceover import _core

ROWS, DIM, STEPS = 50_000, 384, 40
TITLE = f"Greedy k-center, one thread, CPU s; numpy extrapolated from its first {STEPS} steps"
SquaredTo = Callable[[int], NDArray[np.float32]]  # row → squared distances of all to it, (N,)


def by_differences(points: F32) -> SquaredTo:
    difference = np.empty_like(points)

    def squared_to(index: int) -> NDArray[np.float32]:
        np.subtract(points, points[index], out=difference)
        return np.einsum("nd,nd->n", difference, difference)

    return squared_to


def by_products(points: F32) -> SquaredTo:
    norms = np.einsum("nd,nd->n", points, points)
    return lambda index: norms + norms[index] - 2 * (points @ points[index])


def plain(points: F32, squared_to: SquaredTo, steps: int) -> tuple[list[int], float]:
    """The first `steps` of the selection, and CPU seconds for one."""
    start = time.thread_time()
    selected, nearest = [0], squared_to(0)  # nearest: squared distance to the selection, (N,)
    while len(selected) < steps:
        selected.append(int(nearest.argmax()))
        np.minimum(nearest, squared_to(selected[-1]), out=nearest)
    return selected, (time.thread_time() - start) / steps


@pytest.mark.parametrize("data", ["mt", "gauss"])
def bench_greedy_coreset(record: Recorder, data: str) -> None:
    if data == "mt" and not features.available():
        pytest.skip(f"no shared images and weights in {features.SHARED}")
    if data == "mt" and record.short:
        pytest.skip("short: drawn data stand for it")
    one_thread()
    points, _ = features.bank_and_queries(data, DIM, record.choose(ROWS, 1000))
    count, steps = len(points) // 10, record.choose(STEPS, 5)
    start = time.thread_time()
    greedy = _core.GreedyCoreset(points, 0)
    greedy.select(count)
    own_s = time.thread_time() - start
    for name, way in (("differences", by_differences), ("products", by_products)):
        selected, step_s = plain(points, way(points), steps)
        same = int((np.array(selected) == greedy.selected[:steps]).cumprod().sum())
        peer_s = step_s * count
        cells = {"onceover s": Measured(own_s), "numpy s": Measured(peer_s), "× faster": Measured(peer_s / own_s)}
        case = f"{data}, {len(points):,} × {DIM} → {count:,}; numpy, {name}"
        record.row(TITLE, case, {**cells, "the same rows": f"{same} of {steps}"})
