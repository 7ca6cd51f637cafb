"""SQL statements as their process carries them out, as the tools tell of them, and databases that are kept for an undo."""

from __future__ import annotations

import base64
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from firsthand.declaration import Declaration
from firsthand.errors import ConfigError, ToolError
from firsthand.tools.databases import sql_undo
from firsthand.tools.databases.sql_process import FORBIDDEN_FUNCTIONS, authorizer, carried_out, functions_called, tables
from firsthand.tools.databases.sql_undo import pages_of, put_back
from firsthand.tools.sql import SqlFile, _cell, _cut, sql


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("""
            CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT); INSERT INTO books VALUES (1, 'Emma'), (2, 'Walden');
            CREATE TABLE authors (name TEXT); CREATE INDEX by_title ON books (title);
            CREATE VIEW cheap AS SELECT id FROM books;
        """)
    return path


def reply(path: Path, statement: str, **more: Any) -> dict[str, Any]:
    request = {"path": path.as_uri(), "write": False, "rehearse": False, "statement": statement, "seconds": 5.0}
    return carried_out(request | {"max_rows": 3, "max_chars": 100, "max_cell": 5} | more)


def ids(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM books ORDER BY id")]


def test_a_statement_gives_rows_or_a_count_and_is_kept_only_where_it_may_be(shop: Path) -> None:
    assert reply(shop, "SELECT id, title AS long_title, NULL AS n FROM books ORDER BY id DESC") == {
        "columns": ["id", "long_... (10 characters)", "n"],
        "rows": [["2", "Walde... (6 characters)", None], ["1", "Emma", None]],
        "more": False,
        "count": -1,
    }
    insert = "INSERT INTO books VALUES (7, 'x'), (8, 'y')"
    assert reply(shop, insert) == {"error": "not authorized", "tables": []} and ids(shop) == [1, 2]
    done = {"columns": None, "rows": [], "more": False, "count": 2}
    books = {"table": "books", "verbs": ["INSERT"], "triggers": [], "gone": False}
    rehearsed = done | {"total": 2, "written": [books | {"before": 2, "after": 4}]}
    told = reply(shop, insert, write=True, rehearse=True)
    assert (
        told.pop("volatile") == []
        and told.pop("filled") == told.pop("made") == {}
        and list(told.pop("effect")["rows"]) == ["sqlite_master", "books"]
    )
    assert told == rehearsed and ids(shop) == [1, 2]
    carried_out = done | {"total": 2, "written": [books | {"before": None, "after": None}]}
    assert reply(shop, insert, write=True) == carried_out and ids(shop) == [1, 2, 7, 8]
    deleted = reply(shop, "DELETE FROM books WHERE id > 6 RETURNING id", write=True, rehearse=True)
    assert (deleted["columns"], sorted(deleted["rows"])) == (["id"], [["7"], ["8"]]) and ids(shop) == [1, 2, 7, 8]
    assert reply(shop, "CREATE TABLE t (a)", write=True)["count"] == -1
    assert reply(shop, "SELECT * FROM missing") == {
        "error": "no such table: missing", "tables": ["books", "authors", "cheap", "t"],
    }  # fmt: skip
    assert reply(shop, "SELECT missing FROM books") == {"error": "no such column: missing", "tables": []}
    assert reply(shop, "SELECT '\ud800'") == {"error": "characters"}
    assert reply(shop.parent / "none.db", "SELECT 1")["error"].startswith("cannot be opened: unable to open")
    assert reply(shop, "SELECT 1 FROM a_view_of_nothing", seconds=-1.0)["error"] != "interrupted", "it fails before"
    endless = "WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x) SELECT count(*) FROM x"
    assert reply(shop, endless, seconds=-1.0) == {"error": "interrupted", "tables": []}


def test_the_functions_that_a_statement_calls_are_known_by_name_with_those_of_defaults() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript("CREATE TABLE t (a, at DEFAULT (strftime('%s', 'now')), n DEFAULT 3)")
        for statement, called in (
            ("SELECT Date('now'), abs(-1), max(1, 2, 3)", {"date", "abs", "max"}), ("SELECT random()", {"random"}),
            ("INSERT INTO t (a) VALUES (1)", {"strftime"}), ("INSERT INTO t VALUES (1, 2, 3)", set()),
            ("SELECT 'date(-1)'", set()),
        ):  # fmt: skip
            assert functions_called(connection, statement) == called, statement
        with pytest.raises(sqlite3.Error):
            functions_called(connection, "; DELETE FROM t")
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,), "nothing is run"


