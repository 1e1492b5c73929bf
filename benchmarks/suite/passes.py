"""Runs benchmark files, each in a process of its own, pass after pass, and collects what they recorded."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from suite.disturbance import CpuTimes
from suite.recording import Recorded

FOLDER = Path(__file__).resolve().parents[1]
FOREIGN_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # set for another CPU, they slow peers down
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
LAST_LINES = 12


@dataclass(frozen=True)
class Benchmark:
    """name: of its block in README.md. once: its numbers do not differ from pass to pass."""

    name: str
    file: str
    once: bool = False


@dataclass
class Outcome:
    """Of one benchmark over all passes."""

    recorded: list[Recorded] = field(default_factory=list)
    noise: CpuTimes = field(default_factory=CpuTimes)
    seconds: float = 0.0
    failure: str | None = None

    @property
    def skipped(self) -> dict[str, list[str]]:
        """Why → what."""
        found: dict[str, list[str]] = {}
        for what, why in dict.fromkeys((what, why) for each in self.recorded for what, why in each["skipped"]):
            found.setdefault(why, []).append(what)
        return found


@dataclass(frozen=True)
class Settings:
    """folder: where output and logs go. kept: what passes share. timeout_s: of one process."""

    folder: Path
    kept: Path
    passes: int
    short: bool = False
    timeout_s: float = 900.0
    at_once: int = 1  # processes; more than one only where nothing is timed


OnProcess = Callable[[str, int, float, bool], None]  # benchmark, pass from 1, seconds, failed


def run_passes(benchmarks: Sequence[Benchmark], settings: Settings, on_process: OnProcess) -> dict[str, Outcome]:
    """Name → outcome. A benchmark that failed once is not run again; the others go on."""
    outcomes = {each.name: Outcome() for each in benchmarks}
    for each in benchmarks:
        _log(settings, each).unlink(missing_ok=True)

    def once(benchmark: Benchmark, number: int) -> None:
        outcome = outcomes[benchmark.name]
        if outcome.failure is not None or (benchmark.once and number > 1):
            return
        start = time.perf_counter()
        _run(benchmark, settings, outcome)
        seconds = time.perf_counter() - start
        outcome.seconds += seconds
        on_process(benchmark.name, number, seconds, outcome.failure is not None)

    for number in range(1, settings.passes + 1):
        with ThreadPoolExecutor(settings.at_once) as pool:
            list(pool.map(lambda each, number=number: once(each, number), benchmarks))
    return outcomes


def _log(settings: Settings, benchmark: Benchmark) -> Path:
    return settings.folder / f"{benchmark.name}.log"


def _run(benchmark: Benchmark, settings: Settings, outcome: Outcome) -> None:
    told = settings.kept / f"{benchmark.name}.json"
    told.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", str(FOLDER / benchmark.file)]
    command += ["--record", str(told), "--keep", str(settings.kept)]
    command += ["--short"] if settings.short else []
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN_VARIABLES}
    environment |= dict.fromkeys(THREAD_VARIABLES, "1")
    before = CpuTimes.now(_of_children())
    with _log(settings, benchmark).open("a") as log:
        try:
            code = subprocess.run(
                command, cwd=FOLDER.parent, env=environment, stdout=log, stderr=log, timeout=settings.timeout_s
            ).returncode
        except subprocess.TimeoutExpired:
            outcome.failure = f"took longer than {settings.timeout_s:.0f} s; {_log(settings, benchmark)}"
            return
    outcome.noise += CpuTimes.now(_of_children()) - before
    if code != 0 or not told.exists():
        lines = _log(settings, benchmark).read_text(errors="replace").splitlines()[-LAST_LINES:]
        outcome.failure = "\n".join([f"ended with status {code}; the last of {_log(settings, benchmark)}:", *lines])
        return
    outcome.recorded.append(json.loads(told.read_text(encoding="utf-8")))


def _of_children() -> float:
    """CPU seconds of all processes that were started here and ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


__all__ = ["Benchmark", "Outcome", "Settings", "run_passes"]
