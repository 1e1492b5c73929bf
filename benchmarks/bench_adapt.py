"""What adapting to a product is worth: at drawn defects on training images, by which it was designed, and on test sets.

    python benchmarks/bench_adapt.py drawn      drawn defects; no test image is read (the protocol of feature_study.py)
    python benchmarks/bench_adapt.py test       the reproduction run of bench_accuracy.py
    python benchmarks/bench_adapt.py default    `onceover fit --no-adapt`, and `fit`, as they come otherwise
    python benchmarks/bench_adapt.py tiles      the same with 2 x 2 tiles
    python benchmarks/bench_adapt.py region     the same with a region of interest, the left half, where alone is judged
    python benchmarks/bench_adapt.py decision   drawn defects, also of networks with random weights: does fit, which
                                                sees none of these, adapt where that helps?

Image AUROC / pixel AUROC / AUPRO(0.3), means over seeds; "gain" is the mean of the three, adapted minus plain, with the
smallest and the largest of the seeds. Distances are not weighed by position: position_study.py is about that. fabric
and flange are the demo's products, on which nothing was trained.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from bench_accuracy import METRICS, run
from feature_study import judged, score
from rich.console import Console
from rich.progress import track
from rich.table import Table

from onceover import _core, metrics
from onceover.detectors import BankSize
from onceover.export.to_onnx import untrained
from onceover.images import write_image
from onceover.runtime.assemble import config_of
from onceover.runtime.graph import DEFAULT_BACKBONE, EMBEDDED, load_graph, read_graph_spec, resize
from onceover.runtime.session import EngineOptions
from onceover.training.adapter import Adaptation
from onceover.training.adapting import study
from onceover.training.dataset import Sample
from onceover.training.demo_products import Counts, draw_products
from onceover.training.field import TilingOptions
from onceover.training.fit import FitOptions
from onceover.types import GraphSpec, Verdict

SHARED = Path(__file__).resolve().parents[2] / "shared"
REAL, DRAWN = ("magnetic_tile", "pcb"), ("fabric", "flange")

UNTRAINED = ("mobilenetv2", "mobilenetv2_w035")

Pair = tuple[list[float], list[float]]  # plain and adapted: the three metrics


def on_drawn_defects(product: Path, backbone: str, side: int | None, seed: int) -> Pair:
    """Half of train/good makes the bank and adapts, the other half is judged with drawn defects."""
    assert side is not None
    graph, spec = resize(*load_graph(backbone), side, side)
    return told_and_drawn(product, graph, spec, side, seed)[1]


def told_and_drawn(product: Path, graph: bytes, spec: GraphSpec, side: int, seed: int) -> tuple[Adaptation, Pair]:
    """What the bank's parts tell of adapting, and what it is worth at drawn defects on other parts."""
    images = judged(str(product), side, seed)
    engine = EngineOptions("onnxruntime").resolve()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{i:03}.png") for i in range(len(images.bank))]
        for path, image in zip(paths, images.bank, strict=True):
            write_image(path, image)
        adaptation = study(paths, graph, config_of(spec, 0.0), engine, seed).of_all
    embedder = _core.Embedder(config_of(spec, 0.0), graph, engine)
    plain = [[embedder.embed(image) for image in part] for part in (images.bank, images.good, images.drawn)]
    adapted = [[_core.adapt(rows, adaptation.matrix) for rows in part] for part in plain]
    grid = (spec.grid_height, spec.grid_width)
    before, after = (score(*map(np.stack, each), grid, images.masks, seed) for each in (plain, adapted))
    return adaptation, (before, after)


def decision(products: dict[str, Path], side: int, seeds: int) -> Table:
    """Of networks that suit and of others with random weights, what fit is told and what is true."""
    table = Table("network", "product", "told: AUROC", "fit", "plain", "gain", title=f"at {side}, {seeds} seeds")
    networks = {name: resize(*load_graph(name), side, side) for name in EMBEDDED}
    for name in UNTRAINED:
        graph = untrained(name, side, side)
        networks[f"{name}, random"] = graph, read_graph_spec(graph, name)
    for name, network in networks.items():
        for product, folder in track(products.items(), description=name, console=Console(stderr=True)):
            for seed in range(seeds):
                adaptation, pair = told_and_drawn(folder, *network, side, seed)
                before, after = adaptation.record["auroc"]
                plain, adapted = map(np.mean, pair)
                does = "adapts" if adaptation.helps else "does not"
                told, gain = f"{before:.3f} → {after:.3f}", f"{adapted - plain:+.3f}"
                table.add_row(name, product, told, does, f"{plain:.3f}", gain)
    return table


