"""Runs one SQL statement in a process of its own, with limits on time and memory. Standard library only.

A request comes as JSON on standard input: `path`, `write`, `rehearse`, `statement`, `seconds`, `memory_bytes`, `max_rows`,
`max_chars`, `max_cell`, and `expected`, the effect of a rehearsal without which a change is taken back. The reply
is one JSON object: `columns`, `rows`, `more` and `count`, or `error` with the tables.
Of a change it also has `total`, the rows changed with those of triggers, and `written`: each table that the statement
writes, with what is done to it, by which triggers, and after a rehearsal its rows before and after; and `effect`, by which
the same change is known again: the rows of each table that it adds, removes, changes and makes, and what it writes there;
with `volatile`, `filled` and `made`, what of it is not compared and the tables that it makes.

SQLite's own limits and its progress handler bound what a statement asks for step by step; one call of a function, such as
`printf('%.*c', 100000000, 'x')` or `instr` of long texts, is no step. So the kernel bounds the process, and whoever
started it kills it when its time is up. Temporary tables and sorters are kept in that memory: no files are made.
"""

import hashlib
import json
import re
import resource
import sqlite3
import sys
import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

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
_CALLS = ("Function", "PureFunc")
"""The steps of a compiled statement that call a function."""
_TEXT = re.compile(r"'(?:[^']|'')*'")
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
            called = functions_called(connection, request["statement"]) if request["write"] else set()
            before_it = kept_before(connection, called, written, decide, expected) if compares else None
            cursor = connection.execute(request["statement"])
            reply = fetched(cursor, request)
            if not request["write"]:
                return reply
            cursor.close()
            volatile = sorted(functions & VOLATILE)
            if reply["columns"] is not None and written:  # a statement with RETURNING has no count of its own
                (reply["count"],) = connection.execute("SELECT changes()").fetchone()
            reply["total"] = connection.total_changes
            if before_it is not None:
                reply["volatile"], reply["filled"] = volatile, before_it.filled
                reply["effect"] = effect_of(connection, before_it, written, reply)
                reply["made"] = reply["effect"].get("made", {})
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


class Before(NamedTuple):
    """A database before a statement is run."""

    rows: dict[str, Rows | None]
    """The rows of each table that it is about to write; None for one that is too large or has no keys."""
    filled: dict[str, list[str]]
    """The columns of these tables that the time or chance fills in, where the statement leaves any to its default."""
    roots: dict[str, int]
    """The first page of every table, which it keeps when it is renamed."""


def functions_called(connection: sqlite3.Connection, statement: str) -> set[str]:
    """The functions that a statement calls, with those of defaults, of which the authorizer is not told.

    `EXPLAIN` compiles the statement, so that the authorizer notes what it would write. What this cannot compile, such as
    `; DELETE FROM t`, would be run without being compared: the error ends the request.
    """
    steps = connection.execute(f"EXPLAIN {statement}").fetchall()
    return {str(step[5]).partition("(")[0].lower() for step in steps if str(step[1]) in _CALLS}


def kept_before(
    connection: sqlite3.Connection,
    called: set[str],
    written: dict[str, Written],
    decide: Callable[..., int],
    expected: dict[str, Any] | None,
) -> Before:
    """The database before a statement that is about to call these functions and to write these tables."""
    roots = roots_of(connection)
    names = [SCHEMA, *list(written)[:MAX_WRITTEN]]
    known = {name: True for name in names} if expected is None else expected["rows"]
    there = roots.keys() | {SCHEMA}
    rows = {name: keyed_rows(connection, name)[0] if known.get(name) else None for name in names if name in there}
    inserted = [name for name in names if name in written and "INSERT" in written[name].verbs]
    if called.isdisjoint(VOLATILE) or not inserted:
        return Before(rows, {}, roots)
    connection.set_authorizer(None)  # PRAGMA is denied to statements
    filled = {name: volatile_columns(connection, name) for name in inserted}
    connection.set_authorizer(decide)
    return Before(rows, {name: columns for name, columns in filled.items() if columns}, roots)


def roots_of(connection: sqlite3.Connection) -> dict[str, int]:
    """The tables of the database that hold their rows themselves, with their first pages."""
    return {str(name): int(root) for name, root in connection.execute(_TABLES.replace("name", "name, rootpage", 1))}


def volatile_columns(connection: sqlite3.Connection, name: str) -> list[str]:
    """The columns of a table, in small letters, whose defaults ask for the time or chance; texts in them ask for nothing."""
    columns = connection.execute(f"PRAGMA table_info({quoted(name)})").fetchall()
    defaults = {str(column[1]).lower(): _TEXT.sub("", str(column[4]).lower()) for column in columns}
    return [column for column, default in defaults.items() if not VOLATILE.isdisjoint(re.findall(r"\w+", default))]


def quoted(name: str) -> str:
    """The name as SQL reads it."""
    return '"' + name.replace('"', '""') + '"'


