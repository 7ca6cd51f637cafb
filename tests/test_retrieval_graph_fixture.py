"""A Christmas Carol as an LLM extracted it (GraphRAG's MIT-licensed fixture): Leiden, local and global contexts."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.graph.community_reports import CommunityReport, community_data
from firsthand.retrieval.graph.graph_context import (
    LocalShares,
    global_batches,
    local_context,
    matched_entities,
    ranked_chunks,
    ranked_relations,
)
from firsthand.retrieval.graph.graph_model import count_tokens
from firsthand.retrieval.graph.graph_state import GraphState
from firsthand.retrieval.graph.knowledge_graph import (
    ExtractedEntity,
    ExtractedRelation,
    Extraction,
    KnowledgeGraph,
    merge,
)
from firsthand.retrieval.graph.leiden import LeidenSettings, at_level, communities, components

FOLDER = Path(os.environ.get("FIRSTHAND_DATA", "/work/shared/data")) / "retrieval" / "graphrag-fixture"
pytestmark = [
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the GraphRAG fixture is not at $FIRSTHAND_DATA/retrieval"),
]
pytest.importorskip("graspologic_native")


@contextmanager
def long_fields() -> Iterator[None]:
    before = csv.field_size_limit(1 << 24)
    yield
    csv.field_size_limit(before)


@cache
def rows(name: str) -> list[dict[str, str]]:
    with long_fields(), (FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def ids(text: str) -> list[str]:
    return re.findall(r"[0-9a-f]{64,128}", text)


@cache
def chunks() -> dict[str, Chunk]:
    return {row["id"]: Chunk("carol", 0, len(row["text"]), row["text"]) for row in rows("text_units")}


@cache
def graph(keep_orphans: bool = False) -> KnowledgeGraph:
    """Each entity and relation is counted in the first chunk that tells of it, so that weights are the fixture's."""
    order = list(chunks())
    entities: dict[str, list[ExtractedEntity]] = {}
    relations: dict[str, list[ExtractedRelation]] = {}
    for row in rows("entities"):
        for place, chunk in enumerate(ids(row["text_unit_ids"])):
            told = row["description"] if place == 0 else ""
            entities.setdefault(chunk, []).append(ExtractedEntity(row["title"], row["type"], told))
    for row in rows("relationships"):
        for place, chunk in enumerate(ids(row["text_unit_ids"])):
            weight, told = (float(row["weight"]), row["description"]) if place == 0 else (0.0, "")
            relations.setdefault(chunk, []).append(ExtractedRelation(row["source"], row["target"], told, weight))
    found = [Extraction(id, tuple(entities.get(id, ())), tuple(relations.get(id, ()))) for id in order]
    return merge(found, keep_orphans=keep_orphans)


def by_level(found: list[Any]) -> dict[int, int]:
    return dict(sorted(Counter(each.level for each in found).items()))


@pytest.mark.slow
def test_entities_and_relations_are_the_fixtures() -> None:
    assert len(graph().entities) == 529 and len(chunks()) == 42
    assert sum(each.weight for each in graph(True).relations) == sum(
        float(row["weight"]) for row in rows("relationships")
    )
    pairs = {frozenset((row["source"], row["target"])) for row in rows("relationships")}
    assert len(graph(True).relations) == len(pairs) == 935
    names = {each.name for each in graph().entities}
    lost = sum(
        len(ids(row["text_unit_ids"])) for row in rows("relationships") if not {row["source"], row["target"]} <= names
    )
    assert graph().orphans == lost > 0


def test_reversed_pairs_are_summed() -> None:
    weights = {(row["source"], row["target"]): float(row["weight"]) for row in rows("relationships")}
    twice = [pair for pair in weights if pair[::-1] in weights]
    assert len(twice) == 86
    stored = {frozenset((each.source, each.target)): each.weight for each in graph(True).relations}
    for pair in twice:
        assert stored[frozenset(pair)] == weights[pair] + weights[pair[::-1]]


