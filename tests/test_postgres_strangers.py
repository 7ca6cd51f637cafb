"""An index in PostgreSQL that threads share, that loses its connection, and whose database a stranger has written."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from firsthand.errors import ConfigError, StoreError
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.document import Document
from firsthand.retrieval.store.postgres_index import PostgresRecords, open_postgres_index
from firsthand.retrieval.store.records import Every, Record
from index_postgres import postgres  # noqa: F401

psycopg = pytest.importorskip("psycopg")
HEADER = IndexHeader("m", "f", 4, "lines")
COLUMNS = {"id": "text", "fields": "jsonb", "payload": "text", "vector": "halfvec(4)"}
QUERY = np.array([1, 0, 0, 0], np.float32)


class Fake:
    """psycopg's connection with rows given beforehand."""

    def __init__(self, rows: list[tuple[Any, ...]]):
        self.rows, self.closed, self.said = rows, False, []
        self.info = SimpleNamespace(transaction_status=psycopg.pq.TransactionStatus.IDLE)
        self.fails: Exception | None = None
        self.taken = 0

    def execute(self, statement: str, values: Any = None) -> None:
        if self.fails is not None:
            raise self.fails
        self.said.append(statement.split()[0])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.said.append("BEGIN")
        yield
        self.said.append("COMMIT")

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        fake = self

        class Cursor:
            def stream(self, statement: str, values: Any) -> Iterator[tuple[Any, ...]]:
                fake.execute(statement)
                if "pg_class" in statement:
                    yield from [("r", name, type, "") for name, type in COLUMNS.items()]
                else:
                    for row in fake.rows:
                        fake.taken += 1
                        yield row

            def executemany(self, statement: str, rows: Any) -> None:
                fake.execute(statement)

        yield Cursor()

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> list[Fake]:
    """The connections that were opened."""
    made: list[Fake] = []
    rows = [(f"{n:032x}", "{}", "p" * 1000, None) for n in range(50)]

    def connect(address: str, **options: Any) -> Fake:
        made.append(Fake(rows))
        return made[-1]

    monkeypatch.setattr(psycopg, "connect", connect)
    return made


def test_no_thread_uses_the_connection_inside_of_another_threads_transaction(fakes: list[Fake]) -> None:
    store = PostgresRecords("host=x", "n", None)
    uses = [lambda: store.remove(["a"]), lambda: store.upsert([]), lambda: store.select(Every(()))]
    threads = [threading.Thread(target=use) for use in uses]
    with store.atomically():
        for each in threads:
            each.start()
        threads[0].join(0.02)
        assert all(each.is_alive() for each in threads), "they wait until the transaction has ended"
        store.remove(["b"])
        fakes[0].said.append("mine")
    for each in threads:
        each.join()
    begin = fakes[0].said.index("BEGIN")
    assert fakes[0].said[begin : begin + 5] == ["BEGIN", "SELECT", "DELETE", "mine", "COMMIT"]


def test_a_connection_that_was_lost_or_left_in_a_transaction_is_opened_anew(fakes: list[Fake]) -> None:
    store = PostgresRecords("host=x", "n", None)
    fakes[0].fails = psycopg.OperationalError("terminating connection")
    fakes[0].closed = True  # as psycopg says of a lost one
    assert len(store.select(Every(()))) == 50 and len(fakes) == 2
    fakes[1].info.transaction_status = psycopg.pq.TransactionStatus.INTRANS
    store.remove(["a"])
    assert fakes[1].closed and len(fakes) == 2
    store.remove(["a"])
    assert len(fakes) == 3 and not fakes[2].closed
    store.close()
    with pytest.raises(StoreError, match=r"^PostgreSQL's index 'n' was closed: open it again$"):
        store.remove(["a"])
    assert fakes[2].closed and len(fakes) == 3


def test_rows_are_taken_one_by_one_up_to_the_bound(fakes: list[Fake]) -> None:
    assert len(PostgresRecords("host=x", "n", None, max_bytes=50 * 1934 + 300).select(Every(()))) == 50
    few = PostgresRecords("host=x", "n", None, max_bytes=10_000)
    with pytest.raises(
        StoreError, match=r"rows of more than 10,000 bytes for one question: if the index is yours, open it"
    ):
        few.select(Every(()))
    assert fakes[1].taken <= 10
    fakes[1].rows = [("a", '{"a": [' + "[]," * 300 + "[]]}", "p", None)]
    with pytest.raises(StoreError, match="rows of more than 10,000 bytes"):
        few.select(Every(()))
    for wrong in ({"max_bytes": 0}, {"timeout_s": 0.0}):
        with pytest.raises(ConfigError, match="give numbers above 0"):
            PostgresRecords("host=x", "n", None, **wrong)


def test_a_document_that_could_not_be_read_again_is_not_stored(fakes: list[Fake]) -> None:
    store = PostgresRecords("host=x", "n", None)
    with pytest.raises(
        ConfigError, match=r"takes 64,000,001 characters as JSON and 2 of words and values: .*so split it"
    ):
        store.upsert([Record("a", {}, "x" * 64_000_001)])


