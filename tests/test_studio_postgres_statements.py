"""The Studio's store in PostgreSQL, with its own SQL run by SQLite behind psycopg's connection: documents, log, faults."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from firsthand.errors import ConfigError, StoreError
from firsthand.studio.postgres_store import PostgresStore
from firsthand.studio.project_store import ProjectStore
from firsthand.studio.studio_store import StoredItem

psycopg = pytest.importorskip("psycopg")
ADDRESS = "postgresql://u@h/x"


class Database:
    """A connection as psycopg makes it: `%s` for values, one transaction at a time, PostgreSQL's locks as functions."""

    def __init__(self) -> None:
        self.rows = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.rows.create_collation("C", lambda a, b: (a.encode() > b.encode()) - (a.encode() < b.encode()))
        self.rows.create_collation(
            "locale", lambda a, b: (a.lower() + a > b.lower() + b) - (a.lower() + a < b.lower() + b)
        )
        self.locks: list[Any] = []
        self.rows.create_function("hashtextextended", 2, lambda text, seed: f"{text}#{seed}")
        self.rows.create_function("pg_advisory_xact_lock", 1, self.locks.append)
        self.settings: list[Any] = []
        self.rows.create_function("set_config", 3, lambda *setting: self.settings.append(setting))
        self.closed = False
        self.lost = False
        self.depth = 0
        self.is_held = False
        self.isolation_level: Any = None
        self.fails: Exception | None = None

    def execute(self, sql: str, values: tuple[Any, ...] = ()) -> Any:
        assert self.depth == 1 + self.is_held, "in a transaction, and in one alone but for `exclusive`"
        if self.fails is not None:
            raise self.fails
        if not values and ";" in sql:
            of_sqlite = sql.replace("BIGSERIAL PRIMARY", "INTEGER PRIMARY").replace(
                "key TEXT", "key TEXT COLLATE locale"
            )
            for statement in of_sqlite.split(";"):
                self.rows.execute(statement)
            return None
        return self.rows.execute(sql.replace("%s", "?"), values)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self.lost or self.closed:
            raise psycopg.OperationalError("the connection is lost")
        self.depth += 1
        self.rows.execute("SAVEPOINT s")
        try:
            yield
        except BaseException:
            self.rows.execute("ROLLBACK TO s")
            raise
        finally:
            self.rows.execute("RELEASE s")
            self.depth -= 1

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was opened: the connections, each after the way in which it was asked for."""
    found: list[Any] = []

    def connect(address: str, **options: Any) -> Database:
        found.append((address, options, made := Database()))
        return made

    monkeypatch.setattr(psycopg, "connect", connect)
    return found


def test_documents_are_kept_by_kind_and_key_with_their_versions(opened: list[Any]) -> None:
    store = PostgresStore(ADDRESS)
    assert opened == [] and (store.items("a"), store.get("a", "k"), store.logged("a")) == ([], None, [])
    assert [
        store.put("a", "k", {"n": 1}),
        store.put("a", "k", {"n": "é"}, version=1),
        store.put("b", "k", {}, version=0),
    ] == [1, 2, 1]
    assert [store.put("a", key, {"key": key}) for key in ("D", "é", "c")] == [1, 1, 1]
    assert [(each.key, each.body, each.version) for each in store.items("a")] == [
        ("D", {"key": "D"}, 1), ("c", {"key": "c"}, 1), ("k", {"n": "é"}, 2), ("é", {"key": "é"}, 1),
    ]  # fmt: skip
    (item,) = store.items("b")
    assert store.get("b", "k") == item == StoredItem("k", {}, 1, item.at) and item.at[:2] == "20"
    for kind, version, says in (("a", 0, "the a 'k' is there already"), ("p/a", 3, "the a 'k' was changed in the meantime"),
                                ("a", 1, "the a 'k' was changed in the meantime")):  # fmt: skip
        with pytest.raises(ConfigError) as told:
            store.put(kind, "k", {"n": 9}, version=version)
        assert str(told.value) == f"{says}: open it again and repeat your change"
    assert (
        store.get("a", "k") == StoredItem("k", {"n": "é"}, 2, store.items("a")[2].at) and store.get("p/a", "k") is None
    )
    with pytest.raises(ConfigError, match="is no name: give 1 to 200 characters on one line"):
        store.put("a", "a\nb", {})
    assert (store.remove("a", "k"), store.remove("a", "k"), store.remove("a", "a\nb"), store.get("a", "a\nb")) == (
        True, False, False, None,
    )  # fmt: skip
    assert store.get("b", "k") == item and [each.key for each in store.items("a")] == ["D", "c", "é"], (
        "by code points in every locale, as SQLite has them"
    )
    ((address, _, database),) = opened
    assert (address, database.depth) == (ADDRESS, 0)
    database.rows.execute("UPDATE firsthand_items SET at = '1999'")
    assert store.put("b", "k", {"n": 2}) == 2
    changed = store.get("b", "k")
    assert changed is not None and changed == StoredItem("k", {"n": 2}, 2, changed.at) and changed.at >= item.at
    assert [each.at for each in store.items("a")] == ["1999"] * 3
    assert database.locks[:2] == [8203641, "a\nk#0"] and "b\nk#0" in database.locks, (
        "a writer waits for its own document"
    )


def test_removals_wait_for_writers_of_their_document_and_leave_what_was_changed(opened: list[Any]) -> None:
    store = PostgresStore(ADDRESS)
    store.put("a", "k", {})
    ((_, _, database),) = opened
    assert database.isolation_level is psycopg.IsolationLevel.READ_COMMITTED, "a lock's holder is seen after it"
    del database.locks[:]
    with pytest.raises(ConfigError, match="the a 'k' was changed in the meantime"):
        store.remove("a", "k", version=2)
    assert store.remove("a", "k", version=1) and database.locks == ["a\nk#0"] * 2


def test_a_transaction_holds_its_name_to_the_end_and_keeps_all_or_nothing(opened: list[Any]) -> None:
    store = PostgresStore(ADDRESS)
    store.put("a", "k", {"n": 1})
    ((_, _, database),) = opened
    del database.locks[:]
    shared = ProjectStore(store, "one")
    for name, held in (("queue q", shared), ("account", shared), ("queue q", store), ("a\0\ud800b", store)):
        with held.exclusive(name):
            database.is_held = True
            assert store.get("a", "k") is not None
        database.is_held = False
    assert database.locks == ["one/queue q\n#0", "account\n#0", "queue q\n#0", "ab\n#0"]
    with pytest.raises(ConfigError), store.exclusive("x"):
        database.is_held = True
        store.put("a", "k", {"n": 2})
        store.put("a", "new", {})
        store.put("a", "k", {"n": 3}, version=1)
    database.is_held = False
    assert [(each.key, each.version) for each in store.items("a")] == [("k", 1)] and database.depth == 0


def test_a_log_has_its_newest_entries_first_and_a_closed_connection_is_opened_again(opened: list[Any]) -> None:
    store = PostgresStore(ADDRESS)
    for number in range(3):
        store.log("x", {"n": number})
    store.log("y", {"n": 9})
    assert [body for _, body in store.logged("x", 2)] == [{"n": 2}, {"n": 1}] and len(store.logged("x")) == 3
    assert [(at[:2], body) for at, body in store.logged("y")] == [("20", {"n": 9})]
    with pytest.raises(ConfigError, match="at most 4,000,000 are kept"):
        store.log("x", {"a": "x" * 4_000_000})
    store.close()
    store.close()
    assert opened[0][2].closed and store._connection is None and store.items("x") == [] and len(opened) == 2
    opened[1][2].closed = True
    store.log("x", {})
    assert len(opened) == 3 and len(store.logged("x")) == 1


def test_a_connection_waits_for_nothing_without_end(opened: list[Any]) -> None:
    PostgresStore(ADDRESS).items("a")
    ((_, options, database),) = opened
    assert options == {
        "connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3,
        "tcp_user_timeout": 60_000,
    }  # fmt: skip
    assert database.settings == [
        ("lock_timeout", "10s", 0), ("statement_timeout", "30s", 0), ("idle_in_transaction_session_timeout", "30s", 0),
    ]  # fmt: skip
    database.fails = psycopg.errors.LockNotAvailable("canceling statement due to lock timeout")
    store = PostgresStore(ADDRESS)
    store.items("a")
    opened[1][2].fails = database.fails
    with pytest.raises(
        StoreError, match=r"^another session of the database has held what is needed for 10 s: try again, "
    ):
        store.put("a", "k", {})


def test_a_connection_that_was_lost_since_its_last_use_is_made_anew(opened: list[Any]) -> None:
    store = PostgresStore(ADDRESS)
    store.put("a", "k", {})
    opened[0][2].lost = True
    assert store.put("a", "new", {}) == 1 and len(opened) == 2 and opened[0][2].closed
    assert [each.key for each in store.items("a")] == ["new"] and len(opened) == 2


@pytest.mark.parametrize("how", ["lost", "closed"])
def test_a_transaction_never_goes_on_in_another_connection(how: str, opened: list[Any]) -> None:
    store = PostgresStore(ADDRESS)
    with pytest.raises(StoreError, match="the connection is lost"), store.exclusive("queue q"):
        opened[0][2].is_held = True
        setattr(opened[0][2], how, True)
        store.put("a", "k", {})
    assert len(opened) == 1, "its lock and what was done went with the connection"
    assert store.put("a", "k", {}) == 1 and len(opened) == 2, "the next one begins anew"
    with store.exclusive("queue q"):
        opened[1][2].is_held = True
        assert store.get("a", "k") is not None
    opened[1][2].is_held = False
    opened[1][2].lost = True
    assert store.items("a") == [] and len(opened) == 3


def test_a_database_that_stays_out_of_reach_is_tried_once_more_and_told(
    opened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Database.__init__

    def lost(self: Database) -> None:
        made(self)
        self.lost = True

    monkeypatch.setattr(Database, "__init__", lost)
    store = PostgresStore(ADDRESS)
    with pytest.raises(StoreError, match=r"^the database cannot be used: the connection is lost$"):
        store.items("a")
    assert len(opened) == 1 and opened[0][2].closed and store._connection is None, "none without its tables is kept"


def test_a_fault_of_the_database_is_one_sentence_without_its_address(
    opened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PostgresStore(ADDRESS)
    store.put("a", "k", {})
    database = opened[0][2]
    for fault in (
        psycopg.OperationalError("line one\n  " + "y" * 400),
        psycopg.ProgrammingError("line one\n  " + "y" * 400),
    ):
        database.fails = fault
        with pytest.raises(StoreError) as told:
            store.items("a")
        assert str(told.value) == f"the database cannot be used: line one {'y' * 291}"
    database.fails = UnicodeEncodeError("latin-1", "a€", 1, 2, "not in range")
    says = (
        r"^the database cannot be used: 'latin-1' codec can't encode character '\\u20ac' in position 1: not in range$"
    )
    for use in (lambda: store.put("a", "k", {"n": "€"}), lambda: store.log("a", {}), lambda: store.remove("a", "k")):
        with pytest.raises(StoreError, match=says):
            use()
    database.fails = None
    assert store.get("a", "k") == StoredItem("k", {}, 1, store.items("a")[0].at) and store.logged("a") == []
    database.rows.execute("UPDATE firsthand_items SET body = '[1]'")
    for read in (lambda: store.get("a", "k"), lambda: store.items("a")):
        with pytest.raises(
            StoreError, match="the store's row 'k' holds no JSON object: another program has written it"
        ):
            read()
    for error, says in (
        (psycopg.ProgrammingError("bad secret"),
         "the database's address cannot be read: give postgresql://user@host/name or host=... dbname=..."),
        (psycopg.OperationalError("no server"), "the database cannot be used: no server"),
    ):  # fmt: skip

        def refuse(*_: Any, error: Exception = error, **__: Any) -> Any:
            raise error

        monkeypatch.setattr(psycopg, "connect", refuse)
        with pytest.raises(StoreError) as told:
            PostgresStore(ADDRESS).items("a")
        assert str(told.value) == says
