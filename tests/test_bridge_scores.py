"""Scores and sandboxes of the bridges: a document's metrics, figures of many, the life of an attempt's sandboxes."""

from __future__ import annotations

import asyncio
import importlib.util
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.benchmark import Figure
from firsthand.bridges.inspect import sample_sandboxes
from firsthand.bridges.inspect.sample_sandboxes import Sandboxes, sandboxes_for_scoring
from firsthand.bridges.lm_eval.document_scores import DocumentRequests, failed, figures_of, measured, scores_of
from firsthand.errors import ConfigError, DataError, SandboxError
from firsthand.task import Task
from firsthand.trace import Failure, Score, Trace

needs_harness = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="needs pip install 'firsthand[lm-eval]'"
)


def attempt(task: str, answer: str | None = None, epoch: int = 0, **more: Any) -> Trace:
    return Trace("id", "lm", task, {"name": "a", "model": "m"}, epoch, 0, "", 1.0, answer=answer, **more)


def value(figure: Figure, *counts: int) -> float:
    return float(figure.of(np.array([counts]))[0])


# -- documents of lm-evaluation-harness --


@dataclass
class Instance:
    """A request of the harness."""

    resps: list[Any] = field(default_factory=list)
    filtered_resps: dict[str, Any] = field(default_factory=dict)
    repeats: int = 1


class Quiz:
    """A task of the harness that gives its metrics by name."""

    def __init__(self, better: dict[str, bool] | None = None, filters: Sequence[str] = ("none",), **kinds: Any) -> None:
        self.better, self.kinds = better or {}, kinds
        self._filters = [SimpleNamespace(name=name) for name in filters]
        self._instances: list[Instance] = []
        self.metrics: dict[str, Any] = {}

    def apply_filters(self) -> None:
        for each in self._instances:
            each.filtered_resps = {filter.name: f"{filter.name} {each.resps}" for filter in self._filters}

    def process_results(self, doc: Any, responses: list[Any]) -> dict[str, Any]:
        return {name: item(doc, responses) if callable(item) else item for name, item in self.metrics.items()}

    def aggregation(self) -> dict[str, Any]:
        return self.kinds

    def higher_is_better(self) -> dict[str, bool]:
        return self.better


def entry(task: Quiz, id: str = "t", name: str = "quiz", doc: Any = None, instances: int = 1) -> DocumentRequests:
    ours = Task(id, "Q", metadata={"request": "generate_until"})
    return DocumentRequests(name, task, doc, tuple(Instance() for _ in range(instances)), ours)


def test_scores_of_a_document_are_those_where_more_is_better_first() -> None:
    quiz = Quiz(
        {"loss": False}, ["none", "strict"], f1=lambda items: sum(map(sum, items)), none_alone=lambda _: math.nan
    )
    quiz.metrics = {"f1": [1, 2], "loss": 0.5, "acc": 1, "none_alone": [3]}
    found = scores_of(entry(quiz), attempt("t", "x" * 600))
    assert found[0] == Score("acc", 1.0, {"filtered": f"none ['{'x' * 493}"})
    assert [(each.name, each.value, each.detail.get("item")) for each in found] == [
        ("acc", 1.0, None), ("acc,strict", 1.0, None), ("f1", 3.0, [1, 2]), ("f1,strict", 3.0, [1, 2]),
        ("loss", 0.5, None), ("loss,strict", 0.5, None),
    ]  # fmt: skip
    assert found[1].detail["filtered"].startswith("strict ['xxx") and len(found[1].detail["filtered"]) == 500


def test_a_reciprocal_is_the_first_score_where_less_is_better() -> None:
    quiz = Quiz(dict.fromkeys(("loss", "word_perplexity", "byte_perplexity"), False))
    quiz.metrics = {"word_perplexity": 8.0, "byte_perplexity": 4.0}
    assert [(each.name, each.value) for each in scores_of(entry(quiz), attempt("t"))] == [
        ("1/byte_perplexity", 0.25), ("word_perplexity", 8.0), ("byte_perplexity", 4.0),
    ]  # fmt: skip
    quiz.metrics = {"loss": 3.0}
    assert [(each.name, each.value) for each in scores_of(entry(quiz), attempt("t"))] == [
        ("1/(1+loss)", 0.25), ("loss", 3.0),
    ]  # fmt: skip
    quiz.metrics = {"f1": ["a"]}
    with pytest.raises(DataError, match="f1: not defined for one document, see the figures"):
        scores_of(entry(quiz), attempt("t"))
    quiz.metrics = {}
    with pytest.raises(DataError, match="no metric: not defined"):
        scores_of(entry(quiz), attempt("t"))


