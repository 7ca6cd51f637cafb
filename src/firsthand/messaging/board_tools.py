"""The tools through which an agent reads and writes a blackboard: `shared_board:FILE` in a list of tools.

An entry was written by another agent, so it is data: it comes with its writer, between marks. A write names the version that
it follows; one that lost the race writes nothing and shows the entry as it is, for the model to look again. A write that was
made but not recorded, as its attempt was killed in between, is told to the resumed attempt as an entry of its own. An entry
that copies what only the user may read keeps that, so it is private for the guards of those who read it.
"""

from __future__ import annotations

from firsthand.declaration import Declaration
from firsthand.loop.calling import caller, give_private
from firsthand.loop.read_origins import copies_private
from firsthand.messaging.blackboard import Blackboard, BoardConflict, BoardEntry
from firsthand.tool import Tool, tool_from_function

MAX_LISTED = 100
SHOWN_CHARS = 8000
ORIGIN = "the blackboard"


def board_tools(board: Blackboard) -> tuple[Tool, ...]:
    """`board_read`, `board_list` and `board_write` over a blackboard."""

    def board_read(key: str) -> str:
        """Read an entry of the shared board.

        Args:
            key: The key of the entry.
        """
        entry = board.read(key)
        return f"There is no entry {key[:80]!r}." if entry is None else _given(entry)

    def board_list(prefix: str = "") -> str:
        """List the entries of the shared board: keys, versions and writers.

        Args:
            prefix: Only keys that begin so.
        """
        entries = board.entries(prefix)
        if any(each.readers == "user" for each in entries[:MAX_LISTED]):  # a key holds 200 characters
            give_private()
        lines = [f"{each.key} (version {each.version}, by {each.writer})" for each in entries[:MAX_LISTED]]
        more = [f"and {len(entries) - MAX_LISTED} more"] if len(entries) > MAX_LISTED else []
        return "\n".join([*lines, *more]) or "The board is empty."

    def board_write(key: str, value: str, version: int) -> str:
        """Write an entry of the shared board.

        Args:
            key: The key of the entry.
            value: The new text.
            version: The version that you have read, 0 for a new entry. If another agent wrote since then, nothing is
                written.
        """
        position = caller()
        writer, private = "somebody", False
        if position is not None:
            attempt = position.context.attempt
            writer = attempt.agent.name
            private = copies_private(attempt, position.effect, key, value)
        try:
            if private:
                entry = board.write(key, value, writer=writer, expected=version, readers="user")
            else:  # a board of the caller's own need not know of readers
                entry = board.write(key, value, writer=writer, expected=version)
        except BoardConflict as error:
            now = "" if error.entry is None else f"\n{_given(error.entry)}"
            return (
                f"Nothing was written: {error}{now}"  # a result, for the words of an error stand outside of the marks
            )
        return f"{entry.key} is at version {entry.version}."

    own = Declaration()
    read, listed = (
        tool_from_function(each, effect="read", origin=ORIGIN, declares=own) for each in (board_read, board_list)
    )
    return read, listed, tool_from_function(board_write, effect="write", origin=ORIGIN, declares=own)


def _given(entry: BoardEntry) -> str:
    """An entry as a model reads it, marked as private if only the user may read it."""
    if entry.readers == "user":
        give_private()
    return shown(entry)


def shown(entry: BoardEntry) -> str:
    """An entry as a model reads it."""
    left_out = len(entry.value) - SHOWN_CHARS
    more = f" … ({left_out:,} more characters)" if left_out > 0 else ""
    return f"{entry.key}, version {entry.version}, written by {entry.writer}:\n{entry.value[:SHOWN_CHARS]}{more}"
