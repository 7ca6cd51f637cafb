"""A StudioStore in a PostgreSQL database, for a Studio on several machines, or one whose disk is not kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from firsthand.errors import MissingExtra, StoreError
from firsthand.message import Json
from firsthand.preference import utc_now
from firsthand.studio.studio_store import StoredItem, checked_body, expect_version, stored_body

if TYPE_CHECKING:
    import psycopg

_TABLES = """
CREATE TABLE IF NOT EXISTS firsthand_items (kind TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL,
    body TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (kind, key));
CREATE TABLE IF NOT EXISTS firsthand_log (seq BIGSERIAL PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL,
    body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS firsthand_log_by_kind ON firsthand_log (kind, seq);
"""
LOCK_S = 10
"""Seconds that a statement waits for a document that another session is changing."""
_LIMITS_S = {"lock_timeout": LOCK_S, "statement_timeout": 30, "idle_in_transaction_session_timeout": 30}
"""The server ends a statement, or the session of a Studio that has stopped in a transaction, after so many seconds."""
_NETWORK: Mapping[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""A server that is cut off is given up after a minute, where the system would wait for hours."""


class PostgresStore:
    """The documents of a Studio in two tables of a database, which are made if they are not there."""

    def __init__(self, address: str):
        self.address = address
        """As libpq takes it: `postgresql://user@host/name`, or `host=... dbname=...`."""
        self._lock = threading.RLock()
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._depth = 0

    def items(self, kind: str) -> list[StoredItem]:
        """All documents of a kind, by key."""
        with self._transaction() as connection:
            rows = connection.execute(
                'SELECT key, body, version, at FROM firsthand_items WHERE kind = %s ORDER BY key COLLATE "C"', (kind,)
            ).fetchall()
        return [StoredItem(key, stored_body(key, body), version, at) for key, body, version, at in rows]

    def get(self, kind: str, key: str) -> StoredItem | None:
        """One document; None if there is none."""
        if not key.isprintable():
            return None
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT key, body, version, at FROM firsthand_items WHERE kind = %s AND key = %s", (kind, key)
            ).fetchone()
        return None if row is None else StoredItem(row[0], stored_body(key, row[1]), row[2], row[3])

    def versions(self, kind: str) -> dict[str, int]:
        """The versions of all documents of a kind by key."""
        with self._transaction() as connection:
            return dict(
                connection.execute("SELECT key, version FROM firsthand_items WHERE kind = %s", (kind,)).fetchall()
            )

    def put(self, kind: str, key: str, body: Json, *, version: int | None = None) -> int:
        """Keeps a document; see `StudioStore.put`."""
        text = checked_body(key, body)
        with self._transaction() as connection:
            now = self._expect_version(connection, kind, key, version)
            connection.execute(
                "INSERT INTO firsthand_items VALUES (%s, %s, %s, %s, %s) ON CONFLICT (kind, key) DO UPDATE SET"
                " version = excluded.version, body = excluded.body, at = excluded.at",
                (kind, key, now + 1, text, utc_now()),
            )
        return now + 1

    def remove(self, kind: str, key: str, *, version: int | None = None) -> bool:
        """Removes a document; see `StudioStore.remove`."""
        if not key.isprintable():
            return False
        with self._transaction() as connection:
            self._expect_version(connection, kind, key, version)
            done = connection.execute("DELETE FROM firsthand_items WHERE kind = %s AND key = %s", (kind, key))
            return bool(done.rowcount > 0)

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Runs what is within as one transaction; see `StudioStore.exclusive`."""
        plain = "".join(filter(str.isprintable, name))  # a name that was typed may hold what no text of PostgreSQL can
        with self._transaction() as connection:
            self._wait_for(connection, f"{plain}\n")  # no document's lock: its key is not empty
            yield

    def log(self, kind: str, body: Json) -> None:
        """Adds an entry to the log."""
        text = checked_body(kind, body)
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO firsthand_log (at, kind, body) VALUES (%s, %s, %s)", (utc_now(), kind, text)
            )

    def logged(self, kind: str, limit: int = 200) -> list[tuple[str, Json]]:
        """The last entries of a kind with their times, the newest first."""
        with self._transaction() as connection:
            rows = connection.execute(
                "SELECT at, body FROM firsthand_log WHERE kind = %s ORDER BY seq DESC LIMIT %s", (kind, limit)
            ).fetchall()
        return [(at, stored_body(kind, body)) for at, body in rows]

    def close(self) -> None:
        """Closes the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _expect_version(
        self, connection: psycopg.Connection[tuple[Any, ...]], kind: str, key: str, version: int | None
    ) -> int:
        """The version that a document has, 0 if it is not there; ConfigError if another was read.

        One writer of a document at a time, also where it is not there yet and no row can be locked.
        """
        self._wait_for(connection, f"{kind}\n{key}")
        row = connection.execute(
            "SELECT version FROM firsthand_items WHERE kind = %s AND key = %s", (kind, key)
        ).fetchone()
        now = int(row[0]) if row else 0
        expect_version(kind, key, version, now)
        return now

    def _wait_for(self, connection: psycopg.Connection[tuple[Any, ...]], name: str) -> None:
        """Takes the lock of a name until the transaction ends."""
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (name,))

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        try:
            import psycopg
        except ImportError:
            raise MissingExtra("psycopg", "postgres", "a store in PostgreSQL") from None
        with self._lock:
            try:
                with ExitStack() as under_way:
                    yield self._begun(under_way)
            except psycopg.errors.LockNotAvailable:
                raise StoreError(
                    f"another session of the database has held what is needed for {LOCK_S} s: try again, or see "
                    "pg_stat_activity for one that stands still"
                ) from None
            except (psycopg.Error, UnicodeError) as error:
                raise StoreError(f"the database cannot be used: {' '.join(str(error).split())[:300]}") from None

    def _begun(self, under_way: ExitStack) -> psycopg.Connection[tuple[Any, ...]]:
        """The connection with a transaction begun in it; one that was lost since its last use is made anew.

        Within a transaction it is not: what was done and held there was lost with it.
        """
        import psycopg

        if self._connection is None:
            self._connection = _connected(self.address)
        try:
            under_way.enter_context(self._connection.transaction())
        except psycopg.OperationalError:  # of BEGIN, so nothing was done
            if self._depth:
                raise
            self.close()
            self._connection = _connected(self.address)
            under_way.enter_context(self._connection.transaction())
        self._depth += 1
        under_way.callback(self._left)
        return self._connection

    def _left(self) -> None:
        self._depth -= 1


def _connected(address: str) -> psycopg.Connection[tuple[Any, ...]]:
    """A new connection to a database with our tables, in which no statement or lock is waited for without end."""
    import psycopg

    try:
        made = psycopg.connect(address, **_NETWORK)
    except psycopg.ProgrammingError:  # it quotes the password
        raise StoreError(
            "the database's address cannot be read: give postgresql://user@host/name or host=... dbname=..."
        ) from None
    try:
        # what is read after a lock is what its last holder has written, whatever the server's default
        made.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        with made.transaction():
            for name, seconds in _LIMITS_S.items():
                made.execute("SELECT set_config(%s, %s, false)", (name, f"{seconds}s"))
            made.execute("SELECT pg_advisory_xact_lock(8203641)")  # two servers that start at once
            made.execute(_TABLES)
    except BaseException:
        made.close()
        raise
    return made
