"""Memory banks as bytes: written, read back, built again the same, and damaged in every field."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bank_cases import Rows, Shape, assert_exact, bank_and_queries, build, float64_results, wrong_results
from index_layout import aligned_copy, header_of, header_words, sections_of
from tiny_package import write_members

import onceover
from onceover import _core
from onceover.errors import InputError, PackageError

TESTS = Path(__file__).resolve().parent
CODED = ("rank 32/64+64", "rank 64+0", "full")


def case(rows: int = 500, dims: int = 129) -> tuple[Rows, Rows]:
    return bank_and_queries("clustered", Shape(rows, dims))


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_a_saved_bank_opens_as_it_was(metric: Any, mmap: bool, tmp_path: Path) -> None:
    rows, queries = case()
    bank = onceover.MemoryBank.build(rows, metric)
    graph = bank.neighbors(4)
    bank.save(tmp_path / "rows.bank")
    opened = onceover.MemoryBank.open(tmp_path / "rows.bank", mmap=mmap)
    assert (opened.metric, opened.shape, opened.representation) == (metric, (500, 129), bank.representation)
    assert opened.index_size_bytes == bank.index_size_bytes
    assert not wrong_results(opened.search(queries, 9), bank.search(queries, 9))
    np.testing.assert_array_equal(opened.neighbors(4), graph)
    opened.save(tmp_path / "again.bank")
    assert (tmp_path / "again.bank").read_bytes() == (tmp_path / "rows.bank").read_bytes()


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_a_pickled_or_copied_bank_is_one_of_its_own(metric: Any) -> None:
    rows, queries = case()
    bank = onceover.MemoryBank.build(rows, metric)
    graph = bank.neighbors(4)
    bank.remove([7])
    for made in (pickle.loads(pickle.dumps(bank)), copy.deepcopy(bank)):
        assert (made.metric, made.shape, made.representation) == (metric, (499, 129), bank.representation)
        assert not wrong_results(made.search(queries, 3), bank.search(queries, 3))
        made.remove([8])
        assert (len(made), len(bank)) == (498, 499)
    whole = onceover.MemoryBank.build(rows, metric)
    whole.neighbors(4)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(whole)).neighbors(4), graph)


def test_a_bank_hands_out_its_rows_by_their_numbers() -> None:
    rows, _ = case()
    bank = onceover.MemoryBank.build(rows[:450])
    bank.add(rows[450:])
    bank.remove([3, 460])
    got = bank.rows()
    assert np.flatnonzero(np.isnan(got).any(axis=1)).tolist() == [3, 460]
    kept = np.delete(np.arange(500), [3, 460])
    np.testing.assert_array_equal(got[kept], rows[kept])
    got[:] = 0
    np.testing.assert_array_equal(bank.rows()[kept], rows[kept])
    unit = onceover.MemoryBank.build(rows, "cosine").rows()
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("mmap", [True, False])
def test_an_opened_bank_can_be_changed_and_its_file_stays(mmap: bool, tmp_path: Path) -> None:
    rows, queries = case()
    onceover.MemoryBank.build(rows[:450]).save(tmp_path / "rows.bank")
    written = (tmp_path / "rows.bank").read_bytes()
    bank = onceover.MemoryBank.open(tmp_path / "rows.bank", mmap=mmap)
    bank.remove([1, 3, 5])
    bank.add(rows[450:])
    bank.save(tmp_path / "changed.bank")
    assert (tmp_path / "rows.bank").read_bytes() == written
    kept = np.delete(np.arange(500), [1, 3, 5])
    distances, found = float64_results(queries, rows[kept], 3)
    reopened = onceover.MemoryBank.open(tmp_path / "changed.bank", mmap=mmap)
    for each in (bank, reopened):
        assert not wrong_results(each.search(queries, 3), (distances, kept[found]))
        assert each.shape == (497, 129)
    assert reopened.compact().tolist() == kept.tolist()
    assert not wrong_results(reopened.search(queries, 3), (distances, found))


def test_a_bank_may_overwrite_the_file_that_it_is_read_from(tmp_path: Path) -> None:
    rows, queries = case()
    path = tmp_path / "rows.bank"
    onceover.MemoryBank.build(rows).save(path)
    bank = onceover.MemoryBank.open(path)
    found = bank.search(queries)
    bank.save(path)
    assert not wrong_results(bank.search(queries), found)
    assert not wrong_results(onceover.MemoryBank.open(path).search(queries), found)


BUILD_AGAIN = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from bank_cases import Shape, bank_and_queries, build
for representation in sys.argv[2:]:
    bank, _ = bank_and_queries("clustered", Shape(500, 129))
    print(hashlib.sha256(build(bank, representation).index_bytes()).hexdigest())
"""


