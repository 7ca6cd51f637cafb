"""A person is asked about, guards judge and the record holds the arguments that the tool gets, whatever a model wrote."""

import asyncio
import json
from dataclasses import replace
from datetime import date
from enum import Enum

import pytest
from pydantic import Base64Bytes, BaseModel, Field

from firsthand import Agent, Task
from firsthand.errors import ToolError
from firsthand.guard import GuardVerdict
from firsthand.loop.approval import Approval, Decision, question
from firsthand.loop.journal import MemoryJournal
from firsthand.message import ToolCall
from firsthand.patterns.parts.actions import arguments_of
from firsthand.patterns.staged import staged
from firsthand.providers.openai_wire import read_call
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.tokens.calls.call_parser import parse
from firsthand.tool import tool
from firsthand.tool_arguments import as_json_data, read_arguments, repaired

got = []


class Mood(Enum):
    calm = "c"


@tool(effect="external")
def write(path: str, text: str = "", lines: list[int] | None = None, size: int = 0) -> str:
    """Write a file."""
    got.append((path, text, lines, size))
    return "written"


@tool(effect="external")
def book(day: date, mood: Mood = Mood.calm) -> str:
    """Book a day."""
    got.append((day, mood))
    return "booked"


@tool(effect="external")
def upload(body: Base64Bytes) -> str:
    """Upload bytes."""
    got.append(body)
    return "uploaded"


class Person:
    """Says yes, and keeps what was asked."""

    def __init__(self):
        self.asked = []

    async def __call__(self, tool, arguments):
        self.asked.append(arguments)
        question(tool, arguments)
        return Decision(True, "ann")


class Seen:
    """Keeps what a guard is given."""

    def __init__(self):
        self.calls = []

    def call(self, view, tool, arguments):
        self.calls.append(arguments)
        return GuardVerdict.passed("seen")


def attempt(*calls, journal=None, is_staged=False, guards=()):
    """The results of calls that a person is asked about, with what was asked, what guards saw and the trace."""
    got.clear()
    person, seen, results = Person(), Seen(), []

    async def make(task, ctx):
        for call in calls:
            results.append((await ctx.call(call)).content)
        return ""

    async def in_stages(task, ctx):
        return await staged(task, ctx, pattern=make)

    agent = Agent("a", Scripted([]), in_stages if is_staged else make, tools=(write, book, upload), guard=(seen, *guards),
                  approval=Approval({"external": "ask"}, ask=person))  # fmt: skip
    trace = asyncio.run(rollout(agent, Task("1", "Do it."), journal=journal))
    assert trace.error is None
    return results, person.asked, seen.calls, trace


def call(name, arguments, invalid=None):
    return ToolCall("c", name, arguments, invalid)


@pytest.mark.parametrize("wrapper", ["arguments", "parameters", "args", "kwargs", "input"])
def test_wrapped_and_escaped_arguments_are_asked_about_as_the_tool_gets_them(wrapper):
    wrapped = {wrapper: '{"p\\u0061th": "\\u0069mportant.txt", "text": "hello", "size": "3"}'}
    results, asked, seen, trace = attempt(call("write", wrapped))
    plain = {"path": "important.txt", "text": "hello", "size": 3}
    assert results == ["written"] and got == [("important.txt", "hello", None, 3)]
    assert asked == seen == [plain] and trace.calls[0].detail["arguments"] == plain
    assert [each.data["arguments"] for each in trace.events if each.kind == "approval"] == [plain]


def test_two_equal_keys_are_refused_before_anybody_is_asked():
    twice = '{"path": "notes.txt", "path": "important.txt"}'
    nested = call("write", {"path": "a", "lines": '[{"a": 1, "a": 2}]'})
    calls = [
        call("write", {"arguments": twice}),
        call("write", {}, twice),
        call("write", {}, json.dumps(twice)),
        nested,
    ]
    results, asked, _, _ = attempt(*calls)
    assert asked == [] and got == []
    assert all(each.startswith("Error: ") and "comes twice in one object: write it once" in each for each in results)
    assert "'path'" in results[0] and "'lines' is ambiguous: the key 'a'" in results[3]


def test_every_way_in_which_a_model_writes_arguments_refuses_two_equal_keys():
    twice = '{"path": "a", "path": "b"}'
    wire = read_call({"function": {"name": "write", "arguments": twice}}, 0)
    assert (wire.arguments, wire.invalid) == ({}, twice)
    assert "the key 'path' comes twice" in arguments_of(write, twice)
    _, calls = parse(f'<tool_call>{{"name": "write", "arguments": {twice}}}</tool_call>', (write.spec,))
    assert [each.arguments for each in calls] == [{}] and calls[0].invalid is not None
    with pytest.raises(ToolError, match="comes twice"):
        read_arguments(calls[0].invalid)


def test_equal_keys_in_different_objects_and_in_texts_are_fine():
    text = '{"a": 1, "a": 2}'
    assert attempt(call("write", {"path": "a", "text": text}))[0] == ["written"] and got == [("a", text, None, 0)]
    assert read_arguments('{"a": {"b": 1}, "c": {"b": 1}}') == {"a": {"b": 1}, "c": {"b": 1}}


def test_what_is_left_out_or_null_is_not_shown_and_lists_in_texts_are_lists():
    _, asked, seen, _ = attempt(call("write", {"path": "a", "lines": "[1, 2]", "size": None}))
    assert asked == seen == [{"path": "a", "lines": [1, 2]}] and got == [("a", "", [1, 2], 0)]


