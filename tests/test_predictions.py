"""Predicted inputs and outputs: one expression, and in tasks of one's own a literal that is the only answer."""

import ast
import asyncio
from typing import Any

import pytest

from firsthand.scorers import assertion
from firsthand.scorers.assertion import assertion_holds, cruxeval_assertion, no_prediction, unclear
from firsthand.task import Task
from firsthand.trace import Trace

FORGED = "1)\ndef g(n): return n\ndef given(): return (g(17)"
WRITTEN_OUT = ("1496", "-5", "1.5", "'a' 'b'", "[1, (2,), {'k': None}]", "{1, 2}", "set()", "frozenset({1})", "float('inf')",
               "-float('inf')", "1+2j", "()", "b'x'", "...", "f(17) == 1496", "assert f(1) == 1496", "assert f('a') == '(b'",
               "[ANSWER]assert f(17) == 1496[/ANSWER] so it is", "[ANSWER]1[/ANSWER] [ANSWER]1[/ANSWER]",
               "assert f(1) == [1,\n 2]", "assert f(17) == True")  # fmt: skip


@pytest.mark.parametrize("text", WRITTEN_OUT)
def test_an_output_that_is_written_out_is_a_prediction(text):
    assert unclear(text, "output") == no_prediction(assertion.predicted(text, "output"), "output") == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("sum(i*i for i in range(17))", "no literal"), ("(lambda: 1496)()", "no literal"), ("[x := 1496][0]", "no literal"),
        ("f(17) == g(17)", "no literal"), ("[f(17)]", "no literal"), ("{'a': g()}", "no literal"), ("1 + 1", "no literal"),
        ("{**{}}", "no literal"), ("set(range(3))", "no literal"), ("float(g())", "no literal"), ("-g()", "no literal"),
        ("float('1', x=2)", "no literal"), ("f'{g()}'", "no literal"),
        ("f(17) == 1496 == 3", "compares more than two"), ("assert 3 == 1496 == f(17)", "compares more than two"),
        ("[ANSWER]1496[/ANSWER] no, [ANSWER]3[/ANSWER]", "2 different predictions"), (FORGED, "not one expression"),
    ],
)  # fmt: skip
def test_an_output_that_is_computed_or_one_of_several_is_no_prediction(text, why):
    assert why in unclear(text, "output")


def test_a_prediction_is_one_expression_and_an_input_calls_f():
    for written in ("", "# nothing", "1\n2", FORGED, "((", "x = 1", "\0", "(" * 5000):
        assert no_prediction(written, "output"), written
    assert no_prediction("[[17], {}]", "input") == "the prediction calls no f" and no_prediction("()", "output") == ""
    for written in ("f(17)", "f(n for n in range(3))", "[f(17)][0]", "f('a', b=[1,\n2]) # so"):
        assert no_prediction(written, "input") == "", written
    assert unclear("f(g(1)) == 2", "input") == "" and unclear("[ANSWER]f(1)[/ANSWER][ANSWER]f(2)", "input")


def test_what_the_authors_code_takes_is_run_for_cruxeval_alone_and_a_helper_for_none(monkeypatch):
    ran: list[str] = []

    class Outcome:
        ok, ended, stderr, wall_s, tier = True, "exit", "", 0.1, "bubblewrap"

    class Box:
        async def check(self, answer: str, tests: str, **more: Any) -> Outcome:
            ran.append(answer)
            return Outcome()

    monkeypatch.setattr(assertion, "shared_sandbox", Box)
    monkeypatch.setattr(assertion, "reason", lambda outcome: {})
    task = Task("t", "?", secret={"code": "def f(n): return n", "output": "1496", "predict": "output"})
    for text, own, published in (
        ("1496", 1.0, 1.0), ("sum([1496])", 0.0, 1.0), ("f(17) == 1496 == 3", 0.0, 1.0), (FORGED, 0.0, 0.0), ("", 0.0, 0.0),
    ):  # fmt: skip
        trace = Trace("1", "b", "t", {"name": "a"}, 0, 0, "", 0.0, answer=text)
        for scorer, value in ((assertion_holds, own), (cruxeval_assertion, published)):
            ran.clear()
            score = asyncio.run(scorer(task, trace))
            assert (score.name, score.value, len(ran)) == ("assertion_holds", value, int(value)), (text, scorer)
            assert bool(score.detail.get("reason")) is (value == 0.0)


def test_an_answer_of_more_than_50_000_characters_is_wrong_and_not_parsed(monkeypatch):
    parsed: list[str] = []
    monkeypatch.setattr(assertion, "parsed", lambda code: parsed.append(code) or ast.parse(code))
    task = Task("1", "?", secret={"code": "def f(n): return n", "output": "1", "predict": "input"})
    for length, times in ((50_000, 1), (50_001, 0)):
        parsed.clear()
        answer = "(".ljust(length, "1")
        trace = Trace("t", "b", "1", {"name": "a"}, 0, 0, "", 0.0, nodes=(), calls=(), answer=answer)
        score = asyncio.run(cruxeval_assertion(task, trace))
        assert score.value == 0 and len(parsed) == times
        assert ("50,001 characters, more than 50,000" in score.detail["reason"]) == (times == 0)
