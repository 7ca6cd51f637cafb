"""Several processes that open one new index: who comes second is told who makes it, and never that it is damaged."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from firsthand.errors import ConfigError, FirsthandError, StoreError
from firsthand.retrieval.chunk_index import IndexHeader
from firsthand.retrieval.store.index_file import IndexFile
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.system.lock import claimed

HEADER = IndexHeader("none", "", 0, "c")


def busy(holder: str) -> FirsthandError:
    return StoreError(holder)


def empty(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


@pytest.mark.parametrize("header", [HEADER, None])
def test_an_index_that_another_process_makes_is_busy(tmp_path: Path, header: IndexHeader | None) -> None:
    path = tmp_path / "i"
    if header is None:
        empty(path)
    with (
        claimed(tmp_path / "i.lock", busy),
        pytest.raises(StoreError, match=f"is being written by process {os.getpid()}"),
    ):
        open_index(path, header)
    assert path.exists() == (header is None)
    open_index(path, HEADER).close()
    with claimed(tmp_path / "i.lock", busy):  # a whole one is opened beside its writer
        open_index(path, HEADER).close()
        open_index(path).close()


def test_an_empty_file_that_nobody_makes_is_no_index(tmp_path: Path) -> None:
    empty(tmp_path / "i")
    with pytest.raises(StoreError, match="is no index"):
        open_index(tmp_path / "i")


def test_tables_and_header_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    seen: list[bool] = []

    def looks(connection: sqlite3.Connection) -> None:
        with closing(sqlite3.connect(tmp_path / "i")) as other:
            seen.append(other.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,))
        with pytest.raises(StoreError, match=str(os.getpid())), claimed(tmp_path / "i.lock", busy):
            pass
        raise ConfigError("no")

    with pytest.raises(ConfigError):
        IndexFile(tmp_path / "i", create=True, read_only=False, fill=looks)
    with pytest.raises(ConfigError, match="the dimension is -1"):
        open_index(tmp_path / "i", IndexHeader("e", "f", -1, "c"))
    assert seen == [True]
    with closing(sqlite3.connect(tmp_path / "i")) as other:
        assert other.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    with closing(open_index(tmp_path / "i", HEADER)) as index:
        assert index.header == HEADER
