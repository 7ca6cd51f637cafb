"""Guards judge a passage whole: its text, heading, document, label and meta; what they withhold is in no trace."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.guard import GuardVerdict
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.answers.citations import locate
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.corpus import Corpus
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.rag_effect import effect_of
from firsthand.retrieval.retriever import Hit, Query
from firsthand.retrieval.retrievers.context_windows import neighbours
from firsthand.retrieval.store.index_file import MEMORY
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tool import tool
from firsthand.trace import Trace

SECRET = "sk-12345"
FIELDS = {
    "heading": f"Keys {SECRET} > The mill",
    "document": f"{SECRET}.md",
    "source": f"/notes/{SECRET}.md",
    "label": f"report: {SECRET}",
    "meta": {"tags": ["mills", {"owner": SECRET}]},
    "marks": [[0, "heading", SECRET]],
    "key": {SECRET: 1},
}
PLAIN = {"id": "1", "document": "b.md", "heading": "The inn", "text": "The inn is old.", "meta": {"year": 1999}}


class Withholds:
    def result(self, view, tool, result):
        if "sk-" in result.content:
            return GuardVerdict.blocked("secrets", "holds a key")
        return GuardVerdict.passed("secrets")


class Counts:
    def __init__(self):
        self.seen: list[str] = []

    def result(self, view, tool, result):
        self.seen.append(result.content)
        return GuardVerdict.passed("counts")


class Warns:
    def result(self, view, tool, result):
        return GuardVerdict.replaced("warns", replace(result, content=f"Careful.\n\n{result.content}"))


@tool(effect="read")
def documents(query: str) -> str:
    """Finds passages."""
    return query


def consulted(items, guard) -> Trace:
    async def pattern(task: Task, ctx: Context) -> str:
        async def ask(arguments):
            return items

        return json.dumps(await ctx.consult(documents, {"query": "mill"}, ask))

    return asyncio.run(rollout(Agent("a", Scripted(["done"]), pattern, guard=guard), Task("t", "When?")))


@pytest.mark.parametrize("field", FIELDS)
def test_a_passage_with_a_secret_in_any_field_is_withheld_and_in_no_trace(field):
    trace = consulted([{"text": "The mill is old.", field: FIELDS[field]}, PLAIN], Withholds())
    assert json.loads(trace.answer) == [PLAIN]
    assert SECRET not in json.dumps(trace.to_json())


@pytest.mark.parametrize("field", [*FIELDS, "text"])
def test_a_secret_is_redacted_in_every_field_of_a_passage_and_in_no_trace(field):
    given = {"text": "The mill is old."} | FIELDS | {field: FIELDS.get(field, SECRET)}
    (item,) = json.loads(consulted([given], catalog.guards(["redact:pattern=sk-[0-9]+"])).answer)
    assert item == json.loads(json.dumps(given).replace(SECRET, "[redacted]"))
    assert SECRET not in json.dumps(consulted([given], catalog.guards(["redact:pattern=sk-[0-9]+"])).to_json())


def test_a_passage_is_judged_once_with_its_names_before_its_text():
    counts = Counts()
    trace = consulted([PLAIN, {"text": "alone"}], counts)
    assert counts.seen == ["b.md\n\nThe inn\n\nyear\n\nThe inn is old.", "alone"]
    assert json.loads(trace.answer) == [PLAIN, {"text": "alone"}]


def test_a_guard_that_adds_a_paragraph_changes_each_text_by_itself():
    (item,) = json.loads(consulted([PLAIN], Warns()).answer)
    assert item["text"] == "Careful.\n\nThe inn is old." and item["heading"] == "Careful.\n\nThe inn"
    assert (item["id"], item["meta"]) == ("1", {"Careful.\n\nyear": 1999})


def test_a_heading_of_two_paragraphs_is_redacted_in_its_place():
    given = {"heading": f"The\n\nmill {SECRET}", "text": "It is\n\nold."}
    (item,) = json.loads(consulted([given], catalog.guards(["redact:pattern=sk-[0-9]+"])).answer)
    assert item == {"heading": "The\n\nmill [redacted]", "text": "It is\n\nold."}


def test_the_original_of_a_tools_result_is_still_in_the_trace():
    @tool(effect="read")
    def read() -> str:
        """Reads."""
        return SECRET

    async def pattern(task: Task, ctx: Context) -> str:
        from firsthand.message import ToolCall

        return (await ctx.call(ToolCall("1", "read", {}))).content

    guard = catalog.guards(["redact:pattern=sk-[0-9]+"])
    trace = asyncio.run(rollout(Agent("a", Scripted([]), pattern, tools=(read,), guard=guard), Task("t", "When?")))
    assert trace.answer == "[redacted]"
    assert [each.data["original"] for each in trace.events if each.kind == "guard"] == [SECRET]


def corpus_of(name: str) -> Corpus:
    text = "The mill is old. It stands here."
    index = open_index(MEMORY, IndexHeader("", "", 0, "by hand"))
    document = Document(name, text, locations=(Location(0, "heading", f"Keys {SECRET}"),))
    index.put([IndexedDocument(document, [Chunk(name, 0, 16, text[:16]), Chunk(name, 17, 32, text[17:])], None)])
    return Corpus(index)


def test_a_place_that_a_guard_withholds_leaves_the_others_in_order():
    corpus, hit = corpus_of("a.md"), Hit(Chunk("a.md", 0, 16, "The mill is old."), 1.0)
    other = Hit(Chunk("gone.md", 0, 3, "The"), 1.0)

    async def pattern(task: Task, ctx: Context) -> str:
        places = await locate(corpus.through(effect_of(ctx)), [hit, other, hit])
        return json.dumps([[place.line, place.marks] for place in places])

    trace = asyncio.run(rollout(Agent("a", Scripted([]), pattern, guard=Withholds()), Task("t", "When?")))
    assert json.loads(trace.answer) == [[0, []]] * 3
    assert SECRET not in json.dumps(trace.to_json())


def test_neighbours_of_a_document_whose_name_was_redacted_are_the_hit_alone():
    corpus = corpus_of(f"{SECRET}.md")

    async def pattern(task: Task, ctx: Context) -> str:
        async def found(query, k):
            return [
                Hit(Chunk("[redacted].md", 0, 16, "The mill is old."), 2.0),
                Hit(Chunk(f"{SECRET}.md", 17, 32, "It stands here."), 1.0),
            ]

        hits = await neighbours(found, corpus.through(effect_of(ctx)))(Query("mill"), 2)
        return " | ".join(each.chunk.text for each in hits)

    trace = asyncio.run(rollout(Agent("a", Scripted([]), pattern), Task("t", "When?")))
    assert trace.answer == "The mill is old. | The mill is old. It stands here."
