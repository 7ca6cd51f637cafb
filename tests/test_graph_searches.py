"""What local, global and DRIFT search read of a graph made by hand, in which order, and what they ask of the model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.message import Message
from firsthand.providers.scripted import Scripted
from firsthand.retrieval import corpus
from firsthand.retrieval.graph.graph_prompts import UNKNOWN
from firsthand.retrieval.graph.graph_search import GraphSearch
from firsthand.retrieval.rag.graph_rag import graph_rag
from firsthand.retrieval.rag_effect import corpus_in
from firsthand.retrieval.store.sqlite_index import SqliteIndex
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.trace import Trace
from graph_handmade import REPORTS, handmade, report_text


@pytest.fixture
def made(tmp_path: Path) -> Iterator[tuple[Path, SqliteIndex]]:
    path, index = handmade(tmp_path)
    yield path, index
    corpus.close_corpora()
    index.close()


def search(path: Path, work: Callable[[GraphSearch], Any], script: Any = "x", **options: Any) -> tuple[Any, Trace]:
    """What `work` returns of a GraphSearch within an attempt, and the attempt's trace."""
    found: list[Any] = []

    async def pattern(task: Task, ctx: Any) -> str:
        found.append(await work(GraphSearch(ctx, corpus_in(ctx, str(path)), str(path), **options)))
        return "done"

    model = script if isinstance(script, Scripted) else Scripted(script if callable(script) else lambda *_: script)
    trace = asyncio.run(rollout(Agent("a", model, pattern), Task("t", "?")))
    assert trace.error is None, trace.error
    return found[0], trace


def test_the_nearest_reports_share_the_most_entities_then_rate_highest(made: tuple[Path, SqliteIndex]) -> None:
    def found(question: str, k: int, level: int) -> list[str]:
        sections, _ = search(made[0], lambda s: s.nearest_reports(question, k), level=level)
        return [each.label for each in sections]

    assert found("ann bob cid", 9, 2) == ["report: All three", "report: A pair", "report: The baker"]
    assert found("ann bob cid", 2, 2) == ["report: All three", "report: A pair"]
    assert found("bob dora", 9, 2) == ["report: Two far", "report: All three", "report: A pair", "report: The baker"]
    assert found("bob dora", 9, 1) == ["report: Two far", "report: All three", "report: A pair"]
    assert found("bob dora", 9, 0) == ["report: Two far", "report: All three"]
    assert found("nobody", 9, 2) == []
    sections, trace = search(made[0], lambda s: s.nearest_reports("dora", 3), level=2, batch_tokens=24)
    assert [each.text for each in sections] == [report_text(1)[:30]], "each has a third of the tokens"
    assert trace.calls[0].detail["arguments"] == {"retriever": "graph_nearest", "query": "dora", "k": 3, "level": 2}


def test_reports_are_read_from_the_coarsest_down(made: tuple[Path, SqliteIndex]) -> None:
    for of, expected in ((None, [0, 1]), (0, [2]), (2, [4]), (1, []), (99, [])):
        found, trace = search(made[0], lambda s, of=of: s.reports("q", of))  # type: ignore[misc]
        assert [(id, each.label, each.text) for id, each in found] == [
            (id, f"report: {REPORTS[id][0]}", report_text(id)) for id in expected
        ]
        assert trace.calls[0].detail["arguments"] == {"retriever": "graph_children", "query": "q", "of": of}
    batches, trace = search(made[0], lambda s: s.batches("q"), level=0, batch_tokens=20)
    assert sorted(each.text for each in batches) == sorted(map(report_text, (0, 1)))
    assert {each.label for each in batches} == {"reports on communities"}
    assert trace.calls[0].detail["arguments"] == {"retriever": "graph_reports", "query": "q", "level": 0, "tokens": 20}


def test_only_reports_below_fit_ones_are_rated_and_the_threshold_itself_is_fit(made: tuple[Path, SqliteIndex]) -> None:
    ratings = {"# All three": "3", "# Two far": "2", "# A pair": "0", "# The baker": "5"}

    def score(prompt: str, continuation: str) -> float:
        [rated] = [digit for title, digit in ratings.items() if title in prompt]
        return -0.1 if continuation == rated else -9.0

    def chosen(threshold: int, level: int = 2) -> tuple[list[str], list[Any]]:
        work = lambda s: s._chosen("q", threshold)  # noqa: E731
        sections, trace = search(made[0], work, Scripted(lambda *_: "x", score=score), level=level)
        levels = [tuple(event.data.values()) for event in trace.events if event.kind == "graph_level"]
        return sorted(text for each in sections for text in each.text.split("\n\n")), levels

    assert chosen(3) == ([report_text(0)], [(0, 2, 1), (1, 1, 0)])
    assert chosen(2) == (sorted([report_text(0), report_text(1)]), [(0, 2, 2), (1, 1, 0)])
    assert chosen(0) == (sorted(map(report_text, REPORTS)), [(0, 2, 2), (1, 1, 1), (2, 1, 1)])
    assert chosen(0, level=1) == (sorted(map(report_text, (0, 1, 2))), [(0, 2, 2), (1, 1, 1)])
    assert chosen(5) == ([], [(0, 2, 0)])


