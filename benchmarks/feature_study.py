"""What makes small features good for anomaly detection, judged on normal training images with drawn defects only.

    python benchmarks/feature_study.py teacher       # how the teacher looks: input size, mirrors; projection
    python benchmarks/feature_study.py student       # of an embedded backbone: aggregation, stages, whitening, mirrors
    python benchmarks/feature_study.py sizes         # the same backbone at larger inputs

No test image is read. Per data set: half of train/good makes the memory bank (random tenth), the other half is judged,
each image as it is and with a drawn defect (`export.judging_images.draw_defect`); mean of image AUROC, pixel AUROC and
AUPRO over seeds of bank and defects.
"""

from __future__ import annotations

import argparse
import importlib.resources
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from onceover import MemoryBank, _core, metrics
from onceover.backbones import create_backbone
from onceover.backbones.backbone import normalize
from onceover.backbones.patch_embedding import join_stages
from onceover.export.judging_images import draw_defect
from onceover.images import list_images, read_image
from onceover.runtime.graph import DEFAULT_BACKBONE

SHARED = Path(__file__).resolve().parents[2] / "shared"
WEIGHTS = SHARED / "weights" / "mobilenetv2_imagenet.safetensors"
DATASETS = ("magnetic_tile", "pcb")
BANK_IMAGES, JUDGED_IMAGES = 60, 30  # at most
BLUR_SIGMA = 4.0  # pixels, the product's default

Results = dict[str, list[float]]  # tile, PCB, their mean
Stages = list[Tensor]  # (B, C, h, w) each, finest first
See = Callable[[Tensor], Stages]  # (B, 3, H, W) uint8 → stages


@dataclass(frozen=True)
class Judged:
    """One data set at one seed; images (N, H, W, 3) uint8, masks (M, H, W) bool of the drawn defects in `drawn`."""

    bank: NDArray[np.uint8]
    good: NDArray[np.uint8]
    drawn: NDArray[np.uint8]
    masks: NDArray[np.bool_]


@lru_cache(maxsize=8)
def judged(dataset: str, side: int, seed: int) -> Judged:
    """Prepared at side x side, as the product resizes."""
    paths = list_images(SHARED / "data" / dataset / "train" / "good")
    order = np.random.default_rng(seed).permutation(len(paths))
    half = len(paths) // 2
    bank, rest = order[:half][:BANK_IMAGES], order[half:][:JUDGED_IMAGES]
    rng = np.random.default_rng(1000 + seed)
    good, drawn, masks = [], [], []
    for index in rest:
        image = color(read_image(paths[index]))
        damaged, mask = draw_defect(rng, image)
        good.append(_core.resize(image, side, side))
        drawn.append(_core.resize(np.ascontiguousarray(damaged), side, side))
        masks.append(cv2.resize(mask.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST) > 0)
    kept = [index for index, mask in enumerate(masks) if mask.any()]
    return Judged(
        np.stack([_core.resize(color(read_image(paths[index])), side, side) for index in bank]),
        np.stack(good),
        np.stack([drawn[index] for index in kept]),
        np.stack([masks[index] for index in kept]),
    )


def color(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2))


def batches(images: NDArray[np.uint8], size: int = 8) -> Iterator[Tensor]:
    for start in range(0, len(images), size):
        yield torch.from_numpy(images[start : start + size]).permute(0, 3, 1, 2)  # (B, H, W, 3) → (B, 3, H, W)


def seen_by(see: See, images: NDArray[np.uint8]) -> Stages:
    with torch.inference_mode():
        parts = [see(batch) for batch in batches(images)]
    return [torch.cat(stage) for stage in zip(*parts, strict=True)]


Rows = NDArray[np.float32]  # (N, P, D): patch embeddings
Adapt = Callable[[Rows], Callable[[Rows], Rows]]  # from the bank's


def as_they_are(bank: Rows) -> Callable[[Rows], Rows]:
    return lambda rows: rows


