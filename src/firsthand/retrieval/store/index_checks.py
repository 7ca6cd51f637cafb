"""Recounts everything in an index's file: texts and hashes, spans, words, vectors, fields, and rows without owners."""

from __future__ import annotations

import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterator

import numpy as np

from firsthand.errors import FirsthandError
from firsthand.retrieval.chunk_index import IndexHeader
from firsthand.retrieval.document import Document
from firsthand.retrieval.store import document_rows as rows_of
from firsthand.retrieval.store.analyzer import OLDER_FORMS, Analyzer
from firsthand.retrieval.store.filter_conditions import field_of
from firsthand.retrieval.store.index_file import renewed_up_to
from firsthand.retrieval.store.meta_reader import MetaReader, meta_column

MAX_FAULTS = 100

_ORPHANS = (
    ("SELECT count(*) FROM chunks WHERE document NOT IN (SELECT number FROM documents)", "chunks without a document"),
    ("SELECT count(*) FROM chunks WHERE meta NOT IN (SELECT number FROM metas)", "chunks without their meta"),
    ("SELECT count(*) FROM metas WHERE number NOT IN (SELECT meta FROM chunks)", "metas of no chunk"),
    ("SELECT count(*) FROM fields WHERE meta NOT IN (SELECT number FROM metas)", "fields of no meta"),
    ("SELECT count(*) FROM vectors_0 WHERE chunk NOT IN (SELECT number FROM chunks)", "vectors of no chunk"),
    ("SELECT count(*) FROM vectors_1 WHERE chunk NOT IN (SELECT number FROM chunks)", "vectors of no chunk"),
    ("SELECT count(*) FROM terms_docsize WHERE id NOT IN (SELECT number FROM chunks)", "terms of no chunk"),
    ("SELECT count(*) FROM chunks WHERE number NOT IN (SELECT id FROM terms_docsize)", "chunks without terms"),
    (
        "SELECT count(*) FROM chunks c WHERE parent IS NOT NULL AND NOT EXISTS "
        "(SELECT 1 FROM chunks p WHERE p.id = c.parent AND p.document = c.document)",
        "chunks whose parent is not in their document",
    ),
)


def faults(connection: sqlite3.Connection, header: IndexHeader, analyzer: Analyzer) -> list[str]:
    """The faults of a file, a sentence each: at most MAX_FAULTS, and the number of others."""
    found = [*_all_faults(connection, header, analyzer)]
    more = len(found) - MAX_FAULTS
    return [*found[:MAX_FAULTS], f"There are {more} more faults."] if more > 0 else found


def _all_faults(connection: sqlite3.Connection, header: IndexHeader, analyzer: Analyzer) -> Iterator[str]:
    for (line,) in connection.execute("PRAGMA integrity_check"):
        if line != "ok":
            yield f"SQLite's integrity check: {line}."
    for statement, words in _ORPHANS:
        [count] = connection.execute(statement).fetchone()
        if count:
            yield f"There are {count} {words}."
    yield from _document_faults(connection, analyzer)
    yield from _term_faults(connection)
    yield from _field_faults(connection)
    yield from _vector_faults(connection, header)


def _document_faults(connection: sqlite3.Connection, analyzer: Analyzer) -> Iterator[str]:
    numbers = dict(connection.execute("SELECT word, number FROM words"))
    listed = connection.execute("SELECT number, id FROM documents ORDER BY number").fetchall()
    for number, id in listed:
        row = connection.execute(
            f"SELECT {rows_of.DOCUMENT_COLUMNS}, digest FROM documents WHERE number = ?", (number,)
        ).fetchone()
        try:
            document = rows_of.read_document(row[:-1])
            yield from _chunk_faults(connection, number, document, row[-1], analyzer, numbers)
        except (ValueError, TypeError, KeyError, zlib.error, RecursionError, FirsthandError) as error:
            yield f"The document {str(id)[:200]!r} cannot be read: {error}."


