"""What is sent to an OpenAI-compatible endpoint and read from it, field by field."""

import asyncio
import json
import math

import pytest

from firsthand.errors import ConfigError, ModelError
from firsthand.grammar import Grammar
from firsthand.message import Message, Sampled, Text, ToolCall, ToolResult, assistant, system, user
from firsthand.model import CallDelta, Completion, Likelihood, Sampling, ToolSpec, Usage
from firsthand.providers import openai_wire as wire
from firsthand.providers.openai_errors import Endpoint, refuses_field
from firsthand.providers.openai_request import messages, request, structure
from firsthand.providers.reported_usage import count, json_object, read_usage
from firsthand.providers.sse_events import sse_data

ADD = ToolSpec("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}})


def body_of(prompt, sampling, *, tools=(), n=1, token_ids=False, limit="max_tokens"):
    return request("m", prompt, sampling, tools, n, token_ids=token_ids, limit=limit)


def test_a_plain_request_holds_the_prompt_the_limit_and_the_temperature_alone():
    assert body_of("Hi", Sampling(max_tokens=7, temperature=0.0), limit="max_completion_tokens") == {
        "model": "m",
        "prompt": "Hi",
        "max_tokens": 7,
        "temperature": 0.0,
    }
    chat = body_of([user("Hi")], Sampling(max_tokens=7, temperature=1.0), n=2, limit="max_completion_tokens")
    assert chat == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_completion_tokens": 7,
        "temperature": 1.0,
        "n": 2,
        "top_p": 1.0,
    }


def test_every_setting_has_its_field():
    sampling = Sampling(
        max_tokens=9, temperature=0.5, top_k=4, top_p=0.9, min_p=0.1, repetition_penalty=1.2, presence_penalty=0.3,
        frequency_penalty=0.4, seed=2**31 + 5, stop=("a", "b"), top_logprobs=3, logit_bias=((5, 1.5),), stop_ids=(8,),
        ignore_eos=True, min_tokens=2, allowed_token_ids=(1, 2), bad_words=("no",), skip_special_tokens=False,
        include_stop_str_in_output=True, grammar=Grammar("regex", "a+"),
    )  # fmt: skip
    common = {
        "model": "m", "max_tokens": 9, "temperature": 0.5, "tools": [ADD.to_json()], "top_p": 0.9, "stop": ["a", "b"],
        "seed": 5, "presence_penalty": 0.3, "frequency_penalty": 0.4, "top_k": 4, "min_p": 0.1,
        "repetition_penalty": 1.2, "logit_bias": {"5": 1.5}, "stop_token_ids": [8], "ignore_eos": True, "min_tokens": 2,
        "allowed_token_ids": [1, 2], "bad_words": ["no"], "skip_special_tokens": False,
        "include_stop_str_in_output": True, "return_token_ids": True, "structured_outputs": {"regex": "a+"},
    }  # fmt: skip
    found = body_of([user("Hi")], sampling, tools=[ADD], token_ids=True)
    asked = {"messages": [{"role": "user", "content": "Hi"}], "logprobs": True, "top_logprobs": 3}
    assert found == common | asked
    plain = body_of("Hi", sampling, token_ids=True)
    assert plain == {key: value for key, value in common.items() if key != "tools"} | {"prompt": "Hi", "logprobs": 3}
    with pytest.raises(ConfigError, match="tools were given with a plain-text prompt"):
        body_of("Hi", sampling, tools=[ADD])


def test_a_zero_that_means_something_is_sent():
    for given, sent in (
        ({"seed": 0}, {"seed": 0}), ({"seed": 2**31 + 3}, {"seed": 3}),
        ({"presence_penalty": -1.0}, {"presence_penalty": -1}),
        ({"repetition_penalty": 0.5}, {"repetition_penalty": 0.5}), ({"min_p": 0.1}, {"min_p": 0.1}),
        ({"allowed_token_ids": (0,)}, {"allowed_token_ids": [0]}), ({"logit_bias": ((0, 0.0),)}, {"logit_bias": {"0": 0.0}}),
        ({"min_tokens": 1}, {"min_tokens": 1}), ({"top_p": 0.5}, {}),
    ):  # fmt: skip
        body = body_of("p", Sampling(max_tokens=3, temperature=0.0, **given))
        assert body == {"model": body["model"], "prompt": "p", "max_tokens": 3, "temperature": 0.0, **sent}, given