def test_leiden_divides_the_whole_graph_and_the_reference_only_its_largest_component() -> None:
    edges = graph(True).edges
    whole, largest = communities(edges), communities(edges, LeidenSettings(largest_component=True))
    covered = [{name for each in found for name in each.members} for found in (whole, largest)]
    assert [len(names) for names in covered] == [560, 535], "25 names are in no report of the reference"
    assert sorted(map(len, components((a, b) for a, b, _ in edges)))[-1] == 535
    assert by_level(whole) == {0: 30, 1: 58, 2: 45, 3: 4}
    assert by_level(largest) == {0: 24, 1: 64, 2: 37}
    by_id = {each.id: each for each in whole}
    for each in whole:
        if each.parent is not None:
            assert set(each.members) < set(by_id[each.parent].members) and by_id[each.parent].level == each.level - 1
            assert len(by_id[each.parent].members) >= 10, "only large communities are divided again"


def test_communities_do_not_depend_on_the_order_of_edges_or_ends() -> None:
    edges = graph(True).edges
    assert communities(edges) == communities([(b, a, weight) for a, b, weight in reversed(edges)])


@pytest.mark.parametrize("level", [0, 1, 2, 9])
def test_the_communities_of_a_level_hold_each_name_once(level: int) -> None:
    found = communities(graph(True).edges)
    names = [name for each in at_level(found, level) for name in each.members]
    assert len(names) == len(set(names)) == 560
    assert all(each.level <= level for each in at_level(found, level))


def state() -> GraphState:
    found = communities(graph().edges)
    reports = {
        each.id: CommunityReport(each.id, each.level, f"Report {each.id}", community_data(graph(), each, [], 800), 5.0)
        for each in found
    }
    return GraphState(graph(), tuple(found), reports)


def test_a_local_context_is_filled_by_shares_of_its_budget() -> None:
    matched = matched_entities(graph(), "What did Scrooge say to Bob Cratchit about Tiny Tim?", 10)
    names = [each.name for each in matched]
    assert len(matched) == 10 and {"BOB CRATCHIT", "TINY TIM"} <= set(names[:6])
    assert any("SCROOGE" in name for name in names)
    shares = LocalShares(tokens=6000)
    sections = local_context(state(), matched, chunks(), shares)
    reports, tables, passages = sections[0], sections[1], sections[2:]
    assert 0 < count_tokens(reports.text) <= 900 and 0 < count_tokens(tables.text) <= 2100
    used = sum(count_tokens(each.text + "\n") for each in passages)
    assert 0 < used <= 3000
    told = [chunks()[id] for id in ranked_chunks(graph(), matched)]
    assert [each.text for each in passages] == [chunk.indexed_text for chunk in told[: len(passages)]]
    assert used + count_tokens(told[len(passages)].indexed_text + "\n") > 3000, "the next passage did not fit"
    assert tables.text.splitlines()[0].startswith(names[0])


def test_relations_between_matched_entities_come_first_then_shared_ones_by_rank() -> None:
    matched = matched_entities(graph(), "Scrooge Marley Fred", 4)
    names = {each.name for each in matched}
    found = ranked_relations(graph(), matched, 2)
    kinds = [each.source in names and each.target in names for each in found]
    assert kinds == sorted(kinds, reverse=True) and any(kinds) and not all(kinds)
    assert kinds.count(False) <= 2 * len(names)
    inside = [graph().rank(each) for each, is_inside in zip(found, kinds, strict=True) if is_inside]
    assert inside == sorted(inside, reverse=True)


def test_reports_of_a_level_are_packed_into_batches_and_each_is_in_one() -> None:
    made = state()
    batches = global_batches(made, 1, tokens=3000)
    assert len(batches) > 3 and all(count_tokens(batch) <= 3000 for batch in batches)
    titles = [title for batch in batches for title in re.findall(r"^# (Report \d+)$", batch, re.MULTILINE)]
    assert sorted(titles) == sorted(f"Report {each.id}" for each in at_level(made.communities, 1))
    assert titles != sorted(titles, key=lambda title: int(title.split()[1])), "they are shuffled"
    assert batches == global_batches(made, 1, tokens=3000) != global_batches(made, 1, tokens=3000, seed=87)


def test_a_community_that_does_not_fit_is_told_by_the_reports_of_its_parts() -> None:
    made = state()
    large = max((each for each in made.communities if each.id in made.children), key=lambda each: len(each.members))
    parts = [(each, replace(made.reports[each.id], summary="short")) for each in made.children[large.id]]  # type: ignore[index]
    assert count_tokens(community_data(made.graph, large, [], 10**6)) > 500
    data = community_data(made.graph, large, parts, 500)
    assert count_tokens(data) <= 500 and all(f"# {report.title}" in data for _, report in parts)
    whole = community_data(made.graph, large, parts, 10**6)
    assert "# Report" not in whole
