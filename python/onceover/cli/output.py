"""What the terminal shows: tables, progress bars with time left, errors. Machines get one JSON object instead."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table


class Output:
    """People read stderr and stdout in color; with as_json stdout carries the object alone."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.out = Console(quiet=as_json, highlight=False, soft_wrap=True)
        self.err = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        self.out.print(text)

    def warn(self, text: str) -> None:
        self.err.print(f"[yellow]note:[/] {escape(text)}")

    def error(self, text: str) -> None:
        self.err.print(f"[bold red]error:[/] {escape(text)}")

    def object(self, value: Any) -> None:
        """The JSON object, when asked for."""
        if self.as_json:
            json.dump(value, sys.stdout, indent=1, allow_nan=False)
            sys.stdout.write("\n")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Text columns left, number columns (header ending in a space) right."""
        table = Table(title=escape(title), title_justify="left", header_style="bold")
        for column in columns:
            table.add_column(column.strip(), justify="right" if column.endswith(" ") else "left")
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        self.out.print(table)

    @contextmanager
    def progress(self) -> Iterator[StageProgress]:
        """A bar per stage, with the time left; silent under --json."""
        columns = (
            TextColumn("{task.description:<16}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        with Progress(*columns, console=self.err, disable=self.as_json) as bars:
            yield StageProgress(bars)


class StageProgress:
    """Turns progress(stage, done, total) into bars."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)


def number(value: float | None, digits: int = 3) -> str:
    """A cell: n/a for what was not measured."""
    return "n/a" if value is None or value != value else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    return "n/a" if value is None or value != value else f"{100 * value:.1f} %"
