"""Building the approximate side file in batches, failing to write it, and when a search opens it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from firsthand.errors import StoreError
from firsthand.retrieval.chunk_index import IndexHeader
from firsthand.retrieval.store import ann_file
from firsthand.retrieval.store.ann_file import AnnFile, ann_path
from firsthand.retrieval.store.search_rows import SearchRows, among
from firsthand.retrieval.store.sqlite_index import SqliteIndex, open_index
from index_tiny import lines

pytest.importorskip("faiss", reason="faiss is not installed")
HEADER = IndexHeader("two", "two", 2, "lines")


def spiral(path: Path, *sizes: int) -> tuple[SqliteIndex, SearchRows]:
    """Documents 0, 1, ... of so many lines, whose vectors go round a circle; `n` is the document's number."""
    index, at = open_index(path, HEADER), 0
    for n, size in enumerate(sizes):
        angles = 0.1 * np.arange(at, at + size)
        vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
        index.put([lines(f"d{n}", [f"x {m}\n" for m in range(size)], vectors=vectors, meta={"n": n})])
        at += size
    rows = SearchRows(2)
    with index._file.reading() as connection:
        rows.refresh(connection)
    return index, rows


def test_all_rows_are_added_batch_by_batch_and_the_file_is_of_one_dimension(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, rows = spiral(tmp_path / "a.index", 78)
    for batch in (30, 39):
        monkeypatch.setattr(ann_file, "_BATCH", batch)
        made = AnnFile.built(tmp_path / "a.index", rows)
        assert made._lists.ntotal == 78 and made._lists.nlist == 2
        read = AnnFile.opened(tmp_path / "a.index", rows)
        assert read.covers(rows) and read.nearest(np.array([1, 0], np.float32), 20).tolist() == [*range(78)]
    for dimension in (1, 3):
        other = AnnFile.opened(tmp_path / "a.index", SearchRows(dimension))
        assert (other.count, other.covers(rows)) == (0, False)
    index.close()


def test_a_side_file_that_cannot_be_written_leaves_nothing_beside_the_index(tmp_path: Path) -> None:
    index, rows = spiral(tmp_path / "a.index", 5)
    ann_path(tmp_path / "a.index").mkdir()
    with pytest.raises(StoreError) as refused:
        AnnFile.built(tmp_path / "a.index", rows)
    assert str(refused.value) == (
        f"{tmp_path / 'a.index.ann'} cannot be written (Is a directory): make room, then build again"
    )
    assert sorted(each.name for each in tmp_path.glob("*.ann*")) == ["a.index.ann"]
    assert AnnFile.opened(tmp_path / "a.index", rows).count == 0 and index.ann_report() is None
    index.close()


def test_a_search_opens_the_side_file_where_a_fifth_of_many_rows_pass(tmp_path: Path) -> None:
    index, _ = spiral(tmp_path / "a.index", 7, 8, 25)
    assert index.build_ann() == 40
    query, nearest = np.array([1, 0], np.float32), ["x 0\n", "x 1\n", "x 2\n"]

    def opened(where: dict[str, int], ann_rows: int) -> bool:
        index._search._ann = None
        index._search.ann_rows = ann_rows
        hits = index.search_vectors(query, 3, where)
        assert [hit.chunk.text for hit in hits] == nearest and [hit.chunk.document for hit in hits] == [
            f"d{where.get('n', 0)}"
        ] * 3
        return index._search._ann is not None

    assert [opened(where, 40) for where in ({}, {"n": 0}, {"n": 1}, {"n": 2})] == [True, False, True, True]
    assert not opened({}, 41)
    index.put([lines("later", ["y\n"], vectors=np.array([[1, 0]], np.float32), meta={"n": 9})])
    index._search._ann = None
    index._search.ann_rows = 41
    assert {hit.chunk.text for hit in index.search_vectors(query, 2, {})} == {"y\n", "x 0\n"}
    assert index._search._ann is not None and index.ann_report(queries=3, k=2) is not None
    report = index.ann_report(queries=3, k=2)
    assert report is not None and (report.covered, report.chunks, report.queries, report.k) == (40, 41, 3, 2)
    assert among(np.array([2, 5, 9]), np.array([0, 2, 9])).tolist() == [2, 9]
    index.close()


def test_recall_among_equal_vectors_is_at_most_one(tmp_path: Path) -> None:
    index = open_index(tmp_path / "a.index", HEADER)
    index.put([lines("d", [f"x {n}\n" for n in range(40)], vectors=np.array([[1, 0]] * 40, np.float32))])
    index.build_ann()
    report = index.ann_report(queries=40, k=2)
    assert report is not None and (report.recall, report.queries) == (1.0, 40)
    index.close()
