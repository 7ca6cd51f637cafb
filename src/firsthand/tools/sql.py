"""A SQLite database: query it, read its schema, and with `write` change it.

Each statement runs in a process of its own (`databases/sql_process.py`), which the kernel bounds in memory and which is
killed when its time is up. Asking opens the file read-only, and an authorizer lets SQLite do nothing but read: no ATTACH, no
PRAGMA, no extension, no write. Changing is `irreversible`; it cannot reach another file either. A killed change is undone,
a change that was rehearsed for an approval is made only if its effect is the rehearsed one, and
`--guard undoable` keeps the database before a change, so that `firsthand rollback` can put it back.
Left out: other databases, parameters, and several statements at once.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from firsthand.declaration import Declaration, Rehearsal
from firsthand.errors import ConfigError, ToolError, nearest
from firsthand.loop.calling import expected_effect
from firsthand.message import Json
from firsthand.system.ordinary_file import read_head
from firsthand.system.plurals import count_of
from firsthand.system.sqlite_journal import forged_journal
from firsthand.system.sqlite_locks import SQLITE_MAGIC
from firsthand.system.terminal import one_line, printable
from firsthand.tool import Tool, tool_from_function
from firsthand.tools.databases.sql_undo import sql_undo

QUERY_S = 10.0
MEMORY_BYTES = 512 * 2**20
"""Address space of the process that runs a statement, Python included."""
LEAVE_S = 2.0
MAX_ROWS = 200
MAX_CHARS = 14_000
MAX_CELL = 500
MAX_NAME = 60
"""The most characters of a name that an error shows."""
MAX_ERROR = 2000
MAX_WRITTEN = 20
"""The most tables that are told of beside the count of a change."""
_TRANSACTION = re.compile(r"\s*(?:begin|commit|end|rollback|savepoint|release)\b", re.IGNORECASE)
_PROGRAM = Path(__file__).parent / "databases" / "sql_process.py"


def sql(database: str, *, write: bool = False) -> tuple[Tool, ...]:
    """The tools for a SQLite file: sql_query and sql_schema; with `write` also sql_change."""
    base = SqlFile(database)
    origin = f"the database {base.path.name}"
    private = Declaration(readers="user")
    made = [
        tool_from_function(each, effect="read", origin=origin, declares=private)
        for each in (base.sql_query, base.sql_schema)
    ]
    if write:
        facts = replace(private, undo=sql_undo(base.path), dry_run=base.rehearsed)
        made.append(tool_from_function(base.sql_change, effect="irreversible", origin=origin, declares=facts))
    return tuple(replace(each, over=str(base.path)) for each in made)


class SqlFile:
    """The functions behind the tools. Each call opens the file anew, so calls share nothing."""

    def __init__(self, path: str | Path, *, query_s: float = QUERY_S):
        self.path = Path(path).expanduser().resolve()
        self.query_s = query_s
        try:
            head = read_head(self.path, len(SQLITE_MAGIC))
        except OSError as error:
            raise ConfigError(f"the database {str(path)!r} cannot be read: {error.strerror or error}") from None
        if head and head != SQLITE_MAGIC:
            raise ConfigError(f"{str(path)!r} is no SQLite database: give the path of one")

    def sql_query(self, query: str) -> str:
        """The rows that a SELECT statement gives, as a table.

        Args:
            query: One SELECT statement in SQLite's dialect.
        """
        reply = self._run(query)
        if reply["columns"] is None:
            raise ToolError("this is no statement that gives rows: write a SELECT")
        return _table(reply)

    def sql_schema(self) -> str:
        """The tables of the database, as the statements that made them."""
        statement = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type = 'index', name"
        reply = self._run(statement, max_rows=10_000, max_chars=MAX_CHARS + 1, max_cell=MAX_CHARS)
        statements = "\n".join(f"{printable(str(row[0]))};" for row in reply["rows"])
        more = "\n[there is more]" if reply["more"] or len(statements) > MAX_CHARS else ""
        return statements[:MAX_CHARS] + more or "(the database has no tables)"

    def sql_change(self, statement: str) -> str:
        """Change the database by one statement: INSERT, UPDATE, DELETE, CREATE, ALTER or DROP; whole or not at all.

        Args:
            statement: One statement in SQLite's dialect.
        """
        if _TRANSACTION.match(statement):
            raise ToolError("each call is a transaction of its own, and nothing was done: give the change itself")
        effect = expected_effect()
        reply = self._run(statement, write=True, expected=json.loads(effect) if effect else None)
        rows = f"done: {count_of(reply['count'], 'row')} changed" if reply["count"] >= 0 else "done"
        return "\n".join([rows if reply["columns"] is None else _table(reply), *_besides(reply), *_made(reply)])

    def rehearsed(self, arguments: Json) -> Rehearsal:
        """The effect of a change: it is made and taken back in one transaction.

        The database's own counts come first. What the statement returns has names and values that it chose itself, so each
        line of it is quoted.
        """
        reply = self._run(arguments["statement"], write=True, rehearse=True)
        rows = [f"{count_of(reply['count'], 'row')} would be changed"] if reply["count"] >= 0 else []
        lines = [*rows, *_besides(reply), *_made(reply), *_uncompared(reply)]
        lines = lines or ["no row would be changed"]
        if reply["columns"] is not None:
            lines += ["the statement returns this, in its own words:"]
            lines += [f"> {line}" for line in _table(reply).split("\n")]
        return Rehearsal("\n".join(lines), json.dumps(reply["effect"]) if reply.get("effect") else "")

    def reply(self, statement: str, *, write: bool = False, max_rows: int = MAX_ROWS, max_cell: int = MAX_CELL) -> Json:
        """The reply to a statement as data: `columns`, `rows` of text, `more` and `count`; ToolError if it fails."""
        return self._run(statement, write=write, max_rows=max_rows, max_chars=max_rows * max_cell, max_cell=max_cell)

    def _run(
        self,
        statement: str,
        *,
        write: bool = False,
        rehearse: bool = False,
        expected: Json | None = None,
        max_rows: int = MAX_ROWS,
        max_chars: int = MAX_CHARS,
        max_cell: int = MAX_CELL,
    ) -> Json:
        """Run the statement in a process; returns its reply. ToolError if it fails."""
        if (journal := forged_journal(self.path)) is not None:
            raise ToolError(
                f"{journal.name} beside the database names another file, which SQLite would delete: remove it"
            )
        request = {
            "path": self.path.as_uri(),
            "write": write,
            "rehearse": rehearse,
            "expected": expected,
            "statement": statement,
            "seconds": self.query_s,
            "memory_bytes": MEMORY_BYTES,
            "max_rows": max_rows,
            "max_chars": max_chars,
            "max_cell": max_cell,
        }
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-X", "utf8", str(_PROGRAM)],
                input=json.dumps(request),
                capture_output=True,
                text=True,
                timeout=self.query_s + LEAVE_S,
                env={},
            )
            reply: Json = json.loads(done.stdout)
        except subprocess.TimeoutExpired:
            raise ToolError(self._told("interrupted", ())) from None
        except ValueError:  # the kernel ended it
            raise ToolError(self._told("interrupted" if done.returncode == -24 else "out of memory", ())) from None
        if "error" in reply:
            raise ToolError(self._told(str(reply["error"]), reply.get("tables", ())))
        return reply

    def _told(self, error: str, tables: Sequence[str]) -> str:
        """The error, with a hint of what may be meant or done; what the database says is one line, escaped and cut."""
        error = one_line(error[:500])[:500]
        if error == "characters":
            return "the statement holds characters that SQL cannot hold"
        if error == "another effect":
            return (
                "nothing was changed: the statement would now change other rows, or other values, than in the dry run that "
                "was approved; call it again, so that it is asked about as it is now"
            )
        if error.startswith("cannot be opened"):
            return f"the database {error}"
        if "interrupted" in error:
            return f"the statement did not end within {self.query_s:g} s: ask for less, or join on what is indexed"
        if "out of memory" in error:
            return f"the statement needs more than {MEMORY_BYTES >> 20} MiB of memory: ask for less"
        if "not authorized" in error or "prohibited" in error or "readonly" in error:
            return f"this is not allowed here ({error}): only the data of this database may be asked for"
        word, _, wanted = error.removeprefix("no such ").partition(": ")
        if error.startswith("no such table"):
            close = nearest(wanted, list(tables))
            names = ", ".join(map(_name, tables[:50])) or "none"
            hint = f"did you mean '{_name(close)}'?" if close else f"there are {names}"
            return f"no such {word} '{_name(wanted)}'; {hint}"[:MAX_ERROR]
        return f"the statement failed: {error}"


def _besides(reply: Json) -> list[str]:
    """A line for each table where more happens than the statement's count of rows says: triggers, a dropped table, rows
    that others take the place of. Empty where there is no more.
    """
    written, count = reply.get("written", ()), max(reply["count"], 0)
    plain = len(written) == 1 and not written[0]["triggers"] and not written[0]["gone"]
    if not written or (plain and _as_counted(written[0], count)):
        return []
    lines = [f"with what triggers do, {count_of(reply['total'], 'row')} in all"] if reply["total"] > count else []
    for each in written[:MAX_WRITTEN]:
        by = f" by the trigger {', '.join(map(_name, each['triggers'][:5]))}" if each["triggers"] else ""
        rows = "" if each["before"] is None else f": {each['before']:,} rows before, {each['after'] or 0:,} after"
        gone = ", the table is dropped" if each["gone"] else ""
        lines.append(f"{_name(each['table'])}: {', '.join(each['verbs'])}{by}{rows}{gone}")
    return lines + (["[there are more tables]"] if len(written) > MAX_WRITTEN else [])


def _uncompared(reply: Json) -> list[str]:
    """A line for what is not compared with the rehearsal when the change is made."""
    lines = []
    if named := reply.get("volatile"):
        to = _listed([each["table"] for each in reply.get("written", ())] or list(reply["made"]))
        lines.append(
            f"it asks for the time or chance ({', '.join(named)}): the values that it writes"
            f"{f' to {to}' if to else ''} may be others later"
        )
    if filled := [f"{table}.{column}" for table, columns in reply.get("filled", {}).items() for column in columns]:
        lines.append(f"filled in with the time or chance, and not compared when it is made: {_listed(filled)}")
    rows = reply.get("effect", {}).get("rows", {})
    if large := [name for name, digest in rows.items() if not digest]:
        lines.append(f"only the number of rows, not which ones, is compared when it is made: {_listed(large)}")
    return lines


def _made(reply: Json) -> list[str]:
    """A line for each table that is made with rows in it."""
    return [
        f"{_name(name)}: a new table of {count_of(rows, 'row')}" for name, rows in reply.get("made", {}).items() if rows
    ]


def _listed(names: Sequence[str]) -> str:
    """The first of these names, and the number of the others."""
    return ", ".join([*map(_name, names[:5]), *([f"and {len(names) - 5} more"] if len(names) > 5 else [])])


def _as_counted(written: Json, count: int) -> bool:
    """True if the one table that is written has as many rows more or fewer as the statement's own count says."""
    if written["before"] is None or written["after"] is None:
        return True
    grown, verbs = written["after"] - written["before"], written["verbs"]
    wanted = {("INSERT",): count, ("DELETE",): -count, ("UPDATE",): 0}.get(tuple(verbs))
    return bool(0 <= grown <= count if wanted is None else grown == wanted)


