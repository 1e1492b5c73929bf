"""Pictures of results: their sizes, what differs between verdicts, and that outlines lie where regions end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onceover.errors import UsageError
from onceover.report.contact_sheet import SheetRow, draw_contact_sheet, draw_verdict, pick_rows
from onceover.report.panels import REGION_COLOR, TRUTH_COLOR, HeatScale, heat_scale, panels, shorten, text_width
from onceover.runtime.inspector import find_regions
from onceover.types import Decision, Timing, Verdict

SQUARE = np.s_[30:60, 20:50]


def make_verdict(
    decision: Decision = "anomalous", shape: tuple[int, int] = (96, 96), threshold: float = 1.0, hot: Any = SQUARE
) -> Verdict:
    anomaly_map = np.full(shape, 0.4, np.float32)
    if decision != "normal":
        anomaly_map[hot] = 1.4
    limit = None if decision == "uncalibrated" else threshold
    told = threshold if decision == "anomalous" else None
    return Verdict(
        score=float(anomaly_map.max()), p_value=0.05, decision=decision, threshold=limit, anomaly_map=anomaly_map,
        patch_scores=anomaly_map[::8, ::8], map_threshold=limit, regions=find_regions(anomaly_map, told),
        worst_patch=(0, 0), nearest=0,
        timing=Timing(1, 1, 1, 1),
    )  # fmt: skip


def gray(shape: tuple[int, ...] = (96, 96), dtype: type = np.uint8) -> NDArray[Any]:
    return np.full(shape, 100 if dtype is np.uint8 else 100 * 257, dtype)


def make_row(decision: Decision, defective: bool | None, name: str = "x.png") -> SheetRow:
    truth = None if defective is None else np.zeros((96, 96), np.bool_)
    if truth is not None and defective:
        truth[SQUARE] = True
    return SheetRow(name, gray(), make_verdict(decision), truth)


def colored(picture: NDArray[np.uint8], color: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.asarray((picture == color).all(axis=2))


def border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of the mask that touch a pixel outside of it (4 neighbors); slow and obvious."""
    padded = np.pad(mask, 1)
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(mask & ~core)


def test_the_outline_of_a_region_is_its_border() -> None:
    mask = np.zeros((96, 96), np.bool_)
    mask[SQUARE] = True
    drawn = panels(gray(), make_verdict(), None, (96, 96)).outlined(None)
    np.testing.assert_array_equal(colored(drawn, REGION_COLOR), border(mask))


def test_the_ground_truth_is_outlined_in_its_own_color() -> None:
    truth = np.zeros((96, 96), np.bool_)
    truth[70:90, 60:90] = True
    drawn = panels(gray(), make_verdict("normal"), truth, (96, 96)).outlined(HeatScale(0.5, 1.5, 1.0))
    np.testing.assert_array_equal(colored(drawn, TRUTH_COLOR), border(truth))
    assert not colored(drawn, REGION_COLOR).any()


def test_an_uncalibrated_verdict_has_no_regions_to_outline() -> None:
    drawn = panels(gray(), make_verdict("uncalibrated"), None, (96, 96)).outlined(None)
    np.testing.assert_array_equal(drawn, np.full((96, 96, 3), 100))


def test_a_normal_verdict_is_not_outlined_even_where_its_map_is_hot() -> None:
    hot = np.s_[10:20, 10:20]
    outlined, plain = (
        panels(gray(), make_verdict(kind, hot=hot), None, (96, 96)).outlined(None) for kind in ("anomalous", "normal")
    )
    assert colored(outlined, REGION_COLOR).any()
    assert not colored(plain, REGION_COLOR).any()


def test_a_single_pixel_of_ground_truth_is_not_lost_when_scaled_down() -> None:
    truth = np.zeros((960, 960), np.bool_)
    truth[501, 333] = True
    small = panels(gray((960, 960)), make_verdict("normal", (960, 960)), truth, (96, 96)).truth
    assert small is not None
    assert small[50, 33]
    assert small.sum() == 1


