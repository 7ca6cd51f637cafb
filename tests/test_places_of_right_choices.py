"""Places of right choices: no letter is right by its place, and letters that are texts are told apart."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from firsthand.benchmarks import crows_pairs, truthfulqa
from firsthand.errors import DataError, FirsthandError
from firsthand.patterns.parts.answers import extract_answer
from firsthand.scorers.choice import acc, chosen_letter, mc1, mc2
from firsthand.scorers.familiar import choice
from firsthand.task import Task
from firsthand.trace import Call, Trace


def attempt(task: Task, answer: str = "", values: dict[str, float] | None = None) -> Trace:
    """An attempt with an answer, or with the log-probs of texts."""
    calls = []
    for at, (before, text) in enumerate(task.scored if values else ()):
        detail = {"prompt": before, "likelihoods": [{"text": text, "logprob": (values or {})[text]}]}
        calls.append(Call(f":{at}", "score", None, 0.0, 0.0, "", detail=detail))
    return Trace("1", "b", task.id, {"name": "a"}, 0, 0, "", 0.0, answer=answer, calls=tuple(calls))


def truthful_tasks(folder: Path, rows: int) -> list[Task]:
    with (folder / "TruthfulQA.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("Question", "Best Answer", "Correct Answers", "Incorrect Answers"))
        writer.writerows((f"Q{at}?", "best", "good; best", "bad; worse") for at in range(rows))
    return list(truthfulqa.truthfulqa(data=str(folder)).tasks(0))


def pair_tasks(folder: Path, rows: int) -> list[Task]:
    lines = [f"{at},More {at}.,Less {at}.,age\n" for at in range(rows)]
    (folder / "crows_pairs_anonymized.csv").write_text(",sent_more,sent_less,bias_type\n" + "".join(lines))
    return list(crows_pairs.crows_pairs(data=str(folder)).tasks(0))


@pytest.mark.parametrize("letter", ["A", "B"])
def test_one_letter_for_every_question_is_right_as_often_as_chance(letter: str, tmp_path: Path) -> None:
    tasks, pairs = truthful_tasks(tmp_path, 200), pair_tasks(tmp_path, 200)
    assert 0.15 < sum(mc1(task, attempt(task, letter)).value for task in tasks) / 200 < 0.35  # four choices
    prefers = [crows_pairs.prefers_stereotype(task, attempt(task, letter)).value for task in pairs]
    assert 0.4 < sum(prefers) / 200 < 0.6


def test_the_places_of_true_answers_and_of_the_stereotype_are_those_of_their_texts(tmp_path: Path) -> None:
    tasks, pairs = truthful_tasks(tmp_path, 20), pair_tasks(tmp_path, 20)
    for task in tasks:
        assert [task.choices[at] for at in task.secret["true"]] == [" best", " good"]
        assert task.choices[task.secret["gold"]] == " best" == f" {task.choices[task.secret['true'][0]].strip()}"
        assert task.letters[task.secret["gold"]] == task.secret["answer"]
    for at, task in enumerate(pairs):
        assert task.choices[task.secret["gold"]] == f"More {at}." and set(task.choices) == {
            f"More {at}.",
            f"Less {at}.",
        }
        assert task.requests == tuple(("\n", text) for text in task.choices)
    assert [task.choices for task in truthful_tasks(tmp_path, 9)] == [task.choices for task in tasks[:9]]
    assert [task.choices for task in pair_tasks(tmp_path, 9)] == [task.choices for task in pairs[:9]]


def test_log_probs_are_scored_as_published_in_any_order(tmp_path: Path) -> None:
    for task in truthful_tasks(tmp_path, 10):
        values = {" best": -1.0, " good": -0.5, " bad": -2.0, " worse": -3.0}
        assert mc1(task, attempt(task, values=values)).value == 1.0
        share = (math.exp(-1) + math.exp(-0.5)) / sum(map(math.exp, values.values()))
        assert mc2(task, attempt(task, values=values)).value == pytest.approx(share)
        for tied in (" bad", " worse"):
            found = mc1(task, attempt(task, values={**values, tied: -1.0}))
            assert found.value == 0.0 and task.choices["ABCD".index(found.detail["chosen"])] == tied
    for at, task in enumerate(pair_tasks(tmp_path, 10)):
        for more, less, value in ((-1.0, -2.0, 1.0), (-2.0, -1.0, 0.0), (-1.0, -1.0, 0.0)):
            made = attempt(task, "A", {f"More {at}.": more, f"Less {at}.": less})
            assert crows_pairs.prefers_stereotype(task, made).value == value


def test_mc1_of_impossible_answers_chooses_none() -> None:
    task = Task("t", "?", (" a b", " c d"), context="q", secret={"gold": 0, "true": [0]})
    found = mc1(task, attempt(task, values={" a b": -math.inf, " c d": -math.inf}))
    assert found.value == 0.0 and found.detail["chosen"] is None


def test_a_small_letter_that_is_the_text_of_a_choice_is_that_text() -> None:
    task = Task("t", "Which letter is a vowel?", (" b", " c", " a"), secret={"gold": 2})
    for answer, place in (
        ("a", 2), ("b", 0), ("c", 1), (" a. ", 2), ("A", 0), ("C", 2), ("(a)", 0), ("a)", 0), ("(B)", 1), ("d", None),
    ):  # fmt: skip
        assert chosen_letter(answer, task) == place, answer
        assert acc(task, attempt(task, answer)).value == choice(task, attempt(task, answer)).value == float(place == 2)
    for text, letter in (
        ("Answer: a", "C"), ("The letter is a vowel.\nAnswer: a", "C"), ("Answer: b", "A"), ("a", "C"), ("Answer: A", "A"),
        ("Answer: a)", "A"), ("Answer: (c)", "C"), ("Answer: C", "C"),
    ):  # fmt: skip
        assert extract_answer(text, task) == letter, text
    words = Task("t", "?", (" red", " blue"), secret={"gold": 0})
    assert [chosen_letter(answer, words) for answer in ("a", "b", "A", "(b)", "c")] == [0, 1, 0, 1, None]
    assert [extract_answer(f"Answer: {letter}", words) for letter in "ab"] == ["A", "B"]
    same = Task("t", "?", (" b", " b", " x"), secret={"gold": 0})
    assert chosen_letter("b", same) == 1, "two choices have that text, so that it is the letter"
    capitals = Task("t", "?", (" B", " A"), secret={"gold": 0})
    assert [chosen_letter(answer, capitals) for answer in "ABab"] == [0, 1, 0, 1]


def hub_row(mc1_choices: str, mc1_labels: list[int], mc2_choices: str = "abxyz") -> dict[str, Any]:
    """A row of truthfulqa/truthful_qa: each letter is an answer, and of MC2's `a` and `b` are the true ones."""
    mc2 = {"choices": [*mc2_choices], "labels": [int(each in "ab") for each in mc2_choices]}
    return {"question": "Q?", "mc1_targets": {"choices": [*mc1_choices], "labels": mc1_labels}, "mc2_targets": mc2}


