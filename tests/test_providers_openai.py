"""The OpenAI provider against a real HTTP server on this machine, friendly, broken and hostile."""

import asyncio
import gzip
import json
import math
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.errors import ConfigError, FirsthandError, ModelError, PromptTooLong, TransientError, Unreachable
from firsthand.grammar import Grammar
from firsthand.loop.concurrency import Retry, derive_seed, with_retries
from firsthand.message import Message, Sampled, ToolCall, ToolResult, assistant, system, user
from firsthand.model import Delta, Likelihood, Sampling, ToolSpec, Usage
from firsthand.patterns.direct import direct
from firsthand.patterns.react import react
from firsthand.providers import openai_wire as wire
from firsthand.providers.openai import OpenAIModel, open_model
from firsthand.providers.openai_errors import Endpoint, retry_after_s
from firsthand.providers.sse_events import sse_data
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tools.calculator import calculator

KEY = "sk-very/secret+key"
GREEDY = Sampling(max_tokens=16)
HI = (user("hi"),)
WEATHER = ToolSpec("weather", "The forecast.", {"type": "object", "properties": {"city": {"type": "string"}}})


class Server:
    """An endpoint whose replies a test chooses; it keeps what it was asked."""

    def __init__(self) -> None:
        self.replies: list[Any] = []
        """In order, the last one again and again: a JSON object, a Response, or an async function of the request."""
        self.asked: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""
        self.closed = threading.Event()

    def reply(self, *replies: Any) -> None:
        self.replies, self.asked, self.paths, self.headers = list(replies), [], [], []

    async def answer(self, request: Request) -> Response:
        raw = await request.body()
        self.asked.append(json.loads(raw) if raw else {})
        self.paths.append(request.url.path)
        self.headers.append(dict(request.headers))
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if callable(reply) and not isinstance(reply, Response):
            reply = await reply(request)
        return reply if isinstance(reply, Response) else JSONResponse(reply)

    async def wait_for_ever(self, request: Request) -> Response:
        """A reply that never comes; `closed` says that the client has left."""
        while not await request.is_disconnected():
            await asyncio.sleep(0.01)
        self.closed.set()
        return JSONResponse({})

    def model(self, name: str = "m", **options: Any) -> OpenAIModel:
        return OpenAIModel(name, self.url, api_key=KEY, **{"timeout_s": 60.0, **options})


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    app = Starlette(routes=[Route("/{path:path}", server.answer, methods=["GET", "POST"])])
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        server.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        running = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield server
        running.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with serving(Server()) as server:
        yield server


@pytest.fixture
def server(shared: Server) -> Server:
    shared.reply({})
    shared.closed.clear()
    return shared


def chat(*texts: str | None, finish: str = "stop", usage: Any = None, **fields: Any) -> dict[str, Any]:
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text, **fields}, "finish_reason": finish}
        for i, text in enumerate(texts)
    ]
    usage = usage or {"prompt_tokens": 7, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}
    return {"object": "chat.completion", "choices": choices, "usage": usage}


def calling(*functions: dict[str, Any]) -> dict[str, Any]:
    calls = [{"id": f"c{i}", "type": "function", "function": function} for i, function in enumerate(functions)]
    return chat(None, finish="tool_calls", tool_calls=calls)


def sse(*events: Any, done: bool = True, cut: int | None = None) -> Response:
    text = "".join(f"data: {each if isinstance(each, str) else json.dumps(each)}\n\n" for each in events)
    raw = (text + ("data: [DONE]\n\n" if done else "")).encode()

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(raw), cut or len(raw)):
            yield raw[at : at + (cut or len(raw))]

    return StreamingResponse(chunks(), media_type="text/event-stream")


def piece(text: str | None = None, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text, **delta}, "finish_reason": finish}], "usage": None}


def ask(model: OpenAIModel, prompt: Any = HI, sampling: Sampling = GREEDY, **options: Any) -> Any:
    return asyncio.run(model.complete(prompt, sampling, **options))


def collect(model: OpenAIModel, prompt: Any = HI, **options: Any) -> list[Delta]:
    async def all_pieces() -> list[Delta]:
        return [delta async for delta in model.stream(prompt, GREEDY, **options)]

    return asyncio.run(all_pieces())


