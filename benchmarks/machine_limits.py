"""What one core of this machine can do at most, measured, and how much of it a measured time is.

    python benchmarks/machine_limits.py     # the limits: a few seconds, and a compiler with CMake the first time

Operations are in 1e9/s (a multiply-add counts as two), reading and writing in 1e9 bytes/s; see machine_limits.cpp.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
BUILD = FOLDER.parent / "build" / "machine_limits"
BLOCK_ROWS, TILE_DIMS, PLANES = 32, 64, 2  # of csrc/kernels/kernel_table.h: padding, and planes of a query's codes


@dataclass(frozen=True)
class Limits:
    """float32, int8: by instruction set, best first. read: by level of memory, nearest first.

    write: 20 MB, into the same memory "again" and again, or into "fresh pages" of the system's. bytes: of each cache.
    """

    float32: dict[str, float]
    int8: dict[str, float]
    read: dict[str, float]
    write: dict[str, float]
    bytes: dict[str, float]

    @property
    def best_float32(self) -> float:
        return max(self.float32.values())

    @property
    def shared_cache(self) -> float:
        """Of the last level that is not memory: where a bank lies that is searched again and again."""
        return [rate for level, rate in self.read.items() if level != "memory"][-1]

    def reading(self, size: int) -> float:
        """Of the nearest level that holds so many bytes."""
        held = [rate for level, rate in self.read.items() if size <= self.bytes.get(level, 0)]
        return held[0] if held else self.read["memory"]


@lru_cache(maxsize=1)
def machine_limits() -> Limits:
    """Measured once a process; the program is built where it is missing or older than its source."""
    program = BUILD / "machine_limits"
    sources = [FOLDER / "machine_limits.cpp", FOLDER / "CMakeLists.txt"]
    if not program.exists() or program.stat().st_mtime < max(source.stat().st_mtime for source in sources):
        for command in (["cmake", "-S", str(FOLDER), "-B", str(BUILD)], ["cmake", "--build", str(BUILD)]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    return Limits(**json.loads(subprocess.run([program], capture_output=True, text=True, check=True).stdout))


def scan_limit_ms(queries: int, rows: int, dims: int, limits: Limits) -> float:
    """Of any float32 matrix product with all rows: 2 · Q · M · D operations at the peak."""
    return 2e-6 * queries * rows * dims / limits.best_float32


def search_limit_ms(queries: int, rows: int, dims: int, representation: str, isa: str, limits: Limits) -> float | None:
    """Of `MemoryBank.search`, k = 1: the operations and bytes that its way of searching cannot do without.

    "rank C/R+S" (or "rank R+S", C = R): every query against C int8 coordinates of every row (rows padded to blocks),
    its projection to R + S coordinates in two int8 planes, both at the int8 peak; the query and one row of D floats
    read from the shared cache. "full": the screen takes all D coordinates, there is no projection. "scan": float32.
    None where the instruction set's peak was not measured.
    """
    if representation == "scan":
        return scan_limit_ms(queries, rows, dims, limits)
    peak = limits.int8.get(isa)
    if peak is None:
        return None
    blocks = -(-rows // BLOCK_ROWS) * BLOCK_ROWS
    if representation == "full":
        screened, projected = -(-dims // TILE_DIMS) * TILE_DIMS, 0
    else:
        first, _, second = representation.removeprefix("rank ").partition("+")
        screened, *coded = (int(number) for number in first.split("/"))
        projected = (coded[0] if coded else screened) + int(second)
    operations = 2 * queries * (blocks * screened + PLANES * dims * projected)
    return 1e-6 * (operations / peak + 2 * 4 * queries * dims / limits.shared_cache)


if __name__ == "__main__":
    found = machine_limits()
    for what, rates, unit in (
        ("float32", found.float32, "GF/s"),
        ("int8", found.int8, "GOP/s"),
        ("read", found.read, "GB/s"),
        ("write", found.write, "GB/s"),
    ):
        print(f"{what:8}", ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items()), unit)

__all__ = ["Limits", "machine_limits", "scan_limit_ms", "search_limit_ms"]
