"""Scores that come with spans, as events of the GenAI conventions: what is kept of them, and what is not."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firsthand import Score
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.redaction import PUT, Redactor
from firsthand.ingest.sent_scores import EVENT, MOST_SCORES, _number, sent_scores
from firsthand.ingest.trace_evaluation import Evaluation
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.studio.incoming_query import IncomingQuery
from firsthand.task import Task
from firsthand.trace import Trace

TRACE = f"{1:032x}"


def result(name: Any, value: Any = None, **more: Any) -> dict[str, Any]:
    told = {f"gen_ai.evaluation.{key.replace('__', '.')}": each for key, each in more.items() if key != "error"}
    told |= {"gen_ai.evaluation.name": name} | ({} if value is None else {"gen_ai.evaluation.score.value": value})
    told |= {"error.type": more["error"]} if "error" in more else {}
    return {"name": EVENT, "at_ns": 15, "attributes": told}


def span(*events: dict[str, Any], number: int = 1, trace: str = TRACE, end: int = 20) -> IncomingSpan:
    return IncomingSpan(trace, f"{number:016x}", "", "n", 10, end, {"a": 1}, list(events))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    made = TraceStore(tmp_path, create=True)
    yield made
    made.close()


def add(store: TraceStore, *spans: IncomingSpan) -> int:
    return store.add(SpanPreparer(Redactor()).prepared(spans))


def kept(store: TraceStore) -> list[tuple[Any, ...]]:
    return store.database.read("SELECT name, value, failure, scorer FROM scores WHERE trace = ? ORDER BY seq", (TRACE,))


def test_the_scores_of_a_span_are_read() -> None:
    found = sent_scores(
        span(
            result("exact", 1), result("long", 0.25, score__label="poor", explanation="too long"),
            result("twice", 0.0), result("twice", -3), result("failed", 0.5, error="scorer_failed"),
            result("is", True), result("high", 1e200), result(7, 1),
        )
    )  # fmt: skip
    assert {name: (each.value, each.failure) for name, each in found.items()} == {
        "exact": (1.0, None), "long": (0.25, None), "twice": (-3.0, None), "failed": (None, "scorer_failed"),
        "is": (1.0, None), "high": (1e200, None), "7": (1.0, None),
    }  # fmt: skip
    assert found["long"].detail == {"span": f"{1:016x}", "label": "poor", "explanation": "too long"}
    assert found["exact"].detail == {"span": f"{1:016x}"}


@pytest.mark.parametrize(
    "event",
    [
        result("", 1), result(None, 1), result(["x"], 1), result("x"), result("x", "good"), result("x", float("nan")),
        result("x", float("inf")), result("x", -1.1e200), result("x", score__label="good"), {"name": EVENT},
        {"name": EVENT, "attributes": None}, {"name": "other", "attributes": result("x", 1)["attributes"]}, {},
    ],
)  # fmt: skip
def test_what_is_no_score_is_left_to_the_span(event: dict[str, Any]) -> None:
    assert sent_scores(span(event)) == {}


def test_of_one_span_so_many_names_are_kept_and_each_so_long() -> None:
    many = [result(f"s{number}", 0) for number in range(MOST_SCORES + 1)]
    found = sent_scores(span(*many, result("s0", 1)))
    assert len(found) == MOST_SCORES and f"s{MOST_SCORES}" not in found and found["s0"].value == 1.0
    (name,) = sent_scores(span(result("n" * 101, 1)))
    assert name == "n" * 100


def test_scores_that_come_with_spans_are_in_the_list_and_its_filters(store: TraceStore) -> None:
    add(store, span(result("numeric", 0.5), result("broken", error="scorer_failed")))
    add(store, span(result("numeric", 3.0), trace=f"{2:032x}"), span(trace=f"{3:032x}"))
    assert kept(store) == [("numeric", 0.5, None, EVENT), ("broken", None, "scorer_failed", EVENT)]
    assert store.scores_of([TRACE])[TRACE] == {"numeric": 0.5, "broken": None}
    for text, number in (("score.numeric<2", 1), ("score.numeric>2", 1), ("has:score", 2), ("-has:score", 1)):
        assert len(IncomingQuery.parse(text).page(store, limit=9).rows) == number, text


def test_a_score_that_is_sent_again_is_kept_once_and_a_later_one_takes_its_place(store: TraceStore) -> None:
    assert [add(store, span(result("numeric", 0.5))) for _ in range(2)] == [1, 0]
    assert len(kept(store)) == 1
    store.add_score(TRACE, "numeric", "mine", 0.75)
    add(store, span(result("numeric", 0.1), number=2))
    assert kept(store) == [("numeric", 0.75, None, "mine"), ("numeric", 0.1, None, EVENT)]
    add(store, span(result("other", 0.1), number=3, end=0))
    add(store, span(result("other", 0.2), number=3))
    assert kept(store)[2:] == [("other", 0.2, None, EVENT)], "of a span that has ended in place of what was begun"


def test_secrets_in_the_words_of_a_score_are_removed(store: TraceStore) -> None:
    secret = "sk-proj-abcdefghijklmnopqrstuvwx0123456789"
    add(store, span(result("x", 1, explanation=f"it said {secret}")))
    ((detail,),) = store.database.read("SELECT detail FROM scores")
    assert secret not in detail and PUT in detail


def test_a_sent_score_does_not_stand_in_for_the_studio_s_own(store: TraceStore) -> None:
    def numeric(task: Task, trace: Trace) -> Score:
        return Score("numeric", 0.25)

    add(store, span(result("numeric", 1.0)))
    arrived = float(store.summary(TRACE).arrived_s)
    evaluation = Evaluation((("s.py:numeric", numeric),), settled_s=1.0)
    assert [asyncio.run(evaluation.score_some(store, now_s=arrived + 5)) for _ in range(2)] == [1, 0]
    assert store.scores_of([TRACE])[TRACE] == {"numeric": 0.25}


def test_a_number_that_no_score_can_have_is_none() -> None:
    for number in (10**400, -(10**400), math.inf, -math.inf, math.nan):
        assert _number(number) is None
    assert _number(0) == 0.0 and _number(-2.5) == -2.5
