"""Pictures that explain a verdict: the right part of the right image, at one scale, for every kind of image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onceover.errors import UsageError
from onceover.report.explanation import MARK, crop, draw_explanation, surroundings
from onceover.report.panels import CARD
from onceover.runtime.reasons import patch_box
from onceover.types import Decision, NearestPatch, ScoreRange, Timing, Verdict

GRID = (32, 32)
NORMAL_PANEL = np.s_[84:324, 740:980]


def reasoned(
    patch: tuple[int, int] = (10, 20), there: tuple[int, int] = (3, 30), decision: Decision = "anomalous"
) -> Verdict:
    limit = None if decision == "uncalibrated" else 1.0
    score = 0.8 if decision == "normal" else 1.5
    reason = NearestPatch(
        patch=patch, box=patch_box(patch, GRID), distance=score, times_threshold=limit and score, bank_row=7,
        image="good/017.png", image_index=17, image_patch=there, image_box=patch_box(there, GRID),
    )  # fmt: skip
    return Verdict(
        score=score, p_value=0.05, decision=decision, threshold=limit, map_threshold=limit, regions=(), nearest=7,
        anomaly_map=np.full((64, 64), 0.4, np.float32), patch_scores=np.full(GRID, 0.4, np.float32),
        worst_patch=patch, timing=Timing(1, 1, 1, 1), reason=reason, normal_range=ScoreRange(0.5, 0.7, 0.95, limit),
    )  # fmt: skip


def dotted(patch: tuple[int, int], side: int, dot: int = 255) -> NDArray[np.uint8]:
    """A dark square image whose patch is filled with a bright color."""
    image, step = np.full((side, side, 3), 40, np.uint8), side // GRID[0]
    image[patch[0] * step : (patch[0] + 1) * step, patch[1] * step : (patch[1] + 1) * step] = (0, dot, 0)
    return image


def bright(picture: NDArray[np.uint8]) -> tuple[float, float]:
    """Middle (row, column) of what is green."""
    rows, columns = np.nonzero((picture[..., 1] > 150) & (picture[..., 0] < 90))
    return float(rows.mean()), float(columns.mean())


@pytest.mark.parametrize("side", [64, 256, 2048])
@pytest.mark.parametrize("patch", [(10, 20), (0, 0), (31, 31), (0, 31), (16, 1)])
def test_the_crop_is_centered_on_the_patch_at_every_scale(patch: tuple[int, int], side: int) -> None:
    box = patch_box(patch, GRID)
    drawn = crop(dotted(patch, side), box, surroundings(box), (240, 240))
    assert drawn.shape == (240, 240, 3)
    assert bright(drawn) == pytest.approx((119.5, 119.5), abs=2)
    rows, columns = np.nonzero((drawn == MARK).all(axis=2))
    assert (rows.min() + rows.max()) / 2 == pytest.approx(119.5, abs=2)
    assert (columns.max() - columns.min()) == pytest.approx(240 / 9, abs=5)


def test_beyond_the_border_there_is_nothing() -> None:
    box = patch_box((0, 0), GRID)
    drawn = crop(dotted((0, 0), 256), box, surroundings(box), (240, 240))
    outside = (drawn == CARD).all(axis=2)
    assert outside[:100].all()
    assert outside[:, :100].all()
    assert not outside[140:, 140:].any()


def test_a_small_grid_shows_no_more_than_there_is() -> None:
    for size in (1, 2, 3, 5, 8):
        top, left, bottom, right = surroundings(patch_box((0, size - 1), (size, size)))
        assert bottom - top <= 1 + 1e-9
        assert right - left <= 1 + 1e-9
        assert round((bottom - top) * size) % 2 == 1


def test_the_picture_shows_the_named_patch_of_the_normal_image() -> None:
    verdict = reasoned()
    picture = draw_explanation(dotted((10, 20), 256), verdict, dotted((3, 30), 128), "new/x.png")
    assert picture.shape == (580, 1000, 3)
    assert picture.dtype == np.uint8
    assert bright(picture[84:324, 480:720]) == pytest.approx((119.5, 119.5), abs=2)
    assert bright(picture[NORMAL_PANEL]) == pytest.approx((119.5, 119.5), abs=2)


def test_without_the_normal_image_words_stand_in_its_place() -> None:
    words = draw_explanation(dotted((10, 20), 256), reasoned(), None, missing="no picture in this package")
    empty = draw_explanation(dotted((10, 20), 256), reasoned(), None, missing="")
    assert (empty[NORMAL_PANEL] == CARD).all()
    assert (words[NORMAL_PANEL] != CARD).any()
    np.testing.assert_array_equal(words[:, :730], empty[:, :730])


@pytest.mark.parametrize("shape", [(96, 96), (96, 96, 3), (96, 96, 4), (8, 80), (80, 8), (33, 71, 3), (1200, 120)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("decision", ["anomalous", "normal", "uncalibrated"])
def test_every_kind_of_image_can_be_explained(shape: tuple[int, ...], dtype: type, decision: Decision) -> None:
    image: NDArray[Any] = np.full(shape, 100 if dtype is np.uint8 else 100 * 257, dtype)
    verdict = replace(reasoned(decision=decision), anomaly_map=np.full(shape[:2], 0.4, np.float32))
    picture = draw_explanation(image, verdict, image, "x.png")
    assert picture.shape == (580, 1000, 3)
    assert (picture[NORMAL_PANEL] == 100).all(axis=2).any()  # the gray of the image itself


def test_the_score_moves_along_the_ruler() -> None:
    below, above = (draw_explanation(dotted((1, 1), 64), reasoned(decision=kind)) for kind in ("normal", "anomalous"))
    assert (below[430:480, 480:] != above[430:480, 480:]).any()


def test_a_score_of_zero_and_a_package_without_calibration_have_a_ruler_too() -> None:
    verdict = replace(reasoned(decision="uncalibrated"), score=0.0, normal_range=None)
    assert draw_explanation(dotted((1, 1), 64), verdict).shape == (580, 1000, 3)


def test_a_verdict_without_a_reason_is_refused() -> None:
    with pytest.raises(UsageError, match="no reason"):
        draw_explanation(dotted((1, 1), 64), replace(reasoned(), reason=None))
