"""`python tests/fuzz_seeds.py FOLDER` writes the seed corpus of fuzz_package.cpp: small packages of every kind.

They hold no graph worth the name, because the target runs no engine. The same bytes every time.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceover import _core
from onceover.training.calibration_patches import HeldOutPatches

HEIGHT, WIDTH, GRID = 16, 24, (2, 3)
FORMATS: tuple[tuple[type[Any], tuple[int, ...], str], ...] = (
    (np.uint8, (), "rgb"), (np.uint8, (3,), "rgb"), (np.uint8, (3,), "bgr"), (np.uint8, (4,), "rgb"),
    (np.uint16, (), "rgb"), (np.uint16, (3,), "bgr"), (np.uint16, (4,), "bgr"),
)  # fmt: skip


@dataclass(frozen=True)
class Seed:
    """One package. index: representation of the bank's search index, None for none. images: of the parity record."""

    dims: int = 8
    rows: int = 12
    index: str | None = None
    ranks: tuple[int, int] = (0, 0)
    images: int = 1
    calibrated: bool = True
    field: bool = False  # with tiles, a region of interest and a gate
    products: int = 1
    patches: bool = False  # with what corrections calibrate by again


SEEDS = {
    "plain": Seed(),
    "uncalibrated": Seed(dims=2, calibrated=False, images=0),
    "every_pixel_format": Seed(dims=2, images=len(FORMATS)),
    "scan": Seed(index="scan"),
    "rank": Seed(dims=60, rows=26, index="rank", ranks=(64, 64)),
    "full": Seed(dims=9, rows=40, index="full"),
    "tiles_roi_gate": Seed(dims=2, field=True),
    "products": Seed(dims=2, field=True, products=2, patches=True),
    "calibration_patches": Seed(dims=2, patches=True),
}


def config_of(seed: Seed) -> _core.Config:
    return _core.Config(
        height=HEIGHT, width=WIDTH, mean=(0.5, 0.4, 0.3), std=(0.25, 0.5, 0.2), grid_height=GRID[0],
        grid_width=GRID[1], embedding_dim=seed.dims, blur_sigma=1.0,
        tiling=(2, 1, 1, 0) if seed.field else (1, 1, 0, 0),
    )  # fmt: skip


def parity_of(seed: Seed) -> bytes:
    random = np.random.default_rng(2)
    items = []
    for kind, channels, color in FORMATS[: seed.images]:
        image = random.integers(0, np.iinfo(kind).max, (9, 11, *channels), dtype=kind)
        patch_scores = random.random(config_of(seed).cells, np.float32)
        anomaly_map = random.random(config_of(seed).map_size, np.float32)
        items.append(_core.ParityItem(image, color, 1.5, 1, patch_scores, anomaly_map))
    return _core.parity_bytes(items, config_of(seed), 1e-4, 8)


def calibration_of(seed: Seed) -> bytes:
    scores = np.linspace(1, 3, 19, dtype=np.float32) if seed.calibrated else np.zeros(0, np.float32)
    threshold = 3.0 if seed.calibrated else float("inf")
    return _core.calibration_bytes(
        calibrated=seed.calibrated, false_alarm_rate=0.05 if seed.calibrated else 0.0, threshold=threshold,
        map_threshold=threshold, scores=scores, map_maxima=scores, image_count=len(scores),
    )  # fmt: skip


def patches_of(seed: Seed) -> NDArray[np.uint8]:
    random, count, tracked = np.random.default_rng(3), 19, 2
    height, width = config_of(seed).cells
    patches = height * width
    return HeldOutPatches(
        parts=np.arange(count, dtype=np.uint32), distances=random.random((count, patches), np.float32),
        nearest=random.integers(0, seed.rows, (count, patches), dtype=np.uint32),
        patches=np.tile(np.arange(tracked, dtype=np.uint32), (count, 1)),
        embeddings=random.normal(size=(count, tracked, seed.dims)).astype(np.float32),
    ).to_array()  # fmt: skip


def seed_bytes(seed: Seed) -> bytes:
    bank = np.random.default_rng(1).normal(size=(seed.rows, seed.dims)).astype(np.float32)
    bank[-1] = bank[0]  # a copy, which an index lists
    writer = _core.PackageWriter()
    writer.add("config", config_of(seed).to_bytes())
    writer.add("manifest.json", b'{"name": "seed"}', required=False)
    writer.add("graph.onnx", b"no graph")
    if seed.products > 1:
        writer.add("products", _core.products_bytes([f"product {i}" for i in range(seed.products)]))
    for product in range(seed.products):
        suffix = f".{product}" if product > 0 else ""
        writer.add(f"calibration{suffix}", calibration_of(seed))
        writer.add(f"memory_bank{suffix}", bank)
        if seed.index is not None:
            rank1, rank2 = seed.ranks
            made = _core.MemoryBank(bank, representation=seed.index, rank1=rank1, rank2=rank2)
            writer.add(f"bank_index{suffix}", np.frombuffer(made.index_bytes(), np.uint8), required=False)
        writer.add(f"parity{suffix}", parity_of(seed))
        if seed.field:
            mean, weights = np.zeros(seed.dims, np.float32), np.ones(2, np.float32)
            axes = np.eye(2, seed.dims, dtype=np.float32)
            gate = _core.gate_bytes(mean=mean, weights=weights, axes=axes, isotropic=0.5, threshold=3.0, part_count=9)
            writer.add(f"roi{suffix}", np.tri(3, 5, 1, dtype=np.uint8))
            weights_of_cells = np.random.default_rng(4).uniform(0.5, 2, config_of(seed).cells).astype(np.float32)
            writer.add(f"position_weights{suffix}", weights_of_cells)
            writer.add(f"gate{suffix}", gate, required=False)
        if seed.patches:
            writer.add(f"calibration_patches{suffix}", patches_of(seed), required=False)
    return writer.bytes()


def write_seeds(folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in SEEDS]
    for path, seed in zip(paths, SEEDS.values(), strict=True):
        path.write_bytes(seed_bytes(seed))
    return paths


if __name__ == "__main__":
    write_seeds(Path(sys.argv[1]))
