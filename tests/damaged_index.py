"""`python tests/damaged_index.py "rank 64+64" header|sections` damages an index in many ways and uses what is accepted.

A process of its own: what must not crash is tried where a crash takes nothing along. Prints one line per way: where,
what it was set to, and "refused" or "used".
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

import numpy as np
from bank_cases import Rows, Shape, bank_and_queries, build
from index_layout import HEADER_BYTES, aligned_copy, header_words, with_word
from numpy.typing import NDArray

from onceover import _core
from onceover.errors import InputError, OnceoverError

VALUES = (0, 1, 2, 64, 1 << 31, 0x7F800000, 0xFFFFFFFF)
WAYS = 200


def damaged_headers(index: bytes) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    for offset, field in header_words().items():
        for value in VALUES if field != "zeros" else VALUES[-1:]:
            yield f"{field} {offset} = {value}", with_word(index, offset, value)


def damaged_sections(index: bytes) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """One to a thousand words beyond the header overwritten with values that numbers, counts or codes do not like."""
    random = np.random.default_rng(13)
    values = np.array([*VALUES, 0x80808080, 0x7FC00000, 0xFF7FFFFF, 0x00000001, 0x7FFFFFFF, 99, 100], np.uint32)
    for way in range(WAYS):
        copy = aligned_copy(index)
        words = copy[HEADER_BYTES:].view(np.uint32)
        places = random.integers(len(words), size=10 ** random.integers(0, 4))
        words[places] = random.choice(values, len(places)) if way % 2 else random.integers(0, 1 << 32, len(places))
        yield f"{len(places)} words", copy


def use(rows: Rows, index: NDArray[np.uint8], queries: Rows, isa: str) -> None:
    bank = _core.MemoryBank.view(rows, index, isa)
    for k in (1, 9):
        distances, found = bank.search(queries, k)
        assert distances.shape == found.shape == (len(queries), k)
        assert found.min() >= -1
        assert found.max() < len(rows)
    try:
        bank.remove([0, 7])
        bank.add(rows[:3])
        bank.search(queries, 2)
        bank.compact()
        bank.search(queries, 2)
    except OnceoverError:
        return


def main(form: str, edits: str) -> None:
    rows, queries = bank_and_queries("duplicated", Shape(100, 129))
    index = build(rows, form).index_bytes()
    damaged = {"header": damaged_headers, "sections": damaged_sections}[edits]
    isas = itertools.cycle((_core.available_isas()[0], "scalar"))
    for (what, copy), isa in zip(damaged(index), isas, strict=False):
        print(what, isa, end=" ", flush=True)
        try:
            use(rows, copy, queries, isa)
            print("used", flush=True)
        except InputError as error:
            print("refused" if str(error).startswith("search index: ") else f"refused by {error!r}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
