"""A log through a monitor: every chart after every part, for tables and pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onceover.errors import InputError
from onceover.monitoring.log import PackageLog
from onceover.monitoring.monitor import ChartState, DriftMonitor

Progress = Callable[[str, int, int], None]
_REPORT_EVERY = 1000  # parts


@dataclass(frozen=True)
class ChartHistory:
    """value, lower, upper: float64 (parts,), NaN where there is none; state: after the last part."""

    state: ChartState
    value: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]


@dataclass(frozen=True)
class DriftHistory:
    """first: the number in the log of the first part that was taken, from 1; alarm parts count from it, too."""

    package: PackageLog
    average_run_length: float
    first: int
    charts: tuple[ChartHistory, ...]

    @property
    def in_control(self) -> bool:
        return all(chart.state.alarm_part is None for chart in self.charts)


def replay(log: PackageLog, monitor: DriftMonitor, first: int = 1, progress: Progress | None = None) -> DriftHistory:
    """Take the parts of a log from number `first` on, with a new monitor. Raises InputError for parts that cannot be of
    this package, with their number."""
    parts = log.parts[first - 1 :]
    names = [chart.name for chart in monitor.charts]
    traces = np.full((len(names), 3, len(parts)), np.nan)
    for i, part in enumerate(parts):
        try:
            monitor.update_measured(part.decision, part.score, part.p_value, part.brightness, part.sharpness)
        except InputError as error:
            raise InputError(f"part {first + i} of package {log.id[:16]} ({part.image}): {error}") from error
        for trace, chart in zip(traces, monitor.charts, strict=True):
            for row, value in zip(trace, (chart.value, chart.lower, chart.upper), strict=True):
                if value is not None:
                    row[i] = value
        if progress is not None and ((i + 1) % _REPORT_EVERY == 0 or i + 1 == len(parts)):
            progress("monitoring", i + 1, len(parts))
    charts = tuple(ChartHistory(state, *trace) for state, trace in zip(monitor.charts, traces, strict=True))
    return DriftHistory(log, monitor.average_run_length, first, charts)


__all__ = ["ChartHistory", "DriftHistory", "replay"]
