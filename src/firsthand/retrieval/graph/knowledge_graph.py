"""Entities and relations: extracted from chunks, merged into one graph.

A graph is derived: it is merged from the extractions of the chunks that exist now, so that what came from a deleted chunk
alone is gone with it. Entities are merged by name and type; nodes are names. Relations are merged by their pair of names in
either direction, their weights summed (the reference keeps the last weight of a reversed pair).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from firsthand.message import Json
from firsthand.system.normalised_text import normalised_text


@dataclass(frozen=True)
class ExtractedEntity:
    """An entity as one chunk tells of it."""

    name: str
    type: str
    description: str = ""


@dataclass(frozen=True)
class ExtractedRelation:
    """A relation as one chunk tells of it."""

    source: str
    target: str
    description: str = ""
    weight: float = 1.0


@dataclass(frozen=True)
class Extraction:
    """The entities and relations of one chunk."""

    chunk: str
    """The chunk's id."""
    entities: tuple[ExtractedEntity, ...] = ()
    relations: tuple[ExtractedRelation, ...] = ()

    def to_json(self) -> Json:
        """The extraction as a JSON object, without the chunk."""
        return {
            "entities": [[each.name, each.type, each.description] for each in self.entities],
            "relations": [[each.source, each.target, each.description, each.weight] for each in self.relations],
        }

    @staticmethod
    def from_json(chunk: str, body: Json) -> Extraction:
        """The extraction that `to_json` wrote."""
        entities = tuple(ExtractedEntity(str(n), str(t), str(d)) for n, t, d in body["entities"])
        relations = tuple(ExtractedRelation(str(s), str(t), str(d), float(w)) for s, t, d, w in body["relations"])
        if not all(math.isfinite(each.weight) for each in relations):
            raise ValueError("the weight of a relation is no number")
        return Extraction(chunk, entities, relations)


@dataclass(frozen=True)
class Entity:
    """An entity of the whole corpus."""

    name: str
    type: str
    descriptions: tuple[str, ...]
    """Distinct descriptions in the order of the chunks."""
    chunks: tuple[str, ...]
    """Ids of the chunks that name it, in order."""
    summary: str | None = None
    """A model's summary of several descriptions."""

    @property
    def description(self) -> str:
        """The summary, or else the descriptions joined."""
        return self.summary if self.summary is not None else " ".join(self.descriptions)


@dataclass(frozen=True)
class Relation:
    """A relation between two names, of either direction."""

    source: str
    target: str
    descriptions: tuple[str, ...]
    weight: float
    """The sum over all chunks."""
    chunks: tuple[str, ...]
    summary: str | None = None

    @property
    def description(self) -> str:
        """The summary, or else the descriptions joined."""
        return self.summary if self.summary is not None else " ".join(self.descriptions)


@dataclass(frozen=True)
class KnowledgeGraph:
    """Merged entities and relations."""

    entities: tuple[Entity, ...]
    """In order of name, then type."""
    relations: tuple[Relation, ...]
    """In order of the pair of names."""
    orphans: int = 0
    """Extracted relations that were left out because one of their names was extracted as no entity."""

    @property
    def items(self) -> list[Entity | Relation]:
        """All entities, then all relations."""
        return [*self.entities, *self.relations]

    @cached_property
    def degrees(self) -> Mapping[str, int]:
        """The number of relations of each name; 0 for names without any."""
        found = Counter({entity.name: 0 for entity in self.entities})
        for relation in self.relations:
            found.update((relation.source, relation.target))
        return found

    @cached_property
    def by_name(self) -> Mapping[str, Sequence[Entity]]:
        """The entities of each name: several where it was extracted with several types."""
        found: dict[str, list[Entity]] = {}
        for entity in self.entities:
            found.setdefault(entity.name, []).append(entity)
        return found

    @cached_property
    def relations_of(self) -> Mapping[str, Sequence[Relation]]:
        """The relations of each name."""
        found: dict[str, list[Relation]] = {}
        for relation in self.relations:
            for name in {relation.source, relation.target}:
                found.setdefault(name, []).append(relation)
        return found

    def rank(self, relation: Relation) -> int:
        """The degrees of both ends together: central relations come first in contexts."""
        return self.degrees[relation.source] + self.degrees[relation.target]

    @property
    def edges(self) -> list[tuple[str, str, float]]:
        """(name, name, weight) of each relation between two different names, in order."""
        return [(each.source, each.target, each.weight) for each in self.relations if each.source != each.target]


def normal_name(name: str) -> str:
    """A name in the form in which entities are compared: NFC, upper case, single spaces, without quotes around it."""
    return " ".join(normalised_text("NFC", name).upper().split()).strip("\"'`“”‘’ ")


@dataclass
class _Merged:
    """Descriptions, chunks and weight of one entity or relation while it is collected."""

    ends: tuple[str, str]
    descriptions: dict[str, None] = field(default_factory=dict)
    chunks: dict[str, None] = field(default_factory=dict)
    weight: float = 0.0

    def add(self, description: str, chunk: str, weight: float = 0.0) -> None:
        if description.strip():
            self.descriptions[description.strip()] = None
        self.chunks[chunk] = None
        self.weight += weight


def merge(extractions: Iterable[Extraction], *, keep_orphans: bool = False) -> KnowledgeGraph:
    """The graph of extractions, given in the order of their chunks.

    A relation whose names are not both entities is left out and counted; with `keep_orphans` its names become nodes.
    """
    entities: dict[tuple[str, str], _Merged] = {}
    relations: dict[tuple[str, str], _Merged] = {}
    extractions = list(extractions)
    for extraction in extractions:
        for entity in extraction.entities:
            key = (normal_name(entity.name), normal_name(entity.type))
            if key[0]:
                entities.setdefault(key, _Merged(key)).add(entity.description, extraction.chunk)
    names = {name for name, _ in entities}
    orphans = 0
    for extraction in extractions:
        for relation in extraction.relations:
            ends = (normal_name(relation.source), normal_name(relation.target))
            if not all(ends) or not (keep_orphans or names.issuperset(ends)):
                orphans += 1
                continue
            pair = (min(ends), max(ends))
            merged = relations.setdefault(pair, _Merged(ends))
            merged.add(relation.description, extraction.chunk, relation.weight)
    return KnowledgeGraph(
        tuple(Entity(*key, tuple(each.descriptions), tuple(each.chunks)) for key, each in sorted(entities.items())),
        tuple(
            Relation(*each.ends, tuple(each.descriptions), each.weight, tuple(each.chunks))
            for _, each in sorted(relations.items())
        ),
        orphans,
    )