def on_test_images(product: Path, backbone: str, side: int | None, seed: int) -> Pair:
    """side None: fit as it comes; else the reproduction run."""
    if side is None:
        options = FitOptions(backbone, seed=seed, groups=groups_of(product), position_weights=False)
    else:
        bank = BankSize(ratio=0.1)
        options = FitOptions(
            backbone, coreset="random", bank=bank, holdout=0, seed=seed, size=side, position_weights=False
        )
    resolution: str | int = "mask" if side is None else side
    as_it_comes = None if side is None else True
    reports = [run(product, replace(options, adapt=on), resolution) for on in (False, as_it_comes)]
    plain, adapted = ([float(getattr(report, metric)) for metric in METRICS] for report in reports)
    return plain, adapted


def with_tiles(product: Path, backbone: str, _side: int | None, seed: int) -> Pair:
    options = FitOptions(
        backbone, seed=seed, groups=groups_of(product), tiling=TilingOptions(tiles=(2, 2)), position_weights=False
    )
    reports = [run(product, replace(options, adapt=on), "mask") for on in (False, True)]
    plain, adapted = ([float(getattr(report, metric)) for metric in METRICS] for report in reports)
    return plain, adapted


def in_a_region(product: Path, backbone: str, _side: int | None, seed: int) -> Pair:
    left = np.zeros((64, 64), np.uint8)
    left[:, :32] = 1
    options = FitOptions(backbone, seed=seed, groups=groups_of(product), roi=left, position_weights=False)
    plain, adapted = (of_the_left_half(product, replace(options, adapt=on)) for on in (False, True))
    return plain, adapted


def of_the_left_half(product: Path, options: FitOptions) -> list[float]:
    """The three metrics; what lies in the other half counts neither as a defect nor as a part."""
    scores: list[float] = []
    labels: list[bool] = []
    pixels = metrics.SegmentationMetrics()

    def observe(sample: Sample, _image: Any, mask: Any, verdict: Verdict) -> None:
        half = verdict.anomaly_map.shape[1] // 2
        inside = None if mask is None else mask[:, :half]
        if sample.label and (inside is None or not inside.any()):
            return
        scores.append(verdict.score)
        labels.append(bool(sample.label))
        pixels.update(np.ascontiguousarray(verdict.anomaly_map[:, :half]), inside)

    run(product, options, "mask", observe)
    found = pixels.compute((0.3,))
    return [metrics.image_auroc(scores, labels), found.pixel_auroc, found.aupro[0.3]]


def groups_of(product: Path) -> Path | None:
    return product / "groups.csv" if (product / "groups.csv").exists() else None


JUDGES: dict[str, Callable[[Path, str, int | None, int], Pair]] = {
    "drawn": on_drawn_defects,
    "test": on_test_images,
    "default": on_test_images,
    "tiles": with_tiles,
    "region": in_a_region,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(*JUDGES, "decision"))
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE, help="embedded")
    parser.add_argument("--products", nargs="+", default=[*REAL, *DRAWN])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if options.what == "decision":
        with tempfile.TemporaryDirectory() as folder:
            draw_products(Path(folder), 0, Counts(train=60))
            products = {
                name: SHARED / "data" / name if name in REAL else Path(folder, name) for name in options.products
            }
            Console(width=140).print(decision(products, options.size, options.seeds))
        return
    side = options.size if options.what in ("drawn", "test") else None
    judge = JUDGES[options.what]
    size = "the size that fit chooses" if side is None else str(side)
    table = Table(title=f"{options.backbone} at {size}, {options.what}, {options.seeds} seeds")
    for column in ("product", "plain", "adapted", "gain"):
        table.add_column(column)
    with tempfile.TemporaryDirectory() as folder:
        if set(options.products) & set(DRAWN):
            draw_products(Path(folder), 0, Counts(train=60))
        for name in track(options.products, "adapting", console=Console(stderr=True)):
            product = SHARED / "data" / name if name in REAL else Path(folder, name)
            pairs = np.array([judge(product, options.backbone, side, seed) for seed in range(options.seeds)])
            plain, adapted = (" / ".join(f"{value:.3f}" for value in mean) for mean in pairs.mean(axis=0))
            gains = (pairs[:, 1] - pairs[:, 0]).mean(axis=1)
            table.add_row(name, plain, adapted, f"{gains.mean():+.3f} ({gains.min():+.3f} … {gains.max():+.3f})")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
