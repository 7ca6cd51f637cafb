"""An index in a schema of a PostgreSQL database, with pgvector. Each document is one transaction.

Rows are taken for a stranger's: whoever may write the database can put anything into them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from firsthand.errors import ConfigError, StoreError
from firsthand.retrieval.chunk_index import IndexHeader, Vectors
from firsthand.retrieval.store.postgres_connection import PostgresConnection
from firsthand.retrieval.store.record_index import RecordIndex
from firsthand.retrieval.store.record_payloads import stored_record
from firsthand.retrieval.store.records import Among, Condition, Every, Match, Not, Range, Record

_MAX_NAME = 48
MAX_BYTES = 2 << 30
"""Memory that the rows of one question may take here: BM25 over 70,000 chunks of 150 words."""
MAX_STATEMENT_S = 60.0
_MAX_PAYLOAD_CHARS, _MAX_FIELDS_CHARS, _MAX_VECTOR_CHARS, _MAX_ID_CHARS = 64_000_000, 16_000_000, 2_000_000, 64
_COLUMNS = {"id": r"text", "fields": r"jsonb", "payload": r"text", "vector": r"text|(.*\.)?halfvec\(\d+\)"}


def open_postgres_index(
    address: str,
    name: str = "firsthand",
    header: IndexHeader | None = None,
    *,
    max_bytes: int = MAX_BYTES,
    timeout_s: float = MAX_STATEMENT_S,
) -> RecordIndex:
    """Open the index in the schema of that name; with a header, make it if it is not there.

    `address` is libpq's: "postgresql://user@host/database", or "host=... dbname=...". `max_bytes` is the memory that the
    rows of one question may take, and `timeout_s` the time of one statement, as anybody may have written the database.
    """
    records = PostgresRecords(address, name, header, max_bytes=max_bytes, timeout_s=timeout_s)
    return RecordIndex(records, f"PostgreSQL's schema {name!r}", header)


class PostgresRecords:
    """A RecordStore in one table: fields as jsonb, vectors as pgvector's halfvec. Threads may share it."""

    transactional = True

    def __init__(
        self,
        address: str,
        name: str,
        header: IndexHeader | None,
        *,
        max_bytes: int = MAX_BYTES,
        timeout_s: float = MAX_STATEMENT_S,
    ):
        if not name.isidentifier() or not name.isascii() or len(name) > _MAX_NAME:
            raise ConfigError(
                f"{name!r} is no name for a schema: give letters, digits and underscores, {_MAX_NAME} at most"
            )
        if not max_bytes > 0 or not timeout_s > 0:
            raise ConfigError(f"max_bytes is {max_bytes} and timeout_s {timeout_s}: give numbers above 0")
        self._name, self._table = name, f'"{name}".records'
        self._connection = PostgresConnection(address, name, max_bytes=max_bytes, timeout_s=timeout_s)
        try:
            if not self._is_there():
                if header is None:
                    raise StoreError(f"PostgreSQL has no index {name!r}: give a header to make one")
                self._make(header.dimension)
        except BaseException:
            self._connection.close()
            raise

    def _is_there(self) -> bool:
        """True if the table is there. StoreError for a view or another table under its name: a view computes its rows."""
        rows = self._connection.rows(
            "SELECT c.relkind::text, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attgenerated::text "
            "FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
            "JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
            "WHERE n.nspname = %s AND c.relname = 'records'",
            [self._name],
            tuple,
        )
        columns = {name: type for kind, name, type, generated in rows if kind == "r" and not generated}
        if rows and not all(re.fullmatch(type, columns.get(name, "")) for name, type in _COLUMNS.items()):
            raise StoreError(
                f"PostgreSQL's {self._table} is not the table of an index, which has the columns id, fields, payload and "
                "vector and is no view: another program has made it; give another name"
            )
        return bool(rows)

    def _make(self, dimension: int) -> None:
        column = f"halfvec({dimension})" if dimension else "text"
        with self.atomically():
            self._connection.run("CREATE EXTENSION IF NOT EXISTS vector")
            self._connection.run(f'CREATE SCHEMA IF NOT EXISTS "{self._name}"')
            self._connection.run(
                f'CREATE TABLE IF NOT EXISTS {self._table} (id text COLLATE "C" PRIMARY KEY, fields jsonb NOT NULL, '
                f"payload text NOT NULL, vector {column})"
            )
            for field in ("kind", "of", "text"):
                self._connection.run(
                    f"CREATE INDEX IF NOT EXISTS records_by_{field} ON {self._table} ((fields ->> '{field}')) "
                    f"WHERE fields ? '{field}'"
                )

    @contextmanager
    def atomically(self) -> Iterator[None]:
        """One transaction; documents of two writers, threads or programs, are stored one after the other."""
        with self._connection.transaction():
            self._connection.run("SELECT pg_advisory_xact_lock(hashtext(%s))", [self._name])
            yield

    def snapshot(self) -> AbstractContextManager[None]:
        """A transaction whose reads see what was stored when it began, whatever others store meanwhile."""
        return self._connection.snapshot()

    def upsert(self, records: Sequence[Record]) -> None:
        """Store records, in place of those with their ids. ConfigError for one that would be too long to be read."""
        statement = (
            f"INSERT INTO {self._table} (id, fields, payload, vector) VALUES (%s, %s, %s, %s) ON CONFLICT (id) DO UPDATE "
            "SET fields = excluded.fields, payload = excluded.payload, vector = excluded.vector"
        )
        rows = [(each.id, json.dumps(each.fields), each.payload, _text(each.vector)) for each in records]
        for _, fields, payload, _ in rows:
            if len(payload) > _MAX_PAYLOAD_CHARS or len(fields) > _MAX_FIELDS_CHARS // 2:
                raise ConfigError(
                    f"a document or chunk takes {len(payload):,} characters as JSON and {len(fields):,} of words and "
                    f"values: PostgreSQL's index takes {_MAX_PAYLOAD_CHARS:,} and {_MAX_FIELDS_CHARS // 2:,}, so split it"
                )
        self._connection.run_each(statement, rows)

    def remove(self, ids: Sequence[str]) -> None:
        """Delete the records with these ids, as far as there are any."""
        self._connection.run(f"DELETE FROM {self._table} WHERE id = ANY(%s)", [list(ids)])

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> dict[str, Record]:
        """The records that are there, by id."""
        return {each.id: each for each in self.select(Among(tuple(ids)), vectors=vectors)}

    def select(self, condition: Condition, *, vectors: bool = False) -> list[Record]:
        """All records for which the condition holds."""
        sql, values = _where(condition)
        columns = [_bounded("id", _MAX_ID_CHARS), _bounded("fields::text", _MAX_FIELDS_CHARS)]
        columns += [_bounded("payload", _MAX_PAYLOAD_CHARS)]
        columns += [_bounded("vector::text", _MAX_VECTOR_CHARS) if vectors else "NULL"]
        return self._connection.rows(
            f"SELECT {', '.join(columns)} FROM {self._table} WHERE {sql}", values, self._record, parsed=(1, 2)
        )

    def nearest(self, vector: Vectors, k: int, condition: Condition) -> list[tuple[str, float]]:
        """The ids and dot products of the k records of highest dot product for which the condition holds, best first."""
        sql, values = _where(condition)
        return self._connection.rows(
            f"SELECT {_bounded('id', _MAX_ID_CHARS)}, -(vector <#> %s::halfvec) AS score FROM {self._table} "
            f"WHERE vector IS NOT NULL AND ({sql}) ORDER BY score DESC, id LIMIT %s",
            [_text(vector), *values, k],
            lambda row: (str(row[0]), float(row[1])),
        )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _record(self, row: tuple[Any, ...]) -> Record:
        id, fields, payload, text = row
        return stored_record(f"PostgreSQL's index {self._name!r}", id, fields, payload, text)


