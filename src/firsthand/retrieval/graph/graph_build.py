"""Builds the graph of an index, and brings it up to date: what is unchanged is not made again.

The steps are extraction (chunks that are new), merging, summaries (entities whose descriptions changed), division into
communities, and reports, the finest communities first. Extractions of chunks that the index no longer has are removed, and
with them every entity and relation that only those chunks told of; the graph is then not searched until the build's end, as
the former reports may tell of them too. Everything a model wrote is kept as soon as it is there, so that a build that is
broken off goes on where it ended.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from firsthand.errors import ConfigError, FirsthandError, LimitExceeded, ModelError, StoreError, TransientError
from firsthand.loop.concurrency import first_error
from firsthand.message import Json, user
from firsthand.model import Embedder, Model, Sampling, Usage
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import ChunkIndex
from firsthand.retrieval.graph.community_reports import (
    CommunityReport,
    community_data,
    extracted_report,
    report_key,
    write_report,
)
from firsthand.retrieval.graph.graph_data import Section, fenced
from firsthand.retrieval.graph.graph_extraction import ExtractionSettings, FailedChunk, extract_all
from firsthand.retrieval.graph.graph_file import GraphFile, decoded_part, extraction_key
from firsthand.retrieval.graph.graph_model import GraphModel, count_tokens
from firsthand.retrieval.graph.graph_prompts import CONTINUE, extraction_prompt, summary_prompt
from firsthand.retrieval.graph.graph_state import (
    described_name,
    entity_key,
    entity_text,
    graph_of,
    leaf_chunks,
    left_over,
    summarised,
    summary_key,
    text_key,
)
from firsthand.retrieval.graph.knowledge_graph import Entity, KnowledgeGraph, Relation
from firsthand.retrieval.graph.leiden import Community, LeidenSettings, communities
from firsthand.retrieval.graph.noun_phrases import NounPhraseSettings, noun_phrases

Extractor = Literal["model", "noun_phrases"]


@dataclass(frozen=True)
class GraphSettings:
    """Settings of a graph's construction; the defaults are GraphRAG's (3.x)."""

    extractor: Extractor = "model"
    """`noun_phrases` needs no model: phrases that occur together, and reports of the documents' own sentences."""
    extraction: ExtractionSettings = field(default_factory=ExtractionSettings)
    phrases: NounPhraseSettings = field(default_factory=NounPhraseSettings)
    leiden: LeidenSettings = field(default_factory=LeidenSettings)
    summary_tokens: int = 500
    """The most tokens of a description that a model makes of several."""
    report_tokens: int = 2000
    report_data_tokens: int = 8000
    """The most tokens of data that a report is made from."""


@dataclass(frozen=True)
class GraphEstimate:
    """The estimated cost of building, before any model is called."""

    chunks: int
    """Chunks that are to be read."""
    calls: int
    tokens: int
    """Prompts and answers together."""


@dataclass(frozen=True)
class GraphReceipt:
    """The outcome of a build."""

    extracted: int
    reused: int
    removed: int
    """Chunks whose extractions were removed because the index no longer has them, or has them under other headings."""
    without_entities: int
    """Chunks of the graph in which nothing was found: an answer that can be read, with an empty list."""
    failed: tuple[FailedChunk, ...]
    failed_reports: tuple[tuple[int, str], ...]
    """(community, reason) of each report that could not be read."""
    entities: int
    relations: int
    orphans: int
    """Extracted relations left out because one of their names is no entity."""
    communities: dict[int, int]
    """The number at each level."""
    summaries_made: int
    reports_made: int
    reports_reused: int
    calls: int
    usage: Usage


