"""An index's rows in memory: fusion, filters and what is kept of them, the approximate side file, vectors by many keys."""

from __future__ import annotations

import hashlib
import math
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.document import Document
from firsthand.retrieval.retriever import TrailStep
from firsthand.retrieval.store import sqlite_index
from firsthand.retrieval.store.ann_file import AnnFile, AnnReport, ann_path
from firsthand.retrieval.store.filter_conditions import MAX_VALUES
from firsthand.retrieval.store.filter_masks import FilterMasks, _among
from firsthand.retrieval.store.search_rows import SearchRows, among
from firsthand.retrieval.store.sqlite_index import SqliteIndex, open_index

HEADER = IndexHeader("small", "print", 2, "lines")
TERMS = IndexHeader("", "", 0, "lines")


def one(id: str, text: str, angle: float | None = None, **meta: Any) -> IndexedDocument:
    """A document of one chunk, with its vector on the circle."""
    rows = None if angle is None else np.array([[math.cos(angle), math.sin(angle)]], np.float32)
    return IndexedDocument(Document(id, text, f"T{id}", f"/{id}"), [Chunk(id, 0, len(text), text, meta=meta)], rows)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def test_rankings_are_fused_by_weight_then_best_rank_then_id() -> None:
    rows = SearchRows(0)
    rows.ids = np.array([b"f", b"e", b"d", b"c", b"b", b"a"], "S32")
    found, scores, ranks = rows.fused([ints(4, 1, 2), ints(2, 5)], 9, 1.0, (1.0, 0.5))
    # 4: 1/2; 1: 1/3; 2: 1/4 + .5/2; 5: .5/3. Rows 2 and 4 are both once the first: b comes before d
    assert found.tolist() == [4, 2, 1, 5] and scores.tolist() == pytest.approx([1 / 2, 1 / 2, 1 / 3, 1 / 6])
    assert [each.tolist() for each in ranks] == [[1, 3, 2, 0], [0, 1, 0, 2]]
    found, scores, ranks = rows.fused([ints(4, 1, 2), ints(2, 5)], 2, 1.0, (1.0, 0.5))
    assert (found.tolist(), len(scores), [each.tolist() for each in ranks]) == ([4, 2], 2, [[1, 3], [0, 1]])
    found, scores, ranks = rows.fused([ints(4, 1, 2), ints(2, 5, 1, 4)], 9, 1.0, (0.0, 0.0))
    assert found.tolist() == [4, 2, 5, 1], "4 and 2 are once the first, 5 and 1 the second"
    assert scores.tolist() == [0, 0, 0, 0] and [each.tolist() for each in ranks] == [[1, 3, 0, 2], [4, 1, 2, 3]]
    rows.ids = np.array([b"a", b"e", b"d", b"c"], "S32")
    found, scores, _ = rows.fused([ints(3, 0), ints(1, 0)], 9, 0.0, (1.0, 1.0))
    assert found.tolist() == [3, 1, 0] and scores.tolist() == [1, 1, 1]
    best, worth = rows.best(ints(0, 2, 3), np.array([1.0, 2.0, 2.0]), 2)
    assert (best.tolist(), worth.tolist()) == ([3, 2], [2, 2])
    assert among(ints(1, 4, 6, 9), ints(2, 4, 9)).tolist() == [4, 9] and among(ints(5), ints()).tolist() == []


