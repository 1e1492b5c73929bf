"""What onceover.MemoryBank takes and refuses, the cosine metric, the neighbor graph, threads and memory."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock, Thread
from typing import Any

import numpy as np
import pytest
import reference
from bank_cases import Rows, Shape, bank_and_queries, build, float64_results, wrong_results
from tolerances import COSINE_DISTANCE

import onceover
from onceover import _core
from onceover.errors import InputError, MemoryLimitError, UnknownNameError, UsageError

NO_ROW = 2**32 - 1


def case(rows: int = 500, dims: int = 100) -> tuple[Rows, Rows]:
    bank, queries = bank_and_queries("clustered", Shape(rows, dims))
    return bank.copy(), queries.copy()


def test_a_search_gives_float32_distances_and_int64_rows_nearest_first() -> None:
    bank, queries = case()
    distances, rows = onceover.MemoryBank.build(bank).search(queries, 5)
    assert (str(distances.dtype), str(rows.dtype)) == ("float32", "int64")
    assert distances.shape == rows.shape == (len(queries), 5)
    assert np.all(np.diff(distances, axis=1) >= 0)
    assert not wrong_results((distances, rows), float64_results(queries, bank, 5))


def test_fewer_rows_than_neighbors_and_queries_that_are_not_finite_give_infinity_and_minus_one() -> None:
    bank, queries = case(3)
    queries[0, 5], queries[1, 0], queries[2, -1] = np.nan, np.inf, -np.inf
    distances, rows = onceover.MemoryBank.build(bank).search(queries, 4)
    assert np.isposinf(distances[:3]).all()
    assert (rows[:3] == -1).all()
    assert np.isfinite(distances[3:, :3]).all()
    assert np.isposinf(distances[3:, 3]).all()
    assert (rows[3:, 3] == -1).all()
    assert sorted(rows[3, :3].tolist()) == [0, 1, 2]


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_an_empty_bank_has_no_neighbor_for_any_query(metric: Any) -> None:
    bank, queries = case()
    empty = onceover.MemoryBank.build(bank[:0], metric)
    distances, rows = empty.search(queries, 2)
    assert len(empty) == 0
    assert np.isposinf(distances).all()
    assert (rows == -1).all()
    assert empty.add(bank).tolist() == list(range(500))
    full = onceover.MemoryBank.build(bank, metric).search(queries, 2)
    assert not wrong_results(empty.search(queries, 2), full)


def other_forms(array: Rows) -> dict[str, Any]:
    wide = np.zeros((len(array), 2 * array.shape[1]), np.float32)
    wide[:, ::2] = array
    raw = np.zeros(array.nbytes + 1, np.uint8)
    raw[1:] = np.frombuffer(array.tobytes(), np.uint8)
    return {
        "every second column": wide[:, ::2],
        "columns first": np.asfortranarray(array),
        "backwards": array[::-1].copy()[::-1],
        "misaligned": raw[1:].view(np.float32).reshape(array.shape),
        "read-only": np.frombuffer(array.tobytes(), np.float32).reshape(array.shape),
        "memoryview": memoryview(array),  # type: ignore[arg-type]
    }


@pytest.mark.parametrize("form", other_forms(np.ones((2, 3), np.float32)))
def test_any_layout_of_float32_is_taken(form: str) -> None:
    bank, queries = case()
    expected = float64_results(queries, bank, 2)
    built = onceover.MemoryBank.build(other_forms(bank)[form])
    assert not wrong_results(built.search(other_forms(queries)[form], 2), expected)
    built.remove([0])
    built.add(other_forms(bank[:1].copy())[form])
    assert built.search(bank[:1])[1][0, 0] == 500


def test_float16_is_taken_for_what_it_stands_for() -> None:
    bank, queries = (array.astype(np.float16) for array in case())
    expected = float64_results(queries.astype(np.float32), bank.astype(np.float32), 3)
    assert not wrong_results(onceover.MemoryBank.build(bank).search(queries, 3), expected)
    empty = onceover.MemoryBank.build(bank[:0])
    empty.add(bank)
    assert not wrong_results(empty.search(queries, 3), expected)


def test_torch_tensors_are_taken_without_a_copy() -> None:
    torch = pytest.importorskip("torch")
    bank, queries = case()
    tensor = torch.from_numpy(bank)
    built = onceover.MemoryBank.build(tensor, samples=torch.from_numpy(queries))
    del tensor
    assert not wrong_results(built.search(torch.from_numpy(queries), 2), float64_results(queries, bank, 2))
    half = queries.astype(np.float16)
    assert not wrong_results(built.search(torch.from_numpy(half)), built.search(half))


def test_a_bank_keeps_the_rows_alive_that_it_searches() -> None:
    bank, queries = case(3000)
    expected = float64_results(queries, bank, 1)
    before = sys.getrefcount(bank)
    built = onceover.MemoryBank.build(bank)
    assert sys.getrefcount(bank) > before, "used in place"
    del bank
    fill = [np.full((3000, 100), 7, np.float32) for _ in range(4)]  # over the memory of the rows, had it been freed
    assert not wrong_results(built.search(queries), expected)
    del fill


BAD_MATRICES: dict[str, tuple[Any, str]] = {
    "float64": (np.ones((3, 100)), r"float64 \(3, 100\)"),
    "int": (np.ones((3, 100), np.int64), "int64"),
    "another byte order": (np.ones((3, 100), ">f4"), ">f4"),
    "one row": (np.ones(100, np.float32), r"float32 \(100,\)"),
    "three axes": (np.ones((1, 3, 100), np.float32), r"float32 \(1, 3, 100\)"),
    "a number": (np.float32(3), r"float32 \(\)"),
    "a list": ([[1.0] * 100], "float64"),
}


@pytest.mark.parametrize("name", BAD_MATRICES)
def test_what_is_no_float32_matrix_is_refused_everywhere(name: str) -> None:
    bad, told = BAD_MATRICES[name]
    bank, _ = case()
    built = onceover.MemoryBank.build(bank)
    calls: dict[str, Callable[[], Any]] = {
        "rows": lambda: onceover.MemoryBank.build(bad),
        "samples": lambda: onceover.MemoryBank.build(bank, samples=bad),
        "queries": lambda: built.search(bad),
        "rows ": lambda: built.add(bad),
    }
    for what, call in calls.items():
        with pytest.raises(InputError, match=rf"{what.strip()} must be \(n, D\) float32, got {told}"):
            call()


def test_matrices_of_another_width_are_refused() -> None:
    bank, queries = case()
    built = onceover.MemoryBank.build(bank)
    with pytest.raises(InputError, match="99"):
        built.search(queries[:, :99])
    with pytest.raises(InputError, match="99"):
        built.add(queries[:, :99])
    with pytest.raises(InputError, match="samples have 99 values per row, the memory bank 100"):
        onceover.MemoryBank.build(bank, samples=queries[:, :99])
    for columns in (0, 65537):
        with pytest.raises(InputError, match=f"2 x {columns}"):
            onceover.MemoryBank.build(np.zeros((2, columns), np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_named(value: float) -> None:
    bank, _ = case()
    built = onceover.MemoryBank.build(bank)
    bank[417, 3] = value
    with pytest.raises(InputError, match=r"row 417 of 500"):
        onceover.MemoryBank.build(bank)
    with pytest.raises(InputError, match=r"row 417 of 500"):
        built.add(bank)
    assert built.shape == (500, 100)


def test_what_numpy_cannot_view_is_refused_with_what_to_call() -> None:
    bank, queries = case()
    built = onceover.MemoryBank.build(bank)
    with pytest.raises(InputError, match="rows is a masked array"):
        onceover.MemoryBank.build(np.ma.masked_greater(bank, 0))
    with pytest.raises(InputError, match=r"queries .list. cannot be read as an array"):
        built.search([[1.0], [1.0, 2.0]])
    torch = pytest.importorskip("torch")
    with pytest.raises(InputError, match=r"queries is a tensor that requires grad; pass .detach\(\)"):
        built.search(torch.from_numpy(queries).requires_grad_())
    with pytest.raises(InputError, match=r"rows is on meta.*pass .cpu\(\)"):
        onceover.MemoryBank.build(torch.from_numpy(bank).to("meta"))
    with pytest.raises(InputError, match=r"rows .Tensor. cannot be read.*pass .float\(\)"):
        onceover.MemoryBank.build(torch.from_numpy(bank).bfloat16())


def test_counts_out_of_range_are_refused() -> None:
    bank, queries = case()
    built = onceover.MemoryBank.build(bank)
    for k in (0, -1, 33, 2**40):
        with pytest.raises(UsageError, match=f"k is {k}, expected 1 to 32"):
            built.search(queries, k)
    for threads in (0, -1):
        with pytest.raises(UsageError, match=f"threads is {threads}, expected 1"):
            built.search(queries, threads=threads)
    with pytest.raises(UsageError, match="threads is 257, expected 1 to 256"):
        built.search(queries, threads=257)
    for wrong in (1.5, "3", True, None):
        with pytest.raises(UsageError, match=f"k is {wrong!r}, expected a whole number"):
            built.search(queries, wrong)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="threads is"):
            built.search(queries, threads=wrong)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="seed is"):
            onceover.MemoryBank.build(bank, seed=wrong)  # type: ignore[arg-type]
    for seed in (-1, 2**64):
        with pytest.raises(UsageError, match=f"seed is {seed}, expected 0 to"):
            onceover.MemoryBank.build(bank, seed=seed)
    for limit in (0, -10, 1.5):
        with pytest.raises(UsageError, match=f"max_memory is {limit}, expected"):
            onceover.MemoryBank.build(bank, max_memory=limit)  # type: ignore[arg-type]
    for k in (0, 33):
        with pytest.raises(UsageError, match=f"k is {k}"):
            built.neighbors(k)
        with pytest.raises(UsageError, match=f"k is {k}"):
            build(bank).search(queries, k)
    for threads in (0, 257):
        with pytest.raises(UsageError, match=f"threads is {threads}"):
            build(bank).search(queries, 1, threads)
    assert not wrong_results(built.search(queries, threads=256), built.search(queries))


def test_unknown_names_are_refused_and_the_known_ones_told() -> None:
    bank, _ = case()
    with pytest.raises(UnknownNameError, match="metric 'dot' does not exist; known: l2, cosine"):
        onceover.MemoryBank.build(bank, "dot")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="representation 'fast' does not exist; known: scan, rank, full"):
        _core.MemoryBank(bank, representation="fast")


FORCE_RANKS = """
import sys
import numpy as np
from onceover import _core
from onceover.errors import InputError
rows = np.random.default_rng(0).standard_normal((300, 100)).astype(np.float32)
for rank1, rank2 in ((63, 63), (64, 72), (64, 256), (192, 192), (128, 64), (0, 64), (64, 0), (2**31, 2**31)):
    print(rank1, rank2, flush=True)
    try:
        _core.MemoryBank(rows, representation="rank", rank1=rank1, rank2=rank2)
    except InputError as error:
        assert "rank" in str(error), error
    else:
        sys.exit("was accepted")
