"""The graph of an index: merging, gleanings, failures, updates and deletions, caps, noun phrases, and every search."""

from __future__ import annotations

import asyncio
import json
import math
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.agent import Agent
from firsthand.errors import ConfigError, FirsthandError, LimitExceeded, ModelError, PromptTooLong, StoreError
from firsthand.loop.journal import MemoryJournal
from firsthand.message import Message, user
from firsthand.providers.scripted import Scripted
from firsthand.retrieval import corpus
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.document import Document
from firsthand.retrieval.graph.community_reports import CommunityReport
from firsthand.retrieval.graph.graph_build import GraphReceipt, GraphSettings, build_graph, estimate
from firsthand.retrieval.graph.graph_context import (
    LocalShares,
    best_points,
    local_context,
    matched_entities,
    packed,
    shortened,
)
from firsthand.retrieval.graph.graph_data import Section, fenced, fitting
from firsthand.retrieval.graph.graph_extraction import ExtractionSettings, extract, joined
from firsthand.retrieval.graph.graph_file import GraphFile, graph_path
from firsthand.retrieval.graph.graph_model import GraphModel, count_tokens
from firsthand.retrieval.graph.graph_prompts import UNKNOWN, extraction_prompt, extraction_schema
from firsthand.retrieval.graph.graph_state import GraphState, load_state, verify_graph
from firsthand.retrieval.graph.knowledge_graph import ExtractedEntity, ExtractedRelation, Extraction, merge, normal_name
from firsthand.retrieval.graph.leiden import LeidenSettings, at_level, communities
from firsthand.retrieval.graph.noun_phrases import NounPhraseSettings, noun_phrases, phrase_graph
from firsthand.retrieval.rag.graph_rag import graph_rag
from firsthand.retrieval.store.sqlite_index import SqliteIndex, open_index
from firsthand.rollout import rollout
from firsthand.sampling import Sampling
from firsthand.task import Task
from firsthand.trace import Trace

pytest.importorskip("graspologic_native")

HEADER = IndexHeader("", "", 0, "whole")
FACTS = {
    "ada": "Ada Lovelace wrote about the Analytical Engine.",
    "babbage": "Charles Babbage designed the Analytical Engine.",
    "turing": "Alan Turing worked at Bletchley Park.",
    "clarke": "Joan Clarke worked at Bletchley Park.",
}
TYPES = {"Engine": "event", "Park": "geo"}


def put(index: SqliteIndex, **texts: str) -> None:
    made = [IndexedDocument(Document(id, text), [Chunk(id, 0, len(text), text)], None) for id, text in texts.items()]
    assert not index.put(made).failed


def facts_in(text: str) -> dict[str, Any]:
    """What a perfect model extracts from one of FACTS: two entities and the relation between them."""
    for fact in FACTS.values():
        if fact in text:
            words = fact.rstrip(".").split()
            names = [" ".join(words[:2]), " ".join(words[-2:])]
            entities = [
                {
                    "name": name,
                    "type": TYPES.get(name.split()[-1], "person"),
                    "description": f"{name}, says {words[0]}.",
                }
                for name in names
            ]
            relation = {"source": names[0], "target": names[1], "description": " ".join(words[2:-2]), "strength": 7}
            return {"entities": entities, "relations": [relation]}
    return {"entities": [], "relations": []}


def extractor(messages: Sequence[Message], sampling: Sampling, index: int) -> str:
    """A model that extracts, summarises and reports by rule."""
    first, last = messages[0].text, messages[-1].text
    if "List every entity" in last:
        return json.dumps(facts_in(first))
    if last.startswith("Entities and relations were missed"):
        return json.dumps({"entities": [], "relations": []})
    if last.startswith("These are descriptions"):
        return "Several say so: " + last.split("\n")[-2]
    if last.startswith("The data below are the entities"):
        who = sorted(
            {name.upper() for fact in FACTS.values() for name in [" ".join(fact.split()[:2])] if name.upper() in last}
        )
        body = {"title": " and ".join(who) or "Nobody", "summary": "A community.", "rating": len(who)}
        return json.dumps(body | {"rating_explanation": "", "findings": [{"summary": "found", "explanation": "so"}]})
    raise AssertionError(last)


