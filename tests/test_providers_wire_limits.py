"""Requests and replies of three protocols at their limits: several items, odd types, halves of surrogate pairs, zeros."""

import asyncio
import math

import pytest

from firsthand.errors import ConfigError, ModelError
from firsthand.grammar import Grammar
from firsthand.message import Message, Reasoning, Sampled, Text, ToolCall, ToolResult, assistant, system, user
from firsthand.model import CallDelta, Completion, Likelihood, Sampling, ToolSpec, Usage
from firsthand.providers import anthropic_wire, google_wire
from firsthand.providers import openai_wire as wire
from firsthand.providers.openai_request import messages, request
from firsthand.providers.reported_usage import count, read_usage
from firsthand.providers.sse_events import sse_data

ADD, SUB = ToolSpec("add", "Adds.", {"type": "object"}), ToolSpec("sub", "Takes.", {"type": "object", "title": "s"})
CALL = ToolCall("c1", "add", {"a": 1})
LONE, MENDED = "\ud800é", "\ufffdé"


def text(said):
    return {"type": "text", "text": said}


def test_a_request_to_openai_holds_each_tool_bias_and_a_seed_of_31_bits():
    sampling = Sampling(
        max_tokens=3, seed=2**31 - 1, logit_bias=((7, -1.5), (9, 0.0)), grammar=Grammar("gbnf", 'root ::= "a"')
    )
    assert request("m", [user("Hi")], sampling, [ADD, SUB], 1, token_ids=False, limit="most") == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "most": 3,
        "temperature": 0.0,
        "tools": [ADD.to_json(), SUB.to_json()],
        "seed": 2**31 - 1,
        "logit_bias": {"7": -1.5, "9": 0.0},
        "structured_outputs": {"grammar": 'root ::= "a"'},
    }
    with pytest.raises(ConfigError) as refused:
        request("m", "Hi", sampling, [ADD], 1, token_ids=False, limit="most")
    assert str(refused.value) == (
        "tools were given with a plain-text prompt: give a conversation, or leave the tools out"
    )


def test_results_come_before_the_text_beside_them_and_an_empty_message_stays():
    result = ToolResult("c1", "add", "3")
    told = {"role": "tool", "tool_call_id": "c1", "content": "3"}
    assert messages([Message("assistant", (result, Text("a"), Text("b")))]) == [
        told,
        {"role": "assistant", "content": "ab"},
    ]
    assert messages([Message("tool", (result, Text("")))]) == [told]
    assert messages([Message("tool", (Text("x"), result))]) == [told, {"role": "user", "content": "x"}]
    assert messages([Message("user", ()), assistant("", CALL)]) == [
        {"role": "user", "content": ""},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
        },
    ]


def test_only_the_end_of_an_answer_to_go_on_with_loses_its_white_space():
    def turns(*conversation):
        return [(turn["role"], turn["content"]) for turn in anthropic_wire.messages(conversation)]

    assert turns(user("u "), assistant("a "), user("v ")) == [
        ("user", [text("u ")]),
        ("assistant", [text("a ")]),
        ("user", [text("v ")]),
    ]
    last = Message("assistant", (Text(" a "), Text(" b \n")))
    assert turns(user("u "), assistant("x "), user("v"), last)[3] == ("assistant", [text(" a "), text(" b")])
    called = Message("assistant", (Text("a "), CALL))
    use = {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}}
    assert turns(user("u"), called)[1] == ("assistant", [text("a "), use])
    body = anthropic_wire.request("m", [user("u")], Sampling(max_tokens=2), [ADD, SUB], stream=False)
    assert body["tools"] == [
        {"name": "add", "description": "Adds.", "input_schema": {"type": "object"}},
        {"name": "sub", "description": "Takes.", "input_schema": {"type": "object", "title": "s"}},
    ]
    assert "tool_choice" not in body


