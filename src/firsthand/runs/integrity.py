"""Checksums of rows, and the check of a run's file for changed bytes.

Bodies have their SHA-256. Numbers are read from rows and, faster, from indexes, where SQLite itself notices few changes:
a flipped bit of a score is another score. So rows that hold numbers carry a checksum, and SQLite compares indexes with
tables. Both read every row, so a run of up to EVERY_READ attempts is checked before its numbers are used (20,000 attempts
take about half a second), any run before it is resumed, and any run, bodies too, by `firsthand runs RUN --check`.

A change in a write-ahead log that a killed process left looks to SQLite like the end of that log, and is not noticed.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from firsthand.runs.database import Database
from firsthand.trace import MAX_NUMBER

EVERY_READ = 20_000
"""Attempts, later scores and metrics up to which a run is checked whenever it is opened for its numbers."""
SEALED = {
    "run": "id, created_at, status, about, planned",
    "tasks": "benchmark, task, body, cluster",
    "traces": "seq, attempt, try, benchmark, task, agent, epoch, score, stop_reason, error, calls, tokens, cost_usd,"
    " duration_s, version, body, id, numbers",
    "scores": "seq, attempt, try, name, scorer, value, body, at, numbers",
    "metrics": "seq, name, step, value, at",
    "rewinds": "seq, step, after, at",
    "samples": "seq, name, step, body, at",
    "artifacts": "seq, name, step, path, sha256, bytes, at",
}
"""The tables whose rows have a checksum, and the columns it is of."""
_LARGE = ("traces", "scores", "metrics")
_SMALL = ("run", "tasks", "rewinds", "samples", "artifacts")


def seal(connection: sqlite3.Connection, table: str, where: str, values: tuple[Any, ...] = ()) -> None:
    """Write the checksum of rows that were just written."""
    connection.execute(f"UPDATE {table} SET digest = checksum({SEALED[table]}) WHERE {where}", values)


def check_numbers(database: Database) -> None:
    """StoreError if a number in a small run's file was changed; a run of more than EVERY_READ rows is not looked at."""
    num_rows = sum(int(database.read(f"SELECT coalesce(max(rowid), 0) FROM {table}")[0][0]) for table in _LARGE)
    if num_rows <= EVERY_READ:
        for table in (*_SMALL, *_LARGE, "agents"):
            _check_indexes(database, f"({table})")
        _check_rows(database)


def check_file(database: Database) -> None:
    """StoreError if a page, an index or a row of the file was changed; bodies are not opened."""
    _check_indexes(database, "")
    _check_rows(database)


def check_bodies(database: Database) -> None:
    """StoreError if a body was changed, or is missing."""
    last = b""
    while rows := database.read("SELECT sha256, zlib FROM bodies WHERE sha256 > ? ORDER BY sha256 LIMIT 100", (last,)):
        for digest, packed in rows:
            database.unpack(digest, packed)
        last = rows[-1][0]
    for table, column in _REFERENCES:
        sql = f"SELECT count(*) FROM {table} WHERE {column} NOT IN (SELECT sha256 FROM bodies)"
        if database.read(sql)[0][0]:
            raise database.damaged(f"a body that its {table} refer to is missing")


_REFERENCES = (
    ("run", "about"), ("tasks", "body"), ("agents", "body"), ("effects", "reply"), ("traces", "body"), ("scores", "body"),
    ("preferences", "body"), ("samples", "body"),
)  # fmt: skip


def _check_indexes(database: Database, of: str) -> None:
    """SQLite's comparison of tables with their indexes, and of pages with their form."""
    found = database.read(f"PRAGMA integrity_check{of}")
    if found != [("ok",)]:
        first = str(found[0][0]) if found else "nothing was said"
        raise database.damaged(f"its tables and indexes do not agree ({' '.join(first.split())[:200]})")


def _check_rows(database: Database) -> None:
    for table in (*SEALED, "agents"):
        _check_types(database, table)
    for table, columns in SEALED.items():
        changed = f"SELECT count(*) FROM {table} WHERE digest IS NOT NULL AND digest <> checksum({columns})"
        if number := database.read(changed)[0][0]:
            raise database.damaged(f"{number} of the rows in its {table} have been changed")


def _check_types(database: Database, table: str) -> None:
    """StoreError for a value of another type than its column: SQLite keeps text, and infinity, among numbers."""
    strange = []
    for _, name, declared, is_needed, _, is_key in database.read(f"PRAGMA table_info({table})"):
        kinds = {"REAL": "'real', 'integer'"}.get(declared, f"'{declared.lower()}'")
        none = "" if is_needed or is_key else ", 'null'"
        strange.append(f"typeof({name}) NOT IN ({kinds}{none})")
        if declared == "REAL" and table != "metrics":  # a loss may be infinite, and is in no sum
            strange.append(f"abs({name}) > {MAX_NUMBER!r}")
    if number := database.read(f"SELECT count(*) FROM {table} WHERE {' OR '.join(strange)}")[0][0]:
        raise database.damaged(f"{number} of the rows in its {table} hold values of another type than their columns")
