"""/v1/responses by OpenAI's own client, /v1/embeddings in both encodings, thoughts apart from words, and the description."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import httpx
import openai
import pytest

from firsthand.message import ToolCall, assistant
from firsthand.providers.scripted import Scripted
from firsthand.serve.openai.reasoning_split import ReasoningSplitter
from served import Running, serving

HTTP = httpx.Client(verify=False, timeout=60)
"""One client for all: making one takes longer than most requests."""

WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


class Vectors:
    """An Embedder by hand: a vector of a text's length."""

    name = "vectors"

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return [[math.cos(len(text)), math.sin(len(text))] for text in texts]


def answer(messages: Any, sampling: Any, index: int) -> Any:
    last = messages[-1]
    if last.role == "user" and "weather" in last.text:
        return assistant("Let me see.", ToolCall("call_0", "weather", {"city": "Oslo"}))
    if sampling.grammar is not None:
        return '{"ok": true}'
    return f"{messages[0].role} said {len(messages)}: {last.text}"


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving(Scripted(answer, name="scripted"), name="demo", embedder=Vectors()) as found:
        yield found


@pytest.fixture(scope="module")
@cache
def client(running: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key="x", max_retries=0)


@pytest.mark.slow
def test_a_response_has_the_text(client: openai.OpenAI) -> None:
    found = client.responses.create(model="demo", input="Hi", instructions="Be brief.")
    assert found.output_text == "system said 2: Hi" and found.status == "completed"
    assert (found.usage.input_tokens, found.usage.output_tokens) == (3, 4)  # type: ignore[union-attr]


def test_a_streamed_response_tells_every_step_in_order(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="demo", input="Hi", stream=True))
    kinds = list(dict.fromkeys(event.type for event in events))
    assert kinds == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        "response.output_text.delta", "response.output_text.done", "response.content_part.done",
        "response.output_item.done", "response.completed",
    ]  # fmt: skip
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == "user said 1: Hi" == events[-1].response.output_text  # type: ignore[union-attr]


def test_a_call_in_a_response_goes_back_with_its_output(client: openai.OpenAI) -> None:
    found = client.responses.create(model="demo", input="the weather", tools=[WEATHER])  # type: ignore[list-item]
    assert [item.type for item in found.output] == ["message", "function_call"]
    call = found.output[1]
    assert json.loads(call.arguments) == {"city": "Oslo"}  # type: ignore[union-attr]
    items = [item.model_dump() | {"of_a_later_library": None} for item in found.output]
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}  # type: ignore[union-attr]
    again = client.responses.create(model="demo", input=[{"role": "user", "content": "the weather"}, *items, output])  # type: ignore[list-item]
    assert again.output_text == "user said 3: rain"
    events = list(client.responses.create(model="demo", input="the weather", tools=[WEATHER], stream=True))  # type: ignore[call-overload]
    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert [json.loads(event.arguments) for event in done] == [{"city": "Oslo"}]
    assert [item.type for item in events[-1].response.output] == ["message", "function_call"]


def test_a_response_has_the_form_that_was_asked_for(client: openai.OpenAI, running: Running) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    form: Any = {"format": {"type": "json_schema", "name": "a", "schema": schema, "strict": True}}
    assert client.responses.create(model="demo", input="Hi", text=form).output_text == '{"ok": true}'


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"input": [{"type": "function_call_output", "call_id": "a", "output": "x"}]}, "input.0.call_id"),
        ({"max_output_tokens": 10**6}, "max_output_tokens"),
        ({"instructions": "S", "input": [{"role": "user", "content": "x"}, {"role": "tool", "content": "y"}]},
         "input.1.role"),
        ({"tools": [{"type": "function", "name": "a", "parameters": {"type": "array"}}]}, "tools.0.parameters"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_field_of_responses_and_not_that_of_a_chat(
    running: Running, change: Any, field: str
) -> None:
    told = HTTP.post(f"{running.url}/v1/responses", json={"model": "demo", "input": "Hi", **change})
    error = told.json()["error"]
    assert told.status_code == 400 and error["param"] == field and error["message"].startswith(f"{field} "), error


def test_a_chat_is_not_stored_and_says_so(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="store is not supported: only responses are stored"):
        client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "Hi"}], store=True)


def test_embeddings_come_as_numbers_and_as_base64(client: openai.OpenAI, running: Running) -> None:
    numbers = client.embeddings.create(model="vectors", input=["a", "abc"], encoding_format="float").data
    packed = client.embeddings.create(model="vectors", input=["a", "abc"]).data  # the client asks for base64
    assert [each.embedding for each in packed] == [pytest.approx(each.embedding, abs=1e-6) for each in numbers]
    assert numbers[1].embedding[0] == pytest.approx(math.cos(3)) and numbers[1].index == 1
    for given, said in (
        ({"input": ""}, "empty"),
        ({"input": [1, 2]}, "input"),
        ({"input": "a", "dimensions": 1}, "dimensions"),
    ):
        told = HTTP.post(f"{running.url}/v1/embeddings", json=given)
        assert told.status_code == 400 and said in told.json()["error"]["message"]


@pytest.mark.slow
def test_without_an_embedder_or_a_model_the_server_says_what_it_has() -> None:
    with serving(None, embedder=Vectors()) as only:
        body = {"messages": [{"role": "user", "content": "x"}]}
        told = HTTP.post(f"{only.url}/v1/chat/completions", json=body)
        assert told.status_code == 400 and "embeddings only" in told.text
        assert HTTP.post(f"{only.url}/v1/embeddings", json={"input": "x"}).status_code == 200
    with serving(Scripted(answer)) as other:
        assert HTTP.post(f"{other.url}/v1/embeddings", json={"input": "x"}).status_code == 501


def test_the_description_names_every_route_and_resolves(running: Running) -> None:
    body = HTTP.get(f"{running.url}/openapi.json").json()
    from firsthand.serve.http.status_routes import STATUS_ROUTES
    from firsthand.serve.openai.openai_app import ROUTES, ROUTES_BY_ID

    assert set(body["paths"]) == {*STATUS_ROUTES, *ROUTES, *ROUTES_BY_ID} and body["openapi"] == "3.1.0"
    text = json.dumps(body)
    for part in text.split('"$ref": "#/components/schemas/')[1:]:
        assert part.partition('"')[0] in body["components"]["schemas"]
    fields = body["components"]["schemas"]["ChatRequest"]
    assert fields["additionalProperties"] is False and "logit_bias" in fields["properties"]


def pieces(text: str, size: int, **options: bool) -> tuple[str, str]:
    split = ReasoningSplitter(**options)
    found = [piece for at in range(0, len(text), size) for piece in split.feed(text[at : at + size])]
    found += split.finish()
    return tuple("".join(p.text for p in found if p.kind == kind) for kind in ("reasoning", "content"))  # type: ignore[return-value]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_thoughts_and_words_are_told_apart_whatever_the_pieces(size: int) -> None:
    think = {"thinks": True}
    assert pieces("<think>\nI see.\n</think>\n\nYes.", size, **think) == ("I see.", "Yes.")
    assert pieces("I see.\n</think>\n\nYes.", size, starts_in_thought=True, **think) == ("I see.", "Yes.")
    assert pieces("No <think> here", size, **think) == ("", "No <think> here")
    assert pieces("<think>never ends </th", size, **think) == ("never ends </th", "")
    assert pieces("<think></think>Yes", size, **think) == ("", "Yes")
    assert pieces("a <think>b</think>", size) == ("", "a <think>b</think>")
    assert pieces("<think>hm</think>\n\nSo: {}", size, **think) == ("hm", "So: {}")
