"""Scorers of calls, matches, code and units that an answer writes, to the letter."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from random import Random
from typing import Any

import pytest

from firsthand.errors import ConfigError, DataError
from firsthand.message import Message, Text, ToolCall, assistant
from firsthand.scorers.assertion import predicted
from firsthand.scorers.code import answered_code, pass_at_k, pass_hat_k, preamble
from firsthand.scorers.function_calls import MadeCall, call_problem, function_calls, made_calls, mismatch, read_calls
from firsthand.scorers.match import exact, flexible, normalised, numeric, strict
from firsthand.scorers.mathematics.quantities import Unit, read_unit
from firsthand.scorers.symbolic import boxed, comparison, minerva
from firsthand.scorers.written import gsm8k_flexible, harness_number, mmlu_pro_tiger, simple_evals_letter
from firsthand.task import Task
from firsthand.trace import Call, Node, Score, Trace


def asked(**secret: Any) -> Task:
    return Task("t", "?", secret=secret)


def trace(answer: str | None = "", **more: Any) -> Trace:
    return Trace("1", "b", "t", {"name": "a"}, 0, 0, "", 0.0, answer=answer, **more)


def test_calls_are_read_from_text_with_their_values_and_nothing_else() -> None:
    def values(text: str) -> Any:
        calls, why = read_calls(text)
        return why or [(call.name, dict(call.arguments)) for call in calls]

    assert values("```[f(a=1, b=-2.5, c='x', d=[1, (2,)], e={'k': None}, g=True, h=..., i=y)]```") == [
        ("f", {"a": 1, "b": -2.5, "c": "x", "d": [1, (2,)], "e": {"k": None}, "g": True, "h": "...", "i": "y"})
    ]
    assert values("f(x=1), a.b.c(y=2)") == [("f", {"x": 1}), ("a.b.c", {"y": 2})] and values("[]") == []
    assert values("[f(a=6/2, b=7//2, c=1e1*2, d=2**3, e=g(1), h=x[0], i=P(q=1))]") == [
        ("f", {"a": 3.0, "b": 3, "c": 20.0, "d": 8, "e": "g(1)", "h": "x[0]", "i": {"P": {"q": 1}}})
    ]
    assert values("f(1, x=2)") == [("f", {"x": 2})]
    for text, why in (
        ("x", "the answer is not a list of calls"), ("[f(), 1]", "the answer is not a list of calls"),
        ("f(**x)", "the answer is not a list of calls (ValueError: ** is not an argument)"),
        ("f(a={**x})", "the answer is not a list of calls (ValueError: ** is not an entry)"),
        ("f(a=lambda: 1)", "the answer is not a list of calls (ValueError: Lambda is not a value)"),
        ("x" * 99_999, "the answer has 100001 characters, too long for a list of calls"),
    ):  # fmt: skip
        assert values(text) == why
    assert values("f(x=").startswith("the answer is not a list of calls (SyntaxError: ")


FUNCTION = {
    "name": "f",
    "parameters": {
        "required": ["n"],
        "properties": {
            "n": {"type": "integer"},
            "x": {"type": "float"},
            "t": {"type": "tuple", "items": {"type": "integer"}},
            "l": {"type": "array", "items": {"type": "dict"}},
            "s": {"type": "string"},
            "w": {"type": "array", "items": {"type": "string"}},
        },
    },
}


def test_a_wrong_call_says_which_argument_is_wrong() -> None:
    accepted: dict[str, Sequence[Any]] = {
        "n": [1, "one"], "x": [2.0, ""], "t": [[1, 2], ""], "l": [[{"k": [1]}], ""], "w": [["A b", "c"], ""], "s": [5, ""],
    }  # fmt: skip
    for given, said in (
        ({"n": 1}, ""),
        ({}, "f needs 'n'"),
        ({"n": "one"}, "n='one' of f is not among [1, 'one']"),
        ({"n": 2}, "n='2' of f is not among [1, 'one']"),
        ({"n": 1, "z": 1}, "f takes no 'z'"),
        ({"n": 1, "x": 2}, ""),
        ({"n": 1, "x": 10**400}, f"x={str(10**400)[:100]!r} of f is not among [2.0, '']"),
        ({"n": 1, "t": (1, 2)}, ""),
        ({"n": 1, "l": [{"k": 1}]}, ""),
        ({"n": 1, "l": [{"k": 1}, {"k": 1}]}, "l=\"[{'k': 1}, {'k': 1}]\" of f is not among [[{'k': [1]}], '']"),
        ({"n": 1, "l": [{}]}, "l='[{}]' of f is not among [[{'k': [1]}], '']"),
        ({"n": 1, "w": ["ab", "C"]}, ""),
        ({"n": 1, "w": ["c", "ab"]}, "w=\"['c', 'ab']\" of f is not among [['A b', 'c'], '']"),
        ({"n": 1, "s": 5}, ""),
        ({"n": 1, "s": 6}, "s='6' of f is not among [5, '']"),
    ):
        assert call_problem(MadeCall("f", given), FUNCTION, accepted) == said, given
    assert call_problem(MadeCall("g", {}), FUNCTION, accepted) == "'g' was called, not 'f'"
    free = {"name": "f", "parameters": {"properties": FUNCTION["parameters"]["properties"]}}
    for given, said in (
        ({}, ""),
        ({"x": 1}, ""),
        ({"x": True}, "x='True' of f is not among [1.0, '']"),
        ({"n": 1}, ""),
        ({"n": True}, "n='True' of f is not among [1, '']"),
        ({"n": 1.0}, "n='1.0' of f is not among [1, '']"),
    ):
        assert call_problem(MadeCall("f", given), free, {"x": [1.0, ""], "n": [1, ""]}) == said, given
    needed = {"n": [1], "t": [[1, 2]]}
    assert (
        call_problem(MadeCall("f", {"n": 1, "t": (1, 2.0)}), FUNCTION, needed)
        == "t='(1, 2.0)' of f is not among [[1, 2]]"
    )
    one, two = MadeCall("f", {"n": 1}), MadeCall("f", {"n": 2})
    assert mismatch([one], [FUNCTION], []) == "1 calls were made, and 0 expected"
    assert mismatch([two], [FUNCTION], [{"f": {"n": [1]}}]) == "n='2' of f is not among [1]"
    assert mismatch([two, MadeCall("f", {})], [FUNCTION], [{"f": {"n": [1]}}] * 2) == (
        "no call is the expected one of f: n='2' of f is not among [1]; f needs 'n'"
    )


def test_calls_of_the_last_message_or_of_the_text_are_scored_with_their_reason() -> None:
    def message(*calls: ToolCall) -> Node:
        return Node(None, Message("assistant", (Text("x"), *calls)))

    task = Task(
        "t",
        "?",
        calls=True,
        secret={"calls": {"kind": "all", "functions": [FUNCTION], "accepted": [{"f": {"n": [1]}}]}},
    )
    nodes = (message(ToolCall("1", "g", {})), message(ToolCall("2", "f", {"n": 1})))
    assert function_calls(task, trace(nodes=nodes)) == Score("function_calls", 1.0, {"calls": [{"f": {"n": 1}}]})
    broken = (message(ToolCall("1", "f", {}, invalid="{n")),)
    assert made_calls(trace(nodes=broken)) == ([], "the arguments of 'f' are not JSON: {n")
    assert function_calls(task, trace(nodes=broken)).detail["reason"] == "the arguments of 'f' are not JSON: {n"
    assert function_calls(task, trace()).detail["reason"] == "0 calls were made, and 1 expected"
    for kind, answer, value, made in (
        ("none", "f(n=1)", 0, 1), ("none", "no", 1, 0), ("some", "f(n=1)", 1, 1), ("some", "no", 0, 0),
        ("none", "f(n=1), f(n=2)", 0, 2), ("some", "f(n=1), f(n=2)", 1, 2),
    ):  # fmt: skip
        found = function_calls(asked(calls={"kind": kind}), trace(answer))
        reason = {} if value else {"reason": f"{made} calls were made"}
        listed = {"calls": [{"f": {"n": at + 1}} for at in range(made)]}
        assert found == Score("function_calls", float(value), listed | reason)
    with pytest.raises(DataError, match=r"^task t expects no calls: secret\['calls'\] holds 'None'$"):
        function_calls(asked(), trace())


def test_answers_are_matched_by_text_words_numbers_or_the_stated_form() -> None:
    assert exact(asked(answer=" a "), trace("a\n")) == Score("exact", 1.0, {"answer": "a\n"})
    assert exact(asked(answer="a"), trace("A")).value == 0 == exact(asked(answer="a"), trace(None)).value
    assert normalised(asked(answer="The Cat!"), trace("a cat")).value == 1
    assert (
        numeric(asked(answer="1/2"), trace("0.5")).value == 1
        and flexible(asked(answer="12"), trace("1 or 12.")).value == 1
    )
    nodes = (Node(None, assistant("#### 5")), Node(None, assistant("#### 7 then #### 8")), Node(None, assistant("no")))
    calls = tuple(
        Call(f":{at}", "generate", None, 0.0, 0.0, "", nodes=each) for at, each in enumerate(((0,), (2, 1), ()))
    )
    for reference, answer, value in (("7", "7.", 1), ("7", "8", 0), ("8", "8", 0), ("5", "5", 0), ("$7", "7", 1)):
        assert strict(asked(answer=reference), trace(answer, nodes=nodes, calls=calls)).value == value
    assert strict(asked(answer="7"), trace("7")).value == 0
    assert len(exact(asked(answer="a"), trace("b" * 300)).detail["answer"]) == 200
    assert [harness_number(text) for text in ("$1,000.", "so #### 5.", "A.B.", "x..")] == ["1000", "5", "a.b", "x."]
    assert gsm8k_flexible(asked(answer="70"), trace("5 then $70 or")).detail == {"found": "$70"}
    assert simple_evals_letter(asked(answer="B"), trace("answer : $b$ or Answer: C")).value == 1
    for text, letter in (
        ("answer is (C) or answer is D", "C"),
        ("Answer: B\nAnswer: D", "B"),
        ("Answer: B Answer: D", "D"),
        ("so E then F", "F"),
    ):
        assert mmlu_pro_tiger(asked(answer="X", options=4), trace(text)).detail == {"found": letter}
    guess = chr(ord("A") + Random(12345).randint(0, 3))
    assert mmlu_pro_tiger(asked(answer=guess, options=4), trace("")) == Score(
        "acc_tiger", 1.0, {"found": None, "guess": guess}
    )
    assert boxed(asked(answer="1/2"), trace(r"\boxed{3} so \boxed{0.5}")).value == 1
    assert boxed(asked(answer="5"), trace("5".ljust(100))).value == 1 and boxed(
        asked(answer="5"), trace("5".ljust(101))
    ).detail == {"found": None}
    said = "Final Answer: The final answer is 7. I hope it is correct. 8"
    assert minerva(asked(answer="7"), trace(said)).value == 1 and minerva(asked(answer="7"), trace("7")).detail == {
        "found": None
    }
    assert minerva(asked(answer="7"), trace("Final Answer: The final answer is 7\n8")).detail["found"] == " 7"
    long = "x" * 2001
    assert (
        comparison(f" {long}", long) == (True, "text")
        and comparison(long, "x") == (False, "text")
        and comparison("", "") == (False, "text")
    )


def test_a_predicted_expression_stands_after_the_equals_sign_or_before_it() -> None:
    for text, what, found in (
        ("assert f(17) == 17", "output", "17"),
        ("assert f(17) == 17", "input", "f(17)"),
        ("17", "output", "17"),
        (" f(3) ", "input", "f(3)"),
        ("[ANSWER]assert f(1) == 2[/ANSWER] x == 3", "output", "2"),
        ("a == b == c", "output", "b"),
        ("x [ANSWER] f(2) == 1", "input", "f(2)"),
    ):
        assert predicted(text, what) == found


def test_code_is_taken_from_the_fence_that_defines_the_function_or_completes_the_prompt() -> None:
    prompt = "import math\n\ndef f(x):\n    '''Doc.'''\n"
    assert preamble(prompt, "f") == "import math\n\n" and preamble(prompt, "g") == "" == preamble(prompt, "")
    whole = "```python\ndef f(x):\n    return 1\n```\n```\nprint(f(1))\n```\n```js\ndef f(x): 2\n```"
    assert answered_code(whole, prompt, "f") == "import math\n\ndef f(x):\n    return 1\n"
    assert answered_code("```\na = 1\n```\n```py\nb = 2\n```") == "b = 2\n"
    assert answered_code("def f(x):\n    return 2", prompt, "f") == "import math\n\ndef f(x):\n    return 2"
    assert answered_code("x = 1") == "x = 1"
    assert answered_code("    return x\n\ndef g(): pass", prompt, "f") == prompt + "    return x\n"
    assert answered_code("return x", prompt, "f") == prompt + "    return x"
    assert answered_code("y = x\nreturn y", prompt, "f") == prompt + "    y = x\n    return y"
    assert answered_code("for y in x:\n    return y\nreturn 0", prompt, "f") == prompt + (
        "    for y in x:\n        return y\n    return 0"
    )
    assert (
        answered_code("    return x\n# end", prompt, "f") == prompt + "    return x"
        and answered_code("(", prompt, "f") == prompt + "("
    )
    assert [pass_at_k(5, 2, k) for k in (1, 3, 4)] == pytest.approx([0.4, 0.9, 1.0]) and pass_at_k(5, 0, 5) == 0
    assert [pass_hat_k(5, 3, k) for k in (1, 2, 3, 4)] == pytest.approx([0.6, 0.3, 0.1, 0.0]) and pass_hat_k(
        5, 5, 5
    ) == 1
    for counts in ((5, 6, 1), (5, -1, 1), (5, 2, 0), (5, 2, 6)):
        with pytest.raises(ConfigError, match=rf"^{counts[1]} passes of 5 samples, k = {counts[2]}: 0 <= passes"):
            pass_at_k(*counts)


def test_units_are_factors_of_base_units_with_their_powers() -> None:
    for text, factor, powers in (
        ("cm", Fraction(1, 100), (("m", 1),)),
        ("square feet", Fraction(3048, 10000) ** 2, (("m", 2),)),
        ("m/s", 1, (("m", 1), ("s", -1))),
        ("miles per hour", Fraction(1609344, 3600000), (("m", 1), ("s", -1))),
        ("mph", Fraction(1609344, 3600000), (("m", 1), ("s", -1))),
        ("cm^2", Fraction(1, 10000), (("m", 2),)),
        ("cubic yards", Fraction(9144, 10000) ** 3, (("m", 3),)),
        ("teachers", 1, (("teacher", 1),)),
        ("people", 1, (("person", 1),)),
        ("Dollars.", 1, (("$", 1),)),
        ("cents an hour", Fraction(1, 360000), (("$", 1), ("s", -1))),
        ("glass", 1, (("glass", 1),)),
        ("units", 1, ()),
        ("km per km", 1, ()),
        ("inches squared", Fraction(254, 10000) ** 2, (("m", 2),)),
        ("bus", 1, (("bus", 1),)),
        ("kg/m^3", 1000, (("g", 1), ("m", -3))),
        ("", 1, ()),
    ):
        assert read_unit(text) == Unit(Fraction(factor), powers), text
