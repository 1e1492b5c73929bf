"""What leak detection rests on: the rank-sum test, and the false-positive bound of the rule about reproduced rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from onceover.training.leaks import MIN_ROWS, MIN_SHARE, NEAR, rank_sum_p_value


@pytest.mark.parametrize("kind", ["continuous", "ties"])
@pytest.mark.parametrize(("n", "m", "shift"), [(20, 50, 0), (20, 50, 1), (100, 19, -0.5), (1, 1, 0)])
def test_the_rank_sum_test_is_that_of_scipy(kind: str, n: int, m: int, shift: float) -> None:
    rng = np.random.default_rng(n)
    lower, higher = rng.normal(-shift, 1, n), rng.normal(0, 1, m)
    if kind == "ties":
        lower, higher = lower.round(), higher.round()
    expected = stats.mannwhitneyu(lower, higher, alternative="less", method="asymptotic").pvalue
    assert rank_sum_p_value(lower, higher) == pytest.approx(1.0 if np.isnan(expected) else expected, rel=1e-9)


def test_nothing_to_compare_says_nothing() -> None:
    assert rank_sum_p_value([], [1.0, 2.0]) == rank_sum_p_value([1.0], []) == rank_sum_p_value([1.0], [1.0]) == 1.0


@pytest.mark.parametrize("images", [10, 100, 1000])
def test_a_new_image_reproduces_enough_rows_of_one_of_a_thousand_with_the_probability_that_is_claimed(
    images: int,
) -> None:
    per_row, worst = NEAR**4, 0.0  # 4 dimensions, and as many patches as rows
    for rows in range(MIN_ROWS, 10_001 // images + 1):  # of each image, in a bank of at most 10,000
        enough = max(MIN_ROWS, int(np.ceil(MIN_SHARE * rows)))
        worst = max(worst, images * float(stats.binom.sf(enough - 1, rows, per_row)))
    assert worst < 1e-4
