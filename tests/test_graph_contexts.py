"""A graph made by hand as it is read back and checked, and the contexts and reports that are made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, StoreError
from firsthand.retrieval import corpus
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.graph.community_reports import CommunityReport, community_data, extracted_report
from firsthand.retrieval.graph.graph_context import (
    LocalShares,
    best_points,
    global_batches,
    local_context,
    matched_entities,
    packed,
    ranked_chunks,
    ranked_relations,
    roots,
    shortened,
)
from firsthand.retrieval.graph.graph_data import entity_line, relation_line
from firsthand.retrieval.graph.graph_file import GraphFile, graph_path
from firsthand.retrieval.graph.graph_model import count_tokens
from firsthand.retrieval.graph.graph_state import GraphState, load_state, summary_key, verify_graph
from firsthand.retrieval.graph.leiden import Community, at_level
from firsthand.retrieval.store.sqlite_index import SqliteIndex
from graph_handmade import COMMUNITIES, REPORTS, TEXTS, handmade, report_text


@pytest.fixture
def made(tmp_path: Path) -> Iterator[tuple[Path, SqliteIndex]]:
    path, index = handmade(tmp_path)
    yield path, index
    corpus.close_corpora()
    index.close()


@pytest.fixture
def state(made: tuple[Path, SqliteIndex]) -> GraphState:
    return read(made, load_state)


def read(made: tuple[Path, SqliteIndex], look: Callable[[GraphFile, SqliteIndex], Any]) -> Any:
    file = GraphFile(graph_path(made[0]))
    try:
        return look(file, made[1])
    finally:
        file.close()


# -- the graph --


def test_a_graph_is_read_back_with_its_communities_reports_and_what_was_left_out(state: GraphState) -> None:
    graph = state.graph
    assert [(each.name, each.type, each.descriptions) for each in graph.entities] == [
        ("ANN", "PERSON", ("first",)), ("BOB", "PERSON", ("a baker", "a baker of bread")), ("CID", "PERSON", ()),
        ("DORA", "PERSON", ("rich",)), ("EMIL", "GEO", ("far",)),
    ]  # fmt: skip
    assert [(each.source, each.target, each.weight, each.descriptions) for each in graph.relations] == [
        ("ANN", "BOB", 2.0, ("met",)), ("ANN", "CID", 1.0, ("paid",)), ("CID", "BOB", 3.0, ("met",)),
        ("DORA", "EMIL", 4.0, ("met",)),
    ]  # fmt: skip
    assert graph.orphans == 1 and dict(graph.degrees) == {"ANN": 2, "BOB": 2, "CID": 2, "DORA": 1, "EMIL": 1}
    assert state.unread == 0 and state.extractor == "model"
    assert [[each.id, each.level, each.parent, list(each.members)] for each in state.communities] == COMMUNITIES
    assert (
        state.reports is not None and {id: (each.title, each.rating) for id, each in state.reports.items()} == REPORTS
    )
    assert {id: each.level for id, each in state.reports.items()} == {0: 0, 1: 0, 2: 1, 4: 2}
    assert {id: each.text for id, each in state.reports.items()} == {id: report_text(id) for id in REPORTS}
    assert {name: [each.id for each in found] for name, found in state.communities_of.items()} == {
        "ANN": [0, 2], "BOB": [0, 2, 4], "CID": [0, 3], "DORA": [1], "EMIL": [1]
    }  # fmt: skip
    assert {of: [each.id for each in found] for of, found in state.children.items()} == {
        None: [0, 1],
        0: [2, 3],
        2: [4],
    }
    assert [each.id for each in roots(state)] == [0, 1] and roots(GraphState(graph, state.communities)) == []
    assert [[each.id for each in at_level(state.communities, level)] for level in range(4)] == [
        [0, 1], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4]
    ]  # fmt: skip


def test_a_graph_with_chunks_unread_failed_or_removed_says_so(tmp_path: Path) -> None:
    path, index = handmade(tmp_path, ("one", "two", "three"))
    ids = {document: index.chunks(document)[0].id for document in TEXTS}
    try:
        assert read((path, index), load_state).unread == 1
        assert read((path, index), verify_graph) == [
            f"the chunk {ids['four']} of four is not in the graph",
            "the community 3 has no report: the model's answer could not be read",
        ]
        index.delete(["three"])
        with pytest.raises(ConfigError, match=r"^1 chunks were removed from the index since the graph was built"):
            read((path, index), load_state)
        assert (
            read((path, index), verify_graph)[1]
            == f"the graph tells of the chunk {ids['three']}, which the index lacks"
        )
        file = GraphFile(graph_path(path))
        built = file.meta("built")
        file.forget([ids["three"]])
        assert built is not None
        file.put_meta(
            "built", built | {"communities": [[0, 0, None, ["ANN"]], *COMMUNITIES[1:2]], "reports": {"0": "gone"}}
        )
        assert verify_graph(file, index)[1:] == [
            "the community of DORA is left over: it has no relation",
            "the community of EMIL is left over: it has no relation",
            "BOB is in no community",
            "CID is in no community",
            "the report of community 0 is missing",
            "the community 1 has no report: the model's answer could not be read",
        ]
        assert load_state(file, index).reports == {}
        file.put_meta(
            "built", built | {"largest_component": True, "communities": [[0, 0, None, ["ANN"]]], "reports": {}}
        )
        assert not any("in no community" in each for each in verify_graph(file, index))
        file.put_meta("built", {"extractor": "model"})
        with pytest.raises(StoreError, match=r"is damaged \('author'\): delete it and build the graph again$"):
            load_state(file, index)
        file.close()
    finally:
        index.close()


def test_a_stored_summary_stands_for_several_descriptions_and_for_no_other_author_or_size(
    made: tuple[Path, SqliteIndex], state: GraphState
) -> None:
    bob, ann = state.graph.entities[1], state.graph.entities[0]
    file = GraphFile(graph_path(made[0]))
    for author, size, text in (("other", 500, "wrong author"), ("m", 499, "wrong size"), ("m", 500, "the baker")):
        file.put_text(summary_key(bob, author, size), text)
    file.put_text(summary_key(ann, "m", 500), "one description needs none")
    graph = load_state(file, made[1]).graph
    file.close()
    assert [each.summary for each in graph.entities] == [None, "the baker", None, None, None]
    assert graph.entities[1].description == "the baker" and bob.description == "a baker a baker of bread"
    assert entity_line(graph, graph.entities[1]) == "BOB (person, 2 relations): the baker"


# -- contexts --


def test_entities_are_matched_by_rare_words_and_three_times_by_name(state: GraphState) -> None:
    def names(question: str, k: int = 9) -> list[str]:
        return [each.name for each in matched_entities(state.graph, question, k)]

    assert names("who is BOB, the baker?") == ["BOB"] and names("is it far or rich") == ["DORA", "EMIL"]
    assert names("rich emil") == ["EMIL", "DORA"], "a name counts three times a description"
    assert names("first ann bob") == ["ANN", "BOB"] and names("first ann bob", 1) == ["ANN"]
    assert names("of an it") == [] and names("") == [], "words of two letters are none"
    assert names("dora cid") == ["CID", "DORA"], "of equal scores, the one with more relations first"
    vectors = {3: np.array([1.0, 0.0]), 0: np.array([0.6, 0.8]), 4: np.array([1.0, 0.0])}
    found = matched_entities(state.graph, "bob", 2, vectors=vectors, query=np.array([2.0, 0.0]))
    assert [each.name for each in found] == ["DORA", "EMIL"], "equal cosines in the order of the entities"
    assert [each.name for each in matched_entities(state.graph, "bob", 2, vectors={}, query=np.ones(2))] == ["BOB"]


def test_relations_inside_come_first_and_shared_ends_before_others(state: GraphState) -> None:
    graph = state.graph
    entities = {each.name: each for each in graph.entities}

    def pairs(names: str, outside: int) -> list[str]:
        found = ranked_relations(graph, [entities[name] for name in names.split()], outside)
        return [f"{each.source}-{each.target}" for each in found]

    assert pairs("ANN BOB", 9) == ["ANN-BOB", "CID-BOB", "ANN-CID"], "of equal ranks, the heavier one"
    assert pairs("ANN BOB", 0) == ["ANN-BOB"]
    assert pairs("ANN DORA", 1) == ["ANN-BOB", "ANN-CID"], "as many outside as there are matched entities"
    assert pairs("ANN DORA", 9) == ["ANN-BOB", "ANN-CID", "DORA-EMIL"], "of a higher rank first"
    assert pairs("ANN BOB CID DORA EMIL", 0) == ["CID-BOB", "ANN-BOB", "ANN-CID", "DORA-EMIL"]
    assert relation_line(graph.relations[2]) == "CID -- BOB (weight 3): met"


def test_chunks_come_in_the_entities_order_and_those_with_more_relations_first(
    made: tuple[Path, SqliteIndex], state: GraphState
) -> None:
    documents = {made[1].chunks(document)[0].id: document for document in TEXTS}
    entities = {each.name: each for each in state.graph.entities}
    assert [documents[id] for id in entities["ANN"].chunks] == ["four", "one"], "in the order of the documents' ids"
    found = ranked_chunks(state.graph, [entities["CID"], entities["ANN"]])
    assert [documents[id] for id in found] == ["four", "two", "one"]
    assert ranked_chunks(state.graph, []) == []


def test_a_local_context_fills_each_share_and_no_other(made: tuple[Path, SqliteIndex], state: GraphState) -> None:
    chunks = {chunk.id: chunk for document in TEXTS for chunk in made[1].chunks(document)}
    entities = {each.name: each for each in state.graph.entities}
    matched = [entities["BOB"], entities["DORA"], entities["ANN"]]
    lines = [entity_line(state.graph, each) for each in matched]
    lines += [relation_line(each) for each in ranked_relations(state.graph, matched, 10)]
    whole = local_context(state, matched, chunks, LocalShares(level=1))
    assert [(each.label, each.text) for each in whole] == [
        ("reports on communities", f"{report_text(2)}\n\n{report_text(1)}"),  # two of the matched, then one
        ("entities and relations", "\n".join(lines)),
        ("passage of one", TEXTS["one"]), ("passage of two", TEXTS["two"]), ("passage of three", TEXTS["three"]),
        ("passage of four", TEXTS["four"]),
    ]  # fmt: skip
    assert (
        local_context(state, matched, chunks, LocalShares(level=0))[0].text == f"{report_text(0)}\n\n{report_text(1)}"
    )
    assert local_context(state, matched, chunks, LocalShares(level=2))[0].text == "\n\n".join(
        report_text(id) for id in (1, 2, 4)
    ), "one each: the highest rating first"
    sizes = [count_tokens(report_text(2) + "\n"), sum(count_tokens(line + "\n") for line in lines[:4])]
    passages = count_tokens(TEXTS["one"] + "\n") + count_tokens(TEXTS["two"] + "\n")
    total = sum(sizes) + passages
    tight = LocalShares(tokens=total, reports=sizes[0] / total, passages=passages / total, level=1)
    cut = local_context(state, matched, chunks, tight)
    assert [each.label for each in cut] == [whole[0].label, whole[1].label, "passage of one", "passage of two"]
    assert cut[0].text == report_text(2) and cut[1].text == "\n".join(lines[:4])
    less = LocalShares(tokens=total, reports=(sizes[0] - 1) / total, passages=(passages - 1) / total, level=1)
    fewer = local_context(state, matched, chunks, less)
    assert [each.label for each in fewer] == ["entities and relations", "passage of one"]


def test_shares_are_refused_beyond_their_limits() -> None:
    LocalShares(tokens=1, entities=1, relations=0, level=0, reports=0.0, passages=1.0)
    for wrong in ({"tokens": 0}, {"entities": 0}, {"relations": -1}, {"level": -1}, {"reports": -0.1}, {"passages": -0.1},
                  {"reports": 0.51}):  # fmt: skip
        with pytest.raises(ConfigError, match=r"give tokens and entities from 1, the others from 0, and shares"):
            LocalShares(**wrong)


def test_batches_points_and_shortened_texts_fill_their_tokens_exactly(state: GraphState) -> None:
    assert sorted(global_batches(state, 0, 12_000)[0].split("\n\n")) == sorted([report_text(0), report_text(1)])
    assert sorted(global_batches(state, 1, 1 + count_tokens(report_text(1)))) == sorted(map(report_text, (1, 2)))
    assert len(global_batches(state, 2, 30)) == 2 and global_batches(GraphState(state.graph), 2) == []
    texts = [letter * 6 for letter in "abcdefgh"]  # two tokens each with the blank line
    assert [len(batch.split("\n\n")) for batch in packed(texts, 4)] == [2, 2, 2, 2]
    assert [len(batch.split("\n\n")) for batch in packed(texts, 5)] == [2, 2, 2, 2]
    assert [len(batch.split("\n\n")) for batch in packed(texts, 6)] == [3, 3, 2]
    assert packed(texts, 100, 1) != packed(texts, 100, 2) != packed(texts, 100) and packed(texts, 100) == packed(
        texts, 100, 86
    )
    assert shortened("x" * 38, 10) == "x" * 38 and shortened("x" * 39, 10) == "x" * 38
    assert shortened("é" * 20, 10) == "é" * 19 and shortened("xyz", 0) == ""
    points = [(1, "low"), (0, "none"), (9, " a  b\nc "), (9, "later")]
    assert best_points(points, 99) == ["[importance 9] a b c", "[importance 9] later", "[importance 1] low"]


# -- reports --


def test_a_community_is_told_by_its_relations_and_by_its_childrens_reports_where_they_do_not_fit(
    state: GraphState,
) -> None:
    graph = state.graph
    reports = state.reports or {}
    lines = {name: entity_line(graph, graph.by_name[name][0]) for name in graph.by_name}
    by_pair = {(each.source, each.target): relation_line(each) for each in graph.relations}
    whole = "\n".join(
        [lines["ANN"], lines["BOB"], by_pair["ANN", "BOB"], lines["CID"], by_pair["ANN", "CID"], by_pair["CID", "BOB"]]
    )
    root = state.communities[0]
    below = [(state.communities[4], reports[4]), (state.communities[2], reports[2])]
    size = sum(count_tokens(line + "\n") for line in whole.split("\n"))
    assert community_data(graph, root, below, size) == whole
    assert community_data(graph, root, [], size - 1) == "\n".join(whole.split("\n")[:-1])
    both = "\n".join([report_text(2), report_text(4), lines["CID"]])
    assert community_data(graph, root, below, size - 1) == both, "the largest child first"
    room = count_tokens(report_text(2) + "\n") + count_tokens(lines["CID"] + "\n")
    assert room < count_tokens(report_text(2) + "\n") + count_tokens(report_text(4) + "\n")
    assert community_data(graph, root, below, room) == f"{report_text(2)}\n{lines['CID']}"
    assert community_data(graph, root, below, room - 1) == report_text(2)
    assert community_data(graph, Community(9, 1, 0, ("ANN", "CID")), [], 99) == "\n".join(
        [lines["ANN"], lines["CID"], by_pair["ANN", "CID"]]
    )
    assert community_data(graph, state.communities[3], [], 99) == lines["CID"]


def test_a_report_without_a_model_is_the_sentences_that_name_the_most_members(state: GraphState) -> None:
    ids = state.graph.by_name["ANN"][0].chunks + state.graph.by_name["BOB"][0].chunks
    text = "Nobody came. Ann came! Was Ann with Bob?\nAnn  came! Bobby and annals. bob, ann and Cid"
    chunks = {id: Chunk("d", 0, len(text), text) for id in ids[:2]}
    community = Community(7, 1, 0, ("ANN", "BOB", "CID"))
    report = extracted_report(state.graph, community, chunks, 4, 1000)
    assert report == CommunityReport(
        7, 1, "Ann, Bob, Cid", "3 names and terms that occur together in 3 passages.", 7.5,
        (("bob, ann and Cid", ""), ("Was Ann with Bob?", ""), ("Ann came!", "")),
    )  # fmt: skip
    assert extracted_report(state.graph, community, chunks, 0, 5).findings == (("bob, ann and Cid", ""),)
    many = {ids[0]: Chunk("d", 0, 9, " ".join(f"Ann {n}." for n in range(14)))}
    assert [each[0] for each in extracted_report(state.graph, community, many, 3, 1000).findings] == [
        f"Ann {n}." for n in range(10)
    ]


def test_a_report_of_a_model_is_held_to_the_schema_and_its_rating_to_0_to_10() -> None:
    community = Community(3, 2, 1, ("A",))
    body = {"title": "T", "summary": "S", "rating": 11, "findings": [{"summary": "a", "explanation": "b"}, ["c", ""]]}
    report = CommunityReport.from_json(community, body)
    assert report == CommunityReport(3, 2, "T", "S", 10.0, (("a", "b"), ("c", "")))
    assert report.text == "# T\nS\n- a: b\n- c" and CommunityReport.from_json(community, report.to_json()) == report
    assert CommunityReport.from_json(community, body | {"rating": -1, "findings": []}).text == "# T\nS"
    assert CommunityReport.from_json(community, body | {"rating": -1}).rating == 0.0
    from firsthand.errors import ModelError

    for wrong in ({"rating": "high"}, {"findings": [["one"]]}, {"findings": [{"summary": "a"}]}, {"findings": 3}):
        with pytest.raises(ModelError, match=r"^the report is not of the schema: "):
            CommunityReport.from_json(community, body | wrong)