def test_types_that_do_not_read_their_own_data_are_decoded_once():
    results, asked, seen, _ = attempt(call("upload", {"input": '{"body": "YUdrPQ=="}'}))
    assert results == ["uploaded"] and got == [b"aGk="]
    assert asked == seen == [{"body": "YUdrPQ=="}]


def test_dates_and_enums_are_asked_about_as_data_also_where_they_are_staged():
    for is_staged in (False, True):
        results, asked, _, _ = attempt(call("book", {"day": "2026-01-02", "mood": "c"}), is_staged=is_staged)
        assert not results[0].startswith("Error") and got == [(date(2026, 1, 2), Mood.calm)]
        assert asked == [{"day": "2026-01-02", "mood": "c"}]


def test_a_staged_call_is_sent_with_the_values_that_it_was_staged_with_or_not_at_all():
    results, asked, _, _ = attempt(call("upload", {"body": "YUdrPQ=="}), is_staged=True)
    assert "was not staged" in results[0] and asked == [] and got == []


def test_a_resumed_attempt_does_not_ask_again_about_wrapped_arguments():
    journal, wrapped = MemoryJournal(), call("write", {"args": '{"path": "a"}'})
    assert attempt(wrapped, journal=journal)[1] == [{"path": "a"}]
    results, asked, _, _ = attempt(wrapped, journal=journal)
    assert results == ["written"] and asked == [] and got == []


def test_what_a_guard_puts_in_place_is_read_before_it_is_judged_again_and_asked_about():
    class Wraps:
        def call(self, view, tool, arguments):
            return GuardVerdict.replaced("wraps", {"input": '{"path": "b", "size": "2"}'})

    _, asked, seen, _ = attempt(call("write", {"path": "a"}), guards=(Wraps(),))
    assert seen == [{"path": "a"}, {"path": "b", "size": 2}] and asked == [{"path": "b", "size": 2}]


def test_arguments_that_the_tool_refuses_are_asked_about_by_nobody():
    results, asked, seen, _ = attempt(call("write", {"arguments": '{"pth": "a"}'}))
    assert asked == [] and "did you mean 'path'" in results[0] and seen == [{"arguments": '{"pth": "a"}'}]


def test_an_argument_of_the_tool_named_like_a_wrapper_is_no_wrapper():
    properties = {"input": {"type": "string"}}
    given = {"input": '{"path": "a"}'}
    assert repaired(given, {"properties": properties}) == given
    inner = {"input": {"path": "a"}}
    assert repaired(inner, {"properties": {"path": {"type": "string"}}}) == {"path": "a"}


def test_data_of_checked_arguments_is_plain():
    data = as_json_data({"mood": Mood.calm, "tags": {"b", "a"}, "n": 1.5})
    assert data == {"mood": "c", "tags": ["a", "b"], "n": 1.5}


def test_arguments_in_a_code_fence_are_read_whether_it_names_json_or_nothing():
    for fenced in ('```json\n{"path": "a"}\n```', '```\n{"path": "a"}```', ' ```json{"path": "a"}``` '):
        assert read_arguments(fenced) == {"path": "a"}, fenced
    assert read_arguments('```json\n{"path": "a"}') is None, "the fence is not closed"


def test_null_is_left_out_where_an_argument_may_be_and_told_where_it_may_not():
    properties = {"must": {"type": "string"}, "may": {"type": "string"}, "none": {"type": ["string", "null"]}}
    given = {"must": None, "may": None, "none": None, "other": None}
    expected = {"must": None, "none": None, "other": None}
    assert repaired(given, {"properties": properties, "required": ["must"]}) == expected


def test_a_set_is_a_list_in_one_order_in_every_process():
    days = frozenset(f"day {number}" for number in range(20))
    assert as_json_data({"days": days}) == {"days": sorted(days)}


def test_data_of_a_checked_model_has_the_names_that_the_call_used():
    class Letter(BaseModel):
        sender: str = Field(alias="from")

    data = as_json_data({"letter": Letter.model_validate({"from": "ada"}), "n": 1})
    assert data == {"letter": {"from": "ada"}, "n": 1}


def test_a_tool_with_a_checker_of_its_own_is_read_by_it():
    own = replace(write, repair=dict, validate=lambda given: {"path": given["path"].lower(), "text": ""})
    assert own.read({"path": "A"}) == {"path": "a"}
    texts = replace(
        write, repair=dict, validate=lambda given: {"path": given["path"], "size": int(given["size"].strip())}
    )
    assert texts.read({"path": "a", "size": " 3 "}) == {"path": "a", "size": " 3 "}


def test_the_tool_gets_the_values_that_were_checked_before_the_question_and_no_others():
    got.clear()
    steps = []

    def validate(given):
        steps.append("checked")
        return {"path": f"{given['path']} {len(steps)}"}

    async def ask(tool, arguments):
        steps.append("asked")
        return Decision(True, "ann")

    async def make(task, ctx):
        return (await ctx.call(call("write", {"path": "a"}))).content

    own = replace(write, repair=dict, validate=validate)
    agent = Agent("a", Scripted([]), make, tools=(own,), approval=Approval({"external": "ask"}, ask=ask))
    assert asyncio.run(rollout(agent, Task("1", "Do it."))).answer == "written"
    last = steps.index("asked")
    assert steps[last:] == ["asked"] and got == [(f"a {last}", "", None, 0)]
