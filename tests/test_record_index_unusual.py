"""An index over records where something is missing, stale or odd: ids that are none, parents, a store that fails."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import (
    DocumentOutline,
    IndexedDocument,
    IndexHeader,
    IngestReceipt,
    Vectors,
    outlines,
)
from firsthand.retrieval.document import Document
from firsthand.retrieval.hit_json import hit_from_json, hit_to_json
from firsthand.retrieval.retriever import Hit, TrailStep
from firsthand.retrieval.store.analyzer import Analyzer
from firsthand.retrieval.store.record_index import RecordIndex, _document_id, _is_id, _key, _value
from firsthand.retrieval.store.records import Condition, Every, Match, Range, Record
from listed_records import ListedRecords

HEADER = IndexHeader("small", "print", 2, "lines")
TERMS = IndexHeader("", "", 0, "lines")


def family(id: str = "d", text: str = "fox hen\nowl", *, title: str = "") -> IndexedDocument:
    """The second line, a parent over both, and the first line, in this order."""
    at = text.index("\n")
    whole = Chunk(id, 0, len(text), text)
    last = Chunk(id, at + 1, len(text), text[at + 1 :], parent=whole.id)
    first = Chunk(id, 0, at, text[:at], parent=whole.id, meta={"title": "its own", "n": 2})
    rows = np.array([[0.6, 0.8], [0, 0], [1, 0]], np.float32)
    return IndexedDocument(Document(id, text, title, f"/{id}", {"m": [1]}), [last, whole, first], rows)


def one(id: str, text: str) -> IndexedDocument:
    return IndexedDocument(Document(id, text), [Chunk(id, 0, len(text), text)], None)


class Forgetful(ListedRecords):
    """Its search misses some records, as that of a worn graph does."""

    lost: frozenset[str] = frozenset()

    def nearest(self, vector: Vectors, k: int, condition: Condition) -> list[tuple[str, float]]:
        return [pair for pair in super().nearest(vector, 99, condition) if pair[0] not in self.lost][:k]


def test_verify_tells_of_chunks_that_searches_by_vector_miss() -> None:
    store = Forgetful()
    index = RecordIndex(store, "the shelf", HEADER)
    index.put([family("d"), family("e", "goose\nduck")])
    chunks = {each.text: each.id for each in [*index.chunks("d"), *index.chunks("e")]}
    assert index.verify() == []
    store.lost = frozenset({chunks["owl"]})
    assert index.verify() == [], "another chunk lies as near"
    store.lost = frozenset({chunks["owl"], chunks["duck"]})
    first = min(store.lost)
    assert index.verify() == [
        f"Searches by vector miss 2 of 4 chunks tried, {first} among them: the engine's graph is worn by updates, so index "
        "the documents into a new collection."
    ]
    store.lost = frozenset(store.records)
    assert "miss 4 of 4 chunks tried" in index.verify()[0], "and where none is found at all"


def test_records_that_are_not_searched_have_vectors_of_their_own_in_all_directions() -> None:
    store = ListedRecords()
    index = RecordIndex(store, "the shelf", HEADER)
    index.put([family(f"d{n}") for n in range(40)])
    rows = np.array([each.vector for each in store.records.values() if each.fields.get("searchable") != "1"])
    assert len(rows) == 81 and len(np.unique(rows, axis=0)) == 81, "40 documents, 40 parents and the header"
    assert np.allclose(np.linalg.norm(rows, axis=1), 1) and np.abs(rows.mean(axis=0)).max() < 0.35
    before = {id: each.vector for id, each in store.records.items()}
    index.put([family("d0", "cat\ndog")])
    again = store.records[_document_id("d0")].vector
    assert again is not None and np.array_equal(again, before[_document_id("d0")]), "an update moves no document"


class Failing(ListedRecords):
    """Refuses to store a record whose payload has a word."""

    def __init__(self, word: str):
        super().__init__()
        self.word = word

    def upsert(self, records: Sequence[Record]) -> None:
        if any(self.word in each.payload for each in records):
            raise StoreError("the disk is full")
        super().upsert(records)


def test_chunks_come_by_start_the_larger_first_and_only_what_is_searched_is_known_by_its_text() -> None:
    store = ListedRecords()
    index = RecordIndex(store, "the shelf", HEADER)
    indexed = family(title="T")
    last, whole, first = indexed.chunks
    assert index.put([indexed]) == IngestReceipt(("d",)) and index.put([indexed]) == IngestReceipt(unchanged=("d",))
    assert index.chunks("d") == [whole, first, last] and index.chunks("none") == [] and len(index) == 2
    assert index.document("d") == indexed.document and index.chunk(first.id) == first
    known = index.known_vectors(["owl", "fox hen\nowl", "fox hen", "none"])
    assert sorted(known) == ["fox hen", "owl"] and np.allclose(known["owl"], [0.6, 0.8], atol=1e-3)
    assert index.vectors([whole.id, first.id]).tolist() == [[0, 0], [1, 0]] and index.vectors([]).shape == (0, 2)
    assert [hit.chunk for hit in index.search_vectors(np.array([1, 0], np.float32), 5, {"title": "T"})] == [first, last]
    assert index.search_terms("fox", 5, {"title": "its own"}) == [], "a reserved name is the document's own"
    assert [hit.chunk for hit in index.search_terms("fox", 5, {"n": {"max": 2}, "document": "d"})] == [first]
    assert index._one("n", {"max": 0}) == Range(f"n_{_key('n')}", None, 0.0)
    assert index._one("n", {"min": 0}) == Range(f"n_{_key('n')}", 0.0, None)
    assert index._one("n", ()) == Match(f"v_{_key('n')}", ()) and index._one("n", {"max": ""}).ids == ()  # type: ignore[union-attr]
    assert len({_value(each) for each in (0, "0", False, None, [], {}, "", 1)}) == 8 and _value(1) == _value(1.0)
    for id in ("x", "f" * 31, "f" * 33, "F" * 32, first.id.upper()):
        assert not _is_id(id)
        for ask in (index.chunk, lambda id: index.vectors([first.id, id])):
            with pytest.raises(UnknownName, match=rf"'{id}' in the shelf"):
                ask(id)
    assert _is_id(first.id) and outlines_of(index) == [
        DocumentOutline("d", indexed.document.sha256, "T", "/d", {"m": [1]})
    ]
    assert index.delete(["none", "d", "d"]) == ("d",) and [each.fields for each in store.records.values()] == [
        {"kind": "header"}
    ]
    assert len(store.records) == 1 and index.verify() == [] and index.hashes() == {}


def outlines_of(index: Any) -> list[DocumentOutline]:
    return list(outlines(index))


def test_a_store_that_fails_ends_the_ingest_and_a_document_that_does_not_fit_does_not() -> None:
    index = RecordIndex(Failing("hen"), "the shelf", TERMS)
    odd = IndexedDocument(Document("odd", "xy"), [Chunk("odd", 0, 1, "y")], None)
    assert index.put([one("a", "fox"), odd, one("b", "owl")]) == IngestReceipt(
        ("a", "b"), failed=(("odd", "the chunk 0..1 of 'odd' is not the document's text there: chunk it again"),)
    )
    with pytest.raises(StoreError, match=r"^the disk is full$"):
        index.put([one("c", "yak"), one("d", "hen"), one("e", "elk")])
    assert [*index.hashes()] == ["a", "b", "c"] and index.search_terms("elk hen", 9, {}) == []
    with pytest.raises(StoreError, match=r"^no index at the shelf: give a header to make one$"):
        RecordIndex(ListedRecords(), "the shelf", None)
    with pytest.raises(UnknownName, match=r"^no document 'aa' in the shelf; did you mean 'a'\?$"):
        index.document("aa")
    index.close()


def test_as_many_hits_are_found_as_wanted_where_others_are_stale() -> None:
    store = ListedRecords()
    index = RecordIndex(store, "the shelf", TERMS)
    index.put([one(f"{n:03}", "fox " * (70 - n)) for n in range(70)])
    best = [hit.chunk.document for hit in index.search_terms("fox", 70, {})]
    stale = best[:53]
    for id in stale:
        store.remove([_document_id(id)])  # as a writer that ended between two records leaves it
    assert [hit.chunk.document for hit in index.search_terms("fox", 3, {})] == best[53:56]
    assert [hit.chunk.document for hit in index.search_terms("fox", 99, {})] == best[53:]
    assert len(index.verify()) == 53 and index.search_terms("fox", 3, {"document": stale[0]}) == []


def test_a_vector_is_a_fault_more_than_a_hundredth_off_and_a_moved_chunk_whatever_its_text() -> None:
    store = ListedRecords()
    index = RecordIndex(store, "the shelf", HEADER)
    index.put([family()])
    last, whole, first = family().chunks
    for length, faults in ((1.0099, 0), (0.9901, 0), (1.0101, 1), (0.9899, 1), (math.nan, 1), (1.0, 0)):
        record = store.records[first.id]
        store.records[first.id] = Record(record.id, record.fields, record.payload, np.array([0, length]))
        told = [f"The vector of the chunk {first.id} does not have the length 1."]
        assert index.verify() == told * faults, length
    for name, value in (("start", 1), ("text", "fox hem"), ("document", "e")):
        record = store.records[first.id]
        changed = json.dumps(json.loads(record.payload) | {name: value})
        store.records[first.id] = Record(record.id, record.fields, changed, np.array([0, 1.0]))
        assert index.verify() == [f"The chunk {first.id} is not its document's text."]
        store.records[first.id] = record
    del store.records[last.id], store.records[whole.id]
    assert index.verify() == ["The document 'd' has 1 of 3 chunks."]


def test_a_condition_of_a_filter_is_one_of_all() -> None:
    index = RecordIndex(ListedRecords(), "the shelf", TERMS)
    condition = index._condition({"a": 1, "b": [2, "x"]})
    assert isinstance(condition, Every) and condition.conditions[1:] == (
        Match(f"v_{_key('a')}", (_value(1),)), Match(f"v_{_key('b')}", (_value(2), _value("x")))
    )  # fmt: skip
    for wrong in ({"a": {}}, {"a": {"min": 1, "max": "x"}}, {"a": {"not": 1, "min": 2}}, {"a": float("inf")}):
        with pytest.raises(ConfigError):
            index._condition(wrong)
    assert len(index._condition({}).conditions) == 1  # type: ignore[union-attr]


def test_a_hit_is_json_without_its_empty_fields_and_comes_back_as_it_was() -> None:
    bare = Hit(Chunk("d", 0, 1, ""), 0)
    assert hit_to_json(bare) == {
        "id": bare.chunk.id, "document": "d", "start": 0, "end": 1, "text": "", "score": 0.0, "trail": []
    }  # fmt: skip
    steps = (TrailStep("x", 1, np.float64(2)), TrailStep("y", 0, 0))
    full = Hit(Chunk("d", 2, 5, "abc", "H", "", {"n": 0}), np.float32(0.5), steps)  # type: ignore[arg-type]
    body = hit_to_json(full)
    assert body == {
        "id": full.chunk.id, "document": "d", "start": 2, "end": 5, "text": "abc", "heading": "H", "parent": "",
        "meta": {"n": 0}, "score": 0.5, "trail": [["x", 1, 2.0], ["y", 0, 0.0]],
    }  # fmt: skip
    assert json.loads(json.dumps(body)) == body
    for hit in (bare, full):
        assert hit_from_json(hit_to_json(hit)) == hit
    found = hit_from_json({"document": "d", "start": 0, "end": 0, "text": "", "score": "1.5", "more": 1})
    assert found == Hit(Chunk("d", 0, 0, ""), 1.5)


def test_words_are_counted_for_each_text_and_nothing_is_kept_from_one_call_to_the_next() -> None:
    analyzer = Analyzer()
    texts = ["", "Fox foxes, HEN!", "é e\ud800x E", "fox"]
    counts = [{}, {"fox": 2, "hen": 1}, {"e": 3, "x": 1}, {"fox": 1}]
    assert analyzer.counts(texts) == counts == analyzer.counts(texts) and analyzer.counts([]) == []
    with pytest.raises(AttributeError):
        analyzer.counts(["fox", None])  # type: ignore[list-item]
    assert analyzer.counts(["owl"]) == [{"owl": 1}]
    analyzer.close()
