"""An index in a forked process, and the files that readers leave beside it."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from firsthand.errors import StoreError
from firsthand.retrieval.store.sqlite_index import open_index
from forked_process import forked
from index_tiny import TERMS_ONLY, lines


def beside(path: Path) -> list[str]:
    """The endings of the files beside an index."""
    return sorted(each.name.removeprefix(path.name) for each in path.parent.iterdir() if each.name != path.name)


def test_a_forked_process_reads_and_writes_by_a_connection_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.index"
    index = open_index(path, TERMS_ONLY)
    index.put([lines("a", ["fox\n"], with_vectors=False)])
    parents, memory = index._file._connection, open_index(":memory:", TERMS_ONLY)

    def work() -> None:
        found = [hit.chunk.document for hit in index.search_terms("fox", 3, {})]
        own = index._file._connection
        kept = index._file._inherited == [parents] and own is not parents
        index.put([lines("b", ["fox hen\n"], with_vectors=False)])
        same = index._file._connection is own and len(index._file._inherited) == 1
        index.close()
        try:
            memory.search_terms("fox", 1, {})
        except StoreError as error:
            print(json.dumps([found, kept, same, str(error)]))

    status, said, errors = forked(work)
    assert (status, errors) == (0, "")
    assert json.loads(said) == [
        ["a"], True, True, "an index in memory cannot be used in a forked process: keep it in a file"
    ]  # fmt: skip
    assert index._file._connection is parents and index._file._inherited == []
    assert sorted(hit.chunk.document for hit in index.search_terms("fox", 3, {})) == ["a", "b"]
    index.close()

    with closing(open_index(path, read_only=True)) as reader:
        reading, told, errors = forked(lambda: print(len(reader), reader._file._inherited != []))
        assert (reading, told, errors) == (0, "2 True\n", "")

        def writes() -> None:
            with reader._file.transaction() as connection:
                connection.execute("DELETE FROM chunks")

        status, _, errors = forked(writes)
        assert status == 99 and "attempt to write a readonly database" in errors


def test_a_reader_takes_away_the_log_that_it_made_and_leaves_anothers(tmp_path: Path) -> None:
    path = tmp_path / "a.index"
    open_index(path, TERMS_ONLY).close()
    before = beside(path)
    assert "-wal" not in before
    reader = open_index(path, read_only=True)
    assert len(reader) == 0 and reader._file._makes_wal
    reader.close()
    assert "-wal" not in beside(path)
    writer = open_index(path)
    writer.put([lines("a", ["fox\n"], with_vectors=False)])
    reader = open_index(path, read_only=True)
    assert not reader._file._makes_wal and len(reader) == 1
    reader.close()
    assert "-wal" in beside(path) and len(writer) == 1
    writer.close()
    with pytest.raises(
        StoreError, match=r"a\.index cannot be used \(Cannot operate on a closed database\.\): open it again"
    ):
        len(writer)
    with pytest.raises(StoreError, match="open it again"):
        writer.put([])
    assert not writer._file._writing
