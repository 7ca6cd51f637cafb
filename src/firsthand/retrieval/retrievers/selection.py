"""Choosing hits of a longer list: varied ones, few of each source, no near-duplicates, those of a filter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from firsthand.errors import ConfigError, UnknownName
from firsthand.message import Json
from firsthand.retrieval.chunk_index import ChunkIndex, Vectors
from firsthand.retrieval.corpus import NO_COSINES, Corpus, arguments_of
from firsthand.retrieval.hit_json import hit_from_json, hit_to_json
from firsthand.retrieval.retriever import Filter, Hit, Query, Retriever, TrailStep
from firsthand.retrieval.retrievers.context_windows import document_in
from firsthand.retrieval.retrievers.deeper_search import Choice, enough
from firsthand.retrieval.store.unspaced_words import spaced
from firsthand.retrieval.store.word_marks import words_with_marks

SHINGLE_WORDS = 5
_OF_DOCUMENT = ("source", "title")
"""Fields of the document itself, which no `meta` can state."""


def mmr(retriever: Retriever, corpus: Corpus, *, balance: float = 0.5, pool: int = 50) -> Retriever:
    """Maximal marginal relevance (Carbonell and Goldstein, 1998): the next hit is the one with the highest
    balance * cos(query, hit) - (1 - balance) * max cos(hit, chosen).

    The score is that value when it was chosen. Ties go to the hit that was ranked higher. A hit that is no chunk of the
    index (a widened one, or of a document that was deleted since) is embedded here.
    """
    if not 0 <= balance <= 1:
        raise ConfigError(f"balance is {balance}: give 0 (variety alone) to 1 (relevance alone)")

    async def found(query: Query, k: int) -> Sequence[Hit]:
        hits = list(await retriever(query, max(pool, k)))

        async def act(passed: Json) -> Sequence[Hit]:
            if not hits:
                return []
            asked = (
                np.asarray(query.vectors, np.float32) if query.vectors else await corpus.embed([str(passed["query"])])
            )
            vectors = await _vectors(corpus, hits)
            order = marginal_relevance((vectors @ asked.T).max(axis=1), vectors, balance, k)
            return _kept([replace(hits[place], score=score) for place, score in order], "mmr")

        return await corpus.read("mmr", arguments_of(query, k, hits=[hit.chunk.id for hit in hits]), act)

    return found


def marginal_relevance(relevance: Vectors, vectors: Vectors, balance: float, k: int) -> list[tuple[int, float]]:
    """At most k (place, marginal relevance), in the order of choice. `relevance` has an entry for each row of `vectors`."""
    chosen: list[tuple[int, float]] = []
    nearest = np.zeros(len(relevance), np.float32)
    free = np.ones(len(relevance), bool)
    for _ in range(min(k, len(relevance))):
        marginal = np.where(free, balance * relevance - (1 - balance) * nearest, -np.inf)
        best = int(np.argmax(marginal))
        nearest = vectors @ vectors[best] if not chosen else np.maximum(nearest, vectors @ vectors[best])
        chosen.append((best, float(marginal[best])))
        free[best] = False
    return chosen


def per_source(
    retriever: Retriever, corpus: Corpus | None = None, *, most: int = 2, by: str = "document", pool: int = 50
) -> Retriever:
    """At most `most` hits of each document, or of each value of another field: `source`, `title`, or a key of `meta`.

    One source that floods the index, planted or not, then fills no more than its share, and does not hide the others: where
    `pool` hits are too few, those of other sources are searched for. Each record of a JSONL file is a
    document of its own: by="source" bounds them all by their file. `source` and `title` are the document's own, as in
    filters, and are read from `corpus`; ConfigError if it is not given. A document without them, or that was deleted since,
    counts for itself; a hit whose `meta` has no such key is a source of its own.
    """
    if most < 1:
        raise ConfigError(f"most is {most}: keep 1 hit of each {by} or more")
    if by in _OF_DOCUMENT and corpus is None:
        raise ConfigError(
            f"by is {by!r}, which the index knows: give the corpus too, as in per_source(retriever, corpus)"
        )

    async def found(query: Query, k: int) -> Sequence[Hit]:
        async def by_value(hits: Sequence[Hit]) -> Choice:
            kept = _capped(hits, lambda hit: _value(hit, by), most, k)
            named = [(by, hit.chunk.document if by == "document" else hit.chunk.meta.get(by)) for hit in kept]
            return Choice(_kept(kept, "per_source"), _full(named, most))

        async def by_own(hits: Sequence[Hit]) -> Choice:
            assert corpus is not None
            return await _by_own_field(
                corpus, arguments_of(query, k, hits=[hit.chunk.id for hit in hits]), hits, by, most
            )

        choose = by_own if by in _OF_DOCUMENT else by_value
        return await enough(retriever, query, k, pool=pool, choose=choose)

    return found


async def _by_own_field(corpus: Corpus, arguments: Json, hits: Sequence[Hit], by: str, most: int) -> Choice:
    """At most `most` hits of each value of a field of documents, as a read of the corpus; items tell the value they count
    for, so that a resumed attempt knows it too."""

    def capped(index: ChunkIndex) -> list[Json]:
        own = cache(lambda document: getattr(index.document(document), by))

        def source(hit: Hit) -> tuple[str, str]:
            name = document_in(index, hit)
            try:
                return (by, found) if (found := own(name)) else ("document", name)
            except UnknownName:
                return ("document", name)

        kept = _kept(_capped(hits, source, most, int(arguments["k"])), "per_source")
        return [hit_to_json(hit) | {"counted_as": [*source(hit)]} for hit in kept]

    async def act(passed: Json) -> Sequence[Json]:
        return await corpus.ask(capped)

    items = await corpus.items("per_source", arguments, act)
    counted = [each["counted_as"] for each in items if "counted_as" in each]
    return Choice([hit_from_json(each) for each in items], _full(counted, most))


def _full(counted: Sequence[Sequence[object]], most: int) -> Filter:
    """The filter that leaves out the values, each given with its field, that stand `most` times in the list."""
    counts = Counter((str(field), value) for field, value in counted if isinstance(value, str))
    full = {field: [value for (name, value), count in counts.items() if name == field and count >= most]
            for field, _ in counts}  # fmt: skip
    return {field: {"not": sorted(values)} for field, values in full.items() if values}


def distinct(retriever: Retriever, *, similarity: float = 0.8, pool: int = 50) -> Retriever:
    """Leaves out hits whose five-word shingles overlap with those of a better one: Jaccard index of `similarity` or more.

    Where `pool` hits leave fewer than k, twice as many are searched, until k are kept or the search has no more.
    Words of scripts without blanks are the pairs of letters that are indexed (`unspaced_words`).
    """
    if not 0 < similarity <= 1:
        raise ConfigError(f"similarity is {similarity}: give a number above 0, up to 1 (equal texts alone)")

    async def found(query: Query, k: int) -> Sequence[Hit]:
        async def choose(hits: Sequence[Hit]) -> Choice:
            kept: list[Hit] = []
            seen: list[frozenset[str]] = []
            for hit in hits:
                if len(kept) == k:
                    break
                shingles = _shingles(hit.chunk.text)
                if all(_jaccard(shingles, other) < similarity for other in seen):
                    kept.append(hit)
                    seen.append(shingles)
            return Choice(_kept(kept, "distinct"), {})

        return await enough(retriever, query, k, pool=pool, choose=choose)

    return found


def where(retriever: Retriever, conditions: Filter) -> Retriever:
    """Searches only chunks that fulfil the conditions, besides the query's own.

    ConfigError for a query with another condition on the same field: neither may undo the other.
    """

    async def found(query: Query, k: int) -> Sequence[Hit]:
        for field, condition in conditions.items():
            if field in query.where and query.where[field] != condition:
                raise ConfigError(
                    f"the filter wants {field} {condition!r} and the query {query.where[field]!r}: leave it out of the query"
                )
        return await retriever(replace(query, where={**query.where, **conditions}), k)

    return found


async def above(corpus: Corpus, question: str, hits: Sequence[Hit], floor: float | None) -> list[Hit]:
    """The hits whose cosine is `floor` or more. None keeps all.

    The cosine is the one that a vector search found a hit with, else that of its vector with the question's. ConfigError if
    one is needed and the index has no vectors.
    """
    if floor is None:
        return list(hits)
    kept: set[str] = set()
    others: dict[str, Hit] = {}
    for hit in hits:
        cosines = [step.score for step in hit.trail if step.retriever == "dense"]
        if not cosines:
            others[hit.id] = hit
        elif max(cosines) >= floor:
            kept.add(hit.id)

    if others and corpus.embedder is None:
        raise ConfigError(f"floor is {floor}, and {NO_COSINES.format(name=corpus.name)}")

    async def act(passed: Json) -> Sequence[Hit]:
        [asked] = await corpus.embed([str(passed["query"])])
        near = (await _vectors(corpus, [*others.values()])) @ asked
        return [hit for hit, cosine in zip(others.values(), near, strict=True) if cosine >= floor]

    if others:
        arguments = arguments_of(Query(question), len(others), hits=[*others])
        kept |= {hit.id for hit in await corpus.read("floor", arguments, act)}
    return [hit for hit in hits if hit.id in kept]


async def _vectors(corpus: Corpus, hits: Sequence[Hit]) -> Vectors:
    """The vectors of hits, a row each: the index's own, and those of texts for hits that are not there."""

    def stored(index: ChunkIndex) -> dict[str, Vectors]:
        ids = [hit.id for hit in hits]
        try:
            return dict(zip(ids, index.vectors(ids), strict=True))
        except UnknownName:
            return {id: row for id in ids if (row := _stored_vector(index, id)) is not None}

    found = await corpus.ask(stored)
    texts = {hit.id: hit.chunk.indexed_text for hit in hits if hit.id not in found}
    if texts:
        found |= dict(zip(texts, await corpus.embed([*texts.values()], documents=True), strict=True))
    return np.array([found[hit.id] for hit in hits], np.float32)


