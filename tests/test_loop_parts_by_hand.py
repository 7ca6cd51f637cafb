"""Tools, listeners, checks of patterns, sources, replies and budgets of an attempt, each on a small case."""

from __future__ import annotations

import asyncio
import json
import zlib
from array import array
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.errors import ConfigError
from firsthand.loop.attempt import Attempt, cost_of
from firsthand.loop.attempt_memory import learn
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.journal import MemoryJournal
from firsthand.loop.listener import Added
from firsthand.loop.open_sources import SourceKeeper
from firsthand.loop.pattern_options import (
    MAX_NESTED,
    check_options,
    check_task,
    checked,
    defaults_of,
    follows_protocol,
    tools_needed,
)
from firsthand.loop.protection import _without_texts
from firsthand.loop.reply_body import Continued, answered, from_body, shared, to_body
from firsthand.memories.notes import notes
from firsthand.memory import MemoryItem
from firsthand.message import Message, Sampled, Text, assistant, user
from firsthand.model import Completion, Delta, Sampling, Usage
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.task import Task
from firsthand.tool import Tool, tool
from firsthand.trace import Node
from made_traces import trace
from open_calls import attempt_of


@tool(effect="external")
def send(text: str) -> str:
    """Send a text."""
    return f"sent {text}"


@tool(effect="read")
def find(text: str) -> str:
    """Find a text."""
    return text


class Box:
    """A source of tools that may change."""

    def __init__(self, name: str, *tools: Tool, version: int = 0) -> None:
        self.name, self.tools, self.version = name, tools, version

    async def open(self) -> None: ...

    async def close(self) -> None: ...


def named(name: str) -> Tool:
    return replace(find, spec=replace(find.spec, name=name))


def test_a_new_attempt_has_nothing_yet_but_its_own_tools() -> None:
    agent, journal, task, steps = Agent("a", Scripted(), direct), MemoryJournal(), Task("t", "?"), list[Any]()
    made = Attempt(agent, iter((send, find)), journal, 5, steps.append, task=task)
    assert (made.agent, made.journal, made.seed, made.task) == (agent, journal, 5, task)
    assert made.own_tools == made.tools == {"send": send, "find": find} and made.own_tools is not made.tools
    assert (made.nodes, made.calls, made.events, made.tool_specs, made.order) == ([], [], [], [], {})
    assert (made.memory, made.claims, made.last_of_root, made.has_begun) == (None, None, None, False)
    assert made.guard_passes == Counter() and 0 <= made.elapsed_s() < 5 and made.paid() == (0, 0)
    assert (now := made.elapsed_s()) == round(now, 6)
    assert made.add_node(None, user("x")) == 0 and steps == [Added(0, Node(None, user("x")))]
    data = {"list": [1]}
    made.note("kind", data=data)
    data["list"].append(2)
    assert made.events[0].data == {"data": {"list": [1]}} and steps[1] is made.events[0]


def test_tools_come_and_go_with_sources_the_environment_and_stand_ins() -> None:
    attempt = Attempt(Agent("a", Scripted(), direct), (send, find), MemoryJournal(), 0)
    box, room = Box("box", named("x")), Box("room", named("find"), named("y"))
    attempt.use((box,), room)  # type: ignore[arg-type]
    assert list(attempt.tools) == ["send", "find", "x", "y"] and attempt.tools["find"] is room.tools[0]
    with attempt.stand_ins([named("x")]):
        assert attempt.tools["x"] is not box.tools[0]
        box.tools, box.version = (named("x"), named("w"), named("v")), 1
        attempt.refresh_tools()
        assert sorted(attempt.tools) == ["find", "send", "v", "w", "x", "y"] and attempt.tools["x"] is not box.tools[0]
        other = attempt.tools["x"]
        with attempt.stand_ins([named("w")]):
            assert attempt.tools["w"] is not box.tools[1] and attempt.tools["x"] is box.tools[0]
        assert attempt.tools["x"] is other and attempt.tools["w"] is box.tools[1]
    assert attempt.tools["x"] is box.tools[0]
    room.tools, room.version = (named("y"),), 2
    attempt.refresh_tools()
    assert attempt.tools["find"] is find
    box.tools, box.version = (named("u"),), 1
    attempt.refresh_tools()
    assert "u" not in attempt.tools, "a source tells a change by its version"
    box.version = 3
    attempt.refresh_tools()
    assert [each.data for each in attempt.events] == [
        {"added": ["v", "w"], "removed": []}, {"added": [], "removed": []}, {"added": ["u"], "removed": ["v", "w", "x"]},
    ]  # fmt: skip
    attempt.offer([named("more")])
    assert set(attempt.own_tools) == {"send", "find", "more"} and "more" in attempt.tools and "u" in attempt.tools
    with pytest.raises(ConfigError, match="the memory of a has a tool 'u', and there is one: leave one out"):
        attempt.offer([named("u")])
    with pytest.raises(ConfigError, match="the memory of a has a tool 'twice', and there is one: leave one out"):
        attempt.offer([named("twice"), named("twice")])
    with pytest.raises(ConfigError), attempt.stand_ins([named("z")]):
        raise ConfigError("x")
    assert "z" not in attempt.tools
    other = Attempt(Agent("a", Scripted(), direct), (send,), MemoryJournal(), 0)
    with pytest.raises(ConfigError, match="the agent has a tool 'send', and box offers one too"):
        other.use((Box("box", send),))  # type: ignore[arg-type]


