"""SessionStore: sessions, turns and approvals of a served agent in one SQLite file, beside the run that holds the traces.

    <run>/sessions.sqlite    sessions, their turns, what a person was asked, and the tasks and webhooks of A2A

What a method has written survives `kill -9` once it returns. Several processes may use one store: one of them runs the
turns, any of them may answer an approval. A state changes by compare-and-set, so a cancel and an answer cannot both win.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from firsthand.errors import ConfigError, UnknownName
from firsthand.loop.form import FormField, checked_answers, fields_to_json
from firsthand.message import Json, Message
from firsthand.runs.database import Database, Schema
from firsthand.runs.stored_journal import now
from firsthand.serve.agents.asked_approval import APPROVALS, AskedApproval, approval_of, question_digest, sealed_text
from firsthand.system.home_seal import is_ours, seal_of
from firsthand.system.open_approvals import is_open, open_approval

TurnState = Literal["submitted", "working", "input_required", "completed", "failed", "rejected", "canceled"]
OVER: frozenset[str] = frozenset(("completed", "failed", "rejected", "canceled"))
"""States that no turn leaves."""
SESSIONS_FILE = "sessions.sqlite"
MOST_UNDELIVERED = 256
"""Turns that a retry is looked for among, the newest."""
RETRIED_S = 600.0
"""Seconds after the end of a turn for which the same messages are a retry of a client that left; later they ask anew."""
SCHEMA = Schema(
    "a store of sessions",
    0x66737373,  # "fsss"
    (
        """
        CREATE TABLE sessions (id TEXT PRIMARY KEY NOT NULL, owner TEXT NOT NULL, context TEXT NOT NULL,
            transcript TEXT NOT NULL, conversation TEXT NOT NULL, created_at TEXT NOT NULL,
            delivered INTEGER NOT NULL DEFAULT 0, UNIQUE (owner, context));
        CREATE INDEX sessions_by_transcript ON sessions (owner, transcript);
        CREATE TABLE turns (id TEXT PRIMARY KEY NOT NULL, session TEXT NOT NULL, number INTEGER NOT NULL,
            state TEXT NOT NULL, prompt TEXT NOT NULL, answer TEXT, error TEXT, created_at TEXT NOT NULL,
            updated_at TEXT NOT NULL, UNIQUE (session, number));
        CREATE INDEX turns_by_state ON turns (state);
        CREATE TABLE approvals (id TEXT PRIMARY KEY NOT NULL, turn TEXT NOT NULL, call TEXT NOT NULL, tool TEXT NOT NULL,
            effect TEXT NOT NULL, arguments TEXT NOT NULL, question TEXT NOT NULL, state TEXT NOT NULL,
            answered_by TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '', created_at TEXT NOT NULL,
            answered_at TEXT, UNIQUE (turn, call));
        CREATE INDEX approvals_by_state ON approvals (state);
        CREATE TABLE wire_tasks (id TEXT PRIMARY KEY NOT NULL, owner TEXT NOT NULL, context TEXT NOT NULL,
            state INTEGER NOT NULL, stamp INTEGER NOT NULL, body BLOB NOT NULL);
        CREATE INDEX wire_tasks_by_owner ON wire_tasks (owner, stamp DESC, id DESC);
        CREATE TABLE push_configs (task TEXT NOT NULL, id TEXT NOT NULL, owner TEXT NOT NULL, body BLOB NOT NULL,
            PRIMARY KEY (task, id, owner));
        """,
        """
        CREATE TABLE push_outbox (seq INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT NOT NULL, body BLOB NOT NULL);
        """,
        """
        ALTER TABLE approvals ADD COLUMN form TEXT;
        ALTER TABLE approvals ADD COLUMN content TEXT;
        """,
        """
        ALTER TABLE approvals ADD COLUMN seal TEXT;
        """,
        """
        ALTER TABLE sessions ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE wire_tasks ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
        UPDATE sessions SET size = length(conversation) + coalesce((SELECT sum(length(prompt) + coalesce(length(answer), 0))
            FROM turns WHERE session = sessions.id), 0);
        UPDATE wire_tasks SET size = length(body);
        CREATE INDEX sessions_by_size ON sessions (owner, size);
        CREATE INDEX wire_tasks_by_size ON wire_tasks (owner, size);
        """,
        """
        ALTER TABLE approvals ADD COLUMN opens TEXT;
        """,
        """
        UPDATE sessions SET size = size + length(CAST(context AS BLOB));
        """,
    ),
)
_TURN = "t.id, t.session, t.number, t.state, t.prompt, t.answer, t.error, s.owner, s.context"
TURNS = f"SELECT {_TURN} FROM turns t JOIN sessions s ON s.id = t.session"


@dataclass(frozen=True)
class SessionRow:
    """A conversation with one client."""

    id: str
    owner: str
    """The client that it belongs to; no other one is told that it exists."""
    context: str
    """The client's own name for it, unique for the client."""
    opening: str = "[]"
    """The conversation as JSON."""

    @property
    def conversation(self) -> tuple[Message, ...]:
        """Messages before the first turn, which the client brought along; decoded anew each time."""
        return tuple(Message.from_json(each) for each in json.loads(self.opening))


