"""What a guard replaced or blocked is in no span and in no training row; the trace keeps it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand import Agent, Task, catalog
from firsthand.errors import ModelError
from firsthand.guard import GuardVerdict
from firsthand.loop.passed_borders import passed
from firsthand.message import Message, Text, ToolCall, assistant, system, user
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs import store
from firsthand.runs.training_data import DataFilter, TrainingRows, attempt_rows, training_rows
from firsthand.telemetry.trace_spans import spans_of
from firsthand.tool import tool
from firsthand.trace import Call, Event, Node, Score, Trace

CARD = "4111-1111"
REDACT = r"redact:pattern=\d{4}-\d{4}:borders="


async def ask(task: Any, ctx: Any) -> str:
    return str((await ctx.say(task.prompt).generate()).text)


async def ask_twice(task: Any, ctx: Any) -> str:
    first = await ctx.say(task.prompt).generate()
    return str((await first.say(f"Again, {CARD}?").generate()).text)


def made(replies: list[Any], borders: str, pattern: Any = ask, tools: tuple[Any, ...] = (), guard: Any = None) -> Trace:
    guards = catalog.guards([REDACT + borders]) if guard is None else guard
    agent = Agent("ask", Scripted(replies), pattern, tools=tools, guard=guards)
    found = asyncio.run(rollout(agent, Task("t", f"My card is {CARD}.")))
    return replace(found, scores=(Score("s", 1.0),))


def exported(trace: Trace) -> list[dict[str, Any]]:
    spans = spans_of(trace, content=True)
    assert "4111" not in repr(spans)
    return [
        {key: json.loads(str(value)) for key, value in each.attributes.items() if ".messages" in key} for each in spans
    ]


def rows(trace: Trace, tmp_path: Path, **chosen: Any) -> TrainingRows:
    with store.create(tmp_path, {}, "made", command=["run"]) as run:
        run.add_tasks("b", [Task("t", f"My card is {CARD}.")])
        run.append(replace(trace, benchmark="b"))
        return training_rows([run], "sft", DataFilter(**chosen))


def texts(row: Any) -> list[tuple[str, Any]]:
    return [(each["content"], each.get("weight")) for each in row["messages"]]


def test_spans_hold_the_prompt_that_was_sent_and_the_answer_that_was_given() -> None:
    trace = made([f"Yes, {CARD}."], "prompt+answer")
    assert CARD in trace.nodes[0].message.text and CARD in trace.nodes[1].message.text
    agent, call = exported(trace)
    assert agent["gen_ai.input.messages"] == call["gen_ai.input.messages"]
    assert call["gen_ai.input.messages"][0]["parts"][0]["content"] == "My card is [redacted]."
    assert call["gen_ai.output.messages"][0]["parts"][0]["content"] == "Yes, [redacted]." == trace.answer


def test_a_row_holds_the_prompt_that_its_answer_was_sampled_from(tmp_path: Path) -> None:
    trace = made([f"Yes, {CARD}.", f"It is {CARD}."], "prompt+answer", ask_twice)
    (row,) = rows(trace, tmp_path).rows
    assert texts(row) == [
        ("My card is [redacted].", None), ("Yes, [redacted].", 0), ("Again, [redacted]?", None), ("It is [redacted].", None),
    ]  # fmt: skip
    assert attempt_rows("r", trace)[0]["messages"] == row["messages"]
    assert exported(trace)[1]["gen_ai.output.messages"][0]["parts"][0]["content"] == "Yes, [redacted]."


def test_a_question_alone_is_as_it_was_sent_and_one_within_a_replaced_message_is_left_out(tmp_path: Path) -> None:
    async def within(task: Any, ctx: Any) -> str:
        return str((await ctx.say(f"Please answer. {task.prompt}").generate()).text)

    async def raw(task: Any, ctx: Any) -> str:
        return str((await ctx.generate(prompt=f"Q: {task.prompt}")).text)

    (row,) = rows(made(["Yes."], "prompt+answer"), tmp_path / "a", answers=True).rows
    assert texts(row) == [("My card is [redacted].", None), ("Yes.", None)]
    for place, pattern in (("b", within), ("c", raw)):
        found = rows(made(["Yes."], "prompt", pattern), tmp_path / place, answers=True)
        assert (found.rows, dict(+found.left_out)) == ([], {"a guard replaced what it was asked": 1})
    (row,) = rows(made(["Yes."], "result", within), tmp_path / "d", answers=True).rows
    assert texts(row)[0] == (f"My card is {CARD}.", None), "nothing was replaced"


@tool(effect="read")
def pay(card: str) -> str:
    """Pay."""
    return "paid"


async def pays(task: Any, ctx: Any) -> str:
    ctx = await ctx.say("Pay.").generate()
    for result in await ctx.call_all(ctx.last.tool_calls):
        ctx = ctx.say(result)
    return str((await ctx.generate()).text)


def test_a_tools_arguments_are_those_that_it_got(tmp_path: Path) -> None:
    calls = (Text("So."), ToolCall("c0", "pay", {"card": "none"}), ToolCall("c1", "pay", {"card": CARD}))
    trace = made([Message("assistant", calls), "Done."], "call", pays, (pay,))
    assert CARD in repr(trace.nodes[1].message), "the trace keeps what the model wrote"
    _, first, *_ = exported(trace)
    parts = first["gen_ai.output.messages"][0]["parts"]
    assert parts[0]["content"] == "So." and [each["arguments"]["card"] for each in parts[1:]] == ["none", "[redacted]"]
    found = rows(trace, tmp_path)
    assert "4111" not in repr(found.rows) and "[redacted]" in repr(found.rows)


class Blocks:
    def __init__(self, border: str):
        setattr(self, border, lambda view, *value: GuardVerdict.blocked("no", "it is secret"))


def test_what_a_guard_blocked_is_withheld(tmp_path: Path) -> None:
    trace = made([f"Yes, {CARD}."], "", lambda task, ctx: ask(Task("t", "Hm?"), ctx), guard=(Blocks("answer"),))
    assert trace.stop_reason == "guard" and CARD in trace.nodes[1].message.text
    assert exported(trace)[1]["gen_ai.output.messages"][0]["parts"][0]["content"] == "[withheld by the guard Blocks]"
    found = rows(trace, tmp_path)
    assert (found.rows, dict(+found.left_out)) == ([], {"a guard kept back its answer": 1})
    assert attempt_rows("r", trace) == []
    blocked = made([], "", guard=(Asks(), Blocks("prompt")))
    assert blocked.calls[0].kind == "guard" and "withheld by the guard Blocks" in repr(exported(blocked))


class Asks:
    async def prompt(self, view: Any, messages: Any) -> GuardVerdict:
        await view.ask("Fine?", model=Scripted(["yes"]))
        return GuardVerdict.passed("asks")


class Keeps:
    """Sends the system message and the last one alone."""

    def prompt(self, view: Any, messages: Any) -> GuardVerdict:
        return GuardVerdict.replaced("keeps", (system("Be brief."), messages[-1]))


def test_a_prompt_of_other_messages_is_the_prompt_of_the_row(tmp_path: Path) -> None:
    async def twice(task: Any, ctx: Any) -> str:
        return str((await (await ctx.say("One?").generate()).say("Two?").generate()).text)

    trace = made(["1", "2"], "", twice, guard=Keeps())
    (row,) = rows(trace, tmp_path).rows
    assert texts(row) == [("Be brief.", None), ("Two?", None), ("2", None)]
    said = exported(trace)
    assert [each["parts"][0]["content"] for each in said[2]["gen_ai.input.messages"]] == ["Be brief.", "Two?"]
    assert said[1]["gen_ai.output.messages"][0]["parts"][0]["content"] == "1"
    assert [node.message for node in passed(trace).nodes] == [
        user("One?"),
        assistant("1"),
        user("Two?"),
        assistant("2"),
    ], "what a later prompt leaves out was sent before"


def test_a_call_that_failed_is_exported_with_what_it_sent() -> None:
    class Down(Scripted):
        async def complete(self, *given: Any, **more: Any) -> Any:
            raise ModelError("it is down")

    agent = Agent("ask", Down([]), ask, guard=catalog.guards([REDACT + "prompt"]))
    trace = asyncio.run(rollout(agent, Task("t", f"My card is {CARD}.")))
    assert exported(trace)[1]["gen_ai.input.messages"][0]["parts"][0]["content"] == "My card is [redacted]."


def test_an_answer_that_a_pattern_made_of_a_draft_takes_the_drafts_place() -> None:
    async def upper(task: Any, ctx: Any) -> str:
        return f"Answer: {(await ctx.say('Hm?').generate()).text.split()[-1]} {CARD}"

    trace = made([f"I think {CARD}"], "answer", upper)
    assert exported(trace)[1]["gen_ai.output.messages"][0]["parts"][0]["content"] == trace.answer


@pytest.mark.parametrize("borders", ["result", "prompt+call+result+answer"])
def test_without_a_replacement_an_attempt_is_as_it_was(borders: str) -> None:
    trace = made(["Yes."], borders, lambda task, ctx: ask(Task("t", "Hm?"), ctx))
    assert passed(trace) is trace


def test_the_answer_of_an_earlier_turn_of_a_session_is_marked_as_replaced() -> None:
    said = [user("One?"), assistant(f"First {CARD}"), user("Two?"), assistant(f"Second {CARD}")]
    nodes = tuple(Node(place - 1 if place else None, each) for place, each in enumerate(said))
    verdict = {"guard": "redact:pattern=x", "border": "answer", "action": "replace"}
    trace = replace(
        made(["Yes."], "prompt"), nodes=nodes, answer="Second [redacted]",
        calls=tuple(Call(f"{place}", "generate", place - 1, 0.0, 0.0, "r", nodes=(place,)) for place in (1, 3)),
        events=tuple(Event("guard", 0.0, {**verdict, "at": at, "original": said[at].text}) for at in (1, 3)),
    )  # fmt: skip
    assert [node.message.text for node in passed(trace).nodes] == [
        "One?", "[replaced by the guard redact]", "Two?", "Second [redacted]",
    ]  # fmt: skip


def test_a_short_answer_that_a_guard_replaced_is_no_part_of_other_words() -> None:
    async def in_steps(task: Any, ctx: Any) -> str:
        for word in ("Hm?", "And?", "So?", "Sure?"):
            ctx = await ctx.say(word).generate()
        return str(ctx.text)

    def said(*replies: str, guard: str) -> list[str]:
        trace = made(list(replies), "", in_steps, guard=catalog.guards([f"redact:pattern={guard}:borders=answer"]))
        return [node.message.text for node in passed(trace).nodes[1::2]]

    hidden = "[redacted]"
    assert said("I know that.", "Not now, nor 10.", "I say: no!", "no", guard="no") == [
        "I know that.", "Not now, nor 10.", hidden, hidden,
    ]  # fmt: skip
    assert said("It is 421.", "It is 142.", "6 * 7 = 42", "42", guard="42") == [
        "It is 421.",
        "It is 142.",
        hidden,
        hidden,
    ]
    assert said("是四十二。", "四", "Naïve", "四十二", guard="四十二") == [hidden, "四", "Naïve", hidden]
    assert said("$5, I say", "US$5", "x", "$5", guard=r"\$5") == [hidden, hidden, "x", hidden], "a sign begins no word"
    assert said("5$US, I say", "x", "x", "5$", guard=r"5\$") == [hidden, "x", "x", hidden]
    assert said("DE12345678", "DE1234567", "x", "12345678", guard="12345678") == [hidden, "DE1234567", "x", hidden]
    assert said("DE1234567", "1234567.", "x", "1234567", guard="1234567") == ["DE1234567", hidden, "x", hidden]
