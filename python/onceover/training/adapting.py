"""Embeddings of good parts and of damage drawn into them, from which `training.adapter` learns a map of the product.

Only images of the memory bank are read, none that calibrates; and where these are the same, the parts of each fold are
scored by a map that was learned without them, from the same embeddings.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceover import _core
from onceover.detectors.detector import Progress, no_progress
from onceover.errors import UsageError
from onceover.images import read_image, to_rgb8
from onceover.training.adapter import Adapter, Move, Rows
from onceover.training.damage import KINDS, SPOTS, draw_damage
from onceover.training.image_patches import naming

MIN_PARTS = 8  # below, what two parts share by chance is taken for what all good parts do
MAX_TILES = 60  # of images, evenly from all; more change the matrix little
VIEWS = 2  # damaged copies of each image
TOUCHED = 0.25  # share of a patch's cell that damage must cover
MAX_MOVES = 30_720  # damaged patches of all views together
MAX_JUDGED = 32  # damaged patches of a view, by which maps are judged
NEIGHBORS = 8000  # patches that are compared with as many of other images


def study(
    images: Sequence[Path],
    graph: bytes,
    config: _core.Config,
    engine: _core.EngineOptions,
    seed: int,
    roi: NDArray[np.uint8] | None = None,
    progress: Progress = no_progress,
    groups: Sequence[Hashable] | None = None,
) -> Adapter:
    """Embed images of good parts as a session of `config` will, and copies of them with damage drawn inside `roi`.

    roi: as a package stores it (h, w); None: the whole image. groups: the part that each image shows; None: every image
    is its own part. The same images in the same order, seed, engine and machine give the same bits. Raises UsageError
    for fewer than MIN_PARTS parts, NothingToAdapt, InputError for unreadable images, EngineError.
    """
    groups = range(len(images)) if groups is None else groups
    if (parts := len(set(groups))) < MIN_PARTS:
        raise UsageError(
            f"adapting learns how good parts differ; the memory bank has {parts} part{'s' * (parts != 1)}, which is "
            f"too few: give {MIN_PARTS} or more, hold out fewer (--holdout), or leave out --adapt"
        )
    embedder = _core.Embedder(config, graph, engine)
    rng = np.random.Generator(np.random.PCG64(seed))
    chosen = _of_all_parts(groups, most_images(config))
    sample, most_moves = -(-2 * NEIGHBORS // len(chosen)), MAX_MOVES // (len(chosen) * VIEWS)
    spot_side = min(config.height, config.width)
    tiles, places = _tiles(config), _places(config, roi)
    inside = np.arange(config.feature_count) if roi is None else config.features_inside(roi)
    cells = config.cells_of(inside)  # where they lie in the patch grid of the image
    normal: dict[int, Rows] = {}
    moves: list[Move] = []
    last = images[chosen[-1]]
    other, other_number = _core.resize(to_rgb8(read_image(last)), *config.map_size), chosen[-1]
    for done, number in enumerate(chosen):
        image = _core.resize(to_rgb8(read_image(images[number])), *config.map_size)
        with naming(images[number]):
            embeddings = embedder.embed(image)
        for view in range(VIEWS):
            kind = list(KINDS)[(done * VIEWS + view) % len(KINDS)]
            damaged, mask = draw_damage(rng, image, other, kind, SPOTS * tiles, spot_side, places)
            share = _cell_shares(mask, config.cells)[cells]
            # A coarse grid may have no cell that is covered so far, a region none that is covered at all.
            touched = inside[(share > 0) & (share >= min(TOUCHED, share.max()))]
            touched = _some(rng, touched, most_moves)
            with naming(images[number]):
                after = embedder.embed(damaged)[touched]
            judged = after[:: -(-len(after) // MAX_JUDGED) or 1]
            moves.append(Move(kind, (number, other_number), after - embeddings[touched], judged.copy()))
        normal[number] = embeddings[_some(rng, inside, sample)]
        other, other_number = image, number
        progress("adapting", done + 1, len(chosen))
    return Adapter(images[0].parent, seed, normal, moves, groups, progress)


def most_images(config: _core.Config) -> int:
    """How many images are read."""
    return max(MIN_PARTS, MAX_TILES // _tiles(config))


def _tiles(config: _core.Config) -> int:
    return config.tiling[0] * config.tiling[1]


def _of_all_parts(groups: Sequence[Hashable], most: int) -> list[int]:
    """Numbers of at most `most` images, rising: one of every part, evenly from all parts where these are more; then
    another of each. Of the next part another picture than of the one before: the first may all be under one light."""
    parts: dict[Hashable, list[int]] = {}
    for number, group in enumerate(groups):
        parts.setdefault(group, []).append(number)
    chosen: list[int] = []
    for turn in range(max(map(len, parts.values()))):
        taken = [
            numbers[(turn + place) % len(numbers)]
            for place, numbers in enumerate(parts.values())
            if turn < len(numbers)
        ]
        room = most - len(chosen)
        chosen += [taken[i] for i in _evenly(len(taken), room)]
        if len(taken) >= room:
            break
    return sorted(chosen)


def _evenly(count: int, most: int) -> Sequence[int]:
    """Numbers below `count`, at most `most` of them, at least MIN_PARTS where both allow it."""
    stepped, least = range(0, count, -(-count // most)), min(MIN_PARTS, most, count)
    return stepped if len(stepped) >= least else [i * count // least for i in range(least)]


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


__all__ = ["MIN_PARTS", "most_images", "study"]
