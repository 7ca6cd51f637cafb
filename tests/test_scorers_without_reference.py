"""Scorers that compare with a reference answer, at tasks that have none, have several, or want them all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from firsthand import catalog
from firsthand.errors import ConfigError, DataError
from firsthand.loop.journal import MemoryJournal
from firsthand.message import assistant
from firsthand.providers.scripted import Scripted
from firsthand.rollout import verdict
from firsthand.scorers import contained, familiar, match, model_judge, symbolic, text, written
from firsthand.scorers.rag_judgements import reference_of
from firsthand.scorers.reference_answers import accepted_answers, reference_answers, right_choice
from firsthand.task import Task
from firsthand.trace import Call, Node, Score, Trace

COMPARING = (match.exact, match.normalised, match.numeric, match.flexible, text.token_f1, familiar.includes,
             familiar.contains,
             familiar.regex(), familiar.f1, contained.contains_words, contained.string_match_all)  # fmt: skip
NONE: tuple[dict[str, Any], ...] = (
    {}, {"tests": "assert 0"}, {"answer": None}, {"answer": ""}, {"answer": " \n"}, {"answer": ["5"]}, {"answers": []},
    {"answers": None}, {"answers": "5"}, {"answers": ["", " "]}, {"answers": ["5", None]}, {"answers": [], "answer": "5"},
)  # fmt: skip


def attempt(answer: str | None) -> Trace:
    nodes = (Node(None, assistant(answer or "")),)
    calls = (Call(":0", "generate", None, 0.0, 0.0, "r", nodes=(0,)),)
    return Trace("i", "b", "t", {"name": "a"}, 0, 0, "", 0.0, answer=answer, nodes=nodes, calls=calls)


def score(scorer: Any, task: Task, answer: str | None) -> Score:
    return asyncio.run(verdict(scorer, task, attempt(answer), MemoryJournal()))[0]


@pytest.mark.parametrize("secret", NONE, ids=str)
def test_a_task_without_a_reference_is_judged_neither_right_nor_wrong(secret: dict[str, Any]) -> None:
    for scorer in (*COMPARING, match.strict):
        for answer in ("", None, "5", "None"):
            found = score(scorer, Task("t", "?", secret=secret), answer)
            assert str(found.failure).startswith("DataError: task t has no reference answer to compare with: "), scorer


def test_one_of_several_reference_answers_is_enough() -> None:
    task = Task("t", "?", secret={"answers": ("5", "", 7.5)})
    assert reference_answers(task) == accepted_answers(task) == ["5", "7.5"]
    for scorer in (match.exact, match.normalised, match.numeric, match.flexible, text.token_f1):
        assert [score(scorer, task, answer).value for answer in ("5", "7.5", "6", "")] == [1, 1, 0, 0], scorer
    assert [score(match.strict, task, answer).value for answer in ("#### 7.5", "5", "#### 6")] == [0, 0, 0]
    assert reference_answers(Task("t", "?", secret={"answer": 0})) == ["0"]


def test_a_blank_one_of_several_references_is_in_no_answer() -> None:
    task = Task("t", "?", secret={"answers": [" ", "5", ""]})
    for scorer in (*COMPARING, contained.contains_value, contained.string_match_part, contained.best_subspan_em):
        assert [score(scorer, task, answer).value for answer in ("5", "no way", "")] == [1, 0, 0], scorer


def test_references_of_texts_are_as_other_answers_or_else_these_count() -> None:
    for given in ([""], [None], "abc", {"a": 1}):
        for answer in ("", "None", "a"):
            found = score(text.token_f1, Task("t", "?", secret={"references": given, "answer": "a"}), answer)
            assert "has no reference answer" in str(found.failure), given
    for given in (None, [], ["a", ""]):
        assert score(text.token_f1, Task("t", "?", secret={"references": given, "answer": "a"}), "a").value == 1.0


def test_mathematics_and_published_rules_compare_with_a_reference_that_is_there() -> None:
    for scorer, says in ((symbolic.boxed, "\\boxed{%s}"), (written.simple_evals_letter, "Answer: %s")):
        for secret in ({}, {"answer": None}, {"answers": [" "]}):
            for answer in (says % "None", "x" * 101):
                assert "has no reference answer" in str(score(scorer, Task("t", "?", secret=secret), answer).failure)
    several = Task("t", "?", secret={"answers": ["1", "2"]})
    assert [score(symbolic.boxed, several, f"\\boxed{{{each}}}").value for each in (1, 2, 3)] == [1, 1, 0]


def test_a_judge_is_told_no_reference_where_the_task_has_none() -> None:
    for secret in ({}, {"answer": None}, {"answers": []}, {"reference": None}, {"answer": ""}):
        assert reference_of(secret) == ""
    for secret in ({"answer": 5}, {"answers": ["5", "6"]}, {"reference": 5, "answer": "6"}):
        assert reference_of(secret) == "5"


def test_a_strict_answer_states_the_reference_that_it_is() -> None:
    task = Task("t", "?", secret={"answers": ["5", "7"]})
    said = (Node(None, assistant("#### 7")),)
    calls = (Call(":0", "generate", None, 0.0, 0.0, "r", nodes=(0,)),)
    values = [
        match.strict(
            task, Trace("i", "b", "t", {"name": "a"}, 0, 0, "", 0.0, answer=each, nodes=said, calls=calls)
        ).value
        for each in ("7", "5", "6")
    ]
    assert values == [1, 0, 0]


def test_one_answer_is_not_enough_for_a_task_that_wants_all() -> None:
    both, one = (Task("t", "?", secret={"answers": each, "match": "all"}) for each in (["a", "b"], ["a"]))
    part = Task("t", "?", secret={"answers": ["a", "b"], "match": "part"})
    for scorer in (match.exact, match.normalised, text.token_f1):
        assert "wants 2 answers at once" in str(score(scorer, both, "a").failure)
        assert score(scorer, one, "a").value == score(scorer, part, "b").value == 1.0
    assert score(contained.string_match, both, "a").value == 0.5
    assert str(score(match.exact, both, "a").failure).endswith("compares with one: take string_match")


def test_letters_of_choices_are_not_looked_for_inside_words() -> None:
    choices = ("red", "blue", "green")
    several = Task("t", "?", choices, secret={"answers": ["A", "C"], "match": "all"})
    for scorer in (match.exact, match.normalised):
        assert str(score(scorer, several, "A").failure).endswith("take a judge model, as in reference:judge=NAME")
    every = Task("t", "?", choices[:2], secret={"answers": ["A", "B"], "match": "all"})
    one = Task("t", "?", choices, secret={"answer": "A", "gold": 0})
    for task in (several, every, one):
        for matching in (contained.string_match, contained.string_match_all, contained.string_match_part):
            failure = str(score(matching, task, "Because it is B only").failure)
            assert failure.startswith("DataError: task t has letters of choices as its reference"), matching
    text_too = Task("t", "?", choices, secret={"answers": ["A", "red"], "match": "all"})
    assert score(contained.string_match, text_too, "It is red").value == 0.5
    assert "take string_match" in str(score(match.exact, text_too, "red").failure)
    assert score(contained.string_match, Task("t", "?", secret={"answer": "A"}), "Because").value == 1.0


@pytest.mark.parametrize(
    ("secret", "told"),
    [
        ({"answers": ["Paris", "", "Paname"]}, '"Paris" or "Paname"'),
        ({"answers": ["Paris"]}, "Paris"),
        ({"answers": ["A", "C"], "match": "all"}, '"A" and "C"'),
        ({"answer": "Paris", "answers": ["x"]}, "Paris"),
        ({"answer": 0}, "0"),
        ({"answer": None, "answers": ["Paris"]}, "Paris"),
    ],
)
def test_a_judge_is_told_every_accepted_answer(secret: dict[str, Any], told: str) -> None:
    asked: list[str] = []

    def likelihood(prompt: str, text: str) -> float:
        asked.append(prompt)
        return -1.0

    made: Any = model_judge.reference(judge="scripted:echo")
    judge = model_judge.judged_by(made, Scripted(score=likelihood))
    asyncio.run(judge(Task("t", "Capital?", secret=secret), attempt("Rome")))
    assert asked and f"\n{told}\n" in asked[0], asked
    refused = asyncio.run(judge(Task("t", "Capital?", secret={"answers": [" "]}), attempt("Rome")))
    assert "the task has none" in str(refused.failure)


def test_the_right_choice_is_the_index_of_a_choice() -> None:
    for gold in (0, 1):
        assert right_choice(Task("t", "?", ("x", "y"), secret={"gold": gold})) == gold
    for secret in ({}, {"gold": None}, {"gold": "A"}, {"gold": True}, {"gold": 2}, {"gold": -1}, {"answer": "A"}):
        with pytest.raises(DataError, match=r"^task t has no right choice to compare with: "):
            right_choice(Task("t", "?", ("x", "y"), secret=secret))


def test_no_scorer_gives_an_empty_answer_points_where_the_task_has_nothing_to_compare_with() -> None:
    passed = {"evidence_recall", "evidence_all"}  # a question without evidence misses none
    for name in catalog.scorers():
        try:
            scorer = catalog.scorer(name)
        except ConfigError:  # a judge needs a model
            continue
        for choices in ((), ("x", "y")):
            for answer in ("", None, "x"):
                found = score(scorer, Task("t", "?", choices, secret={}), answer)
                assert found.failed or found.value == 0 or name in passed, name
