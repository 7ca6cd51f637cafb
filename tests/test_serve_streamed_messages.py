"""Streams of Anthropic's messages to their end: text that comes with it, calls that were demanded, and no end at all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from firsthand.message import ToolCall, assistant
from firsthand.model import CallDelta, Completion, Delta, Usage
from firsthand.serve.anthropic.message_events import message_events
from firsthand.serve.anthropic.message_parts import usage_json
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.openai.chat_completions import chat_job
from firsthand.serve.openai.request_schema import ChatRequest, read
from spelled_model import SpelledModel, events_of, request_with, state_of

TOOLS = [{"type": "function", "function": {"name": name}} for name in ("go", "up")]
USAGE = Usage(9, 2, 3)


def streamed(*deltas: Delta, thinks: bool = False, **fields: Any) -> tuple[list[Any], Refusal | None]:
    """The events of these pieces, and what ended them early."""
    state, request = state_of(SpelledModel(*deltas, thinks=thinks)), request_with({})

    async def run() -> tuple[list[Any], Refusal | None]:
        body = read(ChatRequest, {"messages": [{"role": "user", "content": "Hi"}], **fields})
        job = await chat_job(state, request, body)
        found: list[bytes] = []
        try:
            async for each in message_events(state, request, job, 5):
                found.append(each)
        except Refusal as refusal:
            return events_of(b"".join(found)), refusal
        return events_of(b"".join(found)), None

    return asyncio.run(run())


def shown(events: list[Any]) -> list[tuple[str, Any]]:
    """The pieces of text and of calls, by kind."""
    deltas = [each["delta"] for each in events if each["type"] == "content_block_delta"]
    return [(each["type"], each.get("text", each.get("thinking", each.get("partial_json")))) for each in deltas]


def ends(text: str, *calls: ToolCall, reason: Any = "stop") -> Completion:
    return Completion(assistant(text, *calls), reason, USAGE)


def test_text_that_comes_with_the_end_of_a_message_is_shown_before_it() -> None:
    events, refusal = streamed(Delta("a"), Delta("bc", ends("abc")))
    assert refusal is None and shown(events) == [("text_delta", "a"), ("text_delta", "bc")]
    assert [each["type"] for each in events] == [
        "message_start", "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    assert events[-2] == {
        "type": "message_delta", "usage": usage_json(USAGE), "delta": {"stop_reason": "end_turn", "stop_sequence": None},
    }  # fmt: skip
    events, _ = streamed(Delta("only", ends("only")))
    assert shown(events) == [("text_delta", "only")] and events[0]["message"]["content"] == []
    events, _ = streamed(Delta("<think>why</thi"), Delta("nk>so", ends("<think>why</think>so")), thinks=True)
    assert shown(events) == [("thinking_delta", "why"), ("text_delta", "so")]
    events, _ = streamed(Delta("<think>why</thi", ends("<think>why</thi")), thinks=True)
    assert "".join(text for _, text in shown(events)) == "why</thi", "what was held back comes at the end"
    events, _ = streamed(Delta("", ends("")))
    assert [each["type"] for each in events] == ["message_start", "message_delta", "message_stop"]


def test_a_stream_without_the_call_that_was_demanded_ends_with_an_error() -> None:
    demanded = "the model did not make the call that tool_choice demands"
    go, up = ToolCall("0", "go", {"x": 1}), ToolCall("1", "up", {})
    named = {"type": "function", "function": {"name": "go"}}
    for choice, calls, reason, fits in (
        ("required", (), "stop", False), ("required", (), "length", True), ("required", (up,), "tool_calls", True),
        (named, (go,), "tool_calls", True), (named, (go, up), "tool_calls", False), (named, (), "stop", False),
        ("auto", (), "stop", True),
    ):  # fmt: skip
        events, refusal = streamed(
            Delta("t"), Delta("", ends("t", *calls, reason=reason)), tools=TOOLS, tool_choice=choice
        )
        assert (refusal is None) is fits, (choice, calls, reason)
        assert (events[-1]["type"] == "message_stop") is fits
        if refusal is not None:
            assert (refusal.status, refusal.message) == (502, demanded)
            assert shown(events) == [("text_delta", "t")]
        else:
            told = [each["content_block"]["name"] for each in events if each.get("content_block", {}).get("name")]
            assert told == [each.name for each in calls]


def test_a_broken_call_that_came_whole_is_told_by_its_text() -> None:
    events, refusal = streamed(Delta("", ends("", ToolCall("0", "go", {}, "{x"), reason="tool_calls")), tools=TOOLS)
    assert refusal is None and shown(events) == [("input_json_delta", '{"INVALID_JSON":"{x"}')]


@pytest.mark.parametrize("deltas", [(), (Delta("a"),), (Delta("", call=CallDelta(0, "c", "go", "{}")),)])
def test_a_model_that_ends_without_an_answer_is_an_error(deltas: tuple[Delta, ...]) -> None:
    events, refusal = streamed(*deltas, tools=TOOLS)
    assert refusal is not None and (refusal.status, refusal.message) == (502, "the model ended without an answer")
    kinds = ["message_start", "content_block_start", "content_block_delta"]
    assert [each["type"] for each in events] == (kinds if deltas else [])
