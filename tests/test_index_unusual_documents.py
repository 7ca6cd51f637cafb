"""Documents that an index seldom sees: lone surrogates, texts at the very limit, metas in another order, damaged rows."""

from __future__ import annotations

import os
import sqlite3
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import DocumentOutline, IndexedDocument, IndexHeader, IngestReceipt
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.store import document_rows as rows_of
from firsthand.retrieval.store import reembedding, sqlite_index
from firsthand.retrieval.store.analyzer import Analyzer
from firsthand.retrieval.store.document_rows import checked_lengths, prepared, read_document
from firsthand.retrieval.store.filter_conditions import field_of
from firsthand.retrieval.store.index_checks import _all_faults
from firsthand.retrieval.store.sqlite_index import SqliteIndex, open_index
from index_tiny import HEADER, TERMS_ONLY, lines, unit

LONE = "\udcff"


def connection_of(index: SqliteIndex) -> Any:
    return index._file._connection


def test_a_lone_surrogate_may_stand_in_any_text_of_a_document() -> None:
    document = Document(
        f"i{LONE}", f"a{LONE}é fox", f"t{LONE}", f"s{LONE}", {f"k{LONE}": f"v{LONE}"}, (Location(1, "page", LONE),)
    )
    chunks = [Chunk(document.id, 0, 7, document.text, f"h{LONE}", meta={f"m{LONE}": 1}), Chunk(document.id, 1, 2, LONE)]
    with open_index(":memory:", TERMS_ONLY) as index:
        assert index.put([IndexedDocument(document, chunks, None)]) == IngestReceipt((document.id,))
        assert index.put([IndexedDocument(document, chunks, None)]) == IngestReceipt((), (), (document.id,))
        assert index.document(document.id) == document and index.chunks(document.id) == chunks
        assert index.hashes() == {document.id: document.sha256} and index.metas() == {document.id: document.meta}
        assert index.title(document.id) == f"t{LONE}" and index.titled(f"t{LONE}") == [document.id]
        assert [*index.outlines()] == [
            DocumentOutline(document.id, document.sha256, f"t{LONE}", f"s{LONE}", document.meta)
        ]
        assert [hit.chunk for hit in index.search_terms("fox", 9, {f"m{LONE}": 1})] == chunks[:1]
        assert [hit.chunk for hit in index.search_terms("h", 9, {"document": document.id})] == chunks[:1]
        assert index.search_terms("fox", 9, {"title": "t"}) == [] and index.chunks_with(["fox"]) == chunks[:1]
        with pytest.raises(UnknownName) as wrong:
            index.document("i")
        assert str(wrong.value).startswith("no document 'i' in :memory:")
        assert index.verify() == [] and index.delete([document.id, "x", document.id]) == (document.id,)
        assert index.verify() == [] and len(index) == 0