def _name(text: str) -> str:
    """A name for an error: one printable line, cut."""
    shown = one_line(text[: MAX_NAME + 1])
    return shown if len(shown) <= MAX_NAME else f"{shown[: MAX_NAME - 1]}…"


def _table(reply: Json) -> str:
    """The rows as lines with | between the cells, as many as fit, and a note where there are more."""
    header = " | ".join(map(_cell, reply["columns"]))
    lines, size = [header], len(header)
    for number, row in enumerate(reply["rows"]):
        line = " | ".join(map(_value, row))
        size += len(line) + 1
        if size > MAX_CHARS:
            return _cut(lines, number)
        lines.append(line)
    if reply["more"]:
        return _cut(lines, len(reply["rows"]))
    return "\n".join(lines if len(lines) > 1 else [*lines, "(no rows)"])


def _cut(lines: Sequence[str], rows: int) -> str:
    return "\n".join([*lines, f"[there are more than these {rows} rows: ask for fewer, or count them]"])[:15_000]


def _value(text: str | None) -> str:
    """A cell of a row. The text NULL, and it in quotes, has quotes more, so that it is not read as what is missing."""
    if text is None:
        return "NULL"
    return f"'{text}'" if text.strip("'") == "NULL" else _cell(text)


def _cell(text: str) -> str:
    return printable(text).replace("\n", "\\n").replace("|", "\\|")
