"""Average run lengths of EWMA and CUSUM charts of independent standard normal values, and the limits that have them.

The run length's mean solves an integral equation, here on Gauss-Legendre nodes (Crowder 1987, "A simple method for
studying run-length distributions of exponentially weighted moving average charts"; for CUSUM with the atom at zero,
Page 1954; Brook and Evans 1972 is its Markov chain). `python benchmarks/monitor_limits.py` prints the tables of
csrc/monitor/limits.cpp; tests/test_monitor_limits.py solves them again and simulates.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

EWMA_WEIGHT = 0.05  # lambda: what one part counts
CUSUM_ALLOWANCE = 0.5  # k: half the shift, in standard deviations, that is found fastest
DECADES = np.arange(2.5, 7.01, 0.25)  # log10 of the average run lengths in the tables
NODES = 120


def normal_density(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi))


def normal_cdf(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))


def ewma_run_length(limit: float, weight: float = EWMA_WEIGHT, shift: float = 0.0) -> float:
    """Mean number of parts until |EWMA| > limit standard deviations of the settled EWMA; starts at 0."""
    bound = limit * math.sqrt(weight / (2 - weight))
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    at, weights = bound * nodes, bound * weights
    step = (at[None, :] - (1 - weight) * at[:, None]) / weight - shift  # (from, to)
    kernel = weights[None, :] * normal_density(step) / weight
    lengths = np.linalg.solve(np.eye(NODES) - kernel, np.ones(NODES))
    first = weights * normal_density(at / weight - shift) / weight
    return float(1 + first @ lengths)


def cusum_run_length(limit: float, allowance: float = CUSUM_ALLOWANCE, shift: float = 0.0) -> float:
    """Of the two-sided chart: 1 / ARL = 1 / ARL(up) + 1 / ARL(down) (Kemp 1961)."""
    return 1 / (1 / _one_sided(limit, allowance - shift) + 1 / _one_sided(limit, allowance + shift))


def _one_sided(limit: float, allowance: float) -> float:
    """max(0, C + z − allowance) > limit, from C = 0."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    at, weights = limit * (nodes + 1) / 2, limit * weights / 2
    starts = np.concatenate(([0.0], at))
    kernel = np.empty((NODES + 1, NODES + 1))
    kernel[:, 0] = [normal_cdf(allowance - start) for start in starts]
    kernel[:, 1:] = weights[None, :] * normal_density(at[None, :] - starts[:, None] + allowance)
    return float(np.linalg.solve(np.eye(NODES + 1) - kernel, np.ones(NODES + 1))[0])


def limit_for(run_length: float, length_of: Callable[[float], float], low: float, high: float) -> float:
    """By bisection: the run length grows with the limit."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if length_of(middle) < run_length else (low, middle)
    return (low + high) / 2


def main() -> None:
    for name, length_of, high in (("kEwmaLimits", ewma_run_length, 7.0), ("kCusumLimits", cusum_run_length, 16.0)):
        limits = [limit_for(10**decade, length_of, 0.5, high) for decade in DECADES]
        print(f"constexpr double {name}[] = {{{', '.join(f'{limit:.4f}' for limit in limits)}}};")


if __name__ == "__main__":
    main()