@needs_harness
def test_an_attempt_that_could_not_be_scored_fails_in_its_first_score() -> None:
    from lm_eval.api.metrics import mean

    def name(better: dict[str, bool], filters: Sequence[str] = (), **kinds: Any) -> str:
        [score] = failed(entry(Quiz(better, filters, **kinds)), KeyError("x"))
        assert (score.value, score.failure) == (0.0, "KeyError: 'x'")
        return score.name

    assert name({}, f1=sum, acc=mean) == "acc" and name({}, ["strict", "loose"], f1=sum) == "f1,strict"
    assert name({"acc": False}, acc=mean, f1=sum) == "f1" and name({"loss": False}, loss=mean) == "1/(1+loss)"
    down = dict.fromkeys(("word_perplexity", "byte_perplexity"), False)
    assert name(down, word_perplexity=sum, byte_perplexity=sum) == "1/byte_perplexity"
    assert name({}) == "1/(1+score)"


def test_responses_of_all_requests_go_through_the_filters_together() -> None:
    quiz = Quiz(filters=["none", "vote"])
    quiz.metrics = {"acc": lambda doc, responses: (doc, responses)}
    one, two = entry(quiz, doc="d"), entry(quiz, doc="d", instances=2)
    found, filtered = measured(one, [["x"], ["y"]])
    told = {"none": "none ['x', 'y']", "vote": "vote ['x', 'y']"}
    assert filtered == told and found == {("acc", name): ("d", [text]) for name, text in told.items()}
    found, filtered = measured(two, [["x", "y"]])
    assert filtered == {"none": 2, "vote": 2} and found["acc", "none"] == ("d", ["none ['x']", "none ['y']"])
    assert two.instances == (Instance(), Instance())


@needs_harness
def test_figures_are_the_harness_own_over_the_documents_that_were_answered() -> None:
    from lm_eval.api.metrics import mean

    def number(doc: Any, responses: list[str]) -> float:
        return float(doc) if "'wrong'" not in responses[0] else 0.0

    quiz = Quiz(f1=max, acc=mean)
    quiz.metrics = {"f1": number, "acc": number}
    entries = {f"t{n}": entry(quiz, f"t{n}", doc=n) for n in range(4)}
    traces = [
        attempt("t2", "a"), attempt("t1", "a"), attempt("t3", "a", error=Failure("ModelError", "gone")), attempt("gone"),
        attempt("t1", "wrong", 1),
    ]  # fmt: skip
    [f1] = figures_of(entries, {}, traces)
    assert (f1.name, f1.tasks, f1.slow) == ("f1", ("t1", "t2"), True)
    assert value(f1, 1, 1) == 2 and value(f1, 3, 0) == 1
    assert not f1.lower_is_better
    quiz.higher_is_better = lambda: {"f1": False, "acc": True}  # type: ignore[method-assign]
    assert [each.lower_is_better for each in figures_of(entries, {}, traces, every=True)] == [True, False]
    f1, acc = figures_of(entries, {}, traces, every=True)
    assert acc.name == "acc" and value(acc, 1, 1) == pytest.approx(1) and value(acc, 1, 0) == 0.5
    voted = {id: replace(each, instances=(Instance(repeats=3),)) for id, each in entries.items()}
    quiz.metrics = {"acc": lambda doc, responses: float(responses[0].count("'"))}
    [acc] = figures_of(voted, {}, traces)  # all epochs at once
    assert (acc.name, value(acc, 1, 0), value(acc, 0, 1)) == ("acc", 4, 2)
    assert figures_of(entries, {}, []) == []
    logprobs = replace(
        entries["t1"], ours=Task("t1", "Q", metadata={"request": "loglikelihood"}, requests=(("Q", "a"),))
    )
    assert figures_of({"t1": logprobs}, {}, traces, every=True) == []


@needs_harness
def test_figures_of_several_tasks_have_their_names_and_groups_their_own() -> None:
    from lm_eval.api.metrics import mean

    quiz, other = Quiz(acc=mean), Quiz(acc=mean)
    quiz.metrics = other.metrics = {"acc": lambda doc, responses: doc}
    entries = {
        "a": entry(quiz, "a", "quiz", 1.0),
        "b": entry(quiz, "b", "quiz", 0.0),
        "c": entry(other, "c", "other", 5.0),
    }
    traces = [attempt(id, "x") for id in "abc"]
    asked: list[dict[str, Any]] = []

    def aggregate(results: dict[str, Any]) -> dict[str, Any]:
        asked.append(results)
        total = sum(each["acc,none"] for each in results.values())
        return {"acc,none": total, "acc,strict": 2 * total, "acc_stderr,none": 1.0, "alias": "whole", "f1,none": "N/A"}

    def group(*names: str, metrics: Any = (1,)) -> SimpleNamespace:
        tasks = [SimpleNamespace(task_name=name) for name in names]
        return SimpleNamespace(aggregate_metric_list=metrics, get_all_tasks=lambda: tasks, aggregate=aggregate)

    groups = {"whole": group("quiz", "other"), "bare": group("quiz", metrics=None), "empty": group("none here")}
    found = figures_of(entries, groups, traces)
    assert [(each.name, each.tasks) for each in found] == [
        ("quiz acc", ("a", "b")), ("other acc", ("c",)), ("whole acc", ("a", "b", "c")),
        ("whole acc,strict", ("a", "b", "c")),
    ]  # fmt: skip
    assert asked == [{"quiz": {"acc,none": 0.5, "sample_len": 2}, "other": {"acc,none": 5.0, "sample_len": 1}}]
    assert value(found[2], 1, 1, 1) == 5.5 and value(found[3], 3, 1, 0) == 1.5
    assert asked[-1] == {"quiz": {"acc,none": 0.75, "sample_len": 4}}


