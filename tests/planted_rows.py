"""The worst rows for a search index: added to a bank so that every coordinate loses its most by coding, all in one
direction, and a query stands where that loss hides the nearest row behind a farther one unless the bounds allow for all
of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from bank_cases import Rows
from index_layout import aligned_copy, header_of, sections_of
from numpy.typing import NDArray

from onceover import _core

COUNT = 48  # queries, each with a hidden row and a decoy
LOSS = 0.49  # of a step: 0.5 would round the other way


@dataclass(frozen=True)
class Planted:
    bank: Rows
    index: NDArray[np.uint8]  # of the bank, 64-byte aligned
    queries: Rows
    nearest: NDArray[np.int64]  # row that was hidden for each query


@dataclass(frozen=True)
class Coding:
    """How an index turns a centered row x (D) into coordinates z = directions · x, coded in steps."""

    mean: NDArray[np.float64]
    steps: NDArray[np.float64]  # (n) of the codes that `bound` speaks of
    most: NDArray[np.int64]  # (n) largest whole number that is neither clamped nor carried over
    inverse: NDArray[np.float64]  # (D, n): the shortest x that has these coordinates
    aside: NDArray[np.float64]  # (D) invisible to the directions and as long as usual: no tail is out of the ordinary

    def row_at(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = self.mean + self.inverse @ (self.steps * numbers) + self.aside
        return found


def coding_of(index: NDArray[np.uint8], bound: str) -> Coding:
    header, sections = header_of(index)[0], sections_of(index)
    dims, rank1, rank2 = (int(header[name]) for name in ("dims", "rank1", "rank2"))
    directions, coded = np.eye(dims), np.arange(dims)
    if header["representation"] == 1:
        tiles = sections["projection"].reshape(rank2 // 16, -1, 16, 64)  # [16 rows][tile][row][64]
        directions = tiles.transpose(0, 2, 1, 3).reshape(rank2, -1)[:, :dims] * float(header["scale"])
        coded = np.flatnonzero(np.abs(directions).sum(axis=1) > 0)  # without the norm of the rest
    aside = np.random.default_rng(7).standard_normal(dims)
    aside -= inverse_of(directions[coded]) @ (directions[coded] @ aside)
    steps, most = sections["weights"].astype(np.float64), np.where(np.arange(rank2) < rank1, 2500, 100)
    if bound != "refined":
        first = rank1 - int(header["screened"]) if bound == "screened" else 0
        coded = coded[(coded >= first) & (coded < rank1)]
        steps, most = np.full(rank2, float(header["step"])), np.full(rank2, 20)
    return Coding(
        mean=sections["mean"][:dims].astype(np.float64),
        steps=steps[coded],
        most=most[coded],
        inverse=inverse_of(directions[coded]),
        aside=aside * float(header["tail_mean"]) / max(float(np.linalg.norm(aside)), 1e-9),
    )


def inverse_of(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, D) independent rows → (D, n): the shortest row with given coordinates is this times them."""
    found: NDArray[np.float64] = np.linalg.solve(directions @ directions.T, directions).T
    return found


def plant(core: _core.MemoryBank, bound: str) -> Planted:
    """bound: "codes", the first one; "screened", that of a part of its coordinates; "refined", the second one."""
    coding = coding_of(aligned_copy(core.index_bytes()), bound)
    random = np.random.default_rng(11)
    hidden, decoys, queries = [], [], []
    for _ in range(COUNT):
        signs = random.choice([-1.0, 1.0], len(coding.steps))
        codes = random.integers(-coding.most, coding.most + 1).astype(np.float64)
        if bound != "refined":
            # The query rounds to the next code, hidden to this one: they are near, their codes are far apart.
            at_hidden, at_query = codes + LOSS * signs, codes + (1 - LOSS) * signs
        else:
            # The second bound knows the query's coordinates well, so the loss is the row's alone.
            codes = np.where(coding.most > 127, codes // 256 * 256 + codes % 16, codes)  # no carry to the coarse code
            at_hidden = codes + LOSS * signs
            at_query = at_hidden + 3 * signs
        query, near = coding.row_at(at_query), coding.row_at(at_hidden)
        hidden.append(near)
        queries.append(query)
        decoys.append(query + 1.01 * (query - near))  # on the other side, with the codes of the query
    core.add(np.array(decoys, np.float32))  # first: of rows with the same codes, the lowest block is measured first
    first = core.add(np.array(hidden, np.float32))
    index = aligned_copy(core.index_bytes())
    return Planted(core.rows(), index, np.array(queries, np.float32), first + np.arange(COUNT))
