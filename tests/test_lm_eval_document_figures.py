"""Scores and figures of single documents of lm-evaluation-harness: items, aggregates, groups, and what is left out."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.bridges.lm_eval.document_scores import (
    DocumentRequests,
    _Aggregate,
    _alone,
    _finite,
    _group_figures,
    _items,
    _likelihoods,
    _task_metrics,
    figures_of,
    scores_of,
)
from firsthand.errors import DataError
from firsthand.task import Task
from firsthand.trace import Call, Failure, Score, Trace

needs_harness = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="needs pip install 'firsthand[lm-eval]'"
)


@dataclass
class Instance:
    """A request of the harness."""

    resps: list[Any] = field(default_factory=list)
    filtered_resps: dict[str, Any] = field(default_factory=dict)
    repeats: int = 1


class Quiz:
    """A task of the harness whose one metric is given by the responses."""

    def __init__(
        self, item: Any, better: dict[str, bool] | None = None, filters: Sequence[str] = ("none",), **kinds: Any
    ):
        self.item, self.better, self.kinds = item, better or {}, kinds
        self.filters, self._instances = filters, list[Instance]()

    def apply_filters(self) -> None:
        for each in self._instances:
            each.filtered_resps = {name: [*each.resps] for name in self.filters}

    def process_results(self, doc: Any, responses: list[Any]) -> dict[str, Any]:
        return dict(self.item(doc, responses))

    def aggregation(self) -> dict[str, Any]:
        return self.kinds

    def higher_is_better(self) -> dict[str, bool]:
        return self.better


def entry(task: Any, id: str = "t", name: str = "quiz", doc: Any = None, repeats: int = 1) -> DocumentRequests:
    ours = Task(id, "Q", metadata={"request": "generate_until"})
    return DocumentRequests(name, task, doc, (Instance(repeats=repeats),), ours)


def attempt(task: str, answer: str | None = None, epoch: int = 0, **more: Any) -> Trace:
    return Trace("id", "lm", task, {"name": "a", "model": "m"}, epoch, 0, "", 1.0, answer=answer, **more)


def value(figure: Any, *counts: int) -> float:
    return float(figure.of(np.array([counts]))[0])


def test_an_aggregate_takes_the_items_of_chosen_documents_as_often_as_they_are_chosen() -> None:
    acc, other = ("acc", "none"), ("f1", "none")
    items: Any = [[{acc: 1, other: 50}, {acc: 2}], [{other: 60}], [{acc: 5}]]
    assert _Aggregate(sum, acc, items)([0, 1, 2, 2]) == 13.0 and _Aggregate(max, other, items)([0, 1]) == 60.0
    assert _finite(sum, [2, 3]) == 5.0 and math.isnan(_finite(sum, []))
    assert _finite(lambda items: math.exp(items[0]), [1e9]) == math.inf


def test_items_are_of_each_epoch_or_of_all_at_once_where_the_task_repeats() -> None:
    quiz = Quiz(lambda doc, responses: {"acc": responses[0]})
    traces = [attempt("t", "a"), attempt("t", "b", 1)]
    assert _items(entry(quiz), traces) == [{("acc", "none"): ["a"]}, {("acc", "none"): ["b"]}]
    assert _items(entry(quiz, repeats=2), traces) == [{("acc", "none"): ["a", "b"]}]
    assert _items(entry(quiz, repeats=0), traces[:1]) == [{("acc", "none"): ["a"]}] and _items(entry(quiz), []) == []
    likely = replace(entry(quiz), ours=Task("t", "Q", metadata={"request": "loglikelihood"}, requests=(("Q", " a"),)))
    scored = Call(":0", "score", None, 0, 0, "", detail={
        "prompt": "Q", "likelihoods": [{"text": " a", "logprob": -1.5, "is_greedy": True}]})  # fmt: skip
    other = replace(scored, kind="generate")
    found = attempt("t", calls=(scored, other))
    assert _likelihoods(found) == {("Q", " a"): (-1.5, True)} and _likelihoods(attempt("t", calls=(other,))) == {}
    assert _items(likely, [traces[0], found]) == [{("acc", "none"): [(-1.5, True)]}]
    assert _items(likely, traces) == []


def test_a_documents_scores_stand_in_order_of_what_is_better_and_how_sure_they_are() -> None:
    def scores(item: dict[str, Any], better: dict[str, bool] | None = None, **kinds: Any) -> list[Any]:
        quiz = Quiz(lambda doc, responses: item, better, **kinds)
        return [(each.name, each.value, each.detail.get("item")) for each in scores_of(entry(quiz), attempt("t", "é"))]

    listed = {"f1": [1, 2], "acc": 0.25, "loss": 2.0, "undefined": [3]}
    found = scores(listed, {"loss": False}, f1=lambda items: sum(items[0]))
    assert found == [("acc", 0.25, None), ("f1", 3.0, [1, 2]), ("loss", 2.0, None)]
    down = {"word_perplexity": False, "loss": False}
    assert scores({"loss": 4.0, "word_perplexity": 8.0}, down)[0] == ("1/(1+loss)", 0.2, None)
    assert scores({"word_perplexity": 8.0, "loss": 4.0}, down)[0] == ("1/word_perplexity", 0.125, None)
    quiz = Quiz(lambda doc, responses: {"acc": 1.0}, filters=["strict"])
    [only] = scores_of(entry(quiz), attempt("t", "é" * 600))
    assert only == Score("acc,strict", 1.0, {"filtered": f"['{'é' * 498}"})
    with pytest.raises(DataError, match=r"^f1: not defined for one document, see the figures$"):
        scores({"f1": [1]})

    def broken(items: Any) -> float:
        raise KeyError

    def undefined(items: Any) -> float:
        raise ValueError("a correlation needs two items")

    alone = entry(Quiz(None, f1=broken, big=lambda items: math.exp(items[0][0])))
    assert [_alone(alone, ("f1", "x"), True), _alone(alone, ("big", "x"), [1e9])] == [1.0, math.inf]
    with pytest.raises(TypeError):
        _alone(entry(Quiz(None, f1=math.exp)), ("f1", "none"), ["a"])
    correlation = Quiz(lambda doc, responses: {"r": (1.0, 2.0), "acc": 1.0}, r=undefined)
    assert math.isnan(_alone(entry(correlation), ("r", "none"), (1.0, 2.0)))
    assert scores_of(entry(correlation), attempt("t", "a")) == (Score("acc", 1.0, {"filtered": "['a']"}),)
    assert math.isnan(_alone(alone, ("f1", "x"), "text")) and math.isnan(_alone(alone, ("none", "x"), [1]))


@needs_harness
def test_a_tasks_figures_are_named_by_task_only_beside_others_and_means_are_left_out() -> None:
    from lm_eval.api.metrics import mean

    def item(doc: Any, responses: list[Any]) -> dict[str, Any]:
        return {"acc": doc, "top": doc}

    quiz = Quiz(item, acc=mean, top=max)
    entries = {f"t{n}": entry(quiz, f"t{n}", doc=float(n)) for n in (3, 1, 2)}
    traces = [attempt("t1", "b", 1), attempt("t3", "a"), attempt("t1", "a"), attempt("gone", "a"),
              attempt("t2", "a", error=Failure("E", "x"))]  # fmt: skip
    [top] = figures_of(entries, {}, traces)
    assert (top.name, top.tasks, value(top, 1, 1), value(top, 0, 2)) == ("top", ("t3", "t1"), 3.0, 1.0)
    acc, top = figures_of(entries, {}, traces, every=True)
    assert (acc.name, value(acc, 1, 1), top.name) == ("acc", (3 + 1 + 1) / 3, "top")
    two = {**entries, "o": entry(Quiz(lambda doc, responses: {"acc": 9.0}, acc=mean), "o", "other")}
    assert [each.name for each in figures_of(two, {}, [*traces, attempt("o", "a")])] == [
        "quiz acc", "quiz top", "other acc",
    ]  # fmt: skip
    assert [each.name for each in figures_of(two, {}, [attempt("o", "a")])] == ["other acc"]
    repeated = {"t": entry(quiz, "t", doc=1.0, repeats=2)}
    assert [each.name for each in figures_of(repeated, {}, [attempt("t", "a")])] == ["acc", "top"]
    ordered = Quiz(lambda doc, responses: {"acc": float(responses[0] == ["a", "b"])}, acc=mean)
    [acc] = figures_of({"t": entry(ordered, "t", repeats=2)}, {}, [attempt("t", "b", 1), attempt("t", "a")])
    assert value(acc, 1) == 1.0, "responses are in the order of their epochs"
    missing = {"t": entry(Quiz(item), "t", doc=4.0)}
    assert figures_of(missing, {}, [attempt("t", "a")]) == []


@needs_harness
def test_a_group_aggregates_its_own_tasks_over_chosen_documents() -> None:
    from lm_eval.api.metrics import mean

    one, two = Quiz(None, acc=mean, top=max), Quiz(None, acc=mean)
    raw: Any = {("acc", "none"): [1, 2, 6], ("top", "strict"): [1, 7], ("odd", "none"): [2, 4]}
    assert _task_metrics(one, raw) == {"acc,none": 3.0, "top,strict": 7, "odd,none": 3.0, "sample_len": 3}
    entries = {id: entry(task, id, name) for id, task, name in (
        ("a", one, "one"), ("x", one, "away"), ("b", two, "two"), ("c", one, "one"))}  # fmt: skip
    items: Any = {id: [{("acc", "none"): number}] for id, number in zip("axbc", (1.0, 50.0, 4.0, 3.0), strict=True)}
    asked: list[Any] = []

    def aggregate(results: dict[str, Any]) -> dict[str, Any]:
        asked.append(results)
        total = sum(each["acc,none"] * each["sample_len"] for each in results.values())
        return {"acc,none": total, "acc,strict": -total, "acc_stderr,none": 1.0, "alias": 3.0, "f1,none": "N/A"}

    members = [SimpleNamespace(task_name=name) for name in ("one", "two")]
    group = SimpleNamespace(get_all_tasks=lambda: members, aggregate=aggregate)
    plain, strict = _group_figures("whole", group, entries, ["c", "x", "b", "a"], items)
    assert (plain.name, plain.tasks, strict.name) == ("whole acc", ("c", "b", "a"), "whole acc,strict")
    assert asked == [{"one": {"acc,none": 2.0, "sample_len": 2}, "two": {"acc,none": 4.0, "sample_len": 1}}]
    assert (value(plain, 1, 1, 1), value(plain, 0, 2, 1), value(strict, 3, 0, 0)) == (8.0, 9.0, -9.0)
    assert _group_figures("whole", group, entries, ["x"], items) == []
    assert not plain.lower_is_better and not strict.lower_is_better
    two.better = {"acc": False}
    assert all(each.lower_is_better for each in _group_figures("whole", group, entries, ["c", "b", "a"], items))
