"""The steps of building a graph one by one: summaries, reports from the finest communities up, vectors, costs, faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, LimitExceeded, StoreError, TransientError
from firsthand.model import Usage
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.document import Document
from firsthand.retrieval.graph.community_reports import CommunityReport, community_data, extracted_report, report_key
from firsthand.retrieval.graph.graph_build import (
    GraphEstimate,
    GraphSettings,
    _Build,
    _checked_reader,
    build_graph,
    estimate,
)
from firsthand.retrieval.graph.graph_data import Section, fenced
from firsthand.retrieval.graph.graph_extraction import ExtractionSettings, FailedChunk
from firsthand.retrieval.graph.graph_file import GraphFile, graph_path
from firsthand.retrieval.graph.graph_model import GraphModel, count_tokens
from firsthand.retrieval.graph.graph_prompts import (
    CONTINUE,
    extraction_prompt,
    report_prompt,
    summary_prompt,
)
from firsthand.retrieval.graph.graph_state import (
    entity_key,
    leaf_chunks,
    load_state,
    summary_key,
    text_key,
    verify_graph,
)
from firsthand.retrieval.graph.knowledge_graph import (
    Entity,
    KnowledgeGraph,
    Relation,
)
from firsthand.retrieval.graph.leiden import Community
from firsthand.retrieval.store.sqlite_index import SqliteIndex
from graph_endpoint import Endpoint, asked, body, scripted, sizes
from graph_handmade import COMMUNITIES, TEXTS, handmade, report_of

GRAPH = KnowledgeGraph(
    (
        Entity("ANN", "PERSON", ("first", "tall"), ("c1", "c2")),
        Entity("BOB", "PERSON", ("a baker",), ("c1",)),
        Entity("CID", "GEO", ("far",), ("c3",)),
        Entity("DORA", "PERSON", (), ("c4",)),
    ),
    (
        Relation("ANN", "BOB", ("met", "wed"), 2.0, ("c1",)),
        Relation("BOB", "CID", ("paid",), 3.5, ("c3",)),
        Relation("DORA", "DORA", ("saw herself in the glass of a long window",), 1.0, ("c4",)),
    ),
)
TREE = [
    Community(0, 0, None, ("ANN", "BOB", "CID")),
    Community(1, 0, None, ("DORA",)),
    Community(2, 1, 0, ("ANN", "BOB")),
    Community(3, 1, 0, ("CID",)),
]


@pytest.fixture
def file(tmp_path: Path) -> Iterator[GraphFile]:
    made = GraphFile(tmp_path / "x.graph", create=True)
    yield made
    made.close()


@pytest.fixture
def made(tmp_path: Path) -> Iterator[tuple[GraphFile, SqliteIndex]]:
    path, index = handmade(tmp_path)
    held = GraphFile(graph_path(path))
    yield held, index
    held.close()
    index.close()


def build(file: GraphFile, model: Any, embedder: Any = None, index: Any = None, **settings: Any) -> _Build:
    asked = None if model is None else GraphModel(model)
    return _Build(index, file, GraphSettings(**settings), asked, embedder)


def test_only_what_has_several_descriptions_is_summarised_and_only_once(file: GraphFile) -> None:
    entity, relation = GRAPH.entities[0], GRAPH.relations[0]
    keys = [summary_key(each, "scripted:m", 7) for each in (entity, relation)]
    assert keys[0] == text_key("summary", "scripted:m", "ANN", ["first", "tall"], 7)
    assert keys[1] == text_key("summary", "scripted:m", "ANN and BOB", ["met", "wed"], 7)
    model = scripted(lambda said: "  the first one \n" if "first" in said else " ")
    assert asyncio.run(build(file, model, summary_tokens=7)._summarise(GRAPH)) == (keys, 2)
    assert file.texts(keys) == {keys[0]: "the first one", keys[1]: "met wed"}, "an empty summary is the joined texts"
    prompts = {
        name: summary_prompt(name, fenced(name, [Section(f"description {n}", text) for n, text in enumerate(told, 1)]))
        for name, told in (("ANN", ("first", "tall")), ("ANN and BOB", ("met", "wed")))
    }
    assert sorted(asked(model)) == sorted(prompts.values())
    assert sizes(model) == [7, 7]
    assert asyncio.run(build(file, model, summary_tokens=7)._summarise(GRAPH)) == (keys, 0) and len(model.asked) == 2
    assert asyncio.run(build(file, model, summary_tokens=8)._summarise(GRAPH))[1] == 2
    assert asyncio.run(build(file, None)._summarise(GRAPH)) == ([], 0)


def told(title: str) -> str:
    return json.dumps(report_of(title, 4.0))


def test_reports_are_made_from_the_finest_up_and_one_that_fails_is_told_and_tried_again(file: GraphFile) -> None:
    def reply(said: str) -> str:
        names = [name for name in ("ANN", "BOB", "CID", "DORA") if f"\n{name} (" in said]
        return told("+".join(names)) if names != ["CID"] or "# ANN" in said else "no JSON"

    budget = 24  # too few for the whole of community 0, whose part 2 then tells of its members
    model = scripted(reply)
    work = build(file, model, report_data_tokens=budget, report_tokens=99)
    part = CommunityReport.from_json(TREE[2], report_of("ANN+BOB", 4.0))
    data = {each.id: community_data(GRAPH, each, [(TREE[2], part)] if each.id == 0 else [], budget) for each in TREE}
    assert data[0].startswith("# ANN+BOB") and data[2].startswith("ANN (person, 1 relations): first tall\n")
    keys, made, failed = asyncio.run(work._report(GRAPH, TREE, {}))
    assert list(keys.items()) == [(id, report_key("scripted:m", data[id], 99)) for id in (0, 1, 2)] and made == 3
    assert failed == [(3, "the answer is 'no JSON': a JSON object was expected")]
    prompts = [report_prompt(fenced("report", [Section("entities and relations", data[id])])) for id in range(4)]
    assert sorted(asked(model)[:2]) == sorted(prompts[2:]) and sorted(asked(model)[2:]) == sorted(prompts[:2])
    assert set(sizes(model)) == {99}
    assert json.loads(file.texts([keys[2]])[keys[2]]) == report_of("ANN+BOB", 4.0)
    again = asyncio.run(work._report(GRAPH, TREE, {}))
    assert again == (keys, 0, failed) and asked(model)[4:] == [prompts[3]]

    for error in (LimitExceeded("tokens", "all used"), TransientError("gone")):
        work = build(file, scripted(reply), report_tokens=98)
        work.model = Ends(error)  # type: ignore[assignment]
        with pytest.raises(type(error)):
            asyncio.run(work._report(GRAPH, TREE, {}))


class Ends:
    """A model of a graph whose cap is reached, or whose endpoint is gone."""

    model = Endpoint(lambda messages: "")

    def __init__(self, error: Exception):
        self.error = error

    async def ask_json(self, *_: Any) -> Any:
        raise self.error


def test_without_a_model_reports_are_sentences_of_the_documents(file: GraphFile) -> None:
    chunks = {
        "c1": Chunk("d", 0, 0, "Bob slept.  Ann met\tBob and Cid. Annex. It rained."),
        "c2": Chunk("d", 0, 0, "ann left! Bob slept."),
        "c3": Chunk("e", 0, 0, "Cid was far."),
        "c9": Chunk("e", 0, 0, "Ann, Bob and Cid again."),
    }
    report = extracted_report(GRAPH, TREE[0], chunks, 4, 50)
    assert report == CommunityReport(
        0, 0, "Bob, Ann, Cid", "3 names and terms that occur together in 3 passages.", 7.5,
        (("Ann met Bob and Cid.", ""), ("Bob slept.", ""), ("ann left!", ""), ("Cid was far.", "")),
    )  # fmt: skip
    # 6 tokens for "Ann met Bob and Cid." with its line break, 3 for "Bob slept."
    assert [len(extracted_report(GRAPH, TREE[0], chunks, 4, size).findings) for size in (5, 6, 8, 9)] == [0, 1, 1, 2]
    long = {"c1": Chunk("d", 0, 0, " ".join(f"Bob {n}." for n in range(12)))}
    assert [text for text, _ in extracted_report(GRAPH, TREE[2], long, 0, 999).findings] == [
        f"Bob {n}." for n in range(10)
    ]
    assert extracted_report(GRAPH, TREE[3], {}, 3, 9).rating == 3.333
    keys, made, failed = asyncio.run(build(file, None, report_tokens=50)._report(GRAPH, TREE, chunks))
    reports = [extracted_report(GRAPH, each, chunks, 3, 50).to_json() for each in TREE]
    assert keys == {id: text_key("extracted report", body) for id, body in enumerate(reports)}
    assert (made, failed) == (4, []) and json.loads(file.texts([keys[0]])[keys[0]]) == reports[0]
    assert reports[0]["rating"] == 10.0


def test_vectors_of_entities_are_computed_where_they_are_missing(file: GraphFile) -> None:
    texts: list[str] = []

    class Embedder:
        async def embed(self, given: Sequence[str]) -> list[list[float]]:
            texts.extend(given)
            return [[float(len(each)), 1.0] for each in given]

    class Index:
        header = IndexHeader("e", "hash", 2, "whole", document_prefix="p: ")

    keys = [entity_key(each, Index.header) for each in GRAPH.entities]
    file.put_vectors({keys[1]: [7.0, 7.0]})  # type: ignore[dict-item]
    assert asyncio.run(build(file, None, Embedder(), Index())._embed(GRAPH)) == keys
    assert texts == ["p: ANN: first tall", "p: CID: far", "p: DORA: "]
    stored = {key: vector.tolist() for key, vector in file.vectors(keys).items()}
    assert stored == {keys[0]: [18.0, 1.0], keys[1]: [7.0, 7.0], keys[2]: [11.0, 1.0], keys[3]: [9.0, 1.0]}
    assert keys[2] == text_key("entity", "hash", "p: ", "CID: far")
    assert asyncio.run(build(file, None, Embedder(), Index())._embed(GRAPH)) == keys and len(texts) == 3
    assert asyncio.run(build(file, None)._embed(GRAPH)) == []


# -- costs, settings, faults --


@pytest.mark.slow
def test_the_estimate_counts_prompts_answers_gleanings_and_reports(made: tuple[GraphFile, SqliteIndex]) -> None:
    file, index = made
    assert estimate(file, index, GraphSettings()) == GraphEstimate(0, 0, 0)
    chunks = leaf_chunks(index)
    assert [chunk.document for chunk in chunks] == ["four", "one", "three", "two"]

    def cost(gleanings: int, most: int) -> GraphEstimate:
        calls = tokens = 0
        for text in TEXTS.values():
            prompt = count_tokens(extraction_prompt(("geo",), text))
            answer, go_on = min(2 * count_tokens(text), most), count_tokens(CONTINUE)
            calls += [1, 2, 4][gleanings]
            tokens += prompt + answer
            if gleanings >= 1:  # the gleaning, and whether any are left where another one may follow
                tokens += (prompt + answer + go_on + answer) * gleanings
            if gleanings == 2:
                tokens += prompt + 2 * answer + 2 * go_on + answer
        return GraphEstimate(4, calls + 2 * 4, tokens + 2200 * 4)

    for gleanings in (0, 1, 2):
        for most in (2000, 3):
            settings = GraphSettings(extraction=ExtractionSettings(("geo",), gleanings, most))
            assert estimate(None, index, settings) == cost(gleanings, most)
    assert estimate(file, index, GraphSettings("noun_phrases")) == GraphEstimate(4, 0, 0)
    file.keep(chunks[1], FailedChunk(chunks[1].id, "one", "why"))
    assert estimate(file, index, GraphSettings()).chunks == 1
    with pytest.raises(ConfigError) as capped:
        asyncio.run(build_graph(index, file, model=scripted(str), max_tokens=5))
    assert "was made with" in str(capped.value)
    with pytest.raises(
        ConfigError, match=r"^extraction by a model needs one: give --model, or --extractor noun_phrases"
    ):
        asyncio.run(build_graph(index, file))


@pytest.mark.slow
def test_a_graph_goes_on_with_what_it_was_made_with(made: tuple[GraphFile, SqliteIndex], file: GraphFile) -> None:
    settings = GraphSettings(extraction=ExtractionSettings(("geo",), 2))
    reader = {"extractor": "model", "model": "scripted:m", "types": ["geo"], "gleanings": 2}
    assert _checked_reader(file, settings, scripted(str)) == reader
    with pytest.raises(ConfigError) as refused:
        _checked_reader(made[0], settings, scripted(str))
    assert str(refused.value) == (
        f"the graph {made[0].path} was made with model 'm' (now 'scripted:m'), types [] (now ['geo']), gleanings 0 (now 2): "
        "use what it was made with, or give --rebuild"
    )
    phrases = {"extractor": "noun_phrases", "model": "", "types": [], "gleanings": 0}
    assert _checked_reader(file, GraphSettings("noun_phrases"), scripted(str)) == phrases
    file.put_meta("reader", reader)
    assert _checked_reader(file, GraphSettings("noun_phrases"), None) == phrases, "nothing was read yet"
    made[0].put_meta("reader", phrases)
    assert _checked_reader(made[0], GraphSettings("noun_phrases"), None) == phrases


@pytest.mark.slow
def test_a_build_reads_what_is_new_forgets_what_is_gone_and_tells_all_of_it(
    made: tuple[GraphFile, SqliteIndex],
) -> None:
    file, index = made
    chunks = {chunk.document: chunk for chunk in leaf_chunks(index)}
    file.keep(chunks["one"], FailedChunk(chunks["one"].id, "one", "why"))
    index.delete(["four"])
    index.put([IndexedDocument(Document("five", "x"), [Chunk("five", 0, 1, "x")], None)])
    settings = GraphSettings(extraction=ExtractionSettings(gleanings=0))
    model = scripted(
        lambda said: (
            body()
            if "from one" in said or "from five" in said
            else told("T")
            if "entities and relations" in said
            else "s"
        )
    )
    kept = asyncio.run(build(file, model, index=index, extraction=settings.extraction).run(False))
    # BOB and CID, DORA and EMIL are left; BOB has one description, so that there is nothing to summarise
    assert (kept.extracted, kept.reused, kept.removed, kept.without_entities) == (1, 3, 1, 1)
    assert kept.failed == (FailedChunk(chunks["one"].id, "one", "why"),) and kept.orphans == 0
    assert (kept.entities, kept.relations, kept.communities, kept.summaries_made) == (4, 2, {0: 2}, 0)
    assert (kept.reports_made, kept.reports_reused, kept.failed_reports, kept.calls) == (2, 0, (), 3)
    assert kept.usage == Usage(prompt_tokens=300, completion_tokens=2 * len(told("T").split()) + len(body().split()))
    assert file.texts(["key 0", "key 1", "key 2", "key 4"]) == {}, "reports that nothing names are dropped"
    again = asyncio.run(build(file, model, index=index, extraction=settings.extraction).run(True))
    assert (again.extracted, again.reused, again.removed, again.without_entities, again.failed) == (1, 3, 0, 2, ())
    assert (again.reports_made, again.reports_reused, again.calls) == (0, 2, 1)
    assert file.meta("built") == {
        "extractor": "model",
        "author": "scripted:m",
        "summary_tokens": 500,
        "phrases": None,
        "largest_component": False,
        "communities": [[0, 0, None, ["BOB", "CID"]], [1, 0, None, ["DORA", "EMIL"]]],
        "reports": {str(each): key for each, key in enumerate(file.meta("built")["reports"].values())},  # type: ignore[index]
    }
    state = load_state(file, index)
    assert [report.title for report in (state.reports or {}).values()] == ["T", "T"] and state.unread == 0
    none = asyncio.run(build(file, None, index=index, extractor="noun_phrases").run(True))
    assert (none.calls, none.usage) == (0, Usage()) and none.reused == 4


def test_faults_of_a_graph_are_told_one_by_one(made: tuple[GraphFile, SqliteIndex]) -> None:
    file, index = made
    chunks = {chunk.document: chunk for chunk in leaf_chunks(index)}
    assert verify_graph(file, index) == ["the community 3 has no report: the model's answer could not be read"]
    assert load_state(file, index).unread == 0
    built = file.meta("built")
    assert built is not None
    file.forget([chunks["three"].id])
    file.put_meta("built", {**built, "communities": [[0, 0, None, ["ANN", "BOB", "YAK"]], [7, 0, None, ["DORA", "XU"]]],
                            "reports": {"0": "key 0", "7": "lost"}})  # fmt: skip
    file.keep(chunks["two"], FailedChunk(chunks["two"].id, "two", "cut off"))
    index.delete(["one"])
    assert verify_graph(file, index) == [
        f"the chunk {chunks['three'].id} of three is not in the graph",
        f"the graph tells of the chunk {chunks['one'].id}, which the index lacks",
        f"the chunk {chunks['two'].id} of two failed: cut off",
        "the community of DORA is left over: it has no relation",
        "the community of XU is left over: it has no relation",
        "the community of YAK is left over: it has no relation",
        "CID is in no community",
        "the report of community 7 is missing",
    ]
    with pytest.raises(ConfigError, match=r"^1 chunks were removed from the index since the graph was built, which"):
        load_state(file, index)
    file.forget([chunks["one"].id])
    file.put_meta("built", {**built, "largest_component": True, "communities": [COMMUNITIES[0]], "reports": {}})
    assert not any("no community" in each for each in verify_graph(file, index))
    assert load_state(file, index).unread == 2, "one was never read, one failed"
    file.put_meta("built", {"author": 1})
    with pytest.raises(StoreError, match=r"is damaged \('extractor'\): delete it and build the graph again$"):
        load_state(file, index)
