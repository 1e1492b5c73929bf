"""Normal parts whose scores have a known distribution, so that the false-alarm rate of a threshold is known exactly.

tests/test_calibration_guarantee.py asserts with few draws, benchmarks/calibration_study.py prints tables of many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from onceover.training.calibrate import calibrate

Scores = NDArray[np.float32]
EXPOSURES = 6


@dataclass(frozen=True)
class Parts:
    """draw(rng, (trials, n)) → float32 scores; exceeds(threshold): P(a further part's score > threshold), exactly.

    continuous: no two scores are equal, so that the rate is what the theory says, not less.
    """

    name: str
    draw: Callable[[np.random.Generator, tuple[int, int]], Scores]
    exceeds: Callable[[float], float]
    continuous: bool


def _float32_above(distribution: object) -> Callable[[float], float]:
    """P(float32(X) > t): a threshold is a float32, to which the scores were rounded; half a unit decides."""

    def above(threshold: float) -> float:
        edge = np.float32(threshold)
        middle = (float(edge) + float(np.nextafter(edge, np.float32(np.inf)))) / 2
        return float(distribution.sf(middle))  # type: ignore[attr-defined]

    return above


_NORMAL, _HEAVY, _COUNTS = stats.norm(5, 1), stats.pareto(1.5), stats.poisson(3)

PARTS = {
    "normal": Parts(
        "normal", lambda rng, shape: rng.normal(5, 1, shape).astype(np.float32), _float32_above(_NORMAL), True
    ),
    "heavy tail": Parts(  # Pareto of exponent 1.5: no variance
        "heavy tail", lambda rng, shape: (rng.pareto(1.5, shape) + 1).astype(np.float32), _float32_above(_HEAVY), True
    ),
    "ties": Parts(  # Poisson of mean 3: a dozen different values
        "ties",
        lambda rng, shape: rng.poisson(3, shape).astype(np.float32),
        lambda threshold: float(_COUNTS.sf(threshold)),
        False,
    ),
}


@dataclass(frozen=True)
class Realised:
    """rates (trials,): the exact false-alarm rate of each trial's threshold. alarms: of one further part per trial."""

    rates: NDArray[np.float64]
    alarms: int

    @property
    def trials(self) -> int:
        return len(self.rates)


def realised(
    parts: Parts, n: int, alpha: float, confidence: float | None, trials: int, rng: np.random.Generator
) -> Realised:
    """Calibrate `trials` times on n parts each, and see what the thresholds do."""
    scores, further = parts.draw(rng, (trials, n)), parts.draw(rng, (trials, 1))[:, 0]
    thresholds = np.array([threshold_of(row, None, alpha, confidence) for row in scores])
    rates = np.array([parts.exceeds(threshold) for threshold in thresholds])
    return Realised(rates, int((further > thresholds).sum()))


def realised_of_exposures(
    n_parts: int, correlation: float, alpha: float, by_group: bool, trials: int, rng: np.random.Generator
) -> Realised:
    """The same for parts photographed EXPOSURES times, scores normal with this correlation between two pictures of one.

    by_group: six exposures are one part; else each counts, as if they were independent. Rates are those of a part, by
    its highest exposure, when by_group, and those of one exposure else: each is compared with what it calibrated.
    """
    own = np.sqrt(correlation) * rng.normal(size=(trials, n_parts + 1, 1))
    scores = (own + np.sqrt(1 - correlation) * rng.normal(size=(trials, n_parts + 1, EXPOSURES))).astype(np.float32)
    groups = [part for part in range(n_parts) for _ in range(EXPOSURES)] if by_group else None
    thresholds = np.array([threshold_of(trial[:-1].ravel(), groups, alpha, None) for trial in scores])
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()

    def rate(threshold: float) -> float:  # integrated over what the exposures share
        one = stats.norm.cdf((threshold - np.sqrt(correlation) * nodes) / np.sqrt(1 - correlation))
        return float((weights * (1 - (one**EXPOSURES if by_group else one))).sum())

    further = scores[:, -1].max(axis=1) if by_group else scores[:, -1, 0]
    return Realised(np.array([rate(threshold) for threshold in thresholds]), int((further > thresholds).sum()))


def threshold_of(scores: Scores, groups: list[int] | None, alpha: float, confidence: float | None) -> float:
    """As the product calibrates; infinite where the parts are too few."""
    found = calibrate(scores, scores, groups, alpha, confidence).threshold
    return np.inf if found is None else found


def binomial_bounds(trials: int, rate: float, miss: float) -> tuple[int, int]:
    """Counts of alarms that a rate of exactly `rate` stays within, but for a chance of `miss` in all."""
    return int(stats.binom.ppf(miss / 2, trials, rate)), int(stats.binom.isf(miss / 2, trials, rate))
