"""What an endpoint states of a request that failed is in its error, once: whole, streamed, scored, and several at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from firsthand.errors import GrammarIgnored, ModelError
from firsthand.grammar import choice
from firsthand.message import Json, user
from firsthand.model import Model, Sampling, Usage, lost_usage
from firsthand.providers.anthropic import AnthropicModel
from firsthand.providers.openai import OpenAIModel

ONE = Usage(100, 0, 50)
COUNTED = {
    "openai": {"usage": {"prompt_tokens": 100, "completion_tokens": 50}},
    "anthropic": {"usage": {"input_tokens": 100, "output_tokens": 50}},
    "google": {"usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 50}},
}
HELLO = [user("hi")]


def made(vendor: str, url: str) -> Model:
    if vendor == "google":
        pytest.importorskip("google.genai", reason="google-genai is not installed")
        from firsthand.providers.google import GoogleModel

        return GoogleModel("m", url, api_key="k", timeout_s=20)
    if vendor == "anthropic":
        pytest.importorskip("anthropic", reason="anthropic is not installed")
        return AnthropicModel("m", url, api_key="k", timeout_s=20)
    return OpenAIModel("m", f"{url}/v1", api_key="k", timeout_s=20)


def body(vendor: str, reason: str, text: str = "x") -> Json:
    """A reply of a vendor that ends for `reason` and states its usage."""
    forms: dict[str, Json] = {
        "openai": {"choices": [{"message": {"content": text}, "finish_reason": reason}]},
        "anthropic": {"type": "message", "content": [{"type": "text", "text": text}], "stop_reason": reason},
        "google": {"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": reason}]},
    }
    return forms[vendor] | COUNTED[vendor]


def events(vendor: str, reason: str | None, text: str = "x") -> list[Json]:
    """The same as a stream, which breaks off after its usage where there is no reason."""
    if vendor == "google":
        return [body(vendor, reason or "", text)] if reason else [{"candidates": [], **COUNTED[vendor]}]
    if vendor == "openai":
        end = {"choices": [{"delta": {}, "finish_reason": reason}]}
        return [{"choices": [{"delta": {"content": text}}]} | COUNTED[vendor]] + ([end] if reason else [])
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    end = {"type": "message_delta", "delta": {"stop_reason": reason}}
    return [
        {"type": "message_start", "message": COUNTED[vendor]},
        delta,
        *([end, {"type": "message_stop"}] if reason else []),
    ]


def lost(vendor: str, replies: list[Any], ask: Callable[[Any], Awaitable[Any]]) -> ModelError:
    """The ModelError of `ask` at an endpoint with these replies: objects, lists of events, or a failure after a while."""

    async def main() -> ModelError:
        left = list(replies)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
            await reader.readexactly(length)
            reply = left.pop(0) if len(left) > 1 else left[0]
            kind, sent = "application/json", b""
            if isinstance(reply, list):
                kind = "text/event-stream"
                named = [f"event: {each['type']}\n" if vendor == "anthropic" else "" for each in reply]
                parts = [f"{name}data: {json.dumps(each)}\n\n" for name, each in zip(named, reply, strict=True)]
                sent = "".join(parts).encode()
            else:
                await asyncio.sleep(reply.get("after_s", 0))
                sent = json.dumps(reply).encode()
            writer.write(
                f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(sent)}\r\n".encode()
                + b"connection: close\r\n\r\n"
                + sent
            )
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            model = made(vendor, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            with pytest.raises(ModelError) as error:
                await ask(model)
        return error.value

    return asyncio.run(main())


async def whole(model: Any, n: int = 1, sampling: Sampling | None = None) -> None:
    await model.complete(HELLO, sampling or Sampling(), n=n)


async def streamed(model: Any, sampling: Sampling | None = None) -> None:
    async for _ in model.stream(HELLO, sampling or Sampling()):
        pass


async def scored(model: Any) -> None:
    await model.score("the ", ["a", "b"])


BAD = {"openai": "error", "anthropic": "error", "google": "OTHER"}
GOOD = {"openai": "stop", "anthropic": "end_turn", "google": "STOP"}
GRAMMAR = Sampling(grammar=choice(["a", "b"]))


@pytest.mark.parametrize("vendor", BAD)
def test_a_generation_that_failed_costs_what_its_reply_states(vendor: str) -> None:
    assert lost_usage(lost(vendor, [body(vendor, BAD[vendor])], whole)) == ONE


@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
def test_an_error_under_a_status_of_success_costs_what_it_states(vendor: str) -> None:
    error = {"type": "error", "error": {"type": "api_error", "code": 502, "message": "no"}} | COUNTED[vendor]
    assert lost_usage(lost(vendor, [error], whole)) == ONE


@pytest.mark.parametrize("vendor", BAD)
def test_answers_beside_a_request_that_failed_are_in_its_cost(vendor: str) -> None:
    good, bad = body(vendor, GOOD[vendor]), body(vendor, BAD[vendor]) | {"after_s": 0.3}
    assert lost_usage(lost(vendor, [good, bad], lambda model: whole(model, 2))) == ONE + ONE
    if vendor == "openai":  # its first request asks for all, and brought one
        assert lost_usage(lost(vendor, [good, good, bad], lambda model: whole(model, 3))) == ONE + ONE + ONE


@pytest.mark.parametrize("vendor", BAD)
def test_a_stream_that_broke_off_or_failed_costs_what_it_had_stated(vendor: str) -> None:
    broken = lost(vendor, [events(vendor, None)], streamed)
    assert "broke off" in str(broken) and lost_usage(broken) == ONE
    assert lost_usage(lost(vendor, [events(vendor, BAD[vendor])], streamed)) == ONE


@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
def test_an_error_within_a_stream_costs_what_was_stated(vendor: str) -> None:
    error = {"type": "error", "error": {"type": "api_error", "code": 502, "message": "no"}}
    assert lost_usage(lost(vendor, [[*events(vendor, None), error]], streamed)) == ONE
    if vendor == "openai":
        assert lost_usage(lost(vendor, [[error | COUNTED[vendor]]], streamed)) == ONE


@pytest.mark.parametrize("ask", [lambda model: whole(model, 1, GRAMMAR), lambda model: streamed(model, GRAMMAR)])
def test_an_answer_against_its_grammar_costs_what_was_stated_once(ask: Callable[[Any], Awaitable[None]]) -> None:
    said = events("openai", "stop") if "streamed" in ask.__code__.co_names else body("openai", "stop")
    error = lost("openai", [said], ask)
    assert isinstance(error, GrammarIgnored) and lost_usage(error) == ONE
    assert [each.message.text for each in error.answers] == ["x"]


def test_a_scoring_that_failed_costs_what_its_replies_state() -> None:
    echo = {"tokens": ["the ", "a"], "token_logprobs": [None, -1.0], "text_offset": [0, 4]}
    good = {"choices": [{"text": "the a", "logprobs": echo}], "usage": {"prompt_tokens": 2, "completion_tokens": 1}}
    without = body("openai", "stop") | {"after_s": 0.3}
    refused = {"error": {"code": 400, "message": "no echo"}, "after_s": 0.3} | COUNTED["openai"]
    later = {"error": {"code": 502, "message": "busy"}, "after_s": 0.3} | COUNTED["openai"]
    failed = body("openai", "error") | {"after_s": 0.3}
    for bad in (without, refused, later, failed):
        error = lost("openai", [good, bad], scored)
        assert lost_usage(error) == Usage(2, 0, 1) + ONE, str(error)
        assert ("cannot score" in str(error)) == (bad in (without, refused))
