"""Empty cells in the place of merged ones, so that each cell of a table stands in its own column."""

from __future__ import annotations

_MAX_COLUMNS = 100
_MAX_ROWS = 1000
_MAX_EMPTY = 100_000
"""The most empty cells of a page; spans after them are taken as 1."""


class TableColumns:
    """The columns of the open tables that cells of rows above reach into."""

    def __init__(self) -> None:
        self._tables: list[tuple[int, dict[int, int]]] = [(0, {})]
        """(column of the next cell, rows that a cell still reaches down by column), the innermost table last."""
        self._empty = 0

    def start_table(self) -> None:
        self._tables.append((0, {}))

    def end_table(self) -> None:
        if len(self._tables) > 1:
            self._tables.pop()

    def start_rows(self) -> None:
        """Begin a group of rows, into which no cell reaches from above."""
        self._tables[-1] = (0, {})

    def start_row(self) -> None:
        _, below = self._tables[-1]
        self._tables[-1] = (0, {column: rows - 1 for column, rows in below.items() if rows > 1})

    def cell(self, columns: str, rows: str) -> tuple[int, int]:
        """Empty cells before and behind a cell with these spans."""
        column, below = self._tables[-1]
        start = column
        while below.get(start, 0) and self._may_add(start - column + 1):
            start += 1
        width = min(_span(columns), max(1, _MAX_COLUMNS - start))
        width = width if self._may_add(start - column + width - 1) else 1
        self._empty += start - column + width - 1
        height = _MAX_ROWS if rows.strip() == "0" else min(_span(rows), _MAX_ROWS)
        if height > 1 and start < _MAX_COLUMNS:
            # the row that begins next is the first of those below
            below.update(dict.fromkeys(range(start, start + width), height))
        self._tables[-1] = (start + width, below)
        return start - column, width - 1

    def _may_add(self, count: int) -> bool:
        return self._empty + count <= _MAX_EMPTY


def _span(value: str) -> int:
    """The number of an attribute; 1 if it is none."""
    digits = value.strip()[:5]
    return max(1, int(digits)) if digits.isascii() and digits.isdigit() else 1
