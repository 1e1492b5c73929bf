"""Image → verdict at 256, one thread: per stage p50 and p99, with the embedded backbone on a drawn product.

    python -m pytest benchmarks/bench_latency.py --benchmark-only

pytest-benchmark times the whole session run; the stages are what the session itself measured in those runs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from onceover import _core, export
from onceover.detectors import BankSize
from onceover.images import list_images, read_image
from onceover.runtime.session import EngineOptions
from onceover.training.demo_products import draw_products
from onceover.training.fit import FitOptions, fit

ROUNDS = 200
STAGES = ("prepare_ns", "engine_ns", "score_ns", "map_ns")


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_products(tmp_path_factory.mktemp("data"), seed=0)[0]


@pytest.mark.parametrize("bank_rows", [1_000, 10_000])
def bench_image_to_verdict(benchmark: BenchmarkFixture, product: Path, tmp_path: Path, bank_rows: int) -> None:
    path = tmp_path / "part.onceover"
    export.package(fit(product / "train" / "good", FitOptions(bank=BankSize(rows=bank_rows), coreset="random")), path)
    session = _core.Session(_core.Package.open(str(path)), EngineOptions().resolve())
    image = read_image(list_images(product / "test")[0])
    stages: list[list[int]] = []

    def once() -> None:
        result = session.run(image)
        stages.append([getattr(result, stage) for stage in STAGES])

    benchmark.pedantic(once, rounds=ROUNDS, warmup_rounds=10)
    p50, p99 = np.percentile(np.array(stages[10:]) / 1e6, [50, 99], axis=0)
    for stage, middle, high in zip(STAGES, p50, p99, strict=True):
        percentiles = {"p50": round(float(middle), 3), "p99": round(float(high), 3)}
        benchmark.extra_info[stage.replace("_ns", "_ms")] = percentiles
    benchmark.extra_info.update(isa=_core.isa(), image=list(image.shape), bank_rows=bank_rows)
    print(f"\n{benchmark.extra_info}")
