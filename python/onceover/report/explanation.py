"""Why an image got its verdict, as a picture: the worst patch beside the normal patch that comes nearest to it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from onceover.errors import UsageError
from onceover.images import to_rgb8
from onceover.report.panels import (
    CARD,
    DECISION_COLORS,
    FAINT,
    INK,
    LINE,
    PAPER,
    Picture,
    canvas,
    draw_headline,
    fitted,
    heat_scale,
    overlay_bar,
    panels,
    paste,
    scaled,
    shorten,
    text_width,
    write,
)
from onceover.types import Image, NearestPatch, ScoreRange, Verdict

WIDTH, MARGIN, TOP, IMAGE, CROP = 1000, 20, 84, 440, 240
AROUND = 4  # patches on each side of the compared one: about what a patch embedding has seen
MARK = (255, 214, 70)  # the compared patches, and where they lie
NORMAL = DECISION_COLORS["normal"]
Window = tuple[float, float, float, float]  # top, left, bottom, right, as parts of the image's sides


def draw_explanation(
    image: Image, verdict: Verdict, normal: Image | None = None, name: str = "", missing: str = "no picture stored"
) -> Picture:
    """(580, 1000, 3) uint8 RGB: the image under its map, its worst patch and the nearest normal one, both in context.

    normal: the whole normal image that verdict.reason names, at any size; None: `missing` is written in its place.
    Raises UsageError for a verdict without a reason.
    """
    reason = verdict.reason
    if reason is None:
        raise UsageError("this verdict has no reason to draw; make it with Inspector.inspect")
    picture = canvas(TOP + IMAGE + 56, WIDTH)
    draw_headline(picture, verdict, name, MARGIN)
    rgb, window = to_rgb8(image), surroundings(reason.box)
    _draw_image(picture, rgb, verdict, window)
    size = fitted(_pixels(rgb, window), (CROP, CROP))
    lefts = (MARGIN + IMAGE + MARGIN, WIDTH - MARGIN - CROP)
    for left in lefts:
        picture[TOP : TOP + CROP, left : left + CROP] = CARD
    paste(picture, crop(rgb, reason.box, window, size), (TOP, lefts[0]), (CROP, CROP))
    if normal is not None and reason.image_box is not None:
        there = surroundings(reason.image_box)
        paste(picture, crop(to_rgb8(normal), reason.image_box, there, size), (TOP, lefts[1]), (CROP, CROP))
    else:
        _write_lines(picture, missing, (lefts[1] + 16, TOP + CROP // 2 - 30), CROP - 32)
    _draw_captions(picture, reason, lefts)
    _draw_ruler(picture, verdict, (lefts[0], TOP + CROP + 134), WIDTH - MARGIN - lefts[0])
    return picture


def surroundings(box: Window) -> Window:
    """A window of AROUND patches on each side of the patch with this box, fewer where the image has not as many."""
    height, width = box[2] - box[0], box[3] - box[1]
    around = max(0, min(AROUND, int((1 / max(height, width) + 1e-6 - 1) // 2)))
    return box[0] - around * height, box[1] - around * width, box[2] + around * height, box[3] + around * width


def crop(rgb: Picture, box: Window, window: Window, size: tuple[int, int]) -> Picture:
    """The window of the picture at this size (height, width), the box inside it marked; empty beyond the border."""
    height, width = _pixels(rgb, window)
    shrink = max(height / size[0], width / size[1])
    if shrink > 1:  # averaged first: interpolation alone would skip pixels
        rgb = np.asarray(scaled(rgb, tuple(max(1, round(side / shrink)) for side in rgb.shape[:2])), np.uint8)
        height, width = _pixels(rgb, window)
    step_y, step_x = height / size[0], width / size[1]  # pixels of rgb per pixel drawn; centers are at halves
    start_y, start_x = window[0] * rgb.shape[0], window[1] * rgb.shape[1]
    affine = np.array([[step_x, 0, start_x + step_x / 2 - 0.5], [0, step_y, start_y + step_y / 2 - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(rgb, affine, size[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    drawn = np.asarray(warped, np.uint8)
    inside = np.ones(size, np.bool_)
    inside[: max(0, round(-start_y / step_y))] = False
    inside[:, : max(0, round(-start_x / step_x))] = False
    inside[max(0, round((rgb.shape[0] - start_y) / step_y)) :] = False
    inside[:, max(0, round((rgb.shape[1] - start_x) / step_x)) :] = False
    drawn[~inside] = CARD
    _mark(drawn, (box[0] - window[0], box[1] - window[1], box[2] - window[0], box[3] - window[1]), window)
    return drawn


def _pixels(rgb: Picture, window: Window) -> tuple[float, float]:
    """Height and width of the window in pixels of the picture."""
    return (window[2] - window[0]) * rgb.shape[0], (window[3] - window[1]) * rgb.shape[1]


def _mark(drawn: NDArray[np.uint8], box: Window, window: Window) -> None:
    """A frame round the box; both count from the window's corner."""
    factors = drawn.shape[0] / (window[2] - window[0]), drawn.shape[1] / (window[3] - window[1])
    top, bottom = (round(value * factors[0]) for value in (box[0], box[2]))
    left, right = (round(value * factors[1]) for value in (box[1], box[3]))
    cv2.rectangle(drawn, (left - 2, top - 2), (right + 1, bottom + 1), PAPER, 3)
    cv2.rectangle(drawn, (left - 2, top - 2), (right + 1, bottom + 1), MARK, 1)


