"""The statements that an index sends to PostgreSQL, with their values; the connection notes them and answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, StoreError
from firsthand.retrieval.chunk_index import IndexHeader
from firsthand.retrieval.store.postgres_index import PostgresRecords
from firsthand.retrieval.store.records import Among, Every, Match, Record


class Connection:
    """Notes statements; `answers` are the rows of those that select."""

    def __init__(self, *answers: Any):
        self.answers = [*answers]
        self.said: list[Any] = []

    def execute(self, statement: str, values: Any = None) -> Any:
        self.said.append((statement, values))
        rows = self.answers.pop(0) if "SELECT" in statement and "advisory" not in statement else None
        if isinstance(rows, Exception):
            raise rows
        return SimpleNamespace(description=rows is not None or None, fetchall=lambda: rows)

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        yield SimpleNamespace(executemany=lambda statement, values: self.said.append((statement, values)))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.said.append("BEGIN")
        yield
        self.said.append("END")

    def close(self) -> None:
        self.said.append("CLOSE")


def opened(
    *answers: Any, header: IndexHeader | None = None, name: str = "s"
) -> tuple[PostgresRecords, Connection, list[Any]]:
    """Records over a noting connection, through the constructor, and how it was connected."""
    connection, connected = Connection(*answers), []

    def connect(*address: Any, **options: Any) -> Connection:
        connected.append((address, options))
        return connection

    made = object.__new__(PostgresRecords)
    psycopg = pytest.importorskip("psycopg", reason="this engine has no client here")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(psycopg, "connect", connect)
        made.__init__("host=h", name, header)  # type: ignore[misc]
    return made, connection, connected


def test_a_new_index_is_a_table_of_its_dimension_made_in_one_transaction() -> None:
    for dimension, column in ((3, "halfvec(3)"), (0, "text")):
        _, connection, connected = opened([(None,)], header=IndexHeader("", "", dimension, "c"))
        assert connected == [(("host=h",), {"autocommit": True})]
        indexes = [
            (
                f'CREATE INDEX IF NOT EXISTS records_by_{field} ON "s".records '
                f"((fields ->> '{field}')) WHERE fields ? '{field}'",
                None,
            )
            for field in ("kind", "of", "text")
        ]
        assert connection.said == [
            ("SELECT to_regclass(%s)", ['"s".records']), "BEGIN",
            ("SELECT pg_advisory_xact_lock(hashtext(%s))", ["s"]), ("CREATE EXTENSION IF NOT EXISTS vector", None),
            ('CREATE SCHEMA IF NOT EXISTS "s"', None),
            ('CREATE TABLE IF NOT EXISTS "s".records (id text COLLATE "C" PRIMARY KEY, fields jsonb NOT NULL, payload text '
             f"NOT NULL, vector {column})", None), *indexes, "END",
        ]  # fmt: skip
    _, connection, _ = opened([('"s".records',)], header=IndexHeader("", "", 3, "c"))
    assert len(connection.said) == 1, "it is there"
    opened([("x",)], name="a" * 48)
    for name in ("a" * 49, "a b", "naïve"):
        with pytest.raises(ConfigError, match=r"48 at most$"):
            opened([("x",)], name=name)


def test_an_index_that_is_not_there_is_told_and_the_connection_closed() -> None:
    psycopg = pytest.importorskip("psycopg", reason="this engine has no client here")

    closed: list[Any] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Connection, "close", lambda self: closed.append(self.said))
        with pytest.raises(StoreError, match=r"^PostgreSQL has no index 's': give a header to make one$"):
            opened([(None,)])
        with pytest.raises(StoreError, match=r"^PostgreSQL's index 's' cannot be used: gone away$"):
            opened(psycopg.OperationalError("gone\n  away"))
    assert len(closed) == 2


def test_records_are_written_read_ranked_and_removed_by_their_conditions() -> None:
    stored = [("b", {"n": 1}, "P", "[0.5,-2]"), ("a", {}, "Q", None)]
    made, connection, _ = opened([("x",)], stored, [stored[1]], [("b", "2.5"), ("a", -1)])
    connection.said.clear()
    condition = Every((Match("of", ("z",)), Among(("a", "b"))))
    where = "(coalesce(fields ->> %s = ANY(%s), false)) AND (id = ANY(%s))"
    values: Sequence[Any] = ["of", ["z"], ["a", "b"]]
    found = made.select(condition, vectors=True)
    assert [(each.id, each.fields, each.payload) for each in found] == [("b", {"n": 1}, "P"), ("a", {}, "Q")]
    assert found[0].vector is not None and found[0].vector.dtype == np.float32 and found[0].vector.tolist() == [0.5, -2]
    assert found[1].vector is None and made.get(["a", "q"]) == {"a": Record("a", {}, "Q")}
    vector = np.array([0.5, 2], np.float32)
    assert made.nearest(vector, 7, condition) == [("b", 2.5), ("a", -1.0)]
    made.remove(["a", "b"])
    made.upsert([Record("a", {"n": 1.5, "t": "é"}, "P", vector), Record("b", {}, "Q")])
    with made.atomically():
        connection.said.append("inside")
    made.close()
    assert connection.said == [
        (f'SELECT id, fields, payload, vector::text FROM "s".records WHERE {where}', values),
        ('SELECT id, fields, payload, NULL FROM "s".records WHERE id = ANY(%s)', [["a", "q"]]),
        (f'SELECT id, -(vector <#> %s::halfvec) AS score FROM "s".records WHERE {where} ORDER BY score DESC, id LIMIT %s',
         ["[0.5, 2.0]", *values, 7]),
        ('DELETE FROM "s".records WHERE id = ANY(%s)', [["a", "b"]]),
        ('INSERT INTO "s".records (id, fields, payload, vector) VALUES (%s, %s, %s, %s) ON CONFLICT (id) DO UPDATE SET '
         "fields = excluded.fields, payload = excluded.payload, vector = excluded.vector",
         [("a", '{"n": 1.5, "t": "\\u00e9"}', "P", "[0.5, 2.0]"), ("b", "{}", "Q", None)]),
        "BEGIN", ("SELECT pg_advisory_xact_lock(hashtext(%s))", ["s"]), "inside", "END", "CLOSE",
    ]  # fmt: skip
    assert made.transactional
