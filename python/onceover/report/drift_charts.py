"""The charts of a drift history as one picture, by matplotlib."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceover.errors import UsageError, missing_extra
from onceover.monitoring.history import ChartHistory, DriftHistory

FORMATS = (".png", ".svg", ".pdf")
_MOST_POINTS = 4000  # per line: more than a picture has columns
_FEW_POINTS = 100  # so few are marked: a line through one is nothing
_ALARM, _LINE, _LIMIT = "#d62728", "#1f4e79", "#8a8f98"


def check_picture(path: str | os.PathLike[str]) -> str:
    """→ the format that the file's ending names: UsageError for one that cannot be drawn, MissingExtraError without
    matplotlib."""
    extension = Path(path).suffix.lower()
    if extension not in FORMATS:
        raise UsageError(f"{path}: charts are drawn as {', '.join(FORMATS)}; give the file such an ending")
    _pyplot()
    return extension[1:]


def draw_drift(history: DriftHistory, picture_format: str) -> bytes:
    """→ a file of that format: a row per chart with values, limits and alarm; the same bytes for the same history."""
    shown = [chart for chart in history.charts if chart.state.parts > 0]
    figure, rows = _pyplot().subplots(
        max(1, len(shown)), 1, sharex=True, squeeze=False, figsize=(10, 0.8 + 1.5 * max(1, len(shown)))
    )
    for axes, chart in zip(rows[:, 0], shown, strict=False):
        _draw(axes, chart, history)
    rows[-1, 0].set_xlabel("part")
    rows[-1, 0].xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    name = history.package.name or "package"
    figure.suptitle(
        f"{name} ({history.package.id[:16]}): one false alarm in {history.average_run_length:g} parts or more",
        fontsize=10,
    )
    figure.tight_layout()
    target = io.BytesIO()
    dated = {"svg": "Date", "pdf": "CreationDate"}  # left out: they differ each time
    metadata = {dated[picture_format]: None} if picture_format in dated else None
    with _pyplot().rc_context({"svg.hashsalt": "onceover"}):
        figure.savefig(target, format=picture_format, dpi=120, metadata=metadata)
    _pyplot().close(figure)
    return target.getvalue()


def _draw(axes: Any, chart: ChartHistory, history: DriftHistory) -> None:
    drawn = points_drawn(chart.value)
    parts = history.first + history.every * drawn
    few = len(parts) <= _FEW_POINTS
    axes.plot(parts, chart.value[drawn], color=_LINE, linewidth=0.9, marker="." if few else None)
    for limit in (chart.lower, chart.upper):
        axes.plot(parts, limit[drawn], color=_LIMIT, linewidth=0.9, linestyle="--", marker="_" if few else None)
    if few:
        axes.set_xlim(parts[0] - 0.5, parts[-1] + 0.5)
    if chart.state.name == "p_values":
        axes.set_yscale("symlog", linthresh=1)  # evidence multiplies, and goes on doing so after an alarm
        if chart.state.upper is not None:
            axes.set_ylim(0, 1e3 * chart.state.upper)
    if np.isnan(chart.value).all():  # axes around nothing would look as if something had been lost
        text = f"no value yet: the first comes with the first full batch, parts until now: {chart.state.parts}"
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=9, color=_LIMIT)
        axes.set_yticks([])
    title = chart.state.title
    at = history.alarm_part(chart)
    if at is not None:
        axes.axvline(at, color=_ALARM, linewidth=1.2)
        title += f": alarm at part {at}"
    axes.set_title(title, fontsize=9, loc="left", color="black" if at is None else _ALARM)
    axes.tick_params(labelsize=8)


def points_drawn(values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Indices (k,) of (n,) values, ascending: all, or of many the lowest and the highest of each stretch, so that what
    was beyond a limit is seen there. NaN: no value."""
    count = len(values)
    if count <= _MOST_POINTS:
        return np.arange(count)
    length = -(-count // (_MOST_POINTS // 2))
    padded = np.full(-(-count // length) * length, np.nan)
    padded[:count] = values
    stretches = padded.reshape(-1, length)  # (stretches, length)
    empty = np.isnan(stretches)
    lowest = np.where(empty, np.inf, stretches).argmin(axis=1)
    highest = np.where(empty, -np.inf, stretches).argmax(axis=1)
    begins = length * np.arange(len(stretches))
    return np.unique(np.concatenate([[0, count - 1], begins + lowest, begins + highest]))


def _pyplot() -> Any:
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise missing_extra("matplotlib", "report", "drawing charts") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


__all__ = ["check_picture", "draw_drift", "points_drawn"]
