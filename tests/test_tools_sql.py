"""SQL: what can be asked, and that asking can change nothing, reach nothing else, and not go on for ever."""

import asyncio
import os
import resource
import sqlite3
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from firsthand import catalog
from firsthand.errors import ConfigError, ToolError
from firsthand.tool import Tool
from firsthand.tools.sql import MAX_ROWS, SqlFile, sql


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "shop's #1?.db"
    with sqlite3.connect(path) as connection:
        connection.executescript("""
            CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT, price REAL, cover BLOB);
            INSERT INTO books VALUES (1, 'Emma', 7.5, x'00ff'), (2, 'Walden | or' || char(10) || 'Life', NULL, NULL);
            CREATE VIEW cheap AS SELECT title FROM books WHERE price < 10;
            CREATE TABLE numbers (n INTEGER);
        """)
        connection.executemany("INSERT INTO numbers VALUES (?)", [(n,) for n in range(1000)])
    connection.close()
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE secrets (s)")
        connection.execute("INSERT INTO secrets VALUES ('the other secret')")
    connection.close()
    return path


@lru_cache(2)
def tools_of(shop: Path) -> dict[str, Tool]:
    return {each.name: each for each in sql(str(shop), write=True)}


def call(shop: Path, name: str, **arguments: Any) -> str:
    return asyncio.run(tools_of(shop)[name](arguments))


def refused(shop: Path, name: str, **arguments: Any) -> str:
    with pytest.raises(ToolError) as error:
        call(shop, name, **arguments)
    return str(error.value)


@pytest.mark.slow
def test_rows_come_as_a_table(shop: Path) -> None:
    assert call(shop, "sql_query", query="SELECT * FROM books") == (
        "id | title | price | cover\n1 | Emma | 7.5 | (2 bytes)\n2 | Walden \\| or\\nLife | NULL | NULL"
    )
    assert call(shop, "sql_query", query="SELECT title FROM cheap;") == "title\nEmma"
    assert call(shop, "sql_query", query="SELECT 1 AS one WHERE 0") == "one\n(no rows)"
    assert call(shop, "sql_query", query="WITH x(a) AS (VALUES (1), (2)) SELECT sum(a) s FROM x") == "s\n3"


def test_the_schema_is_told(shop: Path) -> None:
    told = call(shop, "sql_schema")
    assert "CREATE TABLE books (id INTEGER PRIMARY KEY" in told and "CREATE VIEW cheap" in told


@pytest.mark.slow
def test_many_rows_and_long_cells_are_cut_and_say_so(shop: Path) -> None:
    many = call(shop, "sql_query", query="SELECT n FROM numbers")
    assert len(many.splitlines()) == MAX_ROWS + 2 and many.endswith(
        f"these {MAX_ROWS} rows: ask for fewer, or count them]"
    )
    wide = call(shop, "sql_query", query="SELECT hex(zeroblob(4000000)) AS z FROM numbers")
    assert "(8000000 characters)" in wide and len(wide) < 16_000
    names = ", ".join(f"1 AS {'c' * 100}{n}" for n in range(500))
    assert len(call(shop, "sql_query", query=f"SELECT {names} FROM numbers")) < 80_000


@pytest.mark.slow
def test_a_mistake_is_told_with_what_may_be_meant(shop: Path) -> None:
    assert "no such table 'book'; did you mean 'books'?" in refused(shop, "sql_query", query="SELECT * FROM book")
    assert "no such column: titel" in refused(shop, "sql_query", query="SELECT titel FROM books")
    assert "syntax error" in refused(shop, "sql_query", query="SELEC 1")
    assert "write a SELECT" in refused(shop, "sql_query", query="")
    refused(shop, "sql_query", query="SELECT '\ud800'")
    refused(shop, "sql_query", query="SELECT 1\0")


