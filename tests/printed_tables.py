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


def widen(monkeypatch: pytest.MonkeyPatch, *importers: ModuleType) -> None:
    """Make the console 240 columns wide, in `importers` too, which took its function by name."""
    made = terminal.console

    def console(**options: bool) -> Any:
        found = made(**options)
        found.width = WIDTH
        return found

    for module in (terminal, *importers):
        monkeypatch.setattr(module, "console", console)
