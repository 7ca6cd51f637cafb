"""A SQLite database: query it, read its schema, and with `write` change it.

Asking opens the file read-only, and an authorizer lets SQLite do nothing but read: no ATTACH, no PRAGMA, no extension, no
write. A query ends after its time, and so do its rows. Changing is `irreversible`; it cannot reach another file either.
Left out: other databases, parameters, and several statements at once.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from firsthand.errors import ConfigError, ToolError, nearest
from firsthand.system.terminal import printable
from firsthand.tool import Tool, tool_from_function

QUERY_S = 10.0
MAX_ROWS = 200
MAX_CHARS = 14_000
MAX_CELL = 500
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 10_000_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 100,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 200,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
}
_READING = frozenset((sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE, sqlite3.SQLITE_FUNCTION))
_NEVER = frozenset((sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_PRAGMA, sqlite3.SQLITE_CREATE_VTABLE))
_FORBIDDEN_FUNCTIONS = ("load_extension", "readfile", "writefile", "edit", "fts3_tokenizer")


def sql(database: str, *, write: bool = False) -> tuple[Tool, ...]:
    """The tools for a SQLite file: sql_query and sql_schema; with `write` also sql_change."""
    base = SqlFile(database)
    origin = f"the database {base.path.name}"
    made = [tool_from_function(each, effect="read", origin=origin) for each in (base.sql_query, base.sql_schema)]
    if write:
        made.append(tool_from_function(base.sql_change, effect="irreversible", origin=origin))
    return tuple(made)


class SqlFile:
    """The functions behind the tools. Each call opens the file anew, so calls share nothing."""

    def __init__(self, path: str | Path, *, query_s: float = QUERY_S):
        self.path = Path(path).expanduser().resolve()
        self.query_s = query_s
        try:
            with self.path.open("rb") as file:
                head = file.read(16)
        except OSError as error:
            raise ConfigError(f"the database {str(path)!r} cannot be read: {error.strerror or error}") from None
        if head and head != b"SQLite format 3\0":
            raise ConfigError(f"{str(path)!r} is no SQLite database: give the path of one")

    def sql_query(self, query: str) -> str:
        """The rows that a SELECT statement gives, as a table.

        Args:
            query: One SELECT statement in SQLite's dialect.
        """
        with self._open("ro") as connection:
            return _table(self._run(connection, query))

    def sql_schema(self) -> str:
        """The tables of the database, as the statements that made them."""
        with self._open("ro") as connection:
            rows = self._run(
                connection, "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type = 'index', name"
            )
            statements = "\n".join(f"{printable(str(row[0]))};" for row in rows)
        more = "\n[there is more]" if len(statements) > MAX_CHARS else ""
        return statements[:MAX_CHARS] + more or "(the database has no tables)"

    def sql_change(self, statement: str) -> str:
        """Change the database by one statement: INSERT, UPDATE, DELETE, CREATE, ALTER or DROP; whole or not at all.

        Args:
            statement: One statement in SQLite's dialect.
        """
        with self._open("rw") as connection:
            with connection:
                cursor = self._run(connection, statement)
                given = _table(cursor) if cursor.description else ""
                count = cursor.rowcount
            return given or (f"done: {count} rows changed" if count >= 0 else "done")

    @contextmanager
    def _open(self, mode: str) -> Iterator[sqlite3.Connection]:
        """A connection limited to its mode, with a time limit; SQLite's errors are ToolErrors."""
        try:
            connection = sqlite3.connect(f"{self.path.as_uri()}?mode={mode}", uri=True, timeout=2.0)
        except sqlite3.Error as error:
            raise ToolError(f"the database cannot be opened: {error}") from None
        ends_s = time.monotonic() + self.query_s
        try:
            for limit, value in _LIMITS.items():
                connection.setlimit(limit, value)
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.set_authorizer(_authorizer(writes=mode == "rw"))
            connection.set_progress_handler(lambda: int(time.monotonic() > ends_s), 1000)
            yield connection
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise ToolError(self._told(connection, str(error))) from None
        finally:
            connection.close()

    def _run(self, connection: sqlite3.Connection, statement: str) -> sqlite3.Cursor:
        try:
            return connection.execute(statement)
        except (UnicodeEncodeError, ValueError, OverflowError):
            raise ToolError("the statement holds characters that SQL cannot hold") from None

    def _told(self, connection: sqlite3.Connection, error: str) -> str:
        """The error, with a hint of what may be meant or done."""
        if "interrupted" in error:
            return f"the statement did not end within {self.query_s:g} s: ask for less, or join on what is indexed"
        if "not authorized" in error or "prohibited" in error or "readonly" in error:
            return f"this is not allowed here ({error}): only the data of this database may be asked for"
        word, _, wanted = error.removeprefix("no such ").partition(": ")
        if error.startswith("no such table"):
            connection.set_progress_handler(None, 0)
            names = [str(row[0]) for row in connection.execute("SELECT name FROM sqlite_master WHERE type != 'index'")]
            close = nearest(wanted, names)
            hint = f"did you mean {close!r}?" if close else f"there are {', '.join(names[:50]) or 'none'}"
            return f"no such {word} {wanted!r}; {hint}"
        return f"the statement failed: {error[:500]}"


def _authorizer(*, writes: bool) -> Callable[..., int]:
    """The authorizer: called by SQLite before each action of a statement."""

    def decide(action: int, first: str | None, second: str | None, base: str | None, inner: str | None) -> int:
        if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FORBIDDEN_FUNCTIONS:
            return sqlite3.SQLITE_DENY
        allowed = action not in _NEVER if writes else action in _READING
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    return decide


def _table(cursor: sqlite3.Cursor) -> str:
    """The rows as lines with | between the cells, as many as fit, and a note where there are more."""
    if cursor.description is None:
        raise ToolError("this is no statement that gives rows: write a SELECT")
    header = " | ".join(_cell(column[0]) for column in cursor.description)
    lines, size = [header], len(header)
    for number, row in enumerate(cursor):
        line = " | ".join(map(_cell, row))
        size += len(line) + 1
        if number == MAX_ROWS or size > MAX_CHARS:
            return "\n".join([*lines, f"[there are more than these {number} rows: ask for fewer, or count them]"])[
                :15_000
            ]
        lines.append(line)
    return "\n".join([*lines, "" if len(lines) > 1 else "(no rows)"]).rstrip("\n")


def _cell(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    text = str(value)
    text = text if len(text) <= MAX_CELL else f"{text[:MAX_CELL]}... ({len(text)} characters)"
    return printable(text).replace("\n", "\\n").replace("|", "\\|")