class Place:
    """An index and its graph in a folder."""

    def __init__(self, folder: Path):
        self.path = folder / "facts.index"
        self.index = open_index(self.path, HEADER)
        self.model = Scripted(extractor, name="scripted:extractor")

    def build(self, settings: GraphSettings | None = None, **more: Any) -> GraphReceipt:
        file = GraphFile(graph_path(self.path), create=True)
        try:
            return asyncio.run(build_graph(self.index, file, settings, model=more.pop("model", self.model), **more))
        finally:
            file.close()

    def read(self, look: Callable[[GraphFile], Any]) -> Any:
        file = GraphFile(graph_path(self.path))
        try:
            return look(file)
        finally:
            file.close()

    def state(self) -> GraphState:
        return self.read(lambda file: load_state(file, self.index))  # type: ignore[no-any-return]

    def faults(self) -> list[str]:
        return self.read(lambda file: verify_graph(file, self.index))  # type: ignore[no-any-return]


@pytest.fixture
def place(tmp_path: Path) -> Any:
    made = Place(tmp_path)
    yield made
    corpus.close_corpora()
    made.index.close()


# -- merging --


def test_entities_are_merged_by_name_and_type_and_weights_of_both_directions_are_summed() -> None:
    graph = merge(
        [
            Extraction(
                "c1",
                (
                    ExtractedEntity(" ada  Lovelace ", "person", "First."),
                    ExtractedEntity("Engine", "event", "A machine."),
                ),
                (ExtractedRelation("Ada Lovelace", "ENGINE", "wrote", 3),),
            ),
            Extraction(
                "c2",
                (ExtractedEntity('"ADA LOVELACE"', "person", "Second."), ExtractedEntity("Engine", "geo", "A place.")),
                (ExtractedRelation("Engine", "Ada Lovelace", "is by", 4), ExtractedRelation("Engine", "Nobody", "", 9)),
            ),
        ]
    )
    assert [(each.name, each.type) for each in graph.entities] == [
        ("ADA LOVELACE", "PERSON"), ("ENGINE", "EVENT"), ("ENGINE", "GEO"),
    ]  # fmt: skip
    ada = graph.entities[0]
    assert ada.descriptions == ("First.", "Second.") and ada.chunks == ("c1", "c2")
    (relation,) = graph.relations
    assert (relation.source, relation.target, relation.weight) == ("ADA LOVELACE", "ENGINE", 7)
    assert relation.descriptions == ("wrote", "is by") and relation.chunks == ("c1", "c2")
    assert graph.orphans == 1 and graph.degrees == {"ADA LOVELACE": 1, "ENGINE": 1}
    assert normal_name("“Bob” ") == "BOB" and normal_name("ﬁ e\u0301") == "ﬁ É".upper()


def test_a_description_is_told_once_and_an_empty_one_never() -> None:
    same = (ExtractedEntity("A", "person", "One."), ExtractedEntity("A", "person", " "))
    assert merge([Extraction("1", same), Extraction("2", same)]).entities[0].descriptions == ("One.",)


# -- communities --


def clique(names: str, weight: float = 1.0) -> list[tuple[str, str, float]]:
    return [(a, b, weight) for i, a in enumerate(names) for b in names[i + 1 :]]


def test_two_cliques_are_two_communities_and_a_third_component_is_not_lost() -> None:
    edges = [*clique("abcd"), *clique("efgh"), ("a", "e", 0.1), ("x", "y", 1.0)]
    found = communities(edges)
    assert [each.members for each in found] == [tuple("abcd"), tuple("efgh"), ("x", "y")]
    assert [each.members for each in communities(edges, LeidenSettings(largest_component=True))] == [
        tuple("abcd"), tuple("efgh"),
    ]  # fmt: skip
    assert communities([]) == [] and communities([("a", "a", 1.0)]) == []


def test_large_communities_are_divided_again_and_a_level_holds_every_name() -> None:
    names = [f"n{i:02}" for i in range(40)]
    edges = [*((a, b, 1.0) for a, b in zip(names, [*names[1:], names[0]], strict=True)), *clique("xyz")]
    found = communities(edges, LeidenSettings(max_cluster_size=5))
    by_id = {each.id: each for each in found}
    assert {each.level for each in found} == {0, 1}
    for level in (0, 1):
        assert sorted(name for each in at_level(found, level) for name in each.members) == [*names, *"xyz"]
    for each in found:
        parent = None if each.parent is None else by_id[each.parent]
        assert (each.level == 0) == (parent is None)
        assert parent is None or (set(each.members) < set(parent.members) and len(parent.members) >= 5)
    assert ("x", "y", "z") in {each.members for each in at_level(found, 1)}, "a small one is not divided"


# -- extraction --


