"""A run's file that cannot be written: for which errors of SQLite it is read all the same, and when it is not."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from firsthand.errors import StoreError
from firsthand.runs.database import Database
from firsthand.runs.run_names import DATABASE


def unwritable(why: str) -> type[Database]:
    """A Database where opening a file for writing ends in this error of SQLite."""

    class Unwritable(Database):
        def _connect_as(self, mode: str) -> sqlite3.Connection:
            if mode == "ro&immutable=1":
                return super()._connect_as(mode)
            error = sqlite3.OperationalError("it says")
            error.sqlite_errorname = why
            raise error

    return Unwritable


def test_a_file_is_only_read_where_its_folder_or_disk_takes_no_writing_and_no_log_waits(tmp_path: Path) -> None:
    path = tmp_path / DATABASE
    Database(path, create=True).close()
    wal = path.with_name(f"{DATABASE}-wal")
    read = {}
    for why in ("SQLITE_CANTOPEN", "SQLITE_CANTOPEN_ISDIR", "SQLITE_READONLY", "SQLITE_READONLY_DIRECTORY",
                "SQLITE_READONLY_CANTINIT", "SQLITE_IOERR", "SQLITE_IOERR_SHMOPEN", "SQLITE_PERM", "SQLITE_AUTH",
                "SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_BUSY", "SQLITE_FULL", ""):  # fmt: skip
        made = unwritable(why)
        with pytest.raises(StoreError):
            made(path, create=True)
        wal.write_bytes(b"what waits in the log")
        with pytest.raises(StoreError):
            made(path)
        wal.write_bytes(b"")
        try:
            database = made(path)
        except StoreError:
            read[why] = False
        else:
            read[why] = database.read("SELECT count(*) FROM run") == [(0,)]
            told = r"cannot be written \(attempt to write a readonly database\): make its folder writable"
            with pytest.raises(StoreError, match=told), database.write() as connection:
                connection.execute("DELETE FROM run")
            database.close()
            assert database.read("SELECT count(*) FROM run") == [(0,)], "a later use opens it again"
            database.close()
        wal.unlink()
    assert [why for why, was_read in read.items() if was_read] == [
        "SQLITE_CANTOPEN", "SQLITE_CANTOPEN_ISDIR", "SQLITE_READONLY", "SQLITE_READONLY_DIRECTORY",
        "SQLITE_READONLY_CANTINIT", "SQLITE_IOERR", "SQLITE_IOERR_SHMOPEN",
    ]  # fmt: skip
