"""A blackboard in a file that agents share: `shared_board:FILE` is read, list and write, each write against a version."""

from __future__ import annotations

from pathlib import Path

from firsthand.messaging.board_tools import board_tools
from firsthand.messaging.sqlite_messaging import SqliteMessaging
from firsthand.tool import Tool


def shared_board(file: str) -> tuple[Tool, ...]:
    """The tools `board_read`, `board_list` and `board_write` over the blackboard in a file, made where it is not there."""
    return board_tools(SqliteMessaging(Path(file)))
