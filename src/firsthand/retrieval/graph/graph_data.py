"""Data of a graph as text for a model: tables of entities and relations, and sections between fences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from firsthand.retrieval.answers.evidence import escaped, fence_of
from firsthand.retrieval.graph.graph_model import count_tokens
from firsthand.retrieval.graph.knowledge_graph import Entity, KnowledgeGraph, Relation


@dataclass(frozen=True)
class Section:
    """A part of a context."""

    label: str
    """Its kind and source, told to the model: reports, entities and relations, or the document of a passage."""
    text: str


def fenced(question: str, sections: Sequence[Section]) -> str:
    """The sections, numbered, each between marks of one fence that no document can know."""
    fence = fence_of(question, [section.text for section in sections])
    return "\n".join(
        f"<passage {number} {fence}> {escaped(' '.join(section.label.split())[:200], fence)}\n"
        f"{escaped(section.text, fence)}\n</passage {number} {fence}>"
        for number, section in enumerate(sections, 1)
    )


def entity_line(graph: KnowledgeGraph, entity: Entity) -> str:
    """An entity as one line: name, type, number of relations, description."""
    return (
        f"{entity.name} ({entity.type.lower()}, {graph.degrees[entity.name]} relations): {one_line(entity.description)}"
    )


def relation_line(relation: Relation) -> str:
    """A relation as one line: both names, weight, description."""
    return f"{relation.source} -- {relation.target} (weight {relation.weight:g}): {one_line(relation.description)}"


def one_line(text: str) -> str:
    """The text with single spaces."""
    return " ".join(text.split())


def fitting(lines: Iterable[str], budget: int) -> list[str]:
    """The lines, from the first on, whose tokens are within the budget; it ends at the first that is not."""
    kept, used = [], 0
    for line in lines:
        used += count_tokens(line + "\n")
        if used > budget:
            break
        kept.append(line)
    return kept
