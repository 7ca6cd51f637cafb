"""Opens SQLite files that may be somebody else's: each query ends within steps and bytes that go with the file's size.

The pages of a table are a tree, and a forged tree holds one page a million times: 131 kB are then billions of rows. Signals
are heard while a query runs, and what their handlers raise comes out of it. The schema is parsed by SQLite into some 50
bytes for each of its own, before anything can be asked, and no handler is called within a statement of it: its statements
and their number are bounded while it is read for the first time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from sys import getsizeof
from typing import Any, Self

from firsthand.system.sqlite_locks import opening

STEPS, STEPS_A_BYTE = 50_000_000, 20
"""SQLite's own steps that a query of a small file takes at most, about a second of them, and for each byte of a file."""
ROW_BYTES, ROW_BYTES_A_BYTE = 64 << 20, 16
"""Bytes, as objects, of all rows that one query returns from a small file, and for each byte of a file."""
SCHEMA_STEPS, SCHEMA_STATEMENT_BYTES = 8_000, 8_000
"""The steps in which SQLite reads a schema, seven for each table, index, trigger and view, and a few for each row of what
ANALYZE found; and the bytes of the statement that made one of them."""
_BETWEEN = 1000
_AT_ONCE = 256


class QueryBound:
    """The steps and bytes that the query of a connection may still take."""

    def __init__(self, path: Path, steps: int = STEPS):
        self.path = path
        self.raised: BaseException | None = None
        self._steps = steps
        self._used = 0
        self._most = steps // _BETWEEN
        self._is_endless = False

    def begin(self, *, is_endless: bool = False) -> None:
        """Count anew, for another query; one with many rows of values to write has no bound of its own."""
        self._used, self._is_endless, self.raised = 0, is_endless, None

    def size(self) -> int:
        """The bytes of the file and its write-ahead log; 0 if they are gone."""
        return sum(_size(each) for each in (self.path, Path(f"{self.path}-wal")))

    def __call__(self) -> bool:
        """Called by SQLite every thousand steps: True ends the query."""
        try:
            self._used += 1
            if self._used > self._most:  # the file has perhaps grown since
                self._most = (self._steps + STEPS_A_BYTE * self.size()) // _BETWEEN
            return self._used > self._most and not self._is_endless
        except BaseException as error:  # SQLite would lose what a signal's handler raises
            self.raised = error
            return True


class BoundedCursor(sqlite3.Cursor):
    """A cursor whose query ends with an error once it takes too much."""

    _left = -1

    def execute(self, sql: str, values: Any = (), /) -> Self:
        """Run a statement, with a count of its own."""
        bound = self._bound
        bound.begin()
        self._left = -1
        try:
            return super().execute(sql, values)
        except sqlite3.OperationalError as error:
            raise _told(bound, error) from None

    def executemany(self, sql: str, values: Iterable[Any], /) -> Self:
        """Run a statement that writes, once for each row of values."""
        self._bound.begin(is_endless=True)
        return super().executemany(sql, values)

    def __next__(self) -> Any:
        for row in self.fetchmany(1):
            return row
        raise StopIteration

    def fetchall(self) -> list[Any]:
        """All rows; an error if they are larger than those of such a file can be."""
        found: list[Any] = []
        while rows := self.fetchmany(_AT_ONCE):
            found += rows
        return found

    def fetchone(self) -> Any:
        """The next row, or None."""
        return next(self, None)

    def fetchmany(self, size: int | None = 1) -> list[Any]:
        """Up to so many rows, counted with those before them."""
        bound = self._bound
        try:
            rows = super().fetchmany(size)
        except sqlite3.OperationalError as error:
            raise _told(bound, error) from None
        if self._left < 0:
            self._left = ROW_BYTES + ROW_BYTES_A_BYTE * bound.size()
        self._left -= sum(map(getsizeof, rows)) + sum(map(getsizeof, chain.from_iterable(rows)))
        if self._left < 0:
            raise sqlite3.DatabaseError("a query returns more rows than a file of its size holds")
        return rows

    @property
    def _bound(self) -> QueryBound:
        bound: QueryBound = self.connection.bound  # type: ignore[attr-defined]
        return bound


class BoundedConnection(sqlite3.Connection):
    """A connection of bounded cursors."""

    bound: QueryBound

    def cursor(self, factory: Any = BoundedCursor) -> Any:
        """A bounded cursor."""
        return super().cursor(factory)

    def execute(self, sql: str, values: Any = (), /) -> sqlite3.Cursor:
        """Run a statement on a new cursor."""
        made: sqlite3.Cursor = self.cursor().execute(sql, values)
        return made

    def executemany(self, sql: str, values: Iterable[Any], /) -> sqlite3.Cursor:
        """Run a statement that writes, once for each row of values, on a new cursor."""
        made: sqlite3.Cursor = self.cursor().executemany(sql, values)
        return made


def connect_bounded(path: Path, mode: str, *, steps: int = STEPS, **more: Any) -> sqlite3.Connection:
    """Open a file in the mode `ro`, `rw` or `rwc` of SQLite's addresses; `more` is as for `sqlite3.connect`."""
    address = f"{path.absolute().as_uri()}?mode={mode}"
    with opening:
        connection = sqlite3.connect(address, uri=True, factory=BoundedConnection, **more)
    connection.bound = QueryBound(path, steps)
    try:
        _read_schema(connection)
    except BaseException:
        connection.close()
        raise
    connection.set_progress_handler(connection.bound, _BETWEEN)
    return connection


def _read_schema(connection: sqlite3.Connection) -> None:
    """Let SQLite parse the schema, which it then keeps, within bounds; DatabaseError if it is larger."""
    left = iter(range(SCHEMA_STEPS))
    raised: list[BaseException] = []

    def is_over() -> bool:
        try:
            return next(left, None) is None
        except BaseException as error:  # SQLite would lose what a signal's handler raises
            raised.append(error)
            return True

    limits = {
        sqlite3.SQLITE_LIMIT_SQL_LENGTH: SCHEMA_STATEMENT_BYTES,
        sqlite3.SQLITE_LIMIT_LENGTH: 2 * SCHEMA_STATEMENT_BYTES,
    }
    before = {limit: connection.setlimit(limit, value) for limit, value in limits.items()}
    connection.set_progress_handler(is_over, 1)
    try:
        sqlite3.Connection.execute(connection, "SELECT 1 FROM sqlite_master LIMIT 1").close()
    except sqlite3.Error as error:
        if raised:
            raise raised[0] from None
        if getattr(error, "sqlite_errorname", "") != "SQLITE_INTERRUPT" and "too big" not in str(error):
            raise
        raise sqlite3.DatabaseError(
            f"its schema has more than 1,000 tables and indexes, or one made by more than {SCHEMA_STATEMENT_BYTES:,} bytes"
        ) from None
    finally:
        for limit, value in before.items():
            connection.setlimit(limit, value)


def _told(bound: QueryBound, error: sqlite3.OperationalError) -> BaseException:
    if bound.raised is not None:
        return bound.raised
    if getattr(error, "sqlite_errorname", "") != "SQLITE_INTERRUPT":
        return error
    return sqlite3.DatabaseError("a query takes more steps than a file of its size needs")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
