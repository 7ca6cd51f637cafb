"""The faults that `verify` finds in an index, and the rows that a removed document leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from firsthand.errors import StoreError
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument
from firsthand.retrieval.document import Document
from firsthand.retrieval.store.index_checks import MAX_FAULTS, faults
from firsthand.retrieval.store.sqlite_index import SqliteIndex, open_index
from index_tiny import HEADER, lines, unit


@pytest.mark.slow
def test_faults_are_counted_and_the_list_of_them_ends_at_a_hundred(tmp_path: Path) -> None:
    index = open_index(tmp_path / "a.index", HEADER)
    index.put([lines("d", [f"word{n}\n" for n in range(MAX_FAULTS + 2)])])
    connection = index._file._connection
    connection.execute("UPDATE chunks SET text_hash = x'00' WHERE number <= 3")
    assert faults(connection, HEADER, index._analyzer) == [
        f"The chunk {6 * n}..{6 * n + 6} of 'd' has the hash of another text." for n in range(3)
    ]
    connection.execute(f"UPDATE chunks SET text_hash = x'00' WHERE number <= {MAX_FAULTS}")
    assert len(index.verify()) == MAX_FAULTS
    connection.execute(f"UPDATE chunks SET text_hash = x'00' WHERE number <= {MAX_FAULTS + 2}")
    found = index.verify()
    assert len(found) == MAX_FAULTS + 1 and found[-1] == "There are 2 more faults."
    index.close()
    index = open_index(tmp_path / "c.index", HEADER)
    index.put([lines("d", ["fox\n", "hen\n"]), lines("e", ["owl\n"], seed=2)])
    index._file._connection.execute("UPDATE chunks SET text = 'elk' WHERE number = 1")
    assert index.verify() == [
        *(f"The chunk 0..4 of 'd' {fault}." for fault in (
            "is not the document's text there", "has an id of another span or text", "has the hash of another text",
            "has other words than its text")),
        "The document 'd' is not what was stored: a chunk is missing, or a value was changed.",
    ]  # fmt: skip
    index.close()
    index = open_index(tmp_path / "e.index", HEADER)
    index.put([lines("d", ["fox hen fox\n", "hen\n", "owl\n"])])
    connection, forget = index._file._connection, "INSERT INTO terms (terms, rowid, text) VALUES ('delete', ?, ?)"
    for row, text, fault in (
        (2, "hen", "1 words, the first of which is 'hen'"),  # in one chunk, and in two by their counts
        (1, "fox hen fox", "2 words, the first of which is 'fox'"),  # and now in none
        (3, "owl", "3 words, the first of which is 'fox'"),
    ):
        connection.execute(forget, (row, text))
        assert index.verify()[-1] == f"FTS5 and the chunks differ in {fault}."
    for row, text in ((1, "fox hen fox"), (2, "hen"), (3, "owl")):
        connection.execute("INSERT INTO terms (rowid, text) VALUES (?, ?)", (row, text))
    assert index.verify() == []
    index.close()
    index = open_index(tmp_path / "b.index", HEADER)
    index.put([lines("d", ["fox\n", "hen\n", "owl\n", "elk\n", "cow\n"], meta={"n": 1})])
    connection = index._file._connection
    for change in ("DELETE FROM vectors_0 WHERE chunk = 1", "UPDATE vectors_0 SET vector = x'0000' WHERE chunk = 2",
                   "UPDATE vectors_0 SET vector = zeroblob(48) WHERE chunk = 3",
                   "UPDATE vectors_0 SET vector = (SELECT CAST(zeroblob(46) || x'003e' AS BLOB)) WHERE chunk = 4",
                   "UPDATE vectors_0 SET vector = zeroblob(46) || x'003e' WHERE chunk = 5",
                   "INSERT INTO terms (rowid, text) VALUES (9, 'yak')", "DELETE FROM fields"):  # fmt: skip
        connection.execute(change)
    assert index.verify() == [
        "There are 1 terms of no chunk.",
        "FTS5 and the chunks differ in 1 words, the first of which is 'yak'.",
        'The fields of the meta {"n": 1} are not those that filters read.',
        "1 chunks have no vector.",
        "2 vectors have another dimension than the header says.",
        "1 vectors do not have the length 1.",
        "1 searchable chunks have a vector of zeros.",
    ]
    index.close()


@pytest.mark.slow
def test_a_vector_of_another_size_is_told_where_it_is_read_and_where_it_is_compared(tmp_path: Path) -> None:
    index = open_index(tmp_path / "a.index", HEADER)
    index.put([lines("d", ["fox\n", "hen\n", "owl\n"])])
    ids, query = [each.id for each in index.chunks("d")], unit(1, seed=3)[0]
    assert len(index.search_vectors(query, 3, {})) == 3 == len(index.vectors(ids))
    for size in (46, 50):
        change = "UPDATE vectors_0 SET vector = zeroblob(?) WHERE chunk = 2"
        index._file._connection.execute(change, (size,))
        with pytest.raises(StoreError, match=rf"a\.index is damaged: a vector has {size} bytes instead of 48\."):
            index.vectors(ids)
        with pytest.raises(StoreError, match=r"a vector is missing or has another dimension than the header says"):
            index.search_vectors(query, 3, {})
    index.close()


def test_a_hit_without_its_document_or_meta_is_damage_where_others_are_whole(tmp_path: Path) -> None:
    for table in ("metas", "documents"):
        index = open_index(tmp_path / f"{table}.index", HEADER)
        index.put([lines("d", ["fox\n"], meta={"n": 1}), lines("e", ["fox hen\n"], meta={"n": 2}, seed=2)])
        assert len(index.search_terms("fox", 9, {})) == 2
        index._file._connection.execute(f"DELETE FROM {table} WHERE number = 2")
        assert [hit.chunk.document for hit in index.search_terms("fox", 1, {})] == ["d"]
        for search in (
            lambda k, i=index: i.search_terms("fox", k, {}),
            lambda k, i=index: i.search_vectors(unit(1, 3)[0], k, {}),
        ):
            with pytest.raises(
                StoreError, match=rf"{table}\.index is damaged: a chunk has no document or no meta\. Restore"
            ):
                search(2)
        index.close()


def test_a_removed_document_leaves_no_row_and_a_meta_that_another_has_stays(tmp_path: Path) -> None:
    index: SqliteIndex = open_index(tmp_path / "a.index", HEADER)
    index.put(
        [lines("a", ["fox\n", "hen\n"], meta={"n": 1, "m": 2}), lines("b", ["owl\n"], meta={"n": 1, "m": 2}, seed=2)]
    )
    index.put([lines("c", ["elk\n"], meta={"n": 5}, seed=3)])

    def counts() -> dict[str, int]:
        with index._file.reading() as connection:
            tables = ("documents", "chunks", "metas", "fields", "vectors_0", "terms_docsize")
            return {each: connection.execute(f"SELECT count(*) FROM {each}").fetchone()[0] for each in tables}

    assert counts() == {"documents": 3, "chunks": 4, "metas": 2, "fields": 3, "vectors_0": 4, "terms_docsize": 4}
    assert index.delete(["a"]) == ("a",)
    assert counts() == {"documents": 2, "chunks": 2, "metas": 2, "fields": 3, "vectors_0": 2, "terms_docsize": 2}
    assert index.delete(["b", "c"]) == ("b", "c") and set(counts().values()) == {0}
    assert index.verify() == [] and index.titled("x") == [] and index.metas() == {} and index.title("a") is None
    whole = Chunk("p", 0, 8, "fox\nhen\n", meta={"n": 7})
    parts = [Chunk("p", 0, 4, "fox\n", parent=whole.id), Chunk("p", 4, 8, "hen\n", parent=whole.id)]
    rows = np.concatenate([np.zeros((1, 24), np.float32), unit(2, 1)])
    index.put(
        [IndexedDocument(Document("p", "fox\nhen\n"), [whole, *parts], rows), lines("q", ["owl\n"], meta={"n": 7})]
    )
    assert counts()["metas"] == 2 and index.delete(["q"]) == ("q",)
    assert index.verify() == [] and index.chunk(whole.id) == whole, "a chunk that is not searched keeps its meta"
    index.close()
