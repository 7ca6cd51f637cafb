"""Items and blocks of Responses and Messages requests read into a chat: each has its place or its fault."""

from __future__ import annotations

from typing import Any

import pytest

from firsthand.serve.anthropic import messages_schema
from firsthand.serve.http.refusals import Refusal, in_names_of
from firsthand.serve.openai import responses_schema
from firsthand.serve.openai.request_schema import ChatRequest, read


def refusal(function: Any, *args: Any, **options: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        function(*args, **options)
    assert caught.value.status == 400
    return caught.value


def call(id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def tool(name: str, parameters: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {"name": name, **({} if parameters is None else {"parameters": parameters}), **more},
    }


def test_unsupported_fields_that_ask_for_nothing_are_taken() -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "best_of": 1, "store": False, "modalities": ["text"],
            "suffix": "", "service_tier": "auto", "function_call": "none", "documents": [], "metadata": {}}  # fmt: skip
    before = dict(body)
    assert read(ChatRequest, body).n is None and body == before


def test_every_item_of_a_response_has_its_place_in_the_chat() -> None:
    body = read(responses_schema.ResponsesRequest, {
        "model": "demo", "instructions": "I", "max_output_tokens": 5, "temperature": 0.0, "top_p": 0.5, "stream": False,
        "parallel_tool_calls": False, "user": "u", "tool_choice": {"type": "function", "name": "go"},
        "tools": [{"type": "function", "name": "go", "description": "Goes.", "strict": True}],
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
        "input": [
            {"role": "user", "content": "q"},
            {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "h"},
            {"type": "reasoning_text", "text": "m"}]},
            {"type": "message", "role": "assistant", "content": "a"},
            {"type": "function_call", "call_id": "1", "name": "go", "arguments": "{}"},
            {"type": "function_call", "call_id": "2", "name": "go"},
            {"type": "function_call_output", "call_id": "1", "output": "r"},
            {"type": "function_call_output", "call_id": "2", "output": ""},
            {"type": "function_call", "call_id": "3", "name": "go", "arguments": ""},
            {"type": "message", "role": "assistant", "content": "b"},
        ],
    })  # fmt: skip
    made, names = responses_schema.as_chat(body)
    assert made == {
        "messages": [
            {"role": "system", "content": "I"},
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a", "reasoning_content": "hm",
             "tool_calls": [call("1", "go", "{}"), call("2", "go", "")]},
            {"role": "tool", "tool_call_id": "1", "content": "r"},
            {"role": "tool", "tool_call_id": "2", "content": ""},
            {"role": "assistant", "content": "", "tool_calls": [call("3", "go", "")]},
            {"role": "assistant", "content": "b"},
        ],
        "model": "demo", "max_completion_tokens": 5, "temperature": 0.0, "top_p": 0.5, "stream": False,
        "parallel_tool_calls": False, "user": "u",
        "tools": [{"type": "function", "function": {"name": "go", "description": "Goes.", "strict": True}}],
        "tool_choice": {"type": "function", "function": {"name": "go"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    }  # fmt: skip
    assert names == {
        "max_completion_tokens": "max_output_tokens", "reasoning_effort": "reasoning.effort",
        "response_format": "text.format",
        "response_format.json_schema": "text.format", "tools.0.function": "tools.0", "messages.1": "input.0",
        "messages.3.tool_call_id": "input.5.call_id", "messages.4.tool_call_id": "input.6.call_id", "messages.6": "input.8",
    }  # fmt: skip
    plain = read(
        responses_schema.ResponsesRequest, {"input": "q", "tool_choice": "none", "text": {"format": {"type": "text"}}}
    )
    assert responses_schema.as_chat(plain)[0] == {"messages": [{"role": "user", "content": "q"}], "tool_choice": "none"}
    object_ = read(responses_schema.ResponsesRequest, {"input": "q", "text": {"format": {"type": "json_object"}}})
    assert responses_schema.as_chat(object_)[0]["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(
    "item, field, said",
    [
        ({"content": "x"}, "input.0.role", "input.0.role is missing"),
        ({"role": "user"}, "input.0.content", "input.0.content is missing"),
        ({"type": "reasoning"}, "input.0.content", "input.0.content is missing"),
        ({"type": "function_call", "call_id": "1"}, "input.0", "a call without call_id or name"),
        ({"type": "function_call", "name": "go"}, "input.0", "a call without call_id or name"),
        ({"type": "function_call_output", "call_id": "1"}, "input.0", "an output without call_id or output"),
        ({"type": "function_call_output", "output": "1"}, "input.0", "an output without call_id or output"),
    ],
)
def test_an_item_that_lacks_something_is_refused(item: Any, field: str, said: str) -> None:
    body = read(responses_schema.ResponsesRequest, {"input": [item]})
    found = refusal(responses_schema.as_chat, body)
    assert found.param == field and said in found.message


def test_every_block_of_a_message_has_its_place_in_the_chat() -> None:
    body = read(messages_schema.MessagesRequest, {
        "model": "demo", "max_tokens": 9, "temperature": 0.0, "top_p": 0.5, "top_k": 3, "stream": True, "seed": 4,
        "cache_salt": "s", "chat_template_kwargs": {"k": 1}, "stop_sequences": ["x"], "metadata": {"user_id": "é"},
        "system": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}],
        "tools": [{"name": "go", "input_schema": {"type": "object"}, "description": "Goes.", "strict": False}],
        "tool_choice": {"type": "tool", "name": "go", "disable_parallel_tool_use": True},
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "null"}}},
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "user", "content": [{"type": "text", "text": "r"}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "t1", "signature": ""}, {"type": "thinking", "thinking": "t2"},
                {"type": "tool_use", "id": "1", "name": "go", "input": {"ö": 1}},
                {"type": "tool_use", "id": "2", "name": "go", "input": {}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "2",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {"type": "tool_result", "tool_use_id": "1", "content": "bad", "is_error": True},
                {"type": "tool_result", "tool_use_id": "1", "content": "Error: bad", "is_error": True},
                {"type": "text", "text": "so?"}]},
        ],
    })  # fmt: skip
    made, names = messages_schema.as_chat(body)
    user_digest = made.pop("user")
    assert len(user_digest) == 64 and int(user_digest, 16) > 0
    assert made == {
        "model": "demo", "max_tokens": 9, "temperature": 0.0, "top_p": 0.5, "top_k": 3, "stream": True, "seed": 4,
        "cache_salt": "s", "chat_template_kwargs": {"k": 1}, "stop": ["x"],
        "messages": [
            {"role": "system", "content": "A\n\nB"},
            {"role": "user", "content": "q\n\nr"},
            {"role": "assistant", "reasoning_content": "t1t2", "content": "",
             "tool_calls": [call("1", "go", '{"ö":1}'), call("2", "go", "{}")]},
            {"role": "tool", "tool_call_id": "2", "content": "a\n\nb"},
            {"role": "tool", "tool_call_id": "1", "content": "Error: bad"},
            {"role": "tool", "tool_call_id": "1", "content": "Error: bad"},
            {"role": "user", "content": "so?"},
        ],
        "tools": [{"type": "function", "function": {"name": "go", "parameters": {"type": "object"},
        "description": "Goes.", "strict": False}}],
        "tool_choice": {"type": "function", "function": {"name": "go"}}, "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "null"}}},
    }  # fmt: skip
    own = {key: value for key, value in names.items() if key.startswith(("messages", "tools"))}
    assert own == {
        "tools.0.function": "tools.0", "tools.0.function.parameters": "tools.0.input_schema",
        "messages.1": "messages.0", "messages.2": "messages.2",
        "messages.2.tool_calls.0": "messages.2.content.2", "messages.2.tool_calls.0.function": "messages.2.content.2",
        "messages.2.tool_calls.0.function.arguments": "messages.2.content.2.input",
        "messages.2.tool_calls.1": "messages.2.content.3", "messages.2.tool_calls.1.function": "messages.2.content.3",
        "messages.2.tool_calls.1.function.arguments": "messages.2.content.3.input",
        "messages.3": "messages.3.content.0", "messages.3.tool_call_id": "messages.3.content.0.tool_use_id",
        "messages.4": "messages.3.content.1", "messages.4.tool_call_id": "messages.3.content.1.tool_use_id",
        "messages.5": "messages.3.content.2", "messages.5.tool_call_id": "messages.3.content.2.tool_use_id",
        "messages.6": "messages.3",
    }  # fmt: skip
    other = body.model_copy(
        update={"metadata": messages_schema.Metadata(user_id="e"), "system": "", "stop_sequences": []}
    )
    again, _ = messages_schema.as_chat(other)
    assert again["user"] != user_digest and "stop" not in again and again["messages"][0]["role"] == "user"
    for kind, choice, several in (("auto", "auto", None), ("any", "required", False), ("none", "none", True)):
        chosen = messages_schema.ToolChoice(type=kind, disable_parallel_tool_use=several)
        made, _ = messages_schema.as_chat(body.model_copy(update={"tool_choice": chosen}))
        assert (made["tool_choice"], made["parallel_tool_calls"]) == (choice, several is not True)