# -- sandboxes of an attempt at a sample of Inspect --


class KeptBox:
    """A sandbox that says what was done with it."""

    def __init__(self, name: str, told: list[str], error: Exception | None = None) -> None:
        self.name, self.told, self.error = name, told, error

    async def seen(self) -> dict[str, str]:
        return {"seen by": self.name}

    async def snapshot(self, before: Any) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        return {"since": before}

    async def restore(self, changes: Any) -> None:
        self.told.append(f"{self.name} restores {changes}")
        if changes == "damaged":
            raise SandboxError("damaged")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sandboxes `default` and `db`, the second of which cannot be kept; returns what is done with them."""
    said: list[str] = []

    @asynccontextmanager
    async def entered(theirs: Any, sample: Any, spec: Any) -> AsyncIterator[Any]:
        if spec == "broken":
            raise OSError("no room")
        said.append(f"open {theirs} {sample.id} {spec}")
        try:
            yield {"default": None, "db": None}
        finally:
            said.append("closed")

    made = {"default": KeptBox("default", said), "db": KeptBox("db", said, ValueError("too large"))}
    monkeypatch.setattr(sample_sandboxes, "_entered", entered)
    monkeypatch.setattr(sample_sandboxes, "boxes", lambda environments: made if environments else {})
    monkeypatch.setattr(sample_sandboxes, "_tools", lambda: ("shell",))
    return said


def sandboxes(spec: Any = "spec", id: str = "t") -> Sandboxes:
    return Sandboxes(Task(id, "Q"), "theirs", SimpleNamespace(id=id), spec)


KEPT = {"sandbox": {"default": {"changes": {"since": {"seen by": "default"}}}, "db": {"not_kept": "too large"}}}


def test_sandboxes_stay_open_until_their_sample_is_scored(told: list[str]) -> None:
    async def whole() -> None:
        mine = sandboxes()
        await mine.open()
        assert mine.tools == ("shell",) and told == ["open theirs t spec"]
        assert await mine.final_state() == KEPT
        await mine.close()
        assert told == ["open theirs t spec"]
        async with sandboxes_for_scoring("theirs", mine.sample, "spec", mine.task, KEPT):
            assert told == ["open theirs t spec"]
        assert told == ["open theirs t spec", "closed"] and sample_sandboxes._here.get() is None

    async def failing() -> None:
        mine = sandboxes()
        await mine.open()
        await mine.close()  # an attempt that failed has no final state, and is not scored
        assert told[2:] == ["open theirs t spec", "closed"] and sample_sandboxes._here.get() is None

    asyncio.run(whole())
    asyncio.run(failing())


def test_a_sample_without_a_sandbox_has_no_tools_and_a_broken_one_is_told(told: list[str]) -> None:
    async def bare() -> None:
        mine = sandboxes(None)
        await mine.open()
        assert mine.tools == () and await mine.final_state() == {} and sample_sandboxes._here.get() is None
        await mine.close()
        with pytest.raises(SandboxError, match="the sandbox of the sample 't' could not be set up: no room"):
            await sandboxes("broken").open()

    asyncio.run(bare())
    assert told == []


def test_sandboxes_are_made_again_of_what_a_trace_kept(told: list[str]) -> None:
    async def score(state: Any, *, other: str = "") -> None:
        if other:
            await sandboxes(id=other).open()
        mine = sandboxes()
        async with sandboxes_for_scoring("theirs", mine.sample, "spec", mine.task, state):
            told.append("scored")

    kept = {"sandbox": {"default": {"changes": "one"}, "db": {"changes": "two"}}}
    asyncio.run(score(kept))
    again = ["open theirs t spec", "default restores one", "db restores two", "scored", "closed"]
    assert told == again
    told.clear()
    for other in ("s", "u"):  # those of another task are left alone
        asyncio.run(score(kept, other=other))
        assert [each for each in told if f" {other} " not in each][:5] == again
        told.clear()
    for state, said in [
        (KEPT, "too large"),
        ({}, "it was not one of ours"),
        ({"sandbox": {}}, "it was not one of ours"),
    ]:
        with pytest.raises(ConfigError, match=f"the sandbox of t was not kept: {said}"):
            asyncio.run(score(state))
    assert told == []
    with pytest.raises(SandboxError, match="damaged"):
        asyncio.run(score({"sandbox": {"default": {"changes": "damaged"}, "db": {"changes": "two"}}}))
    assert told == ["open theirs t spec", "default restores damaged", "closed"]
