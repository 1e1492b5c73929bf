"""Images in, pictures out: kinds of images, sizes of maps, regions, and the verdict as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_package import tiny_image, tiny_package

from onceover import errors
from onceover.runtime.inspector import Inspector, find_regions


@pytest.fixture(scope="module")
def package_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_package(tmp_path_factory.mktemp("runtime") / "tiny.onceover")


@pytest.fixture
def inspector(package_path: Path) -> Inspector:
    return Inspector.open(package_path)


def test_regions_are_connected_by_corners_too_and_the_largest_peak_comes_first() -> None:
    anomaly_map = np.zeros((6, 8), np.float32)
    anomaly_map[0, 0], anomaly_map[1, 1] = 2, 3  # touch by a corner: one region
    anomaly_map[4, 5:8] = (5, 1.5, 1)  # the last one is at the threshold, not above it
    first, second = find_regions(anomaly_map, 1.0)
    assert (first.box, first.area, first.peak, first.peak_value) == ((4, 5, 5, 7), 2, (4, 5), 5.0)
    assert (second.box, second.area, second.peak, second.peak_value) == ((0, 0, 2, 2), 2, (1, 1), 3.0)
    assert find_regions(anomaly_map, 9.0) == ()
    assert find_regions(anomaly_map, None) == ()


def test_a_region_reports_its_own_peak_where_boxes_overlap() -> None:
    anomaly_map = np.zeros((5, 5), np.float32)
    anomaly_map[0, :] = anomaly_map[:, 0] = 2  # an L whose box holds the spot
    anomaly_map[3, 3] = 7
    spot, corner = find_regions(anomaly_map, 1.0)
    assert (spot.peak, spot.area) == ((3, 3), 1)
    assert corner.peak_value == 2.0
    assert corner.area == 9


def spiral(side: int) -> NDArray[np.float32]:
    """A one-pixel-wide line that winds inwards with one pixel between its turns."""
    drawn = np.zeros((side, side), np.float32)
    top, left, bottom, right = 0, 0, side - 1, side - 1
    start = 0
    while top <= bottom and left <= right:
        drawn[top, start : right + 1] = drawn[top : bottom + 1, right] = drawn[bottom, left : right + 1] = 1
        drawn[min(top + 2, bottom) : bottom + 1, left] = 1
        start, top, left, bottom, right = left, top + 2, left + 2, bottom - 2, right - 2
    return drawn


def shapes() -> dict[str, NDArray[np.float32]]:
    """Masks whose outlines are easy to get wrong."""
    ring = np.ones((7, 9), np.float32)
    ring[2:5, 2:7] = 0
    ring[3, 4] = 1  # a region in the hole of another
    diagonal, comb = np.eye(9, dtype=np.float32), np.zeros((8, 15), np.float32)
    comb[:, ::2] = comb[-1] = 1
    return {
        "one pixel": np.ones((1, 1), np.float32), "a row": np.ones((1, 9), np.float32),
        "a column": np.ones((9, 1), np.float32), "all": np.ones((6, 8), np.float32), "ring": ring,
        "diagonal": diagonal, "cross": np.maximum(diagonal, diagonal[::-1]), "comb": comb, "spiral": spiral(21),
        "checkers": np.indices((9, 9)).sum(0).astype(np.float32) % 2, "border": np.pad(np.zeros((5, 5), np.float32), 1,
        constant_values=1),
    }  # fmt: skip


def outlines_of_opencv(mask: NDArray[np.float32]) -> dict[tuple[int, int], NDArray[Any]]:
    """First pixel → (n, 2) row, column of every outer border, turned clockwise (OpenCV goes the other way)."""
    import cv2

    contours, hierarchy = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    outer = [
        c[:, 0, ::-1] for c, family in zip(contours, hierarchy[0] if contours else (), strict=True) if family[3] < 0
    ]
    return {(int(c[0, 0]), int(c[0, 1])): np.concatenate([c[:1], c[:0:-1]]) for c in outer}


def check_outlines(mask: NDArray[np.float32]) -> int:
    expected, regions = outlines_of_opencv(mask), find_regions(mask, 0.5)
    assert len(expected) == len(regions)
    for region in regions:
        assert region.contour.dtype == np.int32
        np.testing.assert_array_equal(region.contour, expected[region.contour[0, 0], region.contour[0, 1]])
        assert len(region.contour) <= 4 * region.area
    return len(regions)


@pytest.mark.parametrize("name", shapes())
def test_outlines_of_awkward_shapes_are_those_of_opencv(name: str) -> None:
    assert check_outlines(shapes()[name]) >= 1


def test_outlines_of_random_masks_are_those_of_opencv() -> None:
    random = np.random.default_rng(0)
    found = 0
    for _ in range(400):
        height, width = random.integers(1, 30, 2)
        found += check_outlines((random.random((height, width)) < random.uniform(0.05, 0.95)).astype(np.float32))
    assert found > 3000  # the masks were worth the test


def test_the_centroid_is_the_mean_of_the_pixels() -> None:
    import cv2

    mask = np.zeros((20, 30), np.float32)
    mask[3:9, 4:10] = mask[9, 4:25] = 2
    (region,) = find_regions(mask, 1.0)
    rows, columns = np.nonzero(mask)
    assert region.centroid == pytest.approx((rows.mean(), columns.mean()), rel=1e-6)
    *_, centroids = cv2.connectedComponentsWithStats((mask > 1).astype(np.uint8))
    assert region.centroid == pytest.approx((centroids[1][1], centroids[1][0]), rel=1e-6)


def test_a_defect_is_found_where_it_is(inspector: Inspector) -> None:
    image = tiny_image(2, 64, 96)
    image[40:56, 60:84] = 255
    verdict = inspector.inspect(image)
    assert verdict.is_anomalous
    assert verdict.anomaly_map.shape == (64, 96)
    row, column = verdict.regions[0].peak
    assert 32 <= row < 64
    assert 52 <= column < 92


def test_image_kinds_that_show_the_same_scene_score_alike(inspector: Inspector) -> None:
    rgb = tiny_image(400)
    alpha = np.full((*rgb.shape[:2], 1), 9, np.uint8)
    score = inspector.inspect(rgb).score
    assert inspector.inspect(rgb[..., ::-1].copy(), color="bgr").score == score
    assert inspector.inspect(np.concatenate([rgb, alpha], 2)).score == score
    assert inspector.inspect(np.concatenate([rgb[..., ::-1], alpha], 2), color="bgr").score == score
    assert inspector.inspect(rgb[..., ::-1].copy()).score != score
    # 16 bits keep what 8 bits round to a gray level (1/255 of a channel, / std 0.2, through the graph).
    assert inspector.inspect(rgb.astype(np.uint16) * 257).score == pytest.approx(score, abs=0.05)


def test_gray_images_are_replicated(inspector: Inspector) -> None:
    gray = tiny_image(401, channels=0)
    expected = inspector.inspect(np.repeat(gray[..., None], 3, 2))
    assert inspector.inspect(gray).score == expected.score
    assert inspector.inspect(gray.astype(np.uint16) * 257).score == pytest.approx(expected.score, abs=0.05)


def test_strided_rows_are_read_in_place(inspector: Inspector) -> None:
    wide = tiny_image(402, 48, 96)
    assert inspector.inspect(wide[:, :56]).score == inspector.inspect(wide[:, :56].copy()).score
    assert inspector.inspect(wide[::-1]).score == inspector.inspect(wide[::-1].copy()).score


@pytest.mark.parametrize(
    ("image", "color", "error"),
    [
        (np.zeros((40, 40, 3), np.float32), "rgb", errors.InputError),
        (np.zeros((40, 40, 2), np.uint8), "rgb", errors.InputError),
        (np.zeros((1, 1, 3), np.uint8), "rgb", errors.InputError),
        (np.zeros(40, np.uint8), "rgb", errors.InputError),
        (np.zeros((40, 40, 3), np.uint8), "hsv", errors.UsageError),
    ],
)
def test_images_that_cannot_be_used_are_refused_and_the_session_goes_on(
    inspector: Inspector, image: NDArray[Any], color: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        inspector.inspect(image, color=color)
    assert inspector.inspect(tiny_image(0)).score == 0.0


def test_an_image_file_is_read_as_rgb(inspector: Inspector, tmp_path: Path) -> None:
    import cv2

    image = tiny_image(403)
    assert cv2.imwrite(str(tmp_path / "part.png"), image[..., ::-1])
    assert inspector.inspect(tmp_path / "part.png").score == inspector.inspect(image).score
    with pytest.raises(errors.InputError):
        inspector.inspect(tmp_path / "absent.png")


def test_a_map_can_have_any_sensible_size(inspector: Inspector) -> None:
    assert inspector.inspect(tiny_image(1, 100, 33)).anomaly_map.shape == (100, 33)
    assert inspector.inspect(tiny_image(1), map_size=(7, 9)).anomaly_map.shape == (7, 9)
    assert inspector.session.anomaly_map().shape == (32, 48)
    for height, width in ((-1, 5), (5, 0), (40_000, 4), (30_000, 30_000)):
        with pytest.raises(errors.UsageError, match="anomaly map"):
            inspector.session.anomaly_map(height, width)


def test_a_verdict_becomes_json(inspector: Inspector) -> None:
    image = tiny_image(3)
    image[10:30, 10:30] = 255
    fields = json.loads(json.dumps(inspector.inspect(image).to_dict()))
    assert len(fields["regions"]) == len(inspector.inspect(image).regions) > 0
    assert fields["decision"] == "anomalous"
    assert fields["is_anomalous"] is True
    assert fields["score"] > fields["threshold"]
    assert "contour" not in fields["regions"][0]
    with_contours = json.loads(json.dumps(inspector.inspect(image).to_dict(contours=True)))
    assert len(with_contours["regions"][0]["contour"]) > 8
    assert fields["timing"]["total_ms"] > 0
    assert all(fields["timing"][stage] > 0 for stage in ("prepare_ms", "engine_ms", "score_ms", "map_ms"))