def test_values_keep_the_order_they_were_given_in_and_a_chunk_without_any_has_none_of_its_documents() -> None:
    text = "fox\nhen\nowl\n"
    metas: list[dict[str, Any]] = [{"b": 1, "a": [2, {"d": None, "c": 1.5}]}, {}, {"a": True}]
    chunks = [Chunk("d", 4 * n, 4 * n + 4, text[4 * n : 4 * n + 4], meta=meta) for n, meta in enumerate(metas)]
    document = Document("d", text, meta={"z": 0, "y": "", "x": False})
    with open_index(":memory:", TERMS_ONLY) as index:
        index.put([IndexedDocument(document, chunks, None)])
        assert [[*each.meta.items()] for each in index.chunks("d")] == [[*meta.items()] for meta in metas]
        assert [*index.document("d").meta.items()] == [("z", 0), ("y", ""), ("x", False)]
        assert [*index.metas()["d"]] == ["z", "y", "x"] == [*next(iter(index.outlines())).meta]
        for where, found in (({"a": True}, [2]), ({"b": 1.0}, [0]), ({"z": 0}, []), ({"a": {"not": True}}, [0, 1])):
            assert sorted(hit.chunk.start // 4 for hit in index.search_terms("fox hen owl", 9, where)) == found
        # another order of the same values is the same document
        turned = Document("d", text, meta={"x": False, "y": "", "z": 0})
        assert index.put([IndexedDocument(turned, chunks, None)]).unchanged == ("d",)


def test_a_text_of_exactly_the_most_bytes_is_stored_and_read_and_one_byte_more_is_neither(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "é" * 50 + "x" * 11
    fits = lines("d", [text], with_vectors=False)
    monkeypatch.setattr(rows_of, "MAX_TEXT_BYTES", 111)
    ready = prepared(fits, TERMS_ONLY)
    id, title, source, sha256, _, meta, places, packed = ready.columns
    row = (id, packed, title, source, meta, places, sha256)
    assert read_document(row) == fits.document
    with pytest.raises(ConfigError, match=r"^'d' has 112 bytes of text: split it into parts below 111$"):
        prepared(lines("d", [text + "y"], with_vectors=False), TERMS_ONLY)
    for body in (zlib.compress(text.encode() + b"y"), packed[:-1], packed[:-5], b""):
        with pytest.raises(ValueError, match=r"^its text is cut short, or too large$"):
            read_document((id, body, title, source, meta, places, sha256))
    with pytest.raises(ValueError, match=r"^its text has another hash than it was stored under$"):
        read_document((id, zlib.compress(b"y"), title, source, meta, places, sha256))


def test_lengths_of_vectors_are_one_within_five_thousandths_and_the_first_that_is_not_is_told() -> None:
    def vectors(*lengths: float) -> Any:
        return np.array([[0.6 * each, -0.8 * each] for each in lengths], np.float32).reshape(-1, 2)

    checked_lengths(vectors(1, 0.9951, 1.0049), "x", zeros=False), checked_lengths(vectors(), "x", zeros=False)
    checked_lengths(vectors(0, 1), "x", zeros=True)
    for wrong, zeros, told in (
        (vectors(1, 0.9949, 1.5), True, "0.9949"), (vectors(1.0051, 1), False, "1.005"), (vectors(1, 0), False, "0"),
        (vectors(0, 0.5), True, "0.5"), (vectors(1, float("nan")), True, "nan"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as error:
            checked_lengths(wrong, "'d'", zeros=zeros)
        assert str(error.value) == f"a vector of 'd' has the length {told}: divide vectors by their Euclidean length"


def test_each_kind_of_row_without_its_owner_is_counted() -> None:
    with open_index(":memory:", HEADER) as index:
        index.put([lines("a", ["fox\n", "hen\n"], meta={"n": 1}), lines("b", ["owl\n"], meta={"n": 2}, seed=1)])
        connection = connection_of(index)
        [parent] = connection.execute("SELECT id FROM chunks WHERE document = 2").fetchone()
        insert = (
            "INSERT INTO chunks (number, id, document, start, end, heading, parent, meta, text, text_hash, searchable, "
            "words, length) "
            "VALUES (?, 'c' || ?, ?, 0, 0, '', ?, ?, '', x'', 1, x'', 0)"
        )
        for number, document, of, meta in ((11, 9, None, 1), (12, 9, None, 7), (13, 9, None, 7), (14, 1, parent, 1)):
            connection.execute(insert, (number, number, document, of, meta))
        for number in (11, *range(20, 26)):
            connection.execute("INSERT INTO terms (rowid, text) VALUES (?, 'yak')", (number,))
        connection.executemany(
            "INSERT INTO metas (number, json) VALUES (?, ?)", [(n, f'{{"x": {n}}}') for n in range(20, 24)]
        )
        connection.executemany("INSERT INTO fields VALUES ('x', 2, ?, 99)", [(n,) for n in range(5)])
        connection.executemany("INSERT INTO vectors_0 VALUES (?, x'')", [(n,) for n in range(50, 57)])
        connection.executemany("INSERT INTO vectors_1 VALUES (?, x'')", [(n,) for n in range(50, 58)])
        told = [each for each in _all_faults(connection, HEADER, Analyzer()) if each.startswith("There are")]
        assert told == [
            "There are 3 chunks without a document.", "There are 2 chunks without their meta.",
            "There are 4 metas of no chunk.", "There are 5 fields of no meta.", "There are 7 vectors of no chunk.",
            "There are 8 vectors of no chunk.", "There are 6 terms of no chunk.", "There are 3 chunks without terms.",
            "There are 1 chunks whose parent is not in their document.",
        ]  # fmt: skip


def test_rows_that_cannot_be_read_are_told_and_those_after_them_checked() -> None:
    with open_index(":memory:", TERMS_ONLY) as index:
        long = "x" * 210
        for n, id in enumerate(("a", "b", long, "d")):
            index.put(
                [lines(id, [f"word{n} {'fox ' * (n + 1)}\n"], meta={"n": n, "text": "t" * 90}, with_vectors=False)]
            )
        assert index.verify() == []
        connection = connection_of(index)
        connection.execute("UPDATE chunks SET words = x'0100000001' WHERE number = 1")
        connection.execute("UPDATE documents SET locations = '[[1]]' WHERE number = 3")
        connection.execute("UPDATE documents SET digest = x'00' WHERE number = 4")
        connection.execute("UPDATE metas SET json = '[1]' WHERE number = 2")
        connection.execute('UPDATE metas SET json = \'{"n": 2, "m": 1}\' WHERE number = 3')
        connection.execute("DELETE FROM fields WHERE meta = 4 AND key = x'6e'")
        assert index.verify() == [
            "The document 'a' cannot be read: buffer size must be a multiple of element size.",
            "The document 'b' cannot be read: an object of JSON was expected, and there is list.",
            f"The document '{'x' * 200}' cannot be read: its locations are not lists of a number and two texts.",
            "The document 'd' is not what was stored: a chunk is missing, or a value was changed.",
            "FTS5 and the chunks differ in 2 words, the first of which is 'fox'.",
            "The meta 2 cannot be read: an object of JSON was expected, and there is list.",
            'The fields of the meta {"n": 2, "m": 1} are not those that filters read.',
            f'The fields of the meta {{"n": 3, "text": "{"t" * 62} are not those that filters read.',
        ]


def test_reembedding_empties_the_old_vectors_in_steps_and_counts_what_it_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reembedding, "_DELETED_AT_ONCE", 2)
    header = IndexHeader("other", "p", 3, "lines", "q: ", "d: ")
    asked: list[list[str]] = []

    def embed(texts: Any) -> Any:
        asked.append(list(texts))
        return unit(len(texts), 7, 3)

    with open_index(tmp_path / "x.index", HEADER) as index:
        index.put([lines("d", [f"fox {n}\n" for n in range(6)], title="T")])
        before = index.search_terms("fox", 9, {})
        assert index.reembed(header, embed, batch_size=4) == 6 and list(map(len, asked)) == [4, 2]
        assert index.header == header and index.verify() == []
        assert connection_of(index).execute("SELECT count(*) FROM vectors_0").fetchone() == (0,)
        ids = [chunk.id for chunk in index.chunks("d")]
        expected = np.concatenate([unit(4, 7, 3), unit(2, 7, 3)])
        assert np.allclose(index.vectors([ids[5], ids[1], ids[2], ids[1]]), expected[[5, 1, 2, 1]], atol=1e-3)
        assert index.vectors([]).shape == (0, 3)
        [best] = index.search_vectors(unit(2, 7, 3)[1], 1, {})
        assert best.chunk.text in ("fox 1\n", "fox 5\n") and index.search_terms("fox", 9, {}) == before
        with pytest.raises(
            ConfigError, match=r"^the vector has the shape \(24,\), and .*x\.index has \(3,\): embed the"
        ):
            index.search_vectors(unit(1, 0)[0], 1, {})
        assert index.reembed(header, embed, batch_size=99) == 6, "again, into the other table"
        assert connection_of(index).execute("SELECT active, next FROM header").fetchone() == (0, None)
    with open_index(tmp_path / "x.index", header, read_only=True) as again:
        assert again.header == header and len(again) == 6
        with pytest.raises(
            StoreError, match=r"x\.index was opened to be read: open it again without read_only to write$"
        ):
            again.delete(["d"])
    with pytest.raises(StoreError, match=r"none\.index: open it without read_only to make it$"):
        open_index(tmp_path / "none.index", header, read_only=True)
    with pytest.raises(ConfigError, match=r"^an index in memory needs a header"):
        open_index(":memory:")
    with pytest.raises(ConfigError) as other:
        open_index(tmp_path / "x.index", HEADER)
    assert str(other.value) == (
        f"{tmp_path / 'x.index'} was made with fingerprint 'p' (now 'fingerprint-of-tiny'), dimension 3 (now 24), "
        "query_prefix 'q: ' (now ''), document_prefix 'd: ' (now ''): use what it was made with, or make it again with "
        "`firsthand rag reindex`"
    )
    open_files = [os.path.realpath(each) for each in Path("/dev/fd").iterdir()]
    assert other.tb is not None and str(tmp_path / "x.index") not in open_files, "what was refused is closed"


def test_outlines_are_read_page_by_page_and_words_keep_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_index, "_AT_ONCE", 3)
    with open_index(":memory:", TERMS_ONLY) as index:
        names = ["b", "a", "é", "d", "Z", "c", "e"]
        for count, expected in ((0, []), (3, ["a", "b", "é"]), (6, ["Z", "a", "b", "c", "d", "é"])):
            for name in names[:count]:
                index.put([lines(name, [f"fox {name} fox\n"], title=f"t{name}", source=f"/{name}", with_vectors=False)])
            assert [(each.id, each.title, each.source) for each in index.outlines()] == [
                (id, f"t{id}", f"/{id}") for id in expected
            ]
        connection = connection_of(index)
        words = dict(connection.execute("SELECT word, number FROM words"))
        assert sorted(words) == ["a", "b", "c", "d", "e", "fox", "z"] and len({*words.values()}) == 7  # é is e
        index.put([lines("n", ["fox fox a new new new\n"], with_vectors=False)])
        row = connection.execute("SELECT words, length FROM chunks ORDER BY number DESC").fetchone()
        numbers = dict(connection.execute("SELECT word, number FROM words"))
        counts = {numbers["fox"]: 2, numbers["a"]: 1, numbers["new"]: 3}
        assert dict(np.frombuffer(row[0], "<u4").reshape(-1, 2).tolist()) == counts and row[1] == 6
        assert {word: numbers[word] for word in words} == words
        assert index.known_vectors(["x"]) == {}


def test_chunks_come_in_order_of_start_and_the_vector_of_a_parent_is_zeros_that_no_text_is_known_by() -> None:
    text = "fox hen\nowl"
    whole = Chunk("d", 0, 11, text)
    last, first = Chunk("d", 8, 11, text[8:], parent=whole.id), Chunk("d", 0, 7, text[:7], parent=whole.id)
    vectors = np.zeros((3, HEADER.dimension), np.float32)
    vectors[0], vectors[2] = unit(2, 3)
    with open_index(":memory:", HEADER) as index:
        index.put([IndexedDocument(Document("d", text), [last, whole, first], vectors), lines("e", ["yak\n"], seed=9)])
        assert index.chunks("d") == [whole, first, last] and len(index) == 3
        assert np.allclose(index.vectors([first.id, whole.id, last.id]), vectors[[2, 1, 0]], atol=1e-3)
        known = index.known_vectors(["owl", "no", text, "fox hen", "owl"])
        assert [*known] == ["owl", "fox hen"] and np.allclose(known["fox hen"], vectors[2], atol=1e-3)
        for wrong, told in ((["x", "y"], "x"), ([first.id, "y" * 70], "y" * 64)):
            with pytest.raises(UnknownName, match=rf"^no vector of the chunk '{told}' in :memory:$"):
                index.vectors(wrong)
        with pytest.raises(UnknownName) as none:
            index.chunk("z" * 70)
        assert str(none.value) == (f"no chunk '{'z' * 64}' in :memory:: its document may have changed; search again")
        words = index.chunks_with
        assert words(["hen-owl", "fox"]) == [whole, first] and words(["ow", "?"]) == [] == words(["?", "fox-hen"])
        assert words(["hen", "ow"]) == [whole] and words(["ow"], limit=1) == [last]
        assert words(["ow"]) == [last, whole] == words(["owls"])
        assert words(["ow", "hen-fox"]) == [], "the last whole word is not the last one, so that it is no beginning"
        with pytest.raises(UnknownName, match=r"^no document 'dd' in :memory:; did you mean 'd'\?$"):
            index.document("dd")
        with pytest.raises(UnknownName, match=rf"^no document '{'q' * 200}' in :memory:$"):
            index.document("q" * 201)
        assert index.chunk(last.id) == last and index.title("nobody") is None and index.chunks("nobody") == []


def test_an_index_that_another_process_re_embedded_takes_no_document_and_a_reader_writes_none(tmp_path: Path) -> None:
    path, new = tmp_path / "x.index", IndexHeader("n", "n", 2, "lines")
    first, second = open_index(path, HEADER), open_index(path, HEADER)
    assert first.put([lines("a", ["fox\n"])]).added == ("a",)
    assert first.reembed(new, lambda texts: unit(len(texts), 1, 2)) == 1
    told = rf"^{path} was re-embedded by another process: open it again$"
    with pytest.raises(StoreError, match=told):
        second.put([lines("b", ["hen\n"]), lines("c", ["owl\n"])])
    with pytest.raises(StoreError, match=told):
        second.search_terms("fox", 1, {})
    bad = lines("bad", ["x\n"], vectors=unit(1, 0, 3))
    other, renamed = (lines(id, ["elk\n"], title=id, vectors=unit(1, 0, 2)) for id in "da")
    receipt = first.put([bad, other, renamed])
    assert (receipt.added, receipt.updated) == (("d",), ("a",)) and [*first.hashes()] == ["a", "d"]
    assert receipt.failed == (
        (
            "bad",
            "'bad' comes with vectors of shape (1, 3), and its chunks need (1, 2): embed each chunk's indexed_text",
        ),
    )
    first.close()
    second.close()
    with open_index(path, new, read_only=True) as reader, pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection_of(reader).execute("UPDATE header SET revision = 9")
    with pytest.raises(StoreError, match=rf"^{tmp_path} is a folder: give the path of an index's file in it$"):
        open_index(tmp_path, new, read_only=True)
    with pytest.raises(StoreError, match=r"^no index at :memory:: open it without read_only to make it$"):
        open_index(":memory:", new, read_only=True)


def test_whole_numbers_at_the_ends_of_64_bits_are_stored_and_found_as_ints_or_floats() -> None:
    ends = {
        "low": -(2**63),
        "below": -(2**63) - 1,
        "high": 2**63 - 1,
        "above": 2**63,
        "float": 2.0**63,
        "least": -(2.0**63),
    }
    kinds = {name: type(field_of(value)[1]) for name, value in ends.items()}
    assert kinds == {"low": int, "below": float, "high": int, "above": float, "float": float, "least": int}
    with open_index(":memory:", TERMS_ONLY) as index:
        index.put([lines(name, ["fox\n"], meta={"n": value}, with_vectors=False) for name, value in ends.items()])

        def found(condition: Any) -> list[str]:
            return sorted(hit.chunk.document for hit in index.search_terms("fox", 9, {"n": condition}))

        assert found(-(2**63)) == ["below", "least", "low"] == found({"max": -(2**63)})
        assert found(2.0**63) == ["above", "float"] == found([2**63]) and found(2**63 - 1) == ["high"]
        assert found({"not": {"min": 0}}) == ["below", "least", "low"] and index.verify() == []


def test_vectors_that_another_process_made_again_are_searched_at_the_next_search(tmp_path: Path) -> None:
    path = tmp_path / "x.index"
    writer = open_index(path, HEADER)
    writer.put([lines("d", [f"word{n}\n" for n in range(9)], seed=1)])
    with open_index(path, read_only=True) as reader:
        for seed in (2, 3, 4):  # from the first table to the second, back, and again
            made = unit(9, seed)
            assert writer.reembed(HEADER, lambda texts, made=made: made) == 9  # type: ignore[misc]
            for n in (0, 8, 4):
                [hit] = reader.search_vectors(made[n], 1, {})
                assert (hit.chunk.text, round(hit.score, 2)) == (f"word{n}\n", 1.0), seed
    writer.close()
