"""Renders boards as tables for a terminal, or as plain text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from firsthand.show.board import Board, Row, caveats, findings
from firsthand.show.board_words import amount, figure_text, money, p_text, seconds, span, value_text
from firsthand.system.fitted_table import FittedTable, broken
from firsthand.system.plurals import count_of
from firsthand.system.terminal import MAX_CELL_CHARS

FULL_WIDTH = 100
"""A board has all its columns side by side from this width on; in a narrower terminal some stand below their row."""

MOST_NAME_WIDTH = 26
"""The agent's column is at most this wide beside all others."""

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.text import Text


def render(boards: Sequence[Board]) -> RenderableType:
    """The boards as tables for a terminal, some columns below their row where it is narrower than 100; see `Rendered`."""
    return Rendered(tuple(boards))


@dataclass(frozen=True)
class Rendered:
    """Boards that rich can print; it leaves colours out where there is no terminal."""

    boards: tuple[Board, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        for board in self.boards:
            yield from _render_board(board, options.max_width)


def render_text(boards: Sequence[Board], *, width: int = 100) -> str:
    """The boards as plain text."""
    import io

    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=width, color_system=None, force_terminal=False).print(render(boards))
    return out.getvalue()


def _render_board(board: Board, width: int) -> list[RenderableType]:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    epochs = f", {board.epochs} epochs" if board.epochs > 1 else ""
    budget = f", {board.budget:,.0f} tokens each" if board.budget else ""
    what = f"{_plain(board.benchmark)}: {_plain(board.metric) or 'not scored'}, {count_of(board.tasks, 'task')}"
    what += epochs + budget
    title = Text(what, "bold")
    names = [_plain(row.agent) for row in board.rows]
    names = [name if len(name) <= 20 else re.sub(r"(?=:)|(?<=[(,])", "\n", name) for name in names]
    room = 16 if not any(row.cost.usd for row in board.rows) else 8
    widest = max(len(line) for name in names for line in name.split("\n"))
    versus = "vs. cheapest" if board.budget else "vs. baseline"
    columns = ["score", versus, "verdict", "tokens/task", "seconds", "calls", "cost", "errors"]
    if not any(row.cost.usd for row in board.rows):
        columns.remove("cost")
    right = [column for column in columns if column != "verdict"]
    rows: list[list[Text]] = []
    for name, row in zip(names, board.rows, strict=True):
        mark = "\n◆ frontier" if board.budget and row.agent in board.frontier else ""
        texts = _cells(row, board)
        rows.append([Text(name + mark), *(Text(texts[each], _style(row, each)) for each in columns)])
    table: RenderableType
    name_width = min(max(widest, 8), room)
    needed = name_width + sum(2 + _widest(texts) for texts in _by_column(columns, rows))
    if width < max(FULL_WIDTH, needed):  # a table that is too wide would lose the ends of its last cells
        table = FittedTable(["agent", *columns], rows, right)
    else:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, leading=1)
        room = min(MOST_NAME_WIDTH, max(name_width, name_width + width - needed))
        table.add_column("agent", overflow="fold", min_width=name_width, max_width=MOST_NAME_WIDTH)
        for column in columns:
            table.add_column(column, justify="right" if column in right else "left", no_wrap=True)
        for cells in rows:
            table.add_row(broken(cells[0], room), *cells[1:])
    also = [Text(f"{_plain(row.agent)}: {_others(row)}") for row in board.rows if row.secondary]
    notes = [Text(_plain(line)) for line in [*findings(board), *caveats(board)]]
    return [
        title,
        table,
        Text(""),
        *([Text("Also measured", "bold"), *(broken(each, width) for each in also), Text("")] if also else []),
        *(broken(note, width) for note in notes),
        Text(""),
    ]


def _by_column(columns: list[str], rows: list[list[Text]]) -> Iterator[list[str]]:
    """Each column's heading and its cells."""
    for place, column in enumerate(columns, 1):
        yield [column, *(row[place].plain for row in rows)]


def _widest(texts: Sequence[str]) -> int:
    """The longest line of some texts."""
    return max(len(line) for text in texts for line in text.split("\n"))


def _style(row: Row, column: str) -> str:
    """Green for what is better than the baseline, red for what is worse."""
    if row.versus is None or column not in ("vs. baseline", "vs. cheapest", "verdict"):
        return ""
    return {"better": "green", "worse": "red"}.get(row.versus.verdict, "")


def _cells(row: Row, board: Board) -> dict[str, str]:
    """The cell of each column, of one to three lines: the number, and below it its interval or its parts."""
    found, cost = row.versus, row.cost
    cached = f"\n{amount(cost.cached_tokens)} cached" if cost.cached_tokens else ""
    share = board.share(row)
    used = "" if share is None else f"\n{share:.0%} used"
    path = "" if share is None else f"\npath {seconds(cost.seconds_path)}"
    difference = f"{found.difference:+.2f}\n{span(found.low, found.high, signed=True)}" if found else ""
    verdict = f"{found.verdict}\n{p_text(found.p_value)}" if found else ""
    is_first = row.agent == board.baseline  # others are compared to nothing where nothing was scored
    if found is not None and found.n and math.isnan(found.difference):
        difference = verdict = "unknown"
    return {
        "score": f"{value_text(row.score.value)}\n{span(row.score.low, row.score.high)}" if board.metric else "-",
        "vs. baseline": difference or ("(baseline)" if is_first else "-"),
        "vs. cheapest": difference or ("(cheapest)" if is_first else "-"),
        "verdict": verdict,
        "tokens/task": f"{amount(cost.tokens)}\n{amount(cost.prompt_tokens)} in{cached}{used}",
        "seconds": f"{seconds(cost.seconds_median)}\navg {seconds(cost.seconds_mean)}{path}",
        "calls": amount(cost.calls),
        "cost": money(cost.usd),
        "errors": str(row.errors) + (f"\n{row.stopped} limit" if row.stopped else ""),
    }


def _others(row: Row) -> str:
    return ", ".join(figure_text(_plain(name), each) for name, each in row.secondary.items())


def _plain(text: str) -> str:
    """The text without characters that could steer a terminal, cut where no table has room for it."""
    shown = text if len(text) <= MAX_CELL_CHARS else f"{text[:MAX_CELL_CHARS]}…"
    return "".join(char if char.isprintable() else "?" for char in shown)