def test_the_same_rows_give_the_same_bytes_in_this_and_in_another_process() -> None:
    forms = ("scan", *CODED, "chosen")
    rows, _ = case()
    first, second = ([build(rows.copy(), form).index_bytes() for form in forms] for _ in range(2))
    assert first == second
    program = [sys.executable, "-c", BUILD_AGAIN, str(TESTS), *forms]
    printed = subprocess.run(program, check=True, capture_output=True, text=True).stdout.split()
    assert printed == [hashlib.sha256(index).hexdigest() for index in first]


def test_another_seed_gives_other_codes_and_the_same_results() -> None:
    rows, queries = case()
    one, two = (_core.MemoryBank(rows, representation="rank", rank1=64, rank2=128, seed=seed) for seed in (1, 2))
    assert one.index_bytes() != two.index_bytes()
    assert not wrong_results(one.search(queries, 5), two.search(queries, 5))


@pytest.mark.parametrize("form", ["scan", *CODED])
def test_an_index_cut_anywhere_is_refused(form: str) -> None:
    rows, _ = case(100)
    index = build(rows, form).index_bytes()
    for length in {1, 63, 64, 127, 128, 129, *range(997, len(index), 997), len(index) - 64, len(index) - 1}:
        with pytest.raises(InputError, match=rf"search index: .*{length} bytes"):
            _core.MemoryBank.view(rows, aligned_copy(index[:length]))
    with pytest.raises(InputError, match="search index: has"):
        _core.MemoryBank.view(rows, aligned_copy(index + bytes(64)))
    with pytest.raises(InputError):
        _core.MemoryBank.view(rows, np.zeros(0, np.uint8))


# What a field is set to, for which it must be named in the refusal.
NAMED = {
    "magic": (0, 1, -1), "version": (0, 2, -1), "representation": (3, 1 << 31, -1), "dims": (0, 1 << 31, -1),
    "row_count": (-1,), "slot_count": (1, 1 << 31, -1), "rank1": (0, 1, 1 << 31, -1), "rank2": (0, 1, 1 << 31, -1),
    "copy_count": (1 << 31, -1), "removed_count": (1 << 31, -1), "safe_scale": (2, 1 << 31, -1),
}  # fmt: skip


@pytest.mark.parametrize("form", CODED)
def test_a_field_of_the_header_out_of_range_is_refused_by_name(form: str, tmp_path: Path) -> None:
    rows, _ = case(100)
    index = build(rows, form).index_bytes()
    for field, values in NAMED.items():
        for value in values:
            damaged = aligned_copy(index)
            header_of(damaged)[field] = value & 0xFFFFFFFF
            with pytest.raises(InputError, match=f"search index: field '{field}' is {value & 0xFFFFFFFF}, expected"):
                _core.MemoryBank.view(rows, damaged)
    damaged = aligned_copy(index)
    header_of(damaged)["rank2"] = 1
    members = {"manifest.json": b"{}", "memory_bank": rows, "bank_index": damaged}
    with pytest.raises(PackageError, match="member 'bank_index': search index: field 'rank2' is 1"):
        onceover.MemoryBank.open(write_members(tmp_path / "damaged.bank", members))


