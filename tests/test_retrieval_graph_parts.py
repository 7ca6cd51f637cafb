"""Phrases, communities, contexts and prompts of a graph by hand; and blocks of Markdown at their edges."""

from __future__ import annotations

import math
import random

import pytest

from firsthand.errors import ConfigError
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunking.markdown_chunks import MarkdownBlock, blocks, markdown, sections
from firsthand.retrieval.document import Document
from firsthand.retrieval.graph import graph_prompts as prompts
from firsthand.retrieval.graph.community_reports import CommunityReport
from firsthand.retrieval.graph.graph_context import (
    LocalShares,
    _ranked_reports,
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
from firsthand.retrieval.graph.graph_data import Section, entity_line, relation_line
from firsthand.retrieval.graph.graph_model import count_tokens
from firsthand.retrieval.graph.graph_state import GraphState
from firsthand.retrieval.graph.knowledge_graph import Entity, ExtractedEntity, Extraction, KnowledgeGraph, Relation
from firsthand.retrieval.graph.leiden import Community, LeidenSettings, at_level, communities, components
from firsthand.retrieval.graph.noun_phrases import (
    NAME,
    TERM,
    NounPhraseSettings,
    _percentile,
    _phrases_of,
    noun_phrases,
    phrase_graph,
)

# -- phrases --


def test_phrases_are_runs_of_capitals_and_of_plain_words_between_stop_words() -> None:
    assert _phrases_of("Bank of North saw deep mill wheels near Ann", False, 3) == [
        ("Bank of North", NAME), ("deep mill wheels", TERM), ("Ann", NAME),
    ]  # fmt: skip
    assert _phrases_of("Cattle graze there", True, 3) == [] and _phrases_of("Cattle graze", False, 3) == [
        ("Cattle", NAME)
    ]
    assert _phrases_of("Ann Lee graze", True, 3) == [("Ann Lee", NAME)] and _phrases_of("saw The mill", False, 3) == []
    assert _phrases_of("a deep dark mill wheel and badly kept wheels", False, 3) == []
    assert _phrases_of("a deep dark mill wheel", False, 4) == [("deep dark mill wheel", TERM)]
    assert _phrases_of("Bank of", False, 3) == [("Bank", NAME)] and _phrases_of("Bank of england", False, 3) == [
        ("Bank", NAME)
    ]
    found = noun_phrases(Chunk("d", 0, 0, "we met Bob. Cattle ate Bob, Ann: Cid"))
    assert found.entities == (ExtractedEntity("Bob", NAME), ExtractedEntity("Ann", NAME)) and found.relations == ()
    spelled = [f"Aa Z{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(201)]
    many = noun_phrases(Chunk("d", 0, 0, ", ".join([*spelled, spelled[-1]])))
    assert [each.name for each in many.entities] == [spelled[-1], *spelled[:199]], "the 200 most frequent, then by name"


def test_phrases_that_meet_more_often_than_by_chance_are_weighted_and_the_lightest_left_out() -> None:
    met = {"c1": "ab", "c2": "ab", "c3": "acd", "c4": "c", "c5": "bc", "c6": "e", "c7": "d"}
    found = [Extraction(id, tuple(ExtractedEntity(name, "name") for name in names)) for id, names in met.items()]

    def weight(together: int, one: int, other: int) -> float:
        return together / 7 * math.log(together / 7 / (one / 7 * other / 7))

    # a in 3 chunks, b in 3, c in 3, d in 2, e in 1: too few
    weights = {("A", "B"): weight(2, 3, 3), ("A", "D"): weight(1, 3, 2), ("C", "D"): weight(1, 3, 2)}
    assert weight(1, 3, 3) < 0 < min(weights.values())  # A and C, B and C meet less often than by chance
    whole = phrase_graph(found, NounPhraseSettings(2, 0.0))
    assert [(each.source, each.target) for each in whole.relations] == list(weights)
    assert [each.weight for each in whole.relations] == pytest.approx(list(weights.values()))
    assert [each.chunks for each in whole.relations] == [("c1", "c2"), ("c3",), ("c3",)]
    assert [each.name for each in whole.entities] == ["A", "B", "C", "D"] and whole.relations[0].descriptions == ()
    few = phrase_graph(found, NounPhraseSettings(2, 100.0))
    assert [(each.source, each.target) for each in few.relations] == [("A", "B")]
    assert {each.name for each in phrase_graph(found, NounPhraseSettings(1, 0.0)).entities} == set("ABCDE")
    assert [each.name for each in phrase_graph(found, NounPhraseSettings(3, 0.0)).entities] == ["A", "B", "C"]
    assert phrase_graph([]).relations == () and _percentile([], 40) == 0.0
    assert [_percentile([1.0, 2.0, 4.0], percent) for percent in (0, 25, 50, 75, 100)] == [1, 1.5, 2, 3, 4]
    for bad in ((0, 40.0, 3), (1, -0.1, 3), (1, 100.1, 3), (1, 40.0, 1)):
        with pytest.raises(ConfigError, match=r"give from 1, from 0 to 100, and from 2$"):
            NounPhraseSettings(*bad)  # type: ignore[arg-type]


# -- communities --


def test_components_are_connected_and_a_level_has_each_name_once() -> None:
    assert components([("a", "b"), ("c", "d"), ("e", "b"), ("d", "f"), ("g", "g")]) == [
        frozenset("abe"), frozenset("cdf"), frozenset("g"),
    ]  # fmt: skip
    tree = [Community(0, 0, None, ("a", "b", "c")), Community(1, 0, None, ("d",)), Community(2, 1, 0, ("a", "b")),
            Community(3, 2, 2, ("b",)), Community(4, 1, 0, ("c",))]  # fmt: skip
    assert [[each.id for each in at_level(tree[::-1], level)] for level in range(4)] == [
        [0, 1], [1, 2, 4], [1, 2, 3, 4], [1, 2, 3, 4],
    ]  # fmt: skip
    edges = [("b", "a", 1.0), ("a", "b", 1.0), ("c", "c", 9.0), ("d", "e", 0.0), ("x", "y", 2.0), ("y", "z", 1.0)]
    assert [(each.level, each.parent, each.members) for each in communities(edges)] == [
        (0, None, ("a", "b")), (0, None, ("x", "y", "z")),
    ]  # fmt: skip
    largest = communities(edges, LeidenSettings(largest_component=True))
    assert [each.members for each in largest] == [("x", "y", "z")] and communities([]) == []
    assert communities([("d", "e", 0.0)], LeidenSettings(largest_component=True)) == []


# -- contexts --

GRAPH = KnowledgeGraph(
    (
        Entity("ANN", "PERSON", ("first baker",), ("c1", "c2")),
        Entity("BOB", "PERSON", ("a baker",), ("c1",)),
        Entity("CID", "GEO", ("far away",), ("c3",)),
        Entity("DORA", "PERSON", (), ("c4",)),
    ),
    (
        Relation("ANN", "BOB", ("met",), 2.0, ("c2",)),
        Relation("ANN", "DORA", ("paid",), 5.0, ("c4",)),
        Relation("BOB", "CID", ("saw",), 3.5, ("c3",)),
        Relation("BOB", "DORA", ("owes",), 1.0, ("c4",)),
    ),
)
ANN, BOB, CID, DORA = GRAPH.entities
TREE = (
    Community(0, 0, None, ("ANN", "BOB", "CID")),
    Community(1, 0, None, ("DORA",)),
    Community(2, 1, 0, ("ANN", "BOB")),
    Community(3, 1, 0, ("CID",)),
)
REPORTS = {id: CommunityReport(id, int(id > 1), f"R{id}", "s", rating) for id, rating in ((0, 3.0), (1, 9.0), (2, 1.0))}
STATE = GraphState(GRAPH, TREE, REPORTS)


def test_relations_come_by_rank_first_inside_then_to_names_that_several_share() -> None:
    pairs = [(each.source, each.target) for each in ranked_relations(GRAPH, [ANN, BOB], 9)]
    # ANN has 2 relations, BOB 3, CID 1, DORA 2; both know DORA, so she comes before CID
    assert pairs == [("ANN", "BOB"), ("BOB", "DORA"), ("ANN", "DORA"), ("BOB", "CID")]
    assert len(ranked_relations(GRAPH, [ANN, BOB], 1)) == 3 and len(ranked_relations(GRAPH, [ANN, BOB], 0)) == 1
    assert [(each.source, each.target) for each in ranked_relations(GRAPH, [DORA], 1)] == [("BOB", "DORA")]
    assert ranked_chunks(GRAPH, [ANN, BOB, ANN]) == ["c2", "c1"] and ranked_chunks(GRAPH, [BOB, ANN]) == ["c1", "c2"]


def test_reports_of_a_context_are_those_of_most_matched_entities() -> None:
    assert [each.title for each in _ranked_reports(STATE, [ANN, BOB, DORA, CID], 1)] == ["R2", "R1"]
    assert [each.title for each in _ranked_reports(STATE, [ANN, DORA], 0)] == ["R1", "R0"]
    assert [each.title for each in _ranked_reports(STATE, [ANN, ANN, CID, DORA], 0)] == ["R0", "R1"]
    assert _ranked_reports(GraphState(GRAPH, TREE, None), [ANN], 1) == []
    assert [each.id for each in roots(STATE)] == [0, 1] and roots(GraphState(GRAPH, TREE, {2: REPORTS[2]})) == []


def test_a_local_context_keeps_each_share_for_its_own() -> None:
    chunks = {f"c{n}": Chunk(f"doc{n}", 0, 0, f"passage {n} " + "x" * 8) for n in range(1, 5)}
    lines = [entity_line(GRAPH, each) for each in (ANN, BOB)]
    lines += [relation_line(each) for each in ranked_relations(GRAPH, [ANN, BOB], 1)]
    assert lines[0] == "ANN (person, 2 relations): first baker" and lines[3] == "BOB -- DORA (weight 1): owes"
    size = sum(count_tokens(line + "\n") for line in lines)
    report, passage = count_tokens("# R2\ns\n"), count_tokens(chunks["c1"].text + "\n")
    whole = size + report + 2 * passage
    exact = {"reports": report / whole, "passages": 2 * passage / whole}

    def made(tokens: int, **shares: float) -> list[Section]:
        return local_context(STATE, [ANN, BOB], chunks, LocalShares(tokens, **shares, relations=1, level=1))  # type: ignore[arg-type]

    assert made(whole, **exact) == [
        Section("reports on communities", "# R2\ns"),
        Section("entities and relations", "\n".join(lines)),
        Section("passage of doc2", chunks["c2"].text),
        Section("passage of doc1", chunks["c1"].text),
    ]
    less = made(whole - 1, reports=report / (whole - 1), passages=2 * passage / (whole - 1))
    assert less[1].text == "\n".join(lines[:-1]) and len(less) == 4, "the graph has what the others leave"
    assert [each.label for each in made(whole, reports=0, passages=1)] == ["passage of doc2", "passage of doc1"]
    assert [each.label for each in made(passage, reports=0, passages=1)] == ["passage of doc2"]
    for bad in (
        {"tokens": 0},
        {"reports": -0.1},
        {"reports": 0.6, "passages": 0.5},
        {"entities": 0},
        {"relations": -1},
        {"level": -1},
    ):
        with pytest.raises(ConfigError, match="whose sum is at most 1"):
            LocalShares(**bad)  # type: ignore[arg-type]


def test_entities_are_matched_by_rare_words_and_three_times_by_their_names() -> None:
    assert [each.name for each in matched_entities(GRAPH, "the baker Bob", 9)] == ["BOB", "ANN"]
    assert [each.name for each in matched_entities(GRAPH, "baker", 9)] == ["BOB", "ANN"], (
        "equal: the one of most relations"
    )
    assert [each.name for each in matched_entities(GRAPH, "far baker", 1)] == ["CID"], "a rare word counts more"
    assert matched_entities(GRAPH, "is a", 9) == []
    texts = {"XXX": "xxx", "YYY": "red blue shared", "ZZZ": "shared", "WWW": ""}
    made = KnowledgeGraph(tuple(Entity(name, "", (text,), ()) for name, text in texts.items()), ())
    # of four entities: 3 ln 5 = 4.83 for the name, 2 ln 5 + ln 3 = 4.32 for three words of a description
    assert [each.name for each in matched_entities(made, "XXX red blue shared", 9)] == ["XXX", "YYY", "ZZZ"]


def test_reports_are_shuffled_and_packed_into_batches() -> None:
    texts = [f"{n}" * (4 * n - 2) for n in range(1, 7)]  # n tokens each, with the blank line
    order = list(texts)
    random.Random(86).shuffle(order)
    expected: list[list[str]] = []
    left = 0
    for text in order:
        if (size := len(text) // 4 + 1) > left:
            expected.append([])
            left = 7
        expected[-1].append(text)
        left -= size
    assert packed(texts, 7) == ["\n\n".join(batch) for batch in expected] and len(expected) > 3
    assert packed(["x" * 99], 3) == ["x" * 10] and packed([], 3) == []
    assert (
        sorted(global_batches(STATE, 0)[0].split("\n\n")) == ["# R0\ns", "# R1\ns"]
        and len(global_batches(STATE, 0)) == 1
    )
    assert "R2" in global_batches(STATE, 1)[0] and "R0" not in global_batches(STATE, 1)[0]
    assert shortened("é" * 9, 5) == "é" * 9 and shortened("é" * 10, 5) == "é" * 9 and shortened("x" * 19, 5) == "x" * 18
    assert best_points([(1, "a  b"), (0, "no"), (9, "c"), (-2, "no"), (9, "d")], 99) == [
        "[importance 9] c", "[importance 9] d", "[importance 1] a b",
    ]  # fmt: skip
    assert best_points([(9, "c"), (1, "a")], 5) == ["[importance 9] c"] and best_points([(9, "c")], 4) == []


def test_prompts_put_the_question_and_the_data_in_their_places() -> None:
    data, question = "<DATA>", "<QUESTION>"
    for made in (prompts.local_prompt, prompts.map_prompt, prompts.reduce_prompt, prompts.primer_prompt):
        text = made(question, data)
        assert text.endswith("\n\n<DATA>\n\nQuestion: <QUESTION>") and text.count("<") == 2
    follow = prompts.follow_up_prompt(question, "<WHOLE>", data)
    assert follow.startswith("This question is part of a larger one: <WHOLE>\n")
    assert follow.endswith("\n\n<DATA>\n\nQuestion: <QUESTION>")
    assert prompts.relevance_prompt(question, data).endswith(
        "\n\n<DATA>\n\nQuestion: <QUESTION>\nAnswer with one digit from 0 to 5."
    )
    assert prompts.summary_prompt("<NAME>", data).startswith("These are descriptions of <NAME> from several places")
    assert prompts.summary_prompt("<NAME>", data).endswith("\n\n<DATA>") and prompts.report_prompt(data).endswith(
        "\n\n<DATA>"
    )
    assert prompts.extraction_prompt(("geo", "event"), data).startswith(
        "<DATA>\n\nList every entity of these types that "
    )
    assert " names: geo, event. Give" in prompts.extraction_prompt(("geo", "event"), data)


# -- Markdown --


def test_front_matter_fences_and_tables_end_where_they_close() -> None:
    text = "---\na: 1\n...\n# T\nx\n"
    assert list(blocks(text)) == [
        MarkdownBlock(0, 13, "prose"), MarkdownBlock(13, 17, "heading", 1, "T"), MarkdownBlock(17, 19, "prose"),
    ]  # fmt: skip
    long = "---\n" + "a\n" * 198 + "---\n"
    assert next(blocks(long + "b\n")) == MarkdownBlock(0, len(long), "prose")
    assert next(blocks("---\n" + "a\n" * 199 + "---\nb\n")).end != 4 + 398 + 4, "it closes within 200 lines, or is none"
    fence = "```\n``` x\n~~~\n````\nafter\n"
    assert list(blocks(fence)) == [MarkdownBlock(0, 19, "code"), MarkdownBlock(19, 25, "prose")]
    assert list(blocks("~~~~\n~~~\nx")) == [MarkdownBlock(0, 10, "code")]
    table = "|a|b|\n|-|-|\n|1|2|\nno\n"
    assert list(blocks(table)) == [MarkdownBlock(0, 18, "table"), MarkdownBlock(18, 21, "prose")]
    made = markdown(size=10, overlap=0)(Document("d", "```\na\n\nbb\nccc\n```\n"))
    assert [chunk.text for chunk in made] == ["```\na\n\nbb", "ccc\n```"], (
        "code is cut between lines, not at paragraphs"
    )
    held = [(each.headings, len(each.blocks)) for each in sections("# A\n## B\nx\n## C\n# D\n")]
    assert held == [(("A", "B"), 3), (("A", "C"), 1), (("D",), 1)]
    twins = [each.headings for each in sections("## A\n## B\nx\n# C\n## D\ny")]
    assert twins == [("A",), ("B",), ("C", "D")]
