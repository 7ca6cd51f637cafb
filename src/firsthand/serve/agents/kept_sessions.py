"""KeptSessions: what a client keeps in the store of sessions, read a page at a time, counted, bounded and deleted.

Nothing here reads what others keep, nor the messages that a session was opened with, and no read takes more than one turn:
another thread's write waits for one of them at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from firsthand.errors import ConfigError, UnknownName
from firsthand.runs.database import Database
from firsthand.serve.agents.asked_approval import APPROVALS, AskedApproval, approval_of
from firsthand.serve.agents.session_store import TURNS, SessionTurn, size_bytes

PAGE_BYTES = 4 << 20
"""A page ends once it has so much text; one turn or approval may have more by itself."""
MOST_LISTED = 1000
"""Most sessions of a page."""
_OPEN = "('submitted', 'working', 'input_required')"


class ListedSession(NamedTuple):
    """A session with its newest turns."""

    context: str
    turns: list[SessionTurn]
    is_whole: bool
    """False if older turns are left out."""


class SessionsPage(NamedTuple):
    """Sessions, the oldest first."""

    sessions: list[ListedSession]
    has_more: bool
    """True if there are older ones."""


class KeptSessions:
    """Sessions in a store, each owned by a client."""

    def __init__(self, database: Database):
        self._database = database
        self.on_delete: list[Callable[[Sequence[str]], None]] = []
        """Each is told the ids of turns that were deleted, in the thread that deleted them."""
        self.kept_beside: list[Callable[[str], int]] = []
        """Each gives the bytes that another store keeps of a client."""

    def find(self, owner: str, context: str) -> str:
        """The id of the client's session under its own name; UnknownName if it has none."""
        rows = self._database.read("SELECT id FROM sessions WHERE owner = ? AND context = ?", (owner, context))
        if not rows:
            raise UnknownName(f"no session {context!r:.80}: GET /sessions lists them")
        return str(rows[0][0])

    def page(self, owner: str, before: str | None = None) -> SessionsPage:
        """The client's newest sessions, or the newest of those that are older than `before`."""
        first = 1 << 62
        if before is not None:
            id = self.find(owner, before)
            first = int(self._database.read("SELECT rowid FROM sessions WHERE id = ?", (id,))[0][0])
        rows = self._database.read(
            "SELECT id FROM sessions WHERE owner = ? AND rowid < ? ORDER BY rowid DESC LIMIT ?",
            (owner, first, MOST_LISTED + 1),
        )
        found: list[ListedSession] = []
        looked, left = 0, PAGE_BYTES
        for (id,) in rows[:MOST_LISTED]:
            looked += 1
            named = self._database.read("SELECT context FROM sessions WHERE id = ?", (id,))
            if not named:  # deleted in the meantime
                continue
            context = str(named[0][0])
            turns, whole = self.turns(id, left)
            found.append(ListedSession(context, turns, whole))
            left -= size_bytes(context) + sum(map(_size, turns))
            if left <= 0 or not whole:
                break
        return SessionsPage(found[::-1], bool(found) and len(rows) > looked)

    def turns(
        self, session: str, size_bytes: int | None = None, before: int = 1 << 62
    ) -> tuple[list[SessionTurn], bool]:
        """The newest turns of a session with numbers below `before`, in order; False if older ones are left out."""
        found: list[SessionTurn] = []
        left = PAGE_BYTES if size_bytes is None else size_bytes
        for turn in self._newest(session, before):
            if left <= 0:
                return found[::-1], False
            left -= _size(turn)
            found.append(turn)
        return found[::-1], True

    def _newest(self, session: str, before: int) -> Iterator[SessionTurn]:
        sql = f"{TURNS} WHERE t.session = ? AND t.number < ? ORDER BY t.number DESC LIMIT 1"
        while rows := self._database.read(sql, (session, before)):
            turn = SessionTurn(*rows[0])
            before = turn.number
            yield turn

    def pending(self, owner: str) -> tuple[list[AskedApproval], bool]:
        """The oldest approvals that wait for the client, and False if others are left out."""
        sql = (
            f"{APPROVALS} WHERE a.state = 'pending' AND s.owner = ? AND a.rowid > ? AND t.state IN {_OPEN}"
            " ORDER BY a.rowid LIMIT 1"
        )
        found: list[AskedApproval] = []
        left, after = PAGE_BYTES, 0
        while rows := self._database.read(sql, (owner, after)):
            if left <= 0:
                return found, False
            asked = approval_of(*rows[0])
            after = int(self._database.read("SELECT rowid FROM approvals WHERE id = ?", (asked.id,))[0][0])
            left -= sum(len(str(cell)) for cell in rows[0])
            found.append(asked)
        return found, True

    def check_room(self, owner: str, most_sessions: int, most_bytes: int) -> None:
        """ConfigError if the client keeps as much as it may."""
        ((number, size),) = self._database.read("SELECT count(*), total(size) FROM sessions WHERE owner = ?", (owner,))
        ((tasks_size,),) = self._database.read("SELECT total(size) FROM wire_tasks WHERE owner = ?", (owner,))
        free = "delete some with DELETE /sessions/ID, or have the operator raise"
        if number >= most_sessions:
            raise ConfigError(f"{number:,} sessions of yours are kept, as many as may be: {free} --kept-sessions")
        size += tasks_size + sum(beside(owner) for beside in self.kept_beside)
        if size >= most_bytes:
            kept = f"your sessions and tasks take {int(size):,} bytes"
            raise ConfigError(f"{kept}, and may take {most_bytes:,}: {free} --kept-bytes")

    def check_session(self, owner: str, context: str, most_bytes: int) -> None:
        """ConfigError if the client's session of this name has as many bytes as one may."""
        rows = self._database.read("SELECT size FROM sessions WHERE owner = ? AND context = ?", (owner, context))
        if rows and rows[0][0] >= most_bytes:
            held = f"the session {context!r:.80} has {int(rows[0][0]):,} bytes, and may have {most_bytes:,}"
            raise ConfigError(f"{held}: begin a new one, or have the operator raise --session-bytes")

    def open_turns(self, owner: str) -> int:
        """The number of the client's turns that are not over."""
        sql = (
            f"SELECT count(*) FROM turns t JOIN sessions s ON s.id = t.session WHERE t.state IN {_OPEN} AND s.owner = ?"
        )
        return int(self._database.read(sql, (owner,))[0][0])

    def delete(self, owner: str, context: str) -> bool:
        """Delete the client's session with its turns, approvals and tasks; False if a turn of it is not over."""
        id = self.find(owner, context)
        with self._database.write() as connection:
            if connection.execute(f"SELECT 1 FROM turns WHERE session = ? AND state IN {_OPEN}", (id,)).fetchone():
                return False
            tasks = "(SELECT id FROM wire_tasks WHERE owner = ? AND context = ?)"
            for table in ("push_configs", "push_outbox"):
                connection.execute(f"DELETE FROM {table} WHERE task IN {tasks}", (owner, context))
            connection.execute("DELETE FROM wire_tasks WHERE owner = ? AND context = ?", (owner, context))
            connection.execute("DELETE FROM approvals WHERE turn IN (SELECT id FROM turns WHERE session = ?)", (id,))
            turns = connection.execute("DELETE FROM turns WHERE session = ? RETURNING id", (id,)).fetchall()
            connection.execute("DELETE FROM sessions WHERE id = ?", (id,))
        for told in self.on_delete:
            told([turn for (turn,) in turns])
        return True


def _size(turn: SessionTurn) -> int:
    return sum(map(size_bytes, (turn.prompt, turn.answer or "", turn.error or ""))) + 200