def test_functions_and_statements_that_reach_further_are_denied_and_others_are_not(shop: Path) -> None:
    for statement in ("SELECT Load_Extension('x')", "PRAGMA user_version", "ATTACH ':memory:' AS m", "DETACH main"):
        for write in (False, True):
            assert "not authorized" in reply(shop, statement, write=write)["error"] or "prohibited" in str(
                reply(shop, statement)
            )
    assert reply(shop, "SELECT upper('a'), abs(-1), count(*) FROM books")["rows"] == [["A", "1", "2"]]
    assert (
        reply(shop, "WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x LIMIT 3) SELECT n FROM x")["more"]
        is False
    )
    assert reply(shop, "UPDATE books SET title = 'z'", write=True)["count"] == 2
    assert "Expression tree is too large (maximum depth 200)" in reply(shop, f"SELECT {'1+' * 250}1")["error"]
    assert reply(shop, f"SELECT {'1+' * 150}1")["rows"] == [["151"]]
    union = " UNION ALL ".join(["SELECT 1"] * 100)
    assert len(reply(shop, union, max_rows=200, max_chars=9_000)["rows"]) == 100
    assert "too many terms in compound SELECT" in reply(shop, f"{union} UNION ALL SELECT 1")["error"]
    assert "too big" in reply(shop, "SELECT zeroblob(10000001)")["error"]
    assert reply(shop, "SELECT zeroblob(10000000)")["rows"] == [["(10000000 bytes)"]]
    with closing(sqlite3.connect(shop)) as connection, connection:
        connection.execute("INSERT INTO authors VALUES (CAST(x'61ff62' AS TEXT))")
    assert reply(shop, "SELECT name FROM authors")["rows"] == [["a\ufffdb"]]


def test_each_failure_is_told_with_what_to_do(shop: Path) -> None:
    told = SqlFile(shop, query_s=2.5)._told
    many = [f"t{number}" for number in range(60)]
    assert {error: told(error, tables) for error, tables in (
        ("characters", ()), ("cannot be opened: locked", ()), ("interrupted", ()), ("out of memory", ()),
        ("not authorized", ()), ("access to x.y is prohibited", ()), ("attempt to write a readonly database", ()),
        ("no such table: boks", ("books", "authors")), ("no such table: zzz", many), ("no such table: q", ()),
        ("no such column: x", ("books",)), ("s" * 501, ()),
    )} == {
        "characters": "the statement holds characters that SQL cannot hold",
        "cannot be opened: locked": "the database cannot be opened: locked",
        "interrupted": "the statement did not end within 2.5 s: ask for less, or join on what is indexed",
        "out of memory": "the statement needs more than 512 MiB of memory: ask for less",
        "not authorized": "this is not allowed here (not authorized): only the data of this database may be asked for",
        "access to x.y is prohibited":
            "this is not allowed here (access to x.y is prohibited): only the data of this database may be asked for",
        "attempt to write a readonly database":
            "this is not allowed here (attempt to write a readonly database): "
            "only the data of this database may be asked for",
        "no such table: boks": "no such table 'boks'; did you mean 'books'?",
        "no such table: zzz": f"no such table 'zzz'; there are {', '.join(many[:50])}",
        "no such table: q": "no such table 'q'; there are none",
        "no such column: x": "the statement failed: no such column: x",
        "s" * 501: "the statement failed: " + "s" * 500,
    }  # fmt: skip
    assert _cut(["a", "b" * 16_000], 1) == "a\n" + "b" * 14_998
    assert _cell("a|b\nc\x1b") == "a\\|b\\nc\\x1b"


