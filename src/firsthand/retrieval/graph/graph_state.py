"""The graph of an index as it is searched: merged, divided, with its reports, and checked against the index."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

from firsthand.errors import ConfigError, ModelError, StoreError
from firsthand.message import Json, canonical
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import ChunkIndex, IndexHeader
from firsthand.retrieval.graph.community_reports import CommunityReport
from firsthand.retrieval.graph.graph_file import GraphFile, chunk_id, decoded_part, extraction_key
from firsthand.retrieval.graph.knowledge_graph import Entity, Extraction, KnowledgeGraph, Relation, merge
from firsthand.retrieval.graph.leiden import Community
from firsthand.retrieval.graph.noun_phrases import NounPhraseSettings, phrase_graph
from firsthand.system.plurals import count_of


@dataclass(frozen=True)
class GraphState:
    """A graph with its communities and reports."""

    graph: KnowledgeGraph
    communities: tuple[Community, ...] = ()
    reports: Mapping[int, CommunityReport] | None = None
    """By community; a community whose report failed has none."""
    extractor: str = "model"
    unread: int = 0
    """Chunks of the index that were not read yet, or failed."""

    @cached_property
    def communities_of(self) -> Mapping[str, Sequence[Community]]:
        """The communities of each name, the coarsest first."""
        found: dict[str, list[Community]] = {}
        for community in sorted(self.communities, key=lambda each: each.level):
            for name in community.members:
                found.setdefault(name, []).append(community)
        return found

    @cached_property
    def children(self) -> Mapping[int | None, Sequence[Community]]:
        """The sub-communities of each community; those of None are the coarsest."""
        found: dict[int | None, list[Community]] = {}
        for community in self.communities:
            found.setdefault(community.parent, []).append(community)
        return found


def text_key(kind: str, *parts: object) -> str:
    """The address of a text or vector that these parts decide."""
    return hashlib.sha256(canonical([kind, *parts]).encode("utf-8", "surrogatepass")).hexdigest()


def entity_text(entity: Entity) -> str:
    """The text of an entity that is embedded."""
    return f"{entity.name}: {entity.description}"


def entity_key(entity: Entity, header: IndexHeader) -> str:
    """The address of an entity's vector by the embedder of an index."""
    return text_key("entity", header.fingerprint, header.document_prefix, entity_text(entity))


def leaf_chunks(index: ChunkIndex) -> list[Chunk]:
    """The chunks of an index that no other is part of, in the order of documents and offsets."""
    chunks = [chunk for document in sorted(index.hashes()) for chunk in index.chunks(document)]
    parents = {chunk.parent for chunk in chunks}
    return [chunk for chunk in chunks if chunk.id not in parents]


def left_over(states: Iterable[str], chunks: Iterable[Chunk]) -> set[str]:
    """The keys of stored extractions whose text the index no longer has: chunks that are gone, and former headings.

    An id alone, by which older versions stored every extraction, does not say which headings were read: it is none of them,
    so that such a graph is searched until a build has read its chunks again.
    """
    return set(states) - {key for chunk in chunks for key in (extraction_key(chunk), chunk.id)}


def merged(file: GraphFile, extractor: str, phrases: Json | None = None) -> KnowledgeGraph:
    """The graph of the stored extractions, without summaries."""
    return graph_of(file.extractions(), extractor, NounPhraseSettings(**phrases) if phrases else None)


def graph_of(extractions: Sequence[Extraction], extractor: str, phrases: NounPhraseSettings | None) -> KnowledgeGraph:
    """The graph of extractions by the rules of their extractor."""
    return merge(extractions) if extractor == "model" else phrase_graph(extractions, phrases)


def summarised(graph: KnowledgeGraph, texts: Mapping[str, str], author: str, max_tokens: int) -> KnowledgeGraph:
    """The graph with the stored summaries of its descriptions."""

    def told(each: Entity | Relation) -> str | None:
        return texts.get(summary_key(each, author, max_tokens)) if len(each.descriptions) > 1 else None

    return replace(
        graph,
        entities=tuple(replace(each, summary=told(each)) for each in graph.entities),
        relations=tuple(replace(each, summary=told(each)) for each in graph.relations),
    )


def summary_key(each: Entity | Relation, author: str, max_tokens: int) -> str:
    """The address of the summary of an entity's or relation's descriptions."""
    return text_key("summary", author, described_name(each), list(each.descriptions), max_tokens)


def described_name(each: Entity | Relation) -> str:
    """The name of an entity, or both names of a relation."""
    return each.name if isinstance(each, Entity) else f"{each.source} and {each.target}"


