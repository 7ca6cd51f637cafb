"""Whole answers of chats and completions, key by key, on a model whose tokens are bytes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from firsthand.message import Message, Sampled, Text, ToolCall, assistant
from firsthand.model import CallDelta, Completion, Delta, Usage
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.openai.chat_completions import chat_completions
from firsthand.serve.openai.choices import LEAST
from firsthand.serve.openai.completions import completions
from spelled_model import SpelledModel, answered, request_with, state_of

HI = [{"role": "user", "content": "Hi"}]


def ended(text: str, reason: Any, usage: Usage, *calls: ToolCall, ids: tuple[int, ...] | None = None) -> Completion:
    """A completion whose message was sampled as `ids`."""
    sampled = None if ids is None else Sampled(ids, (-0.5,) * len(ids))
    parts = ((Text(text),) if text else ()) + calls
    return Completion(Message("assistant", parts, sampled), reason, usage, prompt_ids=(7, 8))


def two_answers() -> SpelledModel:
    """`Hé` in two pieces, and `No`, mixed."""
    return SpelledModel(
        Delta("H", index=0, token_ids=(72,), logprobs=(-0.5,), top_logprobs=((("H", -0.5), ("J", -1.5)),)),
        Delta("N", index=1, token_ids=(78,), logprobs=(float("-inf"),), top_logprobs=((("M", -0.25),),)),
        Delta("é", index=0, token_ids=(195, 169), logprobs=(-0.75, -1.0), top_logprobs=((("Ã", -0.75),), ())),
        Delta("o", index=1, token_ids=(111,), logprobs=(-2.0,), top_logprobs=((),)),
        Delta("", ended("No", "length", Usage(3, 2, 5), ids=(78, 111)), index=1),
        Delta("", ended("Hé", "stop", Usage(4, 1, 7), ids=(72, 195, 169)), index=0),
    )  # fmt: skip


def head(kind: str, prefix: str) -> dict[str, Any]:
    return {"id": f"{prefix}r1", "object": kind, "model": "demo"}


def checked_head(body: dict[str, Any], kind: str, prefix: str) -> None:
    assert {key: body.pop(key) for key in ("id", "object", "model")} == head(kind, prefix)
    assert abs(body.pop("created") - time.time()) < 60
    assert body.pop("system_fingerprint").startswith("fp_")


def token(text: str, logprob: float, raw: list[int], *top: Any) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": raw, "top_logprobs": list(top)}


def best(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def test_a_whole_chat_of_two_answers_has_each_its_own_tokens() -> None:
    model = two_answers()
    state = state_of(model, log_texts=True)
    request = request_with({"messages": HI, "n": 2, "logprobs": True, "top_logprobs": 2, "return_token_ids": True,
                            "prompt_logprobs": 1, "cache_salt": "s", "user": "u", "priority": 3})  # fmt: skip
    body = answered(chat_completions, state, request)
    checked_head(body, "chat.completion", "chatcmpl-")
    first, second = body.pop("choices")
    assert first == {
        "index": 0,
        "message": {"role": "assistant", "content": "Hé", "refusal": None},
        "logprobs": {
            "content": [
                token("H", -0.5, [72], best("H", -0.5), best("J", -1.5)),
                token("\ufffd", -0.75, [195], best("Ã", -0.75)),
                token("\ufffd", -1.0, [169]),
            ],
            "refusal": None,
        },
        "finish_reason": "stop",
        "token_ids": [72, 195, 169],
    }
    assert second == {
        "index": 1,
        "message": {"role": "assistant", "content": "No", "refusal": None},
        "logprobs": {
            "content": [token("N", LEAST, [78], best("M", -0.25)), token("o", -2.0, [111])],
            "refusal": None,
        },
        "finish_reason": "length",
        "token_ids": [78, 111],
    }
    assert body.pop("usage") == {
        "prompt_tokens": 7, "completion_tokens": 12, "total_tokens": 19, "prompt_tokens_details": {"cached_tokens": 3},
    }  # fmt: skip
    assert body.pop("prompt_token_ids") == [7, 8]
    rows = body.pop("prompt_logprobs")
    assert len(rows) == 5 and rows[0] is None  # u:Hi;
    assert rows[1] == {
        "58": {"logprob": -1.0, "rank": None, "decoded_token": ":"},
        "122": {"logprob": -0.25, "rank": 1, "decoded_token": "z"},
    }
    assert body == {}
    made, rated = model.asked
    assert (made["n"], made["priority"], made["run"], made["cache_salt"]) == (2, 3, "ann/u", "s")
    assert (rated["rate"], rated["top"], rated["run"], rated["cache_salt"]) == (list(b"u:Hi;"), 1, "ann", "s")
    notes = request.notes
    assert (notes["stream"], notes["messages"], notes["prompt_tokens"], notes["cached_tokens"]) == (False, 1, 7, 3)
    assert notes["completion_tokens"] == 12 and notes["prompt"][0]["role"] == "user"
    assert [each["parts"][0]["text"] for each in notes["answers"]] == ["Hé", "No"]
    assert state.telemetry.metrics.tokens == {"prompt": 7, "cached": 3, "completion": 12}


def test_a_streamed_chat_tells_roles_pieces_ends_and_usage_of_each_answer() -> None:
    options = {"logprobs": True, "return_token_ids": True, "stream": True, "stream_options": {"include_usage": True}}
    *chunks, last, done = answered(chat_completions, state_of(two_answers()), {"messages": HI, "n": 2, **options})
    assert done == "[DONE]"
    told = []
    for chunk in chunks:
        checked_head(chunk, "chat.completion.chunk", "chatcmpl-")
        (choice,) = chunk.pop("choices")
        assert chunk == {"usage": None}
        content = choice["logprobs"]["content"] if choice["logprobs"] else []
        shown = [each["logprob"] for each in content]
        told.append((choice["index"], choice["delta"], shown, choice.get("token_ids"), choice["finish_reason"]))
    role = {"role": "assistant", "content": ""}
    assert told == [
        (0, role, [], None, None),
        (0, {"content": "H"}, [-0.5], [72], None),
        (1, role, [], None, None),
        (1, {"content": "N"}, [LEAST], [78], None),
        (0, {"content": "é"}, [-0.75, -1.0], [195, 169], None),
        (1, {"content": "o"}, [-2.0], [111], None),
        (1, {}, [], None, "length"),
        (0, {}, [], None, "stop"),
    ]
    checked_head(last, "chat.completion.chunk", "chatcmpl-")
    usage = last.pop("usage")
    assert last == {"choices": []} and (usage["prompt_tokens"], usage["total_tokens"]) == (7, 19)
    plain = answered(chat_completions, state_of(two_answers()), {"messages": HI, "n": 2, "stream": True})
    assert all("usage" not in chunk for chunk in plain[:-1]) and plain[-2]["choices"] != []


def called(*, streamed: bool) -> SpelledModel:
    """A thought, then two calls, the first of them in pieces if it is streamed; the second comes whole."""
    one, two = ToolCall("0", "go", {"to": "Ö"}), ToolCall("1", "stop", {}, "{broken")
    begun = (
        Delta("", call=CallDelta(0, "0", "go", '{"to"')),
        Delta("", call=CallDelta(0, "", None, ':"Ö"}')),
    )
    whole = Completion(assistant("<think>\nso\n</think>\n\n", one, two), "tool_calls", Usage(2, 0, 3))
    return SpelledModel(
        Delta("<think>\nso"), Delta("\n</think>\n\n"), *(begun if streamed else ()), Delta("", whole), thinks=True
    )


GO, STOP = ({"type": "function", "function": {"name": name}} for name in ("go", "stop"))


def test_a_thought_and_calls_are_parts_of_the_message_with_ids_of_their_own() -> None:
    body = answered(chat_completions, state_of(called(streamed=False)), {"messages": HI, "tools": [GO, STOP]})
    (choice,) = body["choices"]
    ids = [call.pop("id") for call in choice["message"]["tool_calls"]]
    assert choice == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "reasoning_content": "so",
            "tool_calls": [
                {"type": "function", "function": {"name": "go", "arguments": '{"to":"Ö"}'}},
                {"type": "function", "function": {"name": "stop", "arguments": "{broken"}},
            ],
        },
        "logprobs": None,
        "finish_reason": "tool_calls",
    }
    assert len(set(ids)) == 2 and all(each.startswith("call_") and len(each) == 29 for each in ids)


def test_streamed_calls_keep_their_id_and_those_that_come_whole_get_one() -> None:
    state = state_of(called(streamed=True))
    *chunks, done = answered(chat_completions, state, {"messages": HI, "tools": [GO, STOP], "stream": True})
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    ids = [call.pop("id", None) for call in calls]
    assert ids[1] is None and ids[0] != ids[2] and all(each.startswith("call_") for each in (ids[0], ids[2]))
    assert calls == [
        {"index": 0, "type": "function", "function": {"arguments": '{"to"', "name": "go"}},
        {"index": 0, "function": {"arguments": ':"Ö"}'}},
        {"index": 1, "type": "function", "function": {"name": "stop", "arguments": "{broken"}},
    ]
    assert [each for each in deltas if "tool_calls" not in each] == [
        {"role": "assistant", "content": ""}, {"reasoning_content": "so"}, {},
    ]  # fmt: skip
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls" and done == "[DONE]"


@pytest.mark.parametrize(
    "fields, field, said",
    [
        ({"top_logprobs": 0}, "top_logprobs", "top_logprobs needs logprobs: set it to true"),
        ({"stream": True, "prompt_logprobs": 0}, "prompt_logprobs", "prompt_logprobs do not come in a stream"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens is 0: a chat has an answer"),
        ({"max_tokens": 0, "stream": True}, "max_tokens", "max_tokens is 0: a chat has an answer"),
        ({"response_format": {"type": "json_object"}, "tools": [GO]}, "response_format", "cannot both rule the answer"),
        ({"logit_bias": {"256": 1}}, "logit_bias", "logit_bias holds 256: the model's tokens go from 0 to 255"),
        ({"stop_token_ids": [3, 256]}, "stop_token_ids", "stop_token_ids holds 256"),
        ({"allowed_token_ids": [256]}, "allowed_token_ids", "allowed_token_ids holds 256"),
    ],
)
def test_a_chat_that_cannot_be_is_refused_by_its_field(fields: Any, field: str, said: str) -> None:
    with pytest.raises(Refusal) as caught:
        answered(chat_completions, state_of(SpelledModel()), {"messages": HI, **fields})
    assert caught.value.param == field and said in caught.value.message and caught.value.status == 400


def test_an_answer_without_an_end_or_without_the_demanded_call_is_502() -> None:
    cut = SpelledModel(Delta("H"))
    for body in ({"messages": HI}, {"messages": HI, "stream": True}):
        state = state_of(cut)
        if "stream" in body:
            *_, error, done = answered(chat_completions, state, body)
            assert error["error"]["message"] == "the model ended without an answer" and done == "[DONE]"
        else:
            with pytest.raises(Refusal, match="the model ended without an answer") as caught:
                answered(chat_completions, state, body)
            assert caught.value.status == 502
    named = {"type": "function", "function": {"name": "go"}}
    for reason, calls, choice, fine in (
        ("stop", [], "required", False),
        ("length", [], "required", True),
        ("tool_calls", ["stop"], "required", True),
        ("tool_calls", ["stop"], named, False),
        ("tool_calls", ["go"], named, True),
        ("tool_calls", ["go", "stop"], named, False),
        ("stop", [], "auto", True),
    ):
        made = [ToolCall(str(at), name, {}) for at, name in enumerate(calls)]
        whole = Completion(assistant("", *made) if made else assistant("x"), reason, Usage())  # type: ignore[arg-type]
        body = {"messages": HI, "tools": [GO, STOP], "tool_choice": choice}
        state = state_of(SpelledModel(Delta("", whole)))
        if fine:
            assert answered(chat_completions, state, body)["choices"][0]["finish_reason"] == reason
        else:
            with pytest.raises(Refusal, match="did not make the call that tool_choice demands") as caught:
                answered(chat_completions, state, body)
            assert caught.value.status == 502


@pytest.mark.parametrize(
    "takes", [(), ("tool_choice",), ("tool_choice", "parallel_tool_calls"), ("tool_choice", "strict_tools")]
)
def test_a_model_elsewhere_is_asked_for_the_calls_that_a_request_demands(takes: Any) -> None:
    whole = Completion(assistant("", ToolCall("0", "go", {})), "tool_calls", Usage())
    model: Any = SpelledModel(Delta("", whole))
    model.facts, model.call_settings = None, takes
    named = {"type": "function", "function": {"name": "go"}}
    neutral = {"tool_choice": "auto", "parallel_tool_calls": True, "strict_tools": ()}
    strict_go = {**GO, "function": {**GO["function"], "strict": True}}
    for choice, parallel in ((named, False), ("required", True), ("auto", False), (None, None)):
        body = {"messages": HI, "tools": [strict_go, STOP], "tool_choice": choice, "parallel_tool_calls": parallel}
        answered(chat_completions, state_of(model), body)
        asked = model.asked[-1]["sampling"]
        wanted: Any = {"tool_choice": "go" if choice is named else choice or "auto"}
        wanted |= {"parallel_tool_calls": parallel is not False, "strict_tools": ("go",)}
        assert {name: getattr(asked, name) for name in wanted} == neutral | {name: wanted[name] for name in takes}
    answered(chat_completions, state_of(model), {"messages": HI, "parallel_tool_calls": False})
    assert model.asked[-1]["sampling"].parallel_tool_calls, "without tools there is nothing to ask for"


def test_two_prompts_with_two_answers_each_are_numbered_through_and_added_up() -> None:
    model = two_answers()
    request = request_with({"prompt": ["ab", "c"], "n": 2, "logprobs": 1, "echo": True, "return_token_ids": True})
    body = answered(completions, state_of(model, log_texts=True), request)
    checked_head(body, "text_completion", "cmpl-")
    assert body.pop("usage") == {
        "prompt_tokens": 14, "completion_tokens": 24, "total_tokens": 38, "prompt_tokens_details": {"cached_tokens": 6},
    }  # fmt: skip
    choices = body.pop("choices")
    assert body == {} and [each["index"] for each in choices] == [0, 1, 2, 3]
    assert [each["text"] for each in choices] == ["abHé", "abNo", "cHé", "cNo"]
    assert [each["finish_reason"] for each in choices] == ["stop", "length", "stop", "length"]
    assert choices[0]["token_ids"] == [72, 195, 169] and choices[0]["prompt_token_ids"] == [7, 8]
    assert choices[0]["logprobs"] == {
        "tokens": ["a", "b", "H", r"bytes:\xc3", r"bytes:\xa9"],
        "token_logprobs": [None, -1.0, -0.5, -0.75, -1.0],
        "top_logprobs": [
            None, {"z": -0.25, "b": -1.0}, {"J": -1.5, "H": -0.5}, {"Ã": -0.75, r"bytes:\xc3": -0.75}, {r"bytes:\xa9": -1.0},
        ],
        "text_offset": [0, 1, 2, 3, 3],
    }  # fmt: skip
    assert choices[3]["logprobs"] == {
        "tokens": ["c", "N", "o"],
        "token_logprobs": [None, LEAST, -2.0],
        "top_logprobs": [None, {"M": -0.25, "N": LEAST}, {"o": -2.0}],
        "text_offset": [0, 1, 2],
    }
    assert request.notes["prompts"] == 2 and request.notes["prompt"] == ["ab", "c"]
    assert [each["parts"][0]["text"] for each in request.notes["answers"]] == ["Hé", "No"] * 2
    assert [each["prompt"] for each in model.asked if "prompt" in each] == ["ab", "c"]
    assert [each["rate"] for each in model.asked if "rate" in each] == [list(b"ab"), list(b"c")]
    assert all(each["sampling"].max_tokens == 16 for each in model.asked if "prompt" in each)


def test_a_prompt_alone_is_echoed_with_what_is_known_of_it() -> None:
    model = SpelledModel()
    body = answered(completions, state_of(model), {
        "prompt": [[97, 98], [99]], "n": 2, "max_tokens": 0, "echo": True, "logprobs": 0, "prompt_logprobs": 2,
        "priority": 4, "cache_salt": "s",
    })  # fmt: skip
    assert body["usage"]["prompt_tokens"] == 3 and body["usage"]["completion_tokens"] == 0
    assert [(each["index"], each["text"], each["finish_reason"]) for each in body["choices"]] == [
        (0, "ab", "length"), (1, "ab", "length"), (2, "c", "length"), (3, "c", "length"),
    ]  # fmt: skip
    assert body["choices"][1]["logprobs"] == {
        "tokens": ["a", "b"], "token_logprobs": [None, -1.0], "top_logprobs": None, "text_offset": [0, 1],
    }  # fmt: skip
    row = body["choices"][1]["prompt_logprobs"][1]
    assert {key: value["rank"] for key, value in row.items()} == {"98": None, "122": 1, "121": 2}
    echoed, known = (each for each in model.asked if each["rate"] == [97, 98])
    assert (echoed["top"], echoed["priority"], echoed["run"], echoed["cache_salt"]) == (0, 4, "ann", "s")
    assert (known["top"], known["run"], known["cache_salt"]) == (2, "ann", "s")


def test_a_stream_of_two_prompts_goes_on_behind_their_echo() -> None:
    options = {"n": 2, "echo": True, "logprobs": 0, "stream": True, "return_token_ids": True}
    asked = {"prompt": ["ab", "c"], **options, "stream_options": {"include_usage": True}}
    *chunks, last, done = answered(completions, state_of(two_answers()), asked)
    told = [(each["choices"][0]["index"], each["choices"][0]) for each in chunks]
    echoes = [(index, choice["text"], choice["logprobs"]["text_offset"]) for index, choice in told[:4]]
    assert echoes == [(0, "ab", [0, 1]), (1, "ab", [0, 1]), (2, "c", [0]), (3, "c", [0])]
    mine = [choice for index, choice in told if index == 2]
    assert [(each["text"], each["finish_reason"]) for each in mine] == [
        ("c", None), ("H", None), ("é", None), ("", "stop"),
    ]  # fmt: skip
    assert [each["logprobs"]["text_offset"] for each in mine] == [[0], [1], [2, 2], []]
    assert [each.get("token_ids") for each in mine] == [None, [72], [195, 169], None]
    assert "usage" in chunks[0] and chunks[0]["usage"] is None and last["choices"] == [] and done == "[DONE]"
    assert last["usage"]["total_tokens"] == 38
    *_, error, _ = answered(completions, state_of(SpelledModel(Delta("a"))), {"prompt": "x", "stream": True})
    assert error["error"]["message"] == "the model ended without an answer"


@pytest.mark.parametrize(
    "fields, field, said",
    [
        ({"prompt": [256]}, "prompt", "prompt holds 256"),
        ({"prompt": [[1], []]}, "prompt", "a prompt has no tokens: give one or more"),
        ({"prompt": ["x"] * 17, "n": 2}, "prompt", "the request asks for 34 answers"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens", "max_tokens is 0 and echo is not set"),
        ({"prompt": "x", "max_tokens": 0, "echo": True, "stream": True}, "stream", "does not come in a stream"),
        ({"prompt": "x", "prompt_logprobs": 0, "stream": True}, "stream", "does not come in a stream"),
    ],
)
def test_a_completion_that_cannot_be_is_refused_by_its_field(fields: Any, field: str, said: str) -> None:
    with pytest.raises(Refusal) as caught:
        answered(completions, state_of(SpelledModel()), request_with(fields, max_answers=2))
    assert caught.value.param == field and said in caught.value.message and caught.value.status == 400


def test_as_many_prompts_as_sixteen_times_the_answers_are_taken() -> None:
    state = state_of(two_answers())
    body = answered(completions, state, request_with({"prompt": ["x"] * 16, "n": 2}, max_answers=2))
    assert len(body["choices"]) == 32
