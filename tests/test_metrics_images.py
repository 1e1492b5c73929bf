"""Curves and intervals of image scores, beside counting by hand and drawing anew. Values: test_metrics.py."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import reference
from numpy.typing import NDArray
from tolerances import EXACT_METRIC

from onceover import metrics
from onceover.errors import InputError, UsageError
from onceover.metrics.bootstrap import _resampled_counts

Images = tuple[NDArray[Any], NDArray[np.bool_]]


def images(seed: int, count: int = 60, dtype: Any = np.float32) -> Images:
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.4
    return np.round(3 * (rng.normal(size=count) + labels)).astype(dtype), labels


def counted(scores: NDArray[Any], labels: NDArray[np.bool_], threshold: float) -> tuple[float, float, float]:
    flagged = scores.astype(np.float64) >= threshold
    precision = float(labels[flagged].mean()) if flagged.any() else 1.0
    return float(flagged[~labels].mean()), float(flagged[labels].mean()), precision


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int32])
def test_every_point_of_a_curve_is_what_counting_says_at_and_between_scores(dtype: Any) -> None:
    scores, labels = images(1, dtype=dtype)
    curve = metrics.image_curve(scores, labels)
    assert len(curve) == len(np.unique(scores)) + 1
    assert math.isinf(curve.thresholds[0])
    for threshold in [*curve.thresholds, *(curve.thresholds[1:] + 0.4), 1e9, -1e9, -math.inf]:
        point = curve.at(float(threshold))
        assert (point.fpr, point.tpr, point.precision) == counted(scores, labels, float(threshold))
        assert point.threshold == threshold
    area = float(np.sum(np.diff(curve.fpr) * (curve.tpr[1:] + curve.tpr[:-1]) / 2))
    assert area == pytest.approx(metrics.image_auroc(scores, labels), abs=EXACT_METRIC)


@pytest.mark.parametrize("seed", range(4))
def test_thresholds_at_a_rate_are_the_best_scores_that_keep_it(seed: int) -> None:
    scores, labels = images(seed)
    curve = metrics.image_curve(scores, labels)
    for limit in (0, 0.05, 0.1, 0.5, 1):
        keeping = [float(t) for t in np.unique(scores) if counted(scores, labels, t)[0] <= limit]
        assert curve.threshold_at_fpr(limit) == min(keeping, default=math.inf)
    for rate in (0.01, 0.5, 0.95, 1):
        finding = [float(t) for t in np.unique(scores) if counted(scores, labels, t)[1] >= rate]
        assert curve.threshold_at_tpr(rate) == max(finding)


def test_the_false_positive_rate_at_95_percent_of_twenty_is_that_at_nineteen() -> None:
    scores, labels = np.arange(25.0), np.arange(25) >= 5  # 20 anomalous above 5 normal ones
    scores[5] = -1  # and one below them
    curve = metrics.image_curve(scores, labels)
    assert curve.threshold_at_tpr(0.95) == 6
    assert curve.at(6) == metrics.ImagePoint(6.0, 0.0, 0.95, 1.0)
    assert curve.at(curve.threshold_at_tpr(0.951)).fpr == 1


def test_infinite_scores_and_both_zeros_have_their_place_in_a_curve() -> None:
    curve = metrics.image_curve([math.inf, 0.0, -0.0, -math.inf], [1, 1, 0, 0])
    assert curve.thresholds.tolist() == [math.inf, math.inf, 0, -math.inf]
    assert curve.tpr.tolist() == [0, 0.5, 1, 1]
    assert curve.fpr.tolist() == [0, 0, 0.5, 1]
    assert curve.at(math.inf).tpr == 0.5
    assert curve.threshold_at_fpr(0) == math.inf
    with pytest.raises(UsageError, match="too many normal scores are"):
        metrics.image_curve([math.inf, 0.0], [0, 1]).threshold_at_fpr(0.5)


@pytest.mark.parametrize("seed", range(3))
def test_intervals_are_the_quantiles_of_metrics_of_drawn_images(seed: int) -> None:
    scores, labels = images(seed, 25, np.float64)
    exact = {"image_auroc": reference.auroc, "average_precision": reference.average_precision}
    order = np.lexsort((labels, scores))[::-1]
    found = metrics.image_intervals(scores, labels, level=0.9, resamples=300, seed=7)
    drawn: dict[str, list[float]] = {name: [] for name in found}
    for counts in _resampled_counts(25, 300, 7).astype(int):
        chosen = np.repeat(order, counts)
        if labels[chosen].all() or not labels[chosen].any():
            continue
        for name, slow in exact.items():
            drawn[name].append(slow(scores[chosen], labels[chosen]))
        drawn["f1_max"].append(reference.f1_max(scores[chosen], labels[chosen])[0])
    assert list(found) == ["image_auroc", "average_precision", "f1_max"]
    for name, interval in found.items():
        lower, upper = np.quantile(drawn[name], (0.05, 0.95))
        assert interval.lower == pytest.approx(lower, abs=EXACT_METRIC)
        assert interval.upper == pytest.approx(upper, abs=EXACT_METRIC)
        assert interval.lower < interval.upper
        assert (interval.level, interval.summary_error, interval.left_out) == (0.9, 0, 300 - len(drawn[name]))


def test_intervals_do_not_depend_on_the_order_of_images_but_on_the_seed() -> None:
    scores, labels = images(3)
    there = np.random.default_rng(0).permutation(len(scores))
    found = metrics.image_intervals(scores, labels)
    assert metrics.image_intervals(scores[there], labels[there]) == found
    assert metrics.image_intervals(scores, labels, seed=1) != found


def test_how_many_resamples_are_worked_on_at_a_time_changes_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels = images(5)
    found = metrics.image_intervals(scores, labels, resamples=30)
    for values in (1, 7 * len(scores)):
        monkeypatch.setattr("onceover.metrics.bootstrap._VALUES", values)
        assert metrics.image_intervals(scores, labels, resamples=30) == found


def test_a_single_class_has_no_curve_and_no_intervals() -> None:
    for label, lacking in ((0, "anomalous"), (1, "normal")):
        with pytest.raises(InputError, match=f"there is no curve: no {lacking} image"):
            metrics.image_curve([1.0, 2.0], [label, label])
        with pytest.warns(RuntimeWarning, match=f"no {lacking} image") as caught:
            found = metrics.image_intervals([1.0, 2.0], [label, label], resamples=5)
        assert [warning.filename for warning in caught] == [__file__]
        assert all(math.isnan(each.lower) and each.left_out == 5 for each in found.values())


def test_what_makes_no_sense_is_refused() -> None:
    scores, labels = images(0)
    curve = metrics.image_curve(scores, labels)
    wrong: tuple[tuple[Any, str], ...] = (
        (lambda: curve.at(math.nan), "threshold is NaN"),
        (lambda: curve.at(None), "threshold is None"),  # type: ignore[arg-type]
        (lambda: curve.threshold_at_fpr(1.1), "fpr_limit is 1.1"),
        (lambda: curve.threshold_at_tpr(0), "rate is 0"),
        (lambda: metrics.image_intervals(scores, labels, level=95), "level is 95"),
        (lambda: metrics.image_intervals(scores, labels, resamples=0), "resamples 0"),
    )
    for asked, said in wrong:
        with pytest.raises(UsageError, match=said):
            asked()
    for taken in (metrics.image_curve, metrics.image_intervals):
        with pytest.raises(InputError, match="image 0 is NaN"):
            taken([math.nan, 1], [0, 1])
