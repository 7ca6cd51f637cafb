"""Indexes over records whose updates are stopped at any point, or that two programs make at once with other settings."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine_stand_ins
from engine_stand_ins import Chroma
from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.document import Document
from firsthand.retrieval.ingest import ingest
from firsthand.retrieval.store.chroma_index import open_chroma_index
from firsthand.retrieval.store.pinecone_index import PineconeRecords
from firsthand.retrieval.store.qdrant_index import QdrantRecords
from firsthand.retrieval.store.record_index import _HEADER_ID, RecordIndex, _document_id, _made_with, _twin
from firsthand.retrieval.store.records import Record, record_pages
from index_tiny import lines
from listed_records import ListedRecords
from pinecone_wire import Namespace

HEADER = IndexHeader("small", "print", 2, "lines")
OTHER = IndexHeader("large", "other print", 2, "lines")
TERMS = IndexHeader("", "", 0, "lines")
WORDS = ["fox\n", "hen\n", "owl\n"]


class Stopped(ListedRecords):
    """Stores and removes records one by one, and stops after `left` of them; `between` is called before each."""

    left = math.inf
    between: Callable[[], None] | None = None

    def upsert(self, records: Sequence[Record]) -> None:
        for each in records:
            self._step()
            super().upsert([each])

    def remove(self, ids: Sequence[str]) -> None:
        for each in ids:
            self._step()
            super().remove([each])

    def _step(self) -> None:
        if self.between is not None:
            self.between()
        if self.left <= 0:
            raise StoreError("the connection was lost")
        self.left -= 1


def stopped_after(steps: int, index: RecordIndex, store: Stopped, document: IndexedDocument) -> bool:
    """True if the update was stopped; False if it needs fewer steps."""
    store.left = steps
    try:
        index.put([document])
    except StoreError:
        return True
    finally:
        store.left = math.inf
    return False


def document(access: str, words: Sequence[str] = WORDS) -> IndexedDocument:
    angle = 0.5 if access == "public" else 0.0
    rows = np.array([[math.cos(angle + n), math.sin(angle + n)] for n in range(len(words))], np.float32)
    return lines("d", words, meta={"access": access}, vectors=rows)


def made(store: ListedRecords | None = None, *documents: IndexedDocument) -> tuple[RecordIndex, Stopped]:
    kept = Stopped() if store is None else store
    index = RecordIndex(kept, "the shelf", HEADER)
    assert index.put(documents).failed == ()
    return index, kept  # type: ignore[return-value]


def check_whole(index: RecordIndex, versions: Sequence[IndexedDocument]) -> str:
    """The access of the version that everything shows: document, chunks, filters, vectors and chunks by id."""
    shown = index.document("d").meta["access"]
    [version] = [each for each in versions if each.document.meta["access"] == shown]
    assert index.chunks("d") == list(version.chunks)
    assert [index.chunk(each.id) for each in version.chunks] == list(version.chunks)
    assert version.vectors is not None
    assert np.allclose(index.vectors([each.id for each in version.chunks]), version.vectors, atol=1e-3)
    for access in ("public", "private"):
        expected = sorted(each.id for each in version.chunks if access == shown)
        by_terms = index.search_terms("fox hen owl yak", 9, {"access": access})
        by_vector = index.search_vectors(np.array([1, 0], np.float32), 9, {"access": access})
        assert sorted(hit.chunk.id for hit in by_terms) == sorted(hit.chunk.id for hit in by_vector) == expected
    return str(shown)


@pytest.mark.parametrize("words", [WORDS, ["fox\n", "yak\n"], [*WORDS, "yak\n"]], ids=["meta", "less", "more"])
def test_a_document_shows_whole_wherever_its_update_is_stopped_and_either_version_can_be_put_then(
    words: list[str],
) -> None:
    before, after = document("private"), document("public", words)
    steps, seen = 0, set()
    while True:
        for again in (before, after):
            index, store = made(None, before)
            was_stopped = stopped_after(steps, index, store, after)
            shown = check_whole(index, [before, after])
            seen.add(shown)
            receipt = index.put([again])
            same = again.document.meta["access"] == shown
            assert receipt.unchanged == (("d",) if same else ()) and receipt.updated == (() if same else ("d",))
            assert check_whole(index, [again]) and index.verify() == []
            assert len(store.records) == 2 + len(again.chunks), "nothing of another version is kept"
        if not was_stopped:
            break
        steps += 1
    assert steps == len(words) + 1 + 3 and seen == {"private", "public"}


def test_readers_see_one_version_during_updates_that_go_to_and_fro() -> None:
    versions = [document("private"), document("public")]
    index, store = made(None, versions[0])
    reader, seen = RecordIndex(store, "the shelf", None), []
    store.between = lambda: seen.append(check_whole(reader, versions))
    for version in (versions[1], versions[0], versions[1]):
        assert index.put([version]).updated == ("d",)
    assert {*seen} == {"private", "public"} and len(seen) == 3 * 7


def test_chunks_that_a_reader_took_before_two_updates_are_not_shown_as_those_of_the_third_version() -> None:
    index, store = made(None, document("private"))
    taken = [each for each in store.records.values() if each.fields["kind"] == "chunk"]
    assert [each.id for each in index._current(taken, set())] == [each.id for each in taken]
    index.put([document("public")])
    index.put([document("internal")])
    assert {each.id for each in taken} <= {*store.records} and index._current(taken, set()) == []
    for each in taken:
        store.records[each.id] = each
    assert len(index.verify()) == 4, "each chunk, and that the document has 0 of 3"


def test_a_document_that_lacks_a_chunk_or_comes_from_before_chunks_named_their_version_is_stored_again() -> None:
    index, store = made(None, document("private"))
    del store.records[document("private").chunks[1].id]
    assert index.put([document("private")]).updated == ("d",) and index.verify() == []
    for id, each in [*store.records.items()]:
        fields = {name: value for name, value in each.fields.items() if name not in ("version", "header")}
        store.records[id] = replace(each, fields=fields)
    old = RecordIndex(store, "the shelf", HEADER)
    assert check_whole(old, [document("private")]) and old.verify() == []
    assert sorted(old.known_vectors(WORDS)) == sorted(WORDS)
    assert old.put([document("private")]).updated == ("d",) and old.put([document("private")]).unchanged == ("d",)
    assert old.verify() == [] and len(store.records) == 5


def test_chunks_of_stopped_updates_do_not_take_the_place_of_hits() -> None:
    many = lines("many", [f"fox {n}\n" for n in range(300)], vectors=np.array([[1, 0]] * 300, np.float32))
    low = lines("low", ["fox " + "hen " * 60], vectors=np.array([[0, 1]], np.float32))
    index, store = made(None, low)
    assert stopped_after(300, index, store, many)
    assert [hit.chunk.document for hit in index.search_terms("fox", 2, {})] == ["low"]
    assert index.remove_leftovers(["low", "none"]) == 0 and index.remove_leftovers(["many"]) == 300
    assert index.verify() == [] and index.remove_leftovers() == 0


def test_leftovers_are_removed_of_documents_that_can_be_read_and_of_those_that_are_not_there() -> None:
    index, store = made(None, document("private"), lines("e", ["elk\n"], vectors=np.array([[1, 0]], np.float32)))
    assert stopped_after(2, index, store, document("public"))
    assert stopped_after(1, index, store, lines("f", ["ant\n", "bee\n"], vectors=np.eye(2, dtype=np.float32)))
    damaged = _document_id("e")
    store.records[damaged] = replace(store.records[damaged], payload="[]")
    store.transactional = True  # type: ignore[misc]
    assert index.remove_leftovers() == 0
    store.transactional = False  # type: ignore[misc]
    assert index.remove_leftovers() == 3 and check_whole(index, [document("private")])
    assert [each.fields.get("of") for each in store.records.values()].count(damaged) == 1


def whole(document: Document) -> list[Chunk]:
    return [Chunk(document.id, 0, len(document.text), document.text)]


@pytest.mark.parametrize("steps", [1, 2])
def test_an_ingest_removes_what_a_stopped_one_left_of_files_that_are_unchanged(tmp_path: Path, steps: int) -> None:
    store = Stopped()
    index = RecordIndex(store, "the shelf", TERMS)
    file = tmp_path / "d.txt"

    def brought_up(text: str) -> Any:
        file.write_text(text)
        return asyncio.run(ingest(tmp_path, index, None, whole))

    assert brought_up("The code is 4711.").added == ("d.txt",)
    store.left = steps  # before and after the document's record
    with pytest.raises(StoreError, match="the connection was lost"):
        brought_up("The code is XXXX.")
    store.left = math.inf
    shown = index.document("d.txt").text
    assert shown == "The code is 4711." if steps == 1 else "The code is XXXX." and len(store.records) == 4
    other = lines("other", ["not finished\n", "by another program\n"], with_vectors=False)
    assert stopped_after(1, index, store, other)
    assert brought_up(shown).unchanged == ("d.txt",)
    kept = [each.payload for each in store.records.values() if each.fields["kind"] == "chunk"]
    assert len(kept) == 2 and sum(shown in each for each in kept) == 1 and "not finished" in kept[1]


# -- makers --


def test_of_two_makers_with_two_embedders_one_is_refused_whether_it_comes_earlier_or_later() -> None:
    class Late(ListedRecords):
        """Another program makes the index after the first look at it."""

        transactional = True
        looks = 0

        @contextmanager
        def atomically(self) -> Iterator[None]:  # type: ignore[override]
            if self.transactional:
                self._make()
            yield

        def upsert(self, records: Sequence[Record]) -> None:
            super().upsert(records)
            if not self.transactional:
                self._make()

        def _make(self) -> None:
            if self.looks == 0:
                self.looks = 1
                RecordIndex(self, "the shelf", OTHER) if self.transactional else self._write()

        def _write(self) -> None:
            ListedRecords.upsert(self, [Record(_HEADER_ID, {"kind": "header"}, json.dumps(asdict(OTHER)))])

    for transactional in (True, False):
        store = Late()
        store.transactional = transactional  # type: ignore[misc]
        with pytest.raises(ConfigError, match=r"^the shelf was made with fingerprint 'other print'"):
            RecordIndex(store, "the shelf", HEADER)
        assert RecordIndex(store, "the shelf", None).header == OTHER and len(store.records) == 1


def test_documents_of_two_embedders_never_show_in_one_index() -> None:
    first, store = made(None, document("private"))
    store.upsert([Record(_HEADER_ID, {"kind": "header"}, json.dumps(asdict(OTHER)))])  # by one that looked before
    for changed in (document("private"), document("public")):
        with pytest.raises(
            StoreError, match=r"^the shelf was made again by another program with other settings: open it"
        ):
            first.put([changed])
    second = RecordIndex(store, "the shelf", OTHER)
    assert second.search_terms("fox", 9, {}) == second.search_vectors(np.array([1, 0], np.float32), 9, {}) == []
    assert second.chunks("d") == [] and second.known_vectors(WORDS) == {}
    with pytest.raises(UnknownName):
        second.vectors([document("private").chunks[0].id])
    assert second.verify() == ["The document 'd' was stored with other settings: index it again."]
    assert second.put([document("private")]).updated == ("d",) and second.verify() == []
    assert len(first.search_terms("fox", 9, {})) == 0 and check_whole(second, [document("private")]) == "private"
    del store.records[_HEADER_ID]
    with pytest.raises(StoreError, match=r"open it again$"):
        second.put([document("public")])


def test_settings_are_another_but_for_the_name_of_the_embedder() -> None:
    assert _made_with(replace(HEADER, embedder="renamed")) == _made_with(HEADER)
    changed = [replace(HEADER, fingerprint="x"), replace(HEADER, dimension=3), replace(HEADER, chunker="x"),
               replace(HEADER, query_prefix="x"), replace(HEADER, document_prefix="x")]  # fmt: skip
    assert len({_made_with(each) for each in [HEADER, *changed]}) == 6


def test_a_twin_is_the_id_beside_and_its_twin_the_id() -> None:
    for id in ("0" * 32, "f" * 32, "0" * 31 + "1", "8" * 31 + "e"):
        assert len(_twin(id)) == 32 and _twin(_twin(id)) == id != _twin(id) and _twin(id)[:31] == id[:31]


# -- engines --


def test_the_last_record_is_in_a_page_of_its_own() -> None:
    some = [Record(f"{n:032x}", {}) for n in range(7)]
    for count, sizes in ((0, []), (1, [1]), (2, [1, 1]), (3, [2, 1]), (4, [2, 1, 1]), (7, [2, 2, 2, 1])):
        pages = record_pages(some[:count], 2)
        assert [len(page) for page in pages] == sizes and [each for page in pages for each in page] == some[:count]


def test_a_document_in_chroma_stays_if_an_update_of_it_fails_at_any_call() -> None:
    for after in range(20):
        with engine_stand_ins.modules(chromadb=engine_stand_ins.chroma()):
            index = open_chroma_index(Chroma(), "c", HEADER)
            index.put([document("private")])
            called, calls = index._store._called, [0]  # type: ignore[attr-defined]

            def failing(method: str, **options: Any) -> Any:
                calls[0] += 1  # noqa: B023
                if calls[0] > after:  # noqa: B023
                    raise StoreError("the disk is full")
                return called(method, **options)  # noqa: B023

            index._store._called = failing  # type: ignore[attr-defined]
            try:
                index.put([document("public")])
            except StoreError:
                index._store._called = called  # type: ignore[attr-defined]
                assert check_whole(index, [document("private"), document("public")])
                assert index.put([document("private")]).failed == () and index.verify() == []
                continue
            break
    assert after > 8, "each call was the one that failed"


@pytest.mark.filterwarnings("ignore")
def test_qdrant_and_pinecone_store_the_record_that_names_the_chunks_when_they_are_stored() -> None:
    space = Namespace()
    some = [Record(f"{n:032x}", {"kind": "chunk"}, "", np.ones(2, np.float32)) for n in range(1001)]
    PineconeRecords(space, "space").upsert(some[:101])
    assert space.calls == [("upsert", 100), ("upsert", 1)]
    space.calls.clear()
    PineconeRecords(space, "space").upsert(some[:3])
    assert space.calls == [("upsert", 2), ("upsert", 1)]
    client, sizes = pytest.importorskip("qdrant_client", reason="this engine has no client here"), []
    store = QdrantRecords(client.QdrantClient(":memory:"), "records", HEADER)
    store._called = lambda method, name, points, wait: sizes.append(len(points))  # type: ignore[method-assign]
    store.upsert(some[:3])
    store.upsert([*some, some[0]])
    assert sizes == [2, 1, 1000, 1, 1]


def test_a_search_by_terms_reads_the_documents_of_the_best_chunks_alone() -> None:
    many = [lines(f"{n:03}", ["fox\n"], vectors=np.array([[1, 0]], np.float32)) for n in range(120)]
    index, store = made(None, *many)
    read, asked = store.get, []
    store.get = lambda ids, **options: (asked.append(len(ids)), read(ids, **options))[1]  # type: ignore[method-assign]
    assert len(index.search_terms("fox", 2, {})) == 2 and asked == [54]