def test_token_ids_ask_for_log_probs_and_log_probs_for_no_token_ids():
    quiet = Sampling(max_tokens=1, temperature=0.0)
    chat = body_of([user("Hi")], quiet, token_ids=True)
    assert (chat["logprobs"], chat["top_logprobs"], chat["return_token_ids"]) == (True, 0, True)
    assert body_of("Hi", quiet, token_ids=True)["logprobs"] == 0
    assert body_of("Hi", Sampling(max_tokens=1, top_logprobs=2))["logprobs"] == 2
    assert "return_token_ids" not in body_of("Hi", Sampling(max_tokens=1, top_logprobs=2))
    assert "logprobs" not in body_of("Hi", quiet)


def test_a_grammar_goes_into_the_field_of_its_kind():
    schema = Grammar("json_schema", '{"type": "object"}')
    asked = {"name": "answer", "schema": {"type": "object"}, "strict": True}
    assert structure(schema, chat=True) == {"response_format": {"type": "json_schema", "json_schema": asked}}
    assert structure(schema, chat=False) == {"structured_outputs": {"json": {"type": "object"}}}
    assert structure(Grammar("json_schema", "true"), chat=False) == {"structured_outputs": {"json": {}}}
    assert structure(Grammar("json_schema", "false"), chat=False) == {"structured_outputs": {"json": {"not": {}}}}
    assert structure(Grammar("choice", '["a", "b"]'), chat=True) == {"structured_outputs": {"choice": ["a", "b"]}}
    lark = 'start: "a"'
    assert structure(Grammar("lark", lark), chat=True) == {"structured_outputs": {"grammar": lark}}


