"""Two series of times measured in turn → how many times as long the second takes, and how sure that is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

TURN = 5  # runs of one before the other has its turn
RESAMPLES, SEED, LEVEL = 2000, 0, 0.95
MIN_TURNS = 8


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
        enough = draws is not None and (part == 50.0 or turns * TURN >= 200)
        interval = None
        if draws is not None and enough:
            ratios = [float(np.percentile(b[draw], part) / np.percentile(a[draw], part)) for draw in draws]
            interval = [float(value) for value in np.percentile(ratios, (50 - 50 * LEVEL, 50 + 50 * LEVEL))]
        value = float(np.percentile(b, part) / np.percentile(a, part)) if turns else None
        found[name] = {"ratio": value, "interval": interval}
    return found


__all__ = ["MIN_TURNS", "TURN", "ratio_of"]
