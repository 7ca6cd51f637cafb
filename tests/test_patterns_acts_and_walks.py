"""Steps of patterns at their edges: warned judges, many actions, brackets before a call, lost indentation."""

from __future__ import annotations

import ast
import asyncio
import itertools
import math
from typing import Any

import pytest

from firsthand import Agent, Task
from firsthand.grammar import lark
from firsthand.model import Sampling
from firsthand.patterns.judge import judge
from firsthand.patterns.parts.judge_protocols import WARNING, judge_protocol, show
from firsthand.patterns.parts.self_tests import _indented, _returns_outside, program
from firsthand.patterns.thought_action import step_grammar
from firsthand.patterns.toolformer import toolformer
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.tools.calculator import calculator

# -- a judge --

PAIR = {"question": "Which?", "answer_a": "It is four.", "answer_b": "It is five."}
CHANCES = {"[[A]]": 0.5, "[[B]]": 0.25, "[[C]]": 0.25, "m": 0.75, "M": 0.25}


@pytest.mark.parametrize("protocol", ["pairwise", "alpaca-eval"])
def test_a_judge_is_warned_where_it_is_asked_for_whatever_the_rules(protocol: str) -> None:
    of = judge_protocol(protocol)
    equal = {**PAIR, "answer_b": PAIR["answer_a"]}

    def asked(fields: dict[str, str], **options: Any) -> tuple[list[list[tuple[str, str]]], str]:
        model = Scripted(score=lambda prompt, label: math.log(CHANCES[label]))
        task = Task("t", "", metadata={"judge": {"protocol": protocol, "fields": fields}})
        trace = asyncio.run(rollout(Agent("j", model, judge, {"orders": "first", **options}), task))
        assert trace.error is None, trace.error
        return [[(each.role, each.text) for each in one.prompt] for one in model.asked], trace.answer  # type: ignore

    def shown(fields: dict[str, str], warn: bool) -> list[list[tuple[str, str]]]:
        told = show(of, fields, max_chars=24_000, warn=warn)
        assert (WARNING in told.system) is warn
        return [[("system", told.system), ("user", f"{told.text}\n\n{of.ask}" if of.ask else told.text)]]

    assert asked(PAIR) == (shown(PAIR, False), "A") and asked(equal) == ([], "tie")
    for warn, rules in itertools.product((False, True), repeat=2):
        assert asked(PAIR, warn=warn, rules=rules) == (shown(PAIR, warn), "A"), (warn, rules)
        expected = ([], "tie") if rules else (shown(equal, warn), "A")
        assert asked(equal, warn=warn, rules=rules) == expected, (warn, rules)


# -- thought and action --


@pytest.mark.parametrize("number", [1, 2, 99, 100, 101, 250])
def test_every_action_of_a_long_list_can_be_written(number: int) -> None:
    actions = [f'open "{at}"' for at in range(number)]
    items = " | ".join(f'"open \\"{at}\\""' for at in range(number))
    line = '\nthought: "Thought: " LINE "\\n"\nLINE: /[^\\n]{1,400}/'
    assert step_grammar({"enum": actions}) == lark(f'start: thought "Action: " ({items}){line}')
    assert step_grammar({"enum": tuple(actions)}, False) == lark(f'start: "Action: " ({items})')
    assert step_grammar({"enum": [], "pattern": "a"}, False) == lark('start: "Action: " ACTION\nACTION: /a/')
    assert step_grammar({"enum": None}) is None is step_grammar({"pattern": ""})


# -- toolformer --


def written(replies: list[str], prompt: str = "Q?", **options: Any) -> tuple[str, list[str], list[dict[str, Any]]]:
    """The answer, the prompts, and the arguments of each call that was made."""
    model = Scripted(replies)
    agent = Agent("a", model, toolformer, options, (calculator,), Sampling(max_tokens=40))
    trace = asyncio.run(rollout(agent, Task("1", prompt)))
    assert trace.error is None, trace.error
    made = [call.detail["arguments"] for call in trace.calls if call.kind == "tool"]
    return trace.answer, [str(each.prompt) for each in model.asked], made


def test_a_call_begins_at_the_last_bracket_and_what_stands_before_it_is_text() -> None:
    before = "See [1] and [a list, [b] [: there are"
    answer, asked, made = written([f"{before} [calculator(1 + 2)", " 3."])
    assert made == [{"expression": "1 + 2"}] and asked == ["Q?", f"Q?{before} [calculator(1 + 2) -> 3]"]
    assert answer == f"{before} 3."
    inner = "I mean [calculator(9), or [calculator(2 * 3)"
    answer, asked, made = written([inner, " 6"])
    assert made == [{"expression": "2 * 3"}] and asked == ["Q?", f"Q?{inner} -> 6]"]
    assert answer == "I mean [calculator(9), or 6"
    two = ["a [x [calculator(1)", " b [y [calculator(2)", " c [z [calculator(3)"]
    for most, calls, end in ((0, 0, "a [x [calculator(1)"), (1, 1, "a [x b [y [calculator(2)"), (2, 2, None)):
        answer, asked, made = written(two, max_calls=most)
        assert [each["expression"] for each in made] == ["1", "2", "3"][:calls] and len(asked) == calls + 1
        assert answer == (end or "a [x b [y c [z [calculator(3)")
    answer, asked, made = written(["a [none(1)", " b"])
    assert made == [] and asked == ["Q?", "Q?a [none(1)]"] and answer == "a b", (
        "no such tool: it stands without a result"
    )


