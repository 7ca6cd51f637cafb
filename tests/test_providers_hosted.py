"""`anthropic:` and `google:` by their own SDKs, against a real HTTP server on this machine that speaks their wire.

Shapes are those of the vendors' public documentation: Messages API 2026-10-21, Gemini API v1.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from firsthand import Benchmark, Experiment, catalog
from firsthand.agent import Agent
from firsthand.cli import main
from firsthand.context import Context
from firsthand.errors import ConfigError, FirsthandError, ModelError, PromptTooLong, TransientError, Unreachable
from firsthand.grammar import json_schema, regex
from firsthand.loop.concurrency import Retry
from firsthand.message import Message, Reasoning, Text, ToolCall, ToolResult, assistant, system, user
from firsthand.model import CallDelta, Completion, Delta, Sampling, ToolSpec, Usage
from firsthand.patterns.direct import direct
from firsthand.patterns.parts.label_choice import choose
from firsthand.patterns.parts.verdicts import distribution
from firsthand.patterns.react import react
from firsthand.providers import anthropic_wire, google_wire
from firsthand.providers.anthropic import AnthropicModel
from firsthand.providers.google import GoogleModel
from firsthand.rollout import rollout
from firsthand.safety.redact import redact
from firsthand.scorers.match import exact
from firsthand.task import Task
from firsthand.tools.calculator import calculator
from test_providers_openai import Server, serving

KEY = "sk-very/secret+key"
GREEDY = Sampling(max_tokens=16)
HI = (user("hi"),)
WEATHER = ToolSpec("weather", "The forecast.", {"type": "object", "properties": {"city": {"type": "string"}}})
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}
SIGNED = base64.b64encode(b"\xfb\xef\xbe signed").decode()


@dataclass(frozen=True)
class Vendor:
    """One vendor's wire, as a test needs it."""

    name: str
    open: Callable[..., Any]
    key_variable: str
    url_variable: str
    answer: Callable[..., dict[str, Any]]
    call: Callable[..., dict[str, Any]]
    stream: Callable[..., Response]
    error: Callable[..., Response]

    def model(self, server: Server, **options: Any) -> Any:
        return self.open("m", origin(server), api_key=KEY, **{"timeout_s": 60.0, **options})


def origin(server: Server) -> str:
    return server.url.removesuffix("/v1")


def events(*bodies: Any, named: bool = False) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        for body in bodies:
            head = f"event: {body['type']}\n" if named and isinstance(body, dict) else ""
            yield f"{head}data: {body if isinstance(body, str) else json.dumps(body)}\n\n".encode()

    return StreamingResponse(chunks(), media_type="text/event-stream")


def claude(text: str, stop: str = "end_turn", **usage: int) -> dict[str, Any]:
    counts = usage or {"input_tokens": 7, "output_tokens": 5}
    content = [{"type": "text", "text": text}] if text else []
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": content,
        "stop_reason": stop,
        "usage": counts,
    }


def claude_call(id: str, name: str, arguments: Any) -> dict[str, Any]:
    reply = claude("", "tool_use")
    return reply | {"content": [{"type": "tool_use", "id": id, "name": name, "input": arguments}]}


def claude_stream(*texts: str, stop: str | None = "end_turn") -> Response:
    usage = {"input_tokens": 3, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 5, "output_tokens": 1}
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}} for text in texts
    ]
    end = [
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]
    return events(
        {"type": "message_start", "message": claude("", "end_turn", **usage)},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *deltas,
        *(end if stop else []),
        named=True,
    )


def claude_error(status: int, kind: str, message: str, **headers: str) -> Response:
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    return JSONResponse(body, status, headers)


def gemini(text: str, stop: str = "STOP", **usage: int) -> dict[str, Any]:
    counts = usage or {"promptTokenCount": 7, "candidatesTokenCount": 5, "totalTokenCount": 12}
    content = {"role": "model", "parts": [{"text": text}] if text else []}
    return {"candidates": [{"content": content, "finishReason": stop, "index": 0}], "usageMetadata": counts}


def gemini_call(id: str, name: str, arguments: Any) -> dict[str, Any]:
    reply = gemini("")
    part = {"functionCall": {"id": id, "name": name, "args": arguments}, "thoughtSignature": SIGNED}
    reply["candidates"][0]["content"]["parts"] = [part]
    return reply


def gemini_stream(*texts: str, stop: str | None = "STOP") -> Response:
    counts = {"promptTokenCount": 12, "cachedContentTokenCount": 4, "candidatesTokenCount": 6, "thoughtsTokenCount": 3}
    chunks: list[dict[str, Any]] = [
        {
            "candidates": [{"content": {"role": "model", "parts": [{"text": text}]}}],
            "usageMetadata": {"promptTokenCount": 12},
        }
        for text in texts
    ]
    if stop:
        chunks.append({"candidates": [{"content": {"role": "model"}, "finishReason": stop}], "usageMetadata": counts})
    return events(*chunks)


def gemini_error(status: int, kind: str, message: str, **headers: str) -> Response:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3s"}] if status == 429 else []
    return JSONResponse(
        {"error": {"code": status, "message": message, "status": kind, "details": details}}, status, headers
    )


ANTHROPIC = Vendor(
    "anthropic",
    AnthropicModel,
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_BASE_URL",
    claude,
    claude_call,
    claude_stream,
    claude_error,
)
GOOGLE = Vendor(
    "google", GoogleModel, "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL", gemini, gemini_call, gemini_stream, gemini_error
)


@pytest.mark.slow
def test_the_sdks_are_installed_where_all_extras_are() -> None:
    pytest.importorskip("anthropic", reason="anthropic is not installed")
    pytest.importorskip("google.genai", reason="google-genai is not installed")


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with serving(Server()) as server:
        yield server