def test_a_reply_of_anthropic_is_cleaned_and_what_makes_no_sense_in_it_is_refused_or_zero():
    found = anthropic_wire.read_completion(
        {
            "content": [{"type": "thinking", "thinking": LONE, "n": 3}, text(LONE), text(""), text(5)],
            "stop_reason": "stop_sequence",
            "stop_sequence": LONE,
            "usage": {"output_tokens": -1, "input_tokens": 2, "cache_creation_input_tokens": 4},
        }
    )
    thought = Reasoning(MENDED, {"type": "thinking", "thinking": MENDED})
    said = Message("assistant", (thought, Text(MENDED)))
    assert found == Completion(said, "stop", Usage(6, 0, 0, 0.0, 4), stop_string=MENDED)
    for content in ([text("a"), 3], {"a": 1}, None):
        with pytest.raises(ModelError) as refused:
            anthropic_wire.read_completion({"content": content, "k" * 100: 1})
        held = "content, " + "k" * 71 + "..."
        assert str(refused.value) == f"its reply holds no content but {held}: check that it speaks Anthropic's API"


def test_events_of_anthropic_with_odd_fields_add_nothing_and_counts_of_nothing_change_none():
    stream = anthropic_wire.MessageStream()
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 7, "output_tokens": 2}}}
    counted = {"type": "message_delta", "delta": [1], "usage": {"input_tokens": None, "output_tokens": 0}}
    for odd in (
        start, {"type": "message_start", "message": [1]}, {"type": "message_start", "message": {"usage": None}},
        {"type": "message_start", "message": {"usage": {"cache_read_input_tokens": 3}}}, counted, {"type": "ping"},
        {"type": "content_block_start", "index": 4, "content_block": [1]},
        {"type": "content_block_delta", "index": 0, "delta": "x"},
        {"type": "content_block_start", "index": 5, "content_block": {"type": "text", "text": 5}},
        {"type": "content_block_start", "index": 3, "content_block": {"type": "tool_use", "name": ""}},
    ):  # fmt: skip
        assert stream.add(odd) == ""
    assert not stream.finished and stream.take_calls() == []
    assert stream.add({"type": "content_block_delta", "index": "x", "delta": {"type": "text_delta", "text": LONE}}) == (
        MENDED
    ), "a number of a block that is none is 0, and a block that was not begun is text"
    assert stream.add({"type": "content_block_start", "index": 1, "content_block": text(LONE)}) == MENDED
    used = {"type": "tool_use", "id": 5, "name": "add"}
    assert stream.add({"type": "content_block_start", "index": 2, "content_block": used}) == ""
    for index, delta in (
        (1, {"type": "input_json_delta", "partial_json": "{"}),
        (2, {"type": "text_delta", "text": "", "partial_json": "no"}),
        (2, {"type": "thinking_delta", "thinking": "hm"}),
        (2, {"type": "input_json_delta", "partial_json": ""}),
        (2, {"type": "input_json_delta", "partial_json": '{"a": 2}'}),
    ):
        stream.add({"type": "content_block_delta", "index": index, "delta": delta})
    assert stream.take_calls() == [CallDelta(0, "5", "add"), CallDelta(0, arguments='{"a": 2}')]
    stream.add({"type": "message_stop"})
    assert stream.finished
    found = stream.completion()
    assert found.usage == Usage(10, 3, 2) and found.finish_reason == "tool_calls"
    assert [part.text for part in found.message.parts if isinstance(part, Text)] == [MENDED, MENDED]
    assert found.message.tool_calls[0] == ToolCall("call_2", "add", {"a": 2})


def test_a_request_to_google_declares_each_tool_and_joins_what_its_system_messages_say():
    sampling = Sampling(max_tokens=4, top_p=0.5)
    body = google_wire.config([system("S"), system(""), system("T"), user("u"), system("U")], sampling, [ADD, SUB])
    assert body == {
        "max_output_tokens": 4,
        "temperature": 0.0,
        "automatic_function_calling": {"disable": True},
        "automatic_continuation": False,
        "system_instruction": "S\n\nT",
        "tools": [
            {
                "function_declarations": [
                    {"name": "add", "description": "Adds.", "parametersJsonSchema": {"type": "object"}},
                    {"name": "sub", "description": "Takes.", "parametersJsonSchema": {"type": "object", "title": "s"}},
                ]
            }
        ],
    }


