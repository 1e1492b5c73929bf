"""Held-out normal scores → Calibration: split conformal, Vovk et al. 2005; Lei et al. 2018, arXiv:1604.04173.

With n independent normal parts that did not enter the bank, the ⌈(n+1)(1−α)⌉-th smallest of their scores is exceeded by
a further normal part with probability at most α, whatever the distribution, as long as all of them are exchangeable
(same camera, same light, same process). That needs n ≥ 1/α − 1, and holds on average over calibrations. For one that
is to hold with a confidence c, the threshold is a higher order statistic, an upper tolerance bound (Wilks 1941, Annals
of Mathematical Statistics 12): the realised rate above the k-th smallest of n scores is Beta(n+1−k, k) distributed.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onceover.errors import InputError, UsageError
from onceover.types import Calibration

DEFAULT_FALSE_ALARM_RATE = 0.05
DEFAULT_HOLDOUT = 0.2  # of the groups

_LARGEST_DENOMINATOR = 10**9  # reads 0.05 as 1/20 and 1/3 as a third, not as their nearest binary fractions


def required_groups(alpha: float) -> int:
    """The smallest number of held-out groups that supports a false-alarm rate: 0.05 → 19, 0.01 → 99, 0.001 → 999."""
    return max(1, math.ceil(1 / _exact(alpha) - 1))


def conformal_rank(n: int, alpha: float) -> int:
    """k = ⌈(n+1)(1−α)⌉: the threshold is the k-th smallest of n scores. n + 1 means that n scores are too few."""
    return max(1, math.ceil((n + 1) * (1 - _exact(alpha))))


def conformal_threshold(scores: ArrayLike, alpha: float) -> float:
    """The score that a further normal part exceeds with probability ≤ alpha; UsageError for too few scores."""
    ordered = np.sort(np.asarray(scores))
    rank = conformal_rank(len(ordered), alpha)
    if rank > len(ordered):
        check_rate(alpha, len(ordered))
    return float(ordered[rank - 1])


def required_parts(alpha: float, confidence: float | None) -> int:
    """The smallest number of parts for a rate, with a confidence or (None) on average: 0.05, 0.95 → 59; 0.05 → 19.

    n parts are enough when even their highest score will do: (1 − α)^n ≤ 1 − c.
    """
    if confidence is None:
        return required_groups(alpha)
    _check_confidence(confidence)
    enough = max(required_groups(alpha), math.floor(math.log1p(-confidence) / math.log1p(-alpha)))
    return enough if _chance_of_keeping(enough, 1, alpha) >= confidence else enough + 1


def threshold_rank(n: int, alpha: float, confidence: float | None = None) -> int:
    """k: the threshold is the k-th smallest of n scores; n + 1 means that n scores are too few.

    With a confidence, the least k whose realised rate is at most alpha with that probability, and which keeps the rate
    on average, too.
    """
    rank = conformal_rank(n, alpha)
    if confidence is None or rank > n:
        return rank
    _check_confidence(confidence)
    low, high = rank, n + 1  # a higher threshold keeps the rate more surely; n + 1 stands for one that always does
    while low < high:
        middle = (low + high) // 2
        if middle <= n and _chance_of_keeping(n, n + 1 - middle, alpha) < confidence:
            low = middle + 1
        else:
            high = middle
    return low


def calibrate(
    scores: ArrayLike,
    map_maxima: ArrayLike,
    groups: Sequence[Hashable] | None,
    alpha: float,
    confidence: float | None = None,
) -> Calibration:
    """Image scores and largest map values of held-out normal images, (n,) each, → Calibration.

    groups: the part each image shows; a part counts once, by its highest value. None: every image is its own part.
    confidence: that the realised rate is at most alpha; None: it holds on average. Too few parts give a Calibration
    without thresholds ("uncalibrated"). Raises InputError for values that are not finite or counts that differ.
    """
    score, maximum = np.asarray(scores, np.float32), np.asarray(map_maxima, np.float32)
    parts: list[Hashable] = list(range(score.size)) if groups is None else list(groups)
    if score.ndim != 1 or score.shape != maximum.shape or len(parts) != len(score):
        counts = f"{score.shape} scores, {maximum.shape} map maxima and {len(parts)} groups"
        raise InputError(f"got {counts}; there must be one of each per held-out image")
    if not (np.isfinite(score).all() and np.isfinite(maximum).all()):
        bad = int(np.flatnonzero(~(np.isfinite(score) & np.isfinite(maximum)))[0])
        found = f"score {score[bad]} and map maximum {maximum[bad]}"
        raise InputError(f"held-out image {bad} has {found}, expected finite numbers; look at that image")
    highest_score, highest_map = _highest(score, parts), _highest(maximum, parts)
    enough = len(highest_score) >= required_parts(alpha, confidence)
    at = threshold_rank(len(highest_score), alpha, confidence) - 1
    return Calibration(
        false_alarm_rate=alpha,
        threshold=float(highest_score[at]) if enough else None,
        map_threshold=float(highest_map[at]) if enough else None,
        scores=highest_score,
        map_maxima=highest_map,
        image_count=len(score),
        confidence=confidence if enough else None,
    )


def check_rate(alpha: float, n_groups: int, confidence: float | None = None) -> None:
    """Refuse a rate that `n_groups` held-out groups cannot support, with the numbers; UsageError."""
    required = required_parts(alpha, confidence)
    if n_groups < required:
        best = 1 / (n_groups + 1)
        if confidence is not None and n_groups:  # (1 − α)^n ≤ 1 − c, and what holds on average
            best = max(best, -math.expm1(math.log1p(-confidence) / n_groups))
        possible = f"{n_groups} support {best:.3g} at best" if n_groups else "there are none"
        surely = "" if confidence is None else f" with {confidence:.3g} confidence"
        raise UsageError(
            f"a false-alarm rate of {alpha:g}{surely} takes at least {required} held-out normal images (or groups), "
            f"{possible}; add good images or ask for a higher rate"
        )


def plan_holdout(n_groups: int, alpha: float, explicit: bool, holdout: float | None = None) -> int:
    """How many of `n_groups` groups are held out for calibration.

    explicit: the user asked for this rate, so one that cannot be met is refused (UsageError) instead of leaving the
    package uncalibrated. holdout: a whole number of groups (≥ 1), a share (below 1), 0 for none, None for the default:
    a fifth, raised to what the rate requires as long as the bank keeps at least as many.
    """
    required = required_groups(alpha)
    if holdout is None:
        held = max(1, round(DEFAULT_HOLDOUT * n_groups))
        if held < required <= n_groups // 2:
            held = required
    else:
        held = _held_out(n_groups, holdout)
    if held > 0 and n_groups < 2:
        raise InputError(
            f"{n_groups} image (or group) of good parts is not enough to hold one out; "
            "give more, or hold out none with --holdout 0 (the package will be uncalibrated)"
        )
    if held >= max(n_groups, 1):
        raise UsageError(f"holding out {held} of {n_groups} groups leaves none for the memory bank; hold out fewer")
    if explicit and held < required:
        more = f" (by default that many again for the bank, so {2 * required} in all)" if holdout is None else ""
        other = f", hold out {required} of the {n_groups} explicitly" if n_groups > required else ""
        raise UsageError(
            f"a false-alarm rate of {alpha:g} takes {required} held-out normal images (or groups){more}, "
            f"but {held} of {n_groups} would be held out; add good images{other}, or ask for a rate of at least "
            f"{1 / (held + 1):.3g}"
        )
    return held


def check_validation(n_groups: int, alpha: float, explicit: bool) -> None:
    """UsageError when a data set's own validation split cannot support a rate that the user asked for."""
    required = required_groups(alpha)
    if explicit and n_groups < required:
        raise UsageError(
            f"a false-alarm rate of {alpha:g} takes {required} normal images (or groups) of validation, the data set "
            f"has {n_groups}; ask for a rate of at least {1 / (n_groups + 1):.3g}, or hold out train images (--holdout)"
        )


