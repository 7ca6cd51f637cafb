"""Contexts of local and global search: which data of a graph answer a question, within a budget of tokens.

A local context has shares of its budget for reports, entities with relations, and passages; each part is filled in order of
rank and ends at the first item that does not fit, so that no share takes from another (GraphRAG 3.x, local_search).
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from firsthand.errors import ConfigError
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import Vectors
from firsthand.retrieval.graph.community_reports import CommunityReport
from firsthand.retrieval.graph.graph_data import Section, entity_line, fitting, relation_line
from firsthand.retrieval.graph.graph_model import count_tokens
from firsthand.retrieval.graph.graph_state import GraphState
from firsthand.retrieval.graph.knowledge_graph import Entity, KnowledgeGraph, Relation
from firsthand.retrieval.graph.leiden import Community, at_level
from firsthand.retrieval.store.word_marks import words_with_marks


@dataclass(frozen=True)
class LocalShares:
    """The budget of a local context; the defaults are GraphRAG's."""

    tokens: int = 12_000
    reports: float = 0.15
    passages: float = 0.5
    """The rest, 0.35, is for entities and relations."""
    entities: int = 10
    """Entities that a question is matched with."""
    relations: int = 10
    """Relations to names beyond these, for each of them."""
    level: int = 2
    """Reports are of communities no finer than this level."""

    def __post_init__(self) -> None:
        shares_fit = min(self.reports, self.passages) >= 0 and self.reports + self.passages <= 1
        if self.tokens < 1 or not shares_fit or self.entities < 1 or self.relations < 0 or self.level < 0:
            raise ConfigError(
                f"tokens is {self.tokens}, entities {self.entities}, relations {self.relations}, level {self.level}, "
                f"reports {self.reports} and passages {self.passages}: give tokens and entities from 1, the others from 0, "
                "and shares (reports, passages) whose sum is at most 1"
            )


def matched_entities(
    graph: KnowledgeGraph,
    question: str,
    k: int,
    *,
    vectors: Mapping[int, Vectors] | None = None,
    query: Vectors | None = None,
) -> list[Entity]:
    """The k entities that fit a question best: by cosine of their descriptions, or without vectors by their words.

    `vectors` holds those of entities by position. Words count by their inverse document frequency over all entities, three
    times in a name; entities without a word of the question do not match.
    """
    if query is not None and vectors:
        places = list(vectors)
        cosines = np.stack([vectors[place] for place in places]) @ query
        ranked = sorted(zip(places, cosines.tolist(), strict=True), key=lambda each: (-each[1], each[0]))
        return [graph.entities[place] for place, _ in ranked[:k]]
    wanted = set(_words(question))
    names = [set(_words(entity.name)) for entity in graph.entities]
    described = [set(_words(entity.description)) for entity in graph.entities]
    counts = Counter(word for a, b in zip(names, described, strict=True) for word in (a | b) & wanted)
    idf = {word: math.log(1 + len(graph.entities) / count) for word, count in counts.items()}
    scores = [
        sum(idf[word] * (3 if word in name else 1) for word in (name | text) & wanted)
        for name, text in zip(names, described, strict=True)
    ]
    order = sorted(
        (place for place, score in enumerate(scores) if score > 0),
        key=lambda place: (-scores[place], -graph.degrees[graph.entities[place].name], place),
    )
    return [graph.entities[place] for place in order[:k]]


def local_context(
    state: GraphState, matched: Sequence[Entity], chunks: Mapping[str, Chunk], shares: LocalShares
) -> list[Section]:
    """The sections of a local context: reports, entities and relations, then one section for each passage.

    `chunks` are those that the matched entities name, by id.
    """
    reports = fitting(
        [report.text for report in _ranked_reports(state, matched, shares.level)], round(shares.tokens * shares.reports)
    )
    passages_budget = round(shares.tokens * shares.passages)
    graph_budget = shares.tokens - round(shares.tokens * shares.reports) - passages_budget
    lines = [entity_line(state.graph, entity) for entity in matched]
    lines += [relation_line(each) for each in ranked_relations(state.graph, matched, shares.relations)]
    sections = [Section("reports on communities", "\n\n".join(reports))] if reports else []
    if kept := fitting(dict.fromkeys(lines), graph_budget):
        sections.append(Section("entities and relations", "\n".join(kept)))
    used = 0
    for id in ranked_chunks(state.graph, matched):
        chunk = chunks[id]
        used += count_tokens(chunk.indexed_text + "\n")
        if used > passages_budget:
            break
        sections.append(Section(f"passage of {chunk.document}", chunk.indexed_text))
    return sections