def test_a_conversation_becomes_messages_of_the_protocol():
    call = ToolCall("c1", "add", {"a": "é"})
    broken = ToolCall("c2", "add", {}, '{"a"')
    conversation = [
        system("S"),
        assistant("", call, broken),
        Message("tool", (ToolResult("c1", "add", "3"), ToolResult("c2", "add", "no", True), Text("beside"))),
        assistant("Said", call),
        assistant(""),
        Message("tool", (ToolResult("c1", "add", "3"),)),
        user(""),
    ]
    whole = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": "é"}'}}
    empty = {"id": "c2", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    assert messages(conversation) == [
        {"role": "system", "content": "S"},
        {"role": "assistant", "content": None, "tool_calls": [whole, empty]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
        {"role": "tool", "tool_call_id": "c2", "content": "no"},
        {"role": "user", "content": "beside"},
        {"role": "assistant", "content": "Said", "tool_calls": [whole]},
        {"role": "assistant", "content": ""},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
        {"role": "user", "content": ""},
    ]


def test_answers_come_in_the_order_of_their_index_and_share_the_tokens():
    body = {
        "choices": [
            {"index": 2, "text": "c", "finish_reason": "max_tokens"},
            {"index": 0, "message": {"content": "a"}, "finish_reason": "stop", "prompt_token_ids": [4, 5]},
            {"index": 1, "message": {"content": None, "refusal": "no"}, "finish_reason": "eos"},
        ],
        "usage": {
            "prompt_tokens": 10, "completion_tokens": 8, "prompt_tokens_details": {"cached_tokens": 12}, "cost": 0.25,
        },
    }  # fmt: skip
    assert wire.read_completions(body) == [
        Completion(assistant("a"), "stop", Usage(10, 10, 3, 0.25), prompt_ids=(4, 5)),
        Completion(assistant("no"), "content_filter", Usage(0, 0, 3), prompt_ids=(4, 5)),
        Completion(assistant("c"), "length", Usage(0, 0, 2), prompt_ids=(4, 5)),
    ]
    unordered = {"choices": [{"index": 1, "text": "b"}, {"text": "a"}], "prompt_token_ids": [1]}
    found = wire.read_completions(unordered)
    assert [each.message.text for each in found] == ["b", "a"]  # one has no index: as they came
    assert [each.prompt_ids for each in found] == [(1,), (1,)]
    called = {"content": "", "tool_calls": [{"id": "c", "function": {"name": "f"}}]}
    for given, expected in (
        ("stop", "tool_calls"),
        (None, "tool_calls"),
        ("length", "length"),
        ("content_filter",) * 2,
    ):
        (one,) = wire.read_completions({"choices": [{"message": called, "finish_reason": given}]})
        assert one.finish_reason == expected


@pytest.mark.parametrize(
    "body, said",
    [
        ({}, "its reply holds no choices but nothing: check that it speaks OpenAI's API"),
        ({"choices": [], "id": 1}, "its reply holds no choices but choices, id: check"),
        ({"choices": [{"text": "a"}, 3]}, "holds no choices but choices"),
        ({"choices": [{"index": 0}]}, "holds a choice without a message"),
    ],
)
def test_a_reply_without_answers_says_what_it_holds(body, said):
    with pytest.raises(ModelError, match=said):
        wire.read_completions(body)


def test_counts_are_whole_numbers_below_a_limit_and_costs_are_not_negative():
    assert [count(each) for each in (0, 5, 2**40 - 1, 2**40, -1, True, 1.0, "5", None)] == [
        0, 5, 2**40 - 1, 0, 0, 0, 1, 0, 0,
    ]  # fmt: skip
    assert read_usage(None) == Usage()
    assert read_usage({"prompt_tokens": 3, "completion_tokens": 2, "cost": -1}) == Usage(3, 0, 2)
    for cost, expected in ((1, 1.0), (1e15, 1e15), (1.1e15, 0.0), (True, 0.0), ("1", 0.0), (math.nan, 0.0)):
        assert read_usage({"cost": cost}).cost_usd == expected
    cached = {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}}
    assert read_usage(cached) == Usage(9, 4, 0)
    for name in ("prompt_cache_hit_tokens", "cached_tokens"):  # DeepSeek's, Moonshot's
        assert read_usage({"prompt_tokens": 9, name: 5, "prompt_cache_miss_tokens": 4}) == Usage(9, 5, 0)
        assert read_usage(cached | {name: 3}) == Usage(9, 4, 0), "the larger one"
        assert read_usage({"prompt_tokens": 9, name: 10}) == Usage(9, 9, 0), "within the prompt"
        assert read_usage({"prompt_tokens": 9, name: "5"}) == Usage(9, 0, 0)


def test_names_of_models_are_read_from_a_list_of_objects():
    names = wire.read_model_names({"data": [{"id": "a"}, {"id": 3}, "b", {"id": "x" * 90}]})
    assert names == ["a", "x" * 90], "they are cut where they are shown, after keys are hidden"
    assert wire.read_model_names({"data": {"id": "a"}}) == wire.read_model_names({}) == []


def nested(depth: int):
    value: dict = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def test_the_arguments_of_a_call_are_an_object_or_kept_as_they_came():
    def read(arguments, **fields):
        return wire.read_call({"id": "c", "function": {"name": "f", "arguments": arguments}} | fields, 3)

    assert read('{"a": "é"}') == ToolCall("c", "f", {"a": "é"})
    assert read({"a": [1]}) == ToolCall("c", "f", {"a": [1]})
    assert read("") == read(None) == read("{}") == ToolCall("c", "f", {})
    assert read("[1]") == ToolCall("c", "f", {}, "[1]")
    assert read('{"a"') == ToolCall("c", "f", {}, '{"a"')
    assert read('{"a": NaN}') == ToolCall("c", "f", {}, '{"a": NaN}')
    assert read(["a"]) == ToolCall("c", "f", {}, "list")
    assert read('{"a": "\\ud800"}') == ToolCall("c", "f", {"a": "\ufffd"})
    assert read(nested(63)).arguments == nested(63)  # 64 objects within one another
    assert read(nested(64)) == ToolCall("c", "f", {}, "dict")
    assert read("", id="") == read("", id=7) == ToolCall("call_3", "f", {})
    assert wire.read_call({"function": {"name": 3}}, 0) == wire.read_call("no", 0) == ToolCall("call_0", "", {})


def test_alternatives_are_read_in_both_shapes():
    chat = {
        "content": [
            {
                "logprob": -1,
                "top_logprobs": [{"token": "a", "logprob": -1}, {"token": 3, "logprob": -2}, {"token": "b"}],
            },
            {"logprob": -2, "top_logprobs": None},
        ]
    }
    older = {"token_logprobs": [-1.0, -2.0], "top_logprobs": [{"a": -1, "b": None}, None]}
    ids = {"index": 0, "text": "x", "token_ids": [7, 8]}
    for logprobs in (chat, older):
        (found,) = wire.read_completions({"choices": [ids | {"logprobs": logprobs}]})
        assert found.top_logprobs == ((("a", -1.0),), ())
        assert found.message.sampled == Sampled((7, 8), (-1.0, -2.0))
    (none,) = wire.read_completions({"choices": [ids | {"logprobs": {"top_logprobs": [None, {}]}}]})
    assert none.top_logprobs == () and none.message.sampled is None


@pytest.mark.parametrize(
    "token_ids, given",
    [
        ([1], [-1.0, -2.0]),
        ([1, 2, 3], [-1.0, -2.0]),
        ([1, 2], [-1.0, None]),
        ([1, -2], [-1.0, -2.0]),
        ([1, True], [-1.0, -2.0]),
        ([1, 2**31], [-1.0, -2.0]),
        ([], []),
        (None, []),
    ],
)
def test_tokens_are_kept_where_every_id_and_log_prob_is_given(token_ids, given):
    choice = {"text": "x", "token_ids": token_ids, "logprobs": {"token_logprobs": given}}
    assert wire.read_completions({"choices": [choice]})[0].message.sampled is None
    good = {"text": "x", "token_ids": [0, 2**31 - 1], "logprobs": {"token_logprobs": [-1, -2]}}
    assert wire.read_completions({"choices": [good]})[0].message.sampled == Sampled((0, 2**31 - 1), (-1.0, -2.0))


def echoed(tokens, logprobs, tops=None, offsets=None, prompt_tokens=0):
    given = {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": offsets}
    return {"choices": [{"logprobs": given}], "usage": {"prompt_tokens": prompt_tokens}}


def test_a_continuation_is_measured_by_its_own_tokens():
    tokens, logprobs = ["The", " sky", " is", " blue", "!"], [None, -3.0, -2.0, -0.5, -0.1]
    tops = [None, {" sky": -3.0}, {" was": -1.0}, {" blue": -0.5}, {"!": -0.1}]
    assert wire.read_likelihood(echoed(tokens, logprobs, tops), "The sky", " is blue") == Likelihood(
        " is blue", -2.5, 2, False
    )
    assert wire.read_likelihood(echoed(tokens, logprobs, tops), "The sky is", " blue") == Likelihood(
        " blue", -0.5, 1, True
    )
    # without alternatives nothing is known to be the first choice, and an empty object is none
    assert not wire.read_likelihood(echoed(tokens, logprobs), "The sky is", " blue").is_greedy
    tops[3] = {}
    assert not wire.read_likelihood(echoed(tokens, logprobs, tops), "The sky is", " blue").is_greedy
    # a token over the border counts whole
    assert wire.read_likelihood(echoed(tokens, logprobs), "The sky i", "s blue").num_tokens == 2
    # the prompt's own tokens, which the endpoint counted, end it: the last is generated
    doubled = echoed(["a", "b", "b"], [None, -1.0, -9.0], prompt_tokens=2)
    assert wire.read_likelihood(doubled, "a", "b") == Likelihood("b", -1.0, 1, False)
    with pytest.raises(ModelError, match="gives no log-prob for some token of the continuation"):
        wire.read_likelihood(echoed(tokens, logprobs), "", "The sky is blue")
    for logprobs_ in (None, [None]):
        with pytest.raises(ModelError, match="holds no log-probs of the prompt"):
            wire.read_likelihood(echoed(tokens, logprobs_), "The", " sky is blue")


def test_offsets_decide_where_tokens_do_not_spell_the_text():
    tokens, logprobs = ["a", "\ufffd", "\ufffd", "b", "x"], [None, -1.0, -2.0, -4.0, -8.0]
    body = echoed(tokens, logprobs, offsets=[0, 1, 1, 2, 3])
    assert wire.read_likelihood(body, "a", "éb") == Likelihood("éb", -7.0, 3, False)
    assert wire.read_likelihood(body, "aé", "b") == Likelihood("b", -4.0, 1, False)
    over = echoed(["a", "\ufffd", "\ufffdb"], logprobs[:3], offsets=[0, 1, 1])  # the last is of both texts
    assert wire.read_likelihood(over, "aé", "b") == Likelihood("b", -2.0, 1, False)
    for offsets in (None, [0, 1, 2, 3, 4], [1, 1, 1, 2, 3], [0, 2, 1, 2, 3], [0, 1, 1, 2]):
        with pytest.raises(ModelError, match="its tokens do not spell the text that was scored"):
            wire.read_likelihood(echoed(tokens, logprobs, offsets=offsets), "a", "éb")


def delta(**fields):
    return {"choices": [{"index": 0, "delta": fields}]}


def call_piece(index, id=None, name=None, arguments=None):
    return {"index": index, "id": id, "function": {"name": name, "arguments": arguments}}


def test_a_stream_assembles_calls_text_tokens_and_usage():
    stream = wire.StreamedAnswer()
    events = [
        delta(content="He") | {"prompt_token_ids": [1, 2]},
        {"choices": [{"index": 1, "delta": {"content": "other"}}]},
        {"choices": [{"delta": {"content": [{"text": "l"}, {"text": 3}, {"text": "lo"}]}, "token_ids": [5]}]},
        delta(tool_calls=[call_piece(0, "a", None, '{"x"')]),  # no name yet
        delta(tool_calls=[call_piece(0, None, "f", ": 1")]),
        delta(tool_calls=[call_piece(0, "a", None, "}")]),
        delta(tool_calls=[call_piece(0, "b", "g", "")]),  # another id under the same index: another call
        delta(tool_calls=[call_piece(1, None, "h", None)]),
        {"choices": [{"delta": {}, "logprobs": {"content": [{"logprob": -0.5}]}, "finish_reason": "tool_calls"}]},
        {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 6}},
    ]
    assert [stream.add(event) for event in events[:3]] == ["He", "", "llo"]
    assert stream.take_calls() == []
    assert not stream.finished
    assert [stream.add(event) for event in events[3:]] == [""] * 7
    assert stream.finished
    assert stream.take_calls() == [
        CallDelta(0, "a", "f", '{"x": 1'),
        CallDelta(0, arguments="}"),
        CallDelta(1, "b", "g", ""),
        CallDelta(2, "call_2", "h", ""),
    ]
    assert stream.take_calls() == []
    calls = (ToolCall("a", "f", {"x": 1}), ToolCall("b", "g", {}), ToolCall("call_2", "h", {}))
    assert stream.completion() == Completion(
        Message("assistant", (Text("Hello"), *calls), Sampled((5,), (-0.5,))),
        "tool_calls",
        Usage(4, 0, 6),
        prompt_ids=(1, 2),
    )


def test_a_stream_of_a_plain_prompt_has_its_text_and_ids_beside_no_delta():
    stream = wire.StreamedAnswer()
    assert stream.add({"choices": [{"text": "He", "prompt_token_ids": [3]}]}) == "He"
    assert stream.add({"choices": [{"text": "y", "finish_reason": "length", "prompt_token_ids": [4]}]}) == "y"
    stream.add(delta(tool_calls=[{"index": 0, "function": {"name": 5, "arguments": "{}"}}, "odd"]))
    assert stream.take_calls() == []
    whole = stream.completion()
    assert (whole.message.text, whole.prompt_ids, whole.finish_reason) == ("Hey", (3,), "length")
    assert whole.message.tool_calls == (ToolCall("call_0", "", {}),)


def test_events_are_split_at_blank_lines_however_they_come():
    stream = b": ping\n\ndata: one\r\n\r\nevent: x\ndata:two\ndata:  three\n\n\n\ndata: \n\ndata: last"
    expected = ["one", "two\n three", "", "last"]

    async def split(size: int) -> list[str]:
        async def chunks():
            for at in range(0, len(stream), size):
                yield stream[at : at + size]

        return [data async for data in sse_data(chunks())]

    assert all(asyncio.run(split(size)) == expected for size in (1, 2, 7, 1000))
    stream, expected = b"data: one\n\nevent: end", ["one"]
    assert asyncio.run(split(1000)) == expected


def test_texts_from_outside_are_cut_and_cleaned():
    assert wire.clip("a\n b  c") == "a b c"
    assert wire.clip("x" * 300) == "x" * 300 and wire.clip("x" * 301) == "x" * 300 + "..."
    assert wire.clip("abc", 2) == "ab..." and wire.clip(7) == "7"
    assert wire.clean("a\ud800b\U0001f600") == "a\ufffdb\U0001f600"
    assert wire.sendable({"a": "\ud800", "b": ["é"]}) == {"a": "\ufffd", "b": ["é"]}
    assert wire.parse('{"a": 1}') == wire.parse(b'{"a": 1}') == {"a": 1}
    for raw, said in (
        ("[1]", r"it sent a JSON list where an object was expected"),
        ("", r"it sent 'nothing' where JSON was expected: check its address \(most end in /v1\)"),
        (b" <!DOCTYPE html>", "it sent 'an HTML page' where"),
        ("<HTML>", "it sent 'an HTML page' where"),
        ("hello\nyou", "it sent 'hello you' where"),
    ):
        with pytest.raises(ModelError, match=said):
            wire.parse(raw)
    with pytest.raises(ModelError, match=r"check its address \(no slash\)"):
        wire.parse("x", "no slash")
    assert json.dumps(json_object([])) == "{}"


def streamed_calls(*pieces):
    answer = wire.StreamedAnswer()
    for piece in pieces:
        answer.add({"choices": [{"delta": {"tool_calls": piece}}]})
    answer.add({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]})
    return answer.completion().message.tool_calls, answer.take_calls()


