"""An index's file as it is opened, written and synced: its modes, odd paths, forged journals, and what fails halfway."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, StoreError
from firsthand.retrieval.chunk_index import IndexHeader, IngestReceipt
from firsthand.retrieval.store.header_row import agreed_header
from firsthand.retrieval.store.index_file import IndexFile
from firsthand.retrieval.store.sqlite_index import open_index
from forked_process import forked
from index_tiny import HEADER, TERMS_ONLY, lines, unit


def said(act: Callable[[], object], kind: type[Exception] = StoreError) -> str:
    with pytest.raises(kind) as raised:
        act()
    assert type(raised.value) is kind
    return str(raised.value)


@pytest.fixture
def ordinary_folder() -> Iterator[Path]:
    """A folder that users other than root can reach."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)
        Path(name).chmod(0o755)


def owls(id: str = "d", *texts: str) -> Any:
    return lines(id, texts or ("owl hen\n",), with_vectors=False)


@pytest.mark.slow
def test_an_index_opened_to_be_read_cannot_be_written_by_its_connection_either(tmp_path: Path) -> None:
    path = tmp_path / "a.index"
    with open_index(path, HEADER) as made:
        made.put([lines("d", ["owl\n"])])
    change = "UPDATE header SET removals = 7"
    for given in (None, HEADER):
        with open_index(path, given, read_only=True) as reader:
            file = reader._file
            assert file._makes_wal and file._read_only
            for _ in range(2):
                with pytest.raises(sqlite3.OperationalError, match=r"^attempt to write a readonly database$"):
                    file._connection.execute(change)
                inherited, file._pid = file._connection, -1  # as in a forked process
                assert reader.hashes() and file._connection is not inherited is file._inherited[-1]
            for each in file._inherited:
                each.close()
    reader = open_index(path, read_only=True)
    own, reader._file._pid = reader._file._connection, -1
    reader.close()
    assert own.execute("SELECT removals FROM header").fetchone() == (0,), "another process closes its own"
    own.close()
    with open_index(path) as writer:
        assert not writer._file._makes_wal and writer._file._connection.execute(change).rowcount == 1
        assert writer._file._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    empty = tmp_path / "empty.index"
    empty.touch()
    for options in ({}, {"header": HEADER, "read_only": True}, {"read_only": True}):
        assert said(lambda options=options: open_index(empty, **options)) == (
            f"{empty} is a SQLite file and is no index: give another path, or remove it"
        )
        assert empty.stat().st_size == 0
    with open_index(empty, HEADER) as filled:
        assert filled.header == HEADER and len(filled) == 0
    new = tmp_path / "new" / "b.index"
    assert said(lambda: open_index(new, HEADER, read_only=True)) == (
        f"no index at {new}: open it without read_only to make it"
    )
    assert not new.parent.exists()


def test_a_connection_waits_for_others_and_trusts_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.index"
    wanted = {
        "trusted_schema": 0, "cell_size_check": 1, "synchronous": 1, "wal_autocheckpoint": 4000, "busy_timeout": 10_000,
        "application_id": int.from_bytes(b"fsix", "big"), "user_version": 4,
    }  # fmt: skip
    for options in ({"header": HEADER}, {}, {"read_only": True}):
        with open_index(path, **options) as index:  # type: ignore[arg-type]
            connection = index._file._connection
            assert {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in wanted} == wanted, options
            assert connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) == 512 * 2**20
            assert connection.execute("SELECT CAST(x'eda080' AS TEXT)").fetchone() == ("\ud800",)
            not_text = r"a\.index is damaged: its schema is not text\. Restore it"
            with pytest.raises(StoreError, match=not_text), index._file.reading():
                connection.execute("SELECT CAST(x'ff' AS TEXT)").fetchone()
            for error, told in (
                (MemoryError(), f"{path} is damaged: it asks for more memory than there is. Restore it from a copy, or "
                                "delete it and index the documents again"),
                (OSError(5, "Input/output error"), f"{path} cannot be used: Input/output error"),
                (OSError("no number"), f"{path} cannot be used: no number"),
            ):  # fmt: skip
                with pytest.raises(StoreError) as raised, index._file.reading():
                    raise error
                assert str(raised.value) == told and raised.value.__cause__ is error
            assert not connection.in_transaction


