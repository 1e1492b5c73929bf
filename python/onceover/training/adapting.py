"""`fit --adapt`: a linear map behind the network, learned from the product's own normal images. No torch, no labels.

Distances between patch embeddings count all directions alike, also those in which good parts differ among each other.
With W the covariance of how normal patches differ from their nearest ones in other images, and B that of how
x · W^-1/2 moves when damage is drawn into the same image (`training.damage`), embeddings x become

    x · W^-1/2 · B^1/2

so that what good parts do is small and what damage does is large. The first factor is relevant component analysis
(Bar-Hillel et al. 2005, JMLR 6), which alone was a loss on some products; the second is Fisher's between-class scatter
with drawn damage in the place of a second class. Every kind of damage counts alike in B, however far it moves patches:
else what the network sees best anyway would drown the rest. Both are shrunk towards the identity. What it is worth:
benchmarks/README.md; only images of the memory bank are read, none that calibrates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceover import _core
from onceover.detectors.detector import Progress, no_progress
from onceover.errors import InputError, UsageError
from onceover.images import read_image, to_rgb8
from onceover.memory_bank import MemoryBank
from onceover.runtime.assemble import config_of
from onceover.runtime.graph import read_graph_spec
from onceover.runtime.linear_end import with_matrix
from onceover.training.damage import KINDS, draw_damage
from onceover.types import GraphSpec

MIN_IMAGES = 8  # below, what two images share by chance is taken for what all good parts do
MAX_IMAGES = 60  # evenly from all; more change the matrix little
VIEWS = 2  # damaged copies of each image
TOUCHED = 0.25  # share of a patch's cell that damage must cover
NEIGHBORS = 8000  # patches that are compared with as many of other images
W_SHRINKAGE, B_SHRINKAGE = 0.3, 0.1  # towards the identity of the same trace
CONSTANT = "adaptation"  # the name of the matrix in the graph

Rows = NDArray[np.float32]  # (N, D)
Matrix = NDArray[np.float64]  # (D, D)


@dataclass(frozen=True)
class Adaptation:
    """graph: the adapted one. record: for the manifest; contrast is, for every kind of damage, the mean squared move of
    a damaged patch over the mean squared difference between normal ones, before and after."""

    graph: bytes
    record: dict[str, Any]


def adapt(
    graph: bytes,
    spec: GraphSpec,
    images: Sequence[Path],
    seed: int,
    engine: _core.EngineOptions,
    progress: Progress = no_progress,
) -> Adaptation:
    """Learn the map from `images` of good parts and write it behind the network, whatever network it is.

    The same images in the same order, seed, engine and machine give the same bytes. Raises UsageError for fewer than
    MIN_IMAGES images, InputError for unreadable or equal ones and for a graph that is adapted already, EngineError.
    """
    if len(images) < MIN_IMAGES:
        raise UsageError(
            f"adapting learns how good parts differ, from the {len(images)} images of the memory bank, which are too "
            f"few: give {MIN_IMAGES} or more, hold out fewer (--holdout), or leave out --adapt"
        )
    chosen = images[:: -(-len(images) // MAX_IMAGES)]
    rng = np.random.Generator(np.random.PCG64(seed))
    embedder = _core.Embedder(config_of(spec, 0.0), graph, engine)
    normal, moved = _embed(chosen, embedder, spec, rng, progress)
    w = _covariance(_nearest_differences(normal, rng))
    seen = {kind: _covariance(rows) for kind, rows in moved.items() if rows.any()}  # blur leaves what is smooth alone
    if not (np.trace(w) > 0 and seen):
        what = "drawn damage changes nothing" if np.trace(w) > 0 else "good parts do not differ at all"
        raise InputError(f"{images[0].parent}: to the network {what}, so there is nothing to adapt; leave out --adapt")
    matrix = adapting_matrix(w, list(seen.values()))
    adapted = with_matrix(graph, matrix.astype(np.float32), CONSTANT)
    read_graph_spec(adapted, "the adapted graph")  # that it loads
    record = {
        "method": "fisher",
        "images": len(chosen),
        "damaged_images": len(chosen) * VIEWS,
        "damaged_patches": sum(map(len, moved.values())),
        "contrast": {
            kind: [_contrast(np.eye(len(w)), damage, w), _contrast(matrix, damage, w)] for kind, damage in seen.items()
        },
        "seed": seed,
    }
    return Adaptation(adapted, record)


def adapting_matrix(w: Matrix, kinds: Sequence[Matrix]) -> Matrix:
    """See the file's head; kinds: the covariance of what each kind of damage does, all of positive trace.

    Scaled so that normal patches differ as much as before: scores keep their magnitude.
    """
    within = _power(_shrunk(w, W_SHRINKAGE), -0.5)
    b = np.mean([_shrunk(within @ kind @ within, B_SHRINKAGE) for kind in kinds], axis=0)
    matrix = within @ _power(b, 0.5)
    return np.asarray(matrix * np.sqrt(np.trace(w) / _spread(matrix, w)))


def _embed(
    images: Sequence[Path], embedder: _core.Embedder, spec: GraphSpec, rng: np.random.Generator, progress: Progress
) -> tuple[NDArray[np.float32], dict[str, Rows]]:
    """→ (N, P, D) embeddings of the images, and by kind of damage (M, D): how it moves the patches that it touches."""
    size = (spec.preprocessing.height, spec.preprocessing.width)
    grid = (spec.grid_height, spec.grid_width)
    normal: list[Rows] = []
    moved: dict[str, list[Rows]] = {kind: [] for kind in KINDS}
    other = _core.resize(to_rgb8(read_image(images[-1])), *size)
    for i, path in enumerate(images):
        image = _core.resize(to_rgb8(read_image(path)), *size)
        embeddings = embedder.embed(image)
        for view in range(VIEWS):
            kind = list(KINDS)[(i * VIEWS + view) % len(KINDS)]
            damaged, mask = draw_damage(rng, image, other, kind)
            share = _cell_shares(mask, grid)
            touched = share >= min(TOUCHED, share.max())  # a coarse grid may have no cell that is covered so far
            moved[kind].append(embedder.embed(damaged)[touched] - embeddings[touched])
        normal.append(embeddings)
        other = image
        progress("adapting", i + 1, len(images))
    return np.stack(normal), {kind: np.concatenate(rows) for kind, rows in moved.items()}


def _cell_shares(mask: NDArray[np.bool_], grid: tuple[int, int]) -> NDArray[np.float64]:
    """(H, W) bool → (P,): the covered share of every cell of the patch grid (h, w); pixels belong to one cell."""
    rows = np.arange(mask.shape[0]) * grid[0] // mask.shape[0]
    columns = np.arange(mask.shape[1]) * grid[1] // mask.shape[1]
    cells = (rows[:, None] * grid[1] + columns).ravel()  # (H, W) → (H·W,): the cell of every pixel
    patches = grid[0] * grid[1]
    return np.bincount(cells, mask.ravel(), patches) / np.maximum(1, np.bincount(cells, minlength=patches))


def _nearest_differences(normal: NDArray[np.float32], rng: np.random.Generator) -> Rows:
    """(N, P, D) → at most NEIGHBORS rows: patches of half of the images minus their nearest ones of the other half."""
    order = rng.permutation(len(normal))
    sides = []
    for half in (order[::2], order[1::2]):
        rows = normal[half].reshape(-1, normal.shape[2])  # (N / 2, P, D) → (N / 2 · P, D)
        sides.append(rows[np.sort(rng.permutation(len(rows))[:NEIGHBORS])])
    _, nearest = MemoryBank.build(sides[1]).search(sides[0], k=1)
    return sides[0] - sides[1][nearest[:, 0]]


def _covariance(rows: Rows) -> Matrix:
    """About 0, where there is no difference; summed in float64."""
    values = rows.astype(np.float64)
    return np.asarray(values.T @ values / len(values))


def _shrunk(matrix: Matrix, share: float) -> Matrix:
    """Towards the identity; trace D."""
    mean = np.trace(matrix) / len(matrix)
    return np.asarray((1 - share) * matrix / mean + share * np.eye(len(matrix)))


def _power(matrix: Matrix, exponent: float) -> Matrix:
    """Of a symmetric positive matrix, symmetric."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray(vectors * values**exponent @ vectors.T)


def _spread(matrix: Matrix, covariance: Matrix) -> float:
    """Mean squared length of rows with this covariance behind the matrix."""
    return float(np.trace(matrix.T @ covariance @ matrix))


def _contrast(matrix: Matrix, damage: Matrix, w: Matrix) -> float:
    return round(_spread(matrix, damage) / _spread(matrix, w), 4)


__all__ = ["MIN_IMAGES", "Adaptation", "adapt", "adapting_matrix"]