def _chunk_faults(
    connection: sqlite3.Connection,
    number: int,
    document: Document,
    digest: bytes,
    analyzer: Analyzer,
    numbers: dict[str, int],
) -> Iterator[str]:
    name = repr(document.id[:200])
    rows = connection.execute(
        f"SELECT c.number, c.text_hash, c.words, c.length, c.searchable, {rows_of.CHUNK_COLUMNS} "
        f"FROM {rows_of.CHUNK_TABLES} WHERE c.document = ? ORDER BY c.number",
        (number,),
    ).fetchall()
    chunks = rows_of.read_chunks(row[5:] for row in rows)
    texts = [chunk.indexed_text for chunk in chunks]
    first = sum(row[0] <= renewed_up_to(connection) for row in rows)  # of those that a renewal has not reached yet
    counts: list[tuple[dict[str, int], ...]] = [(each,) for each in analyzer.counts(texts[:first])]
    counts += zip(*(analyzer.counts(texts[first:], form=form) for form in OLDER_FORMS), strict=True)
    for chunk, forms, (_, hashed, words, length, _, id, *_) in zip(chunks, counts, rows, strict=True):
        where = f"The chunk {chunk.start}..{chunk.end} of {name}"
        if document.text[chunk.start : chunk.end] != chunk.text:
            yield f"{where} is not the document's text there."
        if chunk.id != id:
            yield f"{where} has an id of another span or text."
        if rows_of.text_hash(chunk.indexed_text) != hashed:
            yield f"{where} has the hash of another text."
        stored = {int(word): int(n) for word, n in np.frombuffer(words, dtype="<u4").reshape(-1, 2)}
        expected = [{numbers.get(word): n for word, n in count.items()} for count in forms]
        if stored not in expected or sum(stored.values()) != length:
            yield f"{where} has other words than its text."
    if rows_of.digest_of(document, chunks, [bool(row[4]) for row in rows]) != digest:
        yield f"The document {name} is not what was stored: a chunk is missing, or a value was changed."


def _term_faults(connection: sqlite3.Connection) -> Iterator[str]:
    """Compares in how many chunks each word is, in FTS5 and in the chunks' own counts."""
    connection.execute("CREATE VIRTUAL TABLE IF NOT EXISTS temp.indexed_words USING fts5vocab (main, terms, row)")
    indexed = dict(connection.execute("SELECT term, doc FROM temp.indexed_words"))
    held: Counter[int] = Counter()
    for (words,) in connection.execute("SELECT words FROM chunks"):
        held.update(np.frombuffer(words[: len(words) // 8 * 8], dtype="<u4")[::2].tolist())
    expected = {
        word: held[number] for word, number in connection.execute("SELECT word, number FROM words") if held[number]
    }
    if indexed != expected:
        wrong = sorted(str(word) for word in {*indexed, *expected} if indexed.get(word) != expected.get(word))
        yield f"FTS5 and the chunks differ in {len(wrong)} words, the first of which is {wrong[0][:50]!r}."


def _field_faults(connection: sqlite3.Connection) -> Iterator[str]:
    for number, form in connection.execute(f"SELECT number, {meta_column('json')} FROM metas").fetchall():
        stored = sorted(connection.execute("SELECT key, kind, value FROM fields WHERE meta = ?", (number,)).fetchall())
        try:
            meta = MetaReader().read(form)
            expected = sorted((key.encode("utf-8", "surrogatepass"), *field_of(value)) for key, value in meta.items())
        except (ValueError, AttributeError, RecursionError, FirsthandError) as error:
            yield f"The meta {number} cannot be read: {error}."
            continue
        if stored != expected:
            yield f"The fields of the meta {form[:80]} are not those that filters read."


def _vector_faults(connection: sqlite3.Connection, header: IndexHeader) -> Iterator[str]:
    active = connection.execute("SELECT active FROM header").fetchone()[0]
    if not header.dimension:
        return
    sizes = short = unequal = missing = 0
    for searchable, blob in connection.execute(
        f"SELECT c.searchable, v.vector FROM chunks c LEFT JOIN vectors_{active} v ON v.chunk = c.number"
    ):
        if blob is None:
            missing += 1
            continue
        if not isinstance(blob, bytes) or len(blob) != 2 * header.dimension:
            sizes += 1
            continue
        with np.errstate(invalid="ignore"):
            length = float(np.linalg.norm(np.frombuffer(blob, dtype="<f2").astype(np.float64)))
        short += not (abs(length - 1) <= 2 * rows_of.NORM_TOLERANCE or length == 0)
        unequal += bool(searchable) and length == 0
    for count, words in (
        (missing, "chunks have no vector"),
        (sizes, "vectors have another dimension than the header says"),
        (short, "vectors do not have the length 1"),
        (unequal, "searchable chunks have a vector of zeros"),
    ):
        if count:
            yield f"{count} {words}."