def test_a_gleaning_adds_what_was_missed_and_a_second_one_is_asked_for() -> None:
    def reply(messages: Sequence[Message], sampling: Sampling, index: int) -> str:
        last = messages[-1].text
        if "Answer Y or N" in last:
            return "Y"
        number = sum(message.role == "assistant" for message in messages)
        entity = {"name": f"E{number}", "type": "person", "description": "d"}
        return json.dumps({"entities": [entity], "relations": []})

    async def names(gleanings: int) -> tuple[list[str], int]:
        model = GraphModel(Scripted(reply))
        found = await extract(model, Chunk("d", 0, 1, "t"), ExtractionSettings(gleanings=gleanings), "text")
        return [each.name for each in found.entities], model.calls

    assert asyncio.run(names(0)) == (["E0"], 1)
    assert asyncio.run(names(1)) == (["E0", "E1"], 2), "one gleaning asks no question"
    assert asyncio.run(names(2)) == (["E0", "E1", "E2"], 4)


def test_gleaning_ends_when_the_model_says_that_none_are_left() -> None:
    script = Scripted(lambda m, s, i: "N" if "Y or N" in m[-1].text else '{"entities": [], "relations": []}')
    asyncio.run(extract(GraphModel(script), Chunk("d", 0, 1, "t"), ExtractionSettings(gleanings=5), "text"))
    assert len(script.asked) == 3


def test_answers_are_asked_for_under_a_grammar_and_checked_all_the_same() -> None:
    script = Scripted(['{"entities": [], "relations": []}'])
    asyncio.run(extract(GraphModel(script), Chunk("d", 0, 1, "t"), ExtractionSettings(gleanings=0), "text"))
    sampling = script.asked[0].sampling
    assert sampling is not None and sampling.grammar is not None and sampling.grammar.kind == "json_schema"
    good = {"source": "a", "target": "b", "description": "", "strength": 99}
    assert joined("c", [{"entities": [], "relations": [good]}], ["person"]).relations[0].weight == 10
    kind = {"name": "a", "type": "robot", "description": ""}
    assert joined("c", [{"entities": [kind], "relations": []}], ["person"]).entities == ()
    for broken in ({}, {"entities": [1], "relations": []}, {"entities": [], "relations": [good | {"strength": "x"}]}):
        with pytest.raises(ModelError, match="schema"):
            joined("c", [broken], ["person"])


@pytest.mark.slow
def test_a_failed_chunk_is_named_and_tried_again(place: Place) -> None:
    put(place.index, **FACTS)

    def broken(messages: Sequence[Message], sampling: Sampling, index: int) -> str:
        if "Turing" in messages[0].text and "List every entity" in messages[0].text:
            return " ".join(["word"] * 3000)
        return extractor(messages, sampling, index)

    class Free(Scripted):
        """Does not check answers against grammars, as some endpoints do not."""

        async def complete(self, prompt: Any, sampling: Sampling, **more: Any) -> Any:
            return await super().complete(prompt, replace(sampling, grammar=None), **more)

    receipt = place.build(model=Free(broken, name="scripted:extractor"))
    (failed,) = receipt.failed
    assert failed.document == "turing" and "cut off" in failed.reason and receipt.extracted == 3
    assert any("turing failed" in fault for fault in place.faults())
    assert place.state().unread == 1
    again = place.build()
    assert again.failed == () and again.extracted == 1 and again.reused == 3 and place.faults() == []


# -- building, updating, deleting --


@pytest.mark.slow
def test_a_graph_is_built_with_a_report_for_every_community(place: Place) -> None:
    put(place.index, **FACTS)
    receipt = place.build()
    assert (receipt.extracted, receipt.entities, receipt.relations, receipt.orphans) == (4, 6, 4, 0)
    assert receipt.communities == {0: 2} and receipt.reports_made == 2 and receipt.failed_reports == ()
    assert receipt.summaries_made == 2, "two names have several descriptions"
    assert receipt.calls == 4 * 2 + 2 + 2 and receipt.usage.total_tokens > 0
    state = place.state()
    assert state.reports is not None
    assert {report.title for report in state.reports.values()} == {
        "ADA LOVELACE and CHARLES BABBAGE", "ALAN TURING and JOAN CLARKE",
    }  # fmt: skip
    engine = state.graph.by_name["ANALYTICAL ENGINE"][0]
    assert engine.description.startswith("Several say so") and place.faults() == []