@pytest.fixture
def server(shared: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "ANTHROPIC_CUSTOM_HEADERS",
                 "GOOGLE_API_KEY", "GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL", "GOOGLE_GENAI_USE_VERTEXAI"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    shared.reply({})
    shared.closed.clear()
    return shared


@pytest.fixture(params=[ANTHROPIC, GOOGLE], ids=lambda vendor: vendor.name)
def vendor(request: pytest.FixtureRequest) -> Vendor:
    sdk = {"anthropic": "anthropic", "google": "google.genai"}[request.param.name]
    pytest.importorskip(sdk, reason=f"{sdk} is not installed")
    found: Vendor = request.param
    return found


@pytest.fixture
def claude_server(server: Server) -> Server:
    pytest.importorskip("anthropic", reason="anthropic is not installed")
    return server


@pytest.fixture
def gemini_server(server: Server) -> Server:
    pytest.importorskip("google.genai", reason="google-genai is not installed")
    return server


def ask(model: Any, prompt: Any = HI, sampling: Sampling = GREEDY, **options: Any) -> list[Completion]:
    found: list[Completion] = asyncio.run(model.complete(prompt, sampling, **options))
    return found


def collect(model: Any, prompt: Any = HI, **options: Any) -> list[Delta]:
    async def all_pieces() -> list[Delta]:
        return [delta async for delta in model.stream(prompt, GREEDY, **options)]

    return asyncio.run(all_pieces())


def failure(model: Any, kind: type[FirsthandError] = ModelError, streams: bool = False) -> str:
    with pytest.raises(kind) as caught:
        collect(model) if streams else ask(model)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 900 and KEY not in str(caught.value)
    return str(caught.value)


# -- names and keys --


@pytest.mark.parametrize("rest", ["m@localhost:8000", "m@", "@", "m@ftp://x", "m@ http://x", "", "@http://x", "a\nb"])
def test_what_is_no_name_or_address_is_refused(vendor: Vendor, rest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(vendor.key_variable, KEY)
    with pytest.raises(ConfigError, match=r"address was expected|names no model") as caught:
        catalog.model(f"{vendor.name}:{rest}")
    assert "\n" not in str(caught.value)


def test_the_vendor_itself_needs_a_key(vendor: Vendor, server: Server) -> None:
    for name in (f"{vendor.name}:m", f"{vendor.name}:m@https://api.anthropic.com/v1")[: 1 + (vendor is ANTHROPIC)]:
        with pytest.raises(ConfigError, match=f"{vendor.key_variable} is not set"):
            catalog.model(name)


def test_the_key_goes_to_the_environments_address_and_to_no_name(
    vendor: Vendor, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name in somebody's script cannot send the key, or the SDK's own headers, elsewhere."""
    monkeypatch.setenv(vendor.key_variable, KEY)
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", f"X-Proxy-Key: {KEY}")
    server.reply(vendor.answer("ok"))
    assert ask(catalog.model(f"{vendor.name}:m@{origin(server)}"))[0].message.text == "ok"
    assert KEY not in str(server.headers)
    monkeypatch.setenv(vendor.url_variable, origin(server))
    model = catalog.model(f"{vendor.name}:m")
    assert (model.name, model.fingerprint) == (f"{vendor.name}:m", f"{vendor.name}:m@{origin(server)}")
    ask(model)
    assert KEY in str(server.headers[1])


@pytest.mark.slow
def test_a_redirect_takes_the_key_nowhere(vendor: Vendor, server: Server) -> None:
    with serving(Server()) as other:
        other.reply(vendor.answer("stolen"))
        server.reply(Response(status_code=307, headers={"Location": f"{other.url}/x"}))
        assert "answered 307" in failure(vendor.model(server))
        assert other.asked == []


def test_a_password_in_the_address_is_used_and_never_shown(vendor: Vendor, server: Server) -> None:
    server.reply(vendor.error(400, "invalid_request_error", "no: hunter2"))
    model = vendor.open("m", origin(server).replace("http://", "http://me:hunter2@"))
    assert model.name == model.fingerprint == f"{vendor.name}:m@{origin(server)}"
    assert "hunter2" not in failure(model)


@pytest.mark.slow
@pytest.mark.parametrize(("module", "package"), [("anthropic", "anthropic"), ("google", "google-genai")])
def test_without_the_sdk_the_module_imports_and_says_what_to_install(module: str, package: str) -> None:
    code = (
        f"import sys\nfrom firsthand.providers.{module} import open_model\n"
        "assert not {'anthropic', 'google.genai', 'torch'} & set(sys.modules)\n"
        "sys.modules['anthropic'] = sys.modules['google.genai'] = None\n"
        "try: open_model('m@http://localhost:1')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith(f"MissingExtra the model '{module}:m"), done.stderr
    assert f"{package!r}: pip install 'firsthand[{module}]'" in done.stdout


@pytest.mark.slow
def test_no_socket_is_left_open_when_a_loop_ends(vendor: Vendor, server: Server) -> None:
    server.reply(vendor.answer("ok"))
    code = (
        "import asyncio\nfrom firsthand import catalog\nfrom firsthand.message import user\n"
        "from firsthand.model import Sampling\n"
        f"model = catalog.model('{vendor.name}:m@{origin(server)}')\n"
        "for _ in range(2): asyncio.run(model.complete([user('x')], Sampling()))\n"
    )
    done = subprocess.run([sys.executable, "-W", "always::ResourceWarning", "-c", code], capture_output=True, text=True)
    assert done.stderr == "" and done.returncode == 0


# -- requests --


def test_a_conversation_reaches_anthropic_in_its_shape(claude_server: Server) -> None:
    claude_server.reply(claude("Grüße 🌍"))
    said = (system("Be brief."), user("héllo"), user("世界"), assistant(""), assistant("yes? "))
    (completion,) = ask(ANTHROPIC.model(claude_server), said, Sampling(max_tokens=16, seed=5, stop=("END",)))
    assert completion.message == assistant("Grüße 🌍")
    assert (completion.finish_reason, completion.usage) == ("stop", Usage(7, 0, 5))
    assert claude_server.paths == ["/v1/messages"]
    assert claude_server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert claude_server.asked[0] == {
        "model": "m",
        "max_tokens": 16,
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "héllo"}, {"type": "text", "text": "世界"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "yes?"}]},
        ],
        "stop_sequences": ["END"],
    }


def test_a_conversation_reaches_google_in_its_shape(gemini_server: Server) -> None:
    gemini_server.reply(gemini("Grüße 🌍"))
    said = (system("Be brief."), user("héllo"), user("世界"), assistant(""), assistant("yes?"), user("go"))
    sampling = Sampling(16, 0.7, 40, 0.9, presence_penalty=0.5, frequency_penalty=0.25, seed=2**40 + 3, stop=("END",))
    (completion,) = ask(GOOGLE.model(gemini_server), said, sampling)
    assert completion.message == assistant("Grüße 🌍")
    assert (completion.finish_reason, completion.usage) == ("stop", Usage(7, 0, 5))
    assert gemini_server.paths == ["/v1/models/m:generateContent"]
    assert gemini_server.headers[0]["x-goog-api-key"] == KEY
    sent = gemini_server.asked[0]
    assert sent["contents"] == [
        {"role": "user", "parts": [{"text": "héllo"}, {"text": "世界"}]},
        {"role": "model", "parts": [{"text": "yes?"}]},
        {"role": "user", "parts": [{"text": "go"}]},
    ]
    assert sent["systemInstruction"]["parts"] == [{"text": "Be brief."}]
    assert sent["generationConfig"] == {
        "maxOutputTokens": 16, "temperature": 0.7, "topK": 40, "topP": 0.9, "presencePenalty": 0.5,
        "frequencyPenalty": 0.25, "seed": 3, "stopSequences": ["END"],
    }  # fmt: skip


def test_several_answers_are_several_requests(vendor: Vendor, server: Server) -> None:
    server.reply(vendor.answer("a"), vendor.answer("b"), vendor.answer("c"))
    completions = ask(vendor.model(server), sampling=Sampling(seed=5), n=3)
    assert sorted(each.message.text for each in completions) == ["a", "b", "c"] and len(server.asked) == 3
    assert all(each.usage == Usage(7, 0, 5) for each in completions), "each prompt is charged"
    if vendor is GOOGLE:
        assert sorted(asked["generationConfig"]["seed"] for asked in server.asked) == [5, 6, 7]


def test_a_json_schema_is_sent_and_an_answer_without_it_is_an_error(vendor: Vendor, server: Server) -> None:
    server.reply(vendor.answer('{"x": 3}'), vendor.answer("three"))
    sampling = Sampling(grammar=json_schema(SCHEMA))
    assert ask(vendor.model(server), sampling=sampling)[0].message.text == '{"x": 3}'
    sent = server.asked[0]
    found = (
        sent["output_config"]["format"]["schema"]
        if vendor is ANTHROPIC
        else sent["generationConfig"]["responseJsonSchema"]
    )
    assert found == SCHEMA
    with pytest.raises(ModelError, match="does not fit the json_schema grammar"):
        ask(vendor.model(server), sampling=sampling)

    async def streamed() -> list[Delta]:
        return [delta async for delta in vendor.model(server).stream(HI, sampling)]

    server.reply(vendor.stream('{"x"', ": 3}"), vendor.stream("thr", "ee"))
    assert [delta.text for delta in asyncio.run(streamed())] == ['{"x"', ": 3}", ""]
    with pytest.raises(ModelError, match="'three', which does not fit the json_schema grammar"):
        asyncio.run(streamed())


@pytest.mark.parametrize(
    ("used", "says"),
    [
        ({"top_logprobs": 3}, "has no log-probs (3)"),
        ({"grammar": regex("[0-9]+")}, "no other grammar, but got a regex grammar"),
        ({"min_p": 0.1, "repetition_penalty": 1.5}, "has no min_p (0.1), repetition_penalty (1.5): leave them out"),
        ({"logit_bias": ((1, 2.0),)}, "has no logit_bias"),
        ({"stop_ids": (1,)}, "has no stop_ids"),
        ({"ignore_eos": True}, "has no ignore_eos"),
        ({"min_tokens": 2}, "has no min_tokens"),
        ({"allowed_token_ids": (1,)}, "has no allowed_token_ids"),
        ({"bad_words": ("a",)}, "has no bad_words"),
        ({"skip_special_tokens": False}, "has no skip_special_tokens"),
        ({"include_stop_str_in_output": True}, "has no include_stop_str_in_output"),
    ],
)
def test_what_the_api_has_no_field_for_is_refused(
    vendor: Vendor, server: Server, used: dict[str, Any], says: str
) -> None:
    model = vendor.model(server)
    for refuse in (lambda: ask(model, sampling=Sampling(**used)), lambda: model.check_request(Sampling(**used))):
        with pytest.raises(ConfigError) as caught:
            refuse()
        assert says in str(caught.value) and str(caught.value).startswith(f"{vendor.name}:m@")
    assert server.asked == []


def test_plain_text_and_log_probs_are_refused(vendor: Vendor, server: Server) -> None:
    model = vendor.model(server)
    with pytest.raises(ConfigError, match="continues no plain text"):
        ask(model, "The capital is")
    with pytest.raises(ModelError, match="gives no log-probs"):
        asyncio.run(model.score("a", [" b"]))
    assert server.asked == []


def test_a_choice_among_labels_is_asked_for_in_words(vendor: Vendor, server: Server) -> None:
    server.reply(vendor.answer("It is incorrect."))

    async def pattern(task: Task, ctx: Context) -> str:
        return (await choose(ctx.say(task.question), ("correct", "incorrect"))).label

    trace = asyncio.run(rollout(Agent("a", vendor.model(server), pattern), Task("1", "?")))
    assert (trace.answer, trace.error) == ("incorrect", None)


def test_a_verdict_comes_by_schema_where_there_are_no_log_probs(vendor: Vendor, server: Server) -> None:
    server.reply(vendor.answer('{"verdict": "B"}'))

    async def pattern(task: Task, ctx: Context) -> str:
        found = await distribution(ctx.say(task.question), ("A", "B"))
        return f"{found.by} {found.probabilities['B']}"

    trace = asyncio.run(rollout(Agent("a", vendor.model(server), pattern), Task("1", "?")))
    assert trace.error is None and trace.answer == "grammar 1.0"


def test_anthropic_has_no_temperature_top_p_or_blank_stops(claude_server: Server) -> None:
    model = ANTHROPIC.model(claude_server)
    with pytest.raises(ConfigError, match=r"temperature is 0\.5, and anthropic:m@.* takes none"):
        model.check_request(Sampling(temperature=0.5))
    with pytest.raises(ConfigError, match=r"has no top_p \(0\.9\)"):
        ask(model, sampling=Sampling(top_p=0.9))
    with pytest.raises(ConfigError, match="is white space"):
        ask(model, sampling=Sampling(stop=("\n\n",)))
    claude_server.reply(claude("ok"))
    model.check_request(Sampling(temperature=1))
    ask(model, sampling=Sampling(temperature=0.7))  # a pattern's own: it wants answers that differ
    assert "temperature" not in claude_server.asked[0]


def test_a_run_that_cannot_work_is_refused_before_it_begins(
    claude_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", origin(claude_server))
    assert main(["run", "arithmetic", "--limit", "1", "--model", "anthropic:m", "--temperature", "0.5"]) in (1, 2)
    assert "anthropic:m takes none" in capsys.readouterr().err
    assert not list((tmp_path / "home").glob("runs/2*")) and claude_server.asked == []


def test_log_prob_tasks_are_refused_before_the_run_for_direct_alone(vendor: Vendor, server: Server) -> None:
    scored = [Task(str(i), "?", choices=("a", "b"), context="Q: ?\nA:") for i in range(2)]
    benchmark = Benchmark("b", lambda seed: scored, (exact,))
    model = vendor.model(server)
    with pytest.raises(ConfigError, match="gives no log-probs"):
        Experiment([Agent("a", model, direct)], [benchmark]).check_ready()
    Experiment([Agent("a", model, react)], [benchmark]).check_ready()
    plain = Benchmark("b", lambda seed: [Task("1", "?", context="Q:")], (exact,))
    with pytest.raises(ConfigError, match="continues no plain text"):
        Experiment([Agent("a", model, direct)], [plain]).check_ready()
    some = Benchmark("b", lambda seed: [*scored, Task("3", "?")], (exact,))
    Experiment([Agent("a", model, direct)], [some]).check_ready()
    with pytest.raises(ConfigError, match="has no min_p"):
        Experiment([Agent("a", model, react, sampling=Sampling(min_p=0.5))], [some]).check_ready()


# -- replies --


@pytest.mark.parametrize(
    ("given", "expected"),
    [("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"),
     ("model_context_window_exceeded", "length"), ("refusal", "content_filter"), (None, "stop")],
)  # fmt: skip
def test_anthropics_stop_reasons_are_ours(claude_server: Server, given: Any, expected: str) -> None:
    claude_server.reply(claude("x", given))
    assert ask(ANTHROPIC.model(claude_server))[0].finish_reason == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [("STOP", "stop"), ("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("RECITATION", "content_filter"),
     ("PROHIBITED_CONTENT", "content_filter"), ("CONTINUATION", "length")],
)  # fmt: skip
def test_googles_finish_reasons_are_ours(gemini_server: Server, given: str, expected: str) -> None:
    gemini_server.reply(gemini("x", given))
    assert ask(GOOGLE.model(gemini_server))[0].finish_reason == expected


def test_a_prompt_that_google_refuses_is_a_filtered_answer(gemini_server: Server) -> None:
    gemini_server.reply({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}})
    (completion,) = ask(GOOGLE.model(gemini_server))
    assert (completion.finish_reason, completion.message.text, completion.usage) == ("content_filter", "", Usage(4))


def test_what_the_cache_read_and_took_is_counted(claude_server: Server) -> None:
    counts = {"input_tokens": 3, "cache_creation_input_tokens": 4, "cache_read_input_tokens": 5, "output_tokens": 6}
    claude_server.reply(claude("x", **counts))
    usage = ask(ANTHROPIC.model(claude_server))[0].usage
    assert usage == Usage(12, 5, 6, cache_write_tokens=4) and Usage(**usage.to_json()) == usage
    assert (usage + usage).cache_write_tokens == 8
    assert "cache_write_tokens" not in Usage(1).to_json(), "older runs keep their bytes"


def test_thoughts_are_charged_as_tokens_of_the_answer(gemini_server: Server) -> None:
    counts = {"promptTokenCount": 3, "cachedContentTokenCount": 2, "candidatesTokenCount": 4, "thoughtsTokenCount": 50}
    gemini_server.reply(gemini("x", **counts))
    assert ask(GOOGLE.model(gemini_server))[0].usage == Usage(3, 2, 54)


def test_usage_that_makes_no_sense_is_zero() -> None:
    for usage in ({"input_tokens": -3, "output_tokens": "many"}, [1], {"input_tokens": 10**30}, None):
        assert anthropic_wire.read_usage(usage) == Usage()
    for usage in ({"promptTokenCount": -3, "candidatesTokenCount": "many"}, [1], {"promptTokenCount": True}, None):
        assert google_wire.read_usage(usage) == Usage()
    assert google_wire.read_usage({"promptTokenCount": 3, "cachedContentTokenCount": 9}) == Usage(3, 3)


def test_tool_calls_and_reasoning_go_round_at_anthropic(claude_server: Server) -> None:
    thought = {"type": "thinking", "thinking": "Rain?", "signature": "c2lnbg=="}
    hidden = {"type": "redacted_thinking", "data": "ZW5j"}
    call = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Zürich"}}
    claude_server.reply(claude("", "tool_use") | {"content": [thought, hidden, {"type": "text", "text": "Hm."}, call]})
    model = ANTHROPIC.model(claude_server)
    (completion,) = ask(model, tools=[WEATHER])
    message = completion.message
    assert message.parts == (
        Reasoning("Rain?", thought), Reasoning("", hidden), Text("Hm."), ToolCall("toolu_1", "weather", {"city": "Zürich"}),
    )  # fmt: skip
    assert (message.text, completion.finish_reason) == ("Hm.", "tool_calls")
    assert Message.from_json(json.loads(json.dumps(message.to_json()))) == message
    result = Message("tool", (ToolResult("toolu_1", "weather", "☀"), ToolResult("toolu_2", "weather", "no", True)))
    ask(model, (user("?"), message, user("And?"), result), tools=[WEATHER])
    assert claude_server.asked[0]["tools"] == [
        {"name": "weather", "description": "The forecast.", "input_schema": WEATHER.parameters}
    ]
    assert claude_server.asked[1]["messages"][1:] == [
        {"role": "assistant", "content": [thought, hidden, {"type": "text", "text": "Hm."}, call]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "☀"},
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": "no", "is_error": True},
                {"type": "text", "text": "And?"},
            ],
        },
    ]
    ask(model, (user("?"), message, result))
    assert claude_server.asked[2]["tools"] == [{"name": "weather", "input_schema": {"type": "object"}}]
    assert claude_server.asked[2]["tool_choice"] == {"type": "none"}


def test_tool_calls_and_signatures_go_round_at_google(gemini_server: Server) -> None:
    parts = [
        {"text": "Rain?", "thought": True},
        {"text": "Hm.", "thoughtSignature": SIGNED},
        {"functionCall": {"id": "f1", "name": "weather", "args": {"city": "Zürich"}}, "thoughtSignature": SIGNED},
        {"functionCall": {"name": "weather", "args": {}}},
    ]
    reply = gemini("")
    reply["candidates"][0]["content"]["parts"] = parts
    gemini_server.reply(reply)
    model = GOOGLE.model(gemini_server)
    (completion,) = ask(model, tools=[WEATHER])
    message = completion.message
    assert message.text == "Hm." and completion.finish_reason == "tool_calls"
    assert message.tool_calls == (ToolCall("f1", "weather", {"city": "Zürich"}), ToolCall("call_1", "weather", {}))
    assert [part.text for part in message.parts if isinstance(part, Reasoning)] == ["Rain?", "", ""]
    assert Message.from_json(json.loads(json.dumps(message.to_json()))) == message
    result = Message("tool", (ToolResult("f1", "weather", "☀"), ToolResult("call_1", "weather", "no", True)))
    ask(model, (user("?"), message, result), tools=[WEATHER])
    declared = gemini_server.asked[0]["tools"][0]["functionDeclarations"][0]
    schema = declared.get("parametersJsonSchema") or declared["parameters_json_schema"]  # the API reads either spelling
    assert (declared["name"], schema) == ("weather", WEATHER.parameters)
    model_turn, user_turn = gemini_server.asked[1]["contents"][1:]
    sent = model_turn["parts"]
    assert [part.get("thoughtSignature", "").replace("-", "+").replace("_", "/") for part in sent] == [
        SIGNED,
        SIGNED,
        "",
    ]
    assert (sent[0]["text"], sent[1]["functionCall"]["args"], sent[2]["functionCall"]["id"]) == (
        "Hm.",
        {"city": "Zürich"},
        "call_1",
    )
    assert [part["functionResponse"]["response"] for part in user_turn["parts"]] == [{"result": "☀"}, {"error": "no"}]


def test_one_vendors_reasoning_is_not_sent_to_another() -> None:
    both = Message("assistant", (Reasoning("a", {"type": "thinking", "thinking": "a", "signature": "s"}), Text("x")))
    assert google_wire.contents([both]) == [{"role": "model", "parts": [{"text": "x"}]}]
    signed = Message("assistant", (Reasoning("", {"thoughtSignature": "s"}), Text("x")))
    assert anthropic_wire.messages([signed]) == [{"role": "assistant", "content": [{"type": "text", "text": "x"}]}]


def test_a_guard_that_redacts_reasoning_drops_its_signed_block() -> None:
    guard = redact(pattern="hunter2")
    thought = Reasoning("it is hunter2", {"type": "thinking", "thinking": "it is hunter2", "signature": "s"})
    assert guard._part(thought) == Reasoning("it is [redacted]", {})
    same = Reasoning("nothing", {"type": "thinking", "thinking": "nothing", "signature": "s"})
    assert guard._part(same) == same
    sealed = Reasoning("it is hunter2", {"type": "redacted_thinking", "data": "s"})
    assert guard._part(sealed) == Reasoning("it is [redacted]", sealed.state), "the block does not hold its text"


def test_broken_arguments_are_data(vendor: Vendor, server: Server) -> None:
    if vendor is GOOGLE:
        assert google_wire.read_completion(gemini_call("a", "weather", [1])).message.tool_calls[0].invalid == "list"
        return
    for given_arguments in ([1], "nonsense", 3):
        server.reply(vendor.call("a", "weather", given_arguments))
        (call,) = ask(vendor.model(server), tools=[WEATHER])[0].message.tool_calls
        assert (call.name, call.arguments) == ("weather", {}) and call.invalid is not None


def test_a_tool_round_trip_through_the_loop(vendor: Vendor, server: Server) -> None:
    server.reply(vendor.call("c0", "calculator", {"expression": "3*4"}), vendor.answer("Answer: 12"))
    agent = Agent("a", vendor.model(server), react, {"native": True}, (calculator,))
    trace = asyncio.run(rollout(agent, Task("1", "What is 3*4?")))
    assert trace.error is None and "12" in (trace.answer or "")
    assert KEY not in json.dumps(trace.to_json())


# -- streams --


def test_a_stream_gives_pieces_then_the_whole(vendor: Vendor, server: Server) -> None:
    server.reply(vendor.stream("Grü", "ße\u2028🌍"))
    *pieces, last = collect(vendor.model(server))
    assert [delta.text for delta in pieces] == ["Grü", "ße\u2028🌍"] and all(not delta.completion for delta in pieces)
    assert last.completion is not None and last.completion.message == assistant("Grüße\u2028🌍")
    expected = Usage(12, 4, 9, cache_write_tokens=5 if vendor is ANTHROPIC else 0)
    assert (last.completion.finish_reason, last.completion.usage) == ("stop", expected)
    if vendor is ANTHROPIC:
        assert server.asked[0]["stream"] is True
    else:
        assert server.paths == ["/v1/models/m:streamGenerateContent"]


def test_an_anthropic_stream_puts_reasoning_and_tool_calls_together(claude_server: Server) -> None:
    def start(index: int, **block: Any) -> dict[str, Any]:
        return {"type": "content_block_start", "index": index, "content_block": block}

    def delta(index: int, **change: Any) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": index, "delta": change}

    claude_server.reply(
        events(
            {"type": "message_start", "message": claude("")},
            start(0, type="thinking", thinking="", signature=""),
            delta(0, type="thinking_delta", thinking="Ra"), delta(0, type="thinking_delta", thinking="in?"),
            delta(0, type="signature_delta", signature="c2ln"),
            start(1, type="tool_use", id="toolu_1", name="weather", input={}),
            delta(1, type="input_json_delta", partial_json='{"ci'),
            delta(1, type="input_json_delta", partial_json='ty": "Rom"}'),
            start(2, type="tool_use", id="toolu_2", name="now", input={}),
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 3}},
            {"type": "message_stop"},
        )
    )  # fmt: skip
    *pieces, last = collect(ANTHROPIC.model(claude_server), tools=[WEATHER])
    assert [delta.call for delta in pieces] == [
        CallDelta(0, "toolu_1", "weather"), CallDelta(0, arguments='{"ci'), CallDelta(0, arguments='ty": "Rom"}'),
        CallDelta(1, "toolu_2", "now"),
    ]  # fmt: skip
    assert last.completion is not None
    assert last.completion.message.parts == (
        Reasoning("Rain?", {"type": "thinking", "thinking": "Rain?", "signature": "c2ln"}),
        ToolCall("toolu_1", "weather", {"city": "Rom"}),
        ToolCall("toolu_2", "now", {}),
    )


def test_a_google_stream_puts_thoughts_and_calls_together(gemini_server: Server) -> None:
    def chunk(*parts: Any, **rest: Any) -> dict[str, Any]:
        return {"candidates": [{"content": {"role": "model", "parts": list(parts)}, **rest}]}

    gemini_server.reply(
        events(
            chunk({"text": "Ra", "thought": True}),
            chunk({"text": "in?", "thought": True}),
            chunk({"text": "It "}, {"text": "is", "thoughtSignature": SIGNED}),
            chunk({"text": " so"}),
            chunk({"functionCall": {"name": "weather", "args": {"city": "Rom"}}, "thoughtSignature": SIGNED}),
            chunk({"functionCall": {"id": "f2", "name": "now"}}, finishReason="STOP"),
        )
    )
    *pieces, last = collect(GOOGLE.model(gemini_server), tools=[WEATHER])
    assert [delta.text for delta in pieces if delta.text] == ["It is", " so"]
    assert [delta.call for delta in pieces if delta.call] == [
        CallDelta(0, "call_0", "weather", '{"city": "Rom"}'), CallDelta(1, "f2", "now", "{}"),
    ]  # fmt: skip
    assert last.completion is not None and last.completion.finish_reason == "tool_calls"
    thought, signed, said, more, *calls = last.completion.message.parts
    assert (thought, said, more) == (Reasoning("Rain?", {}), Text("It is"), Text(" so"))
    assert isinstance(signed, Reasoning) and signed.state.keys() == {"thoughtSignature"}
    assert [each for each in calls if isinstance(each, ToolCall)] == [
        ToolCall("call_0", "weather", {"city": "Rom"}), ToolCall("f2", "now", {}),
    ]  # fmt: skip


def test_a_cut_stream_is_transient(vendor: Vendor, server: Server) -> None:
    server.reply(vendor.stream("a", stop=None))
    assert "broke off" in failure(vendor.model(server), TransientError, streams=True)


def test_an_error_in_the_middle_of_a_stream_is_one_of_ours(vendor: Vendor, server: Server) -> None:
    if vendor is ANTHROPIC:
        overloaded: Any = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        server.reply(events({"type": "message_start", "message": claude("")}, overloaded))
    else:
        overloaded = {"error": {"code": 503, "message": "Overloaded", "status": "UNAVAILABLE"}}
        server.reply(events({"candidates": [{"content": {"parts": [{"text": "a"}]}}]}, overloaded))
    assert "Overloaded" in failure(vendor.model(server), TransientError, streams=True)


def test_an_unnamed_error_may_pass_after_the_first_piece_of_anthropic_s_answer_alone(claude_server: Server) -> None:
    unnamed = {"type": "error", "error": {"type": "odd", "message": "fell over"}}
    piece = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}
    began = {"type": "message_start", "message": claude("")}
    for before, kind in (([began], ModelError), ([began, piece], TransientError)):
        claude_server.reply(events(*before, unnamed))
        assert "answered with odd (fell over)" in failure(ANTHROPIC.model(claude_server), kind, streams=True)


@pytest.mark.parametrize("body", ["{broken", "[" * 100_000, "[1]", "3"])
def test_a_broken_stream_is_one_of_our_errors(vendor: Vendor, server: Server, body: str) -> None:
    server.reply(events(body))
    with pytest.raises(ModelError) as caught:
        collect(vendor.model(server))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 900


def test_a_whole_answer_where_a_stream_was_expected_is_one_of_our_errors(vendor: Vendor, server: Server) -> None:
    whole = [JSONResponse(vendor.answer("whole"))] if vendor is ANTHROPIC else []  # Google's SDK takes it as a chunk
    for reply in (Response("<html>hello", media_type="text/html"), *whole):
        server.reply(reply)
        with pytest.raises(ModelError):
            collect(vendor.model(server))


def test_closing_a_stream_closes_the_connection(vendor: Vendor, server: Server) -> None:
    piece: dict[str, Any] = {"candidates": [{"content": {"parts": [{"text": "x"}]}}]}
    if vendor is ANTHROPIC:
        piece = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}

    async def endless(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield f"data: {json.dumps(piece)}\n\n".encode()
                    await asyncio.sleep(0.01)
            finally:
                server.closed.set()

        return StreamingResponse(pieces(), media_type="text/event-stream")

    async def take_two() -> None:
        stream = vendor.model(server).stream(HI, GREEDY)
        assert [(await anext(stream)).text for _ in range(2)] == ["x", "x"]
        await stream.aclose()
        assert await asyncio.to_thread(server.closed.wait, 30), "the server still writes"

    server.reply(endless)
    asyncio.run(take_two())


def test_a_cancelled_request_closes_the_connection(vendor: Vendor, server: Server) -> None:
    async def cancel() -> None:
        asking = asyncio.create_task(vendor.model(server).complete(HI, GREEDY))
        while not server.asked:
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await asyncio.to_thread(server.closed.wait, 30), "the server still works"

    server.reply(server.wait_for_ever)
    asyncio.run(cancel())


@pytest.mark.slow
def test_pings_without_an_answer_do_not_hang(vendor: Vendor, server: Server) -> None:
    ping = b'event: ping\ndata: {"type": "ping"}\n\n' if vendor is ANTHROPIC else b"\n"

    async def pings(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            while True:
                yield ping
                await asyncio.sleep(0.02)

        return StreamingResponse(pieces(), media_type="text/event-stream")

    server.reply(pings)
    assert "within 0.3 s" in failure(vendor.model(server, timeout_s=0.3), TransientError, streams=True)


# -- errors --


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (400, "invalid_request_error", "change what it refuses"),
        (401, "authentication_error", "set {key} to a key that it takes"),
        (403, "permission_error", "ask for access"),
        (404, "not_found_error", "check the model's name and the address (without"),
    ],
)
def test_what_will_not_pass_says_what_to_do(vendor: Vendor, server: Server, status: int, kind: str, said: str) -> None:
    server.reply(vendor.error(status, kind, f"Bad thing\nwith {KEY} in it " + "x" * 5000))
    message = failure(vendor.model(server))
    assert said.format(key=vendor.key_variable) in message and f"answered {status} (Bad thing with *** in it" in message
    assert len(server.asked) == 1, "the SDK does not retry"


@pytest.mark.slow
@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_what_may_pass_is_transient(vendor: Vendor, server: Server, status: int) -> None:
    for reply in (vendor.error(status, "overloaded_error", "upstream sad"), Response("upstream sad", status)):
        server.reply(reply)
        assert "upstream sad" in failure(vendor.model(server), TransientError)
        assert len(server.asked) == 1


def test_a_rate_limit_waits_as_long_as_it_asks_for(vendor: Vendor, server: Server) -> None:
    server.reply(vendor.error(429, "rate_limit_error", "slow down", **{"retry-after": "7"}))
    with pytest.raises(TransientError) as caught:
        ask(vendor.model(server))
    assert caught.value.retry_after_s == (7.0 if vendor is ANTHROPIC else 3.0)
    server.reply(Response("slow", 429, {"Retry-After": "0.5"}))
    with pytest.raises(TransientError) as caught:
        ask(vendor.model(server))
    assert caught.value.retry_after_s == 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "prompt is too long: 208310 tokens > 200000 maximum"),
        (400, "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease input length"),
        (400, "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."),
    ],
)
def test_an_overflow_is_prompt_too_long(vendor: Vendor, server: Server, status: int, message: str) -> None:
    server.reply(vendor.error(status, "invalid_request_error", message))
    assert "shorten" in failure(vendor.model(server), PromptTooLong)


def test_an_empty_account_is_not_tried_again(claude_server: Server) -> None:
    said = "Your credit balance is too low to access the Anthropic API."
    claude_server.reply(claude_error(400, "invalid_request_error", said))
    assert "no credit left" in failure(ANTHROPIC.model(claude_server))
    claude_server.reply(claude_error(402, "billing_error", "pay"))
    assert "no credit left" in failure(ANTHROPIC.model(claude_server))


def test_googles_400_for_a_wrong_key_says_to_set_the_key(gemini_server: Server) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
    body = {"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT", "details": details}}
    gemini_server.reply(JSONResponse(body, 400))
    assert "set GOOGLE_API_KEY to a key" in failure(GOOGLE.model(gemini_server))


def test_an_error_then_success_is_a_good_attempt_with_a_note(vendor: Vendor, server: Server) -> None:
    server.reply(vendor.error(529, "overloaded_error", "Overloaded"), vendor.answer("42"))
    agent = Agent("a", vendor.model(server), direct, retry=Retry(attempts=2, first_wait_s=0.01))
    trace = asyncio.run(rollout(agent, Task("1", "?")))
    assert (trace.answer, trace.error) == ("42", None)
    assert [event.kind for event in trace.events] == ["retry"] and trace.usage.prompt_tokens == 7


def test_a_dead_endpoint_is_unreachable(vendor: Vendor) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    message = failure(vendor.open("m", f"http://127.0.0.1:{port}"), Unreachable)
    assert "check that the server runs" in message


@pytest.mark.slow
def test_a_stalled_server_is_given_up(vendor: Vendor, server: Server) -> None:
    server.reply(server.wait_for_ever)
    assert "within 0.3 s" in failure(vendor.model(server, timeout_s=0.3), TransientError)
    assert server.closed.wait(30), "the client still waits"


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b"<!DOCTYPE html><html>hi", b"[]", b"null", b"{}", b'{"content": 3}', b'{"content": [1]}',
     b'{"candidates": []}', b'{"candidates": [1]}', b'{"candidates": 3}', b"[" * 200_000, b"\xff\xfe\x00",
     b'{"a":' * 20_000, b"9" * 10_000],
)  # fmt: skip
def test_a_reply_that_makes_no_sense_is_a_model_error(vendor: Vendor, server: Server, body: bytes) -> None:
    server.reply(Response(body, media_type="application/json"))
    with pytest.raises(ModelError) as caught:
        ask(vendor.model(server))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 900


@pytest.mark.slow
@pytest.mark.parametrize("status", [200, 500])
def test_a_reply_without_end_is_cut(vendor: Vendor, server: Server, status: int) -> None:
    async def endless(request: Request) -> Response:
        async def flood() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 65536
                await asyncio.sleep(0.001)

        return StreamingResponse(flood(), status, media_type="application/json")

    server.reply(endless)
    assert "more than 1048576 bytes" in failure(vendor.model(server, max_reply_bytes=1 << 20))


def test_a_packed_reply_is_refused_since_it_could_unpack_without_end(vendor: Vendor, server: Server) -> None:
    server.reply(Response(gzip.compress(b" " * 10_000_000), headers={"Content-Encoding": "gzip"}))
    assert "compression" in failure(vendor.model(server))
    assert server.headers[0]["accept-encoding"] == "identity"


def test_half_a_surrogate_pair_stops_no_request(vendor: Vendor, server: Server) -> None:
    server.reply(vendor.answer("ok"))
    said = (
        user("a\ud83db"),
        assistant("", ToolCall("c", "f", {"x": "\udc80"})),
        Message("tool", (ToolResult("c", "f", "\udcff"),)),
    )
    assert ask(vendor.model(server), said)[0].message.text == "ok"
    assert "a\ufffdb" in json.dumps(server.asked[0], ensure_ascii=False)


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["type", "text", "content", "thinking", "signature", "tool_use", "input", "name", "id", "index",
                         "delta", "content_block", "usage", "message", "candidates", "parts", "functionCall", "args",
                         "thought", "thoughtSignature", "finishReason", "promptFeedback", "blockReason"]),
        inner, max_size=4),
    max_leaves=25,
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(JSONS, JSONS, st.sampled_from(["text", "thinking", "tool_use", "redacted_thinking"]))
def test_whatever_a_reply_holds_comes_out_as_data_or_a_model_error(first: Any, second: Any, kind: str) -> None:
    block = {**(first if isinstance(first, dict) else {}), "type": kind}
    parts = [first, second, {"functionCall": first}, {"text": "a", "thoughtSignature": second}]
    candidates = [{"content": {"parts": parts}, "finishReason": second}]
    for read in (
        lambda: anthropic_wire.read_completion({"content": [block], "stop_reason": second, "usage": first}),
        lambda: google_wire.read_completion(
            {"candidates": candidates, "usageMetadata": first, "promptFeedback": second}
        ),
    ):
        with suppress(ModelError):
            json.dumps(read().to_json(), allow_nan=False).encode()
    answer, other = anthropic_wire.MessageStream(), google_wire.CandidateStream()
    starts = ("message_start", "content_block_start", "content_block_delta", "message_delta")
    for event in starts:
        answer.add(
            {"type": event, "index": second, "content_block": block, "delta": first, "usage": second, "message": first}
        )
    answer.add({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x"}})
    other.add({"candidates": candidates, "usageMetadata": second})
    other.add({"candidates": second, "promptFeedback": first})
    for stream in (answer, other):
        stream.take_calls()
        with suppress(ModelError):
            json.dumps(stream.completion().to_json(), allow_nan=False).encode()
