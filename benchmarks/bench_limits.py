"""What one core of this machine can do at most (machine_limits.cpp): what the share of a limit elsewhere refers to.

python -m pytest -q benchmarks/bench_limits.py
"""

from __future__ import annotations

from machine_limits import machine_limits
from suite.recording import Measured, Recorder

TITLE = "One core, multiply-adds from registers (a multiply-add is two operations), reading and writing"


def bench_limits(record: Recorder) -> None:
    limits = machine_limits()
    for what, unit, rates in (
        ("float32", "GF/s", limits.float32),
        ("int8", "GOP/s", limits.int8),
        ("reading", "GB/s", limits.read),
        ("writing 20 MB", "GB/s", limits.write),
    ):
        for name, rate in rates.items():
            record.row(TITLE, f"{what}, {name}", {"at most": Measured(rate), "": unit})
