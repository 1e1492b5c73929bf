"""Opening a package of 49 MB: hashed or not, mapped or copied.

    python -m pytest -q benchmarks/bench_package.py

The file lies in the page cache. docs/package.md tells what follows for a device.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from suite.recording import Measured, Recorder

from onceover import _core
from onceover.runtime.package import open_package

ROWS, DIM, ROUNDS = 32_000, 384, 11
TITLE = "Opening a package of 49 MB, one thread, ms"


def write(path: Path, rows: int) -> None:
    writer = _core.PackageWriter()
    writer.add("memory_bank", np.random.default_rng(0).normal(size=(rows, DIM)).astype(np.float32))
    writer.save(path)


@pytest.mark.parametrize("copy", [False, True], ids=["mapped", "copied"])
@pytest.mark.parametrize("verify_hashes", ["all", "small"])
def bench_opening_a_package(benchmark: BenchmarkFixture, record: Recorder, verify_hashes: str, copy: bool) -> None:
    path = record.once("opened.onceover", lambda path: write(path, record.choose(ROWS, 100)))
    rounds = record.choose(ROUNDS, 1)
    benchmark.pedantic(open_package, (path, verify_hashes, copy), rounds=rounds, warmup_rounds=1)
    case = f"hashes of {verify_hashes} members, {'copied' if copy else 'mapped'}"
    record.row(TITLE, case, {"ms": Measured(1e3 * benchmark.stats.stats.median)})
