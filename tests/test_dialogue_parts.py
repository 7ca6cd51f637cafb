"""A conversation in small: each way an answer may end, what a listener hears, and what a trace of it keeps."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.errors import ConfigError, LimitExceeded, ModelError, UnknownName
from firsthand.guard import AttemptView, GuardVerdict
from firsthand.loop.budget import Limits
from firsthand.loop.listener import Began, Piece, Step
from firsthand.message import Message, Sampled, Text, ToolCall, ToolResult, assistant, system, user
from firsthand.model import Sampling, Usage
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.runs.dialogue import BENCHMARK, MAIN, Dialogue, _branches, _open_calls
from firsthand.system import request_owner
from firsthand.tool import Tool, tool
from firsthand.trace import Call, Node, Origin, Trace
from made_traces import trace
from open_calls import Worded


@tool(effect="read")
def double(n: int) -> int:
    """Double a number."""
    return 2 * n


def calls_double(*numbers: int) -> Message:
    return assistant("", *(ToolCall(f"c{n}", "double", {"n": n}) for n in numbers))


def chat(model: Any, **more: Any) -> Agent:
    return Agent("chat", model, reply, **more)


def asked(dialogue: Dialogue, *questions: str, **more: Any) -> list[str]:
    async def main() -> list[str]:
        return [await dialogue.ask(each, **more) for each in questions]

    return asyncio.run(main())


def said(dialogue: Dialogue) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in dialogue.context.messages]


class Shout:
    """Replaces an answer by its capitals."""

    def answer(self, view: AttemptView, answer: str) -> GuardVerdict:
        return GuardVerdict.replaced("shout", answer.upper())


def test_a_new_conversation_stands_at_its_beginning_with_an_id_of_its_own() -> None:
    one, two = (Dialogue(chat(Scripted(["x"]), system="Be brief."), seed=3) for _ in range(2))
    assert (one.current, list(one.branches), one.seed, MAIN, BENCHMARK) == ("main", ["main"], 3, "main", "chat")
    assert said(one) == [("system", "Be brief.")]
    assert re.fullmatch("[0-9a-f]{8}", one.place.task.id)
    assert one.place.task.id != two.place.task.id
    assert (one.place.benchmark.name, one.place.agent, one.place.epoch) == ("chat", one.agent, 0)
    assert (one.calls, one.usage, one._attempt.task) == ([], Usage(), one.place.task)
    made = one.trace()
    assert made.duration_s >= 0
    assert replace(made, duration_s=0.0) == Trace(
        id=one.trace().id, benchmark="chat", task_id=one.place.task.id, agent=one.agent.to_json(), epoch=0, seed=3,
        started_at=made.started_at, duration_s=0.0, nodes=(Node(None, system("Be brief.")),),
        final_state={"branches": {"main": 0}, "current": "main"}, place=one.place.id,
    )  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", made.started_at)


def test_tools_run_for_so_many_rounds_and_then_words_are_asked_for() -> None:
    model = Scripted([calls_double(2, 3), calls_double(5), "done", "more"])
    talk = Dialogue(chat(model, tools=(double,)))
    assert asked(talk, "go", max_steps=2) == ["done"]
    assert [len(each.tools) for each in model.asked] == [1, 1, 0]
    assert said(talk)[2:] == [("tool", "4"), ("tool", "6"), ("assistant", ""), ("tool", "10"), ("assistant", "done")]
    assert [call.kind for call in talk.calls] == ["generate", "tool", "tool", "generate", "tool", "generate"]
    assert (talk.trace().tools, talk.trace().calls, talk.trace().answer) == ((double.spec,), tuple(talk.calls), "done")
    assert asked(talk, "again", max_steps=0) == ["more"]
    for_ever = Scripted([*[calls_double(1)] * 8, "in the end"])
    assert asked(Dialogue(chat(for_ever, tools=(double,))), "go") == ["in the end"]
    assert [len(each.tools) for each in for_ever.asked] == [1] * 8 + [0]
    seeds = []
    for seed in (0, 0, 1):
        other = Scripted(["x"])
        asked(Dialogue(chat(other), seed=seed), "q")
        seeds.append(other.asked[0].sampling.seed if other.asked[0].sampling else None)
    assert (seeds[0] == seeds[1], seeds[0] == seeds[2], None in seeds) == (True, False, False)
    assert model.asked[-1].tools == ()
    assert talk.usage == sum((call.usage for call in talk.calls), Usage())


def test_the_owner_of_a_question_is_the_conversation_and_its_time_is_counted() -> None:
    owners: list[str] = []

    def answer(messages: Any, sampling: Any, index: int) -> str:
        owners.append(request_owner.current())
        return "x"

    talk = Dialogue(chat(Scripted(answer, delay_s=0.01), limits=Limits(seconds=30)))
    asked(talk, "a")
    assert owners == [f"conversation {talk.place.task.id}"]
    first = talk._answering_s
    assert 0.009 <= first < 30
    asked(talk, "b")
    assert talk._answering_s >= first + 0.009
    talk._answering_s = 30.0
    with pytest.raises(LimitExceeded) as over:
        asked(talk, "c")
    assert (over.value.limit, str(over.value)) == (
        "seconds",
        "time budget exhausted: the 30 seconds for answers are over",
    )
    assert [text for _, text in said(talk)] == ["a", "x", "b", "x"]
    slow = Dialogue(chat(Scripted(["x"], delay_s=60), limits=Limits(seconds=0.02)))
    with pytest.raises(LimitExceeded) as late:
        asked(slow, "a")
    assert (late.value.limit, str(late.value)) == (
        "seconds",
        "time budget exhausted: the 0.02 seconds for answers were over before this one ended",
    )
    assert said(slow) == [], "nothing had come, so the question is taken back"
    assert slow._answering_s >= 0.02
    own = Dialogue(chat(Scripted(error=TimeoutError("of the model")), limits=Limits(seconds=30)))
    with pytest.raises(TimeoutError, match=r"^of the model$"):
        asked(own, "a")
    assert 0 < own._answering_s < 30


def test_an_answer_that_fails_leaves_the_conversation_as_it_was() -> None:
    talk = Dialogue(chat(Scripted(["one", calls_double(1)]), tools=(double,)))
    asked(talk, "a")
    with pytest.raises(ModelError):  # after a round of tools there is no reply left
        asked(talk, "b")
    assert said(talk) == [("user", "a"), ("assistant", "one")]
    assert len(talk.trace().nodes) == 5, "the record keeps what was tried"


class Source:
    """A tool source that counts how often it was opened and closed."""

    name = "numbers"

    def __init__(self) -> None:
        self.did: list[str] = []

    @property
    def tools(self) -> tuple[Tool, ...]:
        return (double,)

    async def open(self) -> None:
        self.did.append("open")

    async def close(self) -> None:
        self.did.append("close")


def test_sources_are_opened_by_the_first_question_and_closed_once() -> None:
    source, model = Source(), Scripted(["one", calls_double(4), "two"])
    talk = Dialogue(chat(model, tools=(source,)))

    async def main() -> None:
        assert source.did == []
        await talk.ask("a")
        assert source.did == ["open"]
        await talk.ask("b")
        await talk.close()

    asyncio.run(main())
    assert source.did == ["open", "close"]
    assert [len(each.tools) for each in model.asked] == [1, 1, 1]
    assert said(talk)[-2:] == [("tool", "8"), ("assistant", "two")]


def test_an_answer_that_a_guard_changes_is_told_and_kept_as_it_was_changed() -> None:
    heard: list[Step] = []
    talk = Dialogue(chat(Scripted(["one two", "MORE"]), guard=Shout()), listener=heard.append)
    assert talk._watches_answers
    assert asked(talk, "a") == ["ONE TWO"]
    assert said(talk) == [("user", "a"), ("assistant", "ONE TWO")]
    assert [(node.parent, node.message.text) for node in talk.trace().nodes] == [
        (None, "a"), (0, "one two"), (0, "ONE TWO"),
    ]  # fmt: skip
    assert [step.text for step in heard if isinstance(step, Piece)] == ["ONE TWO"]
    (piece,) = [step for step in heard if isinstance(step, Piece)]
    assert piece.id not in {call.id for call in talk.calls}
    asked(talk, "b")
    assert [node.parent for node in talk.trace().nodes[3:]] == [2, 3], "what was not changed is no second answer"
    quiet = Dialogue(chat(Scripted(["x"]), guard=Shout()))
    assert asked(quiet, "a") == ["X"]
    open_ears: list[Step] = []
    plain = Dialogue(chat(Scripted(["one two"])), listener=open_ears.append)
    asked(plain, "a")
    assert "".join(step.text for step in open_ears if isinstance(step, Piece)) == "one two"
    assert not plain._watches_answers


def test_a_listener_hears_each_step_and_what_is_streamed_is_remembered_until_its_call_ends() -> None:
    heard: list[Step] = []
    talk = Dialogue(chat(Scripted([])), listener=heard.append)
    steps = [Began("0:1", "generate", 0), Piece("0:1", "a"), Began("0:2", "tool", 0), Piece("0:1", "b")]
    for step in steps:
        talk._hear(step)
    assert talk._streamed == {"0:1": ["a", "b"]}
    again = Began("0:1", "generate", 0)
    talk._hear(again)
    assert talk._streamed == {"0:1": []}
    call = Call("0:1", "generate", 0, 0.0, 1.0, "r")
    talk._hear(call)
    talk._hear(replace(call, id="0:9"))
    assert (talk._streamed, heard) == ({}, [*steps, again, call, replace(call, id="0:9")])
    watched: list[Step] = []
    guarded = Dialogue(chat(Scripted([]), guard=Shout()), listener=watched.append)
    for step in steps:
        guarded._hear(step)
    assert (watched, guarded._streamed) == ([steps[0], steps[2]], {"0:1": ["a", "b"]})
    silent = Dialogue(chat(Scripted([])))
    silent._hear(steps[0])
    assert silent._streamed == {"0:1": []}


def broken(streamed: dict[str, list[str]], *messages: Message, **more: Any) -> tuple[list[tuple[str, str]], list[str]]:
    """What stands after an answer to `q` was broken off, and the kinds of events."""
    talk = Dialogue(chat(Scripted([]), **more))
    before = talk._stand(talk.context.say("old"))
    ctx = before.say("q")
    for message in messages:
        ctx = ctx.say(message)
    talk._stand(ctx)
    talk._streamed = streamed
    talk._break_off(before)
    return said(talk)[1:], [event.kind for event in talk.trace().events]


def test_an_answer_that_is_broken_off_stays_as_far_as_it_had_come() -> None:
    noted = ["broken_off"]
    assert broken({"0:1": ["so ", "far"], "0:2": [" and"]}) == ([("user", "q"), ("assistant", "so far and")], noted)
    assert broken({"0:1": [" ", "\n"]}) == ([], noted)
    assert broken({}) == ([], noted)
    assert broken({"0:1": ["secret"]}, guard=Shout()) == ([], noted)
    text = "Error: it was broken off by the person"
    two = calls_double(1, 2)
    assert broken({"0:1": ["x"]}, two) == (
        [("user", "q"), ("assistant", ""), ("tool", text), ("tool", text)], noted,
    )  # fmt: skip
    talk = Dialogue(chat(Scripted([])))
    start = talk.context
    talk._stand(start.say("q").say(calls_double(1)))
    talk._break_off(start)
    assert talk.context.last.parts == (ToolResult("c1", "double", text, is_error=True),)
    done = Message("tool", (ToolResult("c1", "double", "2"),))
    assert broken({}, two, done)[0][2:] == [("tool", "2"), ("tool", text)]
    assert broken({"0:1": ["then"]}, calls_double(1), done)[0][2:] == [("tool", "2"), ("assistant", "then")]
    assert _open_calls((two, done)) == [ToolCall("c2", "double", {"n": 2})]
    assert _open_calls((done, two)) == list(two.tool_calls)
    both = Message("tool", (ToolResult("c1", "double", "2"), ToolResult("c2", "double", "4")))
    assert _open_calls((two, both)) == _open_calls((calls_double(7), calls_double(), both, done)) == []
    assert _open_calls((two, done, calls_double(9))) == [ToolCall("c9", "double", {"n": 9})]


SAMPLED = Message("assistant", (Text("a"),), Sampled((1, 2), (-0.5, -0.25)))


def test_another_agent_goes_on_and_only_the_same_model_keeps_the_tokens() -> None:
    talk = Dialogue(chat(Scripted(["x", "y"], fingerprint="one")))
    talk._stand(talk.context.say("q").say(SAMPLED))
    talk.fork("side")
    same = chat(Scripted(["z"], name="scripted-renamed", fingerprint="one"), sampling=Sampling(temperature=0.25))
    talk.use(same)
    assert talk.agent is same
    assert talk._attempt.agent is same
    assert talk.trace().nodes[1].message.sampled is not None
    assert {name: (ctx.sampling, ctx.node) for name, ctx in talk.branches.items()} == {
        "main": (same.sampling, 1), "side": (same.sampling, 1),
    }  # fmt: skip
    weights = chat(Scripted(["v"], name="scripted-renamed", fingerprint="two"))
    talk.use(weights)
    assert [node.message.sampled for node in talk.trace().nodes] == [None, None], "other weights under the same name"
    other = chat(Scripted(["w"], name="scripted-other", fingerprint="two"))
    talk.use(other)
    assert [node.message.sampled for node in talk.trace().nodes] == [None, None]
    assert [(node.parent, node.message.text) for node in talk.trace().nodes] == [(None, "q"), (0, "a")]
    events = [(event.kind, event.data) for event in talk.trace().events]
    assert [data for kind, data in events if kind == "model"] == [
        {"name": "scripted-renamed"}, {"name": "scripted-renamed"}, {"name": "scripted-other"},
    ]  # fmt: skip
    assert asked(talk, "go on") == ["w"]
    assert talk.trace().agent == other.to_json()


def test_branches_are_begun_named_switched_and_undone() -> None:
    talk = Dialogue(chat(Scripted(["1", "2", "3"]), system="s"))
    asked(talk, "a", "b")
    assert talk.free_name() == "branch-2"
    talk.fork("branch-3")
    assert (talk.current, talk.free_name()) == ("branch-3", "branch-4")
    talk.fork("x")
    assert talk.free_name() == "branch-4"
    assert talk.undo() == "b"
    assert said(talk) == [("system", "s"), ("user", "a"), ("assistant", "1")]
    assert len(said(Dialogue(chat(Scripted([]))))) == 0
    talk.switch("main")
    assert [text for _, text in said(talk)] == ["s", "a", "1", "b", "2"]
    assert [talk.undo(), talk.undo(), talk.undo()] == ["b", "a", None]
    assert said(talk) == [("system", "s")]
    talk.clear("new")
    assert (talk.current, said(talk), said_at(talk, "x")) == ("new", [("system", "s")], ["s", "a", "1"])
    assert talk.context.node == 5, "it begins with a message of its own"
    with pytest.raises(ConfigError) as taken:
        talk.fork("main")
    assert str(taken.value) == "there is a branch 'main' already: give another name, or /switch to it"
    with pytest.raises(UnknownName, match=r"no branch 'mai'; did you mean 'main'\? `/branches` shows all"):
        talk.switch("mai")
    assert talk.current == "new"
    noted = [event.data for event in talk.trace().events if event.kind == "branch"]
    assert [(data["name"], data["at"]) for data in noted] == [("branch-3", 4), ("x", 4), ("new", 0)]
    assert talk.trace().answer is None


def said_at(talk: Dialogue, name: str) -> list[str]:
    return [message.text for message in talk.branches[name].messages]


def test_a_trace_is_taken_up_with_its_branches_and_the_tokens_of_the_same_model() -> None:
    nodes = (Node(None, user("q")), Node(0, SAMPLED), Node(0, calls_double(1)))
    kept = {"branches": {"main": 1, "side": 2, "empty": None}, "current": "side"}
    old = trace("old", nodes=nodes, final_state=kept, agent="chat")
    old = replace(old, agent={"name": "chat", "fingerprint": "one"})
    same = Dialogue(chat(Scripted([], fingerprint="one")), origin=old, run="r5")
    assert (list(same.branches), same.current) == (["main", "side", "empty"], "side")
    assert same.trace().nodes[1].message.sampled == SAMPLED.sampled
    assert said(same)[1:] == [("assistant", ""), ("tool", "Error: it has no result")]
    assert same.trace().origin == Origin("old", 3, "r5")
    assert said_at(same, "main") == ["q", "a"]
    assert said_at(same, "empty") == []
    assert same.branches["main"].sampling == same.agent.sampling
    other = Dialogue(chat(Scripted([], fingerprint="two")), origin=replace(old, final_state=kept | {"current": "gone"}))
    assert other.trace().nodes[1].message.sampled is None
    assert (other.current, other.trace().origin) == ("main", Origin("old", 1, ""))
    plain = Dialogue(chat(Scripted([])), origin=replace(old, final_state={"branches": {"x": 3}}))
    assert (list(plain.branches), plain.current, said(plain)[-1][0]) == (["main"], "main", "tool")
    none = Dialogue(chat(Scripted([])), origin=replace(old, nodes=(), final_state={}))
    assert (none.branches["main"].node, none.trace().origin) == (None, None)
    assert _branches({"a": 0, "b": 2, "c": None}, 3) == {"a": 0, "b": 2, "c": None}
    assert [_branches(each, 3) for each in ({"a": 3}, {"a": -1}, {"a": 0, "b": True}, {"a": 1.0}, [0], None)] == [
        {}
    ] * 6


def test_a_lease_is_held_from_answer_to_answer_and_let_go_with_another_agent() -> None:
    model = Worded(["one", "two", "three"])
    talk = Dialogue(chat(model))
    assert asked(talk, "a") == ["one"] and talk.context.lease == "lease 0"
    talk.fork("side")
    assert talk.undo() == "a" and talk.branches["main"].lease == "lease 0"
    other = chat(model, limits=Limits(calls=9))
    talk.use(other)
    assert {name: (ctx.lease, ctx.sampling) for name, ctx in talk.branches.items()} == {
        "main": (None, other.sampling), "side": (None, other.sampling),
    }  # fmt: skip
    talk.clear("new")
    assert talk.context.lease is None and asked(talk, "b", "c") == ["two", "three"]
    assert (talk.current, said_at(talk, "main"), said_at(talk, "new")) == (
        "new",
        ["a", "one"],
        ["b", "two", "c", "three"],
    )
