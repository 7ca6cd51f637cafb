"""An attempt that dies at any record of its journal ends, when resumed, as if nothing had happened, and repeats nothing.

Death is a journal that raises: nothing is recorded or done outside after it, as after SIGKILL. Real SIGKILLs are sent in
`test_run_killed.py` and, inside tools and branches, at the end of this file.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.errors import TransientError
from firsthand.loop.approval import Approval
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.concurrency import Retry
from firsthand.loop.journal import MemoryJournal
from firsthand.message import Json, ToolCall, canonical
from firsthand.model import Completion, Sampling, Usage
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs.store import create
from firsthand.runs.stored_journal import StoredJournal
from firsthand.task import Task
from firsthand.tool import Tool, tool
from firsthand.trace import Trace

ALLOW = Approval({"irreversible": "allow"})
TASK = Task("1", "Go on.")
DOUBT = "was interrupted while it ran"

Plan = list[Any]
BIG: Plan = [
    "generate",
    ["together", ["pause", "generate", "irreversible"], ["generate", "external", "generate"], ["read", "sample"]],
    "write",
    ["sub", "generate", ["together", ["irreversible", "pause"], ["irreversible"], ["pause", "pause", "irreversible"]]],
    ["together", [["together", ["generate"], ["score", "external"]]], ["flaky", "irreversible"], ["pause", "write"]],
    "score",
    "irreversible",
    "generate",
]
"""Words are steps; a list that begins with `together` runs its members as branches, one with `sub` as a sub-pattern."""


class Killed(BaseException):
    """The process is gone."""


class Mortal(MemoryJournal):
    """A journal whose process dies at record number `dies_at`, before or after it is safely kept."""

    def __init__(self, kept: dict[Any, Any], dies_at: float, *, kept_first: bool):
        super().__init__()
        self.entries, self.dies_at, self.kept_first, self.count = kept, dies_at, kept_first, 0

    @property
    def dead(self) -> bool:
        return self.count >= self.dies_at

    def record(self, effect: str, request: str, reply: Json) -> None:
        if self.dead:
            raise Killed
        self.count += 1
        if not self.dead or self.kept_first:
            super().record(effect, request, json.loads(json.dumps(reply)))
        if self.dead:
            raise Killed


class World:
    """What lies outside: how often each irreversible and external effect happened, and every question to the model."""

    def __init__(self) -> None:
        self.happened: Counter[str] = Counter()
        self.journal: Mortal | None = None
        self.failures = 0

    def tools(self, journal: Mortal) -> tuple[Tool, ...]:
        def make(effect: Any) -> Tool:
            @tool(effect=effect, name=str(effect))
            async def act(place: str) -> str:
                """Do it."""
                await asyncio.sleep(0)
                if journal.dead:
                    raise Killed
                self.happened[f"{effect} {place}"] += 1
                return f"{effect} done at {place}"

            return act

        return tuple(make(effect) for effect in ("read", "write", "external", "irreversible"))


def said(messages: Any, sampling: Sampling, index: int) -> str:
    """An answer that follows from the request alone."""
    return f"{len(messages)} {sampling.seed} {index} words to spend tokens on"


class Flaky(Scripted):
    """Answers a tick later, or more if it is told to be slow; where it is told to be flaky, it fails once first."""

    def __init__(self) -> None:
        super().__init__(said, fingerprint="scripted-said")
        self.failed: set[str] = set()

    async def complete(self, prompt: Any, sampling: Sampling, **rest: Any) -> list[Completion]:
        key = f"{len(prompt)} {sampling.seed}"
        if "flaky" in prompt[-1].text and key not in self.failed:
            self.failed.add(key)
            raise TransientError("busy")
        for _ in range(4 if "slow" in prompt[-1].text else 1):
            await asyncio.sleep(0)
        return await super().complete(prompt, sampling, **rest)


async def follow(plan: Plan, ctx: Context, place: str) -> Context:
    """Do the steps of a plan, one after the other."""
    for number, step in enumerate(plan):
        here = f"{place}.{number}"
        match step:
            case "pause":
                await asyncio.sleep(0)
            case "generate" | "flaky":
                ctx = await ctx.say(f"{step} {here}").generate(max_tokens=20, temperature=1.0)
            case "sample":
                ctx = (await ctx.say(here).sample(3, max_tokens=4))[1]
            case "score":
                await ctx.say(here).score(["yes", "no"])
            case str():
                ctx = ctx.say(await ctx.call(ToolCall(here, step, {"place": here})))
            case ["sub", *steps]:
                ctx = await follow(steps, ctx, f"{here}s")
            case [_, *members]:
                ends = await ctx.group(follow(each, ctx, f"{here}/{i}") for i, each in enumerate(members))
                ctx = ctx.say(" & ".join(end.text for end in ends if end.node is not None))
    return ctx


def attempt(plan: Plan, world: World, journal: Mortal, limits: Limits | None = None) -> tuple[Trace | None, Flaky]:
    """The trace, or None if the process died."""

    async def pattern(task: Task, ctx: Context) -> str:
        return (await follow(plan, ctx.say(task.prompt), "")).text

    model = Flaky()
    retry = Retry(attempts=3, first_wait_s=1e-4)
    agent = Agent(
        "a", model, pattern, tools=world.tools(journal), retry=retry, limits=limits or Limits(), approval=ALLOW
    )
    try:
        return asyncio.run(rollout(agent, TASK, journal=journal, seed=5)), model
    except Killed:
        return None, model


def outcome(trace: Trace) -> Any:
    """All that a trace says but for times, replays, and the order of branches that ran together."""
    return (
        trace.answer,
        trace.stop_reason,
        trace.error,
        (trace.usage.prompt_tokens, trace.usage.completion_tokens),
        sorted(canonical([message.to_json() for message in branch]) for branch in trace.branches()),
        sorted((call.id, call.kind, call.request, canonical(call.detail), call.error) for call in trace.calls),
    )


def finish(plan: Plan, deaths: list[tuple[float, bool]]) -> tuple[Trace, World, dict[Any, Any], int]:
    """The trace after these deaths and as many resumptions; the world, the journal, how often the model was asked."""
    world, kept, asked = World(), dict[Any, Any](), 0
    for dies_at, kept_first in [*deaths, (float("inf"), True)]:
        trace, model = attempt(plan, world, Mortal(kept, dies_at, kept_first=kept_first))
        asked += len(model.asked)
        if trace is not None:
            return trace, world, kept, asked
    raise AssertionError("the last try cannot die")


def check(plan: Plan, deaths: list[tuple[float, bool]]) -> bool:
    """The end is that of an undisturbed run, and nothing happened twice. False if a tool was in doubt, which says so."""
    undisturbed, calm, *_ = finish(plan, [])
    trace, world, kept, _ = finish(plan, deaths)
    outside = {
        place: count for place, count in world.happened.items() if place.startswith(("irreversible", "external"))
    }
    assert all(count == 1 for count in outside.values())
    in_doubt = [call for call in trace.calls if DOUBT in str(call.detail.get("result"))]
    assert len(in_doubt) <= 4 * len(deaths)  # of as many branches at a time
    assert outside.keys() <= calm.happened.keys()
    if not in_doubt:
        assert outcome(trace) == outcome(undisturbed)
        assert outside == {place: 1 for place in calm.happened if place.startswith(("irreversible", "external"))}
    assert {(call.id, call.request) for call in trace.calls} == kept.keys()  # no effect was ever asked in two ways
    return not in_doubt


def num_records(plan: Plan) -> int:
    journal = Mortal({}, float("inf"), kept_first=True)
    trace, _ = attempt(plan, World(), journal)
    assert trace is not None and trace.error is None and trace.stop_reason == "done"
    return journal.count


@pytest.mark.slow
@pytest.mark.parametrize("kept_first", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_death_at_every_record_of_a_tree_of_branches_and_tools_changes_nothing(kept_first: bool) -> None:
    count = num_records(BIG)
    assert count > 25
    sure = [check(BIG, [(dies_at, kept_first)]) for dies_at in range(1, count + 1)]
    assert sum(sure) > count / 4  # in the others a tool was in doubt: several are under way at a time


def test_dying_at_every_single_record_still_comes_to_the_same_end() -> None:
    undisturbed, _, _, asked_calmly = finish(BIG, [])
    trace, world, _, asked = finish(BIG, [(2, True)] * 60)  # an intent and its result, or two replies
    assert all(count == 1 for place, count in world.happened.items() if place.startswith(("irrev", "ext")))
    doubts = sum(DOUBT in str(call.detail.get("result")) for call in trace.calls)
    assert len(trace.calls) == len(undisturbed.calls) and doubts <= 9
    assert asked <= asked_calmly + 60 * 3  # what was under way when it died, and no more


plans = st.recursive(
    st.sampled_from(["generate", "sample", "score", "read", "write", "external", "irreversible", "pause", "flaky"]),
    lambda inner: st.one_of(
        st.lists(st.lists(inner, max_size=3), min_size=1, max_size=3).map(lambda members: ["together", *members]),
        st.lists(inner, max_size=3).map(lambda steps: ["sub", *steps]),
    ),
    max_leaves=14,
)


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    plan=st.lists(plans, min_size=1, max_size=5),
    deaths=st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=4),
)
def test_any_plan_survives_any_deaths(plan: Plan, deaths: list[tuple[float, bool]]) -> None:
    check(plan, deaths)


# -- budgets --


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [60, 90, 140, 200, 400])
def test_under_a_token_budget_a_fan_out_repeats_no_finished_call(tokens: int) -> None:
    plan: Plan = [["together", *(["pause"] * i + ["generate", "generate", "generate"] for i in (3, 0, 2, 1))]]
    for dies_at in range(1, 14):
        kept: dict[Any, Any] = {}
        died, _ = attempt(plan, World(), Mortal(kept, dies_at, kept_first=True), Limits(tokens=tokens))
        replies = {key for key, reply in kept.items() if "completions" in reply}
        spent = sum(each["usage"]["completion_tokens"] for key in replies for each in kept[key]["completions"])
        if died is not None:
            continue
        trace, _ = attempt(plan, World(), Mortal(kept, float("inf"), kept_first=True), Limits(tokens=tokens))
        assert trace is not None and trace.error is None
        assert trace.stop_reason in ("done", "tokens")
        replayed = {(call.id, call.request) for call in trace.calls if call.replayed}
        made = {(call.id, call.request) for call in trace.calls if not call.replayed and call.error is None}
        assert not made & replies and replayed <= replies
        generated = sum(
            each["usage"]["completion_tokens"] for reply in kept.values() for each in reply.get("completions", ())
        )
        assert spent <= generated <= tokens


def test_a_reply_given_under_a_reduced_grant_is_found_again_whoever_comes_first() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        ends = await ctx.group(ctx.say(how).generate(max_tokens=20) for how in ("slow", "quick"))
        return " ".join(end.text for end in ends)

    def run(journal: Mortal, model: Flaky) -> Trace:
        agent = Agent("a", model, pattern, limits=Limits(tokens=26))
        return asyncio.run(rollout(agent, TASK, journal=journal))

    undisturbed = run(Mortal({}, 99, kept_first=True), Flaky())
    assert sorted(call.detail["sampling"]["max_tokens"] for call in undisturbed.calls) == [4, 20]
    journal = Mortal(
        {}, 4, kept_first=True
    )  # the sizes of both prompts, what the quick branch was granted, and its reply
    with pytest.raises(Killed):
        run(journal, Flaky())
    assert [reply.get("granted") for reply in journal.entries.values()] == [None, None, 4, None]
    model = Flaky()
    resumed = run(Mortal(journal.entries, 99, kept_first=True), model)
    quick = [next(call for call in trace.calls if call.id == "0.1:0") for trace in (undisturbed, resumed)]
    assert quick[0].request == quick[1].request and quick[1].replayed
    assert [asked.prompt[-1].text for asked in model.asked] == ["slow"]  # type: ignore[union-attr]


def test_what_an_interrupted_try_has_spent_is_not_there_for_other_branches() -> None:
    async def branch(ctx: Context, turns: int) -> str:
        for _ in range(turns):
            ctx = await ctx.say("slow" if turns == 2 else "quick").generate()
        return ctx.text

    async def pattern(task: Task, ctx: Context) -> str:
        return " ".join(await ctx.group(branch(ctx.say(str(turns)), turns) for turns in (2, 1)))

    journal = Mortal({}, 2, kept_first=True)
    agent = Agent("a", Flaky(), pattern, limits=Limits(calls=2))
    with pytest.raises(Killed):
        asyncio.run(rollout(agent, TASK, journal=journal))
    assert {effect for effect, _ in journal.entries} == {"0.0:0", "0.1:0"}
    model = Flaky()
    again = Agent("a", model, pattern, limits=Limits(calls=2))
    shared = Budget(Limits(calls=9))
    trace = asyncio.run(rollout(again, TASK, journal=Mortal(journal.entries, 99, kept_first=True), budget=shared))
    assert trace.stop_reason == "calls" and model.asked == [] and shared.calls == 2


def test_a_held_budget_gives_way_to_what_is_replayed_and_to_nothing_else() -> None:
    parent = Budget(Limits(tokens=100))
    budget = Budget(Limits(tokens=100), parent)
    inner = Budget(Limits(), budget)
    budget.hold(70, 2)
    assert inner.reserve(60) == 30
    inner.repay(Usage(30, 0, 10))
    inner.repay(Usage(20, 0, 10))
    assert (budget.spent.total_tokens, budget.reserved_tokens, budget.calls) == (70, 30, 3)
    inner.charge(30, Usage(0, 0, 5))
    inner.repay(Usage(0, 0, 5))  # of which nobody knew: charged, and one call more
    for scope in (budget, parent):
        assert (scope.spent.total_tokens, scope.reserved_tokens, scope.calls) == (80, 0, 4)


def test_a_stored_journal_gives_each_last_reply_once(tmp_path: Path) -> None:
    with create(tmp_path, {}, "x") as run:
        journal = StoredJournal(run.database, "a")
        journal.record(":0", "r", {"started": True})
        journal.record(":1", "s", {"n": 1})
        journal.record(":0", "r", {"content": "done"})
        StoredJournal(run.database, "b").record(":0", "r", {"n": 2})
        assert journal.replies() == [{"n": 1}, {"content": "done"}]


# -- real deaths --

RUN = """
import asyncio, os
from firsthand.message import ToolCall
from firsthand.tool import tool

