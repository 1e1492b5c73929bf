"""What another engine or precision changes: three backbones on real images, 25 good and 25 defective of each data set.

    python benchmarks/bench_export.py --weights mobilenetv2.safetensors

MobileNetV2 with real weights, EMO-1M and TinyViT-5M with random ones (for want of any), their batch norms with the
statistics of drawn textures: features of little use, but the same arithmetic. Every export is judged against the
package in float32 on ONNX Runtime; ms are medians of whole runs (prepare, network, score, map) with a memory bank of
1,000 rows, on one thread and on two.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reporting import machine, wide_console
from rich.table import Table

from onceover import export, registry
from onceover.backbones import best_window, create_backbone
from onceover.backbones.backbone import Backbone, normalize
from onceover.backbones.patch_embedding import PatchEmbedding
from onceover.backbones.weights import WeightsCard
from onceover.detectors import BankSize
from onceover.export.repackage import PRECISIONS, ExportOptions, ExportReport, export_package, median_milliseconds
from onceover.export.to_onnx import export_backbone, to_onnx
from onceover.images import read_image
from onceover.training import procedural
from onceover.training.dataset import Dataset, read_dataset
from onceover.training.fit import FitOptions, fit

SHARED = Path(__file__).resolve().parents[2] / "shared"
EACH = 25
RANDOM = ("emo_1m", "tinyvit_5m")
ENGINES = ("onnxruntime", "openvino")
SIZE = 256


def graphs(weights: Path, folder: Path) -> dict[str, Path]:
    """Backbone → its graph."""
    found = {"mobilenetv2": export_backbone("mobilenetv2", weights, folder / "mobilenetv2.onnx", SIZE, SIZE)}
    card = WeightsCard("random", "seed 0", "none", "none", "0" * 64)
    for name in RANDOM:
        model = with_statistics(create_backbone(name, None, random_init_seed=0, window=best_window(SIZE, SIZE)))
        found[name] = folder / f"{name}.onnx"
        found[name].write_bytes(to_onnx(PatchEmbedding(model), SIZE, SIZE, card, name))
    return found


def with_statistics(model: Backbone) -> Backbone:
    """Batch norms get the statistics of drawn textures: with those of the initialization, features hardly vary."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a plain mean over the batches
    rng = np.random.Generator(np.random.PCG64(0))
    with torch.no_grad():
        for _ in range(4):
            pixels = torch.from_numpy(np.stack([procedural.draw(rng, SIZE) for _ in range(4)])).permute(0, 3, 1, 2)
            model.train()(normalize(pixels, model.normalization))
    return model.eval()


def judged(dataset: Dataset) -> Dataset:
    """25 good and 25 defective test images, evenly over the list."""
    chosen = []
    for label in (0, 1):
        samples = [sample for sample in dataset.test if sample.label == label]
        picks = np.unique(np.linspace(0, len(samples) - 1, EACH).round().astype(int))
        chosen += [samples[i] for i in picks]
    return replace(dataset, test=tuple(chosen), validation=())


def row(name: str, report: ExportReport, output: Path, source: Path, image: Any) -> dict[str, Any]:
    """One line of the table; the last attempt is the one that counts."""
    attempt = report.attempts[-1]
    found = attempt.comparison
    times = {}
    for threads in (1, 2):
        before, after = median_milliseconds([(source, report.engine), (output, report.engine)], image, threads)
        times |= {f"float32 ms, {threads}": round(before, 1), f"ms, {threads}": round(after, 1)}
    return {
        "case": f"{name}, {report.engine}, {report.precision}{', refitted' if report.refitted else ''}",
        "rungs": len(report.attempts),
        "score ±": f"{found.score_difference:.1e}",
        "Spearman": round(found.spearman, 4),
        "maps": round(found.map_correlation, 4),
        "flips": found.flips,
        "ΔAUROC": round(found.image_auroc_change, 4),
        "ΔAUPRO": round(found.aupro_change, 4),
        **times,
        "graph": attempt.method,
        "accepted": not attempt.problems,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=SHARED / "weights" / "mobilenetv2_imagenet.safetensors")
    parser.add_argument("--data", type=Path, default=SHARED / "data")
    parser.add_argument("--datasets", nargs="+", default=["magnetic_tile", "pcb"])
    parser.add_argument("--backbones", nargs="+", default=["mobilenetv2", *RANDOM], help="or embedded ones")
    parser.add_argument("--adapt", action=argparse.BooleanOptionalAction, help="as onceover fit")
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = wide_console()
    console.print(machine(("onnxruntime", "openvino", "nncf")), markup=False, highlight=False)
    registry.load("export target", "onnx", registry.EXPORT_TARGETS)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        backbones = graphs(options.weights, folder)
        for name in options.datasets:
            root = options.data / name
            test = judged(read_dataset(root))
            image = read_image(test.test[0].path)
            for backbone in options.backbones:
                source, output = folder / "source.onceover", folder / "output.onceover"
                settings = FitOptions(
                    backbone=backbones.get(backbone, backbone),
                    adapt=options.adapt,
                    bank=BankSize(rows=1000),
                    holdout=0.3,
                )
                export.package(fit(root, settings), source)
                for engine in ENGINES:
                    for precision in options.precisions:
                        for refit in (None, root) if precision == "int8" else (None,):
                            chosen = ExportOptions(engine, precision, root, test, refit, force=True)
                            report = export_package(source, output, chosen)
                            rows.append(row(f"{name}, {backbone}", report, output, source, image))
                            console.print(rows[-1])
    table = Table(title="exports", title_justify="left")
    for column in rows[0]:
        table.add_column(column)
    for values in rows:
        table.add_row(*map(str, values.values()))
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
