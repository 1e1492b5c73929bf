"""Pictures of results for people: one verdict in three panels, and many verdicts on one contact sheet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onceover.errors import UsageError
from onceover.report.panels import (
    CARD,
    DECISION_COLORS,
    DECISION_WORDS,
    FAINT,
    INK,
    LINE,
    PAPER,
    REGION_COLOR,
    TRUTH_COLOR,
    HeatScale,
    Picture,
    badge,
    canvas,
    draw_headline,
    heat_bar,
    heat_scale,
    overlay_bar,
    panels,
    paste,
    score_words,
    shorten,
    text_width,
    write,
)
from onceover.types import Image, Verdict

THUMBNAIL, GAP, MARGIN, CAPTION, HEADER = 240, 6, 20, 74, 96
PANEL, BAR = 400, 104
WRONG = (255, 190, 60)  # the color of a miss or a false alarm


@dataclass(frozen=True)
class SheetRow:
    """One result on a sheet. ground_truth: bool (H, W), empty for a good part; None when it is not known."""

    name: str
    image: Image
    verdict: Verdict
    ground_truth: NDArray[np.bool_] | None = None

    @property
    def outcome(self) -> str:
        """ "hit", "miss", "false alarm" or "pass"; "" when the truth is not known or the verdict is open."""
        if self.ground_truth is None or self.verdict.is_anomalous is None:
            return ""
        if self.ground_truth.any():
            return "hit" if self.verdict.is_anomalous else "miss"
        return "false alarm" if self.verdict.is_anomalous else "pass"

    @property
    def is_wrong(self) -> bool:
        return self.outcome in ("miss", "false alarm")


def pick_rows(rows: list[SheetRow], count: int = 24) -> list[SheetRow]:
    """At most `count` rows that show how a detector does: mistakes first, but at most a third of them, then the rest.

    Within an outcome the choice is spread evenly over the given order, so every kind of defect gets its turn.
    """
    groups = {kind: [row for row in rows if row.outcome == kind] for kind in ("miss", "false alarm", "hit", "pass", "")}
    mistakes = [groups["miss"], groups["false alarm"]]
    shown = _spread(mistakes, max(1, count // 3))
    shown += _spread([groups["hit"], groups["pass"], groups[""]], count - len(shown))
    left = [[row for row in group if id(row) not in {id(other) for other in shown}] for group in mistakes]
    shown += _spread(left, count - len(shown))
    return [row for row in rows if id(row) in {id(other) for other in shown}]


def draw_contact_sheet(rows: list[SheetRow], title: str) -> Picture:
    """All rows as cells of image, heat map with outlines, and caption: (H, ≤ 1600, 3) uint8 RGB.

    All heat maps share one scale: one half to one and a half times the map threshold (each row's own, where rows come
    from several packages); among uncalibrated ones, from the median to the maximum of all. The header says which.
    """
    if not rows:
        raise UsageError("a contact sheet needs at least one result, got none")
    columns = 3 if len(rows) > 8 else 2 if len(rows) > 1 else 1
    cell_height, cell_width = THUMBNAIL + CAPTION, 2 * THUMBNAIL + GAP
    lines = -(-len(rows) // columns)
    width = MARGIN + columns * (cell_width + MARGIN)
    sheet = canvas(HEADER + lines * (cell_height + MARGIN), width)
    scales = _sheet_scales(rows)
    _draw_header(sheet, rows, title, scales)
    for index, (row, scale) in enumerate(zip(rows, scales, strict=True)):
        line, column = divmod(index, columns)
        top, left = HEADER + line * (cell_height + MARGIN), MARGIN + column * (cell_width + MARGIN)
        _draw_cell(sheet[top : top + cell_height, left : left + cell_width], row, scale)
    return sheet


def draw_verdict(
    image: Image, verdict: Verdict, ground_truth: NDArray[np.bool_] | None = None, name: str = ""
) -> Picture:
    """One result: image, heat map with its color bar, outlines, and the verdict in words. (H, W, 3) uint8 RGB."""
    scale = heat_scale([verdict])
    parts = panels(image, verdict, ground_truth, (PANEL, PANEL))
    box = (max(parts.image.shape[0], PANEL // 2), PANEL)
    top, bottom = 84, 84 + box[0]
    picture = canvas(bottom + 56, MARGIN + 3 * (PANEL + MARGIN) + BAR)
    draw_headline(picture, verdict, name, MARGIN)
    lefts = [MARGIN, MARGIN + PANEL + MARGIN, MARGIN + 2 * (PANEL + MARGIN) + BAR]
    for piece, left in zip((parts.image, parts.heat(scale), parts.outlined(None)), lefts, strict=True):
        picture[top:bottom, left : left + PANEL] = CARD
        paste(picture, piece, (top, left), box)
    _draw_vertical_bar(picture, scale, (top, lefts[1] + PANEL + 12), box[0])
    for text, left in zip(("image", "anomaly map, raw scores"), lefts[:2], strict=True):
        write(picture, text, (left, bottom + 26), 13, FAINT)
    _draw_legend(picture, (lefts[2], bottom + 26), scale.threshold is not None, ground_truth is not None)
    return picture


def _sheet_scales(rows: list[SheetRow]) -> list[HeatScale]:
    """One per row. Rows of one package share it in raw scores; packages differ, so theirs is relative."""
    open_scale = heat_scale([row.verdict for row in rows if row.verdict.map_threshold is None])
    return [open_scale if row.verdict.map_threshold is None else heat_scale([row.verdict]) for row in rows]


def _draw_header(sheet: Picture, rows: list[SheetRow], title: str, scales: list[HeatScale]) -> None:
    bar_width, right = 220, sheet.shape[1] - MARGIN
    write(sheet, shorten(title, right - bar_width - 3 * MARGIN, 20), (MARGIN, 40), 20)
    counts = {kind: sum(row.outcome == kind for row in rows) for kind in ("hit", "miss", "false alarm", "pass")}
    names = {"hit": "hits", "miss": "misses", "false alarm": "false alarms", "pass": "passed"}
    outcomes = [f"{counts[kind]} {names[kind]}" for kind in names if any(counts.values())]
    summary = "   ".join([f"{len(rows)} images shown", *outcomes])
    wide = sheet.shape[1] > 700
    end = write(sheet, summary, (MARGIN, 72), 14, FAINT)
    if wide:
        calibrated = any(scale.threshold is not None for scale in scales)
        _draw_legend(sheet, (end + 36, 72), calibrated, any(row.ground_truth is not None for row in rows))
    different = sorted({(round(s.low, 6), round(s.high, 6)) for s in scales})
    sheet[26:40, right - bar_width : right] = overlay_bar(scales[0], bar_width, 14)
    if len(different) == 1:
        low, high = f"{scales[0].low:.3g}", f"{scales[0].high:.3g}"
        middle = "" if scales[0].threshold is None else f"threshold {scales[0].threshold:.3g}"
    elif all(scale.threshold is not None for scale in scales):
        low, high, middle = "x0.5", "x1.5", "map threshold"
    else:
        low, high, middle = "low", "high", "scale of each package"
    for text, x in ((low, right - bar_width), (high, right - text_width(high, 13))):
        write(sheet, text, (x, 60), 13, FAINT)
    write(sheet, middle, (right - (bar_width + text_width(middle, 13)) // 2, 60), 13, INK)


def _draw_cell(cell: Picture, row: SheetRow, scale: HeatScale) -> None:
    verdict, box = row.verdict, (THUMBNAIL, THUMBNAIL)
    cell[:] = CARD
    parts = panels(row.image, verdict, row.ground_truth, box)
    cell[:THUMBNAIL] = PAPER
    paste(cell, parts.image, (0, 0), box)
    paste(cell, parts.outlined(scale), (0, THUMBNAIL + GAP), box)
    badge(cell, verdict.decision, (19, THUMBNAIL + 20), 10)
    write(cell, DECISION_WORDS[verdict.decision], (38, THUMBNAIL + 26), 15, DECISION_COLORS[verdict.decision])
    if row.outcome:
        _draw_tag(cell, row.outcome.upper(), THUMBNAIL + 8, row.is_wrong)
    write(cell, score_words(verdict), (10, THUMBNAIL + 46), 13)
    room = cell.shape[1] - 20
    write(cell, shorten(row.name, room, 13), (10, THUMBNAIL + 65), 13, FAINT)
    border, thickness = (WRONG, 2) if row.is_wrong else (LINE, 1)
    for edge in (np.s_[:thickness], np.s_[-thickness:], np.s_[:, :thickness], np.s_[:, -thickness:]):
        cell[edge] = border


def _draw_tag(cell: Picture, text: str, top: int, wrong: bool) -> None:
    """The outcome at the right edge: filled when the verdict is wrong, so that the eye finds it."""
    width = text_width(text, 13) + 16
    left = cell.shape[1] - width - 10
    cell[top : top + 23, left : left + width] = WRONG if wrong else LINE
    write(cell, text, (left + 8, top + 18), 13, PAPER if wrong else INK)


def _draw_legend(picture: Picture, at: tuple[int, int], with_regions: bool, with_truth: bool) -> None:
    """Which outline is which; at: (x, baseline)."""
    x, y = at
    if with_regions:
        picture[y - 7 : y - 4, x : x + 24] = REGION_COLOR
        x = write(picture, "above map threshold", (x + 32, y), 13, FAINT) + 24
    if with_truth:
        picture[y - 7 : y - 4, x : x + 24] = TRUTH_COLOR
        write(picture, "ground truth", (x + 32, y), 13, FAINT)


def _draw_vertical_bar(picture: Picture, scale: HeatScale, corner: tuple[int, int], height: int) -> None:
    top, left = corner
    picture[top : top + height, left : left + 18] = heat_bar(scale, height, 18)
    write(picture, f"{scale.high:.3g}", (left + 26, top + 14), 13, FAINT)
    write(picture, f"{scale.low:.3g}", (left + 26, top + height - 2), 13, FAINT)
    if scale.threshold is not None:
        y = top + round(height * (scale.high - scale.threshold) / (scale.high - scale.low))
        write(picture, f"{scale.threshold:.3g}", (left + 26, y - 2), 13)
        write(picture, "threshold", (left + 26, y + 16), 13)


def _spread(groups: list[list[SheetRow]], count: int) -> list[SheetRow]:
    """At most `count` rows, fair shares from every group, evenly spaced within it."""
    shares = [0] * len(groups)
    while sum(shares) < min(count, sum(map(len, groups))):
        open_groups = [index for index, group in enumerate(groups) if shares[index] < len(group)]
        shares[min(open_groups, key=lambda index: shares[index])] += 1
    return [group[i * len(group) // share] for group, share in zip(groups, shares, strict=True) for i in range(share)]
