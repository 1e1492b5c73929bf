"""Adding, removing and compacting rows: after any change, a bank finds what a bank of the remaining rows finds."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from bank_cases import Results, Rows, Shape, bank_and_queries, build, float64_results, wrong_results
from hypothesis import given, settings
from hypothesis import strategies as st
from index_layout import aligned_copy
from numpy.typing import NDArray

import onceover
from onceover import _core
from onceover.errors import InputError, UsageError

REPRESENTATIONS = ("scan", "rank 32/64+64", "rank 64+0", "full", "chosen")


@dataclass
class Model:
    """What a bank must be: all rows ever given (since the last compact), and which are there."""

    rows: Rows
    alive: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.alive = np.ones(len(self.rows), bool)

    def add(self, rows: Rows) -> None:
        self.rows = np.concatenate([self.rows, rows])
        self.alive = np.concatenate([self.alive, np.ones(len(rows), bool)])

    def remove(self, numbers: list[int]) -> None:
        self.alive[numbers] = False

    def compact(self) -> None:
        self.rows = self.rows[self.alive]
        self.alive = np.ones(len(self.rows), bool)

    def search(self, queries: Rows, k: int) -> Results:
        """Of a bank of the rows that are there alone, under the numbers that they have here."""
        numbers = np.append(np.flatnonzero(self.alive), -1)  # −1 stays −1
        distances, found = float64_results(queries, self.rows[self.alive], k)
        return distances, numbers[found]


def assert_same(core: _core.MemoryBank, model: Model, queries: Rows, k: int = 3) -> None:
    wrong = wrong_results(core.search(queries, k), model.search(queries, k))
    assert not wrong, wrong[0]
    assert core.row_count == model.alive.sum()
    np.testing.assert_array_equal(core.alive, model.alive)
    np.testing.assert_array_equal(core.rows(), model.rows)


def case(rows: int = 700, name: str = "clustered") -> tuple[Rows, Rows]:
    bank, queries = bank_and_queries(name, Shape(rows, 129))
    return bank.copy(), queries


@pytest.mark.parametrize("isa", _core.available_isas())
@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_rows_that_were_added_are_found_like_the_first_ones(representation: str, isa: str) -> None:
    bank, queries = case()
    model = Model(bank[:600])
    core = build(bank[:600], representation, isa)
    for first, last in ((600, 601), (601, 632), (632, 664), (664, 700)):
        assert core.add(bank[first:last]) == first
        model.add(bank[first:last])
        assert_same(core, model, queries)
    fresh = build(bank, representation, isa)
    assert not wrong_results(core.search(queries, 9), fresh.search(queries, 9))


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_removed_rows_are_found_no_more_and_others_keep_their_numbers(representation: str) -> None:
    bank, queries = case()
    core, model = build(bank, representation), Model(bank)
    nearest = core.search(queries)[1][:, 0]
    for numbers in ([int(nearest[0])], sorted(set(nearest.tolist()) - {int(nearest[0])}), list(range(0, 700, 7))):
        still_there = [number for number in numbers if model.alive[number]]
        core.remove(still_there)
        model.remove(still_there)
        assert_same(core, model, queries)


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_removing_a_row_leaves_its_copies_and_the_lowest_of_them_answers(representation: str) -> None:
    bank, queries = case()
    groups = [(5, 80, 81, 300), (6, 301), (40, 41, 42)]
    for first, *copies in groups:
        bank[copies] = bank[first]
    queries = np.concatenate([queries, bank[[5, 6, 40]]])
    core, model = build(bank, representation), Model(bank)
    for numbers in ([81], [5], [6, 301], [80], [40, 42], [300], [41]):
        core.remove(numbers)
        model.remove(numbers)
        assert_same(core, model, queries, 5)


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_copies_of_rows_that_are_there_or_were_removed_can_be_added(representation: str) -> None:
    bank, queries = case()
    bank[99] = bank[7]
    core, model = build(bank, representation), Model(bank)
    queries = np.concatenate([queries, bank[[7, 8, 9]]])
    core.remove([7, 8])
    model.remove([7, 8])
    for numbers in ([8], [7, 7, 9], [8, 99]):
        core.add(bank[numbers])
        model.add(bank[numbers])
        assert_same(core, model, queries, 5)
    core.remove([99, 700])
    model.remove([99, 700])
    assert_same(core, model, queries, 5)


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_a_bank_can_be_emptied_and_filled_again(representation: str) -> None:
    bank, queries = case(130)
    core, model = build(bank, representation), Model(bank)
    core.remove(list(range(130)))
    model.remove(list(range(130)))
    assert_same(core, model, queries)
    assert np.isposinf(core.search(queries)[0]).all()
    assert core.row_count == 0
    core.add(bank[:50])
    model.add(bank[:50])
    assert_same(core, model, queries)
    core.compact()
    model.compact()
    assert_same(core, model, queries)


COMPACT_NOTHING = """
import sys
sys.path.insert(0, sys.argv[1])
from test_memory_bank_changes import Model, assert_same, build, case
bank, queries = case(130)
core = build(bank, sys.argv[2])
core.remove(list(range(130)))
core.compact()
assert core.rows().shape == (0, 129)
assert (core.search(queries)[1] == -1).all()
core.add(bank)
assert_same(core, Model(bank), queries)
"""


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_an_emptied_bank_can_be_compacted(representation: str) -> None:
    """In a process of its own, which coding nothing may bring down."""
    program = [sys.executable, "-c", COMPACT_NOTHING, str(Path(__file__).parent), representation]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr[-500:]}"


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_compacting_gives_the_index_of_a_bank_built_from_what_is_left(representation: str) -> None:
    bank, queries = case()
    core, model = build(bank, representation), Model(bank)
    core.add(bank[3:40])
    core.remove([0, 5, 699, 701])
    model.add(bank[3:40])
    model.remove([0, 5, 699, 701])
    core.compact()
    model.compact()
    assert_same(core, model, queries)
    assert core.index_bytes() == build(model.rows, representation).index_bytes()


@pytest.mark.parametrize("representation", ["rank 64+64", "full"])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e3, 1e14, 1e16, 1e25, 3e38])
def test_rows_of_another_size_than_all_before_may_be_added(representation: str, size: float) -> None:
    bank, queries = case(300)
    core, model = build(bank, representation), Model(bank)
    with np.errstate(over="ignore"):
        strange = np.clip(size * bank[:20].astype(np.float64), -3e38, 3e38).astype(np.float32)
    core.add(strange)
    model.add(strange)
    assert_same(core, model, np.concatenate([queries, strange[:5], strange[5:9] * np.float32(0.9)]))


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_rows_may_be_added_to_a_bank_of_one_repeated_row(representation: str) -> None:
    bank, queries = case(200, "one_repeated_row")
    other = case(100)[0]
    core, model = build(bank, representation), Model(bank)
    for rows in (other, bank[:3], np.nextafter(bank[:40], np.float32(9))):
        core.add(rows)
        model.add(rows)
        assert_same(core, model, np.concatenate([queries, other[:9]]), 9)


@pytest.mark.parametrize("representation", ["scan", "rank 64+0", "full"])
def test_a_refused_change_changes_nothing(representation: str) -> None:
    bank, queries = case()
    core = build(bank, representation)
    core.remove([17])
    core.add(bank[:2])
    before, found = core.index_bytes(), core.search(queries, 3)
    for numbers in ([17], [702], [-1], [2**40], [3, 3], [4, 17], [5, 2**32 - 1]):
        with pytest.raises(UsageError, match="cannot be removed"):
            core.remove(numbers)
    with pytest.raises(InputError, match="row 1"):
        core.add(np.array([bank[0], np.where(np.arange(129) == 3, np.nan, bank[0])], np.float32))
    with pytest.raises(InputError, match="128"):
        core.add(bank[:, :128].copy())
    with pytest.raises(InputError, match="float64"):
        core.add(bank.astype(np.float64))
    assert core.add(bank[:0]) == 702
    core.remove([])
    assert core.index_bytes() == before
    assert core.row_count == 701
    assert not wrong_results(core.search(queries, 3), found)


def test_only_whole_numbers_name_rows_to_remove() -> None:
    bank = onceover.MemoryBank.build(np.eye(4, dtype=np.float32))
    mask = np.array([False, True])  # as numbers: rows 0 and 1
    for wrong, told in (
        (mask, "np.flatnonzero"),
        ([True, False], "np.flatnonzero"),
        ([True, 2], "rows are of booleans and numbers"),
        ([2, np.True_], "np.flatnonzero"),
        ([1.9], "float64"),
        ([2**63], "row 9223372036854775808 cannot be removed: no such number"),
        (np.array([0, 2**64 - 1], np.uint64), "row 18446744073709551615 cannot be removed"),
        (2, "rows is 2"),
    ):
        with pytest.raises(UsageError, match=told):
            bank.remove(wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="whole numbers"):
        bank.remove(["1"])  # type: ignore[list-item]
    assert len(bank) == 4
    bank.remove(np.flatnonzero(mask))
    bank.remove({3})  # type: ignore[arg-type]
    bank.remove([])
    assert bank.search(np.eye(4, dtype=np.float32))[1][:, 0].tolist() == [0, 0, 2, 0]


def test_a_change_leaves_the_arrays_of_the_caller_as_they_were() -> None:
    bank, queries = case()
    index = aligned_copy(build(bank, "rank 64+64").index_bytes())
    bank_before, index_before = bank.copy(), index.copy()
    viewed = _core.MemoryBank.view(bank, index)
    viewed.remove([1, 2])
    viewed.add(bank[:3])
    viewed.search(queries)
    viewed.compact()
    np.testing.assert_array_equal(bank, bank_before)
    np.testing.assert_array_equal(index, index_before)
    assert_same(viewed, Model(np.concatenate([bank[:1], bank[3:], bank[:3]])), queries)


def test_a_bank_tells_the_numbers_of_added_rows_and_the_old_numbers_after_compacting() -> None:
    bank, queries = case()
    named = onceover.MemoryBank.build(bank)
    assert named.add(bank[:3]).tolist() == [700, 701, 702]
    named.remove(np.array([0, 700]))
    assert len(named) == 701
    assert named.shape == (701, 129)
    before = named.search(queries)
    old = named.compact()
    assert old.tolist() == [*range(1, 700), 701, 702]
    distances, rows = named.search(queries)
    assert not wrong_results((distances, old[rows]), before)
    assert named.add(bank[:1]).tolist() == [701]


ROW = st.integers(0, 399)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(REPRESENTATIONS),
    st.lists(st.tuples(st.sampled_from(["add", "remove", "compact"]), st.lists(ROW, max_size=40)), max_size=7),
)
def test_any_sequence_of_changes_leaves_a_bank_of_the_rows_that_are_there(
    representation: str, changes: list[tuple[str, list[int]]]
) -> None:
    source, queries = bank_and_queries("duplicated", Shape(400, 70))
    core, model = build(source[:300], representation), Model(source[:300])
    for change, numbers in changes:
        if change == "add":
            core.add(source[numbers])
            model.add(source[numbers])
        elif change == "remove":
            there = sorted({number for number in numbers if number < len(model.alive) and model.alive[number]})
            core.remove(there)
            model.remove(there)
        elif model.alive.any():
            core.compact()
            model.compact()
        assert_same(core, model, queries[:17], 4)
