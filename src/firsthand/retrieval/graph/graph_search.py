"""Local, global and DRIFT search over the graph of an index, each step an effect of the attempt.

What is read of the graph is a consultation, journalled and guarded like any retrieval; what is asked of the model is a
generation. An answer of the map step, or of DRIFT, that cannot be read is counted in the trace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from firsthand.context import Context
from firsthand.errors import ModelError, PromptTooLong, TransientError
from firsthand.grammar import json_schema
from firsthand.message import Json
from firsthand.patterns.parts.label_choice import choose
from firsthand.retrieval.corpus import Corpus
from firsthand.retrieval.graph.community_reports import CommunityReport
from firsthand.retrieval.graph.graph_context import (
    LocalShares,
    best_points,
    global_batches,
    local_context,
    matched_entities,
    packed,
    ranked_chunks,
    roots,
    shortened,
)
from firsthand.retrieval.graph.graph_data import Section, fenced
from firsthand.retrieval.graph.graph_model import parsed_object
from firsthand.retrieval.graph.graph_prompts import (
    POINTS_SCHEMA,
    STEP_SCHEMA,
    UNKNOWN,
    follow_up_prompt,
    local_prompt,
    map_prompt,
    primer_prompt,
    reduce_prompt,
    relevance_prompt,
)
from firsthand.retrieval.graph.leiden import Community
from firsthand.retrieval.graph.open_graph import chunks_of, open_graph

DIGITS = ("0", "1", "2", "3", "4", "5")


@dataclass
class GraphSearch:
    """Searches of one attempt."""

    ctx: Context
    corpus: Corpus
    """Read through the attempt's effect."""
    index: str
    shares: LocalShares = field(default_factory=LocalShares)
    level: int = 2
    """Reports of global search are of communities no finer than this."""
    batch_tokens: int = 12_000
    answer_tokens: int = 2000
    """The most tokens of an answer in JSON."""
    unreadable: int = 0
    """Answers of the map step or of DRIFT that could not be read, of those `asked`."""
    asked: int = 0
    _fault: ModelError | None = None

    # -- what is read --

    async def local_sections(self, question: str) -> list[Section]:
        """The context of a local search."""

        async def act(passed: Json) -> Sequence[Json]:
            text = str(passed["query"])
            graph = await asyncio.to_thread(open_graph, self.corpus, self.index)
            query = (await self.corpus.embed([text]))[0] if graph.vectors and self.corpus.embedder is not None else None
            state, k = graph.state, self.shares.entities
            matched = matched_entities(state.graph, text, k, vectors=graph.vectors, query=query)
            chunks = await asyncio.to_thread(chunks_of, self.corpus, ranked_chunks(state.graph, matched))
            sections = local_context(state, matched, chunks, self.shares)
            return [{"text": each.text, "label": each.label} for each in sections]

        return await self._read("graph_local", {"query": question, **vars(self.shares)}, act)

    async def batches(self, question: str) -> list[Section]:
        """The batches of reports of a global search."""

        async def act(passed: Json) -> Sequence[Json]:
            graph = await asyncio.to_thread(open_graph, self.corpus, self.index)
            texts = global_batches(graph.state, self.level, self.batch_tokens)
            return [{"text": text, "label": "reports on communities"} for text in texts]

        about = {"query": question, "level": self.level, "tokens": self.batch_tokens}
        return await self._read("graph_reports", about, act)

    async def reports(self, question: str, of: int | None) -> list[tuple[int, Section]]:
        """The reports of the sub-communities of a community, or of the coarsest ones, with their communities."""

        async def act(passed: Json) -> Sequence[Json]:
            state = (await asyncio.to_thread(open_graph, self.corpus, self.index)).state
            found: Sequence[Community] = roots(state) if of is None else state.children.get(of, ())
            known = state.reports or {}
            texts = [(each.id, known[each.id]) for each in found if each.id in known]
            return [_report_item(id, report, self.batch_tokens) for id, report in texts]

        items = await self.corpus.items("graph_children", {"query": question, "of": of}, act)
        return [(int(each["community"]), Section(str(each["label"]), str(each["text"]))) for each in items]

    async def nearest_reports(self, question: str, k: int) -> list[Section]:
        """The k reports of the whole graph at the level that share the most of the question's words and of its meaning.

        DRIFT begins with these. Reports are ranked by how many matched entities their community has, then by rating.
        """

        async def act(passed: Json) -> Sequence[Json]:
            text = str(passed["query"])
            graph = await asyncio.to_thread(open_graph, self.corpus, self.index)
            query = (await self.corpus.embed([text]))[0] if graph.vectors and self.corpus.embedder is not None else None
            matched = matched_entities(graph.state.graph, text, 4 * k, vectors=graph.vectors, query=query)
            names = {each.name for each in matched}
            known = graph.state.reports or {}
            scored = [
                (len(names.intersection(each.members)), known[each.id].rating, each.id)
                for each in graph.state.communities
                if each.id in known and each.level <= self.level
            ]
            best = sorted((each for each in scored if each[0]), key=lambda each: (-each[0], -each[1], each[2]))[:k]
            return [_report_item(id, known[id], self.batch_tokens // max(k, 1)) for _, _, id in best]

        return await self._read("graph_nearest", {"query": question, "k": k, "level": self.level}, act)

    async def _read(self, name: str, arguments: Json, act: object) -> list[Section]:
        items = await self.corpus.items(name, arguments, act)  # type: ignore[arg-type]
        return [Section(str(each["label"]), str(each["text"])) for each in items]

    # -- what is asked --

    async def local(self, question: str) -> str:
        """The answer to a question about entities, from their neighbourhood in the graph."""
        sections = await self.local_sections(question)
        if not sections:
            return UNKNOWN
        return (await self.ctx.say(local_prompt(question, fenced(question, sections))).generate()).text.strip()

    async def global_(self, question: str, *, dynamic: bool = False, threshold: int = 1) -> str:
        """The answer to a question about the whole: points of every batch of reports, the best of them made one answer.

        With `dynamic`, only reports are read that the model rates at `threshold` or more from 0 to 5, from the coarsest
        down: the sub-communities of an unfit one are not looked at.
        """
        batches = await self._chosen(question, threshold) if dynamic else await self.batches(question)
        found = await self.ctx.group(self._points(question, batch) for batch in batches)
        points = [point for each in found for point in each]
        self._noted()
        lines = best_points(points, self.batch_tokens)
        if not lines:
            return UNKNOWN
        data = fenced(question, [Section("points", "\n".join(lines))])
        return (await self.ctx.say(reduce_prompt(question, data)).generate()).text.strip()

    async def drift(self, question: str, *, follow_ups: int = 20, depth: int = 3, primer_reports: int = 5) -> str:
        """The answer of a search that begins with reports and follows up with local searches (DRIFT).

        Each local search may ask further questions; of those still open, the `follow_ups` whose parents scored highest are
        asked at each of `depth` levels. All answers, weighted by score, are made one.
        """
        reports = await self.nearest_reports(question, primer_reports)
        if not reports:
            return UNKNOWN
        first = await self._step(primer_prompt(question, fenced(question, reports)))
        answers = [(first.score, first.answer)] if first else []
        waiting = [(first.score, text) for text in first.follow_ups] if first else []
        asked = {question}
        for _ in range(depth):
            chosen: list[str] = []
            for _, text in sorted(waiting, key=lambda each: -each[0]):
                if text not in asked and len(chosen) < follow_ups:
                    asked.add(text)
                    chosen.append(text)
            if not chosen:
                break
            steps = await self.ctx.group(self._follow(text, question) for text in chosen)
            waiting = [(step.score, text) for step in steps if step for text in step.follow_ups]
            answers += [(step.score, step.answer) for step in steps if step]
        self._noted()
        lines = best_points(answers, self.batch_tokens)
        if not lines:
            return UNKNOWN
        data = fenced(question, [Section("answers to parts of the question", "\n".join(lines))])
        return (await self.ctx.say(reduce_prompt(question, data)).generate()).text.strip()

    async def _points(self, question: str, batch: Section) -> list[tuple[int, str]]:
        body = await self._json(map_prompt(question, fenced(question, [batch])), POINTS_SCHEMA)
        try:
            return [] if body is None else [(int(each["score"]), str(each["description"])) for each in body["points"]]
        except (KeyError, TypeError, ValueError) as error:
            self._unread(ModelError(f"a map answer is not of the schema: {type(error).__name__}: {str(error)[:80]}"))
            return []

    async def _follow(self, question: str, whole: str) -> _DriftStep | None:
        sections = await self.local_sections(question)
        if not sections:
            return None
        return await self._step(follow_up_prompt(question, whole, fenced(question, sections)))

    async def _step(self, prompt: str) -> _DriftStep | None:
        body = await self._json(prompt, STEP_SCHEMA)
        try:
            if body is None:
                return None
            return _DriftStep(str(body["answer"]), int(body["score"]), tuple(map(str, body["follow_ups"])))
        except (KeyError, TypeError, ValueError) as error:
            self._unread(ModelError(f"a step of DRIFT is not of the schema: {type(error).__name__}: {str(error)[:80]}"))
            return None

    async def _chosen(self, question: str, threshold: int) -> list[Section]:
        """The batches of those reports that are rated fit, found from the coarsest community down."""
        fit: list[str] = []
        queue: list[int | None] = [None]
        for level in range(self.level + 1):
            reports = [each for of in queue for each in await self.reports(question, of)]
            ratings = await self.ctx.group(self._rating(question, section) for _, section in reports)
            kept = [each for each, rating in zip(reports, ratings, strict=True) if rating >= threshold]
            self.ctx.note("graph_level", level=level, rated=len(reports), kept=len(kept))
            fit += [section.text for _, section in kept]
            queue = [community for community, _ in kept]
            if not queue:
                break
        return [Section("reports on communities", text) for text in packed(fit, self.batch_tokens)]

    async def _rating(self, question: str, section: Section) -> int:
        asked = self.ctx.say(relevance_prompt(question, fenced(question, [section])))
        return int((await choose(asked, DIGITS)).label)

    async def _json(self, prompt: str, schema: Json) -> Json | None:
        """The object of an answer; None, and counted, if it cannot be read."""
        self.asked += 1
        try:
            answer = await self.ctx.say(prompt).generate(grammar=json_schema(schema), max_tokens=self.answer_tokens)
            return parsed_object(answer.text)
        except (TransientError, PromptTooLong):
            raise
        except ModelError as error:
            self._unread(error)
            return None

    def _unread(self, error: ModelError) -> None:
        self.unreadable += 1
        self._fault = error

    def _noted(self) -> None:
        """Notes how many answers could not be read; raises the fault if none could, for then nobody knows what is known."""
        if self._fault is not None:
            self.ctx.note("graph_unreadable", answers=self.unreadable, of=self.asked)
            if self.unreadable == self.asked:
                raise self._fault


@dataclass(frozen=True)
class _DriftStep:
    answer: str
    score: int
    follow_ups: tuple[str, ...]


def _report_item(community: int, report: CommunityReport, tokens: int) -> Json:
    return {"text": shortened(report.text, tokens), "label": f"report: {report.title}", "community": community}
