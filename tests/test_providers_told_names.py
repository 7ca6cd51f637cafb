"""Models of vendors by their names, addresses and keys; and what an OpenAI endpoint is asked for further answers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from firsthand.errors import ConfigError, GrammarIgnored, MissingExtra, ModelError, Unreachable
from firsthand.grammar import Grammar
from firsthand.message import user
from firsthand.model import CallDelta, Likelihood, Sampling, Usage
from firsthand.providers import anthropic, google, ollama, openai
from told_clients import STREAM, Reply, over, said, streamed

VARIABLES = (
    "OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "OLLAMA_HOST",
    "GOOGLE_API_KEY", "GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL",
)  # fmt: skip


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for each in VARIABLES:
        monkeypatch.delenv(each, raising=False)
    return monkeypatch


def facts(model: Any) -> tuple[str, str, str]:
    return model._model, model._base_url, model.name


def test_a_name_is_opened_with_its_address_or_the_vendors_own(bare: pytest.MonkeyPatch) -> None:
    for module, kind, extra, example in (
        (openai, "openai", "openai", "http://HOST:PORT/v1"), (anthropic, "anthropic", "anthropic", "https://HOST"),
        (google, "google", "google.genai", "https://HOST"),
    ):  # fmt: skip
        pytest.importorskip(extra, reason=f"{extra} is not installed")
        name = f"{kind}:a.b@http://h:8/x"
        assert facts(module.open_model("a.b@http://h:8/x")) == ("a.b", "http://h:8/x", name)
        with pytest.raises(ConfigError) as raised:
            module.open_model("a@h")
        assert str(raised.value) == (
            f"{kind}:a@h has 'h' after the @, where an address was expected: write {kind}:a@{example}, with http:// or "
            "https://; a name with @ in it needs its address too"
        )
        with pytest.raises(
            ConfigError, match=rf"_API_KEY is not set: export it, or name .* own, {kind}:MODEL@BASE_URL$"
        ):
            module.open_model("a")
        with bare.context() as context:
            context.setitem(sys.modules, extra, None)
            with pytest.raises(MissingExtra) as missing:
                module.open_model("a.b@http://h")
            package = {"google.genai": "google-genai"}.get(extra, extra)
            assert str(missing.value) == str(MissingExtra(package, kind, f"the model '{kind}:a.b'"))
            assert f"'{kind}:a.b'" in str(missing.value) and package in str(missing.value)


def test_a_name_that_is_none_is_refused_with_an_example(bare: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai", reason="openai is not installed")
    with pytest.raises(ConfigError) as raised:
        openai.OpenAIModel("a\tb", "http://h")
    example = "openai:llama3@https://api.openai.com/v1"
    assert str(raised.value) == f"'a\\tb' names no model: give openai:MODEL@BASE_URL, such as {example}"
    for limit in (0, -1):
        with pytest.raises(ConfigError, match=f"^timeout_s is 2.0 and max_reply_bytes {limit}: give numbers above 0$"):
            openai.OpenAIModel("m", "http://h", timeout_s=2.0, max_reply_bytes=limit)
    made = openai.OpenAIModel("m", "http://h//", api_key="k", timeout_s=0.5, max_reply_bytes=1)
    assert facts(made) == ("m", "http://h", "openai:m@http://h") and (made._timeout_s, made._max_reply_bytes) == (
        0.5,
        1,
    )


def test_an_ollama_model_is_asked_where_its_name_or_the_environment_says(bare: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai", reason="openai is not installed")
    for host, rest, expected in (
        ("", "m", ("m", "http://localhost:11434/v1", "ollama:m")),
        (" \n", "m:1b", ("m:1b", "http://localhost:11434/v1", "ollama:m:1b")),
        ("box", "m", ("m", "http://box:11434/v1", "ollama:m")),
        ("0.0.0.0:80/", "m", ("m", "http://127.0.0.1:80/v1", "ollama:m")),
        ("https://o.ai/0.0.0.0", "m", ("m", "https://o.ai/0.0.0.0/v1", "ollama:m")),
        ("https://o.ai/v1/", "m", ("m", "https://o.ai/v1", "ollama:m")),
        ("box", "m@http://h:8/", ("m", "http://h:8/v1", "ollama:m@http://h:8")),
        ("box", "m@http://u:p@h/v1", ("m", "http://u:p@h/v1", "ollama:m@http://h")),
    ):  # fmt: skip
        bare.setenv("OLLAMA_HOST", host)
        assert facts(ollama.open_model(rest)) == expected
    assert ollama.open_model("m")._key == "ollama"
    for rest, shown in (("m@h", "m"), ("@", ""), ("n" * 81 + "@ftp://h", "n" * 80 + "...")):
        with pytest.raises(ConfigError) as raised:
            ollama.open_model(rest)
        told = f"ollama:{rest} has no address after the @: write ollama:{shown}@http://localhost:11434"
        assert str(raised.value) == told


def test_further_answers_of_a_seed_of_0_have_the_next_seeds_and_those_without_a_seed_none() -> None:
    pytest.importorskip("openai", reason="openai is not installed")

    def asked(seed: int | None, n: int, *given: int) -> list[Any]:
        replies = [
            Reply({"choices": [{"index": at, "message": {"content": "a"}} for at in range(each)]}) for each in given
        ]
        model = over(openai.OpenAIModel("m", "http://h/v1", api_key="k"), *replies)
        found = asyncio.run(model.complete([user("p")], Sampling(max_tokens=5, seed=seed), n=n))
        assert len(found) == n
        return [(body.get("n", 1), body.get("seed")) for _, body, _ in model.client.asked]

    assert asked(0, 3, 1, 1, 1) == [(3, 0), (1, 1), (1, 2)] and asked(None, 2, 1, 1) == [(2, None), (1, None)]
    assert asked(5, 3, 2, 1) == [(3, 5), (1, 7)] and asked(5, 2, 3) == [(2, 5)] and asked(5, 2, 2) == [(2, 5)]


def opened(*replies: Any) -> Any:
    pytest.importorskip("openai", reason="openai is not installed")
    return over(openai.OpenAIModel("m", "http://h/v1", api_key="k3y"), *replies)


def test_an_answer_of_several_that_does_not_fit_its_grammar_is_an_error() -> None:
    sampling = Sampling(max_tokens=5, grammar=Grammar("regex", "a+"))
    choices = [
        {"index": at, "message": {"content": text}, "finish_reason": "stop"} for at, text in enumerate(("a", "b", "aa"))
    ]
    told = said(opened(Reply({"choices": choices})).complete([user("p")], sampling, n=3), GrammarIgnored)
    assert told.startswith("openai:m@http://h/v1 "), told
    one = opened(Reply({"choices": choices[:1]}), Reply({"choices": choices[2:]}))
    found = asyncio.run(one.complete([user("p")], sampling, n=2))
    assert [each.message.text for each in found] == ["a", "aa"]
    late = opened(Reply({"choices": choices[:1]}), Reply({"choices": choices[1:2]}))
    assert said(late.complete([user("p")], sampling, n=2), GrammarIgnored) == told


def test_a_stream_asks_for_one_answer_and_gives_each_call_of_an_event() -> None:
    calls = [
        {"index": at, "id": id, "function": {"name": id, "arguments": "{}"}} for at, id in enumerate(("a", "b", "c"))
    ]
    model = opened(
        Reply({"choices": [{"delta": {"tool_calls": calls}, "finish_reason": "tool_calls"}]}, headers=STREAM)
    )
    found = asyncio.run(streamed(model, [user("p")]))
    assert [each.call for each in found[:3]] == [CallDelta(at, id, id, "{}") for at, id in enumerate(("a", "b", "c"))]
    ((path, body, more),) = model.client.asked
    assert path == "/chat/completions" and more["stream"] is True and body == {
        "model": "m", "messages": [{"role": "user", "content": "p"}], "max_tokens": 5, "temperature": 0.0, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip


def test_a_text_with_half_a_character_is_scored_without_it_and_named_as_it_came() -> None:
    tokens = {"tokens": ["\ufffdp", "\ufffd", "!"], "token_logprobs": [None, -0.5, -9.0]}
    reply = {"choices": [{"text": "", "logprobs": tokens}], "usage": {"prompt_tokens": 2, "completion_tokens": 1}}
    model = opened(Reply(reply))
    scored = asyncio.run(model.score("\ud800p", ["\udfff"]))
    assert scored.likelihoods == (Likelihood("\udfff", -0.5, 1, False),) and scored.usage == Usage(2, 0, 1)
    assert model.client.asked[0][1]["prompt"] == "\ufffdp\ufffd"


def test_openais_own_address_takes_schemas_after_a_conversation_alone(bare: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai", reason="openai is not installed")
    own, other = openai.OpenAIModel("m", api_key="k"), openai.OpenAIModel("m", "http://h", return_token_ids=True)
    schema, regex = Grammar("json_schema", "{}"), Grammar("regex", "a")
    talk = [user("p")]
    chat = {"model": "m", "messages": [{"role": "user", "content": "p"}], "temperature": 0.0}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {}, "strict": True}}
    assert own._body(talk, Sampling(max_tokens=5, grammar=schema), (), 2) == {
        **chat, "max_completion_tokens": 5, "n": 2, "response_format": form,
    }  # fmt: skip
    plain = {"model": "m", "prompt": "p", "temperature": 0.0, "max_tokens": 5}
    assert own._body("p", Sampling(max_tokens=5), (), 1) == plain
    ids = {"return_token_ids": True, "logprobs": 0}
    assert other._body("p", Sampling(max_tokens=5), (), 1) == plain | ids
    for grammar, kind in ((schema, "json"), (regex, "regex")):
        given = Sampling(max_tokens=5, grammar=grammar)
        form_of = {"structured_outputs": {kind: grammar.parsed() if kind == "json" else "a"}}
        assert other._body("p", given, (), 1) == plain | ids | form_of
    assert other._body(talk, Sampling(max_tokens=5, grammar=regex), (), 1) == {
        **chat, "max_tokens": 5, "return_token_ids": True, "logprobs": True, "top_logprobs": 0,
        "structured_outputs": {"regex": "a"},
    }  # fmt: skip
    for prompt, grammar, after in (
        (talk, regex, ""),
        ("p", regex, " after plain text"),
        ("p", schema, " after plain text"),
    ):
        with pytest.raises(ConfigError) as raised:
            own._body(prompt, Sampling(grammar=grammar), (), 1)
        assert str(raised.value) == (
            "openai:m takes JSON schemas after a conversation and no other grammar, but got a "
            f"{grammar.kind} grammar{after}: use a local model or vLLM for it"
        )


def test_what_is_no_stream_is_told_by_its_kind_and_closed() -> None:
    pytest.importorskip("openai", reason="openai is not installed")
    pytest.importorskip("anthropic", reason="anthropic is not installed")
    for model, advice in (
        (openai.OpenAIModel("m", "http://h", api_key="k"), "ask without streaming"),
        (anthropic.AnthropicModel("m", "http://h", api_key="k"), "check its address"),
    ):
        for headers, shown in (
            ({"content-type": "x" * 81}, "x" * 80 + "..."), ({}, "no content type"), ({"content-type": ""}, ""),
            ({"content-type": "application/json"}, "application/json"),
        ):  # fmt: skip
            reply = Reply({"a": 1}, headers=headers)
            told = said(streamed(over(model, reply), [user("p")]))
            assert told == f"{model.name} sent {shown!r} where a stream was expected: {advice}" and reply.closed == 1


def test_a_stream_ends_at_its_mark_and_what_follows_is_not_read() -> None:
    event = {"choices": [{"delta": {"content": "Hi"}, "finish_reason": "length"}]}
    for mark in (b"[DONE]", b" [DONE]  "):
        reply = Reply(event, mark, {"error": {"message": "no"}}, headers=STREAM)
        found = asyncio.run(streamed(opened(reply), "p"))
        assert [each.text for each in found] == ["Hi", ""] and found[1].completion is not None and reply.closed == 1
        assert found[1].completion.finish_reason == "length"
    odd = Reply(event, b"{", headers=STREAM)
    told = said(streamed(opened(odd), "p"))
    assert told.startswith(
        "openai:m@http://h/v1 could not be understood: it sent '{' where JSON was expected: check its"
    )
    assert odd.closed == 1


class Broken(Reply):
    """A stream whose connection is lost after its pieces."""

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        async for each in super().aiter_bytes():
            yield each
        raise OSError("gone k3y")


async def pieces_of(model: Any, seen: list[str]) -> None:
    async for each in model.stream([user("p\ud800")], Sampling(max_tokens=5)):
        seen.append(each.text)


def test_a_connection_that_is_lost_in_a_stream_is_told_as_such_and_half_a_character_is_not_sent() -> None:
    pytest.importorskip("openai", reason="openai is not installed")
    pytest.importorskip("anthropic", reason="anthropic is not installed")
    event = {"choices": [{"delta": {"content": "Hi"}}]}
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Hi"}}
    for model, first in (
        (openai.OpenAIModel("m", "http://h", api_key="k3y"), event),
        (anthropic.AnthropicModel("m", "http://h", api_key="k3y"), block),
    ):
        reply, seen = Broken(first, headers=STREAM), list[str]()
        told = over(model, reply)
        lost = said(pieces_of(told, seen), Unreachable)
        assert lost == f"{model.name} lost or refused the connection (gone ***): check that the server runs"
        assert seen == ["Hi"] and reply.closed == 1
        ((_, body, _),) = model.client.asked
        assert body["messages"][0]["content"] in ("p\ufffd", [{"type": "text", "text": "p\ufffd"}])


def test_clients_of_an_openai_endpoint_try_once_and_stay_at_its_address(bare: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai", reason="openai is not installed")

    async def made(model: Any) -> tuple[str, str, int]:
        client, close = model._open_client()
        connections = client._client
        assert connections.follow_redirects is True and connections.timeout.read == 7.0
        assert connections.headers["accept-encoding"] == "identity"
        (hook,) = connections.event_hooks["request"]
        await hook(connections.build_request("POST", "http://h:8/other"))
        for url in ("http://h:9/v1", "http://i:8/v1", "https://h:8/v1"):
            with pytest.raises(ModelError, match=f"^it redirects to '{url}': give that address, if you trust it$"):
                await hook(connections.build_request("POST", url))
        await close()
        assert connections.is_closed
        return client.api_key, str(client.base_url), client.max_retries

    keyed = openai.OpenAIModel("m", "http://h:8/v1", api_key="k3y", timeout_s=7.0)
    assert asyncio.run(made(keyed)) == ("k3y", "http://h:8/v1/", 0)
    assert asyncio.run(made(openai.OpenAIModel("m", "http://h:8/v1", timeout_s=7.0)))[0] == "none"
    for name in ("", "a\nb"):
        pytest.importorskip("anthropic", reason="anthropic is not installed")
        with pytest.raises(ConfigError) as raised:
            anthropic.AnthropicModel(name, "http://h")
        told = f"{name!r} names no model: give anthropic:MODEL, such as anthropic:claude-opus-5-5"
        assert str(raised.value) == told


def test_errors_of_a_vendor_name_its_own_key_and_form_of_address_and_hide_both_secrets(
    bare: pytest.MonkeyPatch,
) -> None:
    for module, kind, extra, variable, hint in (
        (anthropic.AnthropicModel, "anthropic", "anthropic", "ANTHROPIC_API_KEY", "https://api.anthropic.com"),
        (google.GoogleModel, "google", "google.genai", "GOOGLE_API_KEY", "https://generativelanguage.googleapis.com"),
    ):
        pytest.importorskip(extra, reason=f"{extra} is not installed")
        model: Any = module("a.b", " http://u:p%40w@h/x/ \n", api_key=" k3y\n", timeout_s=7, max_reply_bytes=9)
        assert model.name == f"{kind}:a.b@http://h/x" == model.fingerprint
        faults, without = model._faults, "without /v1, such as" if kind == "anthropic" else "without a version, such as"
        assert faults.hide("k3y p%40w p@w u") == "*** *** *** u"
        assert (faults.name, faults.model, faults.timeout_s) == (model.name, "a.b", 7)
        assert str(faults.status(401, {}, {})) == f"{model.name} answered 401: set {variable} to a key that it takes"
        advice = f"check the model's name and the address ({without} {hint})"
        assert str(faults.status(404, {}, {})) == f"{model.name} answered 404: {advice}"
        assert (model._key, model._timeout_s, model._max_reply_bytes, model._named) == ("k3y", 7, 9, True)
        assert model._clients._opener == model._open_client and model._clients.open == {}
        assert module("m", "https://h", max_reply_bytes=1)._faults.hide("x") == "x"
        for limit in (0, -1):
            with pytest.raises(
                ConfigError, match=f"^timeout_s is 1 and max_reply_bytes {limit}: give numbers above 0$"
            ):
                module("m", "http://h", timeout_s=1, max_reply_bytes=limit)
        for given, told in (
            ({"scores": True}, f"{model.name} gives no log-probs"),
            ({"chats": False}, f"{model.name} answers conversations"),
        ):
            with pytest.raises(ConfigError, match=f"^{told}"):
                model.check_request(Sampling(), **given)
        model.check_request(Sampling(temperature=1.0, seed=3, stop=("x",)))
        assert said(model.score("p", ["a"]), ModelError).startswith(f"{model.name} gives no log-probs")
    claude = anthropic.AnthropicModel("m", "http://h")
    with pytest.raises(ConfigError) as raised:
        claude.check_request(Sampling(temperature=0.25))
    assert str(raised.value) == (
        "temperature is 0.25, and anthropic:m@http://h takes none: its API samples as the model's makers set it, so leave "
        "--temperature out"
    )
