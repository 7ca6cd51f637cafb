"""Documents and chunks as rows of an index's tables: what is written for one document, and what is read back."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.store.analyzer import plain_text
from firsthand.retrieval.store.filter_conditions import canonical, field_of
from firsthand.retrieval.store.meta_reader import MetaReader, meta_column
from firsthand.system.packed_text import text_bytes
from firsthand.system.stored_json import decoded_column

MAX_TEXT_BYTES = 500_000_000
"""Memory that the text of a document may take: four bytes a character if one of them is an emoji."""
MAX_LOCATIONS = 2_000_000
"""Locations of a document, such as its pages or rows."""
_WORDS_AT_ONCE = 10_000
NORM_TOLERANCE = 5e-3
"""A vector's length may be off 1 by so much: f16 rounds, and so do embedders."""


@dataclass(frozen=True)
class PreparedDocument:
    """A document that was checked, with its columns."""

    indexed: IndexedDocument
    columns: tuple[Any, ...]
    """id, title, source, sha256, digest, meta, locations, text."""
    searchable: tuple[bool, ...]
    blobs: tuple[bytes, ...]
    """The vector of each chunk in f16; empty in an index without vectors."""


def prepared(indexed: IndexedDocument, header: IndexHeader) -> PreparedDocument:
    """Check that a document fits the index, and build its columns. ConfigError if it does not fit."""
    document, chunks = indexed.document, list(indexed.chunks)
    text = document.text.encode("utf-8", "surrogatepass")
    if (size := max(len(text), text_bytes(text))) > MAX_TEXT_BYTES:
        raise ConfigError(f"{document.id!r} has {size} bytes of text: split it into parts below {MAX_TEXT_BYTES}")
    _check_chunks(document, chunks)
    vectors = _checked_vectors(document.id, chunks, indexed.vectors, header)
    parents = {chunk.parent for chunk in chunks}
    searchable = (
        tuple(chunk.id not in parents for chunk in chunks)
        if vectors is None
        else tuple(np.any(vectors, axis=1).tolist())
    )
    columns: tuple[Any, ...] = (
        sql_text(document.id),
        sql_text(document.title),
        sql_text(document.source),
        document.sha256,
        digest_of(document, chunks, searchable),
        _form(document.meta, document.id),
        json.dumps([[place.start, place.kind, place.label] for place in document.locations]),
        zlib.compress(text, 3),
    )
    blobs = () if vectors is None else tuple(row.tobytes() for row in vectors.astype("<f2"))
    return PreparedDocument(indexed, columns, searchable, blobs)


def put_document(
    connection: sqlite3.Connection,
    ready: PreparedDocument,
    words: Sequence[Sequence[tuple[int, int]]],
    active: int,
) -> None:
    """Insert a document that is not there, with its chunks, their words (number, count) and their vectors."""
    number = connection.execute(
        "INSERT INTO documents (id, title, source, sha256, digest, meta, locations, text) VALUES (?,?,?,?,?,?,?,?)",
        ready.columns,
    ).lastrowid
    metas: dict[str, int] = {}
    for place, chunk in enumerate(ready.indexed.chunks):
        form = _form(chunk.meta, chunk.document)
        if form not in metas:
            metas[form] = _meta_number(connection, form, chunk.meta)
        row = connection.execute(
            "INSERT INTO chunks (id, document, start, end, heading, parent, meta, text, text_hash, searchable, words, "
            "length) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                chunk.id,
                number,
                chunk.start,
                chunk.end,
                sql_text(chunk.heading),
                chunk.parent,
                metas[form],
                sql_text(chunk.text),
                text_hash(chunk.indexed_text),
                ready.searchable[place],
                *packed_words(words[place]),
            ),
        ).lastrowid
        connection.execute("INSERT INTO terms (rowid, text) VALUES (?, ?)", (row, plain_text(chunk.indexed_text)))
        if ready.blobs:
            connection.execute(f"INSERT INTO vectors_{active} (chunk, vector) VALUES (?, ?)", (row, ready.blobs[place]))


def remove_document(connection: sqlite3.Connection, number: int) -> None:
    """Delete a document with its chunks, terms, vectors, and metas that nothing else has."""
    rows = connection.execute("SELECT number, heading, text, meta FROM chunks WHERE document = ?", (number,)).fetchall()
    connection.executemany(
        "INSERT INTO terms (terms, rowid, text) VALUES ('delete', ?, ?)",
        ((row, plain_text(indexed_text_of(heading, text))) for row, heading, text, _ in rows),
    )
    for table in ("vectors_0", "vectors_1"):
        connection.executemany(f"DELETE FROM {table} WHERE chunk = ?", ((row[0],) for row in rows))
    connection.execute("DELETE FROM chunks WHERE document = ?", (number,))
    for meta in {row[3] for row in rows}:
        if connection.execute("SELECT 1 FROM chunks WHERE meta = ? LIMIT 1", (meta,)).fetchone() is None:
            connection.execute("DELETE FROM fields WHERE meta = ?", (meta,))
            connection.execute("DELETE FROM metas WHERE number = ?", (meta,))
    connection.execute("DELETE FROM documents WHERE number = ?", (number,))
    connection.execute("UPDATE header SET removals = removals + 1")


