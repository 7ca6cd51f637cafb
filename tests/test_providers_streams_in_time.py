"""Time limits of answers from endpoints: one for each piece of a stream, and one for the whole; pings count as no piece."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from firsthand.errors import ModelError, TransientError, Unreachable
from firsthand.message import user
from firsthand.providers.anthropic import AnthropicModel
from firsthand.providers.openai import OpenAIModel
from firsthand.providers.stream_limits import SECONDS_PER_TOKEN
from jumping_clock import run_by_the_clock
from told_clients import PLAIN, STREAM, Reply, over, streamed, told_google

pytest.importorskip("anthropic", reason="anthropic is not installed")
pytest.importorskip("google.genai", reason="google-genai is not installed")
pytest.importorskip("openai", reason="openai is not installed")

RAW = {**STREAM, "raw": "yes"}
LIMIT_S = 2.0


def claude(*pieces: Any) -> tuple[Any, Reply]:
    reply = Reply(*pieces, headers=STREAM)
    return over(AnthropicModel("m", "http://h", api_key="k3y", timeout_s=LIMIT_S), reply), reply


def gemini(*pieces: Any) -> tuple[Any, Reply]:
    model = told_google(list(pieces), timeout_s=LIMIT_S)
    return model, model.reply


def openai(*pieces: Any) -> tuple[Any, Reply]:
    reply = Reply(*pieces, headers=STREAM)
    return over(OpenAIModel("m", "http://h", api_key="k3y", timeout_s=LIMIT_S), reply), reply


def claude_text(text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


def gemini_text(text: str, **end: str) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": [{"text": text}]}, **end}]}


def openai_text(text: str, **end: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, **end}]}


KINDS: Any = {
    "anthropic": (claude, claude_text, {"type": "message_stop"}),
    "google": (gemini, gemini_text, gemini_text("", finishReason="STOP")),
    "openai": (openai, openai_text, openai_text("", finish_reason="stop")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_goes_on_as_long_as_each_event_comes_in_time(kind: str) -> None:
    made, text, end = KINDS[kind]
    model, reply = made(1.5, text("a"), 1.75, text("b"), 1.25, text("c"), 1.5, end)
    found, took = run_by_the_clock(streamed(model, [user("p")]))
    assert [each.text for each in found] == ["a", "b", "c", ""] and found[-1].completion.message.text == "abc"
    assert took == pytest.approx(6.0) and reply.closed == 1
    for late in ([2.25, text("a"), end], [text("a"), 1.5, text("b"), 2.25, end], [text("a"), end, 9.0]):
        model, reply = made(*late)
        told, took = run_by_the_clock(streamed(model, [user("p")]))
        assert type(told) is TransientError and reply.closed == 1
        assert str(told) == f"{model.name} gave no answer within 2 s: try again, or raise timeout_s"
        assert took == pytest.approx(sum(each for each in late[:-2] if isinstance(each, float) and each < 2) + 2)


def test_an_answer_in_one_piece_has_one_limit() -> None:
    answers: Any = {
        claude: {"content": [{"type": "text", "text": "a"}], "stop_reason": "end_turn"},
        gemini: gemini_text("a", finishReason="STOP"),
        openai: {"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}]},
    }  # fmt: skip
    for made, answer in answers.items():
        for wait_s, took_s in ((1.75, 1.75), (2.25, 2.0)):
            model, _ = made()

            async def later(asked: Any, answer: Any = answer, made: Any = made, wait_s: float = wait_s) -> Any:
                await asyncio.sleep(wait_s)
                return answer if made is gemini else Reply(answer)

            model.client.answer = later
            found, took = run_by_the_clock(model.complete([user("p")], PLAIN))
            assert took == pytest.approx(took_s)
            if took_s < 2:
                assert [each.message.text for each in found] == ["a"]
            else:
                assert type(found) is TransientError
                assert str(found) == f"{model.name} gave no answer within 2 s: try again, or raise timeout_s"


def test_pings_are_no_events_and_give_no_more_time() -> None:
    ping, pings = {"type": "ping"}, [0.5, {"type": "ping"}] * 9
    model, reply = claude(ping, 1.5, ping, claude_text("a"), 1.5, ping, ping, {"type": "message_stop"}, ping)
    found, took = run_by_the_clock(streamed(model, [user("p")]))
    assert [each.text for each in found] == ["a", ""] and took == pytest.approx(3.0) and reply.closed == 1
    model, reply = claude(claude_text("a"), *pings, {"type": "message_stop"})
    told, took = run_by_the_clock(streamed(model, [user("p")]))
    assert type(told) is TransientError and "gave no answer within 2 s" in str(told)
    assert took == pytest.approx(2.0) and reply.closed == 1
    comments = Reply(b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n', *[0.5, b": ping\n\n"] * 9, headers=RAW)
    model = over(OpenAIModel("m", "http://h", api_key="k3y", timeout_s=LIMIT_S), comments)
    told, took = run_by_the_clock(streamed(model, [user("p")]))
    assert type(told) is TransientError and took == pytest.approx(2.0) and comments.closed == 1


EMPTY: Any = {
    "anthropic": [
        {"type": "content_block_start", "content_block": {"type": "text", "text": ""}}, claude_text(""),
        {"type": "message_delta", "usage": {"output_tokens": 1}}, {"type": "content_block_stop"},
    ],
    "google": [
        gemini_text(""), {"candidates": []}, {"candidates": [{"content": {"role": "model"}}]}, {"candidates": 5},
        {"candidates": [{"content": {"parts": 5}}]}, {"usageMetadata": {"promptTokenCount": 1}},
    ],
    "openai": [
        {"choices": []}, openai_text(""), {"choices": [{"delta": {"role": "assistant", "content": None}}]},
        {"choices": [{"text": ""}]}, {"choices": 5}, {"choices": [5]}, {"choices": [], "usage": {"prompt_tokens": 1}},
    ],
}  # fmt: skip
FULL: Any = {
    "anthropic": [
        {"type": "content_block_start", "content_block": {"type": "tool_use", "id": "c", "name": "f"}},
        {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}}, claude_text("a"),
    ],
    "google": [
        gemini_text("a"), {"candidates": [{"content": {"parts": [{"text": "hm", "thought": True}]}}]},
        {"candidates": [{}, {"content": {"parts": [{}, {"functionCall": {"name": "f"}}]}}]},
    ],
    "openai": [
        openai_text("a"), {"choices": [{"text": "a"}]}, {"choices": [{"delta": {"reasoning_content": "hm"}}]},
        {"choices": [{"message": {"content": "a"}}]}, {"choices": [{"delta": {"tool_calls": [{"id": "c"}]}}]},
        {"choices": [{"delta": {"refusal": "no"}}]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_without_content_gives_no_more_time_and_reasoning_does(kind: str) -> None:
    made, text, end = KINDS[kind]
    for event in EMPTY[kind]:
        model, reply = made(text("a"), *[0.75, event] * 4, text("b"), end)
        told, took = run_by_the_clock(streamed(model, [user("p")]))
        assert type(told) is TransientError and took == pytest.approx(2.0) and reply.closed == 1, event
        assert str(told) == f"{model.name} gave no answer within 2 s: try again, or raise timeout_s"
        model, _ = made(text("a"), *[0.75, event] * 2, text("b"), 1.75, end)
        assert run_by_the_clock(streamed(model, [user("p")]))[1] == pytest.approx(3.25), event
    for event in FULL[kind]:
        model, _ = made(*[1.5, event] * 4, end)
        assert run_by_the_clock(streamed(model, [user("p")]))[1] == pytest.approx(6.0), event


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_goes_on_for_longer_than_its_tokens_take_is_ended(kind: str) -> None:
    made, text, end = KINDS[kind]
    whole_s = LIMIT_S + SECONDS_PER_TOKEN * PLAIN.max_tokens
    assert (SECONDS_PER_TOKEN, whole_s) == (5.0, 27.0)
    model, reply = made(*[1.5, text("x")] * 17, 1.25, text("x"), end)
    model_late, reply_late = made(*[1.5, text("x")] * 17, 1.75, text("x"), end)
    assert isinstance(run_by_the_clock(streamed(model, [user("p")]))[0], list) and reply.closed == 1
    told, took = run_by_the_clock(streamed(model_late, [user("p")]))
    assert type(told) is ModelError and took == pytest.approx(whole_s) and reply_late.closed == 1
    assert str(told) == (
        f"{model.name} did not end an answer of at most 5 tokens in the time that is given to so many: use an endpoint that "
        "is faster and keeps to max_tokens, or raise timeout_s"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_time_of_the_one_who_reads_a_stream_is_not_the_endpoints(kind: str) -> None:
    made, text, end = KINDS[kind]
    model, _ = made(*[1.5, text("x")] * 3, end)

    async def slowly() -> list[str]:
        texts = []
        async for piece in model.stream([user("p")], PLAIN):
            texts.append(piece.text)
            await asyncio.sleep(60.0)
        return texts

    found, took = run_by_the_clock(slowly())
    assert found == ["x", "x", "x", ""] and took == pytest.approx(244.5)


def test_a_connection_that_breaks_within_a_stream_is_told_and_closed() -> None:
    class Broken(Reply):
        error: Exception

        async def aiter_bytes(self) -> Any:
            async for each in super().aiter_bytes():
                yield each
            raise self.error

    def lost(model: Any, reply: Reply, kind: type[Exception], words: str) -> None:
        told, _ = run_by_the_clock(streamed(model, [user("p")]))
        assert type(told) is kind and reply.closed == 1
        assert str(told) == f"{model.name} {words}"

    refused, slow = (
        "lost or refused the connection ({}): check that the server runs",
        "gave no answer within 2 s: try again, or raise timeout_s",
    )
    for error, kind, words in (
        (OSError("reset"), Unreachable, refused.format("reset")),
        (httpx.ReadError("cut"), Unreachable, refused.format("cut")),
        (httpx.RemoteProtocolError("by k3y"), Unreachable, refused.format("by ***")),
        (httpx.ReadTimeout("x"), TransientError, slow), (TimeoutError(), TransientError, slow),
        (ModelError("it sent more than 9 bytes"), ModelError, "could not be understood: it sent more than 9 bytes"),
        (ValueError("odd"), ModelError, "could not be asked (ValueError: odd): check its address"),
    ):  # fmt: skip
        for made, text in ((AnthropicModel, claude_text), (OpenAIModel, openai_text)):
            for events in ([], [text("a")], [text("a"), text("b")]):
                reply = Broken(*events, headers=STREAM)
                reply.error = error
                lost(over(made("m", "http://h", api_key="k3y", timeout_s=LIMIT_S), reply), reply, kind, words)
        lost(*gemini(gemini_text("a"), error), kind, words)
