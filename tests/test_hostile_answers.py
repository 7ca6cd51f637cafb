"""Replies of model endpoints that cost more than their bytes: values, choices, tool calls and pieces beyond measure."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import httpx
import pytest

from firsthand.errors import ModelError
from firsthand.message import ToolCall, user
from firsthand.model import Sampling
from firsthand.providers import anthropic_wire, google_wire, openai_request
from firsthand.providers import openai_wire as wire
from firsthand.providers.endpoint_clients import MAX_REPLY_VALUES, asked_values, bounded_client
from firsthand.providers.openai_wire import MAX_ARGUMENT_VALUES, MAX_CALLS


def steps(work: Any) -> int:
    """The lines of Python that work takes, which no busy machine changes."""
    taken = 0

    def trace(*_: Any) -> Any:
        nonlocal taken
        taken += 1
        return trace

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(None)
    return taken


def openai_calls(n: int) -> Any:
    stream = wire.StreamedAnswer()
    piece = {"function": {"name": "f", "arguments": "{"}}
    for number in range(n):
        stream.add({"choices": [{"delta": {"tool_calls": [{"index": number, "id": f"c{number}", **piece}]}}]})
    for _ in range(n):
        stream.add({"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}}]})
    return stream


def anthropic_calls(n: int, kind: str = "tool_use") -> Any:
    stream = anthropic_wire.MessageStream()
    for number in range(n):
        block = {"type": kind, "name": "f", "id": f"c{number}"}
        stream.add({"type": "content_block_start", "index": number, "content_block": block})
    return stream


def google_calls(n: int) -> Any:
    stream = google_wire.CandidateStream()
    for _ in range(n):
        stream.add({"candidates": [{"content": {"parts": [{"functionCall": {"name": "f"}}]}}]})
    return stream


@pytest.mark.parametrize("calls", [openai_calls, anthropic_calls, google_calls])
def test_tool_calls_of_a_stream_take_time_in_proportion_and_end_at_a_thousand(calls: Any) -> None:
    assert steps(lambda: calls(400)) < 2.2 * steps(lambda: calls(200))
    stream = calls(MAX_CALLS)
    assert len(stream.completion().message.tool_calls) == MAX_CALLS
    assert [call.index for call in stream.take_calls()][-1] in (0, MAX_CALLS - 1)
    with pytest.raises(ModelError, match=r"^it calls more than 1,000 tools in one answer: ask for fewer at once$"):
        calls(MAX_CALLS + 1)


def test_blocks_that_are_no_calls_do_not_slow_the_calls_between_them() -> None:
    def mixed(n: int) -> None:
        stream = anthropic_calls(n, "text")
        stream.add({"type": "content_block_start", "index": n, "content_block": {"type": "tool_use", "name": "f"}})
        for _ in range(n):
            delta = {"type": "input_json_delta", "partial_json": " "}
            stream.add({"type": "content_block_delta", "index": n, "delta": delta})

    assert steps(lambda: mixed(400)) < 2.2 * steps(lambda: mixed(200))


def test_a_block_of_an_index_that_had_one_is_kept_beside_it_and_calls_keep_their_order() -> None:
    stream = anthropic_wire.MessageStream()

    def opened(index: int, kind: str) -> None:
        block = {"type": kind, "name": f"f{index}", "id": f"c{index}", "text": "t"}
        stream.add({"type": "content_block_start", "index": index, "content_block": block})
        delta = {"type": "input_json_delta", "partial_json": '{"a": 1}'}
        stream.add({"type": "content_block_delta", "index": index, "delta": delta})

    for index, kind in ((4, "tool_use"), (2, "tool_use"), (4, "tool_use"), (2, "text"), (6, "tool_use")):
        opened(index, kind)
    assert [piece.index for piece in stream.take_calls() if piece.name] == [0, 0, 2, 3]
    calls = stream.completion().message.tool_calls
    named = (("c2", "f2"), ("c4", "f4"), ("c4_3_1", "f4"), ("c6", "f6"))  # each id names one call
    assert calls == tuple(ToolCall(id, name, {"a": 1}) for id, name in named)
    assert stream.completion().message.text == "t"


def test_pieces_of_text_are_joined_once() -> None:
    anthropic, google = anthropic_wire.MessageStream(), google_wire.CandidateStream()
    for piece in ("a", "b" * 100, "c"):
        delta = {"type": "text_delta", "text": piece}
        anthropic.add({"type": "content_block_delta", "index": 0, "delta": delta})
        google.add({"candidates": [{"content": {"parts": [{"text": piece}]}}]})
    whole = "a" + "b" * 100 + "c"
    assert anthropic.completion().message.text == whole == google.completion().message.text
    held = [*anthropic._blocks.values(), *google._parts]
    assert all(len(str(each.get("text"))) < 100 for each in held), "no piece is copied when the next one comes"


def test_arguments_in_strings_are_counted_over_all_calls_of_an_answer() -> None:
    def body(*values: int) -> dict[str, Any]:
        written = [json.dumps({"a": [0] * number}) for number in values]
        calls = [{"id": "c", "function": {"name": "f", "arguments": each}} for each in written]
        return {"choices": [{"message": {"content": None, "tool_calls": calls}}]}

    half = MAX_ARGUMENT_VALUES // 2
    (found,) = wire.read_completions(body(half - 1, half - 1))
    assert [len(call.arguments["a"]) for call in found.message.tool_calls] == [half - 1] * 2
    with pytest.raises(ModelError, match="the arguments of its tool calls hold more than 200,000 values"):
        wire.read_completions(body(half - 1, half))
    prose = json.dumps({"text": "[,{" * MAX_ARGUMENT_VALUES})
    call = {"id": "c", "function": {"name": "write", "arguments": prose}}
    (found,) = wire.read_completions({"choices": [{"message": {"tool_calls": [call]}}]})
    assert len(found.message.tool_calls[0].arguments["text"]) == 3 * MAX_ARGUMENT_VALUES, "a long text is one value"


def test_no_more_choices_are_read_than_were_asked_for() -> None:
    choices: list[Any] = [{"index": 3 - n, "message": {"content": str(n)}} for n in range(4)]
    body = {"choices": choices, "usage": {"completion_tokens": 8}}
    found = wire.read_completions(body, most=2)
    assert [each.message.text for each in found] == ["3", "2"] and [each.usage.completion_tokens for each in found] == [
        4,
        4,
    ]
    assert len(wire.read_completions(body)) == 4


def asked(raw: bytes, more: int = 0, **settings: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        asked_values.set(more)
        options = {"timeout_s": 5, "max_reply_bytes": 1 << 20, "max_reply_values": 10, "follow_redirects": False}
        async with bounded_client(httpx, **{**options, **settings}) as client:
            kind = {"content-type": "application/json; charset=utf-16"}
            client._transport = httpx.MockTransport(lambda request: httpx.Response(500, headers=kind, stream=Body(raw)))
            reply: httpx.Response = await client.get("http://h/")
            return reply

    return asyncio.run(ask())


class Body(httpx.AsyncByteStream):
    def __init__(self, raw: bytes):
        self.raw = raw

    async def __aiter__(self) -> Any:
        for at in range(0, len(self.raw), 7):
            yield self.raw[at : at + 7]


def test_the_values_of_a_reply_are_counted_before_an_sdk_decodes_it_errors_too() -> None:
    assert asked(b"[{},{},{},{},0,0]").text == "[{},{},{},{},0,0]"
    told = r"^it sent more than 10 JSON values: ask for less at once$"
    for raw in (b"[{},{},{},{},0,0,0]", b'data: "\r' + b"data: {},{},{}\r" * 3):
        with pytest.raises(ModelError, match=told):
            asked(raw)
    assert asked(b"[{},{},{},{},0,0,0]", more=1).text == "[{},{},{},{},0,0,0]"
    assert asked(b'{"text": "' + b"[,{" * 99 + b'"}').status_code == 500
    assert asked("[]".encode("utf-16")).text != "[]", "no charset but UTF-8, whose values are counted"
    with pytest.raises(ModelError, match="where JSON was expected"):
        wire.parse('{"a": 1}'.encode("utf-16"))
    assert wire.parse(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


def test_log_probs_and_token_ids_that_were_asked_for_fit_within_the_bound() -> None:
    sampling = Sampling(max_tokens=4096, top_logprobs=20)
    body = openai_request.request("m", [user("hi")], sampling, (), 8, token_ids=True, limit="max_tokens")
    spelled = {"token": " the", "logprob": -0.5, "bytes": [32, 116, 104, 101]}
    token = json.dumps({**spelled, "top_logprobs": [spelled] * 20}).encode()
    marks = sum(token.count(mark) for mark in (b",", b"[", b"{")) + 2
    assert 8 * 4096 * marks < MAX_REPLY_VALUES + openai_request.reply_values(body)
    plain = openai_request.request(
        "m", [user("hi")], Sampling(max_tokens=9), (), 1, token_ids=False, limit="max_tokens"
    )
    assert openai_request.reply_values(plain) == 0 == openai_request.reply_values({})
    echo = {"prompt": "a" * 1000, "max_tokens": 1, "echo": True, "logprobs": 1}
    assert openai_request.reply_values(echo) > 16_000
