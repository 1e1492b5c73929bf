"""Two series of times measured in turn → how many times as long the second takes, and how sure that is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

TURN = 5  # runs of one before the other has its turn
RESAMPLES, SEED, LEVEL = 2000, 0, 0.95
MIN_TURNS = 8
MIN_RUNS_OF_P99 = 200


def ratio_of(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> dict[str, Any]:
    """Wall times (n,) each, TURN after TURN → ratio of the medians and of the 99th percentiles, second to first.

    The intervals are percentile bootstraps over turns, not over runs: runs of one turn share what else the machine did.
    A turn is drawn for both at once, because both saw it. None where there are too few turns.
    """
    turns = min(len(first), len(second)) // TURN
    a = first[: turns * TURN].astype(np.float64).reshape(turns, TURN)
    b = second[: turns * TURN].astype(np.float64).reshape(turns, TURN)
    found: dict[str, Any] = {"turns": turns, "turn": TURN, "level": LEVEL}
    rng = np.random.default_rng(SEED)
    draws = rng.integers(0, turns, (RESAMPLES, turns)) if turns >= MIN_TURNS else None
    for name, part in (("p50", 50.0), ("p99", 99.0)):
        interval = None
        if draws is not None and (part == 50.0 or turns * TURN >= MIN_RUNS_OF_P99):
            ratios = np.concatenate(
                [_percentiles(b, some, part) / _percentiles(a, some, part) for some in _parts(draws)]
            )
            interval = [float(value) for value in np.percentile(ratios, (50 - 50 * LEVEL, 50 + 50 * LEVEL))]
        value = float(np.percentile(b, part) / np.percentile(a, part)) if turns else None
        found[name] = {"ratio": value, "interval": interval}
    return found


def _percentiles(times: NDArray[np.float64], draws: NDArray[np.int64], part: float) -> NDArray[np.float64]:
    """(turns, TURN) times, (n, turns) draws of turns → (n,)."""
    found: NDArray[np.float64] = np.percentile(times[draws].reshape(len(draws), -1), part, axis=1)
    return found


def _parts(draws: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """So many draws at once as their times stay within some 16 MB."""
    at_once = max(1, 2_000_000 // (draws.shape[1] * TURN))
    return [draws[i : i + at_once] for i in range(0, len(draws), at_once)]


__all__ = ["MIN_TURNS", "TURN", "ratio_of"]
