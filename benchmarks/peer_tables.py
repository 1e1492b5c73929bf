"""The tables and claims of bench_peers.py: from nanoseconds and bytes to what stands beside what."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peer_client import Process, Runs
from peer_process import CONTENDERS
from reporting import Claim

from onceover import _core
from onceover.measuring.comparing import ratio_of

OURS = "onceover, ORT"
ENGINES = ("ORT", "OV")
STAGES = ("prepare", "engine", "score", "map")
ASKED_DIM = 1024  # where targets were set, with 10,000 rows
SCORING_FASTER, WHOLE_FASTER, LESS_MEMORY = 30.0, 5.0, 5.0
OWN_MS, OWN_PERCENT, SLOW_ENGINE_MS = 4.0, 15.0, 25.0  # on a machine with AMX
LEAST_MB = 0.5  # memory differences below it are noise


def agreement(processes: Sequence[Process]) -> list[dict[str, Any]]:
    """Image scores, the largest relative difference to ours: on the same pixels, and where each resizes for itself."""
    whole = [each for each in processes if CONTENDERS[each.name].base]
    rows: list[dict[str, Any]] = [{"contender": each.name} for each in whole]
    for label, images in (("same pixels", "small"), ("own resize", "images")):
        scores = {each.name: np.array(each.ask(images)) for each in whole}
        for row in rows:
            row[label] = float(np.abs(scores[row["contender"]] / scores[OURS] - 1).max())
    return rows


def column(runs: Sequence[dict[str, int]], what: str) -> NDArray[np.float64]:
    """(n,) ms; NaN where the contender cannot tell."""
    return np.array([run.get(what, np.nan) for run in runs], np.float64) / 1e6


def median(runs: Sequence[dict[str, int]], what: str) -> float:
    """ms."""
    return float(np.median(column(runs, what)))


def times(runs: Runs) -> list[dict[str, Any]]:
    """p50 and p99 in ms, the ratios of both to ours with 95 % intervals, CPU and stages in the median."""
    rows = []
    ours = np.array([run["wall"] for run in runs[OURS]], np.uint64)
    for name, each in runs.items():
        p50, p99 = np.percentile(column(each, "wall"), [50, 99])
        row: dict[str, Any] = {"contender": name, "p50 ms": round(float(p50), 2), "p99 ms": round(float(p99), 1)}
        ratio = ratio_of(ours, np.array([run["wall"] for run in each], np.uint64))
        for part in ("p50", "p99"):
            compared = CONTENDERS[name].base and name != OURS
            row[f"× {part}"] = _with_interval(ratio[part]) if compared else ""
        row["CPU ms"] = round(median(each, "cpu"), 1)
        for stage in STAGES:
            row[stage] = round(median(each, stage), 2) if stage in each[0] else None
        rows.append(row)
    return rows


def _with_interval(found: dict[str, Any]) -> str:
    interval = found["interval"]
    return f"{found['ratio']:.3g}" + ("" if interval is None else f" ({interval[0]:.3g}–{interval[1]:.3g})")


def memory(processes: Sequence[Process]) -> list[dict[str, Any]]:
    """After all runs, beside the same stack with the network alone; MB. Anonymous memory is the process's own, pages of
    files are shared and may be let go of."""
    told = {each.name: {key: value / 1e6 for key, value in each.ask("memory").items()} for each in processes}
    rows = []
    for name, found in told.items():
        if not CONTENDERS[name].base:
            continue
        base = told[CONTENDERS[name].base]
        rows.append(
            {
                "contender": name,
                "anonymous MB": round(found["RssAnon"], 1),
                "above its network": round(found["RssAnon"] - base["RssAnon"], 1),
                "of files MB": round(found["RssFile"], 1),
                "above its network's": round(found["RssFile"] - base["RssFile"], 1),
                "peak MB": round(found["VmHWM"], 1),
            }
        )
    return rows


def starts(
    names: Sequence[str],
    folder: Path,
    count: int,
    start: Callable[[str], AbstractContextManager[Process]],
    python_of: Callable[[str], str],
) -> list[dict[str, Any]]:
    """Fresh processes, medians of what they say; what they read from disk and what must be installed."""
    rows = []
    for name in names:
        found = []
        for _ in range(count):
            with start(name) as process:
                found.append(process.start)
        row: dict[str, Any] = {"contender": name}
        for step in ("import", "open", "first_run", "total"):
            row[f"{step.replace('_', ' ')} ms"] = float(np.median([times[f"{step}_ms"] for times in found]))
        row["files MB"] = sum((folder / file).stat().st_size for file in CONTENDERS[name].files) / 1e6
        row["installed MB"] = _installed_mb(python_of(name), CONTENDERS[name].needs)
        rows.append(row)
    return rows


def _installed_mb(python: str, needs: Sequence[str]) -> float:
    command = [python, str(Path(__file__).with_name("install_size.py")), *needs]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout) / 1e6


def claims(runs: Runs, memory_rows: Sequence[dict[str, Any]], data: str, dim: int) -> list[Claim]:
    """What was asked for at a bank of 10,000 × 1024; elsewhere the same numbers without a target."""
    asked = dim == ASKED_DIM
    above = {row["contender"]: max(row["above its network"], LEAST_MB) for row in memory_rows}
    found = []

    def claim(what: str, measured: float, target: float) -> None:
        found.append(Claim(what, data, measured, "×", target if asked else None))

    for engine in ENGINES:
        bank = median(runs[f"bank in graph alone, {engine}"], "wall")
        claim(
            f"our scoring faster than the bank in the graph, {engine}",
            bank / median(runs[OURS], "score"),
            SCORING_FASTER,
        )
        for graph in ("in graph", "anomalib's export"):
            name, ours = f"{graph}, {engine}", f"onceover, {engine}"
            if name in runs:
                ratio = median(runs[name], "wall") / median(runs[ours], "wall")
                claim(f"image → verdict faster than {name}", ratio, WHOLE_FASTER)
                claim(f"less memory for the bank than {name}", above[name] / above[ours], LESS_MEMORY)
    for engine in ENGINES:
        ours, amx = f"onceover, {engine}", _core.isa() == "amx"
        own, network = (
            sum(median(runs[ours], stage) for stage in STAGES if stage != "engine"),
            median(runs[ours], "engine"),
        )
        what = f"{ours}: prepare, score and map"
        if network >= SLOW_ENGINE_MS:
            found.append(
                Claim(f"{what}, of the engine", data, 100 * own / network, "%", OWN_PERCENT if amx else None, False)
            )
        else:
            found.append(Claim(what, data, own, "ms", OWN_MS if amx else None, False))
    return found


__all__ = ["OURS", "agreement", "claims", "memory", "starts", "times"]
