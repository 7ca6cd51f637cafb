"""Predicted inputs and outputs: one expression, and in tasks of one's own a literal that is the only answer."""

import asyncio
from typing import Any

import pytest

from firsthand.benchmarks.reasoning_gym import is_plain
from firsthand.patterns.parts.parsed_python import MAX_BRACES, MAX_CHARS, parsable
from firsthand.scorers import assertion
from firsthand.scorers.assertion import assertion_holds, cruxeval_assertion, no_prediction, unclear
from firsthand.scorers.code import answered_code
from firsthand.scorers.concerns.gaming import lists_inputs
from firsthand.scorers.function_calls import read_calls
from firsthand.scorers.written_calls import makes_a_call
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


def test_a_prediction_that_would_take_long_to_parse_is_none():
    """An f-string of 300 kB took eleven seconds on CPython 3.11, in the event loop."""
    for value in ("f'" + "{1}" * (MAX_BRACES + 1) + "'", "[" + "1," * MAX_CHARS + "]"):
        assert (
            no_prediction(value, "output")
            == no_prediction(f"f({value})", "input")
            == "the prediction is not one expression"
        )
        assert unclear(value, "output") == "the answer is not one expression or assertion"
        assert unclear(f"{value}[ANSWER]7[/ANSWER]", "output") == "", "words before the answer are not parsed"


def test_python_is_parsed_up_to_its_bounds():
    assert parsable("x" * MAX_CHARS) and parsable("{" * MAX_BRACES) and parsable("xxxx", 4)
    for text, most in (("x" * (MAX_CHARS + 1), MAX_CHARS), ("{" * (MAX_BRACES + 1), MAX_CHARS), ("xxxx", 3)):
        with pytest.raises(SyntaxError, match="at most"):
            parsable(text, most)
    long = repr([{"key": number, "list": ["a", 1.5]} for number in range(1000)])
    assert no_prediction(long, "output") == unclear(long, "output") == "", "1,000 dicts are a prediction"


def test_every_reader_of_an_answers_python_has_the_bounds():
    fields = "f'" + "{1}" * (MAX_BRACES + 1) + "'"
    assert read_calls(f"[g(x={fields})]")[1].endswith("at most 2500 are parsed)")
    assert not makes_a_call(f"g(x={fields})", {"g"}) and makes_a_call("g(x=f'{1}')", {"g"})
    code = "def f(x):\n    return {'apple': 1, 'pear': 2}[x]\n"
    assert lists_inputs(code, ["'apple'", "'pear'"]) and not lists_inputs(f"{code}y = {fields}", ["'apple'", "'pear'"])
    assert is_plain("[1, [2]]", lists=True) and not is_plain("[" + "{1}," * (MAX_BRACES + 1) + "]", lists=True)
    assert answered_code(f"    return {fields}", "def f():\n", "f").endswith(fields)
