"""PatchCore, Roth et al. 2022, arXiv:2106.08265: a coreset of normal patch embeddings, scored by nearest neighbor.

Departures from the paper, each with its reason: the greedy selection starts from one seeded random row and takes the
lowest index on ties, so that it is deterministic; the bank is capped in rows or megabytes, because a device has a
latency and a memory, not a ratio; re-weighting (eq. 7) is off, as in the authors' released code.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from onceover import _core
from onceover.detectors.detector import Detector, Progress, no_progress
from onceover.errors import InputError, NotFittedError, UsageError

DEFAULT_RATIO = 0.1
DEFAULT_MAX_ROWS = 10_000  # 5 MB at D = 128; see benchmarks/README.md for what a row costs at run time
GRAPH_NEIGHBORS = 9  # of each bank row, itself included: what re-weighting (eq. 7) looks at
_SAMPLE_RUNS, _SAMPLE_RUN = 24, 16  # patches that choose the search index: runs of neighbors, as images have them
_STEPS_PER_REPORT = 64
_ROWS_PER_CHECK = 65_536


@dataclass(frozen=True)
class BankSize:
    """How many rows a memory bank may have: at most one of rows, megabytes, ratio of all patches.

    Nothing given means 10 % of the patches, at most 10,000 rows.
    """

    rows: int | None = None
    megabytes: float | None = None
    ratio: float | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("rows", "megabytes", "ratio") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"bank size: give only one of rows, megabytes and ratio, got {' and '.join(given)}")
        for name in given:
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)) or (name == "ratio" and value > 1):
                allowed = "in (0, 1]" if name == "ratio" else "positive and finite"
                raise UsageError(f"bank size: {name} must be {allowed}, got {value}")

    def resolve(self, patch_count: int, dim: int) -> int:
        """Rows for `patch_count` patches of `dim` float32 values; at least 1."""
        if self.rows is not None:
            wanted = self.rows
        elif self.megabytes is not None:
            wanted = int(self.megabytes * 1e6 / (4 * dim))
            if wanted < 1:
                raise UsageError(f"bank size: {self.megabytes} MB do not hold one row of {4 * dim} bytes")
        elif self.ratio is not None:
            wanted = int(patch_count * self.ratio)
        else:
            wanted = min(int(patch_count * DEFAULT_RATIO), DEFAULT_MAX_ROWS)
        return max(1, min(wanted, patch_count))


class PatchCore(Detector):
    """coreset: "greedy" (farthest point, in a seeded random projection) or "random" (a seeded random subset)."""

    scorer: ClassVar[str] = "nearest_neighbor"

    def __init__(
        self,
        bank: BankSize | None = None,
        coreset: Literal["greedy", "random"] = "greedy",
        projection_dim: int = 32,
        seed: int = 0,
    ) -> None:
        if coreset not in ("greedy", "random"):
            raise UsageError(f"coreset must be 'greedy' or 'random', got {coreset!r}")
        self.bank = bank or BankSize()
        self.coreset = coreset
        self.projection_dim = projection_dim
        self.seed = seed
        self._rows: NDArray[np.float32] | None = None
        self._bank: _core.MemoryBank | None = None
        self._chosen: NDArray[np.int64] | None = None
        self._covering_radius: float | None = None

    def fit(self, embeddings: NDArray[np.float32], progress: Progress = no_progress) -> None:
        _check(embeddings)
        count = self.bank.resolve(*embeddings.shape)
        rng = np.random.Generator(np.random.PCG64(self.seed))
        if self.coreset == "random":
            chosen = np.sort(rng.choice(len(embeddings), size=count, replace=False))
        else:
            chosen = self._greedy(embeddings, count, rng, progress)
        self._keep(embeddings, np.asarray(chosen, dtype=np.int64), progress)

    def refit(
        self, embeddings: NDArray[np.float32], chosen: NDArray[np.int64], progress: Progress = no_progress
    ) -> None:
        """The bank of an earlier fit with new embeddings of the same patches; another choice would move scores, too."""
        _check(embeddings)
        if len(chosen) == 0 or chosen.min() < 0 or chosen.max() >= len(embeddings):
            raise InputError(f"patchcore: chosen patches must be 0 to {len(embeddings) - 1}, and some")
        self._keep(embeddings, chosen, progress)

    def _keep(self, embeddings: NDArray[np.float32], chosen: NDArray[np.int64], progress: Progress) -> None:
        self._chosen = chosen
        self._rows = np.ascontiguousarray(embeddings[self._chosen])
        self._bank = _core.MemoryBank(
            self._rows,
            samples=_held_out(embeddings, self._chosen),
            seed=self.seed,
            progress=lambda done, total: progress("search index", done, total),
        )

    def _greedy(
        self, embeddings: NDArray[np.float32], count: int, rng: np.random.Generator, progress: Progress
    ) -> NDArray[np.int64]:
        """Farthest-point selection; the projection only selects, the bank keeps full embeddings (section 3.2)."""
        dim = embeddings.shape[1]
        points = embeddings
        if self.projection_dim < dim:
            # Gaussian Johnson–Lindenstrauss projection: keeps distances within about 1/√(2·projection_dim).
            projection = rng.standard_normal((dim, self.projection_dim)) / np.sqrt(self.projection_dim)
            points = embeddings @ projection.astype(np.float32)  # (N, D) → (N, projection_dim)
        first = int(rng.integers(len(points)))
        selection = _core.GreedyCoreset(np.ascontiguousarray(points), first)
        progress("coreset", 0, count)
        while (done := len(selection.selected)) < count:
            selection.select(min(_STEPS_PER_REPORT, count - done))
            if len(selection.selected) == done:  # every remaining patch equals a selected one
                break
            progress("coreset", len(selection.selected), count)
        progress("coreset", count, count)
        self._covering_radius = float(selection.covering_radius)
        return selection.selected

    def state(self) -> dict[str, NDArray[Any]]:
        if self._rows is None:
            raise NotFittedError("patchcore: the memory bank is empty; call fit first")
        assert self._bank is not None  # made with the rows
        _, neighbors = self._bank.search(self._rows, min(GRAPH_NEIGHBORS, len(self._rows)))
        return {
            "memory_bank": self._rows,
            "bank_index": np.frombuffer(self._bank.index_bytes(), np.uint8),
            "bank_neighbors": neighbors.astype(np.uint32),
        }

    @property
    def chosen(self) -> NDArray[np.int64]:
        """int64 (M,): which patch each bank row is, counted over all patches given to fit."""
        if self._chosen is None:
            raise NotFittedError("patchcore: the memory bank is empty; call fit first")
        return self._chosen

    def describe(self) -> dict[str, Any]:
        return {
            "name": "patchcore",
            "scorer": self.scorer,
            "coreset": self.coreset,
            "bank": {key: value for key, value in asdict(self.bank).items() if value is not None},
            "bank_rows": 0 if self._rows is None else len(self._rows),
            "search_index": None if self._bank is None else self._bank.representation,
            "projection_dim": self.projection_dim if self.coreset == "greedy" else None,
            "covering_radius": self._covering_radius,
            "seed": self.seed,
        }


def _held_out(embeddings: NDArray[np.float32], chosen: NDArray[np.int64]) -> NDArray[np.float32]:
    """Some hundred patches (n, D) that are not in the bank; empty when there are few, and bank rows must do."""
    unused = np.ones(len(embeddings), bool)
    unused[chosen] = False
    left = np.flatnonzero(unused)
    if len(left) < _SAMPLE_RUNS * _SAMPLE_RUN:
        return np.zeros((0, embeddings.shape[1]), np.float32)
    starts = np.linspace(0, len(left) - _SAMPLE_RUN, _SAMPLE_RUNS).astype(np.int64)
    return np.ascontiguousarray(embeddings[left[(starts[:, None] + np.arange(_SAMPLE_RUN)).ravel()]])


def _check(embeddings: NDArray[np.float32]) -> None:
    """InputError unless (patches, dim), not empty and finite.

    In blocks, because a mask of all values would be a quarter of their memory.
    """
    if embeddings.ndim != 2 or embeddings.shape[0] == 0:
        raise InputError(f"patchcore: embeddings must be (patches, dim) and not empty, got {embeddings.shape}")
    for start in range(0, len(embeddings), _ROWS_PER_CHECK):
        finite = np.isfinite(embeddings[start : start + _ROWS_PER_CHECK]).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise InputError(f"patchcore: embedding {row} is not finite (NaN or infinity); look at the image it is of")
