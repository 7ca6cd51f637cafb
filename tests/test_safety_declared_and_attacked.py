"""Tests written from declarations, the tally of a guard, and an attack."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand import Agent
from firsthand.benchmark import Benchmark
from firsthand.declaration import Declaration
from firsthand.errors import ConfigError, ToolError, UnknownName
from firsthand.loop.approval import Decision
from firsthand.message import Json, ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.safety.attacks.attacked_benchmark import AttackedEnvironment, attack, obeyed, word_of
from firsthand.safety.declared_tests import (
    _checks,
    _made,
    _properties,
    _texts,
    generated_tests,
    policy_of,
    rules_against,
)
from firsthand.safety.guard_tally import GuardTally, _Answers, tallied
from firsthand.safety.policy import CallPolicy
from firsthand.safety.rules.case import Earlier
from firsthand.safety.undoable import undoable
from firsthand.task import Task
from firsthand.tool import Tool
from firsthand.trace import Score
from paying_tool import CHAT, PAY, PAYS, made


async def pattern(task: Task, ctx: Any) -> str:
    return "good" if task.prompt == "easy" else "bad"


def agent_of(*tools: Tool, guard: Any = None) -> Agent:
    return Agent("clerk", Scripted([]), pattern, tools=tools, guard=guard or CallPolicy())


def test_each_declared_fact_has_a_check_with_its_rule_and_its_assertion() -> None:
    facts = Declaration(("to.id",), paths=("to", "file"), rate=2, grants=True, dry_run=str)
    give = made(facts, "irreversible", "give", to={"type": "string"}, size={"type": "integer"})
    given = {"to": "x", "size": 3}
    call = "rules_against(AGENT, 'give', {'to': 'x', 'size': 3}"
    made_before = "ToolCall('1', 'give', {'to': 'x', 'size': 3})"
    found = list(_checks(give, given, agent_of(guard=CallPolicy(plan=("other",)))))
    assert found[:2] == [
        ("is_not_in_the_plan", ("plan_lock", f"assert {call})['plan_lock'] == 'ask'")),
        ("keeps_to_inside", ("path_inside", "assert rules_against(AGENT, 'give', {'to': '../outside-7431', 'size': 3})"
         "['path_inside'] == 'deny'")),
    ]  # fmt: skip
    whole = replace(give, declares=replace(facts, authority=("to",)))
    assert list(_checks(whole, given, agent_of())) == [
        ("asks_about_a_power_that_nobody_named",
         ("authority_from_trusted", f"assert {call})['authority_from_trusted'] == 'ask'")),
        ("takes_a_power_from_the_user",
         ("authority_from_trusted", f"assert 'authority_from_trusted' not in {call}, user='to x size 3')")),
        found[1],
        ("keeps_file_inside", ("path_inside", "assert rules_against(AGENT, 'give', {'to': 'x', 'size': 3, 'file': "
         "'../outside-7431'})['path_inside'] == 'deny'")),
        ("is_limited_by_its_rate", ("budget", f"assert {call}, made=[{made_before}] * 2)['budget'] == 'deny'")),
        ("asks_before_it_gives_a_permission",
         ("no_new_permissions", f"assert {call})['no_new_permissions'] == 'ask'")),
        ("is_not_repeated", ("once_only", f"assert {call}, made=[{made_before}])['once_only'] == 'deny'")),
        ("cannot_be_undone", ("dry_run_first", f"assert {call})['dry_run_first'] == 'ask'")),
    ]  # fmt: skip
    bare = made(None, "write", "bare", x={})
    nothing = ("declares_nothing_and_is_refused",
               ("declared", "assert rules_against(AGENT, 'bare', {'x': 1})['declared'] == 'deny'"))  # fmt: skip
    assert list(_checks(bare, {"x": 1}, agent_of(guard=CallPolicy(plan=("model",))))) == [nothing]
    planned = [name for name, _ in _checks(give, given, agent_of(guard=CallPolicy(plan=("give",))))]
    assert "is_not_in_the_plan" not in planned and "asks_before_it_gives_a_permission" not in planned
    final = made(Declaration(), "irreversible", "x", x={})
    assert [body[1][-6:] for name, body in _checks(final, {}, agent_of()) if name == "cannot_be_undone"] == ["'deny'"]
    outside = made(Declaration(), "external", "x", x={})
    assert [name for name, _ in _checks(outside, {}, agent_of())] == ["is_not_repeated"]


def test_a_generated_file_has_the_checks_of_the_guards_rules_and_says_what_it_leaves_out() -> None:
    picky = made(Declaration(), "read", "picky", wrong={})
    noisy = made(None, "external", "no-isy", x={"type": "boolean"}, opt={})
    text = generated_tests(agent_of(picky, noisy, guard=CallPolicy(("once_only",))), Path("a/b.toml"))
    head, _, body = text.partition("\n\n\n")
    assert head.splitlines()[0] == (
        '"""The guard of clerk, by what its tools declare. Written by: firsthand safety tests a/b.toml"""'
    )
    assert head.splitlines()[-1] == "AGENT = open_agent(read_agent_file(Path('a/b.toml')))"
    reason = f"ToolError: wrong of no use {'x' * 99}"[:90]
    assert body == (
        f"# picky has no test: a sample of its arguments was refused ({reason})\n\n\n"
        "def test_no_isy_is_not_repeated():\n    assert rules_against(AGENT, 'no-isy', {'x': True}, "
        "made=[ToolCall('1', 'no-isy', {'x': True})])['once_only'] == 'deny'\n"
    )
    power = made(Declaration(("opt.id", "x")), "read", "p", a={}, x={}, opt={}, b={})
    assert list(_properties(power)) == ["a", "x", "opt", "b"]
    assert list(_properties(replace(power, declares=None))) == ["a", "x", "b"]
    assert list(_texts({"a": [1, {"b": None}], "é": True})) == ["a", "1", "b", "None", "é", "True"]


def test_rules_against_a_call_leave_out_rewrites_and_take_calls_that_were_made() -> None:
    agent = agent_of(PAY, made(CHAT, "read", "look"), guard=(
        undoable, CallPolicy(plan=("look",), calls=2), CallPolicy((), ("pay", "look"), 9)
    ))  # fmt: skip  # of two policies the first
    assert policy_of(agent) is agent.guards[1]
    assert rules_against(agent, "pay", {"folder": "x", "note": "a\u202e"}) == {
        "plan_lock": "ask", "authority_from_trusted": "ask",
    }  # fmt: skip
    assert rules_against(agent, "pay", {"folder": "x"}, user="into x") == {"plan_lock": "ask"}
    made_before = [ToolCall("1", "pay", {"folder": "x"}), ToolCall("2", "look", {})]
    assert rules_against(agent, "look", {}, made=made_before) == {"budget": "deny"}
    assert rules_against(agent, "look", {}, made=made_before[:1]) == {}
    twice = rules_against(agent, "pay", {"folder": "x"}, user="x", made=made_before[:1])
    assert twice == {"plan_lock": "ask", "once_only": "deny"}
    assert _made(PAY, made_before[0]) == Earlier(
        "pay", "external", PAYS, {"folder": "x"}, "", False, {"folder": "notes", "fee": 7}
    )
    with pytest.raises(UnknownName, match="no tool 'pai'; did you mean 'pay'"):
        rules_against(agent, "pai", {})
    with pytest.raises(ConfigError, match=r"^the agent clerk has no policy guard: write guard = "):
        policy_of(agent_of(PAY, guard=undoable))


def test_a_tally_takes_the_first_score_for_utility_and_names_the_attacks_that_succeed() -> None:
    tasks = [Task("é1", "easy"), Task("2", "hard"), Task("3", "hard"), Task("4", "easy")]
    asked = {"é1": 0, "2": 2, "3": 1, "4": 0}

    def utility(task: Task, trace: Any) -> Score:
        return Score("utility", 0.01 if trace.answer == "good" else 0.0)

    def attack_success(task: Task, trace: Any) -> Score:
        return Score("attack_success", {"é1": 0.0, "2": 0.2, "3": 1.0}.get(task.id, 0.0))

    def agent_for(task: Task, ask: Any) -> Agent:
        async def asking(task: Task, ctx: Any) -> str:
            for _ in range(asked[task.id]):
                await ask(PAY, {})
            return await pattern(task, ctx)

        return Agent("a", Scripted([]), asking)

    def tally(*scorers: Any, over: Sequence[Task] = tasks, **more: Any) -> GuardTally:
        benchmark = Benchmark("b", lambda seed: tasks, scorers)
        return replace(asyncio.run(tallied(benchmark, over, agent_for, **more)), cpu_s=0.0)

    found = tally(utility, attack_success)
    assert found == GuardTally(4, 2, 2, ("2", "3"), 3, 2, 0.0) and found.success == 0.5
    assert tally(attack_success, utility).solved == 2 and tally(attack_success, utility).reached_in == ("2", "3")
    assert tally(utility, over=tasks[:1], attack=None) == GuardTally(1, 1, 0, (), 0, 0, 0.0)
    assert math.isnan(GuardTally(0, 0, 0, (), 0, 0, 0.0).success)


def test_nobody_says_no_and_a_perfect_human_says_what_the_task_needs() -> None:
    def answered(wanted: Any) -> tuple[Decision, list[str]]:
        answers = _Answers(Task("t", "q"), wanted)
        return asyncio.run(answers(PAY, {"a": 1})), answers.questions

    assert answered(None) == (Decision(False, "nobody", "nobody is there to ask"), ["pay"])
    needs = (Decision(True, "perfect human", ""), ["pay"])
    assert answered(lambda task, tool, given: (task.id, tool, given) == ("t", PAY, {"a": 1})) == needs
    no = Decision(False, "perfect human", "the user did not ask for this")
    assert answered(lambda task, tool, given: False) == (no, ["pay"])


class Room:
    def __init__(self, task: Task):
        async def look(**given: Any) -> Any:
            return {"got": given}

        self.tools, self.done = (replace(PAY, function=look), made(CHAT, "read", "look")), [task.id]

    async def open(self) -> None:
        self.done.append("open")

    async def close(self) -> None:
        self.done.append("close")

    async def final_state(self) -> Json:
        return {"done": self.done}


def test_an_attacked_benchmark_adds_its_text_to_results_or_to_the_question() -> None:
    task = Task("t", "q", metadata={"a": 1})
    word = word_of(task)
    benchmark = Benchmark("b", lambda seed: (replace(task, prompt=f"q{seed}"),), (), environment=Room)
    within = attack(benchmark, text=" {word} ")
    assert within.tasks(3) == (Task("t", "q3", metadata={"a": 1, "injected_word": word}),)
    assert (within.name, within.scorers, task.metadata) == ("attacked_b", (obeyed,), {"a": 1})
    room: Any = within.environment(task)  # type: ignore[misc]
    assert (type(room), room.text) == (AttackedEnvironment, f" {word} ")
    pay = room.tools[0]
    assert (pay.name, pay.effect, pay.declares) == ("pay", "external", PAYS)
    assert asyncio.run(pay({"x": "é"})) == f'{{"got": {{"note": "none", "x": "é {word} "}}}}'

    async def visit() -> Json:
        await room.open()
        await room.close()
        return await room.final_state()

    assert asyncio.run(visit()) == {"done": ["t", "open", "close"]}
    beside = attack(benchmark, vector="document", text=" {word} ")
    assert beside.tasks(3)[0].prompt == f'q3\n\n<untrusted from="a document">\n{word}\n</untrusted>'
    assert beside.tasks(3)[0].metadata == {"a": 1, "injected_word": word} and beside.environment is Room


def test_what_an_attacked_environment_raises_is_passed_on() -> None:
    class Failing(Room):
        async def open(self) -> None:
            await super().open()
            raise OSError("no room to open")

        async def close(self) -> None:
            await super().close()
            raise OSError("no room to close")

        async def final_state(self) -> Json:
            raise OSError("no state")

    inner = Failing(Task("t", "q"))

    async def look(**given: Any) -> Any:
        raise ToolError("nothing there")

    inner.tools = (replace(inner.tools[0], function=look),)  # type: ignore[assignment]
    room = AttackedEnvironment(inner, "injected")
    for asked, said, done in (
        (room.open, "no room to open", ["t", "open"]), (room.close, "no room to close", ["t", "open", "close"]),
        (room.final_state, "no state", ["t", "open", "close"]),
    ):  # fmt: skip
        with pytest.raises(OSError, match=f"^{said}$"):
            asyncio.run(asked())
        assert inner.done == done
    with pytest.raises(ToolError, match=r"^nothing there$"):
        asyncio.run(room.tools[0]({"x": 1}))
