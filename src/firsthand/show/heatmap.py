"""Renders a Grid as a heatmap in the terminal: each cell a score with its interval, darker for higher scores."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from firsthand.stats.breakdown import Cell, Grid, Value
from firsthand.system.terminal import cell_text

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

STEPS = 9
"""Shades from 0 to 1; the report's style has a class for each."""
_LIGHT, _DARK = (245, 246, 240), (0, 88, 65)
"""The ground of a score of 0 and of 1: one hue, so that it reads without telling red from green."""


def shade(cell: Cell | None) -> int | None:
    """The step of a cell's ground, 0 to STEPS; None where there is no score in 0 to 1."""
    value = math.nan if cell is None else cell.score.value
    return round(value * STEPS) if 0 <= value <= 1 else None


def shown(value: Value) -> str:
    """A key's value in words; a dash for none."""
    return (f"{value:g}" if isinstance(value, float) else str(value)) or "-"


def score_cells(cell: Cell | None) -> tuple[str, str]:
    """The score, and its interval with the number of tasks; a dash where there is no task."""
    if cell is None:
        return "-", ""
    score = cell.score
    known = math.isfinite(score.low) and math.isfinite(score.high)
    bounds = f"{_short(score.low)}-{_short(score.high)}" if known else "unknown"
    errors = f", {cell.errors} err" if cell.errors else ""
    return f"{score.value:.2f}", f"{bounds} ({score.n}{errors})"


def heat(grid: Grid) -> Group:
    """The grid under its title, for a rich console."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    title = Text(cell_text(f"{grid.agent} on {grid.benchmark}: {' x '.join(grid.by)}"), "bold")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(Text(cell_text(f"{grid.by[0]} \\ {grid.column_name}" if grid.column_name else grid.by[0])))
    for column in grid.columns:
        name = cell_text(shown(column)) if grid.column_name else "score"
        table.add_column(Text(name), justify="center", overflow="fold")
    for row in grid.rows:
        table.add_row(Text(cell_text(shown(row))), *(_drawn(grid.cells.get((row, column))) for column in grid.columns))
    return Group(title, table)


def _drawn(cell: Cell | None) -> Text:
    from rich.text import Text

    value, bounds = score_cells(cell)
    step = shade(cell)
    if step is None:
        return Text(f"{value}\n{bounds}")
    red, green, blue = (round(a + (b - a) * step / STEPS) for a, b in zip(_LIGHT, _DARK, strict=True))
    ink = "#ffffff" if step > 6 else "#1c1b19"
    return Text(f" {value} \n {bounds} ", f"{ink} on #{red:02x}{green:02x}{blue:02x}")


def _short(value: float) -> str:
    """Two decimals without the leading nought: .07, 1."""
    text = f"{value:.2f}"
    return "1" if text == "1.00" else "0" if text == "0.00" else re.sub(r"\b0\.", ".", text)