@pytest.mark.slow
def test_the_tools_of_a_database_read_change_and_rehearse_it(shop: Path) -> None:
    base = SqlFile(str(shop))
    assert base.sql_query("SELECT id FROM books WHERE id = 1") == "id\n1"
    with pytest.raises(ToolError, match=r"^this is no statement that gives rows: write a SELECT$"):
        base.sql_query("-- nothing")
    assert base.sql_schema() == (
        "CREATE TABLE authors (name TEXT);\nCREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT);\n"
        "CREATE VIEW cheap AS SELECT id FROM books;\nCREATE INDEX by_title ON books (title);"
    )
    assert base.rehearsed({"statement": "DELETE FROM books"}) == "2 rows would be changed"
    assert base.rehearsed({"statement": "DELETE FROM books RETURNING id"}).split("\n")[0] == "2 rows would be changed"
    assert base.rehearsed({"statement": "CREATE TABLE t (a)"}) == "no row would be changed" and ids(shop) == [1, 2]
    assert base.sql_change("DELETE FROM books WHERE id > 5") == "done: 0 rows changed"
    assert base.sql_change(f"CREATE TABLE wide ({', '.join(f'column_{n:04}' for n in range(1_200))})") == "done"
    assert base.sql_schema() == (  # a statement that does not fit is left out
        "CREATE TABLE authors (name TEXT);\nCREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT);\n"
        "CREATE VIEW cheap AS SELECT id FROM books;\n[there is more]"
    )
    many = base.reply("SELECT id, 'abcdef' AS t FROM books", max_rows=1, max_cell=20)
    assert (many["columns"], many["rows"], many["more"]) == (["id", "t"], [["1", "abcdef"]], True)
    assert base.reply("INSERT INTO books VALUES (3, 'x')", write=True)["count"] == 1 and ids(shop) == [1, 2, 3]
    reading, changing = sql(str(shop))[:2], sql(str(shop), write=True)[2]
    assert [(each.name, each.effect, each.origin, each.declares) for each in reading] == [
        (name, "read", "the database shop.db", Declaration(readers="user")) for name in ("sql_query", "sql_schema")
    ]
    assert (changing.name, changing.effect) == (
        "sql_change",
        "irreversible",
    ) and changing.origin == "the database shop.db"
    assert changing.declares == Declaration(readers="user") and changing.declares.undo is not None
    with pytest.raises(ConfigError, match=r"none\.db' cannot be read: No such file or directory"):
        SqlFile(shop.parent / "none.db")
    empty = shop.parent / "empty.db"
    empty.touch()
    assert SqlFile(empty).sql_schema() == "(the database has no tables)"
    Path(f"{shop}-journal").write_bytes(b"x" + bytes.fromhex("d9d505f920a163d7"))
    forged = "shop.db-journal beside the database names another file, which SQLite would delete: remove it"
    for work in (lambda: base.sql_query("SELECT 1"), lambda: pages_of(shop)):
        with pytest.raises(ToolError, match=forged):
            work()


