"""Thread CPU time of building a search index, medians: real, clustered and Gaussian rows.

    python benchmarks/build_times.py [--runs 3]        # ONCEOVER_ISA=avx2: with that instruction set

Real rows are patches of the shared images (features.py); fewer rows are the first of the largest bank.
"""

from __future__ import annotations

import argparse
import statistics
import time

import features
from reporting import machine, plain_table, wide_console
from rich.progress import Progress

import onceover
from onceover import _core

DATA = ("mt", "clustered", "gauss")
DIMS = (128, 384, 1024)
ROWS = (10_000, 50_000)


def build_s(rows: features.F32) -> float:
    """Thread CPU seconds of one build of (M, D) rows; it takes one thread."""
    start = time.thread_time()
    onceover.MemoryBank.build(rows, metric="l2")
    return time.thread_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    console = wide_console()
    console.print(machine())
    found: dict[tuple[int, int], dict[str, object]] = {}
    with Progress(console=console, transient=True, auto_refresh=False, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(DATA) * len(DIMS) * len(ROWS))
        for name in DATA:
            for dim in DIMS:
                largest, _ = features.bank_and_queries(name, dim, max(ROWS))
                for count in ROWS:
                    progress.update(task, description=f"{name} {dim} × {count // 1000}k", refresh=True)
                    record = found.setdefault((dim, count), {"D × rows": f"{dim} × {count // 1000}k"})
                    record[f"{name} s"] = statistics.median(build_s(largest[:count]) for _ in range(runs))
                    progress.advance(task)
    plain_table(f"building, {_core.isa()}, CPU s, medians of {runs}", list(found.values()), console)


if __name__ == "__main__":
    main()