def test_removed_rows_are_marked_until_more_than_a_quarter_is() -> None:
    index = open_index(":memory:", HEADER)
    index.put([one(str(n), f"word{n}", n) for n in range(8)])
    rows = SearchRows(2)

    def refreshed() -> tuple[list[int], list[int], int]:
        with index._file.reading() as connection:
            stale = rows.is_stale(connection)
            rows.refresh(connection)
            assert stale and not rows.is_stale(connection)
        return rows.numbers.tolist(), np.flatnonzero(~rows.alive).tolist(), len(rows)

    assert refreshed() == ([1, 2, 3, 4, 5, 6, 7, 8], [], 8)
    index.delete(["2", "5"])
    assert refreshed() == ([1, 2, 3, 4, 5, 6, 7, 8], [2, 5], 6)
    index.put([one("8", "new", 1.0)])
    assert refreshed() == ([1, 2, 3, 4, 5, 6, 7, 8, 9], [2, 5], 7)
    index.delete(["0"])
    assert refreshed() == ([2, 4, 5, 7, 8, 9], [], 6)
    assert rows.documents.tolist() == [2, 4, 5, 7, 8, 9] and rows.metas.tolist() == [1] * 6
    assert rows.ids.tolist() == [chunk.id.encode() for id in "134678" for chunk in index.chunks(id)]
    before = rows.vectors.approximate(ints(0)).tolist()
    assert before == [pytest.approx([math.cos(1), math.sin(1)], abs=0.01)]
    new = IndexHeader("large", "other", 2, "lines")
    index.reembed(new, lambda texts: np.array([[0, -1]] * len(texts), np.float32))
    assert refreshed()[0] == [2, 4, 5, 7, 8, 9] and rows.vectors.approximate(ints(0)).tolist() == [[0, -1]]
    summed = hashlib.sha256(ints(2, 4).tobytes())
    rows.vectors.add_to(summed, 2)
    assert rows.digest(2) == summed.hexdigest() != rows.digest(3)


def test_vectors_that_another_process_makes_anew_are_searched_whichever_table_holds_them(tmp_path: Path) -> None:
    writer = open_index(tmp_path / "a.index", HEADER)
    writer.put([one(str(n), f"word{n}", n / 10) for n in range(9)])
    reader = open_index(tmp_path / "a.index", read_only=True)
    query = np.array([1, 0], np.float32)

    def best() -> list[str]:
        return [hit.chunk.document for hit in reader.search_vectors(query, 2, {})]

    assert best() == ["0", "1"]
    for first in (3, 6, 1):
        angles = {f"word{n}": (n - first) % 9 / 10 for n in range(9)}

        def embed(texts: Any, angles: Any = angles) -> Any:
            return np.array([[math.cos(angles[text]), math.sin(angles[text])] for text in texts], np.float32)

        assert writer.reembed(HEADER, embed, batch_size=4) == 9
        assert best() == [str(first), str(first + 1)] and writer.verify() == []
    counts = [writer._file._connection.execute(f"SELECT count(*) FROM vectors_{each}").fetchone()[0] for each in (0, 1)]
    assert counts == [0, 9] and writer._file._connection.execute("SELECT active, next FROM header").fetchone() == (
        1,
        None,
    )
    writer.close()
    reader.close()


def test_terms_are_scored_by_bm25_among_the_rows_that_pass() -> None:
    index = open_index(":memory:", TERMS)
    texts = {"a": "owl owl fox", "b": "owl hen", "c": "hen yak elk cow", "d": "owl owl fox"}
    index.put([one(id, text, kind="x" if id in "bcd" else "y") for id, text in texts.items()])

    def bm25(times: int, length: int, holding: int) -> float:
        mean = (3 + 2 + 4 + 3) / 4
        return (
            math.log(1 + (4 - holding + 0.5) / (holding + 0.5)) * times / (times + 1.2 * (0.25 + 0.75 * length / mean))
        )

    equal = sorted("ad", key=lambda id: index.chunks(id)[0].id)
    hits = index.search_terms("owls owl hen", 9, {})
    worth = {"a": 2 * bm25(2, 3, 3), "b": 2 * bm25(1, 2, 3) + bm25(1, 2, 2), "c": bm25(1, 4, 2)}
    worth["d"] = worth["a"]
    order = sorted("abcd", key=lambda id: (-worth[id], index.chunks(id)[0].id))
    assert [hit.chunk.document for hit in hits] == order and [each for each in order if each in "ad"] == equal
    assert [hit.score for hit in hits] == pytest.approx([worth[id] for id in order])
    assert [hit.chunk.document for hit in index.search_terms("fox", 1, {})] == equal[:1]
    assert [hit.chunk.document for hit in index.search_terms("fox", 9, {"kind": "x"})] == ["d"]
    assert index.search_terms("fox", 0, {}) == index.search_terms("zebra", 9, {}) == index.search_terms("", 9, {}) == []
    with pytest.raises(ConfigError, match=r"^:memory: has terms alone: search by terms, or index with an embedder$"):
        index.search_vectors(np.ones(2, np.float32), 1, {})


