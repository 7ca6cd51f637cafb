"""A blackboard that agents share: `shared_board:FILE` is read, list and write, each write against a version."""

from __future__ import annotations

from firsthand.messaging.board_tools import board_tools
from firsthand.messaging.open_messaging import open_messaging
from firsthand.tool import Tool


def shared_board(file: str) -> tuple[Tool, ...]:
    """The tools `board_read`, `board_list` and `board_write` over a blackboard.

    `file` is one in this machine, made where it is not there, or the address of a server, `redis://HOST:PORT/0` or
    `nats://HOST:PORT`.
    """
    return board_tools(open_messaging(file))
