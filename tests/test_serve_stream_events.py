"""Every event of the streams of chats, texts and responses, compared whole, in unusual orders and with nothing to say."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from firsthand.message import ToolCall, assistant
from firsthand.model import CallDelta, Completion, Delta, Usage
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.openai.chat_completions import chat_completions
from firsthand.serve.openai.completions import completions
from firsthand.serve.openai.responses import get_response, responses
from spelled_model import SpelledModel, answered, request_with, state_of

HI = [{"role": "user", "content": "Hi"}]
GO = {"type": "function", "function": {"name": "go"}}
FLAT = {"type": "function", "name": "go"}


def streamed(handler: Any, model: SpelledModel, body: dict[str, Any]) -> list[Any]:
    return list(answered(handler, state_of(model), {**body, "stream": True}))


# -- chats --


def chunks_of(events: list[Any], *, usage: bool = False) -> list[Any]:
    """The choices of each chunk, after a check of the rest."""
    *chunks, done = events
    assert done == "[DONE]" and len({each["created"] for each in chunks}) == 1
    assert abs(chunks[0]["created"] - time.time()) < 5
    found = []
    for chunk in chunks:
        told = {key: chunk[key] for key in ("id", "object", "model")}
        assert told == {"id": "chatcmpl-r1", "object": "chat.completion.chunk", "model": "demo"}
        assert chunk["system_fingerprint"].startswith("fp_") and ("usage" in chunk) is usage
        assert set(chunk) <= {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
        found.append(chunk["choices"] if not chunk.get("usage") else chunk["usage"])
    return found


def choice(index: int, delta: Any, reason: str | None = None) -> list[Any]:
    return [{"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}]


def test_two_mixed_answers_have_each_their_own_thoughts_texts_and_ends() -> None:
    one = Completion(assistant("<think>a</think>b"), "stop", Usage(3, 1, 4))
    two = Completion(assistant("<th"), "length", Usage(3, 2, 5))
    model = SpelledModel(
        Delta("<think>a", index=0), Delta("<th", index=1), Delta("a</think>", index=0), Delta('b"\n', index=0),
        Delta("", two, index=1), Delta("é\ud800", index=0), Delta("", one, index=0), thinks=True,
    )  # fmt: skip
    asked = {"messages": HI, "n": 2, "stream_options": {"include_usage": True}}
    role = {"role": "assistant", "content": ""}
    assert chunks_of(streamed(chat_completions, model, asked), usage=True) == [
        choice(0, role), choice(0, {"reasoning_content": "a"}), choice(1, role), choice(0, {"reasoning_content": "a"}),
        choice(0, {"content": 'b"\n'}), choice(1, {"content": "<th"}), choice(1, {}, "length"),
        choice(0, {"content": "é?"}), choice(0, {}, "stop"),
        {"prompt_tokens": 6, "completion_tokens": 9, "total_tokens": 15, "prompt_tokens_details": {"cached_tokens": 3}},
    ]  # fmt: skip
    plain = chunks_of(streamed(chat_completions, model, {"messages": HI, "n": 2, "stream_options": {}}))
    assert plain[-1] == choice(0, {}, "stop") and len(plain) == 9
    *_, error, done = streamed(chat_completions, model, {"messages": HI, "n": 3})
    assert error["error"]["message"] == "the model ended without an answer" and done == "[DONE]"


def test_calls_come_as_they_are_written_or_whole_at_the_end_of_their_own_answer() -> None:
    calls = (ToolCall("0", "go", {"a": 1}), ToolCall("1", "go", {"b": 2}))
    model = SpelledModel(
        Delta("", index=1, call=CallDelta(1, "x", "go", "")), Delta("so", index=0),
        Delta("", index=1, call=CallDelta(1, "", None, '{"b":2}')),
        Delta("", Completion(assistant("so", *calls), "tool_calls", Usage()), index=0),
        Delta("", Completion(assistant("", *calls), "tool_calls", Usage()), index=1),
    )  # fmt: skip
    found = chunks_of(streamed(chat_completions, model, {"messages": HI, "n": 2, "tools": [GO]}))
    told = []
    ids = []
    for ((each,),) in zip(found, strict=True):
        made = each["delta"].get("tool_calls")
        if made is not None:
            ids.append(made[0].pop("id", None))
        told.append((each["index"], each["delta"], each["finish_reason"]))

    def call(at: int, name: str | None, text: str, *, head: bool = True) -> dict[str, Any]:
        function = {"arguments": text} | ({} if name is None else {"name": name})
        return {"tool_calls": [{"index": at} | ({"type": "function"} if head else {}) | {"function": function}]}

    role = {"role": "assistant", "content": ""}
    assert told == [
        (1, role, None), (1, call(1, "go", ""), None), (0, role, None), (0, {"content": "so"}, None),
        (1, call(1, None, '{"b":2}', head=False), None),
        (0, call(0, "go", '{"a":1}'), None), (0, call(1, "go", '{"b":2}'), None), (0, {}, "tool_calls"),
        (1, call(0, "go", '{"a":1}'), None), (1, {}, "tool_calls"),
    ]  # fmt: skip
    assert ids[1] is None and len({id for id in ids if id}) == 4


def test_tokens_without_text_are_told_in_a_chunk_of_their_own() -> None:
    end = Completion(assistant("ab"), "stop", Usage())
    pieces = (Delta("", token_ids=(195,), logprobs=(-0.5,)), Delta("a<", token_ids=(97, 60), logprobs=(-1.0, -2.0)),
              Delta("/think>b", token_ids=(98,), logprobs=(-3.0,)), Delta("c"), Delta("", end))  # fmt: skip
    for fields in ({"logprobs": True}, {"return_token_ids": True}, {"logprobs": True, "return_token_ids": True}):
        found = [
            each for (each,) in chunks_of(streamed(chat_completions, SpelledModel(*pieces), {"messages": HI, **fields}))
        ]
        told = [each["delta"].get("content") for each in found]
        assert told == ["", "", "a<", "/think>b", "c", None]
        logprobs = [each["logprobs"] and [token["logprob"] for token in each["logprobs"]["content"]] for each in found]
        assert logprobs == ([None, [-0.5], [-1.0, -2.0], [-3.0], None, None] if "logprobs" in fields else [None] * 6)
        ids = [each.get("token_ids") for each in found]
        assert ids == ([None, [195], [97, 60], [98], None, None] if "return_token_ids" in fields else [None] * 6)


# -- texts --


def test_a_stream_of_texts_numbers_its_answers_and_counts_offsets_of_each() -> None:
    def end(text: str, reason: Any, index: int, usage: Usage) -> Delta:
        return Delta(text, Completion(assistant("x"), reason, usage), index=index)

    pieces = (
        Delta("ab", index=1, token_ids=(97, 98), logprobs=(-0.5, -1.0)),
        Delta("", index=0, token_ids=(195,), logprobs=(-2.0,)),
        Delta("é", index=0, token_ids=(169,), logprobs=(-3.0,)),
        Delta("c", index=1, token_ids=(99,), logprobs=(-4.0,)),
        end("d", "length", 1, Usage(2, 1, 3)), end("", "stop", 0, Usage(2, 0, 1)),
    )  # fmt: skip
    asked = {"prompt": "x", "n": 2, "logprobs": 0, "return_token_ids": True, "stream_options": {"include_usage": True}}
    *chunks, last, done = streamed(completions, SpelledModel(*pieces), asked)
    assert done == "[DONE]" and last["choices"] == [] and last["usage"] == {
        "prompt_tokens": 4, "completion_tokens": 4, "total_tokens": 8, "prompt_tokens_details": {"cached_tokens": 1},
    }  # fmt: skip

    def text(index: int, said: str, tokens: list[str], logprobs: list[float], offsets: list[int], reason: Any = None,
             **more: Any) -> Any:  # fmt: skip
        told = {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": None, "text_offset": offsets}
        return [{"index": index, "text": said, "logprobs": told, "finish_reason": reason, **more}]

    assert [each["choices"] for each in chunks] == [
        text(1, "ab", ["a", "b"], [-0.5, -1.0], [0, 1], token_ids=[97, 98]),
        text(0, "", [r"bytes:\xc3"], [-2.0], [0], token_ids=[195]),
            text(0, "é", [r"bytes:\xa9"], [-3.0], [0], token_ids=[169]),
        text(1, "c", ["c"], [-4.0], [2], token_ids=[99]), text(1, "d", [], [], [], "length"),
        text(0, "", [], [], [], "stop"),
    ]  # fmt: skip
    assert all(
        each["usage"] is None and each["object"] == "text_completion" and each["id"] == "cmpl-r1" for each in chunks
    )
    *bare, done = streamed(completions, SpelledModel(*pieces), {"prompt": "x", "n": 2})
    assert [(each["choices"][0]["index"], each["choices"][0]["text"], each["choices"][0]["logprobs"]) for each in bare] == [
        (1, "ab", None), (0, "é", None), (1, "c", None), (1, "d", None), (0, "", None),
    ]  # fmt: skip
    assert all("usage" not in each and "token_ids" not in each["choices"][0] for each in bare)
    several = streamed(completions, SpelledModel(*pieces), {"prompt": ["x", "y", "z"], "n": 2})
    ended = [each["choices"][0]["index"] for each in several[:-1] if each["choices"][0]["finish_reason"]]
    assert sorted(ended) == [0, 1, 2, 3, 4, 5]
    *_, error, _ = streamed(completions, SpelledModel(*pieces), {"prompt": ["x", "y"], "n": 3})
    assert error["error"]["message"] == "the model ended without an answer"


def test_every_token_of_a_text_is_streamed_also_where_it_is_no_letter_yet() -> None:
    end = Delta("", Completion(assistant("é"), "stop", Usage()))
    pieces = (Delta("", token_ids=(195,)), Delta("é", token_ids=(169,)), Delta("", token_ids=(0,)))
    model = SpelledModel(*pieces, end)
    whole = answered(completions, state_of(model), {"prompt": "x", "return_token_ids": True})["choices"][0]
    *chunks, _ = streamed(completions, model, {"prompt": "x", "return_token_ids": True})
    told = [(each["choices"][0]["text"], each["choices"][0].get("token_ids")) for each in chunks]
    assert told == [("", [195]), ("é", [169]), ("", [0]), ("", None)] and whole["token_ids"] == [195, 169, 0]
    spelled = SpelledModel(*(replace(each, logprobs=(-each.token_ids[0] / 8,)) for each in pieces), end)
    *scored, _ = streamed(completions, spelled, {"prompt": "x", "logprobs": 0})
    assert [(each["choices"][0]["text"], each["choices"][0]["logprobs"]["token_logprobs"]) for each in scored] == [
        ("", [-195 / 8]), ("é", [-169 / 8]), ("", [0.0]), ("", []),
    ]  # fmt: skip
    assert all("token_ids" not in each["choices"][0] for each in scored)
    *plain, _ = streamed(completions, model, {"prompt": "x", "return_token_ids": False})
    assert [each["choices"][0]["text"] for each in plain] == ["é", ""]


# -- responses --


def events_of(model: SpelledModel, state: Any = None, **body: Any) -> list[Any]:
    """The events between the two that begin a response and the last, after a check of these."""
    found = list(answered(responses, state or state_of(model), {"input": "Hi", "stream": True, **body}))
    assert [each.pop("sequence_number") for each in found] == list(range(len(found)))
    first, second, *events, last = found
    assert (first["type"], second["type"]) == ("response.created", "response.in_progress")
    assert first["response"] == second["response"] and first["response"]["status"] == "in_progress"
    assert first["response"]["output"] == [] and first["response"]["usage"] is None
    return [*events, last]


def said(text: str | None, status: str = "completed") -> dict[str, Any]:
    content = [] if text is None else [part(text)]
    return {"type": "message", "id": "msg_r1", "role": "assistant", "status": status, "content": content}


def part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def of(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", **fields}


def at(item: str, place: int, **more: Any) -> dict[str, Any]:
    return {"item_id": item, "output_index": place, **more}


def text_events(place: int, *pieces: str, status: str = "completed") -> list[Any]:
    whole, where = "".join(pieces), at("msg_r1", place, content_index=0)
    return [
        of("output_item.added", output_index=place, item=said(None, "in_progress")),
        of("content_part.added", **where, part=part("")),
        *[of("output_text.delta", **where, delta=piece, logprobs=[]) for piece in pieces],
        of("output_text.done", **where, text=whole, logprobs=[]), of("content_part.done", **where, part=part(whole)),
        of("output_item.done", output_index=place, item=said(whole, status)),
    ]  # fmt: skip


def thought_events(place: int, *pieces: str) -> list[Any]:
    whole, where = "".join(pieces), at("rs_r1", place, content_index=0)
    item = {"type": "reasoning", "id": "rs_r1", "summary": [], "content": [{"type": "reasoning_text", "text": whole}]}
    return [
        of("output_item.added", output_index=place, item={**item, "content": []}),
        *[of("reasoning_text.delta", **where, delta=piece) for piece in pieces],
        of("reasoning_text.done", **where, text=whole), of("output_item.done", output_index=place, item=item),
    ]  # fmt: skip


def test_a_response_that_says_nothing_has_an_empty_message_and_one_of_calls_alone_none() -> None:
    quiet = SpelledModel(Delta("", Completion(assistant(""), "stop", Usage(1, 0, 2))))
    *events, last = events_of(quiet)
    assert events == text_events(0) and last["type"] == "response.completed"
    assert last["response"]["output"] == [said("")] and last["response"]["usage"]["total_tokens"] == 3

    calls = SpelledModel(Delta("", Completion(assistant("", ToolCall("0", "go", {"a": "é"}), ToolCall("1", "go", {})),
                                              "tool_calls", Usage())))  # fmt: skip
    *events, last = events_of(calls, tools=[FLAT])
    output = last["response"]["output"]
    assert len({each["id"] for each in output}) == 2
    expected = []
    for place, (item, arguments) in enumerate(zip(output, ('{"a":"é"}', "{}"), strict=True)):
        assert item == {"type": "function_call", "id": f"fc_{item['call_id']}", "call_id": item["call_id"], "name": "go",
                        "arguments": arguments, "status": "completed"}  # fmt: skip
        expected += [
            of("output_item.added", output_index=place, item=item | {"arguments": "", "status": "in_progress"}),
            of("function_call_arguments.delta", **at(item["id"], place), delta=arguments),
            of("function_call_arguments.done", **at(item["id"], place), name="go", arguments=arguments),
            of("output_item.done", output_index=place, item=item),
        ]
    assert events == expected


def test_a_thought_a_text_and_what_was_held_back_are_items_in_their_order() -> None:
    end = Completion(assistant("x"), "length", Usage(5, 1, 2))
    model = SpelledModel(Delta("<think>a"), Delta("b</thi"), Delta("nk>c"), Delta("d"), Delta("", end), thinks=True)
    *events, last = events_of(model)
    assert (
        events == [*thought_events(0, "a", "b"), *text_events(1, "c", "d", status="incomplete")]
        and last["type"] == "response.incomplete"
    )
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    cut = SpelledModel(Delta("<think>a</thi"), Delta("", end), thinks=True)
    *events, last = events_of(cut)
    assert events == thought_events(0, "a", "</thi") and [each["type"] for each in last["response"]["output"]] == [
        "reasoning"
    ]
    late = SpelledModel(Delta("a"), Delta("b", end))
    assert events_of(late)[:-1] == text_events(0, "a", "b", status="incomplete")
    for reason in ("tool_calls", "length"):  # a whole call came after the text, so that neither was cut
        ended = Completion(assistant("a", ToolCall("0", "go", {})), reason, Usage())  # type: ignore[arg-type]
        events = events_of(SpelledModel(Delta("a"), Delta("", ended)), tools=[FLAT])
        assert events[: len(text_events(0, "a"))] == text_events(0, "a") and events[-2]["output_index"] == 1
        assert events[-2]["item"]["status"] == "completed"


def test_a_streamed_call_that_was_cut_is_what_came_of_its_arguments() -> None:
    ended = Completion(assistant("", ToolCall("0", "go", {}, '{"name": "go", "arguments": {"a":')), "length", Usage())
    model = SpelledModel(
        Delta("", call=CallDelta(0, "c", "go", '{"a"')), Delta("", call=CallDelta(0, arguments=":")), Delta("", ended)
    )
    *events, last = events_of(model, tools=[FLAT])
    assert [each["arguments"] for each in (events[-2], events[-1]["item"], last["response"]["output"][0])] == [
        '{"a":'
    ] * 3
    assert events[-1]["item"]["status"] == "incomplete" == last["response"]["status"]


def test_a_streamed_response_is_stored_with_its_conversation_unless_the_client_says_no() -> None:
    model = SpelledModel(Delta("A"), Delta("", Completion(assistant("A"), "stop", Usage())))
    state = state_of(model)
    last = events_of(model, state)[-1]["response"]
    request = request_with({})
    request.path_params = {"id": "resp_r1"}
    assert last["store"] is True and answered(get_response, state, request) == last | {"store": True}
    kept = asyncio.run(state.responses.items("ann", "resp_r1"))
    assert [(item.role, item.type) for item in kept] == [("user", "message"), ("assistant", "message")]
    answered(responses, state, {"input": "R", "previous_response_id": "resp_r1"})
    assert [(each.role, each.text) for each in model.asked[-1]["prompt"]] == [
        ("user", "Hi"), ("assistant", "A"), ("user", "R"),
    ]  # fmt: skip
    kept = asyncio.run(state.responses.items("ann", "resp_r1"))
    assert len(kept) == 4, "the new one has the same id here, and the conversation of both"
    fresh = state_of(model)
    assert events_of(model, fresh, store=False)[-1]["response"]["store"] is False
    with pytest.raises(Refusal, match="there is no response 'resp_r1' here"):
        answered(get_response, fresh, request)
    small = state_of(model, stored_bytes=100)
    assert events_of(model, small)[-1]["response"]["store"] is False, "too large to be kept"
    *_, error = answered(responses, state_of(model), {"input": "Hi", "stream": True, "model": "demo"})
    assert error["type"] == "response.completed"
    *_, error = answered(responses, state_of(SpelledModel(Delta("A"))), {"input": "Hi", "stream": True})
    assert error["error"]["message"] == "the model ended without an answer"


def test_a_streamed_response_without_the_call_that_was_demanded_ends_with_an_error() -> None:
    model = SpelledModel(Delta("A"), Delta("", Completion(assistant("A"), "stop", Usage())))
    state = state_of(model)
    body = {"input": "Hi", "stream": True, "tools": [FLAT], "tool_choice": "required"}
    *_, error = answered(responses, state, body)
    assert error["error"]["message"] == "the model did not make the call that tool_choice demands"
    with pytest.raises(Refusal, match="there is no response 'resp_r1' here"):
        asyncio.run(state.responses.response("ann", "resp_r1"))
    assert answered(responses, state, body | {"tool_choice": "auto"})[-1]["type"] == "response.completed"


def test_every_setting_of_an_answer_reaches_its_model() -> None:
    end = Delta("", Completion(assistant("x"), "stop", Usage()))
    model = SpelledModel(end, Delta("", Completion(assistant("y"), "stop", Usage()), index=1))
    fields = {"n": 2, "priority": 3, "user": "u", "cache_salt": "s", "max_tokens": 5}
    answered(
        chat_completions, state_of(model), {"messages": HI, "tools": [GO], "chat_template_kwargs": {"a": 1}, **fields}
    )
    answered(completions, state_of(model), {"prompt": [[1, 2]], **fields})
    chat, text = model.asked
    assert [spec.name for spec in chat.pop("tools")] == ["go"] and text.pop("tools") == ()
    assert [each.pop("sampling").max_tokens for each in (chat, text)] == [5, 5] and chat.pop("template") == {"a": 1}
    assert [(each.role, each.text) for each in chat.pop("prompt")] == [("user", "Hi")] and text.pop("prompt") == [1, 2]
    assert chat == text == {"n": 2, "priority": 3, "run": "ann/u", "cache_salt": "s"}
    model = SpelledModel(end)
    answered(chat_completions, state_of(model), {"messages": HI})
    answered(completions, state_of(model), {"prompt": "x"})
    assert [{key: each[key] for key in ("n", "priority", "run")} for each in model.asked] == [
        {"n": 1, "priority": 0, "run": "ann/"},
    ] * 2  # fmt: skip
    assert all("cache_salt" not in each and "template" not in each for each in model.asked)


def test_no_ranks_are_not_no_log_probs_and_an_answer_may_lack_its_prompts_ids() -> None:
    model = SpelledModel(Delta("a", token_ids=(97,)), Delta("", Completion(assistant("a"), "stop", Usage(5, 0, 1))))
    rows = [None, *({str(id): {"logprob": -float(at), "rank": None, "decoded_token": chr(id)}}
                    for at, id in enumerate(b":Hi;", 1))]  # fmt: skip
    asked = {"messages": HI, "prompt_logprobs": 0, "return_token_ids": True}
    body = answered(chat_completions, state_of(model), asked)
    assert body["prompt_logprobs"] == rows and body["prompt_token_ids"] == []
    assert (
        answered(chat_completions, state_of(model), {"messages": HI})
        .keys()
        .isdisjoint({"prompt_logprobs", "prompt_token_ids"})
    )
    text = {"prompt": "u:Hi;", "prompt_logprobs": 0, "return_token_ids": True, "max_tokens": 1}
    (choice,) = answered(completions, state_of(model), text)["choices"]
    assert choice == {"index": 0, "text": "a", "logprobs": None, "finish_reason": "stop", "token_ids": [97],
                      "prompt_token_ids": [], "prompt_logprobs": rows}  # fmt: skip
    (plain,) = answered(completions, state_of(model), {"prompt": "x"})["choices"]
    assert plain == {"index": 0, "text": "a", "logprobs": None, "finish_reason": "stop"}
    echoed = answered(completions, state_of(model), {"prompt": [97, 98], "max_tokens": 0, "echo": True, "n": 2})
    assert echoed["usage"]["prompt_tokens"] == 2 and [each["text"] for each in echoed["choices"]] == ["ab", "ab"]
    assert [each["index"] for each in echoed["choices"]] == [0, 1], "each answer is an object of its own"


def test_the_log_probs_of_a_prompt_are_those_of_the_whole_chat_with_its_tools() -> None:
    model = SpelledModel(Delta("", Completion(assistant("a"), "stop", Usage())))
    asked = {"messages": HI, "prompt_logprobs": 2, "tools": [GO], "chat_template_kwargs": {"a": 1}, "cache_salt": "s"}
    body = answered(chat_completions, state_of(model), asked)
    (rated,) = [each for each in model.asked if "rate" in each]
    assert rated == {"rate": list(b"u:Hi;[go]{'a': 1}"), "top": 2, "run": "ann", "cache_salt": "s"}
    assert len(body["prompt_logprobs"]) == len(rated["rate"]) and list(body["prompt_logprobs"][1]) == [
        "58",
        "122",
        "121",
    ]