def keyed_rows(
    connection: sqlite3.Connection, name: str, wanted: Rows | None = None, without: Collection[str] = ()
) -> tuple[Rows | None, list[Any]]:
    """The rows of a table by their rowid, and in its order those that `wanted` does not hold as they are.

    Each of these is its key, if it was there, and its cells that differ, but for those of the columns `without`. None for a
    table above `MAX_KEPT`, or without rowids.
    """
    found: Rows = {}
    changed: list[Any] = []
    try:
        wide = "*" if name != SCHEMA else "type, name, tbl_name, sql"  # its pages are numbered anew
        first = connection.execute(f"SELECT {wide} FROM {quoted(name)} LIMIT 0")
        columns = [str(each[0]).lower() for each in first.description]
        key = next((each for each in ("rowid", "_rowid_", "oid") if each not in columns), None)
        if key is None:
            return None, []
        rows = connection.execute(f"SELECT {key}, {wide} FROM {quoted(name)} ORDER BY {key} LIMIT {MAX_KEPT + 1}")
        alias = str(rows.description[0][0]).lower()  # the name of an INTEGER PRIMARY KEY, which new rows get anew
        told = [column not in without for column in columns]
        for at, *cells in rows:
            hashes = tuple(hash(repr(each)) for each in cells)
            found[at] = hashes
            if wanted is None or wanted.get(at) == hashes:
                continue
            if (before := wanted.get(at)) is None:
                new = zip(cells, columns, told, strict=True)
                changed.append([None, [repr(each) for each, column, is_told in new if is_told and column != alias]])
            else:
                old_cells = before if len(before) == len(cells) else [None] * len(cells)
                pairs = zip(cells, hashes, old_cells, strict=True)
                changed.append(
                    [at, [[i, repr(each)] for i, (each, now, old) in enumerate(pairs) if now != old and told[i]]]
                )
    except sqlite3.OperationalError as error:
        if "no such column" in str(error):
            return None, []
        raise
    return (None, []) if len(found) > MAX_KEPT else (found, changed)


def effect_of(
    connection: sqlite3.Connection, kept: Before, written: dict[str, Written], reply: dict[str, Any]
) -> dict[str, Any]:
    """The effect of a change: its counts, and of each table a digest of the rows that it adds, removes and changes.

    The rows of tables that it makes are among them, and counted in `made`. Of a statement that asks for the time or chance,
    what is written is left out, and of one that leaves columns to defaults which do, these columns. A table that is not
    compared, for it is too large, or one of too many, has an empty digest.
    """
    after_it = roots_of(connection)
    there = after_it.keys() | {SCHEMA}
    old = set(kept.roots.values())
    new = [name for name in after_it.keys() - kept.roots.keys() if after_it[name] not in old and not _is_internal(name)]
    compared: dict[str, Rows | None] = {**kept.rows, **{name: {} for name in sorted(new)}}
    digests = {}
    for name, before in compared.items():
        without = kept.filled.get(name, ())
        after, changed = (
            keyed_rows(connection, name, before, without) if before is not None and name in there else ({}, [])
        )
        if before is None or after is None:
            digests[name] = ""
            continue
        removed = sorted(before.keys() - after.keys())
        if reply["volatile"]:
            changed = [each for each, _ in changed]
        told = json.dumps([removed, changed])
        digests[name] = hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    digests.update({name: "" for name in written if name in there and name not in digests})
    effect = {"count": reply["count"], "total": reply["total"], "rows": digests}
    made = {
        name: connection.execute(f"SELECT coalesce(sum(1), 0) FROM {quoted(name)}").fetchone()[0]
        for name in sorted(new)
    }
    return effect | {"made": made} if made else effect


def _is_internal(name: str) -> bool:
    return name.lower().startswith("sqlite_")


def counted(connection: sqlite3.Connection, names: list[str], until_s: float) -> dict[str, int | None]:
    """The rows of each of these tables that is there and holds its rows itself; None where the time is up."""
    there = {str(name) for (name,) in connection.execute(_TABLES)}
    found: dict[str, int | None] = {name: None for name in names[:MAX_WRITTEN] if name in there}
    connection.set_progress_handler(lambda: int(time.monotonic() > until_s), 1000)
    for name in found:
        try:  # sum(1), for count(*) is one step, which nothing ends
            (found[name],) = connection.execute(f"SELECT coalesce(sum(1), 0) FROM {quoted(name)}").fetchone()
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
        if written is not None and action in VERBS and not _is_internal(first or ""):
            noted = written.setdefault(first or "", Written())
            noted.verbs.add(VERBS[action])
            noted.triggers.update([inner] if inner else [])
        if action == sqlite3.SQLITE_PRAGMA and first == "data_version" and second is None:
            return sqlite3.SQLITE_OK  # FTS5 asks for it when its table is opened; it tells whether others have written
        allowed = action not in NEVER if writes else action in READING
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    return decide


if __name__ == "__main__":
    main()
