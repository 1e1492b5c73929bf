"""A benchmark as one HTML file: histograms of the warm runs and every table. Draws what it is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onceover.report.html import page_template
from onceover.report.plots import latency_histogram


@dataclass(frozen=True)
class LatencyTable:
    """columns ending in a space hold numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class LatencyHistogram:
    """Of one case. milliseconds: float (n,), of its warm runs. marks: (name, ms), such as the median."""

    title: str
    milliseconds: NDArray[np.float64] = field(repr=False)
    marks: Sequence[tuple[str, float]]


@dataclass(frozen=True)
class LatencyPage:
    """noise: why these are not the machine's own times; empty for a quiet machine."""

    title: str
    machine: str
    noise: Sequence[str]
    histograms: Sequence[LatencyHistogram]
    tables: Sequence[LatencyTable]


def render_latency(page: LatencyPage) -> str:
    """The whole file. MissingExtraError without jinja2 or matplotlib."""
    plots = [
        (each.title, len(each.milliseconds), latency_histogram(each.milliseconds, each.marks, f"case{i}"))
        for i, each in enumerate(page.histograms)
    ]
    text: str = page_template("latency.html.jinja").render(page=page, plots=plots)
    return text


__all__ = ["LatencyHistogram", "LatencyPage", "LatencyTable", "render_latency"]
