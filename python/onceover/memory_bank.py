"""Exact nearest-neighbor search in a memory bank: numpy in, numpy out, many times faster than a scan.

    bank = onceover.MemoryBank.build(rows)             # (M, D) float32, kept, not copied
    distances, indices = bank.search(queries, k=1)     # (Q, D) → (Q, k), (Q, k)

Exact means: the rows that a float64 brute force finds, the lowest index on ties, on every machine and with any number
of threads; csrc/scoring/EXACTNESS.md has the proof.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onceover import _core
from onceover.arrays import is_array, view_array, whole_number
from onceover.errors import InputError, PackageError, UnknownNameError, UsageError

Metric = Literal["l2", "cosine"]
METRICS: tuple[Metric, ...] = ("l2", "cosine")
MAX_NEIGHBORS = 32
_FORMAT = "onceover memory bank"
_BOOLEANS = (bool, np.bool_)
_LAST_NUMBER = np.iinfo(np.int64).max  # that the core can be asked for


class MemoryBank:
    """Rows (M, D) and their search index. Make one with `build` or `open`.

    Several threads may search one bank at the same time (the GIL is released); a change refuses to run beside a search.
    """

    def __init__(self, core: _core.MemoryBank, metric: Metric, neighbors: NDArray[np.uint32] | None = None) -> None:
        self._core = core
        self._metric: Metric = metric
        self._neighbors = neighbors

    @classmethod
    def build(
        cls,
        rows: ArrayLike,
        metric: Metric = "l2",
        *,
        samples: ArrayLike | None = None,
        seed: int = 0,
        max_memory: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> MemoryBank:
        """Index rows (M, D): float32 (used in place when C-contiguous; leave it unchanged) or float16.

        metric: "l2", the Euclidean distance, or "cosine", 1 − cosine of the angle (rows are normalized, which copies
        them). samples: a few hundred patches (n, D) like those that will be searched for, by which the representation
        is chosen; without them, rows are searched among the others. max_memory: bytes that building may take beside
        the rows. progress: called with (done, total) steps. The same arguments give the same index, byte for byte.

        Raises InputError for a NaN or infinity (naming the row), a wrong shape or dtype, a row without direction
        (cosine); MemoryLimitError; UnknownNameError for an unknown metric; UsageError for seed and max_memory.
        """
        if metric not in METRICS:
            raise UnknownNameError(f"metric {metric!r} does not exist; known: {', '.join(METRICS)}")
        seed = whole_number(seed, "seed")
        if not 0 <= seed < 2**64:
            raise UsageError(f"seed is {seed}, expected 0 to 2^64 - 1")
        if max_memory is not None and whole_number(max_memory, "max_memory") < 1:
            raise UsageError(f"max_memory is {max_memory}, expected at least 1 byte, or None for no limit")
        bank = _prepare(_matrix(rows, "rows"), metric, "rows")
        if metric == "cosine" and not np.isfinite(bank).all():
            row = int(np.argmin(np.isfinite(bank).all(axis=1)))
            raise InputError(f"rows: row {row} is zero or not finite and has no direction; cosine cannot compare it")
        core = _core.MemoryBank(
            bank,
            samples=None if samples is None else _prepare(_matrix(samples, "samples"), metric, "samples"),
            seed=seed,
            memory_limit_bytes=max_memory or 0,
            progress=progress,
        )
        return cls(core, metric)

    def search(
        self, queries: ArrayLike, k: int = 1, *, threads: int = 1
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Queries (Q, D) → distances (Q, k) float32 and row numbers (Q, k) int64, nearest first, 1 ≤ k ≤ 32.

        Where there is no neighbor (fewer than k rows, or a query with a NaN or infinity): +inf and −1, so that nothing
        that cannot be compared looks near. Raises InputError for a wrong shape or dtype, UsageError for k or threads.
        """
        k, threads = _counts(k, threads)
        asked = _prepare(_matrix(queries, "queries"), self._metric, "queries")
        distances, indices = self._core.search(asked, k, threads)
        if self._metric == "cosine":  # |a − b|² = 2 − 2 cos for unit vectors
            distances = distances * distances / np.float32(2)
        return distances, indices

    def add(self, rows: ArrayLike) -> NDArray[np.int64]:
        """Add rows (n, D); returns their numbers. Nothing else is coded again; the first change copies the bank."""
        added = _prepare(_matrix(rows, "rows"), self._metric, "rows")
        first = self._core.add(added)
        self._neighbors = None
        return np.arange(first, first + len(added), dtype=np.int64)

    def remove(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> None:
        """Take rows out by number. Other rows keep theirs; numbers are not used again before `compact`.

        Raises UsageError, and changes nothing, when a number is not there or named twice, and for what is no list of
        whole numbers: a mask is turned into numbers by np.flatnonzero.
        """
        self._core.remove(_numbers(rows))
        self._neighbors = None

    def compact(self) -> NDArray[np.int64]:
        """Build again from the rows that are there; returns (M,), for each new number the old one."""
        kept = np.flatnonzero(self._core.alive).astype(np.int64)
        self._core.compact()
        self._neighbors = None
        return kept

    def neighbors(self, k: int = 9, *, threads: int = 1) -> NDArray[np.uint32]:
        """The bank's own k-nearest-neighbor graph: uint32 (M, k), for each row its k nearest rows, itself included.

        What PatchCore's re-weighting (Roth et al. 2022, eq. 7) looks at beside a patch's nearest row. Computed once and
        stored by `save`. Fewer than k rows: padded with 2^32 − 1, as are removed rows.
        """
        k, threads = _counts(k, threads)
        if self._neighbors is None or self._neighbors.shape[1] != k:
            _, indices = self._core.search(self._core.rows(), k, threads)
            graph = np.where(indices < 0, np.iinfo(np.uint32).max, indices).astype(np.uint32)
            graph[~self._core.alive] = np.iinfo(np.uint32).max
            self._neighbors = graph
        return self._neighbors

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write rows, index and, if computed, the neighbor graph to one file, completely or not at all.

        Raises OutputError when it cannot be written.
        """
        self._writer().save(os.fspath(path))

    def __reduce__(self) -> tuple[Callable[[bytes], MemoryBank], tuple[bytes]]:
        """Pickles are what `save` writes. Processes of one machine share memory if they `open` one file instead."""
        return _from_bytes, (self._writer().bytes(),)

    def _writer(self) -> _core.PackageWriter:
        writer = _core.PackageWriter()
        facts = {"format": _FORMAT, "metric": self._metric, "onceover": _core.__version__}
        writer.add("manifest.json", json.dumps(facts, sort_keys=True).encode())
        writer.add("memory_bank", self._core.rows())
        writer.add("bank_index", np.frombuffer(self._core.index_bytes(), np.uint8))
        if self._neighbors is not None:
            writer.add("bank_neighbors", self._neighbors, required=False)
        return writer

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, mmap: bool = True) -> MemoryBank:
        """Open what `save` wrote, or the bank of a package (`part.onceover`).

        mmap: read pages when they are needed and share them between processes; otherwise the file is read now. Raises
        InputError when it cannot be read, PackageError when it is damaged or holds no memory bank.
        """
        if mmap:
            package = _core.Package.open(os.fspath(path))
        else:
            try:
                with open(path, "rb") as file:
                    package = _core.Package.view(file.read(), os.fspath(path))
            except OSError as error:
                raise InputError(f"{os.fspath(path)}: cannot be read ({error.strerror})") from error
        return cls._of(package)

    @classmethod
    def _of(cls, package: _core.Package) -> MemoryBank:
        names = {member["name"] for member in package.members}
        if not {"memory_bank", "bank_index"} <= names:
            raise PackageError(f"{package.label}: holds no memory bank with a search index; save or fit it again")
        metric = _metric_of(package) if "manifest.json" in names else "l2"
        try:
            core = _core.MemoryBank.view(package.array("memory_bank"), package.array("bank_index"))
        except InputError as error:
            raise PackageError(f"{package.label}: member 'bank_index': {error}") from error
        graph = _checked_graph(package, core) if "bank_neighbors" in names else None
        return cls(core, metric, graph)

    def rows(self) -> NDArray[np.float32]:
        """A copy, (M + removed, D) float32: rows by their numbers, removed ones NaN; with "cosine" unit vectors."""
        rows = self._core.rows()
        rows[~self._core.alive] = np.nan
        return rows

    @property
    def metric(self) -> Metric:
        return self._metric

    @property
    def shape(self) -> tuple[int, int]:
        """(M, D), without the rows that were removed."""
        return self._core.row_count, self._core.dims

    @property
    def representation(self) -> str:
        """How rows are screened: "rank 32/64+64", "full" or "scan".

        Rank: coordinates that every row is screened by / those that rows of promising blocks are screened by, + those
        that the second bound takes beside these. "rank 64+64" where the first two are the same.
        """
        if self._core.representation != "rank":
            return self._core.representation
        screened, first, second = self._core.ranks
        return f"rank {first if screened == first else f'{screened}/{first}'}+{second - first}"

    @property
    def index_size_bytes(self) -> int:
        """Of the search index, the hot part; the float rows, read a few per query, come on top."""
        return self._core.index_size_bytes

    @property
    def stats(self) -> dict[str, Any]:
        """What the last search did: instruction set, rows that survived each bound, queries that had to be scanned."""
        return self._core.stats

    def __len__(self) -> int:
        return self._core.row_count

    def __repr__(self) -> str:
        rows, dims = self.shape
        return f"MemoryBank({rows} × {dims}, metric={self._metric!r}, representation={self.representation!r})"


def _from_bytes(data: bytes) -> MemoryBank:
    return MemoryBank._of(_core.Package.view(data, "pickled memory bank"))


def _metric_of(package: _core.Package) -> Metric:
    """What the manifest says; a package's says nothing and means "l2"."""
    try:
        manifest = json.loads(package.read("manifest.json").decode("utf-8"))
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise PackageError(f"{package.label}: member 'manifest.json' is not JSON ({error}); save it again") from error
    metric = manifest.get("metric", "l2") if isinstance(manifest, dict) else None
    for known in METRICS:
        if metric == known:
            return known
    raise PackageError(
        f"{package.label}: manifest.json has no metric that is known ({', '.join(METRICS)}); save it again"
    )


def _checked_graph(package: _core.Package, core: _core.MemoryBank) -> NDArray[np.uint32]:
    graph = package.array("bank_neighbors")
    rows = len(core.alive)
    if graph.dtype != np.uint32 or graph.ndim != 2 or len(graph) != rows or graph.shape[1] > MAX_NEIGHBORS:
        raise PackageError(
            f"{package.label}: member 'bank_neighbors' is {graph.dtype} {graph.shape}, expected uint32 ({rows}, 1 to "
            f"{MAX_NEIGHBORS}); save it again"
        )
    if not ((graph < rows) | (graph == np.iinfo(np.uint32).max)).all():
        raise PackageError(f"{package.label}: member 'bank_neighbors' names rows beyond {rows}; save it again")
    return graph


def _counts(k: int, threads: int) -> tuple[int, int]:
    k, threads = whole_number(k, "k"), whole_number(threads, "threads")
    if not 1 <= k <= MAX_NEIGHBORS:
        raise UsageError(f"k is {k}, expected 1 to {MAX_NEIGHBORS} neighbors")
    if threads < 1:
        raise UsageError(f"threads is {threads}, expected 1 or more")
    return k, threads


def _numbers(rows: Any) -> list[int]:
    """Row numbers. 1.9 is not row 1, and neither a mask of booleans nor one among numbers means rows 0 and 1."""
    try:
        given = rows if is_array(rows) else list(rows)
        array = np.asarray(given)
    except (TypeError, ValueError) as error:
        raise UsageError(f"rows is {rows!r}, expected a list of whole numbers (n,)") from error
    masks = array.dtype.kind == "b" or (isinstance(given, list) and any(isinstance(row, _BOOLEANS) for row in given))
    if array.ndim != 1 or masks or (array.dtype.kind not in "iu" and array.size > 0):
        hint = "; give np.flatnonzero(mask)" if masks else ""
        kind = "of booleans and numbers" if masks and array.dtype.kind != "b" else array.dtype
        raise UsageError(f"rows are {kind} {array.shape}, expected a list of whole numbers (n,){hint}")
    if array.dtype == np.uint64 and array.size > 0 and array.max() > _LAST_NUMBER:
        raise UsageError(f"row {array.max()} cannot be removed: no such number; nothing was changed")
    return [int(row) for row in array]


def _matrix(values: ArrayLike, what: str) -> NDArray[np.float32]:
    """(n, D) float32, C-contiguous; the same memory where it is that already. Reads torch tensors and any buffer."""
    array = view_array(values, what)
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    if array.ndim != 2 or array.dtype != np.float32:
        raise InputError(f"{what} must be (n, D) float32, got {array.dtype} {array.shape}; convert it first")
    return np.require(array, requirements=("C", "A"))


def _prepare(rows: NDArray[np.float32], metric: Metric, what: str) -> NDArray[np.float32]:
    """cosine: unit rows; a row without direction becomes NaN, which no search finds near anything."""
    if metric == "l2":
        return rows
    wide = rows.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True), dtype=np.float32)
