"""A number from several passes of a benchmark, how sure it is, and whether two such numbers agree.

A pass is a fresh process, minutes from the next one: what differs between passes is what differs between two runs of
`make bench` (where memory lies, what else the machine does), which no resampling of one process's turns would show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

LEVEL = 0.999  # of an interval: a run holds about a hundred numbers, and all of them should agree with the next run's
PRIOR_FREEDOM = 4  # how many degrees of freedom the other rows of a column are worth beside a row's own passes
LEAST_VARIANCE = 0.001**2  # of a logarithm: numbers that repeat to the last digit are not known better than that
MEDIAN_ERROR = 1.2533  # standard error of a median over that of a mean, normal values: at most √(π / 2)


@dataclass(frozen=True)
class Estimate:
    """value > 0, and the half width of the interval of its logarithm; None where one pass cannot tell."""

    value: float
    spread: float | None = None

    @property
    def percent(self) -> float | None:
        """The half width upwards, % of the value."""
        return None if self.spread is None else 100 * math.expm1(self.spread)

    def __str__(self) -> str:
        if self.percent is None:
            return significant(self.value)
        return f"{significant(self.value)} ± {self.percent:.{1 if self.percent < 0.95 else 0}f} %"

    def allowed(self, other: Estimate) -> float | None:
        """Up to what factor − 1 the two may differ and still agree; None where one of them has no interval."""
        if self.spread is None or other.spread is None:
            return None
        return math.expm1(math.hypot(self.spread, other.spread))

    def agrees(self, other: Estimate) -> bool | None:
        """At LEVEL; None where one of them has no interval."""
        allowed = self.allowed(other)
        return None if allowed is None else abs(math.log(self.value / other.value)) <= math.log1p(allowed) + 1e-12


def estimates(rows: Sequence[Sequence[float]]) -> list[Estimate]:
    """One column of a table, (rows, passes), values > 0 → medians over passes and their intervals.

    The variance of a row's logarithms is drawn towards the geometric mean of those of its column (as limma does, Smyth
    2004, with a fixed prior of PRIOR_FREEDOM): four passes alone tell a row's own only roughly. By simulation with four
    passes and rows from 0.2 to 10 % noisy, one number in a thousand of two runs does not agree, as LEVEL says; two,
    where 30 % of the passes are a third slower (tests/test_bench_suite.py has a part of it).
    """
    logs = np.log(np.array(rows, np.float64))  # (rows, passes)
    if not np.isfinite(logs).all():
        raise ValueError(f"measured values must be positive numbers, got {np.array(rows)[~np.isfinite(logs)]}")
    centers, passes = np.exp(np.median(logs, axis=1)), logs.shape[1]
    if passes < 2:
        return [Estimate(float(center)) for center in centers]
    own = logs.var(axis=1, ddof=1)
    freedom = passes - 1 + PRIOR_FREEDOM
    typical = math.exp(np.log(np.maximum(own, LEAST_VARIANCE)).mean())
    variance = ((passes - 1) * own + PRIOR_FREEDOM * typical) / freedom
    quantile = float(special.stdtrit(freedom, (1 + LEVEL) / 2))
    spreads = quantile * MEDIAN_ERROR * np.sqrt(variance / passes)
    return [Estimate(float(c), float(s)) for c, s in zip(centers, spreads, strict=True)]


def significant(value: float) -> str:
    """Three digits, without an exponent."""
    decimals = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:,.{max(0, decimals)}f}"


__all__ = ["LEVEL", "Estimate", "estimates", "significant"]
