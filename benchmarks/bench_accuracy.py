"""Detection and localization on the shared real data, two ways: the reproduction run and the product's default.

    python benchmarks/bench_accuracy.py --weights ../shared/weights/mobilenetv2_imagenet.safetensors

reproduction: every train/good image, no calibration split, nothing adapted, random 10 % bank, pixel metrics at 256 with
nearest-neighbor masks, mean over seeds. default: `onceover fit` as it comes (adapted, greedy coreset, held-out
calibration), at mask resolution.
Nothing is trained on these images; benchmarks/README.md tells what was decided by them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from bench_latency import drawn
from rich.console import Console
from rich.table import Table
from suite.recording import Cell, Recorder

from onceover import export
from onceover.detectors import BankSize
from onceover.runtime.graph import DEFAULT_BACKBONE
from onceover.runtime.inspector import Inspector
from onceover.training.evaluate import EvaluationReport, Observer, evaluate
from onceover.training.fit import FitOptions, fit

SHARED = Path(__file__).resolve().parents[2] / "shared"
METRICS = ("image_auroc", "pixel_auroc", "aupro")
REAL, DRAWN = ("magnetic_tile", "pcb"), ("fabric", "flange")


def run(dataset: Path, options: FitOptions, resolution: str | int, observe: Observer | None = None) -> EvaluationReport:
    """Fit on train/good of an MVTec-style folder, evaluate on its test images."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.onceover"
        export.package(fit(dataset / "train" / "good", options), path)
        return evaluate(Inspector.open(path), dataset, resolution, observe=observe)


def reproduction(dataset: Path, backbone: str | Path, seeds: range) -> list[EvaluationReport]:
    return [
        run(
            dataset,
            FitOptions(
                backbone,
                coreset="random",
                bank=BankSize(ratio=0.1),
                holdout=0,
                seed=seed,
                size=256,
                adapt=False,
                position_weights=False,
            ),
            256,
        )
        for seed in seeds
    ]


def default(dataset: Path, backbone: str | Path) -> list[EvaluationReport]:
    groups = dataset / "groups.csv"
    return [run(dataset, FitOptions(backbone, groups=groups if groups.exists() else None), "mask")]


def row(name: str, reports: list[EvaluationReport], seconds: float) -> dict[str, object]:
    values = {metric: [getattr(report, metric) for report in reports] for metric in METRICS}
    return {
        "run": name,
        **{metric: round(float(np.mean(found)), 4) for metric, found in values.items()},
        "spread": round(max(float(np.ptp(found)) for found in values.values()), 4),
        "false alarms": reports[0].false_alarm_rate,
        "missed": reports[0].miss_rate,
        "seconds": round(seconds, 1),
    }


@pytest.mark.parametrize("name", [*REAL, *DRAWN])
def bench_embedded_backbone(record: Recorder, name: str) -> None:
    """The same in every run: what is embedded, plain PatchCore by one seed, and on real products `fit` as it comes."""
    if name in DRAWN:
        root = drawn(record) / name
    elif record.short:
        pytest.skip("short: drawn products stand for it")
    elif (SHARED / "data" / name).is_dir():
        root = SHARED / "data" / name
    else:
        pytest.skip(f"no shared images in {SHARED / 'data'}")
    runs = {"reproduction, seed 0": reproduction(root, DEFAULT_BACKBONE, range(1))}
    if name in REAL:
        runs["default"] = default(root, DEFAULT_BACKBONE)
    for kind, (report, *_) in runs.items():
        cells: dict[str, Cell] = {metric.replace("_", " "): f"{getattr(report, metric):.3f}" for metric in METRICS}
        record.row(f"Accuracy of {DEFAULT_BACKBONE}", f"{name}, {kind}", cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--weights", type=Path, help="shared MobileNetV2 weights; without them only the embedded default"
    )
    parser.add_argument("--data", type=Path, default=SHARED / "data")
    parser.add_argument("--datasets", nargs="+", default=["magnetic_tile", "pcb"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=("reproduction", "default"))
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        backbones: dict[str, str | Path] = {"embedded": DEFAULT_BACKBONE}
        if options.weights:
            from onceover.export.to_onnx import export_backbone

            backbones["shared"] = export_backbone(
                "mobilenetv2", options.weights, Path(folder) / "shared.onnx", 256, 256
            )
        for dataset in options.datasets:
            for name, backbone in backbones.items():
                for kind in ("reproduction", "default"):
                    if options.only not in (None, kind):
                        continue
                    start = time.perf_counter()
                    root = options.data / dataset
                    reports = (
                        default(root, backbone)
                        if kind == "default"
                        else reproduction(root, backbone, range(options.seeds))
                    )
                    rows.append(row(f"{dataset}, {name}, {kind}", reports, time.perf_counter() - start))
                    Console(stderr=True).print(rows[-1])
    table = Table(title="accuracy")
    for column in rows[0]:
        table.add_column(column)
    for values in rows:
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else str(value) for value in values.values()))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