def test_a_listener_that_fails_is_told_to_the_loop_once() -> None:
    told: list[Any] = []
    attempt = attempt_of(Scripted())

    def fails(step: Any) -> None:
        raise ValueError("it is broken")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        attempt.listener = fails
        attempt.note("one")
        attempt.note("two")

    asyncio.run(main())
    assert [(each["message"], str(each["exception"])) for each in told] == [
        ("the listener of an attempt failed and is not called again", "it is broken")
    ]
    assert attempt.listener is None and [each.kind for each in attempt.events] == ["one", "two"]


def test_checks_are_made_of_a_pattern_and_of_those_it_leads_with_all_their_options() -> None:
    seen: list[Any] = []

    def check(**given: Any) -> None:
        seen.append(("options", given))
        if given["samples"] < 1:
            raise ConfigError("too few")

    def fits(task: Task, **given: Any) -> None:
        seen.append((task.id, given))

    @checked(check, task=fits, tools=("send", "find"), follows_protocol=True)
    async def vote(task: Any, ctx: Any, *, samples: int = 3, name: str = "v") -> str:
        """Votes."""
        return f"{task} {ctx} {samples} {name}"

    @checked(tools=("find",))
    async def lead(task: Any, ctx: Any, *, pattern: Any = vote, patterns: Any = (), depth: int = 1) -> str:
        return ""

    assert asyncio.run(vote("t", "c", name="w")) == "t c 3 w" and seen == [("options", {"samples": 3, "name": "w"})]
    assert (vote.__name__, vote.__doc__, defaults_of(vote)) == ("vote", "Votes.", {"samples": 3, "name": "v"})  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="too few"):
        asyncio.run(vote("t", "c", samples=0))
    seen.clear()
    four, zero = partial(vote, samples=4), partial(vote, samples=0)
    check_options(lead, {"pattern": four, "patterns": {"a": partial(four, name="x", samples=5)}})
    assert seen == [("options", {"samples": 4, "name": "v"}), ("options", {"samples": 5, "name": "x"})]
    seen.clear()
    check_task(lead, {"patterns": [vote, "no pattern"]}, Task("id", "?"))
    assert seen == [("id", {"samples": 3, "name": "v"})] * 2
    for options in ({"pattern": zero}, {"patterns": (vote, zero)}, {"patterns": {"a": zero}}):
        with pytest.raises(ConfigError):
            check_options(lead, options)
    check_options(partial(vote, samples=0), {"samples": 2})
    assert tools_needed(lead, {}) == {"find": "vote", "send": "vote"}
    assert tools_needed(lead, {"pattern": None}) == {"find": "lead"}
    assert follows_protocol(lead, {}) and not follows_protocol(lead, {"pattern": None})
    assert not follows_protocol(int, {})
    deep: Any = vote
    for _ in range(MAX_NESTED):
        deep = partial(lead, pattern=deep)
    assert tools_needed(deep, {})["send"] == "vote" and "send" not in tools_needed(partial(lead, pattern=deep), {})
    assert defaults_of(lambda a, b=1, *, c, d=None: 0) == {"d": None}


