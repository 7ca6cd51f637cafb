"""Bounds of tools, schemas and arguments in a request, which hold before anything walks them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from firsthand.serve.agents import session_model
from firsthand.serve.anthropic.messages_schema import CountRequest, MessagesRequest
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.http.request_body import MAX_DEPTH, MAX_OBJECTS, parse_object
from firsthand.serve.openai import request_parsing
from firsthand.serve.openai.request_schema import (
    MAX_SCHEMA_VALUES,
    ChatRequest,
    CompletionRequest,
    TokenizeRequest,
    WireMessage,
    read,
)
from firsthand.serve.openai.responses_schema import ResponsesRequest

HI = [{"role": "user", "content": "Hi"}]


def parsed(text: str) -> Any:
    return parse_object(text.encode(), "application/json")


def refusal_of(kind: type[Any], body: dict[str, Any]) -> str | None:
    """The field that a request is refused for."""
    try:
        read(kind, body)
    except Refusal as refusal:
        assert refusal.status == 400
        if "JSON values" not in refusal.message:
            return None
        assert refusal.message == (
            f"{refusal.param} makes more than 50,000 JSON values of tools and schemas: send fewer or smaller ones"
        )
        return refusal.param
    return None


def test_a_body_of_too_many_objects_and_lists_is_refused_before_it_is_decoded() -> None:
    def body(count: int) -> str:
        return '{"x":[' + ",".join(["{}", "[]"] * ((count - 2) // 2)) + "]}"

    assert len(parsed(body(MAX_OBJECTS))["x"]) == MAX_OBJECTS - 2
    for text in (body(MAX_OBJECTS + 2), body(MAX_OBJECTS + 2)[:-2]):  # not decoded: it would be no JSON
        with pytest.raises(Refusal, match=r"^the body holds more than 50,000 objects and lists: send less at once$"):
            parsed(text)
    one_more = body(MAX_OBJECTS)[:-2] + ",{}]}"
    with pytest.raises(Refusal, match="more than 50,000 objects"):
        parsed(one_more)
    with pytest.raises(Refusal, match=f"more than {MAX_DEPTH} deep"):
        parsed('{"x":' * (MAX_DEPTH + 1))


def test_texts_and_token_ids_are_no_objects() -> None:
    code = 'f({"a": [1]}) \\ ' * 10_000
    assert parsed(json.dumps({"messages": [{"content": code}]}))["messages"][0]["content"] == code
    assert len(parsed(json.dumps({"prompt": [1] * 400_000}))["prompt"]) == 400_000


def test_tools_and_schemas_of_a_request_have_so_many_values_together_in_every_dialect() -> None:
    many = {"properties": {"x": {"enum": ["a"] * MAX_SCHEMA_VALUES}}}
    half = {"properties": {"x": {"enum": ["a"] * (MAX_SCHEMA_VALUES // 2)}}}

    def tools(*schemas: Any) -> list[Any]:
        return [{"type": "function", "function": {"name": "f", "parameters": each}} for each in schemas]

    def form(schema: Any) -> Any:
        return {"type": "json_schema", "json_schema": {"schema": schema}}

    chat, anthropic = {"messages": HI}, {"model": "m", "messages": HI}
    for kind, body, field in (
        (ChatRequest, chat | {"tools": tools(many)}, "tools"),
        (ChatRequest, chat | {"tools": tools(half, half)}, "tools"),
        (ChatRequest, chat | {"tools": tools(half), "response_format": form(half)}, "response_format"),
        (ChatRequest, chat | {"response_format": form(many)}, "response_format"),
        (ChatRequest, chat | {"guided_json": many}, "guided_json"),
        (ChatRequest, chat | {"structured_outputs": {"json": many}}, "structured_outputs"),
        (ChatRequest, chat | {"chat_template_kwargs": {"x": [0] * MAX_SCHEMA_VALUES}}, "chat_template_kwargs"),
        (CompletionRequest, {"prompt": "x", "guided_json": many}, "guided_json"),
        (TokenizeRequest, chat | {"tools": tools(many)}, "tools"),
        (ResponsesRequest, {"input": "x", "tools": [{"type": "function", "name": "f", "parameters": many}]}, "tools"),
        (ResponsesRequest, {"input": "x", "text": {"format": {"type": "json_schema", "schema": many}}}, "text"),
        (CountRequest, anthropic | {"tools": [{"name": "f", "input_schema": many}]}, "tools"),
        (
            MessagesRequest,
            anthropic | {"max_tokens": 1, "output_config": {"format": {"type": "json_schema", "schema": many}}},
            "output_config",
        ),
        (ChatRequest, chat | {"tools": tools(half), "max_tokens": 5}, None),
        (ChatRequest, chat | {"tools": tools(*[{"properties": {str(at): {} for at in range(100)}}] * 100)}, None),
        (CompletionRequest, {"prompt": [1] * (MAX_SCHEMA_VALUES + 1)}, None),
        (ChatRequest, {"messages": HI * 4000, "allowed_token_ids": list(range(100_000))}, None),
    ):
        assert refusal_of(kind, body) == field, kind


def test_the_bound_of_schemas_is_met_to_the_value() -> None:
    chat = {"messages": HI, "guided_json": {"enum": ["a"] * (MAX_SCHEMA_VALUES - 2)}}  # with the object and the list
    assert refusal_of(ChatRequest, chat) is None
    assert refusal_of(ChatRequest, chat | {"n": 1}) == "n"


def test_arguments_of_all_calls_of_a_chat_have_so_many_values_together() -> None:
    def turns(*arguments: str) -> list[WireMessage]:
        calls = [{"id": str(at), "function": {"name": "f", "arguments": text}} for at, text in enumerate(arguments)]
        return [WireMessage(role="assistant", tool_calls=[each]) for each in calls]  # type: ignore[list-item]

    dense = '{"a":[' + "{}," * (MAX_SCHEMA_VALUES // 4) + "{}]}"
    code = json.dumps({"text": "f([1, 2], {})\n" * 10_000})
    told = "the arguments of all calls hold more than 50,000 JSON values together: leave out old turns"
    assert len(request_parsing.messages(turns(dense, code, code, '{"open": "', "{}"))) == 5
    for refused in (turns(dense, dense), turns('{"open": "', dense, dense)):
        with pytest.raises(Refusal, match=f"^{told}$"):
            request_parsing.messages(refused)


def test_a_decision_of_many_values_is_read_as_words() -> None:
    assert session_model._said('{"allowed": true, "content": {"a": 1}}') == (True, {"a": 1})
    assert session_model._said("null") == session_model._said("perhaps") == (None, None)
    assert session_model._said('{"allowed": true, "x": [' + "{}," * 50_000 + "{}]}") == (None, None)
