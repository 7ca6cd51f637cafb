"""/v1/messages by Anthropic's own client: whole and streamed, with tools, thoughts and counts, and hostile requests."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ModelError
from firsthand.message import ToolCall, assistant, user
from firsthand.providers.anthropic import AnthropicModel
from firsthand.providers.local import Local
from firsthand.providers.scripted import Scripted
from firsthand.sampling import Sampling
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.admission.api_keys import read_keys
from served import Running, serving
from tiny import write_model

anthropic: Any = pytest.importorskip("anthropic", reason="anthropic is not installed")
HTTP = httpx.Client(timeout=60)
HI: list[Any] = [{"role": "user", "content": "Hi"}]
WEATHER: Any = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"enum": ["Oslo", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


def answer(messages: Any, sampling: Any, index: int) -> Any:
    last = messages[-1]
    if "break" in last.text:
        raise ModelError("the model broke")
    if "thought" in last.text:
        return "<think>\nI see.\n</think>\n\nYes."
    if last.role == "user" and "weather" in last.text:
        return assistant(
            "Let me see.", ToolCall("call_0", "weather", {"city": "Oslo"}), ToolCall("", "weather", {}, "{x")
        )
    if sampling.grammar is not None:
        return '{"ok": true}'
    return " | ".join(f"{message.role}: {message.text}" for message in messages)


class Thinker(Scripted):
    """A Scripted model that may think."""

    thinks = True


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving(Thinker(answer, name="scripted"), name="demo", log_texts=True) as found:
        yield found


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = write_model(tmp_path_factory.mktemp("messages") / "m", max_position=1024)
    with serving(Local(folder, config=EngineConfig(kv_memory_bytes=1 << 23, threads=1)), name="tiny") as found:
        yield found


def client(running: Running, **options: Any) -> Any:
    return anthropic.Anthropic(base_url=running.url, max_retries=0, **{"api_key": "x", **options})


def settings(messages: list[Any], options: Any) -> Any:
    """The client's arguments; it has none of its own for what other models than Anthropic's take."""
    extra = {name: options.pop(name) for name in ("temperature", "seed") if name in options}
    return {"model": "demo", "max_tokens": 64, "messages": messages, **options, "extra_body": extra}


def ask(running: Running, messages: list[Any] = HI, **options: Any) -> Any:
    return client(running).messages.create(**settings(messages, options))


def streamed(running: Running, messages: list[Any] = HI, **options: Any) -> tuple[list[Any], Any]:
    """The raw events, and the message that the client puts together."""
    asked = settings(messages, options)
    events = list(client(running).messages.create(**asked, stream=True))
    with client(running).messages.stream(**asked) as stream:
        return events, stream.get_final_message()


def plain(message: Any) -> list[Any]:
    """The blocks of a message without the ids, which differ."""
    return [block.model_dump(exclude={"id", "parsed_output"}, exclude_none=True) for block in message.content]


def test_a_message_is_answered_with_its_system_and_its_counts(running: Running) -> None:
    found = ask(running, system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}])
    assert found.content[0].text == "system: Be brief. | user: Hi"
    assert (found.role, found.model, found.stop_reason, found.stop_sequence) == ("assistant", "demo", "end_turn", None)
    assert found.id.startswith("msg_") and (found.usage.input_tokens, found.usage.output_tokens) == (3, 6)


def test_blocks_are_paragraphs_and_turns_of_one_role_are_one(running: Running) -> None:
    parts = [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]
    turns: list[Any] = [{"role": "user", "content": parts}, {"role": "user", "content": "Three."}]
    assert ask(running, turns).content[0].text == "user: One.\n\nTwo.\n\nThree."
    turns += [{"role": "assistant", "content": [{"type": "text", "text": "Fine."}]}, {"role": "system", "content": "S"}]
    assert ask(running, [*turns, *HI]).content[0].text.endswith("| assistant: Fine. | system: S | user: Hi")


def test_a_streamed_message_tells_every_step_in_order(running: Running) -> None:
    events, found = streamed(running)
    assert [event.type for event in events] == [
        "message_start", "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    assert (
        found.content[0].text == "user: Hi" == "".join(e.delta.text for e in events if e.type == "content_block_delta")
    )
    assert found.stop_reason == "end_turn" and (found.usage.input_tokens, found.usage.output_tokens) == (1, 2)
    assert events[0].message.stop_reason is None and events[0].message.content == []


def test_calls_are_blocks_whose_results_go_back(running: Running) -> None:
    turns: list[Any] = [{"role": "user", "content": "the weather"}]
    found = ask(running, turns, tools=[WEATHER])
    assert [block.type for block in found.content] == [
        "text",
        "tool_use",
        "tool_use",
    ] and found.stop_reason == "tool_use"
    call, broken = found.content[1:]
    assert (call.name, call.input, broken.input) == ("weather", {"city": "Oslo"}, {"INVALID_JSON": "{x"})
    assert call.id.startswith("toolu_") and call.id != broken.id
    results = [
        {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "rain"}]},
        {"type": "tool_result", "tool_use_id": broken.id, "content": "bad city", "is_error": True},
        {"type": "text", "text": "So?"},
    ]
    dumped = [block.model_dump() | {"caller": None, "of_a_later_library": None} for block in found.content]
    parsed = [block.model_dump() for block in streamed(running, turns, tools=[WEATHER])[1].content]
    for block, own in zip(parsed, dumped, strict=True):
        block |= {"id": own["id"]} if "id" in own else {}
    for blocks in (found.content, dumped, parsed):
        again = ask(running, [*turns, {"role": "assistant", "content": blocks}, {"role": "user", "content": results}])
        assert again.content[0].text.endswith("assistant: Let me see. | tool: rain | tool: Error: bad city | user: So?")


def test_streamed_calls_are_the_same_blocks(running: Running) -> None:
    turns: list[Any] = [{"role": "user", "content": "the weather"}]
    events, found = streamed(running, turns, tools=[WEATHER])
    assert plain(found)[:2] == plain(ask(running, turns, tools=[WEATHER]))[:2] and found.stop_reason == "tool_use"
    assert found.content[2].input == {}  # what could be read of the broken one
    starts = [event.index for event in events if event.type == "content_block_start"]
    ends = [event.index for event in events if event.type == "content_block_stop"]
    assert starts == ends == [0, 1, 2]
    pieces = [e.delta.partial_json for e in events if e.type == "content_block_delta" and e.index == 1]
    assert json.loads("".join(pieces)) == {"city": "Oslo"}


def test_a_thought_is_a_block_before_the_text_and_may_come_back(running: Running) -> None:
    turns: list[Any] = [{"role": "user", "content": "a thought"}]
    found = ask(running, turns, thinking={"type": "adaptive"})
    assert [(block.type, getattr(block, block.type)) for block in found.content] == [
        ("thinking", "I see."),
        ("text", "Yes."),
    ]
    assert plain(streamed(running, turns)[1]) == plain(found)
    again = ask(running, [*turns, {"role": "assistant", "content": found.content}, *HI])
    assert "assistant: <think>\nI see.\n</think>\n\nYes. | user: Hi" in again.content[0].text


@pytest.mark.slow
def test_an_answer_says_which_stop_sequence_or_limit_ended_it(running: Running, local: Running) -> None:
    found = ask(running, stop_sequences=["x", ": H"])
    assert (found.content[0].text, found.stop_reason, found.stop_sequence) == ("user", "stop_sequence", ": H")
    assert streamed(running, stop_sequences=["x", ": H"])[1].stop_sequence == ": H"
    cut = ask(running, max_tokens=1)
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 1)
    full = ask(local, [{"role": "user", "content": "x" * 900}], model="tiny", max_tokens=1000, temperature=0, seed=0)
    assert full.stop_reason == "model_context_window_exceeded"
    assert full.usage.input_tokens + full.usage.cache_read_input_tokens + full.usage.output_tokens == 1024
    whole = ask(local, model="tiny", max_tokens=8, temperature=0).content[0].text
    stopped = ask(local, model="tiny", max_tokens=8, temperature=0, stop_sequences=[whole[1:3]])
    assert (stopped.stop_reason, stopped.stop_sequence, stopped.content[0].text) == (
        "stop_sequence", whole[1:3], whole[: whole.index(whole[1:3])],
    )  # fmt: skip


def test_an_answer_has_the_form_that_was_asked_for(running: Running, local: Running) -> None:
    schema: Any = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    form: Any = {"format": {"type": "json_schema", "schema": {**schema, "additionalProperties": False}}}
    assert ask(running, output_config=form).content[0].text == '{"ok": true}'
    assert set(json.loads(ask(local, model="tiny", output_config=form).content[0].text)) == {"ok"}


def test_a_model_that_runs_here_is_made_to_call_and_its_counts_agree(local: Running) -> None:
    for choice, kinds in (({"type": "any"}, {"tool_use"}), ({"type": "tool", "name": "weather"}, {"tool_use"})):
        options: Any = {"model": "tiny", "max_tokens": 200, "tools": [WEATHER], "seed": 1}
        options["tool_choice"] = {**choice, "disable_parallel_tool_use": True}
        found = ask(local, **options)
        events, again = streamed(local, **options)
        assert {block.type for block in found.content} == kinds and found.content[0].input["city"] in ("Oslo", "Rome")
        assert plain(again) == plain(found) and again.stop_reason == found.stop_reason == "tool_use"
        count = client(local).messages.count_tokens(model="tiny", messages=HI, tools=[WEATHER])
        usage = again.usage
        assert usage.input_tokens + usage.cache_read_input_tokens == count.input_tokens
        assert events[0].message.usage.input_tokens == count.input_tokens
    none = ask(local, model="tiny", max_tokens=4, seed=1, tools=[WEATHER], tool_choice={"type": "none"})
    assert [block.type for block in none.content] == ["text"]


def test_a_conversation_that_comes_back_finds_its_own_tokens(local: Running) -> None:
    first = ask(local, model="tiny", max_tokens=40, temperature=0)
    turns: list[Any] = [*HI, {"role": "assistant", "content": first.content}, {"role": "user", "content": "More"}]
    again = ask(local, model="tiny", max_tokens=1, temperature=0, messages=turns)
    asked = first.usage.input_tokens + first.usage.cache_read_input_tokens
    assert again.usage.cache_read_input_tokens >= asked + first.usage.output_tokens - 16  # whole blocks of the cache


def test_a_chat_and_a_message_are_the_same_prompt(local: Running) -> None:
    chat = {"model": "tiny", "messages": HI, "max_tokens": 8, "seed": 3, "temperature": 1}
    text = HTTP.post(f"{local.url}/v1/chat/completions", json=chat).json()["choices"][0]["message"]["content"]
    found = ask(local, model="tiny", max_tokens=8, temperature=1, seed=3)
    assert "".join(block.text for block in found.content) == text


def test_tokens_are_counted_by_a_model_that_can_and_models_are_listed(running: Running) -> None:
    assert client(running).messages.count_tokens(model="demo", messages=HI, system="Be brief").input_tokens == 3
    (model,) = client(running).models.list().data
    assert (model.id, model.type, model.display_name) == ("demo", "model", "demo") and model.created_at.year > 2000
    assert client(running).models.retrieve("demo").id == "demo"


def test_our_own_client_of_this_api_reads_what_the_server_writes(running: Running) -> None:
    async def both() -> list[Any]:
        model, sampling = AnthropicModel("demo", running.url), Sampling(max_tokens=9, stop=("Hi",))
        whole = await model.complete([user("Hi")], sampling)
        return [*whole, [delta async for delta in model.stream([user("Hi")], sampling)][-1].completion]

    assert [(each.message.text, each.stop_string) for each in asyncio.run(both())] == [("user: ", "Hi")] * 2


def test_a_key_is_taken_from_either_header(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text('[alice]\nkey = "a-secret-of-alice"\nmax_tokens = 32\n')
    keys = read_keys(tmp_path / "keys.toml", {}, ClientLimits())
    with serving(Scripted(answer, name="scripted"), name="demo", keys=keys) as guarded:
        for options in ({"api_key": "a-secret-of-alice"}, {"api_key": None, "auth_token": "a-secret-of-alice"}):
            with client(guarded, **options) as known:
                assert known.messages.create(model="demo", max_tokens=9, messages=HI).content
        with pytest.raises(anthropic.AuthenticationError, match="API key is wrong"):
            ask(guarded)
        with pytest.raises(anthropic.BadRequestError, match="max_tokens is 64: at most 32 are given"):
            client(guarded, api_key="a-secret-of-alice").messages.create(model="demo", max_tokens=64, messages=HI)
        bare = HTTP.post(f"{guarded.url}/v1/messages", json={}).json()
        assert bare["type"] == "error" and bare["error"]["type"] == "authentication_error"
        both = {"x-api-key": "a-secret-of-alice", "authorization": "Bearer wrong"}
        assert HTTP.post(f"{guarded.url}/v1/messages", json={}, headers=both).status_code == 401
        twice = [("x-api-key", "a-secret-of-alice"), ("x-api-key", "b")]
        assert "x-api-key comes twice" in HTTP.post(f"{guarded.url}/v1/messages", json={}, headers=twice).text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_tokens": None}, "max_tokens is None"),
        ({"model": "claude-x"}, "there is no model 'claude-x' here: demo"),
        ({"messages": []}, "messages is an empty list"),
        ({"messages": [{"role": "user", "content": []}]}, "messages.0.content is empty"),
        ({"messages": [*HI, {"role": "assistant", "content": "I"}]}, "end with a user's message"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role is 'tool'"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
         "content.0.type is 'image': this server takes text only"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text is missing"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "id": "y"}]}]}, "id does not belong"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "caller": {"type": "direct"}}]}]},
         "the field 'messages.0.content.0.caller' is not known here"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "toolset_name": ""}]}]},
         "the field 'messages.0.content.0.toolset_name' is not known here"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": None, "txt": None}]}]},
         "messages.0.content.0.text is missing"),
        ({"temprature": None}, "did you mean temperature?"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "a", "name": "b", "input": {}}]}]},
         "only the assistant has such blocks"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}]}]},
         "messages.0.content.0.tool_use_id is 'a': no call of that id"),
        ({"system": "S", "messages": [*HI, {"role": "user", "content": [
            {"type": "text", "text": "x"}, {"type": "tool_result", "tool_use_id": "b"}]}]},
         "messages.1.content.1.tool_use_id is 'b': no call of that id"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type is 'web_search_20250305'"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools.0.name is 'a b'"),
        ({"tools": [{"name": "a", "input_schema": {"type": "array"}}]}, "tools.0.input_schema has type 'array': arguments"),
        ({"tool_choice": {"type": "any"}}, "tool_choice demands a call, and there are no tools"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name goes with the type tool"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, "thinking.budget_tokens is not supported"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {}}}, "tools": [{"name": "a", "input_schema": {}}]},
         "output_config.format and tools cannot both rule"),
        ({"output_config": {"effort": "max"}}, "output_config.effort is 'max'"),
        ({"temperature": -1}, "temperature is -1"), ({"top_p": 0}, "top_p is 0"), ({"max_tokens": 5000}, "at most 4096"),
        ({"stop_sequences": ["x"] * 65}, "stop_sequences is a list of more than 64"),
        ({"temprature": 0}, "did you mean temperature?"),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers is not supported"), ({"n": 2}, "'n' is not known"),
        ({"service_tier": "flex"}, "service_tier is not supported"), ({"guided_regex": "a"}, "is not known"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_cannot_be_answered_is_refused_in_anthropics_shape(
    running: Running, change: Any, said: str, stream: bool
) -> None:
    body = {"model": "demo", "max_tokens": 9, "messages": HI, "stream": stream, **change}
    found = HTTP.post(f"{running.url}/v1/messages", json=body)
    assert found.status_code == (404 if "model" in change else 400), found.text
    error = found.json()
    assert set(error) == {"type", "error"} and set(error["error"]) == {"type", "message"} and error["type"] == "error"
    assert said in error["error"]["message"], error


def test_fields_that_change_nothing_are_taken(running: Running) -> None:
    marks = {"cache_control": {"type": "ephemeral", "ttl": "1h"}, "service_tier": "auto", "speed": "standard"}
    body = {"model": "demo", "max_tokens": 9, "messages": HI, "metadata": {"user_id": "u" * 500}, **marks}
    body |= {
        "tools": [{**WEATHER, "type": "custom", "eager_input_streaming": True}],
        "output_config": {"effort": "high"},
    }
    assert HTTP.post(f"{running.url}/v1/messages?beta=true", json=body).status_code == 200


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[" * 100_000, b'{"messages": [' + b"0," * 600_000 + b"0]}", b"\xff\xfe{}",
     b'{"model": "demo", "max_tokens": 9, "messages": [{"role": "user", "content": ' + b'{"a":' * 1000 + b"1" + b"}" * 1000],
)  # fmt: skip
def test_a_body_that_is_no_request_is_refused_in_anthropics_shape(running: Running, content: bytes) -> None:
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        found = HTTP.post(running.url + path, content=content, headers={"content-type": "application/json"})
        assert found.status_code == 400 and found.json()["error"]["type"] == "invalid_request_error"
    assert ask(running).content


def test_other_methods_and_failures_keep_the_shape(running: Running) -> None:
    wrong = HTTP.get(f"{running.url}/v1/messages")
    assert wrong.status_code == 405 and wrong.json()["type"] == "error" and wrong.headers["allow"] == "POST"
    broken: list[Any] = [{"role": "user", "content": "break"}]
    with pytest.raises(anthropic.InternalServerError, match="the model broke"):
        ask(running, broken)
    with pytest.raises(anthropic.InternalServerError, match="the model broke"):
        streamed(running, broken)


class Unsent(Scripted):
    """A Scripted model whose endpoint has fields for neither."""

    unsent_settings = AnthropicModel.unsent_settings


@pytest.mark.parametrize(
    "path, base",
    [
        ("chat/completions", {"messages": HI}),
        ("messages", {"model": "demo", "messages": HI, "max_tokens": 5}),
        ("responses", {"input": "Hi"}),
        ("completions", {"prompt": "Hi"}),
    ],
)
def test_a_field_that_the_endpoint_has_none_for_is_refused_where_a_client_states_it(path: str, base: Any) -> None:
    with serving(Unsent(["a"] * 4), name="demo") as server:
        fields = ["temperature"] if path == "responses" else ["temperature", "seed"]
        for field, value in itertools.product(fields, (0, 3)):
            said = HTTP.post(f"{server.url}/v1/{path}", json={**base, field: value})
            assert said.status_code == 400 and "has none: leave it out" in said.json()["error"]["message"], said.text
            assert path == "messages" or said.json()["error"]["param"] == field
        for stated in ({}, {"temperature": 1}):
            assert HTTP.post(f"{server.url}/v1/{path}", json={**base, **stated}).status_code == 200
    with serving(Scripted(["a"]), name="demo") as server:
        assert HTTP.post(f"{server.url}/v1/{path}", json={**base, "temperature": 0}).status_code == 200