class Steps:
    """Answers DRIFT's prompts and keeps the questions that were asked."""

    def __init__(self, primer: dict[str, Any], follow: Callable[[str], Any]):
        self.primer, self.follow, self.asked = primer, follow, []

    def __call__(self, messages: list[Message], sampling: Any, index: int) -> str:
        text = messages[-1].text
        if text.startswith("Answer the question as far as"):
            return json.dumps(self.primer)
        if text.startswith("This question is part"):
            question = text.rsplit("Question: ", 1)[1]
            assert text.startswith("This question is part of a larger one: bob and dora\n")
            self.asked.append(question)
            found = self.follow(question)
            return found if isinstance(found, str) else json.dumps(found)
        assert text.startswith("Several analysts") and "> answers to parts of the question\n" in text
        return "points: " + "; ".join(line for line in text.splitlines() if line.startswith("[importance"))


@pytest.mark.slow
def test_drift_follows_the_questions_of_the_best_parents_level_by_level_and_each_once(
    made: tuple[Path, SqliteIndex],
) -> None:
    def follow(question: str) -> Any:
        more = {"ann?": ["bob?", "emil?"], "cid?": ["dora?", "ann?"]}.get(question, [])
        return {"answer": f"A {question}", "score": {"ann?": 20, "cid?": 70}.get(question, 5), "follow_ups": more}

    primer = {"answer": "first", "score": 50, "follow_ups": ["ann?", "cid?", "ann?", "bob and dora", "nothing here"]}
    steps = Steps(primer, follow)
    answer, _ = search(made[0], lambda s: s.drift("bob and dora", follow_ups=2, depth=2), steps)
    assert sorted(steps.asked[:2]) == ["ann?", "cid?"] and sorted(steps.asked[2:]) == ["bob?", "dora?"]
    assert answer == (
        "points: [importance 70] A cid?; [importance 50] first; [importance 20] A ann?; [importance 5] A dora?; "
        "[importance 5] A bob?"
    )
    steps = Steps(primer, follow)
    search(made[0], lambda s: s.drift("bob and dora", follow_ups=1, depth=9), steps)
    assert steps.asked == ["ann?", "bob?"]
    steps = Steps(primer, follow)
    search(made[0], lambda s: s.drift("bob and dora", depth=1), steps)
    assert sorted(steps.asked) == ["ann?", "cid?"], "what finds nothing is asked of nobody"
    assert search(made[0], lambda s: s.drift("nobody knows"), steps)[0] == UNKNOWN


@pytest.mark.slow
def test_steps_that_cannot_be_read_are_counted_and_the_rest_goes_on(made: tuple[Path, SqliteIndex]) -> None:
    primer = {"answer": "first", "score": 0, "follow_ups": ["ann?", "cid?", "emil?"]}
    answers = {"ann?": '{"answer": "x", "score": "many", "follow_ups": []}', "cid?": '{"answer": "x"}'}
    steps = Steps(primer, lambda question: answers.get(question, {"answer": "E", "score": 3, "follow_ups": []}))
    answer, trace = search(made[0], lambda s: s.drift("bob and dora"), steps)
    assert answer == "points: [importance 3] E"
    assert [event.data for event in trace.events if event.kind == "graph_unreadable"] == [{"answers": 2, "of": 4}]
    steps = Steps(primer | {"follow_ups": []}, lambda question: "")
    answer, trace = search(made[0], lambda s: s.drift("bob and dora"), steps)
    assert answer == UNKNOWN and not any(event.kind == "graph_unreadable" for event in trace.events)


@pytest.mark.slow
def test_graph_rag_passes_its_options_on_and_refuses_them_beyond_their_limits(made: tuple[Path, SqliteIndex]) -> None:
    def ask(**options: Any) -> Trace:
        async def pattern(task: Task, ctx: Any) -> str:
            return await graph_rag(task, ctx, index=str(made[0]), **options)

        return asyncio.run(rollout(Agent("a", Scripted(lambda *_: " said "), pattern), Task("t", "bob and dora")))

    trace = ask(context_tokens=500, entities=1, level=1)
    assert trace.answer == "said", trace.error
    assert trace.calls[0].detail["arguments"] == {
        "retriever": "graph_local", "query": "bob and dora", "tokens": 500, "reports": 0.15, "passages": 0.5,
        "entities": 1, "relations": 10, "level": 1,
    }  # fmt: skip
    trace = ask(mode="drift", context_tokens=700, level=0)
    assert trace.calls[0].detail["arguments"] == {
        "retriever": "graph_nearest",
        "query": "bob and dora",
        "k": 5,
        "level": 0,
    }
    trace = ask(mode="global", context_tokens=700, level=0)
    assert trace.calls[0].detail["arguments"] == {
        "retriever": "graph_reports", "query": "bob and dora", "level": 0, "tokens": 700
    }  # fmt: skip
    for wrong in ({"threshold": 6}, {"threshold": -1}, {"context_tokens": 0}, {"entities": 0}, {"follow_ups": 0},
                  {"depth": 0}, {"level": -1}):  # fmt: skip
        trace = ask(**wrong)
        assert (
            trace.error is not None and trace.error.kind == "ConfigError" and next(iter(wrong)) in trace.error.message
        )
    for fine in ({"threshold": 0}, {"threshold": 5}, {"level": 0}):
        assert ask(**fine).error is None
