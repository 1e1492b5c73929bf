"""What a distance counts where: at some places of an image good parts are farther from the memory bank than at others.

Borders, where a network sees padding; print, stamps and edges, where good parts differ: there the largest distance of a
good part lies, and sets the threshold for all of it. So each good part of the bank is compared with a bank without its
own rows, the mean distance at every place is taken over parts, and a distance counts less where that is large:

    score(p) = distance(p) · w(p),    w(p) = sqrt(mean of all places / mean at p)

The root, for where good parts differ there are defects, too: docs/backbones.md has what it gains and costs. Only parts
of the bank are looked at, so a calibration on held-out parts keeps its promise as it is; where folds score each other,
each is weighed by what the bank of the others says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onceover.detectors.detector import Progress
from onceover.memory_bank import MemoryBank

MIN_PARTS = 8  # in the bank, or nothing is learned; the same number that adapting takes
IMAGES = 64  # that are compared at most
FOLDS = 4  # parts are compared with the rows of the other folds
PRIOR_IMAGES = 4  # so many images that differ alike everywhere are added to those that were compared
RANGE = (0.5, 2.0)  # no place counts less or more than so many times a mean one

Weights = NDArray[np.float32]  # (h, w), the cells of all tiles


@dataclass(frozen=True)
class NormalDistances:
    """images: int64 (m,), their numbers. distances: float32 (m, h, w) to a bank without their parts, NaN outside a
    region of interest.
    """

    images: NDArray[np.int64]
    distances: NDArray[np.float32]

    def weights(self) -> Weights | None:
        """None where all parts are alike."""
        count = len(self.distances)
        mean = self.distances.mean(axis=0, dtype=np.float64)  # (h, w)
        inside = np.isfinite(mean)
        overall = float(mean[inside].mean())
        if not overall > 0:
            return None
        mean = (count * mean + PRIOR_IMAGES * overall) / (count + PRIOR_IMAGES)
        weights = np.clip(np.sqrt(overall / mean), *RANGE)
        return np.where(inside, weights, 1).astype(np.float32)


def measure(
    bank: NDArray[np.float32],
    row_images: NDArray[np.int64],
    groups: Sequence[str],
    embed: Callable[[int], NDArray[np.float32]],
    cells: NDArray[np.int64],
    grid: tuple[int, int],
    seed: int,
    progress: Progress,
) -> NormalDistances | None:
    """Good parts against the bank (M, D) without their own rows.

    row_images: (M,), which image each row is of. groups: (n,), which part each image shows. embed: image number → its
    patches (P, D), as the bank has them. cells: (P,), where they lie in the patch grid (h, w). None where the rows are
    all of one fold.
    """
    names = list(dict.fromkeys(groups))
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(names))
    turn = {names[part]: place for place, part in enumerate(order)}
    fold = np.array([turn[group] % FOLDS for group in groups])  # (n,)
    taken: dict[str, int] = {}
    rounds = []  # of its part's images, the how-manieth each is
    for group in groups:
        rounds.append(taken.get(group, 0))
        taken[group] = rounds[-1] + 1
    images = np.lexsort(([turn[group] for group in groups], rounds))[:IMAGES]  # one of every part, then the next ones
    found = np.full((len(images), *grid), np.nan, np.float32)
    flat = found.reshape(len(images), -1)
    done = 0
    for number in range(FOLDS):
        inside = np.flatnonzero(fold[images] == number)
        others = bank[fold[row_images] != number]
        if not len(others):
            return None
        index = MemoryBank.build(others)
        for i in inside:
            progress("position weights", done, len(images))
            distances, _ = index.search(embed(int(images[i])))
            np.fmin.at(flat[i], cells, distances[:, 0])  # where tiles overlap, of the one whose score counts
            done += 1
    progress("position weights", done, len(images))
    return NormalDistances(images, found)


__all__ = ["IMAGES", "MIN_PARTS", "NormalDistances", "Weights", "measure"]
