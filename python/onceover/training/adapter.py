"""A linear map behind the network, learned from the product's own normal images: no torch, no labels. What fit does.

Distances between patch embeddings count all directions alike, also those in which good parts differ among each other.
With W the covariance of how normal patches differ from their nearest ones of other parts, and B that of how
x · W^-1/2 moves when damage is drawn into the same image (`training.damage`), embeddings x become

    x · W^-1/2 · B^1/2

so that what good parts do is small and what damage does is large. Pictures of one part stay on one side of W: how they
differ is not how parts differ. The first factor is relevant component analysis (Bar-Hillel et al. 2005, JMLR 6), which
alone was a loss on some products; the second is Fisher's between-class scatter with drawn damage in the place of a
second class. Every kind of damage counts alike in B, however far it moves patches: else what the network sees best
anyway would drown the rest. Both are shrunk towards the identity. What it is worth: benchmarks/README.md.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceover import _core, metrics
from onceover.detectors.detector import Progress, no_progress
from onceover.errors import InputError
from onceover.memory_bank import MemoryBank
from onceover.training.damage import KINDS

LEAST_CONTRAST = 0.01  # of a kind of damage: one that moves patches less than this of how good parts differ is no news
CHECKS = 4  # folds of parts, each of which tells what a map that was learned without it is worth there
W_SHRINKAGE, B_SHRINKAGE = 0.3, 0.1  # towards the identity of the same trace
# float64 (D, D) that learning one map takes at most: what parts and four kinds of damage do, what is made of these, and
# three that eigh works in.
LEARNING_MATRICES = 12
_BLOCK = 4096  # rows that are float64 at a time

Rows = NDArray[np.float32]  # (N, D)
Matrix = NDArray[np.float64]  # (D, D)
Pair = tuple[float, float]  # before and after
Sums = NDArray[np.float64]  # (3,): of squared lengths before a map and behind it, and how many rows that were


class NothingToAdapt(InputError):
    """Good parts are all alike, or drawn damage changes no embedding. reason: which of both, in words."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"{folder}: {reason}, so there is nothing to adapt to")
        self.reason = reason


@dataclass(frozen=True)
class Adaptation:
    """matrix: float32 (D, D). record: for the manifest; of parts that the map was learned without (CHECKS folds,
    contrast_folds of the record), before and after:

    contrast: for every kind of damage, the mean squared move of a damaged patch over the mean squared difference
    between normal ones. auroc: how well a detector tells damaged patches from normal ones, by the distance to the
    nearest one of other parts; the mean over kinds. A map that stretches what damage does may stretch the odd normal
    patch, too: MobileNetV2 with random weights gains 1.5 to 5.6 times by the first, but nearly nothing or less by the
    second, as at defects that others draw (benchmarks/README.md).
    """

    matrix: NDArray[np.float32]
    record: dict[str, Any]

    @property
    def helps(self) -> bool:
        """Whether damage is told apart better than before; of a map of all images alone."""
        before, after = self.record["auroc"]
        return bool(after > before)


@dataclass(frozen=True)
class Move:
    """What one view of damage does to the patches that it touches. images: those that it was made of, damaged first.

    rows: what is added to each of them; damaged: some of them as they are then, by which maps are judged.
    """

    kind: str
    images: tuple[int, int]
    rows: Rows
    damaged: Rows