def estimate(file: GraphFile | None, index: ChunkIndex, settings: GraphSettings) -> GraphEstimate:
    """About what a build would cost.

    Prompts are counted. Answers are taken to have twice the tokens of their chunk, and every 400 tokens of text to need a
    report of 1,900 tokens and a summary of 300, as the GraphRAG fixture has it (LOG.md).
    """
    reader = None if file is None else file.meta("reader")
    states = file.states() if file is not None and reader and reader.get("extractor") == settings.extractor else {}
    chunks = [chunk for chunk in leaf_chunks(index) if states.get(extraction_key(chunk)) != "done"]
    if settings.extractor != "model":
        return GraphEstimate(len(chunks), 0, 0)
    gleanings, types = settings.extraction.gleanings, settings.extraction.types
    calls = tokens = 0
    for chunk in chunks:
        prompt = count_tokens(extraction_prompt(types, chunk.indexed_text))
        answer = min(settings.extraction.max_answer_tokens, 2 * count_tokens(chunk.indexed_text))
        calls += 1 + gleanings + max(0, gleanings - 1)
        tokens += prompt + answer
        for gleaning in range(1, gleanings + 1):
            before = prompt + gleaning * (answer + count_tokens(CONTINUE))
            tokens += before + answer + (before + answer if gleaning < gleanings else 0)
    parts = sum(-(-count_tokens(chunk.indexed_text) // 400) for chunk in chunks)
    return GraphEstimate(len(chunks), calls + 2 * parts, tokens + 2200 * parts)


async def build_graph(
    index: ChunkIndex,
    file: GraphFile,
    settings: GraphSettings | None = None,
    *,
    model: Model | None = None,
    embedder: Embedder | None = None,
    max_tokens: int | None = None,
    retry_failed: bool = True,
    concurrency: int = 4,
) -> GraphReceipt:
    """Builds or updates the graph of an index.

    ConfigError if the estimate is above `max_tokens`, before anything is asked; LimitExceeded if the real use comes there,
    which keeps what is done. Chunks that failed before are tried again unless told otherwise.
    """
    settings = settings or GraphSettings()
    if settings.extractor == "model" and model is None:
        raise ConfigError(
            "extraction by a model needs one: give --model, or --extractor noun_phrases, which needs none"
        )
    reader = _checked_reader(file, settings, model)
    if max_tokens is not None and (cost := estimate(file, index, settings)).tokens > max_tokens:
        raise ConfigError(
            f"building the graph would take about {cost.tokens} tokens in {cost.calls} calls, and the cap is {max_tokens}: "
            "raise it, index fewer documents, or use --extractor noun_phrases, which asks no model"
        )
    asked = None if model is None or settings.extractor != "model" else GraphModel(model, max_tokens, concurrency)
    with file.writing():
        file.put_meta("reader", reader)
        return await _Build(index, file, settings, asked, embedder).run(retry_failed)


def _checked_reader(file: GraphFile, settings: GraphSettings, model: Model | None) -> Json:
    """The extractor of the chunks. ConfigError if the stored extractions were made otherwise."""
    reader: Json = {"extractor": settings.extractor, "model": "", "types": [], "gleanings": 0}
    if settings.extractor == "model" and model is not None:
        reader |= {
            "model": model.name,
            "types": list(settings.extraction.types),
            "gleanings": settings.extraction.gleanings,
        }
    known = file.meta("reader")
    if known is not None and known != reader and file.states():
        was = ", ".join(
            f"{key} {known.get(key)!r} (now {reader[key]!r})" for key in reader if known.get(key) != reader[key]
        )
        raise ConfigError(f"the graph {file.path} was made with {was}: use what it was made with, or give --rebuild")
    return reader


@dataclass
class _Build:
    index: ChunkIndex
    file: GraphFile
    settings: GraphSettings
    model: GraphModel | None
    embedder: Embedder | None

    async def run(self, retry_failed: bool) -> GraphReceipt:
        chunks = await asyncio.to_thread(leaf_chunks, self.index)
        states = self.file.states()
        gone = left_over(states, chunks)
        self.file.forget(
            gone
        )  # with the record of the former build: should this one not come to its end, nothing is searched
        kept = {"done"} if retry_failed else {"done", "failed"}
        new = [chunk for chunk in chunks if states.get(extraction_key(chunk)) not in kept]
        await self._extract(new)
        extractions = self.file.extractions()
        graph = graph_of(extractions, self.settings.extractor, self.settings.phrases)
        summary_keys, summaries_made = await self._summarise(graph)
        author, size = self._author, self.settings.summary_tokens
        graph = summarised(graph, self.file.texts(summary_keys), author, size)
        found = communities(graph.edges, self.settings.leiden)
        report_keys, made, failed_reports = await self._report(graph, found, {chunk.id: chunk for chunk in chunks})
        vector_keys = await self._embed(graph)
        self.file.put_meta("built", self._built(found, report_keys))
        self.file.drop_others([*summary_keys, *report_keys.values()], vector_keys)
        levels: dict[int, int] = {}
        for each in found:
            levels[each.level] = levels.get(each.level, 0) + 1
        stored = self.file.states()
        return GraphReceipt(
            extracted=sum(stored.get(extraction_key(chunk)) == "done" for chunk in new),
            reused=len(chunks) - len(new),
            removed=len(gone),
            without_entities=sum(not each.entities for each in extractions),
            failed=tuple(self.file.failed()),
            failed_reports=tuple(failed_reports),
            entities=len(graph.entities),
            relations=len(graph.relations),
            orphans=graph.orphans,
            communities=dict(sorted(levels.items())),
            summaries_made=summaries_made,
            reports_made=made,
            reports_reused=len(report_keys) - made,
            calls=0 if self.model is None else self.model.calls,
            usage=Usage() if self.model is None else self.model.usage,
        )

    @property
    def _author(self) -> str:
        return self.settings.extractor if self.model is None else self.model.model.name

    def _built(self, found: Sequence[Community], report_keys: dict[int, str]) -> Json:
        return {
            "extractor": self.settings.extractor,
            "author": self._author,
            "summary_tokens": self.settings.summary_tokens,
            "phrases": asdict(self.settings.phrases) if self.settings.extractor == "noun_phrases" else None,
            "largest_component": self.settings.leiden.largest_component,
            "communities": [[each.id, each.level, each.parent, list(each.members)] for each in found],
            "reports": {str(id): key for id, key in report_keys.items()},
        }

    async def _extract(self, new: Sequence[Chunk]) -> None:
        if self.model is None:
            for chunk in new:
                self.file.keep(chunk, noun_phrases(chunk, self.settings.phrases))
            return
        data = {chunk.id: fenced(chunk.id, [Section(f"from {chunk.document}", chunk.indexed_text)]) for chunk in new}
        await extract_all(self.model, new, self.settings.extraction, data, self.file.keep)

    async def _summarise(self, graph: KnowledgeGraph) -> tuple[list[str], int]:
        """The keys of all summaries of the graph, and how many were made now. One that fails is joined descriptions."""
        model, size = self.model, self.settings.summary_tokens
        if model is None:
            return [], 0
        several = [each for each in graph.items if len(each.descriptions) > 1]
        keys = {summary_key(each, self._author, size): each for each in several}
        missing = keys.keys() - self.file.texts(list(keys)).keys()

        async def one(key: str, each: Entity | Relation) -> None:
            name = described_name(each)
            sections = [Section(f"description {number}", text) for number, text in enumerate(each.descriptions, 1)]
            prompt = summary_prompt(name, fenced(name, sections))
            completion = await model.ask([user(prompt)], Sampling(max_tokens=size))
            self.file.put_text(key, completion.message.text.strip() or " ".join(each.descriptions))

        await _together(one(key, keys[key]) for key in sorted(missing))
        return list(keys), len(missing)

    async def _report(
        self, graph: KnowledgeGraph, found: Sequence[Community], chunks: dict[str, Chunk]
    ) -> tuple[dict[int, str], int, list[tuple[int, str]]]:
        """The key of each community's report, how many were made now, and those that failed."""
        keys: dict[int, str] = {}
        reports: dict[int, CommunityReport] = {}
        failed: list[tuple[int, str]] = []
        made = 0
        largest = max((len(each.members) for each in found), default=0)

        async def one(community: Community) -> None:
            nonlocal made
            below = [(each, reports[each.id]) for each in found if each.parent == community.id and each.id in reports]
            data = community_data(graph, community, below, self.settings.report_data_tokens)
            size = self.settings.report_tokens
            if self.model is None:
                report = extracted_report(graph, community, chunks, largest, size)
                key = text_key("extracted report", report.to_json())
            else:
                key = report_key(self._author, data, size)
            if stored := self.file.texts([key]):
                report = self._stored_report(community, stored[key])
            else:
                if self.model is not None:
                    try:
                        report = await write_report(self.model, community, data, size)
                    except (LimitExceeded, TransientError):
                        raise
                    except FirsthandError as error:
                        failed.append((community.id, str(error)))
                        return
                self.file.put_text(key, json.dumps(report.to_json(), sort_keys=True))
                made += 1
            keys[community.id], reports[community.id] = key, report

        for level in sorted({each.level for each in found}, reverse=True):
            await _together(one(each) for each in found if each.level == level)
        return dict(sorted(keys.items())), made, sorted(failed)

    def _stored_report(self, community: Community, text: str) -> CommunityReport:
        try:
            return CommunityReport.from_json(community, decoded_part(text))
        except (ValueError, ModelError) as error:
            raise StoreError(f"{self.file.path} is damaged ({error}): delete it and build the graph again") from None

    async def _embed(self, graph: KnowledgeGraph) -> list[str]:
        """The keys of the vectors of all entities, which are computed where they are missing."""
        if self.embedder is None:
            return []
        texts = {entity_key(each, self.index.header): entity_text(each) for each in graph.entities}
        known = self.file.vectors(list(texts))
        missing = [key for key in texts if key not in known]
        prefix = self.index.header.document_prefix
        if missing:
            vectors = await self.embedder.embed([prefix + texts[key] for key in missing])
            self.file.put_vectors(dict(zip(missing, vectors, strict=True)))  # type: ignore[arg-type]
        return list(texts)


async def _together(coroutines: Iterable[Awaitable[Any]]) -> None:
    """Run them all; the first error ends the others."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for each in coroutines:
                tasks.create_task(each)  # type: ignore[arg-type]
    except BaseExceptionGroup as errors:
        raise first_error(errors) from None
