"""The numbers of a graph's construction: estimates, receipts, what is stored, and which answers of a model count."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, LimitExceeded, ModelError, TransientError
from firsthand.message import Message, user
from firsthand.model import Usage
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunk_index import IndexedDocument, IndexHeader
from firsthand.retrieval.document import Document
from firsthand.retrieval.graph.graph_build import (
    GraphEstimate,
    GraphSettings,
    build_graph,
    estimate,
)
from firsthand.retrieval.graph.graph_extraction import ExtractionSettings, extract, extract_all, joined
from firsthand.retrieval.graph.graph_file import GraphFile
from firsthand.retrieval.graph.graph_model import GraphModel, count_tokens, parsed_object
from firsthand.retrieval.graph.graph_prompts import ANY_LEFT, CONTINUE, extraction_prompt, extraction_schema
from firsthand.retrieval.graph.knowledge_graph import (
    ExtractedEntity,
    ExtractedRelation,
    Extraction,
)
from firsthand.retrieval.store.sqlite_index import SqliteIndex, open_index
from firsthand.sampling import Sampling

pytest.importorskip("graspologic_native")


def index_of(**texts: str) -> SqliteIndex:
    index = open_index(":memory:", IndexHeader("", "", 0, "whole", document_prefix="doc: "))
    index.put(
        [IndexedDocument(Document(id, text), [Chunk(id, 0, len(text), text)], None) for id, text in texts.items()]
    )
    return index


def body(*entities: tuple[str, str, str], relations: Sequence[tuple[str, str, str, Any]] = ()) -> dict[str, Any]:
    return {
        "entities": [dict(zip(("name", "type", "description"), each, strict=True)) for each in entities],
        "relations": [
            dict(zip(("source", "target", "description", "strength"), each, strict=True)) for each in relations
        ],
    }


# -- the estimate --


@pytest.mark.parametrize("gleanings", [0, 1, 2, 3])
def test_the_estimate_counts_every_prompt_with_what_was_said_before(gleanings: int) -> None:
    texts = {"short": "Ann met Bob.", "long": "x" * 1601, "limit": "y" * 1600}
    index = index_of(**texts)
    settings = GraphSettings(
        extraction=ExtractionSettings(types=("person", "geo"), gleanings=gleanings, max_answer_tokens=300)
    )
    tokens = calls = 0
    for text in texts.values():
        prompt = count_tokens(extraction_prompt(("person", "geo"), text))
        answer = min(300, 2 * count_tokens(text))
        conversation = prompt
        tokens += prompt + answer
        calls += 1
        for gleaning in range(1, gleanings + 1):
            conversation += answer + count_tokens(CONTINUE)
            tokens += conversation + answer
            calls += 1
            if gleaning < gleanings:  # are any left?
                tokens += conversation + answer
                calls += 1
    parts = 1 + 2 + 1
    assert estimate(None, index, settings) == GraphEstimate(3, calls + 2 * parts, tokens + 2200 * parts)
    assert estimate(None, index, GraphSettings(extractor="noun_phrases")) == GraphEstimate(3, 0, 0)


# -- a build --

NAMES = {"one": ("Ann", "Bob"), "two": ("Ann", "Cid"), "three": ("Dora", "Emil"), "four": ()}


def reader(messages: Sequence[Message], sampling: Sampling, index: int) -> str:
    first, last = messages[0].text, messages[-1].text
    for names in NAMES.values():
        if len(messages) == 1 and names and f"{names[0]} met {names[1]}" in first and "List every entity" in first:
            entities = [(name, "person", f"{name} of {'-'.join(names)}") for name in names]
            return json.dumps(body(*entities, relations=[(*names, "met", 5), (names[0], "Zoe", "orphan", 5)]))
    if last.startswith("These are descriptions"):
        assert sampling.max_tokens == 77
        return "  Ann in short \n"
    if last.startswith("The data below are the entities"):
        assert sampling.max_tokens == 88
        title = "Ann and others" if "ANN" in last else "Dora"
        return json.dumps({"title": title, "summary": "s", "rating": 3, "rating_explanation": "", "findings": []})
    return json.dumps(body())


def texts_of(*names: str) -> dict[str, str]:
    return {name: (f"{NAMES[name][0]} met {NAMES[name][1]}." if NAMES[name] else "Nobody.") for name in names}


SETTINGS = GraphSettings(extraction=ExtractionSettings(types=("person",)), summary_tokens=77, report_tokens=88)


class Embedder:
    name = fingerprint = "lengths"

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.asked += texts
        return [[float(len(text)), 1.0] for text in texts]


def test_a_receipt_counts_what_was_made_and_what_was_there(tmp_path: Path) -> None:
    index = index_of(**texts_of(*NAMES))
    file = GraphFile(tmp_path / "x.graph", create=True)
    model, embedder = Scripted(reader, name="scripted:m"), Embedder()

    def build(**more: Any) -> Any:
        return asyncio.run(build_graph(index, file, SETTINGS, model=model, embedder=embedder, **more))  # type: ignore[arg-type]

    receipt = build()
    usage = receipt.usage
    assert (receipt.extracted, receipt.reused, receipt.removed, receipt.without_entities) == (4, 0, 0, 1)
    assert (receipt.failed, receipt.failed_reports, receipt.entities, receipt.relations, receipt.orphans) == (
        (),
        (),
        5,
        3,
        3,
    )
    assert receipt.communities == {0: 2} and (receipt.summaries_made, receipt.reports_made, receipt.reports_reused) == (
        1,
        2,
        0,
    )
    assert receipt.calls == len(model.asked) == 4 * 2 + 1 + 2 and usage.total_tokens > 0
    assert sorted(embedder.asked) == [
        "doc: ANN: Ann in short", "doc: BOB: Bob of Ann-Bob", "doc: CID: Cid of Ann-Cid", "doc: DORA: Dora of Dora-Emil",
        "doc: EMIL: Emil of Dora-Emil",
    ]  # fmt: skip
    built = file.meta("built")
    assert built is not None and {key: built[key] for key in built if key not in ("communities", "reports")} == {
        "extractor": "model", "author": "scripted:m", "summary_tokens": 77, "phrases": None, "largest_component": False
    }  # fmt: skip
    assert [each[1:] for each in built["communities"]] == [
        [0, None, ["ANN", "BOB", "CID"]],
        [0, None, ["DORA", "EMIL"]],
    ]
    assert file.meta("reader") == {"extractor": "model", "model": "scripted:m", "types": ["person"], "gleanings": 1}
    embedder.asked.clear()
    again = build()
    assert (again.extracted, again.reused, again.calls, again.usage) == (0, 4, 0, Usage())
    assert (again.summaries_made, again.reports_made, again.reports_reused) == (1 - 1, 0, 2) and embedder.asked == []
    index.delete(["two"])
    less = build()
    assert (less.removed, less.reused, less.entities, less.orphans, less.summaries_made) == (1, 3, 4, 2, 0)
    assert (less.reports_made, less.reports_reused) == (1, 1) and embedder.asked == ["doc: ANN: Ann of Ann-Bob"]
    stored = file._rows("SELECT key FROM texts"), file._rows("SELECT key FROM vectors")
    assert (len(stored[0]), len(stored[1])) == (2, 4), "what is of no use any more is dropped"
    with pytest.raises(ConfigError) as raised:
        asyncio.run(build_graph(index, file, GraphSettings(extraction=ExtractionSettings(("geo",), 2)), model=model))
    assert str(raised.value) == (
        f"the graph {file.path} was made with types ['person'] (now ['geo']), gleanings 1 (now 2): use what it was made "
        "with, or give --rebuild"
    )
    file.close()


def test_a_chunk_that_failed_is_tried_again_unless_told_otherwise_and_a_report_that_fails_is_named(
    tmp_path: Path,
) -> None:
    index = index_of(**texts_of("one", "three"))
    file = GraphFile(tmp_path / "x.graph", create=True)
    bad = {"Dora", "report"}

    def failing(messages: Sequence[Message], sampling: Sampling, number: int) -> str:
        text = messages[-1].text
        if ("Dora met" in messages[0].text and "Dora" in bad) or (text.startswith("The data") and "report" in bad):
            return "no JSON"
        return reader(messages, sampling, number)

    def build(**more: Any) -> Any:
        return asyncio.run(build_graph(index, file, SETTINGS, model=Scripted(failing), **more))

    first = build()
    [failed] = first.failed
    assert (failed.chunk, failed.document) == (index.chunks("three")[0].id, "three")
    assert failed.reason.startswith("scripted answered 'no JSON', which does not fit the json_schema grammar")
    assert (first.extracted, first.reused, first.without_entities, first.reports_made) == (1, 0, 0, 0)
    assert first.failed_reports == ((0, failed.reason),)
    bad.clear()
    kept = build(retry_failed=False)
    assert (kept.extracted, kept.reused, len(kept.failed), kept.failed_reports, kept.reports_made) == (0, 2, 1, (), 1)
    again = build()
    assert (again.extracted, again.reused, again.failed, again.communities) == (1, 1, (), {0: 2})
    file.close()


def test_a_build_without_a_model_asks_none_and_one_by_a_model_needs_it(tmp_path: Path) -> None:
    index = index_of(**texts_of("one"))
    file = GraphFile(tmp_path / "x.graph", create=True)
    with pytest.raises(
        ConfigError, match=r"^extraction by a model needs one: give --model, or --extractor noun_phrases"
    ):
        asyncio.run(build_graph(index, file))
    with pytest.raises(ConfigError) as raised:
        asyncio.run(build_graph(index, file, SETTINGS, model=Scripted(reader), max_tokens=100))
    cost = estimate(file, index, SETTINGS)
    assert str(raised.value) == (
        f"building the graph would take about {cost.tokens} tokens in {cost.calls} calls, and the cap is 100: raise it, "
        "index fewer documents, or use --extractor noun_phrases, which asks no model"
    )
    model = Scripted(reader)
    asyncio.run(build_graph(index, file, GraphSettings(extractor="noun_phrases"), model=model, max_tokens=0))
    assert model.asked == [] and file.meta("reader") == {
        "extractor": "noun_phrases",
        "model": "",
        "types": [],
        "gleanings": 0,
    }
    built = file.meta("built")
    assert built is not None and built["author"] == "noun_phrases"
    assert built["phrases"] == {"min_frequency": 2, "min_edge_percentile": 40.0, "max_words": 3}
    file.close()


def test_the_cap_is_met_exactly_and_an_error_of_the_endpoint_ends_the_build() -> None:
    model = GraphModel(Scripted(lambda *_: "yes"), max_tokens=1)

    async def ask() -> None:
        await model.ask([user("a")], Sampling())
        model.max_tokens = model.usage.total_tokens + 1
        await model.ask([user("a")], Sampling())
        model.max_tokens = model.usage.total_tokens
        await model.ask([user("a")], Sampling())

    with pytest.raises(LimitExceeded, match=r"has used \d+ tokens of at most \d+: what is done is kept") as raised:
        asyncio.run(ask())
    assert model.calls == 2 and f"used {model.max_tokens} tokens of at most {model.max_tokens}:" in str(raised.value)

    class Gone(GraphModel):
        async def ask_json(self, *arguments: Any) -> Any:
            raise TransientError("the endpoint is gone")

    kept: list[Any] = []
    with pytest.raises(TransientError):
        asyncio.run(
            extract_all(Gone(Scripted([])), [Chunk("d", 0, 1, "x")], ExtractionSettings(), {Chunk("d", 0, 1, "x").id: "x"},
                        lambda *each: kept.append(each))
        )  # fmt: skip
    assert kept == []


def test_an_extraction_is_asked_for_again_until_none_are_left_or_the_gleanings_end() -> None:
    schema = extraction_schema(("person",))
    assert schema["properties"]["entities"]["items"]["properties"]["type"] == {"enum": ["person"]}
    assert schema["required"] == ["entities", "relations"] and schema["properties"]["relations"]["maxItems"] == 64

    def run(gleanings: int, left: str) -> tuple[list[tuple[int, str]], Extraction]:
        asked: list[tuple[int, str]] = []

        def script(messages: Sequence[Message], sampling: Sampling, index: int) -> str:
            asked.append((len(messages), messages[-1].text[:20]))
            if messages[-1].text == ANY_LEFT:
                return left
            return json.dumps(body((f"N{len(asked)}", "person", "")))

        settings = ExtractionSettings(("person",), gleanings, 50)
        found = asyncio.run(extract(GraphModel(Scripted(script)), Chunk("d", 0, 1, "x"), settings, "<x>"))
        return asked, found

    one, more, left = extraction_prompt(("person",), "<x>")[:20], CONTINUE[:20], ANY_LEFT[:20]
    assert run(0, "Y")[0] == [(1, one)] and run(1, "Y")[0] == [(1, one), (3, more)]
    assert run(3, "N")[0] == [(1, one), (3, more), (5, left)]
    asked, found = run(3, "Y")
    assert asked == [(1, one), (3, more), (5, left), (5, more), (7, left), (7, more)]
    assert [each.name for each in found.entities] == ["N1", "N2", "N4", "N6"] and found.chunk == Chunk(
        "d", 0, 1, "x"
    ).id


def test_answers_are_joined_each_item_once_with_strengths_from_1_to_10() -> None:
    first = body(("Ann", "person", "a"), ("Ann", "geo", "b"), (" ", "person", ""), ("Bob", "person", ""),
                 relations=[("Ann", "Bob", "met", 0), ("Bob", "Ann", "met", 99), ("Ann", "Bob", "paid", "2.5")])  # fmt: skip
    second = body(("Ann", "person", "later"), ("Cid", "person", "c"), relations=[("Ann", "Bob", "met", 7)])
    assert joined("c", [first, second], ("person",)) == Extraction(
        "c",
        (ExtractedEntity("Ann", "person", "a"), ExtractedEntity("Bob", "person", ""), ExtractedEntity("Cid", "person", "c")),
        (
            ExtractedRelation("Ann", "Bob", "met", 1.0), ExtractedRelation("Bob", "Ann", "met", 10.0),
            ExtractedRelation("Ann", "Bob", "paid", 2.5),
        ),
    )  # fmt: skip
    for wrong in (
        {},
        {"entities": []},
        body((1, "person", "")),
        body(relations=[("a", "b", "", float("nan"))]),  # type: ignore[arg-type]
        body(relations=[("a", "b", "", None)]),
        body(relations=[("a", "b", 3, 1)]),
    ):  # type: ignore[list-item]
        with pytest.raises(ModelError, match=r"^the answer is not of the schema: "):
            joined("c", [body(), wrong], ("person",))
    for text in ("[]", "3", "{", ""):
        with pytest.raises(ModelError, match="a JSON object was expected"):
            parsed_object(text)
    assert parsed_object('{"a": 1}') == {"a": 1}
    ExtractionSettings(("a",), 0, 1)
    for settings in ((("a",), -1, 1), ((), 1, 1), (("a", ""), 1, 1), (("a",), 1, 0)):
        with pytest.raises(ConfigError, match="give one type or more, 0 or more, and 1 or more"):
            ExtractionSettings(*settings)


@pytest.mark.slow
def test_a_build_ends_where_its_real_use_comes_to_the_cap_and_asks_so_many_at_a_time(tmp_path: Path) -> None:
    index = index_of(**texts_of(*NAMES))
    asking, most = 0, 0

    class Counted(Scripted):
        async def complete(self, prompt: Any, sampling: Sampling, *, tools: Any = (), n: int = 1) -> Any:
            nonlocal asking, most
            asking += 1
            most = max(most, asking)
            await asyncio.sleep(0)
            found = await super().complete(prompt, sampling, tools=tools, n=n)
            asking -= 1
            return [replace(each, usage=Usage(prompt_tokens=0, completion_tokens=used)) for each in found]

    for concurrency in (1, 3):
        file = GraphFile(tmp_path / f"{concurrency}.graph", create=True)
        cap, most = estimate(file, index, SETTINGS).tokens, 0
        used, model = cap, Counted(reader)
        with pytest.raises(LimitExceeded, match=rf"has used \d+ tokens of at most {cap}: what is done is kept"):
            asyncio.run(build_graph(index, file, SETTINGS, model=model, max_tokens=cap, concurrency=concurrency))
        assert (len(model.asked), most) == (concurrency, concurrency)
        used = 0
        asyncio.run(build_graph(index, file, SETTINGS, model=model, max_tokens=cap, concurrency=concurrency))
        file.close()
