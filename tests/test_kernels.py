"""The choice of an instruction set, the coreset against float64 on each, and what their objects may export.

Bit equality of the kernels themselves is in test_kernels.cpp, exactness of a memory bank in test_memory_bank.py.
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
from numpy.typing import NDArray
from tolerances import distance_f32

from onceover import _core
from onceover.errors import InputError, UnknownNameError, UsageError

ROOT = Path(__file__).resolve().parents[1]
KERNELS = ROOT / "csrc" / "kernels"

Rows = NDArray[np.float32]


def listed_kernels() -> list[tuple[str, str]]:
    """(symbol, name) of each line of kernels.def."""
    lines = (KERNELS / "kernels.def").read_text(encoding="utf-8")
    return re.findall(r'^ONCEOVER_KERNEL\((\w+), "(\w+)", \w+\)', lines, re.MULTILINE)


KNOWN = "known: " + ", ".join(name for _, name in listed_kernels())


def normal_rows(rows: int, dims: int, seed: int) -> Rows:
    return np.random.default_rng(seed).standard_normal((rows, dims)).astype(np.float32)


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


def test_points_that_cannot_be_compared_are_refused() -> None:
    points = normal_rows(7, 10, 9)
    with pytest.raises(InputError, match="float64"):
        _core.GreedyCoreset(points.astype(np.float64), 0)
    with pytest.raises(InputError, match="ascontiguousarray"):
        _core.GreedyCoreset(points.T, 0)
    with pytest.raises(UsageError, match="first is -1"):
        _core.GreedyCoreset(points, -1)
    with pytest.raises(UsageError, match=r"row 7.*7 rows"):
        _core.GreedyCoreset(points, 7)
    points[4, 2] = np.inf
    with pytest.raises(InputError, match="coreset points: row 4 of 7"):
        _core.GreedyCoreset(points, 0)


def test_a_streaming_coreset_takes_ids_of_any_kind_and_tells_what_it_took() -> None:
    rows, ids = normal_rows(400, 8, 3), np.arange(400, dtype=np.int64) * 1000 + 2**40
    greedy = _core.GreedyCoreset(rows[:100], 0)
    greedy.select(20)
    seeds = greedy.selected
    coreset = _core.StreamingCoreset(rows[seeds], ids[seeds], greedy.covering_radius, 20)
    taken = coreset.add(rows[100:], ids[100:])
    held, selected = coreset.held(), coreset.selected()
    assert set(selected.tolist()) <= set(held.tolist()) <= {*ids[seeds].tolist(), *ids[100:][taken].tolist()}
    assert len(selected) == 20
    assert coreset.covering_radius >= greedy.covering_radius
    assert len(coreset.add(rows[:0], ids[:0])) == 0


def test_a_streaming_coreset_refuses_what_it_cannot_take() -> None:
    rows, ids = normal_rows(10, 4, 3), np.arange(10, dtype=np.int64)
    with pytest.raises(InputError, match="9 ids for 10 rows"):
        _core.StreamingCoreset(rows, ids[:9], 1.0, 5)
    with pytest.raises(InputError, match="ids is int32"):
        _core.StreamingCoreset(rows, ids.astype(np.int32), 1.0, 5)
    with pytest.raises(UsageError, match="count is 0"):
        _core.StreamingCoreset(rows, ids, 1.0, 0)
    with pytest.raises(UsageError, match="covering radius"):
        _core.StreamingCoreset(rows, ids, float("nan"), 5)
    coreset = _core.StreamingCoreset(rows, ids, 1.0, 5)
    with pytest.raises(InputError, match="expected contiguous rows of 4 values"):
        coreset.add(normal_rows(3, 5, 3), ids[:3])
    with pytest.raises(InputError, match="2 ids for 3 rows"):
        coreset.add(rows[:3], ids[:2])


FORCED = """
import hashlib, numpy as np
from onceover import _core
rng = np.random.default_rng(0)
bank = _core.MemoryBank(rng.random((400, 77), np.float32), representation="full")
found = bank.search(rng.random((50, 77), np.float32), 3)
print(_core.isa(), bank.stats["isa"], hashlib.sha256(found[0].tobytes() + found[1].tobytes()).hexdigest())
"""


def run_forced(isa: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ONCEOVER_ISA": isa}
    return subprocess.run([sys.executable, "-c", FORCED], env=environment, capture_output=True, text=True, check=False)


def test_every_forced_instruction_set_gives_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    bank = _core.MemoryBank(rng.random((400, 77), np.float32), representation="scan")
    distance, index = bank.search(rng.random((50, 77), np.float32), 3)
    digest = hashlib.sha256(distance.tobytes() + index.tobytes()).hexdigest()
    for isa in _core.available_isas():
        assert run_forced(isa).stdout.split() == [isa, isa, digest]


def test_forcing_an_unknown_instruction_set_fails_and_names_the_known_ones() -> None:
    answer = run_forced("nonsense")
    assert answer.returncode != 0
    assert "UnknownNameError" in answer.stderr
    assert f"'nonsense' does not exist; {KNOWN}; available here: " in answer.stderr
    with pytest.raises(UnknownNameError, match=KNOWN):
        _core.MemoryBank(normal_rows(1, 2, 0), isa="nonsense")


def test_an_instruction_set_that_this_machine_lacks_is_refused_and_not_replaced() -> None:
    available = _core.available_isas()
    for _, name in listed_kernels():
        if name in available:
            assert _core.MemoryBank(normal_rows(1, 2, 0), isa=name).stats["isa"] == name
        else:
            with pytest.raises(UsageError, match=f"'{name}': this CPU or operating system cannot run it"):
                _core.MemoryBank(normal_rows(1, 2, 0), isa=name)


def test_the_active_instruction_set_is_the_best_available_or_the_forced_one() -> None:
    available = _core.available_isas()
    assert available == [name for _, name in listed_kernels() if name in available]
    assert available[-1] == "scalar"
    assert _core.isa() == (os.environ.get("ONCEOVER_ISA") or available[0])


@pytest.mark.parametrize("optimization", ["-O0", "-O3"])
@pytest.mark.parametrize("symbol", [symbol for symbol, _ in listed_kernels()])
def test_an_instruction_set_object_exports_its_table_and_nothing_weak(
    symbol: str, optimization: str, tmp_path: Path, require_tool: Callable[[str], str]
) -> None:
    """A weak symbol (an inline function) of an AVX2 object could be the copy that an older CPU is made to run."""
    compiler, nm = require_tool("g++"), require_tool("nm")
    built = tmp_path / "kernel.o"
    # -fno-exceptions as in csrc/CMakeLists.txt: without it, an object refers to the unwinder through a weak pointer.
    flags = [optimization, "-std=c++17", "-ffp-contract=off", "-fPIC", "-fno-exceptions", f"-I{ROOT / 'csrc'}"]
    subprocess.run([compiler, *flags, "-c", str(KERNELS / f"{symbol}.cpp"), "-o", str(built)], check=True)
    listed = subprocess.run([nm, "--defined-only", str(built)], check=True, capture_output=True, text=True).stdout
    kinds = {line.split()[-1]: line.split()[-2] for line in listed.splitlines()}
    shared = {name: kind for name, kind in kinds.items() if kind.isupper() or kind in "vwu"}
    assert len(shared) <= 1, f"only the table may be visible outside {symbol}.cpp"  # none on a foreign architecture
    assert all(name.endswith(f"{symbol}_kernelsE") and kind in "DR" for name, kind in shared.items()), shared