@dataclass(frozen=True)
class SessionTurn:
    """A question of a session and its answer."""

    id: str
    session: str
    number: int
    """From 1."""
    state: TurnState
    prompt: str
    answer: str | None
    error: str | None
    owner: str
    context: str

    @property
    def is_over(self) -> bool:
        """True if its state will not change any more."""
        return self.state in OVER

    @property
    def is_settled(self) -> bool:
        """True if nothing happens until somebody acts."""
        return self.is_over or self.state == "input_required"


class SessionStore:
    """The sessions of one served agent."""

    def __init__(self, folder: Path, *, create: bool = False):
        path = folder / SESSIONS_FILE
        if not create and not path.is_file():
            raise ConfigError(f"{folder} holds no sessions: give the folder that `firsthand serve --agent` printed")
        self.database = Database(path, create=create, schema=SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    # -- sessions --

    def open_session(self, owner: str, context: str, conversation: Sequence[Message] = ()) -> SessionRow:
        """The session of a client under its own name; made if it is new."""
        id, body = secrets.token_hex(8), json.dumps([each.to_json() for each in conversation])
        with self.database.write() as connection:
            connection.execute(
                "INSERT INTO sessions (id, owner, context, transcript, conversation, created_at, size)"
                " VALUES (?, ?, ?, '', ?, ?, ?) ON CONFLICT DO NOTHING",
                (id, owner, context, body, now(), len(body) + size_bytes(context)),
            )
        return self._session("owner = ? AND context = ?", (owner, context))

    def session(self, id: str) -> SessionRow:
        """The session with this id; UnknownName if there is none."""
        return self._session("id = ?", (id,))

    def find_session(self, owner: str, context: str) -> SessionRow | None:
        """The client's session under its own name, or None, whoever else has one of that name."""
        rows = self.database.read(
            "SELECT id, owner, context, conversation FROM sessions WHERE owner = ? AND context = ?", (owner, context)
        )
        return SessionRow(*rows[0]) if rows else None

    def sessions(self) -> list[SessionRow]:
        """All sessions, the oldest first."""
        rows = self.database.read("SELECT id, owner, context, conversation FROM sessions ORDER BY created_at, rowid")
        return [SessionRow(*row) for row in rows]

    def by_transcript(self, owner: str, transcript: str) -> SessionRow | None:
        """The client's newest session whose messages so far have this digest, and no turn of which is under way."""
        rows = self.database.read(
            "SELECT id, owner, context, conversation FROM sessions s WHERE owner = ? AND transcript = ? AND NOT EXISTS"
            " (SELECT 1 FROM turns WHERE session = s.id AND state IN ('submitted', 'working', 'input_required'))"
            " ORDER BY rowid DESC LIMIT 1",
            (owner, transcript),
        )
        return SessionRow(*rows[0]) if rows else None

    def keep_transcript(self, session: str, digest: str, delivered: int) -> None:
        """Keep the digest of a session's messages up to a turn whose answer its client was given, if none after it was."""
        with self.database.write() as connection:
            connection.execute(
                "UPDATE sessions SET transcript = ?, delivered = ? WHERE id = ? AND delivered <= ?",
                (digest, delivered, session, delivered),
            )

    def deliver(self, turn: SessionTurn) -> None:
        """Keep that a client was given what this turn had to say, so that no retry gets it."""
        with self.database.write() as connection:
            connection.execute(
                "UPDATE sessions SET delivered = max(delivered, ?) WHERE id = ?", (turn.number, turn.session)
            )

    def undelivered(self, owner: str, prompt: str, beginning: str, transcript: str = "") -> list[str]:
        """Turns that ask this, in sessions whose names begin so, and that are under way, or ended within RETRIED_S with an
        answer that no client was given: the ids of the newest, those behind messages with this digest first."""
        rows = self.database.read(
            "SELECT t.id FROM sessions s CROSS JOIN turns t ON t.session = s.id WHERE s.owner = ?"
            " AND substr(s.context, 1, ?) = ? AND t.state NOT IN ('failed', 'canceled')"
            " AND (t.state NOT IN ('completed', 'rejected') OR (t.number > s.delivered AND t.updated_at >= ?))"
            " AND t.prompt = ? ORDER BY s.transcript = ? DESC, t.rowid DESC LIMIT ?",
            (owner, len(beginning), beginning, now(-RETRIED_S), prompt, transcript, MOST_UNDELIVERED),
        )
        return [str(id) for (id,) in rows]

    def fallen(self, owner: str, prompt: str, beginning: str, transcript: str = "") -> list[SessionTurn]:
        """Turns that ask this and failed or were cancelled within RETRIED_S, whether a client was told or not, as above."""
        rows = self.database.read(
            f"{TURNS} WHERE s.owner = ? AND substr(s.context, 1, ?) = ? AND t.state IN ('failed', 'canceled')"
            " AND t.updated_at >= ? AND t.prompt = ? ORDER BY s.transcript = ? DESC, t.rowid DESC LIMIT ?",
            (owner, len(beginning), beginning, now(-RETRIED_S), prompt, transcript, MOST_UNDELIVERED),
        )
        return [SessionTurn(*row) for row in rows]

    def _session(self, where: str, values: Sequence[Any]) -> SessionRow:
        rows = self.database.read(f"SELECT id, owner, context, conversation FROM sessions WHERE {where}", values)
        if not rows:
            raise UnknownName(f"no session {values[-1]!r:.80}: `firsthand sessions FOLDER` lists them")
        return SessionRow(*rows[0])

    # -- turns --

    def add_turn(self, session: str, prompt: str, *, id: str = "") -> SessionTurn:
        """A new turn, the last of its session. ConfigError if there is a turn with this id."""
        id, at = id or secrets.token_hex(12), now()
        with self.database.write() as connection:
            if connection.execute("SELECT 1 FROM turns WHERE id = ?", (id,)).fetchone():
                raise ConfigError(f"there is a turn {id!r:.80} already: give a new one another id")
            connection.execute(
                "INSERT INTO turns SELECT ?, ?, coalesce(max(number), 0) + 1, 'submitted', ?, NULL, NULL, ?, ?"
                " FROM turns WHERE session = ?",
                (id, session, prompt, at, at, session),
            )
            grown = connection.execute(
                "UPDATE sessions SET size = size + ? WHERE id = ?", (size_bytes(prompt), session)
            )
            if not grown.rowcount:
                raise UnknownName("the session was deleted: begin a new one")
        return self.turn(id)

    def turn(self, id: str, owner: str | None = None) -> SessionTurn:
        """The turn with this id, if it is the client's; UnknownName otherwise, whoever else has such a turn."""
        rows = self.database.read(f"{TURNS} WHERE t.id = ? AND (? IS NULL OR s.owner = ?)", (id, owner, owner))
        if not rows:
            raise UnknownName(f"no turn {id!r:.80}")
        return SessionTurn(*rows[0])

    def turns(self, session: str) -> list[SessionTurn]:
        """The turns of a session, in order."""
        return [
            SessionTurn(*row) for row in self.database.read(f"{TURNS} WHERE session = ? ORDER BY number", (session,))
        ]

    def unfinished(self) -> list[SessionTurn]:
        """All turns that are not over, in order."""
        rows = self.database.read(f"{TURNS} WHERE state IN ('submitted', 'working', 'input_required') ORDER BY t.rowid")
        return [SessionTurn(*row) for row in rows]

    def next_turn(self, session: str) -> SessionTurn | None:
        """The first turn of a session that is not over, if it can go on: nobody has to answer anything first."""
        open = "state IN ('submitted', 'working', 'input_required')"
        rows = self.database.read(f"{TURNS} WHERE session = ? AND {open} ORDER BY number LIMIT 1", (session,))
        turn = SessionTurn(*rows[0]) if rows else None
        return None if turn is None or self.pending(turn.id) else turn

    def move(self, id: str, state: TurnState, *, answer: str | None = None, error: str | None = None) -> bool:
        """Put a turn into a state; False if it is over already, and nothing was changed. Half surrogates become U+FFFD."""
        answer, error = (None if each is None else _whole(each) for each in (answer, error))
        with self.database.write() as connection:
            done = connection.execute(
                "UPDATE turns SET state = ?, answer = ?, error = ?, updated_at = ? WHERE id = ?"
                " AND state NOT IN ('completed', 'failed', 'rejected', 'canceled')",
                (state, answer, error, now(), id),
            )
            connection.execute(
                "UPDATE sessions SET size = size + ? WHERE id = (SELECT session FROM turns WHERE id = ?)",
                (size_bytes(answer or "") + size_bytes(error or "") if done.rowcount else 0, id),
            )
            return done.rowcount == 1

    # -- approvals --

    def asked(
        self,
        turn: str,
        call: str,
        tool: str,
        effect: str,
        arguments: Json,
        question: str,
        form: Sequence[FormField] | None = None,
        opens: str | None = None,
    ) -> AskedApproval:
        """The question about a call, with a form's fields or the page to open; asked now if this very one was not before.

        A row that asks anything else about the call is left alone: its answer is none to this question.
        """
        id, body = f"apr_{secrets.token_hex(8)}", json.dumps(arguments)
        fields = None if form is None else json.dumps(fields_to_json(form))
        digest = question_digest(tool, effect, arguments, question, form, opens)
        with self.database.write() as connection:
            rows = connection.execute(
                f"{APPROVALS} WHERE a.turn = ? AND a.call IN (?, ?)", (turn, call, f"{call} {digest}")
            ).fetchall()
            found = [approval_of(*row) for row in rows]
            same = next((each for each in found if each.digest == digest), None)
            if same is None:  # further questions about a call are told apart by their digests
                connection.execute(
                    "INSERT OR REPLACE INTO approvals"
                    " (id, turn, call, tool, effect, arguments, question, state, created_at, form, opens)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, 'pending', ?, ?, ?)",
                    (
                        id,
                        turn,
                        f"{call} {digest}" if found else call,
                        tool,
                        effect,
                        body,
                        question,
                        now(),
                        fields,
                        opens,
                    ),
                )
        return self.approval(id) if same is None else self.checked(same)

    def checked(self, asked: AskedApproval) -> AskedApproval:
        """The approval; asked again if its answer was not given under this data home, or a call has used it up.

        So it is of a folder that others had, or that was put back from a copy.
        """
        ((seal,),) = self.database.read("SELECT seal FROM approvals WHERE id = ?", (asked.id,))
        counts = is_ours(sealed_text(asked), seal, "decision") and (asked.state == "denied" or is_open(asked.id))
        if asked.state == "pending" or counts:
            return asked
        with self.database.write() as connection:
            connection.execute(
                "UPDATE approvals SET state = 'pending', answered_by = '', reason = '', content = NULL, seal = NULL"
                " WHERE id = ? AND seal IS ?",
                (asked.id, seal),
            )
        return self.approval(asked.id)

    def approval(self, id: str, owner: str | None = None) -> AskedApproval:
        """The approval with this id, if it is the client's; UnknownName otherwise."""
        rows = self.database.read(f"{APPROVALS} WHERE a.id = ? AND (? IS NULL OR s.owner = ?)", (id, owner, owner))
        if not rows:
            raise UnknownName(f"no approval {id!r:.80}")
        return approval_of(*rows[0])

    def pending(self, turn: str | None = None) -> list[AskedApproval]:
        """The approvals that wait for an answer, the oldest first: of one turn, or of all that are not over."""
        rows = self.database.read(
            f"{APPROVALS} WHERE a.state = 'pending' AND (? IS NULL OR a.turn = ?)"
            " AND t.state NOT IN ('completed', 'failed', 'rejected', 'canceled') ORDER BY a.rowid",
            (turn, turn),
        )
        return [approval_of(*row) for row in rows]

    def answer(self, id: str, allowed: bool, *, by: str, reason: str = "", content: Json | None = None) -> bool:
        """Keep the answer to an approval; False if it was answered before, or its turn is over.

        `content` fills in a form. ConfigError, and the question stays open, if it does not fit, or if there is no form.
        """
        asked = self.approval(id)
        form = asked.form
        if form is None and content:
            raise ConfigError(f"{id} asks for leave and has no form: answer it without content")
        filled = checked_answers(form, content or {}) if allowed and form is not None else None
        state: Literal["allowed", "denied"] = "allowed" if allowed else "denied"
        answered = replace(asked, state=state, answered_by=by, reason=reason, content=filled)
        with self.database.write() as connection:
            done = connection.execute(
                "UPDATE approvals SET state = ?, answered_by = ?, reason = ?, answered_at = ?, content = ?, seal = ?"
                " WHERE id = ? AND state = 'pending' AND EXISTS (SELECT 1 FROM turns WHERE id = approvals.turn"
                " AND state NOT IN ('completed', 'failed', 'rejected', 'canceled'))",
                (
                    state,
                    by,
                    reason,
                    now(),
                    None if filled is None else json.dumps(filled),
                    seal_of(sealed_text(answered), "decision"),
                    id,
                ),
            )
            if done.rowcount == 1 and allowed:
                open_approval(id)
            return done.rowcount == 1

    def answered_elsewhere(self) -> list[str]:
        """Sessions with a turn that waits for input, all questions of which have an answer."""
        rows = self.database.read(
            "SELECT DISTINCT session FROM turns t WHERE state = 'input_required' AND NOT EXISTS"
            " (SELECT 1 FROM approvals WHERE turn = t.id AND state = 'pending')"
        )
        return [str(session) for (session,) in rows]


def size_bytes(text: str) -> int:
    """The bytes of a text as it is kept."""
    return len(text.encode("utf-8", "surrogatepass"))


def _whole(text: str) -> str:
    """The text with U+FFFD for each half surrogate, which SQLite does not take."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
