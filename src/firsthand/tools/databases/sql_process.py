"""Runs one SQL statement in a process of its own, with limits on time and memory. Standard library only.

A request comes as JSON on standard input: `path`, `write`, `rehearse`, `statement`, `seconds`, `memory_bytes`, `max_rows`,
`max_chars`, `max_cell`, and `expected`, the effect of a rehearsal without which a change is taken back. The reply
is one JSON object: `columns`, `rows`, `more` and `count`, or `error` with the tables.
Of a change it also has `total`, the rows changed with those of triggers, and `written`: each table that the statement
writes, with what is done to it, by which triggers, and after a rehearsal its rows before and after; and `effect`, by which
the same change is known again: the rows of each table that it adds, removes and changes, and what it writes there.

SQLite's own limits and its progress handler bound what a statement asks for step by step; one call of a function, such as
`printf('%.*c', 100000000, 'x')` or `instr` of long texts, is no step. So the kernel bounds the process, and whoever
started it kills it when its time is up. Temporary tables and sorters are kept in that memory: no files are made.
"""

import hashlib
import json
import resource
import sqlite3
import sys
import time
from collections.abc import Callable
from typing import Any

LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 10_000_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 100,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 200,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
READING = frozenset((sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE, sqlite3.SQLITE_FUNCTION))
NEVER = frozenset((sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_PRAGMA, sqlite3.SQLITE_CREATE_VTABLE))
TOUCHING = frozenset((sqlite3.SQLITE_READ, sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE))
VERBS = {sqlite3.SQLITE_INSERT: "INSERT", sqlite3.SQLITE_UPDATE: "UPDATE", sqlite3.SQLITE_DELETE: "DELETE"}
MAX_WRITTEN = 50
"""The most tables that a statement's writes are told of."""
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0"
COUNTING_S = 2.0
"""The most seconds that counting the rows of these tables takes."""
INTERNAL = frozenset(("sqlite_dbpage", "dbstat", "sqlite_stmt", "bytecode", "tables_used", "sqlite_memstat"))
"""Modules whose tables are SQLite's own pages and state: deleted rows are read there, and any page is written."""
PLAIN = frozenset(("json_each", "json_tree", "jsonb_each", "jsonb_tree", "generate_series"))
"""Modules that are tables without being created, and hold what their arguments say."""
VOLATILE = frozenset(
    ("random", "randomblob", "date", "time", "datetime", "julianday", "unixepoch", "strftime", "timediff", "changes",
     "current_timestamp", "current_date", "current_time", "total_changes", "last_insert_rowid")
)  # fmt: skip
"""Functions that may give another value at another time, so that the values that a statement writes are not compared."""
MAX_KEPT = 200_000
"""The most rows of a table of which it is kept which ones a statement changes."""
SCHEMA = "sqlite_master"
FORBIDDEN_FUNCTIONS = ("load_extension", "readfile", "writefile", "edit", "fts3_tokenizer")


