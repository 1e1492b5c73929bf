"""How often the drift monitor is wrong, and how soon it is right: the tables of docs/monitoring.md, by simulation.

    python benchmarks/monitor_study.py [--runs 200] [--run-length 10000] [--json]

Scores, brightness and sharpness are independent standard normal values (the charts see ranks alone, so any continuous
distribution gives the same), calibration scores come from the same one, and 5 % of good parts are rejected. Changes
are in standard deviations of good parts. A delay is counted from the change, over the runs without an alarm before it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from onceover import _core

CHUNK = 512
FALSE_ALARM_RATE = 0.05
SIZES = (19, 50, 200, 1000)  # calibration parts
HISTORIES = (50, 300, 3000)  # parts before the change

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """What becomes of a line after `history` parts; t counts from there.

    correlation: of each value with the one before it (AR(1)), always.
    """

    history: int = 10**9
    score: Callable[[Values, Values], Values] = field(default=lambda score, t: score)
    brightness: Callable[[Values, Values], Values] = field(default=lambda value, t: value)
    sharpness: Callable[[Values, Values], Values] = field(default=lambda value, t: value)
    correlation: float = 0.0

    def parts(self, random: np.random.Generator) -> Iterator[tuple[float, float, float]]:
        """score, brightness, sharpness of one part after the other."""
        last, start = random.standard_normal(3), 0
        while True:
            noise = random.standard_normal((CHUNK, 3))
            if self.correlation:
                innovation = math.sqrt(1 - self.correlation**2)
                for i in range(CHUNK):
                    noise[i] = last = self.correlation * last + innovation * noise[i]
            t = np.arange(start, start + CHUNK, dtype=np.float64) - self.history
            changed = [
                np.where(t >= 0, change(noise[:, i], t), noise[:, i])
                for i, change in enumerate((self.score, self.brightness, self.sharpness))
            ]
            yield from zip(*(values.tolist() for values in changed), strict=True)
            start += CHUNK


def first_alarm(
    line: Line, calibration: int, run_length: float, most: int, seed: int, every: int = 1
) -> tuple[int, tuple[str, ...]]:
    """→ the part with which the first alarm begins, and its charts; (most, ()) when there is none until then.

    every: the monitor takes only each so-manyth part; all are counted.
    """
    random = np.random.default_rng(seed)
    rank = math.ceil((calibration + 1) * (1 - FALSE_ALARM_RATE))
    scores = np.sort(random.standard_normal(calibration))
    threshold = scores[rank - 1]
    monitor = _core.Monitor(
        package_id="",
        calibration_parts=calibration,
        accepted_cells=rank,
        run_length=run_length,
        batch=100,
        reject_rate=0.0,
    )
    for i, (score, brightness, sharpness) in enumerate(line.parts(random), 1):
        if i % every:
            continue
        p_value = float(calibration + 1 - scores.searchsorted(score)) / (calibration + 1)
        decision = "normal" if score <= threshold else "anomalous"
        alarms = monitor.update(decision, score, p_value, brightness, sharpness)
        if alarms:
            return i, tuple(alarms)
        if i >= most:
            break
    return most, ()


def shifted(by: float) -> Callable[[Values, Values], Values]:
    return lambda value, t: value + by


def spread(by: float) -> Callable[[Values, Values], Values]:
    return lambda value, t: value * by


def drifting(per_part: float) -> Callable[[Values, Values], Values]:
    return lambda value, t: value + per_part * t


def changes(history: int) -> dict[str, Line]:
    lines = {f"score +{by:g} sd": Line(history, score=shifted(by)) for by in (0.25, 0.5, 1, 2)}
    lines["score -1 sd"] = Line(history, score=shifted(-1))
    lines["score spread x 1.5"] = Line(history, score=spread(1.5))
    lines["score drifts 1 sd per 1000"] = Line(history, score=drifting(1e-3))
    for by in (0.5, 1, 2):
        lines[f"brightness -{by:g} sd"] = Line(history, brightness=shifted(-by))
    lines["brightness drifts 1 sd per 1000"] = Line(history, brightness=drifting(-1e-3))
    lines["sharpness -1 sd"] = Line(history, sharpness=shifted(-1))
    return lines


def false_alarms(line: Line, calibration: int, run_length: float, runs: int, every: int = 1) -> dict[str, object]:
    """Mean run length with its standard error, share of runs with an alarm within run_length parts, charts."""
    found = [
        first_alarm(line, calibration, run_length, int(40 * run_length), seed, every)
        for seed in track(range(runs), f"in control, n = {calibration}", transient=True)
    ]
    lengths = np.array([part for part, _ in found], np.float64)
    return {
        "calibration": calibration,
        "correlation": line.correlation,
        "every": every,
        "mean": float(lengths.mean()),
        "standard_error": float(lengths.std(ddof=1) / math.sqrt(runs)),
        "within_run_length": float((lengths <= run_length).mean()),
        "charts": dict(Counter(chart for _, charts in found for chart in charts).most_common()),
    }


def delays(name: str, line: Line, calibration: int, run_length: float, runs: int) -> dict[str, object]:
    """Median and 90 % quantile of the delay, in parts; 5000 stands for longer."""
    most = line.history + 5000
    found = [
        first_alarm(line, calibration, run_length, most, 10**6 + seed)
        for seed in track(range(runs), f"{name}, after {line.history}", transient=True)
    ]
    late = [(part - line.history, charts) for part, charts in found if part > line.history]
    lengths = np.array([length for length, _ in late], np.float64)
    return {
        "change": name,
        "history": line.history,
        "calibration": calibration,
        "median": float(np.median(lengths)),
        "q90": float(np.quantile(lengths, 0.9)),
        "found": float((lengths < 5000).mean()),
        "charts": dict(Counter(chart for _, charts in late for chart in charts).most_common(2)),
    }


def study(run_length: float, runs: int) -> dict[str, list[dict[str, object]]]:
    never = Line()
    return {
        "in_control": [false_alarms(never, n, run_length, runs) for n in SIZES],
        "autocorrelated": [
            false_alarms(Line(correlation=r), 200, run_length, runs, every)
            for r, every in ((0.1, 1), (0.3, 1), (0.6, 1), (0.1, 2), (0.3, 3), (0.6, 6))
        ],
        "delays": [
            delays(name, line, 200, run_length, runs)
            for history in HISTORIES
            for name, line in changes(history).items()
        ],
        "other_than_calibration": [
            delays(f"score +{by:g} sd", Line(0, score=shifted(by)), n, run_length, runs)
            for by in (0.5, 1)
            for n in SIZES
        ],
    }


def show(title: str, rows: list[dict[str, object]]) -> None:
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=150).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--run-length", type=float, default=10000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    began = time.perf_counter()
    result = study(options.run_length, options.runs)
    if options.json:
        print(json.dumps(result, indent=1))
        return
    for title, rows in result.items():
        show(title, rows)
    print(f"{options.runs} runs each, seconds: {time.perf_counter() - began:.0f}")


if __name__ == "__main__":
    main()
