"""The SQL tools use full-text tables that are there, and make none."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from firsthand.errors import ToolError
from firsthand.tools.databases.sql_process import authorizer
from firsthand.tools.sql import sql


def test_full_text_tables_are_searched_and_changed_and_not_made(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE VIRTUAL TABLE docs USING fts5(title, body)")
        made.execute("INSERT INTO docs VALUES ('one', 'hello world')")
        made.commit()
    query, *_ = sql(str(path))
    asked = "SELECT title FROM docs WHERE docs MATCH 'hello'"
    assert "one" in str(asyncio.run(query({"query": asked})))
    change = sql(str(path), write=True)[-1]
    asyncio.run(change({"statement": "INSERT INTO docs VALUES ('two', 'hello again')"}))
    assert "two" in str(asyncio.run(query({"query": asked})))
    with pytest.raises(ToolError):
        asyncio.run(change({"statement": "CREATE VIRTUAL TABLE more USING fts5(x)"}))


def test_no_other_pragma_is_allowed() -> None:
    for writes in (False, True):
        decide = authorizer(writes=writes)
        for name, value, is_allowed in (
            ("data_version", None, True),
            ("data_version", "1", False),
            ("writable_schema", None, False),
            ("table_info", "t", False),
        ):
            decided = decide(sqlite3.SQLITE_PRAGMA, name, value, None, None)
            assert (decided == sqlite3.SQLITE_OK) == is_allowed, name