def function(name, arguments, **fields):
    return {"function": {"name": name, "arguments": arguments}, **fields}


def test_streamed_arguments_that_are_an_object_are_those_of_the_call():
    calls, told = streamed_calls([function("add", {"a": 1, "b": {"é": [2]}}, index=0, id="c")])
    assert calls == (ToolCall("c", "add", {"a": 1, "b": {"é": [2]}}),)
    assert told == [CallDelta(0, "c", "add", '{"a": 1, "b": {"é": [2]}}')]
    opened, more = function("add", {}, index=0, id="c"), function(None, '{"a":1}', index=0)
    assert streamed_calls([opened], [more])[0] == (ToolCall("c", "add", {"a": 1}),), "an empty object opens a call"
    assert streamed_calls([opened])[0] == (ToolCall("c", "add", {}),)
    for odd, text in (([1], "[1]"), (5, "5"), (True, "true"), ({"a": math.nan}, '{"a": NaN}')):
        (call,) = streamed_calls([function("add", odd, index=0, id="c")])[0]
        assert (call.arguments, call.invalid) == ({}, text), "never a call without arguments"
    deep = {"a": 1}
    for _ in range(64):  # the text `1` counts as a level
        deep = {"a": deep}
    (call,) = streamed_calls([function("add", deep, index=0, id="c")])[0]
    assert (call.arguments, call.invalid) == ({}, "<dict>")
    (call,) = streamed_calls([function("add", deep["a"]["a"], index=0, id="c")])[0]
    assert call.arguments == deep["a"]["a"] and call.invalid is None


