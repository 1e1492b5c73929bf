"""Image → verdict beside plain PatchCore in torch, with faiss, and with the bank inside an ONNX graph.

The same network, bank and images for all.

    python benchmarks/bench_peers.py --dim 1024 128 --threads 1 2 --turns 40 --json build/peers.json

Every contender lives in a process of its own (peer_process.py): a library that is loaded counts as memory and start-up
of those who need it alone, and two copies of OpenMP or of an engine do not share a pool. They take turns of 5 runs,
A B C A B C …, each after an untimed one. Before anything is timed, all image scores must agree within 1e-3.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import features
import numpy as np
import peer_material
import pytest
from install_size import install_bytes
from peer_process import CONTENDERS
from reporting import Claim, Ledger, machine, wide_console
from rich.console import Console
from rich.progress import Progress

from onceover import _core
from onceover.measuring.comparing import TURN, ratio_of

TOLERANCE = 1e-3  # of image scores, relative
OURS = "onceover, ORT"
BANK, BACKBONE = "bank in graph alone", "backbone"
STARTS = 5
DATASETS = {"mt": "magnetic_tile", "pcb": "pcb"}

# whose memory is that of the same stack with the network alone
BASES = {
    "onceover, ORT": "backbone, onceover ORT",
    "onceover, OpenVINO": "backbone, onceover OpenVINO",
    "torch": "backbone, torch",
    "torch + faiss": "backbone, torch",
    "in graph, ORT": "backbone, ORT",
    "in graph, OpenVINO": "backbone, OpenVINO",
    "our plain ONNX, ORT": "backbone, ORT",
    "our plain ONNX, OpenVINO": "backbone, OpenVINO",
}

# what a user installs for each
NEEDS = {
    "onceover, ORT": ("onceover",),
    "onceover, OpenVINO": ("onceover", "openvino"),
    "torch": ("torch", "numpy", "pillow"),
    "torch + faiss": ("torch", "numpy", "pillow", "faiss-cpu"),
    "in graph, ORT": ("onnxruntime", "numpy", "pillow"),
    "in graph, OpenVINO": ("openvino", "numpy", "pillow"),
    "our plain ONNX, ORT": ("onnxruntime", "numpy", "pillow"),
    "our plain ONNX, OpenVINO": ("openvino", "numpy", "pillow"),
}


@dataclass(frozen=True)
class Process:
    """A contender that has started: start is what it says of that, with total_ms since before the process existed."""

    name: str
    process: subprocess.Popen[str]
    start: dict[str, float]

    def ask(self, what: Any) -> Any:
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
def started(name: str, folder: Path, threads: int) -> Iterator[Process]:
    command = [sys.executable, str(Path(__file__).with_name("peer_process.py")), name, str(folder), str(threads)]
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


def agree(processes: Sequence[Process], ledger: Ledger) -> None:
    """SystemExit unless all whole contenders score alike; what Pillow's resize changes is only told."""
    whole = [each for each in processes if each.name in BASES]
    rows = []
    small = {each.name: np.array(each.ask("small")) for each in whole}
    images = {each.name: np.array(each.ask("images")) for each in whole}
    for name in small:
        off = {
            what: float(np.abs(scores[name] / scores[OURS] - 1).max())
            for what, scores in (("same pixels", small), ("own resize", images))
        }
        rows.append({"contender": name, **off})
    ledger.table("agreement", "image scores, largest relative difference to ours", rows)
    wrong = [row["contender"] for row in rows if not row["same pixels"] <= TOLERANCE]
    if wrong:
        raise SystemExit(f"{', '.join(wrong)}: image scores differ by more than {TOLERANCE:g}; nothing is compared")


def in_turn(processes: Sequence[Process], turns: int, progress: Progress, task: Any) -> dict[str, list[dict[str, int]]]:
    """A B C A B C …: ns of each run, TURN after TURN."""
    runs: dict[str, list[dict[str, int]]] = {each.name: [] for each in processes}
    for _ in range(turns):
        for each in processes:
            runs[each.name] += each.ask(TURN)
            progress.advance(task)
            progress.refresh()
    return runs


def column(runs: list[dict[str, int]], what: str) -> Any:
    """(n,) ns; NaN where the contender cannot tell."""
    return np.array([run.get(what, np.nan) for run in runs], np.float64)


