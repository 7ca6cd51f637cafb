"""One attempt's record, call by call: what guards see, claim and note, what is journalled, streamed and told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.errors import ConfigError, ModelError, TransientError
from firsthand.loop.attempt import Attempt, cost_of
from firsthand.loop.budget import Limits
from firsthand.loop.concurrency import Branch, Retry, derive_seed, enter_branch
from firsthand.loop.journal import MemoryJournal
from firsthand.loop.listener import Added, Began, Piece
from firsthand.message import Message, Sampled, Text, ToolCall, assistant, user
from firsthand.model import Completion, Sampling, Usage
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tool import Tool, tool
from firsthand.trace import Event, PromptIds, Trace

TASK = Task("1", "one two three", secret={"answer": "12"})


@tool(effect="external")
def send(text: str) -> str:
    """Send a text."""
    return f"sent {text}"


@tool(effect="read")
def find(text: str) -> str:
    """Find a text."""
    raise ValueError(f"no {text}")


def made(journal: MemoryJournal | None = None, *guards: Any, **agent: Any) -> Attempt:
    whole = Agent("a", Scripted(["x"]), direct, guard=tuple(guards), **agent)
    return Attempt(whole, (send, find), journal or MemoryJournal(), 3, task=TASK)


def test_tools_of_an_attempt_are_its_own_its_sources_and_stand_ins() -> None:
    class Source:
        name = "box"
        version = 0
        tools: Sequence[Tool] = (replace(send, spec=replace(send.spec, name="box__a")),)

        async def open(self) -> None: ...

        async def close(self) -> None: ...

    attempt, source = made(), Source()
    assert list(attempt.tools) == ["send", "find"]
    attempt.use([source])  # type: ignore[list-item]
    assert sorted(attempt.tools) == ["box__a", "find", "send"]
    attempt.refresh_tools()
    assert attempt.events == []
    source.version, source.tools = 1, (replace(send, spec=replace(send.spec, name="box__b")),)
    attempt.refresh_tools()
    assert [(event.kind, event.data) for event in attempt.events] == [
        ("tools_changed", {"added": ["box__b"], "removed": ["box__a"]})
    ]
    attempt.refresh_tools()
    assert len(attempt.events) == 1
    stand_in = replace(find, spec=replace(find.spec, description="other"))
    with attempt.stand_ins([stand_in]):
        assert attempt.tools["find"] is stand_in and len(attempt.tools) == 3
        with attempt.stand_ins([]):
            assert attempt.tools["find"] is find
        assert attempt.tools["find"] is stand_in
    assert attempt.tools["find"] is find
    attempt.offer([replace(send, spec=replace(send.spec, name="more"))])
    assert "more" in attempt.tools
    with pytest.raises(ConfigError) as refused:
        attempt.offer([find])
    assert str(refused.value) == "the memory of a has a tool 'find', and there is one: leave one out"


def test_nodes_stand_under_their_parents_and_the_last_outside_of_groups_is_known() -> None:
    attempt = made()

    async def main() -> None:
        enter_branch(Branch())
        first = attempt.add_node(None, user("a"))
        second = attempt.add_node(first, assistant("b"))
        enter_branch(Branch("0.0"))
        third = attempt.add_node(first, assistant("c"))
        assert (first, second, third, attempt.last_of_root) == (0, 1, 2, 1)
        assert attempt.path(third) == (0, 2) and attempt.path(None) == () == attempt.conversation(None)
        assert [message.text for message in attempt.conversation(second)] == ["a", "b"]
        assert attempt.generated(third) == (False, False)
        attempt.record_generation(":0", first, 0.0, "k", nodes=(third, second), ids=None, specs=[send.spec, find.spec])
        attempt.record_generation(":1", first, 0.0, "k", nodes=(), ids=(1, 2), specs=[find.spec])
        assert attempt.generated(second) == (False, True) and attempt.tool_specs == [send.spec, find.spec]
        assert [(call.tools, call.nodes, call.prompt is None) for call in attempt.calls] == [
            ((0, 1), (2, 1), True),
            ((1,), (), False),
        ]
        assert attempt.turn() is attempt.turn()

    asyncio.run(main())


def test_what_a_journal_holds_of_calls_was_paid_for() -> None:
    journal = MemoryJournal()
    completion = {"usage": Usage(3, 1, 2).to_json()}
    for place, reply in enumerate(
        (
            {"completions": [completion, completion]},
            {"likelihoods": [], "usage": Usage(7).to_json()},
            {"content": "x", "is_error": False},
            {"started": True},
            {"memory": "id"},
            {"items": []},
            {"size": 4},
            {"claim": "k", "granted": True},
        )
    ):
        journal.record(f":{place}", "k", reply)
    assert made(journal).paid() == (2 * 5 + 7, 6) and made().paid() == (0, 0)
    assert cost_of({"completions": [completion]}) == Usage(3, 1, 2)


def test_a_single_answer_is_streamed_to_a_listener_that_hears_each_step() -> None:
    steps: list[Any] = []

    async def pattern(task: Task, ctx: Context) -> str:
        first = await ctx.say(task.prompt).generate()
        await first.say("more").sample(2)
        await ctx.call(ToolCall("1", "find", {"text": "x"}))
        return first.text

    def attempted(listener: Any) -> Trace:
        model = Scripted(["one two", "three", "four"])
        return asyncio.run(rollout(Agent("a", model, pattern, tools=(send, find)), TASK, listener=listener))

    trace = attempted(steps.append)
    assert [type(step).__name__ for step in steps[:2]] == ["Added", "Began"] and isinstance(steps[0], Added)
    began = [(step.id, step.kind, step.at, step.detail) for step in steps if isinstance(step, Began)]
    assert began == [
        (":0", "generate", 0, {"n": 1}),
        (":1", "generate", 2, {"n": 2}),
        (":2", "tool", None, {"name": "find", "arguments": {"text": "x"}}),
    ]
    pieces = [step for step in steps if isinstance(step, Piece)]
    assert {step.id for step in pieces} == {":0"} and "".join(step.text for step in pieces) == "one two" == trace.answer
    assert [step.id for step in steps if type(step).__name__ == "Call"] == [":0", ":1", ":2"]
    silent: list[Any] = []

    class Still:
        streams = False

        def __call__(self, step: Any) -> None:
            silent.append(step)

    assert attempted(Still()).answer == "one two" and not any(isinstance(step, Piece) for step in silent)
    assert len(silent) == len(steps) - len(pieces)
    failing: list[Any] = []

    def fails(step: Any) -> None:
        failing.append(step)
        raise ValueError

    assert attempted(fails).answer == "one two" and len(failing) == 1, "it is not called again"


def test_transient_faults_are_noted_with_their_number_and_wait_and_others_are_recorded() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        return (await ctx.say(task.prompt).generate()).text

    model = Scripted(["x"], failures=2)
    agent = Agent("a", model, pattern, retry=Retry(3, 0.001, 0.002))
    trace = asyncio.run(rollout(agent, TASK))
    assert trace.answer == "x"
    retries = [event.data for event in trace.events if event.kind == "retry"]
    assert [each["attempt"] for each in retries] == [1, 2] and all(0 < each["wait_s"] <= 0.002 for each in retries)
    broken = Scripted(["x"], error=ModelError("gone"))
    trace = asyncio.run(rollout(Agent("a", broken, pattern), TASK))
    (call,) = trace.calls
    assert (call.kind, call.id, call.error, call.nodes, call.usage) == ("generate", ":0", "gone", (), Usage())
    assert trace.error is not None and trace.error.kind == "ModelError"
    assert issubclass(TransientError, Exception) and isinstance(retries[0]["error"], str)


def test_calls_of_the_model_are_recorded_with_all_that_decided_them() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        at = ctx.say(task.prompt)
        answers = await at.sample(2, temperature=0.5)
        found = await at.score([" a", " b"])
        return f"{answers[1].text} {found[1].logprob}"

    journal = MemoryJournal()
    model = Scripted(["x", "y z", "u", "v"], score=lambda prompt, text: -1.0 if text == " a" else -2.0)
    agent = Agent("a", model, pattern, tools=(send,), sampling=Sampling(max_tokens=9))
    trace = asyncio.run(rollout(agent, TASK, journal=journal, seed=5))
    assert trace.answer == "y z -2.0"
    generate, score = trace.calls
    seed = derive_seed(derive_seed(5, trace.benchmark, "1", 0), ":0")
    sampling = Sampling(max_tokens=9, temperature=0.5, seed=seed)
    assert generate.detail == {"finish_reasons": ["stop", "stop"], "sampling": sampling.to_json(), "tools": []}
    assert (generate.id, generate.kind, generate.at, generate.nodes, generate.replayed) == (
        ":0",
        "generate",
        0,
        (1, 2),
        False,
    )
    assert (score.id, score.kind, score.at, score.detail["prompt"]) == (":1", "score", 0, None)
    assert len(score.detail["likelihoods"]) == 2 and len(score.detail) == 2
    again = asyncio.run(rollout(agent, TASK, journal=journal, seed=5))
    assert [replace(c, started_s=0, duration_s=0, replayed=False) for c in again.calls] == [
        replace(c, started_s=0, duration_s=0) for c in trace.calls
    ]
    assert all(call.replayed for call in again.calls) and len(model.asked) == 2
    other = asyncio.run(rollout(agent, TASK, journal=journal, seed=6))
    assert not other.calls[0].replayed and other.calls[1].replayed, "a score needs no seed"


def test_an_answer_that_was_cut_by_a_budget_is_found_again_by_what_it_was_granted() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        return (await ctx.say(task.prompt).generate()).text

    journal = MemoryJournal()
    model = Scripted(lambda *_: "w " * 20)
    agent = Agent("a", model, pattern, sampling=Sampling(max_tokens=10), limits=Limits(tokens=3 + 4))
    first = asyncio.run(rollout(agent, TASK, journal=journal))
    assert first.calls[0].detail["sampling"]["max_tokens"] == 4 and first.stop_reason == "tokens"
    granted = [reply for (effect, key), reply in journal.entries.items() if key.startswith("granted:")]
    assert granted == [{"granted": 4, "height": 0}]
    roomy = replace(agent, limits=Limits(tokens=500))
    again = asyncio.run(rollout(roomy, TASK, journal=journal))
    assert again.calls[0].replayed and again.calls[0].detail == first.calls[0].detail and len(model.asked) == 1
    fresh = asyncio.run(rollout(roomy, TASK, journal=MemoryJournal()))
    assert fresh.calls[0].detail["sampling"]["max_tokens"] == 10 and fresh.stop_reason == "done"
    assert isinstance(first.events[-1], Event)


def test_a_listener_hears_each_node_event_and_call_when_it_is_there() -> None:
    attempt, heard = made(), []
    attempt.listener = heard.append

    async def main() -> None:
        enter_branch(Branch())
        data = {"a": [1]}
        first = attempt.add_node(None, user("a"))
        attempt.note("one", b=data)
        data["a"].append(2)
        attempt.record("tool", ":0", first, 0.0, "k0", detail={"name": "send"})
        attempt.record("score", ":1", None, 0.0, "k1", error="gone")
        second = attempt.add_node(first, assistant("b"))
        attempt.note("two")
        attempt.record_generation(":2", first, 0.0, "k2", nodes=(second,), ids=None, specs=())

    asyncio.run(main())
    calls, events = attempt.calls, attempt.events
    assert heard == [
        Added(0, attempt.nodes[0]), events[0], calls[0], calls[1], Added(1, attempt.nodes[1]), events[1], calls[2],
    ]  # fmt: skip
    assert [(each.kind, each.data) for each in events] == [("one", {"b": {"a": [1]}}), ("two", {})]
    assert [(each.id, each.kind, each.at, each.request, each.detail, each.error) for each in calls[:2]] == [
        (":0", "tool", 0, "k0", {"name": "send"}, None), (":1", "score", None, "k1", {}, "gone"),
    ]  # fmt: skip
    assert attempt.order == {":0": (0, 1), ":1": (1, 1), ":2": (2, 1)} and (calls[2].id, calls[2].nodes) == (":2", (1,))


def test_a_second_prompt_from_an_answer_continues_the_first_one_and_else_the_answer() -> None:
    attempt = made()

    def said(parent: int | None, *ids: int) -> int:
        message = Message("assistant", (Text("x"),), Sampled(ids, (0.0,) * len(ids)))
        return attempt.add_node(parent, message)

    def asked(effect: str, at: int | None, ids: tuple[int, ...] | None, *nodes: int) -> PromptIds | None:
        attempt.record_generation(effect, at, 0.0, f"k{effect}", nodes=nodes, ids=ids, specs=())
        return attempt.calls[-1].prompt

    top = attempt.add_node(None, user("q"))
    first, other = said(top, 3), said(top, 4)
    assert asked(":0", top, (1, 2), first, other) == PromptIds((1, 2))
    assert asked(":1", first, (1, 2, 3, 4, 5), said(first, 6)) == PromptIds((4, 5), 0, 0, 3)
    last = said(first, 8)
    assert asked(":2", first, (1, 2, 3, 4, 5, 9), last) == PromptIds((9,), 1, 0, 5)
    assert asked(":3", first, (1, 2, 3, 4, 5, 9, 8, 7), said(first, 8)) == PromptIds((7,), 2, 0, 7)
    assert asked(":4", first, (1, 2, 3)) == PromptIds((), 3, 0, 3), "it adds nothing"
    assert asked(":5", first, (1, 2, 3, 4, 5, 9, 8, 7, 8)) == PromptIds((), 3, 0, 9), (
        "a call without answers leads to none"
    )
    assert asked(":6", other, (1, 2, 4, 0), said(other, 5)) == PromptIds((0,), 0, 1, 3)
    assert asked(":7", last, (9, 9)) == PromptIds((9, 9)) and asked(":8", last, None) is None
    below = attempt.add_node(attempt.add_node(last, user("more")), user("still"))
    assert asked(":9", below, (1, 2, 3, 4, 5, 9, 8, 2)) == PromptIds((2,), 2, 0, 7), "the nearest answer above"
    assert [attempt.journal.replies(), len(attempt.calls), attempt.last_of_root] == [[], 10, below]


def test_the_ids_of_a_reply_are_found_where_it_continues_this_request_and_this_answer_of_it() -> None:
    attempt = made()
    top = attempt.add_node(None, user("q"))
    answers = [
        attempt.add_node(top, Message("assistant", (Text("x"),), Sampled((3,), (0.0,)))) for _ in range(2)
    ]  # of the same ids  # fmt: skip
    attempt.record_generation(":0", top, 0.0, "here", nodes=tuple(answers), ids=(1, 2), specs=())
    completion = Completion(assistant("y"), "stop", Usage(4, 0, 1), prompt_ids=(1, 2, 3, 5))
    unknown = replace(completion, prompt_ids=None)
    for sample, node in enumerate(answers):
        body = attempt.to_reply([completion], node)
        kept = body["prompt"]
        assert {key: kept[key] for key in ("ids", "after", "sample", "kept")} == {
            "ids": [5], "after": "here", "sample": sample, "kept": 3,
        }  # fmt: skip
        assert attempt.from_reply(body, node) == [completion]
        for changed in (
            {"after": "elsewhere"}, {"sample": 1 - sample}, {"after": "elsewhere", "sample": 1 - sample}, {"kept": 2},
            {"check": kept["check"] + 1}, {"ids": [6]},
        ):  # fmt: skip
            assert attempt.from_reply(body | {"prompt": kept | changed}, node) == [unknown], changed
        assert attempt.from_reply(body, top) == [unknown] == attempt.from_reply(body, None), "nothing is above"
        assert attempt.from_reply({"completions": body["completions"]}, node) == [unknown]
    whole = attempt.to_reply([completion], top)
    assert whole["prompt"]["ids"] == [1, 2, 3, 5] and "after" not in whole["prompt"]
    assert attempt.from_reply(whole, None) == [completion] == attempt.from_reply(whole, answers[0])