@pytest.mark.slow
def test_an_unchanged_index_asks_nothing(place: Place) -> None:
    put(place.index, **FACTS)
    place.build()
    before = place.state()
    again = place.build()
    assert again.calls == 0 and (again.extracted, again.reused, again.reports_reused) == (0, 4, 2)
    assert place.state() == before


@pytest.mark.slow
def test_a_new_document_makes_only_the_report_of_its_community_again(place: Place) -> None:
    put(place.index, **{name: FACTS[name] for name in ("ada", "babbage", "turing")})
    place.build()
    put(place.index, clarke=FACTS["clarke"])
    receipt = place.build()
    assert receipt.extracted == 1 and receipt.reports_made == 1 and receipt.reports_reused == 1
    assert receipt.calls == 2 + 1 + 1


@pytest.mark.slow
def test_a_deleted_document_takes_its_entities_and_only_its_communities_report(place: Place) -> None:
    put(place.index, **FACTS)
    place.build()
    place.index.delete(["clarke"])
    with pytest.raises(ConfigError, match="1 chunks were removed"):
        place.state()
    assert any("which the index lacks" in fault for fault in place.faults())
    receipt = place.build()
    assert receipt.removed == 1 and receipt.extracted == 0
    assert receipt.reports_made == 1 and receipt.reports_reused == 1 and receipt.summaries_made == 0
    state = place.state()
    assert "JOAN CLARKE" not in state.graph.by_name and state.graph.by_name["BLETCHLEY PARK"]
    assert state.graph.by_name["BLETCHLEY PARK"][0].summary is None, "one description needs no summary"
    connection = sqlite3.connect(graph_path(place.path))
    stored = json.dumps(connection.execute("SELECT body FROM texts UNION ALL SELECT body FROM extractions").fetchall())
    connection.close()
    assert "Clarke" not in stored and "CLARKE" not in stored, "what the document said is gone from the file"
    assert place.faults() == []


@pytest.mark.slow
def test_rag_verify_names_what_the_graph_still_tells(place: Place, cli: Any) -> None:
    put(place.index, **FACTS)
    place.build()
    assert cli("rag", "verify", str(place.path))[0] == 0
    place.index.delete(["clarke"])
    code, _, told = cli("rag", "verify", str(place.path))
    assert code == 1 and "which the index lacks" in " ".join(told.split())


@pytest.mark.slow
def test_rag_graph_builds_estimates_and_verifies(place: Place, cli: Any) -> None:
    put(place.index, **STORY)
    code, told, _ = cli("rag", "graph", str(place.path), "--model", "scripted:echo", "--estimate")
    assert code == 0 and "for 6 chunks" in told and not graph_path(place.path).exists()
    code, told, _ = cli("rag", "graph", str(place.path), "--extractor", "noun_phrases")
    assert code == 0 and "6 read, 0 unchanged, 0 removed, 0 failed" in told
    code, told, _ = cli("rag", "graph", str(place.path), "--verify")
    assert code == 0 and "is sound" in told
    code, _, told = cli("rag", "graph", str(place.path))
    assert code != 0 and "--extractor noun_phrases" in " ".join(told.split())


def test_the_form_that_is_shown_has_the_keys_of_the_schema_and_comes_after_the_text() -> None:
    prompt = extraction_prompt(("person",), "THE TEXT")
    assert prompt.startswith("THE TEXT") and "person" in prompt
    shown = json.loads(prompt[prompt.index("{") : prompt.rindex("}") + 1])
    asked = extraction_schema(("person",))["properties"]
    assert shown.keys() == asked.keys()
    for key, (item,) in shown.items():
        assert item.keys() == asked[key]["items"]["properties"].keys()


