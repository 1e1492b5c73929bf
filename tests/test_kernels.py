"""Distances against float64 within the derived bound, properties of a memory bank, the choice of an instruction set.

Bit equality between instruction sets is in test_kernels.cpp; dims here cover every tail of the 16 partial sums.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tolerances import distance_f32

from onceover import _core
from onceover.errors import InputError, UnknownNameError, UsageError

ROOT = Path(__file__).resolve().parents[1]
KERNELS = ROOT / "csrc" / "kernels"
DIMS = (1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 128, 384)

Rows = NDArray[np.float32]


def normal_rows(rows: int, dims: int, seed: int, offset: float = 0.0) -> Rows:
    return (np.random.default_rng(seed).standard_normal((rows, dims)) + offset).astype(np.float32)


def assert_nearest(distance: Rows, index: NDArray[np.int64], queries: Rows, bank: Rows) -> None:
    """Distances within the derived bound of float64's; another index only where its row is as near within the bound."""
    exact, exact_index = reference.nearest_neighbor(queries, bank)
    bound = distance_f32(bank.shape[1])
    np.testing.assert_allclose(distance, exact, rtol=bound, atol=0)
    for q in np.flatnonzero(index != exact_index):
        chosen = np.sqrt(((bank[index[q]].astype(np.float64) - queries[q]) ** 2).sum())
        assert chosen <= exact[q] * (1 + 2 * bound), f"query {q}: row {index[q]} is not a tie of row {exact_index[q]}"


@pytest.mark.parametrize("isa", _core.available_isas())
@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_nearest_rows_are_those_of_float64(isa: str, dims: int, offset: float) -> None:
    queries, bank = normal_rows(21, dims, 1, offset), normal_rows(333, dims, 2, offset)
    distance, index = _core.nearest_neighbor(queries, bank, isa)
    assert distance.dtype == np.float32
    assert index.dtype == np.int64
    assert_nearest(distance, index, queries, bank)


def test_the_float64_check_itself_notices_a_wrong_row_and_a_wrong_distance() -> None:
    queries, bank = normal_rows(9, 40, 3), normal_rows(50, 40, 4)
    distance, index = _core.nearest_neighbor(queries, bank)
    second = distance.copy()
    second[3] *= np.float32(1 + 1e-5)
    with pytest.raises(AssertionError):
        assert_nearest(second, index, queries, bank)
    wrong = index.copy()
    wrong[5] = (wrong[5] + 1) % 50
    with pytest.raises(AssertionError, match="query 5"):
        assert_nearest(distance, wrong, queries, bank)


small_floats = st.floats(-1e6, 1e6, width=32)


@st.composite
def queries_and_bank(draw: st.DrawFn) -> tuple[Rows, Rows]:
    dims = draw(st.integers(1, 20))
    row = st.lists(small_floats, min_size=dims, max_size=dims)
    queries = draw(st.lists(row, min_size=1, max_size=6))
    bank = draw(st.lists(row, min_size=2, max_size=12))
    return np.array(queries, np.float32), np.array(bank, np.float32)


@settings(max_examples=60, deadline=None)
@given(queries_and_bank())
def test_adding_a_bank_row_never_raises_a_distance(case: tuple[Rows, Rows]) -> None:
    queries, bank = case
    fewer, _ = _core.nearest_neighbor(queries, bank[:-1])
    more, index = _core.nearest_neighbor(queries, bank)
    assert np.all(more <= fewer)
    assert np.all((index == len(bank) - 1) == (more < fewer))  # the added row wins only by being strictly nearer


@settings(max_examples=60, deadline=None)
@given(queries_and_bank(), st.integers(0, 2**32 - 1))
def test_bank_order_does_not_matter_for_a_distance(case: tuple[Rows, Rows], seed: int) -> None:
    queries, bank = case
    order = np.random.default_rng(seed).permutation(len(bank))
    distance, _ = _core.nearest_neighbor(queries, bank)
    np.testing.assert_array_equal(_core.nearest_neighbor(queries, bank[order])[0], distance)


@settings(max_examples=60, deadline=None)
@given(queries_and_bank())
def test_a_bank_row_scores_exactly_zero_at_its_first_copy(case: tuple[Rows, Rows]) -> None:
    _, bank = case
    distance, index = _core.nearest_neighbor(bank, bank)
    assert np.all(distance == 0)
    first = [int(np.flatnonzero((bank == row).all(axis=1))[0]) for row in bank]
    # Rows closer than 2.6e-23 count as copies: their squared difference is below the smallest float32.
    assert np.all(index <= first)


def test_a_query_that_is_not_finite_is_infinitely_far_from_everything() -> None:
    queries = normal_rows(3, 10, 5)
    queries[0, 9], queries[2, 0] = np.nan, -np.inf
    distance, index = _core.nearest_neighbor(queries, normal_rows(7, 10, 6))
    assert np.isposinf(distance[[0, 2]]).all()
    assert index[[0, 2]].tolist() == [-1, -1]
    assert np.isfinite(distance[1])
    assert index[1] >= 0


