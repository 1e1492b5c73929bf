"""MemoryBank.search beside faiss, torch and numpy: 784 queries, k = 1, one thread, every method in one loop.

    python -m pytest -q benchmarks/bench_nearest_neighbor.py      # the active instruction set, as in `make bench`
    python benchmarks/bench_nearest_neighbor.py --isa avx512vnni avx2 --only real --json build/nearest.json
    python benchmarks/bench_nearest_neighbor.py --scaling | --exactness 1000000

All query-side work is timed, what depends on the bank alone is not. Times are medians over rounds A B C A B C …: thread
CPU time for the ratios (the machine is shared), wall time beside it. The base is faiss IndexFlatL2 *tuned*: below
Q · D = 128,000 it does not use BLAS by default. Answers are judged by brute_force.py, in float64.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import features
import numpy as np
import pytest
from brute_force import Search, brute_force, judge, sweep
from machine_limits import machine_limits, scan_limit_ms, search_limit_ms
from peers import (
    FAISS_ALWAYS_BLAS,
    FAISS_DEFAULT,
    OURS,
    ROUNDS,
    TUNED,
    faiss,
    faiss_flat,
    interleave,
    numpy_mm,
    one_thread,
    ours,
    torch_mm,
)
from reporting import machine, plain_table, show, summary, wide_console
from rich.console import Console
from rich.progress import Progress
from suite.passes import FOREIGN_VARIABLES
from suite.recording import Cell, Measured, Recorder

import onceover
from onceover import _core

TITLE = "Exact nearest neighbors, 784 queries, k = 1, one thread, CPU ms; features at D × rows"


@dataclass(frozen=True)
class Case:
    """One bank; `targets` are times faster than tuned faiss by instruction set, from the acceptance of issue 3."""

    data: str
    dim: int
    rows: int
    group: str
    targets: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.data}-{self.dim}x{self.rows // 1000}k"


def _targets(amx: float, vnni: float | None = None, avx2: float | None = None) -> dict[str, float]:
    named = {"amx": amx, "avx512vnni": vnni, "avx2": avx2}
    return {isa: target for isa, target in named.items() if target is not None}


DRAWN = ("gauss", "clustered", "heavy_tails")  # of features.py: data that needs no shared images
D128, D384, D1024, BIG = _targets(15, 5, 2), _targets(30, 14, 6), _targets(50, 20), _targets(80, 32)
CASES = (
    Case("mt", 128, 10_000, "real", D128),
    Case("mt", 384, 10_000, "real", D384),
    Case("mt", 1024, 10_000, "real", D1024),
    Case("mt", 1024, 50_000, "real", BIG),
    Case("mt", 96, 10_000, "real"),
    *(Case("mt-coreset", dim, 10_000, "real", t) for dim, t in ((128, D128), (384, D384), (1024, D1024))),
    *(Case("pcb", dim, 10_000, "real", t) for dim, t in ((96, {}), (128, D128), (384, D384), (1024, D1024))),
    Case("pcb-coreset", 384, 10_000, "real", D384),
    *(Case("clustered", dim, 10_000, "synthetic") for dim in (128, 384, 1024)),
    Case("gauss", 384, 10_000, "synthetic", _targets(12)),
    Case("gauss", 1024, 10_000, "synthetic", _targets(10)),
    *(
        Case(data, 384, 10_000, "bad", _targets(0.9, 0.9))
        for data in ("out_of_distribution", "duplicated", "offset", "heavy_tails", "mixed")
    ),
    *(Case(data, 384, 10_000, "bad", _targets(0.5, 0.5)) for data in ("one_row", "rounding")),
)


PEERS: dict[str, Callable[[features.F32], Search]] = {
    "faiss default": lambda bank: faiss_flat(bank, FAISS_DEFAULT),
    TUNED: lambda bank: faiss_flat(bank, FAISS_ALWAYS_BLAS),
    "torch mm + min": torch_mm,
    "numpy mm + argmin": numpy_mm,
}


def measure(case: Case, rounds: int = ROUNDS, peers: Sequence[str] = PEERS, judging: bool = True) -> dict[str, Any]:
    """These methods on one case; "ratio" is None without tuned faiss. judging: also tell how exact they are."""
    one_thread()
    bank, queries = features.bank_and_queries(case.data, case.dim, case.rows)
    start = time.perf_counter()
    memory_bank = onceover.MemoryBank.build(bank, metric="l2")
    build_s = time.perf_counter() - start
    methods = {name: PEERS[name](bank) for name in peers if faiss is not None or not name.startswith("faiss")}
    methods[OURS] = ours(memory_bank)
    verdicts = {}
    if judging:
        truth = brute_force(bank, queries)
        verdicts = {name: asdict(judge(truth, *search(queries))) for name, search in methods.items()}
    times = interleave({name: (lambda s=search: s(queries)) for name, search in methods.items()}, rounds)
    size, limits = (len(queries), *bank.shape), machine_limits()
    limit_ms = dict.fromkeys(methods, scan_limit_ms(*size, limits))  # of a product with every row, as the peers do it
    distinct = len({row.tobytes() for row in bank})  # equal rows are searched once
    representation = memory_bank.representation
    limit_ms[OURS] = search_limit_ms(len(queries), distinct, case.dim, representation, _core.isa(), limits)
    return {
        "case": str(case),
        "isa": _core.isa(),
        "target": case.targets.get(_core.isa()),
        "ratio": times[TUNED][0] / times[OURS][0] if TUNED in times else None,
        "methods": {
            name: {
                "cpu_ms": times[name][0],
                "wall_ms": times[name][1],
                "limit_ms": limit_ms[name],
                **verdicts.get(name, {}),
            }
            for name in methods
        },
        "queries": len(queries),
        "representation": representation,
        "stats": memory_bank.stats,
        "index_bytes_per_row": memory_bank.index_size_bytes / case.rows,
        "build_s": build_s,
    }


def scaling(case: Case, rounds: int) -> dict[str, Any]:
    """Wall time of one thread over that of two, beside what two threads can reach on this machine right now.

    The ceiling: two Python threads, each with a bank of its own and one thread. A matrix product likewise, for the FMA
    units. Every sample repeats its call until it takes about 50 ms. Shared or hyper-threaded cores stay below 2.
    """
    one_thread()
    data, queries = features.bank_and_queries(case.data, case.dim, case.rows)
    banks = [onceover.MemoryBank.build(data, metric="l2") for _ in range(2)]
    factors = [np.random.default_rng(seed).standard_normal((2, 768, 768), np.float32) for seed in range(2)]
    start = time.perf_counter()
    banks[0].search(queries, k=1, threads=1)
    repeats = max(1, round(0.05 / (time.perf_counter() - start)))

    def search(which: int, threads: int = 1) -> None:
        for _ in range(repeats):
            banks[which].search(queries, k=1, threads=threads)

    def multiply(which: int) -> None:
        for _ in range(6):
            np.matmul(factors[which][0], factors[which][1])

    with ThreadPoolExecutor(2) as pool:
        calls = {
            "one": lambda: search(0),
            "two": lambda: search(0, threads=2),
            "pair": lambda: list(pool.map(search, range(2))),
            "product": lambda: multiply(0),
            "products": lambda: list(pool.map(multiply, range(2))),
        }
        wall = {name: found[1] for name, found in interleave(calls, rounds, threads=2).items()}
    speedup, ceiling = wall["one"] / wall["two"], 2 * wall["one"] / wall["pair"]
    return {
        "case": str(case),
        "isa": _core.isa(),
        "one_thread_ms": wall["one"] / repeats,
        "two_threads_ms": wall["two"] / repeats,
        "speedup": speedup,
        "ceiling": ceiling,
        "fraction": speedup / ceiling,
        "matmul_ceiling": 2 * wall["product"] / wall["products"],
    }


@pytest.mark.parametrize("case", [case for case in CASES if case.group != "synthetic" or case.dim == 384], ids=str)
def bench_nearest_neighbor(record: Recorder, case: Case) -> None:
    """Beside tuned faiss; one bank of each size beside the others, too."""
    if case.data not in DRAWN:
        if not features.available():
            pytest.skip(f"no shared images and weights in {features.SHARED}")
        if record.short:
            pytest.skip("short: drawn data stand for it, as its features take long to make")
    if faiss is None:
        record.skip("faiss", "not installed; `make bench` installs it")
    peers = PEERS if case.data == "mt" and case.rows == 10_000 else (TUNED,)
    wrong = record.folder / f"wrong-{case}"  # answers are the same in every pass, and judging them takes long
    found = measure(record.choose(case, replace(case, rows=500)), record.choose(3, 1), peers, not wrong.exists())
    if not wrong.exists():
        wrong.write_text(str(found["methods"][OURS]["wrong"]))
    times = {name: method["cpu_ms"] for name, method in found["methods"].items()}
    own, limit_ms = times.pop(OURS), found["methods"][OURS]["limit_ms"]
    cells: dict[str, Cell] = {"onceover ms": Measured(own)}
    if limit_ms is not None:
        cells["of its limit"] = Measured(limit_ms / own)
    if TUNED in times:
        share = found["methods"][TUNED]["limit_ms"] / times[TUNED]
        cells |= {f"{TUNED} ms": Measured(times[TUNED]), "of its own": Measured(share)}
        cells[f"× {TUNED}"] = Measured(found["ratio"])
        cells["asked"] = "" if found["target"] is None else f"≥ {found['target']:g}"
    cells |= {f"× {name.split(' mm')[0]}": Measured(peer / own) for name, peer in times.items() if name != TUNED}
    cells["wrong"] = wrong.read_text()
    record.row(TITLE, f"{case.dim} × {case.rows // 1000}k {case.data}", cells)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isa", nargs="+", help="instruction sets, each in a process of its own; default: the active")
    parser.add_argument("--only", nargs="+", help="real, synthetic, bad, or parts of case names such as mt-384x10k")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path, help="also write the records here; with --isa to NAME-<isa>.json")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--scaling", action="store_true", help="two threads against one, beside the machine's ceiling")
    mode.add_argument("--exactness", type=int, metavar="N", help="judge at least N answers by float64")
    return parser.parse_args()


def _in_clean_processes(isas: list[str], path: Path | None) -> int:
    """This command again, once for each instruction set, without the variables that OpenBLAS would read."""
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN_VARIABLES}
    argv = [sys.executable, *sys.argv]
    for isa in isas:
        own = [f"--json={path.with_stem(f'{path.stem}-{isa}')}"] if path else []
        code = subprocess.run([*argv, "--isa", isa, *own], env={**environment, "ONCEOVER_ISA": isa}).returncode
        if code:
            return code
    return 0


def _run(options: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    if options.exactness:
        makers = {
            OURS: lambda bank, threads: ours(onceover.MemoryBank.build(bank, metric="l2"), threads),
            TUNED: lambda bank, threads: faiss_flat(bank, FAISS_ALWAYS_BLAS),
        }
        one_thread()
        return sweep(options.exactness, makers, console)
    records = []
    only = options.only or (["mt-128x10k", "mt-384x10k", "mt-1024"] if options.scaling else [""])
    cases = [case for case in CASES if any(word == case.group or word in str(case) for word in only)]
    if not cases:
        raise SystemExit(f"--only {' '.join(only)}: no such case; there are {', '.join(map(str, CASES))}")
    # no refresh thread: it would run beside what is measured
    with Progress(console=console, transient=True, auto_refresh=False, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(cases))
        for case in cases:
            progress.update(task, description=str(case), refresh=True)
            if options.scaling:
                records.append(scaling(case, max(options.rounds, 9)))
            else:
                records.append(measure(case, options.rounds))
                show(records[-1], console)
            progress.advance(task)
    if options.scaling:
        plain_table("two threads against one, wall time", records, console)
    else:
        summary(records, console)
    return records


def main() -> None:
    options = _parse()
    elsewhere = options.isa is not None and options.isa != [os.environ.get("ONCEOVER_ISA")]
    if elsewhere or set(FOREIGN_VARIABLES) & set(os.environ):
        raise SystemExit(_in_clean_processes(options.isa or [_core.isa()], options.json))
    console = wide_console()
    console.print(machine())
    records = _run(options, console)
    if options.json:
        options.json.write_text(json.dumps(records, indent=1, default=str))


if __name__ == "__main__":
    main()
