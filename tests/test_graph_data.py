"""The data of a graph: merged entities and relations, noun phrases, communities, and the file that keeps them."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, StoreError
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.document import Document
from firsthand.retrieval.graph.graph_extraction import FailedChunk
from firsthand.retrieval.graph.graph_file import GraphFile, graph_path
from firsthand.retrieval.graph.graph_state import entity_key, entity_text, leaf_chunks, text_key
from firsthand.retrieval.graph.knowledge_graph import (
    Entity,
    ExtractedEntity,
    ExtractedRelation,
    Extraction,
    merge,
    normal_name,
)
from firsthand.retrieval.graph.leiden import Community, LeidenSettings, communities, components
from firsthand.retrieval.graph.noun_phrases import NounPhraseSettings, _percentile, noun_phrases, phrase_graph
from firsthand.retrieval.store.sqlite_index import open_index

pytest.importorskip("graspologic_native")


# -- merging --


def test_names_are_compared_without_case_marks_of_quotation_and_double_spaces() -> None:
    assert [normal_name(each) for each in (' "ann  lee" ', "e\u0301", "“Ann”", "o'neil", "'", " ")] == [
        "ANN LEE", "É", "ANN", "O'NEIL", "", ""
    ]  # fmt: skip
    made = merge(
        [
            Extraction("c2", (ExtractedEntity("bob", "person", " a "), ExtractedEntity("", "x", "")), ()),
            Extraction("c1", (ExtractedEntity("Bob", "PERSON", "a"), ExtractedEntity("Ann", "person", "  ")),
                       (ExtractedRelation("bob", "ann", "likes", 2), ExtractedRelation("Ann", "Bob", " ", 3),
                        ExtractedRelation("ann", "ann", "self", 1), ExtractedRelation("ann", "zed", "?", 1),
                        ExtractedRelation("", "ann", "?", 1))),
        ]
    )  # fmt: skip
    assert [(each.name, each.descriptions, each.chunks) for each in made.entities] == [
        ("ANN", (), ("c1",)), ("BOB", ("a",), ("c2", "c1"))
    ]  # fmt: skip
    assert [(each.source, each.target, each.descriptions, each.weight, each.chunks) for each in made.relations] == [
        ("ANN", "ANN", ("self",), 1, ("c1",)), ("BOB", "ANN", ("likes",), 5, ("c1",))
    ]  # fmt: skip
    assert made.orphans == 2 and made.edges == [("BOB", "ANN", 5)] and dict(made.degrees) == {"ANN": 3, "BOB": 1}
    assert [len(made.relations_of[name]) for name in ("ANN", "BOB")] == [2, 1] and made.rank(made.relations[1]) == 4
    loose = merge([Extraction("c", (), (ExtractedRelation("a", "b"), ExtractedRelation("a", "")))], keep_orphans=True)
    assert len(loose.relations) == 1 and loose.orphans == 1
    extraction = Extraction("c", (ExtractedEntity("a", "t", "d"),), (ExtractedRelation("a", "b", "d", 2.5),))
    assert extraction.to_json() == {"entities": [["a", "t", "d"]], "relations": [["a", "b", "d", 2.5]]}
    assert Extraction.from_json("c", extraction.to_json()) == extraction
    with pytest.raises(ValueError, match="is no number"):
        Extraction.from_json("c", {"entities": [], "relations": [["a", "b", "", "inf"]]})
    entity = Entity("A", "T", ("x", "y"), ())
    header = IndexHeader("e", "hash", 2, "whole", document_prefix="p: ")
    assert entity_text(entity) == "A: x y"
    assert entity_key(entity, header) == text_key("entity", "hash", "p: ", "A: x y")


def test_communities_are_of_edges_whose_weights_are_summed_and_positive() -> None:
    edges = [
        ("b", "a", 1.0),
        ("a", "b", 1.0),
        ("c", "c", 5.0),
        ("x", "y", 1.0),
        ("y", "z", 1.0),
        ("d", "e", 0.0),
        ("f", "a", -1.0),
    ]
    assert [each.members for each in communities(edges)] == [("a", "b"), ("x", "y", "z")]
    assert [each.members for each in communities(edges, LeidenSettings(largest_component=True))] == [("x", "y", "z")]
    assert communities([]) == [] == communities([], LeidenSettings(largest_component=True))
    cliques = [(a, b, 4.0) for clique in ("abc", "xyz") for a in clique for b in clique if a < b]
    both = [("m", "a", 1.5), ("a", "m", 1.25), ("m", "x", 2.0)]  # of m: 2.75 to the first, 2 to the other
    for order in (both, both[::-1], both[1:2] + both[:1] + both[2:]):
        found = communities([*cliques, *order])
        assert [each.members for each in found] == [("a", "b", "c", "m"), ("x", "y", "z")]
        assert [(each.id, each.level, each.parent) for each in found] == [(0, 0, None), (1, 0, None)]
        assert found == communities([(b, a, weight) for a, b, weight in [*order, *reversed(cliques)]])
    parts = communities(cliques, LeidenSettings(largest_component=True))  # of two as large, the last by its names
    assert [each.members for each in parts] == [("x", "y", "z")]
    assert sorted(map(sorted, components([("a", "b"), ("c", "d"), ("b", "e")]))) == [["a", "b", "e"], ["c", "d"]]
    LeidenSettings(max_cluster_size=1, iterations=1, resolution=0.1, randomness=0.1)
    for wrong in ({"max_cluster_size": 0}, {"iterations": 0}, {"resolution": 0}, {"randomness": 0}):
        with pytest.raises(ConfigError, match="give the first two from 1, the others above 0"):
            LeidenSettings(**wrong)  # type: ignore[arg-type]


def test_each_setting_of_the_division_is_the_librarys() -> None:
    import graspologic_native

    rng = random.Random(10)
    ends = [rng.sample(range(30), 2) for _ in range(70)]
    edges = [(f"n{a:02}", f"n{b:02}", float(rng.randint(1, 5))) for a, b in ends]
    summed: dict[tuple[str, str], float] = {}
    for a, b, weight in edges:
        summed[min(a, b), max(a, b)] = summed.get((min(a, b), max(a, b)), 0.0) + weight
    given = [(a, b, weight) for (a, b), weight in sorted(summed.items())]
    found = []
    for changed in (
        {},
        {"max_cluster_size": 4},
        {"resolution": 2.0},
        {"randomness": 1.0},
        {"iterations": 5},
        {"seed": 7},
    ):
        options: dict[str, Any] = {"max_cluster_size": 6, **changed}
        usual = {"resolution": 1.0, "randomness": 0.001, "iterations": 1, "seed": 0xDEADBEEF}
        rows = graspologic_native.hierarchical_leiden(
            given, starting_communities=None, use_modularity=True, **{**usual, **options}
        )
        expected: dict[int, tuple[int, int | None, list[str]]] = {}
        for row in rows:
            expected.setdefault(row.cluster, (row.level, row.parent_cluster, []))[2].append(row.node)
        made = communities(edges, LeidenSettings(**options))
        assert made == [
            Community(id, level, parent, tuple(sorted(names)))
            for id, (level, parent, names) in sorted(expected.items())
        ]
        found.append([each.members for each in made])
    assert all(other != found[0] for other in found[1:]), "each changes something"


def test_phrases_are_runs_of_capitals_and_of_other_words_between_stop_words() -> None:
    def phrases(text: str, **settings: Any) -> list[tuple[str, str]]:
        found = noun_phrases(Chunk("d", 0, len(text), text), NounPhraseSettings(**settings))
        return sorted((each.name, each.type) for each in found.entities)

    assert phrases("the Duke of York and Bank of the West met. Bank robbers") == [
        ("Bank", "name"), ("Duke of York", "name"), ("West", "name")
    ], "one small word may stand between two capitals, and none at the end"  # fmt: skip
    joined = [
        "Sword of Damocles",
        "Rise the Sun",
        "Bois de Boulogne",
        "Sierra la Grande",
        "Otto von Guericke",
        "Jan van Eyck",
    ]
    for name in joined:
        assert phrases(f"we saw {name}") == [(name, "name")], "each small word of names joins"
    assert phrases("Yesterday, Rome fell; Rome rose.") == [("Rome", "name")], "a capital at the beginning is no name"
    assert phrases("steam engine design was very costly work for old steam engine design teams") == [
        ("steam engine design", "term")
    ]
    assert phrases("red clay and two red bricks", max_words=2) == [("red bricks", "term"), ("red clay", "term")]
    assert phrases("badly red clay") == [] and phrases("clay") == []
    counted = noun_phrases(Chunk("d", 0, 1, "with Bob, with Ann, with Bob"))
    assert [each.name for each in counted.entities] == ["Bob", "Ann"], "the most frequent first"
    NounPhraseSettings(1, 0, 2), NounPhraseSettings(1, 100, 2)
    for wrong in ((0, 40, 3), (1, -1, 3), (1, 101, 3), (1, 40, 1)):
        with pytest.raises(ConfigError, match="give from 1, from 0 to 100, and from 2"):
            NounPhraseSettings(*wrong)
    assert [_percentile([1.0, 2.0, 4.0], p) for p in (0, 25, 50, 75, 100)] == [1, 1.5, 2, 3, 4] and _percentile(
        [], 50
    ) == 0
    assert _percentile([7.0], 100) == 7


def test_edges_of_phrases_weigh_what_chance_does_not_explain() -> None:
    import math

    held = {"c1": "AB", "c2": "AB", "c3": "AC", "c4": "C", "c5": "D"}
    made = [Extraction(id, tuple(ExtractedEntity(name, "name") for name in names)) for id, names in held.items()]
    graph = phrase_graph(made, NounPhraseSettings(min_frequency=2, min_edge_percentile=0))
    assert [each.name for each in graph.entities] == ["A", "B", "C"]
    [only] = graph.relations  # A and C meet in 1 of 5, less than 3/5 * 2/5
    assert (only.source, only.target, only.chunks) == ("A", "B", ("c1", "c2"))
    assert only.weight == pytest.approx(2 / 5 * math.log((2 / 5) / (3 / 5 * 2 / 5)))
    rare = phrase_graph(made, NounPhraseSettings(min_frequency=1, min_edge_percentile=0))
    assert {each.name for each in rare.entities} == set("ABCD")
    more = [
        Extraction(f"e{n}", tuple(ExtractedEntity(x, "name") for x in names))
        for n, names in enumerate(("AB", "AB", "CD", "E", "F"))
    ]
    kept = phrase_graph(more, NounPhraseSettings(min_frequency=1, min_edge_percentile=100))
    assert [(each.source, each.target) for each in kept.relations] == [("A", "B")], "an edge at the percentile stays"
    assert len(phrase_graph(more, NounPhraseSettings(min_frequency=1, min_edge_percentile=0)).relations) == 2


# -- the file --


@pytest.mark.slow
def test_a_graph_file_keeps_extractions_in_order_and_drops_what_is_not_named(tmp_path: Path) -> None:
    file = GraphFile(tmp_path / "x.graph", create=True)
    a2, a1, b = Chunk("a", 5, 6, "x"), Chunk("a", 1, 2, "y"), Chunk("b", 0, 1, "z")
    for chunk, name in ((b, "B"), (a2, "A2"), (a1, "A1")):
        file.keep(chunk, Extraction(chunk.id, (ExtractedEntity(name, "t"),)))
    assert [each.entities[0].name for each in file.extractions()] == ["A1", "A2", "B"]
    assert [each.chunk for each in file.extractions()] == [a1.id, a2.id, b.id]
    file.keep(a1, FailedChunk(a1.id, "a", "no JSON"))
    file.keep(b, FailedChunk(b.id, "b", "cut"))
    assert file.states() == {b.id: "failed", a2.id: "done", a1.id: "failed"}
    assert file.failed() == [FailedChunk(a1.id, "a", "no JSON"), FailedChunk(b.id, "b", "cut")]
    file.forget([a1.id, "unknown"])
    assert sorted(file.states()) == sorted([b.id, a2.id])
    with pytest.raises(KeyError), file._transaction():
        file._execute("DELETE FROM extractions")
        raise KeyError
    assert len(file.states()) == 2 and not file._connection.in_transaction
    keys = [f"k{n}" for n in range(1203)]
    for key in keys[:3]:
        file.put_text(key, f"text of {key}")
    file.put_text("k1", "again")
    assert (
        file.texts(["k1", "k2", "missing", *keys[3:]]) == {"k1": "again", "k2": "text of k2"} and file.texts([]) == {}
    )
    assert file.texts([*keys[3:], "k0"]) == {"k0": "text of k0"}
    file.put_vectors({"k0": np.array([1.5, -2.0]), "k1": np.array([3.0, 4.0])})  # type: ignore[dict-item]
    found = file.vectors(["k0", "k9"])
    assert {key: value.tolist() for key, value in found.items()} == {"k0": [1.5, -2.0]} and found[
        "k0"
    ].dtype == np.float32
    file.drop_others(["k2"], ["k1"])
    assert sorted(file.texts(keys)) == ["k2"] and sorted(file.vectors(keys)) == ["k1"]
    assert file.meta("none") is None
    file.put_meta("m", {"b": "é"})
    assert file.meta("m") == {"b": "é"} and file._rows("SELECT body FROM meta") == [('{"b": "\\u00e9"}',)]
    file._execute("UPDATE meta SET body = 'x'")
    with pytest.raises(StoreError) as raised:
        file.meta("m")
    told = "m cannot be read: Expecting value: line 1 column 1 (char 0)"
    assert str(raised.value) == f"{file.path} cannot be used: {told}. Delete it and build the graph again"
    file._execute("UPDATE extractions SET body = '{}' WHERE state = 'done'")
    with pytest.raises(StoreError, match="an extraction cannot be read: 'entities'"):
        file.extractions()
    said = r"x\.graph is being written by .*: wait, then try again"
    with file.writing(), pytest.raises(StoreError, match=said), GraphFile(file.path).writing():
        pass
    file.close()


def test_files_that_are_no_graph_are_told_from_those_of_another_version(tmp_path: Path) -> None:
    path = tmp_path / "x.graph"
    assert graph_path(tmp_path / "x") == path
    with pytest.raises(StoreError, match=r"^no graph at .*: make one with `firsthand rag graph INDEX`$"):
        GraphFile(path)
    GraphFile(path, create=True).close()
    for change, said in (
        ("PRAGMA user_version = 2", "has schema version 2, and this firsthand knows 1"),
        ("PRAGMA user_version = 0", "has schema version 0, and this firsthand knows 1"),
        ("CREATE TABLE more (x)", "has a table, trigger or view that firsthand did not make"),
        ("PRAGMA application_id = 7", "is not the file of a graph: delete it and build the graph again"),
    ):
        base = sqlite3.connect(path)
        base.execute("PRAGMA user_version = 1")
        base.execute(change)
        base.commit()
        base.close()
        for create in (False, True):
            with pytest.raises(StoreError, match=said):
                GraphFile(path, create=create)


def test_leaves_are_the_chunks_that_no_other_is_part_of() -> None:
    index = open_index(":memory:", IndexHeader("", "", 0, "whole"))
    whole = Chunk("b", 0, 4, "abcd")
    parts = [Chunk("b", 2, 4, "cd", parent=whole.id), Chunk("b", 0, 2, "ab", parent=whole.id)]
    index.put(
        [
            IndexedDocument(Document("b", "abcd"), [whole, *parts], None),
            IndexedDocument(Document("a", "x"), [Chunk("a", 0, 1, "x")], None),
        ]
    )
    assert [(each.document, each.text) for each in leaf_chunks(index)] == [("a", "x"), ("b", "ab"), ("b", "cd")]
