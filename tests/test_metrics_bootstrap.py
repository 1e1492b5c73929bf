"""Bootstrap intervals: right about their own error, independent of order, and covering what they should."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from metric_sets import Image, collected, images, loco_images

from onceover import metrics
from onceover.errors import UsageError
from onceover.metrics.curve import float32_at_or_above
from onceover.metrics.summaries import ImageSummary, summarize


def smooth_images(seed: int, count: int, side: int = 48) -> list[Image]:
    """Continuous scores whose contrast of defect and background differs from image to image."""
    rng = np.random.default_rng(seed)
    made: list[Image] = []
    for i in range(count):
        scores = rng.normal(0, 1, (side, side)) + rng.normal(0, 0.3)
        mask = np.zeros((side, side), np.uint8)
        if i % 2:
            y, x = rng.integers(2, side - 14, 2)
            mask[y : y + 8, x : x + 10] = 1
            scores[mask > 0] += rng.normal(1.5, 1)
        made.append((scores.astype(np.float32), mask, None))
    return made


def interval_widths(of: Sequence[Image]) -> dict[str, float]:
    found = collected(of, bootstrap=True).intervals(resamples=300)
    return {name: interval.upper - interval.lower for name, interval in found.items()}


def test_intervals_have_the_names_of_the_report_and_lie_around_its_values() -> None:
    made = collected(smooth_images(0, 30), bootstrap=True)
    found, exact = made.intervals(), made.compute().values()
    assert found.keys() == exact.keys()
    for name, interval in found.items():
        assert interval.lower < exact[name] < interval.upper
        assert (interval.level, interval.left_out) == (0.95, 0)


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("smooth", smooth_images(1, 12)),
        ("256 levels", images(1, 12)),
        ("heavy tails", [(np.exp(8 * m).astype(np.float32), k, d) for m, k, d in smooth_images(2, 12)]),
        ("mostly zero", [(np.maximum(m - np.float32(0.3), 0), k, d) for m, k, d in smooth_images(11, 12)]),
        ("narrow", [(np.float32(1000) + m * np.float32(1e-2), k, d) for m, k, d in smooth_images(3, 12)]),
    ],
)
def test_summaries_reproduce_the_exact_metrics_closely_whatever_the_range_of_scores(name: str, of: list[Image]) -> None:
    for interval in collected(of, bootstrap=True).intervals(resamples=10).values():
        assert interval.summary_error < 1e-3, name


def test_summaries_of_few_levels_are_exact() -> None:
    of: list[Image] = [((m > 60).astype(np.uint8), k, d) for m, k, d in images(2)]
    for interval in collected(of, bootstrap=True).intervals(resamples=10).values():
        assert interval.summary_error < 1e-12


def test_many_identical_images_have_no_spread_around_the_exact_value() -> None:
    made = collected([smooth_images(4, 2, side=160)[1]] * 20, bootstrap=True)
    exact, found = made.compute().values(), made.intervals(resamples=50)
    for name, interval in found.items():
        assert (interval.lower, interval.upper) == pytest.approx((exact[name], exact[name]), abs=1e-9, rel=0)
    assert max(interval.summary_error for interval in found.values()) > 1e-7  # the summaries alone are not exact


def test_few_images_have_wider_intervals_than_many() -> None:
    few, many = interval_widths(smooth_images(5, 12)), interval_widths(smooth_images(5, 200))
    for name, width in many.items():
        assert few[name] > 2 * width > 0


def test_a_higher_level_is_wider() -> None:
    made = collected(smooth_images(6, 20), bootstrap=True)
    narrow, wide = made.intervals(0.5), made.intervals(0.99)
    for name in narrow:
        assert wide[name].lower < narrow[name].lower < narrow[name].upper < wide[name].upper


def test_the_seed_decides_and_the_order_of_images_and_merges_does_not() -> None:
    of = smooth_images(7, 20)
    made = collected(of, bootstrap=True)
    parts = collected(of[::-2], bootstrap=True)
    parts += collected(of[-2::-2], bootstrap=True)
    assert parts.intervals(resamples=50) == made.intervals(resamples=50)
    assert made.intervals(resamples=50, seed=1) != made.intervals(resamples=50)


def test_resamples_without_a_class_are_left_out_and_counted() -> None:
    good, defective = smooth_images(8, 2)
    found = collected([good, good, defective], bootstrap=True).intervals(resamples=400)
    for interval in found.values():
        assert 70 < interval.left_out < 170  # (2/3)^3 of 400 is 119; 70 and 170 are over five standard deviations away
        assert not math.isnan(interval.lower)


def test_a_set_without_defects_has_nan_intervals() -> None:
    good = smooth_images(9, 1)[0]
    for interval in collected([good, good], bootstrap=True).intervals(resamples=10).values():
        assert math.isnan(interval.lower)
        assert interval.left_out == 10


def test_channels_have_intervals_of_auspro() -> None:
    made = metrics.SegmentationMetrics((0.05, 0.3), bootstrap=True)
    for seed in range(6):
        for image in loco_images(seed):
            made.update_channels(image.anomaly_map, image.masks, image.saturation_areas)
    exact, found = made.compute().auspro, made.intervals(resamples=200)
    for limit, value in exact.items():
        interval = found[f"auspro@{limit}"]
        assert interval.lower <= value <= interval.upper
        assert interval.summary_error < 1e-3
        assert interval.upper > interval.lower


def test_nine_in_ten_intervals_of_known_sets_hold_the_value_of_the_whole_population() -> None:
    # The truth: a set so large that its own value moves by a tenth of an interval at most.
    truth = collected(smooth_images(100, 1500, side=24)).compute().pixel_auroc
    held = 0
    for trial in range(40):
        made = metrics.SegmentationMetrics((), bootstrap=True)
        for anomaly_map, mask, _ in smooth_images(200 + trial, 40, side=24):
            made.update(anomaly_map, mask)
        interval = made.intervals(0.9, resamples=200)["pixel_auroc"]
        held += interval.lower <= truth <= interval.upper
    # Binomial(40, 0.9) is 36 ± 1.9; small samples cover a little less. Below 30 or always would be a defect.
    assert 30 <= held < 40


def test_arguments_that_make_no_sense_are_usage_errors() -> None:
    made = collected(images(1), bootstrap=True)
    for level, resamples in ((0, 10), (1, 10), (math.nan, 10), (0.9, 0)):
        with pytest.raises(UsageError, match="expected between 0 and 1, and at least 1"):
            made.intervals(level, resamples)


def test_a_summary_counts_every_pixel_and_survives_its_bytes() -> None:
    for anomaly_map, mask, _ in smooth_images(10, 4):
        components = metrics.connected_components(mask)
        summary = summarize(anomaly_map, components, [], [])
        assert int(summary.normal_counts.sum()) == int((mask == 0).sum())
        assert int(summary.anomalous_counts.sum()) == int((mask > 0).sum())
        assert summary.region_weights.sum() == pytest.approx(len(components))
        again = ImageSummary.from_bytes(summary.to_bytes())
        assert again.to_bytes() == summary.to_bytes()
        assert len(again.normal_keys) <= 4096
        assert (np.diff(again.normal_keys.astype(np.int64)) > 0).all()


@pytest.mark.parametrize("value", [0.1, -0.1, 1.0, 1e300, -1e300, 3e-46, math.inf, -math.inf])
def test_the_lowest_float32_not_below_a_threshold_is_found(value: float) -> None:
    found = float32_at_or_above(value)
    assert float(found) >= value
    if not math.isinf(value):
        with np.errstate(over="ignore"):
            assert float(np.nextafter(found, np.float32(-math.inf))) < value