def _ranked_reports(state: GraphState, matched: Sequence[Entity], level: int) -> list[CommunityReport]:
    """Reports of the matched entities' communities: with the most of them first, then by rating."""
    counts: Counter[int] = Counter()
    for name in dict.fromkeys(entity.name for entity in matched):
        fine = [each for each in state.communities_of.get(name, ()) if each.level <= level]
        if fine:
            counts[fine[-1].id] += 1
    reports = [state.reports[id] for id in counts if state.reports and id in state.reports]
    return sorted(reports, key=lambda each: (-counts[each.community], -each.rating, each.community))


def ranked_relations(graph: KnowledgeGraph, matched: Sequence[Entity], each_outside: int) -> list[Relation]:
    """Relations between matched entities by rank, then those to others: to names that several of them share first.

    At most `each_outside` for each matched entity lead outside.
    """
    names = {entity.name for entity in matched}
    found = {(each.source, each.target): each for name in sorted(names) for each in graph.relations_of.get(name, ())}
    inside = [each for each in found.values() if each.source in names and each.target in names]
    outside = [each for each in found.values() if not (each.source in names and each.target in names)]
    links = Counter(each.target if each.source in names else each.source for each in outside)

    def order(each: Relation) -> tuple[float, ...]:
        other = each.target if each.source in names else each.source
        return (-links[other], -graph.rank(each), -each.weight)

    inside.sort(key=lambda each: (-graph.rank(each), -each.weight, each.source, each.target))
    outside.sort(key=lambda each: (order(each), each.source, each.target))
    return inside + outside[: each_outside * len(names)]


def ranked_chunks(graph: KnowledgeGraph, matched: Sequence[Entity]) -> list[str]:
    """The chunks that name matched entities: in the entities' order, those that tell the most of their relations first."""
    found: dict[str, None] = {}
    for entity in matched:
        told = Counter(chunk for relation in graph.relations_of.get(entity.name, ()) for chunk in relation.chunks)
        found |= dict.fromkeys(sorted(entity.chunks, key=lambda chunk: (-told[chunk], entity.chunks.index(chunk))))
    return list(found)


def global_batches(state: GraphState, level: int, tokens: int = 12_000, seed: int = 86) -> list[str]:
    """The reports that divide the graph at a level, shuffled and packed into batches of at most `tokens`.

    They are shuffled so that no batch has only the reports of one end of the documents. A report that is larger than a
    batch is cut to it.
    """
    reports = state.reports or {}
    return packed(
        [reports[each.id].text for each in at_level(state.communities, level) if each.id in reports], tokens, seed
    )


def packed(texts: Sequence[str], tokens: int, seed: int = 86) -> list[str]:
    """Texts, shuffled and joined into batches of at most `tokens`."""
    shuffled = list(texts)
    random.Random(seed).shuffle(shuffled)
    batches: list[list[str]] = []
    used = tokens + 1
    for text in shuffled:
        text = shortened(text, tokens)
        size = count_tokens(text + "\n\n")
        if used + size > tokens:
            batches.append([])
            used = 0
        batches[-1].append(text)
        used += size
    return ["\n\n".join(batch) for batch in batches]


def shortened(text: str, tokens: int) -> str:
    """The beginning of a text that has at most `tokens`, room for a blank line included."""
    if count_tokens(text + "\n\n") <= tokens:
        return text
    return text.encode("utf-8", "surrogatepass")[: max(0, 4 * tokens - 2)].decode("utf-8", "ignore")


def best_points(points: Sequence[tuple[int, str]], tokens: int) -> list[str]:
    """Points with a score above 0, the highest first, as lines that fit the budget."""
    kept = sorted((each for each in points if each[0] > 0), key=lambda each: -each[0])
    return fitting([f"[importance {score}] {' '.join(text.split())}" for score, text in kept], tokens)


def roots(state: GraphState) -> list[Community]:
    """The coarsest communities that have a report."""
    return [each for each in state.children.get(None, ()) if state.reports and each.id in state.reports]


def _words(text: str) -> list[str]:
    return [word for word in words_with_marks(text.casefold()) if len(word) > 2]
