"""PatchCore's selection against the plain k-center of reference.py; bank sizes, seeds and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
from numpy.typing import NDArray

from onceover.detectors import BankSize, create_detector
from onceover.detectors.patchcore import DEFAULT_MAX_ROWS, PatchCore
from onceover.errors import InputError, NotFittedError, UnknownNameError, UsageError

NO_PROJECTION = 10**6  # as many dimensions as that are never reduced


def patches(count: int, dim: int = 8, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def selected(embeddings: NDArray[np.float32], rows: int, **settings: Any) -> PatchCore:
    detector = PatchCore(BankSize(rows=rows), **settings)
    detector.fit(embeddings)
    return detector


def seed_starting_at(first: int, count: int) -> int:
    """A seed whose random first row is `first`."""
    draws = (int(np.random.Generator(np.random.PCG64(seed)).integers(count)) for seed in range(1000))
    return next(seed for seed, draw in enumerate(draws) if draw == first)


def test_the_golden_line_is_selected_in_its_derived_order() -> None:
    # Derived by hand: after 0 the farthest is 20; then 10, which is 10 from both; then 2; then 1 before 11, both at 1.
    line = np.array([[0], [1], [2], [10], [11], [20]], np.float32)
    seed = seed_starting_at(0, len(line))
    detector = selected(line, 5, projection_dim=NO_PROJECTION, seed=seed)
    assert detector.chosen.tolist() == [0, 5, 3, 2, 1]
    assert detector.describe()["covering_radius"] == 1
    assert detector.state()["memory_bank"].ravel().tolist() == [0, 20, 10, 2, 1]


@pytest.mark.parametrize(("count", "dim", "rows"), [(60, 3, 10), (97, 16, 40), (33, 5, 33)])
def test_greedy_selection_is_the_plain_k_center_algorithm(count: int, dim: int, rows: int) -> None:
    embeddings = patches(count, dim, seed=dim)
    detector = selected(embeddings, rows, projection_dim=NO_PROJECTION, seed=3)
    expected, radius = reference.k_center_greedy(embeddings, rows, first=int(detector.chosen[0]))
    assert detector.chosen.tolist() == expected
    assert detector.describe()["covering_radius"] == pytest.approx(radius, rel=1e-6)


def test_with_a_projection_the_bank_still_holds_whole_embeddings() -> None:
    embeddings = patches(300, 48)
    detector = selected(embeddings, 30, projection_dim=8)
    assert np.array_equal(detector.state()["memory_bank"], embeddings[detector.chosen])
    assert len(set(detector.chosen.tolist())) == 30


@pytest.mark.parametrize("coreset", ["greedy", "random"])
def test_a_seed_decides_the_selection(coreset: Any) -> None:
    embeddings = patches(400, 40)
    chosen = [selected(embeddings, 20, coreset=coreset, seed=seed).chosen.tolist() for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_a_random_subset_is_sorted_and_without_repetition() -> None:
    chosen = selected(patches(200), 50, coreset="random").chosen
    assert (np.diff(chosen) > 0).all()
    assert chosen[0] >= 0
    assert chosen[-1] < 200


def test_more_rows_never_widen_the_covering_radius() -> None:
    embeddings = patches(250)
    radii = [selected(embeddings, rows).describe()["covering_radius"] for rows in (1, 5, 25, 125, 250)]
    assert radii == sorted(radii, reverse=True)
    assert radii[0] > radii[-2] > radii[-1] == 0


def test_the_selection_stops_early_when_every_patch_is_in_the_bank() -> None:
    distinct = patches(5)
    seen: list[tuple[str, int, int]] = []
    detector = PatchCore(BankSize(rows=50))
    detector.fit(np.repeat(distinct, 20, axis=0), lambda *report: seen.append(report))
    bank = detector.state()["memory_bank"]
    assert sorted(map(tuple, bank.tolist())) == sorted(map(tuple, distinct.tolist()))
    assert detector.describe()["covering_radius"] == 0
    assert seen[-1] == ("coreset", 50, 50)  # the bar is full all the same


def test_progress_of_the_selection_only_moves_forward() -> None:
    seen: list[tuple[str, int, int]] = []
    PatchCore(BankSize(rows=200)).fit(patches(300), lambda *report: seen.append(report))
    assert list(dict.fromkeys(stage for stage, _, _ in seen)) == ["coreset", "search index"]
    for stage in ("coreset", "search index"):
        done = [report[1] for report in seen if report[0] == stage]
        totals = {report[2] for report in seen if report[0] == stage}
        assert done == sorted(done)
        assert (done[0], {done[-1]}) == (0, totals)
    assert ("coreset", 200, 200) in seen


@pytest.mark.parametrize(
    ("size", "count", "dim", "rows"),
    [
        (BankSize(), 1000, 128, 100),
        (BankSize(), 10**6, 128, DEFAULT_MAX_ROWS),
        (BankSize(), 3, 128, 1),
        (BankSize(rows=7), 1000, 128, 7),
        (BankSize(rows=5000), 1000, 128, 1000),
        (BankSize(megabytes=1), 10**5, 125, 2000),  # 1e6 bytes / (4 · 125)
        (BankSize(megabytes=1), 100, 125, 100),
        (BankSize(ratio=0.25), 1000, 128, 250),
        (BankSize(ratio=1.0), 1000, 128, 1000),
        (BankSize(ratio=0.001), 100, 128, 1),
    ],
)
def test_a_bank_size_means_so_many_rows(size: BankSize, count: int, dim: int, rows: int) -> None:
    assert size.resolve(count, dim) == rows


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rows": 0}, "rows must be positive"),
        ({"rows": -4}, "rows must be positive"),
        ({"megabytes": 0.0}, "megabytes must be positive"),
        ({"megabytes": float("inf")}, "finite"),
        ({"megabytes": float("nan")}, "megabytes must be positive"),
        ({"ratio": 0.0}, r"in \(0, 1\], got 0.0"),
        ({"ratio": 1.5}, r"in \(0, 1\], got 1.5"),
        ({"rows": 5, "ratio": 0.5}, "only one of .* got rows and ratio"),
    ],
)
def test_a_bank_size_that_makes_no_sense_is_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        BankSize(**arguments)


def test_megabytes_that_hold_no_row_are_refused_with_the_size_of_a_row() -> None:
    with pytest.raises(UsageError, match="do not hold one row of 512 bytes"):
        BankSize(megabytes=0.0005).resolve(1000, 128)


@pytest.mark.parametrize("coreset", ["greedy", "random"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_embedding_that_is_not_finite_is_refused_by_its_number(coreset: Any, value: float) -> None:
    embeddings = patches(70_000, 2)  # more than one block of the check
    embeddings[66_001, 1] = value
    with pytest.raises(InputError, match="embedding 66001 is not finite"):
        selected(embeddings, 5, coreset=coreset)


@pytest.mark.parametrize("shape", [(0, 4), (5,), (2, 3, 4)])
def test_embeddings_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="patches, dim"):
        PatchCore().fit(np.zeros(shape, np.float32))


def test_before_fit_there_is_no_bank() -> None:
    detector = PatchCore()
    with pytest.raises(NotFittedError, match="call fit first"):
        detector.state()
    with pytest.raises(NotFittedError, match="call fit first"):
        _ = detector.chosen
    assert detector.describe()["bank_rows"] == 0


def test_a_detector_is_made_by_its_name() -> None:
    detector = create_detector("patchcore", BankSize(rows=3), "random", 5)
    assert detector.describe() == {
        "name": "patchcore", "scorer": "nearest_neighbor", "coreset": "random", "bank": {"rows": 3}, "bank_rows": 0,
        "search_index": None, "projection_dim": None, "covering_radius": None, "seed": 5,
    }  # fmt: skip
    with pytest.raises(UnknownNameError, match="did you mean 'patchcore'"):
        create_detector("patchcor", BankSize(), "greedy", 0)
    with pytest.raises(UsageError, match="'greedy' or 'random', got 'fast'"):
        create_detector("patchcore", BankSize(), "fast", 0)