def times(runs: dict[str, list[dict[str, int]]]) -> list[dict[str, Any]]:
    """p50 and p99 in ms, the ratios of both to ours with 95 % intervals, stages and CPU in the median."""
    ours = column(runs[OURS], "wall")
    rows = []
    for name, each in runs.items():
        wall = column(each, "wall")
        p50, p99 = np.percentile(wall, [50, 99]) / 1e6
        row: dict[str, Any] = {"contender": name, "p50 ms": float(p50), "p99 ms": float(p99)}
        ratio = ratio_of(ours.astype(np.uint64), wall.astype(np.uint64))
        for part in ("p50", "p99"):
            found, interval = ratio[part]["ratio"], ratio[part]["interval"]
            text = f"{found:.3g}" if interval is None else f"{found:.3g} ({interval[0]:.3g}–{interval[1]:.3g})"
            row[f"× {part}"] = "" if name == OURS or name.startswith((BANK, BACKBONE)) else text
        row["CPU ms"] = float(np.median(column(each, "cpu")) / 1e6)
        for stage in ("prepare", "engine", "score", "map"):
            row[stage] = None if stage not in each[0] else float(np.median(column(each, stage)) / 1e6)
        rows.append(row)
    return rows


def claims(runs: dict[str, list[dict[str, int]]], data: str, dim: int) -> list[Claim]:
    """What was asked for at a bank of 10,000 × 1024; elsewhere the same numbers without a target."""
    asked = dim == 1024
    found = []
    score = float(np.median(column(runs[OURS], "score")))
    whole = float(np.median(column(runs[OURS], "wall")))
    for engine in ("ORT", "OpenVINO"):
        bank = float(np.median(column(runs[f"{BANK}, {engine}"], "wall")))
        graph = float(np.median(column(runs[f"in graph, {engine}"], "wall")))
        target = 30.0 if asked else None
        found.append(
            Claim(f"our scoring, times faster than the bank in the graph, {engine}", data, bank / score, "×", target)
        )
        found.append(
            Claim(
                f"image → verdict, times faster than with it, {engine}",
                data,
                graph / whole,
                "×",
                5.0 if asked else None,
            )
        )
    for name in (OURS, "onceover, OpenVINO"):
        stages = {
            stage: float(np.median(column(runs[name], stage))) / 1e6 for stage in ("prepare", "engine", "score", "map")
        }
        own = stages["prepare"] + stages["score"] + stages["map"]
        if stages["engine"] >= 25:
            found.append(
                Claim(
                    f"{name}: prepare, score and map of the engine", data, 100 * own / stages["engine"], "%", 15, False
                )
            )
        else:
            found.append(Claim(f"{name}: prepare, score and map", data, own, "ms", 4, False))
    return found


def memory(processes: Sequence[Process]) -> list[dict[str, Any]]:
    """RssAnon after all runs, above the same stack with the network alone; MB."""
    told = {each.name: each.ask("memory") for each in processes}
    rows = []
    for name, base in BASES.items():
        if name not in told:
            continue
        anon, file = (told[name][what] / 1e6 for what in ("RssAnon", "RssFile"))
        rows.append(
            {
                "contender": name,
                "RssAnon MB": anon,
                "above the network alone": anon - told[base]["RssAnon"] / 1e6,
                "file-backed MB": file,
                "above the network's": file - told[base]["RssFile"] / 1e6,
                "peak MB": told[name]["VmHWM"] / 1e6,
            }
        )
    return rows


def starts(folder: Path, count: int) -> list[dict[str, Any]]:
    """Fresh processes, one thread: medians of what they say, and what they read from disk and need installed."""
    rows = []
    for name in BASES:
        found = []
        for _ in range(count):
            with started(name, folder, 1) as process:
                found.append(process.start)
        row: dict[str, Any] = {"contender": name}
        for step in ("import", "open", "first_run", "total"):
            row[f"{step.replace('_', ' ')} ms"] = float(np.median([start[f"{step}_ms"] for start in found]))
        row["files MB"] = sum((folder / file).stat().st_size for file in CONTENDERS[name].files) / 1e6
        row["installed MB"] = install_bytes(NEEDS[name]) / 1e6
        rows.append(row)
    return rows


def quiet(before: tuple[float, float, float], after: tuple[float, float, float], own_s: float) -> str:
    """What else the machine did between two readings of /proc/stat, and whether that is little."""
    total, busy, stolen = (b - a for a, b in zip(before, after, strict=True))
    others, taken = max(0.0, busy - own_s) / total, stolen / total
    word = "quiet" if others <= 0.05 and taken <= 0.01 else "NOISY"
    return f"{word}: {100 * others:.0f} % of the machine's CPU time by others, {100 * taken:.1f} % taken by its host"


