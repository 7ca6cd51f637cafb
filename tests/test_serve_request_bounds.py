"""Every bound of a request's fields, at the bound and beyond it, and the fields that ask for what there is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from firsthand import grammar
from firsthand.errors import ConfigError
from firsthand.grammar import Grammar
from firsthand.sampling import MAX_ALLOWED, MAX_BAD_WORDS, MAX_WORD_CHARS
from firsthand.serve.anthropic.messages_schema import MessagesRequest
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.openai import request_parsing
from firsthand.serve.openai.adapter_routes import LoadAdapterRequest, UnloadAdapterRequest
from firsthand.serve.openai.openai_settings import OpenAISettings
from firsthand.serve.openai.request_schema import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    TokenizeRequest,
    _is_place,
    _kind,
    read,
)
from firsthand.serve.openai.responses_schema import ResponsesRequest

HI = [{"role": "user", "content": "Hi"}]
LEAST: dict[type[Any], dict[str, Any]] = {
    ChatRequest: {"messages": HI},
    CompletionRequest: {"prompt": "x"},
    EmbeddingRequest: {"input": "x"},
    ResponsesRequest: {"input": "x"},
    MessagesRequest: {"model": "m", "max_tokens": 1, "messages": HI},
    TokenizeRequest: {},
    DetokenizeRequest: {"tokens": []},
    LoadAdapterRequest: {"lora_name": "n", "lora_path": "p"},
}
INT, LONG = 2**31 - 1, 2**63
TOOL = {"type": "function", "function": {"name": "go"}}


def fault(kind: type[Any], **fields: Any) -> Refusal | None:
    try:
        read(kind, LEAST[kind] | fields)
    except Refusal as refusal:
        assert refusal.status == 400
        return refusal
    return None


def test_every_number_is_taken_at_its_bounds_and_refused_beyond_them() -> None:
    for kind, field, fine, wrong in (
        (ChatRequest, "temperature", (0, 99.9), (-0.1, 100)), (ChatRequest, "top_p", (0.01, 1), (0, 1.01)),
        (ChatRequest, "n", (1, INT), (0, INT + 1, 1.0, True)), (ChatRequest, "seed", (-LONG, LONG - 1), (-LONG - 1, LONG)),
        (ChatRequest, "max_tokens", (0, INT), (-1, INT + 1)), (ChatRequest, "max_completion_tokens", (1, INT), (0, INT + 1)),
        (ChatRequest, "presence_penalty", (-100, 100), (-100.1, 100.1)),
        (ChatRequest, "frequency_penalty", (-100, 100), (-100.1, 100.1)), (ChatRequest, "top_k", (-1, INT), (-2, INT + 1)),
        (ChatRequest, "min_p", (0, 1), (-0.1, 1.1)), (ChatRequest, "repetition_penalty", (0.01, 100), (0, 100.1)),
        (ChatRequest, "min_tokens", (0, INT), (-1, INT + 1)), (ChatRequest, "priority", (-1000, 1000), (-1001, 1001)),
        (ChatRequest, "prompt_logprobs", (0, 20), (-1, 21)), (ChatRequest, "top_logprobs", (0, 20), (-1, 21)),
        (ChatRequest, "logprobs", (True, False), (1, 0)), (CompletionRequest, "logprobs", (0, 20), (-1, 21, True)),
        (ChatRequest, "stream", (True, None), (1, "true")), (ChatRequest, "echo", (), (True,)),
        (CompletionRequest, "echo", (True,), ("yes",)), (ResponsesRequest, "max_output_tokens", (1, INT), (0, INT + 1)),
        (ResponsesRequest, "temperature", (0, 99.9), (-0.1, 100)), (ResponsesRequest, "top_p", (0.01, 1), (0, 1.01)),
        (MessagesRequest, "max_tokens", (1, INT), (0, INT + 1, None)),
    ):  # fmt: skip
        for value in fine:
            assert fault(kind, **{field: value}) is None, (field, value)
        for value in wrong:
            found = fault(kind, **{field: value})
            assert found is not None and found.param == field, (field, value)


def test_every_text_and_list_is_taken_at_its_length_and_refused_beyond_it() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "go", "arguments": "{}"}}

    def said(**fields: Any) -> list[Any]:
        return [{"role": "assistant", "content": "x", **fields}]

    for kind, field, at_bound, beyond in (
        (ChatRequest, "model", "x" * 512, "x" * 513), (ChatRequest, "user", "x" * 128, "x" * 129),
        (ChatRequest, "cache_salt", "x" * 128, "x" * 129), (ChatRequest, "cache_salt", "x", ""),
        (ChatRequest, "stop", [""] * 64, [""] * 65), (ChatRequest, "stop_token_ids", [INT] * 64, [0] * 65),
        (ChatRequest, "stop_token_ids", [0], [-1]), (ChatRequest, "stop_token_ids", [INT], [INT + 1]),
        (ChatRequest, "allowed_token_ids", [0] * MAX_ALLOWED, [0] * (MAX_ALLOWED + 1)),
        (ChatRequest, "allowed_token_ids", [0], []), (ChatRequest, "bad_words", ["x"] * MAX_BAD_WORDS,
                                                      ["x"] * (MAX_BAD_WORDS + 1)),
        (ChatRequest, "bad_words", ["x" * MAX_WORD_CHARS], ["x" * (MAX_WORD_CHARS + 1)]),
        (ChatRequest, "bad_words", [], [""]),
        (ChatRequest, "logit_bias", {str(at): 100 for at in range(1024)}, {str(at): 0 for at in range(1025)}),
        (ChatRequest, "logit_bias", {"1": -100}, {"1": -100.5}), (ChatRequest, "logit_bias", {"1": 100}, {"1": 100.5}),
        (ChatRequest, "guided_choice", ["x"] * 2048, ["x"] * 2049),
        (ChatRequest, "chat_template_kwargs", {str(at): 0 for at in range(16)}, {str(at): 0 for at in range(17)}),
        (ChatRequest, "tools", [TOOL] * 128, [TOOL] * 129), (ChatRequest, "messages", HI * 4096, HI * 4097),
        (ChatRequest, "messages", said(tool_calls=[call] * 1024), said(tool_calls=[call] * 1025)),
        (ChatRequest, "messages", said(tool_calls=[call | {"id": "x" * 256}]), said(tool_calls=[call | {"id": "x" * 257}])),
        (ChatRequest, "messages", said(tool_calls=[call]), said(tool_calls=[call | {"id": ""}])),
        (ChatRequest, "messages", said(annotations=[], refusal=None), said(annotations=[1])),
        (ChatRequest, "messages", said(audio=None), said(audio={"id": "1"})),
        (ChatRequest, "tools", [{"type": "function", "function": {"name": "x" * 64}}],
         [{"type": "function", "function": {"name": "x" * 65}}]),
        (ChatRequest, "tools", [{"type": "function", "function": {"name": "a-Z_9"}}],
         [{"type": "function", "function": {"name": "a b"}}]),
        (ChatRequest, "tools", [TOOL], [{"type": "function", "function": {"name": ""}}]),
        (ChatRequest, "response_format", {"type": "json_schema", "json_schema": {"name": "x" * 64, "schema": True}},
         {"type": "json_schema", "json_schema": {"name": "x" * 65, "schema": True}}),
        (ChatRequest, "stream_options", {"include_usage": True, "include_obfuscation": False},
         {"include_obfuscation": True}),
        (CompletionRequest, "prompt", ["x"] * 2048, ["x"] * 2049), (CompletionRequest, "prompt", [0, INT], [INT + 1]),
        (CompletionRequest, "prompt", [[1]] * 2048, [[1]] * 2049), (CompletionRequest, "prompt", "", []),
        (EmbeddingRequest, "input", ["x"] * 2048, ["x"] * 2049), (EmbeddingRequest, "input", ["x"], []),
        (EmbeddingRequest, "encoding_format", "base64", "int8"), (EmbeddingRequest, "user", "x" * 128, "x" * 129),
        (TokenizeRequest, "messages", HI, []), (DetokenizeRequest, "tokens", [INT], [-1]),
        (ChatRequest, "metadata", {str(at): "" for at in range(16)}, {str(at): "" for at in range(17)}),
        (CompletionRequest, "prompt_cache_key", "k" * 512, "k" * 513),
        (ResponsesRequest, "safety_identifier", "k" * 512, "k" * 513),
        (ResponsesRequest, "metadata", {str(at): "" for at in range(16)}, {str(at): "" for at in range(17)}),
        (ResponsesRequest, "previous_response_id", "x" * 128, "x" * 129), (ResponsesRequest, "user", "x" * 128, "x" * 129),
        (LoadAdapterRequest, "lora_name", "a-Z.9_@:/+", "a b"), (LoadAdapterRequest, "lora_name", "x" * 256, "x" * 257),
        (LoadAdapterRequest, "lora_path", "x" * 4096, "x" * 4097), (LoadAdapterRequest, "lora_path", "x", ""),
        (LoadAdapterRequest, "load_inplace", True, 1),
    ):  # fmt: skip
        assert fault(kind, **{field: at_bound}) is None, (field, str(at_bound)[:40])
        found = fault(kind, **{field: beyond})
        assert found is not None and str(found.param).startswith(field), (field, str(beyond)[:40])
    assert read(UnloadAdapterRequest, {"lora_name": "n", "lora_int_id": None}).lora_name == "n"
    with pytest.raises(Refusal):
        read(UnloadAdapterRequest, {"lora_name": "n", "lora_int_id": 1})


def test_every_part_of_a_message_and_of_a_response_has_its_own_bounds() -> None:
    def turn(**block: Any) -> list[Any]:
        return [{"role": "user", "content": [block]}]

    def tool(**fields: Any) -> list[Any]:
        return [{"name": "go", "input_schema": {}, **fields}]

    def function(**fields: Any) -> list[Any]:
        return [{"type": "function", "name": "go", **fields}]

    marked = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "5m"}}
    for kind, field, fine, wrong in (
        (MessagesRequest, "messages", HI * 4096, HI * 4097), (MessagesRequest, "messages", HI, []),
        (MessagesRequest, "messages", turn(**marked),
         turn(**marked | {"cache_control": {"type": "ephemeral", "ttl": "2h"}})),
        (MessagesRequest, "messages", turn(type="text", text="x", citations=[]),
         turn(type="text", text="x", citations=[{}])),
        (MessagesRequest, "messages", turn(type="tool_use", id="x" * 256, name="n" * 256, input={}),
         turn(type="tool_use", id="x" * 257, name="n", input={})),
        (MessagesRequest, "messages", turn(type="tool_use", id="x", name="", input={}),
         turn(type="tool_use", id="", name="n", input={})),
        (MessagesRequest, "messages", turn(type="tool_use", id="x", name="n" * 256, input={}),
         turn(type="tool_use", id="x", name="n" * 257, input={})),
        (MessagesRequest, "messages", [{"role": "system", "content": "x"}], [{"role": "developer", "content": "x"}]),
        (MessagesRequest, "model", "x" * 512, "x" * 513), (MessagesRequest, "tools", tool() * 128, tool() * 129),
        (MessagesRequest, "tools", tool(type="custom"), tool(type="bash_20250124")),
        (MessagesRequest, "tools", tool(defer_loading=False, input_examples=[]), tool(defer_loading=True)),
        (MessagesRequest, "tools", tool(input_examples=[]), tool(input_examples=[{}])),
        (MessagesRequest, "tools", tool(name="x" * 64), tool(name="x" * 65)),
        (MessagesRequest, "metadata", {"user_id": "x" * 1024}, {"user_id": "x" * 1025}),
        (MessagesRequest, "output_config", {"effort": "high"}, {"effort": "low"}),
        (MessagesRequest, "output_config", {"format": {"type": "json_schema", "schema": {}}}, {"format": {"type": "text"}}),
        (MessagesRequest, "thinking", {"type": "adaptive", "display": "summarized"},
         {"type": "adaptive", "display": "full"}),
        (MessagesRequest, "tool_choice", {"type": "any", "disable_parallel_tool_use": True}, {"type": "required"}),
        (MessagesRequest, "chat_template_kwargs", {str(at): 0 for at in range(16)}, {str(at): 0 for at in range(17)}),
        (MessagesRequest, "cache_control", {"type": "ephemeral", "ttl": "1h"}, {"type": "lasting"}),
        (ResponsesRequest, "tools", function() * 128, function() * 129),
        (ResponsesRequest, "tools", function(name="x" * 64), function(name="x" * 65)),
        (ResponsesRequest, "tools", function(strict=True), [{"type": "web_search"}]),
        (ResponsesRequest, "input", HI * 4096, HI * 4097), (ResponsesRequest, "input", HI, []),
        (ResponsesRequest, "input", [{"type": "reasoning", "summary": []}], [{"type": "reasoning", "summary": ["x"]}]),
        (ResponsesRequest, "input", [{"role": "developer", "content": "x"}], [{"role": "tool", "content": "x"}]),
        (ResponsesRequest, "model", "x" * 512, "x" * 513),
        (ResponsesRequest, "reasoning", {"effort": "low"}, {"summary": "auto"}),
        (ResponsesRequest, "tool_choice", {"type": "function", "name": "go"}, "go"),
        (ResponsesRequest, "text", {"format": {"type": "json_object"}, "verbosity": None}, {"verbosity": "low"}),
        (ResponsesRequest, "metadata", {"k" * 64: "v" * 512}, {"k" * 65: ""}),
        (ResponsesRequest, "metadata", {}, {"k": "v" * 513}),
    ):  # fmt: skip
        assert fault(kind, **{field: fine}) is None, (field, str(fine)[:60])
        found = fault(kind, **{field: wrong})
        assert found is not None and str(found.param).startswith(field), (field, str(wrong)[:60])


def test_what_there_is_not_is_refused_with_the_reason_unless_it_asks_for_nothing() -> None:
    nothing: tuple[Any, ...] = (None, False, [], {})
    for field, reason, neutral, wrong in (
        ("functions", "use tools", nothing, ([{}], 0, True)),
        ("function_call", "use tool_choice", (*nothing, "none"), ("auto",)),
        ("audio", "this server answers in text", nothing, ({"a": 1},)),
        ("modalities", "this server answers in text", (None, ["text"]), (["audio"], [], "text")),
        ("store", "only responses are stored", nothing, (True,)),
        ("service_tier", "there is one tier", (None, "auto", "default", "standard_only"), ("flex", False)),
        ("best_of", "ask for n answers and choose", (None, 1), (2, 1.0, True)),
        ("suffix", "the model continues texts and does not fill gaps", (None, ""), ("x",)),
        ("spaces_between_special_tokens", "tokens are joined as they are", (None, True), (False, 1)),
        ("add_generation_prompt", "the assistant speaks next", (None, True), (False,)),
        ("continue_final_message", "use /v1/completions to continue a text", (None, False), (True,)),
        ("length_penalty", "there is no beam search", (None, 1.0), (2.0, 1)),
        ("n_discard", "a context is never shifted", (None, 0), (1, False)),
        ("truncation", "a prompt that is too long is refused", (None, "disabled"), ("auto",)),
        ("previous_response_id", "send the whole conversation, or use /v1/responses", (None,), ("resp_1",)),
        ("speed", "there is one speed", (None, "standard"), ("fast",)),
        ("dimensions", "the vectors keep the model's own length", (None,), (3,)),
    ):  # fmt: skip
        for value in neutral:
            assert fault(ChatRequest, **{field: value}) is None, (field, value)
        for value in wrong:
            found = fault(ChatRequest, **{field: value})
            assert found is not None, (field, value)
            assert (found.message, found.param, found.code) == (
                f"{field} is not supported: {reason}", field, "unsupported_parameter",
            )  # fmt: skip
    assert fault(ResponsesRequest, store=True, metadata={"a": "b"}) is None, "what a kind has is its own"
    assert fault(ChatRequest, store=False, functions=[], unknwn=1).message == "the field 'unknwn' is not known here"  # type: ignore[union-attr]


def test_the_fault_that_is_told_is_the_deepest_and_an_unknown_field_comes_first() -> None:
    for fields, message, param, code in (
        ({"temprature": 1, "n": 0}, "the field 'temprature' is not known: did you mean temperature?", "temprature",
         "unknown_parameter"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "the field 'messages.0.content.0.text' is missing",
         "messages.0.content.0.text", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": [{"type": "audio", "text": "x"}]}]},
         "messages.0.content.0.type is 'audio': this server takes text only, so leave it out", "messages.0.content.0.type",
         "invalid_value"),
        ({"tools": [TOOL] * 129}, "tools is a list of more than 128: give fewer", "tools", "invalid_value"),
        ({"messages": []}, "messages is an empty list: give one or more", "messages", "invalid_value"),
        ({"tools": [{"type": "function", "function": {"name": "go", "x": 1}}]},
         "the field 'tools.0.function.x' is not known here", "tools.0.function.x", "unknown_parameter"),
    ):  # fmt: skip
        found = fault(ChatRequest, **fields)
        assert found is not None and (found.message, found.param, found.code) == (message, param, code)
    shown = fault(ChatRequest, user=["x"])
    assert shown is not None and shown.message == "user is a list: Input should be a valid string"
    long = fault(ChatRequest, n="y" * 200)
    assert long is not None and long.message == f"n is {repr('y' * 200)[:80]}: Input should be a valid integer"
    many = fault(ChatRequest, **{f"zz{at}": at for at in range(70)})
    assert many is not None and many.message == "the field 'zz0' is not known here"
    assert [_is_place(step) for step in (0, "content", "str", "TextPart", "a b", "x" * 80, "x" * 81, "list[int]")] == [
        True, True, False, False, False, True, False, False,
    ]  # fmt: skip
    assert [_kind(each) for each in ({}, [], "", 1, None)] == ["object", "list", "str", "int", "NoneType"]


def test_a_rule_of_an_answer_is_read_by_its_kind_and_refused_by_its_field() -> None:
    lark, gbnf = 'start: "a"', 'root ::= "a"'
    for kind, value, expected in (
        ("json_object", True, grammar.json_schema({"type": "object"})), ("json", {"type": "array"},
                                                                         grammar.json_schema({"type": "array"})),
        ("json", '{"type": "array"}', Grammar("json_schema", '{"type": "array"}')),
        ("json", True, grammar.json_schema(True)),
        ("choice", ["a", "b"], grammar.choice(["a", "b"])), ("regex", "a+", grammar.regex("a+")),
        ("grammar", lark, grammar.lark(lark)), ("grammar", gbnf, grammar.gbnf(gbnf)),
        *(("grammar", text, grammar.gbnf(text)) for text in ('root::="a"', 'root  ::= b\nb::="c"', 'b ::= "c"\nroot::=b')),
    ):  # fmt: skip
        assert request_parsing._grammar(kind, value, "f") == expected, kind
    for kind, value in (("json", 3), ("choice", "a"), ("regex", ["a"]), ("grammar", None), ("else", "a")):
        with pytest.raises(Refusal) as caught:
            request_parsing._grammar(kind, value, "guided_x")
        assert (caught.value.message, caught.value.param) == (f"guided_x cannot be read as {kind}", "guided_x")
    with pytest.raises(Refusal) as caught:
        request_parsing._grammar("choice", [], "guided_choice")
    assert caught.value.param == "guided_choice" and caught.value.status == 400


def test_settings_of_the_openai_routes_are_checked_at_their_ends(tmp_path: Path) -> None:
    made = OpenAISettings(stored_responses=0, stored_bytes=0, adapter_root=tmp_path)
    assert (made.private_caches, OpenAISettings().stored_responses, OpenAISettings().stored_bytes) == (
        False,
        1024,
        64 << 20,
    )
    for fields, said in (
        ({"stored_responses": -1}, "stored_responses is -1: give 0 or more"),
        ({"stored_bytes": -5}, "stored_bytes is -5: give 0 or more"),
        ({"adapter_root": tmp_path / "no"}, f"adapter_root is {str(tmp_path / 'no')!r}: give a folder that is there"),
    ):
        with pytest.raises(ConfigError) as caught:
            OpenAISettings(**fields)  # type: ignore[arg-type]
        assert str(caught.value) == said