def main() -> None:
    """Read the request, carry it out, print the reply."""
    request = json.load(sys.stdin)
    seconds = int(request["seconds"]) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (request["memory_bytes"], request["memory_bytes"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        reply = carried_out(request)
    except MemoryError:
        reply = {"error": "out of memory"}
    sys.stdout.write(json.dumps(reply))


def carried_out(request: dict[str, Any]) -> dict[str, Any]:
    """The reply to a request; what SQLite complains of is in it."""
    mode = "rw" if request["write"] else "ro"
    try:
        connection = sqlite3.connect(f"{request['path']}?mode={mode}", uri=True, timeout=2.0)
    except sqlite3.Error as error:
        return {"error": f"cannot be opened: {error}"}
    ends_s = time.monotonic() + request["seconds"]
    try:
        for limit, value in LIMITS.items():
            connection.setlimit(limit, value)
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA temp_store = MEMORY")
        expected = request.get("expected")
        compares = request["write"] and (request["rehearse"] or expected is not None)
        if compares:
            connection.execute("BEGIN IMMEDIATE" if expected is not None else "BEGIN")
        connection.set_progress_handler(lambda: int(time.monotonic() > ends_s), 1000)
        written: dict[str, Written] = {}
        functions: set[str] = set()
        closed = closed_tables(connection)
        decide = authorizer(writes=request["write"], closed=closed, written=written, functions=functions)
        connection.set_authorizer(decide)
        with connection:
            kept = kept_before(connection, request["statement"], written, expected) if compares else {}
            cursor = connection.execute(request["statement"])
            reply = fetched(cursor, request)
            if not request["write"]:
                return reply
            cursor.close()
            volatile = sorted(functions & VOLATILE)
            if reply["columns"] is not None and written:  # a statement with RETURNING has no count of its own
                (reply["count"],) = connection.execute("SELECT changes()").fetchone()
            reply["total"] = connection.total_changes
            if compares:
                reply["volatile"] = volatile
                reply["effect"] = effect_of(connection, kept, reply)
            if expected is not None and reply["effect"] != expected:
                connection.rollback()
                return {"error": "another effect", "count": reply["count"]}
            if request["rehearse"]:
                names, until_s = list(written), min(ends_s, time.monotonic() + COUNTING_S)
                after = counted(connection, names, until_s)
                connection.rollback()
                before = counted(connection, names, until_s)
            else:
                names, after, before = list(written), {}, {}
            reply["written"] = [
                {"table": name, "verbs": sorted(written[name].verbs), "triggers": sorted(written[name].triggers),
                 "before": before.get(name), "after": after.get(name), "gone": name in before and name not in after}
                for name in names[:MAX_WRITTEN]
            ]  # fmt: skip
            return reply
    except (UnicodeEncodeError, ValueError, OverflowError):
        return {"error": "characters"}
    except (sqlite3.Error, sqlite3.Warning) as error:
        return {"error": str(error)[:2000], "tables": tables(connection) if "no such table" in str(error) else []}
    finally:
        connection.close()


def fetched(cursor: sqlite3.Cursor, request: dict[str, Any]) -> dict[str, Any]:
    """The rows that a statement gives, as many as are wanted, each cell cut."""
    if cursor.description is None:
        return {"columns": None, "rows": [], "more": False, "count": cursor.rowcount}
    rows: list[list[Any]] = []
    size, more = 0, False
    for row in cursor:
        cells = [cell(value, request["max_cell"]) for value in row]
        size += sum(len(str(each)) + 3 for each in cells)
        if len(rows) == request["max_rows"] or size > request["max_chars"]:
            more = True
            break
        rows.append(cells)
    columns = [cell(str(column[0]), request["max_cell"]) for column in cursor.description]
    return {"columns": columns, "rows": rows, "more": more, "count": cursor.rowcount}


class Written:
    """What a statement does to a table, and the triggers that do it."""

    def __init__(self) -> None:
        self.verbs: set[str] = set()
        self.triggers: set[str] = set()


Rows = dict[Any, tuple[int, ...]]
"""The rows of a table: their key -> a hash of each cell."""


def kept_before(
    connection: sqlite3.Connection, statement: str, written: dict[str, Written], expected: dict[str, Any] | None
) -> dict[str, Rows | None]:
    """The rows of the tables that a statement is about to write; None for one that is too large or has no keys.

    `EXPLAIN` compiles the statement, so that the authorizer notes in `written` what it would write.
    """
    try:
        connection.execute(f"EXPLAIN {statement}").close()
    except (sqlite3.Error, sqlite3.Warning):  # what is wrong with it is told when it is run
        return {}
    names = [SCHEMA, *list(written)[:MAX_WRITTEN]]
    there = {str(name) for (name,) in connection.execute(_TABLES)} | {SCHEMA}
    known = {name: True for name in names} if expected is None else expected["rows"]
    return {name: keyed_rows(connection, name)[0] if known.get(name) else None for name in names if name in there}


def keyed_rows(connection: sqlite3.Connection, name: str, wanted: Rows | None = None) -> tuple[Rows | None, list[Any]]:
    """The rows of a table by their rowid, and in its order those that `wanted` does not hold as they are.

    Each of these is its key, if it was there, and its cells that differ. None for a table above `MAX_KEPT`, or without
    rowids.
    """
    quoted = '"' + name.replace('"', '""') + '"'
    found: Rows = {}
    changed: list[Any] = []
    try:
        wide = "*" if name != SCHEMA else "type, name, tbl_name, sql"  # its pages are numbered anew
        first = connection.execute(f"SELECT {wide} FROM {quoted} LIMIT 0")
        columns = [str(each[0]).lower() for each in first.description]
        key = next((each for each in ("rowid", "_rowid_", "oid") if each not in columns), None)
        if key is None:
            return None, []
        rows = connection.execute(f"SELECT {key}, {wide} FROM {quoted} ORDER BY {key} LIMIT {MAX_KEPT + 1}")
        alias = str(rows.description[0][0]).lower()  # the name of an INTEGER PRIMARY KEY, which new rows get anew
        for at, *cells in rows:
            hashes = tuple(hash(repr(each)) for each in cells)
            found[at] = hashes
            if wanted is None or wanted.get(at) == hashes:
                continue
            if (before := wanted.get(at)) is None:
                changed.append(
                    [None, [repr(each) for each, column in zip(cells, columns, strict=True) if column != alias]]
                )
            else:
                old_cells = before if len(before) == len(cells) else [None] * len(cells)
                pairs = zip(cells, hashes, old_cells, strict=True)
                changed.append([at, [[i, repr(each)] for i, (each, now, old) in enumerate(pairs) if now != old]])
    except sqlite3.OperationalError as error:
        if "no such column" in str(error):
            return None, []
        raise
    return (None, []) if len(found) > MAX_KEPT else (found, changed)


def effect_of(connection: sqlite3.Connection, kept: dict[str, Rows | None], reply: dict[str, Any]) -> dict[str, Any]:
    """The effect of a change: its counts, and of each table a digest of the rows that it adds, removes and changes.

    Of a statement that asks for the time or chance, or that writes to a table whose defaults do, what is written is left
    out. A table that was too large has an empty digest.
    """
    there = {str(name) for (name,) in connection.execute(_TABLES)} | {SCHEMA}
    digests = {}
    for name, before in kept.items():
        after, changed = keyed_rows(connection, name, before) if before is not None and name in there else ({}, [])
        if before is None or after is None:
            digests[name] = ""
            continue
        removed = sorted(before.keys() - after.keys())
        if reply["volatile"] or volatile_defaults(connection, name):
            changed = [each for each, _ in changed]
        told = json.dumps([removed, changed])
        digests[name] = hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return {"count": reply["count"], "total": reply["total"], "rows": digests}


def volatile_defaults(connection: sqlite3.Connection, name: str) -> bool:
    """True if a table's own columns may ask for the time or chance: the authorizer is not told of defaults."""
    found = connection.execute("SELECT lower(sql) FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    return found is not None and any(each in str(found[0]) for each in VOLATILE)


def counted(connection: sqlite3.Connection, names: list[str], until_s: float) -> dict[str, int | None]:
    """The rows of each of these tables that is there and holds its rows itself; None where the time is up."""
    there = {str(name) for (name,) in connection.execute(_TABLES)}
    found: dict[str, int | None] = {name: None for name in names[:MAX_WRITTEN] if name in there}
    connection.set_progress_handler(lambda: int(time.monotonic() > until_s), 1000)
    for name in found:
        quoted = name.replace('"', '""')
        try:  # sum(1), for count(*) is one step, which nothing ends
            (found[name],) = connection.execute(f'SELECT coalesce(sum(1), 0) FROM "{quoted}"').fetchone()
        except sqlite3.Error:
            break
    return found


def cell(value: Any, most: int) -> Any:
    """The value as text of at most `most` characters and a note of what was cut; None stays."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    text = str(value)
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def tables(connection: sqlite3.Connection) -> list[str]:
    """The names of the tables and views there are, the first thousand, each cut."""
    connection.set_progress_handler(None, 0)
    try:
        found = connection.execute("SELECT substr(name, 1, 100) FROM sqlite_master WHERE type != 'index' LIMIT 1000")
        return [str(row[0]) for row in found]
    except sqlite3.Error:
        return []


def closed_tables(connection: sqlite3.Connection) -> frozenset[str]:
    """The names, in small letters, of tables that no statement may touch: modules, and tables that are made of INTERNAL."""
    modules = {str(row[0]).lower() for row in connection.execute("PRAGMA module_list")}
    own, closed = set(), set(INTERNAL)
    for name, statement, root in connection.execute("SELECT name, lower(sql), rootpage FROM sqlite_master"):
        own.add(str(name).lower())
        if not root and "virtual" in str(statement) and any(module in str(statement) for module in INTERNAL):
            closed.add(str(name).lower())
    return frozenset(closed | (modules - PLAIN - own))


def authorizer(
    *,
    writes: bool,
    closed: frozenset[str] = INTERNAL,
    written: dict[str, Written] | None = None,
    functions: set[str] | None = None,
) -> Callable[..., int]:
    """The decision on each thing that a statement does, as SQLite asks for it; notes in `written` what it writes, and in
    `functions` what it calls.
    """

    def decide(action: int, first: str | None, second: str | None, base: str | None, inner: str | None) -> int:
        if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in FORBIDDEN_FUNCTIONS:
            return sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_FUNCTION and functions is not None:
            functions.add((second or "").lower())
        if action in TOUCHING and (first or "").lower() in closed:
            return sqlite3.SQLITE_DENY
        if written is not None and action in VERBS and not (first or "").lower().startswith("sqlite_"):
            noted = written.setdefault(first or "", Written())
            noted.verbs.add(VERBS[action])
            noted.triggers.update([inner] if inner else [])
        allowed = action not in NEVER if writes else action in READING
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    return decide


if __name__ == "__main__":
    main()