CHUNK_COLUMNS = f"c.id, d.id, c.start, c.end, c.text, c.heading, c.parent, {meta_column('m.json')}"
CHUNK_TABLES = "chunks c JOIN documents d ON d.number = c.document JOIN metas m ON m.number = c.meta"


def read_chunks(rows: Iterable[Sequence[Any]]) -> list[Chunk]:
    """The chunks of rows of CHUNK_COLUMNS, which are taken one by one. What they share of their document is there once."""
    metas, ids = MetaReader(), dict[str, str]()
    found = []
    for _, id, start, end, text, heading, parent, meta in rows:
        document = python_text(id)
        document = ids.setdefault(document, document)
        found.append(Chunk(document, start, end, python_text(text), python_text(heading), parent, metas.read(meta)))
    return found


DOCUMENT_COLUMNS = f"id, text, title, source, {meta_column('meta')}, locations, sha256"


def read_document(row: Sequence[Any]) -> Document:
    """The document of a row of DOCUMENT_COLUMNS. ValueError if its text has another hash."""
    id, packed, title, source, meta, locations, sha256 = row
    raw = _inflated(packed)
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise ValueError("its text has another hash than it was stored under")
    return Document(
        python_text(id),
        raw.decode("utf-8", "surrogatepass"),
        python_text(title),
        python_text(source),
        MetaReader().read(meta),
        _locations(locations),
    )


def _locations(column: object) -> tuple[Location, ...]:
    """The locations of a column. ValueError if it has another form."""
    places = decoded_column(column, MAX_TEXT_BYTES, 4 * MAX_LOCATIONS)
    if not isinstance(places, list) or not all(map(_is_place, places)):
        raise ValueError("its locations are not lists of a number and two texts")
    return tuple(Location(*place) for place in places)


def _is_place(place: Any) -> bool:
    return isinstance(place, list) and [*map(type, place)] == [int, str, str]


def sql_text(text: str) -> str | bytes:
    """The text, or its bytes where it holds lone surrogates, which SQLite's text cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def python_text(value: str | bytes) -> str:
    """The text that `sql_text` was given."""
    return value if isinstance(value, str) else value.decode("utf-8", "surrogatepass")


def known_numbers(connection: sqlite3.Connection, words: Sequence[str]) -> dict[str, int]:
    """The numbers of those of the words that are stored, many in one query."""
    known = "SELECT word, number FROM json_each(?) CROSS JOIN words ON word = value"
    found: dict[str, int] = {}
    for first in range(0, len(words), _WORDS_AT_ONCE):
        some = json.dumps(words[first : first + _WORDS_AT_ONCE])
        found.update(connection.execute(known, (some,)).fetchall())
    return found


def word_numbers(connection: sqlite3.Connection, words: Iterable[str]) -> dict[str, int]:
    """The numbers of words; those that are new are stored."""
    wanted = sorted(words)
    found = known_numbers(connection, wanted)
    last = connection.execute("SELECT coalesce(max(number), 0) FROM words").fetchone()[0]
    new = {word: number for number, word in enumerate((each for each in wanted if each not in found), last + 1)}
    connection.executemany("INSERT INTO words (word, number) VALUES (?, ?)", new.items())
    return found | new


def packed_words(words: Sequence[tuple[int, int]]) -> tuple[bytes, int]:
    """The words of a chunk (number, count) as its column holds them, and its length."""
    counts = np.array(words, dtype="<u4").reshape(-1, 2)
    return counts.tobytes(), int(counts[:, 1].sum())


def unpacked_words(column: bytes) -> list[tuple[int, int]]:
    """The words of a chunk (number, count) in a column of `packed_words`. ValueError or TypeError if it has another form."""
    return [(number, count) for number, count in np.frombuffer(column, dtype="<u4").reshape(-1, 2).tolist()]


def text_hash(text: str) -> bytes:
    """The hash that finds a text that was embedded before."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


def indexed_text_of(heading: str | bytes, text: str | bytes) -> str:
    """The `indexed_text` of a chunk's columns."""
    return Chunk("-", 0, 0, python_text(text), python_text(heading)).indexed_text


