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
from onceover.detectors.detector import Detector, PatchSource, Progress, no_progress
from onceover.detectors.streaming import LABEL, Steps, gather, sample_images, select_from_stream
from onceover.errors import InputError, NotFittedError, UsageError

DEFAULT_RATIO = 0.1
DEFAULT_MAX_ROWS = 10_000  # 5 MB at D = 128; see benchmarks/README.md for what a row costs at run time
DEFAULT_PROJECTION_DIM = 32
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
        projection_dim: int = DEFAULT_PROJECTION_DIM,
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
        self._sample_patches: int | None = None  # of a coreset from a stream

    def fit(self, embeddings: NDArray[np.float32], progress: Progress = no_progress) -> None:
        _check(embeddings)
        count = self.bank.resolve(*embeddings.shape)
        rng = np.random.Generator(np.random.PCG64(self.seed))
        if self.coreset == "random":
            chosen = _random(len(embeddings), count, rng)
        else:
            projection = self._projection(embeddings.shape[1], rng)
            chosen = self._greedy(_project(embeddings, projection), count, rng, progress).selected
        self._keep(embeddings, chosen, progress)

    def fit_source(
        self, source: PatchSource, chosen: NDArray[np.int64] | None = None, progress: Progress = no_progress
    ) -> None:
        """Of all patches only the projections are held, which the greedy selection compares."""
        if chosen is not None or self.coreset == "random":
            self.stream(source, 0, chosen, progress)
            return
        total = source.image_count * source.patches
        rng = np.random.Generator(np.random.PCG64(self.seed))
        projection = self._projection(source.dim, rng)
        points = np.empty((total, source.dim if projection is None else self.projection_dim), np.float32)
        for image in range(source.image_count):
            start = image * source.patches
            points[start : start + source.patches] = _project(source.embed(image), projection)
        self._chosen = self._greedy(points, self.bank.resolve(total, source.dim), rng, progress).selected
        del points
        rows, samples = gather(source, self._chosen, _held_out_rows(self._chosen, total), no_progress)
        self._build(rows, samples, progress)

    def stream(
        self,
        source: PatchSource,
        sample_count: int,
        chosen: NDArray[np.int64] | None = None,
        progress: Progress = no_progress,
    ) -> None:
        """As `fit`, or with `chosen` as `refit`, but holding the patches of `sample_count` images at most.

        Random and chosen patches are those of `fit` and `refit`; greedy ones are selected from the stream.
        """
        total = source.image_count * source.patches
        count = self.bank.resolve(total, source.dim)
        rng = np.random.Generator(np.random.PCG64(self.seed))
        if chosen is None and self.coreset == "greedy":
            projection = self._projection(source.dim, rng)
            sample = sample_images(source.image_count, sample_count)
            steps = Steps(
                project=lambda embeddings: _project(embeddings, projection),
                greedy=lambda points: self._greedy(points, min(count, len(points)), rng, progress),
                keep=_held_out_rows,
            )
            streamed = select_from_stream(source, sample, count, steps, progress)
            self._cover(streamed.covering_radius)
            self._sample_patches = len(sample) * source.patches
            self._chosen = streamed.chosen
            self._build(streamed.rows, streamed.samples, progress)
        else:
            self._chosen = _random(total, count, rng) if chosen is None else _checked(chosen, total)
            rows, samples = gather(source, self._chosen, _held_out_rows(self._chosen, total), progress)
            self._build(rows, samples, progress)

    def refit(
        self, embeddings: NDArray[np.float32], chosen: NDArray[np.int64], progress: Progress = no_progress
    ) -> None:
        """The bank of an earlier fit with new embeddings of the same patches; another choice would move scores, too."""
        _check(embeddings)
        self._keep(embeddings, _checked(chosen, len(embeddings)), progress)

    def _keep(self, embeddings: NDArray[np.float32], chosen: NDArray[np.int64], progress: Progress) -> None:
        self._chosen = chosen
        samples = np.ascontiguousarray(embeddings[_held_out_rows(chosen, len(embeddings))])
        self._build(np.ascontiguousarray(embeddings[chosen]), samples, progress)

    def _build(self, rows: NDArray[np.float32], samples: NDArray[np.float32], progress: Progress) -> None:
        self._rows = rows
        self._bank = _core.MemoryBank(
            rows,
            samples=samples,
            seed=self.seed,
            progress=lambda done, total: progress("search index", done, total),
        )

    def _projection(self, dim: int, rng: np.random.Generator) -> NDArray[np.float32] | None:
        """(D, projection_dim), Gaussian (Johnson–Lindenstrauss): keeps distances within about 1/√(2·projection_dim)."""
        if self.projection_dim >= dim:
            return None
        projection = rng.standard_normal((dim, self.projection_dim)) / np.sqrt(self.projection_dim)
        return np.asarray(projection, np.float32)

    def _greedy(
        self, points: NDArray[np.float32], count: int, rng: np.random.Generator, progress: Progress
    ) -> _core.GreedyCoreset:
        """Farthest-point selection of projected patches; the bank keeps full embeddings (section 3.2)."""
        first = int(rng.integers(len(points)))
        selection = _core.GreedyCoreset(np.ascontiguousarray(points), first)
        progress("coreset", 0, count)
        while (done := len(selection.selected)) < count:
            selection.select(min(_STEPS_PER_REPORT, count - done))
            if len(selection.selected) == done:  # every remaining patch equals a selected one
                break
            progress("coreset", len(selection.selected), count)
        progress("coreset", count, count)
        self._cover(selection.covering_radius)
        return selection

    def _cover(self, radius: float) -> None:
        if not math.isfinite(radius):
            raise InputError(
                "patchcore: squared distances between patches overflow float32, so no greedy coreset can be selected; "
                "the network answers huge values: look at its weights, or let it scale its features down"
            )
        self._covering_radius = float(radius)

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
    def rows(self) -> NDArray[np.float32] | None:
        """float32 (M, D): the memory bank; None before fit."""
        return self._rows

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
            "coreset": self.coreset if self._sample_patches is None else LABEL,
            "bank": {key: value for key, value in asdict(self.bank).items() if value is not None},
            "bank_rows": 0 if self._rows is None else len(self._rows),
            "search_index": None if self._bank is None else self._bank.representation,
            "projection_dim": self.projection_dim if self.coreset == "greedy" else None,
            "covering_radius": self._covering_radius,
            **({} if self._sample_patches is None else {"sample_patches": self._sample_patches}),
            "seed": self.seed,
        }


def _random(total: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(rng.choice(total, size=count, replace=False)).astype(np.int64)


def _project(embeddings: NDArray[np.float32], projection: NDArray[np.float32] | None) -> NDArray[np.float32]:
    return embeddings if projection is None else embeddings @ projection  # (N, D) → (N, projection_dim)


def _held_out_rows(chosen: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Some hundred of `total` patches that are not in the bank; none when there are few, and bank rows must do."""
    taken = np.unique(chosen)
    left = total - len(taken)
    if left < _SAMPLE_RUNS * _SAMPLE_RUN:
        return np.zeros(0, np.int64)
    starts = np.linspace(0, left - _SAMPLE_RUN, _SAMPLE_RUNS).astype(np.int64)
    numbers = (starts[:, None] + np.arange(_SAMPLE_RUN)).ravel()  # among those left
    return numbers + np.searchsorted(taken - np.arange(len(taken)), numbers, side="right")


def _checked(chosen: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    if len(chosen) == 0 or chosen.min() < 0 or chosen.max() >= total:
        raise InputError(f"patchcore: chosen patches must be 0 to {total - 1}, and some")
    return chosen


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
