"""Patterns act on what a model says, and not on what it considers between `<think>` and `</think>` before."""

from typing import Any

import pytest

import firsthand
from firsthand import Agent, Task
from firsthand.patterns.blackboard_team import _parts
from firsthand.patterns.code_act import code_act, parse_code
from firsthand.patterns.orchestrate import orchestrate
from firsthand.patterns.parts.actions import read_action
from firsthand.patterns.parts.answers import extract_answer, listed
from firsthand.patterns.parts.hand_overs import hand_over
from firsthand.patterns.parts.self_tests import code_in
from firsthand.patterns.plan_mode import _program
from firsthand.patterns.react import react
from firsthand.patterns.thought_action import text_action
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.tokens.calls.thought_text import behind_thought
from firsthand.tools.calculator import calculator
from firsthand.tools.python import python
from firsthand.trace import Trace

NUMBER = Task("1", "How much?", hint="a number")
FORMS = ("<think>\n{thought}\n</think>\n{said}", "{thought}\n</think>\n\n{said}", "\n <think>{thought}</think>{said}")


def ran(pattern: Any, replies: list[Any], *tools: Any, **options: Any) -> Trace:
    return firsthand.run_sync(rollout(Agent("t", Scripted(replies), pattern, options, tools), NUMBER))


def calls_of(trace: Trace) -> list[Any]:
    return [call.detail.get("arguments") for call in trace.calls if call.kind == "tool"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<think>a</think>b", "b"), (" \n<think>a</think> b", " b"), ("a</think>b", "b"), ("<think>a", ""), ("b", "b"),
        ("b <think>a</think> c", "b <think>a</think> c"), ("<think>a</think>b</think>c", "b</think>c"), ("", ""),
        ("<think></think>", ""), ("a < think >b", "a < think >b"),
    ],
)  # fmt: skip
def test_a_thought_is_what_a_reply_begins_with_up_to_its_end(text: str, said: str) -> None:
    assert behind_thought(text) == said


@pytest.mark.parametrize("form", FORMS)
def test_each_reader_of_patterns_reads_behind_the_thought(form: str) -> None:
    def both(thought: str, said: str) -> str:
        return form.format(thought=thought, said=said)

    assert read_action(both("Action: pay[1]", "Action: pay[2]"))[:2] == ("pay", "2")
    assert read_action(both("Final Answer: 9", "Final Answer: 4"))[:2] == ("final answer", "4")
    assert read_action(both("Action: pay[1]", "I do not know."))[:2] == ("", "")
    assert parse_code(both("```python\nprint(1)\n```", "```python\nprint(2)\n```")) == ("print(2)", None)
    assert parse_code(both("Final Answer: 7", "```python\nprint(2)\n```")) == ("print(2)", None)
    assert listed(both("1. maybe\n2. hmm", "1. A\n2. B"), 5) == ["A", "B"]
    assert text_action(both("Action: look", "Action: go")) == "go" and text_action(both("Action: look", "go")) == "go"
    handed = hand_over(both("Hand over to checker", "Hand over to solver"), ["checker", "solver"])
    assert handed is not None and handed.agent == "solver" and "checker" not in handed.rest
    assert hand_over(both("Hand over to checker", "The answer is 4"), ["checker"]) is None
    assert _program(both("```python\npay()\n```", "answer('x')")).strip() == "answer('x')"
    assert code_in(both("```python\ndef f(): return 1\n```", "```python\ndef g(): return 2\n```"), "f").startswith(
        "def g"
    )
    assert extract_answer(both("The answer is 9? No.", "5"), NUMBER) == "5"
    assert [*_parts(both("DONE: The answer is 9?", "WRITE a: 5"), "ann")] == [("a", "5")]
    choice = Task("1", "Which?", choices=("x", "y"))
    assert extract_answer(both("The answer is A. Or not.", "B"), choice) == "B"
    assert extract_answer(both("The answer is 9.", "As I said."), NUMBER) == "9", "the thought's, where nothing else is"


def test_a_thought_without_an_end_says_nothing_and_is_read_for_an_answer_alone() -> None:
    cut = "<think>\nAction: pay[1]\nThe answer is 9"
    assert read_action(cut)[:2] == ("", "") and parse_code(cut) == (None, None) and listed("<think>1. A", 5) == []
    assert text_action(cut) == "" and extract_answer(cut, NUMBER) == "9"


def test_patterns_do_not_act_on_a_thought() -> None:
    one = ran(
        react,
        ["<think>\nAction: calculator[1+1]\nno\n</think>\nAction: calculator[2+2]",
         "<think>\nFinal Answer: 9\nno\n</think>\nFinal Answer: 4"],
        calculator,
    )  # fmt: skip
    assert one.answer == "4" and [str(each) for each in calls_of(one)] == ["{'expression': '2+2'}"]
    code = "<think>\n```python\nprint(1)\n```\n</think>\n```python\nprint(2)\n```"
    two = ran(code_act, [code, "<think>Final Answer: 7\n</think>\nFinal Answer: 2"], python)
    assert two.answer == "2" and calls_of(two) == [{"code": "print(2)"}]
    plan = "<think>\n1. maybe\n2. hmm\n3. so\n</think>\n1. A\n2. B"
    three = ran(orchestrate, [plan, "a", "b", "The answer is 3"])
    assert three.answer == "3" and len(three.calls) == 4
