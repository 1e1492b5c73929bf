"""What weighing distances by position is worth, by the exponent of the weights.

    python benchmarks/position_study.py drawn      drawn defects on training images (the protocol of feature_study.py)
    python benchmarks/position_study.py test       the same by exponent on the test sets, as `fit` comes otherwise
    python benchmarks/position_study.py default    `onceover fit --no-position-weights`, and `fit` as it comes
    python benchmarks/position_study.py tiles      the same with 2 x 2 tiles

Image AUROC / pixel AUROC / AUPRO(0.3). fabric and flange are the demo's products. In "drawn" embeddings are adapted to
the product, at the size that fit chooses for both real ones; means over seeds.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from bench_accuracy import METRICS, run
from bench_adapt import DRAWN, REAL, SHARED, groups_of
from feature_study import BLUR_SIGMA, judged
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from onceover import MemoryBank, _core, metrics
from onceover.detectors.detector import no_progress
from onceover.images import write_image
from onceover.runtime.assemble import config_of
from onceover.runtime.graph import DEFAULT_BACKBONE, load_graph, resize
from onceover.runtime.session import EngineOptions
from onceover.training.adapting import study
from onceover.training.dataset import Sample
from onceover.training.demo_products import Counts, draw_products
from onceover.training.field import TilingOptions
from onceover.training.fit import FitOptions, fit
from onceover.training.position_weights import PRIOR_IMAGES, measure
from onceover.types import Verdict

EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
EXPONENT = 0.5  # the root: what the product takes
SIDE, BANK_RATIO = 384, 0.1

Scores = NDArray[np.float64]  # (exponents, 3)


def on_drawn_defects(product: Path, seed: int) -> Scores:
    """Half of train/good makes the bank, is adapted to and tells the weights; the other half is judged."""
    images = judged(str(product), SIDE, seed)
    graph, spec = resize(*load_graph(DEFAULT_BACKBONE), SIDE, SIDE)
    engine, config = EngineOptions("onnxruntime").resolve(), config_of(spec, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{i:03}.png") for i in range(len(images.bank))]
        for path, image in zip(paths, images.bank, strict=True):
            write_image(path, image)
        matrix = study(paths, graph, config, engine, seed).of_all.matrix
    embedder = _core.Embedder(config, graph, engine)
    normal, good, bad = (
        np.stack([_core.adapt(embedder.embed(image), matrix) for image in part])
        for part in (images.bank, images.good, images.drawn)
    )
    patches = normal.shape[1]
    rows = np.random.default_rng(seed).permutation(len(normal) * patches)[: int(BANK_RATIO * len(normal) * patches)]
    bank = np.ascontiguousarray(normal.reshape(-1, normal.shape[2])[rows])
    grid = (spec.grid_height, spec.grid_width)
    parts = [str(i) for i in range(len(normal))]
    found = measure(bank, rows // patches, parts, lambda i: normal[i], np.arange(patches), grid, seed, no_progress)
    assert found is not None
    mean = found.distances.mean(axis=0, dtype=np.float64)
    mean = (len(found.distances) * mean + PRIOR_IMAGES * mean.mean()) / (len(found.distances) + PRIOR_IMAGES)
    index = MemoryBank.build(bank)
    maps = [index.search(each)[0].reshape(grid) for each in (*good, *bad)]
    labels = [False] * len(good) + [True] * len(bad)
    masks = [None] * len(good) + list(images.masks)
    return np.array([judge(maps, (mean.mean() / mean) ** exponent, labels, masks) for exponent in EXPONENTS])


def by_exponent(product: Path, seed: int) -> Scores:
    """On the test set: the package's distances, weighed by more or less than what `fit` learned."""
    options = FitOptions(DEFAULT_BACKBONE, seed=seed, groups=groups_of(product))
    parts = fit(product, options)
    roots, seen = parts.position_weights, parts.spec.preprocessing  # (h, w)
    assert roots is not None
    weights = [roots.astype(np.float64) ** (exponent / EXPONENT) for exponent in EXPONENTS]
    scores: list[list[float]] = [[] for _ in weights]
    labels: list[bool] = []
    pixels = [metrics.SegmentationMetrics() for _ in weights]

    def observe(sample: Sample, _image: Any, mask: Any, verdict: Verdict) -> None:
        labels.append(bool(sample.label))
        for each, kept, pixel in zip(weights, scores, pixels, strict=True):
            weighed = (verdict.patch_scores * each).astype(np.float32)
            kept.append(float(weighed.max()))
            drawn = _core.draw_anomaly_map(weighed, seen.height, seen.width, BLUR_SIGMA)
            pixel.update(_core.resize_map(drawn, *verdict.anomaly_map.shape), mask)

    run(product, replace(options, position_weights=False), "mask", observe)
    found = [each.compute((0.3,)) for each in pixels]
    return np.array(
        [[metrics.image_auroc(s, labels), f.pixel_auroc, f.aupro[0.3]] for s, f in zip(scores, found, strict=True)]
    )


def judge(
    maps: list[NDArray[np.float32]],
    weights: NDArray[np.float64],
    labels: list[bool],
    masks: list[NDArray[np.bool_] | None],
) -> list[float]:
    pixels = metrics.SegmentationMetrics()
    for each, mask in zip(maps, masks, strict=True):
        large = cv2.resize((each * weights).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        pixels.update(cv2.GaussianBlur(large, (0, 0), BLUR_SIGMA), mask)
    found = pixels.compute((0.3,))
    image_auroc = metrics.image_auroc([float((each * weights).max()) for each in maps], labels)
    return [image_auroc, found.pixel_auroc, found.aupro[0.3]]


def on_test_images(product: Path, seed: int, tiling: TilingOptions | None) -> tuple[list[float], list[float]]:
    """Plain and weighed."""
    options = FitOptions(DEFAULT_BACKBONE, seed=seed, groups=groups_of(product), tiling=tiling)
    reports = [run(product, replace(options, position_weights=on), "mask") for on in (False, True)]
    plain, weighed = ([float(getattr(report, metric)) for metric in METRICS] for report in reports)
    return plain, weighed


def told(values: NDArray[np.float64] | list[float]) -> str:
    return " / ".join(f"{value:.3f}" for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("drawn", "test", "default", "tiles"))
    parser.add_argument("--products", nargs="+", default=[*REAL, *DRAWN])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    judges = {"drawn": on_drawn_defects, "test": by_exponent}
    by = judges.get(options.what)
    tiling = TilingOptions(tiles=(2, 2)) if options.what == "tiles" else None
    table = Table(title=f"{DEFAULT_BACKBONE}, {options.what}, {options.seeds} seeds")
    for column in ("product", *([f"^{each}" for each in EXPONENTS] if by else ("plain", "weighed"))):
        table.add_column(column)
    with tempfile.TemporaryDirectory() as folder:
        if set(options.products) & set(DRAWN):
            draw_products(Path(folder), 0, Counts(train=60))
        for name in track(options.products, "weighing", console=Console(stderr=True)):
            product = SHARED / "data" / name if name in REAL else Path(folder, name)
            seeds = range(options.seeds)
            if by:
                means = np.mean([by(product, seed) for seed in seeds], axis=0)
            else:
                means = np.mean([on_test_images(product, seed, tiling) for seed in seeds], axis=0)
            table.add_row(name, *map(told, means))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