def test_sources_that_are_still_opening_are_broken_off_and_closed() -> None:
    log: list[str] = []

    class Slow:
        tools = ()

        async def open(self) -> None:
            log.append("open")
            await asyncio.sleep(9)
            log.append("opened")

        async def close(self) -> None:
            log.append("close")

    async def main() -> None:
        keeper = SourceKeeper(iter((Slow(),)))  # type: ignore[arg-type]
        await keeper.close()
        waiting = asyncio.ensure_future(keeper.open())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await keeper.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    assert log == ["open", "close"]


def test_long_texts_are_withheld_at_any_depth_and_ids_of_an_answer_follow_its_prompt() -> None:
    body = {"a": ["x" * 24, ("y" * 25, 3)], 5: {"trace": "gone", "deep": "z" * 30}, "n": None, "t": True}
    assert _without_texts(body) == {
        "a": ["[withheld: 24 characters]", ["[withheld: 25 characters]", 3]],
        "5": {"deep": "[withheld: 30 characters]"}, "n": None, "t": True,
    }  # fmt: skip
    assert json.dumps(_without_texts(["é" * 26])) == '["[withheld: 26 characters]"]'
    said = Message("assistant", (Text("x"),), Sampled((3, 4), (0.0, 0.0)))
    made = Completion(said, "stop", Usage(), prompt_ids=(1, 2))
    assert answered(made) == (1, 2, 3, 4) and answered(replace(made, prompt_ids=None)) is None
    assert answered(replace(made, message=assistant("x"))) is None and answered(replace(made, prompt_ids=())) == (3, 4)


def test_a_reply_holds_a_prompts_ids_once_and_costs_what_all_its_answers_cost() -> None:
    def said(*ids: int, cost: int = 1) -> Completion:
        return Completion(assistant("x"), "stop", Usage(cost, 0, 2 * cost), prompt_ids=ids)

    two = [said(1, 2, 3, cost=4), replace(said(1, 2, 3), finish_reason="length")]
    body = to_body(two, Continued("k", 1, (1, 2, 9)))
    check = zlib.crc32(array("q", (1, 2, 3)).tobytes())
    assert body["prompt"] == {"ids": [3], "check": check, "after": "k", "sample": 1, "kept": 2}
    assert body["completions"] == [replace(each, prompt_ids=None).to_json() for each in two]
    assert (
        to_body(two)["prompt"] == {"ids": [1, 2, 3], "check": check} == to_body(two, Continued("k", 0, (7,)))["prompt"]
    )
    assert from_body(body, lambda request, sample: [1, 2, 8] if (request, sample) == ("k", 1) else None) == two
    bare = [replace(each, prompt_ids=None) for each in two]
    assert from_body(body, lambda *_: None) == bare == from_body(body, lambda *_: [2, 1]), "another reply, and none"
    assert from_body(to_body(two), lambda *_: None) == two and from_body(to_body(bare), lambda *_: [1]) == bare
    assert [shared(*each) for each in (((1, 2), (1, 2, 3)), ((1, 2, 3), (1, 2)), ((1, 5, 3), (1, 2, 3)))] == [2, 2, 1]
    assert cost_of(body) == Usage(5, 0, 10) and cost_of({"completions": []}) == Usage() == cost_of({"content": "x"})
    assert cost_of({"likelihoods": [], "usage": Usage(7, 1).to_json()}) == Usage(7, 1)


