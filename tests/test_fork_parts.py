"""Forks in small: what the new attempt is given and says of itself, what is done again first, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.context import Context, open_context
from firsthand.errors import ConfigError
from firsthand.loop.attempt import Attempt
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.concurrency import Branch, enter_branch
from firsthand.loop.journal import MemoryJournal
from firsthand.loop.listener import Step
from firsthand.message import Message, ToolCall, ToolResult, assistant, system, user
from firsthand.model import Usage
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs.forking import (
    Fork,
    Kept,
    _beginning_at,
    _check_way,
    _rebuild,
    _unanswered,
    _words,
    fork,
    kept_calls,
)
from firsthand.task import Task
from firsthand.tool import tool
from firsthand.trace import Call, Failure, Node, Origin, PromptIds, Score, Trace
from made_traces import trace

BOOKED: list[str] = []
TASK = Task("t1", "Go.", secret={"answer": "x"})


@tool(effect="write")
def book(text: str) -> str:
    """Book a line."""
    BOOKED.append(text)
    return f"booked {text}"


@tool(effect="read")
def look(text: str) -> str:
    """Look at a line."""
    BOOKED.append(f"looked at {text}")
    return f"looked at {text}"


def said(messages: Any, sampling: Any, index: int) -> str:
    return f"{len(messages)} messages, seed {sampling.seed}"


async def two(task: Task, ctx: Context) -> str:
    """Book between two answers."""
    ctx = await ctx.say(task.prompt).generate()
    ctx = ctx.say(await ctx.call(ToolCall("c", "book", {"text": "one"})))
    return (await ctx.generate()).text


async def on(task: Task, ctx: Context, *, word: str = "none") -> str:
    """Answer from where the conversation stands."""
    return f"{word}: {(await ctx.generate()).text}"


def agent(pattern: Any = two, **more: Any) -> Agent:
    return Agent("a", more.pop("model", None) or Scripted(said), pattern, tools=(book, look), **more)


@pytest.fixture
def parent() -> Trace:
    made = asyncio.run(rollout(agent(), TASK, seed=4, epoch=2, benchmark=Benchmark("b", lambda seed: [TASK], ())))
    BOOKED.clear()
    return made


def scored(task: Task, trace: Trace) -> Score:
    return Score("nodes", len(trace.nodes), {"task": task.secret["answer"]})


def test_a_fork_by_the_same_pattern_asks_only_for_what_came_after_its_message(parent: Trace) -> None:
    model, journal, heard = Scripted(said), MemoryJournal(), list[Step]()
    what = Fork(parent, 2, agent(model=model), run="r7")
    assert (what.again, [node.message.role for node in parent.nodes]) == (
        True,
        ["user", "assistant", "tool", "assistant"],
    )
    made = asyncio.run(
        fork(
            what, TASK, benchmark=Benchmark("b", lambda seed: [TASK], (scored,)), journal=journal, listener=heard.append
        )
    )
    assert made.origin == Origin(parent.id, 2, "r7")
    assert (made.place, made.agent) == (what.place, what.agent.to_json())
    assert (made.epoch, made.seed, made.benchmark, made.task_id) == (2, 4, "b", "t1")
    assert made.id != parent.id
    assert len(model.asked) == 1
    assert [(node.parent, node.message.text) for node in made.nodes] == [
        (node.parent, node.message.text) for node in parent.nodes
    ]
    assert made.scores == (Score("nodes", 4.0, {"task": "x"}),)
    assert [type(step).__name__ for step in heard].count("Call") == 3
    assert (BOOKED, made.answer) == (["one"], parent.answer), "its own world is rebuilt"
    assert parent.calls[-1].id in {effect for effect, _ in journal.entries}
    other = asyncio.run(fork(Fork(parent, 2, agent(), seed=5), TASK))
    assert (other.seed, other.benchmark, other.origin) == (5, "adhoc", Origin(parent.id, 2, ""))
    assert other.nodes[-1].message.text != parent.nodes[-1].message.text


def test_another_pattern_begins_at_the_message_with_its_options_in_the_world_of_that_time(parent: Trace) -> None:
    model = Scripted(said)
    what = Fork(parent, 2, agent(on, model=model, options={"word": "so"}), say="And?")
    made = asyncio.run(fork(what, TASK))
    assert [(node.message.role, node.message.text) for node in made.nodes] == [
        ("user", "Go."), ("assistant", parent.nodes[1].message.text), ("tool", "booked one"), ("user", "And?"),
        ("assistant", made.nodes[4].message.text),
    ]  # fmt: skip
    assert made.answer == f"so: {made.nodes[4].message.text}"
    assert made.nodes[4].message.text.startswith("4 messages")
    assert BOOKED == ["one"]
    assert (made.agent["pattern"], made.origin) == ("on", Origin(parent.id, 2, ""))
    BOOKED.clear()
    before = asyncio.run(fork(Fork(parent, 1, agent(on)), TASK))
    assert (BOOKED, [node.message.role for node in before.nodes]) == ([], ["user", "assistant", "assistant"])


def test_a_system_message_of_the_new_agent_takes_the_place_of_the_parents() -> None:
    nodes = (Node(None, system("old")), Node(0, user("q")), Node(1, assistant("a")))
    old = trace("p", nodes=nodes, agent="a")

    def begun(who: Agent) -> list[tuple[str, str]]:
        made = asyncio.run(fork(Fork(old, 2, who, say="then"), TASK))
        return [(node.message.role, node.message.text) for node in made.nodes[:-1]]

    kept = [("user", "q"), ("assistant", "a"), ("user", "then")]
    assert begun(agent(on)) == [("system", "old"), *kept]
    assert begun(agent(on, system="new")) == [("system", "new"), *kept]
    assert begun(agent(on, system="")) == [("system", ""), *kept]
    continued = _beginning_at(Fork(old, 1, agent(on)), {})
    assert (continued.__name__, continued.__doc__) == ("on", on.__doc__)


def test_what_writing_tools_had_done_is_done_again_in_order_and_nothing_else() -> None:
    def call(number: int, kind: Any, name: str, text: str) -> Call:
        detail = {"name": name, "arguments": {"text": text}, "result": "r", "is_error": False}
        return Call(f"0:{number}", kind, 0, number, 1.0, "r", detail=detail)

    kept = {
        each.id: each
        for each in (
            call(1, "tool", "book", "first"), call(2, "tool", "look", "no"), call(3, "memory", "book", "no"),
            call(4, "tool", "gone", "no"), call(5, "tool", "book", "second"),
        )
    }  # fmt: skip

    async def rebuilt() -> list[tuple[str, Any]]:
        who = agent()
        attempt = Attempt(who, who.own_tools, MemoryJournal(), 0, task=TASK)
        enter_branch(Branch())
        await _rebuild(open_context(attempt, Budget(Limits())), kept)
        return [(made.detail["name"], made.detail["arguments"]) for made in attempt.calls]

    BOOKED.clear()
    assert asyncio.run(rebuilt()) == [("book", {"text": "first"}), ("book", {"text": "second"})]
    assert BOOKED == ["first", "second"]


def test_a_kept_call_has_to_be_made_again_after_the_same_words() -> None:
    nodes = (Node(None, system("s")), Node(0, user("q")), Node(1, assistant("a")), Node(1, assistant("b")))

    def made(calls: Mapping[str, tuple[Any, int | None]], **more: Any) -> Trace:
        each = tuple(Call(id, kind, at, 0.0, 1.0, "r") for id, (kind, at) in calls.items())
        return trace("x", nodes=more.pop("nodes", nodes), calls=each, **more)

    parent = made({"0:1": ("generate", 2), "0:2": ("guard", 2), "0:3": ("tool", 1)})
    kept = {call.id: call for call in parent.calls}
    same = made({"0:1": ("generate", 2), "0:3": ("tool", 1), "0:9": ("tool", 3)})
    _check_way(parent, same, kept)
    exchanged = (Node(None, system("other")), *nodes[1:])
    _check_way(parent, made({"0:1": ("generate", 2), "0:3": ("tool", 1)}, nodes=exchanged), kept)
    early: dict[str, tuple[Any, int | None]] = {"0:1": ("generate", 2)}
    for wrong, id in (
        (made({"0:1": ("generate", 3), "0:3": ("tool", 1)}), "0:1"),
        (made({"0:1": ("score", 2), "0:3": ("tool", 1)}), "0:1"),
        (made({"0:1": ("generate", 2), "0:3": ("tool", None)}), "0:3"),
        (made(early), "0:3"),
        (made({"0:1": ("generate", 3)}, error=Failure("E", "x")), "0:1"),
    ):
        with pytest.raises(ConfigError) as changed:
            _check_way(parent, wrong, kept)
        assert str(changed.value) == (
            f"the pattern did not come to the fork by the parent's way: its call {id} is another one now. Its code or its "
            "options have changed since; name a pattern to begin at that message instead"
        )
    _check_way(parent, made(early, error=Failure("E", "x")), kept)
    _check_way(parent, made(early, stop_reason="tokens"), kept)
    assert _words(parent, 3) == [("user", "q"), ("assistant", "b")]
    assert _words(parent, None) == []


def test_calls_without_nodes_are_kept_if_they_began_before_the_first_call_after_the_fork_had_ended() -> None:
    def call(id: str, kind: Any, at: int | None, started: float, nodes: tuple[int, ...] = (), **more: Any) -> Call:
        return Call(id, kind, at, started, 1.0, "r", nodes=nodes, **more)

    likely = {"likelihoods": [0.5]}
    calls = (
        call("first", "generate", 0, 0.0, (1,)),
        call("early", "tool", 0, 1.0),
        call("none yet", "tool", None, 2.5),
        call("there", "tool", 1, 1.5),
        call("late", "tool", 0, 3.0),
        call("scored", "generate", 0, 2.0, detail=likely),
        call("failed", "generate", 0, 2.0),
        call("second", "generate", 1, 2.0, (2, 3)),
        call("third", "generate", 3, 9.0, (4,)),
    )
    made = trace("x", nodes=tuple(Node(n - 1 if n else None, user("q")) for n in range(5)), calls=calls)
    assert list(kept_calls(made, 1)) == ["first", "early", "none yet", "scored"], "the second had ended at 3.0"
    assert list(kept_calls(made, 2))[-3:] == ["late", "scored", "second"]
    assert list(kept_calls(made, 0)) == []


def test_a_fork_is_refused_at_a_step_that_is_not_there_or_whose_results_are_to_come() -> None:
    asks = Message("assistant", (ToolCall("c", "f", {}), ToolCall("d", "g", {})))
    nodes = (Node(None, user("q")), Node(0, asks), Node(1, Message("tool", (ToolResult("c", "f", "1"),))))
    made = trace("p", nodes=nodes)
    assert [call.id for call in _unanswered(made.messages(1))] == ["c", "d"]
    assert [call.id for call in _unanswered(made.messages(2))] == ["d"]
    who = agent(reply)
    Fork(made, 0, who)
    for at, name in ((1, "f"), (2, "g")):
        with pytest.raises(ConfigError) as open_calls:
            Fork(made, at, who)
        assert str(open_calls.value) == (
            f"at step {at} the result of {name} is still to come: fork at a later step, after the results, or at an earlier "
            "one"
        )
    with pytest.raises(ConfigError) as beyond:
        Fork(made, 3, who)
    assert str(beyond.value) == "trace p has no step 3: its steps are 0 to 2"
    again = replace(made, agent={"name": "a", "pattern": "reply"})
    assert Fork(again, 1, who).again
    base = Fork(made, 0, who)
    others = [replace(base, agent=agent(two)), replace(base, say=""), replace(base, seed=0), replace(base, run="r")]
    assert len({each.place for each in [base, *others, replace(base)]}) == 5
    assert len(base.place) == len(base.place.strip("ghijklmnopqrstuvwxyz")) == 16


def test_a_kept_generation_has_its_answers_and_the_ids_of_its_own_prompt() -> None:
    nodes = (Node(None, user("q")), Node(0, assistant("a")), Node(0, assistant("b")), Node(1, assistant("c")))
    reasons = {"finish_reasons": ["stop", "length"]}
    first = Call("0:1", "generate", 0, 0.0, 1.0, "r", Usage(7, 0, 2), (1, 2), reasons, prompt=PromptIds((1, 2)))
    second = Call("0:2", "generate", 1, 1.0, 1.0, "r", Usage(9), (3,), reasons, prompt=PromptIds((7, 8, 9)))
    none = Call("0:3", "generate", 1, 1.0, 1.0, "r", Usage(9), (3,), reasons)
    made = trace("p", nodes=nodes, calls=(none, first, second))
    kept = Kept(MemoryJournal(), made, {"0:2": second, "0:1": first, "0:3": none}).kept
    assert [[each["message"]["parts"][0]["text"] for each in kept[id]["completions"]] for id in ("0:1", "0:2")] == [
        ["a", "b"], ["c"],
    ]  # fmt: skip
    assert [(each["finish_reason"], each["usage"]) for each in kept["0:1"]["completions"]] == [
        ("stop", Usage(7, 0, 2).to_json()), ("length", Usage().to_json()),
    ]  # fmt: skip
    assert [kept[id].get("prompt", {}).get("ids") for id in ("0:1", "0:2", "0:3")] == [[1, 2], [7, 8, 9], None]


def test_a_kept_reply_of_a_tool_answers_the_same_request_alone_and_the_own_journal_goes_first() -> None:
    detail = {"name": "f", "arguments": {}, "result": "r", "is_error": False}
    calls = (
        Call("0:1", "tool", 0, 0.0, 1.0, "asked", detail=detail),
        Call("0:2", "memory", 0, 1.0, 1.0, "asked", detail={"reply": 3}),
        Call("0:3", "tool", 0, 2.0, 1.0, "asked", detail=detail | {"is_error": True}),
    )
    own = MemoryJournal()
    kept = Kept(own, trace("p", calls=calls), {call.id: call for call in calls[:2]})
    result = {"content": "r", "is_error": False, "shown": True}
    assert [kept.find(id, "asked") for id in ("0:1", "0:2", "0:3")] == [result, {"memory": 3}, None]
    assert [kept.find(id, "new") for id in ("0:1", "0:2")] == [None, {"memory": 3}]
    assert kept.replies() == [result, {"memory": 3}]
    kept.record("0:2", "new", {"memory": 9})
    kept.record("judge|0:1", "new", {"memory": 8})
    asyncio.run(kept.settled())
    assert (kept.find("0:2", "new"), kept.find("0:2", "asked")) == ({"memory": 9}, {"memory": 3})
    assert (kept.replies("judge"), kept.replies()[0]) == ([{"memory": 8}], {"memory": 9})
    assert own.find("0:2", "new") == {"memory": 9}


def test_a_seed_of_0_and_texts_of_nothing_are_given_on_purpose(parent: Trace) -> None:
    plain, zero, empty = (
        Fork(parent, 2, agent(on)),
        Fork(parent, 2, agent(on), seed=0),
        Fork(parent, 2, agent(on), say=""),
    )
    assert len({each.place for each in (plain, zero, empty, Fork(parent, 2, agent(on, system="")))}) == 4
    assert (Fork(parent, 2, agent()).again, Fork(parent, 2, agent(), say="").again) == (True, False)
    assert [asyncio.run(fork(each, TASK)).seed for each in (plain, zero)] == [4, 0]
    roles = [(node.message.role, node.message.text) for node in asyncio.run(fork(empty, TASK)).nodes]
    assert [role for role, _ in roles] == ["user", "assistant", "tool", "user", "assistant"] and roles[3] == (
        "user",
        "",
    )
    begun = replace(parent, nodes=(Node(None, system("old")), *(
        Node(0 if node.parent is None else node.parent + 1, node.message) for node in parent.nodes
    )), calls=())  # fmt: skip
    for own, expected in ((None, ["old"]), ("", [""]), ("new", ["new"])):
        made = asyncio.run(fork(Fork(begun, 1, agent(on, system=own)), TASK))
        assert [node.message.text for node in made.nodes if node.message.role == "system"] == expected
        assert [node.message.role for node in made.nodes] == ["system", "user", "assistant"]


def test_what_had_failed_without_a_reply_is_no_kept_call() -> None:
    def call(id: str, kind: Any, at: int | None = None, started_s: float = 0.5, **more: Any) -> Call:
        return Call(id, kind, at, started_s, 1.0, "r", **more)

    made = trace("p", nodes=(Node(None, user("q")), Node(0, assistant("a")), Node(0, assistant("b"))), calls=(
        call(":0", "guard", detail={"answer": "x"}), call(":1", "guard", error="gone"), call(":2", "memory", error="late"),
        call(":3", "memory", detail={"reply": 1}), call(":4", "tool", error="no"), call(":5", "score", error="gone"),
        call(":6", "score", detail={"likelihoods": []}), call(":7", "generate", error="gone"),
        call(":8", "generate", 0, 2.0, nodes=(1, 2)), call(":9", "guard", 0), call(":10", "guard", None, 3.0),
        call(":11", "tool", 1), call(":12", "guard", None, 2.999),
    ))  # fmt: skip
    first, second = [":0", ":3", ":4", ":6", ":12"], [":0", ":3", ":4", ":6", ":8", ":9", ":10", ":12"]
    assert [list(kept_calls(made, at)) for at in (0, 1, 2)] == [first, second, [*second[:-1], ":11", ":12"]]
