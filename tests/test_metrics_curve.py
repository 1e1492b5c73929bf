"""Curves of a test set: the area under their vertices is the metric, and operating points equal brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference
from metric_sets import arrays, collected, images, loco_images
from tolerances import EXACT_METRIC

from onceover import metrics
from onceover.errors import UsageError

SEEDS = range(4)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_trapezoids_under_the_vertices_are_the_metrics(seed: int) -> None:
    made = collected(images(seed))
    report, curve = made.compute((0.3, 0.05, 0.011, 1.0)), made.curve()
    for limit, value in report.aupro.items():
        area = reference.area_up_to(curve.fpr.tolist(), curve.pro.tolist(), limit)
        assert area == pytest.approx(value, abs=EXACT_METRIC, rel=0)
    area = reference.area_up_to(curve.fpr.tolist(), curve.tpr.tolist(), 1.0)
    assert area == pytest.approx(report.pixel_auroc, abs=EXACT_METRIC, rel=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_precision_recall_points_give_average_precision_and_the_largest_f1(seed: int) -> None:
    made = collected(images(seed))
    report, curve = made.compute(), made.curve()
    steps = np.sum(np.diff(curve.tpr) * curve.precision[1:])
    assert steps == pytest.approx(report.average_precision, abs=EXACT_METRIC, rel=0)
    f1 = 2 * curve.precision * curve.tpr / (curve.precision + curve.tpr).clip(min=1e-300)
    assert f1.max() == pytest.approx(report.f1_max, abs=EXACT_METRIC, rel=0)
    point = curve.at(report.f1_max_threshold)
    f1_there = 2 * point.precision * point.tpr / (point.precision + point.tpr)
    assert f1_there == pytest.approx(report.f1_max, abs=EXACT_METRIC, rel=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_curve_runs_from_nothing_to_everything_and_never_turns_back(seed: int) -> None:
    curve = collected(images(seed)).curve()
    assert (curve.thresholds[0], curve.fpr[0], curve.pro[0], curve.tpr[0]) == (math.inf, 0, 0, 0)
    assert (curve.fpr[-1], curve.tpr[-1]) == (1, 1)
    assert curve.pro[-1] == pytest.approx(1, abs=EXACT_METRIC)
    assert (np.diff(curve.thresholds[1:]) <= 0).all()
    for values in (curve.fpr, curve.pro, curve.tpr):
        assert (np.diff(values) >= 0).all()
    assert not curve.spro.any()


@pytest.mark.parametrize("seed", SEEDS)
def test_an_operating_point_equals_brute_force_at_every_anomalous_score(seed: int) -> None:
    of = images(seed, side=14)
    maps, masks = arrays(of)
    curve = collected(of).curve()
    for threshold in np.unique(np.concatenate([m[k > 0] for m, k in zip(maps, masks, strict=True)])):
        point = curve.at(float(threshold))
        expected = reference.operating_point(maps, masks, float(threshold))
        assert (point.fpr, point.pro, point.tpr, point.precision) == pytest.approx(expected, abs=EXACT_METRIC, rel=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_asked_thresholds_are_exact_wherever_they_lie(seed: int) -> None:
    of = images(seed, side=14)
    maps, masks = arrays(of)
    asked = [-math.inf, -3.0, 0.1, 20.0, 50.5, 61.0, 61.00000001, 99.0, 1e300, math.inf]
    made = collected(of)
    before = made.to_bytes()
    curve = made.curve(thresholds=asked)
    for threshold in asked:
        point = curve.at(threshold)
        expected = reference.operating_point(maps, masks, threshold)
        assert (point.fpr, point.pro, point.tpr, point.precision) == pytest.approx(expected, abs=EXACT_METRIC, rel=0)
    area = reference.area_up_to(curve.fpr.tolist(), curve.pro.tolist(), 0.3)
    assert area == pytest.approx(made.compute().aupro[0.3], abs=EXACT_METRIC, rel=0)
    assert made.to_bytes() == before


def test_a_point_between_vertices_with_unknown_false_positives_is_refused_not_guessed() -> None:
    anomaly_map, mask = np.array([[9, 7, 5, 3, 1]], np.float32), np.array([[1, 0, 0, 1, 0]], np.uint8)
    curve = collected([(anomaly_map, mask, None)]).curve()
    with pytest.raises(UsageError, match=r"curve\(thresholds=\[6.0\]\)"):
        curve.at(6.0)
    assert curve.at(9.0).fpr == 0
    assert curve.at(3.0).fpr == pytest.approx(2 / 3)
    with pytest.raises(UsageError, match="threshold is NaN"):
        curve.at(math.nan)
    with pytest.raises(UsageError, match="threshold is NaN"):
        collected([(anomaly_map, mask, None)]).curve(thresholds=[1.0, math.nan])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_threshold_of_a_limit_is_the_lowest_of_the_curve_that_keeps_it(seed: int) -> None:
    of = images(seed, side=14)
    normal = np.concatenate([m[k == 0] for m, k in zip(*arrays(of), strict=True)])
    curve = collected(of).curve()
    for limit in (0.0, 0.01, 0.05, 0.3, 0.5, 1.0):
        threshold = curve.threshold_at_fpr(limit)
        assert np.mean(normal >= threshold) <= limit
        lower = curve.thresholds[curve.thresholds < np.float32(threshold)]
        assert lower.size == 0 or np.mean(normal >= lower.max()) > limit
    for limit in (-0.1, 1.1, math.nan):
        with pytest.raises(UsageError, match="fpr_limit"):
            curve.threshold_at_fpr(limit)


def test_infinite_scores_have_operating_points() -> None:
    scores = np.array([[math.inf, math.inf, 2, -math.inf, -math.inf]], np.float32)
    mask = np.array([[1, 0, 0, 1, 0]], np.uint8)
    curve = collected([(scores, mask, None)]).curve()
    for threshold in (math.inf, -math.inf):
        point = curve.at(threshold)
        expected = reference.operating_point([scores], [mask], threshold)
        assert (point.fpr, point.pro, point.tpr, point.precision) == pytest.approx(expected, abs=EXACT_METRIC)


def test_normal_scores_of_infinity_above_every_anomalous_one_are_not_forgotten() -> None:
    scores, mask = np.array([[math.inf, 2, 1]], np.float32), np.array([[0, 1, 0]], np.uint8)
    made = collected([(scores, mask, None)])
    assert made.curve().at(math.inf).fpr == 0.5
    assert made.curve(thresholds=[math.inf]).at(math.inf).fpr == 0.5
    assert made.curve().threshold_at_fpr(0.5) == 2
    with pytest.raises(UsageError, match=r"no threshold keeps a false positive rate of 0\.1: too many"):
        made.curve().threshold_at_fpr(0.1)


def test_the_curve_of_one_kind_belongs_to_its_row_of_the_breakdown() -> None:
    made = collected(images(2))
    report = made.compute()
    for kind, of_kind in report.by_defect.items():
        curve = made.curve(kind)
        area = reference.area_up_to(curve.fpr.tolist(), curve.pro.tolist(), 0.3)
        assert area == pytest.approx(of_kind.aupro[0.3], abs=EXACT_METRIC, rel=0)


def test_the_spro_of_the_vertices_has_auspro_as_its_area() -> None:
    made = metrics.SegmentationMetrics((0.05, 0.3, 1.0))
    for image in loco_images(5):
        made.update_channels(image.anomaly_map, image.masks, image.saturation_areas)
    curve = made.curve()
    for limit, value in made.compute().auspro.items():
        area = reference.area_up_to(curve.fpr.tolist(), curve.spro.tolist(), limit)
        assert area == pytest.approx(value, abs=EXACT_METRIC, rel=0)
