"""Beginnings and endings that readers take off a text: the whole one, once, and no letter of what stands beside it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.benchmarks import ai_risk, bold, cranfield, mmlu_pro, xstest
from firsthand.benchmarks.agentbench import _named
from firsthand.benchmarks.concerns.acting_players import _table
from firsthand.benchmarks.game24 import Game24Thoughts
from firsthand.benchmarks.protocols.multiple_choice import question_item
from firsthand.benchmarks.sources.datasets import _rows
from firsthand.errors import DataError
from firsthand.scorers.match import _plain
from firsthand.scorers.mathematics.quantities import Unit, _singular, read_unit
from firsthand.trace import Score
from firsthand.worlds.household.alfworld_games import _kind
from firsthand.worlds.json_calls import unfenced
from firsthand.worlds.knowledge.triples import NAMESPACE, Triple, _triple
from firsthand.worlds.puzzles.puzzle_judge import _stem
from firsthand.worlds.textworld_game import TextWorldGame
from made_traces import trace


def test_a_question_keeps_its_first_and_last_letters() -> None:
    row: dict[str, Any] = {"choices": ["a", "b"], "gold": 1}
    for query, question in (
        ("Question: notions are raw\nAnswer:", "notions are raw"),
        ("Question: Question: seen\nAnswer:\nAnswer:", "Question: seen\nAnswer:"),
        ("stones", "stones"),
    ):
        assert question_item({**row, "query": query}, "i", "w").fields == {"question": question}
    assert question_item({**row, "query": "Goal: Goal: log\nAnswer:"}, "i", "w", "Goal: ").fields == {
        "question": "Goal: log"
    }
    for before, after in (("", "\n\n"), ("Question: ", "\n\n"), ("", "")):
        text = f"Question:{before}notion is\n\nChoices:\n (A) was seen\n (B) raw{after}Answer:"
        found = ai_risk.parse_question(text, " (B)", "w")
        assert found == ai_risk.RiskQuestion(f"{before}notion is", ("was seen", "raw"), 1)
    assert cranfield._without_title("wing flow . wing flow . win", "wing flow .") == "wing flow . win"
    line = {"options": ["x", "N/A", "y"], "answer_index": 1, "answer": "B", "category": "c", "question": "q"}
    for cot, worked in (
        ("A: Let's think step by step. Less steps.", "Less steps."),
        ("A: Let's see.", "A: Let's see."),
    ):
        assert mmlu_pro._item({**line, "cot_content": cot}, "i", "w").fields["worked"] == worked


def test_names_keep_the_letters_that_their_prefix_has_too(tmp_path: Path) -> None:
    assert _named(" agentbench_db + hh+db+agentbench_hh") == ["db", "hh"]
    (tmp_path / "xstest_prompts.csv").write_text(
        "id,prompt,type,label\n1,P,contrast_contrast_historical_tasks,unsafe\n2,Q,stations,safe\n"
    )
    tasks = xstest.xstest(data=str(tmp_path)).tasks(0)
    assert [(task.id, task.metadata["topic"]) for task in sorted(tasks, key=lambda each: each.id)] == [
        ("xstest-1", "contrast_historical_tasks"), ("xstest-2", "stations"),
    ]  # fmt: skip
    assert [_kind(each) for each in ("StreetLampType", "Pepper", "TypeType")] == ["streetlamp", "pepper", "type"]
    assert [_singular(each) for each in ("blipss", "zorks", "zzs", "bss")] == ["blipss", "zork", "zzs", "bss"]
    words = {"boss's": "boss", "skinning": "skinn", "cries": "cri", "see": "see", "species": "spec", "horse": "hors"}
    assert {each: _stem(each) for each in words} == words
    code = _table("assert sort(sort(3)) == t(4)\nassert sort([1], 2) == 5", "sort")
    assert code.split("\n")[1] == "    for inputs, found in [((sort(3)), t(4)), (([1], 2), 5)]:"


def test_marks_around_a_text_are_taken_off_once() -> None:
    assert unfenced("```jsonnosj```") == "nosj" and unfenced("``` json\n{}```") == "json\n{}"
    assert unfenced("```x``````") == "x```"
    assert (_plain(" $1,2.5.. "), _plain("3."), _plain("3")) == ("12.5.", "3", "3")
    names = (f"<{NAMESPACE}m.nsm>", f"<{NAMESPACE}type.object.name>", "m.1..")
    assert _triple(" ".join(names)) == Triple("m.nsm", "type.object.name", "m.1.")
    assert list(_rows('{"a": 1}\n', Path("x"))) == [{"a": 1}]
    with pytest.raises(DataError, match=r"^x, line 2: not JSON: ''$"):
        list(_rows('{"a": 1}\n\n{}', Path("x")))
    assert Game24Thoughts.answer(SimpleNamespace(), "1 + 1\nAnswer: Answer: new = 2 ") == "Answer: new = 2"  # type: ignore[arg-type]


def test_equal_parts_of_a_page_are_shown_once_and_equal_tasks_are_one() -> None:
    state = SimpleNamespace(description=" A room.\n", inventory="You carry nothing.")
    for seen, shown in (
        ("A room.", ["A room.", "You carry nothing."]),
        ("Hi", ["Hi", "A room.", "You carry nothing."]),
    ):
        assert TextWorldGame.render(SimpleNamespace(_seen=seen, _state=state)) == "\n".join(shown)  # type: ignore[arg-type]
    traces = [
        trace(str(at), task=task, epoch=at, scores=(Score("toxic_words", value, {"group": group}),))
        for at, (task, value, group) in enumerate(
            (("t", 1.0, "a"), ("u", 0.0, "b"), ("t", 0.5, "a"), ("u", 0.25, "b"), ("v", 1.0, "b"))
        )
    ]
    (figure,) = bold.group_distances(traces)
    assert (figure.name, figure.tasks, figure.lower_is_better) == (
        "toxic_words, largest distance",
        ("t", "u", "v"),
        True,
    )
    assert figure.of(np.ones((1, 3))).tolist() == [pytest.approx(0.75 - 1.25 / 3)]


def test_the_same_unit_is_read_however_it_is_written() -> None:
    second, square = Fraction(1), (("m", 2),)
    for texts, unit in (
        (("cm", "CM.", " cm ", "centimeters.", "centimetre"), Unit(Fraction(1, 100), (("m", 1),))),
        (("cm^2", "cm^2.", ". cm^2 .", "square cm.", "sq. cm", "sq cm", "cm squared."), Unit(Fraction(1, 10_000), square)),
        (("m^3.", "cubic meters", "cu. m", "meters cubed."), Unit(second, (("m", 3),))),
        (("mph.", "mph", "miles per hour.", "mi/h", "miles an hour"), Unit(Fraction(1_609_344, 3_600_000),
                                                                        (("m", 1), ("s", -1)))),
        (("m/s^2.", "m/s/s", "meters per second per second", "meters per second squared"), Unit(second,
                                                                        (("m", 1), ("s", -2)))),
        (("dollars a day.", "dollar/day", "usd per day"), Unit(Fraction(1, 86_400), (("$", 1), ("s", -1)))),
        (("units.", "unit", "", " . "), Unit(second, ())),
        (("kg/g",), Unit(Fraction(1000), ())),
        (("teachers.", "Teacher"), Unit(second, (("teacher", 1),))),
        (("glass.", "glass"), Unit(second, (("glass", 1),))),
        (("mice.", "mouse"), Unit(second, (("mouse", 1),))),
        (("gas",), Unit(second, (("gas", 1),))),
        (("feet/minute",), Unit(Fraction(3_048, 600_000), (("m", 1), ("s", -1)))),
    ):  # fmt: skip
        for text in texts:
            assert read_unit(text) == unit, text
    assert read_unit("cats per dog") == Unit(second, (("cat", 1), ("dog", -1)))
