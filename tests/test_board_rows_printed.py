"""A board of very many tables prints so many rows as a reader can use, and says what is left."""

from __future__ import annotations

import pytest

from firsthand.boards.board_spec import BoardSpec
from firsthand.boards.make_board import BoardLine, BoardSection, MadeBoard
from firsthand.commands import board_of_results


def printed(sections: int, rows: int, capsys: pytest.CaptureFixture[str]) -> str:
    line = BoardLine("m", 1, 1, 0.5, 0.4, 0.6)
    board = MadeBoard(
        BoardSpec("own"), tuple(BoardSection(f"s{i}s", "acc", (line,) * rows) for i in range(sections)), ()
    )
    board_of_results.print_board(board)
    return capsys.readouterr().out


def test_whole_tables_are_printed_up_to_the_most_rows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(board_of_results, "MOST_ROWS", 6)
    said = printed(2, 3, capsys)
    assert "s0s" in said and "s1s" in said and "Not shown" not in said
    said = printed(4, 3, capsys)
    assert (
        "s1s" in said and "s2s" not in said and "Not shown: 2 more tables. --export board.html or .csv has all." in said
    )
    assert "Not shown" not in printed(1, 7, capsys)
