"""The statements that an index in PostgreSQL is made of, by a connection that records them: psycopg's, without a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, StoreError
from firsthand.retrieval.chunk_index import IndexHeader
from firsthand.retrieval.store.postgres_index import PostgresRecords, _text, _where
from firsthand.retrieval.store.records import Among, Every, Match, Not, Range, Record, Some

psycopg = pytest.importorskip("psycopg")
HEADER = IndexHeader("m", "f", 3, "lines")
TYPES = {"id": "text", "fields": "jsonb", "payload": "text", "vector": "halfvec(3)"}
THERE = [("r", name, type, "") for name, type in TYPES.items()]
"""What the catalog says of the table of an index."""
LIMIT = ("SELECT pg_catalog.set_config('statement_timeout', %s, false)", ["60000"])


class Recorder:
    """A connection whose rows are given beforehand."""

    def __init__(self, *rows: list[tuple[Any, ...]]):
        self.rows = [*rows]
        self.said: list[tuple[str, Any]] = []
        self.opened: list[Any] = []
        self.closed = False
        self.info = SimpleNamespace(transaction_status=psycopg.pq.TransactionStatus.IDLE)
        self.fails: Exception | None = None

    def execute(self, statement: str, values: Any = None) -> Any:
        if self.fails is not None:
            raise self.fails
        self.said.append((statement, values))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.said.append(("BEGIN", None))
        yield
        self.said.append(("COMMIT", None))

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        recorder = self

        class Cursor:
            def stream(self, statement: str, values: Any) -> Iterator[tuple[Any, ...]]:
                recorder.execute(statement, values)
                yield from recorder.rows.pop(0) if recorder.rows else []

            def executemany(self, statement: str, values: Any) -> None:
                recorder.said.append((statement, [*values]))

        yield Cursor()

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Any:
    def made(*rows: list[tuple[Any, ...]], name: str = "Notes_1", header: IndexHeader | None = None) -> Any:
        recorder = Recorder(*rows)

        def connect(address: str, **options: Any) -> Recorder:
            recorder.opened.append((address, options))
            return recorder

        monkeypatch.setattr(psycopg, "connect", connect)
        made.recorder = recorder  # type: ignore[attr-defined]
        return PostgresRecords("host=x", name, header), recorder

    return made


def test_an_index_is_looked_for_under_its_quoted_name_and_made_only_with_a_header(opened: Any) -> None:
    _, there = opened(THERE)
    assert there.opened == [("host=x", {"autocommit": True, "connect_timeout": 10})]
    assert there.said[0] == LIMIT and len(there.said) == 2 and there.closed is False
    assert there.said[1][0].endswith("WHERE n.nspname = %s AND c.relname = 'records'")
    assert there.said[1][1] == ["Notes_1"]
    with pytest.raises(StoreError, match=r"^PostgreSQL has no index 'Notes_1': give a header to make one$"):
        opened([])
    assert opened.recorder.closed is True
    _, new = opened([], header=HEADER)
    table = '"Notes_1".records'
    assert new.said[2:6] == [
        ("BEGIN", None),
        ("SELECT pg_advisory_xact_lock(hashtext(%s))", ["Notes_1"]),
        ("CREATE EXTENSION IF NOT EXISTS vector", None),
        ('CREATE SCHEMA IF NOT EXISTS "Notes_1"', None),
    ]
    assert new.said[6][0] == (
        f'CREATE TABLE IF NOT EXISTS {table} (id text COLLATE "C" PRIMARY KEY, fields jsonb NOT NULL, payload text NOT '
        "NULL, vector halfvec(3))"
    )
    assert [said for said, _ in new.said[7:]] == [
        *(f"CREATE INDEX IF NOT EXISTS records_by_{field} ON {table} ((fields ->> '{field}')) WHERE fields ? '{field}'"
          for field in ("kind", "of", "text")), "COMMIT",
    ]  # fmt: skip
    _, words = opened([], header=IndexHeader("", "", 0, "lines"))
    assert words.said[6][0].endswith("payload text NOT NULL, vector text)")


def test_a_name_is_an_identifier_of_48_letters_at_most(opened: Any) -> None:
    opened(THERE, name="n" * 48)
    for name in ("n" * 49, "", "a-b", "é", "1a", 'a"b'):
        with pytest.raises(
            ConfigError, match="is no name for a schema: give letters, digits and underscores, 48 at most"
        ):
            opened(THERE, name=name)


def test_errors_of_the_server_are_a_sentence_and_never_show_the_address(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, recorder = opened(THERE)
    recorder.fails = psycopg.OperationalError("line one\n   " + "y" * 400)
    with pytest.raises(StoreError) as caught:
        store.remove(["a"])
    assert str(caught.value) == f"PostgreSQL's index 'Notes_1' cannot be used: line one {'y' * 291}"
    store.close()
    assert recorder.closed is True

    def raising(error: Exception) -> None:
        def connect(address: str, **options: Any) -> None:
            raise error

        monkeypatch.setattr(psycopg, "connect", connect)
        PostgresRecords("postgresql://me:word@h/d", "n", None)

    with pytest.raises(StoreError, match="cannot be used: no server"):
        raising(psycopg.OperationalError("no server"))
    with pytest.raises(
        StoreError, match=r"^PostgreSQL's address cannot be read: give postgresql://user@host/name or"
    ) as told:
        raising(psycopg.ProgrammingError("bad address me:word"))
    assert "word" not in str(told.value) and told.value.__cause__ is None


def test_records_are_stored_removed_read_and_ranked(opened: Any) -> None:
    vector = np.array([1.0, -0.5, 0.25], np.float32)
    rows = [("a", '{"n": 1}', "p", None)]
    with_vectors = [("b", "{}", "q", "[1,2.5,3]")]
    store, recorder = opened(THERE, rows, with_vectors, [("c", 1), ("d", 0.5)])
    table = '"Notes_1".records'
    store.upsert([Record("a", {"n": 1}, "p", vector), Record("b", {"k": "é"}, "q")])
    statement, values = recorder.said[-1]
    assert statement == (
        f"INSERT INTO {table} (id, fields, payload, vector) VALUES (%s, %s, %s, %s) ON CONFLICT (id) DO UPDATE SET fields = "
        "excluded.fields, payload = excluded.payload, vector = excluded.vector"
    )
    assert values == [("a", '{"n": 1}', "p", "[1.0, -0.5, 0.25]"), ("b", json.dumps({"k": "é"}), "q", None)]
    store.remove(("a", "b"))
    assert recorder.said[-1] == (f"DELETE FROM {table} WHERE id = ANY(%s)", [["a", "b"]])
    assert store.get(["a", "z"]) == {"a": Record("a", {"n": 1}, "p", None)}
    texts = "pg_catalog.left(id, 65), pg_catalog.left(fields::text, 16000001), pg_catalog.left(payload, 64000001)"
    assert recorder.said[-1] == (f"SELECT {texts}, NULL FROM {table} WHERE id = ANY(%s)", [["a", "z"]])
    (found,) = store.select(Match("kind", ("chunk",)), vectors=True)
    assert (found.id, found.fields, found.payload) == ("b", {}, "q") and found.vector.tolist() == [1.0, 2.5, 3.0]
    assert found.vector.dtype == np.float32
    assert recorder.said[-1][0] == (
        f"SELECT {texts}, pg_catalog.left(vector::text, 2000001) FROM {table} WHERE coalesce(fields ->> %s = ANY(%s), false)"
    )
    assert store.nearest(vector, 7, Among(("c", "d"))) == [("c", 1.0), ("d", 0.5)]
    assert recorder.said[-1] == (
        f"SELECT pg_catalog.left(id, 65), -(vector <#> %s::halfvec) AS score FROM {table} WHERE vector IS NOT NULL "
        "AND (id = ANY(%s)) ORDER BY score DESC, id LIMIT %s",
        ["[1.0, -0.5, 0.25]", ["c", "d"], 7],
    )


def test_conditions_become_sql_with_a_value_for_each_placeholder() -> None:
    low, high = Range("n", 1.5, None), Range("n", None, 0)
    number = "(fields ->> %s)::float8"
    cases: list[tuple[Any, str, list[Any]]] = [
        (Match("kind", ("a", "b")), "coalesce(fields ->> %s = ANY(%s), false)", ["kind", ["a", "b"]]),
        (Among(("i", "j")), "id = ANY(%s)", [["i", "j"]]),
        (low, f"coalesce(fields ? %s AND {number} >= %s::float8, false)", ["n", "n", 1.5]),
        (high, f"coalesce(fields ? %s AND {number} <= %s::float8, false)", ["n", "n", 0]),
        (Range("n", 1, 2), f"coalesce(fields ? %s AND {number} >= %s::float8 AND {number} <= %s::float8, false)",
         ["n", "n", 1, "n", 2]),
        (Range("n"), "coalesce(fields ? %s, false)", ["n"]),
        (Not(Among(("i",))), "NOT (id = ANY(%s))", [["i"]]),
        (Every((Among(("i",)), Match("k", ("v",)))), "(id = ANY(%s)) AND (coalesce(fields ->> %s = ANY(%s), false))",
         [["i"], "k", ["v"]]),
        (Some((Match("k", ("v",)), Among(("i",)))), "(coalesce(fields ->> %s = ANY(%s), false)) OR (id = ANY(%s))",
         ["k", ["v"], ["i"]]),
        (Every(()), "true", []),
    ]  # fmt: skip
    for condition, sql, values in cases:
        assert _where(condition) == (sql, values), condition
    assert _text(None) is None and _text(np.array([2, 0.5])) == "[2.0, 0.5]"
