"""RecordIndex over a dict of records: what each write stores, what filters mean, and what a half-written document shows."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader, IngestReceipt
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.store.document_rows import prepared, text_hash
from firsthand.retrieval.store.record_index import RecordIndex, _document_id, _key, _made_with, _value, _word_field
from firsthand.retrieval.store.records import Among, Every, Match, Not, Range
from listed_records import ListedRecords

HEADER = IndexHeader("small", "print", 2, "lines", "q: ")
TERMS = IndexHeader("", "", 0, "lines")
ROWS = np.array([[0.6, 0.8], [0, 0], [-1, 0]], np.float32)


def family(id: str = "d", text: str = "fox hen\nowl", **meta: Any) -> IndexedDocument:
    """A parent over two lines, the second of which has a heading and a meta of its own."""
    at = text.index("\n")
    whole = Chunk(id, 0, len(text), text, meta=meta)
    first = Chunk(id, 0, at, text[:at], parent=whole.id, meta=meta)
    last = Chunk(id, at + 1, len(text), text[at + 1 :], "Birds", whole.id, {"n": 2})
    made = Document(id, text, "Beasts", "/d", meta, (Location(0, "page", "1"),))
    return IndexedDocument(made, [first, whole, last], ROWS)


def one(id: str, text: str, angle: float | None = None, **meta: Any) -> IndexedDocument:
    rows = None if angle is None else np.array([[math.cos(angle), math.sin(angle)]], np.float32)
    return IndexedDocument(Document(id, text, f"T{id}", f"/{id}"), [Chunk(id, 0, len(text), text, meta=meta)], rows)


def made(*documents: IndexedDocument, header: IndexHeader = HEADER) -> tuple[RecordIndex, ListedRecords]:
    store = ListedRecords()
    index = RecordIndex(store, "the shelf", header)
    assert index.put(documents).failed == ()
    return index, store


def test_a_document_is_a_record_for_each_chunk_and_one_that_names_them() -> None:
    indexed = family(n=1.5, t="é", title="no")
    index, store = made(indexed)
    first, whole, last = indexed.chunks
    id = _document_id("d")
    words = {"fox": 1.0, "hen": 1.0}
    fields = {
        "kind": "chunk", "of": id, "searchable": "1", "text": text_hash("fox hen").hex(), "length": 2.0,
        f"v_{_key('n')}": _value(1.5), f"n_{_key('n')}": 1.5, f"v_{_key('t')}": _value("é"),
        f"t_{_key('t')}": "é".encode().hex(),
    } | {_word_field(word): count for word, count in words.items()}  # fmt: skip
    for name, value in (("document", "d"), ("source", "/d"), ("title", "Beasts")):
        fields |= {f"v_{_key(name)}": _value(value), f"t_{_key(name)}": value.encode().hex()}
    stored = store.records[first.id]
    fields |= {"version": prepared(indexed, HEADER).columns[4].hex(), "form": "4", "header": _made_with(HEADER)}
    assert stored.fields == fields and stored.vector is not None
    assert stored.vector.tolist() == np.array([0.6, 0.8], "<f2").astype(np.float32).tolist()
    assert json.loads(stored.payload) == asdict(first) | {"meta": {"n": 1.5, "t": "é", "title": "no"}}
    unsearched = [store.records[each].vector for each in (whole.id, id)]
    assert all(each is not None and np.linalg.norm(each) == pytest.approx(1) for each in unsearched)
    assert not np.array_equal(*unsearched), "each has another direction"
    assert store.records[whole.id].fields["searchable"] == "0"
    assert store.records[last.id].fields[_word_field("bird")] == 1.0
    owner = store.records[id]
    assert owner.fields == {"kind": "document", "header": _made_with(HEADER)}
    body = json.loads(owner.payload)
    assert body["chunks"] == [first.id, whole.id, last.id] and body["sha256"] == indexed.document.sha256
    assert body["digest"] == prepared(indexed, HEADER).columns[4].hex()
    assert index.document("d") == indexed.document and index.hashes() == {"d": indexed.document.sha256}
    assert index.chunks("d") == [whole, first, last] and index.chunk(last.id) == last and len(index) == 2
    assert index.vectors([last.id, whole.id]).tolist() == [[-1, 0], [0, 0]] and index.vectors([]).shape == (0, 2)
    known = index.known_vectors(["Birds\nowl", "fox hen\nowl", "owl"])
    assert {text: vector.tolist() for text, vector in known.items()} == {"Birds\nowl": [-1, 0]}
    assert index.known_vectors([]) == {} and index.verify() == []
    with pytest.raises(UnknownName, match=r"^no document 'e' in the shelf$"):
        index.document("e")
    with pytest.raises(UnknownName, match=r"^no document 'mil\.md' in the shelf; did you mean 'mill\.md'\?$"):
        made(one("mill.md", "x", 0.0))[0].document("mil.md")
    for missing in ("0" * 32, "x" * 70):
        with pytest.raises(
            UnknownName, match=rf"^no chunk '{missing[:64]}' in the shelf: its document may have changed; "
        ):
            index.chunk(missing)
        with pytest.raises(UnknownName, match=rf"^no vector of the chunk '{missing[:64]}' in the shelf$"):
            index.vectors([last.id, missing])


def test_a_changed_document_leaves_none_of_its_old_chunks() -> None:
    index, store = made(family(), one("e", "yak", 0.0))
    store.calls.clear()
    assert index.put([family()]) == IngestReceipt(unchanged=("d",)) and store.calls == []
    short = replace(family(), document=replace(family().document, title="Other"))
    assert index.put([short, one("f", "elk", 0.1), one("g", "cow")]) == IngestReceipt(
        added=("f",), updated=("d",),
        failed=(("g", "'g' comes with no vectors, and its chunks need (1, 2): embed each chunk's indexed_text"),),
    )  # fmt: skip
    assert len(index.chunks("d")) == 3 and index.document("d").title == "Other" and index.verify() == []
    changed = one("d", "cat", 0.2)
    assert index.put([changed]).updated == ("d",) and index.chunks("d") == list(changed.chunks)
    assert len([each for each in store.records.values() if each.fields.get("of") == _document_id("d")]) == 1
    assert index.delete(["f", "nobody", "d"]) == ("f", "d") and list(index.hashes()) == ["e"]
    assert sorted(each.fields["kind"] for each in store.records.values()) == ["chunk", "document", "header"]
    index.close()
    assert store.calls[-1] == "close"


def test_a_header_is_read_back_and_another_is_refused() -> None:
    index, store = made()
    assert RecordIndex(store, "the shelf", None).header == HEADER == index.header
    assert RecordIndex(store, "the shelf", replace(HEADER, embedder="renamed")).header == HEADER
    with pytest.raises(ConfigError, match=r"^the shelf was made with chunker 'lines' \(now 'words'\): use what it was"):
        RecordIndex(store, "the shelf", replace(HEADER, chunker="words"))
    with pytest.raises(StoreError, match=r"^no index at the shelf: give a header to make one$"):
        RecordIndex(ListedRecords(), "the shelf", None)
    assert [each.vector for each in made(header=TERMS)[1].records.values()] == [None]


def test_nearest_chunks_are_scored_here_and_asked_for_again_where_they_are_too_few() -> None:
    angles = {f"{n:03}": 0.3 + n / 100 for n in range(120)}
    index, store = made(*(one(id, f"w{id}", angle, n=float(id)) for id, angle in angles.items()))
    query = np.array([1, 0], np.float32)
    hits = index.search_vectors(query, 3, {})
    assert [hit.chunk.document for hit in hits] == ["000", "001", "002"] and store.asked == [53]
    assert [hit.score for hit in hits] == pytest.approx([math.cos(0.3), math.cos(0.31), math.cos(0.32)], abs=1e-3)
    assert index.search_vectors(query, 0, {}) == [] and len(index.search_vectors(query, 500, {})) == 120
    # chunks that no document names any more are no hits, and take the place of others
    for id in list(angles)[:60]:
        store.remove([_document_id(id)])
    store.asked.clear()
    assert [hit.chunk.document for hit in index.search_vectors(query, 2, {})] == ["060", "061"] and store.asked == [
        52,
        208,
    ]
    assert [hit.chunk.document for hit in index.search_vectors(query, 2, {"n": {"min": 100}})] == ["100", "101"]
    for bad in (math.inf, -math.inf, math.nan):
        with pytest.raises(ConfigError, match=r"^the vector has values that are not finite: check the embedder$"):
            index.search_vectors(np.array([1, bad], np.float32), 1, {})
    with pytest.raises(ConfigError, match=r"^the vector has the shape \(3,\), and the shelf has \(2,\)$"):
        index.search_vectors(np.ones(3, np.float32), 1, {})
    with pytest.raises(ConfigError, match=r"^the shelf has terms alone: search by terms, or index with an embedder$"):
        made(header=TERMS)[0].search_vectors(query, 1, {})


def test_of_many_chunks_of_one_score_the_first_by_id_are_the_nearest() -> None:
    rows = {"near": [0.5 + 2**-11, 0.865], **{f"{n:02}": [0.5, 0.865] for n in range(60)}}
    index, store = made(*(replace(one(id, "x"), vectors=np.array([row], np.float32)) for id, row in rows.items()))
    near, *others = [hit.chunk.id for hit in index.search_vectors(np.array([1, 0], np.float32), 99, {})]
    assert near == index.chunks("near")[0].id and others == sorted(others) and len(others) == 60
    # the one that is nearer by 2^-14 is within what an engine may be off, and the one by 2^-13 is not
    for first, k, asked in ((0.0, 1, [51, 204]), (0.125, 1, [51, 204]), (0.25, 1, [51]), (0.25, 2, [52, 208]),
                            (1.0, 10, [60, 240]), (1.0, 11, [61, 244]), (1.0, 12, [62])):  # fmt: skip
        store.asked.clear()
        found = index.search_vectors(np.array([first, 1], np.float32), k, {})
        assert [hit.chunk.id for hit in found] == ([near, *others] if first else sorted([near, *others]))[:k]
        assert store.asked == asked, (first, k)


def test_terms_are_scored_by_bm25_over_all_chunks_whatever_the_filter() -> None:
    texts = {"a": "owl owl fox", "b": "owl hen", "c": "hen yak elk cow", "d": "owl owl fox"}
    index, store = made(*(one(id, text, kind="y" if id == "a" else "x") for id, text in texts.items()), header=TERMS)

    def bm25(times: int, length: int, holding: int) -> float:
        mean = (3 + 2 + 4 + 3) / 4
        return (
            math.log(1 + (4 - holding + 0.5) / (holding + 0.5)) * times / (times + 1.2 * (0.25 + 0.75 * length / mean))
        )

    worth = {"a": 2 * bm25(2, 3, 3), "b": 2 * bm25(1, 2, 3) + bm25(1, 2, 2), "c": bm25(1, 4, 2), "d": 2 * bm25(2, 3, 3)}
    order = sorted("abcd", key=lambda id: (-worth[id], index.chunks(id)[0].id))
    hits = index.search_terms("owl owls hen", 9, {})
    assert [hit.chunk.document for hit in hits] == order
    assert [hit.score for hit in hits] == pytest.approx([worth[id] for id in order])
    few = index.search_terms("owl owls hen", 2, {"kind": "x"})
    assert [(hit.chunk.document, hit.score) for hit in few] == [
        (id, pytest.approx(worth[id])) for id in order if id != "a"
    ][:2]  # fmt: skip
    assert (
        index.search_terms("zebra", 3, {}) == index.search_terms("owl", 0, {}) == index.search_terms("?", 3, {}) == []
    )
    store.remove([_document_id("a")])
    assert [hit.chunk.document for hit in index.search_terms("fox", 1, {})] == ["d"]


def test_filters_become_conditions_on_hashes_numbers_and_ids() -> None:
    index, _ = made(one("a", "x", n=3, t="b"), one("b", "y", n=4, t="ü"), one("c", "z", t="c"), header=TERMS)
    ids = {id: index.chunks(id)[0].id for id in "abc"}
    n = _key("n")
    assert index._one("n", 3) == Match(f"v_{n}", (_value(3.0),)) and _value(3) != _value("3") != _value(True)
    assert index._one("n", [3, None]) == Match(f"v_{n}", (_value(3), _value(None)))
    assert index._one("n", {"not": {"min": 3}}) == Not(Range(f"n_{n}", 3.0, None))
    assert index._one("n", {"max": 4, "min": 0}) == Range(f"n_{n}", 0.0, 4.0)
    assert index._one("t", {"min": "b", "max": "c"}) == Among((ids["a"], ids["c"]))
    assert index._one("t", {"min": "ü"}) == Among((ids["b"],)) and index._one("t", {"max": "a"}) == Among(())
    searched = Every((Match("kind", ("chunk",)), Match("searchable", ("1",))))
    assert index._condition({"n": 3, "t": "b"}) == Every((searched, index._one("n", 3), index._one("t", "b")))
    with pytest.raises(ConfigError, match="is not known"):
        index._condition({"n": {"least": 3}})


def test_faults_of_records_are_told_in_sentences() -> None:
    index, store = made(family(), one("e", "yak elk", 0.0))
    first, whole, last = family().chunks
    (yak,) = index.chunks("e")
    store.records[last.id] = replace(store.records[last.id], vector=np.array([0, 0.98], np.float32))
    moved = json.loads(store.records[yak.id].payload) | {"start": 1}
    store.records[yak.id] = replace(store.records[yak.id], payload=json.dumps(moved))
    store.remove([first.id])
    lost = replace(store.records[whole.id], id="f" * 32)
    store.records[lost.id] = lost
    assert sorted(index.verify()) == sorted([
        f"The chunk {lost.id} belongs to no document as it is now.",
        f"The vector of the chunk {last.id} does not have the length 1.",
        f"The chunk {yak.id} is not its document's text.",
        "The document 'd' has 2 of 3 chunks.",
    ])  # fmt: skip
    store.records[last.id] = replace(store.records[last.id], vector=np.array([0, 0.991], np.float32))
    assert not any("length 1" in each for each in index.verify())
