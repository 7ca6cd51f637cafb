"""Contexts, merged names and divided graphs at their ties: equal ranks, names that are nothing, missing vectors."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ModelError
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.graph.community_reports import community_data, extracted_report
from firsthand.retrieval.graph.graph_context import (
    LocalShares,
    _ranked_reports,
    local_context,
    matched_entities,
    ranked_chunks,
    ranked_relations,
)
from firsthand.retrieval.graph.graph_data import entity_line, relation_line
from firsthand.retrieval.graph.graph_extraction import joined
from firsthand.retrieval.graph.graph_model import count_tokens
from firsthand.retrieval.graph.graph_state import GraphState
from firsthand.retrieval.graph.knowledge_graph import (
    Entity,
    ExtractedEntity,
    ExtractedRelation,
    Extraction,
    Relation,
    merge,
)
from firsthand.retrieval.graph.knowledge_graph import KnowledgeGraph as Graph
from firsthand.retrieval.graph.leiden import Community, LeidenSettings, communities
from firsthand.retrieval.graph.noun_phrases import NounPhraseSettings, noun_phrases, phrase_graph

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


def test_entities_match_by_vectors_where_both_are_there_and_by_words_of_three_letters_else() -> None:
    entities = tuple(
        Entity(name, "T", (text,), ()) for name, text in (("OAK", "a tree"), ("ELM", "an oak is no elm"), ("AB", "oak"))
    )
    graph = Graph(entities, (Relation("ELM", "AB", (), 1.0, ()),))
    query = np.array([0.6, 0.8], np.float32)
    vectors = {2: np.array([0, 1], np.float32), 0: np.array([1, 0], np.float32), 1: np.array([0, 1], np.float32)}

    def names(question: str, k: int = 9, **more: Any) -> list[str]:
        return [each.name for each in matched_entities(graph, question, k, **more)]

    assert names("oak", vectors=vectors, query=query) == ["ELM", "AB", "OAK"]
    assert names("oak", 1, vectors={0: vectors[0]}, query=query) == ["OAK"]
    for more in (
        {"vectors": {}, "query": query},
        {"vectors": vectors},
        {"vectors": None, "query": query},
        {"query": None},
    ):
        assert names("OAK ab is", **more) == ["OAK", "ELM", "AB"], "a name counts thrice; then the one with a relation"
    assert names("ab is an") == [] and names("tree", 0) == []


def test_relations_and_passages_of_equal_rank_come_by_weight_and_in_the_order_of_their_entity() -> None:
    relations = tuple(
        Relation(source, target, ("d",), weight, chunks)
        for source, target, weight, chunks in (
            ("A", "P", 1.0, ("k2",)), ("A", "Q", 3.0, ("k3",)), ("A", "R", 2.0, ("k3",)), ("B", "A", 1.0, ("k9",)),
            ("B", "C", 5.0, ()),
        )
    )  # fmt: skip
    entities = tuple(
        Entity(name, kind, (), chunks)
        for name, kind, chunks in (
            ("A", "t", ("k1", "k2", "k3", "k4")), ("A", "u", ("k4", "k0")), ("B", "t", ()), ("C", "t", ()), ("P", "t", ()),
            ("Q", "t", ()), ("R", "t", ()),
        )
    )  # fmt: skip
    graph = Graph(entities, relations)
    both = [*graph.by_name["A"]]
    assert [each.target for each in ranked_relations(graph, both, 1)] == ["A"], "two entities of one name lead out once"
    assert [(each.source, each.target) for each in ranked_relations(graph, both, 9)] == [
        ("B", "A"), ("A", "Q"), ("A", "R"), ("A", "P")
    ]  # fmt: skip
    inside = ranked_relations(graph, [*both, *graph.by_name["B"], *graph.by_name["C"], *graph.by_name["Q"]], 0)
    assert [(each.source, each.target) for each in inside] == [("B", "A"), ("A", "Q"), ("B", "C")]
    assert ranked_chunks(graph, both) == ["k3", "k2", "k1", "k4", "k0"]
    chunks = {id: Chunk(f"doc {id}", 0, 0, "x" * 7, "y" * 7) for id in ("k0", "k1", "k2", "k3", "k4")}
    size = count_tokens("y" * 7 + "\n" + "x" * 7 + "\n")
    made = local_context(GraphState(graph), both, chunks, LocalShares(tokens=2 * size, reports=0, passages=1))
    assert [(each.label, each.text) for each in made] == [
        (f"passage of doc {id}", "y" * 7 + "\n" + "x" * 7) for id in ("k3", "k2")
    ]
    tree = (Community(0, 0, None, ("A", "B")), Community(1, 2, 0, ("A",)), Community(2, 0, None, ("C",)))
    reports = {id: SimpleNamespace(community=id, rating=rating) for id, rating in ((0, 5.0), (1, 9.0), (2, 5.0))}
    state = GraphState(graph, tree, reports)  # type: ignore[arg-type]

    def ranked(names: str, level: int) -> list[int]:
        return [each.community for each in _ranked_reports(state, [graph.by_name[name][0] for name in names], level)]

    assert (
        ranked("CAB", 1) == [0, 2] and ranked("CA", 1) == [0, 2] and ranked("CA", 2) == [1, 2] and ranked("P", 2) == []
    )


def test_a_community_is_told_by_larger_children_first_and_equal_ones_by_id() -> None:
    tree = [Community(7, 1, 0, ("A+B",)), Community(5, 1, 0, ("D",)), Community(6, 1, 0, ("C", "D"))]
    root = Community(0, 0, None, ("A+B", "C", "D"))
    below: Any = [(each, SimpleNamespace(text=f"report {each.id}")) for each in tree]
    lines = [entity_line(GRAPH, each) for each in GRAPH.entities]
    told = community_data(GRAPH, root, below, 12)
    assert told == "report 6\nreport 5\nreport 7"
    first, second = map(relation_line, GRAPH.relations)
    assert community_data(GRAPH, root, below, 99) == "\n".join([lines[0], lines[1], first, lines[2], second])
    one = extracted_report(GRAPH, Community(4, 2, 0, ("D", "A+B")), {}, 4, 99)
    assert (one.community, one.level, one.title, one.rating, one.findings) == (4, 2, "A+B, D", 5.0, ())


# -- merging and dividing --


def test_names_that_are_nothing_are_left_out_and_a_relation_to_itself_counts_once() -> None:
    extractions = [
        Extraction("c1", (ExtractedEntity(" 'ann' ", "person", " d "), ExtractedEntity('""', "x")),
                   (ExtractedRelation("Ann", "ann", "self", 2.0), ExtractedRelation("''", "Ann", "?", 1.0))),
        Extraction("c2", (ExtractedEntity("ANN", "Person", "d"), ExtractedEntity("Bob", "x", " ")),
                   (ExtractedRelation("Bob", "Ann", "", 0.5), ExtractedRelation("ann", "bob", "b", 1.0),
                    ExtractedRelation("Zoe", "Bob", "z", 4.0))),
    ]  # fmt: skip
    graph = merge(extractions)
    assert graph.entities == (Entity("ANN", "PERSON", ("d",), ("c1", "c2")), Entity("BOB", "X", (), ("c2",)))
    assert graph.relations == (
        Relation("ANN", "ANN", ("self",), 2.0, ("c1",)), Relation("BOB", "ANN", ("b",), 1.5, ("c2",))
    ) and graph.orphans == 2  # fmt: skip
    assert graph.edges == [("BOB", "ANN", 1.5)] and dict(graph.degrees) == {"ANN": 3, "BOB": 1}
    assert [len(graph.relations_of[name]) for name in ("ANN", "BOB")] == [2, 1]
    kept = merge(extractions, keep_orphans=True)
    assert kept.orphans == 1 and [(each.source, each.target) for each in kept.relations][-1] == ("ZOE", "BOB")
    for weight in (float("inf"), float("nan")):
        with pytest.raises(ValueError, match=r"^the weight of a relation is no number$"):
            Extraction.from_json("c", {"entities": [], "relations": [["a", "b", "", weight]]})


def test_communities_are_of_positive_edges_and_the_largest_component_of_equal_ones_is_the_last_by_name() -> None:
    pytest.importorskip("graspologic_native")
    edges = [("x", "y", 1.0), ("a", "b", 1.0), ("y", "z", 0.0), ("c", "c", 5.0), ("m", "n", -1.0), ("b", "a", -2.0)]
    assert [each.members for each in communities(edges)] == [("a", "b"), ("x", "y")]
    assert [each.members for each in communities(edges, LeidenSettings(largest_component=True))] == [("x", "y")]
    assert communities([("a", "b", 0.0)]) == communities([], LeidenSettings(largest_component=True)) == []


def test_answers_of_a_model_are_held_to_types_and_strengths_and_the_first_of_equals_stays() -> None:
    def answer(*entities: Any, relations: Any = ()) -> dict[str, Any]:
        return {
            "entities": [dict(zip(("name", "type", "description"), each, strict=True)) for each in entities],
            "relations": [
                dict(zip(("source", "target", "description", "strength"), each, strict=True)) for each in relations
            ],
        }

    made = joined("c", [
        answer(("A", "t", "1"), ("A", "u", "2"), (" ", "t", "3"), ("B", "no", "4"),
               relations=[("A", "B", "r", 0), ("A", "B", "s", "11")]),
        answer(("A", "t", "later"), ("C", "u", ""), relations=[("A", "B", "r", 5), ("B", "A", "r", 2.5)]),
    ], ("t", "u"))  # fmt: skip
    assert made.entities == (
        ExtractedEntity("A", "t", "1"),
        ExtractedEntity("A", "u", "2"),
        ExtractedEntity("C", "u", ""),
    )
    assert made.relations == (
        ExtractedRelation("A", "B", "r", 1.0), ExtractedRelation("A", "B", "s", 10.0), ExtractedRelation("B", "A", "r", 2.5)
    )  # fmt: skip
    for wrong, told in (
        ({"entities": []}, "KeyError: 'relations'"), (answer((1, "t", "d")), "TypeError: name is 1"),
        (answer(relations=[("a", "b", "c", float("nan"))]), "ValueError: strength is no number"),
        (answer(relations=[("a", "b", None, 1)]), "TypeError: description is None"),
        (answer(relations=[("a", "b", "c", 10**400)]), "OverflowError: int too large to convert to float"),
    ):  # fmt: skip
        with pytest.raises(ModelError) as error:
            joined("c", [wrong], ("t",))
        assert str(error.value) == f"the answer is not of the schema: {told}"


def test_a_phrase_is_one_name_whatever_its_kinds_and_is_looked_for_in_the_heading_too() -> None:
    def phrases(text: str, heading: str = "", **settings: Any) -> list[tuple[str, str]]:
        found = noun_phrases(Chunk("d", 0, len(text), text, heading), NounPhraseSettings(**settings))
        return [(each.name, each.type) for each in found.entities]

    assert phrases("x, Cattle met. Then (Cattle) and: Oxen; “Hens” of Oslo") == [("Cattle", "name"), ("Oslo", "name")]
    assert phrases("of red clay", "Red Mill > About Ann") == [
        ("Ann", "name"),
        ("Red Mill", "name"),
        ("red clay", "term"),
    ]
    assert phrases("we met O'Neil and Jean-Luc’s of von Trapp\n\nBerg") == [
        ("Jean-Luc’s", "name"), ("O'Neil", "name"), ("Trapp", "name")
    ]  # fmt: skip
    assert phrases("no red clay pots, one red clay pot", max_words=3) == [
        ("red clay pot", "term"),
        ("red clay pots", "term"),
    ]
    assert phrases("") == [] == phrases("A", "The") == phrases("Cattle graze") == phrases("Cattle. Oxen! graze")
    made = [
        Extraction(id, tuple(ExtractedEntity(name, kind) for name, kind in names))
        for id, names in (
            ("c1", [("Red Clay", "name"), ("Ann", "name")]), ("c2", [("red clay", "term"), ("Ann", "name")]),
            ("c3", [("Bob", "name")]), ("c4", []),
        )
    ]  # fmt: skip
    graph = phrase_graph(made, NounPhraseSettings(min_frequency=2, min_edge_percentile=0))
    assert [(each.name, each.type, each.chunks) for each in graph.entities] == [
        ("ANN", "NAME", ("c1", "c2")), ("RED CLAY", "NAME", ("c1",)), ("RED CLAY", "TERM", ("c2",))
    ]  # fmt: skip
    [relation] = graph.relations  # both in 2 of 4 chunks, and always together
    assert (relation.source, relation.target, relation.chunks) == ("ANN", "RED CLAY", ("c1", "c2"))
    assert relation.weight == pytest.approx(0.5 * np.log(0.5 / 0.25)) and graph.orphans == 0
