"""The side of bench_peers.py that talks to its contenders' processes, and what else the machine did meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peer_process import CONTENDERS
from rich.progress import Progress
from suite.disturbance import CpuTimes

from onceover.measuring.comparing import TURN

Runs = dict[str, list[dict[str, int]]]  # contender → ns of each run, as peer_process.py tells them


@dataclass(frozen=True)
class Process:
    """A contender that has started. start: what it says of that, and total_ms since before the process existed."""

    name: str
    process: subprocess.Popen[str]
    start: dict[str, float]

    def ask(self, what: Any) -> Any:
        """See peer_process.py."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return _answer(self.process, self.name)


def _answer(process: subprocess.Popen[str], name: str) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{name}: its process ended with status {process.wait()}; see its message above")
    return json.loads(line)


@contextmanager
def started(name: str, folder: Path, threads: int, python: str = sys.executable) -> Iterator[Process]:
    """python: of the environment in which the contender lives."""
    command = [python, str(Path(__file__).with_name("peer_process.py")), name, str(folder), str(threads)]
    count = str(threads)
    environment = {**os.environ, "OMP_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    for file in CONTENDERS[name].files:  # as after a reboot, where the system lets go of them
        with (folder / file).open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    begin = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        start = _answer(process, name)
        yield Process(name, process, {**start, "total_ms": 1e3 * (time.perf_counter() - begin)})
        assert process.stdin is not None
        process.stdin.close()


def in_turn(processes: Sequence[Process], turns: int, progress: Progress, label: str) -> tuple[Runs, str]:
    """A B C A B C …, TURN runs each, `turns` times; and in words whether the machine was quiet."""
    runs: Runs = {each.name: [] for each in processes}
    task = progress.add_task(label, total=turns * len(processes))
    before, load = CpuTimes.now(), os.getloadavg()[0]
    for _ in range(turns):
        for each in processes:
            runs[each.name] += each.ask(TURN)
            progress.advance(task)
            progress.refresh()
    own = sum(run["cpu"] for each in runs.values() for run in each) * (1 + 1 / TURN) / 1e9  # with the untimed ones
    noise = CpuTimes.now(own) - before
    progress.remove_task(task)
    return runs, f"{noise}, load {load:.1f} before"


__all__ = ["Process", "Runs", "in_turn", "started"]