class Adapter:
    """Embeddings of some images of good parts, from which maps are learned: one of all, and some without a few."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        normal: dict[int, Rows],
        moves: Sequence[Move],
        groups: Sequence[Hashable],
        progress: Progress = no_progress,
    ) -> None:
        """normal: for each image, by its number among the given ones, some of its patches. groups: of each given image,
        the part that it shows. Raises NothingToAdapt."""
        self._folder, self._seed, self._normal, self._moves, self._groups = folder, seed, normal, moves, groups
        of_all, kinds = self._learn(())
        self.of_all = replace(of_all, record={**of_all.record, **self._told(kinds, progress), "contrast_folds": CHECKS})

    def without(self, images: Collection[int]) -> Adaptation:
        """The map of all but these images, by their numbers, whose pictures then play no part in it; NothingToAdapt.

        Its record tells neither contrast nor auroc.
        """
        return self._learn(images)[0]

    def _learn(self, without: Collection[int]) -> tuple[Adaptation, list[str]]:
        """The map of all images but some, and the kinds of damage that it heeds."""
        left = [image for image in self._normal if image not in without]
        moves = [move for move in self._moves if not set(move.images) & set(without)]
        sides = self._halves(left)
        w = _covariance(self._differences(*sides)) if all(sides) else np.zeros((1, 1))
        moved_by = _by_kind(moves)
        # Blur leaves smooth parts alone.
        seen = {kind: each for kind, (each, _) in moved_by.items() if np.trace(each) > LEAST_CONTRAST * np.trace(w)}
        if not (np.trace(w) > 0 and seen):
            what = "drawn damage changes nothing" if np.trace(w) > 0 else "good parts do not differ at all"
            raise NothingToAdapt(self._folder, f"to the network {what}")
        record = {
            "method": "fisher",
            "images": len(left),
            "parts": len({self._groups[image] for image in left}),
            "damaged_images": len(moves),
            "damaged_patches": sum(count for _, count in moved_by.values()),
            "seed": self._seed,
        }
        matrix = adapting_matrix(w, list(seen.values()))
        return Adaptation(matrix.astype(np.float32), record), list(seen)

    def _told(self, kinds: Sequence[str], progress: Progress) -> dict[str, Any]:
        """contrast (of these kinds) and auroc: each fold of parts by the map of all others, as a device meets new
        parts, against the patches of those. By its own parts a map of few patches looks too good."""
        parts = self._shuffled(self._normal, 2)
        normal, damaged = np.zeros(3), {kind: np.zeros(3) for kind in kinds}
        aurocs: dict[str, list[Pair]] = {}
        for fold in range(CHECKS):
            progress("checking the adaptation", fold, CHECKS)
            differ, moved, told_apart = self._check([image for part in parts[fold::CHECKS] for image in part])
            normal += differ
            for kind in damaged.keys() & moved.keys():
                damaged[kind] += moved[kind]
            for kind, pair in told_apart.items():
                aurocs.setdefault(kind, []).append(pair)
        progress("checking the adaptation", CHECKS, CHECKS)
        before, after = np.mean([np.mean(pairs, axis=0) for pairs in aurocs.values()], axis=0)
        told: dict[str, Any] = {"contrast": {}, "auroc": [_rounded(before), _rounded(after)]}
        if (normal > 0).all():
            means = {kind: sums[:2] / sums[2] for kind, sums in damaged.items() if (sums > 0).all()}
            told["contrast"] = {
                kind: [_rounded(value) for value in mean * normal[2] / normal[:2]] for kind, mean in means.items()
            }
        return told

    def _check(self, held: Sequence[int]) -> tuple[Sums, dict[str, Sums], dict[str, Pair]]:
        """By the map of all other images: how these differ from those, how each kind of damage moves their patches, and
        how well it is told apart before and after."""
        try:
            matrix = self._learn(held)[0].matrix
        except NothingToAdapt:  # without these parts nothing would be done
            matrix = np.eye(next(iter(self._normal.values())).shape[1], dtype=np.float32)
        moves = [move for move in self._moves if move.images[0] in held]
        damaged = {
            kind: np.concatenate(rows)
            for kind in KINDS
            if (rows := [move.damaged for move in moves if move.kind == kind and len(move.damaged)])
        }
        one, other = self._rows(held), self._rows([image for image in self._normal if image not in held])
        bank = MemoryBank.build(other)
        distances, nearest = bank.search(one, k=1)
        covariance = _covariance(one - other[nearest[:, 0]])
        before = _told_apart(bank, distances, damaged)
        del bank  # before there is another one
        one, other = _core.adapt(one, matrix), _core.adapt(other, matrix)
        bank = MemoryBank.build(other)
        adapted = {kind: _core.adapt(rows, matrix) for kind, rows in damaged.items()}
        after = _told_apart(bank, bank.search(one, k=1)[0], adapted)
        moved = {kind: _sums(matrix, *sums) for kind, sums in _by_kind(moves).items()}
        return _sums(matrix, covariance, len(one)), moved, {kind: (before[kind], after[kind]) for kind in damaged}

    def _shuffled(self, images: Iterable[int], stream: int) -> list[list[int]]:
        """Images by the part that they show, the parts in an order of their own for each stream."""
        parts: dict[Hashable, list[int]] = {}
        for image in images:
            parts.setdefault(self._groups[image], []).append(image)
        listed = list(parts.values())
        order = np.random.Generator(np.random.PCG64((self._seed, stream))).permutation(len(listed))
        return [listed[i] for i in order]

    def _halves(self, images: Sequence[int]) -> tuple[list[int], list[int]]:
        """Both have images, or there is one part only."""
        parts = self._shuffled(images, 1)
        one, other = ([image for part in half for image in part] for half in (parts[::2], parts[1::2]))
        return one, other

    def _differences(self, images: Sequence[int], others: Sequence[int]) -> Rows:
        """Patches of images minus their nearest ones of the others."""
        one, other = self._rows(images), self._rows(others)
        _, nearest = MemoryBank.build(other).search(one, k=1)
        differences: Rows = one - other[nearest[:, 0]]
        return differences

    def _rows(self, images: Sequence[int]) -> Rows:
        return np.concatenate([self._normal[image] for image in images])


def adapting_matrix(w: Matrix, kinds: Sequence[Matrix]) -> Matrix:
    """See the file's head; kinds: the covariance of what each kind of damage does, all of positive trace.

    Scaled so that normal patches differ as much as before: scores keep their magnitude.
    """
    within = _power(_shrunk(w, W_SHRINKAGE), -0.5)
    b = np.zeros_like(within)
    for kind in kinds:  # one at a time: of a wide network each of these is tens of megabytes
        b += _shrunk(within @ kind @ within, B_SHRINKAGE)
    b /= len(kinds)
    matrix = within @ _power(b, 0.5)
    return np.asarray(matrix * np.sqrt(np.trace(w) / _spread(matrix, w)))


def _covariance(*rows: Rows) -> Matrix:
    """Of all of them together, about 0, where there is no difference; summed in float64."""
    total = np.zeros((rows[0].shape[1],) * 2)
    for each in rows:
        for start in range(0, len(each), _BLOCK):
            values = each[start : start + _BLOCK].astype(np.float64)
            total += values.T @ values
    return np.asarray(total / sum(map(len, rows)))


def _by_kind(moves: Sequence[Move]) -> dict[str, tuple[Matrix, int]]:
    """The covariance of what each kind of damage does, and of how many patches; without kinds that touched none."""
    moved = {kind: [move.rows for move in moves if move.kind == kind and len(move.rows)] for kind in KINDS}
    return {kind: (_covariance(*rows), sum(map(len, rows))) for kind, rows in moved.items() if rows}


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


def _sums(matrix: Rows, covariance: Matrix, count: int) -> Sums:
    """Of `count` rows with this covariance."""
    return count * np.array([np.trace(covariance), _spread(matrix.astype(np.float64), covariance), 1.0])


def _told_apart(bank: MemoryBank, normal: Rows, damaged: Mapping[str, Rows]) -> dict[str, float]:
    """AUROC of each kind's rows by distance to the bank, against distances (N, 1) of normal patches."""
    found = {}
    for kind, rows in damaged.items():
        distances, _ = bank.search(rows, k=1)
        labels = np.repeat([0, 1], [len(normal), len(rows)])
        found[kind] = metrics.image_auroc(np.concatenate([normal, distances])[:, 0], labels)
    return found


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


__all__ = ["LEARNING_MATRICES", "Adaptation", "Adapter", "Move", "NothingToAdapt", "adapting_matrix"]