def test_a_forged_journal_is_refused_however_the_index_is_opened_and_whatever_it_is_beside(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    name = str(victim).encode()
    magic = bytes.fromhex("d9d505f920a163d7")
    forged = magic + b"\0" * 504 + name + len(name).to_bytes(4, "big") + sum(name).to_bytes(4, "big") + magic
    there, missing = tmp_path / "x.index", tmp_path / "y.index"
    open_index(there, HEADER).close()
    for path in (there, missing):
        journal = Path(f"{path}-journal")
        journal.write_bytes(forged)
        for options in ({"header": HEADER}, {}, {"read_only": True}, {"header": HEADER, "read_only": True}):
            if path == missing and options != {"header": HEADER}:
                continue  # no index there
            assert said(lambda options=options, path=path: open_index(path, **options)) == (
                f"{journal} names a file that SQLite would delete, and firsthand writes no such journal: do not trust what "
                "came with it; delete the journal to read the index all the same"
            )
        assert journal.read_bytes() == forged and victim.read_text() == "precious"
    assert not missing.exists()
    Path(f"{there}-journal").unlink()
    open_index(there).close()


def test_an_index_is_made_and_found_at_a_path_with_signs_of_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a?mode=memory", "b#c", "50%20 é.index"):
        path = Path(name) / "x?y#z%41.index"
        with open_index(path, TERMS_ONLY) as made:
            assert made.put([owls()]).added == ("d",) and made._file.name == str(path)
        assert [each.name for each in (tmp_path / name).iterdir() if "lock" not in each.name] == [path.name]
        with open_index(tmp_path / path, read_only=True) as found:
            assert [*found.hashes()] == ["d"]


def test_an_index_in_a_folder_that_cannot_be_written_is_read_unless_it_has_a_log(ordinary_folder: Path) -> None:
    path, logged = ordinary_folder / "a.index", ordinary_folder / "b.index"
    with open_index(path, TERMS_ONLY) as index:
        index.put([owls()])
        index.put([owls("e")])
        for ending in ("", "-wal"):
            shutil.copyfile(f"{path}{ending}", f"{logged}{ending}")
    assert Path(f"{logged}-wal").stat().st_size > 0
    Path(f"{path}-wal").touch()  # an empty log holds nothing that would be missed
    for each in ordinary_folder.iterdir():
        each.chmod(0o444)
    ordinary_folder.chmod(0o555)

    def reads() -> None:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        with open_index(path, read_only=True) as reader:
            print([*reader.hashes()])
        for options in ({}, {"header": TERMS_ONLY}):
            try:
                open_index(path, **options).put([owls("f")])  # type: ignore[arg-type]
            except StoreError as error:
                print(error)
        try:
            open_index(logged, read_only=True)
        except StoreError as error:
            print(error)

    status, told, errors = forked(reads)
    first, *refused, last = told.splitlines()
    assert (status, errors, first) == (0, "", "['d', 'e']")
    for line, name in (*zip(refused, (path, path), strict=True), (last, logged)):
        assert line.startswith(f"{name} cannot be written (") or line.startswith(f"{name}.lock"), line
        assert line.endswith(": make its folder writable, or use another path"), line
    assert sorted(each.name for each in ordinary_folder.iterdir()) == [
        "a.index",
        "a.index-wal",
        "a.index.lock",
        "b.index",
        "b.index-wal",
    ]


def test_an_index_is_used_from_any_thread(tmp_path: Path) -> None:
    index = open_index(tmp_path / "a.index", TERMS_ONLY)
    done: list[Any] = []

    def work() -> None:
        done.append(index.put([owls()]))
        done.append([hit.chunk.document for hit in index.search_terms("owl", 3, {})])
        index.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [IngestReceipt(added=("d",)), ["d"]]
    assert said(index.hashes).startswith(f"{index._file.name} cannot be used (Cannot operate on a closed database.)")


def test_a_last_sync_that_fails_is_a_sentence_and_the_next_write_works(tmp_path: Path) -> None:
    path = tmp_path / "a.index"
    index = open_index(path, TERMS_ONLY)
    file = index._file
    connection = file._connection

    def revision() -> int:
        return int(connection.execute("SELECT revision FROM header").fetchone()[0])

    with pytest.raises(StoreError) as raised, file.writing():
        connection.execute("ALTER TABLE header RENAME TO away")
    assert str(raised.value) == (
        f"{path} is damaged: no such table: header. Restore it from a copy, or delete it and index the documents again"
    )
    assert not connection.in_transaction and not file._writing
    assert connection.execute("PRAGMA synchronous").fetchone() == (1,), "NORMAL again"
    connection.execute("ALTER TABLE away RENAME TO header")
    before = revision()
    assert index.put([owls()]).added == ("d",) and revision() == before + 2
    other = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA busy_timeout = 0")
    with pytest.raises(StoreError) as busy, file.writing():
        other.execute("BEGIN IMMEDIATE")
    assert str(busy.value) == (
        f"{path} is in use by another process and stayed so for 10 s: wait for it or end it, then try again"
    )
    other.execute("ROLLBACK")
    assert index.put([owls("e")]).added == ("e",) and index.verify() == [] and revision() == before + 4
    other.close()
    index.close()


def test_words_of_a_document_whose_commit_failed_are_numbered_anew(tmp_path: Path) -> None:
    index = open_index(tmp_path / "a.index", TERMS_ONLY)
    assert index.put([owls("a", "owl\n")]).added == ("a",)
    connection = index._file._connection
    connection.execute(
        "CREATE TEMP TRIGGER full BEFORE UPDATE ON main.header BEGIN SELECT RAISE(ABORT, 'no room'); END"
    )
    assert said(lambda: index.put([owls("b", "hen owl yak\n", "yak\n")])) == (
        f"{tmp_path / 'a.index'} is damaged: no room. Restore it from a copy, or delete it and index the documents again"
    )
    assert index._words_as_of == -1 and not connection.in_transaction
    connection.execute("DROP TRIGGER full")
    assert index.put([owls("b", "elk yak\n", "yak hen hen\n"), owls("c", "hen owl\n")]).added == ("b", "c")
    assert index.verify() == [] and [*index.hashes()] == ["a", "b", "c"]
    words = dict(connection.execute("SELECT word, number FROM words").fetchall())
    assert words == index._words and sorted(words) == ["elk", "hen", "owl", "yak"]
    for word, found in (("yak", [("b", 0), ("b", 8)]), ("hen", [("b", 8), ("c", 0)]), ("owl", [("a", 0), ("c", 0)])):
        hits = index.search_terms(word, 9, {})
        assert sorted((hit.chunk.document, hit.chunk.start) for hit in hits) == found, word
    assert len(index._search._rows) == 4
    index.close()
    assert len(index._search._rows) == 0, "the memory is given back"


class Late(IndexFile):
    """A file that another process writes just before the right to write is taken."""

    before: Callable[[], object]

    @contextmanager
    def writing(self) -> Iterator[None]:
        self.before()
        with super().writing():
            yield


def test_of_two_processes_that_make_an_index_at_once_the_second_takes_the_header_of_the_first(tmp_path: Path) -> None:
    def made(path: Path, first: IndexHeader, second: IndexHeader) -> IndexHeader:
        one, two = (kind(path, create=True, read_only=False) for kind in (IndexFile, Late))
        two.before = lambda: agreed_header(one, first)  # type: ignore[attr-defined]
        try:
            return agreed_header(two, second)
        finally:
            with one.reading() as connection:
                assert connection.execute("SELECT id, embedder, active, removals FROM header").fetchall() == [
                    (1, first.embedder, 0, 0)
                ]
            one.close()
            two.close()

    assert made(tmp_path / "a", HEADER, HEADER) == HEADER
    assert made(tmp_path / "b", HEADER, replace(HEADER, embedder="renamed")) == HEADER, "the stored one"
    assert said(lambda: made(tmp_path / "c", HEADER, replace(HEADER, chunker="pages")), ConfigError) == (
        f"{tmp_path / 'c'} was made with chunker 'lines' (now 'pages'): use what it was made with, or make it again with "
        "`firsthand rag reindex`"
    )
    bare = IndexFile(tmp_path / "d", create=True, read_only=False)
    assert said(lambda: agreed_header(bare, None)) == (
        f"{tmp_path / 'd'} is damaged: it has no header. Restore it from a copy, or delete it and index the documents again"
    )
    assert agreed_header(bare, HEADER) == HEADER == agreed_header(bare, None)
    bare.close()


def test_a_negative_or_empty_search_finds_nothing_and_a_query_is_one_vector(tmp_path: Path) -> None:
    with open_index(tmp_path / "a.index", HEADER) as index:
        index.put([lines("d", ["owl\n", "hen owl\n", "yak\n"], seed=3)])
        query = unit(1, 5)[0]
        for k in (0, -1, -2):
            assert index.search_hybrid(query, "owl", k, {}) == [] == index.search_vectors(query, k, {})
            assert index.search_hybrid(query, "owl", k, {}, pool=1) == [] == index.search_terms("owl", k, {})
        assert [len(index.search_hybrid(query, "owl", k, {})) for k in (1, 2, 3, 4)] == [1, 2, 3, 3]
        for wrong in (query[None], query[:23], query[:, None], unit(2, 5), query[0]):
            told = (
                f"the vector has the shape {wrong.shape}, and {index._file.name} has (24,): embed the query with 'tiny'"
            )
            assert said(lambda wrong=wrong: index.search_vectors(wrong, 1, {}), ConfigError) == told
            assert said(lambda wrong=wrong: index.search_hybrid(wrong, "owl", 1, {}), ConfigError) == told
        assert index.search_vectors(query.tolist(), 1, {}) == index.search_vectors(query, 1, {})
