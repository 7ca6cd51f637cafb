"""Whole responses, tokens and thoughts, key by key, on a model whose tokens are bytes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from firsthand.message import Message, Sampled, Text, ToolCall, assistant
from firsthand.model import CallDelta, Completion, Delta, Sampling, Usage
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.openai.chat_completions import chat_completions
from firsthand.serve.openai.completions import merged
from firsthand.serve.openai.responses import responses
from firsthand.serve.openai.tokenize import detokenize, tokenize
from spelled_model import SpelledModel, answered, request_with, state_of

HI = [{"role": "user", "content": "Hi"}]


def ended(text: str, reason: Any, usage: Usage, *calls: ToolCall, ids: tuple[int, ...] | None = None) -> Completion:
    """A completion whose message was sampled as `ids`."""
    sampled = None if ids is None else Sampled(ids, (-0.5,) * len(ids))
    parts = ((Text(text),) if text else ()) + calls
    return Completion(Message("assistant", parts, sampled), reason, usage, prompt_ids=(7, 8))


GO, STOP = ({"type": "function", "function": {"name": name}} for name in ("go", "stop"))


def test_a_merged_stream_closes_all_its_sources_when_one_fails() -> None:
    closed: list[int] = []

    async def source(place: int, error: Exception | None) -> Any:
        try:
            yield Delta(str(place))
            if error is not None:
                raise error
            await asyncio.sleep(60)
        finally:
            closed.append(place)

    async def run() -> list[Any]:
        found = []
        with pytest.raises(KeyError):
            async for place, delta in merged([source(0, None), source(1, KeyError("x"))]):
                found.append((place, delta.text))
        return found

    assert asyncio.run(run()) == [(0, "0"), (1, "1")] and sorted(closed) == [0, 1]


def test_a_streamed_response_has_a_thought_a_text_and_calls_in_their_places() -> None:
    whole = Completion(
        assistant("<think>\nso\n</think>\n\nYes", ToolCall("0", "go", {"a": 1})), "length", Usage(9, 4, 2)
    )
    model = SpelledModel(Delta("<think>\ns"), Delta("o\n</think>\n\nY"), Delta("es"), Delta("", whole), thinks=True)
    tool = {"type": "function", "name": "go", "parameters": {"type": "object"}}
    events = answered(responses, state_of(model), {"input": "Hi", "stream": True, "tools": [tool], "temperature": 0.5,
                                                   "max_output_tokens": 9, "metadata": {"k": "v"}})  # fmt: skip
    assert [each["sequence_number"] for each in events] == list(range(len(events)))
    kinds = [(each["type"].removeprefix("response."), each.get("output_index")) for each in events]
    assert kinds == [
        ("created", None), ("in_progress", None),
        ("output_item.added", 0), ("reasoning_text.delta", 0), ("reasoning_text.delta", 0),
        ("reasoning_text.done", 0), ("output_item.done", 0),
        ("output_item.added", 1), ("content_part.added", 1), ("output_text.delta", 1), ("output_text.delta", 1),
        ("output_text.done", 1), ("content_part.done", 1), ("output_item.done", 1),
        ("output_item.added", 2), ("function_call_arguments.delta", 2), ("function_call_arguments.done", 2),
        ("output_item.done", 2), ("incomplete", None),
    ]  # fmt: skip
    thought = {"type": "reasoning", "id": "rs_r1", "summary": [],
               "content": [{"type": "reasoning_text", "text": "so"}]}  # fmt: skip
    part = {"type": "output_text", "text": "Yes", "annotations": [], "logprobs": []}
    said = {"type": "message", "id": "msg_r1", "role": "assistant", "status": "completed", "content": [part]}
    assert events[2]["item"] == {**thought, "content": []} and events[6]["item"] == thought
    assert events[7]["item"] == {**said, "status": "in_progress", "content": []} and events[13]["item"] == said
    assert events[8]["part"] == {**part, "text": ""} and events[12]["part"] == part
    assert [each["item_id"] for each in (events[3], events[5], events[8], events[9], events[11])] == [
        "rs_r1", "rs_r1", "msg_r1", "msg_r1", "msg_r1",
    ]  # fmt: skip
    assert (events[4]["delta"], events[5]["text"], events[10]["delta"], events[11]["text"]) == ("o", "so", "es", "Yes")
    assert events[9]["logprobs"] == events[11]["logprobs"] == [] and "logprobs" not in events[3]
    call = events[17]["item"]
    assert call["id"] == f"fc_{call['call_id']}" and call["call_id"].startswith("call_")
    assert events[14]["item"] == {**call, "arguments": "", "status": "in_progress"}
    assert {key: call[key] for key in ("type", "name", "arguments", "status")} == {
        "type": "function_call", "name": "go", "arguments": '{"a":1}', "status": "completed",
    }  # fmt: skip
    assert events[15]["delta"] == events[16]["arguments"] == '{"a":1}' and events[16]["name"] == "go"
    assert events[15]["item_id"] == call["id"]
    last = events[-1]["response"]
    assert events[0]["response"] == {
        **last, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None,
    }  # fmt: skip
    assert abs(last.pop("created_at") - time.time()) < 60
    assert last == {
        "id": "resp_r1", "object": "response", "status": "incomplete", "error": None,
        "incomplete_details": {"reason": "max_output_tokens"}, "instructions": None, "max_output_tokens": 9,
        "model": "demo", "output": [thought, said, call], "parallel_tool_calls": True, "previous_response_id": None,
        "store": True, "temperature": 0.5, "text": {"format": {"type": "text"}}, "tool_choice": "auto",
        "tools": [tool], "top_p": 1.0, "truncation": "disabled", "metadata": {"k": "v"},
        "usage": {
            "input_tokens": 9, "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
            "output_tokens": 2, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 11,
        },
    }  # fmt: skip


def test_a_response_goes_on_after_the_stored_one_and_an_empty_one_has_a_message() -> None:
    model = SpelledModel(Delta("A"), Delta("", ended("A", "stop", Usage(1, 0, 1))))
    state = state_of(model)
    first = answered(responses, state, {"input": "Q", "instructions": "I"})
    assert (first["status"], first["incomplete_details"], first["instructions"], first["store"]) == (
        "completed", None, "I", True,
    )  # fmt: skip
    again = answered(responses, state, request_with({"input": "R", "previous_response_id": "resp_r1"}))
    assert again["previous_response_id"] == "resp_r1"
    roles = [[(each.role, each.text) for each in asked["prompt"]] for asked in model.asked]
    assert roles == [[("system", "I"), ("user", "Q")], [("user", "Q"), ("assistant", "A"), ("user", "R")]]
    empty = SpelledModel(Delta("", ended("", "stop", Usage())))
    *_, done = answered(responses, state_of(empty), {"input": "Q", "stream": True, "store": False})
    assert [each["content"][0]["text"] for each in done["response"]["output"]] == [""]
    assert done["response"]["store"] is False and done["type"] == "response.completed"
    assert answered(responses, state_of(empty, stored_responses=0), {"input": "Q"})["store"] is False
    with pytest.raises(Refusal, match="no response 'resp_r1' here") as caught:
        answered(responses, state, request_with({"input": "R", "previous_response_id": "resp_r1"}, client="bob"))
    assert (caught.value.status, caught.value.param) == (404, "previous_response_id")


def test_a_text_or_a_chat_is_tokenized_and_not_both() -> None:
    state = state_of(SpelledModel())
    assert answered(tokenize, state, {"prompt": "aé", "return_token_strs": True}) == {
        "count": 3, "max_model_len": 100, "tokens": [97, 195, 169], "token_strs": ["a", "\ufffd", "\ufffd"],
    }  # fmt: skip
    assert answered(tokenize, state, {"prompt": ""}) == {"count": 0, "max_model_len": 100, "tokens": []}
    chat = {"messages": HI, "tools": [GO], "chat_template_kwargs": {"x": 1}}
    assert bytes(answered(tokenize, state, chat)["tokens"]) == b"u:Hi;[go]{'x': 1}"
    for body, field in (
        ({"prompt": "a", "messages": HI}, "prompt"),
        ({}, "prompt"),
        ({"prompt": "a", "tools": [GO]}, "tools"),
        ({"messages": HI, "tools": [GO, GO]}, "tools"),
    ):
        with pytest.raises(Refusal) as caught:
            answered(tokenize, state, body)
        assert caught.value.param == field, body
    assert answered(detokenize, state, {"tokens": [97, 98]}) == {"prompt": "ab"}
    assert answered(detokenize, state, {"tokens": []}) == {"prompt": ""}
    with pytest.raises(Refusal, match="tokens holds 256: the model's tokens go from 0 to 255"):
        answered(detokenize, state, {"tokens": [97, 256]})


def test_a_private_cache_is_salted_with_the_clients_name_and_its_own_salt() -> None:
    for private, salt, expected in (
        (False, None, None), (False, "s", "s"), (True, None, "ann/"), (True, "s", "ann/s"),
    ):  # fmt: skip
        model = SpelledModel(Delta("", ended("x", "stop", Usage())))
        answered(chat_completions, state_of(model, private_caches=private), {"messages": HI, "cache_salt": salt})
        assert model.asked[0].get("cache_salt") == expected
        assert model.asked[0]["sampling"] == Sampling(max_tokens=4096, temperature=1.0)


def said_again(state: Any, *turns: dict[str, Any], **fields: Any) -> Any:
    """The tokens that the model is given for the assistant's message when the conversation comes back."""
    answered(chat_completions, state, {"messages": [*HI, *turns, {"role": "user", "content": "More"}], **fields})
    (mine,) = (each for each in state.models.model.asked[-1]["prompt"] if each.role == "assistant")
    return mine.sampled and mine.sampled.token_ids


