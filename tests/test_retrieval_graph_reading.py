"""How a model reads chunks into a graph: gleanings, what is kept of its answers, and chunks that it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from firsthand.errors import LimitExceeded
from firsthand.message import Message
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.graph.graph_extraction import ExtractionSettings, FailedChunk, extract, extract_all
from firsthand.retrieval.graph.graph_model import GraphModel
from firsthand.retrieval.graph.graph_prompts import ANY_LEFT, CONTINUE, extraction_prompt
from firsthand.retrieval.graph.knowledge_graph import ExtractedEntity, ExtractedRelation, Extraction
from graph_endpoint import Endpoint, body, scripted, sizes


def test_gleanings_go_on_while_some_are_left_and_each_thing_is_kept_once() -> None:
    chunk = Chunk("d", 0, 3, "abc")
    replies = iter([body("A", strength=99), "Y", body("B", " ", strength=3, description="s")])
    first = body("A", types=("person", "odd"), strength=-4)
    seen: list[list[str]] = []

    def reply(messages: Sequence[Message]) -> str:
        seen.append([each.text for each in messages])
        return first if len(seen) == 1 else next(replies)

    model = GraphModel(Endpoint(reply))  # type: ignore[arg-type]
    settings = ExtractionSettings(("person", "geo"), gleanings=2, max_answer_tokens=77)
    found = asyncio.run(extract(model, chunk, settings, "<text>"))
    assert found == Extraction(
        chunk.id,
        (ExtractedEntity("A", "person", "dA"), ExtractedEntity("B", "person", "dB")),
        (ExtractedRelation("A", "B", "r", 1.0), ExtractedRelation("A", "B", "s", 3.0)),
    )
    asking = [extraction_prompt(("person", "geo"), "<text>"), first, CONTINUE]
    second = body("A", strength=99)
    assert seen == [asking[:1], asking, [*asking, second, ANY_LEFT], [*asking, second, CONTINUE]]
    assert model.calls == 4
    assert sizes(model.model) == [77, 77, 8, 77] and model.usage.prompt_tokens == 400
    for answer, calls in (("N", 3), ("maybe", 3)):
        script = iter([body("A"), body("B"), answer])
        model = GraphModel(Endpoint(lambda _, script=script: next(script)))  # type: ignore[misc, arg-type]
        asyncio.run(extract(model, chunk, settings, "x"))
        assert model.calls == calls
    model = GraphModel(Endpoint(lambda _: body("A")))  # type: ignore[arg-type]
    assert asyncio.run(extract(model, chunk, replace(settings, gleanings=0), "x")).entities[0].name == "A"


def test_chunks_that_cannot_be_read_are_kept_with_their_reasons_in_the_order_of_documents() -> None:
    chunks = [Chunk("z", 0, 1, "a"), Chunk("b", 4, 5, "b"), Chunk("b", 0, 1, "c"), Chunk("a", 0, 1, "d")]
    marks = {chunk.id: f"<{chunk.text}>" for chunk in chunks}
    kept: list[Any] = []

    def reply(said: str) -> str:
        return body("A") if "<b>" in said else "[]" if "<d>" in said else body("A", strength="much")

    model = GraphModel(scripted(reply))
    settings = ExtractionSettings(gleanings=0)
    failed = asyncio.run(extract_all(model, chunks, settings, marks, lambda chunk, found: kept.append((chunk, found))))
    schema = "the answer is not of the schema: ValueError: could not convert string to float: 'much'"
    expected = [
        FailedChunk(chunks[3].id, "a", "the answer is '[]': a JSON object was expected"),
        FailedChunk(chunks[2].id, "b", schema),
        FailedChunk(chunks[0].id, "z", schema),
    ]
    assert failed == expected
    done = Extraction(chunks[1].id, (ExtractedEntity("A", "person", "dA"),))
    assert {chunk.id: found for chunk, found in kept} == {**{each.chunk: each for each in expected}, done.chunk: done}
    capped = GraphModel(scripted(reply), max_tokens=1, concurrency=1)
    with pytest.raises(LimitExceeded, match=r"^building the graph has used \d+ tokens of at most 1: what is done"):
        asyncio.run(extract_all(capped, chunks, settings, marks, lambda chunk, found: None))
