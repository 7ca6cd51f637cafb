"""Patterns act on what a model says, and not on what it considers between `<think>` and `</think>` before."""

from typing import Any

import firsthand
from firsthand import Agent, Task
from firsthand.patterns.code_act import code_act
from firsthand.patterns.orchestrate import orchestrate
from firsthand.patterns.react import react
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.tools.calculator import calculator
from firsthand.tools.python import python
from firsthand.trace import Trace

NUMBER = Task("1", "How much?", hint="a number")


def ran(pattern: Any, replies: list[Any], *tools: Any, **options: Any) -> Trace:
    return firsthand.run_sync(rollout(Agent("t", Scripted(replies), pattern, options, tools), NUMBER))


def calls_of(trace: Trace) -> list[Any]:
    return [call.detail.get("arguments") for call in trace.calls if call.kind == "tool"]


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