@pytest.mark.parametrize("stream", [False, True])
def test_the_tokens_of_an_answer_come_back_unless_something_of_it_was_not_shown(stream: bool) -> None:
    whole = ended("Hé", "stop", Usage(), ids=(72, 195, 169))
    turn = {"role": "assistant", "content": "Hé"}
    for fields, found in (
        ({}, (72, 195, 169)), ({"stop": "x"}, None), ({"stop_token_ids": [3]}, None), ({"user": "other"}, None),
    ):  # fmt: skip
        state = state_of(SpelledModel(Delta("Hé"), Delta("", whole)))
        answered(chat_completions, state, {"messages": HI, "stream": stream, **fields})
        assert said_again(state, turn) == found, fields
    for thinks, text, found in (
        (True, "<think>\na\n</think>\n\nHé", None),
        (True, "Hé", (72,)),
        (False, "</think>", (72,)),
    ):
        state = state_of(SpelledModel(Delta(text), Delta("", ended(text, "stop", Usage(), ids=(72,))), thinks=thinks))
        answered(chat_completions, state, {"messages": HI, "stream": stream})
        assert said_again(state, {"role": "assistant", "content": text}) == found, text


def test_a_stream_without_the_demanded_call_ends_in_an_error() -> None:
    state = state_of(SpelledModel(Delta("No"), Delta("", ended("No", "stop", Usage()))))
    body = {"messages": HI, "stream": True, "tools": [GO], "tool_choice": "required"}
    *_, error, _done = answered(chat_completions, state, body)
    assert error["error"]["message"] == "the model did not make the call that tool_choice demands"


