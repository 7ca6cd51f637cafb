"""The header of an index: the row that says what determines its vectors and chunks."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict, fields

from firsthand.errors import ConfigError, StoreError
from firsthand.retrieval.chunk_index import IndexHeader
from firsthand.retrieval.store.index_file import IndexFile


def stored_header(connection: sqlite3.Connection) -> IndexHeader | None:
    """The header in the file; None if there is none yet."""
    names = [each.name for each in fields(IndexHeader)]
    row = connection.execute(f"SELECT {', '.join(names)} FROM header").fetchone()
    return None if row is None else IndexHeader(*row)


def agreed_header(file: IndexFile, wanted: IndexHeader | None) -> IndexHeader:
    """The stored header, which is written first if there is none. ConfigError if it is not the wanted one."""
    with file.reading() as connection:
        stored = stored_header(connection)
    if stored is None and wanted is not None:
        if not 0 <= wanted.dimension <= 65_536:
            raise ConfigError(f"the dimension is {wanted.dimension}: give that of the embedder, or 0 for terms alone")
        with file.writing(), file.transaction() as connection:
            stored = stored_header(connection)  # again, now that nobody else can write it
            if stored is None:
                values = asdict(wanted)
                connection.execute(
                    f"INSERT INTO header (id, {', '.join(values)}, active, revision, removals) "
                    f"VALUES (1, {', '.join('?' * len(values))}, 0, 0, 0)",
                    list(values.values()),
                )
                stored = wanted
    if stored is None:
        raise file.damaged("it has no header")
    if wanted is not None:
        refuse_other_header(file.name, stored, wanted)
    return stored


def refuse_other_header(index: str, stored: IndexHeader, wanted: IndexHeader) -> None:
    """ConfigError with what differs, if vectors or chunks of one header do not belong with those of the other.

    An embedder's name may differ: its fingerprint counts.
    """
    differing = [
        f"{name} {repr(was)[:80]} (now {repr(now)[:80]})"
        for (name, was), now in zip(asdict(stored).items(), asdict(wanted).values(), strict=True)
        if was != now and name != "embedder"
    ]
    if differing:
        raise ConfigError(
            f"{index} was made with {', '.join(differing)}: use what it was made with, "
            "or make it again with `firsthand rag reindex`"
        )


def refuse_stale_header(file: IndexFile, connection: sqlite3.Connection, opened: IndexHeader) -> None:
    """StoreError if another process has re-embedded the index since it was opened."""
    if stored_header(connection) != opened:
        raise StoreError(f"{file.name} was re-embedded by another process: open it again")
