"""Streams of hostile endpoints: events of endless lines, and Google's errors with a code of another type."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from firsthand.errors import GrammarIgnored, ModelError, TransientError
from firsthand.grammar import Grammar
from firsthand.message import assistant, user
from firsthand.model import Completion, Sampling, Usage
from firsthand.providers.output_validation import check
from firsthand.providers.sse_events import MAX_EVENT_LINES, MAX_LINES, is_cut_short, sse_data


def data_of(*chunks: bytes) -> list[str]:
    async def sent() -> AsyncIterator[bytes]:
        for each in chunks:
            yield each

    async def read() -> list[str]:
        return [data async for data in sse_data(sent())]

    return asyncio.run(read())


@pytest.mark.slow
def test_an_event_has_a_bound_of_lines_and_a_long_one_in_one_line_is_read() -> None:
    most = b"data:a\n" * MAX_EVENT_LINES
    assert data_of(most + b"\n", most) == ["\n".join("a" * MAX_EVENT_LINES)] * 2, "the next event counts anew"
    with pytest.raises(ModelError, match=r"^it sent an event of more than 100,000 lines: check its address$"):
        data_of(most, b"data:a\n")
    assert data_of(b"data: " + b"x" * 9_000_000 + b"\n\n") == ["x" * 9_000_000]


@pytest.mark.slow
def test_other_tasks_have_their_turn_while_many_small_events_are_read() -> None:
    async def main() -> tuple[int, int]:
        turns, read = 0, 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async def sent() -> AsyncIterator[bytes]:
            yield b"data:{}\n\n" * 5_119

        beside = asyncio.create_task(other())
        async for _ in sse_data(sent()):
            read += 1
        beside.cancel()
        return turns, read

    assert asyncio.run(main()) == (9, 5_119), "after each 512, and not before the first"


def test_a_stream_has_a_bound_of_lines_pings_included() -> None:
    pings = b":\n" * (MAX_LINES - 2)
    assert data_of(pings, b"data: end\n\n") == ["end"]
    with pytest.raises(ModelError, match=r"^it sent a stream of more than 2,000,000 lines: ask for less$"):
        data_of(pings, b"data: end\n\n\n")


@pytest.mark.slow
@pytest.mark.parametrize("code", ['"text"', "null", "[]", '{"a": 1}', "7", "1e9", '"\\u001b[2J"'])
def test_an_error_of_google_with_another_code_is_a_sentence(code: str) -> None:
    pytest.importorskip("google.genai", reason="google-genai is not installed")
    from firsthand.providers.google import GoogleModel

    body = b'data: {"error": {"message": "no \\u001b]0;x", "code": ' + code.encode() + b"}}\n\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    async def main() -> str:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        model = GoogleModel("m", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout_s=20)
        with pytest.raises(ModelError) as told:
            _ = [each async for each in model.stream([user("hi")], Sampling())]
        server.close()
        return str(told.value)

    said = asyncio.run(main())
    assert "could not be asked" not in said and "instances of" not in said and said.isprintable(), said
    if not isinstance(json.loads(code), int | float):
        assert said.endswith("it sent a reply of another form than the API's (TypeError): check its address")


def test_a_reply_of_google_that_is_nested_without_end_is_a_sentence() -> None:
    pytest.importorskip("google.genai", reason="google-genai is not installed")
    from firsthand.providers.google import GoogleModel

    deep = '{"a":' * 300 + "1" + "}" * 300
    part = '{"functionCall": {"name": "f", "args": ' + deep + "}}"
    body = ('{"candidates": [{"content": {"role": "model", "parts": [' + part + "]}}]}").encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    async def main() -> str:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        model = GoogleModel("m", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout_s=20)
        with pytest.raises(ModelError) as told:
            await model.complete([user("hi")], Sampling())
        server.close()
        return str(told.value)

    assert "(ValueError: Maximum serialization depth exceeded): check its address" in asyncio.run(main())


def test_an_endpoint_that_ignores_its_grammar_has_an_error_of_its_own() -> None:
    wrong = Completion(assistant("hi"), "stop", Usage())
    with pytest.raises(GrammarIgnored, match="it seems to ignore grammars, so leave the grammar out"):
        asyncio.run(check("m", [wrong], Sampling(grammar=Grammar("regex", "[0-9]+"))))


def test_a_byte_order_mark_before_a_stream_is_left_out_and_one_in_it_is_kept() -> None:
    mark = b"\xef\xbb\xbf"
    assert data_of(mark + b"data: a\n\n" + mark + b"data: b\n\ndata: c\n\n") == ["a", "c"]
    assert data_of(mark[:1], mark[1:], b"data: a\n", b"\n") == ["a"] and data_of(mark + b"data: a") == ["a"]
    assert data_of(b"data: " + mark + b"a\n\n", mark + b"data: b\n\n", mark + b"data: c") == ["\ufeffa"]


def test_what_a_stream_ended_in_is_cut_short_unless_it_is_json() -> None:
    for sent, expected in (
        (b'data: {"a"\n\n', [False]), (b'data: {"a": 1}\n\ndata: {"a"', [False, True]), (b"data: [DONE", [True]),
        (b'data: {"a": 1}', [False]), (b'data: {"a":\ndata: 1}\n', [False]), (b'data: {"a":\n', [True]),
        (b"data: " + b"[" * 100_000, [True]), (b"event: error\ndata: out of memory", [False]), (b"data:", [True]),
        (b'data:   {"a"', [True]),
    ):  # fmt: skip
        assert [is_cut_short(each) for each in data_of(sent)] == expected, sent[:40]


VENDORS = {
    "openai": (
        b'data: {"choices": [{"index": 0, "delta": {"content": "4"}}]}\n\n',
        b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}',
    ),
    "anthropic": (
        b'data: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "4"}}\n\n',
        b'data: {"type": "message_stop"}',
    ),
    "google": (
        b'data: {"candidates": [{"content": {"parts": [{"text": "4"}]}}]}\n\n',
        b'data: {"candidates": [{"finishReason": "STOP"}]}',
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("vendor", VENDORS)
def test_a_stream_that_is_cut_inside_of_an_event_is_tried_again_as_one_between_events(vendor: str) -> None:
    pytest.importorskip({"google": "google.genai"}.get(vendor, vendor), reason="its SDK is not installed")
    from firsthand.providers.anthropic import AnthropicModel
    from firsthand.providers.google import GoogleModel
    from firsthand.providers.openai import OpenAIModel

    first, last = VENDORS[vendor]
    bodies: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + bodies.pop(0))
        await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        kind = {"openai": OpenAIModel, "anthropic": AnthropicModel, "google": GoogleModel}[vendor]
        model = kind("m", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout_s=20)
        for cut in (b"", last[:-1], last[:12]):
            bodies.append(first + cut)
            with pytest.raises(TransientError, match="broke off in the middle of an answer: try again"):
                _ = [each async for each in model.stream([user("hi")], Sampling())]
        bodies.append(first + last)  # without a blank line, and whole
        assert "".join([each.text async for each in model.stream([user("hi")], Sampling())]) == "4"
        bodies.append((first if vendor != "google" else b"") + b"data: {,}\n\n" + last)
        with pytest.raises(ModelError, match="check its address") as told:
            _ = [each async for each in model.stream([user("hi")], Sampling())]
        assert not isinstance(told.value, TransientError)
        server.close()

    asyncio.run(main())


def test_an_answer_of_google_that_failed_is_tried_again_under_its_models_name() -> None:
    pytest.importorskip("google.genai", reason="google-genai is not installed")
    from firsthand.providers import google_wire
    from firsthand.providers.google import GoogleModel

    model, reply = GoogleModel("m", "http://127.0.0.1:9"), {"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL"}]}
    with pytest.raises(TransientError) as told:
        model._read(lambda: google_wire.read_completion(reply))
    assert str(told.value) == (
        "google:m@http://127.0.0.1:9 ended an answer with MALFORMED_FUNCTION_CALL: it may pass, try again"
    )
