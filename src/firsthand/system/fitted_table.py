"""Lays out a table in the width there is: columns that do not fit stand below their row, and no column is squeezed.

The first column identifies a row and stays on the line, whole if it can. The widest of the others may be folded at words.
Cells may have several lines.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.text import Text

GAP = 2
"""Columns between two columns of a table."""
LEAST_FOLDED = 28
"""A column is not folded to fewer columns of the terminal than this."""


@dataclass(frozen=True)
class FittedTable:
    """A table that rich can print in any width."""

    header: Sequence[str]
    rows: Sequence[Sequence[Text]]
    right: Collection[str] = ()
    """The headings of columns that are aligned to the right."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        widths = self.widths(options.max_width)
        shown = list(widths)
        yield self._line([Text(self.header[column], "bold") for column in shown], widths)
        rule = "-" if options.ascii_only else "─"
        yield Text(rule * min(options.max_width, sum(widths.values()) + GAP * (len(widths) - 1)), "dim")
        for row in self.rows:
            folded = [broken(row[column], widths[column]).wrap(console, widths[column]) for column in shown]
            height = max(map(len, folded))
            for number in range(height):
                yield self._line([lines[number] if number < len(lines) else Text() for lines in folded], widths)
            below = [column for column in range(len(self.header)) if column not in widths]
            yield from self._below(row, below, console, options.max_width)
            if height > 2 or below:
                yield Text()

    def widths(self, room: int) -> dict[int, int]:
        """The width of each column that stays on the line, the first ones, in a terminal `room` columns wide."""
        natural = [
            max([_width(self.header[column]), *(_text_width(row[column]) for row in self.rows)])
            for column in range(len(self.header))
        ]
        shown = list(range(len(natural)))
        while True:
            widest = max(shown[1:] or shown, key=lambda column: natural[column])
            rest = sum(natural[column] for column in shown if column != widest) + GAP * (len(shown) - 1)
            left = room - rest
            if left >= natural[widest]:
                return {column: natural[column] for column in shown}
            if left >= LEAST_FOLDED or len(shown) == 1:
                return {column: max(left, 1) if column == widest else natural[column] for column in shown}
            del shown[-1]

    def _line(self, cells: Sequence[Text], widths: dict[int, int]) -> Text:
        from rich.text import Text

        line = Text(no_wrap=True)
        for column, (cell, width) in enumerate(zip(cells, widths.values(), strict=True)):
            padding = " " * max(0, width - cell.cell_len)
            is_right = self.header[column] in self.right
            line.append(" " * GAP if column else "")
            line.append_text(Text(padding) + cell if is_right else cell + Text(padding))
        line.rstrip()
        return line

    def _below(self, row: Sequence[Text], columns: Sequence[int], console: Console, room: int) -> Iterator[Text]:
        """The cells that do not stand on the line, each after its heading, joined while they fit."""
        from rich.text import Text

        line = Text()
        for column in columns:
            if not row[column].plain.strip():
                continue
            value = Text()
            for part in row[column].split("\n"):
                gap = "" if not value else " " if part.plain.startswith("[") else ", "
                value = Text.assemble(value, gap, part) if part.plain.strip() else value
            piece = Text.assemble((self.header[column], "dim"), " " if self.header[column] else "", value)
            if line and line.cell_len + 3 + piece.cell_len > room - 2:
                yield from _indented(line, console, room)
                line = Text()
            line = line + Text(" · ", "dim") + piece if line else piece
        if line:
            yield from _indented(line, console, room)


def broken(text: Text, width: int) -> Text:
    """The text with words that are wider than `width`, such as paths, broken after separators, not anywhere."""
    from rich.text import Text

    cuts: list[int] = []
    for word in re.finditer(r"\S+", text.plain):
        start = word.start()
        while _width(text.plain[start : word.end()]) > width:
            end = start + 1
            while end < word.end() and _width(text.plain[start : end + 1]) <= width:
                end += 1
            separated = re.match(r".*[/\\:@,;=_.+-]", text.plain[start:end])
            start = start + separated.end() if separated and 3 * separated.end() >= width else end
            cuts.append(start)
    return Text("\n").join(text.divide(cuts)) if cuts else text


def _indented(line: Text, console: Console, room: int) -> Iterator[Text]:
    from rich.text import Text

    for part in broken(line, max(1, room - 2)).wrap(console, max(1, room - 2)):
        part.rstrip()
        yield Text("  ") + part


def _text_width(cell: Text) -> int:
    return max((_width(line) for line in cell.plain.split("\n")), default=0)


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)
