"""Parts of Anthropic's messages and of the Responses API one by one: blocks, ends, counts, and requests read as chats."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from typing import Any

import pytest

from firsthand.message import ToolCall, assistant
from firsthand.model import CallDelta, Completion, Delta, Usage
from firsthand.serve.anthropic import anthropic_messages, messages_schema
from firsthand.serve.anthropic.anthropic_errors import anthropic_error
from firsthand.serve.anthropic.message_events import _Blocks, message_events
from firsthand.serve.anthropic.message_parts import ended_json, message_json, tool_input, tool_use_id, usage_json
from firsthand.serve.anthropic.messages_schema import Block, CountRequest, MessagesRequest, as_chat
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.openai import responses_schema
from firsthand.serve.openai.chat_completions import ChatJob, chat_job
from firsthand.serve.openai.choices import CallMarks
from firsthand.serve.openai.request_schema import ChatRequest, read
from firsthand.serve.openai.responses_schema import ResponsesRequest
from spelled_model import SpelledModel, answered, events_of, request_with, state_of

HI = [{"role": "user", "content": "Hi"}]


def job_of(model: SpelledModel, state: Any = None, **fields: Any) -> ChatJob:
    body = read(ChatRequest, {"messages": HI, **fields})
    return asyncio.run(chat_job(state or state_of(model), request_with({}), body))


def refused(work: Any, *given: Any) -> tuple[str, str | None, str | None]:
    with pytest.raises(Refusal) as caught:
        result = work(*given)
        if asyncio.iscoroutine(result):
            asyncio.run(result)
    assert caught.value.status == 400
    return caught.value.message, caught.value.param, caught.value.code


# -- answers --


def test_blocks_begin_grow_and_end_one_after_another() -> None:
    blocks = _Blocks(CallMarks())
    made = b"".join([
        b"".join(each) for each in (
            blocks.end(), blocks.add_text("reasoning", "a"), blocks.add_text("reasoning", "b"),
            blocks.add_text("content", "c"), blocks.add_call(CallDelta(1, "x", "go", "")),
            blocks.add_call(CallDelta(1, "", None, '{"')), blocks.add_call(CallDelta(0, "y", None, "{}")),
            blocks.add_call(CallDelta(1, "", None, "}")), blocks.add_text("content", "d"), blocks.end(),
        )
    ])  # fmt: skip
    found = events_of(made)
    ids = [each["content_block"].pop("id") for each in found if each.get("content_block", {}).get("type") == "tool_use"]
    assert (
        len(set(ids)) == 2
        and all(len(id) == 30 and id.startswith("toolu_") for id in ids)
        and tool_use_id("x") == "toolu_x"
    )

    def start(index: int, **block: Any) -> dict[str, Any]:
        return {"type": "content_block_start", "index": index, "content_block": block}

    def grow(index: int, **delta: Any) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": index, "delta": delta}

    def stop(index: int) -> dict[str, Any]:
        return {"type": "content_block_stop", "index": index}

    assert found == [
        start(0, type="thinking", thinking="", signature=""), grow(0, type="thinking_delta", thinking="a"),
        grow(0, type="thinking_delta", thinking="b"), stop(0),
        start(1, type="text", text="", citations=None), grow(1, type="text_delta", text="c"), stop(1),
        start(2, type="tool_use", name="go", input={}), grow(2, type="input_json_delta", partial_json='{"'), stop(2),
        start(3, type="tool_use", name="", input={}), grow(3, type="input_json_delta", partial_json="{}"),
        grow(2, type="input_json_delta", partial_json="}"), stop(3),
        start(4, type="text", text="", citations=None), grow(4, type="text_delta", text="d"), stop(4),
    ]  # fmt: skip
    names = [line.removeprefix("event: ") for line in made.decode().split("\n") if line.startswith("event: ")]
    assert names == [each["type"] for each in found] and blocks.calls == {1: 2, 0: 3}


def test_a_message_ends_for_a_reason_with_its_counts_apart() -> None:
    job = job_of(SpelledModel(), max_tokens=9)
    request = request_with({})

    def ended(reason: Any, tokens: int = 3, stop: str | None = None) -> tuple[str, Any]:
        found = ended_json(job, Completion(assistant("x"), reason, Usage(5, 0, tokens), stop_string=stop))
        assert list(found) == ["stop_reason", "stop_sequence"]
        return found["stop_reason"], found["stop_sequence"]

    assert [ended(each, 9) for each in ("stop", "length", "tool_calls", "content_filter")] == [
        ("end_turn", None), ("max_tokens", None), ("tool_use", None), ("refusal", None),
    ]  # fmt: skip
    assert ended("stop", stop="#") == ("stop_sequence", "#") and ended("tool_calls", stop="#") == ("tool_use", None)
    assert [ended("length", tokens)[0] for tokens in (0, 1, 8, 9, 10)] == [
        "max_tokens", "model_context_window_exceeded", "model_context_window_exceeded", "max_tokens", "max_tokens",
    ]  # fmt: skip
    counts = {"input_tokens": 3, "cache_creation_input_tokens": 4, "cache_read_input_tokens": 2, "output_tokens": 5}
    assert usage_json(Usage(9, 2, 5, cache_write_tokens=4)) == counts
    assert usage_json(Usage(5, 4, 1, cache_write_tokens=3))["input_tokens"] == 0
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    assert message_json(request, job, ({"b": 1},), end, counts) == {
        "id": "msg_r1", "type": "message", "role": "assistant", "model": "demo", "content": [{"b": 1}], **end,
        "usage": {**counts, "service_tier": "standard"},
    }  # fmt: skip
    assert tool_input(ToolCall("0", "a", {"x": 1}), "{") == {"x": 1}
    assert tool_input(ToolCall("0", "a", {}, "x"), "{bad") == {"INVALID_JSON": "{bad"}
    for status, kind in ((400, "invalid_request_error"), (401, "authentication_error"), (403, "permission_error"),
                         (404, "not_found_error"), (413, "request_too_large"), (429, "rate_limit_error"),
                         (499, "invalid_request_error"), (500, "api_error"), (503, "overloaded_error"),
                         (504, "timeout_error")):  # fmt: skip
        error = {"type": "error", "error": {"type": kind, "message": "why not"}}
        assert anthropic_error(Refusal(status, "why\nnot")) == error


def test_a_stream_begins_with_the_count_of_the_prompt_and_ends_with_the_models() -> None:
    whole = Completion(assistant("<think>a</think>b", ToolCall("0", "go", {"x": 1}), ToolCall("1", "go", {"y": 2})),
                       "tool_calls", Usage(9, 2, 3))  # fmt: skip
    model = SpelledModel(Delta("<think>a</th"), Delta("ink>b"), Delta("", call=CallDelta(1, "", "go", '{"y":2}')),
                         Delta("", whole), thinks=True)  # fmt: skip
    state, request = state_of(model), request_with({})
    tools = [{"type": "function", "function": {"name": "go"}}]

    async def run() -> bytes:
        body = read(ChatRequest, {"messages": HI, "tools": tools})
        job = await chat_job(state, request, body)
        return b"".join([each async for each in message_events(state, request, job, 77)])

    found = events_of(asyncio.run(run()))
    assert found[0]["message"]["usage"] == usage_json(Usage(77)) | {"service_tier": "standard"}
    told = [(each["type"].removeprefix("content_block_"), each.get("index"),
             (each.get("delta") or each.get("content_block") or {}).get("type")) for each in found[1:]]  # fmt: skip
    assert told == [
        ("start", 0, "thinking"), ("delta", 0, "thinking_delta"), ("stop", 0, None),
        ("start", 1, "text"), ("delta", 1, "text_delta"), ("stop", 1, None),
        ("start", 2, "tool_use"), ("delta", 2, "input_json_delta"), ("stop", 2, None),
        ("start", 3, "tool_use"), ("delta", 3, "input_json_delta"), ("stop", 3, None),
        ("message_delta", None, None), ("message_stop", None, None),
    ]  # fmt: skip
    assert found[-4]["delta"]["partial_json"] == '{"x":1}', "the call that was not streamed comes whole"
    assert found[-2]["usage"] == usage_json(whole.usage) and found[-2]["delta"]["stop_reason"] == "tool_use"


def test_tokens_are_counted_by_the_model_here_or_elsewhere_and_thoughts_switched_off() -> None:
    class Counts(SpelledModel):
        async def count_tokens(self, messages: Any, tools: Any = ()) -> int:
            return 10 * len(messages) + len(tools)

    here = job_of(SpelledModel(), tools=[{"type": "function", "function": {"name": "go"}}])
    count = anthropic_messages._count
    assert asyncio.run(count(here)) == len("u:Hi;[go]")
    elsewhere = replace(here, served=replace(here.served, tokens=None, model=Counts()))
    assert asyncio.run(count(elsewhere)) == 11
    silent = replace(here, served=replace(here.served, tokens=None))
    assert refused(count, silent) == (
        "demo does not run here and counts no tokens: ask its own endpoint",
        "model",
        None,
    )

    def kwargs(thinks: bool, **fields: Any) -> Any:
        body = read(CountRequest, {"model": "demo", "messages": HI, **fields})
        job = asyncio.run(anthropic_messages._job(state_of(SpelledModel(thinks=thinks)), request_with({}), body))
        return job.body.chat_template_kwargs

    off = {"thinking": {"type": "disabled"}}
    assert kwargs(True, **off) == {"enable_thinking": False} and kwargs(False, **off) is None
    assert kwargs(True, **off, chat_template_kwargs={"a": 1, "enable_thinking": True}) == {
        "a": 1,
        "enable_thinking": False,
    }
    assert kwargs(True, thinking={"type": "adaptive"}) is None and kwargs(True) is None
    for thinking in ({"type": "enabled"}, {"type": "adaptive", "budget_tokens": 5}):
        message, param, code = refused(lambda given=thinking: kwargs(True, thinking=given))
        assert message.startswith("thinking.budget_tokens is not supported") and '{"type": "adaptive"}' in message
        assert (param, code) == ("thinking", "unsupported_parameter")


def test_a_model_elsewhere_tells_no_count_before_it_has_answered() -> None:
    end = Completion(assistant("a"), "stop", Usage(9, 0, 2))
    asked = {"model": "demo", "max_tokens": 3, "messages": HI, "stream": True}
    for here, count in ((True, len("u:Hi;")), (False, 0)):
        model = SpelledModel(Delta("a"), Delta("", end))
        state = state_of(model)
        if not here:
            state.models.tokens = None
        begun, *_, last, stop = answered(anthropic_messages.messages, state, asked)
        assert begun["message"]["usage"]["input_tokens"] == count and last["usage"]["input_tokens"] == 9
        assert (begun["message"]["id"], begun["message"]["content"]) == ("msg_r1", []) and stop == {
            "type": "message_stop"
        }
        assert last["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}


# -- requests as chats --


def test_a_message_request_is_the_same_chat_and_knows_its_own_names() -> None:
    body = read(MessagesRequest, {
        "model": "m", "max_tokens": 5, "temperature": 0.5, "top_p": 0.25, "top_k": 3, "stream": True, "seed": 1,
        "cache_salt": "s", "chat_template_kwargs": {"a": 1}, "stop_sequences": ["#"], "metadata": {"user_id": "é"},
        "system": [{"type": "text", "text": "S"}, {"type": "text", "text": "T"}],
        "tools": [{"name": "go", "input_schema": {"type": "object"}, "description": "Goes.", "strict": True},
                  {"name": "up", "input_schema": {}}],
        "tool_choice": {"type": "tool", "name": "go", "disable_parallel_tool_use": True},
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "array"}}},
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "user", "content": "c"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "t"}, {"type": "thinking", "thinking": "u", "signature": "x"},
                {"type": "tool_use", "id": "1", "name": "go", "input": {"b": 1, "a": "é"}},
                {"type": "tool_use", "id": "2", "name": "up", "input": {}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "2", "content": "bad", "is_error": True},
                {"type": "tool_result", "tool_use_id": "1",
                 "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]},
                {"type": "text", "text": "go on"}]},
        ],
    })  # fmt: skip
    chat, names = as_chat(body)
    assert chat == {
        "model": "m", "max_tokens": 5, "temperature": 0.5, "top_p": 0.25, "top_k": 3, "stream": True, "seed": 1,
        "cache_salt": "s", "chat_template_kwargs": {"a": 1}, "stop": ["#"],
        "user": hashlib.sha256("é".encode()).hexdigest(),
        "tools": [
            {"type": "function", "function": {"name": "go", "parameters": {"type": "object"}, "description": "Goes.",
                                              "strict": True}},
            {"type": "function", "function": {"name": "up", "parameters": {}}},
        ],
        "tool_choice": {"type": "function", "function": {"name": "go"}}, "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "array"}}},
        "messages": [
            {"role": "system", "content": "S\n\nT"}, {"role": "user", "content": "a\n\nb\n\nc"},
            {"role": "assistant", "content": "", "reasoning_content": "tu", "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "go", "arguments": '{"a":"é","b":1}'}},
                {"id": "2", "type": "function", "function": {"name": "up", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "2", "content": "Error: bad"},
            {"role": "tool", "tool_call_id": "1", "content": "x\n\ny"}, {"role": "user", "content": "go on"},
        ],
    }  # fmt: skip
    calls = {f"messages.2.tool_calls.{at}{tail}": f"messages.2.content.{at + 2}{theirs}" for at in range(2)
             for tail, theirs in (("", ""), (".function", ""), (".function.arguments", ".input"))}  # fmt: skip
    assert names == calls | {
        "stop": "stop_sequences", "user": "metadata.user_id", "response_format": "output_config.format",
        "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
        "response_format.json_schema": "output_config.format",
        "messages.1": "messages.0", "messages.2": "messages.2", "messages.3": "messages.3.content.0",
        "messages.3.tool_call_id": "messages.3.content.0.tool_use_id", "messages.4": "messages.3.content.1",
        "messages.4.tool_call_id": "messages.3.content.1.tool_use_id", "messages.5": "messages.3",
        "tools.0.function": "tools.0", "tools.0.function.parameters": "tools.0.input_schema",
        "tools.1.function": "tools.1", "tools.1.function.parameters": "tools.1.input_schema",
    }  # fmt: skip
    bare, _ = as_chat(read(CountRequest, {"model": "m", "messages": HI, "system": ""}))
    assert bare == {"model": "m", "messages": HI}
    for kind, choice in (("auto", "auto"), ("any", "required"), ("none", "none")):
        chat, _ = as_chat(read(CountRequest, {"model": "m", "messages": HI, "tool_choice": {"type": kind}}))
        assert (chat["tool_choice"], chat["parallel_tool_calls"]) == (choice, True)
    for choice in ({"type": "tool"}, {"type": "any", "name": "go"}):
        body = read(CountRequest, {"model": "m", "messages": HI, "tool_choice": choice})
        assert refused(as_chat, body)[:2] == (
            "tool_choice.name goes with the type tool, and no other", "tool_choice.name",
        )  # fmt: skip
    shown = messages_schema._joined
    assert (shown(None), shown(""), shown("x"), shown([])) == ("", "", "x", "")


def test_a_block_has_the_fields_and_the_role_of_its_type() -> None:
    def check(role: str, **block: Any) -> Any:
        return refused(messages_schema._check, Block.model_validate(block), role, "at")

    for role, block in (
        ("user", {"type": "text", "text": ""}), ("assistant", {"type": "text", "text": "x", "citations": []}),
        ("assistant", {"type": "thinking", "thinking": "x", "signature": ""}),
        ("assistant", {"type": "tool_use", "id": "1", "name": "n", "input": {}, "cache_control": {"type": "ephemeral"}}),
        ("user", {"type": "tool_result", "tool_use_id": "1", "content": "", "is_error": False}),
    ):  # fmt: skip
        messages_schema._check(Block.model_validate(block), role, "at")
    assert check("user", type="thinking", thinking="x")[:2] == (
        "at is a thinking of the user: only the assistant has such blocks", "at",
    )  # fmt: skip
    assert check("assistant", type="tool_result", tool_use_id="1")[0] == (
        "at is a tool_result of the assistant: only the user has such blocks"
    )
    assert check("assistant", type="tool_use", id="1", input={})[:2] == (
        "at.name is missing: a block of type tool_use has it", "at.name",
    )  # fmt: skip
    assert check("user", type="text", text="x", signature="s", is_error=True)[:2] == (
        "at.is_error does not belong to a block of type text", "at.is_error",
    )  # fmt: skip
    wrong: Any = [{"role": "user", "content": []}]
    body = read(CountRequest, {"model": "m", "messages": wrong})
    assert refused(as_chat, body)[:2] == ("messages.0.content is empty: give a text", "messages.0.content")
    ends = read(CountRequest, {"model": "m", "messages": [*HI, {"role": "assistant", "content": "a"}]})
    assert refused(as_chat, ends)[:2] == (
        "messages.1 is the assistant's, and an answer that is begun is not continued: end with a user's message", "messages",
    )  # fmt: skip


def test_a_responses_request_is_the_same_chat_and_knows_its_own_names() -> None:
    body = read(ResponsesRequest, {
        "model": "m", "instructions": "I", "max_output_tokens": 5, "temperature": 0.5, "top_p": 0.25, "stream": False,
        "parallel_tool_calls": False, "user": "u", "tool_choice": {"type": "function", "name": "go"},
        "tools": [{"type": "function", "name": "go", "description": "Goes.", "parameters": {"type": "object"},
                   "strict": True}, {"type": "function", "name": "up"}],
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "array"}}},
        "input": [
            {"role": "user", "content": "q"},
            {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "t"}], "summary": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
            {"type": "function_call", "call_id": "1", "name": "go", "arguments": "{}"},
            {"type": "function_call", "call_id": "2", "name": "up"},
            {"type": "function_call_output", "call_id": "2", "output": ""},
            {"type": "function_call_output", "call_id": "1", "output": "x"},
            {"role": "assistant", "content": "b"}, {"role": "assistant", "content": "c"},
            {"type": "function_call", "call_id": "3", "name": "go", "arguments": "{}"},
            {"role": "assistant", "content": "d"},
        ],
    })  # fmt: skip
    chat, names = responses_schema.as_chat(body)

    def call(id: str, name: str, arguments: str) -> dict[str, Any]:
        return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}

    assert chat == {
        "model": "m", "max_completion_tokens": 5, "temperature": 0.5, "top_p": 0.25, "stream": False,
        "parallel_tool_calls": False, "user": "u", "tool_choice": {"type": "function", "function": {"name": "go"}},
        "tools": [{"type": "function", "function": {"name": "go", "description": "Goes.", "parameters": {"type": "object"},
                                                    "strict": True}},
                  {"type": "function", "function": {"name": "up"}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array"}}},
        "messages": [
            {"role": "system", "content": "I"}, {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a", "reasoning_content": "t",
             "tool_calls": [call("1", "go", "{}"), call("2", "up", "")]},
            {"role": "tool", "tool_call_id": "2", "content": ""}, {"role": "tool", "tool_call_id": "1", "content": "x"},
            {"role": "assistant", "content": "b"},
            {"role": "assistant", "content": "c", "tool_calls": [call("3", "go", "{}")]},
            {"role": "assistant", "content": "d"},
        ],
    }  # fmt: skip
    assert names == {
        "max_completion_tokens": "max_output_tokens", "response_format": "text.format",
        "response_format.json_schema": "text.format", "reasoning_effort": "reasoning.effort",
        "tools.0.function": "tools.0", "tools.1.function": "tools.1",
        "messages.1": "input.0", "messages.3.tool_call_id": "input.5.call_id", "messages.4.tool_call_id": "input.6.call_id",
        "messages.5": "input.7", "messages.6": "input.8", "messages.7": "input.10",
    }  # fmt: skip
    for form, expected in (({"type": "text"}, None), ({"type": "json_object"}, {"type": "json_object"})):
        made, _ = responses_schema.as_chat(read(ResponsesRequest, {"input": "q", "text": {"format": form}}))
        assert made.get("response_format") == expected and made["messages"] == [{"role": "user", "content": "q"}]
    plain, _ = responses_schema.as_chat(
        read(ResponsesRequest, {"input": "q", "tool_choice": "required", "instructions": ""})
    )
    assert plain == {"messages": [{"role": "user", "content": "q"}], "tool_choice": "required"}


def test_a_failed_call_says_once_that_it_is_an_error() -> None:
    def told(content: Any, is_error: bool | None) -> str:
        result = {"type": "tool_result", "tool_use_id": "1", "content": content, "is_error": is_error}
        call = {"type": "tool_use", "id": "1", "name": "go", "input": {}}
        turns = [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
        asked = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "a"}, *turns]}
        return str(as_chat(read(MessagesRequest, asked))[0]["messages"][-1]["content"])

    blocks = [{"type": "text", "text": "Error: x"}, {"type": "text", "text": "y"}]
    for content, is_error, said in (
        ("Error: x", True, "Error: x"), ("error: x", True, "Error: error: x"), ("", True, "Error: "),
        (None, True, "Error: "), ("x", True, "Error: x"), ("x", False, "x"), ("x", None, "x"), (None, None, ""),
        ("Error: x", None, "Error: x"),
        (blocks, True, "Error: x\n\ny"), (blocks[::-1], True, "Error: y\n\nError: x"),
    ):  # fmt: skip
        assert told(content, is_error) == said