def test_a_reply_of_google_without_a_candidate_is_refused_and_odd_parts_are_left_out():
    for candidates in ([], {"a": {}}, [5], "x", None):
        with pytest.raises(ModelError) as refused:
            google_wire.read_completion({"candidates": candidates, "promptFeedback": {"a": 1}, "k" * 100: 1})
        held = "candidates, promptFeedback, " + "k" * 52 + "..."
        assert str(refused.value) == f"its reply holds no candidates but {held}: check that it speaks the Gemini API"
    nothing = Completion(Message("assistant", (Text(""),)), "stop", Usage())
    for content in ([1], {"parts": 5}, {"parts": [3, {"text": 5, "thoughtSignature": 6}]}):
        assert google_wire.read_completion({"candidates": [{"content": content, "finishReason": "STOP"}]}) == nothing
    parts = [
        {"functionCall": {"name": "add", "args": {}}, "thoughtSignature": LONE},
        {"thought": True, "text": LONE},
        {"thoughtSignature": "s", "text": 5},
        {"functionCall": {"name": "sub"}},
    ]
    called = google_wire.read_completion({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]})
    assert called.message.parts == (
        Reasoning("", {"thoughtSignature": MENDED}),
        ToolCall("call_0", "add", {}),
        Reasoning(MENDED, {}),
        Reasoning("", {"thoughtSignature": "s"}),
        ToolCall("call_1", "sub", {}),
    )
    assert called.finish_reason == "tool_calls"


def test_a_stream_of_google_is_whole_with_parts_or_an_end_and_refused_with_neither():
    stream = google_wire.CandidateStream()
    for chunk in (
        {"candidates": [{}], "modelVersion": "v"},
        {"candidates": [5]},
        {"candidates": 5},
        {"candidates": [], "promptFeedback": {"a": 1}},
        {"candidates": [{"content": {"parts": 5}}], "modelVersion": ""},
    ):
        assert stream.add(chunk) == ""
    assert stream.finished is False
    with pytest.raises(ModelError, match="holds no candidates but modelVersion, promptFeedback: check"):
        stream.completion()
    parts = [{"text": LONE}, {"thought": True, "text": "hm"}, {"text": "b"}]
    assert stream.add({"candidates": [{"content": {"parts": parts}}]}) == MENDED + "b"
    assert stream.finished is False and stream.completion().message.text == MENDED + "b"
    stream.add({"promptFeedback": {"blockReason": "SAFETY"}})
    assert stream.finished is True
    ended = google_wire.CandidateStream()
    ended.add({"candidates": [{"finishReason": "MAX_TOKENS"}], "usageMetadata": {"promptTokenCount": 3}})
    assert ended.finished is True
    assert ended.completion() == Completion(Message("assistant", (Text(""),)), "length", Usage(3))


def test_texts_from_outside_are_shown_short_clean_and_with_what_they_are():
    assert wire.clip(" " * 39 + "ab", 10) == "a", "four times the length is looked at"
    assert wire.clip(LONE + " \n  b", 10) == MENDED + " b" and wire.clip("a" * 10, 10) == "a" * 10
    assert wire.clip("a" * 11, 10) == "a" * 10 + "..."
    for raw, told in (
        (b"\xff" + b"x" * 250, repr("\ufffd" + "x" * 199 + "...")), ("x" * 301, repr("x" * 200 + "...")), (b"", "'nothing'"),
        ("\n <!DOCTYPE html><p>", "'an HTML page'"), (b"<HTML>", "'an HTML page'"), ("x<html", "'x<html'"),
        ("[" * 100_000, repr("[" * 200 + "...")),
    ):  # fmt: skip
        with pytest.raises(ModelError) as refused:
            wire.parse(raw, "such as h")
        assert str(refused.value) == f"it sent {told} where JSON was expected: check its address (such as h)"
    with pytest.raises(ModelError) as refused:
        wire.parse(b"[1]")
    assert str(refused.value) == "it sent a JSON list where an object was expected: check its address"
    for choices in ("ab", {}, [], [{}, 3], None):
        with pytest.raises(ModelError) as refused:
            wire.read_completions({"choices": choices, "k" * 100: 1})
        held = "choices, " + "k" * 71 + "..."
        assert str(refused.value) == f"its reply holds no choices but {held}: check that it speaks OpenAI's API"
    assert wire.sendable({"a": LONE, "é": [1]}) == {"a": MENDED, "é": [1]}


