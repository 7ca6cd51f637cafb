"""What a model only considers in its thought is no action, code, plan, hand-over, verdict or answer."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import firsthand
from firsthand import catalog
from firsthand.agent import Agent
from firsthand.errors import ModelError
from firsthand.patterns.blackboard_team import blackboard_team
from firsthand.patterns.code_act import code_act
from firsthand.patterns.debate import debate
from firsthand.patterns.evaluator_optimizer import evaluator_optimizer
from firsthand.patterns.orchestrate import orchestrate
from firsthand.patterns.parts.answers import answer_or_text, extract_answer, given_answer
from firsthand.patterns.parts.feedback import judge
from firsthand.patterns.plan_execute import plan_execute
from firsthand.patterns.plan_mode import plan_mode
from firsthand.patterns.react import react
from firsthand.patterns.reflexion import reflexion
from firsthand.patterns.swarm import swarm
from firsthand.patterns.thought_action import text_action
from firsthand.patterns.tot import tot
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.system.said_text import said_text
from firsthand.task import Task
from firsthand.tools.calculator import calculator
from firsthand.tools.python import python
from firsthand.trace import Trace

NUMBER = Task("1", "How much?", hint="a number")


def ran(pattern: Callable[..., Any], replies: list[str], task: Task = NUMBER, tools: tuple[Any, ...] = ()) -> Trace:
    """The trace of a pattern whose model gives these replies in order, and scores nothing."""
    return asyncio.run(rollout(Agent("a", Scripted(replies, score=unscored), pattern, {}, tools), task))


def unscored(prompt: str, continuation: str) -> float:
    """Refuses to score, as most endpoints do."""
    raise ModelError("no scores here")


def called(trace: Trace) -> list[Any]:
    """The arguments of the calls of tools."""
    return [call.detail["arguments"] for call in trace.calls if call.kind == "tool"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ""), ("5", "5"), (" 5\n", " 5\n"), ("<think>a</think>5", "5"), ("\n <think>\na\n</think>\n\n  5 \n", "5 \n"),
        ("<think></think>", ""), ("<think>a", ""), ("<think>a</thin", ""), ("<think>a</think>b</think>c", "b</think>c"),
        ("<think>a</think>\n<think>b</think>c", "c"), ("<think>a</think><think>b", ""),
        ("5 <think>a</think>", "5 <think>a</think>"),
        ("a\n</think>\n\n5", "5"), ("a</think>\n5", "5"), ("a\n</think>5", "5"), ("a\n</think>\r\n5", "5"),
        ("a\n</think> <think>b</think>5", "5"),
        ("It writes </think> first.\n5", "It writes </think> first.\n5"), ("`</think>`\n5", "`</think>`\n5"),
        ("Write <think>\nand\n</think>\n5", "Write <think>\nand\n</think>\n5"),
        ("<thinking>a</thinking>5", "<thinking>a</thinking>5"),
    ],
)  # fmt: skip
def test_a_thought_that_a_text_begins_with_is_not_said(text: str, said: str) -> None:
    assert said_text(text) == said


def test_long_texts_are_read_in_linear_time() -> None:
    began = time.monotonic()
    for part in ("<think>", "</think>", "<think></think>", " \n", "x </think> ", "</think>\n"):
        said_text(part * 100_000)
    assert time.monotonic() - began < 5


def test_actions_and_final_answers_are_read_behind_the_thought() -> None:
    replies = [
        "<think>\nAction: calculator[1+1]\n</think>\nAction: calculator[2+2]",
        "<think>\nAction: calculator[3+3]\nthen",  # cut off: nothing is done
        "I think\nAction: calculator[5+5]\n</think>\nAction: calculator[6+6]",  # the prompt opened the thought
        "<think>\nFinal Answer: 9\n</think>\nFinal Answer: 4",
    ]
    trace = ran(react, replies, tools=(calculator,))
    assert (trace.answer, called(trace)) == ("4", [{"expression": "2+2"}, {"expression": "6+6"}])
    trace = ran(partial(react, max_steps=1), ["Hm", "<think>\nFinal Answer: 9\n</think>\nFinal Answer: 4"])
    assert trace.answer == "4"
    assert trace.nodes[-1].message.text.startswith("<think>")  # the record keeps all of it


def test_code_is_read_behind_the_thought() -> None:
    replies = [
        "<think>\n```python\nprint('no')\n```\n</think>\n```python\nprint(2)\n```",
        "<think>Final Answer: 7\n</think>\nFinal Answer: 2",
    ]
    trace = ran(code_act, replies, tools=(python,))
    assert (trace.answer, called(trace)) == ("2", [{"code": "print(2)"}])
    ended = ["Hm", "<think>\nFinal Answer: 7\n</think>\nFinal Answer: 2"]
    assert ran(partial(code_act, max_steps=1), ended, tools=(python,)).answer == "2"


@pytest.mark.parametrize("pattern", [orchestrate, plan_execute])
def test_plans_are_read_behind_the_thought(pattern: Callable[..., Any]) -> None:
    plan = "<think>\n1. maybe\n2. hmm\n</think>\n1. Real A\n2. Real B"
    trace = ran(pattern, [plan, "3", "4", "The answer is 5"])
    begun = [event.data["text"] for event in trace.events if event.kind == "branch" and event.data["status"] == "open"]
    assert trace.answer == "5"
    assert [text.rpartition(": ")[2] for text in begun] == ["Real A", "Real B"]


def test_hand_overs_and_boards_are_read_behind_the_thought() -> None:
    trace = ran(swarm, ["<think>\nHand over to checker\n</think>\nHand over to solver", "The answer is 4"])
    assert [event.data["target"] for event in trace.events if event.kind == "hand_over"] == ["solver"]
    written = ["<think>\nDONE: The answer is 9\n</think>\nWRITE a: 5", "<think>\nWRITE b: 8\nand"]
    trace = ran(partial(blackboard_team, members=2, rounds=1), [*written, "The answer is 5"])
    assert [(event.kind, event.data["key"]) for event in trace.events] == [("board", "a")]
    assert trace.answer == "5"


def test_others_read_what_is_said_and_no_thought() -> None:
    thought = "<think>It is the secret 9</think>It is 5"
    for pattern, replies in (
        (partial(debate, agents=2), [thought] * 4),
        (evaluator_optimizer, ["It is 4", thought, "incorrect", "It is 5", "fine", "correct"]),
        (partial(reflexion, evaluator="judge"), ["It is 4", "wrong", thought, "It is 5", "right"]),
    ):
        trace = ran(pattern, replies)
        users = "\n".join(node.message.text for node in trace.nodes if node.message.role == "user")
        assert trace.answer == "5"
        assert "It is 5" in users and "secret" not in users


def test_thoughts_of_a_search_and_programs_are_read_behind_the_thought() -> None:
    replies = ["<think>\nadd\n</think>\nmultiply", "sure", "The answer is 5", "sure"]
    trace = ran(partial(tot, breadth=1, judgements=1), replies * 3)
    texts = [event.data["text"] for event in trace.events if event.kind == "branch"]
    assert "multiply" in texts and not any("add" in text or "think>" in text for text in texts)
    assert ran(plan_mode, ["<think>answer(8)</think>\nanswer('done')"], Task("1", "Do it")).answer == "done"


def test_verdicts_in_words_are_read_behind_the_thought() -> None:
    async def judged(task: Task, ctx: Any) -> str:
        found = await judge(task, ctx, "5")
        return f"{found.passed} {found.text}"

    assert ran(judged, ["<think>It is wrong</think>right"], Task("1", "Do it")).answer == "True right"
    trace = ran(evaluator_optimizer, ["5", "fine", "<think>It may be incorrect</think>correct"])
    assert [event.data["status"] for event in trace.events if event.data.get("name") == "judge 1"] == ["kept"]


@pytest.mark.parametrize(
    ("task", "text", "answer"),
    [
        (NUMBER, "<think>The answer is 9? No</think>5", "5"), (NUMBER, "<think>The answer is 9", "9"),
        (Task("1", "Which?", choices=("red", "blue")), "<think>The answer is A. No</think>\n\nB", "B"),
        (Task("1", "Who?"), "<think>Bea?</think>\nAnn", "Ann"), (Task("1", "Who?"), "<think>Bea", "<think>Bea"),
        (Task("1", "Who?", verbatim=True), "<think>Bea?</think>\nAnn", "<think>Bea?</think>\nAnn"),
    ],
)  # fmt: skip
def test_answers_are_read_behind_the_thought_unless_there_is_nothing(task: Task, text: str, answer: str) -> None:
    assert answer_or_text(text, task) == answer
    assert given_answer(text, task) == answer
    assert extract_answer(text, task) in (answer, None)


@pytest.mark.parametrize("name", ["tau_retail", "tau_airline", "office:level=1", "agentbench_kg:level=1"])
def test_worlds_that_are_played_in_text_take_the_action_behind_a_thought(name: str) -> None:
    data = Path(os.environ.get("FIRSTHAND_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if name.startswith("tau_") and not (data / "agents" / "tau_bench").is_dir():
        pytest.skip("tau-bench's data are not here")

    async def played() -> tuple[int, int]:
        made = catalog.benchmark(f"{name}:data={data}" if name.startswith("tau_") else name)
        world = made.environment(next(iter(made.tasks(0))))
        await world.open()
        try:
            while world.ended is None and world.rounds < 30:
                await world.act(text_action(f"<think>\nAction: look around\n</think>\n\n{world.world.optimal()}"))
            return world.invalid_actions, world.rounds
        finally:
            await world.close()

    invalid, rounds = asyncio.run(played())
    assert invalid == 0 and 1 < rounds < 30


def test_a_thought_that_is_cut_off_is_no_action() -> None:
    assert text_action("<think>I say ###STOP###") == ""
    assert text_action("<think>a</think>\nThought: b\nAction: go") == "go"


def test_patterns_read_the_whole_text_of_a_reply_only_where_a_thought_does_no_harm() -> None:
    """A new line here is a pattern that reads `.text`: take `.said`, unless the whole text is what it is about."""
    root = Path(firsthand.__file__).parent
    reads_whole = r"(?:answer_or_text|extract_answer|given_answer)\("  # they leave the thought out themselves
    files = [*(root / "patterns").rglob("*.py"), *(root / "retrieval" / "rag").glob("[at]*.py")]
    found = {
        f"{path.stem}: {name}"
        for path in files
        for line in path.read_text().splitlines()
        if not re.search(reads_whole, line)
        for name in re.findall(r"([\w)\]]+)\.text\b(?!\[:)", line)
    }
    states = {"tot: state", "tot: 0]", "tot_dfs: deepest", "tot_dfs: state", "tot_dfs: child"}
    parsed = {"actions: final", "code_act: final", "judge: shown", "reflexion: feedback", "thought_action: ctx"}
    parsed |= {"list_items: item"}
    shown = {"audit: ctx", "audit: message", "reflexion: message", "system_text: 0]", "thought_action: message"}
    measured = {"deliberative: thought", "probed_cot: thought", "probed_cot: max_tokens))"}
    continued = {"toolformer: ctx", "toolformer: first", "toolformer: settings))"}
    assert found == states | parsed | shown | measured | continued
