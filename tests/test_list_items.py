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
        "{0}.\n\n{1}",
        "## Step {0}\n{1}",
        "## Step {0}\n\n{1}\n",
        "### **Task {0}**\n{1}",
        "**Step {0}**\n\n{1}\n",
        "Step {0}\n{1}",
        "## {0}\n{1}",
        "## {0} - {1}",
        "### Step {0} \u2013 {1}",
        "**Step {0} \u2014 {1}**",
        "Subtask {0} - {1}",
        "{0} - {1}",
        "{0} \u2013 {1}",
        "[{0}] {1}",
        "**[{0}]** {1}",
        "{0}\u3001{1}",
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


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("Step One: A\nStep Two: B", ["A", "B"]),
        ("## Sub-task eleven\nA\n## Sub-task Twelve\nB", ["A", "B"]),
        ("Step one of the plan\nStep two of it", []),
        ("I. A\nII. B\nIII. C\nIV. D", ["A", "B", "C", "D"]),
        ("(i) A\n(ii) B", ["A", "B"]),
        ("i. A\niii. B", []),
        ("\u2013 A\n\u2013 B", ["A", "B"]),
        ("\u25cf A\n\u25cf B", ["A", "B"]),
        ("\u2014 said Ann", []),
        ("[1] A", []),
        ("[1] A\n[3] B", []),
        ("5 - 3 = 2\n6 - 3 = 3", []),
        ("1. A\n5 - 3 = 2\n[1] x\n\u2013 y\n2. B", ["A\n5 - 3 = 2\n[1] x\n\u2013 y", "B"]),
        ("Step 1 is easy\nStep 2 too", []),
        ("Step 1 -5 is cold", []),
        ("1 - 2 = -1\n2 - 3 = -1", []),
        ("Step 1 - 3 are done.\n1. A\n2. B", ["A", "B"]),
        ("Tasks 1 - 3 and\nTask 4 \u2013 5 are independent.", []),
    ],
)
def test_words_roman_digits_and_rare_signs_are_items_where_they_make_a_list(text: str, items: list[str]) -> None:
    assert listed(text, 9) == items


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ('["A", " B ", ""]', ["A", "B"]),
        ('Here it is:\n```json\n{"why": "x", "plan": [\n  "A",\n  "B"\n]}\n```\nDone.', ["A", "B"]),
        ('[{"n": 1, "do": "A"}, {"do": "B", "with": "C"}, 3, null]', ["A", "B\nC"]),
        ('{"a": ["A"], "b": ["B"]}', []),
        ("[1, 2]", []),
        ('{"reasoning": ["r"], "steps": ["A", "B"]}', ["A", "B"]),
        ('{"why": "x", "Plan": {"sub_tasks": [{"do": "A"}]}}', ["A"]),
        ('{"plan": {"a": ["A"], "b": ["B"]}}', []),
        ('{"plan": "none", "list": ["A"]}', ["A"]),
        ('**Plan:** ["A", "B"]', ["A", "B"]),
        ('SUB-TASKS = ["A"]', ["A"]),
        ('words = ["A"]', []),
        ('[x] as asked:\n[1]\n["A", "B"]', ["A", "B"]),
        ('"A"', []),
        ('["A", "B"', []),
        ("[ ] A\n[x] B", []),
        ('1. A\n["B"]\n2. C', ['A\n["B"]', "C"]),
        ("[" * 100_000, []),
    ],
)
def test_a_json_list_of_texts_is_a_plan(text: str, items: list[str]) -> None:
    assert listed(text, 9) == items


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("## Step 1\n- a\n- b\n## Step 2\n- c", ["- a\n- b", "c"]),
        ("**Step 1:**\n1. a\n2. b\n**Step 2:**\n1. c", ["- a\n- b", "c"]),
        ("### Step 1\nDo:\n- a\n### Step 2\nB", ["Do:\n- a", "B"]),
        ("## Step 1\n- a\n- b", ["a", "b"]),
        ("## Step 1\n## Step 2\nB", ["B"]),
        ("**Step 1**\nA\n\n**Step 2**\nB\n\nLet me know!", ["A", "B"]),
    ],
)
def test_items_below_a_step_without_words_are_that_step(text: str, items: list[str]) -> None:
    assert listed(text, 9) == items


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("Considerations:\n- c1\n- c2\n\nPlan:\n1. a\n2. b", ["a", "b"]),
        ("- c1\n- c2\nPlan:\n1. a\n2. b", ["a", "b"]),
        ("- c1\n  1. x\n  2. y\n- c2\n## Plan\n\n1. a\n2. b\n- z", ["a", "b\n- z"]),
        ("- c1\n\nPlan:\n### Step 1: a\n### Step 2: b", ["a", "b"]),
        ("- c1\n\nThen:\n0. z\n1. a\n2. b", ["z", "a", "b"]),
        ("- c1\nSo it is\n  in two steps\n1. a\n2. b", ["a", "b"]),
        ("- c1\n\n1. a\n2. b", ["c1", "a", "b"]),
        ("- Sum up:\nthese\n1. a\n2. b", ["Sum up:\nthese", "a", "b"]),
        ("- c1\n\nPlan:\n1. a", ["c1", "a"]),
        ("- c1\n\nPlan:\n2. a\n3. b", ["c1", "a", "b"]),
        ("Plan:\n- c1\n1. a\n2. b", ["c1", "a", "b"]),
        ("**Plan**\n\n- c1\n- c2\n\n**Notes**\n\n1. a\n2. b", ["c1", "c2", "a", "b"]),
        ("Sub-tasks:\n- c1\n\nThen sum up:\n1. a\n2. b", ["c1", "a", "b"]),
        ("Before the steps:\n- c1\n\nThe steps:\n1. a\n2. b", ["a", "b"]),
        ("Here is my planning.\n- c1\n\nSo:\n1. a\n2. b", ["a", "b"]),
        ("The plan follows.\nNotes:\n- c1\n\nSo:\n1. a\n2. b", ["a", "b"]),
    ],
)
def test_bullets_before_a_numbered_plan_are_no_steps(text: str, items: list[str]) -> None:
    assert listed(text, 9) == items


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("1. **Find** the x", "**Find** the x"),
        ("1. the **x**", "the **x**"),
        ("1. **Find** the **x**", "**Find** the **x**"),
        ("- *Find* the x", "*Find* the x"),
        ("1. **Find**", "Find"),
        ("- *Find the x*", "Find the x"),
        ("**1. Find** the x", "Find the x"),
        ("**1. Find the x**", "Find the x"),
        ("**1.** **Find** it", "**Find** it"),
        ("**1**. **Find** it", "**Find** it"),
        ("**Step 1: Find** the **x**", "Find the **x**"),
        ("1.** Find it", "Find it"),
        ("1. Find it**", "Find it"),
        ("1. ** Find", "Find"),
        ("1. 2 ** 3 **", "2 ** 3"),
        ("1. ** 2 ** 3", "2 ** 3"),
        ("1. 2 * 3", "2 * 3"),
        ("1. ****", ""),
    ],
)
def test_stars_of_an_item_stay_in_pairs(text: str, item: str) -> None:
    assert listed(text, 9) == ([item] if item else [])


def test_code_of_an_item_is_its_own_and_a_plan_in_code_is_read() -> None:
    code = "```\n1. a\n\n2. b\n```"
    assert listed(f"1. Sum up:\n{code}\n2. B", 9) == [f"Sum up:\n{code}", "B"]
    assert listed(f"1. Sum up\n\n{code}\nNow.\n2. B", 9) == [f"Sum up\n{code}\nNow.", "B"]
    assert listed(f"Plan:\n{code}\nDone", 9) == ["a", "b"]


def test_long_plans_are_read_in_linear_time() -> None:
    began = time.monotonic()
    parts = ("1. a\n", "a. b\n", "```\n", "1. a\n```\n", "*", "# ", "1. a:\nb\n", "(", "sub-", " ")
    for part in (*parts, "[1] a\n", "1 - a\n", "## Step 1\n", '["a",\n', '{"a":', "I. b\n", "plan:\n", "[\n"):
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