def _bounded(column: str, chars: int) -> str:
    """SQL for a text of which one character beyond the bound is sent at most: it is then no text of ours."""
    return f"pg_catalog.left({column}, {chars + 1})"


def _where(condition: Condition) -> tuple[str, list[Any]]:
    """SQL with placeholders, never NULL, and its values."""
    if isinstance(condition, Match):
        return "coalesce(fields ->> %s = ANY(%s), false)", [condition.field, list(condition.values)]
    if isinstance(condition, Among):
        return "id = ANY(%s)", [list(condition.ids)]
    if isinstance(condition, Range):
        parts, values = ["fields ? %s"], [condition.field]
        for sign, end in ((">=", condition.low), ("<=", condition.high)):
            if end is not None:
                parts.append(f"(fields ->> %s)::float8 {sign} %s::float8")
                values += [condition.field, end]  # type: ignore[list-item]
        return f"coalesce({' AND '.join(parts)}, false)", values
    if isinstance(condition, Not):
        sql, values = _where(condition.condition)
        return f"NOT ({sql})", values
    word = " AND " if isinstance(condition, Every) else " OR "
    found = [_where(each) for each in condition.conditions]
    return word.join(f"({sql})" for sql, _ in found) or "true", [value for _, values in found for value in values]


def _text(vector: Vectors | None) -> str | None:
    """pgvector's text of a vector, or text of none."""
    return None if vector is None else json.dumps([float(each) for each in vector])
