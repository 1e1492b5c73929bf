"""The float64 brute force that every nearest-neighbor answer is judged by, and the long sweep of exactness.

An index is right where its float64 distance, by direct differences, is at most 1 + 1e-13 times the smallest (float64
cannot tell these apart: D rounding errors of 1.1e-16 add up to that) and no row of lower index has the very same
float64 distance. So either of two rows that are that close may be answered, but of equal rows only the lowest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import features
import numpy as np
from features import F32
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

Search = Callable[[F32], tuple[NDArray[np.floating], NDArray[np.integer]]]  # (Q, D) → distances (Q,), indices (Q,)

INDISTINGUISHABLE = 1e-13  # relative, of the distance
CELLS = 4_000_000  # of the float64 matrix queries × rows that is held at once


@dataclass(frozen=True)
class Truth:
    """What float64 says for Q queries."""

    distance: NDArray[np.float64]  # (Q,)
    right: list[frozenset[int]]  # Q sets of the indices that count as right


@dataclass(frozen=True)
class Judgement:
    """How far an answer is from the truth."""

    wrong: int  # indices
    missed_zeros: int  # distances that are zero and were answered as something else
    error: float  # largest relative error of the other distances


def brute_force(bank: F32, queries: F32) -> Truth:
    """(M, D), (Q, D) → the truth, all by float64.

    A matrix product proposes: with u = 2^-53, centering changes a squared distance by at most 8 u (|q|² + |b|²), and
    the three sums of D products by at most 2 D u (|q|² + |b|²), all after centering. Each row that this slack leaves
    possible is then measured by direct differences.
    """
    lowest = {row.tobytes(): index for index, row in reversed(list(enumerate(bank)))}
    first = np.sort(np.fromiter(lowest.values(), np.int64))  # (U,) the lowest index of each distinct row
    rows = bank[first].astype(np.float64)  # (U, D)
    center = rows.mean(axis=0)  # (D,)
    centered = rows - center
    norms = np.einsum("ud,ud->u", centered, centered)
    slack = (2 * bank.shape[1] + 8) * 2.0**-53
    distance = np.empty(len(queries))
    right: list[frozenset[int]] = []
    step = max(1, CELLS // len(rows))
    for start in range(0, len(queries), step):
        block = queries[start : start + step].astype(np.float64)  # (b, D)
        moved = block - center
        sizes = np.einsum("bd,bd->b", moved, moved)[:, None] + norms  # (b, U), |q|² + |b|²
        squared = sizes - 2 * (moved @ centered.T)
        sizes *= slack
        possible = squared - sizes <= (squared + sizes).min(axis=1, keepdims=True)
        for offset, query in enumerate(block):
            candidates = np.flatnonzero(possible[offset])
            direct = ((rows[candidates] - query) ** 2).sum(axis=1)  # squared: equal ones are still told apart
            distance[start + offset] = np.sqrt(direct.min())
            close = np.flatnonzero(direct <= direct.min() * (1 + INDISTINGUISHABLE) ** 2)
            _, lowest_of_equal = np.unique(direct[close], return_index=True)  # `first` rises, so does `candidates`
            right.append(frozenset(first[candidates[close[lowest_of_equal]]].tolist()))
    return Truth(distance, right)


def judge(truth: Truth, distance: NDArray[np.floating], index: NDArray[np.integer]) -> Judgement:
    """Distances (not squared) and indices, each (Q,), against the truth."""
    wrong = sum(int(found) not in right for found, right in zip(index, truth.right, strict=True))
    away = truth.distance > 0
    error = np.abs(distance[away].astype(np.float64) / truth.distance[away] - 1)
    return Judgement(wrong, int(np.count_nonzero(distance[~away])), float(error.max(initial=0)))


def sweep(count: int, makers: dict[str, Callable[[F32, int], Search]], console: Console) -> list[dict[str, Any]]:
    """Judge at least `count` answers of each method on fresh banks of real, clustered and Gaussian data.

    makers: name → (bank, threads) → search. Threads alternate between 1 and 2, bank sizes among three.
    """
    sources = [(name, dim) for name in ("mt", "pcb", "clustered", "gauss") for dim in features.DIMS]
    tally: dict[tuple[str, int, str], list[Any]] = {}  # → results, wrong, missed zeros, error
    done = turn = 0
    start = time.perf_counter()
    columns = (TextColumn("exactness"), BarColumn(), TextColumn("{task.completed:,}"), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=count)
        while done < count:
            name, dim = sources[turn % len(sources)]
            cycle = turn // len(sources)
            rows = (1_000, 4_000, 10_000)[(cycle + turn) % 3] if dim < 1024 else 2_000
            bank, queries = _draw(name, dim, rows, seed=1 + cycle)
            truth = brute_force(bank, queries)
            for method, make in makers.items():
                verdict = judge(truth, *make(bank, 1 + turn % 2)(queries))
                entry = tally.setdefault((name, dim, method), [0, 0, 0, 0.0])
                entry[0] += len(queries)
                entry[1] += verdict.wrong
                entry[2] += verdict.missed_zeros
                entry[3] = max(entry[3], verdict.error)
            done += len(queries)
            turn += 1
            progress.update(task, completed=done)
    names = ("results", "wrong", "missed_zeros", "error")
    records: list[dict[str, Any]] = [
        {"data": name, "D": dim, "method": method, **dict(zip(names, entry, strict=True))}
        for (name, dim, method), entry in sorted(tally.items())
    ]
    console.print(_table(records, list(makers), time.perf_counter() - start))
    return records


def _draw(name: str, dim: int, rows: int, seed: int) -> tuple[F32, F32]:
    """A fresh bank and 8192 queries.

    For real data: the three defective images, one of the other data set, 64 rows of the bank, and normal patches.
    """
    if name in ("gauss", "clustered"):
        return getattr(features, name)(dim, rows, 8192, seed)
    own, other = features.real(name, dim), features.real("pcb" if name == "mt" else "mt", dim)
    rng = np.random.default_rng(seed)
    bank = own.pool[rng.permutation(len(own.pool))[:rows]]
    strange = other.queries[seed % 3]  # (784, D)
    defective = own.queries.reshape(-1, dim)  # (3, 784, D) → (2352, D)
    normal = own.pool[rng.integers(len(own.pool), size=8192 - len(strange) - len(defective) - 64)]
    return bank, np.concatenate([defective, strange, bank[rng.integers(rows, size=64)], normal])


def _table(records: list[dict[str, Any]], methods: list[str], seconds: float) -> Table:
    table = Table(title=f"exactness against float64, k = 1, {seconds:.0f} s", title_justify="left")
    for column in ("data", "D", "results each"):
        table.add_column(column, justify="left" if column == "data" else "right")
    for method in methods:
        for column in (f"{method}: wrong", "missed zeros", "max rel. error"):
            table.add_column(column, justify="right")

    def row(data: str, dim: str, chosen: list[dict[str, Any]]) -> None:
        cells = []
        for method in methods:
            mine = [record for record in chosen if record["method"] == method]
            cells += [f"{sum(record[what] for record in mine):,}" for what in ("results", "wrong", "missed_zeros")]
            cells.append(f"{max(record['error'] for record in mine):.1e}")
        table.add_row(data, dim, *(cell for place, cell in enumerate(cells) if place == 0 or place % 4))

    for name, dim in dict.fromkeys((record["data"], record["D"]) for record in records):
        row(name, str(dim), [record for record in records if (record["data"], record["D"]) == (name, dim)])
    table.add_section()
    row("all", "", records)
    return table