def test_a_hybrid_search_tells_rank_and_score_in_each_ranking() -> None:
    index = open_index(":memory:", HEADER)
    index.put([one("a", "owl", 0.0), one("b", "owl fox fox", 0.5), one("c", "hen", 1.0), one("d", "fox", 3.0)])
    query = np.array([1, 0], np.float32)
    hits = index.search_hybrid(query, "fox", 3, {}, pool=3, constant=2.0, weights=(1.0, 2.0))
    terms = {hit.chunk.document: hit for hit in index.search_terms("fox", 3, {})}
    ranked = [hit.chunk.document for hit in index.search_terms("fox", 3, {})]
    assert sorted(ranked) == ["b", "d"]
    place = {id: ranked.index(id) + 1 for id in ranked}
    score = {"a": 1 / 3, "b": 1 / 4 + 2 / (2 + place["b"]), "c": 1 / 5, "d": 2 / (2 + place["d"])}
    best = sorted(score, key=lambda id: -score[id])[:3]
    assert [hit.chunk.document for hit in hits] == best and [hit.score for hit in hits] == [score[id] for id in best]
    cosines = {"a": (1, 1.0), "b": (2, math.cos(0.5)), "c": (3, math.cos(1.0))}
    for rank, hit in enumerate(hits, 1):
        id, steps = hit.chunk.document, []
        if id in cosines:
            steps.append(TrailStep("dense", cosines[id][0], pytest.approx(cosines[id][1], abs=1e-3)))
        if id in terms:
            steps.append(TrailStep("lexical", place[id], terms[id].score))
        assert hit.trail == (*steps, TrailStep("rrf", rank, score[id]))
    # the pool is never smaller than k
    assert len(index.search_hybrid(query, "zebra", 4, {}, pool=1)) == 4
    assert (
        len(index.search_hybrid(query, "zebra", 1, {}, pool=1)) == 1 and index.search_hybrid(query, "fox", 0, {}) == []
    )
    for bad in (math.inf, -math.inf, math.nan):
        with pytest.raises(ConfigError, match=r"^the vector has values that are not finite: check the embedder$"):
            index.search_vectors(np.array([0, bad], np.float32), 1, {})
    with pytest.raises(ConfigError) as shape:
        index.search_vectors(np.ones(3, np.float32), 1, {})
    assert str(shape.value) == "the vector has the shape (3,), and :memory: has (2,): embed the query with 'small'"


def test_filters_pass_rows_that_are_alive_and_are_kept_until_the_rows_change() -> None:
    index = open_index(":memory:", TERMS)
    index.put([one("a", "x", n=1, t="é"), one("b", "y", n=2), one("c", "z", n=3.5, t="u"), one("d", "w")])
    index.delete(["d"])
    rows, masks = SearchRows(0), FilterMasks()
    index.put([one("e", "v", n=None)])
    with index._file.reading() as connection:
        rows.refresh(connection)
        rows.alive[0] = False

        def passing(where: Any) -> str:
            return "".join("abce"[row] for row in masks.rows(connection, where, rows))

        assert passing({}) == "bce" and passing({"n": {"min": 2}}) == "bc" and passing({"n": {"max": 2}}) == "b"
        assert passing({"n": {"not": 2}}) == "ce" and passing({"n": [None, 3.5]}) == "ce" and passing({"t": "u"}) == "c"
        assert passing({"t": {"not": {"not": "u"}}, "n": {"min": 0}}) == "c" and passing({"m": 1}) == ""
        # each kind of a list's values is looked for in the named field alone
        assert (
            passing({"t": ["no", 2, None]}) == "" == passing({"m": ["u", 2, None]}) and passing({"n": ["u", 2]}) == "b"
        )
        assert passing({"t": {"not": ["u", 2]}}) == "be" and passing({"document": ["b", 2]}) == "b"
        assert passing({"document": ["b", "e"]}) == "be" and passing({"source": "/c"}) == "c"
        assert passing({"title": {"not": "Tb"}}) == "ce" and passing({"document": "B"}) == ""
        many = [*range(100, 100 + MAX_VALUES), 2, 3.5]
        assert passing({"n": many}) == "bc" and passing({"n": {"not": many}}) == "e" and passing({"n": many[:-2]}) == ""
        with pytest.raises(ConfigError, match="is not known"):
            passing({"n": {"least": 1}})
        kept = masks.rows(connection, {"n": 2, "t": "u"}, rows)
        assert masks.rows(connection, {"t": "u", "n": 2.0}, rows) is kept and not len(kept)
        for number in range(63):
            masks.rows(connection, {"n": number + 1000}, rows)
        assert masks.rows(connection, {"n": 2, "t": "u"}, rows) is kept, "64 are kept"
        masks.rows(connection, {"n": 5000}, rows)
        assert masks.rows(connection, {"n": 2, "t": "u"}, rows) is not kept, "the oldest makes room"
        last = masks.rows(connection, {"n": 5000}, rows)
        masks.clear()
        assert masks.rows(connection, {"n": 5000}, rows) is not last

    plain = sqlite3.connect(":memory:")

    def chosen(values: str, *held: int) -> list[bool]:
        return list(_among(plain, "SELECT value FROM json_each(?)", [values], ints(*held)).tolist())

    assert chosen("[7, 2, 99]", 2, 3, 7, 2) == [True, False, True, True] and chosen("[1]") == []
    assert chosen("[-4, 3]", -4, 3, 5) == [True, True, False] and chosen("[3]", 1 << 40, 3) == [False, True]
    assert chosen("[]", 0, 1) == [False, False] and chosen("[5, 6]", 5) == [True]


