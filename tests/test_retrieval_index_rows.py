"""The rows of an index in memory, table by table: what a document writes, what its removal leaves, what faults are told."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, StoreError
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.store import document_rows as rows_of
from firsthand.retrieval.store.analyzer import Analyzer
from firsthand.retrieval.store.header_row import agreed_header, refuse_other_header, refuse_stale_header, stored_header
from firsthand.retrieval.store.index_checks import _all_faults, _chunk_faults, _document_faults, _vector_faults
from firsthand.retrieval.store.index_file import IndexFile
from firsthand.retrieval.store.reembedding import reembed
from firsthand.retrieval.store.text_lookup import chunks_with, titled

HEADER = IndexHeader("small", "print", 2, "lines", "query: ", "passage: ")
ROWS = np.array([[0.6, 0.8], [0, 0], [-1, 0]], dtype=np.float32)
PLACES = (Location(0, "page", "1"), Location(4, "page", "2"))


def opened(header: IndexHeader = HEADER) -> IndexFile:
    file = IndexFile(None, create=True, read_only=False)
    assert agreed_header(file, header) == header
    return file


def document(id: str = "d", text: str = "fox hen\nowl", **meta: Any) -> IndexedDocument:
    """A parent over two lines, the second of which has a heading and a meta of its own."""
    at = text.index("\n")
    whole = Chunk(id, 0, len(text), text, meta=meta)
    first = Chunk(id, 0, at, text[:at], parent=whole.id, meta=meta)
    last = Chunk(id, at + 1, len(text), text[at + 1 :], "Birds", whole.id, {"n": 2})
    made = Document(id, text, "Beasts", "/data/d", meta, PLACES)
    return IndexedDocument(made, [first, whole, last], ROWS)


def put(file: IndexFile, indexed: IndexedDocument, words: Any, active: int = 0, header: IndexHeader = HEADER) -> None:
    with file.writing(), file.transaction() as connection:
        rows_of.put_document(connection, rows_of.prepared(indexed, header), words, active)


def rows(file: IndexFile, table: str, columns: str = "*") -> list[Any]:
    with file.reading() as connection:
        return connection.execute(f"SELECT {columns} FROM {table} ORDER BY 1").fetchall()


WORDS = [[(3, 1), (5, 2)], [], [(9, 1)]]


def test_a_document_is_written_to_each_table_with_its_own_numbers() -> None:
    file, indexed = opened(), document(n=1, t="é")
    put(file, document("before", "a\nb", n=1, t="é"), [[], [], []])
    put(file, indexed, WORDS, active=1)
    first, whole, last = indexed.chunks
    ready = rows_of.prepared(indexed, HEADER)
    assert ready.searchable == (True, False, True) and ready.indexed is indexed
    assert ready.blobs == tuple(row.astype("<f2").tobytes() for row in ROWS)
    assert rows(file, "documents")[1] == (2, *ready.columns)
    assert ready.columns[:4] == ("d", "Beasts", "/data/d", indexed.document.sha256)
    assert ready.columns[5:7] == ('{"n": 1, "t": "\\u00e9"}', '[[0, "page", "1"], [4, "page", "2"]]')
    assert zlib.decompress(ready.columns[7]) == b"fox hen\nowl"
    stored = rows(file, "chunks")[3:]
    assert [each[:9] for each in stored] == [
        (4, first.id, 2, 0, 7, "", whole.id, 1, "fox hen"),
        (5, whole.id, 2, 0, 11, "", None, 1, "fox hen\nowl"),
        (6, last.id, 2, 8, 11, "Birds", whole.id, 2, "owl"),
    ]
    assert [each[9:] for each in stored] == [
        (rows_of.text_hash(chunk.indexed_text), searchable, np.array(words, "<u4").tobytes(), length)
        for chunk, searchable, words, length in zip(indexed.chunks, (1, 0, 1), WORDS, (3, 0, 1), strict=True)
    ]
    assert rows(file, "metas") == [(1, '{"n": 1, "t": "\\u00e9"}'), (2, '{"n": 2}')]
    assert rows(file, "fields", "meta, key, kind, value") == [
        (1, b"n", 2, 1), (1, b"t", 3, "é".encode()), (2, b"n", 2, 2),
    ]  # fmt: skip
    assert rows(file, "vectors_1") == [(4 + place, row.astype("<f2").tobytes()) for place, row in enumerate(ROWS)]
    assert [each[0] for each in rows(file, "vectors_0")] == [1, 2, 3]
    with file.reading() as connection:
        found = connection.execute("SELECT rowid FROM terms WHERE terms MATCH 'birds'").fetchall()
        assert found == [(3,), (6,)] and titled(connection, "BEASTS") == ["before", "d"]
        words = chunks_with(connection, Analyzer(), ["fox", "he"], 9)
        assert words == [first, whole] and chunks_with(connection, Analyzer(), ["fox"], 1) == [first]
        assert chunks_with(connection, Analyzer(), ["he", "fox"], 9) == []
        assert chunks_with(connection, Analyzer(), ["fox", "he", "?"], 9) == [], "only the very last word may be cut"
        row = connection.execute(f"SELECT {rows_of.DOCUMENT_COLUMNS} FROM documents WHERE number = 2").fetchone()
    assert rows_of.read_document(row) == indexed.document


def test_removing_a_document_leaves_the_others_rows_and_the_metas_that_they_share() -> None:
    file = opened()
    put(file, document("a", n=1), WORDS)
    put(file, document("b", "elk cow\nyak", n=7), WORDS, active=1)
    kept = {table: rows(file, table) for table in ("documents", "chunks", "vectors_1", "metas", "fields")}
    with file.writing(), file.transaction() as connection:
        rows_of.remove_document(connection, 1)
    assert rows(file, "documents") == kept["documents"][1:] and rows(file, "chunks") == kept["chunks"][3:]
    assert rows(file, "vectors_0") == [] and rows(file, "vectors_1") == kept["vectors_1"]
    assert rows(file, "metas") == [(2, '{"n": 2}'), (3, '{"n": 7}')]
    assert rows(file, "fields", "meta, value") == [(2, 2), (3, 7)]
    with file.reading() as connection:
        for word, left in (("fox", []), ("owl", []), ("elk", [(4,), (5,)]), ("birds", [(6,)])):
            assert connection.execute(f"SELECT rowid FROM terms WHERE terms MATCH '{word}'").fetchall() == left
        assert connection.execute("SELECT removals FROM header").fetchone() == (1,)
        assert connection.execute("SELECT id FROM terms_docsize").fetchall() == [(4,), (5,), (6,)]
    with file.writing(), file.transaction() as connection:
        rows_of.remove_document(connection, 2)
    assert all(
        rows(file, table) == [] for table in ("documents", "chunks", "vectors_0", "vectors_1", "metas", "fields")
    )
    assert rows(file, "terms_docsize") == [] and rows(file, "header", "removals") == [(2,)]


def counted(file: IndexFile, indexed: IndexedDocument) -> dict[str, int]:
    """Stores a document with its real words, as the index does; their numbers."""
    counts = Analyzer().counts([chunk.indexed_text for chunk in indexed.chunks])
    numbers = {word: number for number, word in enumerate(sorted({word for each in counts for word in each}), 1)}
    with file.writing(), file.transaction() as connection:
        connection.executemany("INSERT INTO words (word, number) VALUES (?, ?)", numbers.items())
    put(file, indexed, [[(numbers[word], n) for word, n in each.items()] for each in counts])
    return numbers


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("UPDATE chunks SET words = x'0900000001000000' WHERE number = 3", ["8..11 of 'd' has other words than its text"]),
        ("UPDATE chunks SET length = 3 WHERE number = 3", ["8..11 of 'd' has other words than its text"]),
        ("UPDATE chunks SET text_hash = x'01' WHERE number = 1", ["0..7 of 'd' has the hash of another text"]),
        ("UPDATE chunks SET id = 'x' WHERE number = 3", ["8..11 of 'd' has an id of another span or text"]),
        ("UPDATE chunks SET start = 7 WHERE number = 3",
         ["7..11 of 'd' is not the document's text there", "7..11 of 'd' has an id of another span or text", None]),
        ("UPDATE chunks SET searchable = 1 WHERE number = 2", [None]),
        ("DELETE FROM chunks WHERE number = 1", [None]),
    ],
)  # fmt: skip
def test_each_change_of_a_chunks_row_is_told_by_its_own_sentence(change: str, told: list[str | None]) -> None:
    file, indexed = opened(), document(n=1)
    numbers = counted(file, indexed)
    assert numbers == {"bird": 1, "fox": 2, "hen": 3, "owl": 4}
    analyzer = Analyzer()
    with file.writing(), file.transaction() as connection:
        digest = rows_of.prepared(indexed, HEADER).columns[4]

        def faults() -> list[str]:
            return [*_chunk_faults(connection, 1, indexed.document, digest, analyzer, numbers)]

        assert faults() == [] == [*_all_faults(connection, HEADER, analyzer)]
        connection.execute(change)
        whole = "The document 'd' is not what was stored: a chunk is missing, or a value was changed."
        assert faults() == [whole if each is None else f"The chunk {each}." for each in told]
        assert [*_document_faults(connection, analyzer)] == faults()
        connection.execute("UPDATE documents SET text = x'00'")
        (unread,) = _document_faults(connection, analyzer)
        assert unread.startswith("The document 'd' cannot be read: ")


def test_vectors_are_counted_by_what_is_wrong_with_them_in_the_generation_that_is_searched() -> None:
    file = opened()
    put(file, document(), [[], [], []])
    off = {"1.0078": 1.0078, "1.0107": 1.0107}  # an f16 of 1.0078 is within twice 5e-3 of 1, and one of 1.0107 is not

    def faults(first: Any, last: Any = None, header: IndexHeader = HEADER) -> list[str]:
        with file.transaction() as connection:
            connection.execute("UPDATE vectors_0 SET vector = ? WHERE chunk = 1", (first,))
            connection.execute("UPDATE vectors_0 SET vector = ? WHERE chunk = 3", (last or vector(0, 1),))
            return [*_vector_faults(connection, header)]

    def vector(*values: float) -> bytes:
        return np.array(values, "<f2").tobytes()

    assert faults(vector(1, 0)) == [] == faults(vector(off["1.0078"], 0))
    assert faults(vector(off["1.0107"], 0)) == ["1 vectors do not have the length 1."]
    assert faults(vector(0, 0.98), vector(float("nan"), 0)) == ["2 vectors do not have the length 1."]
    assert faults(vector(0, 0)) == ["1 searchable chunks have a vector of zeros."]
    assert faults(vector(1), vector(1, 0, 0)) == ["2 vectors have another dimension than the header says."]
    assert faults("text") == ["1 vectors have another dimension than the header says."]
    assert faults(vector(1), header=IndexHeader("", "", 0, "lines")) == []
    with file.transaction() as connection:
        connection.execute("UPDATE header SET active = 1")
        connection.execute("INSERT INTO vectors_1 VALUES (2, ?)", (vector(0, 0),))  # a parent's zeros are no fault
        assert [*_vector_faults(connection, HEADER)] == ["2 chunks have no vector."]


# -- the header --


def test_a_header_is_written_once_and_then_has_to_be_the_same() -> None:
    file = IndexFile(None, create=True, read_only=False)
    with pytest.raises(StoreError, match=r"^:memory: is damaged: it has no header\. Restore it"):
        agreed_header(file, None)
    for dimension in (-1, 65_537):
        with pytest.raises(ConfigError) as wrong:
            agreed_header(file, IndexHeader("", "", dimension, "c"))
        assert str(wrong.value) == f"the dimension is {dimension}: give that of the embedder, or 0 for terms alone"
    assert agreed_header(file, HEADER) == HEADER == agreed_header(file, None)
    assert rows(file, "header") == [(1, "small", "print", 2, "lines", "query: ", "passage: ", 0, None, 1, 0)]
    other = IndexHeader("other name", "print", 3, "words", "query: ", "p")
    assert agreed_header(file, IndexHeader("renamed", *[*vars(HEADER).values()][1:])) == HEADER
    with pytest.raises(ConfigError) as refused:
        refuse_other_header("notes", HEADER, other)
    assert str(refused.value) == (
        "notes was made with dimension 2 (now 3), chunker 'lines' (now 'words'), document_prefix 'passage: ' (now 'p'): use "
        "what it was made with, or make it again with `firsthand rag reindex`"
    )
    with file.transaction() as connection:
        refuse_stale_header(file, connection, HEADER)
        with pytest.raises(StoreError, match=r"^:memory: was re-embedded by another process: open it again$"):
            refuse_stale_header(file, connection, other)
        for column, value, sound in (
            ("chunker", "c" * 10_000, True), ("chunker", "c" * 10_001, False), ("dimension", 65_536, True),
            ("dimension", 65_537, False), ("dimension", -1, False), ("dimension", 0, True), ("active", 1, True),
            ("active", 2, False), ("revision", "x", False), ("removals", 0.5, False), ("embedder", b"x", False),
        ):  # fmt: skip
            before = connection.execute(f"SELECT {column} FROM header").fetchone()[0]
            connection.execute(f"UPDATE header SET {column} = ?", (value,))
            if sound:
                assert stored_header(connection) is not None
            else:
                with pytest.raises(StoreError, match=r"^the index is damaged: its header has a value that no index"):
                    stored_header(connection)
            connection.execute(f"UPDATE header SET {column} = ?", (before,))
        connection.execute("DELETE FROM header")
        assert stored_header(connection) is None


# -- re-embedding --


def test_reembedding_fills_the_other_table_in_batches_and_swaps_it_in() -> None:
    file = opened()
    put(file, document("a", "fox hen\nowl"), [[], [], []])
    put(file, document("b", "elk cow\nyak"), [[], [], []])
    header = IndexHeader("large", "other", 3, "lines", "", "p: ")
    asked: list[list[str]] = []

    def embed(texts: Any) -> Any:
        asked.append(list(texts))
        if len(asked) == fails_at:
            raise StoreError("stopped")
        return np.array([[0, 0.6, 0.8] if "owl" in each else [1, 0, 0] for each in texts], np.float32)

    fails_at = 2
    with pytest.raises(StoreError, match="stopped"):
        reembed(file, HEADER, header, embed, 4)
    assert asked == [["fox hen", "Birds\nowl", "elk cow"], ["Birds\nyak"]]
    assert [each[0] for each in rows(file, "vectors_1")] == [1, 2, 3, 4] and len(rows(file, "vectors_0")) == 6
    [(active, planned)] = rows(file, "header", "active, next")
    assert (active, json.loads(planned)) == (0, vars(header))
    assert reembed(file, HEADER, header, embed, 4) == 1 and asked[2:] == [["Birds\nyak"]]
    assert [np.frombuffer(blob, "<f2").tolist() for _, blob in rows(file, "vectors_1")] == [
        [1, 0, 0], [0, 0, 0], pytest.approx([0, 0.6, 0.8], abs=1e-3), [1, 0, 0], [0, 0, 0], [1, 0, 0],
    ]  # fmt: skip
    assert rows(file, "vectors_0") == []
    assert rows(file, "header")[0][:9] == (1, "large", "other", 3, "lines", "", "p: ", 1, None)
    # a half that was filled for another header is thrown away; terms alone need no vectors
    fails_at = len(asked) + 2
    with pytest.raises(StoreError, match="stopped"):
        reembed(file, header, HEADER, lambda texts: embed(texts)[:, :2], 1)
    assert [each[0] for each in rows(file, "vectors_0")] == [1, 2]  # the parent took no vector of a batch
    alone = IndexHeader("", "", 0, "lines")
    assert reembed(file, header, alone, embed, 1) == 0
    assert rows(file, "vectors_0") == rows(file, "vectors_1") == [] and rows(file, "header", "active") == [(0,)]


def test_reembedding_refuses_other_chunks_batches_of_none_and_wrong_vectors() -> None:
    file = opened()
    put(file, document(), [[], [], []])
    with pytest.raises(ConfigError) as refused:
        reembed(file, HEADER, IndexHeader("x", "y", 2, "words"), lambda texts: ROWS, 9)
    assert str(refused.value) == (
        ":memory: was chunked by 'lines' and the header says 'words': re-embedding keeps chunks, so index the documents "
        "again to change them"
    )
    new = IndexHeader("x", "y", 2, "lines")
    with pytest.raises(ConfigError, match=r"^batch_size is 0: give 1 or more$"):
        reembed(file, HEADER, new, lambda texts: ROWS, 0)
    for given in (ROWS, ROWS[:1], ROWS[:2, :1], np.ones((2, 3), np.float32)):
        with pytest.raises(ConfigError) as shape:
            reembed(file, HEADER, new, lambda texts, given=given: given, 9)
        assert str(shape.value) == f"the embedder gave vectors of shape {given.shape} for 2 texts: expected (2, 2)"
    with pytest.raises(ConfigError, match=r"^a vector of a text has the length 0: divide vectors by their"):
        reembed(file, HEADER, new, lambda texts: ROWS[:2], 9)
    assert rows(file, "vectors_1") == [] and rows(file, "header", "active") == [(0,)]