def _check_chunks(document: Document, chunks: Sequence[Chunk]) -> None:
    ids = {chunk.id for chunk in chunks}
    if len(ids) < len(chunks):
        raise ConfigError(f"two chunks of {document.id!r} have one span and text: give each span once")
    for chunk in chunks:
        if chunk.document != document.id:
            raise ConfigError(
                f"a chunk of {chunk.document!r} was given with the document {document.id!r}: give its own"
            )
        if not 0 <= chunk.start <= chunk.end or document.text[chunk.start : chunk.end] != chunk.text:
            raise ConfigError(
                f"the chunk {chunk.start}..{chunk.end} of {document.id!r} is not the document's text there: chunk it again"
            )
        if chunk.parent is not None and chunk.parent not in ids:
            raise ConfigError(
                f"a chunk of {document.id!r} has a parent that is none of its chunks: give the parent too"
            )


def _checked_vectors(
    id: str, chunks: Sequence[Chunk], vectors: NDArray[np.float32] | None, header: IndexHeader
) -> NDArray[np.float32] | None:
    if not header.dimension:
        if vectors is not None:
            raise ConfigError(
                f"vectors were given for {id!r}, and this index has terms alone: make one with an embedder"
            )
        return None
    shape = (len(chunks), header.dimension)
    if vectors is None or vectors.shape != shape:
        given = "no vectors" if vectors is None else f"vectors of shape {vectors.shape}"
        raise ConfigError(f"{id!r} comes with {given}, and its chunks need {shape}: embed each chunk's indexed_text")
    checked_lengths(vectors, repr(id), zeros=True)
    parents = {chunk.parent for chunk in chunks}
    for chunk, has_vector in zip(chunks, np.any(vectors, axis=1), strict=True):
        # zeros say that a chunk is not searched: right of a parent, and of a text without words, such as a line of dashes
        if not has_vector and chunk.id not in parents and any(map(str.isalnum, chunk.indexed_text)):
            raise ConfigError(
                f"the chunk {chunk.start}..{chunk.end} of {id!r}, {chunk.text.strip()!r:.60}, has a vector of zeros, by "
                "which nothing is found: let the embedder give each text a vector of Euclidean length 1"
            )
    return vectors


def checked_lengths(vectors: NDArray[np.float32], owner: str, *, zeros: bool) -> None:
    """ConfigError if a vector's length is not 1, nor 0 where `zeros` allows it."""
    lengths = np.linalg.norm(vectors, axis=1)
    wrong = ~((np.abs(lengths - 1) <= NORM_TOLERANCE) | ((lengths == 0) & zeros))
    if wrong.any():
        raise ConfigError(
            f"a vector of {owner} has the length {lengths[wrong][0]:.4g}: divide vectors by their Euclidean length"
        )


def digest_of(document: Document, chunks: Sequence[Chunk], searchable: Sequence[bool]) -> bytes:
    """A hash of all that is stored of a document but its vectors."""
    form = [document.title, document.source, document.meta, [[p.start, p.kind, p.label] for p in document.locations]]
    rows = [[c.id, c.heading, c.parent, c.meta, s] for c, s in zip(chunks, searchable, strict=True)]
    text = json.dumps([document.sha256, form, rows], sort_keys=True, default=dict)
    return hashlib.sha256(text.encode()).digest()[:16]


def _form(meta: Mapping[str, Json], id: str) -> str:
    """The meta as its column holds it. ConfigError if it is no JSON, or larger than what is read."""
    try:
        canonical(dict(meta))
    except ConfigError as error:
        raise ConfigError(f"the meta of {id!r}: {error}") from None
    form = json.dumps(dict(meta))
    try:
        MetaReader().read(form)
    except ValueError as error:
        raise ConfigError(f"the meta of {id!r} cannot be kept: {error}; keep fewer of its fields") from None
    return form


def _meta_number(connection: sqlite3.Connection, form: str, meta: Mapping[str, Json]) -> int:
    found = connection.execute("SELECT number FROM metas WHERE json = ?", (form,)).fetchone()
    if found is not None:
        return int(found[0])
    number = connection.execute("INSERT INTO metas (json) VALUES (?)", (form,)).lastrowid
    connection.executemany(
        "INSERT INTO fields (key, kind, value, meta) VALUES (?, ?, ?, ?)",
        ((key.encode("utf-8", "surrogatepass"), *field_of(value), number) for key, value in meta.items()),
    )
    return int(number or 0)


def _inflated(packed: bytes) -> bytes:
    inflater = zlib.decompressobj()
    raw = inflater.decompress(packed, MAX_TEXT_BYTES)
    if not inflater.eof or text_bytes(raw) > MAX_TEXT_BYTES:
        raise ValueError("its text is cut short, or too large")
    return raw