# -- many keys --


def test_vectors_and_outlines_of_more_keys_than_one_statement_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_index, "_AT_ONCE", 4)
    many = open_index(":memory:", HEADER)
    text = "".join(chr(0x4E00 + n) for n in range(9))
    angles = np.arange(9) / 4
    rows = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    chunks = [Chunk("big", n, n + 1, each) for n, each in enumerate(text)]
    many.put([IndexedDocument(Document("big", text), chunks, rows)])
    many.put([one(f"d{n}", f"word{n}", 0.1, n=n) for n in range(7)])
    order = [8, 0, 5, 4, 3, 0, *range(9)]
    found = many.vectors([chunks[n].id for n in order])
    assert found.shape == (15, 2) and found.dtype == np.float32 and np.allclose(found, rows[order], atol=1e-3)
    assert many.vectors([]).shape == (0, 2)
    known = many.known_vectors([*text, "word3", "unknown"])
    assert len(known) == 10 and known["word3"].tolist() == pytest.approx([math.cos(0.1), math.sin(0.1)], abs=1e-3)
    with pytest.raises(UnknownName, match=r"^no vector of the chunk 'zz' in :memory:$"):
        many.vectors([chunks[0].id, "zz", "yy"])
    told = list(many.outlines())  # two whole pages, and a third one without a row
    assert [each.id for each in told] == ["big", *(f"d{n}" for n in range(7))]
    last = told[-1]
    assert (last.title, last.source, last.meta) == ("Td6", "/d6", {})
    assert last.sha256 == hashlib.sha256(b"word6").hexdigest() and len(many) == 16
    assert many.hashes()["d6"] == last.sha256 and many.title("d5") == "Td5" and many.title("e") is None
    assert [each.document for each in many.chunks_with(["word2"])] == ["d2"]
    many.delete(["d0"])
    assert len(list(many.outlines())) == 7
    with pytest.raises(UnknownName, match=r"^no document 'd0' in :memory:$"):
        many.document("d0")
    many.put([one("mill.md", "mill", 0.0)])
    with pytest.raises(UnknownName, match=r"^no document 'mil\.md' in :memory:; did you mean 'mill\.md'\?$"):
        many.document("mil.md")


# -- the approximate side file --


def circle(path: Path, count: int) -> tuple[SqliteIndex, SearchRows]:
    index = open_index(path, HEADER)
    text = "x" * count
    chunks = [Chunk("d", n, n + 1, "x") for n in range(count)]
    angles = np.arange(count) * 0.03
    rows = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    index.put([IndexedDocument(Document("d", text), chunks, rows)])
    held = SearchRows(2)
    with index._file.reading() as connection:
        held.refresh(connection)
    return index, held


