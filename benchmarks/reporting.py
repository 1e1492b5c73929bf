"""How bench_nearest_neighbor.py shows its records, and what a number needs beside it."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from peers import OURS, TUNED
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_info

from onceover import _core


def machine() -> str:
    """What a number needs beside it: CPU, instruction set, peers and their BLAS, command, date."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    blas = ", ".join(f"{Path(lib['filepath']).parent.name} {lib.get('architecture')}" for lib in libraries)
    return (
        f"{cpu}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; ISA {_core.isa()} of "
        f"{', '.join(_core.available_isas())}\nPython {platform.python_version()}, faiss {faiss.__version__}, torch "
        f"{torch.__version__}, numpy {np.__version__}; OpenBLAS kernels {blas}\n"
        f"{datetime.date.today()}  python {shlex.join(sys.argv)}"
    )


def wide_console() -> Console:
    """Tables keep their columns in a file, too."""
    return Console(width=None if Console().is_terminal else 120)


def show(record: dict[str, Any], console: Console) -> None:
    """One case as a table, and what the bank says of itself and of its last search."""
    table = Table(title=f"{record['case']} · {record['isa']}", title_justify="left")
    for column in (
        "method",
        "CPU ms",
        "wall ms",
        "× tuned faiss",
        f"wrong of {record['queries']}",
        "missed zeros",
        "max rel. error",
    ):
        table.add_column(column, justify="left" if column == "method" else "right")
    base = record["methods"][TUNED]["cpu_ms"]
    for name, found in record["methods"].items():
        times = (f"{found['cpu_ms']:.2f}", f"{found['wall_ms']:.2f}", f"{base / found['cpu_ms']:.2f}")
        table.add_row(name, *times, str(found["wrong"]), str(found["missed_zeros"]), f"{found['error']:.1e}")
    console.print(table)
    stats = ", ".join(f"{key} {value}" for key, value in record["stats"].items())
    console.print(
        f"  {record['representation']}; built in {record['build_s']:.2f} s; index {record['index_bytes_per_row']:.0f} "
        f"bytes per row beside float32 rows; {stats}"
    )


def summary(records: list[dict[str, Any]], console: Console) -> None:
    """All cases, one line each."""
    table = Table(title=f"{len(records)} cases, {records[0]['queries']} queries, one thread", title_justify="left")
    for column in ("case", "faiss tuned ms", "onceover ms", "wall ms", "× faster", "target", "met", "wrong"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for record in records:
        ours, target, ratio = record["methods"][OURS], record["target"], record["ratio"]
        met = ("", "") if target is None else (f"{target:g}", "yes" if ratio >= target else "no")
        times = (f"{record['methods'][TUNED]['cpu_ms']:.1f}", f"{ours['cpu_ms']:.2f}", f"{ours['wall_ms']:.2f}")
        table.add_row(record["case"], *times, f"{ratio:.1f}", *met, str(ours["wrong"]))
    console.print(table)


def plain_table(title: str, records: list[dict[str, Any]], console: Console) -> None:
    """Flat records of one shape, a line each."""
    table = Table(*records[0], title=title, title_justify="left")
    for record in records:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in record.values()))
    console.print(table)