def test_a_likelihood_is_of_the_tokens_that_the_endpoint_counted_and_of_each_of_them():
    def read(tokens, logprobs, **more):
        usage = {"prompt_tokens": more.pop("counted", 0)}
        choice = {"logprobs": {"tokens": tokens, "token_logprobs": logprobs, **more}}
        return wire.read_likelihood({"choices": [choice], "usage": usage}, "x", "bb")

    tokens, logprobs = ["x", "b", "b", "b", "b"], [None, -1.0, 0.0, -4.0, -8.0]
    tops = [None, {"b": -1.0}, {"a": 0.0}, {"b": -4.0}, {"b": -8.0}]
    assert read(tokens, logprobs, counted=3, top_logprobs=tops) == Likelihood("bb", -1.0, 2, True)
    assert read(tokens, logprobs, top_logprobs=tops) == Likelihood("bb", -4.0, 2, True)
    tops[2] = {"a": math.log(2)}
    assert read(tokens, logprobs, counted=3, top_logprobs=tops) == Likelihood("bb", -1.0, 2, False)
    assert read(tokens, logprobs, counted=3, top_logprobs=tops[:2]) == Likelihood("bb", -1.0, 2, False)
    assert read(tokens, logprobs, counted=3) == Likelihood("bb", -1.0, 2, False)
    with pytest.raises(ModelError) as refused:
        read(tokens, [-2.0, None, 0.0, -4.0, -8.0], counted=3)
    expected = "it gives no log-prob for some token of the continuation (the first of all has none)"
    assert str(refused.value) == expected
    for body in (
        {"choices": []}, {"choices": "x"}, {"choices": [5]}, {"choices": {"a": 1}}, {},
        {"choices": [{"logprobs": {"tokens": 5, "token_logprobs": []}}]},
        {"choices": [{"logprobs": {"tokens": [], "token_logprobs": 5}}]},
        {"choices": [{"logprobs": {"tokens": ["x"], "token_logprobs": []}}]},
        {"choices": [{"logprobs": {"tokens": ["x", "bb"], "token_logprobs": [None, -1.0, -2.0]}}]},
    ):  # fmt: skip
        with pytest.raises(ModelError, match=r"^its reply holds no log-probs of the prompt$"):
            wire.read_likelihood(body, "x", "bb")