"""


def test_ranks_that_no_index_can_have_are_refused() -> None:
    """In a process of its own, which a projection of the wrong size may bring down."""
    done = subprocess.run([sys.executable, "-c", FORCE_RANKS], capture_output=True, text=True)
    assert done.returncode == 0, f"exit {done.returncode}, ranks {done.stdout.splitlines()[-1:]}: {done.stderr[-500:]}"


def test_cosine_distances_are_those_of_numpy() -> None:
    bank, queries = case()
    bank *= 10.0 ** np.random.default_rng(0).integers(-9, 9, (500, 1)).astype(np.float32)
    built = onceover.MemoryBank.build(bank, "cosine")
    distances, rows = built.search(np.concatenate([queries, bank[:5]]), 4)
    wide, rows_wide = np.concatenate([queries, bank[:5]]).astype(np.float64), bank.astype(np.float64)
    exact = 1 - (wide @ rows_wide.T) / np.linalg.norm(wide, axis=1)[:, None] / np.linalg.norm(rows_wide, axis=1)
    at = np.arange(len(wide))[:, None]
    assert np.abs(distances - exact[at, rows]).max() <= COSINE_DISTANCE
    assert np.abs(distances - np.sort(exact, axis=1)[:, :4]).max() <= COSINE_DISTANCE
    assert rows[-5:, 0].tolist() == [0, 1, 2, 3, 4]
    assert built.metric == "cosine"
    added = built.add(3 * queries[:1])
    assert built.search(queries[:1])[1].tolist() == [added.tolist()]


def test_what_has_no_direction_is_refused_as_a_row_and_has_no_neighbor_as_a_query() -> None:
    bank, queries = case()
    built = onceover.MemoryBank.build(bank, "cosine")
    queries[0], queries[1, 1] = 0, np.nan
    distances, rows = built.search(queries)
    assert np.isposinf(distances[:2]).all()
    assert rows[:3, 0].tolist() == [-1, -1, rows[2, 0]]
    assert np.isfinite(distances[2:]).all()
    for damage in (0.0, np.nan):
        damaged = bank.copy()
        damaged[7] = damage
        with pytest.raises(InputError, match="row 7"):
            onceover.MemoryBank.build(damaged, "cosine")
        with pytest.raises(InputError, match="row 7"):
            built.add(damaged)


def test_the_neighbor_graph_is_that_of_a_brute_force() -> None:
    bank, _ = case(200)
    bank[50] = bank[20]
    built = onceover.MemoryBank.build(bank)
    graph = built.neighbors(9)
    assert graph.dtype == np.uint32
    np.testing.assert_array_equal(graph, reference.nearest_neighbor(bank, bank, 9)[1])
    assert built.neighbors(9) is graph, "computed once"
    np.testing.assert_array_equal(built.neighbors(3, threads=2), graph[:, :3])
    built.remove([20, 0])
    kept = np.delete(np.arange(200), [0, 20])
    changed = built.neighbors(9)
    np.testing.assert_array_equal(changed[kept], kept[reference.nearest_neighbor(bank[kept], bank[kept], 9)[1]])
    assert (changed[[0, 20]] == NO_ROW).all()
    few = onceover.MemoryBank.build(bank[:3])
    assert sorted(few.neighbors(9)[1].tolist()) == [0, 1, 2, *[NO_ROW] * 6]


def test_progress_is_told_and_may_stop_the_building() -> None:
    bank, _ = case()
    told: list[tuple[int, int]] = []
    onceover.MemoryBank.build(bank, progress=lambda done, total: told.append((done, total)))
    total = told[0][1]
    assert told == [(done, total) for done in range(total + 1)]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        onceover.MemoryBank.build(bank, progress=stop)


@pytest.mark.parametrize("representation", ["scan", "rank 64+0", "full"])
def test_building_in_too_little_memory_is_refused(representation: str) -> None:
    bank, queries = case()
    form, rank = representation.split()[0], 64 if representation.startswith("rank") else 0
    failed = 0
    for power in range(30):
        try:
            core = _core.MemoryBank(bank, representation=form, rank1=rank, rank2=rank, memory_limit_bytes=2**power)
        except MemoryLimitError:
            assert failed == power, "what fits in less fits in more"
            failed += 1
            continue
        assert core.index_size_bytes <= 2**power
        assert not wrong_results(core.search(queries), float64_results(queries, bank))
    assert 8 < failed < 26
    with pytest.raises(MemoryLimitError):
        onceover.MemoryBank.build(bank, max_memory=1000)


def test_samples_choose_the_representation_and_change_no_result() -> None:
    bank, queries = case(3000)
    far = 1000 * np.random.default_rng(0).standard_normal((300, 100)).astype(np.float32)
    expected = float64_results(queries, bank, 2)
    for samples in (queries, far, queries[:0], queries[:1], np.full((20, 100), np.nan, np.float32)):
        assert not wrong_results(onceover.MemoryBank.build(bank, samples=samples).search(queries, 2), expected)
    assert onceover.MemoryBank.build(bank, samples=queries).representation != "scan"
    assert onceover.MemoryBank.build(bank, samples=far).representation == "scan"


def test_a_bank_says_what_it_is_and_what_a_search_did() -> None:
    bank, queries = case(1100)
    built = onceover.MemoryBank.build(bank)
    assert built.representation == "full" or re.fullmatch(r"rank (32/)?(64|128)\+(0|16|32|48|64)", built.representation)
    assert repr(built) == f"MemoryBank(1100 × 100, metric='l2', representation='{built.representation}')"
    assert 0 < built.index_size_bytes < 2 * bank.nbytes
    built.search(queries, threads=2)
    assert built.stats["isa"] == _core.isa()
    assert built.stats["queries"] == len(queries)
    built.search(np.full((20, 100), 3e38, np.float32))
    assert built.stats["float64_queries"] == 20
    built.search(np.full((20, 100), np.nan, np.float32))
    assert built.stats["float64_queries"] == built.stats["scanned_queries"] == built.stats["exact_rows"] == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_concurrent_searches_of_one_bank_give_the_same_bits(threads: int) -> None:
    bank, some = case(2000)
    queries = np.tile(some, (20, 1))
    built = onceover.MemoryBank.build(bank)
    whole = built.search(queries, 3)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: built.search(queries, 3, threads=threads), range(24)):
            assert not wrong_results(found, whole)


def test_changing_a_bank_while_it_is_searched_is_refused_or_waits_its_turn() -> None:
    bank, some = case(2000)
    queries = np.tile(some, (50, 1))
    built = onceover.MemoryBank.build(bank)
    right = float64_results(queries, bank)
    done, refused = Event(), {"search": 0, "change": 0}

    def refuse(what: str, error: UsageError) -> None:
        if "by another thread" not in str(error):
            raise error
        refused[what] += 1

    def keep_searching() -> None:
        while not done.is_set():
            try:
                assert not wrong_results(built.search(queries), right)
            except UsageError as error:
                refuse("search", error)

    far = np.full((1, 100), 1e6, np.float32)  # adding and removing it changes no result
    with ThreadPoolExecutor(3) as pool:
        searches = [pool.submit(keep_searching) for _ in range(3)]
        try:
            for _ in range(300):
                try:
                    built.remove(built.add(far))
                except UsageError as error:
                    refuse("change", error)
                if min(refused.values()) > 3:
                    break
        finally:
            done.set()
        for search in searches:
            search.result()
    assert refused["change"] > 0, "no change was refused beside a search: the test tried nothing"


@pytest.mark.parametrize("call", ["build", "search", "add", "compact"])  # remove does too, but is soon over
def test_long_calls_let_other_threads_run(call: str) -> None:
    bank, queries = case(4000)
    core = build(bank, "full")
    calls: dict[str, Callable[[], Any]] = {
        "build": lambda: build(bank, "full"),
        "search": lambda: core.search(np.tile(queries, (20, 1)), 9),
        "add": lambda: core.add(bank[:2000]),
        "compact": core.compact,
    }
    gate, ran = Lock(), Event()

    def wait_and_run() -> None:
        with gate:
            ran.set()

    gate.acquire()
    thread = Thread(target=wait_and_run)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # from here on, another thread runs only when this one gives the GIL away
    try:
        gate.release()
        for _ in range(50):
            calls[call]()
            if ran.is_set():
                break
        has_run = ran.is_set()
    finally:
        sys.setswitchinterval(interval)
        thread.join()
    assert has_run
