"""What commands print, on a terminal that is wide enough for all columns of a table."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from firsthand.system import terminal

WIDTH = 240


def words(text: str) -> list[str]:
    """Lines with something on them, each with single blanks between its words; rules of tables are left out."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip(" ─")]


def right_cells(text: str, name: str) -> list[str]:
    """The cells of the first table that end where its heading `name` does, as columns of numbers do; "" for another cell."""
    lines = text.splitlines()
    top = next(place for place, line in enumerate(lines) if f"  {name}" in line)
    end = lines[top].index(f"  {name}") + 2 + len(name)
    rows = lines[top + 2 :]
    return [row[:end].rpartition("  ")[2] for row in rows[: rows.index("")]]


def widen(monkeypatch: pytest.MonkeyPatch, *importers: ModuleType) -> None:
    """Make the console 240 columns wide, in `importers` too, which took its function by name."""
    made = terminal.console

    def console(**options: bool) -> Any:
        found = made(**options)
        found.width = WIDTH
        return found

    for module in (terminal, *importers):
        monkeypatch.setattr(module, "console", console)
