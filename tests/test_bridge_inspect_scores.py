"""Scorers and metrics of an Inspect task: each scorer's scores, the state that they get, figures of all attempts."""

from __future__ import annotations

import asyncio
import importlib.util
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.benchmark import Figure
from firsthand.errors import ConfigError
from firsthand.message import assistant, user
from firsthand.task import Task
from firsthand.trace import Event, Failure, Node, Score, Trace

if importlib.util.find_spec("inspect_ai") is None:
    pytest.skip("needs pip install 'firsthand[inspect]'", allow_module_level=True)

from inspect_ai.dataset import Sample
from inspect_ai.log._transcript import transcript
from inspect_ai.model import get_model
from inspect_ai.model._model import model_roles, model_usage, role_usage
from inspect_ai.scorer import Score as Verdict
from inspect_ai.scorer import accuracy, scorer, stderr

from firsthand.bridges.inspect.sample_scores import STATE, InspectScorers, enter_grader, restored, saved
from firsthand.bridges.inspect.task_samples import cluster_key


def attempt(task: str, answer: str | None = None, epoch: int = 0, **more: Any) -> Trace:
    return Trace("id", "lm", task, {"name": "a", "model": "m"}, epoch, 0, "", 1.0, answer=answer, **more)


def value(figure: Figure, *counts: int) -> float:
    return float(figure.of(np.array([counts]))[0])


class Scorers:
    """A task of two samples with two scorers `said`, and one of parts; keeps the states that they got."""

    def __init__(self) -> None:
        self.states: list[Any] = []

        @scorer(metrics=[accuracy(), stderr()], name="said")
        def said() -> Any:
            async def score(state: Any, target: Any) -> Any:
                self.states.append(state)
                text = state.output.completion
                if text == "break":
                    raise KeyError(text)
                return None if text == "pass" else Verdict(value="C" if text == target.text else "I", answer=text)

            return score

        @scorer(metrics={"a": [accuracy()], "b": [accuracy()]}, name="parts")
        def parts() -> Any:
            async def score(state: Any, target: Any) -> Any:
                return Verdict(value={"a": 1, "b": 0.25})

            return score

        one, two = Sample(input="Q1", target="A", id="t1", choices=["x", "y"]), Sample(input="Q2", target="B", id="t2")
        theirs = SimpleNamespace(
            scorer=[said(), said(), parts()], epochs_reducer=None, metrics=None, name="theirs", sandbox=None
        )
        self.made = InspectScorers(theirs, {"t1": one, "t2": two}, "", {})

    def score(self, task: Task, trace: Trace) -> tuple[Score, ...]:
        return asyncio.run(self.made.score(task, trace))


def test_each_scorer_of_a_task_gives_its_scores_and_equal_names_are_numbered() -> None:
    scorers, task = Scorers(), Task("t1", "Q1", choices=("x", "y"))
    assert scorers.made.names == ["said", "said1", "parts"]
    found = scorers.score(task, attempt("t1", "A"))
    assert [(each.name, each.value) for each in found] == [("said", 1), ("said1", 1), ("parts/a", 1), ("parts/b", 0.25)]
    assert found[0].detail["inspect"]["answer"] == "A" and found[1].detail["scorer"] == "said1"
    state = scorers.states[0]
    assert (state.sample_id, state.epoch, state.output.completion, state.input) == ("t1", 1, "A", "Q1")
    assert [each.text for each in state.messages] == ["Q1"] and [each.correct for each in state.choices] == [
        True,
        False,
    ]
    failing = scorers.score(Task("t2", "Q2"), attempt("t2", "break", 4))
    assert failing[0] == Score("said", 0.0, failure="KeyError: 'break'") and scorers.states[-1].epoch == 5
    assert [each.name for each in scorers.score(Task("t2", "Q2"), attempt("t2", "pass"))] == ["parts/a", "parts/b"]
    copy = Task("t1~typos", "Q1", choices=("x", "y"), metadata={"origin": "t1"})
    assert scorers.score(copy, attempt("t1~typos", "A")) == found, "a perturbed copy is scored as its sample"


def test_scorers_get_the_state_that_the_tasks_own_solvers_left() -> None:
    scorers, task = Scorers(), Task("t1", "Q1", choices=("x", "y"))
    nodes = (Node(None, user("asked")), Node(0, assistant("told")))
    scorers.score(task, attempt("t1", "A", nodes=nodes))
    assert [each.text for each in scorers.states[0].messages] == ["asked", "told"]
    left = restored(scorers.made.theirs, scorers.made.samples["t1"], "m")
    left.output.completion, left.completed = "B", True
    left.metadata["seen"], left.messages[0].content = 3, "changed"
    left.store.set("key", [1])
    left.choices.mark_choice(1, True)
    kept = saved(left)
    assert list(kept) == ["messages", "output", "choices", "metadata", "store", "completed"]
    assert kept["choices"] == [["x", None, 0], ["y", True, 1]] and kept["store"] == {"key": [1]}
    older = Event(STATE, 0.0, {**kept, "metadata": {}})
    scorers.score(
        task, attempt("t1", "A", nodes=nodes, events=(older, Event(STATE, 1.0, kept), Event("note", 2.0, {})))
    )
    state = scorers.states[-1]
    assert saved(state) == kept and state.metadata == {"seen": 3} and state.completed and state.store.get("key") == [1]