@pytest.mark.parametrize(
    "role, block, field, said",
    [
        (
            "user",
            {"type": "thinking", "thinking": "t"},
            "",
            "is a thinking of the user: only the assistant has such blocks",
        ),
        ("user", {"type": "tool_use", "id": "1", "name": "a", "input": {}}, "", "only the assistant has such blocks"),
        ("assistant", {"type": "tool_result", "tool_use_id": "1"}, "", "only the user has such blocks"),
        ("user", {"type": "text"}, ".text", "text is missing: a block of type text has it"),
        ("assistant", {"type": "tool_use", "id": "1", "input": {}}, ".name", "name is missing"),
        (
            "user",
            {"type": "text", "text": "a", "is_error": True},
            ".is_error",
            "does not belong to a block of type text",
        ),
        ("user", {"type": "text", "text": "a", "name": "b", "content": "c"}, ".content", "content does not belong"),
    ],
)
def test_a_block_that_does_not_belong_is_refused_by_its_place(role: str, block: Any, field: str, said: str) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": role, "content": [{"type": "text", "text": "x"}, block]}]
    body = read(messages_schema.MessagesRequest, {"model": "m", "max_tokens": 1, "messages": turns})
    found = refusal(messages_schema.as_chat, body)
    assert found.param == f"messages.1.content.1{field}" and said in found.message


