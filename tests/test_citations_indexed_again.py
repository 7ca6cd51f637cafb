"""Citations of a document that was indexed again after it was found: hash and line are those of the text that is quoted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.answers.answering import extract
from firsthand.retrieval.answers.citations import HitPlace, holds, label_of, locate
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.corpus import Corpus
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.rag_effect import effect_of
from firsthand.retrieval.retriever import Hit, Query
from firsthand.retrieval.retrievers.searches import SEARCHES
from firsthand.retrieval.store.index_file import MEMORY
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.rollout import rollout
from firsthand.task import Task

ID, SOURCE = "policy.md", "/data/policy.md"
BEFORE = "Terms.\nRefunds are paid within 30 days.\nAsk sk-12345."
SPAN = (7, 39)
PASSAGE = BEFORE[slice(*SPAN)]


def indexed(corpus: Corpus, text: str, locations: tuple[Location, ...] = ()) -> Document:
    """The document, as the index has it from now on; each line is a chunk."""
    document = Document(ID, text, source=SOURCE, locations=locations)
    starts = [0, *(at + 1 for at, letter in enumerate(text) if letter == "\n")]
    ends = [start + len(text[start:].split("\n")[0]) for start in starts]
    chunks = [Chunk(ID, *span, text[slice(*span)]) for span in zip(starts, ends, strict=True)]
    corpus.index.put([IndexedDocument(document, chunks, None)])
    return document


def found(text: str = BEFORE, locations: tuple[Location, ...] = ()) -> tuple[Corpus, Sequence[Hit]]:
    """A corpus of one document, and the passage about refunds in it."""
    corpus = Corpus(open_index(MEMORY, IndexHeader("", "", 0, "by hand")))
    indexed(corpus, text, locations)
    return corpus, asyncio.run(SEARCHES["lexical"](corpus)(Query("refunds paid"), 1))


@pytest.mark.parametrize(
    "after",
    [
        "Nothing else.\n\nNo refunds are paid any more.\n",
        BEFORE.replace("30", "40"),
        BEFORE.replace("days.", "days?"),
        "\n" + BEFORE,
        BEFORE[:38],
        "",
    ],
)
def test_a_passage_that_no_longer_stands_at_its_span_has_no_hash_line_or_mark(after: str) -> None:
    page = (Location(0, "page", "1"),)
    corpus, hits = found(locations=page)
    assert [(hit.chunk.start, hit.chunk.end, hit.chunk.text) for hit in hits] == [(*SPAN, PASSAGE)]
    indexed(corpus, after, page)
    [place] = asyncio.run(locate(corpus, hits))
    assert place == HitPlace("", SOURCE, 0, ())
    assert label_of(hits[0], place, hits[0].chunk.start) == ID
    [cited] = asyncio.run(extract("When are refunds paid?", hits, corpus)).citations
    assert (cited.sha256, cited.label, cited.source, cited.quote) == ("", ID, SOURCE, PASSAGE)


def test_a_passage_that_still_stands_at_its_span_is_cited_in_the_text_of_now() -> None:
    corpus, hits = found()
    [cited] = asyncio.run(extract("When are refunds paid?", hits, corpus)).citations
    now = indexed(corpus, "Terms,\n" + BEFORE[7:] + " And more.")
    assert not holds(cited, now)
    [again] = asyncio.run(extract("When are refunds paid?", hits, corpus)).citations
    assert holds(again, now) and again.label == f"{ID}:2" and again.sha256 == now.sha256 != cited.sha256


def test_a_passage_that_a_guard_rewrote_is_cited_without_hash_and_line_and_the_others_with_theirs() -> None:
    corpus, _ = found()

    async def pattern(task: Task, ctx: Context) -> str:
        read = corpus.through(effect_of(ctx))
        hits = [(await SEARCHES["lexical"](read)(Query(query), 1))[0] for query in ("ask", "refunds")]
        assert [hit.chunk.text for hit in hits] == ["Ask [redacted].", PASSAGE]
        return json.dumps([[place.sha256, place.source, place.line] for place in await locate(read, hits)])

    guard = catalog.guards(["redact:pattern=sk-[0-9]+"])
    trace = asyncio.run(rollout(Agent("a", Scripted([]), pattern, guard=guard), Task("t", "When?")))
    assert json.loads(trace.answer) == [["", SOURCE, 0], [corpus.index.document(ID).sha256, SOURCE, 2]]
