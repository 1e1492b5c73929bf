"""Metrics against golden numbers, hand-derived cases, the slow reference, and properties every exact metric has."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from tolerances import EXACT_METRIC, OFFICIAL_AUPRO

from onceover import metrics
from onceover.errors import InputError, UsageError

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden" / "pro"
CASES = sorted(path.stem for path in GOLDEN.glob("*.npz") if not path.stem.startswith("spro_"))
LIMITS = ("0.3", "0.05", "0.01", "1.0")

needs_golden = pytest.mark.skipif(not CASES, reason=f"the golden set {GOLDEN} is not here")


def one_map(scores: list[list[float]], mask: list[list[int]]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    return np.array(scores, np.float32), np.array(mask, np.uint8)


# ---------------------------------------------------------------- golden numbers


@needs_golden
def test_the_golden_set_is_whole() -> None:
    assert len(CASES) == 26


@needs_golden
@pytest.mark.parametrize("case", CASES)
def test_pixel_metrics_agree_with_every_golden_implementation(case: str) -> None:
    golden = np.load(GOLDEN / f"{case}.npz")
    report = metrics.segmentation_metrics(golden["maps"], golden["masks"], [float(limit) for limit in LIMITS])
    for limit in LIMITS:
        found = report.aupro[float(limit)]
        assert found == pytest.approx(float(golden[f"float64_aupro_{limit}"]), abs=EXACT_METRIC, rel=0)
        assert found == pytest.approx(float(golden[f"official_aupro_{limit}"]), abs=OFFICIAL_AUPRO, rel=0)
    assert report.pixel_auroc == pytest.approx(float(golden["sklearn_auroc"]), abs=EXACT_METRIC, rel=0)
    assert report.average_precision == pytest.approx(float(golden["sklearn_ap"]), abs=EXACT_METRIC, rel=0)
    assert report.f1_max == pytest.approx(float(golden["sklearn_f1max"]), abs=EXACT_METRIC, rel=0)
    assert report.f1_max_threshold == float(golden["sklearn_f1max_threshold"])
    counts = (report.regions, report.normal_pixels, report.anomalous_pixels)
    names = ("num_regions_8conn", "num_normal_pixels", "num_anomalous_pixels")
    assert counts == tuple(int(golden[name]) for name in names)


@needs_golden
def test_four_connected_regions_would_give_another_aupro_on_diagonal_defects() -> None:
    golden = np.load(GOLDEN / "diagonal_8_vs_4_connectivity.npz")
    found = metrics.aupro(golden["maps"], golden["masks"])
    assert found == pytest.approx(0.275, abs=1e-3)
    assert abs(found - float(golden["float64_aupro_4conn_0.3"])) > 0.09


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


def test_image_metrics_of_five_images_are_as_derived_by_hand() -> None:
    # Descending: 0.9 (1), 0.8 (0), 0.7 (1), 0.7 (0), 0.1 (0). Pairs won: 3 + 1½ of 6.
    scores, labels = [0.9, 0.8, 0.7, 0.7, 0.1], [1, 0, 1, 0, 0]
    assert metrics.image_auroc(scores, labels) == pytest.approx(4.5 / 6, abs=1e-15)
    assert metrics.average_precision(scores, labels) == pytest.approx(0.5 * 1 + 0.5 * 2 / 4, abs=1e-15)
    # F1: 2/3 at 0.9, 1/2 at 0.8, 4/6 at 0.7: the lowest of the two best.
    assert metrics.f1_max(scores, labels) == (pytest.approx(2 / 3), 0.7)


def test_a_region_that_touches_only_at_corners_is_one_region() -> None:
    mask = np.eye(6, dtype=bool)
    report = metrics.segmentation_metrics([np.eye(6, dtype=np.float32)], [mask])
    assert report.regions == 1
    assert report.aupro[0.3] == pytest.approx(1.0, abs=EXACT_METRIC)


def test_infinite_scores_are_ordinary_scores_and_their_ties_are_merged() -> None:
    maps, masks = one_map([[math.inf, math.inf, 1], [-math.inf, -math.inf, 0]], [[1, 0, 0], [1, 0, 0]])
    finite = np.nan_to_num(maps, posinf=9, neginf=-9)
    assert metrics.aupro([maps], [masks]) == metrics.aupro([finite], [masks])
    assert metrics.pixel_auroc([maps], [masks]) == metrics.pixel_auroc([finite], [masks])


# ---------------------------------------------------------------- against the slow reference, and properties


def drawn_set(data: st.DataObject) -> tuple[list[NDArray[np.float32]], list[NDArray[np.bool_]]]:
    """One to three images of up to 6 × 7 pixels, coarse scores with many ties, at least one pixel of either kind."""
    maps, masks = [], []
    for _ in range(data.draw(st.integers(1, 3))):
        shape = data.draw(st.tuples(st.integers(1, 6), st.integers(2, 7)))
        maps.append(data.draw(hnp.arrays(np.float32, shape, elements=st.integers(-4, 4).map(float))))
        masks.append(data.draw(hnp.arrays(np.bool_, shape)))
    masks[0].flat[0], masks[0].flat[1] = True, False
    return maps, masks


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_pixel_metrics_equal_the_slow_definitions(data: st.DataObject) -> None:
    maps, masks = drawn_set(data)
    scores = np.concatenate([m.ravel() for m in maps])
    labels = np.concatenate([k.ravel() for k in masks])
    report = metrics.segmentation_metrics(maps, masks, (0.3, 1.0))
    for limit in (0.3, 1.0):
        assert report.aupro[limit] == pytest.approx(reference.aupro(maps, masks, limit), abs=EXACT_METRIC)
    assert report.pixel_auroc == pytest.approx(reference.auroc(scores, labels), abs=EXACT_METRIC)
    assert report.average_precision == pytest.approx(reference.average_precision(scores, labels), abs=EXACT_METRIC)
    best, threshold = reference.f1_max(scores, labels)
    assert (report.f1_max, report.f1_max_threshold) == (pytest.approx(best, abs=EXACT_METRIC), threshold)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from([(2.0, 0.0), (0.25, 8.0), (1024.0, -3.0)]))
def test_aupro_ignores_strictly_monotone_rescaling(data: st.DataObject, line: tuple[float, float]) -> None:
    maps, masks = drawn_set(data)
    scaled = [m * np.float32(line[0]) + np.float32(line[1]) for m in maps]  # exact: small whole numbers, powers of two
    before, after = (metrics.segmentation_metrics(m, masks) for m in (maps, scaled))
    assert (after.aupro, after.pixel_auroc, after.f1_max) == (before.aupro, before.pixel_auroc, before.f1_max)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_order_of_images_and_a_second_copy_of_all_do_not_matter(data: st.DataObject) -> None:
    maps, masks = drawn_set(data)
    once = metrics.segmentation_metrics(maps, masks)
    for other_maps, other_masks in ((maps[::-1], masks[::-1]), (maps * 2, masks * 2)):
        other = metrics.segmentation_metrics(other_maps, other_masks)
        assert other.aupro[0.3] == pytest.approx(once.aupro[0.3], abs=EXACT_METRIC)
        assert other.pixel_auroc == pytest.approx(once.pixel_auroc, abs=EXACT_METRIC)
        assert other.average_precision == pytest.approx(once.average_precision, abs=EXACT_METRIC)
        assert other.f1_max_threshold == once.f1_max_threshold


def test_generators_that_reuse_one_buffer_give_the_same_numbers() -> None:
    rng = np.random.default_rng(3)
    maps = rng.standard_normal((5, 20, 30)).astype(np.float32)
    masks = [None if i % 2 else rng.random((20, 30)) < 0.1 for i in range(5)]
    buffer = np.empty((20, 30), np.float32)

    def reuse() -> object:
        for m in maps:
            buffer[:] = m
            yield buffer

    assert metrics.segmentation_metrics(reuse(), iter(masks)) == metrics.segmentation_metrics(maps, masks)


def test_none_means_a_good_image_and_adds_its_pixels_to_the_normal_ones() -> None:
    maps, masks = one_map([[3, 1], [0, 2]], [[1, 0], [0, 0]])
    report = metrics.segmentation_metrics([maps, maps], [masks, None])
    assert (report.images, report.normal_pixels, report.anomalous_pixels) == (2, 7, 1)
    assert report == metrics.segmentation_metrics([maps, maps], [masks, np.zeros_like(masks)])


def test_more_regions_than_sixteen_bits_can_count_are_all_counted() -> None:
    mask = np.zeros((600, 600), np.uint8)
    mask[::2, ::2] = 255  # 90,000 single pixels, none touching
    assert metrics.segmentation_metrics([mask.astype(np.float32)], [mask]).regions == 90_000
    assert cv2.connectedComponents(mask, connectivity=8, ltype=cv2.CV_32S)[0] == 90_001


# ---------------------------------------------------------------- bad input

MAP, MASK = np.arange(12, dtype=np.float32).reshape(3, 4), np.eye(3, 4, dtype=np.uint8)
NAN_MAP = np.where(MAP > 9, np.float32(np.nan), MAP)


@pytest.mark.parametrize(
    ("maps", "masks", "said"),
    [
        ([MAP, NAN_MAP], [MASK, MASK], "map 1 holds 2 NaN of 12"),
        ([MAP], [MASK.T], r"mask 0 has shape \(4, 3\), its anomaly map \(3, 4\)"),
        ([MAP], [MASK, MASK], "only 1 maps"),
        ([MAP, MAP], [MASK], "only 1 masks"),
        ([], [], "no images"),
        ([MAP], [MASK * 0.4], "mask 0 is soft"),
        ([MAP], [MASK.astype(np.int8) * -1], "mask 0 holds negative"),
        ([MAP.astype(np.float64)], [MASK], r"map 0 is float64, expected float32; cast it with .astype\(np.float32\)"),
        ([MAP[None]], [MASK], r"map 0 is \(1, 3, 4\)"),
        ([[1, 2]], [MASK], "map 0 is list"),
        ([MAP], [MASK.astype(str)], "expected bool or uint8"),
    ],
)
def test_bad_maps_and_masks_are_refused_by_name(maps: list, masks: list, said: str) -> None:
    with pytest.raises(InputError, match=said):
        metrics.segmentation_metrics(maps, masks)


@pytest.mark.parametrize("mask", [MASK * 255, MASK * 1.0, MASK * 255.0, MASK.astype(bool), MASK.astype(np.int64)])
def test_any_unsoft_mask_means_the_same(mask: NDArray[np.generic]) -> None:
    assert metrics.segmentation_metrics([MAP], [mask]) == metrics.segmentation_metrics([MAP], [MASK])


@pytest.mark.parametrize(("mask", "lacking"), [(MASK * 0, "anomalous"), (MASK * 0 + 1, "normal")])
def test_without_anomalous_or_normal_pixels_metrics_are_nan_and_warn(mask: NDArray[np.uint8], lacking: str) -> None:
    with pytest.warns(RuntimeWarning, match=f"no {lacking} pixel"):
        report = metrics.segmentation_metrics([MAP], [mask])
    values = (report.aupro[0.3], report.pixel_auroc, report.average_precision, report.f1_max, report.f1_max_threshold)
    assert all(math.isnan(value) for value in values)
    assert report.normal_pixels + report.anomalous_pixels == 12


def test_one_fully_anomalous_mask_among_others_is_a_region_like_any_other() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = metrics.segmentation_metrics([MAP + 100, MAP], [MASK * 0 + 1, MASK * 0])
    assert (report.regions, report.aupro[0.3], report.pixel_auroc) == (1, 1.0, 1.0)


@pytest.mark.parametrize("limit", [0, -0.1, 1.01, math.nan])
def test_a_limit_outside_zero_to_one_is_a_usage_error(limit: float) -> None:
    with pytest.raises(UsageError, match="fpr_limit"):
        metrics.aupro([MAP], [MASK], fpr_limit=limit)


@pytest.mark.parametrize(
    ("scores", "labels", "said"),
    [
        ([1.0, math.nan], [0, 1], "image 1 is NaN"),
        ([1.0], [0, 1], "one of each"),
        ([], [], "no images"),
        ([1.0, 2.0], [0, 2], "0 .normal. or 1"),
        (["a", "b"], [0, 1], "expected numbers"),
    ],
)
def test_bad_image_scores_are_refused(scores: list, labels: list, said: str) -> None:
    for metric in (metrics.image_auroc, metrics.average_precision, metrics.f1_max):
        with pytest.raises(InputError, match=said):
            metric(scores, labels)