@pytest.mark.parametrize("isa", _core.available_isas())
@pytest.mark.parametrize("dims", [1, 5, 32])
def test_greedy_coreset_selects_what_float64_selects(isa: str, dims: int) -> None:
    # Whole numbers below 2^10: squared distances are exact in float32, so that ties are the same ties.
    points = np.random.default_rng(dims).integers(-40, 40, (120, dims)).astype(np.float32)
    coreset = _core.GreedyCoreset(points, 17, isa)
    coreset.select(4)
    coreset.select(20)
    selected, radius = reference.k_center_greedy(points, 24, 17)
    assert coreset.selected.tolist() == selected
    assert coreset.covering_radius == pytest.approx(radius, rel=distance_f32(dims))


def test_a_coreset_keeps_its_points_alive() -> None:
    coreset = _core.GreedyCoreset(normal_rows(500, 8, 7), 0)
    coreset.select(500)
    assert sorted(coreset.selected.tolist()) == list(range(500))
    assert coreset.covering_radius == 0


def test_rows_that_cannot_be_compared_are_refused() -> None:
    queries, bank = normal_rows(3, 10, 8), normal_rows(7, 10, 9)
    with pytest.raises(InputError, match="float64"):
        _core.nearest_neighbor(queries.astype(np.float64), bank)
    with pytest.raises(InputError, match="ascontiguousarray"):
        _core.nearest_neighbor(queries, normal_rows(10, 7, 9).T)
    with pytest.raises(InputError, match="10 values per row"):
        _core.nearest_neighbor(queries, normal_rows(7, 11, 9))
    with pytest.raises(InputError, match="0 x 10"):
        _core.nearest_neighbor(queries, bank[:0])
    with pytest.raises(UsageError, match="first is -1"):
        _core.GreedyCoreset(bank, -1)
    with pytest.raises(UsageError, match=r"row 7.*7 rows"):
        _core.GreedyCoreset(bank, 7)
    bank[4, 2] = np.inf
    with pytest.raises(InputError, match="bank: row 4 of 7"):
        _core.nearest_neighbor(queries, bank)
    with pytest.raises(InputError, match="coreset points: row 4 of 7"):
        _core.GreedyCoreset(bank, 0)


FORCED = """
import hashlib, numpy as np
from onceover import _core
rng = np.random.default_rng(0)
found = _core.nearest_neighbor(rng.random((50, 77), np.float32), rng.random((400, 77), np.float32))
print(_core.isa(), hashlib.sha256(found[0].tobytes() + found[1].tobytes()).hexdigest())
"""


def run_forced(isa: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ONCEOVER_ISA": isa}
    return subprocess.run([sys.executable, "-c", FORCED], env=environment, capture_output=True, text=True, check=False)


def test_every_forced_instruction_set_gives_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    distance, index = _core.nearest_neighbor(rng.random((50, 77), np.float32), rng.random((400, 77), np.float32))
    digest = hashlib.sha256(distance.tobytes() + index.tobytes()).hexdigest()
    for isa in _core.available_isas():
        assert run_forced(isa).stdout.split() == [isa, digest]


def test_forcing_an_unknown_instruction_set_fails_and_names_the_known_ones() -> None:
    answer = run_forced("nonsense")
    assert answer.returncode != 0
    assert "UnknownNameError" in answer.stderr
    assert "'nonsense' does not exist; known: avx512, avx2, scalar" in answer.stderr
    with pytest.raises(UnknownNameError, match="known: avx512, avx2, scalar"):
        _core.nearest_neighbor(normal_rows(1, 2, 0), normal_rows(1, 2, 1), "nonsense")


def test_the_active_instruction_set_is_the_best_available_or_the_forced_one() -> None:
    available = _core.available_isas()
    assert available[-1] == "scalar"
    assert _core.isa() == (os.environ.get("ONCEOVER_ISA") or available[0])


def kernel_symbols() -> list[str]:
    return re.findall(r"^ONCEOVER_KERNEL\((\w+),", (KERNELS / "kernels.def").read_text(), re.MULTILINE)


@pytest.mark.parametrize("optimization", ["-O0", "-O3"])
@pytest.mark.parametrize("symbol", kernel_symbols())
def test_an_instruction_set_object_exports_its_table_and_nothing_weak(
    symbol: str, optimization: str, tmp_path: Path, require_tool: Callable[[str], str]
) -> None:
    """A weak symbol (an inline function) of an AVX2 object could be the copy that an older CPU is made to run."""
    compiler, nm = require_tool("g++"), require_tool("nm")
    built = tmp_path / "kernel.o"
    flags = [optimization, "-std=c++17", "-ffp-contract=off", "-fPIC", f"-I{ROOT / 'csrc'}"]
    subprocess.run([compiler, *flags, "-c", str(KERNELS / f"{symbol}.cpp"), "-o", str(built)], check=True)
    listed = subprocess.run([nm, "--defined-only", str(built)], check=True, capture_output=True, text=True).stdout
    kinds = {line.split()[-1]: line.split()[-2] for line in listed.splitlines()}
    shared = {name: kind for name, kind in kinds.items() if kind.isupper() or kind in "vwu"}
    assert len(shared) <= 1, f"only the table may be visible outside {symbol}.cpp"  # none on a foreign architecture
    assert all(name.endswith(f"{symbol}_kernelsE") and kind in "DR" for name, kind in shared.items()), shared
