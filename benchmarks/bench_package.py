"""Opening a package of 49 MB: hashed or not, mapped or copied. docs/package.md tells the numbers.

python -m pytest benchmarks/bench_package.py --benchmark-only
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from onceover import _core
from onceover.runtime.package import open_package


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "part.onceover"
    writer = _core.PackageWriter()
    writer.add("memory_bank", np.random.default_rng(0).normal(size=(32_000, 384)).astype(np.float32))
    writer.save(path)
    return path


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("verify_hashes", ["all", "small"])
def bench_opening_a_package(benchmark: BenchmarkFixture, package: Path, verify_hashes: str, copy: bool) -> None:
    benchmark(open_package, package, verify_hashes, copy)
