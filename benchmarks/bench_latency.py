"""Image → verdict at 256, one thread: per stage and in all, with the embedded backbone on a drawn product.

    python -m pytest -q benchmarks/bench_latency.py

pytest-benchmark times whole runs; the stages are what the session itself measured in them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from suite.recording import Cell, Measured, Recorder

from onceover import _core, export
from onceover.detectors import BankSize
from onceover.images import list_images, read_image
from onceover.runtime.session import EngineOptions
from onceover.training.demo_products import Counts, draw_products
from onceover.training.fit import FitOptions, fit

RUNS, WARM_UP = 200, 10
PRODUCT = "flange"
STAGES = ("prepare", "engine", "score", "map")
TITLE = "Image → verdict, embedded backbone at 256 × 256, a drawn product of 288 × 288, one thread, ms"


def drawn(record: Recorder) -> Path:
    """The folder of the drawn products; few parts where the numbers do not count."""
    counts = record.choose(Counts(train=60), Counts(train=12, test_good=2, per_defect=1))
    return record.once("products", lambda folder: draw_products(folder, 0, counts))


def product(record: Recorder) -> Path:
    return drawn(record) / PRODUCT


def fitted(record: Recorder, data: Path, bank_rows: int) -> Path:
    """A package of `bank_rows` random patches of the product's good parts."""
    options = FitOptions(bank=BankSize(rows=bank_rows), coreset="random")
    return record.once(
        f"{data.name}-{bank_rows}.onceover", lambda path: export.package(fit(data / "train" / "good", options), path)
    )


@pytest.mark.parametrize("bank_rows", [1_000, 10_000])
def bench_image_to_verdict(benchmark: BenchmarkFixture, record: Recorder, bank_rows: int) -> None:
    data = product(record)
    path = fitted(record, data, bank_rows)
    session = _core.Session(_core.Package.open(str(path)), EngineOptions().resolve())
    image = read_image(list_images(data / "test")[0])
    stages: list[list[int]] = []

    def once() -> None:
        result = session.run(image)
        stages.append([getattr(result, f"{stage}_ns") for stage in STAGES])

    warm_up = record.choose(WARM_UP, 1)
    benchmark.pedantic(once, rounds=record.choose(RUNS, 2), warmup_rounds=warm_up)
    whole = 1e3 * np.array(benchmark.stats.stats.data)
    middle = np.median(np.array(stages[warm_up:]) / 1e6, axis=0)
    cells: dict[str, Cell] = {stage: Measured(float(ms)) for stage, ms in zip(STAGES, middle, strict=True)}
    cells |= {"whole run": Measured(float(np.median(whole))), "p99 of it": Measured(float(np.percentile(whole, 99)))}
    record.row(TITLE, f"{bank_rows:,} bank rows", cells)
