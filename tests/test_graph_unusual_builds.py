"""Graphs that are built in unusual states: caps of 0, half-read files, failed reports, names that look like patterns."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, StoreError, TransientError
from firsthand.message import Message, assistant
from firsthand.model import Completion, Sampling, Usage
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.document import Document
from firsthand.retrieval.graph.community_reports import community_data, report_key
from firsthand.retrieval.graph.graph_build import GraphSettings, _Build, _checked_reader, build_graph, estimate
from firsthand.retrieval.graph.graph_extraction import ExtractionSettings, FailedChunk
from firsthand.retrieval.graph.graph_file import GraphFile
from firsthand.retrieval.graph.graph_state import GraphState, leaf_chunks, load_state, summary_key, verify_graph
from firsthand.retrieval.graph.knowledge_graph import (
    Entity,
    Extraction,
    Relation,
)
from firsthand.retrieval.graph.knowledge_graph import KnowledgeGraph as Graph
from firsthand.retrieval.graph.leiden import Community, at_level
from firsthand.retrieval.graph.noun_phrases import NounPhraseSettings
from firsthand.retrieval.store.sqlite_index import SqliteIndex, open_index
from graph_endpoint import body, scripted
from graph_handmade import report_of

PHRASES = GraphSettings("noun_phrases", phrases=NounPhraseSettings(min_frequency=1, min_edge_percentile=0))
SMALL = GraphSettings(extraction=ExtractionSettings(("person",), gleanings=0))


def index_of(**texts: str) -> SqliteIndex:
    made = open_index(":memory:", IndexHeader("", "", 0, "whole", document_prefix="doc: "))
    made.put([IndexedDocument(Document(id, text), [Chunk(id, 0, len(text), text)], None) for id, text in texts.items()])
    return made


@pytest.fixture
def file(tmp_path: Path) -> Iterator[GraphFile]:
    made = GraphFile(tmp_path / "x.graph", create=True)
    yield made
    made.close()


# -- building --


def test_a_cap_of_nothing_is_a_cap_and_the_estimate_itself_is_within_it(file: GraphFile) -> None:
    index = index_of(a="Ann met Bob.", b="Cid.")
    cost = estimate(file, index, SMALL)
    model = scripted(lambda said: body())
    for cap in (0, cost.tokens - 1):
        with pytest.raises(ConfigError) as capped:
            asyncio.run(build_graph(index, file, SMALL, model=model, max_tokens=cap))
        assert str(capped.value) == (
            f"building the graph would take about {cost.tokens} tokens in {cost.calls} calls, and the cap is {cap}: raise "
            "it, index fewer documents, or use --extractor noun_phrases, which asks no model"
        )
    assert not model.asked and file.states() == {} and file.meta("reader") is None
    receipt = asyncio.run(build_graph(index, file, SMALL, model=model, max_tokens=cost.tokens))
    assert (receipt.extracted, receipt.without_entities, receipt.calls) == (2, 2, 2)
    done = asyncio.run(build_graph(index, file, SMALL, model=model, max_tokens=0))
    assert (done.extracted, done.reused, done.calls) == (0, 2, 0), "nothing is to be read"
    assert (
        asyncio.run(
            build_graph(index, GraphFile(file.path.with_name("y.graph"), create=True), PHRASES, max_tokens=0)
        ).calls
        == 0
    )


def test_what_another_extractor_read_is_to_be_read_and_an_empty_graph_may_change_its_reader(file: GraphFile) -> None:
    index = index_of(a="Ann met Bob.", b="Cid.")
    [first, second] = leaf_chunks(index)
    file.keep(first, Extraction(first.id))
    assert estimate(file, index, PHRASES).chunks == 2, "nobody said by what it was read"
    file.put_meta("reader", {"extractor": "noun_phrases", "model": "", "types": [], "gleanings": 0})
    assert estimate(file, index, PHRASES).chunks == 1 and estimate(file, index, SMALL).chunks == 2
    file.keep(second, FailedChunk(second.id, "b", "why"))
    assert estimate(file, index, PHRASES).chunks == 1, "what failed is read again"
    with pytest.raises(ConfigError) as refused:
        _checked_reader(file, SMALL, scripted(str))
    assert str(refused.value) == (
        f"the graph {file.path} was made with extractor 'noun_phrases' (now 'model'), model '' (now 'scripted:m'), types [] "
        "(now ['person']): use what it was made with, or give --rebuild"
    )
    file.forget([first.id, second.id])
    assert _checked_reader(file, SMALL, scripted(str)) == {
        "extractor": "model", "model": "scripted:m", "types": ["person"], "gleanings": 0
    }  # fmt: skip


class Slow:
    """Counts how many questions are open at once; every answer has no entities."""

    name = "slow"

    def __init__(self) -> None:
        self.open = self.most = 0

    async def complete(self, prompt: Sequence[Message], sampling: Sampling, **_: Any) -> list[Completion]:
        self.open += 1
        self.most = max(self.most, self.open)
        await asyncio.sleep(0.001)
        self.open -= 1
        return [Completion(assistant(body()), "stop", Usage(prompt_tokens=1, completion_tokens=1))]


@pytest.mark.slow
def test_as_many_chunks_are_asked_about_at_once_as_was_said_and_failed_ones_only_if_wanted(file: GraphFile) -> None:
    index = index_of(**{f"d{n}": f"text {n}" for n in range(6)})
    chunks = leaf_chunks(index)
    for concurrency in (1, 3, 6):
        model = Slow()
        file.forget([chunk.id for chunk in chunks])
        assert asyncio.run(build_graph(index, file, SMALL, model=model, concurrency=concurrency)).extracted == 6  # type: ignore[arg-type]
        assert model.most == concurrency
    file.keep(chunks[2], FailedChunk(chunks[2].id, "d2", "cut"))
    left = asyncio.run(build_graph(index, file, SMALL, model=Slow(), retry_failed=False))  # type: ignore[arg-type]
    assert (left.extracted, left.reused, left.failed) == (0, 6, (FailedChunk(chunks[2].id, "d2", "cut"),))
    again = asyncio.run(build_graph(index, file, SMALL, model=Slow()))  # type: ignore[arg-type]
    assert (again.extracted, again.reused, again.failed) == (1, 5, ())


GRAPH = Graph(
    (Entity("A+B", "X", ("one", "two"), ("c1",)), Entity("C", "X", ("", ), ("c2",)), Entity("D", "X", (), ("c2", "c3"))),
    (Relation("A+B", "C", ("r",), 1.0, ("c1",)), Relation("C", "D", ("s", "t"), 2.0, ("c2",))),
)  # fmt: skip
TREE = [
    Community(0, 0, None, ("D",)),
    Community(1, 0, None, ("A+B", "C")),
    Community(2, 1, 1, ("A+B",)),
    Community(3, 1, 1, ("C",)),
]


def test_reports_of_sentences_are_rated_by_the_largest_community_and_kept_by_all_that_they_say(file: GraphFile) -> None:
    chunks = {
        "c1": Chunk("d", 0, 0, "AB ran. a+b sat with C! C slept."), "c2": Chunk("d", 0, 0, "C slept. D and A+B?"),
        "c3": Chunk("e", 0, 0, "D only."), "c9": Chunk("e", 0, 0, "A+B and C again."),
    }  # fmt: skip
    work = _Build(None, file, PHRASES, None, None)  # type: ignore[arg-type]
    keys, made, failed = asyncio.run(work._report(GRAPH, TREE, chunks))
    assert (sorted(keys), made, failed) == ([0, 1, 2, 3], 4, [])
    stored = {id: json.loads(text) for id, key in keys.items() for text in file.texts([key]).values()}
    assert {id: each["rating"] for id, each in stored.items()} == {0: 5.0, 1: 10.0, 2: 5.0, 3: 5.0}
    assert [each["findings"] for _, each in sorted(stored.items())] == [
        [["D and A+B?", ""], ["D only.", ""]],
        [["a+b sat with C!", ""], ["C slept.", ""], ["D and A+B?", ""]],
        [["a+b sat with C!", ""]],
        [["C slept.", ""]],
    ]
    assert stored[1]["title"] == "C, A+B" and "in 2 passages" in stored[1]["summary"]
    assert asyncio.run(work._report(GRAPH, TREE, chunks)) == (keys, 0, [])
    del chunks["c2"]
    changed, made, _ = asyncio.run(work._report(GRAPH, TREE, chunks))
    assert made == 3 and {id for id in keys if keys[id] != changed[id]} == {0, 1, 3}


def test_a_build_keeps_every_summary_and_counts_a_report_that_failed_as_neither_made_nor_there(file: GraphFile) -> None:
    index = index_of(a="1", b="2", c="3")

    def reply(said: str) -> str:
        if "List every entity" in said:
            n = next(each for each in "123" if f"\n{each}\n" in said)
            names = ("Dora", "Emil") if n == "3" else ("Ann", "Bob")
            entities = [{"name": name, "type": "person", "description": f"{name} {n}"} for name in names]
            relation = {"source": names[0], "target": names[1], "description": f"r{n}", "strength": 1}
            return json.dumps({"entities": entities, "relations": [relation]})
        if said.startswith("These are descriptions"):
            return "short"
        return "no JSON" if "DORA" in said else json.dumps(report_of("T", 4.0))

    def build() -> list[Any]:
        made = asyncio.run(build_graph(index, file, SMALL, model=scripted(reply)))
        assert made.failed_reports == ((1, "the answer is 'no JSON': a JSON object was expected"),)
        assert (made.entities, made.relations, made.orphans, made.communities) == (4, 2, 0, {0: 2})
        return [made.extracted, made.summaries_made, made.reports_made, made.reports_reused, made.calls]

    assert build() == [3, 3, 1, 0, 8] and build() == [0, 0, 0, 1, 1], "three summaries; only the failed report is tried"
    state = load_state(file, index)
    assert [each.description for each in state.graph.items] == ["short", "short", "Dora 3", "Emil 3", "short", "r3"]
    assert state.reports is not None and [*state.reports] == [0]
    assert verify_graph(file, index) == ["the community 1 has no report: the model's answer could not be read"]


def test_an_endpoint_that_is_gone_ends_the_reports_and_keeps_those_that_were_made(file: GraphFile) -> None:
    def reply(said: str) -> str:
        if "D (x" in said:
            raise TransientError("gone")
        return json.dumps(report_of("T", 11.0))

    from firsthand.retrieval.graph.graph_model import GraphModel

    class Gone(GraphModel):
        async def ask_json(self, messages: Sequence[Message], schema: Any, max_tokens: int) -> Any:
            return json.loads(reply(messages[-1].text)), None

    work = _Build(None, file, GraphSettings(report_tokens=5), Gone(scripted(str)), None)  # type: ignore[arg-type]
    with pytest.raises(TransientError):
        asyncio.run(work._report(GRAPH, TREE, {}))
    data = {each.id: community_data(GRAPH, each, [], 8000) for each in TREE}
    keys = {id: report_key("scripted:m", data[id], 5) for id in data}
    assert {json.loads(text)["rating"] for text in file.texts([keys[2], keys[3]]).values()} == {10.0}
    assert file.texts([keys[0]]) == {}


# -- reading back --


def test_a_graph_of_phrases_is_read_back_with_the_settings_it_was_built_with(file: GraphFile) -> None:
    index = index_of(b="Ann Ash met Bob Elm.", a="Cid Oak met Ann Ash.", c="nobody")
    receipt = asyncio.run(build_graph(index, file, PHRASES))
    state = load_state(file, index)
    assert (state.extractor, state.unread, [each.name for each in state.graph.entities]) == (
        "noun_phrases", 0, ["ANN ASH", "BOB ELM", "CID OAK"]
    )  # fmt: skip
    assert receipt.entities == 3 and receipt.usage == Usage() and verify_graph(file, index) == []
    built = file.meta("built")
    assert built is not None and built["phrases"]["min_frequency"] == 1 and built["author"] == "noun_phrases"
    file.put_meta("built", {**built, "phrases": {**built["phrases"], "min_frequency": 2}})
    assert [each.name for each in load_state(file, index).graph.entities] == ["ANN ASH"]
    assert verify_graph(file, index) == [
        f"the community of {name} is left over: it has no relation" for name in ("ANN ASH", "BOB ELM", "CID OAK")
    ]  # fmt: skip
    for wrong, told in (({"communities": [[0, 0, None]]}, "not enough values"), ({"reports": []}, "items"),
                        ({"communities": [["x", 0, None, []]]}, "invalid literal")):  # fmt: skip
        file.put_meta("built", {**built, **wrong})
        with pytest.raises(
            StoreError, match=rf"x\.graph is damaged \(.*{told}.*\): delete it and build the graph again$"
        ):
            load_state(file, index)


def test_a_summary_is_of_its_descriptions_in_their_order_and_communities_come_by_level_not_by_id() -> None:
    entity = Entity("N", "T", ("b", "a"), ())
    keys = {
        summary_key(each, author, size)
        for each, author, size in (
            (entity, "m", 5), (Entity("N", "T", ("a", "b"), ()), "m", 5), (entity, "n", 5), (entity, "m", 6),
            (Entity("O", "T", ("b", "a"), ()), "m", 5), (Relation("N", "O", ("b", "a"), 1.0, ()), "m", 5),
        )
    }  # fmt: skip
    assert len(keys) == 6 and summary_key(Entity("N", "U", ("b", "a"), ("c",), "s"), "m", 5) in keys
    tree = (Community(1, 2, 4, ("x",)), Community(4, 1, 7, ("x", "y")), Community(7, 0, None, ("x", "y", "z")))
    state = GraphState(GRAPH, tree)
    assert {name: [each.id for each in found] for name, found in state.communities_of.items()} == {
        "x": [7, 4, 1], "y": [7, 4], "z": [7]
    }  # fmt: skip
    assert [[each.id for each in at_level(tree, level)] for level in range(4)] == [[7], [4, 7], [1, 4, 7], [1, 4, 7]]
    documents = {"b": ["b"], "a": ["a1", "a2"]}
    index: Any = SimpleNamespace(
        hashes=lambda: dict.fromkeys(documents, ""), chunks=lambda id: [Chunk(id, 0, 1, each) for each in documents[id]]
    )
    assert [each.text for each in leaf_chunks(index)] == ["a1", "a2", "b"]


def test_failed_chunks_come_in_the_order_of_their_documents_and_a_full_disk_says_so(file: GraphFile) -> None:
    chunks = [Chunk("b", 0, 1, "x"), Chunk("a", 7, 9, "y"), Chunk("a", 2, 3, "z"), Chunk("a", 12, 13, "w")]
    for chunk in chunks:
        file.keep(chunk, FailedChunk(chunk.id, chunk.document, chunk.text))
    assert [each.reason for each in file.failed()] == ["z", "y", "w", "x"]
    for name, told in (
        ("SQLITE_FULL", "cannot be written (odd): make room, then run it again"),
        ("SQLITE_IOERR_WRITE", "cannot be written (odd): make room, then run it again"),
        ("SQLITE_CORRUPT", "cannot be used: odd. Delete it and build the graph again"),
        ("", "cannot be used: odd. Delete it and build the graph again"),
    ):
        error = sqlite3.OperationalError("odd")
        error.sqlite_errorname = name
        with pytest.raises(StoreError) as told_as, file._sentences():
            raise error
        assert str(told_as.value) == f"{file.path} {told}" and told_as.value.__cause__ is error
    file._execute("PRAGMA max_page_count = 10")
    with pytest.raises(StoreError, match=r"x\.graph cannot be written \(database or disk is full\): make room"):
        file.put_vectors({f"k{n}": np.ones(5000, np.float32) for n in range(9)})
    assert file.vectors(["k0"]) == {} and not file._connection.in_transaction, "all or none"
