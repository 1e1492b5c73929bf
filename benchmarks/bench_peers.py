"""Image → verdict beside plain PatchCore in torch, with faiss, and with the bank inside an ONNX graph.

    python benchmarks/bench_peers.py --dim 1024 128 --threads 1 2 --turns 40 --json build/peers.json
    python benchmarks/bench_peers.py --anomalib ENVIRONMENT/bin/python ...   # with onceover and anomalib installed

The same network, bank and images for all (peer_networks.py). Every contender lives in a process of its own
(peer_process.py): a library that is loaded counts as memory and start-up of those who need it alone, and two copies of
OpenMP or of an engine do not share a pool. They take turns of 5 runs, A B C A B C …, each after an untimed one. Before
anything is timed, image scores must agree within 1e-3.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import features
import metric_peers
import peer_material
import peer_tables
import pytest
from bench_latency import product
from peer_client import Process, in_turn, started
from peer_process import CONTENDERS
from peer_tables import OURS
from reporting import Ledger, machine, wide_console
from rich.console import Console
from rich.progress import Progress
from suite.recording import Cell, Measured, Recorder

from onceover import _core
from onceover.measuring.comparing import TURN

TOLERANCE = 1e-3  # of image scores, relative
SOME = (  # `make bench`
    "onceover, ORT",
    "onceover, OV",
    "in graph, ORT",
    "in graph, OV",
    "bank in graph alone, ORT",
    "bank in graph alone, OV",
    "torch",
    "torch + faiss",
)
DATASETS = {"mt": "magnetic_tile", "pcb": "pcb"}
LIBRARIES = ("onnxruntime", "openvino", "torch", "faiss-cpu", "numpy", "pillow")


class Comparison:
    """One bank, and the contenders that can be compared on it."""

    def __init__(self, folder: Path, dim: int, ledger: Ledger, progress: Progress) -> None:
        self.folder, self.dim, self.ledger, self.progress = folder, dim, ledger, progress
        options = ledger.options
        data = features.SHARED / "data" / DATASETS[options.data]
        peer_material.build(folder, data, features.WEIGHTS, dim, options.bank_rows)
        absent = self._write_anomalib()
        self.names = [name for name in CONTENDERS if not (absent and name.startswith("anomalib"))]
        network = len(_core.Package.open(str(folder / "part.onceover")).read("graph.onnx"))
        size = (folder / "part.onceover").stat().st_size
        ledger.console.print(f"D = {dim}: package {size / 1e6:.1f} MB, of which the network {network / 1e6:.1f}")

    def _write_anomalib(self) -> bool:
        """True where it cannot be had, which is told."""
        command = [self.ledger.options.anomalib, str(Path(__file__).with_name("anomalib_peer.py")), str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            self.ledger.skip("anomalib", (done.stderr.strip().splitlines() or ["no message"])[-1])
        return done.returncode != 0

    def start(self, name: str, threads: int) -> Any:
        return started(name, self.folder, threads, self._python(name))

    def _python(self, name: str) -> str:
        return self.ledger.options.anomalib if name == "anomalib" else sys.executable

    def measure(self, threads: int) -> None:
        ledger, options = self.ledger, self.ledger.options
        label = f"{options.data}, {options.bank_rows:,} × {self.dim}, {threads} thread{'s' if threads > 1 else ''}"
        with ExitStack() as stack:
            processes = [stack.enter_context(self.start(name, threads)) for name in self.names]
            self._check(processes)
            runs, noise = in_turn(processes, options.turns, self.progress, label)
            ledger.table("times", f"{label}, {len(runs[OURS])} runs each; {noise}", peer_tables.times(runs))
            rows = peer_tables.memory(processes)
        ledger.table("memory", f"memory, {label}", rows)
        ledger.claims += peer_tables.claims(runs, rows, label, self.dim)

    def _check(self, processes: Sequence[Process]) -> None:
        rows = peer_tables.agreement(processes)
        self.ledger.table("agreement", "image scores, largest relative difference to ours", rows)
        wrong = [row["contender"] for row in rows if not row["same pixels"] <= TOLERANCE]
        if wrong:
            raise SystemExit(f"{', '.join(wrong)}: image scores differ by more than {TOLERANCE:g}; nothing is compared")

    def measure_starts(self, count: int) -> None:
        whole = [name for name in self.names if CONTENDERS[name].base]
        found = peer_tables.starts(whole, self.folder, count, lambda name: self.start(name, 1), self._python)
        label = f"cold start, median of {count}, {self.ledger.options.bank_rows:,} × {self.dim}, one thread"
        self.ledger.table("start", label, found)


def run(options: argparse.Namespace, console: Console) -> None:
    if not features.available():
        raise SystemExit(f"{features.SHARED}: the shared images and weights are not there; nothing to compare with")
    ledger = Ledger(options, console)
    ledger.machine = machine(LIBRARIES)
    console.print(ledger.machine)
    with Progress(console=console, transient=True, auto_refresh=False, disable=not console.is_terminal) as progress:
        for dim in options.dim:
            folder = Path(tempfile.mkdtemp(prefix="peers-", dir=options.folder))
            try:
                comparison = Comparison(folder, dim, ledger, progress)
                for threads in options.threads:
                    comparison.measure(threads)
                if options.starts:
                    comparison.measure_starts(options.starts)
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
    parser.add_argument("--starts", type=int, default=5, help="fresh processes of each contender; 0: none")
    parser.add_argument("--anomalib", default=sys.executable, metavar="PYTHON", help="of an environment that has it")
    parser.add_argument("--folder", type=Path, help="where files are written meanwhile; the system's temporary folder")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(arguments)


@pytest.mark.parametrize("dim", [1024, 128])
def bench_image_to_verdict_beside_peers(record: Recorder, dim: int) -> None:
    """A few turns of the contenders that the issue's questions are about; p99, memory and starts are the command's."""
    names = SOME if not record.short else ("onceover, ORT", "in graph, ORT", "bank in graph alone, ORT", "torch")
    if metric_peers.installed("faiss-cpu") is None:
        record.skip("torch + faiss", "faiss-cpu is not installed; `make bench` installs it")
        names = tuple(name for name in names if "faiss" not in name)
    if record.short:
        if dim != 128:
            pytest.skip("short: the bank of 128 values stands for it")
        rows, weights = 200, record.once("random.safetensors", peer_material.write_random_weights)
        data = product(record)
    elif features.available():
        rows, weights, data = 10_000, features.WEIGHTS, features.SHARED / "data" / DATASETS["mt"]
    else:
        pytest.skip(f"no shared images and weights in {features.SHARED}")
    folder = record.once(f"peers-{dim}", lambda path: peer_material.build(path, data, weights, dim, rows))
    console = wide_console()
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(console=console, disable=True))
        processes = [stack.enter_context(started(name, folder, 1)) for name in names]
        record.once(f"peers-{dim}-agree", lambda path: path.write_text(str(agreeing(processes))))
        runs, _ = in_turn(processes, 2 if dim == 128 and not record.short else 1, progress, str(dim))
    own = peer_tables.median(runs[OURS], "cpu")
    scoring = peer_tables.median(runs[OURS], "score")
    for name, each in runs.items():
        cpu, p50 = peer_tables.median(each, "cpu"), peer_tables.median(each, "wall")
        cells: dict[str, Cell] = {"CPU ms": Measured(cpu), "p50 ms": Measured(p50)}
        if name.startswith("bank"):
            cells["× our scoring"] = Measured(p50 / scoring)
        elif name != OURS:
            cells["× onceover, ORT"] = Measured(cpu / own)
        if "score" in each[0]:
            cells["of it scoring, ms"] = Measured(peer_tables.median(each, "score"))
        record.row(f"Image → verdict, a bank of {rows:,} × {dim}, one thread", name, cells)


def agreeing(processes: Sequence[Process]) -> float:
    """The largest relative difference of image scores to ours on the same pixels; nothing is timed beyond TOLERANCE."""
    worst = max(row["same pixels"] for row in peer_tables.agreement(processes))
    assert worst <= TOLERANCE
    return float(worst)


if __name__ == "__main__":
    run(parse(), wide_console())