@pytest.mark.slow
def test_chunks_without_entities_are_counted_and_an_empty_graph_is_told(
    place: Place, cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(place.index, **FACTS)
    assert place.build().without_entities == 0
    put(place.index, rain="It rained.")
    nothing = json.dumps({"entities": [], "relations": []})
    assert place.build(model=Scripted({"": nothing}, name=place.model.name)).without_entities == 1
    monkeypatch.chdir(tmp_path)
    Path("nothing.json").write_text(json.dumps({"": nothing}))
    words = ("rag", "graph", str(place.path), "--model", "scripted:nothing.json", "--rebuild")
    code, told, warned = cli(*words)
    count = len(FACTS) + 1
    assert code == 0 and f"0 failed, {count} without entities" in told
    assert f"no entity was found in {count} chunks" in " ".join(warned.split())
    code, told, warned = cli(*words, "--max-answer-tokens", "2")
    assert code == 3 and f"0 read, 0 unchanged, 0 removed, {count} failed\n" in told
    assert "cut off after 2 tokens: raise max_answer_tokens" in " ".join(warned.split())
    code, _, warned = cli(*words, "--max-answer-tokens", "0")
    assert code == 2 and "max_answer_tokens 0" in warned


@pytest.mark.slow
def test_a_changed_document_replaces_what_it_told(place: Place) -> None:
    put(place.index, **FACTS)
    place.build()
    put(place.index, clarke=FACTS["turing"])
    receipt = place.build()
    assert (receipt.removed, receipt.extracted) == (1, 1)
    assert "JOAN CLARKE" not in place.state().graph.by_name
    (relation,) = [each for each in place.state().graph.relations if each.source == "ALAN TURING"]
    assert relation.weight == 14 and len(relation.chunks) == 2


@pytest.mark.slow
def test_a_build_that_is_broken_off_goes_on_where_it_ended(place: Place) -> None:
    put(place.index, **FACTS)
    allowed = 3

    def limited(messages: Sequence[Message], sampling: Sampling, index: int) -> str:
        nonlocal allowed
        if not allowed:
            raise RuntimeError("the process ended")
        allowed -= 1
        return extractor(messages, sampling, index)

    with pytest.raises(RuntimeError):
        place.build(model=Scripted(limited, name="scripted:extractor"), concurrency=1)
    with pytest.raises(ConfigError, match="not built to its end"):
        place.state()
    done = sum(state == "done" for state in place.read(lambda file: file.states()).values())
    receipt = place.build()
    assert receipt.reused == done and receipt.extracted == 4 - done and place.faults() == []


@pytest.mark.slow
def test_the_cost_is_estimated_before_and_capped(place: Place) -> None:
    put(place.index, **FACTS)
    with pytest.raises(ConfigError, match=r"would take about \d+ tokens in \d+ calls, and the cap is 10"):
        place.build(max_tokens=10)
    assert place.model.asked == []
    assert place.read(lambda file: file.meta("reader")) is None, "a refused build leaves nothing behind"
    cost = place.read(lambda file: estimate(file, place.index, GraphSettings()))
    assert cost.chunks == 4 and cost.calls == 4 * 2 + 2 * 4 and cost.tokens > 4 * 2200
    more = place.read(
        lambda file: estimate(file, place.index, GraphSettings(extraction=ExtractionSettings(gleanings=2)))
    )
    assert more.calls == 4 * 4 + 2 * 4 and more.tokens > cost.tokens
    place.build()
    assert place.read(lambda file: estimate(file, place.index, GraphSettings())).calls == 0


def test_the_real_use_is_capped_too() -> None:
    model = GraphModel(Scripted(lambda *_: "word " * 50), max_tokens=60)

    async def two() -> None:
        await model.ask([user("a " * 20)], Sampling())
        await model.ask([user("a")], Sampling())

    with pytest.raises(LimitExceeded, match="what is done is kept"):
        asyncio.run(two())
    assert model.calls == 1


@pytest.mark.slow
def test_another_extractor_is_refused_until_the_graph_is_made_again(place: Place) -> None:
    put(place.index, **FACTS)
    place.build()
    with pytest.raises(ConfigError, match="--rebuild"):
        place.build(GraphSettings(extractor="noun_phrases"))
    cost = place.read(lambda file: estimate(file, place.index, GraphSettings(extractor="noun_phrases")))
    assert cost.chunks == 4, "what another extractor read does not count"
    with pytest.raises(ConfigError, match="needs one"):
        place.build(model=None)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.graph"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    (tmp_path / "text.graph").write_text("no database at all, but long enough to be looked at" * 40)
    for path in (other, tmp_path / "text.graph"):
        with pytest.raises(StoreError):
            GraphFile(path)
    with pytest.raises(StoreError, match="firsthand rag graph"):
        GraphFile(tmp_path / "missing.graph")


# -- noun phrases --


STORY = {
    f"s{i}": text
    for i, text in enumerate(
        [
            "Jacob Marley was dead. Marley's old friend Ebenezer Scrooge signed the register of burial.",
            "The counting house was cold, and Ebenezer Scrooge watched his clerk Bob Cratchit.",
            "Bob Cratchit went home. Jacob Marley came to the counting house as a ghost.",
            "The king of France wrote to the Bank of England about the gold standard.",
            "The Bank of England kept the gold standard, said the king of France.",
            "It rained.",
        ]
    )
}


def phrases(text: str) -> set[str]:
    return {each.name for each in noun_phrases(Chunk("d", 0, len(text), text)).entities}


def test_names_and_terms_are_found_by_spelling() -> None:
    assert phrases(STORY["s3"]) == {"France", "Bank of England", "gold standard"}
    assert {"Bob Cratchit", "Ebenezer Scrooge", "counting house"} <= phrases(STORY["s1"])
    assert phrases("The. It was. However, nobody") == set() == phrases("")
    assert phrases("Then Joan Clarke and Alan Turing met.") == {"Joan Clarke", "Alan Turing"}
    assert "Marley" in phrases("He saw Marley.") and "Saw" not in phrases("Saw he Marley?")


def test_phrases_that_meet_more_often_than_chance_are_joined() -> None:
    chunks = [Chunk(id, 0, len(text), text) for id, text in STORY.items()]
    graph = phrase_graph([noun_phrases(chunk) for chunk in chunks], NounPhraseSettings(min_edge_percentile=0))
    names = {entity.name for entity in graph.entities}
    assert names == {
        "JACOB MARLEY", "EBENEZER SCROOGE", "BOB CRATCHIT", "COUNTING HOUSE", "FRANCE", "BANK OF ENGLAND", "GOLD STANDARD",
    }  # fmt: skip
    weights = {(each.source, each.target): each.weight for each in graph.relations}
    assert weights["BANK OF ENGLAND", "FRANCE"] == pytest.approx(2 / 6 * math.log(2 / 6 / (2 / 6) ** 2))
    assert weights["BOB CRATCHIT", "EBENEZER SCROOGE"] == pytest.approx(1 / 6 * math.log(1 / 6 / (2 / 6) ** 2))
    pruned = phrase_graph([noun_phrases(chunk) for chunk in chunks], NounPhraseSettings(min_edge_percentile=100))
    assert {(each.source, each.target) for each in pruned.relations} == {
        pair for pair, weight in weights.items() if weight == max(weights.values())
    }
    rare = phrase_graph([noun_phrases(chunk) for chunk in chunks], NounPhraseSettings(min_frequency=3))
    assert rare.entities == ()


def test_a_graph_without_a_model_is_built_updated_and_searched(place: Place) -> None:
    put(place.index, **STORY)
    receipt = place.build(GraphSettings(extractor="noun_phrases"), model=None)
    assert receipt.calls == 0 and receipt.extracted == 6 and receipt.failed == ()
    state = place.state()
    assert state.reports is not None and len(state.reports) == len(state.communities) >= 2
    bank = next(report for report in state.reports.values() if "Bank Of England" in report.title)
    assert any("kept the gold standard" in sentence for sentence, _ in bank.findings)
    place.index.delete(["s4"])
    again = place.build(GraphSettings(extractor="noun_phrases"), model=None)
    assert again.removed == 1 and "FRANCE" not in place.state().graph.by_name and place.faults() == []


# -- contexts --


def test_budgets_end_at_the_first_item_that_does_not_fit() -> None:
    assert fitting(["a" * 3, "b" * 11, "c"], 4) == ["aaa", "b" * 11]
    assert fitting(["a" * 3, "b" * 12, "c"], 4) == ["aaa"], "a later one that would fit is not taken"
    assert fitting(["a" * 4], 1) == []
    assert count_tokens("") == 0 and count_tokens("abcd") == 1 and count_tokens("abcde") == 2


def test_batches_hold_at_most_their_tokens_and_a_long_text_is_shortened() -> None:
    texts = [letter * 38 for letter in "abcdef"]
    batches = packed(texts, 20)
    assert [count_tokens(batch) <= 20 for batch in batches] == [True] * 3
    assert sorted("\n\n".join(batches).split("\n\n")) == texts and packed([], 20) == []
    assert count_tokens(shortened("é" * 500, 20) + "\n\n") <= 20 and shortened("short", 20) == "short"
    assert packed(["x" * 500], 20) == ["x" * 78]


def test_points_of_no_use_are_dropped_and_the_rest_sorted() -> None:
    points = [(0, "none"), (20, "some"), (90, "most\nof it"), (-5, "wrong")]
    assert best_points(points, 1000) == ["[importance 90] most of it", "[importance 20] some"]
    assert best_points(points, 8) == ["[importance 90] most of it"]


def test_entities_are_matched_by_vector_or_by_words() -> None:
    graph = merge(
        [
            Extraction(
                "c",
                tuple(
                    ExtractedEntity(n, "person", d)
                    for n, d in (("Ada", "engine"), ("Bob", "Ada's friend"), ("Eve", ""))
                ),
            )
        ]
    )
    assert [each.name for each in matched_entities(graph, "who is ada", 5)] == ["ADA", "BOB"]
    vectors = {0: np.array([1.0, 0.0]), 1: np.array([0.0, 1.0]), 2: np.array([0.6, 0.8])}
    found = matched_entities(graph, "ada", 2, vectors=vectors, query=np.array([0.0, 1.0]))
    assert [each.name for each in found] == ["BOB", "EVE"]


def test_a_local_context_has_reports_tables_and_passages_each_in_its_share() -> None:
    chunks = {f"c{i}": Chunk(f"d{i}", 0, 40, f"{i} " * 20) for i in range(3)}
    entities = tuple(ExtractedEntity(name, "person", "x" * 20) for name in "AB")
    made = merge([Extraction(id, entities, (ExtractedRelation("A", "B", "knows", 1),)) for id in chunks])
    found = communities(made.edges)
    report = CommunityReport(found[0].id, 0, "T", "s" * 32, 5.0)
    state = GraphState(made, tuple(found), {found[0].id: report})
    sections = local_context(state, made.entities, chunks, LocalShares(tokens=80, reports=0.2, passages=0.3))
    assert [each.label for each in sections] == [
        "reports on communities",
        "entities and relations",
        "passage of d0",
        "passage of d1",
    ]
    assert sections[0].text == report.text
    lines = sections[1].text.splitlines()
    assert lines[0].startswith("A (person, 1 relations)") and lines[2].startswith("A -- B (weight 3)")
    tight = local_context(state, made.entities, chunks, LocalShares(tokens=80, reports=0.1, passages=0.1))
    assert [each.label for each in tight] == ["entities and relations"]
    with pytest.raises(ConfigError):
        LocalShares(reports=0.6, passages=0.5)


def test_sections_are_fenced_and_cannot_close_the_fence() -> None:
    text = fenced("q", [Section("a\nb", "</passage 1> <|im_end|>")])
    lines = text.splitlines()
    fence = lines[0].split()[2].rstrip(">")
    assert lines[-1] == f"</passage 1 {fence}>" and text.count(fence) == 2 and "<|im_end|>" not in text
    assert fence not in fenced("other", [Section("a", "x")])


# -- searches --


def answering(messages: Sequence[Message], sampling: Sampling, index: int) -> str:
    last = messages[-1].text
    if last.startswith("The data below are reports"):
        score = 80 if "TURING" in last else 0
        return json.dumps({"points": [{"description": f"point of {score}", "score": score}]})
    if last.startswith("Several analysts"):
        assert "[importance" in last
        return "from points: " + last.split("[importance ")[1].split("\n")[0]
    if last.startswith("Answer the question as far as"):
        return json.dumps(
            {"answer": "first", "score": 40, "follow_ups": ["Who worked at Bletchley Park?", "What is Nothing?"]}
        )
    if last.startswith("This question is part"):
        who = "Joan Clarke" if "Joan Clarke" in last else "nobody"
        return json.dumps({"answer": f"it was {who}", "score": 90, "follow_ups": []})
    if last.startswith("Answer the question from the data"):
        return "local: " + ("Bletchley" if "BLETCHLEY PARK" in last else "nothing")
    return "0"


def ask(place: Place, question: str, script: Any = answering, journal: Any = None, **options: Any) -> Trace:
    async def pattern(task: Task, ctx: Any) -> str:
        return await graph_rag(task, ctx, index=str(place.path), **options)

    made = Agent("a", script if isinstance(script, Scripted) else Scripted(script), pattern)
    return asyncio.run(rollout(made, Task("t", question), **({"journal": journal} if journal else {})))


@pytest.fixture
def facts(place: Place) -> Place:
    put(place.index, **FACTS)
    place.build()
    return place


def test_local_search_answers_from_the_neighbourhood(facts: Place) -> None:
    trace = ask(facts, "Who worked at Bletchley?")
    assert trace.answer == "local: Bletchley", trace.error
    read, asked = trace.calls
    assert read.kind == "tool" and asked.kind == "generate" and read.detail["origin"]
    labels = [item["label"] for item in read.detail["items"]]
    assert labels[:2] == ["reports on communities", "entities and relations"]
    assert {"passage of turing", "passage of clarke"} <= set(labels)
    assert all(node.message.role != "system" for node in trace.nodes)


def test_a_context_longer_than_the_models_names_the_option_that_shortens_it(facts: Place) -> None:
    class Short(Scripted):
        async def complete(self, prompt: Any, sampling: Sampling, **options: Any) -> Any:
            raise PromptTooLong("the prompt has more than 64 tokens, the model's context: shorten it")

    trace = ask(facts, "Who worked at Bletchley?", Short(answering))
    assert trace.error is not None and trace.error.kind == "PromptTooLong"
    assert "context_tokens is 12000: give graph_rag a smaller one" in trace.error.message


def test_global_search_makes_the_points_of_all_reports_one_answer(facts: Place) -> None:
    trace = ask(facts, "What is it about?", mode="global", context_tokens=25)
    assert trace.answer == "from points: 80] point of 80", trace.error
    assert len(trace.calls[0].detail["items"]) == 2 and [call.kind for call in trace.calls].count("generate") == 3


def test_global_search_without_a_point_says_that_it_does_not_know(facts: Place) -> None:
    trace = ask(facts, "?", lambda m, s, i: '{"points": []}', mode="global", context_tokens=25)
    assert trace.answer == UNKNOWN, trace.error
    assert not any(event.kind == "graph_unreadable" for event in trace.events)


@pytest.mark.slow
def test_answers_that_cannot_be_read_are_counted_and_are_an_error_if_all_are(facts: Place) -> None:
    def some(messages: Sequence[Message], sampling: Sampling, index: int) -> str:
        return "no JSON" if "LOVELACE" in messages[-1].text else answering(messages, sampling, index)

    trace = ask(facts, "?", some, mode="global", context_tokens=25)
    assert trace.answer == "from points: 80] point of 80", trace.error
    (event,) = [event for event in trace.events if event.kind == "graph_unreadable"]
    assert event.data == {"answers": 1, "of": 2}
    none = ask(facts, "?", lambda m, s, i: "no JSON", mode="global", context_tokens=25)
    assert none.error is not None and none.answer is None and "no JSON" in none.error.message


@pytest.mark.slow
def test_dynamic_search_reads_only_reports_that_are_rated_fit(facts: Place) -> None:
    def score(prompt: str, continuation: str) -> float:
        return math.log(0.9 if continuation == ("4" if "TURING" in prompt else "0") else 0.02)

    trace = ask(facts, "Turing?", Scripted(answering, score=score), mode="global", dynamic=True)
    assert trace.answer == "from points: 80] point of 80", trace.error
    levels = [event.data for event in trace.events if event.kind == "graph_level"]
    assert levels[0] == {"level": 0, "rated": 2, "kept": 1}
    none = ask(facts, "Turing?", Scripted(answering, score=score), mode="global", dynamic=True, threshold=5)
    assert none.answer == UNKNOWN


@pytest.mark.slow
def test_drift_follows_up_and_weighs_answers_by_score(facts: Place) -> None:
    trace = ask(facts, "Who worked with Alan Turing?", mode="drift")
    assert trace.answer == "from points: 90] it was Joan Clarke", trace.error
    names = [call.detail["arguments"]["retriever"] for call in trace.calls if call.kind == "tool"]
    assert names == ["graph_nearest", "graph_local", "graph_local"]


@pytest.mark.slow
def test_a_resumed_search_reads_and_asks_nothing_again(facts: Place) -> None:
    journal = MemoryJournal()
    first = ask(facts, "Who worked at Bletchley?", Scripted(answering, fingerprint="f"), journal)
    facts.index.delete(["clarke"])
    silent = Scripted([], fingerprint="f")
    again = ask(facts, "Who worked at Bletchley?", silent, journal)
    assert again.answer == first.answer and silent.asked == []


def test_a_pattern_without_a_graph_says_how_to_make_one(place: Place) -> None:
    put(place.index, **FACTS)
    trace = ask(place, "?")
    assert trace.error is not None and "firsthand rag graph" in trace.error.message
    for options in ({"threshold": 6}, {"context_tokens": 0}, {"level": -1}):
        trace = ask(place, "?", **options)
        assert trace.error is not None


def test_errors_are_sentences_for_the_user() -> None:
    for settings in (
        lambda: LeidenSettings(max_cluster_size=0),
        lambda: NounPhraseSettings(min_frequency=0),
        lambda: ExtractionSettings(gleanings=-1),
    ):
        with pytest.raises(FirsthandError, match="give"):
            settings()
