"""Connected regions against flood fill and OpenCV, and how much of each a threshold finds."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import reference
from numpy.typing import NDArray

from onceover import metrics
from onceover.errors import InputError

Mask = NDArray[np.uint8]


def spiral(side: int) -> Mask:
    """One region that winds inward, one pixel wide, one pixel apart."""
    mask = np.zeros((side, side), np.uint8)
    top, left, bottom, right = 0, 0, side - 1, side - 1
    while top <= bottom and left <= right:
        mask[top, max(left - 2, 0) : right + 1] = 1
        mask[top : bottom + 1, right] = 1
        mask[bottom, left : right + 1] = 1
        mask[top + 2 : bottom + 1, left] = 1
        top, left, bottom, right = top + 2, left + 2, bottom - 2, right - 2
    return mask


def shapes() -> dict[str, Mask]:
    checkers = (np.indices((33, 70)).sum(axis=0) % 2).astype(np.uint8)
    comb = np.zeros((20, 131), np.uint8)
    comb[:, ::2], comb[-1] = 1, 1  # joined only by the last row
    return {
        "spiral": spiral(41),
        "checkerboard": checkers,
        "comb": comb,
        "comb upside down": comb[::-1],
        "all": np.ones((5, 65), np.uint8),
        "none": np.zeros((5, 65), np.uint8),
        "one pixel": np.ones((1, 1), np.uint8),
        "column": np.ones((9, 1), np.uint8),
        "rows": np.repeat(np.arange(10) % 2, 64).reshape(10, 64).astype(np.uint8),
    }


def assert_equals_flood_fill(mask: Mask, connectivity: int) -> None:
    expected = reference.regions(mask, connectivity)
    found = metrics.connected_components(mask, connectivity)
    assert found.areas.tolist() == [len(region) for region in expected]
    assert found.areas.dtype == np.int64
    drawn = np.zeros(mask.shape, np.int32)
    for number, region in enumerate(expected, 1):
        rows, columns = np.array(region).T
        drawn[rows, columns] = number
        box = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
        assert found.boxes[number - 1].tolist() == box
    assert found.labels().dtype == np.int32
    assert np.array_equal(found.labels(), drawn)


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("shape", shapes())
def test_regions_of_nasty_shapes_equal_flood_fill(shape: str, connectivity: int) -> None:
    assert_equals_flood_fill(shapes()[shape], connectivity)


@pytest.mark.parametrize("connectivity", [4, 8])
def test_regions_of_random_masks_of_every_width_equal_flood_fill(connectivity: int) -> None:
    rng = np.random.default_rng(connectivity)
    for width in range(1, 201):
        mask = (rng.random((5, width)) < rng.choice([0.1, 0.4, 0.6, 0.9])).astype(np.uint8) * 3
        assert_equals_flood_fill(mask, connectivity)


@pytest.mark.parametrize("connectivity", [4, 8])
def test_as_many_regions_with_the_same_areas_and_boxes_as_opencv_finds(connectivity: int) -> None:
    rng = np.random.default_rng(7)
    for density in (0.05, 0.3, 0.5, 0.7):
        mask = cv2.blur(rng.random((150, 197)), (3, 3)) < density
        found = metrics.connected_components(mask, connectivity)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(
            mask.astype(np.uint8), connectivity=connectivity, ltype=cv2.CV_32S
        )
        assert len(found) == count - 1
        pairs = np.unique(np.stack([found.labels().ravel(), labels.ravel()]), axis=1)
        assert pairs.shape[1] == len(np.unique(labels))  # the same regions under other numbers
        same = pairs[:, pairs[0] > 0]
        assert np.array_equal(found.areas[same[0] - 1], stats[same[1], cv2.CC_STAT_AREA])
        left, top, width, height = stats[same[1], :4].T
        assert np.array_equal(found.boxes[same[0] - 1], np.stack([top, left, top + height, left + width], axis=1))


def test_strided_masks_and_any_non_zero_value_give_the_same_regions() -> None:
    mask = (np.random.default_rng(1).random((40, 60)) < 0.5).astype(np.uint8)
    expected = metrics.connected_components(mask).labels()
    wide = np.zeros((80, 120), np.uint8)
    wide[1::2, ::2] = mask
    for other in (mask * 128, mask.astype(bool), mask.astype(np.int32), wide[1::2, ::2], np.asfortranarray(mask)):
        assert np.array_equal(metrics.connected_components(other).labels(), expected)


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
def test_the_overlap_of_each_region_equals_its_slow_definition(dtype: type, connectivity: int) -> None:
    rng = np.random.default_rng(2)
    mask = (rng.random((17, 23)) < 0.3).astype(np.uint8)
    scores = rng.integers(0, 9, mask.shape).astype(dtype)
    for threshold in (-1, 0, 3, 3.5, 8, 9):
        found = metrics.region_overlap(scores, mask, threshold, connectivity)
        assert found.overlaps.tolist() == reference.region_overlap(scores, mask, threshold, connectivity)
        components = metrics.connected_components(mask, connectivity)
        assert np.array_equal(found.areas, components.areas)
        assert np.array_equal(found.boxes, components.boxes)


def test_a_threshold_is_not_rounded_to_the_dtype_of_the_map() -> None:
    scores, mask = np.array([[0.1, 0.0]], np.float32), np.array([[1, 0]], np.uint8)
    just_above = float(np.nextafter(float(scores[0, 0]), 1))
    assert np.float32(just_above) == scores[0, 0]  # rounding would hide the difference
    assert metrics.region_overlap(scores, mask, just_above).overlaps.tolist() == [0.0]
    assert metrics.region_overlap(scores, mask, float(scores[0, 0])).overlaps.tolist() == [1.0]


def test_bad_masks_and_maps_are_refused() -> None:
    mask = np.eye(3, dtype=np.uint8)
    cases = (
        (lambda: metrics.connected_components(mask[0]), r"mask is \(3,\)"),
        (lambda: metrics.connected_components(mask * 0.5), "mask is soft"),
        (lambda: metrics.region_overlap(mask * np.float32(np.nan), mask, 1), "image 0: 9 of 9 scores are NaN"),
        (lambda: metrics.region_overlap(mask[:2], mask, 1), "neither is resized"),
    )
    for asked, said in cases:
        with pytest.raises(InputError, match=said):
            asked()
