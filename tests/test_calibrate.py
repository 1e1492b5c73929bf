"""Split conformal calibration: golden numbers, the guarantee by simulation, groups, refusals with numbers."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from onceover.errors import InputError, UsageError
from onceover.training.calibrate import (
    calibrate,
    check_rate,
    conformal_threshold,
    exceedance_p_value,
    observed_rate_interval,
    plan_holdout,
    realised_rate_interval,
    required_groups,
    required_parts,
    threshold_interval,
    threshold_rank,
)

# ---------------------------------------------------------------- thresholds


def test_the_threshold_and_p_value_of_nineteen_scores_are_those_of_the_specification() -> None:
    scores = np.arange(1, 20)  # ⌈20 · 0.9⌉ = 18th smallest; 17.5 is reached by 18 and 19: (1 + 2) / 20
    assert conformal_threshold(scores, 0.1) == 18
    assert reference.p_value(scores, 17.5) == 0.15


@pytest.mark.parametrize(
    ("alpha", "groups"),
    [(0.5, 1), (1 / 3, 2), (0.1, 9), (0.05, 19), (0.02, 49), (0.01, 99), (0.005, 199), (0.001, 999), (1e-6, 999_999)],
)
def test_a_rate_requires_one_over_alpha_minus_one_groups(alpha: float, groups: int) -> None:
    assert required_groups(alpha) == groups


@given(st.integers(1, 400), st.integers(1, 99))
def test_the_threshold_equals_the_rational_definition_for_every_count_and_percentage(n: int, percent: int) -> None:
    scores = np.random.default_rng(n).permutation(n).astype(np.float64)
    if n < required_groups(percent / 100):
        with pytest.raises(UsageError):
            conformal_threshold(scores, percent / 100)
    else:
        assert conformal_threshold(scores, percent / 100) == reference.conformal_threshold(scores, percent, 100)


@given(st.integers(1, 300), st.integers(0, 10**6))
def test_a_score_above_the_threshold_has_a_p_value_of_at_most_alpha(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, alpha = rng.integers(0, 50, n).astype(np.float64), 0.1
    if n >= required_groups(alpha):
        threshold = conformal_threshold(scores, alpha)
        for score in (threshold - 1, threshold, threshold + 1):
            assert (score > threshold) == (reference.p_value(scores, score) <= alpha + 1e-12)


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 2, float("nan"), 1e-12])
def test_a_rate_outside_zero_to_one_is_a_usage_error(alpha: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        required_groups(alpha)


@pytest.mark.parametrize(("n", "alpha"), [(19, 0.05), (99, 0.05), (99, 0.01)])
def test_the_realised_false_alarm_rate_keeps_its_promise(n: int, alpha: float) -> None:
    # A part of its own score distribution (log-normal) per trial: false alarms are Binomial(trials, p ≤ alpha).
    trials = 20_000
    draws = np.random.default_rng(n).lognormal(sigma=1.5, size=(trials, n + 1)).astype(np.float32)
    alarms = sum(int(row[-1] > conformal_threshold(row[:-1], alpha)) for row in draws)
    low, high = stats.binom.interval(0.9999, trials, alpha)  # continuous scores and n + 1 = 1/α·k: the rate is α itself
    assert low <= alarms <= high


# ---------------------------------------------------------------- groups


def test_six_exposures_of_one_part_count_once_by_the_highest() -> None:
    rng = np.random.default_rng(0)
    scores, maxima = rng.random((19, 6)), rng.random((19, 6))
    groups = [f"tile {i}" for i in range(19) for _ in range(6)]
    calibration = calibrate(scores.ravel(), maxima.ravel(), groups, 0.05)
    np.testing.assert_array_equal(calibration.scores, np.sort(scores.max(axis=1).astype(np.float32)))
    np.testing.assert_array_equal(calibration.map_maxima, np.sort(maxima.max(axis=1).astype(np.float32)))
    assert (calibration.n, calibration.image_count, calibration.calibrated) == (19, 114, True)
    assert calibration.threshold == float(np.float32(scores.max()))
    assert calibration.map_threshold == float(np.float32(maxima.max()))


def test_exposures_taken_for_independent_parts_would_break_the_promise() -> None:
    # The control for the test above: ten parts in six equal exposures look like 60 images, enough for 5 %. But the 58th
    # of 60 is the highest part, which a further part exceeds once in eleven.
    rng = np.random.default_rng(1)
    parts, further = rng.lognormal(size=(4000, 10)), rng.lognormal(size=4000)
    imagewise = np.array([conformal_threshold(np.repeat(row, 6), 0.05) for row in parts])
    assert np.mean(further > imagewise) == pytest.approx(1 / 11, abs=0.02)
    scores, groups = np.repeat(parts[0], 6), [i // 6 for i in range(60)]
    assert not calibrate(scores, scores, groups, 0.05).calibrated


def test_without_groups_every_image_is_a_part() -> None:
    calibration = calibrate(np.arange(40.0), np.arange(40.0), None, 0.05)
    assert (calibration.n, calibration.threshold) == (40, 38.0)  # ⌈41 · 0.95⌉ = 39th smallest


@pytest.mark.parametrize("n", [0, 1, 18])
def test_too_few_parts_leave_the_package_uncalibrated_but_keep_their_scores(n: int) -> None:
    calibration = calibrate(np.arange(float(n)), np.arange(float(n)), None, 0.05)
    assert (calibration.threshold, calibration.map_threshold, calibration.calibrated) == (None, None, False)
    assert calibration.n == n


@pytest.mark.parametrize(
    ("scores", "maxima", "groups", "said"),
    [
        ([1.0, float("nan")], [1.0, 1.0], None, "image 1 has score nan"),
        ([1.0, 1.0], [1.0, float("inf")], None, "image 1 has score 1.0 and map maximum inf"),
        ([1.0, 2.0], [1.0], None, "one of each"),
        ([1.0, 2.0], [1.0, 2.0], ["a"], "1 groups"),
    ],
)
def test_values_that_are_not_finite_or_do_not_match_are_refused(
    scores: list[float], maxima: list[float], groups: list[str] | None, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        calibrate(scores, maxima, groups, 0.05)


# ---------------------------------------------------------------- what can be promised


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
@pytest.mark.parametrize(("n", "alpha"), [(1, 0.5), (19, 0.05), (99, 0.01), (99, 0.2), (400, 0.05), (5000, 0.05)])
def test_the_interval_of_the_realised_rate_is_that_of_the_beta_distribution(
    n: int, alpha: float, confidence: float
) -> None:
    k = int(np.ceil(round((n + 1) * (1 - alpha), 9)))
    expected = stats.beta(n + 1 - k, k).ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    np.testing.assert_allclose(realised_rate_interval(n, alpha, confidence), expected, rtol=1e-9)


def test_ninety_nine_images_at_one_percent_may_realise_a_rate_of_a_twentieth_to_three_percent() -> None:
    low, high = realised_rate_interval(99, 0.01)
    assert (round(low, 4), round(high, 2)) == (0.0005, 0.03)


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(0, 300), st.floats(0.5, 0.99))
def test_the_interval_of_an_observed_rate_is_scipys_exact_one(k: int, others: int, confidence: float) -> None:
    assume(k + others > 0)
    expected = stats.binomtest(k, k + others).proportion_ci(confidence, method="exact")
    np.testing.assert_allclose(observed_rate_interval(k, k + others, confidence), expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_what_is_no_share_has_no_interval(k: int, n: int) -> None:
    with pytest.raises(UsageError, match=f"{k} of {n} is no share"):
        observed_rate_interval(k, n)


@settings(deadline=None)
@given(st.integers(19, 400), st.integers(1, 50), st.floats(0.5, 0.99))
def test_the_interval_of_a_threshold_is_the_shortest_pair_of_ranks_that_each_tail_allows(
    n: int, percent: int, confidence: float
) -> None:
    found = threshold_interval(np.random.default_rng(n).permutation(n) + 1, percent / 100, confidence)
    ranks, tail = np.arange(1, n + 1), (1 - confidence) / 2
    below = stats.binom(n, 1 - percent / 100).cdf(ranks - 1)
    low = max(ranks[below <= tail], default=-np.inf)
    high = min(ranks[below >= 1 - tail], default=np.inf)
    assert found == (low, high)


def test_nineteen_scores_bound_the_threshold_from_below_only() -> None:
    low, high = threshold_interval(np.arange(1, 20), 0.05)  # no rank is high enough
    assert (low, high) == (16, np.inf)  # P(Binomial(19, 0.95) ≤ 15) = 1.3 %, ≤ 16: 6.7 %; ≤ 18: 62 %


def test_a_rate_that_the_data_cannot_support_is_refused_with_the_number_it_would_take() -> None:
    with pytest.raises(UsageError, match=r"0.01 takes at least 99 .* 50 support 0.0196 at best"):
        check_rate(0.01, 50)
    check_rate(0.01, 99)


# ---------------------------------------------------------------- how much is held out


@pytest.mark.parametrize(
    ("n_groups", "alpha", "holdout", "held"),
    [
        (252, 0.05, None, 50),  # a fifth supports the rate
        (60, 0.05, None, 19),  # a fifth is 12: raised to what the rate takes
        (38, 0.05, None, 19),  # … as long as the bank keeps as many
        (37, 0.05, None, 7),  # too few for both: a fifth, uncalibrated
        (2, 0.05, None, 1),
        (60, 0.05, 0, 0),
        (1, 0.05, 0, 0),
        (60, 0.05, 0.5, 30),
        (60, 0.05, 1, 1),
        (60, 0.05, 40, 40),
        (60, 0.05, 0.001, 1),
    ],
)
def test_the_holdout_is_a_fifth_or_what_the_rate_takes_or_what_was_asked(
    n_groups: int, alpha: float, holdout: float | None, held: int
) -> None:
    assert plan_holdout(n_groups, alpha, explicit=False, holdout=holdout) == held


@pytest.mark.parametrize(
    ("n_groups", "alpha", "holdout", "said"),
    [
        (37, 0.05, None, r"takes 19 held-out .* 38 in all\), but 7 of 37 .* hold out 19 of the 37"),
        (100, 0.01, None, r"takes 99 .* 198 in all\), but 20 of 100 .* hold out 99 of the 100"),
        (50, 0.01, None, r"takes 99 .* but 10 of 50 would be held out; add good images, or ask .* 0.0909"),
        (100, 0.05, 10, r"takes 19 held-out normal images \(or groups\), but 10 of 100"),
        (100, 0.05, 0, "but 0 of 100"),
    ],
)
def test_an_explicit_rate_that_cannot_be_met_is_refused_with_numbers(
    n_groups: int, alpha: float, holdout: float | None, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        plan_holdout(n_groups, alpha, explicit=True, holdout=holdout)


def test_an_explicit_rate_that_can_be_met_is_planned_like_the_default() -> None:
    assert plan_holdout(38, 0.05, explicit=True) == 19
    assert plan_holdout(100, 0.01, explicit=True, holdout=99) == 99


@pytest.mark.parametrize("n_groups", [0, 1])
def test_one_part_alone_cannot_be_split(n_groups: int) -> None:
    with pytest.raises(InputError, match="not enough to hold one out"):
        plan_holdout(n_groups, 0.05, explicit=False)


@pytest.mark.parametrize(
    ("holdout", "said"),
    [(10, "none for the memory bank"), (11, "none for"), (-1, "holdout is -1"), (1.5, "1.5; give a share below 1")],
)
def test_a_holdout_that_leaves_no_bank_or_means_nothing_is_a_usage_error(holdout: float, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        plan_holdout(10, 0.2, explicit=False, holdout=holdout)


# ---------------------------------------------------------------- with confidence


@pytest.mark.parametrize(
    ("alpha", "confidence", "parts"),
    # ln(1 − c) / ln(1 − α), rounded up: the tables of Wilks 1941; never less than the rate takes on average
    [(0.05, 0.95, 59), (0.05, 0.9, 45), (0.01, 0.95, 299), (0.01, 0.99, 459), (0.1, 0.95, 29), (0.05, 0.5, 19)],
)
def test_a_rate_with_confidence_takes_as_many_parts_as_wilks_says(alpha: float, confidence: float, parts: int) -> None:
    assert required_parts(alpha, confidence) == parts
    check_rate(alpha, parts, confidence)
    with pytest.raises(UsageError, match=f"confidence takes at least {parts} held-out"):
        check_rate(alpha, parts - 1, confidence)
    assert required_parts(alpha, None) == required_groups(alpha)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.01])
@pytest.mark.parametrize("n", [59, 93, 100, 459, 1000, 20_000])
def test_the_rank_with_confidence_is_the_lowest_that_the_beta_distribution_allows(
    n: int, alpha: float, confidence: float
) -> None:
    rank = threshold_rank(n, alpha, confidence)
    if n < required_parts(alpha, confidence):
        assert rank == n + 1
        return
    assert stats.beta(n + 1 - rank, rank).cdf(alpha) >= confidence - 1e-12
    assert rank >= threshold_rank(n, alpha)  # the rate holds on average, too
    lower = rank - 1
    kept = stats.beta(n + 1 - lower, lower).cdf(alpha) if lower else 0.0
    assert kept < confidence or lower < threshold_rank(n, alpha)


def test_a_calibration_with_confidence_has_the_higher_threshold_and_says_so() -> None:
    scores = np.random.default_rng(3).permutation(100).astype(np.float64)
    plain, sure = (calibrate(scores, scores / 2, None, 0.05, confidence) for confidence in (None, 0.95))
    assert (plain.threshold, plain.confidence) == (95.0, None)  # ⌈101 · 0.95⌉ = 96th smallest
    # P(Binomial(100, 0.05) ≥ 2) = 0.963, ≥ 3: 0.882; so two of 100 may lie at or above it: the 99th smallest
    assert (sure.threshold, sure.map_threshold, sure.confidence) == (98.0, 49.0, 0.95)
    assert not calibrate(scores[:58], scores[:58], None, 0.05, 0.95).calibrated


@pytest.mark.parametrize("confidence", [0, 1, -0.5, 95, float("nan")])
def test_a_confidence_outside_zero_to_one_is_a_usage_error(confidence: float) -> None:
    with pytest.raises(UsageError, match=r"between 0 and 1, usually 0\.95"):
        calibrate(np.arange(100.0), np.arange(100.0), None, 0.05, confidence)


@pytest.mark.parametrize(("alarms", "good", "n", "exceeding"), [(0, 5, 19, 1), (3, 20, 99, 5), (14, 17, 19, 1)])
def test_the_chance_of_so_many_false_alarms_is_that_of_the_beta_binomial(
    alarms: int, good: int, n: int, exceeding: int
) -> None:
    expected = stats.betabinom(good, exceeding, n + 1 - exceeding).sf(alarms - 1)
    assert exceedance_p_value(alarms, good, n, exceeding) == pytest.approx(expected, rel=1e-9)
