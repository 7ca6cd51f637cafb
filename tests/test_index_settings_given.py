"""The settings of an ingest where each was given: who is told of a download, which file is the index's, what is closed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.providers.local_embedder import LocalEmbedder
from firsthand.retrieval import index_settings
from firsthand.retrieval.chunk_index import IndexHeader
from firsthand.retrieval.chunking.chunkers import open_chunker
from firsthand.retrieval.index_settings import Asked, Prepared, expect_same, fresh, index_path, prepare
from firsthand.retrieval.store.sqlite_index import open_index

CHUNKER = open_chunker("recursive:size=60:overlap=9").text


class Letters:
    fingerprint = "letters-1"

    async def embed(self, texts: Any) -> list[list[float]]:
        assert texts == ["dimension"]
        return [[1.0, 0.0]]


def test_an_index_is_the_file_given_or_that_of_a_folder_and_a_home_is_a_folder_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("a")
    name, docs = ".firsthand-index", tmp_path / "docs"
    assert index_path([Path("~/docs")], None) == docs / name == index_path([], Path("~/docs"))
    assert index_path([docs, docs], Path("~/x.index")) == tmp_path / "x.index"
    assert index_path([docs], docs / "a.txt") == docs / "a.txt"
    with pytest.raises(ConfigError) as several:
        index_path([Path("~/docs/a.txt")], None)
    assert str(several.value) == (
        "an index lies in the one folder it was made of: of files or several folders, give --index PATH"
    )
    with pytest.raises(ConfigError) as none:
        index_path([Path("~/none")], None)
    assert str(none.value) == "no folder or file '~/none': give the folder whose files are to be indexed"


def test_a_download_is_told_to_whoever_asked_for_the_index_new_or_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(index_settings, "_opened", lambda *given: opened.append(given) or Letters())

    def told(done: int, total: int | None) -> None:
        pass

    path = tmp_path / "x.index"
    new = asyncio.run(prepare(path, Asked("e5-x", "recursive:size=60:overlap=9", None, "d"), told))
    assert new.header == IndexHeader("e5-x", "letters-1", 2, CHUNKER, "query: ", "d") and new.note == ""
    open_index(path, new.header).close()
    for asked in (Asked(), Asked("other"), Asked("other", CHUNKER, "query: ", "d")):
        old = asyncio.run(prepare(path, asked, told))
        assert old.header == new.header and isinstance(old.embedder, Letters), "the stored name of the embedder stays"
    asyncio.run(fresh(Asked("m"), told))
    asyncio.run(fresh(Asked("m")))
    asyncio.run(prepare(path, Asked()))
    assert opened == [("e5-x", told), ("e5-x", told), ("other", told), ("other", told), ("m", told),
                      ("m", index_settings._silent), ("e5-x", index_settings._silent)]  # fmt: skip
    for asked, said in (
        (Asked(query_prefix=""), f"the query prefix of {path} is query: , and none was given"),
        (Asked(document_prefix=""), f"the document prefix of {path} is d, and none was given"),
        (Asked("none", "code"), f"the embedding model of {path} is e5-x (letters-1), and none was given"),
    ):
        with pytest.raises(ConfigError) as differs:
            asyncio.run(prepare(path, asked, told))
        assert str(differs.value) == f"{said}: leave it out, or change the index by `firsthand rag reindex {path}`"
    bare = IndexHeader("", "", 0, CHUNKER)
    with pytest.raises(ConfigError, match=r"^the embedding model of p is none, and letters-1 was given: leave it out"):
        expect_same(Path("p"), bare, new.header)
    expect_same(Path("p"), bare, IndexHeader("x", "", 9, CHUNKER))


def test_a_known_name_is_opened_by_it_and_a_path_under_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def resolve(model: str, *, on_progress: Any) -> Path:
        asked.append((model, on_progress))
        return tmp_path / "there"

    monkeypatch.setattr(index_settings, "model_lookup", SimpleNamespace(resolve=resolve, KNOWN={"minilm": 1}))
    monkeypatch.setattr(index_settings, "open_embedder", lambda model: f"opened {model}")
    assert index_settings._opened("minilm", print) == "opened minilm"  # type: ignore[comparison-overlap,arg-type]
    other = index_settings._opened("hf:org/m", index_settings._silent)
    assert isinstance(other, LocalEmbedder) and (other.name, other.path) == ("hf:org/m", tmp_path / "there")
    assert asked == [("minilm", print), ("hf:org/m", index_settings._silent)]
    other._loaded = object()  # type: ignore[assignment]
    Prepared(IndexHeader("", "", 0, ""), other, list).close()  # type: ignore[arg-type]
    assert other._loaded is None
    Prepared(IndexHeader("", "", 0, ""), Letters(), list).close()  # type: ignore[arg-type]
