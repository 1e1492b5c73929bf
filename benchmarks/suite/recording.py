"""What one process of a benchmark hands over: rows of tables, and what it skipped.

Functions named bench_* ask for the fixture `record` (conftest.py), a Recorder.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """A cell that differs from run to run: a time, a ratio, a share of a limit; positive."""

    value: float


Cell = Measured | str | int  # all but Measured is the same in every run: a target, a count, an accuracy


@dataclass
class Recorder:
    """short: only that everything runs counts, not the numbers. folder: lasts as long as all passes of a run."""

    short: bool
    folder: Path
    tables: dict[str, dict[str, dict[str, Cell]]] = field(default_factory=dict)  # title → case → column → cell
    skipped: list[tuple[str, str]] = field(default_factory=list)  # what, why

    def row(self, title: str, case: str, cells: dict[str, Cell]) -> None:
        """Of the table of this title; rows and columns keep the order in which they come."""
        for column, cell in cells.items():
            if isinstance(cell, Measured) and not (math.isfinite(cell.value) and cell.value > 0):
                raise ValueError(f"{title}, {case}, {column}: {cell.value} is no measured value; it must be positive")
        rows = self.tables.setdefault(title, {})
        if case in rows:
            raise ValueError(f"{title}: there is already a row {case!r}")
        rows[case] = dict(cells)

    def skip(self, what: str, why: str) -> None:
        """Told at the end; the table that README.md has stays, as the new one would lack this."""
        self.skipped.append((what, why))

    def choose(self, full: T, short: T) -> T:
        return short if self.short else full

    def once(self, name: str, make: Callable[[Path], object]) -> Path:
        """A file or folder that `make` writes in the first pass and all passes of this run read.

        Two processes may make it at the same time; the first that is done wins.
        """
        path = self.folder / name
        if not path.exists():
            unfinished = path.with_name(f"{os.getpid()}-{path.name}")
            make(unfinished)
            try:
                unfinished.rename(path)
            except OSError:  # a folder of that name has come meanwhile
                if not path.exists():
                    raise
        return path

    def to_json(self) -> str:
        tables = {
            title: {
                case: {
                    column: {"measured": cell.value} if isinstance(cell, Measured) else str(cell)
                    for column, cell in cells.items()
                }
                for case, cells in rows.items()
            }
            for title, rows in self.tables.items()
        }
        return json.dumps({"tables": tables, "skipped": self.skipped}, ensure_ascii=False, indent=1)


Recorded = dict[str, Any]  # what to_json says


__all__ = ["Measured", "Recorded", "Recorder"]