def load_state(file: GraphFile, index: ChunkIndex) -> GraphState:
    """The graph as it was built last.

    ConfigError if chunks were removed from the index since, or have other headings there: it would tell of them. So it is
    while, and after, an update that removes them has not come to its end.
    """
    states = file.states()  # before `built`, which an update takes away together with states
    built = file.meta("built")
    if built is None:
        raise ConfigError(f"the graph {file.path} was not built to its end: run `firsthand rag graph` again")
    chunks = leaf_chunks(index)
    if gone := left_over(states, chunks):
        raise ConfigError(
            f"{len(gone)} chunks were removed from the index since the graph was built, which still tells of them, or have "
            "other headings there: run `firsthand rag graph` to update it"
        )
    with _readable(file):
        return _state(file, built, len(chunks) - sum(state == "done" for state in states.values()))


@contextmanager
def _readable(file: GraphFile) -> Iterator[None]:
    """StoreError for values of another form than a build writes."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, ModelError, ConfigError) as error:
        raise StoreError(f"{file.path} is damaged ({error}): delete it and build the graph again") from None


def _built_graph(file: GraphFile, built: Json) -> KnowledgeGraph:
    """The graph of the stored extractions, with its summaries."""
    graph = merged(file, built["extractor"], built.get("phrases"))
    author, size = built["author"], built["summary_tokens"]
    wanted = [summary_key(each, author, size) for each in graph.items if len(each.descriptions) > 1]
    return summarised(graph, file.texts(wanted), author, size)


def _state(file: GraphFile, built: Json, unread: int) -> GraphState:
    graph = _built_graph(file, built)
    found = tuple(
        Community(int(id), int(level), None if parent is None else int(parent), tuple(map(str, members)))
        for id, level, parent, members in built["communities"]
    )
    keys = {int(id): key for id, key in built["reports"].items()}
    texts = file.texts(list(keys.values()))
    read: dict[str, CommunityReport] = {}  # one report may be that of many communities
    reports: dict[int, CommunityReport] = {}
    for each in found:
        key = keys.get(each.id)
        if key in texts:
            if key not in read:
                read[key] = CommunityReport.from_json(each, decoded_part(texts[key]))
            reports[each.id] = replace(read[key], community=each.id, level=each.level)
    return GraphState(graph, found, reports, built["extractor"], unread)


def verify_graph(file: GraphFile, index: ChunkIndex) -> list[str]:
    """Faults of a graph against its index, a sentence each; empty if there are none."""
    chunks = leaf_chunks(index)
    present = {chunk.id: chunk.document for chunk in chunks}
    states, keys = file.states(), {chunk.id: extraction_key(chunk) for chunk in chunks}
    faults = [
        f"the chunk {id} of {present[id]} is not in the graph"
        for id in _sorted(present)
        if states.keys().isdisjoint((id, keys[id]))
    ]
    for id in _sorted(chunk_id(key) for key in left_over(states, chunks)):
        told = f" under other headings than it has in {present[id]}" if id in present else ", which the index lacks"
        faults.append(f"the graph tells of the chunk {id}{told}")
    if unknown := sum(id in states for id in present if keys[id] != id):
        faults.append(
            f"{count_of(unknown, 'chunk')} may have been read under other headings: `firsthand rag graph` reads them again"
        )
    faults += [f"the chunk {each.chunk} of {each.document} failed: {each.reason}" for each in file.failed()]
    built = file.meta("built")
    if built is None:
        return [*faults, "the graph was not built to its end"]
    with _readable(file):
        return [*faults, *_build_faults(file, built, index.header)]


def vectors_fault(file: GraphFile, graph: KnowledgeGraph, header: IndexHeader) -> str | None:
    """The fault of stored vectors if none is of the graph's entities by the embedder of an index; None if there is none."""
    keys = [entity_key(each, header) for each in graph.entities]
    if not keys or not header.dimension or not file.has_vectors() or file.vectors(keys):
        return None
    return (
        "the vectors of its entities are not known to be of the index's embedder, as after `firsthand rag reindex` or of a "
        "graph made before 0.25.0: `firsthand rag graph` makes them anew, and keeps all else"
    )


def _build_faults(file: GraphFile, built: Json, header: IndexHeader) -> list[str]:
    graph = _built_graph(file, built)
    names = {name for edge in graph.edges for name in edge[:2]}
    members = {name for _, _, _, members in built["communities"] for name in members}
    fault = vectors_fault(file, graph, header)
    faults = [] if fault is None else [fault]
    faults += [f"the community of {name} is left over: it has no relation" for name in _sorted(members - names)]
    if not built.get("largest_component"):
        faults += [f"{name} is in no community" for name in _sorted(names - members)]
    keys = dict(built["reports"])
    stored = file.texts(list(keys.values()))
    faults += [f"the report of community {id} is missing" for id, key in keys.items() if key not in stored]
    without = [str(each[0]) for each in built["communities"] if str(each[0]) not in keys]
    return faults + [f"the community {id} has no report: the model's answer could not be read" for id in without]


def _sorted(names: Iterable[str]) -> list[str]:
    return sorted(names)
