"""Writes the package that every 1.x reader must read: `python tests/frozen_package.py tests/data/format_1_0.onceover`.

Run once, when format 1.0 was declared. Every member that the format knows is in it, so do not write it again: a reader
that no longer opens it has broken the promise.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from tiny_package import TinyOptions, TinyShape, read_members, tiny_package, write_members

from onceover import _core


def main(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        members = read_members(tiny_package(Path(folder) / "tiny.onceover", TinyOptions(TinyShape(channels=8))))
    rows = np.array(members["memory_bank"])
    bank = _core.MemoryBank(rows, samples=rows[:0], seed=0)
    _, neighbors = bank.search(rows, 9)
    members["bank_index"] = np.frombuffer(bank.index_bytes(), np.uint8)
    members["bank_neighbors"] = neighbors.astype(np.uint32)
    patches = np.arange(len(rows))
    members["bank_source"] = np.stack([patches // 24, patches % 24], axis=1).astype(np.uint32)
    write_members(path, members)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
