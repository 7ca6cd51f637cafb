"""The header of an index: the row that says what determines its vectors and chunks."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import MISSING, asdict, fields

from firsthand.errors import ConfigError, StoreError
from firsthand.retrieval.chunk_index import IndexHeader
from firsthand.retrieval.store.index_file import IndexFile

DAMAGED_HEADER = (
    "its header has a value that no index has. Restore it from a copy, or delete it and index the documents again"
)
MAX_DIMENSION = 65_536
MAX_SETTING_CHARS = 10_000
"""The longest embedder, chunker or prefix that is believed: a foreign header goes into prompts of the embedder."""


def stored_header(connection: sqlite3.Connection) -> IndexHeader | None:
    """The header in the file; None if there is none yet. StoreError if it holds what we do not write: it names a table."""
    names = [each.name for each in fields(IndexHeader)]
    row = connection.execute(f"SELECT {', '.join(names)}, active, revision, removals FROM header").fetchone()
    if row is None:
        return None
    header, (active, revision, removals) = IndexHeader(*row[:-3]), row[-3:]
    if not (
        is_sound(header) and active in (0, 1) and all(isinstance(each, int) for each in (active, revision, removals))
    ):
        raise StoreError(f"the index is damaged: {DAMAGED_HEADER}")
    return header


def header_in(payload: str, name: str) -> IndexHeader:
    """The header in the record of a server. StoreError if it holds what we do not write: it names an embedder to load."""
    try:
        body = json.loads(payload) if len(payload) <= len(fields(IndexHeader)) * 13 * MAX_SETTING_CHARS else None
    except (ValueError, RecursionError):
        body = None
    known = {each.name: each.default for each in fields(IndexHeader)}
    needed = {key for key, default in known.items() if default is MISSING}
    if isinstance(body, dict) and needed <= body.keys() <= known.keys() and is_sound(header := IndexHeader(**body)):
        return header
    raise StoreError(f"the index {name} is damaged: {DAMAGED_HEADER}")


def is_sound(header: IndexHeader) -> bool:
    """True if every value of a header is one that an index may have."""
    texts = [value for name, value in asdict(header).items() if name != "dimension"]
    is_count = isinstance(header.dimension, int) and not isinstance(header.dimension, bool)
    return (
        is_count
        and 0 <= header.dimension <= MAX_DIMENSION
        and all(isinstance(each, str) and len(each) <= MAX_SETTING_CHARS for each in texts)
    )


def write_header(connection: sqlite3.Connection, header: IndexHeader) -> None:
    """Write the header of a new index. ConfigError for a dimension that no index has."""
    if not 0 <= header.dimension <= MAX_DIMENSION:
        raise ConfigError(f"the dimension is {header.dimension}: give that of the embedder, or 0 for terms alone")
    values = asdict(header)
    connection.execute(
        f"INSERT INTO header (id, {', '.join(values)}, active, revision, removals) "
        f"VALUES (1, {', '.join('?' * len(values))}, 0, 0, 0)",
        list(values.values()),
    )


def agreed_header(file: IndexFile, wanted: IndexHeader | None) -> IndexHeader:
    """The stored header, which is written first if there is none. ConfigError if it is not the wanted one."""
    with file.reading() as connection:
        stored = stored_header(connection)
    if stored is None and wanted is not None:
        with file.writing(), file.transaction() as connection:
            stored = stored_header(connection)  # again, now that nobody else can write it
            if stored is None:
                write_header(connection, wanted)
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
