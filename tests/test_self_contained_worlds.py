"""Environments whose tools declare lasting effects but reach nothing outside: what was done in them is done again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark, NamedSetting
from firsthand.benchmarks.irreversible_actions import irreversible_actions
from firsthand.benchmarks.joint_alignment import ScenarioRoom
from firsthand.benchmarks.office_attacked import office_attacked, office_of
from firsthand.benchmarks.scope_creep import scope_creep
from firsthand.bridges.agentdojo.dojo_benchmark import DojoEnvironment
from firsthand.context import Context
from firsthand.errors import OutcomeUnknown, ToolError
from firsthand.guard import GuardVerdict
from firsthand.loop.approval import Approval, Decision
from firsthand.loop.journal import MemoryJournal
from firsthand.message import Json, ToolCall, ToolResult
from firsthand.patterns.parallel import parallel
from firsthand.patterns.parts.feedback import Feedback
from firsthand.patterns.reflexion import reflexion
from firsthand.patterns.self_consistency import self_consistency
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs.forking import Fork, fork
from firsthand.task import Task
from firsthand.tool import Effect, Tool, tool
from firsthand.tool_source import is_self_contained
from firsthand.trace import Trace

Steps = Sequence[tuple[str, Json]]
ALLOWED = Approval({"irreversible": "allow"})


class Killed(BaseException):
    """The process dies here."""


def player(steps: Steps, kill_at: int | None = None) -> Callable[..., Any]:
    """A pattern that makes these calls, each on what it read before, and dies before the call `kill_at`."""

    async def play(task: Task, ctx: Context) -> str:
        read: list[str] = []
        for number, (name, arguments) in enumerate(steps):
            if number == kill_at:
                raise Killed
            result = await ctx.call(ToolCall(f"c{number}", name, arguments))
            ctx = ctx.say(result)
            read.append(result.content)
        if kill_at == len(steps):
            raise Killed
        return "\n".join(read)

    return play


async def attempt(
    benchmark: Any, task: Task, steps: Steps, journal: Any, kill: int | None = None, approval: Approval = ALLOWED
) -> Trace:
    agent = Agent("a", Scripted([]), player(steps, kill), approval=approval)
    return await rollout(agent, task, benchmark=benchmark, journal=journal)


async def told(benchmark: Any, task: Task, steps: Steps) -> None:
    """An attempt killed after any step and resumed ends as one that was not: world, scores and what was read."""
    whole = await attempt(benchmark, task, steps, MemoryJournal())
    assert whole.error is None
    for kill in range(1, len(steps) + 1):
        journal = MemoryJournal()
        with pytest.raises(Killed):
            await attempt(benchmark, task, steps, journal, kill)
        resumed = await attempt(benchmark, task, steps, journal)
        assert (resumed.final_state, resumed.scores, resumed.answer) == (whole.final_state, whole.scores, whole.answer)
        assert not [each for each in resumed.events if each.kind in ("rebuilt_otherwise", "not_repeated")]
        assert {"started": True} not in journal.entries.values(), "a call that runs again does not begin anew"


@pytest.mark.parametrize("effects", ["declared", "simulated"])
def test_a_resumed_office_holds_every_payment_deletion_and_look(effects: str) -> None:
    benchmark = irreversible_actions(effects=effects)  # type: ignore[arg-type]
    tasks = {task.metadata["kind"]: task for task in benchmark.tasks(0)}
    payee, amount = tasks["pay"].secret["goal"]["paid"][0]
    pay: Json = {"payee": payee, "amount": amount}
    asyncio.run(told(benchmark, tasks["pay"], [("pay", pay | {"dry_run": True}), ("pay", pay), ("list_files", {})]))
    (target,) = tasks["look"].secret["goal"]["read"]
    signed = next(name for name in tasks["look"].secret["files"] if name.endswith("signed.txt"))
    steps: Steps = [
        ("delete_file", {"name": signed}),
        ("delete_file", {"name": signed}),
        ("read_file", {"name": target}),
    ]
    asyncio.run(told(benchmark, tasks["look"], steps))


def test_a_resumed_desk_holds_what_was_read_and_granted() -> None:
    benchmark = scope_creep()
    task = next(iter(benchmark.tasks(0)))
    assert benchmark.environment is not None
    paths = sorted(benchmark.environment(task).files)  # type: ignore[attr-defined]
    every: Steps = [("accept_all_permissions", {}), *(("read_file", {"path": path}) for path in paths)]
    asyncio.run(told(benchmark, task, every))


@pytest.mark.parametrize("channel", ["none", "results"])
def test_a_resumed_office_of_external_tools_shows_what_was_created(channel: str) -> None:
    benchmark = office_attacked(channel=channel, level=1, tasks=8)  # type: ignore[arg-type]
    for task in benchmark.tasks(0):
        name, given = office_of(task).steps[-1]
        if name == "create_event":
            day = {"day": given["start"][:10]}
            asyncio.run(told(benchmark, task, [("list_events", day), (name, given), ("list_events", day)]))
            return
    raise AssertionError("no task creates an event")


class Bank:
    """Money that is sent, in memory, and what happens on the way."""

    def __init__(self, self_contained: bool = True, effect: Effect = "irreversible") -> None:
        self.self_contained, self.effect = self_contained, effect
        self.sent: list[str] = []
        self.word = "sent to"
        self.faults: list[BaseException] = []

    async def open(self) -> None:
        self.sent.clear()

    async def close(self) -> None: ...

    async def final_state(self) -> Json:
        return {"sent": list(self.sent)}

    @property
    def tools(self) -> Sequence[Tool]:
        @tool(effect=self.effect)
        async def send(to: str) -> str:
            """Send."""
            if to == "nobody":
                raise ToolError("there is no such account")
            self.sent.append(to)
            if self.faults:
                raise self.faults.pop()
            return f"{self.word} {to}"

        return (send,)


def setting(bank: Bank) -> NamedSetting:
    return NamedSetting("bank", environment=lambda task: bank)


TASK = Task("t", "Send.")
SEND: Steps = [("send", {"to": "ann"})]


@pytest.mark.parametrize("effect", ["external", "irreversible"])
def test_what_reaches_the_outside_is_never_done_twice_and_the_trace_says_so(effect: Effect) -> None:
    bank, journal = Bank(self_contained=False, effect=effect), MemoryJournal()
    with pytest.raises(Killed):
        asyncio.run(attempt(setting(bank), TASK, SEND, journal, 1))
    resumed = asyncio.run(attempt(setting(bank), TASK, SEND, journal))
    assert (resumed.answer, resumed.final_state) == ("sent to ann", {"sent": []})
    (noted,) = [each for each in resumed.events if each.kind == "not_repeated"]
    assert noted.data == {"tool": "send", "call": resumed.calls[0].id}


def test_an_environment_that_says_nothing_of_itself_may_reach_the_outside() -> None:
    bank, journal = Bank(), MemoryJournal()
    del bank.self_contained
    assert not is_self_contained(bank)
    with pytest.raises(Killed):
        asyncio.run(attempt(setting(bank), TASK, SEND, journal, 1))
    resumed = asyncio.run(attempt(setting(bank), TASK, SEND, journal))
    assert resumed.final_state == {"sent": []}
    assert "asked" not in resumed.calls[0].detail, "its world has no model"


def test_a_look_that_is_told_from_the_record_is_no_call_that_was_not_repeated() -> None:
    bank, journal = Bank(self_contained=False, effect="read"), MemoryJournal()
    with pytest.raises(Killed):
        asyncio.run(attempt(setting(bank), TASK, SEND, journal, 1))
    resumed = asyncio.run(attempt(setting(bank), TASK, SEND, journal))
    assert resumed.answer == "sent to ann"
    assert not [each for each in resumed.events if each.kind == "not_repeated"]


def test_the_agents_own_tools_are_never_done_twice_beside_a_self_contained_environment() -> None:
    outside: list[str] = []

    @tool(effect="external")
    def mail(to: str) -> str:
        """Mail."""
        outside.append(to)
        return "mailed"

    bank, journal = Bank(), MemoryJournal()
    steps: Steps = [*SEND, ("mail", {"to": "bob"})]
    for kill in (2, None):
        agent = Agent("a", Scripted([]), player(steps, kill), tools=(mail,), approval=ALLOWED)
        if kill:
            with pytest.raises(Killed):
                asyncio.run(rollout(agent, TASK, benchmark=setting(bank), journal=journal))
        else:
            trace = asyncio.run(rollout(agent, TASK, benchmark=setting(bank), journal=journal))
    assert (outside, trace.final_state, trace.answer) == (["bob"], {"sent": ["ann"]}, "sent to ann\nmailed")
    assert not [each for each in trace.events if each.kind == "not_repeated"]


@pytest.mark.parametrize(("contained", "sent"), [(True, ["ann"]), (False, [])])
def test_a_call_that_was_cut_off_runs_again_only_in_a_self_contained_environment(
    contained: bool, sent: list[str]
) -> None:
    bank, journal = Bank(contained), MemoryJournal()
    bank.faults.append(asyncio.CancelledError())

    async def killed() -> None:
        running = asyncio.ensure_future(attempt(setting(bank), TASK, SEND, journal))
        await asyncio.wait({running})

    asyncio.run(killed())
    journal.entries = {
        key: {"started": True} if "content" in reply else reply for key, reply in journal.entries.items()
    }
    assert {"started": True} in journal.entries.values()
    bank.faults.clear()
    resumed = asyncio.run(attempt(setting(bank), TASK, SEND, journal))
    assert resumed.final_state == {"sent": sent}
    assert ("may have taken effect" in resumed.answer) is not contained  # type: ignore[operator]


def test_a_call_that_broke_after_it_acted_acts_again_and_one_that_did_nothing_does_not() -> None:
    bank, journal = Bank(), MemoryJournal()
    bank.faults.append(OutcomeUnknown("the line broke"))
    steps: Steps = [*SEND, ("send", {"to": "nobody"})]
    with pytest.raises(Killed):
        asyncio.run(attempt(setting(bank), TASK, steps, journal, 2))
    bank.faults.append(OutcomeUnknown("the line broke"))
    resumed = asyncio.run(attempt(setting(bank), TASK, steps, journal))
    assert resumed.final_state == {"sent": ["ann"]}
    assert not [each for each in resumed.events if each.kind == "rebuilt_otherwise"]


def test_nobody_is_asked_again_about_what_was_done_and_what_was_denied_stays_undone() -> None:
    asked: list[str] = []

    async def ask(tool: Tool, arguments: Json) -> Decision:
        asked.append(arguments["to"])
        return Decision(arguments["to"] == "ann", "me")

    bank, journal, approval = Bank(), MemoryJournal(), Approval({}, ask)
    steps: Steps = [*SEND, ("send", {"to": "eve"})]
    with pytest.raises(Killed):
        asyncio.run(attempt(setting(bank), TASK, steps, journal, 2, approval))
    whole = asyncio.run(attempt(setting(bank), TASK, steps, journal, approval=approval))
    assert (asked, whole.final_state) == (["ann", "eve"], {"sent": ["ann"]})
    last = len(whole.nodes) - 1
    same = Fork(whole, last, Agent("a", Scripted([]), player(steps), approval=approval))
    other = Fork(whole, last, Agent("a", Scripted([]), player([]), approval=approval), say="Go on.")
    for each in (same, other):
        forked = asyncio.run(fork(each, TASK, benchmark=setting(bank)))
        assert (forked.final_state, forked.error, asked) == ({"sent": ["ann"]}, None, ["ann", "eve"])


class Hides:
    """A guard that shows a result in other words."""

    def result(self, view: Any, tool: Tool, result: ToolResult) -> GuardVerdict:
        return GuardVerdict.replaced("hides", replace(result, content="a result"))


def otherwise(trace: Trace) -> list[Json]:
    return [each.data for each in trace.events if each.kind == "rebuilt_otherwise"]


@pytest.mark.parametrize("guard", [None, Hides()])
def test_a_world_that_answers_otherwise_when_it_is_rebuilt_is_noted(guard: Any) -> None:
    bank, journal = Bank(), MemoryJournal()
    with pytest.raises(Killed):
        asyncio.run(attempt(setting(bank), TASK, SEND, journal, 1))
    for key, reply in journal.entries.items():
        journal.entries[key] = reply | ({"content": "sent to ann at noon"} if "content" in reply else {})
    agent = Agent("a", Scripted([]), player(SEND), approval=ALLOWED, guard=guard)
    resumed = asyncio.run(rollout(agent, TASK, benchmark=setting(bank), journal=journal))
    recorded, result = "sent to ann at noon", "sent to ann"
    noted = {"tool": "send", "call": resumed.calls[0].id, "recorded": recorded, "result": result}
    assert (otherwise(resumed), resumed.answer) == ([noted], "a result" if guard else recorded)


@pytest.mark.parametrize("guard", [None, Hides()])
@pytest.mark.parametrize("origin", [None, "the bank"])
def test_a_fork_notes_another_result_where_its_parent_read_what_the_tool_gave(guard: Any, origin: str | None) -> None:
    class Clock(Bank):
        @property
        def tools(self) -> Sequence[Tool]:
            return tuple(replace(each, origin=origin) for each in super().tools)

    agent = Agent("a", Scripted([]), player(SEND), approval=ALLOWED, guard=guard)
    parent = asyncio.run(rollout(agent, TASK, benchmark=setting(Clock())))
    same = asyncio.run(fork(Fork(parent, len(parent.nodes) - 1, agent), TASK, benchmark=setting(Clock())))
    assert (same.error, same.answer, otherwise(same)) == (None, parent.answer, [])
    late = Clock()
    late.word = "sent at noon to"
    forked = asyncio.run(fork(Fork(parent, len(parent.nodes) - 1, agent), TASK, benchmark=setting(late)))
    assert (forked.answer, len(otherwise(forked))) == (parent.answer, int(guard is None and origin is None))


def test_every_benchmark_whose_tools_declare_lasting_effects_says_what_its_environment_is() -> None:
    made: list[Benchmark] = [irreversible_actions(effects="declared"), office_attacked(tasks=1), scope_creep()]
    for benchmark in made:
        assert benchmark.environment is not None
        assert is_self_contained(benchmark.environment(next(iter(benchmark.tasks(0)))))
    assert DojoEnvironment.self_contained and ScenarioRoom.self_contained


async def pay_once(task: Task, ctx: Context) -> str:
    """Sends once, in whatever branch it runs."""
    return (await ctx.call(ToolCall("c", "send", {"to": "ann"}))).content


def shared(pattern: Any, environment: Any = None, effect: Effect = "write", **options: Any) -> list[Json]:
    agent = Agent("a", Scripted(lambda *_: "It failed."), pattern, {"pattern": pay_once, **options}, approval=ALLOWED)
    bank = Bank(effect=effect) if environment is None else environment
    trace = asyncio.run(rollout(agent, TASK, benchmark=setting(bank)))
    assert trace.error is None
    return [each.data for each in trace.events if each.kind == "shared_world"]


def test_a_pattern_that_acts_several_times_in_one_world_says_so() -> None:
    async def never(*_: Any) -> Feedback:
        return Feedback(False, "no")

    for pattern, options, runs in (
        (self_consistency, {"samples": 3}, 3),
        (parallel, {"n": 2}, 2),
        (reflexion, {"trials": 3, "evaluate": never}, 2),
    ):
        assert shared(pattern, **options) == [{"runs": runs, "tools": ["send"]}]
        assert shared(pattern, effect="irreversible", **options) == [{"runs": runs, "tools": ["send"]}]
        assert not shared(pattern, effect="read", **options), "looking shares nothing"
    for pattern, options in ((self_consistency, {"samples": 1}), (parallel, {"n": 1}), (reflexion, {"trials": 1})):
        assert not shared(pattern, **options, **({"evaluate": never} if pattern is reflexion else {}))


def test_a_trial_after_the_world_is_over_says_so_too() -> None:
    class Brief(Bank):
        @property
        def tools(self) -> Sequence[Tool]:
            return () if self.sent else super().tools

        version = property(lambda self: len(self.sent))

    async def never(*_: Any) -> Feedback:
        return Feedback(False, "no")

    assert shared(reflexion, Brief(), trials=2, evaluate=never) == [{"runs": 2, "tools": ["send"]}]


def test_tools_of_the_agents_own_are_no_shared_world() -> None:
    @tool(effect="write")
    def send(to: str) -> str:
        """Send."""
        return "sent"

    agent = Agent("a", Scripted([]), self_consistency, {"pattern": pay_once, "samples": 2}, tools=(send,))
    trace = asyncio.run(rollout(agent, TASK, benchmark=NamedSetting("none")))
    assert trace.error is None and not [each for each in trace.events if each.kind == "shared_world"]