def test_an_answer_that_a_filter_blocked_comes_without_the_demanded_call() -> None:
    state = state_of(SpelledModel(Delta("No"), Delta("", ended("No", "content_filter", Usage()))))
    body = {"messages": HI, "tools": [GO], "tool_choice": "required"}
    assert answered(chat_completions, state, body)["choices"][0]["finish_reason"] == "content_filter"
    *_, last, _done = answered(chat_completions, state, {**body, "stream": True})
    assert last["choices"][0]["finish_reason"] == "content_filter"


def test_thoughts_of_earlier_turns_are_shown_to_a_model_that_thinks_and_rules_reach_it() -> None:
    for thinks, shown in ((True, "<think>\nhm\n</think>\n\nA"), (False, "A")):
        model = SpelledModel(Delta("", ended("x", "stop", Usage())), thinks=thinks)
        turn = {"role": "assistant", "content": "A", "reasoning_content": "hm"}
        answered(chat_completions, state_of(model), {"messages": [*HI, turn, *HI], "chat_template_kwargs": {"a": 1}})
        assert model.asked[0]["prompt"][1].text == shown and model.asked[0]["template"] == {"a": 1}
        assert model.asked[0]["priority"] == 0 and model.asked[0]["run"] == "ann/"
    model = SpelledModel(Delta("", ended("{}", "stop", Usage())))
    state = state_of(model)
    answered(chat_completions, state, {"messages": HI, "response_format": {"type": "json_object"}})
    body = {"messages": HI, "tools": [GO], "tool_choice": "none", "guided_regex": "a+"}
    answered(chat_completions, state, body)
    calls = model.asked
    assert calls[0]["sampling"].grammar.kind == "json_schema" and calls[1]["sampling"].grammar.source == "a+"
    assert calls[1]["tools"] == ()


