"""Anthropic's and Google's models over clients that are told what to answer: each request, delta and error in whole."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from firsthand.errors import ConfigError, ModelError, TransientError
from firsthand.message import Text, ToolCall, assistant, system, user
from firsthand.model import CallDelta, Completion, Delta, Sampling, ToolSpec, Usage
from firsthand.providers.anthropic import AnthropicModel
from firsthand.providers.google import GoogleModel
from firsthand.system import trace_context
from told_clients import PLAIN, STREAM, Reply, over, said, status, streamed, told_google

anthropic = pytest.importorskip("anthropic", reason="anthropic is not installed")
pytest.importorskip("google.genai", reason="google-genai is not installed")
httpx2 = pytest.importorskip("httpx2", reason="anthropic is not installed")
from google.genai import errors as google_errors  # noqa: E402

ADD = ToolSpec("add", "Adds.", {"type": "object"})


def test_the_span_of_a_trace_goes_along_with_every_request() -> None:
    parent = trace_context.TraceParent(1, 2)
    header = {"traceparent": parent.header}

    async def asked(model: Any) -> Any:
        trace_context.enter(parent)
        await model.complete([user("p")], Sampling(max_tokens=5))
        return model.client.asked[0][-1]

    claude = over(AnthropicModel("m", "http://h", api_key="k3y"), Reply(MESSAGE))
    assert asyncio.run(asked(claude)) == {"options": {"headers": header}}
    gemini = told_google(GENERATED)
    config = asyncio.run(asked(gemini))["config"]
    assert config["http_options"] == {"headers": header} and config["max_output_tokens"] == 5

    async def asked_in_pieces(model: Any) -> Any:
        trace_context.enter(parent)
        await streamed(model, [user("p")])
        return model.client.asked[0][-1]

    ends = [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"}]
    claude = over(AnthropicModel("m", "http://h", api_key="k3y"), Reply(*ends, headers=STREAM))
    sent = {"stream": True, "stream_cls": anthropic.AsyncStream[Any], "options": {"headers": header}}
    assert asyncio.run(asked_in_pieces(claude)) == sent
    assert asyncio.run(asked_in_pieces(told_google([GENERATED])))["config"]["http_options"] == {"headers": header}


MESSAGE = {
    "content": [{"type": "text", "text": "Hi"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 2},
}


def test_anthropics_answers_are_requests_of_their_own() -> None:
    model = over(AnthropicModel("m", "http://h/v1/", api_key="k3y"), Reply(MESSAGE), Reply(MESSAGE))
    asks = [system("Be kind."), user("p")]
    found = asyncio.run(model.complete(asks, Sampling(max_tokens=5, temperature=1.0, stop=("x",)), tools=[ADD], n=2))
    assert found == [Completion(assistant("Hi"), "stop", Usage(3, 0, 2))] * 2
    tool = {"name": "add", "description": "Adds.", "input_schema": {"type": "object"}}
    body = {
        "model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": [{"type": "text", "text": "p"}]}],
        "system": "Be kind.", "tools": [tool], "stop_sequences": ["x"],
    }  # fmt: skip
    assert model.client.asked == [("/v1/messages", body, {})] * 2
    name = "anthropic:m@http://h"
    for reply, kind, words in (
        (
            status(529, {"error": {"message": "full"}}, anthropic, httpx2),
            TransientError,
            "answered 529 (full): it may pass",
        ),
        (
            Reply({"type": "error", "error": {"type": "overloaded_error", "message": "k3y"}}),
            TransientError,
            "answered 529 (***)",
        ),
        (
            Reply({"type": "error", "error": {"type": "odd", "message": "no"}}),
            ModelError,
            "answered with odd (no): change what",
        ),
        (
            Reply({"type": "error", "error": {"type": "permission_error"}}),
            ModelError,
            "answered 403: ask for access to 'm'",
        ),
        (
            Reply({"x": 1}),
            ModelError,
            "could not be understood: its reply holds no content but x: check that it speaks",
        ),
        (Reply(b"{"), ModelError, "could not be understood: "),
        (ValueError("odd"), ModelError, "could not be asked (ValueError: odd): check its address"),
    ):
        told = said(over(AnthropicModel("m", "http://h", api_key="k3y"), reply).complete([user("p")], PLAIN), kind)
        assert told.startswith(f"{name} {words}"), told
    for kind_of_error, code in (
        ("authentication_error", 401), ("not_found_error", 404), ("request_too_large", 413), ("rate_limit_error", 429),
        ("api_error", 500), ("timeout_error", 504),
    ):  # fmt: skip
        reply = Reply({"type": "error", "error": {"type": kind_of_error, "message": "m"}})
        kind = TransientError if code in (429, 500, 504) else ModelError
        told = said(over(AnthropicModel("m", "http://h", api_key="k3y"), reply).complete([user("p")], PLAIN), kind)
        assert told.startswith(f"{name} answered {code} (m)"), told
    poor = status(400, {"error": {"type": "billing_error", "message": "m"}}, anthropic, httpx2)
    told = said(over(AnthropicModel("m", "http://h", api_key="k3y"), poor).complete([user("p")], PLAIN))
    assert told == f"{name} answered 400 (m): the account has no credit left; top it up or use another key"
    bare = AnthropicModel("m", "http://h", api_key="k3y")
    for work, told in (
        (
            lambda: bare.check_request(Sampling(temperature=0.5)),
            f"temperature is 0.5, and {name} takes none: its API samples",
        ),
        (lambda: bare.check_request(PLAIN, scores=True), f"{name} gives no log-probs, which this task is scored by"),
        (lambda: bare.check_request(PLAIN, chats=False), f"{name} answers conversations and continues no plain text"),
        (lambda: bare.check_request(Sampling(temperature=1.0, top_k=3)), f"{name} has no top_k (3): leave it out"),
    ):
        with pytest.raises(ConfigError) as refused:
            work()
        assert str(refused.value).startswith(told)
    bare.check_request(Sampling(temperature=1.0, seed=3, stop=("x",)))
    assert said(bare.score("p", ["a"])).startswith(f"{name} gives no log-probs")
    assert said(bare.complete("p", PLAIN), ConfigError).startswith(f"{name} answers conversations")
    slow = over(AnthropicModel("m", "http://h", api_key="k3y", timeout_s=0.01), 1.0)
    assert said(slow.complete([user("p")], PLAIN), TransientError).startswith(f"{name} gave no answer within 0.01 s")


def test_a_stream_of_anthropics_passes_pings_over_and_is_closed() -> None:
    events = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 3}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "c", "name": "add"}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]  # fmt: skip
    reply = Reply(*events, headers=STREAM)
    model = over(AnthropicModel("m", "http://h", api_key="k3y"), reply)
    found = asyncio.run(streamed(model, [user("p")]))
    whole = Completion(assistant("Hi", ToolCall("c", "add", {})), "tool_calls", Usage(3, 0, 2))
    assert found == [
        Delta("Hi"), Delta("", call=CallDelta(0, "c", "add")), Delta("", call=CallDelta(0, arguments="{}")),
        Delta("", whole),
    ]  # fmt: skip
    ((path, body, more),) = model.client.asked
    assert (path, body["stream"], more) == (
        "/v1/messages",
        True,
        {"stream": True, "stream_cls": anthropic.AsyncStream[Any]},
    )
    assert reply.closed == 1
    for last, kind, words in (
        ([], TransientError, "broke off in the middle of an answer: try again"),
        (
            [{"type": "error", "error": {"type": "rate_limit_error", "message": "no"}}],
            TransientError,
            "answered 429 (no)",
        ),
    ):
        cut = Reply(*events[:4], *last, headers=STREAM)
        told = said(streamed(over(AnthropicModel("m", "http://h", api_key="k3y"), cut), [user("p")]), kind)
        assert told.startswith(f"anthropic:m@http://h {words}") and cut.closed == 1
    page = Reply(b"x", headers={"content-type": "text/html"})
    assert said(streamed(over(AnthropicModel("m", "http://h", api_key="k3y"), page), [user("p")])) == (
        "anthropic:m@http://h sent 'text/html' where a stream was expected: check its address"
    )


GENERATED = {
    "candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 3},
}


def test_googles_answers_have_seeds_of_their_own_and_its_faults_their_kind() -> None:
    model = told_google(GENERATED, GENERATED)
    sampling = Sampling(max_tokens=5, temperature=0.0, seed=2**31 - 1)
    found = asyncio.run(model.complete([user("p")], sampling, n=2))
    assert found == [Completion(assistant("Hi"), "stop", Usage(3, 0, 0))] * 2
    contents = [{"role": "user", "parts": [{"text": "p"}]}]
    settings = {
        "max_output_tokens": 5, "temperature": 0.0, "automatic_function_calling": {"disable": True},
        "automatic_continuation": False,
    }  # fmt: skip
    assert [asked for (asked,) in model.client.asked] == [
        {"model": "m", "contents": contents, "config": {**settings, "seed": seed}} for seed in (2**31 - 1, 0)
    ]
    name = "google:m@http://h"

    def api(code: int, body: Any) -> Exception:
        return google_errors.APIError(code, {"error": body})

    for reply, kind, words in (
        (api(503, {"message": "full"}), TransientError, "answered 503 (full): it may pass"),
        (
            api(400, {"message": "bad", "details": [{"reason": "API_KEY_INVALID"}]}),
            ModelError,
            "answered 401 (bad): set GOOGLE_",
        ),
        (api(300, {"message": "m"}), ModelError, "answered 300 (m): check the model's name and the address"),
        (api(600, {"message": "odd"}), ModelError, "answered 400 (odd): change what it refuses"),
        (api(200, {"message": "odd"}), ModelError, "answered 400 (odd): change what it refuses"),
        (
            google_errors.UnknownApiResponseError("<html>"),
            ModelError,
            "could not be understood: it sent what is no JSON (<html>)",
        ),
        (ValueError("odd"), ModelError, "could not be asked (ValueError: odd): check its address"),
        ({"x": 1}, ModelError, "could not be understood: its reply holds no candidates but x: check that it speaks"),
    ):
        told = said(told_google(reply).complete([user("p")], PLAIN), kind)
        assert told.startswith(f"{name} {words}"), told
    waits = api(429, {"message": "slow", "details": [{"retryDelay": "34s"}]})
    with pytest.raises(TransientError) as raised:
        asyncio.run(told_google(waits).complete([user("p")], PLAIN))
    assert raised.value.retry_after_s == 34
    slow = f"{name} gave no answer within 0.01 s"
    assert said(told_google(1.0, timeout_s=0.01).complete([user("p")], PLAIN), TransientError).startswith(slow)
    assert said(streamed(told_google(1.0, timeout_s=0.01), [user("p")]), TransientError).startswith(slow)
    bare = GoogleModel("m", "http://h", api_key="k3y")
    bare.check_request(Sampling(temperature=0.5, top_k=3, seed=1))
    for given, told in (
        ({"scores": True}, f"{name} gives no log-probs"), ({"chats": False}, f"{name} answers conversations"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=f"^{told}"):
            bare.check_request(PLAIN, **given)
    with pytest.raises(ConfigError, match=f"^{name} has no min_p \\(0.5\\): leave it out"):
        bare.check_request(Sampling(min_p=0.5))
    assert said(bare.score("p", ["a"])).startswith(f"{name} gives no log-probs")


def test_a_stream_of_googles_is_joined_from_its_chunks() -> None:
    call = {"functionCall": {"id": "c", "name": "add", "args": {"a": "é"}}}
    chunks = [
        {"candidates": [{"content": {"parts": [{"text": "H"}]}}]},
        {"candidates": [{"content": {"parts": [{"text": "i"}, call]}}]},
        {"candidates": [{"finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2}},
    ]
    model = told_google(chunks)
    found = asyncio.run(streamed(model, [user("p")]))
    assert model.reply.closed == 1
    whole = Completion(assistant("Hi", ToolCall("c", "add", {"a": "é"})), "tool_calls", Usage(3, 0, 2))
    assert found == [Delta("H"), Delta("i"), Delta("", call=CallDelta(0, "c", "add", '{"a": "é"}')), Delta("", whole)]
    assert whole.message.parts[0] == Text("Hi")
    name = "google:m@http://h"
    assert said(streamed(told_google(chunks[:2]), [user("p")]), TransientError) == (
        f"{name} broke off in the middle of an answer: try again"
    )
    lost = google_errors.APIError(500, {"error": {"message": "lost"}})
    assert said(streamed(told_google([chunks[0], lost]), [user("p")]), TransientError).startswith(
        f"{name} answered 500 (lost)"
    )


def test_clients_follow_no_redirect_and_keep_other_headers_to_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "X-Own: 1\nno header\n X-More : 2")
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)

    async def sent(model: Any) -> tuple[Any, list[str]]:
        client, close = model._open_client()
        connections = client._client
        request = connections.build_request("POST", "http://h/x", headers={"x-own": "1", "x-more": "2", "x-other": "3"})
        for hook in connections.event_hooks["request"]:
            await hook(request)
        assert connections.follow_redirects is False and client.max_retries == 0
        await close()
        assert connections.is_closed
        return str(client.base_url), sorted(name for name in request.headers if name.startswith("x-"))

    assert asyncio.run(sent(AnthropicModel("m", "http://h", api_key="k3y"))) == ("http://h", ["x-other"])
    trusted = AnthropicModel("m", api_key="k3y")
    assert asyncio.run(sent(trusted)) == ("https://api.anthropic.com", ["x-more", "x-other", "x-own"])

    async def googles() -> None:
        model = GoogleModel("m", "http://h/", api_key="k3y", timeout_s=7)
        client, close = model._open_client()
        options = client._api_client._http_options
        assert (options.base_url, options.retry_options.attempts) == ("http://h", 1)
        assert client._api_client.api_key == "k3y" and options.httpx_async_client.follow_redirects is False
        assert options.httpx_async_client.timeout.read == 7
        await close()
        assert options.httpx_client.is_closed and options.httpx_async_client.is_closed

    asyncio.run(googles())


def test_keys_go_to_the_makers_own_address_or_to_one_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variables = (
        "GOOGLE_API_KEY", "GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN",
        "ANTHROPIC_BASE_URL",
    )  # fmt: skip

    def facts(kind: Any, *given: Any, env: dict[str, str], **more: Any) -> tuple[str, str, str, str]:
        for each in variables:
            monkeypatch.delenv(each, raising=False)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        model = kind(*given, **more)
        return model.name, model.fingerprint, model._key, model._base_url

    both = {"GOOGLE_API_KEY": "", "GEMINI_API_KEY": " g2\n"}
    own = "https://generativelanguage.googleapis.com"
    named = (f"google:m@{own}", f"google:m@{own}", "g2", own)
    assert facts(GoogleModel, "m", env=both) == ("google:m", f"google:m@{own}", "g2", own)
    assert facts(GoogleModel, "m", f" {own}/ ", env={"GOOGLE_API_KEY": "g1", **both, "GEMINI_API_KEY": "g2"}) == named
    first = facts(GoogleModel, "m", env={"GOOGLE_API_KEY": "g1", "GEMINI_API_KEY": "g2"})
    assert first[2] == "g1" and facts(GoogleModel, "m", api_key="k ", env=both)[2] == "k"
    proxy = {**both, "GOOGLE_GEMINI_BASE_URL": "http://me:pw@proxy:8/"}
    assert facts(GoogleModel, "m", env=proxy) == ("google:m", "google:m@http://proxy:8", "g2", "http://me:pw@proxy:8")
    away = ("google:m@https://h/x", "google:m@https://h/x", "", "https://h/x")
    assert facts(GoogleModel, "m", "https://h/x/", env=proxy) == away
    assert facts(GoogleModel, "m", "https://h", api_key="k", env=both)[2] == "k"
    with pytest.raises(
        ConfigError, match="GOOGLE_API_KEY is not set: export it, or name an endpoint of your own, google:"
    ):
        facts(GoogleModel, "m", own.replace("https", "http"), env={}) and facts(GoogleModel, "m", env={})
    for bad in ("", "a b", "a/", "/a", "a..b", "é"):
        with pytest.raises(ConfigError, match="names no model: give google:MODEL, such as google:gemini-"):
            facts(GoogleModel, bad, env=both)
    for limits in ({"timeout_s": 0}, {"max_reply_bytes": 0}, {"timeout_s": -1.0}):
        for kind in (GoogleModel, AnthropicModel):
            with pytest.raises(
                ConfigError, match=r"^timeout_s is -?[\d.]+ and max_reply_bytes \d+: give numbers above 0$"
            ):
                facts(kind, "m", env={**both, "ANTHROPIC_API_KEY": "a"}, **limits)
    site = "https://api.anthropic.com"
    token = {"ANTHROPIC_AUTH_TOKEN": " t\n"}
    assert facts(AnthropicModel, "m", env=token) == ("anthropic:m", f"anthropic:m@{site}", "t", site)
    assert facts(AnthropicModel, "m", f"{site}/v1/", env={"ANTHROPIC_API_KEY": "a", **token})[2:] == ("a", site)
    assert facts(AnthropicModel, "m", "https://h/v1", env=token) == (
        "anthropic:m@https://h", "anthropic:m@https://h", "", "https://h",
    )  # fmt: skip
    assert facts(AnthropicModel, "m", env={**token, "ANTHROPIC_BASE_URL": "http://p/v1/"})[1:] == (
        "anthropic:m@http://p", "t", "http://p",
    )  # fmt: skip
    assert facts(AnthropicModel, "m", "https://h", api_key=" k", env=token)[2] == "k"
    assert facts(AnthropicModel, "m", "http://api.anthropic.com", env=token)[2] == "", "not without encryption"


def test_the_body_of_an_error_is_read_where_each_vendor_puts_it() -> None:
    spelled = AnthropicModel("m", "https://h", api_key="k")._spelled
    assert spelled({"error": {"message": "a"}, "message": "b"}) == {"message": "a"}
    for body in ({"error": None, "message": "b"}, {"error": "", "message": "b"}, {"message": "b"}, "text", None, [1]):
        assert spelled(body) == body
    reported = AnthropicModel("m", "https://h", api_key="k")._reported
    for kind, status_ in (
        ("rate_limit_error", 429),
        ("not_found_error", 404),
        ("overloaded_error", 529),
        ("new", "with new"),
    ):
        assert f"answered {status_} (no)" in str(reported({"error": {"type": kind, "message": "no"}}))
    assert "answered with an error (odd): change" in str(reported({"error": "odd"}))
    google_model = GoogleModel("m", "https://h", api_key="k")
    errors = google_model._sdk.errors

    def failure(code: Any, body: Any, headers: Any = None) -> str:
        error = errors.APIError.__new__(errors.APIError)
        Exception.__init__(error, "x")
        error.code, error.details = code, body
        error.response = None if headers is None else type("R", (), {"headers": headers})()
        found = google_model._failure(error)
        return f"{type(found).__name__} {found.__dict__.get('retry_after_s')} {found}"

    for code, status_ in ((300, 300), (299, 400), (599, 599), (600, 400), ("404", 400), (True, 400), (404, 404)):
        assert f"answered {status_} (no)" in failure(code, {"error": {"message": "no"}})
    key = {"reason": "API_KEY_INVALID"}
    assert "answered 401" in failure(400, {"error": {"message": "no", "details": [key]}})
    assert "answered 403" in failure(403, {"error": {"message": "no", "details": [key]}})
    assert "answered 400" in failure(400, {"message": "no", "details": [{"x": "y" * 4_000}, key]}), "no further"
    assert "answered 429 (own)" in failure(429, {"message": "own", "error": {}}), "without an error it is the body"
    assert "answered 400:" in failure(400, None)
    waits = {"error": {"message": "no", "details": [{"retryDelay": "34s"}]}}
    assert " 34.0 " in failure(429, waits, {"Retry-After": "7"}) and " 7.0 " in failure(429, {}, {"Retry-After": "7"})