@pytest.mark.parametrize(
    "row",
    [
        ("a", "[]", "p", None), ("a", "{", "p", None), ("a", '{"a": {}}', "p", None), ("a", "[" * 9000, "p", None),
        (None, "{}", "p", None), ("a", None, "p", None), ("a", "{}", None, None), ("a", "{}", "p", "x"),
        ("a", "{}", "p", "[[1]]"), ("a", "{}", "p", "7"),
    ],
)  # fmt: skip
def test_a_row_of_another_form_is_a_sentence(fakes: list[Fake], row: tuple[Any, ...]) -> None:
    store = PostgresRecords("host=x", "n", None)
    fakes[0].rows = [row]
    with pytest.raises(
        StoreError, match="that is none of an index: another program has written it; delete it and index"
    ):
        store.select(Every(()), vectors=True)


def indexed(id: str, text: str) -> IndexedDocument:
    return IndexedDocument(
        Document(id, text, meta={"year": 2020}), [Chunk(id, 0, len(text), text, meta={"year": 2020})], np.array([QUERY])
    )


@pytest.mark.slow
def test_what_threads_put_at_once_is_there_for_others(postgres: str) -> None:  # noqa: F811
    name = f"threads_{uuid4().hex[:8]}"
    index, failed = open_postgres_index(postgres, name, HEADER), []

    def put(who: str) -> None:
        try:
            for n in range(15):
                index.put([indexed(f"{who}{n}", f"cats {n}")])
                index.search_vectors(QUERY, 3, {})
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=put, args=(who,)) for who in "abc"]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not failed and len(open_postgres_index(postgres, name).hashes()) == 45


@pytest.mark.slow
def test_an_index_goes_on_after_the_server_has_ended_its_connection(postgres: str) -> None:  # noqa: F811
    index = open_postgres_index(postgres, f"lost_{uuid4().hex[:8]}", HEADER)
    index.put([indexed("a", "cats")])
    with psycopg.connect(postgres, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    with pytest.raises(StoreError, match="terminating connection"):
        index.search_vectors(QUERY, 1, {})
    assert len(index.search_vectors(QUERY, 1, {})) == 1


@pytest.mark.slow
def test_a_strangers_view_is_no_index_and_a_statement_ends_in_time(postgres: str) -> None:  # noqa: F811
    name = f"view_{uuid4().hex[:8]}"
    open_postgres_index(postgres, name, HEADER).close()
    quick = PostgresRecords(postgres, name, None, timeout_s=0.2)
    with psycopg.connect(postgres, autocommit=True) as other:
        other.execute(f"ALTER TABLE {name}.records ADD COLUMN made timestamptz DEFAULT now()")
        open_postgres_index(postgres, name).close()  # a column of the user's own
        other.execute(f"ALTER TABLE {name}.records RENAME TO r")
        other.execute(
            f"CREATE VIEW {name}.records AS SELECT id, fields, repeat('a', 40000000) AS payload, vector "
            f"FROM {name}.r, generate_series(1, 40)"
        )
    with pytest.raises(StoreError, match="is not the table of an index, which has the columns id, fields, payload"):
        open_postgres_index(postgres, name)
    with pytest.raises(StoreError, match=r"after 0\.2 s: if the index is yours, open it with a larger timeout_s"):
        quick.select(Every(()))


@pytest.mark.slow
def test_rows_that_another_program_changed_are_told_and_verify_names_them(postgres: str) -> None:  # noqa: F811
    name = f"rows_{uuid4().hex[:8]}"
    index = open_postgres_index(postgres, name, HEADER)
    changes = {
        "payload = '[]'": "chunk", "payload = '{'": "chunk", "payload = repeat('[', 200000)": "chunk",
        "payload = '{}'": "document", "vector = NULL": "chunk",
    }  # fmt: skip
    with psycopg.connect(postgres, autocommit=True) as other:
        for change, kind in changes.items():
            index.delete(["a"])
            index.put([indexed("a", "cats purr")])
            (id,) = other.execute(
                f"UPDATE {name}.records SET {change} WHERE fields ->> 'kind' = '{kind}' RETURNING id"
            ).fetchone()
            faults = index.verify()
            assert any(id in each and "another program has written it" in each for each in faults), change
            for read in (
                lambda: index.search_terms("cats", 5, {}),
                lambda: index.search_vectors(QUERY, 5, {}),
                index.hashes,
            ):
                try:
                    read()
                except StoreError as error:
                    assert f"record {id!r} that is none of an index" in str(error)
        year = hashlib.sha256(b"year").hexdigest()[:16]
        for field in ("length", f"n_{year}"):
            index.delete(["a"])
            index.put([indexed("a", "cats purr")])
            other.execute(f"UPDATE {name}.records SET fields = jsonb_set(fields, '{{{field}}}', '\"x\"')")
            with pytest.raises(StoreError):
                index.search_terms("cats", 5, {"year": {"min": 1}})
        index.delete(["a"])
        index.put([indexed("a", "cats purr")])
        assert index.verify() == [] and len(index.search_terms("cats", 5, {"year": {"min": 1}})) == 1
