"""Plans in the forms that models write: which lines begin an item, and which go on with one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.patterns.orchestrate import orchestrate
from firsthand.patterns.parts.list_items import listed
from firsthand.patterns.plan_execute import plan_execute
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task


@pytest.mark.parametrize(
    "form",
    [
        "{0}. {1}",
        "{0}) {1}",
        "({0}) {1}",
        "### {0}. {1}",
        "## Step {0}: {1}",
        "Sub-task {0}: {1}",
        "**Sub-task {0}**: {1}",
        "Task {0}. {1}",
        "Subtask {0}: {1}",
        "**Part {0}:** {1}",
        "{0}\ufe0f\u20e3 {1}",
        "{0}\u20e3 **{1}**",
        "**{0}.** {1}",
        "{0}.\n{1}",
    ],
)
def test_numbers_are_read_in_all_forms(form: str) -> None:
    text = "\n".join(form.format(number, item) for number, item in enumerate(("Real A", "Real B"), 1))
    assert listed(f"Here is the plan.\n\n{text}", 4) == ["Real A", "Real B"]


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("a. A\nb. B", ["A", "B"]),
        ("(a) A\n(b) B", ["A", "B"]),
        ("A) x\nB) y", ["x", "y"]),
        ("a. A", []),
        ("a. A\nc. B", []),
        ("1. A\na. x\nb. y\n2. B", ["A\na. x\nb. y", "B"]),
        ("I. think so\nb. y", []),
        ("e.g. this\ni.e. that", []),
    ],
)
def test_letters_are_items_from_a_on_where_nothing_else_is(text: str, items: list[str]) -> None:
    assert listed(text, 9) == items


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("1. Mean of these:\n7, 8, 9\n2. B", ["Mean of these:\n7, 8, 9", "B"]),
        ("1. A\n2. Mean of:\n\n7, 8", ["A", "Mean of:\n7, 8"]),
        ("1. A\n2. B\nLet me know!", ["A", "B"]),
        ("1. A\n2. B\n\nLet me know!", ["A", "B"]),
        ("1. A\n2. B\n\n   with x", ["A", "B\nwith x"]),
        ("1. A\nmore\n2. B\nmore", ["A\nmore", "B\nmore"]),
        ("1. A\n\nSo much for A.\n2. B", ["A", "B"]),
        ("1. A\n## Notes\nx\n2. B", ["A", "B"]),
        ("1. A\n---\n2. B", ["A", "B"]),
        ("### 1. A\n\nText of A.\n\n### 2. B\n\nText of B.\n## Notes", ["A\nText of A.", "B\nText of B."]),
        ("### 1. A\n- x\n- y\n### 2. B\n1. z", ["A\n- x\n- y", "B\n- z"]),
        ("1. A\n | 1 | 2 |\n2. B", ["A\n| 1 | 2 |", "B"]),
    ],
)
def test_lines_below_an_item_go_on_with_it(text: str, items: list[str]) -> None:
    assert listed(text, 9) == items


def test_one_title_is_that_of_the_list_and_several_have_the_items_below_them() -> None:
    for title in ("Part 1: intro", "Task 1. Sum", "### 1. Plan"):
        assert listed(f"{title}\n- a\n- b", 9) == ["a", "b"]
    assert listed("Task 1: A\n1. x\n2. y\nTask 2: B\n\nBoth are independent.", 9) == ["A\n- x\n- y", "B"]
    assert listed("### 1. A", 9) == ["A"]


def test_code_of_an_item_is_its_own_and_a_plan_in_code_is_read() -> None:
    code = "```\n1. a\n\n2. b\n```"
    assert listed(f"1. Sum up:\n{code}\n2. B", 9) == [f"Sum up:\n{code}", "B"]
    assert listed(f"1. Sum up\n\n{code}\nNow.\n2. B", 9) == [f"Sum up\n{code}\nNow.", "B"]
    assert listed(f"Plan:\n{code}\nDone", 9) == ["a", "b"]


def test_long_plans_are_read_in_linear_time() -> None:
    began = time.monotonic()
    for part in ("1. a\n", "a. b\n", "```\n", "1. a\n```\n", "*", "# ", "1. a:\nb\n", "(", "sub-", " "):
        listed(part * 20_000, 9)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("pattern", [orchestrate, plan_execute])
@pytest.mark.parametrize(("plan", "noted"), [("I would just add them.", 1), ("1. Add them", 0)])
def test_a_plan_without_a_list_is_noted(pattern: Callable[..., Any], plan: str, noted: int) -> None:
    model = Scripted([plan, *["The answer is 5"] * 3])
    trace = asyncio.run(rollout(Agent("a", model, pattern, {}), Task("1", "How much?", hint="a number")))
    assert trace.answer == "5"
    assert [event.data["text"] for event in trace.events if event.kind == "no_plan"] == [plan] * noted


def test_a_planner_that_is_done_has_no_plan_to_miss() -> None:
    model = Scripted(["1. Add them", "5", "DONE.", "The answer is 5"])
    trace = asyncio.run(rollout(Agent("a", model, orchestrate, {"rounds": 2}), Task("1", "How much?", hint="a number")))
    assert trace.answer == "5" and not [event for event in trace.events if event.kind == "no_plan"]
