"""The limits of the drift monitor: solved a second way, and simulated with bounds of exact probability.

The tables of csrc/monitor/limits.cpp come from an integral equation (benchmarks/monitor_limits.py); here the same run
lengths come from a Markov chain on a grid (Brook and Evans 1972), which shares no code with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from onceover import _core

CHARTS = 6
WEIGHT, ALLOWANCE = 0.05, 0.5
STATES = 401  # of the grid: the chains' own error is below 1 % at it, as halving it shows


def monitor(run_length: float, batch: int = 10) -> _core.Monitor:
    return _core.Monitor(
        package_id="", calibration_parts=19, accepted_cells=19, run_length=run_length, batch=batch, reject_rate=0.0
    )


def chain_length(step: Callable[[NDArray[np.float64]], NDArray[np.float64]], start: int, states: int) -> float:
    """Mean steps until a chain leaves its states: (I − Q) L = 1; step: from each state, probabilities of all."""
    rows = step(np.arange(states))
    return float(np.linalg.solve(np.eye(states) - rows, np.ones(states))[start])


def ewma_length(limit: float) -> float:
    width = 2 * limit / STATES
    centers = -limit + width * (np.arange(STATES) + 0.5)

    def step(states: NDArray[np.float64]) -> NDArray[np.float64]:
        kept = (1 - WEIGHT) * centers[:, None]
        upper, lower = centers[None, :] + width / 2 - kept, centers[None, :] - width / 2 - kept
        return np.asarray(stats.norm.cdf(upper / WEIGHT) - stats.norm.cdf(lower / WEIGHT))

    return chain_length(step, STATES // 2, STATES)


def cusum_length(limit: float) -> float:
    width = 2 * limit / (2 * STATES - 1)  # Brook and Evans: half a step around zero
    centers = width * np.arange(STATES)

    def step(states: NDArray[np.float64]) -> NDArray[np.float64]:
        upper = centers[None, :] + width / 2 - centers[:, None] + ALLOWANCE
        rows = stats.norm.cdf(upper)
        rows[:, 1:] -= stats.norm.cdf(upper[:, :-1])
        return np.asarray(rows)

    return chain_length(step, 0, STATES) / 2  # either side alarms


@pytest.mark.parametrize("run_length", [100, 333, 10_000, 43_210, 200_000])
def test_limits_have_the_run_length_they_state(run_length: float) -> None:
    states = monitor(run_length).states()
    wanted = CHARTS * run_length
    for chart in ("score_ewma", "brightness", "sharpness"):
        assert ewma_length(states[chart][4]) == pytest.approx(wanted, rel=0.02)
    assert cusum_length(states["score_cusum"][4]) == pytest.approx(wanted, rel=0.02)
    assert states["p_values"][4] == wanted  # R ≥ c takes c parts or more: a theorem, not a table
    assert [states[chart][3] for chart in ("score_ewma", "score_cusum")] == [
        -states["score_ewma"][4],
        -states["score_cusum"][4],
    ]


def first_alarm(random: np.random.Generator, calibration: int, run_length: float, most: int) -> int:
    """Parts until the first alarm of any chart on a line in control, most + 1 when there is none until then."""
    rank = math.ceil((calibration + 1) * 0.95)
    scores = np.sort(random.standard_normal(calibration))
    core = _core.Monitor(
        package_id="",
        calibration_parts=calibration,
        accepted_cells=rank,
        run_length=run_length,
        batch=50,
        reject_rate=0.0,
    )
    values = np.exp(random.standard_normal((most, 3)))  # log-normal: the charts see ranks alone
    for part, (score, brightness, sharpness) in enumerate(values.tolist(), 1):
        p_value = float(calibration + 1 - np.exp(scores).searchsorted(score)) / (calibration + 1)
        decision = "normal" if p_value > 1 - rank / (calibration + 1) else "anomalous"
        if core.update(decision, score, p_value, brightness, sharpness):
            return part
    return most + 1


@pytest.mark.parametrize("calibration", [19, 50, 200])
def test_false_alarms_are_as_rare_as_stated_for_any_number_of_calibration_parts(calibration: int) -> None:
    """Of lines with one false alarm in 300 parts at most exp(−1) of lines live past 300, and one that is never wrong at
    all would be blind. Bounds that a right monitor passes with probability 1 − 1e-6, and the same numbers each time."""
    runs, run_length = 150, 300
    random = np.random.default_rng(calibration)
    found = np.array([first_alarm(random, calibration, run_length, 4 * run_length) for _ in range(runs)])
    quiet, silent = int((found > run_length).sum()), int((found > 4 * run_length).sum())
    assert quiet >= stats.binom.ppf(1e-6, runs, math.exp(-1))
    assert silent <= stats.binom.ppf(1 - 1e-6, runs, math.exp(-4 / 2))  # not rarer than half as often


def test_few_calibration_parts_make_no_false_alarm_of_p_values_that_only_differ_by_chance() -> None:
    """19 calibration scores say little of a distribution: p-values of the same line look uneven for ever. The chart
    learns from the line, and stays silent: R ≥ c within t parts has probability t / c at most (Doob), here
    2000 / 600000."""
    random = np.random.default_rng(1)
    alarms = 0
    for _ in range(20):
        scores = np.sort(random.standard_normal(19))
        core = monitor(100_000)
        for score in random.standard_normal(2000).tolist():
            if score <= scores[-1]:
                p_value = float(20 - scores.searchsorted(score)) / 20
                alarms += "p_values" in core.update("normal", score, p_value)
    assert alarms <= stats.binom.ppf(1 - 1e-6, 20, 2000 / 600_000)
