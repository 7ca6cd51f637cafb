"""A model behind OpenAI's protocol over a client that is told what to answer: each request, delta and error in whole."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from firsthand.errors import ConfigError, GrammarIgnored, ModelError, PromptTooLong, TransientError
from firsthand.grammar import Grammar
from firsthand.message import ToolCall, assistant, user
from firsthand.model import CallDelta, Completion, Delta, Likelihood, Sampling, ToolSpec, Usage
from firsthand.providers import openai as openai_module
from firsthand.providers.openai import OpenAIModel
from firsthand.providers.openai_wire import StreamedAnswer
from firsthand.system import trace_context
from told_clients import PLAIN, STREAM, Reply, over, said, streamed
from told_clients import status as status_of

openai = pytest.importorskip("openai", reason="openai is not installed")
ADD = ToolSpec("add", "Adds.", {"type": "object"})


def status(code: int, body: Any) -> Exception:
    return status_of(code, body, openai, httpx)


def opened(*replies: Any, **given: Any) -> Any:
    return over(OpenAIModel("m", "http://h/v1", api_key="k3y", **given), *replies)


def choice(text: str, index: int = 0, **more: Any) -> dict[str, Any]:
    return {"index": index, "message": {"content": text}, "finish_reason": "stop", **more}


def test_an_endpoint_that_gives_fewer_answers_is_asked_again_with_the_next_seeds() -> None:
    usage = {"prompt_tokens": 4, "completion_tokens": 3}
    model = opened(
        Reply({"choices": [choice("b", 1), choice("a")], "usage": usage}),
        Reply({"choices": [choice("c")], "usage": usage}),
        Reply({"choices": [choice("d")]}),
    )
    found = asyncio.run(model.complete("p", Sampling(max_tokens=5, temperature=0.0, seed=8), n=4))
    assert [each.message.text for each in found] == ["a", "b", "c", "d"]
    assert [each.usage for each in found] == [Usage(4, 0, 2), Usage(0, 0, 1), Usage(4, 0, 3), Usage()]
    body = {"model": "m", "prompt": "p", "max_tokens": 5, "temperature": 0.0}
    assert model.client.asked == [
        ("/completions", {**body, "n": 4, "seed": 8}, {}),
        ("/completions", {**body, "seed": 10}, {}),
        ("/completions", {**body, "seed": 11}, {}),
    ]
    several = opened(Reply({"choices": [choice("a"), choice("b", 1)]}))
    assert [each.message.text for each in asyncio.run(several.complete([user("p")], PLAIN))] == ["a"]
    path, asked, _ = several.client.asked[0]
    assert path == "/chat/completions" and asked["messages"] == [{"role": "user", "content": "p"}]
    spare = opened(Reply({"choices": [choice("a"), choice("b", 1)]}))
    fitting = Sampling(max_tokens=5, grammar=Grammar("regex", "a"))
    assert len(asyncio.run(spare.complete([user("p")], fitting))) == 1, "what was not asked for need not fit"
    unseeded = opened(Reply({"choices": [choice("a")]}), Reply({"choices": [choice("b")]}))
    asyncio.run(unseeded.complete("p", PLAIN, n=2))
    assert unseeded.client.asked[1] == ("/completions", body, {})


def test_a_stream_of_openais_protocol_is_asked_for_with_its_usage_and_closed() -> None:
    parts = [
        {"choices": [{"index": 0, "delta": {"content": "Hi"}}]},
        {
            "choices": [
                {
                    "index": 0,
                    "delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "add", "arguments": ""}}]},
                }
            ]
        },
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        {"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 1}},
    ]
    reply = Reply(*parts, b"[DONE]", b"never read", headers=STREAM)
    model = opened(reply)
    found = asyncio.run(streamed(model, [user("p")], tools=[ADD]))
    whole = Completion(assistant("Hi", ToolCall("c", "add", {})), "tool_calls", Usage(2, 0, 1))
    assert found == [
        Delta("Hi"), Delta("", call=CallDelta(0, "c", "add")), Delta("", call=CallDelta(0, arguments="{}")),
        Delta("", whole),
    ]  # fmt: skip
    ((path, body, more),) = model.client.asked
    assert (path, body["stream"], body["stream_options"], body["tools"]) == (
        "/chat/completions", True, {"include_usage": True}, [ADD.to_json()],
    )  # fmt: skip
    assert more == {"stream": True, "stream_cls": openai.AsyncStream[Any]} and reply.closed == 1
    broken = Reply(parts[0], headers=STREAM)
    assert said(streamed(opened(broken), "p"), TransientError) == (
        "openai:m@http://h/v1 broke off in the middle of an answer: try again"
    )
    assert broken.closed == 1
    wrong = Reply(b"<html>", headers={"content-type": "text/html"})
    assert said(streamed(opened(wrong), "p")) == (
        "openai:m@http://h/v1 sent 'text/html' where a stream was expected: ask without streaming"
    )
    assert wrong.closed == 1 and "'no content type'" in said(streamed(opened(Reply(b"")), "p"))
    failed = opened(Reply({"error": {"message": "busy k3y", "code": 503}}, headers=STREAM))
    assert (
        said(streamed(failed, "p"), TransientError)
        == "openai:m@http://h/v1 answered 503 (busy ***): it may pass, try again"
    )
    misfit = Reply({"choices": [{"index": 0, "text": "b", "finish_reason": "stop"}]}, headers=STREAM)
    told = said(streamed(opened(misfit), "p", Sampling(max_tokens=5, grammar=Grammar("regex", "a"))), GrammarIgnored)
    assert told.startswith("openai:m@http://h/v1 answered 'b', which does not fit the regex grammar it was given")


def test_faults_of_an_endpoint_keep_their_kind_and_a_missing_model_names_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "openai:m@http://h/v1"
    for reply, kind, words in (
        (status(429, {"message": "slow"}), TransientError, "answered 429 (slow): it may pass, try again"),
        (
            status(401, {"message": "bad k3y"}),
            ModelError,
            "answered 401 (bad ***): set OPENAI_API_KEY to a key that it takes",
        ),
        (Reply(b"[1]"), ModelError, ""),
        (Reply({"error": {"message": "no"}}), ModelError, "answered with an error (no): change what it refuses"),
        (Reply({"choices": []}), ModelError, "could not be understood: "),
        (RuntimeError("odd"), ModelError, "could not be asked (RuntimeError: odd): check its address"),
    ):
        told = said(opened(reply).complete("p", PLAIN), kind)
        assert told.startswith(f"{name} {words}"), told
    with pytest.raises(TransientError) as raised:
        asyncio.run(opened(status(429, {})).complete("p", PLAIN))
    assert raised.value.retry_after_s == 7
    missing = opened(status(404, {"message": "none"}), Reply({"data": [{"id": "n"}, {"id": "other"}]}))
    assert said(missing.complete("p", PLAIN)).startswith(f"{name} answered 404 (none): ") and "it has n, other" in said(
        opened(status(404, {}), Reply({"data": [{"id": "n"}, {"id": "other"}]})).complete("p", PLAIN)
    )
    assert [path for path, *_ in missing.client.asked] == ["/completions", "/models"]
    unlisted = opened(status(404, {"message": "none"}), status(404, {}))
    assert said(unlisted.complete("p", PLAIN)) == (
        f"{name} answered 404 (none): check the model's name and the address (most end in /v1)"
    )
    assert [path for path, *_ in unlisted.client.asked] == ["/completions", "/models"]
    monkeypatch.setattr("firsthand.providers.openai.CONNECT_TIMEOUT_S", 0.01)
    stuck = opened(status(404, {"message": "none"}), 5.0)
    assert said(stuck.complete("p", PLAIN)).startswith(f"{name} answered 404 (none): check the model's name")
    slow = f"{name} gave no answer within 0.01 s: try again, or raise timeout_s"
    assert said(opened(1.0, timeout_s=0.01).complete("p", PLAIN), TransientError) == slow
    assert said(streamed(opened(1.0, timeout_s=0.01), "p"), TransientError) == slow


def test_an_endpoint_scores_each_continuation_by_a_request_that_echoes() -> None:
    def echoed(text: str, *tokens: str) -> Reply:
        logprobs = {"tokens": list(tokens), "token_logprobs": [None, *[-0.5 * at for at in range(1, len(tokens))]]}
        usage = {"prompt_tokens": len(tokens) - 1, "completion_tokens": 1}
        return Reply({"choices": [{"text": text, "logprobs": logprobs}], "usage": usage})

    model = opened(echoed("pab!", "p", "a", "b", "!"), echoed("pc!", "p", "c", "!"))
    found = asyncio.run(model.score("p", ["ab", "", "c"]))
    assert found.likelihoods == (
        Likelihood("ab", -1.5, 2, False), Likelihood("", 0.0, 0, True), Likelihood("c", -0.5, 1, False),
    )  # fmt: skip
    assert found.usage == Usage(5, 0, 2)
    options = {"model": "m", "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
    assert model.client.asked == [("/completions", {**options, "prompt": each}, {}) for each in ("pab", "pc")]
    name = "openai:m@http://h/v1"
    assert said(opened(Reply({"choices": [choice("x")]})).score("p", ["a"])) == (
        f"{name} cannot score: its reply holds no log-probs of the prompt; scoring needs /completions with echo and "
        "log-probs, as vLLM has: serve the model with it, use a local model, or a pattern that generates"
    )
    assert "answered 503" in said(opened(status(503, {})).score("p", ["a"]), TransientError)
    long = status(400, {"message": "maximum context length is 9"})
    assert "shorten the conversation" in said(opened(long).score("p", ["a"]), PromptTooLong)
    blank = asyncio.run(opened(echoed("p  !", "p", "  ", "!")).score("p", ["  "]))
    assert blank.likelihoods == (Likelihood("  ", -0.5, 1, False),)
    assert said(opened().score([user("p")], ["a"])).startswith(f"{name} cannot score after a conversation")


def test_the_span_of_a_trace_goes_along_with_a_request() -> None:
    parent = trace_context.TraceParent(1, 2)

    async def asked(model: Any) -> Any:
        trace_context.enter(parent)
        await model.complete([user("p")], Sampling(max_tokens=5))
        return model.client.asked[0][-1]

    sent = asyncio.run(asked(opened(Reply({"choices": [choice("a")]}))))
    assert sent == {"options": {"headers": {"traceparent": parent.header}}}


def test_a_call_in_a_stream_keeps_its_first_name_and_takes_an_id_that_comes_later() -> None:
    answer = StreamedAnswer()

    def call(**function: Any) -> list[CallDelta]:
        id = function.pop("id", None)
        piece = {"index": 0, "function": function} | ({"id": id} if id else {})
        answer.add({"choices": [{"delta": {"tool_calls": [piece]}}]})
        return answer.take_calls()

    assert call(name="add", arguments="{") == [CallDelta(0, "call_0", "add", "{")]
    assert call(id="x", name="other", arguments='"a":') == [CallDelta(0, arguments='"a":')]
    assert call(id="x", arguments="1}") == [CallDelta(0, arguments="1}")]
    assert call(id="z", arguments="") == [CallDelta(0, arguments="")], "a piece without a name begins no call"
    assert call(id="y", name="sub", arguments="{}") == [CallDelta(1, "y", "sub", "{}")]
    answer.add({"choices": [{"finish_reason": "stop"}]})
    whole = answer.completion()
    assert whole.message.tool_calls == (ToolCall("x", "add", {"a": 1}), ToolCall("y", "sub", {}))
    assert whole.finish_reason == "tool_calls"


def test_a_stream_goes_on_over_an_empty_error_and_ends_at_a_real_one() -> None:
    event = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}
    model = opened(Reply({"error": None}, {"error": {}} | event, b"[DONE]", headers=STREAM))
    found = asyncio.run(streamed(model, [user("p")]))
    assert [each.text for each in found] == ["Hi", ""] and found[1].completion is not None
    broken = opened(Reply(event, {"error": {"code": 503, "message": "full"}}, headers=STREAM))
    assert (
        said(streamed(broken, "p"), TransientError)
        == "openai:m@http://h/v1 answered 503 (full): it may pass, try again"
    )
    whole = opened(Reply({"error": None, "choices": [choice("a")]}))
    assert asyncio.run(whole.complete("p", PLAIN))[0].message.text == "a"


def test_a_model_that_is_not_there_is_told_even_where_the_list_of_models_does_not_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = status(404, {"message": "no m"})
    listed = Reply({"data": [{"id": "n"}, {"id": "other"}]})
    model = opened(gone, listed)
    assert said(model.complete("p", PLAIN)).startswith("openai:m@http://h/v1 answered 404 (no m): ")
    assert said(opened(gone, listed).complete("p", PLAIN)).endswith("it has n, other")
    assert [path for path, *_ in model.client.asked] == ["/completions", "/models"]
    advice = "openai:m@http://h/v1 answered 404 (no m): check the model's name and the address (most end in /v1)"
    monkeypatch.setattr(openai_module, "CONNECT_TIMEOUT_S", 0.02)
    assert said(opened(gone, 2.0).complete("p", PLAIN)) == advice
    for reply in (status(404, {}), status(500, {}), Reply(b"no JSON"), Reply({"data": 5})):
        again = opened(gone, reply)
        assert said(again.complete([user("p")], PLAIN)) == advice and len(again.client.asked) == 2


@pytest.mark.parametrize(
    ("host", "is_openais"),
    [
        ("api.openai.com", True), ("eu.api.openai.com", True), ("name.openai.azure.com", True), ("EU.API.OPENAI.COM", True),
        ("xapi.openai.com", False), ("api.openai.com.example", False), ("xopenai.azure.com", False), ("localhost", False),
    ],
)  # fmt: skip
def test_openais_hosts_get_the_token_limit_that_its_reasoning_models_take(host: str, is_openais: bool) -> None:
    model = OpenAIModel("m", f"https://{host}/v1", api_key="k")
    body = model._body([user("q")], Sampling(max_tokens=5), (), 1)
    limits = {name: value for name, value in body.items() if name.startswith("max_")}
    assert limits == {"max_completion_tokens" if is_openais else "max_tokens": 5}


def test_an_endpoints_address_and_key_are_those_given_or_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    def facts(*given: Any, url: str = "", key: str = "", **more: Any) -> tuple[str, str, str, str, bool]:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.setenv("OPENAI_API_KEY", key)
        model = OpenAIModel(*given, **more)
        return model.name, model.fingerprint, model._key, model._base_url, model._official

    own = "https://api.openai.com/v1"
    assert facts("m", key=" k\n") == ("openai:m", f"openai:m@{own}", "k", own, True)
    assert facts("m", f" {own}/ ", key="k") == (f"openai:m@{own}", f"openai:m@{own}", "k", own, True)
    assert facts("m", url="http://u:pw@h:8/v1//") == (
        "openai:m",
        "openai:m@http://h:8/v1",
        "",
        "http://u:pw@h:8/v1",
        False,
    )
    there = ("openai:a/b@http://h/v1", "openai:a/b@http://h/v1", "k", "http://h/v1", False)
    assert facts("a/b", "http://h/v1", url="http://x", key="k") == there
    assert (
        facts("m", "http://h", api_key=" own ", key="k")[2] == "own"
        and facts("m", "http://h", api_key="", key="k")[2] == "k"
    )
    with pytest.raises(
        ConfigError, match=r"^OPENAI_API_KEY is not set: export it, or name an endpoint of your own, openai:"
    ):
        facts("m", key=" ")
    with pytest.raises(
        ConfigError, match=r"^OPENAI_API_KEY has invalid characters: copy it again, without line breaks$"
    ):
        facts("m", "http://h", key="a\nb")
    for bad in ("", "a\nb"):
        with pytest.raises(ConfigError, match="names no model: give openai:MODEL@BASE_URL, such as openai:llama3@"):
            facts(bad, key="k")
    for limits, said_ in (
        ({"timeout_s": 0.0}, f"timeout_s is 0.0 and max_reply_bytes {64 << 20}: give numbers above 0"),
        ({"max_reply_bytes": 0}, "timeout_s is 600.0 and max_reply_bytes 0: give numbers above 0"),
        ({"timeout_s": float("nan")}, f"timeout_s is nan and max_reply_bytes {64 << 20}: give numbers above 0"),
    ):
        with pytest.raises(ConfigError) as raised:
            facts("m", key="k", **limits)
        assert str(raised.value) == said_
    secret = OpenAIModel("m", "http://u:p%40w@h/v1", api_key="k3y")
    assert secret._faults.hide("k3y p%40w p@w p%2540w m") == "*** *** *** *** m"


def test_a_likelihood_is_asked_for_by_an_echo_that_is_one_token_longer() -> None:
    def echo(*tokens: str) -> Reply:
        logprobs = {
            "tokens": [*tokens, "z"],
            "token_logprobs": [None, *(-float(each) for each in range(1, len(tokens) + 1))],
        }
        usage = {"prompt_tokens": len(tokens), "completion_tokens": 1}
        return Reply({"choices": [{"text": "", "logprobs": logprobs}], "usage": usage})

    model = opened(echo("a ", "b", "c"), echo("a ", "d"))
    found = asyncio.run(model.score("a ", ["bc", "", "d"]))
    assert found.likelihoods == (
        Likelihood("bc", -3.0, 2, False), Likelihood("", 0.0, 0, True), Likelihood("d", -1.0, 1, False),
    )  # fmt: skip
    assert found.usage == Usage(5, 0, 2)
    options = {"model": "m", "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
    assert model.client.asked == [("/completions", {**options, "prompt": f"a {each}"}, {}) for each in ("bc", "d")]
    begin = "openai:m@http://h/v1 cannot score: "
    end = (
        "; scoring needs /completions with echo and log-probs, as vLLM has: serve the model with it, use a local model, or "
        "a pattern that generates"
    )
    bare = opened(Reply({"choices": [{"text": "x"}]}))
    assert said(bare.score("a", ["b"])) == f"{begin}its reply holds no log-probs of the prompt{end}"
    long = opened(status(400, {"message": "maximum context length"}))
    assert said(long.score("a", ["b"]), PromptTooLong).startswith("openai:m@http://h/v1 answered 400 (maximum context")
    full = opened(status(503, {"message": "full"}))
    assert (
        said(full.score("a", ["b"]), TransientError)
        == "openai:m@http://h/v1 answered 503 (full): it may pass, try again"
    )
    assert said(opened().score([user("a")], ["b"])) == (
        "openai:m@http://h/v1 cannot score after a conversation, whose template only the endpoint knows: give the prompt as "
        "plain text, or use a local model"
    )
