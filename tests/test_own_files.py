"""Files of our own in a folder that may be somebody else's: a link in the place of one is refused, never followed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from firsthand.errors import StoreError
from firsthand.memories.keeping.item_file import ItemFile
from firsthand.messaging.sqlite_messaging import SqliteMessaging
from firsthand.retrieval.chunk_index import IndexHeader
from firsthand.retrieval.chunking.chunkers import open_chunker
from firsthand.retrieval.graph.graph_file import GraphFile
from firsthand.retrieval.index_settings import Prepared
from firsthand.retrieval.ingest import ingest
from firsthand.retrieval.reindex import reindex
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.runs.database import Database
from firsthand.studio.studio_store import SqliteStore
from firsthand.system.own_file import expect_own_file, expect_own_folder, is_own_folder
from index_tiny import TERMS_ONLY, lines

STORES: dict[str, Callable[[Path], object]] = {
    "index": lambda path: open_index(path, TERMS_ONLY),
    "graph": lambda path: GraphFile(path, create=True),
    "run": lambda path: Database(path, create=True),
    "memory": ItemFile,
    "messages": SqliteMessaging,
}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("is_there", [False, True])
def test_no_store_is_opened_through_a_link(tmp_path: Path, store: str, is_there: bool) -> None:
    elsewhere = tmp_path / "elsewhere"
    if is_there:
        STORES[store](elsewhere).close()  # type: ignore[attr-defined]
    before = elsewhere.read_bytes() if is_there else None
    (tmp_path / "file").symlink_to(elsewhere)
    with pytest.raises(StoreError, match=r"^\S+/file is a link, .*: give the path of that file itself, or"):
        STORES[store](tmp_path / "file")
    assert (elsewhere.read_bytes() if is_there else None) == before
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith("file")] == ["file"]


@pytest.mark.parametrize("store", STORES)
def test_a_store_is_opened_in_a_folder_that_is_a_link(tmp_path: Path, store: str) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "folder").symlink_to(tmp_path / "disk")
    for _ in range(2):
        STORES[store](tmp_path / "folder" / "file").close()  # type: ignore[attr-defined]
    assert (tmp_path / "disk" / "file").is_file()


def test_an_existing_run_is_not_opened_through_a_link(tmp_path: Path) -> None:
    Database(tmp_path / "run.sqlite", create=True).close()
    (tmp_path / "link").symlink_to("run.sqlite")
    Database(tmp_path / "run.sqlite").close()
    with pytest.raises(StoreError, match="is a link"):
        Database(tmp_path / "link")


def test_an_index_behind_a_link_is_searched_and_not_written(tmp_path: Path) -> None:
    with open_index(tmp_path / "mine", TERMS_ONLY) as made:
        made.put([lines("d", ["owl hen\n"], with_vectors=False)])
    (tmp_path / "link").symlink_to("mine")
    with open_index(tmp_path / "link", read_only=True) as reader:
        assert [*reader.hashes()] == ["d"]
    for given in (None, TERMS_ONLY):
        with pytest.raises(StoreError, match="is a link"):
            open_index(tmp_path / "link", given)


def test_notes_of_the_studio_are_not_written_through_a_link(tmp_path: Path) -> None:
    path = SqliteStore(tmp_path / "own").path
    own = SqliteStore(tmp_path / "home")
    own.path.parent.mkdir(parents=True, exist_ok=True)
    own.path.symlink_to(path)
    with pytest.raises(StoreError, match="is a link"):
        own._connected()
    assert not path.exists()


def test_a_link_in_the_place_of_a_new_index_is_replaced(tmp_path: Path) -> None:
    folder, victim = tmp_path / "docs", tmp_path / "victim"
    folder.mkdir()
    (folder / "a.txt").write_text("hello world")
    path = folder / ".firsthand-index"
    chunkers = [open_chunker(text, None) for text in ("recursive:size=500", "recursive:size=400")]
    headers = [IndexHeader("", "", 0, each.text) for each in chunkers]
    with closing(open_index(path, headers[0])) as index:
        asyncio.run(ingest(folder, index, None, chunkers[0].chunk, own_files=[path]))
    (folder / ".firsthand-index.new").symlink_to(victim)
    asyncio.run(reindex(path, Prepared(headers[1], None, chunkers[1].chunk)))
    assert not victim.exists() and not path.is_symlink()
    with open_index(path, read_only=True) as index:
        assert index.header.chunker == chunkers[1].text and [*index.hashes()] == ["a.txt"]


def test_what_is_no_ordinary_file_or_folder_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for absent in (tmp_path / "no", tmp_path / "file" / "no"):
        expect_own_file(absent)
        expect_own_folder(absent)
        assert not is_own_folder(absent)
    expect_own_file(tmp_path / "file")
    expect_own_folder(tmp_path)
    assert is_own_folder(tmp_path) and not is_own_folder(tmp_path / "link") and not is_own_folder(tmp_path / "file")
    for path, told in ((tmp_path / "pipe", "is no ordinary file"), (tmp_path, "is no ordinary file")):
        with pytest.raises(StoreError, match=told):
            expect_own_file(path)
    with pytest.raises(StoreError, match="is no folder"):
        expect_own_folder(tmp_path / "file")
    with pytest.raises(StoreError, match="cannot be looked at"):
        expect_own_file(tmp_path / ("x" * 300))