def test_a_side_file_is_written_beside_the_index_and_read_back_if_it_fits(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    path = tmp_path / "a.index"
    index, rows = circle(path, 78)
    made = AnnFile.built(path, rows)
    assert made._lists.nlist == 2 and made._lists.ntotal == made.count == 78 and made._digest == rows.digest(78)
    raw = ann_path(path).read_bytes()
    assert ann_path(path) == tmp_path / "a.index.ann"
    name, count, digest, checksum = raw[:199].decode().split()
    assert (name, count, digest) == ("firsthand-ann-1", "78", rows.digest(78)) and raw[199:200] == b"\n"
    assert checksum == hashlib.sha256(raw[200:]).hexdigest()
    assert sorted(each.name for each in tmp_path.glob("*.ann*")) == ["a.index.ann"]
    read = AnnFile.opened(path, rows)
    assert read.count == 78 and read.covers(rows) and read.fresh_for(rows)
    query = np.array([1, 0], np.float32)
    exact = np.argsort(-np.cos(np.arange(78) * 0.03))
    near = read.nearest(query, 1)
    assert near.dtype == np.int64 and near.tolist() == sorted(near.tolist()) and len(near) == 50
    assert set(exact[:45]) <= set(near.tolist()) and len(read.nearest(query, 15)) == 60
    assert len(read.nearest(query, 99)) == 78, "the places that faiss leaves empty are no rows"
    with index._file.reading():
        assert index.ann_report(queries=5, k=3) == AnnReport(78, 78, 1.0, 5, 3)
    assert index.ann_report(queries=500, k=77) == AnnReport(78, 78, 1.0, 78, 77)
    assert index.ann_report(k=78) == AnnReport(0, 78, None, 0, 78) and not index.needs_ann()
    for damaged in (
        raw[:-1],
        b"",
        raw.replace(b"ann-1", b"ann-2"),
        raw.replace(b" 78 ", b" 77 ", 1),
        raw.replace(b" 78 ", b" 77 ", 1).replace(rows.digest(78).encode(), rows.digest(77).encode(), 1),
        b"\xff" + raw[1:],
    ):
        ann_path(path).write_bytes(damaged)
        assert not AnnFile.opened(path, rows).covers(rows)
    ann_path(path).write_bytes(raw)
    assert AnnFile.opened(path, SearchRows(3)).count == 0
    ann_path(path).unlink()
    assert index.ann_report() is None and AnnFile.opened(path, rows).count == 0
    with pytest.raises(StoreError, match=r"a\.index has no chunks: index documents first$"):
        AnnFile.built(path, SearchRows(2))
    index.close()


def test_a_side_file_covers_rows_while_three_quarters_live_and_is_fresh_with_four_fifths(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    index, rows = circle(tmp_path / "a.index", 40)
    index._search.ann_rows = 41
    assert not index.needs_ann()
    index._search.ann_rows = 40
    assert index.needs_ann(), "40 rows are many, and there is no side file"
    made = AnnFile.built(tmp_path / "a.index", rows)
    assert made._lists.nlist == 1
    rows.alive[:10] = False
    assert made.covers(rows)
    rows.alive[10] = False
    assert not made.covers(rows)
    rows.alive[:] = True
    more = SearchRows(2)
    text = "".join(chr(0x4E00 + n) for n in range(10))
    chunks = [Chunk("e", n, n + 1, each) for n, each in enumerate(text)]
    index.put([IndexedDocument(Document("e", text), chunks, np.array([[1, 0]] * 10, np.float32))])
    with index._file.reading() as connection:
        more.refresh(connection)
    assert made.covers(more) and made.fresh_for(more), "40 of 50 are four fifths"
    index._search.ann_rows = 51
    assert not index.needs_ann()
    index._search.ann_rows = 50
    assert not index.needs_ann()
    index.put([one("f", "f", 0.0)])
    with index._file.reading() as connection:
        more.refresh(connection)
    assert made.covers(more) and not made.fresh_for(more) and index.needs_ann()
    assert index.build_ann() == 51 and not index.needs_ann()
    fewer = SearchRows(2)
    fewer.numbers = rows.numbers[:39]
    assert not made.covers(fewer)
    index.close()
    for held in (open_index(tmp_path / "t.index", TERMS), open_index(":memory:", HEADER)):
        with pytest.raises(ConfigError, match=r" has no vectors in a file: an approximate side file needs both$"):
            held.build_ann()
        assert held.ann_report() is None and not held.needs_ann()
        held.close()