def test_streamed_calls_without_index_and_id_are_told_apart_by_name_and_whole_arguments():
    a, b = function("add", '{"x":1}'), function("sub", '{"y":2}')
    two = (ToolCall("call_0", "add", {"x": 1}), ToolCall("call_1", "sub", {"y": 2}))
    assert streamed_calls([a, b])[0] == two == streamed_calls([a], [b])[0]
    again = (ToolCall("call_0", "add", {"x": 1}), ToolCall("call_1", "add", {"x": 3}))
    assert streamed_calls([a], [function("add", {"x": 3})])[0] == again
    assert streamed_calls([a], [function("add", '{"x":3}')])[0] == again
    nothing = (ToolCall("call_0", "add", {}), ToolCall("call_1", "add", {}))
    assert streamed_calls([function("add", {})], [function("add", {})])[0] == nothing
    assert streamed_calls([a], [function("add", {})])[0] == (two[0], nothing[1])
    assert streamed_calls([function("add", {})], [function("add", {"x": 3})])[0] == (nothing[0], again[1])
    for announced in (None, ""):
        assert streamed_calls([function("add", announced)], [function("add", {"x": 1})])[0] == two[:1]
    assert streamed_calls([function("add", {})], [function("add", '{"x":')], [function("add", "1}")])[0] == two[:1]
    cut = [function("add", '{"x":')], [function(None, "1")], [function("add", "}")]
    assert streamed_calls(*cut)[0] == two[:1], "a name that is repeated begins no call"
    nested = [function("add", '{"x":{"z":1}')], [function("add", "}")]
    assert streamed_calls(*nested)[0] == (ToolCall("call_0", "add", {"x": {"z": 1}}),)
    objects = [function("add", '{"x":')], [function("add", '{"z":1}}')]
    assert streamed_calls(*objects)[0] == (ToolCall("call_0", "add", {"x": {"z": 1}}),)
    assert len(streamed_calls([a], [function("sub", "", index=0)])[0]) == 2, "another name is another call"
    assert len(streamed_calls([a | {"id": "c"}], [function("sub", "", id="c")])[0]) == 1, "with an id, it decides"
    late = streamed_calls([function(None, '{"x":')], [function("add", "1}")])[0]
    assert late == two[:1], "the name may come later"


