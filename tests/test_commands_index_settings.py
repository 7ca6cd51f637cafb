"""Every setting of `firsthand rag index` reaches the reading, and its progress and notes are told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from corpus_tiny import wide_home
from firsthand.commands import rag_index
from firsthand.errors import ConfigError
from firsthand.retrieval import index_settings, ingest
from firsthand.retrieval.chunk_index import IndexHeader
from firsthand.retrieval.documents.file_content import ReadSettings
from firsthand.retrieval.documents.folder_files import FolderFilter
from firsthand.retrieval.index_settings import Asked
from firsthand.retrieval.ingest import IngestProgress, index_files


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with wide_home(tmp_path, monkeypatch):
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "a.md").write_text("Alder.\n")
        yield tmp_path


def test_what_is_read_how_and_by_what_is_as_the_flags_say(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    header = IndexHeader("", "", 0, "lines")
    prepared = SimpleNamespace(
        header=header, embedder="embedder", chunk="chunk", note="", close=lambda: told.append("closed")
    )  # fmt: skip

    async def prepare(path: Path, asked: Asked, fetched: Any) -> Any:
        told.append((path, asked))
        return prepared

    async def ingested(*given: Any, on_progress: Any, **more: Any) -> Any:
        told.append(([*given[:1]], given[2:], more))
        on_progress(IngestProgress(3, 5, 1000, 2000, 1, 9, "a.md"))
        return "receipt"

    @contextmanager
    def progress(label: str, total: Any, **more: Any) -> Iterator[Any]:
        told.append((label, more))
        yield lambda *given: told.append(given)

    monkeypatch.setattr(index_settings, "prepare", prepare)
    monkeypatch.setattr(ingest, "ingest", ingested)
    monkeypatch.setattr(rag_index, "progress", progress)
    monkeypatch.setattr(rag_index, "_build_ann", lambda index, wanted: f"ann {wanted}")
    config = rag_index.Config(
        ("one", "two"), index=Path("x.index"), model="m", chunker="c", include=("*.md",), exclude=("d/*", "e/*"),
        text_field="t", title_field="h", id_field="i", max_file_bytes=77, parse_seconds=2.5, query_prefix="q",
        document_prefix="d", ann="no", keep_removed=True,
        moved_from=("f", "g"),
    )  # fmt: skip
    sources, path, done = [Path("one"), Path("two")], Path("x.index"), ["old"]
    found = asyncio.run(rag_index._index(config, sources, path, done))
    assert found == (header, "receipt", 0, "ann no") and done == [" with 1 document of 5 files in x.index"]
    own = [*index_files(path), *index_files(Path("one/.firsthand-index")), *index_files(Path("two/.firsthand-index"))]
    bars = [(label, {"unit": "bytes", "shown": True}) for label in ("the embedder", "indexing one, two")]
    assert told == [
        bars[0], (path, Asked("m", "c", "q", "d")), bars[1],
        ([sources], ("embedder", "chunk"), {
            "settings": ReadSettings(77, 2.5, text_field="t", title_field="h", id_field="i"),
            "chosen": FolderFilter(("*.md",), ("d/*", "e/*")), "own_files": own,
            "moved_from": [Path("f"), Path("g")], "removes": False}),
        (1000, 2000, "3/5 files, 9 chunks"), "closed",
    ]  # fmt: skip
    told.clear()
    prepared.note = "no vectors"
    found = asyncio.run(rag_index._index(rag_index.Config(("one",), json=True), [Path("one")], path, done))
    assert found[3] == "no vectors", "why there are no vectors is told first"
    [reading] = [each for each in told if isinstance(each, tuple) and len(each) == 3 and isinstance(each[2], dict)]
    assert reading[2]["settings"] == ReadSettings() and reading[2]["removes"] is True
    assert [each[1] for each in told if each[0] in ("the embedder", "indexing one")] == [
        {"unit": "bytes", "shown": False}
    ] * 2
    nothing = replace(config, include=("*.pdf",))
    with pytest.raises(ConfigError):
        asyncio.run(rag_index._index(nothing, sources, Path("new.index"), done))
    assert not Path("new.index").exists(), "nothing is made of a folder without files"
