"""From what the passes of a benchmark recorded to tables, as Markdown and as JSON, and two runs beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onceover.errors import InputError
from suite.estimates import Estimate, estimates
from suite.recording import Recorded

Cell = Estimate | str


@dataclass(frozen=True)
class Table:
    """rows: case → column → cell; a row may lack columns."""

    title: str
    rows: dict[str, dict[str, Cell]]

    @property
    def columns(self) -> list[str]:
        """In the order of the row that has most of them, then what only others have."""
        most = max(self.rows.values(), key=len)
        return list(dict.fromkeys([*most, *(column for cells in self.rows.values() for column in cells)]))

    def markdown(self) -> str:
        columns = self.columns
        lines = [f"| {' | '.join(['', *columns])} |".replace("|  |", "| |", 1), "| --- " * (len(columns) + 1) + "|"]
        for case, cells in self.rows.items():
            shown = [case, *(str(cells.get(column, "")) for column in columns)]
            lines.append("|" + "|".join(f" {cell} " if cell else " " for cell in shown) + "|")
        return f"{self.title}:\n\n" + "\n".join(lines) + "\n"

    def to_dict(self) -> dict[str, Any]:
        rows = {case: {column: _told(cell) for column, cell in cells.items()} for case, cells in self.rows.items()}
        return {"title": self.title, "rows": rows}

    @staticmethod
    def from_dict(told: dict[str, Any]) -> Table:
        rows = {
            case: {column: cell if isinstance(cell, str) else Estimate(**cell) for column, cell in cells.items()}
            for case, cells in told["rows"].items()
        }
        return Table(told["title"], rows)


def _told(cell: Cell) -> str | dict[str, float | None]:
    return cell if isinstance(cell, str) else {"value": cell.value, "spread": cell.spread}


def combine(passes: Sequence[Recorded]) -> list[Table]:
    """Every pass must have recorded the same rows and columns, else InputError.

    Cells that are not measured but differ nevertheless are told, each value once.
    """
    first = passes[0]["tables"]
    shape = _shape(first)
    for number, other in enumerate(passes[1:], 2):
        if different := shape ^ _shape(other["tables"]):
            raise InputError(
                f"pass {number} recorded other cells than pass 1: {', '.join(map(str, sorted(different)[:4]))}; "
                "a benchmark must record the same in every pass"
            )
    found = []
    for title, rows in first.items():
        cells: dict[str, dict[str, Cell]] = {case: dict.fromkeys(columns, "") for case, columns in rows.items()}
        for column in dict.fromkeys(column for columns in rows.values() for column in columns):
            values = {
                case: [each["tables"][title][case][column] for each in passes] for case in rows if column in rows[case]
            }
            measured = [case for case, cell in values.items() if isinstance(cell[0], dict)]
            for case in values:
                cells[case][column] = " or ".join(dict.fromkeys(map(str, values[case])))
            if measured:
                of_column = estimates([[cell["measured"] for cell in values[case]] for case in measured])
                for case, estimate in zip(measured, of_column, strict=True):
                    cells[case][column] = estimate
        found.append(Table(title, cells))
    return found


def _shape(tables: dict[str, Any]) -> set[tuple[str, str, str, bool]]:
    return {
        (title, case, column, isinstance(cell, dict))
        for title, rows in tables.items()
        for case, cells in rows.items()
        for column, cell in cells.items()
    }


@dataclass(frozen=True)
class Comparison:
    """One cell of two runs. allowed: by what % a measured one may differ. agrees: None where no interval tells."""

    table: str
    case: str
    column: str
    before: str
    now: str
    allowed: str
    agrees: bool | None

    @property
    def where(self) -> tuple[str, str, str]:
        return self.table, self.case, self.column

    @property
    def verdict(self) -> str:
        return {True: "agrees", False: "DIFFERS", None: "one pass"}[self.agrees]


def compare(before: Sequence[Table], now: Sequence[Table]) -> list[Comparison]:
    """Every cell of both; measured ones agree within the noise that both state, others only where they are equal."""
    old, new = _cells(before), _cells(now)
    return [_compared(where, old.get(where), new.get(where)) for where in dict.fromkeys((*new, *old))]


def _cells(tables: Sequence[Table]) -> dict[tuple[str, str, str], Cell]:
    return {
        (table.title, case, column): cell
        for table in tables
        for case, cells in table.rows.items()
        for column, cell in cells.items()
    }


def _compared(where: tuple[str, str, str], before: Cell | None, now: Cell | None) -> Comparison:
    if before is None or now is None:
        shown = ("not recorded" if cell is None else str(cell) for cell in (before, now))
        return Comparison(*where, *shown, "", False)
    if not isinstance(before, Estimate) or not isinstance(now, Estimate):
        return Comparison(*where, str(before), str(now), "", before == now)
    allowed = before.allowed(now)
    difference = f"{100 * (now.value / before.value - 1):+.1f}"
    told = difference if allowed is None else f"{difference} of ± {100 * allowed:.1f}"
    return Comparison(*where, str(before), str(now), told, before.agrees(now))


__all__ = ["Comparison", "Table", "combine", "compare"]
