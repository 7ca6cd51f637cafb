"""An index in a schema of a PostgreSQL database, with pgvector. Each document is one transaction."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from firsthand.errors import ConfigError, MissingExtra, StoreError
from firsthand.retrieval.chunk_index import IndexHeader, Vectors
from firsthand.retrieval.store.record_index import RecordIndex
from firsthand.retrieval.store.records import Among, Condition, Every, Match, Not, Range, Record

_MAX_NAME = 48


def open_postgres_index(address: str, name: str = "firsthand", header: IndexHeader | None = None) -> RecordIndex:
    """Open the index in the schema of that name; with a header, make it if it is not there.

    `address` is libpq's: "postgresql://user@host/database", or "host=... dbname=...".
    """
    return RecordIndex(PostgresRecords(address, name, header), f"PostgreSQL's schema {name!r}", header)


class PostgresRecords:
    """A RecordStore in one table: fields as jsonb, vectors as pgvector's halfvec."""

    transactional = True

    def __init__(self, address: str, name: str, header: IndexHeader | None):
        try:
            import psycopg
        except ImportError:
            raise MissingExtra("psycopg", "postgres", "an index in PostgreSQL") from None
        if not name.isidentifier() or not name.isascii() or len(name) > _MAX_NAME:
            raise ConfigError(
                f"{name!r} is no name for a schema: give letters, digits and underscores, {_MAX_NAME} at most"
            )
        self._psycopg, self._name, self._table = psycopg, name, f'"{name}".records'
        try:
            with self._sentences():
                self._connection = psycopg.connect(address, autocommit=True)
        except StoreError as error:
            if not isinstance(error.__cause__, psycopg.ProgrammingError):
                raise
            raise StoreError(  # psycopg's words quote the address, with its password
                "PostgreSQL's address cannot be read: give postgresql://user@host/name or host=... dbname=..."
            ) from None
        try:
            if self._rows("SELECT to_regclass(%s)", [f'"{name}".records'])[0][0] is None:
                if header is None:
                    raise StoreError(f"PostgreSQL has no index {name!r}: give a header to make one")
                self._make(header.dimension)
        except BaseException:
            self._connection.close()
            raise

    def _make(self, dimension: int) -> None:
        column = f"halfvec({dimension})" if dimension else "text"
        with self.atomically():
            self._rows("CREATE EXTENSION IF NOT EXISTS vector")
            self._rows(f'CREATE SCHEMA IF NOT EXISTS "{self._name}"')
            self._rows(
                f'CREATE TABLE IF NOT EXISTS {self._table} (id text COLLATE "C" PRIMARY KEY, fields jsonb NOT NULL, '
                f"payload text NOT NULL, vector {column})"
            )
            for field in ("kind", "of", "text"):
                self._rows(
                    f"CREATE INDEX IF NOT EXISTS records_by_{field} ON {self._table} ((fields ->> '{field}')) "
                    f"WHERE fields ? '{field}'"
                )

    @contextmanager
    def atomically(self) -> Iterator[None]:
        """One transaction; documents of two writers are stored one after the other."""
        with self._sentences(), self._connection.transaction():
            self._connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [self._name])
            yield

    def upsert(self, records: Sequence[Record]) -> None:
        """Store records, in place of those with their ids."""
        statement = (
            f"INSERT INTO {self._table} (id, fields, payload, vector) VALUES (%s, %s, %s, %s) ON CONFLICT (id) DO UPDATE "
            "SET fields = excluded.fields, payload = excluded.payload, vector = excluded.vector"
        )
        with self._sentences(), self._connection.cursor() as cursor:
            cursor.executemany(
                statement, [(each.id, json.dumps(each.fields), each.payload, _text(each.vector)) for each in records]
            )

    def remove(self, ids: Sequence[str]) -> None:
        """Delete the records with these ids, as far as there are any."""
        self._rows(f"DELETE FROM {self._table} WHERE id = ANY(%s)", [list(ids)])

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> dict[str, Record]:
        """The records that are there, by id."""
        return {each.id: each for each in self.select(Among(tuple(ids)), vectors=vectors)}

    def select(self, condition: Condition, *, vectors: bool = False) -> list[Record]:
        """All records for which the condition holds."""
        sql, values = _where(condition)
        vector = "vector::text" if vectors else "NULL"
        rows = self._rows(f"SELECT id, fields, payload, {vector} FROM {self._table} WHERE {sql}", values)
        return [
            Record(id, fields, payload, None if text is None else np.array(json.loads(text), dtype=np.float32))
            for id, fields, payload, text in rows
        ]

    def nearest(self, vector: Vectors, k: int, condition: Condition) -> list[tuple[str, float]]:
        """The ids and dot products of the k records of highest dot product for which the condition holds, best first."""
        sql, values = _where(condition)
        rows = self._rows(
            f"SELECT id, -(vector <#> %s::halfvec) AS score FROM {self._table} WHERE {sql} ORDER BY score DESC, id LIMIT %s",
            [_text(vector), *values, k],
        )
        return [(id, float(score)) for id, score in rows]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._sentences():
            cursor = self._connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except self._psycopg.Error as error:
            said = " ".join(str(error).split())[:300]
            raise StoreError(f"PostgreSQL's index {self._name!r} cannot be used: {said}") from error


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
