"""Tables that fit a terminal: how wide each column is, and what is broken first where there is little room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table
from rich.text import Text

WHOLE = ("name", "trend")  # columns to be copied, or a picture: narrow terminals break other cells
LONG_WORD = 12  # columns: broken where there is no room; "uncalibrated" is not
ROWS_AT_ONCE = 1000  # of a table
NARROWEST_COLUMN = 3  # of a table
LONG_NAME = 6  # columns, of the first one


def make_table(
    title: str,
    columns: Sequence[str],
    widths: Sequence[int | None],
    rows: Sequence[Sequence[str]],
    styles: Mapping[str, str],
) -> Table:
    """Text columns left, number columns (header ending in a space) right. widths: None where rich decides. styles: of
    rich, by what a cell says."""
    table = Table(title=escape(title) or None, title_justify="left", header_style="bold", show_header=any(columns))
    for column, width in zip(columns, widths, strict=True):
        whole = column in WHOLE
        side: Literal["left", "right"] = "right" if column.endswith(" ") else "left"
        table.add_column(column.strip(), justify=side, no_wrap=whole, width=width, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, styles.get(cell, "")) for cell in row))
    return table


def widths_that_fit(columns: Sequence[str], rows: Sequence[Sequence[str]], room: int) -> list[int | None]:
    """The widest columns become narrower until a table fits, but no word is broken that is not a long one; where that
    takes it, those of the first column, which is names, and at last those of headers. None for each: rich breaks any.
    """
    cells = [[row[i] for row in rows] for i in range(len(columns))]
    heads = [column.strip() for column in columns]
    widths = [max(map(cell_len, (head, *texts))) for head, texts in zip(heads, cells, strict=True)]
    least = [
        width if column in WHOLE else _longest_word((head, *texts))
        for column, width, head, texts in zip(columns, widths, heads, cells, strict=True)
    ]
    if sum(least) > room and columns[0] not in WHOLE:
        least[0] = min(least[0], LONG_NAME)
    if sum(least) > room:
        least = [
            now if column in WHOLE else min(now, max(_longest_word(texts), NARROWEST_COLUMN))
            for column, now, texts in zip(columns, least, cells, strict=True)
        ]
    if sum(least) > room:
        return [None] * len(columns)
    while sum(widths) > room:
        wide = [i for i in range(len(widths)) if widths[i] > least[i]]
        widths[max(wide, key=widths.__getitem__)] -= 1
    return list(widths)


def _longest_word(texts: Sequence[str]) -> int:
    return min(max((cell_len(word) for text in texts for word in text.split()), default=0), LONG_WORD)


__all__ = ["ROWS_AT_ONCE", "make_table", "widths_that_fit"]
