"""The pieces that pictures of results are made of: lettering, badges, panels with a heat map, the color bar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from onceover.images import heat_map, outline, overlay, to_rgb8
from onceover.types import Decision, Image, Verdict

Picture = NDArray[np.uint8]  # (H, W, 3) RGB
Color = tuple[int, int, int]

PAPER, CARD, LINE, INK, FAINT = (18, 20, 24), (30, 33, 39), (58, 63, 72), (236, 238, 241), (160, 166, 176)
REGION_COLOR, TRUTH_COLOR = (255, 255, 255), (60, 220, 255)
ROI_COLOR, OUTSIDE = (255, 214, 102), 0.55  # its border, and the brightness of what is not inspected
DECISION_COLORS: dict[Decision, Color] = {
    "normal": (72, 199, 116), "anomalous": (255, 92, 80), "uncalibrated": (160, 166, 176),
    "wrong_part": (255, 190, 60),
}  # fmt: skip
DECISION_WORDS: dict[Decision, str] = {
    "normal": "NORMAL",
    "anomalous": "ANOMALY",
    "uncalibrated": "UNCALIBRATED",
    "wrong_part": "WRONG PART",
}

_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class HeatScale:
    """Which raw scores are the ends of the colors; threshold is marked, None when there is none."""

    low: float
    high: float
    threshold: float | None


def heat_scale(verdicts: list[Verdict]) -> HeatScale:
    """0.5 to 1.5 times the map threshold of the first; without one, from the median to the maximum of all."""
    threshold = verdicts[0].map_threshold if verdicts else None
    if threshold is not None and np.isfinite(threshold) and threshold > 0:
        return HeatScale(0.5 * threshold, 1.5 * threshold, threshold)
    values = [v.anomaly_map[np.isfinite(v.anomaly_map)] for v in verdicts]
    if not any(v.size for v in values):
        return HeatScale(0.0, 1.0, None)
    low = float(np.median([np.median(v) for v in values if v.size]))
    high = max(float(v.max()) for v in values if v.size)
    return HeatScale(low, high if high > low else low + 1.0, None)


def canvas(height: int, width: int, color: Color = PAPER) -> Picture:
    """An empty picture."""
    return np.full((height, width, 3), color, np.uint8)


def write(picture: Picture, text: str, at: tuple[int, int], size: int = 14, color: Color = INK) -> int:
    """Letter `text` in place; at: (x, baseline y); size: height of a capital in pixels. Returns its right end."""
    scale, weight = _scale(size), 2 if size >= 16 else 1
    cv2.putText(picture, _plain(text), at, _FONT, scale, color, weight, cv2.LINE_AA)
    return at[0] + text_width(text, size)


def text_width(text: str, size: int = 14) -> int:
    """Pixels that `write` needs from left to right."""
    return int(cv2.getTextSize(_plain(text), _FONT, _scale(size), 2 if size >= 16 else 1)[0][0])


def shorten(text: str, width: int, size: int = 14) -> str:
    """`text`, its beginning replaced by dots until it is at most `width` pixels wide; a path's end says most."""
    if text_width(text, size) <= width:
        return text
    while text and text_width("..." + text, size) > width:
        text = text[1:]
    return "..." + text