def test_a_conversation_ends_with_the_user_and_no_turn_is_empty() -> None:
    def of(*turns: Any, **fields: Any) -> Any:
        return read(messages_schema.MessagesRequest, {"model": "m", "max_tokens": 1, "messages": list(turns), **fields})

    q, a = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    found = refusal(messages_schema.as_chat, of(q, a))
    assert found.param == "messages" and found.message.startswith("messages.1 is the assistant's")
    found = refusal(messages_schema.as_chat, of(q, {"role": "user", "content": []}))
    assert found.param == "messages.1.content" and found.message == "messages.1.content is empty: give a text"
    for choice in ({"type": "tool"}, {"type": "any", "name": "go"}):
        assert refusal(messages_schema.as_chat, of(q, tool_choice=choice)).param == "tool_choice.name"


def test_a_refusal_is_told_in_the_names_of_the_interface_that_was_asked() -> None:
    names = {"messages.1": "input.0", "messages.1.tool_calls.0": "input.2", "stop": "stop_sequences"}
    for field, message, shown, said in (
        (
            "messages.1",
            "messages.1 and messages.10 and x.messages.1",
            "input.0",
            "input.0 and messages.10 and x.messages.1",
        ),
        ("messages.1.content", "messages.1.content is bad", "input.0.content", "input.0.content is bad"),
        ("messages.1.tool_calls.0.id", "in messages.1.tool_calls.0.id", "input.2.id", "in input.2.id"),
        ("messages.10", "messages.10", "messages.10", "messages.10"),
        ("stop", "nonstop stop", "stop_sequences", "nonstop stop_sequences"),
        (None, "stop", None, "stop"),
    ):
        with pytest.raises(Refusal) as caught, in_names_of(names):
            raise Refusal(400, message, param=field)
        assert (caught.value.param, caught.value.message) == (shown, said)
