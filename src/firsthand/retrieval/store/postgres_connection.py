"""The connection of an index to PostgreSQL: one statement or transaction at a time, rows within a bound."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from firsthand.errors import MissingExtra, StoreError

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")
_ROW_BYTES, _ITEM_BYTES = 600, 150
"""Memory that a row takes beside its texts, and an item of JSON beside its characters."""


class PostgresConnection:
    """A connection that threads share: another thread waits until a statement or transaction has ended.

    A connection that was lost, or that a broken transaction has left in an unknown state, is closed, and the next call
    opens another one.
    """

    def __init__(self, address: str, name: str, *, max_bytes: int, timeout_s: float):
        try:
            import psycopg
        except ImportError:
            raise MissingExtra("psycopg", "postgres", "an index in PostgreSQL") from None
        self._psycopg, self._address, self._name = psycopg, address, name
        self._max_bytes, self._timeout_s = max_bytes, timeout_s
        self._alone = threading.RLock()
        self._depth = 0
        self._ended = False
        self._open: psycopg.Connection[tuple[Any, ...]] | None = None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One transaction, during which no other thread has the connection."""
        with self._used() as connection, connection.transaction():
            yield

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """One transaction that reads the state of its beginning and writes nothing."""
        with self._used() as connection, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield

    def run(self, statement: str, values: Sequence[Any] = ()) -> None:
        """Runs a statement that has no rows to read."""
        with self._used() as connection:
            connection.execute(statement, values or None)

    def run_each(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Runs a statement once for each row of values."""
        with self._used() as connection, connection.cursor() as cursor:
            cursor.executemany(statement, rows)

    def rows(
        self, statement: str, values: Sequence[Any], read: Callable[[tuple[Any, ...]], T], parsed: Sequence[int] = ()
    ) -> list[T]:
        """Yields `read(row)` for each row, one row at a time; `parsed` are the columns that hold JSON objects.

        StoreError for more than `max_bytes`, counted as the memory that they take here: other programs write rows too.
        """
        found, held = [], 0
        with (
            self._used() as connection,
            connection.cursor() as cursor,
            closing(cursor.stream(statement, values or None)) as rows,
        ):
            for row in rows:
                held += _ROW_BYTES + sum(len(each) for each in row if isinstance(each, str))
                held += sum(_ITEM_BYTES * (row[each] or "").count(mark) for each in parsed for mark in ",[{")
                if held > self._max_bytes:
                    raise StoreError(
                        f"PostgreSQL's index {self._name!r} has rows of more than {self._max_bytes:,} bytes for one "
                        "question: if the index is yours, open it with a larger max_bytes"
                    )
                found.append(read(row))
        return found

    def close(self) -> None:
        """Closes the connection for good."""
        with self._alone:
            self._ended = True
            self._drop()

    @contextmanager
    def _used(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        with self._alone:
            connection = self._open if self._depth else self._connected()
            assert connection is not None
            self._depth += 1
            try:
                yield connection
            except self._psycopg.Error as error:
                said = " ".join(str(error).split())[:300]
                if isinstance(error, self._psycopg.errors.QueryCanceled):
                    said += f" after {self._timeout_s:g} s: if the index is yours, open it with a larger timeout_s"
                raise StoreError(f"PostgreSQL's index {self._name!r} cannot be used: {said}") from error
            finally:
                self._depth -= 1
                idle = self._psycopg.pq.TransactionStatus.IDLE
                if not self._depth and connection.info.transaction_status != idle:
                    self._drop()

    def _connected(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._ended:
            raise StoreError(f"PostgreSQL's index {self._name!r} was closed: open it again")
        if self._open is None or self._open.closed:
            try:
                self._open = self._psycopg.connect(self._address, autocommit=True, connect_timeout=10)
                limit = str(max(1, round(self._timeout_s * 1000)))
                self._open.execute("SELECT pg_catalog.set_config('statement_timeout', %s, false)", [limit])
            except self._psycopg.ProgrammingError as error:
                if self._open is not None and not self._open.closed:
                    self._drop()
                    raise self._unusable(error) from error
                raise StoreError(  # psycopg's words quote the address, with its password
                    "PostgreSQL's address cannot be read: give postgresql://user@host/name or host=... dbname=..."
                ) from None
            except self._psycopg.Error as error:
                self._drop()
                raise self._unusable(error) from error
        return self._open

    def _unusable(self, error: Exception) -> StoreError:
        return StoreError(f"PostgreSQL's index {self._name!r} cannot be used: {' '.join(str(error).split())[:300]}")

    def _drop(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
