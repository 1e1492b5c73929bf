"""Exactness: every distance and row of a search is float64's, bit for bit, on every instruction set.

The families of rows and queries are in bank_cases.py; equal to float64 on each instruction set and in each
representation, results are equal to each other. With few rows a search falls back to a scan, so that each family also
comes with many; test_the_screen_answers_by_itself shows that the codes are what is tested there.
"""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

import numpy as np
import pytest
from bank_cases import (
    DIMS,
    FAMILIES,
    REPRESENTATIONS,
    Results,
    Rows,
    Shape,
    assert_exact,
    bank_and_queries,
    build,
    fits,
    float64_results,
    truth,
    wrong_results,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from index_layout import aligned_copy, sections_of
from planted_rows import Planted, plant
from reference import squared_distances

from onceover import _core
from onceover.errors import InputError

SHARED = Path(__file__).resolve().parents[2] / "shared"
ISAS = _core.available_isas()
UNCODABLE = {"largest_floats"}  # there may be no finite step for them: forced codes may be refused


@functools.cache
def index_of(name: str, shape: Shape, representation: str) -> bytes:
    return build(bank_and_queries(name, shape)[0], representation).index_bytes()


def few_and_many(name: str) -> tuple[Shape, Shape]:
    """In turn all of DIMS, over the families."""
    turn = list(FAMILIES).index(name)
    return Shape(200 - turn, DIMS[turn % 7], turn), Shape(800 + turn, DIMS[7 + turn % 5], turn)


@pytest.mark.parametrize("representation", ["scan", "rank 64+0", "rank 32/64+64", "full", "chosen"])
@pytest.mark.parametrize("name", FAMILIES)
def test_no_result_differs_from_float64(name: str, representation: str) -> None:
    for shape in few_and_many(name):
        if not fits(representation, shape.dims):
            continue
        bank, queries = bank_and_queries(name, shape)
        try:
            index = aligned_copy(index_of(name, shape, representation))
        except InputError:
            assert name in UNCODABLE and representation not in ("scan", "chosen")  # noqa: PT018 - one reason
            continue
        for isa in ISAS:
            for k in (1, 9) if shape.rows > 200 else (1, 2, 32):
                assert_exact(_core.MemoryBank.view(bank, index, isa), queries, truth(name, shape), k)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_an_index_built_on_any_instruction_set_gives_the_results_of_float64(isa: str, representation: str) -> None:
    for name in ("gaussian", "clustered", "heavy_tails"):
        shape = Shape(500, 129)
        bank, queries = bank_and_queries(name, shape)
        assert_exact(build(bank, representation, isa), queries, truth(name, shape), 5)


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("isa", ISAS)
def test_no_number_of_dimensions_changes_a_result(isa: str, dims: int) -> None:
    for name, rows in (("gaussian", 90), ("clustered", 700), ("exact_ties", 90)):
        bank, queries = bank_and_queries(name, Shape(rows, dims))
        for representation in ("scan", "full", "rank 64+0"):
            index = aligned_copy(index_of(name, Shape(rows, dims), representation))
            assert_exact(_core.MemoryBank.view(bank, index, isa), queries, truth(name, Shape(rows, dims)), 2)


ROW_COUNTS = (1, 2, 31, 32, 33, 63, 64, 65, 95, 96, 97, 128, 161, 200)


@functools.cache
def first_rows(count: int, representation: str) -> tuple[Rows, bytes, Results]:
    """Of 200 rows with so many dimensions that measuring one is dear: the codes are used even among few rows."""
    rows, _ = bank_and_queries("clustered", Shape(200, 512))
    bank = np.ascontiguousarray(rows[:count])
    return bank, build(bank, representation).index_bytes(), float64_results(near_first_rows(), bank, 32)


def near_first_rows() -> Rows:
    rows, queries = bank_and_queries("clustered", Shape(200, 512))
    return np.concatenate([queries, rows[:4]])


@pytest.mark.parametrize("representation", ["scan", "rank 64+64", "full"])
@pytest.mark.parametrize("isa", ISAS)
def test_no_number_of_rows_or_queries_changes_a_result(isa: str, representation: str) -> None:
    queries = near_first_rows()
    for count in ROW_COUNTS:
        bank, index, (distances, rows) = first_rows(count, representation)
        core = _core.MemoryBank.view(bank, aligned_copy(index), isa)
        for asked, k in ((0, 1), (1, 32), (15, 1), (16, 2), (17, 1), (33, 1), (41, 9)):
            assert_exact(core, queries[:asked], (distances[:asked], rows[:asked]), k)


def test_the_screen_answers_by_itself_where_rows_are_many() -> None:
    for representation in ("rank 64+0", "rank 64+64", "full", "chosen"):
        bank, queries = bank_and_queries("clustered", Shape(1100, 129))
        core = build(bank, representation)
        core.search(queries, 1)
        stats = core.stats
        assert stats["queries"] == len(queries)
        assert stats["scanned_queries"] == stats["float64_queries"] == 0
        assert 0 < stats["exact_rows"] + stats["measured_rows"] < 0.01 * len(bank) * len(queries)


@functools.cache
def crowd(dims: int) -> tuple[Rows, Rows, Results]:
    """Rows, queries and what is right: in so few dimensions, coding errors often point the same way."""
    random = np.random.default_rng(8)
    bank, queries = (random.standard_normal((n, dims)).astype(np.float32) for n in (4000, 400))
    return bank, queries, float64_results(queries, bank, 3)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("isa", ISAS)
def test_no_result_is_wrong_in_a_crowd(isa: str, dims: int) -> None:
    bank, queries, expected = crowd(dims)
    for representation in ("full", "rank 64+0"):
        core = build(bank, representation, isa)
        for k in (1, 3):
            assert_exact(core, queries, expected, k)


@functools.cache
def planted(representation: str, bound: str) -> Planted:
    bank, _ = bank_and_queries("gaussian", Shape(3000, 160))
    return plant(build(bank, representation), bound)


@pytest.mark.parametrize(
    ("representation", "bound"),
    [
        *itertools.product(["rank 64+0", "rank 64+64", "rank 128+0", "full"], ["codes", "refined"]),
        *itertools.product(["rank 32/64+64", "rank 48/128+0", "rank 64/128+0"], ["screened", "codes", "refined"]),
    ],
)
def test_rows_whose_coding_errors_all_point_the_same_way_are_still_found(representation: str, bound: str) -> None:
    case = planted(representation, bound)
    expected = float64_results(case.queries, case.bank, 2)
    assert (expected[1][:, 0] == case.nearest).mean() > 0.9  # or nothing was planted
    for isa in ISAS:
        view = _core.MemoryBank.view(case.bank, case.index, isa)
        for k in (1, 2):
            assert_exact(view, case.queries, expected, k)
        view.search(case.queries, 1)
        assert view.stats["scanned_queries"] == 0, "the codes were to answer"


@pytest.mark.parametrize(
    ("bound", "representation"),
    [
        ("codes", "full"),
        ("codes", "rank 64+0"),
        ("codes", "rank 64+64"),
        ("screened", "rank 32/64+64"),
        ("screened", "rank 64/128+0"),
        ("refined", "full"),
        ("refined", "rank 64+64"),
    ],
)
def test_an_error_bound_half_as_large_as_it_must_be_gives_wrong_rows(bound: str, representation: str) -> None:
    """So the test above would notice. Not in "rank 64+0", "refined": there, the bound of the query covers the loss."""
    case = planted(representation, bound)
    index = aligned_copy(case.index.tobytes())
    sections = sections_of(index)
    errors = sections["facts"]["refined_error"] if bound == "refined" else sections["block_errors"]
    errors *= np.float32(0.5)
    found = _core.MemoryBank.view(case.bank, index, "scalar").search(case.queries)
    assert len(wrong_results(found, float64_results(case.queries, case.bank))) > len(case.queries) / 2


def test_error_bounds_shrunk_tenfold_give_wrong_rows_on_gaussian_data() -> None:
    bank, queries, expected = crowd(2)
    index = aligned_copy(build(bank, "full").index_bytes())
    assert not wrong_results(_core.MemoryBank.view(bank, index).search(queries), expected)
    sections = sections_of(index)
    sections["block_errors"] *= np.float32(0.1)
    sections["facts"]["refined_error"] *= np.float32(0.1)
    assert wrong_results(_core.MemoryBank.view(bank, index).search(queries), expected)


def test_the_comparison_notices_a_single_bit_and_a_neighboring_row() -> None:
    bank, queries = bank_and_queries("gaussian", Shape(200, 17))
    right = truth("gaussian", Shape(200, 17))
    assert not wrong_results(build(bank).search(queries, 4), right)
    distances = right[0][:, :4].copy()
    distances[3, 1] = np.nextafter(distances[3, 1], np.float32(9))
    rows = right[1][:, :4].copy()
    rows[5, 0] += 1
    wrong = wrong_results((distances, rows), right)
    assert [line.split(" of")[0] for line in wrong] == ["query 3, neighbor 1", "query 5, neighbor 0"]


@pytest.mark.parametrize("representation", ["scan", "rank 64+64", "full"])
@pytest.mark.parametrize("name", ["clustered", "mixed_group", "heavy_tails"])
def test_threads_and_the_split_of_the_queries_change_no_bit(name: str, representation: str) -> None:
    bank, some = bank_and_queries(name, Shape(900, 100))
    queries = np.tile(some, (33, 1))[np.random.default_rng(0).permutation(33 * len(some))]  # > kOrderWindow
    core = build(bank, representation)
    whole = core.search(queries, 3)
    for threads in (2, 3, 5):
        assert not wrong_results(core.search(queries, 3, threads), whole)
    cuts = [0, 1, 8, 24, 40, 41, 600, 601, len(queries)]
    parts = [core.search(queries[a:b], 3) for a, b in itertools.pairwise(cuts)]
    distances, rows = (np.concatenate(part) for part in zip(*parts, strict=True))
    assert not wrong_results((distances, rows), whole)


@pytest.fixture(scope="module")
def tile_features() -> tuple[Rows, Rows, Results]:
    """Patch embeddings: three good tiles as the bank; of a good one, a defective one and a photo; what is right."""
    if not SHARED.is_dir():
        pytest.skip("the images of ../shared are not here")
    from onceover.images import read_image
    from onceover.runtime.assemble import config_of
    from onceover.runtime.graph import DEFAULT_BACKBONE, load_graph
    from onceover.runtime.session import EngineOptions

    graph, spec = load_graph(DEFAULT_BACKBONE)
    embedder = _core.Embedder(config_of(spec, 0.0), graph, EngineOptions().resolve())
    tiles = SHARED / "data/magnetic_tile"
    good, photos = sorted((tiles / "train/good").iterdir()), sorted((SHARED / "data/photos").rglob("*.*g"))
    asked = [good[3], sorted((tiles / "test/crack").iterdir())[0], photos[0]]
    features = [embedder.embed(read_image(path)) for path in (*good[:3], *asked)]
    bank, queries = np.concatenate(features[:3]), np.concatenate([each[::11] for each in features[3:]])
    return bank, queries, float64_results(queries, bank, 9)


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_no_result_on_real_features_differs_from_float64(
    tile_features: tuple[Rows, Rows, Results], representation: str
) -> None:
    bank, queries, expected = tile_features
    index = aligned_copy(build(bank, representation).index_bytes())
    for isa in ISAS:
        for k in (1, 9):
            assert_exact(_core.MemoryBank.view(bank, index, isa), queries, expected, k)


NASTY = (0.0, -0.0, 1.0, -1.0, 1 + 2**-23, 1 - 2**-24, 2**-149, -(2.0**-126), 1e-20, 1e-15, 1e15, 1e19, 3e38, -3e38)
finite_floats = st.one_of(
    st.sampled_from([float(np.float32(value)) for value in NASTY]),
    st.floats(-4, 4, width=16),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
)


@st.composite
def matrices(draw: st.DrawFn, least_rows: int = 1) -> tuple[Rows, Rows]:
    dims, rows, queries = draw(st.integers(1, 18)), draw(st.integers(least_rows, 40)), draw(st.integers(1, 6))
    values = draw(st.lists(finite_floats, min_size=1, max_size=12))  # few values, so that rows repeat and tie
    picks = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bank, asked = (picks.choice(values, (n, dims)).astype(np.float32) for n in (rows, queries))
    return bank, np.concatenate([asked, np.full((1, dims), draw(st.sampled_from([0.0, np.nan, np.inf])), np.float32)])


@settings(max_examples=150, deadline=None)
@given(matrices(), st.sampled_from([1, 2, 9, 32]), st.sampled_from(ISAS))
def test_small_nasty_matrices_have_the_results_of_float64(case: tuple[Rows, Rows], k: int, isa: str) -> None:
    bank, queries = case
    assert_exact(build(bank, isa=isa), queries, float64_results(queries, bank, k), k)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([name for name in FAMILIES if name not in UNCODABLE]),
    st.builds(Shape, st.integers(1, 900), st.integers(1, 200), st.integers(0, 2**32 - 1)),
    st.sampled_from(REPRESENTATIONS),
    st.sampled_from([1, 2, 9, 32]),
)
def test_any_shape_of_any_family_has_the_results_of_float64(name: str, shape: Shape, form: str, k: int) -> None:
    bank, queries = bank_and_queries.__wrapped__(name, shape)
    representation = form if fits(form, shape.dims) else "full"
    assert_exact(build(bank, representation), queries, float64_results(queries, bank, k), k)


