"""A graph as it is read for a search: older forms, addresses of texts, and questions that a guard has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, ModelError
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.corpus import Corpus
from firsthand.retrieval.graph.community_reports import CommunityReport, extracted_report, report_key
from firsthand.retrieval.graph.graph_extraction import FailedChunk
from firsthand.retrieval.graph.graph_file import GraphFile, graph_path
from firsthand.retrieval.graph.graph_search import GraphSearch
from firsthand.retrieval.graph.graph_state import (
    GraphState,
    entity_key,
    load_state,
    summarised,
    summary_key,
    verify_graph,
)
from firsthand.retrieval.graph.leiden import Community
from graph_handmade import handmade, report_text


@pytest.mark.slow
def test_a_search_reads_by_the_question_that_a_guard_passes_on_and_by_words_without_an_embedder(tmp_path: Path) -> None:
    path, index = handmade(tmp_path, dimension=2)
    file = GraphFile(graph_path(path))
    state = load_state(file, index)
    file.put_vectors(
        {entity_key(each, index.header): np.array([1.0, 0.0], np.float32) for each in state.graph.entities}
    )
    file.close()
    seen: list[tuple[str, Any]] = []

    async def passing(name: str, arguments: Any, act: Any) -> Sequence[Any]:
        seen.append((name, arguments))
        return list(await act({**arguments, "query": "dora?"}))

    plain = GraphSearch(None, Corpus(index), str(path), level=1, batch_tokens=60)  # type: ignore[arg-type]
    guarded = GraphSearch(None, Corpus(index, effect=passing), str(path), level=1, batch_tokens=60)  # type: ignore[arg-type]

    def labels(search: GraphSearch, k: int) -> tuple[str, list[str]]:
        local = asyncio.run(search.local_sections("ann?"))
        nearest = asyncio.run(search.nearest_reports("ann?", k))
        return local[1].text.split()[0], [each.label for each in nearest]

    assert labels(plain, 3) == ("ANN", ["report: All three", "report: A pair"])
    assert labels(guarded, 2) == ("DORA", ["report: Two far"])
    assert [name for name, _ in seen] == ["graph_local", "graph_nearest"]
    assert seen[0][1] == {"query": "ann?", **vars(guarded.shares)} and seen[1][1] == {
        "query": "ann?",
        "k": 2,
        "level": 1,
    }
    small = GraphSearch(None, Corpus(index, effect=passing), str(path), batch_tokens=6, answer_tokens=3)  # type: ignore[arg-type]
    cut = [report_text(id)[:22] for id in (0, 1)]  # six tokens of four letters, less a blank line
    found = asyncio.run(small.reports("q", None))
    assert [(id, each.label, each.text) for id, each in found] == [
        (0, "report: All three", cut[0]), (1, "report: Two far", cut[1])
    ]  # fmt: skip
    assert [id for id, _ in asyncio.run(small.reports("q", 0))] == [2] and asyncio.run(small.reports("q", 1)) == []
    assert seen[2:] == [("graph_children", {"query": "q", "of": of}) for of in (None, 0, 1)]
    index.close()


def test_a_failed_chunk_that_is_gone_is_told_and_a_graph_of_an_older_form_covers_all_names(tmp_path: Path) -> None:
    path, index = handmade(tmp_path)
    file = GraphFile(graph_path(path))
    built = file.meta("built") or {}
    older = {key: value for key, value in built.items() if key != "largest_component"}
    file.put_meta("built", older | {"communities": [[1, 0, None, ["DORA"]]], "reports": {"1": "key 1"}})
    assert verify_graph(file, index) == [f"{name} is in no community" for name in ("ANN", "BOB", "CID", "EMIL")]
    file.put_meta("built", built)
    (chunk,) = index.chunks("three")
    file.keep(chunk, FailedChunk(chunk.id, "three", "cut"))
    assert load_state(file, index).unread == 1
    index.delete(["three"])
    with pytest.raises(ConfigError) as raised:
        load_state(file, index)
    assert str(raised.value) == (
        "1 chunks were removed from the index since the graph was built, which still tells of them, or have other "
        "headings there: run `firsthand rag graph` to update it"
    )
    file.close()
    index.close()


def test_communities_of_a_name_come_from_the_coarsest_and_summaries_stand_for_several_descriptions(
    tmp_path: Path,
) -> None:
    path, index = handmade(tmp_path)
    file = GraphFile(graph_path(path))
    state = load_state(file, index)
    file.close()
    index.close()
    turned = GraphState(state.graph, state.communities[::-1], state.reports)
    assert [each.id for each in turned.communities_of["BOB"]] == [0, 2, 4]
    ann, bob = state.graph.entities[:2]
    keys = {summary_key(*each) for each in ((bob, "m", 500), (bob, "m", 499), (bob, "n", 500), (ann, "m", 500))}
    assert len(keys) == 4
    made = summarised(state.graph, {summary_key(each, "m", 9): f"of {each.name}" for each in (ann, bob)}, "m", 9)
    assert [each.summary for each in made.entities] == [None, "of BOB", None, None, None]
    assert made.relations == state.graph.relations and made.orphans == state.graph.orphans
    assert len({report_key(*each) for each in (("m", "d", 1), ("m", "d", 2), ("m", "e", 1), ("n", "d", 1))}) == 4
    chunks = {ann.chunks[0]: Chunk("d", 0, 9, "Zoe saw Ann. Zoe saw Ann. ANN and Bob.")}
    members = ("DORA", "EMIL", "ANN", "BOB", "CID")
    report = extracted_report(state.graph, Community(7, 1, 0, members), chunks, 15, 1000)
    assert report == CommunityReport(
        7, 1, "Ann, Bob, Cid", "5 names and terms that occur together in 4 passages.", 3.333,
        (("ANN and Bob.", ""), ("Zoe saw Ann.", "")),
    )  # fmt: skip
    body = {**report.to_json(), "rating": "x" * 300}
    with pytest.raises(ModelError) as raised:
        CommunityReport.from_json(Community(7, 1, 0, members), body)
    said = f"could not convert string to float: '{'x' * 300}"
    assert str(raised.value) == f"the report is not of the schema: ValueError: {said[:100]}"
