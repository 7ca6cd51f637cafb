"""What a hit is widened to: its neighbours in the document, windows that touch as one, and the larger chunk around it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument
from firsthand.retrieval.corpus import Corpus
from firsthand.retrieval.document import Document
from firsthand.retrieval.retriever import Hit, Query, TrailStep
from firsthand.retrieval.retrievers.best_sentence import scaled
from firsthand.retrieval.retrievers.context_windows import _parents, _widened, neighbours, parents
from firsthand.retrieval.retrievers.selection import where
from firsthand.retrieval.store.sqlite_index import SqliteIndex, open_index
from index_tiny import TERMS_ONLY

TEXT = "".join(f"{letter}{letter}\n" for letter in "abcdefghi")


def chunk(first: int, last: int, document: str = "d", parent: str | None = None) -> Chunk:
    return Chunk(document, first, last, TEXT[first:last], parent=parent)


def opened(path: Path, *chunks: Chunk) -> SqliteIndex:
    index = open_index(path, TERMS_ONLY)
    for name in dict.fromkeys(each.document for each in chunks):
        own = [each for each in chunks if each.document == name]
        index.put([IndexedDocument(Document(name, TEXT, "", "", {}), own, None)])
    return index


def spans(hits: list[Hit]) -> list[tuple[int, int, float]]:
    assert all(hit.chunk.text == TEXT[hit.chunk.start : hit.chunk.end] for hit in hits)
    return [(hit.chunk.start, hit.chunk.end, hit.score) for hit in hits]


def test_windows_of_a_document_join_where_they_touch_and_keep_the_best_place(tmp_path: Path) -> None:
    rows = [chunk(at, at + 3, name) for name in "de" for at in range(0, 27, 3)]
    index = opened(tmp_path / "a.index", *rows)
    hits = [Hit(rows[7], 0.9), Hit(rows[9], 0.8), Hit(rows[2], 0.7), Hit(rows[1], 0.6)]
    found = _widened(index, hits, 1, {})
    assert spans(found) == [(18, 27, 0.9), (0, 6, 0.8), (0, 12, 0.7)]
    assert [hit.chunk.document for hit in found] == ["d", "e", "d"]
    assert [hit.trail for hit in found] == [
        (TrailStep("neighbours", rank, score),) for rank, score in ((1, 0.9), (2, 0.8), (3, 0.7))
    ]
    assert spans(_widened(index, hits[:1], 3, {})) == [(12, 27, 0.9)] and _widened(index, [], 1, {}) == []
    apart = _widened(index, [Hit(rows[1], 0.5), Hit(rows[4], 0.4)], 1, {})  # they end and begin at 9
    assert spans(apart) == [(0, 18, 0.5)]
    assert spans(_widened(index, [Hit(rows[1], 0.5), Hit(rows[5], 0.4)], 1, {})) == [(0, 9, 0.5), (12, 21, 0.4)]
    index.close()


def test_a_hit_that_is_no_chunk_has_the_neighbours_of_those_it_overlaps_and_none_in_a_gap(tmp_path: Path) -> None:
    rows = [chunk(at, at + 3) for at in (0, 3, 6, 18, 21, 24)]
    index = opened(tmp_path / "a.index", *rows)
    assert spans(_widened(index, [Hit(chunk(4, 8), 1.0)], 1, {})) == [(0, 21, 1.0)]
    assert spans(_widened(index, [Hit(chunk(19, 20), 1.0)], 1, {})) == [(6, 24, 1.0)]
    assert spans(_widened(index, [Hit(chunk(8, 12), 1.0)], 1, {})) == [(3, 21, 1.0)]
    for first, last in ((9, 18), (10, 14), (9, 10), (17, 18)):
        assert spans(_widened(index, [Hit(chunk(first, last), 1.0)], 1, {})) == [(first, last, 1.0)]
    index.close()


def test_a_parent_stands_once_for_its_children_at_the_best_place(tmp_path: Path) -> None:
    one, two = chunk(0, 12), chunk(12, 27)
    children = [chunk(0, 3, parent=one.id), chunk(3, 12, parent=one.id), chunk(12, 15, parent=two.id)]
    index = opened(tmp_path / "a.index", one, two, *children)
    step = TrailStep("first", 1, 0.5)
    hits = [Hit(children[1], 0.9, (step,)), Hit(children[2], 0.8), Hit(children[0], 0.7), Hit(two, 0.6)]
    found = _parents(index, hits, {})
    assert spans(found) == [(0, 12, 0.9), (12, 27, 0.8)]
    assert found[0].trail == (step, TrailStep("parents", 1, 0.9)) and found[1].trail == (TrailStep("parents", 2, 0.8),)
    assert spans(_widened(index, [replace(hits[0], trail=())], 1, {})) == [(0, 15, 0.9)], "neighbours are of its level"
    index.close()


def test_a_window_ends_before_a_chunk_that_the_filter_excludes(tmp_path: Path) -> None:
    shown = "yynyyyyny"  # y: public
    rows = [replace(chunk(at * 3, at * 3 + 3), meta={"public": each == "y"}) for at, each in enumerate(shown)]
    index, public = opened(tmp_path / "a.index", *rows), {"public": True}
    assert spans(_widened(index, [Hit(rows[4], 1.0)], 3, public)) == [(9, 21, 1.0)]
    assert spans(_widened(index, [Hit(rows[4], 1.0)], 3, {})) == [(3, 24, 1.0)]
    assert spans(_widened(index, [Hit(rows[4], 1.0)], 1, public)) == [(9, 18, 1.0)]
    assert spans(_widened(index, [Hit(rows[3], 0.9), Hit(rows[1], 0.8)], 2, public)) == [(9, 18, 0.9), (0, 6, 0.8)]
    assert spans(_widened(index, [Hit(chunk(8, 10), 1.0)], 1, public)) == [(8, 15, 1.0)], "a part of what is excluded"
    assert spans(_widened(index, [Hit(chunk(20, 22), 1.0)], 1, public)) == [(15, 22, 1.0)]
    for fields in ({"document": "d"}, {"source": "", "title": ""}):
        assert spans(_widened(index, [Hit(rows[4], 1.0)], 1, fields)) == [(9, 18, 1.0)]
    assert spans(_widened(index, [Hit(rows[4], 1.0)], 1, {"source": "a"})) == [(12, 15, 1.0)]
    index.close()


def test_a_parent_is_given_only_if_the_filter_excludes_nothing_in_it(tmp_path: Path) -> None:
    one, two, three = (replace(chunk(at, at + 9), meta={"public": at < 18}) for at in (0, 9, 18))
    rows = [one, two, three]
    for parent, shown in ((one, "yyy"), (two, "yny"), (three, "yyy")):
        starts = range(parent.start, parent.end, 3)
        for at, each in zip(starts, shown, strict=True):
            rows.append(replace(chunk(at, at + 3, parent=parent.id), meta={"public": each == "y"}))
    index = opened(tmp_path / "a.index", *rows)
    hits = [Hit(rows[3], 0.9), Hit(rows[6], 0.8), Hit(rows[8], 0.7), Hit(rows[9], 0.6), Hit(rows[5], 0.5)]
    assert spans(_parents(index, hits, {"public": True})) == [(0, 9, 0.9), (9, 12, 0.8), (15, 18, 0.7), (18, 21, 0.6)]
    assert spans(_parents(index, hits, {})) == [(0, 9, 0.9), (9, 18, 0.8), (18, 27, 0.6)]
    index.close()


def test_chunks_that_only_touch_a_parent_are_not_in_it(tmp_path: Path) -> None:
    parent = replace(chunk(9, 18), meta={"public": True})
    child = replace(chunk(9, 12, parent=parent.id), meta={"public": True})
    beside = [replace(chunk(at, at + 3), meta={"public": False}) for at in (6, 18)]
    index = opened(tmp_path / "a.index", parent, child, *beside)
    assert spans(_parents(index, [Hit(child, 1.0)], {"public": True})) == [(9, 18, 1.0)]
    index.close()


def test_the_filter_of_a_query_holds_for_what_hits_are_widened_to(tmp_path: Path) -> None:
    one = replace(chunk(0, 9), meta={"public": True})
    rows = [replace(chunk(at, at + 3, parent=one.id), meta={"public": at < 6}) for at in (0, 3, 6)]
    corpus = Corpus(opened(tmp_path / "a.index", one, *rows))

    async def search(query: Query, k: int) -> list[Hit]:
        return [Hit(rows[1], 1.0)]

    for widen, public, whole in ((neighbours, (0, 6, 1.0), (0, 9, 1.0)), (parents, (3, 6, 1.0), (0, 9, 1.0))):
        retriever = widen(search, corpus)
        assert spans(list(asyncio.run(where(retriever, {"public": True})(Query("q"), 1)))) == [public]
        assert spans(list(asyncio.run(retriever(Query("q"), 1)))) == [whole]


def test_scores_are_scaled_over_the_pool() -> None:
    assert scaled([2.0, 4.0, 3.0]) == [0.0, 1.0, 0.5] and scaled([-1.0, -1.0]) == [1.0, 1.0]
    assert scaled([float("-inf"), 1.0]) == [1.0, 1.0] and scaled([7.0]) == [1.0]