@pytest.mark.parametrize("shape", [(96, 96), (96, 96, 3), (96, 96, 4), (8, 80), (80, 8), (33, 71, 3), (1200, 120)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_kind_of_image_can_be_drawn(shape: tuple[int, ...], dtype: type) -> None:
    verdict = make_verdict(shape=(shape[0], shape[1]), hot=np.s_[2:5, 2:5])
    truth = np.zeros(shape[:2], np.bool_)
    truth[1:4, 1:4] = True
    picture = draw_verdict(gray(shape, dtype), verdict, truth, "part.png")
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert max(picture.shape) <= 2000
    assert colored(picture, REGION_COLOR).any()
    sheet = draw_contact_sheet([SheetRow("part.png", gray(shape, dtype), verdict, truth)], "one")
    assert (sheet == 100).all(axis=2).any()  # the gray of the image itself


def test_eight_and_sixteen_bit_images_look_the_same() -> None:
    np.testing.assert_array_equal(
        draw_verdict(gray(dtype=np.uint8), make_verdict()), draw_verdict(gray(dtype=np.uint16), make_verdict())
    )


def test_a_map_of_another_resolution_covers_the_same_field_of_view() -> None:
    verdict = make_verdict(shape=(48, 48), hot=np.s_[15:30, 10:25])
    drawn = colored(panels(gray(), verdict, None, (96, 96)).outlined(None), REGION_COLOR)
    rows, columns = np.nonzero(drawn)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((30, 59, 20, 49), abs=1)


def test_a_map_with_infinite_values_is_drawn_as_hot() -> None:
    verdict = make_verdict("anomalous")
    verdict.anomaly_map[10:20, 10:20] = np.inf
    verdict = replace(verdict, regions=find_regions(verdict.anomaly_map, 1.0))
    drawn = panels(gray(), verdict, None, (96, 96))
    assert colored(drawn.outlined(None), REGION_COLOR)[10, 10:20].all()
    assert drawn.heat(HeatScale(0.5, 1.5, 1.0))[15, 15].sum() > drawn.heat(HeatScale(0.5, 1.5, 1.0))[50, 50].sum()


def test_captions_of_the_three_decisions_differ_beyond_color() -> None:
    kinds: tuple[Decision, ...] = ("normal", "anomalous", "uncalibrated")
    captions = [draw_verdict(gray(), make_verdict(kind))[10:70, 16:60].max(axis=2) > 90 for kind in kinds]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert (captions[first] != captions[second]).sum() > 40  # badge shapes, color taken away


def test_the_ends_of_the_colors_come_from_the_map_threshold() -> None:
    assert heat_scale([make_verdict(threshold=2.0)]) == HeatScale(1.0, 3.0, 2.0)


def test_without_a_threshold_the_colors_span_median_to_maximum() -> None:
    scale = heat_scale([make_verdict("uncalibrated"), make_verdict("uncalibrated")])
    assert scale.threshold is None
    assert [scale.low, scale.high] == pytest.approx([0.4, 1.4])


def test_a_flat_uncalibrated_map_still_has_a_scale() -> None:
    verdict = make_verdict("uncalibrated", hot=np.s_[:])
    scale = heat_scale([verdict])
    assert scale.low < scale.high
    assert draw_verdict(gray(), verdict).shape[2] == 3


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (8, 2), (9, 3), (24, 3)])
def test_a_sheet_is_a_grid_of_limited_width(count: int, columns: int) -> None:
    sheet = draw_contact_sheet([make_row("anomalous", True)] * count, "title")
    cell = draw_contact_sheet([make_row("anomalous", True)], "title")
    lines = -(-count // columns)
    assert sheet.shape[1] <= 2000
    assert sheet.shape[1] - 20 == columns * (cell.shape[1] - 20)  # a margin at the left, one after every column
    assert sheet.shape[0] - 96 == lines * (cell.shape[0] - 96)  # a header, then equal lines


def test_a_sheet_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one"):
        draw_contact_sheet([], "empty")


def test_an_outcome_compares_the_verdict_with_the_truth() -> None:
    table: list[tuple[Decision, bool | None, str]] = [
        ("anomalous", True, "hit"), ("normal", True, "miss"), ("anomalous", False, "false alarm"),
        ("normal", False, "pass"), ("uncalibrated", True, ""), ("anomalous", None, ""),
    ]  # fmt: skip
    assert [make_row(decision, defective).outcome for decision, defective, _ in table] == [kind for _, _, kind in table]


def test_picked_rows_show_mistakes_first_and_keep_their_order() -> None:
    hits = [make_row("anomalous", True, f"hit{i}") for i in range(40)]
    passes = [make_row("normal", False, f"pass{i}") for i in range(40)]
    rows = [*hits, make_row("normal", True, "the miss"), *passes, make_row("anomalous", False, "the false alarm")]
    picked = pick_rows(rows, 12)
    names = [row.name for row in picked]
    assert len(picked) == 12
    assert {"the miss", "the false alarm"} <= set(names)
    assert sum(name.startswith("hit") for name in names) == 5
    assert names == [row.name for row in rows if row.name in names]


def test_a_sheet_of_mistakes_only_is_still_filled() -> None:
    assert len(pick_rows([make_row("normal", True, str(i)) for i in range(30)], 12)) == 12
    assert len(pick_rows([make_row("normal", True)], 12)) == 1


def test_long_names_keep_their_end_and_fit() -> None:
    text = shorten("a/" * 300 + "part_017.png", 200)
    assert text.startswith("...")
    assert text.endswith("part_017.png")
    assert text_width(text) <= 200
    assert shorten("part.png", 200) == "part.png"
