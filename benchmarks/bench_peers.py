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
import peer_material
import peer_tables
import pytest
from peer_client import Process, in_turn, started
from peer_process import CONTENDERS
from peer_tables import OURS
from reporting import Ledger, machine, wide_console
from rich.console import Console
from rich.progress import Progress

from onceover import _core
from onceover.measuring.comparing import TURN

TOLERANCE = 1e-3  # of image scores, relative
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


@pytest.mark.skipif(not features.available(), reason="the shared images and weights are not beside the repository")
def bench_image_to_verdict_beside_peers() -> None:
    """Short: that everything runs and agrees; for numbers run this file."""
    short = ("--dim", "128", "--threads", "1", "--bank-rows", "1000", "--turns", "2", "--starts", "1")
    run(parse(short), wide_console())


if __name__ == "__main__":
    run(parse(), wide_console())