SEED = "Extra inputs are not permitted"
AS_MISTRAL = {"object": "error", "message": {"detail": [{"loc": ["body", "seed"], "msg": SEED}]}, "param": None}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (422, AS_MISTRAL),
        (422, {"detail": [{"loc": ["body", "seed"], "msg": SEED}]}),
        (400, {"message": "Unsupported parameter.", "param": "seed"}),
        (400, {"message": "Unrecognized request argument supplied: seed", "param": None}),
        (400, "unknown field `seed`"),
    ],
)
def test_a_refused_seed_is_known_in_the_ways_of_servers(status, body):
    assert refuses_field("seed", status, body) and not refuses_field("seed", 500, body)
    assert not refuses_field("temperature", status, body)


@pytest.mark.parametrize(
    "body",
    [
        {"message": "seed must be below 2**31", "param": "seed"},
        {"message": "Unsupported parameter.", "param": "top_k"},
        {"message": "unknown model seedling"},
        {"detail": [{"loc": ["body", "messages", 0], "msg": SEED}]},
        "",
        None,
        [],
    ],
)
def test_another_fault_is_no_refused_seed(body):
    assert not refuses_field("seed", 422, body)


def test_the_field_of_a_fault_is_in_its_sentence():
    faults = Endpoint("openai:m@http://x", "m", (), 1.0)
    for body in (AS_MISTRAL, {"detail": [{"loc": ["body", "seed"], "msg": SEED}]}):
        assert f"answered 422 (seed: {SEED})" in str(faults.status(422, body, {}))
    nested = {"detail": [{"loc": ["body", "messages", 0, "role"], "msg": "bad"}]}
    assert "(messages.0.role: bad)" in str(faults.status(422, nested, {}))
    for odd in (
        {"detail": [{"loc": "body", "msg": "bad"}]},
        {"detail": [{"msg": "bad"}]},
        {"detail": [{"loc": ["body"], "msg": "bad"}]},
    ):
        assert "(bad)" in str(faults.status(422, odd, {}))


def test_what_the_users_own_key_is_charged_counts_beside_the_routers_fee():
    details = {"cost_details": {"upstream_inference_cost": 19.0}}
    assert read_usage({"cost": 0.95, "is_byok": True, **details}).cost_usd == 19.95
    assert read_usage({"cost": 0.95, "is_byok": False, **details}).cost_usd == 0.95
    assert read_usage({"is_byok": True, **details}).cost_usd == 19.0
    for odd in (
        {},
        {"cost_details": 5},
        {"cost_details": {"upstream_inference_cost": -1}},
        {"cost_details": {"upstream_inference_cost": "1"}},
    ):
        assert read_usage({"cost": 0.95, "is_byok": True, **odd}).cost_usd == 0.95