@settings(max_examples=60, deadline=None)
@given(matrices(least_rows=2))
def test_adding_a_row_never_raises_a_distance(case: tuple[Rows, Rows]) -> None:
    bank, queries = case
    core = build(bank[:-1])
    before, _ = core.search(queries)
    core.add(bank[-1:])
    after, rows = core.search(queries)
    assert np.all(after <= before)
    others = rows != len(bank) - 1
    assert np.all(after[others] == before[others])


@settings(max_examples=60, deadline=None)
@given(matrices(), st.integers(0, 2**32 - 1))
def test_permuting_the_rows_only_renames_them(case: tuple[Rows, Rows], seed: int) -> None:
    bank, queries = case
    order = np.random.default_rng(seed).permutation(len(bank))
    distances, rows = build(bank).search(queries, 3)
    moved_distances, moved_rows = build(bank[order]).search(queries, 3)
    np.testing.assert_array_equal(distances, moved_distances)
    for query, before, after in zip(queries, rows, moved_rows, strict=True):
        found = before >= 0
        np.testing.assert_array_equal(found, after >= 0)
        np.testing.assert_array_equal(
            squared_distances(query, bank[before[found]]), squared_distances(query, bank[order][after[found]])
        )


@settings(max_examples=60, deadline=None)
@given(matrices(), st.data())
def test_searching_in_two_calls_is_searching_in_one(case: tuple[Rows, Rows], data: st.DataObject) -> None:
    bank, queries = case
    cut = data.draw(st.integers(0, len(queries)))
    core = build(bank)
    whole = core.search(queries, 2)
    first, second = core.search(queries[:cut], 2), core.search(queries[cut:], 2)
    assert not wrong_results((np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])), whole)