def failure(model: OpenAIModel, kind: type[FirsthandError] = ModelError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        ask(model, **options)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 900
    return str(caught.value)


# -- names --


def test_the_name_is_split_at_the_last_address():
    model = open_model("org/a:b@1@http://x@https://host:8/v1/")
    assert model.name == "openai:org/a:b@1@http://x@https://host:8/v1"
    assert catalog.model("openai:m@http://localhost:1/v1").fingerprint == "openai:m@http://localhost:1/v1"


@pytest.mark.parametrize(
    "rest",
    ["m@localhost:8000/v1", "m@10.0.0.1", "m@", "@", "m@HTTP//x", "m@ftp://x/v1", "org/m@2", "m@ http://x", "m@\nx"],
)
def test_what_follows_the_at_is_an_address_or_refused(monkeypatch, rest):
    """Else prompts and key would go to the endpoint of the environment, or to OpenAI."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1")
    with pytest.raises(ConfigError, match="where an address was expected") as caught:
        catalog.model(f"openai:{rest}")
    assert "@http://HOST:PORT/v1" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
def test_openai_itself_needs_a_key_and_an_own_endpoint_does_not(tmp_path):
    code = (
        "from firsthand.providers.openai import open_model\n"
        "from firsthand.errors import ConfigError\n"
        "print(open_model('m@http://localhost:1/v1').name)\n"
        "try: open_model('gpt')\n"
        "except ConfigError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"HOME": str(tmp_path)})
    assert done.stdout.splitlines()[0] == "openai:m@http://localhost:1/v1", done.stderr
    assert "OPENAI_API_KEY is not set" in done.stdout


@pytest.mark.slow
def test_without_an_address_the_environment_decides(tmp_path):
    code = (
        "from firsthand.providers.openai import open_model\n"
        "model = open_model('org/m-2'); print(model.name, model.fingerprint)"
    )
    env = {"HOME": str(tmp_path), "OPENAI_API_KEY": KEY}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout.split() == ["openai:org/m-2", "openai:org/m-2@https://api.openai.com/v1"], done.stderr
    env["OPENAI_BASE_URL"] = "http://localhost:9/v1"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout.split() == ["openai:org/m-2", "openai:org/m-2@http://localhost:9/v1"], done.stderr


@pytest.mark.slow
def test_without_the_sdk_the_module_imports_and_says_what_to_install():
    code = (
        "import sys\n"
        "sys.modules['openai'] = None\n"
        "from firsthand.providers.openai import open_model\n"
        "try: open_model('m@http://localhost:1/v1')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("MissingExtra") and "pip install 'firsthand[openai]'" in done.stdout, done.stderr


@pytest.mark.slow
def test_importing_the_module_does_not_import_the_sdk():
    code = "import sys, firsthand.providers.openai; print('openai' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr


@pytest.mark.parametrize(
    "url",
    ["http://", "http://h:99999/v1", "http://h/v1?api_key=hunter2", "http://h/v1#x", "http://me:hunter2@h:x/v1",
     "http://h h/v1", "https://" + "a" * 70 + ".com/v1"],
)  # fmt: skip
def test_an_address_that_cannot_work_is_refused_at_birth_without_its_secrets(url):
    with pytest.raises(ConfigError) as caught:
        OpenAIModel("m", url)
    assert "hunter2" not in str(caught.value) and "base URL" in str(caught.value)


def test_a_password_in_the_address_is_used_and_never_shown(server):
    server.reply(chat("ok"), JSONResponse({"error": {"message": "no: hunter2 hunter%202"}}, 400))
    model = open_model(f"m@{server.url.replace('http://', 'http://me:hunter%202@')}")
    assert model.name == model.fingerprint == f"openai:m@{server.url}"
    assert ask(model)[0].message.text == "ok"
    assert server.headers[0]["authorization"].startswith("Basic ")
    assert "hunter%202" not in failure(model)


def test_a_key_with_a_line_break_is_refused_without_being_shown():
    with pytest.raises(ConfigError) as caught:
        OpenAIModel("m", "http://h/v1", api_key="sk-abc\ndef")
    assert "abc" not in str(caught.value)


# -- requests --


def test_a_conversation_is_sent_to_chat_and_answered(server):
    server.reply(chat("Grüße 🌍"))
    (completion,) = ask(server.model(), (system("Be brief."), user("héllo 世界"), assistant("yes?"), user("go")))
    assert completion.message == assistant("Grüße 🌍")
    assert completion.finish_reason == "stop"
    assert completion.usage == Usage(7, 4, 5)
    assert server.paths == ["/v1/chat/completions"]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert server.asked[0] == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "héllo 世界"},
            {"role": "assistant", "content": "yes?"},
            {"role": "user", "content": "go"},
        ],
        "max_tokens": 16,
        "temperature": 0.0,
    }


def test_a_string_is_sent_to_completions_as_it_is(server):
    lps = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"a": -0.5, "b": -1.5}]}
    server.reply({"choices": [{"text": " Paris", "finish_reason": "length", "logprobs": lps}], "usage": {}})
    (completion,) = ask(server.model(), "The capital is", replace(GREEDY, top_logprobs=2))
    assert (completion.message.text, completion.finish_reason) == (" Paris", "length")
    assert completion.top_logprobs == ((("a", -0.5), ("b", -1.5)),)
    assert server.paths == ["/v1/completions"]
    assert server.asked[0]["prompt"] == "The capital is" and server.asked[0]["logprobs"] == 2


def test_every_sampling_setting_reaches_the_endpoint(server):
    server.reply(chat("x", "y", "z"))
    seed = derive_seed("far beyond 31 bits")
    sampling = Sampling(9, 0.7, 40, 0.9, 0.05, 1.1, 0.2, 0.3, seed, ("\n\n", "END"), 3)
    ask(server.model(), (user("hi"),), sampling, tools=[WEATHER], n=3)
    sent = server.asked[0]
    assert sent.pop("messages") and sent.pop("tools") == [WEATHER.to_json()]
    assert sent == {
        "model": "m", "max_tokens": 9, "temperature": 0.7, "top_k": 40, "top_p": 0.9, "min_p": 0.05,
        "repetition_penalty": 1.1, "presence_penalty": 0.2, "frequency_penalty": 0.3, "seed": seed % 2**31,
        "stop": ["\n\n", "END"], "logprobs": True, "top_logprobs": 3, "n": 3,
    }  # fmt: skip
    assert seed >= 2**31 > sent["seed"]


def test_biases_and_stop_tokens_reach_the_endpoint_where_they_are_set(server):
    server.reply(chat("x"))
    ask(server.model(), (user("hi"),), Sampling(logit_bias=((5, -100.0),), stop_ids=(7,), ignore_eos=True))
    sent = server.asked[0]
    assert (sent["logit_bias"], sent["stop_token_ids"], sent["ignore_eos"]) == ({"5": -100.0}, [7], True)


def test_vllms_fields_reach_the_endpoint_under_their_names_where_they_are_used(server):
    server.reply(chat("x"))
    server.reply(chat("x"))
    used = {"allowed_token_ids": (3, 4), "bad_words": ("a",), "skip_special_tokens": False, "min_tokens": 2,
            "include_stop_str_in_output": True}  # fmt: skip
    ask(server.model(), (user("hi"),), Sampling(**used))
    ask(server.model(), (user("hi"),), Sampling())
    assert {name: server.asked[0][name] for name in used} == json.loads(json.dumps(used))
    assert not used.keys() & server.asked[1].keys()


def test_with_n_answers_the_prompt_is_counted_once(server):
    reply = chat("a", "b", "c", usage={"prompt_tokens": 7, "completion_tokens": 8})
    reply["choices"].reverse()
    server.reply(reply)
    completions = ask(server.model(), n=3)
    assert [each.message.text for each in completions] == ["a", "b", "c"]
    assert completions[0].usage == Usage(7, 0, 3) and completions[1].usage.prompt_tokens == 0
    assert sum((each.usage for each in completions), Usage()) == Usage(7, 0, 8)


def test_an_endpoint_that_ignores_n_is_asked_again_with_other_seeds(server):
    server.reply(chat("a"), chat("b"), chat("c"))
    completions = ask(server.model(), sampling=replace(GREEDY, seed=5), n=3)
    assert sorted(each.message.text for each in completions) == ["a", "b", "c"]
    assert sorted(asked["seed"] for asked in server.asked) == [5, 6, 7]


def test_answers_that_are_missing_are_asked_for_one_by_one(server):
    server.reply(chat("a", "b"), chat("c"), chat("d"))
    completions = ask(server.model(), sampling=replace(GREEDY, seed=5), n=4)
    assert sorted(each.message.text for each in completions) == ["a", "b", "c", "d"]
    assert [(asked["seed"], asked.get("n")) for asked in server.asked[:1]] == [(5, 4)]
    assert sorted((asked["seed"], asked.get("n")) for asked in server.asked[1:]) == [(7, None), (8, None)]
    server.reply(chat("a"), chat("b"))
    ask(server.model(), n=2)
    assert ["seed" in asked for asked in server.asked] == [False, False]


def test_an_answer_must_fit_its_grammar_streamed_or_not(server):
    sampling = replace(GREEDY, grammar=Grammar("regex", "[0-9]+"))

    async def streamed():
        return [delta.text async for delta in server.model().stream(HI, sampling)]

    server.reply(
        sse(piece("4"), piece("2", "stop")), sse(piece("for"), piece("ty", "stop")), chat("42"), chat("x", "42")
    )
    assert asyncio.run(streamed()) == ["4", "2", ""]
    said = "answered 'forty', which does not fit the regex grammar"
    with pytest.raises(ModelError, match=said):
        asyncio.run(streamed())
    assert ask(server.model(), sampling=sampling)[0].message.text == "42"
    with pytest.raises(ModelError, match="answered 'x', which does not fit"):
        ask(server.model(), sampling=sampling, n=2)


def test_more_answers_than_asked_are_cut(server):
    server.reply(chat("a", "b", "c"))
    assert [each.message.text for each in ask(server.model(), n=2)] == ["a", "b"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "expected"),
    [("stop", "stop"), ("length", "length"), ("tool_calls", "tool_calls"), ("function_call", "tool_calls"),
     ("content_filter", "content_filter"), ("eos_token", "stop"), (None, "stop")],
)  # fmt: skip
def test_finish_reasons_are_ours(server, given, expected):
    server.reply(chat("x", finish=given))
    assert ask(server.model())[0].finish_reason == expected


def test_top_logprobs_come_from_the_chat_shape(server):
    reply = chat("ab")
    alternatives = [{"token": "a", "logprob": -0.1}, {"token": "ä", "logprob": -2}, {"token": "x", "logprob": math.nan}]
    reply["choices"][0]["logprobs"] = {"content": [{"token": "a", "logprob": -0.1, "top_logprobs": alternatives}]}
    server.reply(Response(json.dumps(reply), media_type="application/json"))
    assert ask(server.model())[0].top_logprobs == ((("a", -0.1), ("ä", -2.0)),)


@pytest.mark.slow
def test_token_ids_are_kept_only_if_each_has_a_logprob(server):
    reply = chat("ab")
    reply["choices"][0] |= {"token_ids": [5, 6], "logprobs": {"content": [{"logprob": -0.1}, {"logprob": -0.2}]}}
    server.reply(reply)
    model = server.model(return_token_ids=True)
    found = ask(model)[0]
    assert found.message.sampled == Sampled((5, 6), (-0.1, -0.2)) and found.prompt_ids is None
    server.reply(reply | {"prompt_token_ids": [1, 2, 3]})
    assert ask(model)[0].prompt_ids == (1, 2, 3)
    server.reply(reply | {"prompt_token_ids": [1, -2]})
    assert ask(model)[0].prompt_ids is None
    assert server.asked[0]["return_token_ids"] is True and server.asked[0]["logprobs"] is True
    reply["choices"][0]["logprobs"]["content"].pop()
    server.reply(reply)
    assert ask(model)[0].message.sampled is None
    server.reply(chat("ab"))
    assert ask(model)[0].message.sampled is None
    ask(server.model())
    assert "return_token_ids" not in server.asked[-1]


def test_half_a_surrogate_pair_stops_neither_request_nor_reply(server):
    server.reply(Response('{"choices": [{"message": {"content": "x\\ud83dy \\ud83c\\udf0d"}}]}'))
    said = (
        user("a\ud83db"),
        assistant("", ToolCall("c", "f", {"x": "\udc80"})),
        Message("tool", (ToolResult("c", "f", "\udcff"),)),
    )
    assert ask(server.model(), said)[0].message.text == "x\ufffdy 🌍"
    assert server.asked[0]["messages"][0]["content"] == "a\ufffdb"
    assert server.asked[0]["messages"][2]["content"] == "\ufffd"


def test_one_model_serves_one_event_loop_after_another_and_several_at_once(server):
    server.reply(chat("ok"))
    model = server.model()
    assert [ask(model)[0].message.text for _ in range(3)] == ["ok"] * 3
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(model)[0].message.text)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["ok"] * 4
    assert model._clients.open == {}, "a loop that ended took its client with it"


@pytest.mark.slow
def test_no_socket_is_left_open_when_a_loop_ends(server):
    server.reply(chat("ok"))
    code = (
        "import asyncio\n"
        "from firsthand.model import Sampling\n"
        "from firsthand.providers.openai import open_model\n"
        f"model = open_model('m@{server.url}')\n"
        "for _ in range(2): asyncio.run(model.complete('x', Sampling()))\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-X", "dev", "-c", code], capture_output=True, text=True)
    assert not any(word in done.stderr for word in ("ResourceWarning", "Exception ignored", "Error")), done.stderr


# -- tools --


def test_tool_calls_come_out_and_go_back_in_openais_shape(server):
    server.reply(calling({"name": "weather", "arguments": '{"city": "Zürich"}'}))
    (completion,) = ask(server.model(), tools=[WEATHER])
    assert completion.message.tool_calls == (ToolCall("c0", "weather", {"city": "Zürich"}),)
    assert completion.finish_reason == "tool_calls"
    server.reply(chat("sunny"))
    result = Message("tool", (ToolResult("c0", "weather", "☀"), ToolResult("c1", "weather", "Error: no", True)))
    ask(server.model(), (user("?"), completion.message, result), tools=[WEATHER])
    call = {"id": "c0", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Zürich"}'}}
    assert server.asked[0]["messages"] == [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c0", "content": "☀"},
        {"role": "tool", "tool_call_id": "c1", "content": "Error: no"},
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    ['{"city": ', "[1]", "3", "nonsense", "[" * 100_000, '{"a":' * 70 + "1" + "}" * 70, '{"x": NaN}', '{"x": 1e999}'],
)
def test_broken_arguments_are_data(server, arguments):
    server.reply(calling({"name": "weather", "arguments": arguments}))
    (call,) = ask(server.model(), tools=[WEATHER])[0].message.tool_calls
    assert (call.name, call.arguments, call.invalid) == ("weather", {}, arguments)
    server.reply(chat("ok"))
    ask(server.model(), (user("?"), assistant("", call)))
    assert server.asked[0]["messages"][1]["tool_calls"][0]["function"]["arguments"] == "{}"


@pytest.mark.parametrize("arguments", ["", None, "{}", {}])
def test_a_call_without_arguments_is_a_call(server, arguments):
    server.reply(calling({"name": "now", "arguments": arguments}))
    assert ask(server.model())[0].message.tool_calls == (ToolCall("c0", "now", {}),)


def test_tools_with_a_plain_prompt_are_a_clash(server):
    with pytest.raises(ConfigError):
        ask(server.model(), "text", tools=[WEATHER])


def test_a_tool_round_trip_through_the_loop(server):
    server.reply(calling({"name": "calculator", "arguments": '{"expression": "3*4"}'}), chat("Answer: 12"))
    agent = Agent("a", server.model(), react, {"native": True}, (calculator,))
    trace = asyncio.run(rollout(agent, Task("1", "What is 3*4?")))
    assert trace.error is None and "12" in (trace.answer or "")
    assert server.asked[1]["messages"][-1] == {"role": "tool", "tool_call_id": "c0", "content": "12"}
    assert KEY not in json.dumps(trace.to_json())


# -- streams --


@pytest.mark.parametrize("cut", [None, 1, 7])
def test_a_stream_gives_pieces_then_the_whole(server, cut):
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    server.reply(
        sse(
            piece(""),
            piece("Grü"),
            piece("ße\u2028🌍"),
            piece(finish="length"),
            {"choices": [], "usage": usage},
            cut=cut,
        )
    )
    *pieces, last = collect(server.model())
    assert [delta.text for delta in pieces] == ["Grü", "ße\u2028🌍"] and all(not delta.completion for delta in pieces)
    assert last.text == "" and last.completion is not None
    assert last.completion.message == assistant("Grüße\u2028🌍")
    assert (last.completion.finish_reason, last.completion.usage) == ("length", Usage(3, 0, 2))
    assert server.asked[0]["stream"] is True and server.asked[0]["stream_options"] == {"include_usage": True}


def test_a_stream_of_a_plain_prompt(server):
    server.reply(sse({"choices": [{"text": "a"}]}, {"choices": [{"text": "b", "finish_reason": "stop"}]}))
    assert "".join(delta.text for delta in collect(server.model(), "x")) == "ab"
    assert server.paths == ["/v1/completions"]


def test_a_stream_puts_tool_calls_together(server):
    def call(index: int, arguments: str, **head: Any) -> dict[str, Any]:
        name = {"name": head.pop("name")} if head else {}
        return piece(tool_calls=[{"index": index, **head, "function": {**name, "arguments": arguments}}])

    server.reply(
        sse(
            call(0, "", id="a", name="weather"), call(0, '{"ci'), call(0, 'ty": "Rom"}'),
            call(1, '{"x"', id="b", name="other"), call(1, ":"), call(1, "{}", id="c", name="third"),
            piece(finish="tool_calls"),
        )
    )  # fmt: skip
    completion = collect(server.model(), tools=[WEATHER])[-1].completion
    assert completion.message.tool_calls == (
        ToolCall("a", "weather", {"city": "Rom"}), ToolCall("b", "other", {}, '{"x":'), ToolCall("c", "third", {}),
    )  # fmt: skip


def test_a_stream_carries_token_ids(server):
    first, second = piece("a"), piece("b", "stop")
    first["prompt_token_ids"] = [1, 2, 3]
    first["choices"][0] |= {"token_ids": [5], "logprobs": {"content": [{"logprob": -0.1}]}}
    second["choices"][0] |= {"token_ids": [6], "logprobs": {"content": [{"logprob": -0.2}]}}
    server.reply(sse(first, second))
    completion = collect(server.model(return_token_ids=True))[-1].completion
    assert completion.message.sampled == Sampled((5, 6), (-0.1, -0.2)) and completion.prompt_ids == (1, 2, 3)


def test_closing_a_stream_closes_the_connection(server):
    async def endless(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield f"data: {json.dumps(piece('x'))}\n\n".encode()
                    await asyncio.sleep(0.01)
            finally:
                server.closed.set()

        return StreamingResponse(pieces(), media_type="text/event-stream")

    async def take_two() -> None:
        stream = server.model().stream((user("hi"),), GREEDY)
        assert [(await anext(stream)).text for _ in range(2)] == ["x", "x"]
        await stream.aclose()
        assert await asyncio.to_thread(server.closed.wait, 30), "the server still writes"

    server.reply(endless)
    asyncio.run(take_two())


@pytest.mark.parametrize("kind", [{"object": "error"}, {"type": "error"}])
def test_an_error_that_stands_in_no_field_of_its_own_is_told_in_its_words(server, kind):
    for code, told in ((500, "answered 500 (boom): it may pass"), (400, "answered 400 (boom): change what it refuses")):
        server.reply(sse(piece("a"), kind | {"message": "boom", "code": code}))
        with pytest.raises(TransientError if code == 500 else ModelError) as streamed:
            collect(server.model())
        assert told in str(streamed.value)
        server.reply(kind | {"message": "boom", "code": str(code)})
        assert told in failure(server.model(), TransientError if code == 500 else ModelError)
    server.reply(chat("fine") | kind)
    assert ask(server.model())[0].message.text == "fine"


def test_a_cancelled_request_closes_the_connection(server):
    async def cancel() -> None:
        asking = asyncio.create_task(server.model().complete((user("hi"),), GREEDY))
        while not server.asked:
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await asyncio.to_thread(server.closed.wait, 30), "the server still works"

    server.reply(server.wait_for_ever)
    asyncio.run(cancel())


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (lambda: sse(piece("a"), "{broken", piece(finish="stop")), ModelError, "JSON was expected"),
        (lambda: sse(piece("a"), "[" * 100_000), ModelError, "JSON was expected"),
        (lambda: sse(piece("a"), "[1]"), ModelError, "object was expected"),
        (lambda: sse(piece("a"), done=False), TransientError, "broke off"),
        (lambda: sse(), TransientError, "broke off"),
        (lambda: sse(piece("a"), {"error": {"message": "overloaded", "code": 503}}), TransientError, "overloaded"),
        (lambda: sse(piece("a"), {"error": {"message": "bad", "code": "x"}}), TransientError, "bad"),
        (lambda: sse({"error": {"message": "bad", "code": "x"}}), ModelError, "with x .bad.: change"),
        (lambda: sse(piece("a"), {"error": {"message": "bad", "type": "invalid_request_error"}}), ModelError, "bad"),
        (
            lambda: sse({"error": {"message": "bad", "type": "server_error", "code": None}}),
            TransientError,
            "server_error",
        ),
        (lambda: Response("<html>hello", media_type="text/html"), ModelError, "stream was expected"),
        (lambda: JSONResponse(chat("whole")), ModelError, "stream was expected"),
    ],
)
def test_a_broken_stream_is_one_of_our_errors(server, reply, kind, said):
    server.reply(reply())
    with pytest.raises(kind, match=said) as caught:
        collect(server.model())
    assert type(caught.value) is kind


@pytest.mark.slow
def test_pings_without_an_answer_do_not_hang(server):
    async def pings(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            while True:
                yield b": ping\n\n"
                await asyncio.sleep(0.02)

        return StreamingResponse(pieces(), media_type="text/event-stream")

    server.reply(pings)
    with pytest.raises(TransientError, match=r"within 0\.3 s"):
        collect(server.model(timeout_s=0.3))


# -- scoring --


def echo(
    tokens: list[str], logprobs: list[float | None], tops: list[Any] | None = None, **fields: Any
) -> dict[str, Any]:
    offsets = [sum(map(len, tokens[:i])) for i in range(len(tokens))]
    given = {"tokens": tokens, "token_logprobs": logprobs, "text_offset": offsets, "top_logprobs": tops, **fields}
    usage = {"prompt_tokens": len(tokens) - 1, "completion_tokens": 1}
    return {"choices": [{"text": "".join(tokens), "logprobs": given}], "usage": usage}


def score(model: OpenAIModel, prompt: Any, *continuations: str) -> Any:
    return asyncio.run(model.score(prompt, continuations))


def test_a_continuation_scores_the_sum_over_its_tokens(server):
    tops = [None, {" b": -0.1}, {" c": -0.25}, {" d": -0.5}, {"!": -1}]
    server.reply(echo(["a", " b", " c", " d", "!"], [None, -0.1, -0.25, -0.5, -1.0], tops))
    scored = score(server.model(), "a b", " c d")
    assert scored.likelihoods == (Likelihood(" c d", -0.75, 2, True),)
    assert scored.usage == Usage(4, 0, 1)
    assert server.paths == ["/v1/completions"]
    sent = server.asked[0]
    assert (sent["prompt"], sent["echo"], sent["max_tokens"], sent["logprobs"]) == ("a b c d", True, 1, 1)
    tops[3] = {" d": -0.5, " e": -0.4}
    server.reply(echo(["a", " b", " c", " d", "!"], [None, -0.1, -0.25, -0.5, -1.0], tops))
    assert score(server.model(), "a b", " c d").likelihoods[0].is_greedy is False


def test_several_continuations_keep_their_order(server):
    async def by_length(request: Request) -> Response:
        text = (await request.json())["prompt"]
        return JSONResponse(echo(["p", text[1:], "?"], [None, -float(len(text)), -9.0]))

    server.reply(by_length)
    scored = score(server.model(), "p", "xxx", "x", "", "xx")
    assert [each.text for each in scored.likelihoods] == ["xxx", "x", "", "xx"]
    assert [each.logprob for each in scored.likelihoods] == [-4.0, -2.0, 0.0, -3.0]
    assert scored.usage.prompt_tokens == 6


def test_a_begin_token_that_shifts_the_offsets_does_not_shift_the_score(server):
    server.reply(echo(["<s>", "a", " b", "!"], [None, -3.0, -0.5, -1.0]))
    assert score(server.model(), "a", " b").likelihoods == (Likelihood(" b", -0.5, 1, False),)


def test_a_token_across_the_boundary_is_counted(server):
    server.reply(echo(["a", " bc", "d", "!"], [None, -0.5, -0.25, -1.0]))
    assert score(server.model(), "a b", "cd").likelihoods[0].num_tokens == 2


def test_a_generated_token_like_the_last_one_is_not_counted(server):
    server.reply(echo(["p", "x", "x"], [None, -0.5, -9.0]))
    assert score(server.model(), "p", "x").likelihoods[0].logprob == -0.5


def test_offsets_decide_where_tokens_are_parts_of_characters(server):
    tokens = ["a", "bytes:\\xf0\\x9f", "bytes:\\x8c\\x8d", "!"]
    server.reply(echo(tokens, [None, -0.5, -0.25, -1.0], text_offset=[0, 1, 1, 2]))
    assert score(server.model(), "a", "🌍").likelihoods == (Likelihood("🌍", -0.75, 2, False),)


@pytest.mark.slow
@pytest.mark.parametrize(
    "reply",
    [
        {"choices": [{"text": "only new", "logprobs": None}]},
        {"choices": []},
        {"choices": [{"logprobs": {"tokens": ["q", "r"], "token_logprobs": [None, -1]}}]},
        {"choices": [{"logprobs": {"tokens": ["a", " b"], "token_logprobs": [None, None]}}]},
        {"choices": [{"logprobs": {"tokens": ["a", " b"], "token_logprobs": [None]}}]},
        {"choices": [{"logprobs": {"tokens": [1, {}], "token_logprobs": [1, 2], "text_offset": [0, "x"]}}]},
        {"choices": [{"logprobs": {"tokens": [], "token_logprobs": [], "text_offset": []}}]},
    ],
)
def test_an_endpoint_that_cannot_score_says_what_to_do(server, reply):
    for each in (reply, JSONResponse({"error": {"message": "echo is not supported"}}, 400)):
        server.reply(each)
        with pytest.raises(ModelError, match=r"cannot score.*vLLM"):
            score(server.model(), "a", " b")


def test_a_conversation_is_not_scored(server):
    with pytest.raises(ModelError, match="plain text"):
        score(server.model(), (user("hi"),), "x")


@pytest.mark.parametrize(
    "reply",
    [
        JSONResponse({}, 503),
        {"choices": [{"text": "", "finish_reason": "error"}]},
        {"choices": [{"text": "", "error": {"code": 502, "message": "upstream"}}]},
        {"choices": [{"error": "down", "logprobs": {"tokens": ["a", "b"], "token_logprobs": [None, None]}}]},
    ],
)
def test_scoring_passes_passing_faults_on(server, reply):
    server.reply(reply)
    with pytest.raises(TransientError, match=r"answered 50[23]|ended an answer with"):
        score(server.model(), "a", "b")


# -- errors --


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "change what it refuses"),
        (422, "change what it refuses"),
        (401, "set OPENAI_API_KEY"),
        (403, "ask for access"),
    ],
)
def test_what_will_not_pass_says_what_to_do(server, status, said):
    server.reply(JSONResponse({"error": {"message": f"Bad thing\nwith {KEY} in it " + "x" * 5000}}, status))
    message = failure(server.model())
    assert said in message and f"answered {status} (Bad thing with *** in it" in message
    assert len(server.asked) == 1, "the SDK does not retry"


def test_a_seed_that_an_endpoint_has_no_field_for_is_left_out_from_then_on(server):
    async def strict(request: Request) -> Response:
        body = json.loads(await request.body())
        if "seed" in body:
            detail = [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]
            return JSONResponse({"object": "error", "message": {"detail": detail}}, 422)
        if body.get("stream"):
            return sse(piece("42"), piece(None, "stop"))
        return JSONResponse(chat("42"))

    for ask_it in (lambda model: ask(model, sampling=replace(GREEDY, seed=5))[0].message.text,
                   lambda model: asyncio.run(last_text(model, replace(GREEDY, seed=5)))):  # fmt: skip
        server.reply(strict)
        model = server.model()
        assert model.unsent_settings == ()
        assert [ask_it(model), ask_it(model)] == ["42", "42"] and model.unsent_settings == ("seed",)
        assert ["seed" in each for each in server.asked] == [True, False, False]
    server.reply(JSONResponse({"error": {"message": "seed is not supported", "param": "seed"}}, 400))
    assert "seed is not supported" in failure(server.model(), sampling=replace(GREEDY, seed=5))
    assert len(server.asked) == 2, "an endpoint that still refuses it is asked no third time"
    mistral = OpenAIModel("m", "https://api.mistral.ai/v1", api_key=KEY)
    body = mistral._body(HI, replace(GREEDY, seed=5), (), 1)
    assert body["random_seed"] == 5 and "seed" not in body


async def last_text(model: OpenAIModel, sampling: Sampling) -> str:
    return "".join([delta.text async for delta in model.stream(HI, sampling)])


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_what_may_pass_is_transient(server, status):
    server.reply(Response("upstream sad", status))
    assert "upstream sad" in failure(server.model(), TransientError)
    assert len(server.asked) == 1


def test_a_404_names_the_models_there_are(server):
    missing = JSONResponse({"error": {"message": "The model `qwen` does not exist"}}, 404)
    server.reply(missing, {"data": [{"id": "qwen3"}, {"id": "llama"}, {"no": "id"}, 3]})
    message = failure(server.model("qwen"))
    assert "did you mean 'qwen3'?" in message and "llama" in message
    assert server.paths == ["/v1/chat/completions", "/v1/models"]
    server.reply(missing)
    assert "check the model's name and the address" in failure(server.model("qwen"))


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": "context_length_exceeded", "message": "no"}},
        {"error": {"message": "This model's maximum context length is 4096 tokens. However, you requested 5000"}},
        {"object": "error", "message": "The prompt is too long: 5000 tokens"},
        {"error": {"type": "exceed_context_size_error", "message": "the request exceeds"}},
    ],
)
def test_an_overflow_is_prompt_too_long(server, body):
    server.reply(JSONResponse(body, 400))
    assert "shorten" in failure(server.model(), PromptTooLong)


def test_an_empty_account_is_not_tried_again(server):
    server.reply(JSONResponse({"error": {"code": "insufficient_quota", "message": "You exceeded your quota"}}, 429))
    assert "credit" in failure(server.model())


def test_an_error_under_a_status_of_success_is_an_error(server):
    server.reply({"error": {"message": "provider down", "code": 502}})
    assert "provider down" in failure(server.model(), TransientError)
    server.reply({"error": "no such thing"})
    assert "no such thing" in failure(server.model())


def test_retry_after_is_seconds_or_a_date():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    date = format_datetime(now + timedelta(seconds=90), usegmt=True)
    given = ["3", "0.5", "-4", date, "nan", "inf", "soon", "", "9" * 400, "Mon, 99 Foo 99999999999 00:00:00", "1e999"]
    waits = [retry_after_s({"retry-after": each}, now) for each in given]
    assert waits[:4] == [3.0, 0.5, 0.0, 90.0]
    assert all(wait is None or math.isfinite(wait) for wait in waits) and waits[4:8] == [None] * 4


@pytest.mark.slow
def test_a_429_is_tried_again_after_what_it_asks_for(server):
    server.reply(JSONResponse({}, 429, {"Retry-After": "0.3"}), chat("now"))
    model, waits = server.model(), []
    answered = asyncio.run(
        with_retries(
            lambda: model.complete((user("hi"),), GREEDY),
            Retry(attempts=2, first_wait_s=0.01),
            on_retry=lambda attempt, error, wait_s: waits.append(wait_s),
        )
    )
    assert answered[0].message.text == "now" and waits == [0.3]


def test_a_429_then_success_is_a_good_attempt_with_a_note(server):
    server.reply(JSONResponse({}, 429), chat("42"))
    agent = Agent("a", server.model(), direct, retry=Retry(attempts=2, first_wait_s=0.01))
    trace = asyncio.run(rollout(agent, Task("1", "?")))
    assert (trace.answer, trace.error) == ("42", None)
    assert [event.kind for event in trace.events] == ["retry"]
    assert trace.usage.prompt_tokens == 7


@pytest.mark.slow
def test_a_dead_endpoint_ends_as_a_failure_in_the_trace():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    model = open_model(f"m@http://127.0.0.1:{port}/v1")
    agent = Agent("a", model, direct, retry=Retry(attempts=2, first_wait_s=0.01))
    trace = asyncio.run(rollout(agent, Task("1", "?")))
    assert trace.error is not None and trace.error.kind == "Unreachable"
    assert "check that the server runs" in trace.error.message and trace.error.traceback is None
    assert [event.kind for event in trace.events] == ["retry"]


def test_a_host_without_an_address_is_transient():
    assert "no-such-host.invalid" in failure(open_model("m@http://no-such-host.invalid/v1"), Unreachable)


@pytest.mark.slow
def test_a_stalled_server_is_given_up(server):
    server.reply(server.wait_for_ever)
    assert "within 0.3 s" in failure(server.model(timeout_s=0.3), TransientError)
    assert server.closed.wait(30), "the client still waits"


@pytest.mark.slow
def test_a_dripping_server_is_given_up(server):
    async def drip(request: Request) -> Response:
        async def drops() -> AsyncIterator[bytes]:
            while True:
                yield b" "
                await asyncio.sleep(0.02)

        return StreamingResponse(drops(), media_type="application/json")

    server.reply(drip)
    failure(server.model(timeout_s=0.3), TransientError)


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b"<!DOCTYPE html><html>hi", b"[]", b"null", b"{}", b'{"choices": []}', b'{"choices": [1]}',
     b'{"choices": {"0": 1}}', b'{"choices": [{}]}', b'{"choices": [{"message": 3}]}', b"[" * 200_000, b"\xff\xfe\x00",
     b'{"choices": null, "usage": 3}', b'{"a":' * 20_000, b"9" * 10_000],
)  # fmt: skip
def test_a_reply_that_makes_no_sense_is_a_model_error(server, body):
    server.reply(Response(body, media_type="application/json"))
    assert "could not be understood" in failure(server.model())


def test_null_content_is_an_empty_answer(server):
    server.reply(chat(None))
    assert ask(server.model())[0].message.text == ""
    server.reply(chat(None, refusal="I will not."))
    assert ask(server.model())[0].message.text == "I will not."
    (refused,) = ask(server.model(), sampling=Sampling(grammar=Grammar("json_schema", '{"type": "object"}')))
    assert (refused.message.text, refused.finish_reason) == ("I will not.", "content_filter")


def test_usage_that_makes_no_sense_is_zero(server):
    for usage in (
        {"prompt_tokens": -3, "completion_tokens": "many"},
        [1],
        {"prompt_tokens": 10**30, "prompt_tokens_details": 3},
    ):
        server.reply(chat("x", usage=usage))
        assert ask(server.model())[0].usage == Usage()


def test_an_html_error_page_is_not_shown(server):
    server.reply(Response("<html><body>Bad gateway " + "x" * 5000, 502, media_type="text/html"))
    message = failure(server.model(), TransientError)
    assert "an HTML page" in message and "<" not in message


@pytest.mark.slow
@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
def test_a_reply_without_end_is_cut(server, status, kind):
    async def endless(request: Request) -> Response:
        async def flood() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 65536
                await asyncio.sleep(0.001)

        return StreamingResponse(flood(), status, media_type=kind)

    server.reply(endless)
    model = server.model(max_reply_bytes=1 << 20)
    assert "more than 1048576 bytes" in failure(model)
    if "stream" in kind:
        with pytest.raises(ModelError, match="more than 1048576 bytes"):
            collect(model)


def test_a_packed_reply_is_refused_since_it_could_unpack_without_end(server):
    server.reply(Response(gzip.compress(b" " * 10_000_000), headers={"Content-Encoding": "gzip"}))
    assert "compression" in failure(server.model())
    assert server.headers[0]["accept-encoding"] == "identity"


@pytest.mark.parametrize("charset", ["hex", "idna", "zlib", "nonsense", "utf-7"])
def test_a_strange_charset_is_no_traceback(server, charset):
    server.reply(Response(b"\xff+AA", 500, headers={"Content-Type": f"application/json; charset={charset}"}))
    with pytest.raises(ModelError):
        ask(server.model())


@pytest.mark.slow
def test_a_redirect_to_another_service_is_not_followed_with_the_prompt(server):
    with serving(Server()) as other:
        other.reply(chat("internal"))
        for status in (307, 308):
            server.reply(Response(status_code=status, headers={"Location": f"{other.url}/v1/chat/completions"}))
            assert "redirects" in failure(server.model())
        assert other.asked == []


def test_a_redirect_to_another_name_is_not_followed(server):
    away = server.url.replace("127.0.0.1", "localhost")
    server.reply(Response(status_code=307, headers={"Location": f"{away}/moved"}), chat("elsewhere"))
    assert "redirects to" in failure(server.model())
    assert len(server.asked) == 1


def test_a_redirect_on_the_same_server_is_followed(server):
    server.reply(Response(status_code=307, headers={"Location": f"{server.url}/moved"}))
    server.reply(chat("moved"))
    assert ask(server.model())[0].message.text == "moved"


def test_a_redirect_without_end_is_one_of_our_errors(server):
    server.reply(Response(status_code=307, headers={"Location": server.url}))
    with pytest.raises(ModelError):
        ask(server.model())


def test_a_server_that_hangs_up_is_transient():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def hang_up() -> None:
            for answer in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", b"SSH-2.0-OpenSSH_9\r\n"):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=hang_up)
        thread.start()
        model = open_model(f"m@http://127.0.0.1:{listener.getsockname()[1]}/v1")
        for _ in range(3):
            failure(model, Unreachable)
        thread.join()


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["choices", "message", "content", "tool_calls", "function", "arguments", "name", "index", "delta",
                         "logprobs", "top_logprobs", "token", "logprob", "usage", "prompt_tokens", "token_ids", "text",
                         "tokens", "token_logprobs", "text_offset", "finish_reason", "id", "data", "error"]),
        inner, max_size=4),
    max_leaves=25,
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(JSONS, JSONS, JSONS)
def test_whatever_a_reply_holds_comes_out_as_data_or_a_model_error(choice, message, usage):
    body = {"choices": [{**(choice if isinstance(choice, dict) else {}), "message": message}, choice], "usage": usage}
    for reply in (body, {"choices": [body["choices"][0]], "usage": usage}):
        with suppress(ModelError):
            for completion in wire.read_completions(reply):
                json.dumps(completion.to_json(), allow_nan=False).encode()
        with suppress(ModelError):
            wire.read_likelihood(reply, "a", "b")
        answer = wire.StreamedAnswer()
        answer.add(reply)
        answer.add({"choices": [{"delta": message, **(choice if isinstance(choice, dict) else {})}]})
        with suppress(ModelError):
            answer.completion()
        wire.read_model_names({"data": choice})
        assert isinstance(Endpoint("n", "m", (KEY,), 1.0).reported({"error": message}), ModelError)


@pytest.mark.slow
@given(st.lists(st.text(alphabet="ab 🌍\u2028", min_size=1), max_size=4), st.integers(1, 9))
def test_events_are_the_same_however_the_bytes_are_cut(texts, size):
    raw = "".join(f": ping\r\n\r\ndata: {text}\r\n\r\n" for text in texts).encode()

    async def read() -> list[str]:
        async def chunks() -> AsyncIterator[bytes]:
            for at in range(0, len(raw), size):
                yield raw[at : at + size]

        return [data async for data in sse_data(chunks())]

    assert asyncio.run(read()) == texts


@pytest.mark.parametrize("cached", [0, 3, 4, 10**9])
def test_no_more_of_a_prompt_is_cached_than_there_is(cached):
    from firsthand.providers.reported_usage import read_usage

    body = {"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": cached}}
    assert read_usage(body) == Usage(3, min(cached, 3), 1)


@pytest.mark.parametrize(
    ("ids", "found"),
    [([0, 5], (0, 5)), ([2**31 - 1, 0], (2**31 - 1, 0)), ([2**31, 0], None), ([-1, 5], None), ([True, 5], None),
     ([1.0, 5], None), ([5], None), ([], None), (None, None)],
)  # fmt: skip
def test_ids_of_sampled_tokens_are_taken_if_all_are_and_each_has_its_log_prob(ids: Any, found: Any) -> None:
    from firsthand.providers.openai_wire import read_completions

    content = [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": 0.0}]
    choice = {"message": {"content": "ab"}, "token_ids": ids, "logprobs": {"content": content}}
    [completion] = read_completions({"choices": [choice], "prompt_token_ids": ids})
    sampled = completion.message.sampled
    assert sampled is None if found is None else sampled is not None and sampled.token_ids == found
    assert sampled is None or sampled.logprobs == (-0.5, 0.0)
    assert completion.prompt_ids == (found if ids != [5] else (5,))


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, PromptTooLong), (413, PromptTooLong), (422, PromptTooLong), (500, PromptTooLong), (404, ModelError),
     (429, TransientError), (503, TransientError)],
)  # fmt: skip
def test_a_prompt_that_is_too_long_is_told_by_its_words_at_the_statuses_that_servers_use(
    status: int, kind: type
) -> None:
    from firsthand.providers.openai_errors import Endpoint

    endpoint = Endpoint("it", "m", (), 5.0)
    told = ({"code": "context_length_exceeded"}, {"message": "This model's maximum context length is 4096 tokens"})
    for body in told:
        assert type(endpoint.status(status, body, {})) is kind
    assert not isinstance(endpoint.status(status, {"message": "no"}, {}), PromptTooLong)


def test_answers_come_by_their_index_and_share_the_tokens_that_were_counted() -> None:
    from firsthand.providers.openai_wire import read_completions

    choices = [{"index": place, "message": {"content": f"answer {place}"}} for place in (2, 0, 1)]
    found = read_completions({"choices": choices, "usage": {"prompt_tokens": 5, "completion_tokens": 8}})
    assert [each.message.text for each in found] == ["answer 0", "answer 1", "answer 2"]
    assert [each.usage.completion_tokens for each in found] == [3, 3, 2]
    assert [each.usage.prompt_tokens for each in found] == [5, 0, 0]
    unnumbered = [{"message": {"content": text}} for text in "ba"]
    assert [each.message.text for each in read_completions({"choices": unnumbered})] == ["b", "a"]
