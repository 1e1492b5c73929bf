"""The promises of a calibration, kept in simulation where the distribution is known, at the sizes people have.

Every assertion may fail by chance with probability MISS, here derived, not tuned: alarms are Binomial counts, a share
of draws above the rate is one, too. With fixed seeds they do not fail by chance at all; another seed may be tried.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from simulated_parts import PARTS, binomial_bounds, realised, realised_of_exposures

from onceover.training.calibrate import conformal_rank, required_groups, threshold_rank

MISS = 1e-6
TRIALS = 500


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize(("n", "alpha"), [(20, 0.05), (100, 0.05), (1000, 0.05), (100, 0.01), (1000, 0.01)])
def test_the_realised_false_alarm_rate_lies_within_binomial_bounds(name: str, n: int, alpha: float) -> None:
    parts, rng = PARTS[name], np.random.default_rng([n, round(1 / alpha)])
    found = realised(parts, n, alpha, None, TRIALS, rng)
    expected = (n + 1 - conformal_rank(n, alpha)) / (n + 1)  # the mean of Beta(n+1−k, k); at most alpha
    assert expected <= alpha
    low, high = binomial_bounds(TRIALS, expected, MISS)
    assert found.alarms <= high
    if parts.continuous:
        assert found.alarms >= low
        exceeding = n + 1 - conformal_rank(n, alpha)
        assert stats.kstest(found.rates, stats.beta(exceeding, n + 1 - exceeding).cdf).pvalue > MISS
    else:  # ties only lower it
        assert found.rates.mean() <= expected


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("n", [59, 100, 1000])
def test_with_confidence_hardly_any_draw_of_parts_gives_a_higher_rate(name: str, n: int) -> None:
    alpha, confidence = 0.05, 0.95
    found = realised(PARTS[name], n, alpha, confidence, TRIALS, np.random.default_rng([n, 95]))
    above = int((found.rates > alpha).sum())
    assert above <= binomial_bounds(TRIALS, 1 - confidence, MISS)[1]
    if PARTS[name].continuous:  # and no more parts than that are given away: P(rate > α) is that of the rank below
        rank = threshold_rank(n, alpha, confidence)
        assert above >= binomial_bounds(TRIALS, stats.beta(n + 1 - rank, rank).sf(alpha), MISS)[0]


def test_without_confidence_many_a_draw_gives_a_higher_rate() -> None:
    # The control for the test above: on average the rate is kept, but 36 % of the thresholds of 19 parts exceed it.
    found = realised(PARTS["normal"], 19, 0.05, None, TRIALS, np.random.default_rng(19))
    assert stats.beta(1, 19).sf(0.05) == pytest.approx(0.377, abs=0.001)
    low, high = binomial_bounds(TRIALS, stats.beta(1, 19).sf(0.05), MISS)
    assert low <= int((found.rates > 0.05).sum()) <= high


@pytest.mark.parametrize("n_parts", [20, 100])
def test_exposures_counted_by_part_keep_the_rate(n_parts: int) -> None:
    found = realised_of_exposures(n_parts, 0.9, 0.05, True, TRIALS, np.random.default_rng(n_parts))
    low, high = binomial_bounds(TRIALS, (n_parts + 1 - conformal_rank(n_parts, 0.05)) / (n_parts + 1), MISS)
    assert low <= found.alarms <= high


def test_exposures_counted_one_by_one_do_not() -> None:
    # The control: six pictures of each of 6 parts look like 36 images, enough for 5 %. They are about 6.
    found = realised_of_exposures(6, 0.98, 0.05, False, TRIALS, np.random.default_rng(6))
    assert required_groups(0.05) <= 36
    assert found.alarms > binomial_bounds(TRIALS, 0.05, MISS)[1]
    assert found.rates.mean() > 0.08