def nearest_differences(bank: Rows, count: int, seed: int = 0) -> Rows:
    """(count, D): patches minus their nearest ones of other images: how normal parts differ."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(bank))
    first, second = bank[order[::2]], bank[order[1::2]]
    flat = np.ascontiguousarray(second.reshape(-1, bank.shape[2]))
    kept = np.ascontiguousarray(flat[rng.choice(len(flat), min(len(flat), 8000), replace=False)])
    queries = first.reshape(-1, bank.shape[2])
    queries = np.ascontiguousarray(queries[rng.choice(len(queries), min(len(queries), count), replace=False)])
    _, rows = MemoryBank.build(kept).search(queries, k=1)
    return queries - kept[rows[:, 0]]


def whitened(shrinkage: float, power: float = 0.5) -> Adapt:
    """Divides by how normal parts differ: (covariance of nearest differences, shrunk) to the power of -`power`."""

    def fit(bank: Rows) -> Callable[[Rows], Rows]:
        differences = nearest_differences(bank, 8000).astype(np.float64)
        covariance = differences.T @ differences / len(differences)
        values, vectors = np.linalg.eigh(covariance)
        weights = ((1 - shrinkage) * values + shrinkage * values.mean()) ** -power
        matrix = (vectors * weights @ vectors.T).astype(np.float32)
        return lambda rows: rows @ matrix

    return fit


def score(
    bank: Rows, good: Rows, drawn: Rows, grid: tuple[int, int], masks: NDArray[np.bool_], seed: int
) -> list[float]:
    """PatchCore with a random tenth of the patches: the three metrics."""
    rows = bank.reshape(-1, bank.shape[2])
    chosen = np.random.default_rng(seed).choice(len(rows), len(rows) // 10, replace=False)
    memory = MemoryBank.build(np.ascontiguousarray(rows[np.sort(chosen)]))
    maps, scores = [], []
    for patches in (good, drawn):
        distances, _ = memory.search(np.ascontiguousarray(patches.reshape(-1, patches.shape[2])), k=1)
        for patch_scores in distances.reshape(len(patches), *grid):
            image = cv2.resize(patch_scores, masks.shape[:0:-1], interpolation=cv2.INTER_LINEAR)
            maps.append(cv2.GaussianBlur(image, (0, 0), BLUR_SIGMA))
            scores.append(float(patch_scores.max()))
    labels = np.repeat([0, 1], [len(good), len(drawn)])
    every_mask = np.concatenate([np.zeros((len(good), *masks.shape[1:]), bool), masks])
    return [
        metrics.image_auroc(scores, labels),
        metrics.pixel_auroc(maps, every_mask),
        metrics.aupro(maps, every_mask),
    ]


@dataclass(frozen=True)
class Variant:
    """What is done with stages (B, C, h, w) before they are pooled and joined, and with the joined patches."""

    stages: Callable[[Stages], Stages] = lambda stages: stages
    aggregation: int = 3
    adapt: Adapt = as_they_are


def study(see: See, side: int, seeds: range, variants: dict[str, Variant]) -> dict[str, list[float]]:
    """Variant → tile and PCB: the mean of the three metrics over the seeds, and their mean."""
    found: dict[str, list[list[list[float]]]] = {name: [] for name in variants}
    for dataset in DATASETS:
        results: dict[str, list[list[float]]] = {name: [] for name in variants}
        for seed in seeds:
            images = judged(dataset, side, seed)
            parts = [seen_by(see, part) for part in (images.bank, images.good, images.drawn)]
            for name, variant in variants.items():
                stages = [variant.stages(part) for part in parts]
                rows = [join_stages(part, variant.aggregation).numpy() for part in stages]  # (N, P, D)
                transform = variant.adapt(rows[0])
                h, w = stages[0][0].shape[2:]
                results[name].append(score(*(transform(part) for part in rows), (h, w), images.masks, seed))
        for name in variants:
            found[name].append(results[name])
    return {name: [float(np.mean(part)) for part in (*value, value)] for name, value in found.items()}


class TeacherView:
    """The shared MobileNetV2 looking at an enlarged image, its answers averaged over mirrors."""

    def __init__(self, enlarge: float = 1.0, mirrors: int = 1, strides: Sequence[int] = (8, 16)) -> None:
        self.backbone = create_backbone("mobilenetv2", WEIGHTS, tuple(strides)).eval()
        self.backbone.to(memory_format=torch.channels_last)
        self.enlarge, self.mirrors = enlarge, mirrors

    def __call__(self, pixels: Tensor) -> Stages:
        x = normalize(pixels, self.backbone.normalization)
        if self.enlarge != 1:
            x = F.interpolate(x, scale_factor=self.enlarge, mode="bicubic", align_corners=False)
        total: Stages = []
        for dims in ([], [3], [2], [2, 3])[: self.mirrors]:
            seen = self.backbone(x.flip(dims) if dims else x)
            back = [stage.flip(dims) if dims else stage for stage in seen]
            total = back if not total else [a + b for a, b in zip(total, back, strict=True)]
        return [stage / self.mirrors for stage in total]


def projection(generic: Stages, counts: Sequence[int], weights: Sequence[float]) -> Callable[[Stages], Stages]:
    """Standardized by `generic` stages, then onto their leading directions, `weights` times a mean variance of 1."""
    moments = [(stage.mean((0, 2, 3), keepdim=True), stage.std((0, 2, 3), keepdim=True) + 1e-6) for stage in generic]
    matrices = []
    for stage, (mean, std), count, weight in zip(generic, moments, counts, weights, strict=True):
        cells = ((stage - mean) / std).transpose(0, 1).flatten(1)  # (B, C, h, w) → (C, B·h·w)
        values, vectors = torch.linalg.eigh(torch.cov(cells.double()))
        best = values.argsort(descending=True)[:count]
        matrices.append((vectors[:, best] * weight / values[best].mean().sqrt()).float())
    return lambda stages: [
        torch.einsum("bchw,cd->bdhw", (stage - mean) / std, matrix)
        for stage, (mean, std), matrix in zip(stages, moments, matrices, strict=True)
    ]


def student(name: str) -> See:
    """An embedded backbone, in torch."""
    weights = importlib.resources.files("onceover").joinpath("embedded", f"{name}.safetensors")
    backbone = create_backbone(name, Path(str(weights))).eval()
    return lambda pixels: backbone(normalize(pixels, backbone.normalization))


def mirrored(see: See) -> See:
    """The mean over four mirrored views, turned back."""

    def mean(pixels: Tensor) -> Stages:
        views = [
            [stage.flip(dims) if dims else stage for stage in see(pixels.flip(dims) if dims else pixels)]
            for dims in ([], [3], [2], [2, 3])
        ]
        return [torch.stack(stages).mean(0) for stages in zip(*views, strict=True)]

    return mean


def weighted(*weights: float) -> Variant:
    return Variant(lambda stages: [stage * weight for stage, weight in zip(stages, weights, strict=True)])


def of_the_teacher(seeds: range) -> Results:
    generic = np.concatenate([judged(name, 256, 99).bank[:8] for name in DATASETS])
    rows: Results = {}
    for label, look in {
        "as it is": TeacherView(),
        "2 mirrors": TeacherView(mirrors=2),
        "1.5 x": TeacherView(1.5, 1, (16, 32)),
        "2 x": TeacherView(2, 1, (16, 32)),
        "2 x, 2 mirrors": TeacherView(2, 2, (16, 32)),
    }.items():
        variants = {"": Variant()}
        if label == "2 x, 2 mirrors":
            seen = seen_by(look, generic)
            counts = ((32, 96), (64, 96), (48, 80))
            variants |= {f", components {a} + {b}": Variant(projection(seen, (a, b), (1, 1))) for a, b in counts}
        rows |= {label + name: found for name, found in study(look, 256, seeds, variants).items()}
    return rows


def of_the_student(name: str, seeds: range) -> Results:
    see = student(name)
    variants = {
        "as it is": Variant(),
        "aggregation 1": Variant(aggregation=1),
        "aggregation 5": Variant(aggregation=5),
        "stage of stride 16 x 0.6": weighted(1, 0.6),
        "stage of stride 16 x 1.6": weighted(1, 1.6),
        "whitened by how normals differ, shrunk 0.1": Variant(adapt=whitened(0.1)),
        "whitened, shrunk 0.3": Variant(adapt=whitened(0.3)),
        "half whitened, shrunk 0.1": Variant(adapt=whitened(0.1, 0.25)),
    }
    rows = study(see, 256, seeds, variants)
    return rows | {"mean of 4 mirrors": study(mirrored(see), 256, seeds, {"": Variant()})[""]}


def of_sizes(name: str, seeds: range) -> Results:
    see = student(name)
    return {f"input {side}": study(see, side, seeds, {"": Variant()})[""] for side in (256, 384, 512)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("teacher", "student", "sizes"))
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE, help="embedded")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(options.seeds)
    if options.what == "teacher":
        rows = of_the_teacher(seeds)
    else:
        rows = (of_the_student if options.what == "student" else of_sizes)(options.backbone, seeds)
    table = Table(title=f"{options.what}: mean of three metrics at drawn defects, {options.seeds} seeds")
    for column in (options.what, *DATASETS, "mean"):
        table.add_column(column)
    for label, values in rows.items():
        table.add_row(label, *(f"{value:.3f}" for value in values))
    Console().print(table)


if __name__ == "__main__":
    main()