def badge(picture: Picture, decision: Decision, center: tuple[int, int], radius: int) -> None:
    """A disc with a tick, a triangle with a mark, or a square with a dash: readable without seeing color."""
    x, y = center
    color = DECISION_COLORS[decision]
    weight = max(2, radius // 5)
    if decision == "normal":
        cv2.circle(picture, center, radius, color, -1, cv2.LINE_AA)
        tick = [(x - radius // 2, y), (x - radius // 8, y + radius // 2 - 1), (x + radius // 2, y - radius // 2 + 1)]
        cv2.polylines(picture, [np.asarray(tick, np.int32)], False, PAPER, weight, cv2.LINE_AA)
    elif decision in ("anomalous", "wrong_part"):
        corners = [(x, y - radius), (x + radius, y + radius - 1), (x - radius, y + radius - 1)]
        cv2.fillPoly(picture, [np.asarray(corners, np.int32)], color, cv2.LINE_AA)
        cv2.line(picture, (x, y - radius // 3), (x, y + radius // 4), PAPER, weight, cv2.LINE_AA)
        cv2.circle(picture, (x, y + radius * 2 // 3), max(1, weight // 2), PAPER, -1, cv2.LINE_AA)
    else:
        cv2.rectangle(picture, (x - radius + 1, y - radius + 1), (x + radius - 1, y + radius - 1), color, -1)
        cv2.line(picture, (x - radius // 2, y), (x + radius // 2, y), PAPER, weight, cv2.LINE_AA)


def draw_headline(picture: Picture, verdict: Verdict, name: str, margin: int) -> None:
    """The verdict in words across the top 84 pixels, and at the right the name of the image."""
    badge(picture, verdict.decision, (margin + 16, 40), 16)
    end = write(picture, DECISION_WORDS[verdict.decision], (margin + 46, 49), 20, DECISION_COLORS[verdict.decision])
    write(picture, score_words(verdict), (end + 24, 48), 15)
    room = picture.shape[1] - margin - end - 48 - text_width(score_words(verdict), 15)
    label = shorten(name, max(0, room), 15) if name else ""
    write(picture, label, (picture.shape[1] - margin - text_width(label, 15), 48), 15, FAINT)


def score_words(verdict: Verdict) -> str:
    """Score, threshold and p-value on a line."""
    if verdict.threshold is None:
        return f"score {verdict.score:.4g}   no threshold, no verdict"
    sign = ">" if verdict.score > verdict.threshold else "<="
    return f"score {verdict.score:.4g} {sign} {verdict.threshold:.4g}   p = {verdict.p_value:.3g}"


def fitted(shape: tuple[float, ...], box: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a picture scaled into a box, its aspect kept, no side below one pixel."""
    factor = min(box[0] / shape[0], box[1] / shape[1])
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def scaled(picture: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resized to (height, width) for drawing: averaged when smaller, interpolated when larger; masks stay masks."""
    if picture.dtype == np.bool_:
        shrunk = cv2.resize(picture.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
        return np.asarray(shrunk >= min(0.5, float(shrunk.max()) or 1.0))  # a small region is not lost
    smaller = size[0] * size[1] < picture.shape[0] * picture.shape[1]
    return np.asarray(cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR))


@dataclass(frozen=True)
class Panels:
    """One result at one drawing size (height, width): what every panel of it is drawn from."""

    image: Picture
    anomaly_map: NDArray[np.float32]
    contours: tuple[NDArray[np.int32], ...]  # (n, 2) x, y each: outlines of the verdict's regions
    truth: NDArray[np.bool_] | None
    roi: NDArray[np.bool_] | None = None

    def heat(self, scale: HeatScale) -> Picture:
        """The anomaly map alone."""
        return heat_map(self.anomaly_map, scale.low, scale.high)

    def outlined(self, scale: HeatScale | None) -> Picture:
        """The image, under the heat map when a scale is given, with the outlines of ground truth, regions and ROI."""
        picture = self.image.copy() if scale is None else overlay(self.image, self.anomaly_map, scale.low, scale.high)
        if self.roi is not None:
            shade = np.where(self.roi, 1.0, OUTSIDE)[..., None]
            picture = outline(np.asarray(np.round(picture * shade), np.uint8), self.roi, ROI_COLOR)
        for color, thickness in ((PAPER, 3), (REGION_COLOR, 1)):  # white on a dark halo reads on every ground
            cv2.polylines(picture, self.contours, True, color, thickness)
        if self.truth is not None:
            picture = outline(picture, self.truth, TRUTH_COLOR)
        return picture


def panels(image: Image, verdict: Verdict, truth: NDArray[np.bool_] | None, box: tuple[int, int]) -> Panels:
    """Scale image, map and ground truth into a box; they may come at different resolutions of one field of view."""
    rgb = to_rgb8(image)
    size = fitted(rgb.shape, box)
    finite = np.nan_to_num(verdict.anomaly_map, nan=1e30, posinf=1e30)  # an unusable patch is drawn as the worst
    heat = np.asarray(scaled(finite, size), np.float32)
    factors = np.divide(size, verdict.anomaly_map.shape)
    contours = tuple(np.floor((region.contour + 0.5) * factors).astype(np.int32)[:, ::-1] for region in verdict.regions)
    mask = None if truth is None else np.asarray(scaled(np.asarray(truth, np.bool_), size), np.bool_)
    roi = None if verdict.roi is None else np.asarray(scaled(verdict.roi, size), np.bool_)
    return Panels(np.asarray(scaled(rgb, size), np.uint8), heat, contours, mask, roi)


def paste(picture: Picture, piece: Picture, corner: tuple[int, int], box: tuple[int, int]) -> None:
    """Lay `piece` into the middle of the box (height, width) whose upper left is `corner` (y, x)."""
    top = corner[0] + (box[0] - piece.shape[0]) // 2
    left = corner[1] + (box[1] - piece.shape[1]) // 2
    picture[top : top + piece.shape[0], left : left + piece.shape[1]] = piece


def heat_bar(scale: HeatScale, length: int, breadth: int) -> Picture:
    """Upright: the colors of `Panels.heat` from low (bottom) to high (top), with a notch at the threshold."""
    values = np.repeat(_ramp(scale, length)[::-1, None], breadth, axis=1)
    bar = heat_map(values, scale.low, scale.high)
    if scale.threshold is not None:
        at = length - 1 - _notch(scale, length)
        bar[max(0, at - 1) : at + 1] = INK
    return bar


def overlay_bar(scale: HeatScale, length: int, breadth: int) -> Picture:
    """Lying: the colors of `Panels.outlined` on a gray part, low (left) to high, with a notch at the threshold."""
    values = np.repeat(_ramp(scale, length)[None], breadth, axis=0)
    bar = overlay(canvas(breadth, length, (110, 110, 110)), values, scale.low, scale.high)
    if scale.threshold is not None:
        at = _notch(scale, length)
        bar[:, max(0, at - 1) : at + 1] = INK
    return bar


def _ramp(scale: HeatScale, length: int) -> NDArray[np.float32]:
    return np.linspace(scale.low, scale.high, length, dtype=np.float32)


def _notch(scale: HeatScale, length: int) -> int:
    """Where on a bar of this length the threshold lies."""
    assert scale.threshold is not None
    return round((scale.threshold - scale.low) / (scale.high - scale.low) * (length - 1))


def _scale(size: int) -> float:
    return float(cv2.getFontScaleFromHeight(_FONT, size, 2 if size >= 16 else 1))


def _plain(text: str) -> str:
    """What the built-in font can draw; anything else as '?'."""
    return text.encode("ascii", "replace").decode()