# -- tests of one's own --

HEAD = 'def f(x):\n    """Doc."""\n'


@pytest.mark.parametrize("head", [HEAD, "def f(x):"])
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("    return 1", "    return 1"),
        ("return 1", "    return 1"),
        ("y = 1\n    return y", "    y = 1\n    return y"),
        ("if x:\n    return 1\nreturn 2", "    if x:\n        return 1\n    return 2"),
        # the first line alone has lost its indentation
        ("if x:\n        return 1", "    if x:\n        return 1"),
        ("if x: return 1\n    return 2", "    if x: return 1\n    return 2"),
        (
            "for a in x:\n        if a:\n            return a\n    return 0",
            "    for a in x:\n        if a:\n            return a\n    return 0",
        ),
        # all of it has, and no return is at its top
        ("if x:\n    return 1\nelse:\n    return 2", "    if x:\n        return 1\n    else:\n        return 2"),
        ("while x:\n  return 1", "    while x:\n      return 1"),
        ("with x:\n    return 1", "    with x:\n        return 1"),
        (
            "try:\n    x()\nexcept E:\n    return 1",
            "    try:\n        x()\n    except E:\n        return 1",
        ),
        (
            "match x:\n    case 1:\n        return 1",
            "    match x:\n        case 1:\n            return 1",
        ),
        ("def g():\n    return 1\nreturn g()", "    def g():\n        return 1\n    return g()"),
        ("async def g():\n    return 1\nreturn g()", "    async def g():\n        return 1\n    return g()"),
        (
            "class A:\n    async def g(self):\n        return 1\nreturn A()",
            "    class A:\n        async def g(self):\n            return 1\n    return A()",
        ),
        ("(", "("),
    ],
)
def test_a_body_is_indented_as_it_must_be_to_compile(head: str, given: str, kept: str) -> None:
    assert _indented(given, head) == kept
    whole = program(Task("1", head, metadata={"entry_point": "f"}), given, ["assert f(1) == 1"])
    assert whole.startswith(f"{head}\n{kept}\n\ndef _own_tests(tests):")
    if given != "(":
        compile(whole, "answer", "exec")
        assert [type(each) for each in ast.parse(f"{head}\n{kept}").body] == [ast.FunctionDef]


def test_a_function_beside_the_head_and_a_body_without_return_stay_as_they_are() -> None:
    beside = "    return g(x)\n\ndef g(x):\n    return x"
    below = "    pass\nclass A:\n    def g(self):\n        return 1"
    assert (_indented(beside, HEAD), _indented(below, HEAD)) == (beside, below)
    deep = "\n".join(["    y = x", *(f"    y = y + {at}" for at in range(3)), "    return " + " + ".join(["x"] * 500)])
    assert _indented(deep, HEAD) == deep


@pytest.mark.parametrize(
    ("code", "outside"),
    [
        ("", False),
        ("x = 1", False),
        ("return 1", True),
        ("def f():\n    return 1", False),
        ("async def f():\n    return 1", False),
        ("async def f():\n    async with x:\n        return 1", False),
        ("def f():\n    return 1\nreturn 2", True),
        ("return 2\ndef f():\n    return 1", True),
        ("async def f():\n    return 1\nif x:\n    return 2", True),
        ("class A:\n    return 1", True),
        ("class A:\n    class B:\n        if x:\n            return 1", True),
        ("class A:\n    def f(self):\n        return 1", False),
        ("class A:\n    async def f(self):\n        return 1\n    x = 2", False),
        ("class A:\n    def f(self):\n        return 1\n    return 2", True),
        ("if x:\n    pass\nelse:\n    return 1", True),
        ("for a in x:\n    pass\nelse:\n    return 1", True),
        ("while x:\n    return", True),
        ("with x:\n    return 1", True),
        ("try:\n    pass\nexcept E:\n    return 1", True),
        ("try:\n    pass\nfinally:\n    return 1", True),
        ("match x:\n    case 1:\n        return 1", True),
        ("if x:\n    def f():\n        return 1", False),
        ("f = lambda: [(yield)]", False),
    ],
)
def test_a_return_outside_of_every_function_is_what_does_not_compile(code: str, outside: bool) -> None:
    assert _returns_outside(ast.parse(code)) is outside
    if outside:
        with pytest.raises(SyntaxError, match="'return' outside function"):
            compile(code, "answer", "exec")
    else:
        compile(code, "answer", "exec")


def test_a_body_stays_in_an_async_function_and_beside_one() -> None:
    assert _indented("return 1", "async def f(x):") == "    return 1"
    assert _indented("    return 1", "async def f(x):") == "    return 1"
    beside = "    return 1\n\nasync def g():\n    return 2"
    assert _indented(beside, "async def f(x):") == beside == _indented(beside, HEAD)
