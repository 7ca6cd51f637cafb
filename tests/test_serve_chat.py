"""/v1/chat/completions, asked by OpenAI's own client: sync, async, streamed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from firsthand.message import ToolCall, assistant
from firsthand.model import CallDelta, Delta
from firsthand.providers.scripted import Scripted
from served import Running, serving

HTTP = httpx.Client(verify=False, timeout=60)
"""One client for all: making one takes longer than most requests."""

HI = [{"role": "user", "content": "Hi there"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def answer(messages: Any, sampling: Any, index: int) -> Any:
    """A reply that depends on what was asked."""
    text = messages[-1].text
    if "weather" in text and messages[-1].role == "user":
        return assistant(
            "", ToolCall("call_0", "weather", {"city": "Oslo"}), ToolCall("call_1", "weather", {"city": "Rome"})
        )
    return f"You said: {text} ({index})" if text else "Nothing"


@cache
def client(running: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key="no key at all", max_retries=0)


@pytest.fixture(scope="module")
def scripted() -> Iterator[Running]:
    with serving(Scripted(answer, name="scripted"), name="demo") as running:
        yield running


def ask(running: Running, messages: Any = HI, **options: Any) -> Any:
    return client(running).chat.completions.create(model=running.models.name, messages=messages, **options)


def test_a_chat_is_answered(scripted: Running) -> None:
    found = ask(scripted)
    assert found.choices[0].message.content == "You said: Hi there (0)"
    assert (found.object, found.model, found.choices[0].finish_reason) == ("chat.completion", "demo", "stop")
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (2, 5, 7)
    assert found.usage.prompt_tokens_details.cached_tokens == 0


def test_a_stream_is_the_same_answer_in_pieces_with_its_usage(scripted: Running) -> None:
    pieces = list(ask(scripted, stream=True, stream_options={"include_usage": True}))
    assert "".join(p.choices[0].delta.content or "" for p in pieces if p.choices) == "You said: Hi there (0)"
    assert len(pieces) > 5 and pieces[0].choices[0].delta.role == "assistant"
    assert [p.choices[0].finish_reason for p in pieces if p.choices][-1] == "stop"
    assert pieces[-1].choices == [] and pieces[-1].usage.total_tokens == 7
    assert len({p.id for p in pieces}) == 1


def test_the_async_client_streams_too(scripted: Running) -> None:
    async def text() -> str:
        async with openai.AsyncOpenAI(base_url=f"{scripted.url}/v1", api_key="x", max_retries=0) as ours:
            stream = await ours.chat.completions.create(model="demo", messages=HI, stream=True)
            return "".join([piece.choices[0].delta.content or "" async for piece in stream])

    assert asyncio.run(text()) == "You said: Hi there (0)"


def test_several_answers_are_told_apart_whole_and_streamed(scripted: Running) -> None:
    assert [choice.message.content[-3:] for choice in ask(scripted, n=3).choices] == ["(0)", "(1)", "(2)"]
    texts = ["", "", ""]
    for piece in ask(scripted, n=3, stream=True):
        texts[piece.choices[0].index] += piece.choices[0].delta.content or ""
    assert [text[-3:] for text in texts] == ["(0)", "(1)", "(2)"]


def test_parallel_tool_calls_go_out_and_their_results_come_back(scripted: Running) -> None:
    asked = [{"role": "user", "content": "the weather?"}]
    found = ask(scripted, asked, tools=[WEATHER])
    message = found.choices[0].message
    assert found.choices[0].finish_reason == "tool_calls" and message.content is None
    assert [json.loads(call.function.arguments) for call in message.tool_calls] == [{"city": "Oslo"}, {"city": "Rome"}]
    results = [{"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in message.tool_calls]
    again = ask(scripted, [*asked, message.model_dump(exclude_none=True), *results], tools=[WEATHER])
    assert again.choices[0].message.content == "You said: rain (0)"
    result = scripted.models.model.asked[-1].prompt[-1].parts[0]
    assert (result.name, result.call_id) == ("weather", message.tool_calls[1].id)


def test_streamed_tool_calls_have_index_id_name_and_arguments(scripted: Running) -> None:
    pieces = list(ask(scripted, [{"role": "user", "content": "weather"}], tools=[WEATHER], stream=True))
    calls = [call for piece in pieces for call in piece.choices[0].delta.tool_calls or ()]
    begun = [call for call in calls if call.id]
    assert [(call.index, call.function.name) for call in begun] == [(0, "weather"), (1, "weather")]
    assert len({call.id for call in begun}) == 2
    assert json.loads("".join(call.function.arguments for call in calls if call.index == 1)) == {"city": "Rome"}
    assert pieces[-1].choices[0].finish_reason == "tool_calls"


def test_the_models_are_listed_and_another_name_is_not_found(scripted: Running) -> None:
    assert [model.id for model in client(scripted).models.list()] == ["demo"]
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-9' here: demo"):
        client(scripted).chat.completions.create(model="gpt-9", messages=HI)


def test_health_and_version_need_nothing(scripted: Running, tmp_path: Path) -> None:

    assert HTTP.get(f"{scripted.url}/health").json() == {"status": "ok"}
    assert HTTP.get(f"{scripted.url}/health/live").status_code == 200


class Streaming(Scripted):
    """A model whose calls come in pieces before the whole answer does."""

    async def stream(self, prompt: Any, sampling: Any, *, tools: Any = ()) -> Any:
        (completion,) = await self.complete(prompt, sampling, tools=tools)
        yield Delta("Let me see.")
        for name, arguments in (("weather", '{"ci'), (None, 'ty":'), (None, '"Oslo"}')):
            yield Delta("", call=CallDelta(0, "x", name, arguments))
        yield Delta("", completion)


@pytest.mark.slow
def test_calls_that_a_model_streams_are_passed_on_in_their_pieces() -> None:
    with serving(Streaming(answer, name="scripted"), name="demo") as running:
        pieces = list(ask(running, [{"role": "user", "content": "weather"}], tools=[WEATHER], stream=True))
    calls = [call for piece in pieces for call in piece.choices[0].delta.tool_calls or ()]
    first = [call for call in calls if call.index == 0]
    assert [call.function.name for call in first] == ["weather", None, None] and first[0].id and not first[1].id
    assert json.loads("".join(call.function.arguments for call in first)) == {"city": "Oslo"}
    rest = [call for call in calls if call.index == 1]  # it did not come in pieces, so it comes whole
    assert len(rest) == 1 and json.loads(rest[0].function.arguments) == {"city": "Rome"}
