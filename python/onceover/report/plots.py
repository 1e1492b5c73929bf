"""The curves of a report as SVG (matplotlib): their colors are CSS variables of the page, their bytes reproducible."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onceover.errors import missing_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FPR_SHOWN = 0.3  # the part of the false positive rates that AUPRO looks at
BINS = 40
MAX_VERTICES = 600  # of a drawn curve; a set of maps has millions
# matplotlib draws in colors that it never uses by itself; the page says what they are, by day and by night.
_INK, _FAINT, _GRID, _GOOD, _BAD, _LIMIT = (f"#a1b2c{digit}" for digit in range(6))
_VARIABLES = {
    _INK: "--ink", _FAINT: "--faint", _GRID: "--line", _GOOD: "--good", _BAD: "--bad", _LIMIT: "--limit",
}  # fmt: skip
_SIZE = (5.2, 3.7)  # inches of 72 units; about 400 pixels wide on the page, so that letters stay legible


@dataclass(frozen=True)
class Threshold:
    """value, and where that of endlessly many calibration parts lies: (lower, upper), an open end is infinite.

    interval: None when it is not known.
    """

    value: float
    interval: tuple[float, float] | None = None


def score_histogram(
    good: NDArray[np.floating[Any]],
    anomalous: NDArray[np.floating[Any]],
    calibration: NDArray[np.floating[Any]],
    threshold: Threshold | None,
) -> str:
    """SVG: image scores of good and of anomalous parts, one above the other, and those of the calibration as ticks.

    Any may be empty; scores that are not finite are left out.
    """
    good, anomalous, calibration = (values[np.isfinite(values)] for values in (good, anomalous, calibration))
    known = np.concatenate([good, anomalous, calibration, [] if threshold is None else [threshold.value]])
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    margin = 0.04 * ((high - low) or abs(high) or 1.0)
    edges = np.linspace(low - margin, high + margin, BINS + 1).tolist()

    def draw(upper: Axes, lower: Axes) -> None:
        rows = ((upper, good, _GOOD, "good"), (lower, anomalous, _BAD, "anomalous"))
        for axes, values, color, name in rows:
            if values.size:
                axes.hist(values, edges, color=color, alpha=0.55, histtype="stepfilled")
                axes.hist(values, edges, color=color, histtype="step", linewidth=1.2)
            axes.set_ylim(0, max(1.0, 1.12 * axes.get_ylim()[1]) if values.size else 1)
            axes.locator_params(axis="y", integer=True, nbins=4)
            axes.set_ylabel(f"{name} ({values.size})", color=_INK)
            axes.set_xlim(edges[0], edges[-1])
            if threshold is not None:
                _draw_threshold(axes, threshold)
        if calibration.size:
            upper.plot(calibration, np.zeros(calibration.size), "|", color=_INK, markersize=9, clip_on=False, zorder=5)
        lower.set_xlabel("image score, higher is more anomalous")

    return _svg("histogram", draw, rows=2)


def latency_histogram(milliseconds: NDArray[np.floating[Any]], marks: Sequence[tuple[str, float]], name: str) -> str:
    """SVG: how many runs took how long, counts on a logarithmic scale, so that a single late one is seen.

    milliseconds: (n,), not empty. marks: (name, ms) of lines. name: what the ids of this plot begin with.
    """
    low, high = float(milliseconds.min()), float(milliseconds.max())
    margin = 0.04 * ((high - low) or high or 1.0)
    edges = np.linspace(max(0.0, low - margin), high + margin, BINS + 1).tolist()

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import LogFormatter

        axes.hist(milliseconds, edges, color=_GOOD, alpha=0.55, histtype="stepfilled", log=True)
        axes.hist(milliseconds, edges, color=_GOOD, histtype="step", linewidth=1.2, log=True)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))  # few runs: 2 and 3, not 2 × 10⁰
        top = 3 * axes.get_ylim()[1]
        axes.set(xlim=(edges[0], edges[-1]), ylim=(0.7, top))
        for i, (mark, value) in enumerate(marks):
            axes.axvline(value, color=_LIMIT, linewidth=1.5)
            axes.annotate(mark, (value, top), (3, -12 - 13 * i), textcoords="offset points", color=_LIMIT)
        axes.set_xlabel("ms from image to verdict")
        axes.set_ylabel("runs")

    return _svg(name, draw)


def image_roc(
    scores: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], threshold: float | None
) -> str | None:
    """SVG: share of anomalous images found over share of good images flagged; None when a class is missing.

    scores, labels: (N,), labels 0 good, 1 anomalous; others are left out.
    """
    good, bad = np.sort(scores[labels == 0]), np.sort(scores[labels == 1])
    if not (good.size and bad.size):
        return None
    cuts = np.unique(np.concatenate([good, bad]))[::-1]  # flagged: at or above
    x, y = (np.concatenate([[0.0], 1 - np.searchsorted(kind, cuts, side="left") / kind.size]) for kind in (good, bad))

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=_GRID, linewidth=1, linestyle="--")
        _draw_curve(axes, x, y, _BAD, "")
        if threshold is not None:
            at = (good > threshold).mean(), (bad > threshold).mean()
            axes.plot(*at, "o", color=_LIMIT, markersize=7, zorder=5)
            left = at[0] > 0.6  # where there is room for the word
            axes.annotate(
                "threshold", at, (-10 if left else 10, -14), textcoords="offset points", color=_LIMIT,
                horizontalalignment="right" if left else "left",
            )  # fmt: skip
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
        axes.set_xlabel("good images flagged")
        axes.set_ylabel("anomalous images found")

    return _svg("roc", draw)


def pixel_curves(
    fpr: NDArray[np.float64], pro: NDArray[np.float64], tpr: NDArray[np.float64], at_threshold: int | None
) -> str:
    """SVG: PRO and ROC of all pixels up to FPR_SHOWN, the area of AUPRO shaded.

    fpr, pro, tpr: vertices, (V,) each, fpr ascending from 0 to 1. at_threshold: the vertex of the map threshold.
    """

    def draw(axes: Axes) -> None:
        x, y = thinned(fpr, pro)
        axes.fill_between(x, y, color=_BAD, alpha=0.14, linewidth=0)
        _draw_curve(axes, x, y, _BAD, "PRO: mean share found of a region")
        _draw_curve(axes, *thinned(fpr, tpr), _GOOD, "ROC: share of defective pixels", "--")
        if at_threshold is not None and fpr[at_threshold] <= FPR_SHOWN:
            axes.plot([fpr[at_threshold]], [pro[at_threshold]], "o", color=_LIMIT, markersize=7, zorder=5,
                      label="map threshold", clip_on=False)  # fmt: skip
        axes.set(xlim=(0, FPR_SHOWN), ylim=(0, 1.04))
        axes.set_xlabel("normal pixels flagged")
        axes.set_ylabel("found")
        axes.legend(loc="lower right", frameon=False, labelcolor=_INK)

    return _svg("pixels", draw)


def thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most about MAX_VERTICES of a rising curve's vertices: its ends, and evenly spaced ones along either axis."""
    if len(x) <= MAX_VERTICES:
        return x, y
    steps = np.linspace(0, 1, MAX_VERTICES // 3)
    along = [np.searchsorted(x, steps), np.searchsorted(x, FPR_SHOWN * steps), np.searchsorted(y, y[-1] * steps)]
    kept = np.unique(np.clip(np.concatenate([[0, len(x) - 1], *along]), 0, len(x) - 1))
    return x[kept], y[kept]


def _draw_curve(
    axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], color: str, name: str, style: str = "-"
) -> None:
    axes.plot(x, y, color=color, linewidth=2, linestyle=style, label=name or None, solid_joinstyle="round")