@tool(effect="irreversible")
async def send(place: str) -> str:
    '''Send it.'''
    with open("sent", "a") as file:
        file.write(place + chr(10))
        file.flush()
        os.fsync(file.fileno())
    await asyncio.sleep(0.01)
    return f"sent {place}"

async def killed(task, ctx) -> str:
    '''Branches that think, send, and think again.'''
    async def branch(number, ctx):
        for turn in range(3):
            ctx = await ctx.say(f"{number} {turn}").generate()
            await asyncio.sleep(0.005)
            result = await ctx.call(ToolCall("1", "send", {"place": f"{task.id} {number} {turn}"}))
            ctx = ctx.say(result)
        return (await ctx.generate()).text
    return " ".join(await ctx.group(branch(number, ctx.say(task.prompt)) for number in range(4)))
"""


@pytest.mark.slow
def test_sigkill_inside_branches_and_tools_sends_nothing_twice(tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text(RUN)
    (tmp_path / "script.json").write_text(json.dumps({"": "The answer is 7."}))
    environment = {**os.environ, "FIRSTHAND_HOME": str(tmp_path / "home")}
    begin = ["arithmetic:levels=1", "--limit", "12", "--model", "scripted:script.json", "--pattern", "killed.py"]
    begin += ["--tools", "killed.py:send", "--concurrency", "3", "--approve", "irreversible=allow"]
    rng, sent, words, kills = random.Random(11), tmp_path / "sent", begin, 0
    while True:
        child = subprocess.Popen(
            [sys.executable, "-m", "firsthand", "run", *words, "--json"],
            cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        before = len(sent.read_text().splitlines()) if sent.exists() else 0
        while child.poll() is None and not (sent.exists() and len(sent.read_text().splitlines()) > before):
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        if kills < 8 and child.poll() is None:
            child.send_signal(signal.SIGKILL)
            kills += 1
        child.communicate(timeout=60)
        words = ["--resume"]
        if child.returncode == 0:
            break
    counts = Counter(sent.read_text().splitlines())
    assert kills >= 3 and max(counts.values()) == 1 and len(counts) >= 12 * 4 * 3 - 12 * kills
