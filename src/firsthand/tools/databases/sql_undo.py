"""Takes changes of a SQLite file back: the whole database before a change, and putting it back in one transaction.

A state is the database's pages without the fields of its header that count changes and name the library, so that a database
that was put back has the hash from before. Left out: databases above `MAX_DATABASE`, whose change is refused under a guard
that records states.
"""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from firsthand.declaration import Undo
from firsthand.errors import ToolError
from firsthand.message import Json
from firsthand.system.sqlite_journal import forged_journal
from firsthand.system.terminal import one_line
from firsthand.tools.databases.sql_process import LIMITS

MAX_DATABASE = 5_500_000
"""The most bytes of a database that is kept for an undo."""
BUSY_S = 2.0
_VOLATILE = ((18, b"\1\1"), (24, bytes(4)), (40, bytes(4)), (92, bytes(8)))
"""Fields of the header: journal mode, change counter, schema cookie, and the change and library they are valid for."""


def sql_undo(database: Path) -> Undo:
    """The Undo of any change of a database."""

    def capture(arguments: Json) -> Any:
        return {"base64": base64.b64encode(pages_of(database)).decode("ascii")}

    def restore(arguments: Json, state: Any) -> None:
        put_back(database, base64.b64decode(state["base64"]))

    return Undo(capture, restore)


def pages_of(database: Path) -> bytes:
    """The pages of a database, without what differs between equal ones. ToolError if they cannot be read."""
    if database.is_file() and database.stat().st_size > MAX_DATABASE:  # before SQLite parses its schema
        raise _too_large(database)
    with _opened(database, "ro") as connection:
        ((count,),), ((size,),) = connection.execute("PRAGMA page_count"), connection.execute("PRAGMA page_size")
        if count * size > MAX_DATABASE:
            raise _too_large(database)
        pages = bytearray(connection.serialize() if count else _empty())
    for at, plain in _VOLATILE:
        pages[at : at + len(plain)] = plain
    return bytes(pages)


def put_back(database: Path, pages: bytes) -> None:
    """Makes these the pages of the database, all or none of them. ToolError if somebody else holds it."""
    with _opened(database, "rw") as connection, closing(sqlite3.connect(":memory:")) as kept:
        kept.deserialize(pages)
        kept.backup(connection, progress=_give_up)


def _too_large(database: Path) -> ToolError:
    return ToolError(f"{database.name} has more than {MAX_DATABASE:,} bytes: it could not be put back")


def _empty() -> bytes:
    """The pages of a database without tables, which stand for those of a file that is empty."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("PRAGMA user_version = 0")
        return connection.serialize()


def _give_up(status: int, left: int, pages: int) -> None:
    """Ends a copy to a database that stayed locked for `BUSY_S`, which sqlite3 would try for ever."""
    if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        raise sqlite3.OperationalError("database is locked")


@contextmanager
def _opened(database: Path, mode: str) -> Iterator[sqlite3.Connection]:
    if (journal := forged_journal(database)) is not None:
        raise ToolError(f"{journal.name} beside the database names another file, which SQLite would delete: remove it")
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode={mode}", uri=True, timeout=BUSY_S)) as connection:
            connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, LIMITS[sqlite3.SQLITE_LIMIT_SQL_LENGTH])
            yield connection
    except sqlite3.Error as error:
        said = one_line(str(error)[:300])[:300]
        raise ToolError(f"the database {database.name} cannot be kept or put back: {said}") from None