def _draw_image(picture: Picture, rgb: Picture, verdict: Verdict, window: Window) -> None:
    """The whole image under its map, with the outlines of regions and a frame round what is shown larger beside it."""
    scale = heat_scale([verdict])
    drawn = panels(rgb, verdict, None, (IMAGE, IMAGE)).outlined(scale)
    _mark(drawn, window, (0.0, 0.0, 1.0, 1.0))
    picture[TOP : TOP + IMAGE, MARGIN : MARGIN + IMAGE] = CARD
    paste(picture, drawn, (TOP, MARGIN), (IMAGE, IMAGE))
    y = TOP + IMAGE + 16
    picture[y : y + 12, MARGIN : MARGIN + 150] = overlay_bar(scale, 150, 12)
    said = "median to maximum" if scale.threshold is None else f"{scale.low:.3g} to {scale.high:.3g}"
    end = write(picture, said, (MARGIN + 162, y + 12), 13, FAINT)
    if scale.threshold is not None:
        write(picture, f"map threshold {scale.threshold:.3g}", (end + 20, y + 12), 13)


def _draw_captions(picture: Picture, reason: NearestPatch, lefts: tuple[int, int]) -> None:
    y = TOP + CROP + 22
    write(picture, "this part, worst patch", (lefts[0], y), 14, MARK)
    write(picture, f"row {reason.patch[0]}, column {reason.patch[1]} of the patches", (lefts[0], y + 22), 12, FAINT)
    write(picture, "nearest normal patch", (lefts[1], y), 14, MARK)
    named = reason.image or ("image not known" if reason.image_index is None else f"bank image {reason.image_index}")
    write(picture, shorten(named, CROP, 12), (lefts[1], y + 22), 12)
    where = "" if reason.image_patch is None else f"row {reason.image_patch[0]}, column {reason.image_patch[1]}; "
    write(picture, f"{where}bank row {reason.bank_row}", (lefts[1], y + 42), 12, FAINT)


def _draw_ruler(picture: Picture, verdict: Verdict, corner: tuple[int, int], length: int) -> None:
    """The score on an axis from 0, with the scores of normal parts and the threshold; corner: (x, y) of its middle."""
    left, y = corner
    normal = verdict.normal_range or ScoreRange(None, None, None, verdict.threshold)
    known = [value for value in (verdict.score, normal.threshold, normal.highest) if value is not None]
    end = 1.12 * max(known) or 1.0

    def at(value: float) -> int:
        return left + round(min(1.0, max(0.0, value / end)) * length)

    picture[y - 1 : y + 1, left : left + length] = LINE
    below = y + 34
    if normal.lowest is not None and normal.median is not None and normal.highest is not None:
        picture[y - 7 : y + 7, at(normal.lowest) : at(normal.highest) + 1] = NORMAL
        picture[y - 7 : y + 7, at(normal.median) - 1 : at(normal.median) + 1] = PAPER
        text = f"normal parts {normal.lowest:.3g} to {normal.highest:.3g}, median {normal.median:.3g}"
        picture[below + 16 : below + 26, left : left + 10] = NORMAL
        write(picture, text, (left + 20, below + 26), 13, FAINT)
    if normal.threshold is not None:
        x = at(normal.threshold)
        picture[y - 13 : y + 13, x - 1 : x + 1] = INK
        _write_centered(picture, f"threshold {normal.threshold:.3g}", (x, below), (left, left + length), INK)
    color, x = DECISION_COLORS[verdict.decision], at(verdict.score)
    cv2.fillPoly(picture, [np.array([(x, y - 2), (x - 8, y - 18), (x + 8, y - 18)], np.int32)], color, cv2.LINE_AA)
    times = (
        ""
        if verdict.reason is None or verdict.reason.times_threshold is None
        else (f", {verdict.reason.times_threshold:.2f} x the threshold")
    )
    _write_centered(picture, f"distance {verdict.score:.4g}{times}", (x, y - 26), (left, left + length), color)


def _write_centered(
    picture: Picture, text: str, at: tuple[int, int], limits: tuple[int, int], color: tuple[int, int, int]
) -> None:
    """Letters round x of at, as far as they stay between the limits."""
    width = text_width(text, 14)
    x = max(limits[0], min(limits[1] - width, at[0] - width // 2))
    write(picture, text, (x, at[1]), 14, color)


def _write_lines(picture: Picture, text: str, at: tuple[int, int], width: int) -> None:
    """Words broken into lines of this width."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines[-1:] = [longer] if text_width(longer, 14) <= width or not lines[-1] else [lines[-1], word]
    for i, line in enumerate(lines):
        write(picture, line, (at[0], at[1] + 24 * i), 14, FAINT)


__all__ = ["AROUND", "crop", "draw_explanation", "surroundings"]