def test_a_database_is_kept_up_to_its_size_and_put_back_as_it_was(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declares = sql(str(shop), write=True)[2].declares
    assert declares is not None and declares.undo is not None
    state = declares.undo.capture({"statement": "x"})
    with closing(sqlite3.connect(shop)) as connection, connection:
        connection.execute("DELETE FROM books")
    assert declares.undo.capture({}) != state and ids(shop) == []
    declares.undo.restore({}, state)
    assert ids(shop) == [1, 2] and declares.undo.capture({}) == state
    kept = pages_of(shop)
    assert (kept[18:20], kept[24:28], kept[40:44], kept[92:100]) == (b"\1\1", bytes(4), bytes(4), bytes(8))
    monkeypatch.setattr(sql_undo, "MAX_DATABASE", len(kept))
    assert pages_of(shop) == kept
    monkeypatch.setattr(sql_undo, "MAX_DATABASE", len(kept) - 1)
    with pytest.raises(ToolError, match=rf"^shop\.db has more than {len(kept) - 1:,} bytes: it could not be put back$"):
        pages_of(shop)
    with pytest.raises(ToolError, match=r"the database none\.db cannot be kept or put back: unable to open"):
        put_back(shop.parent / "none.db", kept)


def test_a_database_that_somebody_holds_is_not_waited_for_without_end(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_undo, "BUSY_S", 0.01)
    pages = pages_of(shop)
    said = r"^the database shop\.db cannot be kept or put back: database is locked$"
    with closing(sqlite3.connect(shop, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ToolError, match=said):
            put_back(shop, pages)
        with pytest.raises(ToolError, match=said):
            pages_of(shop)
    put_back(shop, pages)
    assert pages_of(shop) == pages and ids(shop) == [1, 2]


def test_the_tables_are_named_though_the_time_of_the_statement_is_over() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        for name in ("a", "b"):
            connection.execute(f"CREATE TABLE {name} (x)")
        connection.execute("CREATE INDEX i ON a (x)")
        connection.execute("CREATE VIEW v AS SELECT 1")
        connection.set_progress_handler(lambda: 1, 1)
        assert tables(connection) == ["a", "b", "v"]
        connection.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)
        assert tables(connection) == []


@pytest.mark.parametrize("writes", [False, True])
def test_each_thing_that_a_statement_does_is_allowed_or_denied_by_its_kind(writes: bool) -> None:
    decide = authorizer(writes=writes)
    names = ("load_extension", "readfile", "writefile", "edit", "fts3_tokenizer")
    assert names == FORBIDDEN_FUNCTIONS
    for name in names:
        for spelled in (name, name.upper(), name.title()):
            assert decide(sqlite3.SQLITE_FUNCTION, None, spelled, None, None) == sqlite3.SQLITE_DENY
    for name in ("upper", "load_extensions", "xedit", "", None):
        assert decide(sqlite3.SQLITE_FUNCTION, "edit", name, "edit", "edit") == sqlite3.SQLITE_OK
    reading = {"SELECT", "READ", "RECURSIVE"}
    changing = {
        "INSERT", "UPDATE", "DELETE", "CREATE_TABLE", "CREATE_INDEX", "CREATE_VIEW", "CREATE_TRIGGER", "DROP_TABLE",
        "DROP_INDEX", "DROP_VIEW", "DROP_TRIGGER", "ALTER_TABLE", "TRANSACTION", "SAVEPOINT", "REINDEX", "ANALYZE",
        "CREATE_TEMP_TABLE",
    }  # fmt: skip
    never = {"ATTACH", "DETACH", "PRAGMA", "CREATE_VTABLE"}
    every = reading | changing | never
    allowed = {
        each
        for each in every
        if decide(getattr(sqlite3, f"SQLITE_{each}"), "edit", "edit", None, None) == sqlite3.SQLITE_OK
    }
    assert allowed == (reading | changing if writes else reading)


def test_statements_are_carried_out_up_to_each_limit(shop: Path) -> None:
    def told(statement: str, **more: Any) -> Any:
        found = reply(shop, statement, **more)
        return found.get("error", found.get("rows"))

    assert told(f"SELECT {'1+' * 199}1") == [["200"]]
    assert told(f"SELECT {'1+' * 200}1") == "Expression tree is too large (maximum depth 200)"
    for kind in ("LIKE", "GLOB"):
        assert told(f"SELECT 'a' {kind} '{'a' * 200}'") == [["0"]]
        assert told(f"SELECT 'a' {kind} '{'a' * 201}'") == "LIKE or GLOB pattern too complex"
    assert told("SELECT 1".ljust(100_000)) == [["1"]] and told("SELECT 1".ljust(100_001)) == "query string is too large"
    assert told("SELECT 1; SELECT 2") == "You can only execute one statement at a time."
    assert told("") == [] == told("BEGIN", write=True) and told("BEGIN") == "not authorized"
    into = shop.parent / "copy.db"
    for statement in (f"VACUUM INTO '{into}'", f"ATTACH '{into}' AS c"):
        for write in (False, True):
            assert "authoriz" in told(statement, write=write) and not into.exists()
    assert told("CREATE VIRTUAL TABLE v USING fts5(a)", write=True) == "not authorized"
    assert told("CREATE TEMP TABLE t (a)", write=True) == [] and told("SELECT * FROM t") == "no such table: t"
    assert told("SELECT x'616263', 12345, 123456, 1.5") == [["(3 bytes)", "12345", "12345... (6 characters)", "1.5"]]
    assert told("INSERT INTO books VALUES (9, 'y'), (1, 'z')", write=True) == "UNIQUE constraint failed: books.id"
    assert ids(shop) == [1, 2], "all of a statement or nothing"


def test_a_kept_database_is_put_back_only_where_one_is(shop: Path) -> None:
    undo = sql_undo.sql_undo(shop)
    state = undo.capture({"statement": "DELETE FROM books"})
    assert state == {"base64": base64.b64encode(pages_of(shop)).decode()}
    cannot = "the database shop.db cannot be kept or put back: "
    shop.rename(shop.with_name("moved.db"))
    for work in (lambda: undo.restore({}, state), lambda: undo.capture({})):
        with pytest.raises(ToolError) as told:
            work()
        assert str(told.value) == f"{cannot}unable to open database file"
    assert [each.name for each in shop.parent.iterdir()] == ["moved.db"], "none is made"
    shop.touch()
    undo.restore({}, state)
    assert ids(shop) == [1, 2] and undo.capture({}) == state, "an empty file is a database"
    shop.write_bytes(b"no database at all" * 100)
    with pytest.raises(ToolError, match=f"^{cannot}file is not a database$"):
        undo.restore({}, state)
    with pytest.raises(ToolError, match=f"^{cannot}file is not a database$"):
        undo.capture({})
    assert shop.read_bytes() == b"no database at all" * 100
    with closing(sqlite3.connect(shop.with_name("moved.db"))) as connection, connection:
        connection.execute("DROP TABLE books")
    shop.unlink()
    shop.with_name("moved.db").rename(shop)
    undo.restore({"statement": "another"}, state)
    assert ids(shop) == [1, 2] and undo.capture({}) == state
    journal = Path(f"{shop}-journal")
    journal.write_bytes(b"x" + bytes.fromhex("d9d505f920a163d7"))
    forged = "shop.db-journal beside the database names another file, which SQLite would delete: remove it"
    for work in (lambda: undo.restore({}, state), lambda: undo.capture({})):
        with pytest.raises(ToolError) as told:
            work()
        assert str(told.value) == forged and journal.exists()
