"""Metrics derived by hand, metrics of sets against the slow reference, sPRO, breakdowns, and image-level metrics."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import reference
from metric_sets import arrays, assert_equals_reference, collected, images, loco_images
from numpy.typing import NDArray
from tolerances import EXACT_METRIC

import onceover.metrics
from onceover import metrics
from onceover.errors import InputError, UsageError


def one_map(scores: list[list[float]], mask: list[list[int]]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    return np.array(scores, np.float32), np.array(mask, np.uint8)


def test_public_names_are_exact_sorted_and_all_resolve() -> None:
    assert list(metrics.__all__) == sorted(metrics.__all__)
    assert all(getattr(metrics, name).__module__.startswith("onceover.metrics.") for name in metrics.__all__)
    assert onceover.metrics is metrics


# ---------------------------------------------------------------- derived by hand


def test_aupro_of_two_regions_and_five_normal_pixels_is_as_derived_by_hand() -> None:
    # Regions {5} and {3, 1}; normal 4, 2, 0, 0, 0. Going down, (FPR, overlap) is (0, ½) at 5, (0.2, ½) at 4,
    # (0.2, ¾) at 3, (0.4, ¾) at 2, (0.4, 1) at 1 and (1, 1) at 0.
    maps, masks = one_map([[5, 4, 3, 1], [2, 0, 0, 0]], [[1, 0, 1, 1], [0, 0, 0, 0]])
    assert metrics.aupro([maps], [masks]) == pytest.approx((0.2 * 0.5 + 0.1 * 0.75) / 0.3, abs=1e-15)
    assert metrics.aupro([maps], [masks], fpr_limit=0.5) == pytest.approx(0.7, abs=1e-15)
    assert metrics.aupro([maps], [masks], fpr_limit=1) == pytest.approx(0.85, abs=1e-15)


def test_aupro_interpolates_between_tied_scores_at_the_limit() -> None:
    # One region {2, 1}, normal 1, 0: the curve runs (0, ½) → (½, 1) → (1, 1); at 0.25 it has reached ¾.
    maps, masks = one_map([[2, 1], [1, 0]], [[1, 1], [0, 0]])
    assert metrics.aupro([maps], [masks], fpr_limit=0.25) == pytest.approx((0.5 + 0.75) / 2, abs=1e-15)


def test_a_constant_map_has_half_the_limit_as_aupro_and_one_half_as_auroc() -> None:
    maps, masks = np.full((1, 4, 5), 7, np.float32), np.zeros((1, 4, 5), np.uint8)
    masks[0, 1, 1:3] = 1
    report = metrics.segmentation_metrics(maps, masks, (0.3, 1.0))
    assert report.aupro == pytest.approx({0.3: 0.15, 1.0: 0.5}, abs=1e-15)
    assert report.pixel_auroc == 0.5
    assert report.average_precision == pytest.approx(0.1)


def test_spro_of_a_saturating_channel_is_as_derived_by_hand() -> None:
    # Channel {6, 4, 1} saturates at 2 pixels; normal 5, 3, 2, 0, 0. (FPR, sPRO): (0, ½) at 6, (0.2, ½) at 5, (0.2, 1)
    # at 4, and no more after that.
    maps, channel = one_map([[6, 5, 4, 3], [2, 1, 0, 0]], [[1, 0, 1, 0], [0, 1, 0, 0]])
    collected = metrics.SegmentationMetrics((0.5, 0.2))
    collected.update_channels(maps, [channel], [2])
    assert collected.compute().auspro == pytest.approx({0.5: (0.2 * 0.5 + 0.3) / 0.5, 0.2: 0.5}, abs=1e-15)


def test_a_region_that_touches_only_at_corners_is_one_region() -> None:
    report = metrics.segmentation_metrics([np.eye(6, dtype=np.float32)], [np.eye(6, dtype=bool)])
    assert report.regions == 1
    assert report.aupro[0.3] == pytest.approx(1.0, abs=EXACT_METRIC)


def test_infinite_scores_are_ordinary_scores_and_their_ties_are_merged() -> None:
    maps, masks = one_map([[math.inf, math.inf, 1], [-math.inf, -math.inf, 0]], [[1, 0, 0], [1, 0, 0]])
    finite = np.nan_to_num(maps, posinf=9, neginf=-9)
    assert metrics.aupro([maps], [masks]) == metrics.aupro([finite], [masks])
    assert metrics.pixel_auroc([maps], [masks]) == metrics.pixel_auroc([finite], [masks])


# ---------------------------------------------------------------- sets against the slow reference


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("seed", range(4))
def test_every_metric_of_a_set_equals_its_slow_definition(seed: int, connectivity: int) -> None:
    of = images(seed, side=14)
    report = collected(of, (0.3, 0.05, 1.0), connectivity=connectivity).compute()
    assert_equals_reference(report, *arrays(of), connectivity)
    assert report.images == len(of)
    assert report.reason is None
    assert report.bounds is None


@pytest.mark.parametrize("seed", range(3))
def test_the_breakdown_judges_each_kind_against_the_normal_pixels_of_all_images(seed: int) -> None:
    of = images(seed, side=14)
    report = collected(of).compute()
    assert sorted(report.by_defect) == ["hole", "scratch"]
    for kind, of_kind in report.by_defect.items():
        kept = reference.of_one_defect(*arrays(of), [defect for _, _, defect in of], kind)
        assert_equals_reference(of_kind, *kept)
        assert of_kind.images == sum(defect == kind for _, _, defect in of)
        assert of_kind.normal_pixels == report.normal_pixels


def test_the_name_of_a_good_image_makes_no_kind_of_defect() -> None:
    maps, masks = one_map([[3, 1], [0, 2]], [[1, 0], [0, 0]])
    made = collected([(maps, masks, "hole"), (maps, None, "good"), (maps, masks * 0, "good")])
    assert list(made.compute().by_defect) == ["hole"]


@pytest.mark.parametrize("seed", range(3))
def test_auspro_equals_its_slow_definition_and_the_rest_sees_the_union_of_channels(seed: int) -> None:
    of = loco_images(seed)
    limits = (0.01, 0.05, 0.3, 1.0)
    made = metrics.SegmentationMetrics(limits)
    for image in of:
        made.update_channels(image.anomaly_map, image.masks, image.saturation_areas)
    report = made.compute()
    maps, channels = [image.anomaly_map for image in of], [image.masks for image in of]
    for limit in limits:
        expected = reference.auspro(maps, channels, [image.saturation_areas for image in of], limit)
        assert report.auspro[limit] == pytest.approx(expected, abs=EXACT_METRIC, rel=0)
    union = [np.any([np.zeros(m.shape, bool), *masks], axis=0) for m, masks in zip(maps, channels, strict=True)]
    assert_equals_reference(report, maps, union)


@pytest.mark.parametrize(
    ("area", "threshold", "relative", "expected"),
    [(10, 0.25, True, 2), (3, 0.1, True, 1), (10, 4, False, 4), (10, 40, False, 10), (10, 0, False, 1)],
)
def test_saturation_areas_are_truncated_capped_and_at_least_one(
    area: int, threshold: float, relative: bool, expected: int
) -> None:
    assert metrics.saturation_area(area, threshold, relative) == expected


def test_none_means_a_good_image_and_adds_its_pixels_to_the_normal_ones() -> None:
    maps, masks = one_map([[3, 1], [0, 2]], [[1, 0], [0, 0]])
    report = metrics.segmentation_metrics([maps, maps], [masks, None])
    assert (report.images, report.normal_pixels, report.anomalous_pixels) == (2, 7, 1)
    assert report == metrics.segmentation_metrics([maps, maps], [masks, np.zeros_like(masks)])


def test_one_fully_anomalous_mask_among_others_is_a_region_like_any_other() -> None:
    maps, masks = one_map([[3, 1], [0, 2]], [[1, 1], [1, 1]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = metrics.segmentation_metrics([maps + 100, maps], [masks, masks * 0])
    assert (report.regions, report.aupro[0.3], report.pixel_auroc) == (1, 1.0, 1.0)


def test_more_regions_than_sixteen_bits_can_count_are_all_counted() -> None:
    mask = np.zeros((600, 600), np.uint8)
    mask[::2, ::2] = 255  # 90,000 single pixels, none touching
    assert metrics.segmentation_metrics([mask.astype(np.float32)], [mask]).regions == 90_000
    assert cv2.connectedComponents(mask, connectivity=8, ltype=cv2.CV_32S)[0] == 90_001


def test_a_report_becomes_json_with_all_that_it_holds() -> None:
    report = collected(images(1)).compute()
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert plain["aupro"] == {"0.3": report.aupro[0.3], "0.05": report.aupro[0.05]}
    assert plain["by_defect"]["hole"]["pixel_auroc"] == report.by_defect["hole"].pixel_auroc
    assert set(vars(report)) == set(plain)
    with pytest.warns(RuntimeWarning):
        undefined = metrics.segmentation_metrics([np.ones((2, 2), np.float32)], [None])
    assert json.loads(json.dumps(undefined.to_dict(), allow_nan=False))["pixel_auroc"] is None


# ---------------------------------------------------------------- image-level metrics


def test_image_metrics_of_five_images_are_as_derived_by_hand() -> None:
    # Descending: 0.9 (1), 0.8 (0), 0.7 (1), 0.7 (0), 0.1 (0). Pairs won: 3 + 1½ of 6.
    scores, labels = [0.9, 0.8, 0.7, 0.7, 0.1], [1, 0, 1, 0, 0]
    assert metrics.image_auroc(scores, labels) == pytest.approx(4.5 / 6, abs=1e-15)
    assert metrics.average_precision(scores, labels) == pytest.approx(0.5 * 1 + 0.5 * 2 / 4, abs=1e-15)
    # F1: 2/3 at 0.9, 1/2 at 0.8, 4/6 at 0.7: the lowest of the two best.
    assert metrics.f1_max(scores, labels) == (pytest.approx(2 / 3), 0.7)


@pytest.mark.parametrize("seed", range(5))
def test_image_metrics_equal_their_slow_definitions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, 9, 60).astype(np.float64), rng.random(60) < 0.4
    assert metrics.image_auroc(scores, labels) == pytest.approx(reference.auroc(scores, labels), abs=EXACT_METRIC)
    found, expected = metrics.average_precision(scores, labels), reference.average_precision(scores, labels)
    assert found == pytest.approx(expected, abs=EXACT_METRIC)
    assert metrics.f1_max(scores, labels) == pytest.approx(reference.f1_max(scores, labels), abs=EXACT_METRIC)


@pytest.mark.parametrize(
    ("scores", "labels", "said"),
    [
        ([1.0, math.nan], [0, 1], "image 1 is NaN"),
        ([1.0], [0, 1], "one of each"),
        ([], [], "no images"),
        ([1.0, 2.0], [0, 2], "0 .normal. or 1"),
        (["a", "b"], [0, 1], "expected numbers"),
        ([[1.0], [1.0, 2.0]], [0, 1], "scores .list. cannot be read"),
        ([1.0, 2.0], [[0], [0, 1]], "labels .list. cannot be read"),
        (np.ma.masked_array([1.0, 2.0], [True, False]), [0, 1], "scores is a masked array"),
    ],
)
def test_bad_image_scores_are_refused(scores: list, labels: list, said: str) -> None:
    for metric in (metrics.image_auroc, metrics.average_precision, metrics.f1_max):
        with pytest.raises(InputError, match=said):
            metric(scores, labels)


def test_scores_in_tensors_are_taken_or_refused_with_what_to_call() -> None:
    torch = pytest.importorskip("torch")
    scores, labels = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([True, False, False])
    for metric in (metrics.image_auroc, metrics.average_precision, metrics.f1_max):
        assert metric(scores, labels) == metric([3.0, 1.0, 2.0], [1, 0, 0])
        assert metric(list(scores), list(labels)) == metric([3.0, 1.0, 2.0], [1, 0, 0])
        with pytest.raises(InputError, match=r"scores is a tensor that requires grad; pass .detach\(\)"):
            metric(scores.clone().requires_grad_(), labels)
        with pytest.raises(InputError, match=r"scores .Tensor. cannot be read.*pass .float\(\)"):
            metric(scores.bfloat16(), labels)


@pytest.mark.parametrize(("labels", "lacking"), [([0, 0], "anomalous"), ([1, 1], "normal")])
def test_image_metrics_of_one_class_are_nan_and_warn_at_the_line_that_asked(labels: list[int], lacking: str) -> None:
    with pytest.warns(RuntimeWarning, match=f"no {lacking} image") as caught:
        assert math.isnan(metrics.image_auroc([1.0, 2.0], labels))
    assert [warning.filename for warning in caught] == [__file__]


def test_saturation_areas_of_nothing_are_refused() -> None:
    for area, threshold in ((0, 0.5), (4, -1), (4, math.nan)):
        with pytest.raises(UsageError, match="expected at least 1 pixel"):
            metrics.saturation_area(area, threshold, relative=True)


def test_options_may_be_numpy_numbers_and_limits_any_series(tmp_path: Path) -> None:
    made = metrics.SegmentationMetrics(
        (limit for limit in (0.3, np.float32(0.5))), connectivity=np.int64(8), page_budget_bytes=np.int64(8 << 20)
    )
    made.update(np.array([[0, 1]], np.float32), np.array([[0, 1]]))
    made.save(tmp_path / "one.metrics")
    assert metrics.SegmentationMetrics.load(tmp_path / "one.metrics").compute().aupro == {0.3: 1.0, 0.5: 1.0}
    with pytest.raises(UsageError, match=r"fpr_limits is 0\.3, expected several numbers"):
        metrics.SegmentationMetrics(0.3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="connectivity is True, expected a whole number"):
        metrics.SegmentationMetrics(connectivity=True)
