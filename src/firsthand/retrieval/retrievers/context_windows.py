"""Small to big: what is found by small chunks is read with its neighbours, or as the larger chunk that holds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from firsthand.errors import ConfigError, UnknownName
from firsthand.message import Json
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import ChunkIndex
from firsthand.retrieval.corpus import Corpus, arguments_of
from firsthand.retrieval.retriever import Filter, Hit, Query, Retriever, TrailStep
from firsthand.retrieval.store.filter_conditions import matches


def neighbours(retriever: Retriever, corpus: Corpus, *, around: int = 1) -> Retriever:
    """Widens each hit by `around` chunks before and after it in its document; windows that touch become one hit.

    The hit keeps the score and the place of the best of its parts. A window ends before a chunk that the query's filter
    excludes; filter by the query, or by `where(neighbours(...), conditions)`, as a `where` within is not known here.
    """
    if around < 1:
        raise ConfigError(f"around is {around}: give 1 chunk or more on each side")

    async def found(query: Query, k: int) -> Sequence[Hit]:
        hits = await retriever(query, k)

        async def act(passed: Json) -> Sequence[Hit]:
            return await corpus.ask(lambda index: _widened(index, hits, around, query.where))

        return await corpus.read("neighbours", arguments_of(query, k, hits=[hit.chunk.id for hit in hits]), act)

    return found


def parents(retriever: Retriever, corpus: Corpus) -> Retriever:
    """Replaces each hit by the larger chunk that holds it, once for all hits within; a hit without a parent stays, and so
    does one whose parent was deleted since, or whose parent, or another chunk in it, is excluded by the query's filter."""

    async def found(query: Query, k: int) -> Sequence[Hit]:
        hits = await retriever(query, k)

        async def act(passed: Json) -> Sequence[Hit]:
            return await corpus.ask(lambda index: _parents(index, hits, query.where))

        return await corpus.read("parents", arguments_of(query, k, hits=[hit.chunk.id for hit in hits]), act)

    return found


def _parents(index: ChunkIndex, hits: Sequence[Hit], where: Filter) -> list[Hit]:
    whole: dict[str, Hit] = {}
    for hit in hits:
        parent = _parent(index, hit.chunk, where)
        read = hit if parent is None else replace(hit, chunk=parent, found_as="")
        whole.setdefault(read.id, read)
    return _stepped(list(whole.values()), "parents")


def _parent(index: ChunkIndex, chunk: Chunk, where: Filter) -> Chunk | None:
    """The chunk that holds this one; None if it has none, it or its document was deleted since, or a filter excludes it."""
    if chunk.parent is None:
        return None
    try:
        parent = index.chunk(chunk.parent)
        return parent if not where or _is_allowed(index, parent, where) else None
    except UnknownName:
        return None


def _is_allowed(index: ChunkIndex, parent: Chunk, where: Filter) -> bool:
    """True if a chunk and all chunks of its document that overlap it pass a filter."""
    chunks = index.chunks(parent.document)
    within = [chunk for chunk in chunks if chunk.start < parent.end and chunk.end > parent.start]
    return all(_passes(index, parent.document, within, where))


def _passes(index: ChunkIndex, id: str, chunks: Sequence[Chunk], where: Filter) -> list[bool]:
    """For each chunk of a document, True if it passes a filter."""
    if not where:
        return [True] * len(chunks)
    document = index.document(id)
    reserved = {"document": id, "source": document.source, "title": document.title}
    return [matches(where, chunk.meta, reserved) for chunk in chunks]


def _widened(index: ChunkIndex, hits: Sequence[Hit], around: int, where: Filter) -> list[Hit]:
    windows: dict[str, list[tuple[int, int, int]]] = {}
    """For each document its windows as (start, end, place of the hit)."""
    alone: list[tuple[int, Hit]] = []
    """Hits of documents that are no longer there, or whose name a guard replaced: they stay as they are."""
    for place, hit in enumerate(hits):
        if not _is_there(index, hit.chunk.document):
            alone.append((place, hit))
            continue
        level = _level_of(index, hit.chunk)
        spans = [(each.start, each.end) for each in level]
        here = next((i for i, span in enumerate(spans) if span == (hit.chunk.start, hit.chunk.end)), None)
        inside = _overlapping(spans, hit.chunk) if here is None else [here]
        start, end = hit.chunk.start, hit.chunk.end
        if inside:
            fit = _passes(index, hit.chunk.document, level, where)
            before = takewhile(fit.__getitem__, range(inside[0], max(-1, inside[0] - around - 1), -1))
            behind = takewhile(fit.__getitem__, range(inside[-1], min(len(level), inside[-1] + around + 1)))
            start, end = min([start, *(spans[at][0] for at in before)]), max([end, *(spans[at][1] for at in behind)])
        windows.setdefault(hit.chunk.document, []).append((start, end, place))
    merged: list[tuple[int, int, int, str]] = []
    for document, spans_of in windows.items():
        joined: list[tuple[int, int, int]] = []
        for start, end, place in sorted(spans_of):
            if joined and start <= joined[-1][1]:
                last_start, last_end, best = joined[-1]
                joined[-1] = (last_start, max(last_end, end), min(best, place))
            else:
                joined.append((start, end, place))
        merged += [(start, end, place, document) for start, end, place in joined]
    found = alone
    for start, end, place, document in merged:
        hit, text = hits[place], index.document(document).text
        found.append(
            (place, replace(hit, chunk=replace(hit.chunk, start=start, end=end, text=text[start:end]), found_as=""))
        )
    return _stepped([hit for _, hit in sorted(found, key=lambda each: each[0])], "neighbours")


def document_in(index: ChunkIndex, hit: Hit) -> str:
    """The id in the index of a hit's document: the hit's own, unless a guard replaced it and the chunk is still there."""
    try:
        return index.chunk(hit.found_as).document if hit.found_as else hit.chunk.document
    except UnknownName:
        return hit.chunk.document


def _is_there(index: ChunkIndex, id: str) -> bool:
    try:
        return bool(index.chunks(id))
    except UnknownName:
        return False


def _level_of(index: ChunkIndex, chunk: Chunk) -> list[Chunk]:
    """The chunks of the document that are beside this one: the children of its parent's level, and not parents of any."""
    chunks = index.chunks(chunk.document)
    holders = {each.parent for each in chunks if each.parent is not None}
    return [each for each in chunks if each.id not in holders]


def _overlapping(spans: Sequence[tuple[int, int]], chunk: Chunk) -> list[int]:
    """The places of the spans that a chunk overlaps, for one that is no chunk of the index."""
    return [i for i, (start, end) in enumerate(spans) if start < chunk.end and end > chunk.start]


def _stepped(hits: Sequence[Hit], name: str) -> list[Hit]:
    return [
        replace(hit, trail=(*hit.trail, TrailStep(name, rank, float(hit.score)))) for rank, hit in enumerate(hits, 1)
    ]
