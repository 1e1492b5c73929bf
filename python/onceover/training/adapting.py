"""A linear map behind the network, learned from the product's own normal images: no torch, no labels. What fit does.

Distances between patch embeddings count all directions alike, also those in which good parts differ among each other.
With W the covariance of how normal patches differ from their nearest ones in other images, and B that of how
x · W^-1/2 moves when damage is drawn into the same image (`training.damage`), embeddings x become

    x · W^-1/2 · B^1/2

so that what good parts do is small and what damage does is large. The first factor is relevant component analysis
(Bar-Hillel et al. 2005, JMLR 6), which alone was a loss on some products; the second is Fisher's between-class scatter
with drawn damage in the place of a second class. Every kind of damage counts alike in B, however far it moves patches:
else what the network sees best anyway would drown the rest. Both are shrunk towards the identity. What it is worth:
benchmarks/README.md. Only images of the memory bank are read, none that calibrates; and where these are the same, the
parts of each fold are scored by a map that was learned without them, from the same embeddings.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
from onceover.training.damage import KINDS, SPOTS, draw_damage

MIN_IMAGES = 8  # below, what two images share by chance is taken for what all good parts do
MAX_TILES = 60  # of images, evenly from all; more change the matrix little
VIEWS = 2  # damaged copies of each image
TOUCHED = 0.25  # share of a patch's cell that damage must cover
MAX_MOVES = 30_720  # damaged patches of all views together
LEAST_CONTRAST = 0.01  # of a kind of damage: one that moves patches less than this of how good parts differ is no news
NEIGHBORS = 8000  # patches that are compared with as many of other images
W_SHRINKAGE, B_SHRINKAGE = 0.3, 0.1  # towards the identity of the same trace

Rows = NDArray[np.float32]  # (N, D)
Matrix = NDArray[np.float64]  # (D, D)


class NothingToAdapt(InputError):
    """Good parts are all alike, or drawn damage changes no embedding."""


@dataclass(frozen=True)
class Adaptation:
    """matrix: float32 (D, D). record: for the manifest; contrast is, for every kind of damage, the mean squared move of
    a damaged patch over the mean squared difference between normal ones, before and after."""

    matrix: NDArray[np.float32]
    record: dict[str, Any]


@dataclass(frozen=True)
class _Move:
    """What one view of damage does to the patches that it touches. images: those that it was made of."""

    kind: str
    images: tuple[int, int]
    rows: Rows


class Adapter:
    """Embeddings of some images of good parts, from which maps are learned: one of all, and some without a few."""

    def __init__(self, folder: Path, seed: int, normal: dict[int, Rows], moves: Sequence[_Move]) -> None:
        """normal: for each image, by its number among the given ones, some of its patches. Raises NothingToAdapt."""
        self._folder, self._seed, self._normal, self._moves = folder, seed, normal, moves
        self.of_all = self.without(())

    def without(self, images: Collection[int]) -> Adaptation:
        """The map of all but these images, by their numbers, whose pictures then play no part in it; NothingToAdapt."""
        left = [image for image in self._normal if image not in images]
        moves = [move for move in self._moves if not set(move.images) & set(images)]
        moved = {kind: [move.rows for move in moves if move.kind == kind] for kind in KINDS}
        joined = {kind: np.concatenate(rows) for kind, rows in moved.items() if rows}
        w = _covariance(self._nearest_differences(left)) if len(left) > 1 else np.zeros((1, 1))
        moved_by = {kind: _covariance(rows) for kind, rows in joined.items() if len(rows)}
        # Blur leaves smooth parts alone.
        seen = {kind: each for kind, each in moved_by.items() if np.trace(each) > LEAST_CONTRAST * np.trace(w)}
        if not (np.trace(w) > 0 and seen):
            what = "drawn damage changes nothing" if np.trace(w) > 0 else "good parts do not differ at all"
            raise NothingToAdapt(f"{self._folder}: to the network {what}, so there is nothing to adapt to")
        matrix = adapting_matrix(w, list(seen.values()))
        record = {
            "method": "fisher",
            "images": len(left),
            "damaged_images": len(moves),
            "damaged_patches": sum(map(len, joined.values())),
            "contrast": {
                kind: [_contrast(np.eye(len(w)), damage, w), _contrast(matrix, damage, w)]
                for kind, damage in seen.items()
            },
            "seed": self._seed,
        }
        return Adaptation(matrix.astype(np.float32), record)

    def _nearest_differences(self, images: Sequence[int]) -> Rows:
        """Patches of half of the images minus their nearest ones of the other half."""
        order = np.random.Generator(np.random.PCG64((self._seed, 1))).permutation(len(images))
        sides = [np.concatenate([self._normal[images[i]] for i in half]) for half in (order[::2], order[1::2])]
        _, nearest = MemoryBank.build(sides[1]).search(sides[0], k=1)
        differences: Rows = sides[0] - sides[1][nearest[:, 0]]
        return differences


def study(
    images: Sequence[Path],
    graph: bytes,
    config: _core.Config,
    engine: _core.EngineOptions,
    seed: int,
    roi: NDArray[np.uint8] | None = None,
    progress: Progress = no_progress,
) -> Adapter:
    """Embed images of good parts as a session of `config` will, and copies of them with damage drawn inside `roi`.

    roi: as a package stores it (h, w); None: the whole image. The same images in the same order, seed, engine and
    machine give the same bits. Raises UsageError for fewer than MIN_IMAGES images, NothingToAdapt, InputError for
    unreadable ones, EngineError.
    """
    if len(images) < MIN_IMAGES:
        raise UsageError(
            f"adapting learns how good parts differ, from the {len(images)} images of the memory bank, which are too "
            f"few: give {MIN_IMAGES} or more, hold out fewer (--holdout), or leave out --adapt"
        )
    embedder = _core.Embedder(config, graph, engine)
    rng = np.random.Generator(np.random.PCG64(seed))
    chosen = _evenly(len(images), most_images(config))
    sample, most_moves = -(-2 * NEIGHBORS // len(chosen)), MAX_MOVES // (len(chosen) * VIEWS)
    spot_side = min(config.height, config.width)
    tiles, places = _tiles(config), _places(config, roi)
    inside = np.arange(config.feature_count) if roi is None else config.features_inside(roi)
    cells = config.cells_of(inside)  # where they lie in the patch grid of the image
    normal: dict[int, Rows] = {}
    moves: list[_Move] = []
    last = images[chosen[-1]]
    other, other_number = _core.resize(to_rgb8(read_image(last)), *config.map_size), chosen[-1]
    for done, number in enumerate(chosen):
        image = _core.resize(to_rgb8(read_image(images[number])), *config.map_size)
        embeddings = embedder.embed(image)
        for view in range(VIEWS):
            kind = list(KINDS)[(done * VIEWS + view) % len(KINDS)]
            damaged, mask = draw_damage(rng, image, other, kind, SPOTS * tiles, spot_side, places)
            share = _cell_shares(mask, config.cells)[cells]
            # A coarse grid may have no cell that is covered so far, a region none that is covered at all.
            touched = inside[(share > 0) & (share >= min(TOUCHED, share.max()))]
            touched = _some(rng, touched, most_moves)
            moves.append(_Move(kind, (number, other_number), embedder.embed(damaged)[touched] - embeddings[touched]))
        normal[number] = embeddings[_some(rng, inside, sample)]
        other, other_number = image, number
        progress("adapting", done + 1, len(chosen))
    return Adapter(images[0].parent, seed, normal, moves)


def most_images(config: _core.Config) -> int:
    """How many images are read."""
    return max(MIN_IMAGES, MAX_TILES // _tiles(config))


def adapting_matrix(w: Matrix, kinds: Sequence[Matrix]) -> Matrix:
    """See the file's head; kinds: the covariance of what each kind of damage does, all of positive trace.

    Scaled so that normal patches differ as much as before: scores keep their magnitude.
    """
    within = _power(_shrunk(w, W_SHRINKAGE), -0.5)
    b = np.mean([_shrunk(within @ kind @ within, B_SHRINKAGE) for kind in kinds], axis=0)
    matrix = within @ _power(b, 0.5)
    return np.asarray(matrix * np.sqrt(np.trace(w) / _spread(matrix, w)))


def _tiles(config: _core.Config) -> int:
    return config.tiling[0] * config.tiling[1]


def _evenly(count: int, most: int) -> Sequence[int]:
    """Numbers below `count`, at most `most` of them, at least MIN_IMAGES."""
    stepped = range(0, count, -(-count // most))
    return stepped if len(stepped) >= MIN_IMAGES else [i * count // MIN_IMAGES for i in range(MIN_IMAGES)]


def _places(config: _core.Config, roi: NDArray[np.uint8] | None) -> NDArray[np.int64] | None:
    """(n, 2): x and y of the pixels at map size that are to be inspected; None: all."""
    if roi is None:
        return None
    height, width = config.map_size
    rows, columns = np.arange(height) * roi.shape[0] // height, np.arange(width) * roi.shape[1] // width
    inside = roi[rows[:, None], columns] != 0
    places = np.argwhere(inside)[:, ::-1]
    if len(places) == 0:  # a raster that is finer than the map
        places = (np.argwhere(roi)[:, ::-1] + 0.5) * (width / roi.shape[1], height / roi.shape[0])
    return np.asarray(places, np.int64)


def _some(rng: np.random.Generator, numbers: NDArray[Any], most: int) -> NDArray[Any]:
    """At most `most` of them, in order."""
    return numbers if len(numbers) <= most else numbers[np.sort(rng.permutation(len(numbers))[:most])]


def _cell_shares(mask: NDArray[np.bool_], grid: tuple[int, int]) -> NDArray[np.float64]:
    """(H, W) bool → (P,): the covered share of every cell of the patch grid (h, w); pixels belong to one cell."""
    rows = np.arange(mask.shape[0]) * grid[0] // mask.shape[0]
    columns = np.arange(mask.shape[1]) * grid[1] // mask.shape[1]
    cells = (rows[:, None] * grid[1] + columns).ravel()  # (H, W) → (H·W,): the cell of every pixel
    patches = grid[0] * grid[1]
    return np.bincount(cells, mask.ravel(), patches) / np.maximum(1, np.bincount(cells, minlength=patches))


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
    return float(f"{_spread(matrix, damage) / _spread(matrix, w):.5g}")


__all__ = ["MIN_IMAGES", "Adaptation", "Adapter", "NothingToAdapt", "adapting_matrix", "most_images", "study"]