def test_a_stream_of_openai_joins_each_list_of_tokens_and_takes_several_calls_at_once():
    stream = wire.StreamedAnswer()
    for odd in ({"choices": 5}, {"choices": [{"delta": {"tool_calls": 5}, "logprobs": {"content": None}}]}):
        assert stream.add(odd) == ""
    for at, (id, lp) in enumerate(((4, -0.5), (6, 0.0))):
        listed = {"tokens": ["t"], "token_logprobs": [lp], "top_logprobs": [{"a": lp, "é": -2.0 - at}]}
        stream.add({"choices": [{"text": "t", "token_ids": [id], "logprobs": listed}], "prompt_token_ids": [at, 9]})
    wired = [
        {"index": at, "id": id, "function": {"name": id * 2, "arguments": "{}"}} for at, id in enumerate(("p", "q"))
    ]
    stream.add({"choices": [{"delta": {"tool_calls": wired}}]})
    stream.add({"choices": [{"index": 1, "finish_reason": "length", "delta": {"content": "no"}}]})
    assert not stream.finished
    stream.add({"choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 2, "completion_tokens": 5}})
    calls = [ToolCall("p", "pp", {}), ToolCall("q", "qq", {})]
    assert stream.finished and stream.completion() == Completion(
        Message("assistant", (Text("tt"), *calls), Sampled((4, 6), (-0.5, 0.0))),
        "tool_calls",
        Usage(2, 0, 5),
        top_logprobs=((("a", -0.5), ("é", -2.0)), (("a", 0.0), ("é", -3.0))),
        prompt_ids=(0, 9),
    )
    assert stream.take_calls() == [CallDelta(0, "p", "pp", "{}"), CallDelta(1, "q", "qq", "{}")]


def test_pieces_of_calls_are_told_under_the_number_of_their_call_however_they_alternate():
    stream = wire.StreamedAnswer()

    def call(index, id=None, **function):
        stream.add({"choices": [{"delta": {"tool_calls": [{"index": index, "id": id, "function": function}]}}]})
        return stream.take_calls()

    assert call(0, "x", name="") == [] and call(0, name=5) == [] and call(0, "x", arguments="{") == []
    assert call(3, 7, name="sub") == [CallDelta(1, "7", "sub")]
    assert call(1, name="mul", arguments={}) == [CallDelta(2, "call_2", "mul")]
    assert call(3, arguments=None) == [CallDelta(1)] and call(1, arguments='{"a":') == [CallDelta(2, arguments='{"a":')]
    assert call(3, arguments="{}") == [CallDelta(1, arguments="{}")] and call(1, arguments="2}")[0].index == 2
    assert call(3, "y", name="sub", arguments="[") == [CallDelta(3, "y", "sub", "[")], "a new id is a new call"
    assert stream.completion().message.tool_calls == (
        ToolCall("x", "", {}, "{"),
        ToolCall("call_1", "sub", {}),
        ToolCall("call_2", "mul", {"a": 2}),
        ToolCall("y", "sub", {}, "["),
    )


def test_an_event_of_a_stream_ends_at_its_empty_line_alone():
    async def chunks(*given):
        for each in given:
            yield each

    async def events(*given):
        return [each async for each in sse_data(chunks(*given))]

    def read(*given):
        return asyncio.run(events(*given))

    assert read(b"data: a\nevent:\n: ping\nevent\ndata:  b  \r\n\r\n") == ["a\n b  "]
    assert read(b"\rdata: no\n\n\ndata\n", b"da", b"ta: \xff\xc3", b"\xa9\n", b"\n") == ["\n\ufffdé"]
    assert read(b"data: a\ndata:\xffb ") == ["a\n\ufffdb"] and read(b"data: a\ndat") == ["a"]
    assert read(b"data: a\n\n\n\ndata: b\n\ndata:c\n") == ["a", "b", "c"] and read(b"\n\n", b"event: x") == []


def test_a_choice_is_read_from_its_message_and_only_without_one_from_its_text():
    def text_of(**choice):
        (found,) = wire.read_completions({"choices": [{"finish_reason": "stop"} | choice]})
        return found.message.text

    assert text_of(text="a") == "a" and text_of(message=None, text="a") == "a"
    assert text_of(message={}, text="a") == "" and text_of(message={"content": "b"}, text="a") == "b"
    assert text_of(message={"content": [text("b"), 3, text(LONE), {"text": 5}]}) == "b" + MENDED
    assert text_of(message={"content": None, "refusal": "no"}) == "no"
    for wrong in ({"text": 5}, {"message": "a"}, {"message": [1], "text": "a"}, {}):
        with pytest.raises(ModelError) as refused:
            wire.read_completions({"choices": [{"text": "a"}, wrong]})
        assert str(refused.value) == ("its reply holds a choice without a message: check that it speaks OpenAI's API")


def test_arguments_of_calls_are_objects_of_at_most_64_levels_that_can_be_stored():
    def read(arguments, **call):
        return wire.read_call({"function": {"name": "f", "arguments": arguments}, **call}, 4)

    def nested(levels):
        return {"a": nested(levels - 1)} if levels > 1 else {}

    deepest = nested(64)
    assert read(deepest, id="") == ToolCall("call_4", "f", deepest)
    assert read(nested(65), id=7) == ToolCall("call_4", "f", {}, "dict")
    listed = {"b": 1, "a": [[[]], {"c": LONE}]}
    assert read(listed, id=LONE) == ToolCall(MENDED, "f", {"b": 1, "a": [[[]], {"c": MENDED}]})
    for given, kept in (
        ('{"a": NaN}', '{"a": NaN}'), ("[1]", "[1]"), ([1], "list"), (3, "int"), ("{" + LONE, "{" + MENDED), (False, "bool"),
        ({"a": math.inf}, "dict"), ('{"a": 1e999}', '{"a": 1e999}'), (" ", " "), ("null", "null"),
    ):  # fmt: skip
        assert read(given) == ToolCall("call_4", "f", {}, kept), given
    for nothing in (None, ""):
        assert read(nothing, id="i") == ToolCall("i", "f", {})
    assert wire.read_call(5, 2) == ToolCall("call_2", "", {}) == wire.read_call({"function": {"name": 3}}, 2)
    assert wire.read_call({"function": {"name": LONE}}, 0) == ToolCall("call_0", MENDED, {})


def test_tokens_of_an_answer_are_taken_if_each_has_an_id_and_a_finite_number():
    def sampled(ids, given, key="token_logprobs"):
        listed = [{"logprob": each} for each in given] if key == "content" else given
        message = wire.read_completions(
            {"choices": [{"text": "", "finish_reason": "stop", "token_ids": ids, "logprobs": {key: listed}}]}
        )
        return message[0].message.sampled

    both = Sampled((0, 2**31 - 1), (-0.5, 0.0))
    assert sampled([0, 2**31 - 1], [-0.5, 0]) == both == sampled([0, 2**31 - 1], [-0.5, 0.0], "content")
    for ids, given in (
        ([1], [-1, -2]), ([1, 2], [-1]), ([], []), ([1, -1], [-1, -2]), ([1, 2**31], [-1, -2]), ([1, True], [-1, -2]),
        ([1, 2], [-1, None]), ([1, 2], [-1, math.nan]), ([1, 2], [-1, -1.1e15]), ([1, 2], [False, -1]), ((1, 2), [-1, -2]),
        ([1, 2], 5), (None, [-1]),
    ):  # fmt: skip
        assert sampled(ids, given) is None, (ids, given)
    assert sampled([1], [-1e15]) == Sampled((1,), (-1e15,))
    content = [{"top_logprobs": [{"token": LONE, "logprob": -1}, {"token": 5, "logprob": -1}, 3, {"token": "z"}]}, 4]
    content.append({"top_logprobs": [{"token": "b", "logprob": 0.0}, {"token": "c", "logprob": -2.5}]})
    (found,) = wire.read_completions(
        {"choices": [{"text": "", "finish_reason": "stop", "logprobs": {"content": content}}]}
    )
    assert found.top_logprobs == (((MENDED, -1.0),), (), (("b", 0.0), ("c", -2.5)))
    older = {"top_logprobs": [{"a": None, "b": 0}, None]}
    (found,) = wire.read_completions({"choices": [{"text": "", "finish_reason": "stop", "logprobs": older}]})
    assert found.top_logprobs == ((("b", 0.0),), ())
    (found,) = wire.read_completions(
        {"choices": [{"text": "", "finish_reason": "stop", "logprobs": {"top_logprobs": [{}, None]}}]}
    )
    assert found.top_logprobs == ()
    most = 2**40 - 1
    assert [count(each) for each in (most, most + 1, 0, -1, True, 1.0, None, "3")] == [most, 0, 0, 0, 0, 1, 0, 0]
    used = {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}, "completion_tokens": 2, "cost": -1}
    assert read_usage(used) == Usage(5, 5, 2, 0.0) and read_usage([used]) == Usage()
    assert read_usage({**used, "cost": 0.5, "prompt_tokens_details": [3]}) == Usage(5, 0, 2, 0.5)
    names = {"data": [{"id": "a"}, {"id": 5}, 3, {"id": "é" * 81}]}
    assert wire.read_model_names(names) == ["a", "é" * 81] and wire.read_model_names({"data": {"id": 1}}) == []
