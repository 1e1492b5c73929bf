"""Tiles of a large image: are seams seen in the scores, is a small defect found on a seam, what does a frame cost?

    python benchmarks/tile_study.py [--frames 8]

Frames of 2592 x 1944 pixels of a drawn texture; the defect is a faint disc of 10 pixels. Every merge rule gets the same
tile scores: the least (what csrc/image/tiling.h does), the mean weighted by depth, and that of the deeper tile.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from onceover import _core
from onceover.runtime.assemble import config_of
from onceover.runtime.graph import load_graph, resize
from onceover.runtime.session import EngineOptions
from onceover.training.field import TilingOptions
from onceover.types import Tiling

HEIGHT, WIDTH, SIDE = 1944, 2592, 256
DEFECT = 10
OVERLAPS = (0.0, 0.0625, 0.125, 0.25)
RULES = ("mean", "least", "deeper")
Map = NDArray[np.float32]


def texture(seed: int) -> NDArray[np.uint8]:
    """(H, W, 3): ground sheet metal: streaks, blotches and grain, with nothing at any seam."""
    random = np.random.default_rng(seed)
    streaks = cv2.GaussianBlur(random.normal(0, 1, (HEIGHT, WIDTH)).astype(np.float32), (0, 0), 40, sigmaY=1.2)
    blotches = cv2.resize(
        random.normal(0, 1, (41, 54)).astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC
    )
    grain = random.normal(0, 1, (HEIGHT, WIDTH)).astype(np.float32)
    gray = 128 + 9 * streaks / streaks.std() + 6 * blotches + 3 * grain
    return np.repeat(np.clip(np.rint(gray), 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def spotted(image: NDArray[np.uint8], y: float, x: float, size: int = DEFECT) -> NDArray[np.uint8]:
    """With a dark disc, `size` pixels across, centered at (y, x)."""
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    inside = (rows - y) ** 2 + (columns - x) ** 2 <= (size / 2) ** 2
    changed = image.astype(np.int16)
    changed[inside] -= 45
    return np.clip(changed, 0, 255).astype(np.uint8)


@dataclass
class Network:
    """The embedded backbone over tiles, and a memory bank of the frames it was given."""

    tiling: Tiling

    def __post_init__(self) -> None:
        self.graph, self.spec = resize(*load_graph("emo_1m"), SIDE, SIDE)
        self.config = config_of(self.spec, 4.0, self.tiling)
        self.embedder = _core.Embedder(self.config, self.graph, EngineOptions().resolve())
        self.grid = (self.spec.grid_height, self.spec.grid_width)

    def learn(self, seeds: range, rows: int = 4000) -> None:
        found = np.concatenate([self.embedder.embed(texture(seed)) for seed in track(seeds, "learning")])
        # As fit does: farthest points of a projection, so that the rare patches at a tile's edge are covered, too.
        projection = np.random.default_rng(0).standard_normal((found.shape[1], 32)) / np.sqrt(32)
        selection = _core.GreedyCoreset(np.ascontiguousarray(found @ projection.astype(np.float32)), 0)
        selection.select(rows)
        self.bank = _core.MemoryBank(np.ascontiguousarray(found[selection.selected]))

    def tile_scores(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(tiles, h, w)"""
        scores = self.bank.search(self.embedder.embed(image))[0]
        return scores.reshape(-1, *self.grid)

    def merged(self, scores: NDArray[np.float32], rule: str) -> Map:
        """(tiles, h, w) → the grid of all, by any of RULES."""
        cells = self.config.cells_of(np.arange(self.config.feature_count)).reshape(scores.shape)
        height, width = self.config.cells
        weight = np.stack([self._weight(tile) for tile in range(len(scores))])
        if rule == "mean":
            return np.bincount(cells.ravel(), (weight * scores).ravel(), height * width).reshape(height, width)
        merged, best = np.full(height * width, np.inf), np.full(height * width, -1.0)
        for tile in range(len(scores)):
            at, value, depth = cells[tile].ravel(), scores[tile].ravel(), weight[tile].ravel()
            if rule == "least":
                merged[at] = np.minimum(merged[at], value)
            else:
                merged[at] = np.where(depth > best[at], value, merged[at])
                best[at] = np.maximum(best[at], depth)
        return merged.reshape(height, width)

    def _weight(self, tile: int) -> Map:
        t = self.tiling
        down = _ramp(tile // t.columns, t.rows, t.overlap_rows, self.grid[0])
        return np.outer(down, _ramp(tile % t.columns, t.columns, t.overlap_columns, self.grid[1]))


def _ramp(index: int, tiles: int, overlap: int, patches: int) -> Map:
    weight = np.ones(patches)
    rising = (np.arange(overlap) + 0.5) / max(overlap, 1)
    if index > 0:
        weight[:overlap] = rising
    if index + 1 < tiles:
        weight[patches - overlap :] = rising[::-1]
    return weight


def seams(tiling: Tiling, grid: tuple[int, int]) -> tuple[list[float], list[float]]:
    """Middles of the overlaps, in cells from the top and from the left."""
    rows = [i * (grid[0] - tiling.overlap_rows) + tiling.overlap_rows / 2 for i in range(1, tiling.rows)]
    columns = [i * (grid[1] - tiling.overlap_columns) + tiling.overlap_columns / 2 for i in range(1, tiling.columns)]
    return rows, columns


def study_overlap(overlap: float, frames: int) -> None:
    spec = resize(*load_graph("emo_1m"), SIDE, SIDE)[1]
    tiling = TilingOptions(tiles=(3, 4), overlap=overlap).resolve(spec, (HEIGHT, WIDTH))
    network = Network(tiling)
    network.learn(range(frames))
    height, width = network.config.cells
    rows, columns = seams(tiling, network.grid)
    y, x = np.mgrid[:height, :width] + 0.5
    to_seam = np.minimum(np.min([abs(y - at) for at in rows], axis=0), np.min([abs(x - at) for at in columns], axis=0))
    near, far = to_seam <= 1, to_seam > max(tiling.overlap_columns, 2)
    level: dict[str, list[float]] = {rule: [] for rule in RULES}
    sigmas: dict[str, list[float]] = {rule: [] for rule in RULES}
    found: dict[str, list[float]] = {rule: [] for rule in RULES}
    for seed in track(range(1000, 1000 + frames), f"overlap {overlap}"):
        image = texture(seed)
        plain = network.tile_scores(image)
        random = np.random.default_rng(seed)
        for rule in RULES:
            scores = network.merged(plain, rule)
            level[rule].append(scores[near].mean() / scores[far].mean() - 1)
            sigmas[rule].append((scores[near].mean() - scores[far].mean()) / scores[far].std())
        for _ in range(3):
            on = np.array([random.uniform(40, HEIGHT - 40), columns[random.integers(len(columns))] / width * WIDTH])
            off = np.array([0.5 * HEIGHT / 3 + random.uniform(-60, 60), 0.5 * WIDTH / 4 + random.uniform(-60, 60)])
            on += random.uniform(-8, 8, 2)
            tall, flat = (network.tile_scores(spotted(image, *at)) for at in (on, off))
            for rule in RULES:
                on_seam, in_tile = (_peak(network.merged(s, rule), at) for s, at in ((tall, on), (flat, off)))
                found[rule].append(on_seam / in_tile)
    for rule in RULES:
        print(
            f"| {overlap:g} ({tiling.overlap_columns}) | {rule} | {100 * np.mean(level[rule]):+.1f} %, "
            f"{np.mean(sigmas[rule]):+.2f} σ | "
            f"{np.median(found[rule]):.2f} ({np.min(found[rule]):.2f} to {np.max(found[rule]):.2f}) |"
        )


def _peak(scores: Map, at: NDArray[np.float64]) -> float:
    """The largest score within two cells of a place in pixels."""
    height, width = scores.shape
    row, column = int(at[0] / HEIGHT * height), int(at[1] / WIDTH * width)
    return float(scores[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3].max())


def study_size(frames: int) -> None:
    """How large a defect must be in pixels of the network input."""
    for tiles in ((1, 1), (2, 2), (3, 4), (4, 5), (8, 9)):
        spec = resize(*load_graph("emo_1m"), SIDE, SIDE)[1]
        tiling = TilingOptions(tiles=tiles).resolve(spec, (HEIGHT, WIDTH))
        network = Network(tiling)
        network.learn(range(frames), rows=min(4000, frames * network.config.feature_count // 4))
        highest, peaks = [], []
        for seed in track(range(1000, 1000 + frames), f"tiles {tiles}"):
            image = texture(seed)
            highest.append(float(network.merged(network.tile_scores(image), "least").max()))
            at = np.random.default_rng(seed).uniform(80, HEIGHT - 80, 2)
            peaks.append(_peak(network.merged(network.tile_scores(spotted(image, *at)), "least"), at))
        pixels = DEFECT * network.config.map_size[1] / WIDTH
        began = time.process_time()
        network.tile_scores(image)
        milliseconds = 1000 * (time.process_time() - began)
        beyond = np.mean([peak > max(highest) for peak in peaks])
        print(
            f"| {tiles[0]} x {tiles[1]} | {pixels:.1f} | {np.median(peaks) / np.median(highest):.2f} | {beyond:.0%} | "
            f"{milliseconds:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--overlaps", type=float, nargs="*", default=OVERLAPS)
    options = parser.parse_args()
    frames = options.frames
    print("| overlap (patches) | rule | level at seams, σ of a patch | defect on a seam / in a tile |")
    print("| --- | --- | --- | --- |")
    for overlap in options.overlaps:
        study_overlap(overlap, frames)
    print("\n| tiles | defect, input pixels | its score / highest of a good frame | beyond all good | CPU ms |")
    print("| --- | --- | --- | --- | --- |")
    study_size(frames)


if __name__ == "__main__":
    main()