CHANGES = [
    "INSERT INTO books VALUES (3, 'x', 1, NULL)", "UPDATE books SET price = 0", "DELETE FROM books", "DROP TABLE books",
    "CREATE TABLE t (a)", "CREATE TEMP TABLE t (a)", "ALTER TABLE books ADD COLUMN x", "CREATE INDEX i ON books (title)",
    "REINDEX", "ANALYZE", "VACUUM", "BEGIN", "SAVEPOINT s", "COMMIT", "REPLACE INTO books VALUES (1, 'x', 1, NULL)",
    "WITH x AS (SELECT 1) INSERT INTO books SELECT 9, 'x', 1, NULL FROM x", "CREATE VIEW v AS SELECT 1",
    "CREATE TRIGGER t AFTER INSERT ON books BEGIN DELETE FROM books; END", "DELETE FROM books RETURNING *",
    "EXPLAIN DELETE FROM books", "SELECT 1; DELETE FROM books", "-- x\nDELETE FROM books", "PRAGMA user_version = 7",
    "PRAGMA writable_schema = ON", "PRAGMA query_only = OFF", "UPDATE sqlite_master SET sql = ''",
]  # fmt: skip
REACHES = [
    "ATTACH '{other}' AS o", "ATTACH DATABASE 'file:{other}?mode=ro' AS o", "DETACH main", "VACUUM INTO '{new}'",
    "SELECT load_extension('/tmp/x.so')", "SELECT readfile('/etc/passwd')", "SELECT writefile('{new}', 'x')",
    "SELECT fts3_tokenizer('simple', x'00')", "PRAGMA database_list", "PRAGMA temp_store_directory = '/'",
    "SELECT * FROM pragma_database_list", "SELECT edit('x')", "PRAGMA journal_mode = WAL",
    "CREATE VIRTUAL TABLE temp.v USING csv(filename='/etc/passwd')", "ATTACH ':memory:' AS m",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("query", CHANGES + REACHES)
def test_asking_changes_nothing_and_reaches_nothing_else(shop: Path, query: str) -> None:
    before, folder = shop.read_bytes(), sorted(os.listdir(shop.parent))  # noqa: PTH208
    said = refused(shop, "sql_query", query=query.format(other=shop.parent / "other.db", new=shop.parent / "new.db"))
    assert "secret" not in said and str(shop.parent) not in said
    assert shop.read_bytes() == before and sorted(os.listdir(shop.parent)) == folder  # noqa: PTH208


@pytest.mark.slow
@pytest.mark.parametrize("query", REACHES)
def test_changing_reaches_nothing_else_either(shop: Path, query: str) -> None:
    before, folder = shop.read_bytes(), sorted(os.listdir(shop.parent))  # noqa: PTH208
    refused(shop, "sql_change", statement=query.format(other=shop.parent / "other.db", new=shop.parent / "new.db"))
    assert shop.read_bytes() == before and sorted(os.listdir(shop.parent)) == folder  # noqa: PTH208


@pytest.mark.parametrize("word", ["begin", "  COMMIT", "End", "rollback to a", "savepoint a", "release a"])
def test_a_transaction_is_not_begun_or_ended_by_a_call(shop: Path, word: str) -> None:
    told = refused(shop, "sql_change", statement=word)
    assert "each call is a transaction of its own, and nothing was done: give the change itself" in told


@pytest.mark.slow
def test_changes_happen_whole_or_not_at_all(shop: Path) -> None:
    assert call(shop, "sql_change", statement="UPDATE books SET price = 1 WHERE id = 1") == "done: 1 row changed"
    assert call(shop, "sql_query", query="SELECT price FROM books WHERE id = 1") == "price\n1.0"
    assert call(shop, "sql_change", statement="DELETE FROM books WHERE id = 2 RETURNING id") == "id\n2"
    before = shop.read_bytes()
    assert "one statement" in refused(shop, "sql_change", statement="DELETE FROM books; DELETE FROM numbers")
    fails = "UPDATE books SET id = CASE WHEN id = 1 THEN 5 ELSE abs(-9223372036854775808) END"
    call(shop, "sql_change", statement="INSERT INTO books VALUES (2, 'x', 1, NULL)")
    before = call(shop, "sql_query", query="SELECT id FROM books")  # type: ignore[assignment]
    assert "integer overflow" in refused(shop, "sql_change", statement=fails)
    assert call(shop, "sql_query", query="SELECT id FROM books") == before


ENDLESS = [
    "WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x) SELECT count(*) FROM x",
    "SELECT count(*) FROM numbers a, numbers b, numbers c, numbers d",
    "WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x) SELECT n FROM x WHERE n < 0",
    "SELECT max(randomblob(1000)) FROM numbers a, numbers b, numbers c",
]


@pytest.mark.slow
@pytest.mark.parametrize("query", ENDLESS)
def test_a_query_without_end_is_ended(shop: Path, query: str) -> None:
    with pytest.raises(ToolError, match=r"did not end within 0\.05 s"):
        SqlFile(shop, query_s=0.05).sql_query(query)


@pytest.mark.slow
def test_a_change_without_end_is_ended_and_undone(shop: Path) -> None:
    endless = "WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x) INSERT INTO numbers SELECT n FROM x"
    with pytest.raises(ToolError, match="did not end"):
        SqlFile(shop, query_s=0.05).sql_change(endless)
    assert call(shop, "sql_query", query="SELECT count(*) c FROM numbers") == "c\n1000"


@pytest.mark.slow
@pytest.mark.parametrize(
    "query",
    [
        "SELECT zeroblob(2000000000)",
        "SELECT replace(hex(zeroblob(4000000)), '0', hex(zeroblob(1000)))",
        "SELECT " + "abs(" * 5000 + "1" + ")" * 5000,
        "SELECT 1" + " UNION SELECT 1" * 1000,
        "SELECT 1 /*" + "x" * 200_000,
        "SELECT 'a' LIKE '" + "%a" * 5000 + "'",
    ],
)
def test_a_query_for_too_much_is_refused(shop: Path, query: str) -> None:
    refused(shop, "sql_query", query=query)


def test_a_cell_that_would_be_huge_is_not_made(shop: Path) -> None:
    assert call(shop, "sql_query", query="SELECT printf('%2000000000d', 1) AS p") == "p\nNULL"


def test_text_that_is_no_utf8_and_control_characters_are_shown(shop: Path) -> None:
    shown = call(shop, "sql_query", query="SELECT CAST(x'63ff1b5b324a' AS TEXT) AS t")
    assert shown == "t\nc\ufffd\\x1b[2J"


def test_effects_and_the_catalog(shop: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.db"
    shop.rename(plain)
    assert [(each.name, each.effect) for each in catalog.tools(f"sql:{plain}")] == [
        ("sql_query", "read"), ("sql_schema", "read")]  # fmt: skip
    assert catalog.tools(f"sql:{plain}:write=true")[2].effect == "irreversible"
    assert catalog.tools(f"sql:{plain}")[0].origin == "the database plain.db"
    (tmp_path / "no.db").write_text("this is no database at all")
    for path, said in [("no.db", "is no SQLite database"), ("missing.db", "cannot be read"), (".", "cannot be read")]:
        with pytest.raises(ConfigError, match=said):
            sql(str(tmp_path / path))
    assert not (tmp_path / "missing.db").exists()


def test_a_damaged_database_is_a_result_that_says_so(shop: Path) -> None:
    content = bytearray(shop.read_bytes())
    content[100:4096] = os.urandom(3996)
    shop.write_bytes(content)
    refused(shop, "sql_query", query="SELECT * FROM books")


@pytest.mark.slow
@pytest.mark.parametrize(
    "query",
    [
        "SELECT instr(printf('%.*c', 9000000, 'a'), printf('%.*cb', 4000000, 'a'))",
        "SELECT replace(printf('%.*c', 9999999, 'x'), 'x', 'xy')",
        "SELECT " + ", ".join(f"printf('%.*c', {9_000_000 + i}, 'x') AS c{i}" for i in range(900)),
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n ORDER BY random()",
    ],
    ids=["one slow call", "one long result", "many long columns", "a sort without end"],
)
def test_no_single_call_outlasts_its_time_or_takes_the_memory(shop: Path, query: str, tmp_path: Path) -> None:
    """SQLite's progress handler is not asked in the middle of a function: one took 324 s, 900 columns took 3.4 GB."""
    before = set(Path(tempfile.gettempdir()).iterdir())
    # a child counts the size of the process that started it
    largest = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF))
    with pytest.raises(ToolError, match=r"did not end within 1 s|more than 512 MiB|too big|string or blob"):
        SqlFile(shop, query_s=1.0).sql_query(query)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss <= max(largest, 560 * 1024)
    assert not [each for each in set(Path(tempfile.gettempdir()).iterdir()) - before if "sqlite" in each.name]
