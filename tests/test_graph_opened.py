"""A graph as a search opens it: once while nothing changed, with the vectors that fit the index, or a sentence."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.corpus import Corpus
from firsthand.retrieval.document import Document
from firsthand.retrieval.graph.graph_build import GraphSettings, build_graph
from firsthand.retrieval.graph.graph_file import GraphFile, graph_path
from firsthand.retrieval.graph.graph_state import entity_key, load_state, vectors_fault, verify_graph
from firsthand.retrieval.graph.knowledge_graph import KnowledgeGraph
from firsthand.retrieval.graph.open_graph import _read, _stamp, check_graph, chunks_of, open_graph
from firsthand.retrieval.store.sqlite_index import open_index
from graph_handmade import handmade


def test_a_graph_is_opened_once_while_its_file_and_its_index_stay_and_has_the_vectors_of_the_indexs_size(
    tmp_path: Path,
) -> None:
    path, index = handmade(tmp_path, dimension=3)
    corpus = Corpus(index)
    with pytest.raises(ConfigError) as none:
        check_graph(str(tmp_path / "none.index"))
    assert str(none.value).startswith(
        f"no index at '{tmp_path / 'none.index'}': make one with `firsthand rag index DIR`"
    )
    file = GraphFile(graph_path(path))
    entities = load_state(file, index).graph.entities
    keys = [entity_key(each, index.header) for each in entities]
    assert [each.name for each in entities] == ["ANN", "BOB", "CID", "DORA", "EMIL"]
    file.put_vectors(
        {keys[4]: [1, 2, 3], keys[1]: [0.5, 0, -1], keys[2]: [1, 2], keys[3]: [1, 2, 3, 4], "x": [1, 1, 1]}
    )  # type: ignore[dict-item]
    file.close()
    opened = open_graph(corpus, str(path))
    assert {place: vector.tolist() for place, vector in opened.vectors.items()} == {1: [0.5, 0, -1], 4: [1, 2, 3]}
    assert all(vector.dtype == np.float32 for vector in opened.vectors.values()) and opened.state.unread == 0
    (tmp_path / "link.index").symlink_to(path.name)
    (tmp_path / "link.index.graph").symlink_to(f"{path.name}.graph")
    assert open_graph(corpus, str(path)) is opened is open_graph(corpus, str(tmp_path / "link.index"))
    os.utime(graph_path(path), ns=(5, 5))
    second = open_graph(corpus, str(path))
    assert second is not opened and second.state == opened.state and open_graph(corpus, str(path)) is second
    os.utime(path, ns=(6, 6))
    third = open_graph(corpus, str(path))
    assert third is not second
    index.delete(["four"])
    with pytest.raises(
        ConfigError, match=r"^1 chunks were removed from the index since the graph was built, which still"
    ):
        open_graph(corpus, str(path))
    with pytest.raises(ConfigError, match=r"^1 chunks were removed"):
        open_graph(corpus, str(path))
    found = chunks_of(corpus, [index.chunks("two")[0].id])
    assert [chunk.text for chunk in found.values()] == ["Bob met Cid."] and [*found] == [index.chunks("two")[0].id]
    with pytest.raises(UnknownName):
        chunks_of(corpus, ["none"])
    with pytest.raises(
        ConfigError, match=r"^1 chunks were removed"
    ):  # its log tells of it, which lies beside the index
        open_graph(corpus, str(tmp_path / "link.index"))
    graph_path(path).unlink()
    with pytest.raises(ConfigError) as gone:
        open_graph(corpus, str(path))
    assert str(gone.value) == f"no graph at '{graph_path(path)}': make one with `firsthand rag graph {path}`"
    with pytest.raises(StoreError, match=r"^no graph at "):
        _read(graph_path(path), corpus)
    index.close()


def test_the_stamp_of_a_file_changes_with_its_size_its_time_and_its_log(tmp_path: Path) -> None:
    path = tmp_path / "a.index.graph"
    assert _stamp(path) == ((0, 0), (0, 0))
    path.write_text("xyz")
    os.utime(path, ns=(1, 7))
    assert _stamp(path) == ((7, 3), (0, 0))
    (tmp_path / "a.index.graph-wal").write_text("x")
    os.utime(tmp_path / "a.index.graph-wal", ns=(1, 9))
    assert _stamp(path) == ((7, 3), (9, 1))


class Named:
    """An embedder whose vectors are of its own."""

    dimension = 3

    def __init__(self, name: str, *vector: float):
        self.name = self.fingerprint = name
        self.vector = vector

    async def embed(self, texts: Any) -> list[list[float]]:
        return [[*self.vector] for _ in texts]

    def rows(self, texts: Any) -> Any:
        return np.array([self.vector for _ in texts], np.float32)


def test_a_graphs_vectors_are_those_of_the_indexs_embedder_and_others_are_refused_until_they_are_made_anew(
    tmp_path: Path,
) -> None:
    first, second = Named("first", 1.0, 0.0, 0.0), Named("second", 0.0, 1.0, 0.0)
    path = tmp_path / "x.index"
    index = open_index(path, IndexHeader("first", "first", 3, "whole"))
    text = "Carl Public works with Dora Open at Beta Corp. Carl Public met Dora Open in Bergen."
    for id in ("a", "b", "c"):
        index.put([IndexedDocument(Document(id, text), [Chunk(id, 0, len(text), text)], first.rows([text]))])
    settings = GraphSettings(extractor="noun_phrases")

    def built(embedder: Named) -> list[list[float]]:
        file = GraphFile(graph_path(path), create=True)
        asyncio.run(build_graph(index, file, settings, embedder=embedder))  # type: ignore[arg-type]
        assert verify_graph(file, index) == []
        file.close()
        return [vector.tolist() for vector in open_graph(Corpus(index), str(path)).vectors.values()]

    before = built(first)
    assert before and all(vector == [1.0, 0.0, 0.0] for vector in before)
    for prefix in ("", "passage: "):
        index.reembed(IndexHeader("second", "second", 3, "whole", document_prefix=prefix), second.rows)
        with pytest.raises(
            ConfigError, match="is not searched: the vectors of its entities are not known to be of the"
        ):
            open_graph(Corpus(index), str(path))
        file = GraphFile(graph_path(path))
        assert [fault[:35] for fault in verify_graph(file, index)] == ["the vectors of its entities are not"]
        file.close()
        assert built(second) == [[0.0, 1.0, 0.0] for _ in before]
    index.close()


def test_a_graph_without_vectors_and_an_index_without_vectors_have_no_vectors_to_be_refused(tmp_path: Path) -> None:
    for dimension in (0, 3):
        (tmp_path / str(dimension)).mkdir()
        path, index = handmade(tmp_path / str(dimension), dimension=dimension)
        assert open_graph(Corpus(index), str(path)).vectors == {}
        if not dimension:
            file = GraphFile(graph_path(path))
            file.put_vectors({"x": np.ones(3, np.float32)})
            graph = load_state(file, index).graph
            header = IndexHeader("e", "hash", 3, "whole")
            assert vectors_fault(file, KnowledgeGraph((), ()), header) is None, "no entity has any"
            assert vectors_fault(file, graph, header) is not None
            file.close()
            assert open_graph(Corpus(index), str(path)).vectors == {}
        index.close()
