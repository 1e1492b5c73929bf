"""How bench_metrics.py times its methods: in turn, by the CPU time of the one thread they may use."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from metric_peers import OURS

SLOW_ROUNDS, SLOW_S = 3, 10.0  # a call that takes longer than SLOW_S is timed in fewer rounds

Calls = dict[str, Callable[[], Any]]
Samples = dict[str, list[tuple[float, float]]]  # (CPU, wall) seconds of each round


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, CPU and wall seconds; a call that works in other threads is refused, as their time would be missing."""
    before = time.thread_time(), time.process_time(), time.perf_counter()
    result = call()
    thread, process, wall = time.thread_time(), time.process_time(), time.perf_counter()
    thread, process, wall = thread - before[0], process - before[1], wall - before[2]
    if process > 1.2 * thread + 1e-3:
        raise RuntimeError(f"{thread:.3f} s in its thread, {process:.3f} s in all; it must run in one")
    return result, thread, wall


def interleave(
    calls: Calls, rounds: int, slow: frozenset[str] = frozenset(), slow_rounds: int = SLOW_ROUNDS
) -> Samples:
    samples: Samples = {name: [] for name in calls}
    for turn in range(rounds):
        for name, call in calls.items():
            if turn < slow_rounds or name not in slow:
                samples[name].append(timed(call)[1:])
    return samples


def median(samples: Samples, *names: str, rounds: int | None = None, wall: bool = False) -> float:
    """Median over rounds of the sum of these methods."""
    count = rounds or min(len(samples[name]) for name in names)
    return float(np.median([sum(samples[name][turn][wall] for name in names) for turn in range(count)]))


def times_faster(samples: Samples, names: tuple[str, ...]) -> float:
    """Of ours, over the rounds that all of them ran."""
    rounds = min(len(samples[name]) for name in (*names, OURS))
    return median(samples, *names, rounds=rounds) / median(samples, OURS, rounds=rounds)
