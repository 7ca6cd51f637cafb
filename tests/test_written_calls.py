"""Calls written as text in tasks of one's own: nothing of a call is dropped, and a call where none fits is seen."""

import pytest

from firsthand.scorers.function_calls import MadeCall, function_calls, leaderboard_calls, read_calls
from firsthand.scorers.written_calls import makes_a_call
from firsthand.task import Task
from firsthand.trace import Trace

AREA = {"name": "math.area", "parameters": {"properties": {"base": {"type": "integer"}}, "required": ["base"]}}
HELD = ("math.area(base=10)", "[math.area(base=10)]", "```python\n[math.area(base=10)]\n```", "[math.area(base=10)];",
        "math.area(base=20-10)", "`math.area(base=10)`", " [math.area(base=10),] ")  # fmt: skip
DROPPED = ("evil().math.area(base=10)", "os.system('rm').math.area(base=10)", "x[0].math.area(base=10)",
           "(lambda: 0).math.area(base=10)", "math.area(base=99, base=10)", "math.area(99, base=10)",
           "math.area(*evil(), base=10)", "[math.area(99, base=10)]")  # fmt: skip


def value(scorer, text, kind="calls"):
    accepted = [{"math.area": {"base": [10]}}] if kind == "calls" else []
    task = Task("t", "?", secret={"calls": {"kind": kind, "accepted": accepted, "functions": [AREA]}})
    return scorer(task, Trace("1", "b", "t", {"name": "a"}, 0, 0, "", 0.0, answer=text)).value


@pytest.mark.parametrize("text", HELD)
def test_calls_alone_are_read_in_a_fence_or_with_a_semicolon_too(text):
    assert value(function_calls, text) == 1.0 and value(function_calls, text, "none") == 0.0
    assert value(function_calls, text, "some") == 1.0


@pytest.mark.parametrize("text", DROPPED)
def test_a_call_of_more_than_a_name_with_named_arguments_is_the_expected_one_for_the_leaderboard_alone(text):
    assert value(function_calls, text) == 0.0 and value(leaderboard_calls, text) == 1.0
    assert value(function_calls, text, "none") == 0.0 == value(function_calls, text, "some")
    calls, why = read_calls(text, whole=True)
    assert not calls and why.startswith("the answer is not a list of calls (")


def test_calls_inside_of_arguments_are_values_and_held_to_the_same():
    assert read_calls("f(x=g(1), y=P(q=1))", whole=True) == ([MadeCall("f", {"x": "g(1)", "y": {"P": {"q": 1}}})], "")
    assert "without a name" in read_calls("[g(x=1), f(1)]", whole=True)[1] and read_calls("f(1)", whole=True)[0] == []
    assert "argument twice" in read_calls("f(y=P(q=1, q=2))", whole=True)[1]
    assert "no name" in read_calls("f(y=e().P(q=1))", whole=True)[1]


@pytest.mark.parametrize(
    "text",
    ["Sure: [math.area(base=10)]", "[math.area(base=10)]\n\nI have called it.",
     "x = math.area(base=10)", "Here it is: [math.area(base=10)].",
     "As in [1: [math.area(base=[10])] (see [2])",
     "await math.area(base=10)", "[math.area(**{'base': 10})]", "I call it:\n```\nmath.area(base=10)\n```\nDone.",
     "Sure: math.area(base=10)", "- math.area(base=10)",
     "I do:\n1\n- `math.area(base=10)`",
     "So:\n```\nmath.area(\nbase=10)\n```\nDone.",
     "Sure:\n[\n  math.area(base=10),\n]", "evil(), math.area(1)",
     "x" * 200_000 + "\nmath.area(base=10)"],
)  # fmt: skip
def test_a_call_in_the_text_is_one_where_none_was_to_be_made(text):
    assert value(function_calls, text, "none") == 0.0
    assert value(leaderboard_calls, "Sure: [math.area(base=10)]", "none") == 1.0


@pytest.mark.parametrize(
    "text",
    ["None of these fits.", "[]", "", "math.area needs a base.", "I cannot use `math.area(base=...)`: no base is given.",
     "math.area(base) needs a number (see [1]).", "Use print(1) for that.", "See [the page](https://x.example).",
     "print('Sorry')"],
)  # fmt: skip
def test_a_refusal_that_names_a_function_makes_no_call(text):
    assert not makes_a_call(text, {"math.area"})
    if not text.startswith("print"):
        assert value(function_calls, text, "none") == 1.0


def test_texts_of_any_nesting_are_read_without_an_error():
    assert makes_a_call("[anything()]", ()) and not makes_a_call("[anything()]", {"math.area"})
    for text in (
        "f" + ".a" * 2000 + "(x=1)",
        "f(" * 3000,
        "[" * 3000 + "f(x=1)",
        "[f([" * 100 + "]" * 200,
        "[((" * 9000,
    ):
        read_calls(text, whole=True)
        makes_a_call(text, {"g"})