@pytest.mark.parametrize("field", ["step", "scale", "tail_mean"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_of_the_header_that_is_none_is_refused(field: str, value: float) -> None:
    rows, _ = case(100)
    damaged = aligned_copy(build(rows, "rank 64+64").index_bytes())
    header_of(damaged)[field] = value
    with pytest.raises(InputError, match="search index: "):
        _core.MemoryBank.view(rows, damaged)


@pytest.mark.parametrize("form", ["rank 64+64", "full"])
def test_rows_that_do_not_exist_are_refused_wherever_an_index_names_them(form: str) -> None:
    rows, _ = case(100)
    rows = np.concatenate([rows, rows[:2]])
    index = build(rows, form).index_bytes()
    for section, place in (("facts", 7), ("copies", 0), ("copies", 3)):
        damaged = aligned_copy(index)
        target = sections_of(damaged)[section]
        target = target["id"] if section == "facts" else target
        target[place] = 102
        with pytest.raises(InputError, match=rf"search index: field '{section}.*' is 102, expected a row"):
            _core.MemoryBank.view(rows, damaged)


@pytest.mark.parametrize("isa", _core.available_isas())
def test_an_index_that_names_no_part_to_screen_is_screened_by_all_coordinates(isa: str) -> None:
    """As versions before 'screened' wrote it: that word and the rows' were 0."""
    rows, queries = bank_and_queries("constant_columns", Shape(1100, 129))
    index = aligned_copy(build(rows, "rank 32/64+64").index_bytes())
    now = _core.MemoryBank.view(rows, index, isa)
    before = aligned_copy(index.tobytes())
    header_of(before)["screened"] = 0
    sections_of(before)["facts"]["screen"] = 0
    old = _core.MemoryBank.view(rows, before, isa)
    assert (now.ranks, old.ranks) == ((32, 64, 128), (64, 64, 128))
    for k in (9, 2, 1):
        for found, expected in zip(now.search(queries, k), old.search(queries, k), strict=True):
            assert found.tobytes() == expected.tobytes()
    # A part prunes fewer blocks, or it was not the part. AMX multiplies 64 coordinates as fast as 32.
    assert (now.stats["hit_blocks"] > old.stats["hit_blocks"]) == (isa != "amx")
    grown = [each for each in (now, old) if each.add(rows[:40] + np.float32(0.01)) == len(rows)]
    assert [each.ranks[0] for each in grown] == [32, 64]
    for found, expected in zip(now.search(queries, 3), old.search(queries, 3), strict=True):
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("screened", [8, 24, 80])
def test_a_part_to_screen_that_no_kernel_takes_is_refused(screened: int) -> None:
    rows, _ = bank_and_queries("clustered", Shape(500, 200))
    with pytest.raises(InputError, match=f"search index: field 'screened' is {screened}, expected 0, or in rank a mul"):
        build(rows, f"rank {screened}/128+0")


def test_an_index_of_other_rows_is_refused() -> None:
    rows, _ = case(100)
    index = aligned_copy(build(rows, "full").index_bytes())
    moved = rows.copy()
    moved[50, 3] = np.nextafter(moved[50, 3], np.float32(9))
    swapped = rows.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    shapes = (rows[:99].copy(), rows[:, :128].copy(), np.concatenate([rows, rows[:1]]))
    for other in (moved, swapped, *shapes):
        with pytest.raises(InputError, match=r"search index: .*rows"):
            _core.MemoryBank.view(other, index)


def test_bytes_that_are_no_aligned_index_are_refused() -> None:
    rows, _ = case(100)
    index = aligned_copy(build(rows, "full").index_bytes())
    space = aligned_copy(bytes(len(index) + 64))
    space[8 : 8 + len(index)] = index
    with pytest.raises(InputError, match="multiple of 64"):
        _core.MemoryBank.view(rows, space[8 : 8 + len(index)])
    with pytest.raises(InputError, match="index is float32"):
        _core.MemoryBank.view(rows, index.view(np.float32))
    with pytest.raises(InputError, match="with 1 dimension"):
        _core.MemoryBank.view(rows, index[None])


def outcomes(form: str, edits: str) -> list[str]:
    """Of viewing and using an index damaged in each of many ways, in a process of its own that may crash alone."""
    program = [sys.executable, str(TESTS / "damaged_index.py"), form, edits]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0, f"exit {done.returncode} after {done.stdout.splitlines()[-1:]}: {done.stderr[-2000:]}"
    lines: list[str] = done.stdout.splitlines()
    return [line.rpartition(" ")[2] for line in lines]


@pytest.mark.parametrize("form", ["scan", *CODED])
def test_no_word_of_the_header_can_crash_a_search(form: str) -> None:
    told = outcomes(form, "header")
    assert len(told) > 6 * (len(set(header_words().values())) - 1)
    assert set(told) == {"refused", "used"}


@pytest.mark.parametrize("form", ["rank 32/64+64", "full"])
def test_no_byte_of_the_sections_can_crash_a_search(form: str) -> None:
    assert "used" in outcomes(form, "sections")


def test_what_is_no_bank_with_an_index_is_refused(tmp_path: Path) -> None:
    rows, _ = case(100)
    with pytest.raises(InputError, match="nothing"):
        onceover.MemoryBank.open(tmp_path / "nothing.bank")
    with pytest.raises(InputError, match="nothing"):
        onceover.MemoryBank.open(tmp_path / "nothing.bank", mmap=False)
    (tmp_path / "text.bank").write_bytes(b"rows")
    for mmap in (True, False):
        with pytest.raises(PackageError, match=r"text\.bank"):
            onceover.MemoryBank.open(tmp_path / "text.bank", mmap=mmap)
    plain = write_members(tmp_path / "plain.bank", {"manifest.json": b"{}", "memory_bank": rows})
    with pytest.raises(PackageError, match=r"plain\.bank: holds no memory bank with a search index"):
        onceover.MemoryBank.open(plain)


@pytest.mark.parametrize("manifest", [b"{", b"[]", b'"l2"', b"\xff", b'{"metric": "dot"}', b'{"metric": 3}'])
def test_a_manifest_that_makes_no_sense_is_refused(manifest: bytes, tmp_path: Path) -> None:
    rows, _ = case(100)
    index = np.frombuffer(build(rows, "full").index_bytes(), np.uint8)
    members = {"manifest.json": manifest, "memory_bank": rows, "bank_index": index}
    with pytest.raises(PackageError, match="manifest"):
        onceover.MemoryBank.open(write_members(tmp_path / "rows.bank", members))


def test_a_neighbor_graph_that_does_not_fit_the_rows_is_refused(tmp_path: Path) -> None:
    rows, _ = case(100)
    index = np.frombuffer(build(rows, "full").index_bytes(), np.uint8)
    graph = _core.MemoryBank(rows).search(rows, 4)[1].astype(np.uint32)
    unknown = graph.copy()
    unknown[5, 2] = 100
    wide = np.zeros((100, 33), np.uint32)
    for damaged in (graph[:99].copy(), graph.astype(np.float32), graph.ravel(), unknown, wide):
        members = {"memory_bank": rows, "bank_index": index, "bank_neighbors": damaged}
        with pytest.raises(PackageError, match="bank_neighbors"):
            onceover.MemoryBank.open(write_members(tmp_path / "rows.bank", members))


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    rows, _ = case(100)
    bank = onceover.MemoryBank.build(rows)
    bank.neighbors(2)
    bank.save(tmp_path / "rows.bank")
    whole = (tmp_path / "rows.bank").read_bytes()
    for length in {0, 1, 64, *range(100, len(whole), 2999), len(whole) - 1}:
        (tmp_path / "cut.bank").write_bytes(whole[:length])
        for mmap in (True, False):
            with pytest.raises(PackageError, match=r"cut\.bank"):
                onceover.MemoryBank.open(tmp_path / "cut.bank", mmap=mmap)


@pytest.mark.parametrize("mmap", [True, False])
def test_the_bank_of_a_package_opens_and_keeps_its_file_alive(mmap: bool, tmp_path: Path) -> None:
    rows, queries = case()
    index = np.frombuffer(build(rows, "full").index_bytes(), np.uint8)
    members = {"manifest.json": json.dumps({"name": "part"}).encode(), "memory_bank": rows, "bank_index": index}
    bank = onceover.MemoryBank.open(write_members(tmp_path / "part.onceover", members), mmap=mmap)
    (tmp_path / "part.onceover").unlink()
    assert (bank.metric, bank.representation) == ("l2", "full")
    assert not wrong_results(bank.search(queries, 3), float64_results(queries, rows, 3))


@pytest.mark.parametrize("isa", _core.available_isas())
def test_an_index_serves_every_instruction_set_whichever_built_it(isa: str) -> None:
    rows, queries = case()
    expected = float64_results(queries, rows, 3)
    for form in CODED:
        index = aligned_copy(build(rows, form, isa).index_bytes())
        for reader in _core.available_isas():
            assert_exact(_core.MemoryBank.view(rows, index, reader), queries, expected, 3)
