"""Reports of communities: what a model, or without one the documents themselves, say of each (Edge et al., 2024, §3.1.5).

A report is made from the community's entities and relations, the most connected first, within a budget of tokens. Where
they do not fit, reports of its sub-communities stand in for their members.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from firsthand.errors import ModelError
from firsthand.message import Json, canonical, user
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.graph.graph_data import Section, entity_line, fenced, fitting, one_line, relation_line
from firsthand.retrieval.graph.graph_model import GraphModel, count_tokens
from firsthand.retrieval.graph.graph_prompts import REPORT_SCHEMA, report_prompt
from firsthand.retrieval.graph.knowledge_graph import KnowledgeGraph
from firsthand.retrieval.graph.leiden import Community
from firsthand.system.sentence_ends import SENTENCE_MARKS

_ENDS = f".!?{SENTENCE_MARKS}"
_SENTENCE = re.compile(rf"[^{_ENDS}\n]*[^{_ENDS}\s][^{_ENDS}\n]*(?:[{_ENDS}]+|\n|$)")


@dataclass(frozen=True)
class CommunityReport:
    """The report of one community."""

    community: int
    level: int
    title: str
    summary: str
    rating: float
    """Importance from 0 to 10."""
    findings: tuple[tuple[str, str], ...] = ()
    """(summary, explanation) of each finding."""

    @property
    def text(self) -> str:
        """The report as a model reads it."""
        found = "\n".join(
            f"- {summary}: {explanation}" if explanation else f"- {summary}" for summary, explanation in self.findings
        )
        return f"# {self.title}\n{self.summary}\n{found}".rstrip()

    def to_json(self) -> Json:
        """The report as a JSON object, without its community."""
        return {
            "title": self.title,
            "summary": self.summary,
            "rating": self.rating,
            "findings": [list(each) for each in self.findings],
        }

    @staticmethod
    def from_json(community: Community, body: Json) -> CommunityReport:
        """The report that `to_json` wrote, or a model. ModelError for another form."""
        try:
            findings = tuple(
                (str(each["summary"]), str(each["explanation"]))
                if isinstance(each, dict)
                else (str(each[0]), str(each[1]))
                for each in body["findings"]
            )
            rating = min(max(float(body["rating"]), 0.0), 10.0)
            return CommunityReport(
                community.id, community.level, str(body["title"]), str(body["summary"]), rating, findings
            )
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise ModelError(f"the report is not of the schema: {type(error).__name__}: {str(error)[:100]}") from None


def community_data(
    graph: KnowledgeGraph,
    community: Community,
    children: Sequence[tuple[Community, CommunityReport]],
    budget: int,
) -> str:
    """The data that a community is reported from, at most `budget` tokens."""
    lines = _member_lines(graph, set(community.members))
    kept = fitting(lines, budget)
    if len(kept) == len(lines):
        return "\n".join(kept)
    largest_first = sorted(children, key=lambda each: (-len(each[0].members), each[0].id))
    texts = fitting([report.text for _, report in largest_first], budget)
    told = {name for child, _ in largest_first[: len(texts)] for name in child.members}
    left = budget - sum(count_tokens(text + "\n") for text in texts)
    return "\n".join([*texts, *fitting(_member_lines(graph, set(community.members) - told), left)])


def _member_lines(graph: KnowledgeGraph, members: set[str]) -> list[str]:
    """Relations within the members, the highest rank first, each after those of its entities that were not named yet."""
    relations = {
        id(each): each
        for name in members
        for each in graph.relations_of.get(name, ())
        if {each.source, each.target} <= members
    }
    ordered = sorted(relations.values(), key=lambda each: (-graph.rank(each), each.source, each.target))
    lines: dict[str, None] = {}
    for relation in ordered:
        for name in (relation.source, relation.target):
            lines |= dict.fromkeys(entity_line(graph, entity) for entity in graph.by_name.get(name, ()))
        lines[relation_line(relation)] = None
    for name in sorted(members, key=lambda name: (-graph.degrees.get(name, 0), name)):
        lines |= dict.fromkeys(entity_line(graph, entity) for entity in graph.by_name.get(name, ()))
    return list(lines)


def report_key(author: str, data: str, max_tokens: int) -> str:
    """The address of the report that an author (a model's name) makes of data."""
    return hashlib.sha256(canonical(["report", author, data, max_tokens]).encode("utf-8", "surrogatepass")).hexdigest()


async def write_report(model: GraphModel, community: Community, data: str, max_tokens: int) -> CommunityReport:
    """The report that a model makes of data. ModelError if its answer cannot be read."""
    prompt = report_prompt(fenced("report", [Section("entities and relations", data)]))
    body, _ = await model.ask_json([user(prompt)], REPORT_SCHEMA, max_tokens)
    return CommunityReport.from_json(community, body)


def extracted_report(
    graph: KnowledgeGraph, community: Community, chunks: Mapping[str, Chunk], largest: int, max_tokens: int
) -> CommunityReport:
    """A report without a model: the sentences of the documents that name most of the community's members.

    The rating is the community's share of the members of the `largest` one, times 10.
    """
    by_degree = sorted(community.members, key=lambda name: (-graph.degrees.get(name, 0), name))
    own = {chunk for name in community.members for entity in graph.by_name.get(name, ()) for chunk in entity.chunks}
    names = [(name, re.compile(rf"\b{re.escape(name)}\b", re.IGNORECASE)) for name in community.members]
    scored: dict[str, int] = {}
    for chunk in sorted(own & chunks.keys()):
        for sentence in _SENTENCE.findall(chunks[chunk].text):
            sentence = one_line(sentence)
            count = sum(bool(pattern.search(sentence)) for _, pattern in names)
            if count:
                scored[sentence] = count
    best = sorted(scored, key=lambda sentence: (-scored[sentence], list(scored).index(sentence)))[:200]
    title = ", ".join(name.title() for name in by_degree[:3])
    summary = f"{len(community.members)} names and terms that occur together in {len(own)} passages."
    findings = tuple((sentence, "") for sentence in fitting(best, max_tokens)[:10])
    rating = round(10 * len(community.members) / max(largest, 1), 3)
    return CommunityReport(community.id, community.level, title, summary, rating, findings)
