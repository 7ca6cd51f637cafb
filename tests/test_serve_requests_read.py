"""Bodies of chat requests read into settings: each field, its default, its limit and its fault."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import reduce
from typing import Any

import pytest

from firsthand.grammar import Grammar
from firsthand.message import Message, Text, ToolCall, ToolResult, assistant, system, user
from firsthand.model import ModelFacts, Sampling, ToolSpec
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.anthropic.messages_schema import MessagesRequest
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.openai import request_parsing
from firsthand.serve.openai.request_schema import ChatRequest, CompletionRequest, EmbeddingRequest, read
from firsthand.serve.openai.responses_schema import ResponsesRequest, as_chat

FACTS = ModelFacts(100, 256, "hermes", False)


def chat(*messages: Any, **fields: Any) -> ChatRequest:
    return read(ChatRequest, {"messages": list(messages) or [{"role": "user", "content": "Hi"}], **fields})


def refusal(function: Any, *args: Any, **options: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        function(*args, **options)
    assert caught.value.status == 400
    return caught.value


def call(id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_a_conversation_keeps_every_part_of_each_turn() -> None:
    body = chat(
        {"role": "developer", "content": "Be"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        {
            "role": "assistant",
            "tool_calls": [call("1", "go", '{"x": 1}'), call("2", "stop", "[1]"), call("3", "up", "")],
        },
        {"role": "tool", "tool_call_id": "2", "content": "two", "name": "stop"},
        {"role": "tool", "tool_call_id": "1", "content": ""},
        {"role": "assistant", "content": "", "reasoning": "why"},
        {"role": "assistant", "content": "c", "tool_calls": [call("1", "again", "{")], "reasoning_content": "so"},
        {"role": "tool", "tool_call_id": "1", "content": "x"},
    )
    calls = (ToolCall("1", "go", {"x": 1}), ToolCall("2", "stop", {}, "[1]"), ToolCall("3", "up", {}))
    expected = [
        system("Be"),
        user("ab"),
        Message("assistant", calls),
        Message("tool", (ToolResult("2", "stop", "two"),)),
        Message("tool", (ToolResult("1", "go", ""),)),
        assistant(""),
        Message("assistant", (Text("c"), ToolCall("1", "again", {}, "{"))),
        Message("tool", (ToolResult("1", "again", "x"),)),
    ]
    assert request_parsing.messages(body.messages) == expected
    thought = request_parsing.messages(body.messages, thinks=True)
    assert thought[5].text == "<think>\nwhy\n</think>\n\n" and thought[6].text == "<think>\nso\n</think>\n\nc"
    assert thought[:5] == expected[:5]


@pytest.mark.parametrize(
    "message, field, said",
    [
        ({"role": "tool", "tool_call_id": "9", "content": "x"}, "tool_call_id", "no call of that id comes before it"),
        ({"role": "tool", "tool_call_id": "1", "name": "no", "content": "x"}, "name", "the call was of 'go'"),
        ({"role": "tool", "content": "x"}, "tool_call_id", "a tool's message, and no other"),
        ({"role": "user", "tool_call_id": "1", "content": "x"}, "tool_call_id", "a tool's message, and no other"),
        (
            {"role": "user", "content": "x", "tool_calls": [call("1", "go", "")]},
            "tool_calls",
            "only an assistant calls",
        ),
        ({"role": "user", "content": "x", "reasoning": "r"}, "reasoning_content", "only an assistant thinks"),
        (
            {"role": "tool", "tool_call_id": "1", "content": "x", "reasoning_content": "r"},
            "reasoning_content",
            "thinks",
        ),
        ({"role": "assistant"}, "content", "content is missing"),
        ({"role": "user"}, "content", "content is missing"),
    ],
)
def test_a_message_that_no_template_shows_is_refused_by_place_and_field(message: Any, field: str, said: str) -> None:
    body = chat({"role": "assistant", "tool_calls": [call("1", "go", "{}")]}, message)
    found = refusal(request_parsing.messages, body.messages)
    assert found.param == f"messages.1.{field}" and said in found.message


def test_labels_of_ordinary_clients_are_taken_and_change_nothing() -> None:
    plain = [
        {"role": "system", "content": "Be"},
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "y"},
    ]
    named = [{**each, "name": "Ann"} for each in plain]
    assert request_parsing.messages(chat(*named).messages) == request_parsing.messages(chat(*plain).messages)
    labels = {"metadata": {"a": "b"}, "safety_identifier": "u1", "prompt_cache_key": "k"}
    question = {"messages": [{"role": "user", "content": "x"}]}
    for kind, body in (
        (ChatRequest, question),
        (CompletionRequest, {"prompt": "x"}),
        (ResponsesRequest, {"input": "x"}),
    ):
        assert kind is not ResponsesRequest or as_chat(read(kind, {**body, **labels})) == as_chat(read(kind, body))
        read(kind, {**body, **labels, "store": False, "user": "u"})
        assert "metadata" in refusal(read, kind, {**body, "metadata": {"a": 1}}).message
    for field, value in (
        ("store", True),
        ("verbosity", "low"),
    ):  # these would change something
        assert refusal(read, ChatRequest, {**question, field: value}).param == field


def test_an_effort_needs_a_chat_template_that_has_it() -> None:
    asked = read(ChatRequest, {"messages": [{"role": "user", "content": "x"}], "reasoning_effort": "low"})
    for facts in (None, FACTS):
        found = refusal(request_parsing.with_effort, asked, facts)
        assert found.message.startswith("reasoning_effort is not supported: ") and found.param == "reasoning_effort"
    told = request_parsing.with_effort(asked, replace(FACTS, takes_effort=True))
    assert told.chat_template_kwargs == {"reasoning_effort": "low"}


def tool(name: str, parameters: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {"name": name, **({} if parameters is None else {"parameters": parameters}), **more},
    }


def test_tools_and_the_calls_that_are_demanded() -> None:
    shape = {"type": "object", "properties": {"a": {"type": "integer"}}}
    both = [tool("one", shape, description="Does."), tool("two")]
    empty = {"type": "object", "properties": {}}
    specs = (ToolSpec("one", "Does.", shape), ToolSpec("two", "", empty))
    named = {"type": "function", "function": {"name": "two"}}
    Tools = request_parsing.Tools
    for fields, expected in (
        ({}, Tools()),
        ({"tool_choice": "auto"}, Tools()),
        ({"tool_choice": "none"}, Tools()),
        ({"tools": both}, Tools(specs, "auto", True)),
        ({"tools": both, "tool_choice": "none"}, Tools()),
        (
            {"tools": both, "tool_choice": "required", "parallel_tool_calls": False},
            Tools(specs, "required", False),
        ),
        ({"tools": both, "tool_choice": named, "parallel_tool_calls": True}, Tools(specs, "two", True)),
        (
            {"tools": [tool("one", shape, description="Does."), tool("two", strict=True)]},
            Tools(specs, "auto", True, ("two",)),
        ),
    ):
        assert request_parsing.tools(chat(**fields)) == expected, fields
    assert [each.must_call for each in (Tools(), Tools((), "required"), Tools(specs), Tools(specs, "two"))] == [
        False, False, False, True,
    ]  # fmt: skip
    for fields, field, said in (
        ({"tool_choice": "required"}, "tool_choice", "tool_choice demands a call, and there are no tools"),
        ({"tools": both, "tool_choice": {**named, "function": {"name": "six"}}}, "tool_choice", "names 'six'"),
        ({"tools": [*both, tool("one")]}, "tools", "two tools have the same name"),
        (
            {"tools": [tool("a"), tool("b", {"type": "array"})]},
            "tools.1.function.parameters",
            "tools.1.function.parameters",
        ),
    ):
        found = refusal(request_parsing.tools, chat(**fields))
        assert found.param == field and said in found.message, fields


@pytest.mark.parametrize(
    "asked, one",
    [
        ({}, False), ({"tool_choice": "required"}, False), ({"tool_choice": "two"}, True),
        ({"tool_choice": "two", "parallel_tool_calls": True}, False),
        ({"tool_choice": "two", "parallel_tool_calls": False}, True),
        ({"tool_choice": "required", "parallel_tool_calls": False}, True),
    ],
)  # fmt: skip
def test_a_named_tool_is_called_once_unless_several_calls_are_asked_for(asked: dict[str, Any], one: bool) -> None:
    if asked.get("tool_choice") == "two":
        asked = {**asked, "tool_choice": {"type": "function", "function": {"name": "two"}}}
    tools = request_parsing.tools(chat(tools=[tool("one", strict=True), tool("two")], **asked))
    found = request_parsing.calls_grammar(tools, FACTS)
    assert found is not None and (")*" not in found.source.splitlines()[0]) is one
    assert tools.parallel is (asked.get("parallel_tool_calls") is not False), (
        "what an endpoint is told, and checked for"
    )


def test_calls_are_ruled_where_they_are_demanded_single_or_strict() -> None:
    spec = (ToolSpec("one", "", {"type": "object", "properties": {}}),)
    Tools, rule = request_parsing.Tools, request_parsing.calls_grammar
    for tools, is_ruled in (
        (Tools(), False), (Tools(spec), False), (Tools(spec, "required"), True), (Tools(spec, "one"), True),
        (Tools(spec, parallel=False), True), (Tools(spec, strict=("one",)), True),
    ):  # fmt: skip
        assert (rule(tools, FACTS) is not None) is is_ruled
        assert rule(tools, None) is None
    found = refusal(rule, Tools(spec, "one"), replace(FACTS, markup=None))
    assert found.param == "tool_choice" and "is not known, so that none can be demanded" in found.message
    assert rule(Tools(spec), replace(FACTS, markup=None)) is None


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, ("json_schema", '"object"')),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "null"}}}},
            ("json_schema", "null"),
        ),
        ({"structured_outputs": {"json_object": True}}, ("json_schema", '"object"')),
        ({"structured_outputs": {"json": '{"type": "number"}'}}, ("json_schema", '{"type": "number"}')),
        ({"structured_outputs": {"json": True}}, ("json_schema", "true")),
        ({"structured_outputs": {"regex": "b+", "json_object": False}}, ("regex", "b+")),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, ("choice", "yes")),
        ({"guided_grammar": 'root ::= "a"'}, ("gbnf", "root")),
        ({"guided_grammar": 'start: "a"'}, ("lark", "start")),
        ({"guided_json": {"type": "string"}}, ("json_schema", "string")),
        ({"guided_regex": "a"}, ("regex", "a")),
        ({"guided_choice": ["x"]}, ("choice", "x")),
    ],
)
def test_each_field_that_rules_an_answer_gives_its_grammar(fields: Any, expected: Any) -> None:
    body = chat(**fields)
    found = request_parsing.structure(body, body.response_format)
    if expected is None:
        assert found is None
    else:
        assert isinstance(found, Grammar) and found.kind == expected[0] and expected[1] in str(found.source)


def test_two_rules_or_none_in_a_field_for_one_are_refused() -> None:
    for fields, field, said in (
        (
            {"response_format": {"type": "json_object"}, "guided_regex": "a"},
            "guided_regex",
            "response_format and guided_regex",
        ),
        ({"structured_outputs": {}}, "structured_outputs", "exactly one of json, regex"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs", "exactly one of json"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "schema is missing"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "response_format.json_schema",
            "missing",
        ),
        ({"guided_choice": []}, "guided_choice", ""),
        ({"structured_outputs": {"json_object": False}}, "structured_outputs", "exactly one"),
    ):
        body = chat(**fields)
        found = refusal(request_parsing.structure, body, body.response_format)
        assert found.param == field and said in found.message, fields


LIMITS = ClientLimits(max_tokens=50, max_answers=3, min_priority=-2)


def settings(facts: ModelFacts | None = None, most: int | None = None, **fields: Any) -> Sampling:
    body = chat(**fields)
    return request_parsing.sampling(body, LIMITS, max_tokens=most, top_logprobs=4, grammar=None, facts=facts)


def test_every_setting_of_a_request_reaches_the_sampler() -> None:
    fields = {
        "temperature": 0.25, "top_k": 7, "top_p": 0.5, "min_p": 0.125, "repetition_penalty": 1.5, "presence_penalty": 0.75,
        "frequency_penalty": -0.5, "seed": 11, "stop": ["a", "", "b"], "logit_bias": {"5": 2.5, "3": -1}, "priority": -2,
        "stop_token_ids": [9, 8], "ignore_eos": True, "min_tokens": 6, "allowed_token_ids": [1, 2], "bad_words": ["w"],
        "skip_special_tokens": False, "include_stop_str_in_output": True, "n": 3,
    }  # fmt: skip
    assert settings(most=50, max_tokens=50, **fields) == Sampling(
        max_tokens=50, temperature=0.25, top_k=7, top_p=0.5, min_p=0.125, repetition_penalty=1.5, presence_penalty=0.75,
        frequency_penalty=-0.5, seed=11, stop=("a", "b"), top_logprobs=4, logit_bias=((5, 2.5), (3, -1.0)),
        stop_ids=(9, 8), ignore_eos=True, min_tokens=6, allowed_token_ids=(1, 2), bad_words=("w",),
        skip_special_tokens=False, include_stop_str_in_output=True,
    )  # fmt: skip
    assert settings() == Sampling(max_tokens=50, temperature=1.0, top_logprobs=4)
    assert settings(top_k=-1, stop="x").top_k == 0 and settings(stop="x").stop == ("x",)
    assert settings(most=0, max_tokens=0).max_tokens == 1


def test_what_authors_recommend_holds_for_a_bare_request_alone() -> None:
    advised = replace(FACTS, recommended={"temperature": 0.5, "top_k": 20.0, "top_p": 0.75, "min_p": 0.25,
                                          "repetition_penalty": 1.25, "max_tokens": 30})  # fmt: skip
    bare = Sampling(
        max_tokens=30, temperature=0.5, top_k=20, top_p=0.75, min_p=0.25, repetition_penalty=1.25, top_logprobs=4
    )
    assert settings(advised) == bare and settings(advised, seed=1) == replace(bare, seed=1)
    assert settings(advised, most=40, max_tokens=40) == replace(bare, max_tokens=40)
    assert settings(advised, temperature=0) == Sampling(max_tokens=30, temperature=0.0, top_logprobs=4)
    for name, value in (("top_k", 0), ("top_p", 1.0), ("min_p", 0.0), ("repetition_penalty", 1.0)):
        assert settings(advised, **{name: value}) == Sampling(max_tokens=30, temperature=1.0, top_logprobs=4), name
    assert settings(replace(FACTS, recommended={"max_tokens": 80})).max_tokens == 50
    assert settings(advised, min_tokens=30).min_tokens == 30


@pytest.mark.parametrize(
    "most, fields, field, said",
    [
        (51, {"max_tokens": 51}, "max_tokens", "max_tokens is 51: at most 50 are given"),
        (51, {"max_completion_tokens": 51}, "max_completion_tokens", "max_completion_tokens is 51"),
        (None, {"n": 4}, "n", "n is 4: at most 3 answers are given"),
        (None, {"priority": -3}, "priority", "priority is -3: at least -2 is taken"),
        (None, {"stop": ["a", "x" * 1025]}, "stop", "more than 1024 characters"),
        (None, {"stream_options": {"include_usage": True}}, "stream_options", "only for streams"),
        (10, {"max_tokens": 10, "min_tokens": 11}, "min_tokens", "min_tokens is 11: the answer has at most 10"),
        (None, {"min_tokens": 51}, "min_tokens", "the answer has at most 50"),
        (None, {"logit_bias": {"1234567890": 1}}, "logit_bias", "a token id was expected"),
        (None, {"logit_bias": {"\u0663": 1}}, "logit_bias", "a token id was expected"),
        (None, {"logit_bias": {"-1": 1}}, "logit_bias", "a token id was expected"),
    ],
)
def test_a_setting_beyond_the_clients_limit_is_refused(most: Any, fields: Any, field: str, said: str) -> None:
    found = refusal(settings, most=most, **fields)
    assert found.param == field and said in found.message


def test_settings_at_their_limits_are_taken() -> None:
    assert settings(stop="x" * 1024).stop == ("x" * 1024,)
    assert settings(logit_bias={"123456789": 1}).logit_bias == ((123456789, 1.0),)
    assert settings(stream=True, stream_options={"include_usage": True}).max_tokens == 50
    assert settings(most=10, max_tokens=10, min_tokens=10).min_tokens == 10


def test_the_first_field_that_only_our_own_models_obey_is_named() -> None:
    for fields, expected in (
        ({}, None), ({"skip_special_tokens": True}, None),
        ({"skip_special_tokens": False, "logprobs": True}, "skip_special_tokens"),
        ({"logprobs": False}, None), ({"logprobs": True, "priority": 1}, "logprobs"), ({"top_logprobs": 0}, "top_logprobs"),
        ({"priority": 0}, "priority"), ({"min_tokens": 0}, None), ({"min_tokens": 1}, "min_tokens"),
        ({"bad_words": []}, None),
        ({"bad_words": ["a"]}, "bad_words"), ({"chat_template_kwargs": {}}, None),
        ({"chat_template_kwargs": {"a": 1}}, "chat_template_kwargs"),
        ({"ignore_eos": False}, None), ({"return_token_ids": True}, "return_token_ids"), ({"cache_salt": "s"}, "cache_salt"),
        ({"logit_bias": {}}, "logit_bias"), ({"stop_token_ids": []}, "stop_token_ids"),
        ({"prompt_logprobs": 0}, "prompt_logprobs"),
        ({"include_stop_str_in_output": True}, "include_stop_str_in_output"),
        ({"allowed_token_ids": [1]}, "allowed_token_ids"),
    ):  # fmt: skip
        assert request_parsing.needs_tokens(chat(**fields)) == expected, fields
    assert request_parsing.needs_tokens(read(CompletionRequest, {"prompt": "x", "logprobs": 0})) == "logprobs"


RESULT = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [
    {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "x"}]}]}]}  # fmt: skip
CALLING = {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}


@pytest.mark.parametrize(
    "kind, body, field, code, said",
    [
        (ChatRequest, {}, "messages", "missing_required_parameter", "the field 'messages' is missing"),
        (ChatRequest, {"messages": []}, "messages", "invalid_value", "messages is an empty list: give one or more"),
        (ChatRequest, {"messages": [{"role": "user", "content": "x"}], "temprature": 1}, "temprature", "unknown_parameter",
         "the field 'temprature' is not known: did you mean temperature?"),
        (ChatRequest, {"messages": [{"role": "user", "content": "x", "contnt": 1}]}, "messages.0.contnt",
        "unknown_parameter",
         "the field 'messages.0.contnt' is not known here"),
        (ChatRequest, {"messages": [{"role": "user", "content": "x"}], "n": 1.5}, "n", "invalid_value", "n is 1.5: "),
        (ChatRequest, {"messages": [{"role": "user", "content": "x"}], "best_of": 2}, "best_of", "unsupported_parameter",
         "best_of is not supported: ask for n answers and choose"),
        (ChatRequest, {"messages": [{"role": "user", "content": "x"}], "best_of": True}, "best_of", "unsupported_parameter",
         "best_of is not supported"),
        (ChatRequest, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0.type",
         "invalid_value", "messages.0.content.0.type is 'image_url': this server takes text only, so leave it out"),
        (ChatRequest, {"messages": [{"role": "user", "content": [{"type": "text", "text": None}]}]},
         "messages.0.content.0.text", "invalid_value", "messages.0.content.0.text is None: "),
        (EmbeddingRequest, {"input": ["x"] * 2049}, "input", "invalid_value",
        "input is a list of more than 2,048: give fewer"),
        (EmbeddingRequest, {"input": {"a": 1}}, "input", "invalid_value", "input is a object: "),
        (CompletionRequest, {"prompt": [[1, -1]]}, "prompt.0.1", "invalid_value", "prompt.0.1 is -1: "),
    ],
)  # fmt: skip
def test_the_fault_of_a_body_is_named_by_field_code_and_value(
    kind: Any, body: Any, field: str, code: str, said: str
) -> None:
    found = refusal(read, kind, body)
    assert (found.param, found.code) == (field, code) and found.message.startswith(said), found.message


def test_results_belong_to_any_call_before_them_and_a_field_counts_by_what_it_says() -> None:
    asks = [{"role": "assistant", "tool_calls": [call(id, name, "{}")]} for id, name in (("1", "go"), ("2", "up"))]
    given = [
        {"role": "tool", "tool_call_id": id, "content": text} for id, text in (("1", "one"), ("2", "two"), ("1", "x"))
    ]
    found = request_parsing.messages(chat(asks[0], {"role": "user", "content": "?"}, asks[1], *given).messages)
    assert [each.parts for each in found[3:]] == [
        (ToolResult("1", "go", "one"),), (ToolResult("2", "up", "two"),), (ToolResult("1", "go", "x"),),
    ]  # fmt: skip
    same = {"role": "assistant", "tool_calls": [call("1", "up", "{}")]}
    (*_, last) = request_parsing.messages(chat(asks[0], same, given[0]).messages)
    assert last.parts == (ToolResult("1", "up", "one"),), "the last call of an id has the result"
    both = {"role": "assistant", "content": "a", "reasoning_content": "first", "reasoning": "second"}
    thinking = request_parsing.messages(chat(both).messages, thinks=True)
    assert thinking == [Message("assistant", (Text("<think>\nfirst\n</think>\n\na"),))]
    empty = refusal(request_parsing.messages, chat({"role": "user", "content": "a", "tool_call_id": ""}).messages)
    assert (empty.message, empty.param) == (
        "messages.0.tool_call_id does not belong to the role user: a tool's message, and no other, says whose result it is",
        "messages.0.tool_call_id",
    )  # fmt: skip
    loose = {"properties": {"x": {"type": "string"}}}
    tools = chat(tools=[{"type": "function", "function": {"name": "go", "parameters": loose}}]).tools
    assert request_parsing.specs(tools) == (ToolSpec("go", "", loose),)
    limits = ClientLimits(max_tokens=50)
    rest: Any = {"top_logprobs": 0, "grammar": None}
    made = request_parsing.sampling(chat(stop="é" * 1024), limits, max_tokens=50, **rest)
    assert (made.stop, made.max_tokens) == (("é" * 1024,), 50)
    body = chat(max_tokens=3, max_completion_tokens=51)
    told = refusal(request_parsing.sampling, body, limits, max_tokens=51, **rest)
    assert (told.message, told.param, told.code) == (
        "max_completion_tokens is 51: at most 50 are given", "max_completion_tokens", "invalid_value",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "body", "at"),
    [
        (ChatRequest, {"messages": [{"role": "user", "content": "x"}]}, ("messages", 0)),
        (ChatRequest, {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
         ("messages", 0, "content", 0)),
        (ChatRequest, {"messages": [CALLING]}, ("messages", 0, "tool_calls", 0)),
        (ChatRequest, {"messages": [CALLING]}, ("messages", 0, "tool_calls", 0, "function")),
        (ResponsesRequest, {"input": [{"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}]},
         ("input", 0)),
        (ResponsesRequest, {"input": [{"type": "reasoning", "content": [{"type": "reasoning_text", "text": "x"}]}]},
         ("input", 0, "content", 0)),
        (ResponsesRequest, {"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}]},
         ("input", 0, "content", 0)),
        (MessagesRequest, RESULT, ("messages", 0)), (MessagesRequest, RESULT, ("messages", 0, "content", 0)),
        (MessagesRequest, RESULT, ("messages", 0, "content", 0, "content", 0)),
    ],
)  # fmt: skip
def test_a_null_in_an_unknown_field_of_a_conversation_asks_for_nothing(
    kind: Any, body: Any, at: tuple[str | int, ...]
) -> None:
    plain, body = read(kind, body), json.loads(json.dumps(body))
    inner = reduce(lambda each, step: each[step], at, body)
    inner |= {"async_": None, "namespace": None}
    assert read(kind, body) == plain
    for value in ("", 0, False, [], {}):
        inner["namespace"] = value
        assert str(refusal(read, kind, body).param).startswith(".".join(map(str, at)))