def _draw_threshold(axes: Axes, threshold: Threshold) -> None:
    if threshold.interval is not None:
        low, high = np.clip(threshold.interval, *axes.get_xlim())
        axes.axvspan(low, high, color=_LIMIT, alpha=0.12, linewidth=0)
    axes.axvline(threshold.value, color=_LIMIT, linewidth=2)


def _svg(name: str, draw: Callable[..., None], rows: int = 1) -> str:
    """What `draw` draws on `rows` axes with one x axis, as an <svg> element whose ids begin with `name`."""
    with _matplotlib() as figure_class:
        figure = figure_class(figsize=_SIZE, layout="constrained")
        axes: list[Axes] = list(np.atleast_1d(figure.subplots(rows, 1, sharex=True)))
        draw(*axes)
        for each in axes:
            each.grid(axis="y", color=_GRID, linewidth=0.8)
            each.set_axisbelow(True)
        buffer = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return _for_page(buffer.getvalue(), name)


def _for_page(text: str, name: str) -> str:
    """Without XML header and comments, with the page's colors and font; ids of several plots do not meet."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", text)
    text = re.sub(r'<svg\b[^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" role="presentation">', text, count=1)
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = text.replace("xlink:href", "href")
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    return text.strip()


@contextmanager
def _matplotlib() -> Iterator[Any]:
    """matplotlib.figure.Figure, in our style; MissingExtraError without matplotlib."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("matplotlib", "report", "a report with curves") from error
    style: dict[Any, Any] = {
        "svg.hashsalt": "onceover", "svg.fonttype": "none", "font.size": 11, "font.family": "sans-serif",
        "text.color": _INK, "axes.labelcolor": _FAINT, "axes.edgecolor": _GRID, "axes.spines.top": False,
        "axes.spines.right": False, "xtick.color": _FAINT, "ytick.color": _FAINT, "xtick.labelcolor": _FAINT,
        "ytick.labelcolor": _FAINT,
    }  # fmt: skip
    with mpl.rc_context():
        mpl.rcdefaults()  # whatever the user's own style is
        mpl.rcParams.update(style)
        yield Figure
