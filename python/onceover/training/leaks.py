"""Calibration images that the memory bank has seen: they score lower than any new part, so their threshold is too low.

A copy is known by its bytes. The same picture in another file (another format, JPEG, a little brighter) is known by its
patches: they lie on rows of the memory bank that came from one image, much nearer than rows of other images do.

A bank row is reproduced by an image when a patch of it lies within NEAR of the row's spacing, the distance from the row
to the nearest row of another image. Of one bank image, an image that is new reproduces a row with probability about
P/M · NEAR^d (P patches looked for among M rows that are as dense as they are; d dimensions that the patches really
spread over; the ratio of the distances to two neighbors, Facco et al. 2017, arXiv:1803.06992). For P ≤ M and d = 4 that
is below 0.0016, and MIN_SHARE of the rows of one of 1,000 images, but at least MIN_ROWS, happen to be reproduced with a
probability below 1 in 10,000, if the rows are independent. They are not quite, so it was measured, too:
docs/calibration.md. Rows that several parts reproduce, such as an empty background, say nothing and are left out.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onceover import _core
from onceover.runtime.package import PackageFile
from onceover.runtime.reasons import NO_IMAGE
from onceover.training.dataset import read_group_table, read_groups, relative_path
from onceover.training.refit import used_images

NEAR = 0.2  # of a row's spacing
MIN_ROWS, MIN_SHARE = 4, 0.2  # of the rows of one bank image
COMMON_PARTS, COMMON_SHARE = 3, 0.1  # rows that so many parts, and such a share of them, reproduce are common
_NEIGHBORS = 9  # as detectors.patchcore keeps them
_ROWS_AT_ONCE = 2048


@dataclass(frozen=True)
class Leak:
    """Image number `image` (in order of `add`) looks like `bank_image`, an index: `share` of its rows reproduced."""

    image: int
    bank_image: int
    share: float


@dataclass
class LeakWatch:
    """What the session said of each calibration image → which of them the bank has seen."""

    package: PackageFile
    _seen: list[tuple[str, NDArray[np.int64]]] = field(default_factory=list, init=False)  # part, rows reproduced
    _near: NDArray[np.float64] | None = field(default=None, init=False)  # (M,); None: sources are not known

    def __post_init__(self) -> None:
        names = {member.name for member in self.package.members}
        if "bank_source" in names:
            source = self.package.core.array("bank_source")[:, 0].astype(np.int64)
            self._source = np.where(source == NO_IMAGE, -1, source)  # (M,) image of each row
            self._near = NEAR * _spacing(self.package, self._source)

    @property
    def works(self) -> bool:
        """Whether the package says which image a bank row came from."""
        return self._near is not None

    def add(self, part: str, distances: NDArray[np.float32], nearest_rows: NDArray[np.int64]) -> None:
        """distances float32, not weighed, nearest_rows int64: (h, w) each, of an image that shows `part`."""
        if self._near is None:
            return
        rows = nearest_rows.ravel()
        self._seen.append((part, np.unique(rows[distances.ravel() < self._near[rows]])))

    def leaks(self) -> list[Leak]:
        """Of all images, in order."""
        if self._near is None or not self._seen:
            return []
        parts_of_row: dict[int, set[str]] = defaultdict(set)
        for part, rows in self._seen:
            for row in rows.tolist():
                parts_of_row[row].add(part)
        many = max(COMMON_PARTS, math.ceil(COMMON_SHARE * len({part for part, _ in self._seen})))
        common = np.array([row for row, parts in parts_of_row.items() if len(parts) >= many], np.int64)
        telling = self._source >= 0
        telling[common] = False
        rows_of_image = np.bincount(self._source[telling], minlength=int(self._source.max()) + 1)
        found = []
        for i, (_, rows) in enumerate(self._seen):
            hits = np.bincount(self._source[rows[telling[rows]]], minlength=len(rows_of_image))
            share = hits / np.maximum(rows_of_image, 1)
            caught = np.flatnonzero((hits >= MIN_ROWS) & (share >= MIN_SHARE))
            if len(caught):
                best = int(caught[np.argmax(share[caught])])
                found.append(Leak(i, best, float(share[best])))
        return found


def known_by_bytes(package: PackageFile, hashes: list[str]) -> list[int]:
    """Which of these SHA-256 are those of bank images, by index."""
    bank, _ = used_images(package)
    return [i for i, sha256 in enumerate(hashes) if sha256 in bank]


def known_by_part(package: PackageFile, table: Path, images: Sequence[Path], root: Path) -> dict[str, str]:
    """Bank image → its group, for bank images that the table `file,group` puts into a group of one of `images`.

    A line is a bank image's when its path is, or ends in, the name that the package keeps, no other line's does, and it
    is not the line of one of `images`, which are below `root`.
    """
    data = package.manifest.get("data")
    names = data.get("bank_images", []) if isinstance(data, dict) else []
    groups = set(read_groups(table, images, root).values())
    own = {relative_path(path, folder) for path in images for folder in (root, table.parent)}
    by_name: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for line, group in read_group_table(table).items():
        if line not in own:
            by_name[Path(line).name].append((line, group))
    found = {}
    for name in names:
        lines = [group for line, group in by_name[Path(str(name)).name] if line == name or line.endswith(f"/{name}")]
        if len(lines) == 1 and lines[0] in groups:
            found[str(name)] = lines[0]
    return found


def rank_sum_p_value(lower: ArrayLike, higher: ArrayLike) -> float:
    """How likely `lower` (n,) would rank so low among `higher` (m,) if both came from the same parts.

    One-sided Wilcoxon rank-sum test, normal approximation with the correction for ties; 1 where either is empty.
    """
    first, second = np.asarray(lower, np.float64), np.asarray(higher, np.float64)
    n, m = len(first), len(second)
    if n == 0 or m == 0:
        return 1.0
    values, place, counts = np.unique(np.concatenate([first, second]), return_inverse=True, return_counts=True)
    middle_ranks = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(middle_ranks[place[:n]].sum())
    total = n + m
    ties = float((counts.astype(np.float64) ** 3 - counts).sum())
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance <= 0 or len(values) == 1:
        return 1.0
    z = (rank_sum + 0.5 - n * (total + 1) / 2) / math.sqrt(variance)
    return 0.5 * math.erfc(-z / math.sqrt(2))


def _spacing(package: PackageFile, source: NDArray[np.int64]) -> NDArray[np.float64]:
    """(M,) from each bank row to the nearest row of another image; where its neighbors are all of its own, the last."""
    rows = package.core.array("memory_bank")  # (M, D)
    if any(member.name == "bank_neighbors" for member in package.members):
        neighbors = package.core.array("bank_neighbors").astype(np.int64)  # (M, k), nearest first, itself included
    else:
        found = _core.MemoryBank(np.array(rows)).search(np.array(rows), min(_NEIGHBORS, len(rows)))[1]
        neighbors = np.asarray(found, np.int64)
    foreign = source[neighbors] != source[:, None]
    chosen = np.where(foreign.any(axis=1), foreign.argmax(axis=1), neighbors.shape[1] - 1)
    other = neighbors[np.arange(len(rows)), chosen]
    spacing = np.empty(len(rows))
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        end = start + _ROWS_AT_ONCE
        apart = np.asarray(rows[start:end], np.float64) - np.asarray(rows[other[start:end]], np.float64)
        spacing[start:end] = np.sqrt((apart**2).sum(axis=1))
    return spacing


__all__ = ["Leak", "LeakWatch", "known_by_bytes", "known_by_part", "rank_sum_p_value"]
