"""Nothing of a deleted document stays in an index's file."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from firsthand.errors import StoreError
from firsthand.retrieval.store.sqlite_index import open_index
from test_unspaced_words import HEADER, found, indexed, of_version_1

SECRET = "The salary of Anna is 93000 dollars"
SECRETS = (b"salary", b"salari", b"93000", b"anna", b"Anna")


def in_file(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return [each for each in SECRETS if each in data]


def test_a_deleted_documents_text_and_words_are_overwritten(
    tmp_path: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    path = tmp_path / "x.db"
    with open_index(path, HEADER) as index:
        index.put(
            [
                indexed("pay", SECRET),
                indexed("other", "The dollars of Bo"),
                *(indexed(f"{n}", f"w{n}") for n in range(40)),
            ]
        )
    assert in_file(path) == [*SECRETS]
    assert cli("rag", "delete", "pay", "--index", str(path))[0] == 0
    assert in_file(path) == []
    with open_index(path) as index:
        assert index.verify() == [] and found(index, "dollars") == ["other"] and found(index, "w7") == ["7"]


def test_the_text_of_a_replaced_document_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with open_index(path, HEADER) as index:
        index.put([indexed("pay", SECRET)])
    with open_index(path) as index:
        index.put([indexed("pay", "nothing")])
    assert SECRET.encode() not in path.read_bytes()


def test_a_process_that_knew_a_removed_word_stores_it_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with open_index(path, HEADER) as index, open_index(path) as other:
        index.put([indexed("a", "fox hen"), indexed("b", "hen")])
        assert found(index, "fox") == ["a"]
        other.delete(["a"])
        other.overwrite_deleted()
        other.put([indexed("c", "owl")])
        index.put([indexed("d", "fox")])
        assert (
            index.verify() == []
            and found(index, "fox") == found(other, "fox") == ["d"]
            and found(index, "owl") == ["c"]
        )
        index.put([indexed("d", "owl fox")])
        known = dict(index._words)
        index.put([indexed("e", "ant"), indexed("d", "bee")])
        assert known.items() <= index._words.items(), "what this process replaces itself leaves the numbers true"
        other.put([indexed("b", "bee")])
        other.overwrite_deleted()
        index.put([indexed("d", "hen owl fox")])
        assert index.verify() == other.verify() == []


def test_a_file_whose_words_are_no_pairs_is_told_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with open_index(path, HEADER) as index:
        index.put([indexed("a", "fox")])
        index._file._connection.execute("UPDATE chunks SET words = x'01'")
        with pytest.raises(StoreError, match="is damaged"):
            index.overwrite_deleted()


def test_an_index_of_the_version_before_is_renewed_by_the_next_ingest_although_nothing_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., tuple[int, str, str]]
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("A")
    path = tmp_path / "x.db"
    of_version_1(path, monkeypatch)
    with closing(open_index(path)) as index:
        index.renew_words()
        assert found(index, "日本") and index._file.has_newest_words()
        index.renew_words()
    assert cli("rag", "index", str(tmp_path / "docs"), "--model", "none", "--index", str(tmp_path / "y.db"))[0] == 0
    with closing(open_index(tmp_path / "y.db")) as index:
        index._file._connection.execute("PRAGMA user_version = 1")
    assert "1 unchanged" in cli("rag", "index", str(tmp_path / "docs"), "--index", str(tmp_path / "y.db"))[1]
    with closing(open_index(tmp_path / "y.db")) as index:
        assert index._file.has_newest_words()
