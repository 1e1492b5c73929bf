"""What `fit --adapt` is worth: at drawn defects on training images, by which it was designed, and on the test sets.

    python benchmarks/bench_adapt.py drawn      drawn defects; no test image is read (the protocol of feature_study.py)
    python benchmarks/bench_adapt.py test       the reproduction run of bench_accuracy.py
    python benchmarks/bench_adapt.py default    `onceover fit` as it comes, without and with --adapt

Image AUROC / pixel AUROC / AUPRO(0.3), means over seeds; "gain" is the mean of the three, adapted minus plain, with the
smallest and the largest of the seeds. fabric and flange are the demo's products, on which nothing was trained.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench_accuracy import METRICS, run
from feature_study import judged, score
from rich.console import Console
from rich.progress import track
from rich.table import Table

from onceover import _core
from onceover.detectors import BankSize
from onceover.images import write_image
from onceover.runtime.assemble import config_of
from onceover.runtime.graph import DEFAULT_BACKBONE, load_graph, resize
from onceover.runtime.session import EngineOptions
from onceover.training.adapting import adapt
from onceover.training.demo_products import Counts, draw_products
from onceover.training.fit import FitOptions

SHARED = Path(__file__).resolve().parents[2] / "shared"
REAL, DRAWN = ("magnetic_tile", "pcb"), ("fabric", "flange")

Pair = tuple[list[float], list[float]]  # plain and adapted: the three metrics


def on_drawn_defects(product: Path, backbone: str, side: int, seed: int) -> Pair:
    """Half of train/good makes the bank and adapts, the other half is judged with drawn defects."""
    images = judged(str(product), side, seed)
    graph, spec = resize(*load_graph(backbone), side, side)
    engine = EngineOptions("onnxruntime").resolve()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{i:03}.png") for i in range(len(images.bank))]
        for path, image in zip(paths, images.bank, strict=True):
            write_image(path, image)
        adapted = adapt(graph, spec, paths, seed, engine).graph
    results = []
    for each in (graph, adapted):
        embedder = _core.Embedder(config_of(spec, 0.0), each, engine)
        rows = [
            np.stack([embedder.embed(image) for image in part]) for part in (images.bank, images.good, images.drawn)
        ]
        results.append(score(*rows, (spec.grid_height, spec.grid_width), images.masks, seed))
    return results[0], results[1]


def on_test_images(product: Path, backbone: str, side: int | None, seed: int) -> Pair:
    """side None: fit as it comes; else the reproduction run."""
    groups = product / "groups.csv"
    if side is None:
        options = FitOptions(backbone, seed=seed, groups=groups if groups.exists() else None)
    else:
        bank = BankSize(ratio=0.1)
        options = FitOptions(backbone, coreset="random", bank=bank, holdout=0, seed=seed, size=side)
    resolution: str | int = "mask" if side is None else side
    reports = [run(product, FitOptions(**{**vars(options), "adapt": on}), resolution) for on in (False, True)]
    plain, adapted = ([float(getattr(report, metric)) for metric in METRICS] for report in reports)
    return plain, adapted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("drawn", "test", "default"))
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE, help="embedded")
    parser.add_argument("--products", nargs="+", default=[*REAL, *DRAWN])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    side = None if options.what == "default" else options.size
    judge: Callable[..., Pair] = on_drawn_defects if options.what == "drawn" else on_test_images
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
