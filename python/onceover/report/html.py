"""An evaluation as one HTML file that needs nothing else: no network, no script of others, no second file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onceover.errors import missing_extra
from onceover.report.gallery import Gallery, Outcome
from onceover.report.plots import Threshold, image_roc, pixel_curves, score_histogram

Interval = tuple[float, float]
Standing = Literal["good", "open", "bad", "plain"]  # how a headline number is painted

OUTCOME_WORDS: dict[Outcome, tuple[str, str, str]] = {  # anchor and name of the filter; what stands above the cards
    "missed": ("misses", "Misses", "anomalous, not flagged; lowest score first"),
    "false-alarm": ("false-alarms", "False alarms", "good, but flagged; highest score first"),
    "found": ("found", "Found", "anomalous and flagged; lowest score first"),
    "anomalous": ("anomalous", "Anomalous", "not judged, for want of a threshold; lowest score first"),
    "passed": ("passed", "Passed", "good, not flagged; highest score first"),
    "good": ("good", "Good", "not judged, for want of a threshold; highest score first"),
    "unlabeled": ("unlabeled", "Unlabeled", "nobody told whether they are good; highest score first"),
}


@dataclass(frozen=True)
class Rate:
    """k of n images; interval: of the rate, at the level of the page."""

    k: int
    n: int
    interval: Interval

    @property
    def share(self) -> float:
        return self.k / self.n


@dataclass(frozen=True)
class Metric:
    """A figure between 0 and 1, NaN when undefined; interval None when there is none."""

    name: str
    value: float
    interval: Interval | None = None
    note: str = ""


@dataclass(frozen=True)
class Defect:
    """One kind of defect. detected: None when the package is uncalibrated; NaN: undefined."""

    name: str
    images: int
    detected: int | None
    image_auroc: float
    pixel_auroc: float
    aupro: float


@dataclass(frozen=True, eq=False)
class PixelCurve:
    """Vertices by ascending false positive rate, (V,) each. at_threshold: the vertex of the map threshold, if any."""

    fpr: NDArray[np.float64]
    pro: NDArray[np.float64]
    tpr: NDArray[np.float64]
    at_threshold: int | None = None


@dataclass(frozen=True)
class EvaluationPage:
    """What a page says beside its images. false_alarms, misses: None when uncalibrated or for want of a class.

    threshold: None when uncalibrated. calibration: float32 (n,), scores of the held-out parts. latency: stage → p50,
    p99 in ms. facts: what was evaluated, by name. level: of all intervals, such as 0.95. realised: where the
    false-alarm rate of this threshold may lie, given so many calibration parts.
    """

    title: str
    images: int
    good: int
    anomalous: int
    unlabeled: int
    false_alarms: Rate | None
    target: float | None
    misses: Rate | None
    metrics: Sequence[Metric]
    defects: Sequence[Defect]
    threshold: Threshold | None
    calibration: NDArray[np.float32]
    curve: PixelCurve | None
    latency: Mapping[str, Mapping[str, float]]
    facts: Sequence[tuple[str, str]]
    problems: Sequence[str]
    level: float
    realised: Interval | None = None


def render_page(page: EvaluationPage, gallery: Gallery) -> str:
    """The whole file; the same page and gallery give the same text. MissingExtraError without jinja2 or matplotlib."""
    template = page_template("page.html.jinja")
    scores, labels = gallery.scores()
    limit = None if page.threshold is None else page.threshold.value
    curve = page.curve
    plots = {
        "histogram": score_histogram(scores[labels == 0], scores[labels == 1], page.calibration, page.threshold),
        "roc": image_roc(scores, labels, limit),
        "pixels": None if curve is None else pixel_curves(curve.fpr, curve.pro, curve.tpr, curve.at_threshold),
    }
    text: str = template.render(
        page=page,
        plots=plots,
        shown=gallery.shown(),
        counts=gallery.counts(),
        words=OUTCOME_WORDS,
        false_alarm_standing=_standing(page.false_alarms, page.target),
        sentence=_sentence(page),
        infinity=float("inf"),
    )
    return text


def check_report_extra() -> None:
    """MissingExtraError, before minutes of work, where `render_page` would raise it."""
    page_template("page.html.jinja")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise missing_extra("matplotlib", "report", "an HTML report") from error


def page_template(name: str) -> Any:
    """A template of this folder, in which everything is escaped; MissingExtraError without jinja2."""
    try:
        import jinja2
    except ImportError as error:
        raise missing_extra("jinja2", "report", "an HTML report") from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("onceover.report", ""),
        autoescape=True,  # names of files and of defects are anybody's
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, figure=_figure, interval=_interval, ms=_ms)
    return environment.get_template(name)


def _standing(rate: Rate | None, target: float | None) -> Standing:
    """bad: the interval of the rate lies above the target; open: the rate does, but chance can explain it."""
    if rate is None or target is None:
        return "plain"
    if rate.interval[0] > target:
        return "bad"
    return "good" if rate.share <= target else "open"


def _sentence(page: EvaluationPage) -> str:
    """The result in words, first on the page."""
    parts = []
    if page.misses is not None:
        parts.append(f"finds {page.misses.n - page.misses.k} of {page.misses.n} anomalous images")
    if page.false_alarms is not None:
        parts.append(f"flags {page.false_alarms.k} of {page.false_alarms.n} good ones")
    if page.threshold is None:
        return "Uncalibrated: there are scores and maps, but no threshold and so no verdicts."
    if not parts:
        return "No image has a known label: there are verdicts, but nothing to compare them with."
    return (" and ".join(parts) + ".").capitalize()


def _percent(share: float) -> str:
    """Of a share: 0.0123 → "1.2 %"."""
    return f"{100 * share:.1f}\u202f%"


def _figure(value: float) -> str:
    """Of a metric: three digits, n/a when it is not defined."""
    return "n/a" if value != value else f"{value:.3f}"


def _interval(interval: Interval, percent: bool = False) -> str:
    low, high = (100 * end if percent else end for end in interval)
    digits = 1 if percent else 3
    return f"{low:.{digits}f}–{high:.{digits}f}" + ("\u202f%" if percent else "")


def _ms(value: float) -> str:
    """Milliseconds with as many digits as say something."""
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