def hub_task(row: dict[str, Any], folder: Path) -> Task:
    """The task of a hub row, read from the file that `fetch` keeps of it."""
    made = {**truthfulqa.from_hub(row), "question": "Q?"}
    (folder / Path(truthfulqa.SOURCE.path).name).write_text(json.dumps(made))
    return truthfulqa.truthfulqa(data=str(folder)).tasks(0)[0]


def test_mc1_of_a_hub_row_is_over_the_answers_of_mc1(tmp_path: Path) -> None:
    task = hub_task(hub_row("xbyz", [0, 1, 0, 0]), tmp_path)  # MC2 has another true answer first
    assert task.choices[task.secret["gold"]] == " b" and "rivals" not in task.secret
    assert {task.choices[at] for at in task.secret["true"]} == {" a", " b"} and len(task.choices) == 5
    assert mc1(task, attempt(task, "", {" a": -9, " b": -1, " x": -2, " y": -2, " z": -2})).value == 1
    assert mc1(task, attempt(task, "", {" a": -1, " b": -9, " x": -2, " y": -2, " z": -2})).value == 0
    assert mc1(task, attempt(task, task.secret["answer"])).value == 1
    fewer = hub_task(hub_row("bxy", [1, 0, 0]), tmp_path)  # MC1 has fewer false answers
    assert {fewer.choices[at] for at in fewer.secret["rivals"]} == {" x", " y"}
    assert mc1(fewer, attempt(fewer, "", {" a": -1, " b": -3, " x": -4, " y": -4, " z": -2})).value == 1
    for above in (" x", " y"):
        values = {" a": -1, " b": -3, " x": -4, " y": -4, " z": -2, above: -2}
        assert mc1(fewer, attempt(fewer, "", values)).value == 0


@pytest.mark.parametrize(
    ("choices", "labels"), [("bx", [0, 0]), ("abx", [1, 1, 0]), ("xy", [1, 0]), ("b", [1]), ("bax", [1, 0, 0])]
)
def test_a_hub_row_whose_mc1_has_not_one_answer_of_mc2_is_refused(choices: str, labels: list[int]) -> None:
    with pytest.raises(ValueError, match="mc1_targets are"):
        truthfulqa.from_hub(hub_row(choices, labels))


def test_answers_of_mc1_that_mc2_lacks_are_compared_in_mc1_and_are_no_part_of_mc2(tmp_path: Path) -> None:
    task = hub_task(hub_row("cxv", [1, 0, 0]), tmp_path)
    assert task.choices[task.secret["gold"]] == " c" and len(task.choices) == 7
    assert {task.choices[at] for at in task.secret["not_in_mc2"]} == {" c", " v"}
    assert {task.choices[at] for at in task.secret["rivals"]} == {" x", " v"}
    values = {" a": -2, " b": -2, " c": -1, " x": -2, " v": -3, " y": 0, " z": 0}
    assert mc1(task, attempt(task, "", values)).value == 1
    assert mc1(task, attempt(task, "", values | {" v": 0})).value == 0, "a false answer of MC1 alone counts"
    equal = dict.fromkeys(values, -1.0)
    assert mc2(task, attempt(task, "", equal)).value == pytest.approx(2 / 5)
    assert mc2(task, attempt(task, "", equal | {" c": 9, " v": 9})).value == pytest.approx(2 / 5)
    alone = hub_task(hub_row("cxyz", [1, 0, 0, 0]), tmp_path)
    assert {alone.choices[at] for at in alone.secret["not_in_mc2"]} == {" c"} and "rivals" not in alone.secret


@pytest.mark.parametrize("given", ["x", ["v"], [["x"]]])
def test_false_answers_of_mc1_that_are_no_false_answers_are_refused(given: object) -> None:
    row = {"question": "Q?", "true": ["b"], "false": ["x", "y"], "mc1_false": given}
    with pytest.raises(DataError, match="here: 'mc1_false' is"):
        truthfulqa._item(row, "q", "here")


def test_rows_that_an_older_version_kept_of_the_hub_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    old = tmp_path / "data" / "mcq" / "truthfulqa_validation.jsonl"
    old.parent.mkdir(parents=True)
    old.write_text(json.dumps({"question": "Q?", "true": ["a", "b"], "false": ["x"]}))
    with pytest.raises(FirsthandError, match="truthfulqa_multiple_choice"):
        truthfulqa.truthfulqa(data="hub")
