"""Attempts that are forked, followed and talked with: what a fork keeps, the feed holds and a conversation records."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.loop.journal import MemoryJournal
from firsthand.loop.listener import Added, Began, Piece
from firsthand.message import Message, ToolCall, ToolResult, assistant, user
from firsthand.model import Usage
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place
from firsthand.runs import store
from firsthand.runs.dialogue import Dialogue, _branches, _open_calls
from firsthand.runs.feed import Both, Ended, FeedStep, Started, _rows, step_to_json
from firsthand.runs.forking import Fork, Kept, _reply
from firsthand.task import Task
from firsthand.trace import Call, Event, Node, Origin
from made_traces import trace
from run_process import followed


@pytest.fixture
def run(tmp_path: Path) -> Iterator[store.Run]:
    with store.create(tmp_path, {"seed": 1}, "parts", command=["firsthand", "run"]) as made:
        yield made


# -- forks --


def test_the_replies_of_a_parent_stand_at_their_places() -> None:
    nodes = (Node(None, user("q")), Node(0, Message("assistant", (ToolCall("c", "f", {}),))), Node(1, assistant("end")))
    details: list[tuple[Any, dict[str, Any], Any]] = [
        ("tool", {}, {"started": True}),
        ("tool", {"items": ["i"], "result": "r", "is_error": False}, {"items": ["i"], "shown": True}),
        ("tool", {"items": [], "result": "no", "is_error": True}, {"items": [], "shown": True, "refusal": "no"}),
        ("tool", {"result": "r", "is_error": True}, {"content": "r", "is_error": True, "shown": True}),
        ("memory", {"reply": [1]}, {"memory": [1]}),
        ("score", {"likelihoods": [0.5]}, {"likelihoods": [0.5], "usage": Usage(1, 0, 2).to_json()}),
    ]
    calls = [
        Call(f":{n}", kind, 0, n, 1.0, f"r{n}", Usage(1, 0, 2), (), detail)
        for n, (kind, detail, _) in enumerate(details)
    ]
    parent = trace("p", nodes=nodes, calls=tuple(calls))
    assert [_reply(parent, call, n) for n, call in enumerate(calls)] == [expected for _, _, expected in details]
    own = MemoryJournal()
    own.record(":4", "r", {"own": 1})
    kept = Kept(own, parent, {call.id: call for call in (*calls[3:5], replace(calls[5], request="old"))})
    asked = ((":3", "r3"), (":3", "other"), (":4", "r"), (":5", "new"), (":9", "r"))
    assert [kept.find(*each) for each in asked] == [details[3][2], None, {"own": 1}, details[5][2], None]
    kept.record(":6", "x", {"n": 1})
    assert own.find(":6", "x") == {"n": 1} and kept.replies("part") == own.replies("part")
    assert kept.replies() == [*own.replies(), details[3][2], details[4][2], details[5][2]]
    agent = Agent("a", Scripted([]), reply)
    for at, say, said in (
        (-1, "x", "trace p has no step -1: its steps are 0 to 2"), (3, "x", "trace p has no step 3: its steps are 0 to 2"),
        (1, "x", "at step 1 the result of f is still to come: fork at a later step"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            Fork(parent, at, agent, say=say)
    with pytest.raises(ConfigError, match="trace e has no step 0: it has no messages"):
        Fork(trace("e"), 0, agent)
    base = Fork(parent, 0, agent, say="x")
    others = (
        replace(base, say="y"),
        replace(base, seed=4),
        replace(base, run="r"),
        replace(base, parent=trace("q", nodes=nodes)),
    )
    assert len({base.place, *(each.place for each in others)}) == 5 and len(base.place) == 16
    again = replace(parent, agent={"name": "a", "pattern": agent.to_json()["pattern"]})
    assert Fork(again, 1, agent).again and not Fork(again, 0, agent, say="x").again and not base.again


# -- the live feed --


def test_steps_come_back_from_the_file_as_they_were(run: store.Run) -> None:
    detail = {"finish_reasons": ["stop"], "tools": [1], "prompt": "long", "schemas": [], "top_logprobs": []}
    call = Call(":0", "generate", 0, 1.0, 2.0, "r", Usage(1, 0, 2, 0.5), (1, 2), detail, error="e")
    steps: list[Any] = [
        Began(":0", "generate", 0), Piece(":0", "a"), Piece(":0", "b"), Piece(":1", "c"),
        Added(1, Node(0, assistant("x"))), call,
        Event("note", 0.5, {"x": 1}),
    ]  # fmt: skip
    rows = _rows([(n, float(n), step) for n, step in enumerate(steps)])
    assert [(n, at, kind) for n, at, kind, _ in rows] == [
        (0, 0.0, "began"), (1, 1.0, "piece"), (3, 3.0, "piece"), (4, 4.0, "added"), (5, 5.0, "call"), (6, 6.0, "event"),
    ]  # fmt: skip
    assert (steps[1], steps[2]) == (Piece(":0", "a"), Piece(":0", "b")), "other listeners hold the pieces too"
    assert json.loads(rows[1][3]) == {"id": ":0", "text": "ab"} and step_to_json(call)[1]["detail"] == {
        "finish_reasons": ["stop"]
    }
    for place in ("p", "q"):
        run.feed.add(place, Started("b", "t", "a", 0))
        for step in steps:
            run.feed.add(place, step)
    run.feed.flush()
    assert [each.place for each in run.feed.under_way()] == [*["p"] * 8, *["q"] * 8]
    assert [each.step for each in run.feed.after(0, 3)] == [Started("b", "t", "a", 0), *steps[:2]]
    assert [each.sequence for each in run.feed.under_way(2)] == [run.feed.last() - 1, run.feed.last()]
    with pytest.raises(StoreError, match="a step is of the kind 'ended'"):
        run.feed.add_json("p", "ended", {})
    with pytest.raises(StoreError, match="a step is of the kind 'odd'"):
        run.feed.add_json("p", "odd", {})
    run.feed.add_json("p", "piece", {"id": ":0", "text": "z"})
    run.append(trace("1", "t", 0.5, place="p", stop_reason="tokens", epoch=3))
    left = run.feed.after()
    assert {each.place for each in left[:-1]} == {"q"} and len(left) == 9
    assert left[-1].step == Ended("1", "b", "t", "a", 3, 0.5, "tokens", None) and left[-1].place == "p"
    run.feed.started(Place(Agent("a", Scripted([]), reply), Setting(), Task("t", "?")))
    run.feed.add("q", Started("b", "t", "a", 0))
    run.feed.flush()
    assert [type(each.step).__name__ for each in run.feed.after() if each.place == "q"] == ["Started"]

    async def read() -> list[FeedStep]:
        return [each async for each in followed(run.path, left[-1].sequence, poll_s=0.001, start_s=0.0)]

    assert [each.sequence for each in asyncio.run(read())] == [
        each.sequence for each in run.feed.after(left[-1].sequence)
    ]
    heard: list[Any] = []

    class Quiet:
        streams = False

        def __call__(self, step: Any) -> None:
            heard.append(("quiet", step))

    both = Both(Quiet(), lambda step: heard.append(("loud", step)))
    both(steps[1])
    both(steps[0])
    assert heard == [("loud", steps[1]), ("quiet", steps[0]), ("loud", steps[0])]
    assert both.streams and not Both(Quiet(), Quiet()).streams


class Setting:
    """The benchmark of a place."""

    name = "b"
    scorers = ()


# -- conversations --


def test_a_conversation_is_recorded_with_its_branches_and_goes_on() -> None:
    model = Scripted(["one", "two", "three", "four"])
    agent = Agent("chat", model, reply)
    talk = Dialogue(agent, seed=7)

    async def speak(dialogue: Dialogue, *questions: str) -> list[str]:
        return [await dialogue.ask(each) for each in questions]

    assert asyncio.run(speak(talk, "q1")) == ["one"] and talk.free_name() == "branch-2"
    talk.fork("side")
    assert talk.current == "side" and talk.free_name() == "branch-3"
    assert asyncio.run(speak(talk, "q2")) == ["two"]
    talk.switch("main")
    assert [message.text for message in talk.context.messages] == ["q1", "one"] and len(talk.calls) == 2
    made = talk.trace()
    assert (made.answer, made.seed, made.benchmark, made.epoch) == ("one", 7, "chat", 0)
    assert made.final_state == {"branches": {"main": 1, "side": 3}, "current": "main"}
    assert [(node.parent, node.message.text) for node in made.nodes] == [
        (None, "q1"),
        (0, "one"),
        (1, "q2"),
        (2, "two"),
    ]
    assert made.agent == agent.to_json() and made.place == talk.place.id and made.origin is None
    assert talk.undo() == "q1" and talk.undo() is None and talk.context.messages == ()
    talk.clear("new")
    assert (talk.current, list(talk.branches), talk.trace().answer) == ("new", ["main", "side", "new"], None)
    cleared = talk.trace()
    assert cleared.final_state == {"branches": {"main": None, "side": 3, "new": None}, "current": "new"}
    beginning = Dialogue(agent, origin=cleared, run="r1")
    assert (beginning.current, {name: ctx.node for name, ctx in beginning.branches.items()}) == (
        "new", {"main": None, "side": 3, "new": None},
    )  # fmt: skip
    assert beginning.trace().origin is None, "it goes on from no message"
    with pytest.raises(ConfigError, match="there is a branch 'side' already"):
        talk.fork("side")
    with pytest.raises(UnknownName, match="no branch 'sid'; did you mean 'side'"):
        talk.switch("sid")
    resumed = Dialogue(agent, origin=made, run="r1")
    assert resumed.trace().origin == Origin(made.id, 1, "r1") and list(resumed.branches) == ["main", "side"]
    resumed.switch("side")
    assert asyncio.run(speak(resumed, "q3")) == ["three"]
    assert [message.text for message in resumed.context.messages] == ["q1", "one", "q2", "two", "q3", "three"]
    lost = Dialogue(agent, origin=replace(made, final_state={"branches": {"y": 3, "x": 1}, "current": "gone"}))
    assert (lost.current, lost.context.node, lost.trace().origin) == ("y", 3, Origin(made.id, 3, "")), (
        "the first of them"
    )
    plain = Dialogue(agent, origin=replace(made, final_state={"branches": {"x": 9}, "current": "x"}))
    assert (list(plain.branches), plain.current, plain.context.node) == (["main"], "main", 3)
    empty = Dialogue(agent, origin=replace(made, nodes=(), final_state={}))
    assert empty.context.node is None and empty.trace().origin is None
    asks = Message("assistant", (ToolCall("c", "f", {}), ToolCall("d", "g", {})))
    broken = Dialogue(agent, origin=replace(made, nodes=(Node(None, user("q")), Node(0, asks)), final_state={}))
    said = [part for message in broken.context.messages for part in message.parts if isinstance(part, ToolResult)]
    assert [(part.call_id, part.is_error) for part in said] == [("c", True), ("d", True)]
    answered = Message("tool", (ToolResult("c", "f", "1"),))
    assert [call.id for call in _open_calls((asks, answered))] == ["d"] and _open_calls((answered,)) == []
    kept: list[Any] = [{"a": None, "b": 2}, {"a": 3}, {"a": -1}, {"a": True}, [1], None, {}]
    assert [_branches(each, 3) for each in kept] == [{"a": None, "b": 2}, {}, {}, {}, {}, {}, {}]
    assert talk.usage == sum((call.usage for call in talk.calls), Usage()) and talk.usage.completion_tokens > 0