def test_budgets_charge_hold_and_repay_in_every_parent() -> None:
    root = Budget(Limits(tokens=50, cost_usd=1.0))
    leaf = Budget(Limits(tokens=40), root)
    leaf.hold(12, 2)
    assert [(each.reserved_tokens, each.calls, each.held_tokens, each.held_calls) for each in (leaf, root)] == [
        (12, 2, 12, 2), (12, 2, 0, 0),
    ]  # fmt: skip
    assert leaf.tightest() == 0 and leaf.reserve(99, least=3) == 28
    leaf.pay(28, Usage(5, 0, 4, 0.25))
    leaf.pay(None, Usage(6, 0, 1, 0.5))
    assert [(each.spent, each.reserved_tokens, each.calls) for each in (leaf, root)] == [
        (Usage(11, 0, 5, 0.75), 5, 3)
    ] * 2
    assert (leaf.held_tokens, leaf.held_calls) == (5, 1) and root.overspent is None is leaf.overspent
    leaf.charge(0, Usage(25, 0, 0, 0.25))
    assert (leaf.overspent, root.overspent, leaf.tightest()) == ("tokens", None, 0)
    root.charge(0, Usage(0, 0, 0, 0.125))
    assert root.overspent == "cost_usd" and Budget(Limits(), root).tightest() == 1
    leaf.mark("calls", 0)
    leaf.mark("tokens", 1)
    assert (leaf.hit, root.hit) == ("calls", "tokens")


def test_a_kind_of_memory_learns_from_a_finished_attempt_what_is_there_once() -> None:
    class Kind:
        def learn(self, made: Any) -> list[MemoryItem]:
            return [MemoryItem.of(f"red {made.task_id}", {}), MemoryItem.of(f"red {made.agent_name}", {})]

    made = trace("i", "task", agent="ada")
    kept = notes()

    async def twice() -> list[str]:
        for kind in (Kind(), object(), Kind()):
            await learn(kept, made, kind)
        return sorted(each.text for each in await kept.search("red", 9))

    assert asyncio.run(twice()) == ["red ada", "red task"]


def test_a_stream_is_closed_at_once_however_it_is_left() -> None:
    class Stop(BaseException): ...

    closed: list[str] = []

    class Streams(Scripted):
        async def stream(self, prompt: Any, *args: Any, **options: Any) -> AsyncIterator[Delta]:
            try:
                yield Delta("so ")
                yield Delta("", Completion(assistant("so far"), "stop", Usage(1, 0, 2)))
                yield Delta("far")
            finally:
                closed.append(prompt)

    def listener(step: Any) -> None:
        if step.text == "far" and len(closed) == 1:
            raise Stop

    attempt = attempt_of(Streams())

    async def main() -> None:
        (answer,) = await attempt.complete(":0", "one", Sampling(), (), 1)
        assert (answer.message.text, closed) == ("so far", ["one"]), "the last Delta need not be the one that ends it"
        with pytest.raises(Stop):
            await attempt.complete(":1", "two", Sampling(), (), 1)
        assert closed == ["one", "two"]

    attempt.listener = listener
    asyncio.run(main())


def test_stand_ins_within_stand_ins_give_way_to_those_around_them() -> None:
    attempt = Attempt(Agent("a", Scripted(), direct), (send, find), MemoryJournal(), 0)
    first, second = named("find"), named("other")
    with pytest.raises(ZeroDivisionError), attempt.stand_ins([first]):
        with attempt.stand_ins([second]):
            assert list(attempt.tools.values()) == [send, find, second]
        assert list(attempt.tools.values()) == [send, first]
        with pytest.raises(KeyError), attempt.stand_ins([]):
            assert attempt.tools["find"] is find
            raise KeyError
        assert attempt.tools["find"] is first
        raise ZeroDivisionError
    assert attempt.tools == {"send": send, "find": find} == attempt.own_tools


def test_what_a_prompt_continues_may_be_a_list_of_ids_as_long_as_the_prompt_or_longer() -> None:
    answer = Completion(assistant("x"), "stop", Usage(3, 0, 1), prompt_ids=(4, 5, 6))
    for ids, kept in (([4, 5], 2), ([4, 5, 6], 3), ([4, 5, 6, 7], 3), ([4, 9, 6], 1), ([], 0), ([9], 0)):
        body = to_body([answer, answer], Continued("r7", 1, ids))
        after = {"after": "r7", "sample": 1, "kept": kept} if kept else {}
        assert body["prompt"] == {"ids": [4, 5, 6][kept:], "check": body["prompt"]["check"]} | after
        asked: list[tuple[str, int]] = []

        def earlier(request: str, sample: int, ids: list[int] = ids, asked: list[tuple[str, int]] = asked) -> list[int]:
            asked.append((request, sample))
            return ids

        assert from_body(json.loads(json.dumps(body)), earlier) == [answer, answer]
        assert asked == ([("r7", 1)] if kept else [])
