"""Graph RAG, whole: each request with its settings, each read with what it found, with words and with vectors."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, ModelError, PromptTooLong, TransientError
from firsthand.grammar import json_schema
from firsthand.loop.concurrency import Retry
from firsthand.model import Completion
from firsthand.providers.scripted import Scripted
from firsthand.retrieval import corpus
from firsthand.retrieval.chunk_index import IndexedDocument
from firsthand.retrieval.corpus import open_corpus
from firsthand.retrieval.document import Document
from firsthand.retrieval.graph.graph_context import LocalShares
from firsthand.retrieval.graph.graph_data import Section, fenced
from firsthand.retrieval.graph.graph_file import GraphFile, graph_path
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
from firsthand.retrieval.graph.graph_search import GraphSearch
from firsthand.retrieval.graph.graph_state import text_key
from firsthand.retrieval.graph.open_graph import check_graph, chunks_of, open_graph
from firsthand.retrieval.rag.graph_rag import graph_rag
from firsthand.retrieval.rag_effect import corpus_in
from firsthand.retrieval.store.sqlite_index import SqliteIndex
from firsthand.sampling import Sampling
from firsthand.task import Task
from graph_handmade import REPORTS, handmade, report_text
from opened_context import Opened

ASK = "What did Ann pay Cid?"
TASK = Task("t", ASK)
HEAT = {"temperature": 0.5}
STEP = {**HEAT, "grammar": json_schema(STEP_SCHEMA), "max_tokens": 2000}


@pytest.fixture
def made(tmp_path: Path) -> Iterator[tuple[Path, SqliteIndex]]:
    path, index = handmade(tmp_path)
    yield path, index
    corpus.close_corpora()
    index.close()


class Heedless(Scripted):
    """A model that takes no notice of grammars, as an endpoint may."""

    async def complete(self, prompt: Any, sampling: Sampling, *, tools: Any = (), n: int = 1) -> list[Completion]:
        made = await super().complete(prompt, replace(sampling, grammar=None), tools=tools, n=n)
        self.asked[-1] = replace(self.asked[-1], sampling=sampling)
        return made


def play(
    path: Path, replies: Any, *, score: Any = None, work: Any = None, **options: Any
) -> tuple[Any, list[Any], Opened]:
    """The answer of graph_rag, or what `work` gives of a GraphSearch; its requests; the attempt."""
    model = Heedless(replies, score=score)
    opened = Opened(model=model, task=TASK, sampling=Sampling(temperature=0.5), retry=Retry(attempts=1))

    async def inside(ctx: Any) -> Any:
        if work is None:
            return await graph_rag(TASK, ctx, index=str(path), **options)
        return await work(GraphSearch(ctx, corpus_in(ctx, str(path)), str(path), **options))

    answer = opened.run(inside)
    return answer, [(said[0].removeprefix("user: "), settings) for said, settings in opened.asked], opened


def by_kind(**said: Any) -> Any:
    """A model that answers each kind of prompt with a text or JSON, or raises it."""
    starts = {"List the points": "points", "list up to 5 follow": "primer", "part of a larger": "follow"}

    def reply(messages: Any, sampling: Any, number: int) -> str:
        text = messages[-1].text
        kind = next((kind for words, kind in starts.items() if words in text), "last")
        found = said[kind](text.rpartition("Question: ")[2]) if callable(said[kind]) else said[kind]
        if isinstance(found, Exception):
            raise found
        return found if isinstance(found, str) else json.dumps(found)

    return reply


def data(opened: Opened) -> list[tuple[str, list[Section]]]:
    calls = [call.detail for call in opened.attempt.calls if call.kind == "tool"]
    return [
        (each["arguments"]["retriever"], [Section(item["label"], item["text"]) for item in each["items"]])
        for each in calls
    ]


def test_a_local_answer_is_asked_for_from_reports_entities_and_passages(made: tuple[Path, SqliteIndex]) -> None:
    answer, asked, opened = play(made[0], [" money\n"], context_tokens=400, entities=2)
    sections = [
        Section("reports on communities", report_text(2)),
        Section(
            "entities and relations",
            "ANN (person, 2 relations): first\nCID (person, 2 relations): \nANN -- CID (weight 1): paid\n"
            "CID -- BOB (weight 3): met\nANN -- BOB (weight 2): met",
        ),
        Section("passage of four", "Ann paid Cid."),
        Section("passage of one", "Ann met Bob."),
        Section("passage of two", "Bob met Cid."),
    ]
    assert data(opened) == [("graph_local", sections)]
    assert (answer, asked) == ("money", [(local_prompt(ASK, fenced(ASK, sections)), HEAT)])
    nothing, asked, _ = play(made[0], [], work=lambda search: search.local("zebra"))
    assert (nothing, asked) == (UNKNOWN, [])


def test_a_global_answer_is_made_of_the_points_of_every_batch(made: tuple[Path, SqliteIndex]) -> None:
    def points(question: str) -> Any:
        return {"points": [{"description": "p  one", "score": 3}, {"description": "no", "score": 0},
                           {"description": "two", "score": "9"}]}  # fmt: skip

    answer, asked, opened = play(
        made[0], by_kind(points=points, last=" sum\n"), context_tokens=25, mode="global", level=0
    )
    ((name, batches),) = data(opened)
    assert name == "graph_reports" and sorted(each.text for each in batches) == sorted(map(report_text, (0, 1)))
    settings = {**HEAT, "grammar": json_schema(POINTS_SCHEMA), "max_tokens": 2000}
    assert asked[:2] == [(map_prompt(ASK, fenced(ASK, [each])), settings) for each in batches]
    lines = Section("points", "[importance 9] two\n[importance 9] two\n[importance 3] p one\n[importance 3] p one")
    assert asked[2:] == [(reduce_prompt(ASK, fenced(ASK, [lines])), HEAT)] and answer == "sum" and opened.notes() == []
    none, asked, _ = play(made[0], by_kind(points={"points": []}, last="x"), context_tokens=90, mode="global")
    assert none == UNKNOWN and len(asked) == 1

    def half(question: str, count: list[int]) -> Any:
        count.append(1)
        return '{"points": [{"score": 1}]}' if len(count) == 1 else {"points": [{"description": "d", "score": 1}]}

    seen: list[int] = []
    reply = by_kind(points=lambda question: half(question, seen), last="x")
    answer, _, opened = play(made[0], reply, context_tokens=25, mode="global", level=0)
    assert answer == "x" and opened.notes() == [("graph_unreadable", {"answers": 1, "of": 2})]
    with pytest.raises(ModelError, match=r"^a map answer is not of the schema: KeyError: 'points'$"):
        play(made[0], by_kind(points={}, last="x"), context_tokens=90, mode="global")
    with pytest.raises(ModelError, match=r"^the answer is 'none': a JSON object was expected"):
        play(made[0], by_kind(points="none", last="x"), context_tokens=90, mode="global")
    for fault in (TransientError("busy"), PromptTooLong("long")):
        with pytest.raises(type(fault)):
            play(made[0], by_kind(points=fault, last="x"), mode="global")
    once = [TransientError("busy"), {"points": [{"description": "d", "score": 1}]}]
    with pytest.raises(TransientError):  # it may pass, and is no answer that cannot be read
        play(made[0], by_kind(points=lambda _: once.pop(0), last="x"), context_tokens=25, mode="global", level=0)


def test_fit_reports_are_read_by_rating_and_the_threshold_is_an_option(made: tuple[Path, SqliteIndex]) -> None:
    def score(prompt: str, digit: str) -> float:
        return 0.0 if digit == ("2" if "Two far" in prompt else "1") else -9.0

    points = {"points": [{"description": "d", "score": 1}]}
    _, asked, opened = play(
        made[0], by_kind(points=points, last="x"), score=score, mode="global", dynamic=True, threshold=2
    )
    rated = [each for each in asked if not isinstance(each[1], dict)]
    assert rated == [
        (
            relevance_prompt(ASK, fenced(ASK, [Section(f"report: {REPORTS[id][0]}", report_text(id))])),
            ("0", "1", "2", "3", "4", "5"),
        )
        for id in (0, 1)
    ]
    assert opened.notes("graph_level") == [("graph_level", {"level": 0, "rated": 2, "kept": 1}),
                                           ("graph_level", {"level": 1, "rated": 0, "kept": 0})]  # fmt: skip
    (mapped,) = [said for said, _ in asked if "List the points" in said]
    assert mapped == map_prompt(ASK, fenced(ASK, [Section("reports on communities", report_text(1))]))
    _, _, opened = play(made[0], by_kind(points=points, last="x"), score=score, mode="global", dynamic=True)
    assert [each["kept"] for _, each in opened.notes("graph_level")] == [2, 1, 1]  # 1 is the least that fits by default


def test_drift_asks_reports_first_then_what_follows_and_makes_one_answer(made: tuple[Path, SqliteIndex]) -> None:
    reply = by_kind(
        primer={"answer": "A", "score": 40, "follow_ups": ["bob?"]},
        follow={"answer": "B", "score": 60, "follow_ups": ["dora?"]},
        last=" sum\n",
    )
    answer, asked, opened = play(made[0], reply, context_tokens=300, mode="drift", level=1, depth=1, entities=1)
    (_, reports), (name, local) = data(opened)
    assert reports == [Section(f"report: {REPORTS[id][0]}", report_text(id)) for id in (0, 2)] and name == "graph_local"
    assert [each.label for each in local][-2:] == ["passage of one", "passage of two"]
    lines = Section("answers to parts of the question", "[importance 60] B\n[importance 40] A")
    assert asked == [
        (primer_prompt(ASK, fenced(ASK, reports)), STEP),
        (follow_up_prompt("bob?", ASK, fenced("bob?", local)), STEP),
        (reduce_prompt(ASK, fenced(ASK, [lines])), HEAT),
    ]
    assert answer == "sum" and opened.notes() == []
    _, asked, _ = play(made[0], reply, mode="drift", depth=2)
    assert [said.rpartition("Question: ")[2] for said, _ in asked] == [ASK, "bob?", "dora?", ASK]
    more = {"bob?": ["cid?", "ann?"], "cid?": ["dora?"], "dora?": ["emil?"]}
    going = by_kind(
        primer={"answer": "A", "score": 1, "follow_ups": ["bob?"]},
        follow=lambda question: {"answer": question, "score": 2, "follow_ups": more.get(question, [])},
        last="x",
    )
    _, asked, _ = play(made[0], going, mode="drift")  # three levels by default
    levels = [said.rpartition("Question: ")[2] for said, _ in asked]
    assert levels[:2] == [ASK, "bob?"] and sorted(levels[2:4]) == ["ann?", "cid?"] and levels[4:] == ["dora?", ASK]
    many = by_kind(
        primer={"answer": "A", "score": 1, "follow_ups": [f"bob {n}" for n in range(22)]},
        follow={"answer": "B", "score": 2, "follow_ups": []}, last="x",
    )  # fmt: skip
    assert len(play(made[0], many, mode="drift")[1]) == 22  # the first, 20 by default, the last
    assert len(play(made[0], many, mode="drift", follow_ups=3)[1]) == 5
    worthless = by_kind(primer={"answer": "A", "score": 0, "follow_ups": []}, last="x")
    assert play(made[0], worthless, mode="drift")[0] == UNKNOWN
    with pytest.raises(ModelError, match=r"^a step of DRIFT is not of the schema: KeyError: 'score'$"):
        play(made[0], by_kind(primer={"answer": "A"}, last="x"), mode="drift")
    with pytest.raises(PromptTooLong, match=r"^long; context_tokens is 77: give graph_rag a smaller one$"):
        play(made[0], by_kind(primer=PromptTooLong("long")), mode="drift", context_tokens=77)
    with pytest.raises(TransientError):
        play(made[0], by_kind(primer=TransientError("busy")), mode="drift")


class Pointing:
    """Embeds any text as one direction."""

    name = fingerprint = "ones"

    def __init__(self, *direction: float):
        self.direction, self.asked = list(direction), []

    async def embed(self, texts: Any) -> list[list[float]]:
        self.asked += texts
        return [self.direction for _ in texts]


DIRECTIONS = {  # ANN alone has no vector, and that of DORA is of another embedder
    "BOB: a baker a baker of bread": [0.1, 0.9], "CID: ": [0.6, 0.6], "EMIL: far": [0.9, 0.1], "DORA: rich": [1.0, 1.0, 1.0],
}  # fmt: skip


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[tuple[Path, SqliteIndex]]:
    path, index = handmade(tmp_path, dimension=2)
    file = GraphFile(graph_path(path))
    rows = {text_key("entity", "ones", "", text): np.array(row, np.float32) for text, row in DIRECTIONS.items()}
    file.put_vectors(rows)  # type: ignore[arg-type]
    file.close()
    yield path, index
    corpus.close_corpora()
    index.close()


def test_with_vectors_a_question_is_matched_by_meaning(embedded: tuple[Path, SqliteIndex]) -> None:
    path, _ = embedded
    embedder = Pointing(1.0, 0.2)
    found = open_graph(open_corpus(path, embedder=embedder), str(path))  # type: ignore[arg-type]
    names = [found.state.graph.entities[place].name for place in found.vectors]
    assert {name: found.vectors[place].tolist() for name, place in zip(names, found.vectors, strict=True)} == {
        name: pytest.approx(DIRECTIONS[text]) for name, text in
        (("BOB", "BOB: a baker a baker of bread"), ("CID", "CID: "), ("EMIL", "EMIL: far"))
    }  # fmt: skip
    sections, _, _ = play(path, [], work=lambda search: search.local_sections("ann?"), shares=LocalShares(entities=2))
    assert sections[1].text.startswith("EMIL (geo, 1 relations): far\nCID (person, 2 relations): \n")
    assert embedder.asked == ["ann?"]
    nearest, _, _ = play(path, [], work=lambda search: search.nearest_reports("ann?", 1), level=0)
    assert [each.label for each in nearest] == ["report: All three"]  # 4 entities: BOB and CID of it, EMIL of the other
    asked = play(path, [], work=lambda search: search.nearest_reports("ann?", 9), level=2)[0]
    assert [each.label for each in asked] == [
        "report: All three",
        "report: Two far",
        "report: A pair",
        "report: The baker",
    ]
    assert [each.text for each in asked] == [report_text(id) for id in (0, 1, 2, 4)]


def test_drift_begins_with_the_reports_of_four_times_as_many_entities(embedded: tuple[Path, SqliteIndex]) -> None:
    ranked = ("BOB: a baker a baker of bread", "EMIL: far", "CID: ", "DORA: rich", "ANN: first")
    file = GraphFile(graph_path(embedded[0]))
    keys = [text_key("entity", "ones", "", text) for text in ranked]
    file.put_vectors({key: np.array([1.0, -n], np.float32) for n, key in enumerate(keys)})
    file.close()
    open_corpus(embedded[0], embedder=Pointing(0.0, 1.0))  # type: ignore[arg-type]
    nearest, _, _ = play(embedded[0], [], work=lambda search: search.nearest_reports("?", 1), level=0)
    assert [each.label for each in nearest] == [
        "report: Two far"
    ]  # two of either; three and five would be two and three


def test_a_graph_is_read_again_when_its_file_or_its_index_changed(made: tuple[Path, SqliteIndex]) -> None:
    path, index = made
    opened = open_corpus(path)
    first = open_graph(opened, str(path))
    assert open_graph(opened, str(path)) is first and first.vectors == {} and first.state.unread == 0
    os.utime(graph_path(path), ns=(1, 1))
    second = open_graph(opened, str(path))
    assert second is not first
    index.put([IndexedDocument(Document("five", "New."), [], None)])
    third = open_graph(opened, str(path))
    assert third is not second and open_graph(opened, str(path)) is third
    (id,) = [chunk.id for chunk in index.chunks("two")]
    assert {key: chunk.text for key, chunk in chunks_of(opened, [id]).items()} == {id: "Bob met Cid."}
    index.delete(["two"])
    with pytest.raises(ConfigError, match=r"^1 chunks were removed from the index since the graph was built"):
        open_graph(opened, str(path))
    graph_path(path).unlink()
    words = f"no graph at {str(graph_path(path))!r}: make one with `firsthand rag graph {path}`"
    with pytest.raises(ConfigError) as error:
        check_graph(str(path))
    assert str(error.value) == words
    with pytest.raises(ConfigError, match=r"^no index at"):
        check_graph(str(path.with_name("none")))


def test_graph_rag_takes_its_limits_and_refuses_what_is_beyond_them(made: tuple[Path, SqliteIndex]) -> None:
    for options, words in (
        ({"threshold": 6}, "threshold is 6: reports are rated from 0 to 5"),
        ({"level": -1}, "level is -1"), ({"depth": 0}, "depth is 0"), ({"follow_ups": 0}, "follow_ups is 0"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=f"^{words}"):
            play(made[0], [], **options)