def _marked(score: Score) -> Score:
    return replace(score, detail=score.detail | {"is_harm": score.name in ("said1", "parts/b")})


def test_metrics_of_a_task_are_figures_over_its_answered_samples() -> None:
    scorers = Scorers()

    def scored(id: str, answer: str, **more: Any) -> Trace:
        return attempt(id, answer, scores=scorers.score(Task(id, "Q"), attempt(id, answer)), **more)

    traces = [scored("t2", "no"), scored("t1", "A"), scored("t2", "B", error=Failure("ModelError", "gone"))]
    figures = {each.name: each for each in scorers.made.figures([*traces, attempt("other", "A")])}
    assert list(figures) == [
        "said accuracy",
        "said stderr",
        "said1 accuracy",
        "said1 stderr",
        "a accuracy",
        "b accuracy",
    ]
    assert [each.uncertainty for each in figures.values()] == [False, True, False, True, False, False]
    assert figures["said accuracy"].tasks == ("t1", "t2") and figures["said accuracy"].slow
    assert [value(figures["said accuracy"], *counts) for counts in [(1, 1), (2, 0), (0, 2), (3, 1)]] == [
        0.5,
        1,
        0,
        0.75,
    ]
    assert value(figures["b accuracy"], 1, 1) == 0.25 and value(figures["said stderr"], 1, 1) == 0.5
    assert not any(each.lower_is_better for each in figures.values())
    marked = [replace(each, scores=tuple(_marked(score) for score in each.scores)) for each in traces]
    lower = [each.name for each in scorers.made.figures(marked) if each.lower_is_better]
    assert lower == ["said1 accuracy", "said1 stderr", "b accuracy"]
    assert scorers.made.figures([]) == [] and scorers.made.figures([attempt("t1", "A")]) == []


@pytest.mark.slow
def test_without_a_grader_no_model_answers_a_scorer_though_another_attempt_named_one() -> None:
    told = "this scorer calls a judge model, and none was named: add :grader=MODEL to the benchmark"

    async def asked() -> None:
        for _ in range(2):
            enter_grader("scripted:echo")
            assert [(await get_model(role=role).generate("hi")).completion for role in (None, "grader")] == ["hi", "hi"]
            assert list(model_usage()) == ["firsthand/scripted:echo"] and len(transcript().events) == 2
            enter_grader("")
            assert list(model_roles()) == ["grader"] and len(transcript().events) == 0
            for role in (None, "grader"):
                with pytest.raises(ConfigError) as missing:
                    await get_model(role=role).generate("hi")
                assert str(missing.value) == told

    asyncio.run(asked())
    assert model_usage() == {} == role_usage(), "what one attempt used is not counted for others"


def test_the_key_of_clusters_is_found_in_every_form_of_metrics() -> None:
    def key(metrics: Any, *scorers: Any) -> str | None:
        return cluster_key(SimpleNamespace(metrics=metrics, scorer=list(scorers) or None))

    def said(metrics: Any) -> Any:
        @scorer(metrics=metrics, name="own")
        def own() -> Any:
            async def score(state: Any, target: Any) -> Any:
                return None

            return score

        return own()

    p, q, plain = stderr(cluster="p"), stderr(cluster="q"), accuracy()
    for metrics, found in (
        (p, "p"), ([p], "p"), ((plain, p), "p"), ((p,), "p"), ([(plain, [p])], "p"), ({"a": p}, "p"), ({"a": (p,)}, "p"),
        ({"a": [plain], "b": {"c": p, "d": [plain]}}, "p"), ([plain, {"*": (plain, p)}], "p"), ([p, p], "p"),
        ({"a": p, "b": (q,)}, None), ((p, [q]), None), (plain, None), ((), None), ({}, None), (None, None),
        ({"a": None}, None), ([stderr()], None),
    ):  # fmt: skip
        assert key(metrics) == found, metrics
    for metrics in ([plain, p], {"a": [plain, p]}, {"a": [plain], "b": [p]}, [plain, {"*": [p]}]):
        assert key(None, said(metrics)) == key([plain], said([plain]), said(metrics)) == "p", metrics
        assert key([q], said(metrics)) is None and key([p], said(metrics)) == "p"


def test_a_task_without_scorers_has_no_scores_and_no_figures() -> None:
    for none in (None, []):
        theirs = SimpleNamespace(scorer=none, epochs_reducer=None, metrics=None, name="theirs", sandbox=None)
        made = InspectScorers(theirs, {"t1": Sample(input="Q1", target="A", id="t1")}, "", {})
        assert (made.scorers, made.names) == ([], [])
        assert asyncio.run(made.score(Task("t1", "Q1"), attempt("t1", "A"))) == ()
        assert made.figures([attempt("t1", "A", scores=(Score("said", 1.0),))]) == []
