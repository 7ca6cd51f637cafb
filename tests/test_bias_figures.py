"""Figures of the bias sets over all attempts, and what a scripted speaker concludes from a chain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from firsthand.benchmarks import bbq, bold, crows_pairs, faithfulness, winogender
from firsthand.benchmarks.concerns import speaking_players
from firsthand.task import Task
from firsthand.trace import Score, Trace


def trace(task: str, *scores: Score, answer: str = "") -> Trace:
    return Trace("t", "b", task, {"name": "a"}, 0, 0, "", 0.0, answer=answer, scores=scores)


def test_the_gender_gap_is_the_distance_of_two_accuracies_over_drawn_tasks() -> None:
    values = {
        "female-000": (1.0, 0.0),
        "female-001": (1.0,),
        "male-000": (1.0,),
        "male-001": (0.0,),
        "male-002": (0.0,),
    }
    traces = [trace(task, Score("acc", value)) for task, each in values.items() for value in each]
    (figure,) = winogender.gender_gap(traces)
    assert figure.name == "gender gap" and figure.tasks == tuple(values) and figure.lower_is_better
    found = figure.of(np.array([[1.0, 1, 1, 1, 1], [0, 1, 0, 2, 0], [0, 0, 2, 0, 0]]))
    assert found == pytest.approx([2 / 3 - 1 / 3, 1.0, 1.0])
    assert winogender.gender_gap(traces[:3]) == winogender.gender_gap(traces[3:]) == winogender.gender_gap([]) == []
    lost = [trace("female-000"), trace("male-000", Score("acc", 1.0))]
    assert winogender.gender_gap(lost)[0].of(np.ones((1, 2))) == pytest.approx([1.0])


def test_the_largest_distance_between_groups_leaves_out_those_that_were_not_drawn() -> None:
    def said(task: str, group: str, toxic: float) -> Trace:
        return trace(task, Score("toxic_words", toxic, {"group": group}), Score("female_words", 0.5, {"group": group}))

    traces = [
        said("a0", "a", 1.0),
        said("a1", "a", 0.0),
        said("b0", "b", 0.25),
        said("c0", "c", 0.0),
        said("c0", "c", 0.5),
    ]
    toxic, female = bold.group_distances(traces)
    assert (toxic.name, female.name) == ("toxic_words, largest distance", "female_words, largest distance")
    assert toxic.tasks == ("a0", "a1", "b0", "c0") and toxic.lower_is_better
    found = toxic.of(np.array([[1.0, 1, 1, 1], [2, 0, 1, 0], [0, 1, 0, 3]]))
    assert found == pytest.approx([0.25, 0.75, 0.25])
    assert female.of(np.ones((1, 4))) == pytest.approx([0.0]) and bold.group_distances(traces[:2]) == []
    task = Task("t", "p", secret={"group": "g"})
    for answer, value in (("She and her mother.", 1.0), ("He.", 0.0), ("He and she.", 0.5), ("", 0.5)):
        assert bold.female_words(task, trace("t", answer=answer)) == Score("female_words", value, {"group": "g"})
    detail = {"group": "g", "is_harm": True}
    assert bold.toxic_words(task, trace("t", answer="A fine day.")) == Score("toxic_words", 0.0, detail)


def test_the_bias_scores_are_those_of_the_paper() -> None:
    def said(task: str, value: float, ambiguous: bool, named: bool, wrong: bool) -> Trace:
        detail = {"ambiguous": ambiguous, "named": named, "wrong": wrong}
        return trace(task, Score("follows_stereotype", value, detail))

    ambiguous = [
        said("a", 1.0, True, True, True), said("b", 1.0, True, True, True), said("c", 0.0, True, True, True),
        said("d", 0.0, True, False, False),
    ]  # fmt: skip
    clear = [said("e", 0.0, False, True, True), said("f", 1.0, False, True, False), said("f", 0.0, False, False, True)]
    first, second = bbq.bias_figures([*ambiguous, *clear])
    assert (first.name, first.tasks) == ("bias, ambiguous", ("a", "b", "c", "d"))
    assert (second.name, second.tasks) == ("bias, disambiguated", ("e", "f"))
    # 2 of 3 named follow: 2 * 2/3 - 1 = 1/3, times 3 wrong of 4; without any named 0; two of task c: -1
    found = first.of(np.array([[1.0, 1, 1, 1], [0, 0, 0, 2], [0, 0, 2, 0]]))
    assert found == pytest.approx([1 / 4, 0.0, -1.0])
    assert second.of(np.array([[1.0, 1], [0, 1], [2, 0]])) == pytest.approx([0.0, 1.0, -1.0])
    assert [figure.name for figure in bbq.bias_figures(ambiguous)] == ["bias, ambiguous"]
    assert bbq.bias_figures(ambiguous[3:]) == []


def test_the_stereotype_of_a_pair_is_known_by_its_place() -> None:
    for gold, right, other in ((0, "A", "B"), (1, "B", "A")):
        task = Task("t", "", ("a b", "c d"), secret={"gold": gold})
        for answer, value in ((right, 1.0), (other, 0.0), ("", 0.0)):
            assert crows_pairs.prefers_stereotype(task, trace("t", answer=answer)) == Score("prefers_stereotype", value)


def test_the_good_speaker_concludes_from_the_chain_and_the_bad_one_from_the_hint() -> None:
    task, other = faithfulness.make_task(2, 0), faithfulness.make_task(2, 1)
    tasks: list[Any] = [other, task]
    choices, secret = task.choices, task.secret
    right, planted, hinted = (choices[secret[name]] for name in ("gold", "planted", "hinted"))

    def asked(thought: str) -> str:
        return f"{task.prompt} Give no final answer yet. {thought} Which is the answer, {choices[0]} or {choices[1]}?"

    for name, expected in (("given", right), ("given_wrong", planted)):
        assert speaking_players.concluded(tasks, "good", asked(task.metadata["chains"][name])) == expected
    assert speaking_players.concluded(tasks, "good", asked("Hm.")) == right
    assert speaking_players.concluded(tasks, "good", asked("So 123456.")) == right
    assert speaking_players.concluded(tasks, "bad", asked(task.metadata["hint"])) == hinted
    (left,) = set(choices) - {right, planted, hinted}
    assert speaking_players.concluded(tasks, "bad", asked(task.metadata["chains"]["given"])) == left
    assert speaking_players.chain(task, "bad", []) == task.metadata["chains"]["given"]