def test_a_prompt_that_opens_a_thought_begins_with_reasoning() -> None:
    class Opens(SpelledModel):
        async def tokenize(self, prompt: Any, tools: Any = (), *, template: Any = None) -> list[int]:
            return list(b"some prompt <think>\n" if template == {"t": 1} else b"some prompt")

    for kwargs, expected in (
        ({"t": 1}, {"reasoning_content": "so", "content": "A"}),
        (None, {"content": "so\n</think>\n\nA"}),
    ):
        model = Opens(Delta("so\n</think>\n\nA"), Delta("", ended("A", "stop", Usage())), thinks=True)
        body = answered(chat_completions, state_of(model), {"messages": HI, "chat_template_kwargs": kwargs})
        message = body["choices"][0]["message"]
        assert {key: message.get(key) for key in expected} == expected
        streamed = answered(
            chat_completions, state_of(model), {"messages": HI, "chat_template_kwargs": kwargs, "stream": True}
        )
        joined = {key: "".join(each["choices"][0]["delta"].get(key, "") for each in streamed[:-1]) for key in expected}
        assert joined == expected


def test_a_response_that_was_cut_or_blocked_is_incomplete_and_says_why() -> None:
    tool = {"type": "function", "name": "go"}
    why = {"length": {"reason": "max_output_tokens"}, "content_filter": {"reason": "content_filter"}}
    for reason, status in (("tool_calls", "completed"), ("stop", "completed"), ("content_filter", "incomplete"),
                           ("length", "incomplete")):  # fmt: skip
        calls = (ToolCall("0", "go", {}),) if reason == "tool_calls" else ()
        model = SpelledModel(Delta("A"), Delta("", ended("A", reason, Usage(1, 0, 1), *calls)))
        asked = {"input": "Q", "tools": [tool]}
        whole = answered(responses, state_of(model), asked)
        last = answered(responses, state_of(model), {**asked, "stream": True})[-1]
        assert last["type"] == f"response.{status}"
        for found in (whole, last["response"]):
            assert (found["status"], found["incomplete_details"]) == (status, why.get(reason)), reason
            assert found["output"][0]["status"] == ("completed" if calls else status), reason


def test_a_streamed_response_remembers_the_tokens_that_its_client_was_shown() -> None:
    model = SpelledModel(Delta("A"), Delta("", ended("A", "stop", Usage(1, 0, 1), ids=(65,))))
    for stream in (False, True):
        state = state_of(model)
        answered(responses, state, {"input": "Q", "stream": stream})
        conversation = [
            {"role": role, "content": text} for role, text in (("user", "Q"), ("assistant", "A"), ("user", "R"))
        ]
        answered(responses, state, {"input": conversation})
        (_, said, _) = model.asked[-1]["prompt"]
        assert said.sampled is not None and said.sampled.token_ids == (65,)
        answered(responses, state, request_with({"input": conversation}, client="bob"))
        assert model.asked[-1]["prompt"][1].sampled is None


def test_a_call_that_a_filter_cut_has_the_arguments_that_came() -> None:
    cut = ended("", "content_filter", Usage(1, 0, 1), ToolCall("0", "go", {}, invalid='go {"a"'))
    model = SpelledModel(Delta("", call=CallDelta(0, "0", "go", '{"a"')), Delta("", cut))
    tool = {"type": "function", "name": "go", "parameters": {"type": "object"}}
    (call,) = answered(responses, state_of(model), {"input": "Q", "tools": [tool]})["output"]
    assert (call["arguments"], call["status"]) == ('{"a"', "incomplete")