def cpu_times() -> tuple[float, float, float]:
    """Seconds since boot over all CPUs: all, busy, stolen."""
    ticks = [
        int(word) / os.sysconf("SC_CLK_TCK") for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]
    ]
    return sum(ticks), sum(ticks) - ticks[3] - ticks[4] - ticks[7], ticks[7]


def compare(folder: Path, dim: int, threads: int, ledger: Ledger, progress: Progress) -> None:
    options = ledger.options
    label = f"{options.data}, {options.bank_rows:,} × {dim}, {threads} thread{'s' if threads > 1 else ''}"
    with ExitStack() as stack:
        processes = [stack.enter_context(started(name, folder, threads)) for name in CONTENDERS]
        agree(processes, ledger)
        task = progress.add_task(label, total=options.turns * len(processes))
        before = cpu_times()
        runs = in_turn(processes, options.turns, progress, task)
        own = sum(run["cpu"] for each in runs.values() for run in each) * (1 + 1 / TURN) / 1e9  # with the untimed ones
        noise = quiet(before, cpu_times(), own)
        progress.remove_task(task)
        ledger.table("times", f"{label}, {len(runs[OURS])} runs each; {noise}", times(runs))
        found = memory(processes)
    ledger.table("memory", f"memory, {label}", found)
    if threads == 1:
        ledger.claims += claims(runs, label, dim)
        above = {row["contender"]: max(row["above the network alone"], 0.1) for row in found}  # 0.1 MB is noise
        for engine in ("ORT", "OpenVINO"):
            ratio = above[f"in graph, {engine}"] / above[f"onceover, {engine}"]
            target = 5.0 if dim == 1024 else None
            ledger.claims.append(
                Claim(f"bank memory (RssAnon), times less than in the graph, {engine}", label, ratio, "×", target)
            )


def anomalib(ledger: Ledger) -> None:
    """Skipped visibly: as installed from PyPI it does not load beside torch for CPUs."""
    code = "from anomalib.models.image.patchcore.torch_model import PatchcoreModel"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = (done.stderr.strip().splitlines() or ["it loads, but nothing here was written for it"])[-1]
    ledger.skip("anomalib", last)


def run(options: argparse.Namespace, console: Console) -> None:
    if not features.available():
        raise SystemExit(f"{features.SHARED}: the shared images and weights are not there; nothing to compare with")
    ledger = Ledger(options, console)
    ledger.machine = machine(("onnxruntime", "openvino", "torch", "faiss-cpu", "numpy", "pillow"))
    console.print(ledger.machine)
    anomalib(ledger)
    with Progress(console=console, transient=True, auto_refresh=False, disable=not console.is_terminal) as progress:
        for dim in options.dim:
            folder = Path(tempfile.mkdtemp(prefix="peers-", dir=options.folder))
            try:
                data = features.SHARED / "data" / DATASETS[options.data]
                peer_material.build(folder, data, features.WEIGHTS, dim, options.bank_rows)
                core = _core.Package.open(str(folder / "part.onceover"))
                size = len(core.read("graph.onnx")) / 1e6
                console.print(
                    f"package: network {size:.1f} MB, all {(folder / 'part.onceover').stat().st_size / 1e6:.1f}"
                )
                for threads in options.threads:
                    compare(folder, dim, threads, ledger, progress)
                if options.starts:
                    label = f"cold start, median of {options.starts}, {options.bank_rows:,} × {dim}"
                    ledger.table("start", label, starts(folder, options.starts))
            finally:
                shutil.rmtree(folder)
    ledger.conclude()


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=DATASETS, default="mt", help="the shared data set")
    parser.add_argument("--dim", type=int, nargs="+", choices=(128, 1024), default=[1024, 128])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--bank-rows", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=40, help=f"of {TURN} runs each")
    parser.add_argument("--starts", type=int, default=STARTS, help="fresh processes of each contender")
    parser.add_argument("--folder", type=Path, help="where files are written; a temporary folder")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(arguments)


@pytest.mark.skipif(not features.available(), reason="the shared images and weights are not beside the repository")
def bench_image_to_verdict_beside_peers() -> None:
    """Short: that everything runs and agrees; for numbers run this file."""
    run(
        parse(["--dim", "128", "--threads", "1", "--bank-rows", "1000", "--turns", "2", "--starts", "1"]),
        wide_console(),
    )


if __name__ == "__main__":
    run(parse(), wide_console())