def realised_rate_interval(
    n: int, alpha: float, level: float = 0.9, confidence: float | None = None
) -> tuple[float, float]:
    """Where the false-alarm rate on the line may lie, given the n scores drawn: central interval of Beta(n+1−k, k).

    k is the rank of the threshold, which a confidence raises. level: of the interval. n = 99, α = 0.01: 0.05 % to 3 %.
    Continuous scores; with ties the rate is lower.
    """
    check_rate(alpha, n, confidence)
    exceeding, tail = n + 1 - threshold_rank(n, alpha, confidence), _tail(level)
    return _beta_quantile(n, exceeding, tail), _beta_quantile(n, exceeding, 1 - tail)


def observed_rate_interval(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Where the rate lies that made k of n independent parts wrong: Clopper and Pearson 1934, never covers less.

    0 of 60: 0 to 6 %. Raises UsageError unless 0 ≤ k ≤ n and n ≥ 1.
    """
    if not (n >= 1 and 0 <= k <= n):
        raise UsageError(f"{k} of {n} is no share; expected 0 ≤ k ≤ n and n ≥ 1")
    tail = _tail(confidence)
    return _beta_quantile(n, k, tail) if k else 0.0, _beta_quantile(n, k + 1, 1 - tail) if k < n else 1.0


def threshold_interval(scores: ArrayLike, alpha: float, confidence: float = 0.95) -> tuple[float, float]:
    """Where the score lies that exactly a share alpha of all normal parts exceeds, given n of them: (lower, upper).

    Both are order statistics of the scores, so that this holds for any distribution (David and Nagaraja 2003, 7.1):
    P(l-th ≤ quantile < u-th) = P(l ≤ Binomial(n, 1−α) < u). An end that n scores cannot bound is infinite: 19 scores
    have no upper one at 5 %.
    """
    ordered = np.sort(np.asarray(scores, np.float64))
    n, tail = len(ordered), _tail(confidence)
    below = np.cumsum(np.exp(_log_ways(n, n + 1) + _log_powers(n, n + 1, 1 - float(_exact(alpha)))))  # P(Bin ≤ i)
    first = int(np.searchsorted(below, tail, side="right"))  # the largest l with P(Bin ≤ l−1) ≤ tail
    last = int(np.searchsorted(below, 1 - tail, side="left")) + 1  # the smallest u with P(Bin ≤ u−1) ≥ 1−tail
    return (
        float(ordered[first - 1]) if first else -math.inf,
        float(ordered[last - 1]) if last <= n else math.inf,
    )


def _tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise UsageError(f"confidence is {confidence:g}; it must lie between 0 and 1, usually 0.9")
    return (1 - confidence) / 2


def exceedance_p_value(alarms: int, good: int, n: int, exceeding: int) -> float:
    """How likely at least `alarms` of `good` further parts exceed a threshold that `exceeding` − 1 of n parts exceed.

    For exchangeable parts with continuous scores; ties only make it less likely. Beta-binomial: the rate is Beta(a, b)
    with a = exceeding, b = n + 1 − exceeding, so that the count of a threshold that was itself drawn is judged.
    """
    a, b = exceeding, n + 1 - exceeding
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    tail = 0.0
    for k in range(alarms, good + 1):
        ways = math.lgamma(good + 1) - math.lgamma(k + 1) - math.lgamma(good - k + 1)
        tail += math.exp(ways + math.lgamma(k + a) + math.lgamma(good - k + b) - math.lgamma(good + a + b) - log_beta)
    return min(1.0, tail)


def _chance_of_keeping(n: int, exceeding: int, alpha: float) -> float:
    """P(realised rate ≤ alpha) of a threshold that exceeding − 1 of n scores exceed: P(Binomial(n, α) ≥ exceeding)."""
    return 1.0 - float(np.exp(_log_ways(n, exceeding) + _log_powers(n, exceeding, alpha)).sum())


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise UsageError(f"confidence is {confidence:g}; it must lie between 0 and 1, usually 0.95")


def _beta_quantile(n: int, a: int, probability: float) -> float:
    """Quantile of Beta(a, n+1−a), whole a, by bisection: its distribution function at x is P(Binomial(n, x) ≥ a)."""
    ways = _log_ways(n, a)
    low, high = 0.0, 1.0
    while high - low > 1e-15 + 1e-13 * high:
        middle = (low + high) / 2
        below = np.exp(ways + _log_powers(n, a, middle)).sum()
        low, high = (middle, high) if 1 - below < probability else (low, middle)
    return (low + high) / 2


def _log_ways(n: int, a: int) -> NDArray[np.float64]:
    """log of n choose i for i < a."""
    return np.array([math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in range(a)])


def _log_powers(n: int, a: int, x: float) -> NDArray[np.float64]:
    """log of xⁱ (1−x)ⁿ⁻ⁱ for i < a."""
    fewer = np.arange(a)
    return np.asarray(fewer * math.log(x) + (n - fewer) * math.log1p(-x))


def _highest(values: NDArray[np.float32], parts: list[Hashable]) -> NDArray[np.float32]:
    """One value per part, ascending."""
    highest: dict[Hashable, np.float32] = {}
    for value, part in zip(values, parts, strict=True):
        highest[part] = max(value, highest.get(part, value))
    return np.sort(np.array(list(highest.values()), np.float32))


def _held_out(n_groups: int, holdout: float) -> int:
    if isinstance(holdout, float) and not (math.isfinite(holdout) and (holdout < 1 or holdout.is_integer())):
        raise UsageError(f"holdout is {holdout:g}; give a share below 1, or a whole number of groups")
    if holdout < 0:
        raise UsageError(f"holdout is {holdout:g}; give 0, a share below 1, or a whole number of groups")
    return int(holdout) if holdout >= 1 or holdout == 0 else max(1, round(holdout * n_groups))


def _exact(alpha: float) -> Fraction:
    if not 1 / _LARGEST_DENOMINATOR <= alpha < 1:
        raise UsageError(f"false-alarm rate is {alpha}; it must lie between 0 and 1, e.g. 0.05 for one part in twenty")
    return Fraction(alpha).limit_denominator(_LARGEST_DENOMINATOR)
