"""Conversations as Anthropic and Google take them: where system messages stand, and which messages are no turn."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from firsthand.message import Message, Reasoning, Text, ToolCall, ToolResult, assistant, system, user
from firsthand.model import CallDelta, Completion, Delta, Sampling, ToolSpec, Usage
from firsthand.providers import anthropic_wire, google_wire
from told_clients import streamed, told_google

ADD = ToolSpec("add", "Adds.", {"type": "object"})
CALL, OTHER = ToolCall("c1", "add", {"a": 1}), ToolCall("c2", "sub", {})
RESULT = Message("tool", (ToolResult("c1", "add", "3"),))
SIGNED = Reasoning("", {"thoughtSignature": "sig"})


def said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def claude(*conversation: Message, tools: Any = (), **sampling: Any) -> dict[str, Any]:
    sampled = Sampling(max_tokens=7, **sampling)
    return anthropic_wire.request("m", conversation, sampled, tools, stream=False)


def test_system_messages_of_anthropic_go_before_the_turns_only_where_they_open_the_conversation() -> None:
    opened = claude(system("S"), system("T"), user("a"), system("late"), assistant("b"), system("last "))
    assert opened == {
        "model": "m",
        "max_tokens": 7,
        "system": "S\n\nT",
        "messages": [
            {"role": "user", "content": [said("a")]},
            {"role": "system", "content": [said("late")]},
            {"role": "assistant", "content": [said("b")]},
            {"role": "system", "content": [said("last ")]},
        ],
    }
    assert claude(user("a"), system("S"), system("T"))["messages"] == [
        {"role": "user", "content": [said("a")]},
        {"role": "system", "content": [said("S")]},
        {"role": "system", "content": [said("T")]},
    ]
    bare = {"model": "m", "max_tokens": 7}
    assert claude(system(""), user("a")) == {**bare, "messages": [{"role": "user", "content": [said("a")]}]}
    assert claude(system("only")) == {**bare, "system": "only", "messages": []} and claude() == {**bare, "messages": []}


def test_tools_that_were_called_are_declared_where_none_are_given_and_only_those_given_otherwise() -> None:
    talk = (user("a"), assistant("", OTHER, CALL), RESULT, assistant("", CALL))
    declared = [{"name": name, "input_schema": {"type": "object"}} for name in ("sub", "add")]
    without = claude(*talk)
    assert (without["tools"], without["tool_choice"]) == (declared, {"type": "none"})
    given = claude(*talk, tools=[ADD])
    assert given["tools"] == [{"name": "add", "description": "Adds.", "input_schema": {"type": "object"}}]
    assert given.keys() == {"model", "max_tokens", "messages", "tools"} and "tools" not in claude(*talk[:1])
    assert claude(user("a"), stop=("x", " y"))["stop_sequences"] == ["x", " y"]


def test_an_empty_message_is_no_turn_and_parts_none() -> None:
    nothing = (
        assistant(""), Message("assistant", ()), Message("assistant", (Reasoning("hm", {"type": "odd"}),)),
        Message("assistant", (Text(" \n"), Text(""))),
    )  # fmt: skip
    for empty in nothing:
        assert anthropic_wire.messages([user("a"), empty, user("b")]) == [
            {"role": "user", "content": [said("a"), said("b")]}
        ]
        assert anthropic_wire.messages([empty]) == [] == anthropic_wire.messages([user(" "), empty])
    for empty in nothing[:3]:
        turns = google_wire.contents([user("a"), empty, user("b"), system(""), assistant("c"), empty])
        assert turns == [
            {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]},
            {"role": "model", "parts": [{"text": "c"}]},
        ]
        assert google_wire.contents([empty]) == [] == google_wire.contents([system("S"), user(""), empty])
    assert google_wire.contents([nothing[3]]) == [{"role": "model", "parts": [{"text": " \n"}]}]
    signed = Message("assistant", (SIGNED, Text("")))
    assert google_wire.contents([signed]) == [{"role": "model", "parts": [{"text": "", "thoughtSignature": "sig"}]}]
    assert google_wire.contents([Message("user", signed.parts)]) == []


def test_turns_of_one_role_in_a_row_are_one_and_results_are_the_users() -> None:
    talk = [
        system("S"),
        user("a"),
        assistant("x"),
        assistant("", CALL),
        RESULT,
        user("b"),
        system("late"),
        assistant("y "),
    ]
    assert google_wire.contents(talk) == [
        {"role": "user", "parts": [{"text": "a"}]},
        {"role": "model", "parts": [{"text": "x"}, {"functionCall": {"id": "c1", "name": "add", "args": {"a": 1}}}]},
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "c1", "name": "add", "response": {"result": "3"}}}, {"text": "b"},
                {"text": "late"},
            ],
        },
        {"role": "model", "parts": [{"text": "y "}]},
    ]  # fmt: skip
    assert google_wire.config(talk, Sampling(max_tokens=7), [])["system_instruction"] == "S"
    assert "system_instruction" not in google_wire.config(talk[1:], Sampling(max_tokens=7), [])
    assert anthropic_wire.messages(talk[1:]) == [
        {"role": "user", "content": [said("a")]},
        {
            "role": "assistant",
            "content": [said("x"), {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "3"}, said("b")]},
        {"role": "system", "content": [said("late")]},
        {"role": "assistant", "content": [said("y")]},
    ]


@pytest.mark.parametrize(
    ("given", "finish"),
    [
        (None, "stop"), ("end_turn", "stop"), ("stop_sequence", "stop"), 
        ("", "stop"), ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"), ("refusal", "content_filter"), ("tool_use", "tool_calls"),
    ],
)  # fmt: skip
def test_a_stream_of_anthropics_ends_for_the_reason_that_a_whole_reply_has(given: Any, finish: str) -> None:
    stream = anthropic_wire.MessageStream()
    stream.add({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "a"}})
    stream.add({"type": "message_delta", "delta": {"stop_reason": given}, "usage": {"output_tokens": 2}})
    assert not stream.finished and stream.add({"type": "message_stop"}) == "" and stream.finished
    body = {"content": [{"type": "text", "text": "a"}], "stop_reason": given, "usage": {"output_tokens": 2}}
    whole = Completion(assistant("a"), finish, Usage(0, 0, 2))  # type: ignore[arg-type]
    assert stream.completion() == whole == anthropic_wire.read_completion(body)
    for later, ends in (("max_tokens", "length"), (None, "length"), ("refusal", "content_filter")):
        stream.add({"type": "message_delta", "delta": {"stop_reason": later}})
        assert stream.completion().finish_reason == ends


def test_each_call_of_a_chunk_of_googles_is_streamed_in_its_order_with_its_number() -> None:
    pytest.importorskip("google.genai", reason="google-genai is not installed")

    def call(name: str, **arguments: Any) -> dict[str, Any]:
        return {"functionCall": {"id": name, "name": name, "args": arguments}}

    def chunk(*parts: Any, **more: Any) -> dict[str, Any]:
        return {"candidates": [{"content": {"parts": list(parts)}, **more}]}

    last = {"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2}}
    chunks = [
        chunk(call("a", x=1), {"text": "so"}, call("b")), chunk({"text": ""}), chunk(call("c")),
        chunk(call("d"), call("e"), call("f", y=[2]), finishReason="STOP") | last,
    ]  # fmt: skip
    found = asyncio.run(streamed(told_google(chunks), [user("p")]))
    deltas = [
        Delta("so"), *(Delta("", call=CallDelta(at, name, name, text)) for at, (name, text) in enumerate((
            ("a", '{"x": 1}'), ("b", "{}"), ("c", "{}"), ("d", "{}"), ("e", "{}"), ("f", '{"y": [2]}'),
        ))),
    ]  # fmt: skip
    whole = Completion(
        Message("assistant", (
            ToolCall("a", "a", {"x": 1}), Text("so"), ToolCall("b", "b", {}), ToolCall("c", "c", {}), ToolCall("d", "d", {}),
            ToolCall("e", "e", {}), ToolCall("f", "f", {"y": [2]}),
        )), "tool_calls", Usage(3, 0, 2),
    )  # fmt: skip
    assert found == [*deltas, Delta("", whole)]