def _stored_vector(index: ChunkIndex, id: str) -> Vectors | None:
    try:
        row: Vectors = index.vectors([id])[0]
    except UnknownName:
        return None
    return row


def _value(hit: Hit, by: str) -> object:
    """The document or a value of `meta`; without it, the id of the hit."""
    value = hit.chunk.document if by == "document" else hit.chunk.meta.get(by)
    return ("hit", hit.chunk.id) if value is None else repr(value)


def _capped(hits: Sequence[Hit], source: Callable[[Hit], object], most: int, k: int) -> list[Hit]:
    """The first k hits of which no source has more than `most`; the source of hits behind them is not asked for."""
    counts: Counter[object] = Counter()
    kept: list[Hit] = []
    for hit in hits:
        if len(kept) == k:
            break
        counts[key := source(hit)] += 1
        if counts[key] <= most:
            kept.append(hit)
    return kept


def _kept(hits: Sequence[Hit], name: str) -> list[Hit]:
    return [
        replace(hit, trail=(*hit.trail, TrailStep(name, rank, float(hit.score)))) for rank, hit in enumerate(hits, 1)
    ]


def _shingles(text: str) -> frozenset[str]:
    words = words_with_marks(spaced(text.casefold()))
    return frozenset(" ".join(words[i : i + SHINGLE_WORDS]) for i in range(max(1, len(words) - SHINGLE_WORDS + 1)))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)
