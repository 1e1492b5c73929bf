"""A log through a monitor: every chart after every part, for tables and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onceover.errors import InputError, UsageError
from onceover.monitoring.log import LoggedPart, PackageLog
from onceover.monitoring.monitor import ChartState, DriftMonitor

Progress = Callable[[str, int, int], None]
_REPORT_EVERY = 1000  # parts
_HARMLESS = 0.1  # a correlation that halves the average run length (docs/monitoring.md)


@dataclass(frozen=True)
class ChartHistory:
    """value, lower, upper: float64 (parts,), NaN where there is none; state: after the last part."""

    state: ChartState
    value: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]


@dataclass(frozen=True)
class DriftHistory:
    """The parts first, first + every, … of a log, counted from 1, and what each chart said of them.

    correlations: of successive values ("score", "brightness", "sharpness"), where they are too large for the stated
    run length to hold; of the parts before an alarm, since a change correlates values, too.
    """

    package: PackageLog
    average_run_length: float
    first: int
    every: int
    charts: tuple[ChartHistory, ...]
    correlations: dict[str, float]

    @property
    def in_control(self) -> bool:
        return all(chart.state.alarm_part is None for chart in self.charts)

    @property
    def parts(self) -> int:
        """How many were taken."""
        return len(self.charts[0].value)

    def alarm_part(self, chart: ChartHistory) -> int | None:
        """The number in the log of the part with which the chart's alarm began."""
        at = chart.state.alarm_part
        return None if at is None else self.first + (at - 1) * self.every


def replay(
    log: PackageLog, monitor: DriftMonitor, first: int = 1, every: int = 1, progress: Progress | None = None
) -> DriftHistory:
    """Take every `every`-th part of a log from number `first` on, with a new monitor.

    Raises UsageError for numbers that the log does not have, InputError for a part that cannot be of this package.
    """
    if not (1 <= first <= len(log.parts) and every >= 1):
        raise UsageError(
            f"first part {first}, every {every}; package {log.id[:16]} has the parts 1 to {len(log.parts)} in this log"
        )
    parts = log.parts[first - 1 :: every]
    traces = np.full((len(monitor.charts), 3, len(parts)), np.nan)
    for i, part in enumerate(parts):
        try:
            monitor.update_measured(part.decision, part.score, part.p_value, part.brightness, part.sharpness)
        except InputError as error:
            where = f"part {first + i * every} of package {log.id[:16]} ({part.image})"
            raise InputError(f"{where}: {error}") from error
        for trace, chart in zip(traces, monitor.charts, strict=True):
            for row, value in zip(trace, (chart.value, chart.lower, chart.upper), strict=True):
                if value is not None:
                    row[i] = value
        if progress is not None and ((i + 1) % _REPORT_EVERY == 0 or i + 1 == len(parts)):
            progress("monitoring", i + 1, len(parts))
    charts = tuple(ChartHistory(state, *trace) for state, trace in zip(monitor.charts, traces, strict=True))
    return DriftHistory(log, monitor.average_run_length, first, every, charts, _correlations(parts, charts))


def _correlations(parts: Sequence[LoggedPart], charts: Sequence[ChartHistory]) -> dict[str, float]:
    alarms = {chart.state.name: chart.state.alarm_part for chart in charts}

    def quiet(*names: str) -> Sequence[LoggedPart]:
        return parts[: min((alarm for name in names if (alarm := alarms[name]) is not None), default=len(parts))]

    accepted = [
        part.score
        for part in quiet("score_ewma", "score_cusum", "p_values")
        if part.decision in ("normal", "uncalibrated")
    ]
    measured = {
        "score": accepted,
        "brightness": [part.brightness for part in quiet("brightness") if part.brightness is not None],
        "sharpness": [part.sharpness for part in quiet("sharpness") if part.sharpness is not None],
    }
    found = {name: serial_correlation(np.asarray(values, np.float64)) for name, values in measured.items()}
    return {
        name: value
        for name, value in found.items()
        if value > max(_HARMLESS, 3 / math.sqrt(max(1, len(measured[name]))))  # beyond what chance gives
    }


def serial_correlation(values: NDArray[np.float64]) -> float:
    """Spearman's rank correlation of each value with the next, (n,) → −1 … 1; 0 where it is not defined."""
    if len(values) < 3:
        return 0.0
    order = np.argsort(values, kind="stable")
    ranks = np.empty(len(values))
    ranks[order] = np.arange(len(values))
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.bincount(inverse, ranks) / counts)[inverse]  # ties share the mean of their ranks
    before, after = ranks[:-1] - ranks[:-1].mean(), ranks[1:] - ranks[1:].mean()
    scale = math.sqrt(float(before @ before) * float(after @ after))
    return float(before @ after) / scale if scale > 0 else 0.0


def independent_step(correlation: float) -> int:
    """Every how many parts values hardly correlate: the smallest k with correlation^k ≤ 0.05, as in AR(1)."""
    return max(1, math.ceil(math.log(0.05) / math.log(min(max(correlation, 1e-9), 0.999))))


__all__ = ["ChartHistory", "DriftHistory", "independent_step", "replay", "serial_correlation"]
