"""How benchmarks show their records, and what a number needs beside it."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from peers import OURS, TUNED
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_info

from onceover import _core
from onceover.runtime.latency_cache import cpu_model


def machine(distributions: Sequence[str] = ("faiss-cpu", "torch", "numpy")) -> str:
    """What a number needs beside it: CPU, instruction set, peers and their BLAS, command, date."""
    found = []
    for name in distributions:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    blas = ", ".join(f"{Path(lib['filepath']).parent.name} {lib.get('architecture')}" for lib in libraries)
    return (
        f"{cpu_model()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; ISA {_core.isa()} of "
        f"{', '.join(_core.available_isas())}\nPython {platform.python_version()}, "
        f"{', '.join(found)}; OpenBLAS kernels {blas}\n"
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
        "of its limit",
        "× tuned faiss",
        f"wrong of {record['queries']}",
        "missed zeros",
        "max rel. error",
    ):
        table.add_column(column, justify="left" if column == "method" else "right")
    base = record["methods"][TUNED]["cpu_ms"]
    for name, found in record["methods"].items():
        limit = "" if found["limit_ms"] is None else f"{found['limit_ms'] / found['cpu_ms']:.0%}"
        times = (f"{found['cpu_ms']:.2f}", f"{found['wall_ms']:.2f}", limit, f"{base / found['cpu_ms']:.2f}")
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
    for column in (
        "case",
        "faiss tuned ms",
        "onceover ms",
        "wall ms",
        "of its limit",
        "× faster",
        "target",
        "met",
        "wrong",
    ):
        table.add_column(column, justify="left" if column == "case" else "right")
    for record in records:
        ours, target, ratio = record["methods"][OURS], record["target"], record["ratio"]
        met = ("", "") if target is None else (f"{target:g}", "yes" if ratio >= target else "no")
        limit = "" if ours["limit_ms"] is None else f"{ours['limit_ms'] / ours['cpu_ms']:.0%}"
        times = (f"{record['methods'][TUNED]['cpu_ms']:.1f}", f"{ours['cpu_ms']:.2f}", f"{ours['wall_ms']:.2f}", limit)
        table.add_row(record["case"], *times, f"{ratio:.1f}", *met, str(ours["wrong"]))
    console.print(table)


def plain_table(title: str, records: list[dict[str, Any]], console: Console) -> None:
    """Flat records of one shape, a line each."""
    table = Table(*records[0], title=title, title_justify="left")
    for record in records:
        table.add_row(*(_cell(value) for value in record.values()))
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Claim:
    """A measured number and what was asked of it; None where it is only told."""

    what: str
    data: str
    measured: float
    unit: str
    target: float | None
    at_least: bool = True  # else at most

    @property
    def met(self) -> str | None:
        if self.target is None:
            return None
        kept = self.measured >= self.target if self.at_least else self.measured <= self.target
        return "yes" if kept else "NO"

    def row(self) -> dict[str, Any]:
        target = None if self.target is None else f"{'≥' if self.at_least else '≤'} {self.target:.3g}"
        return {
            "what": self.what,
            "set": self.data,
            "measured": f"{self.measured:.3g} {self.unit}",
            "target": target,
            "met": self.met,
        }


class Ledger:
    """Collects records, claims and disagreements, shows them as they come, keeps them in the file `options.json`."""

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self.options = options
        self.console = console
        self.machine = ""
        self.claims: list[Claim] = []
        self.records: list[dict[str, Any]] = []
        self.disagreements: list[str] = []

    def table(self, part: str, title: str, rows: list[dict[str, Any]]) -> None:
        if rows:
            plain_table(title, rows, self.console)
        self.records.extend({"part": part, "title": title, **row} for row in rows)
        self.save()

    def skip(self, what: str, why: str) -> None:
        self.console.print(f"skipped: {what}: {why}", style="yellow", highlight=False)
        self.records.append({"part": "skipped", "what": what, "why": why})

    def conclude(self) -> None:
        if self.claims:
            plain_table("asked and measured", [claim.row() for claim in self.claims], self.console)
        for disagreement in self.disagreements:
            self.console.print(f"disagrees with ours: {disagreement}", style="red", highlight=False)
        self.save()

    def save(self) -> None:
        """After every table, as a run takes long."""
        if self.options.json:
            claims = [{**asdict(claim), "met": claim.met} for claim in self.claims]
            found = {"machine": self.machine, "claims": claims, "records": self.records}
            self.options.json.write_text(
                json.dumps({**found, "disagreements": self.disagreements}, indent=1, default=float)
            )
