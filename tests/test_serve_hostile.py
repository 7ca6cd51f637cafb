"""Requests that mean harm, or nothing at all: a clear refusal, nothing lost, and the next request is answered."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from firsthand.errors import ConfigError
from firsthand.providers.scripted import Scripted
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.admission.api_keys import Keys, read_keys
from firsthand.serve.http.bounded_protocol import HEADER_BYTES, UNREAD_BYTES
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.openai import request_parsing, request_schema
from served import Running, read_all, serving, until

HTTP = httpx.Client(verify=False, timeout=60)
"""One client for all: making one takes longer than most requests."""

HI = {"messages": [{"role": "user", "content": "Hi"}]}
CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    with serving(Scripted(lambda messages, sampling, index: "fine", name="scripted"), name="demo") as found:
        yield found


@pytest.fixture
def running(shared: Running) -> Iterator[Running]:
    """The server; whatever a test did to it, it answers afterwards."""
    yield shared
    assert HTTP.post(shared.url + CHAT, json=HI).status_code == 200
    until(lambda: shared.admission.in_flight == 0)


def send(running: Running, body: bytes | Any, path: str = CHAT, headers: Any = None) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HTTP.post(running.url + path, content=content, headers={**JSON, **(headers or {})}, timeout=30)


def refused(answer: httpx.Response, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and len(error["message"]) <= 1000
    return str(error["message"])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"null", "NoneType"),
        (b"[]", "an object was expected"),
        (b'"x"', "an object was expected"),
        (b"\xff\xfe{}", "not valid UTF-8 (byte 0)"),
        (b'{"messages": "\xc3\x28"}', "not valid UTF-8"),
        (b"[" * 100_000, "more than 64 deep"),
        (b'{"a":' * 100_000, "more than 64 deep"),
        (b'{"messages": [], "messages": []}', "comes twice"),
        (b'{"temperature": NaN, "messages": []}', "NaN is no JSON"),
        (b'{"temperature": 1e999, "messages": [{"role": "user", "content": "x"}]}', "temperature"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"seed": ' + b"9" * 4000 + b', "messages": [{"role": "user", "content": "x"}]}', "seed"),
        (b'{"x": "' + b'\\"' * 100_000, "not valid JSON"),
        (b'{"messages": [' + b"0," * 600_000 + b"0]}", "more than 500000 values"),
        (b"\x00" * 1000, "not valid JSON"),
    ],
)  # fmt: skip
def test_a_body_that_is_no_request_is_refused(running: Running, body: bytes, said: str) -> None:
    assert said in refused(send(running, body))


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp", ""]
)
def test_another_content_type_is_refused_so_that_no_web_page_can_post_here(running: Running, kind: str) -> None:
    assert "send application/json" in refused(send(running, HI, headers={"content-type": kind}), 415)
    assert "Content-Encoding" in refused(send(running, HI, headers={"content-encoding": "gzip"}), 415)


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("n", 10**6, "n"), ("n", 0, "n"), ("n", "2", "n"), ("n", True, "n"), ("n", 2.5, "n"), ("n", 10**30, "n"),
        ("max_tokens", 10**9, "max_tokens"), ("max_tokens", -1, "max_tokens"), ("max_tokens", 0, "max_tokens"),
        ("max_completion_tokens", 10**9, "max_completion_tokens"),
        ("top_logprobs", 10**5, "top_logprobs"), ("logprobs", 5, "logprobs"), ("prompt_logprobs", 10**5, "prompt_logprobs"),
        ("temperature", -1, "temperature"), ("temperature", 1e300, "temperature"), ("temperature", "hot", "temperature"),
        ("top_p", 0, "top_p"), ("top_p", 1.5, "top_p"), ("min_p", 2, "min_p"), ("top_k", -5, "top_k"),
        ("repetition_penalty", 0, "repetition_penalty"), ("presence_penalty", 1e9, "presence_penalty"),
        ("seed", 2**70, "seed"), ("seed", 1.5, "seed"), ("priority", 10**6, "priority"), ("user", "u" * 1000, "user"),
        ("stop", ["x"] * 1000, "stop"), ("stop", "x" * 5000, "stop"), ("stop", [1], "stop"), ("stop", {}, "stop"),
        ("logit_bias", {"a": 1}, "logit_bias"), ("logit_bias", {"5": 1e9}, "logit_bias"),
        ("logit_bias", {str(i): 1 for i in range(5000)}, "logit_bias"), ("stream", "yes", "stream"),
        ("stop_token_ids", [-1], "stop_token_ids"), ("stop_token_ids", list(range(5000)), "stop_token_ids"),
        ("messages", [], "messages"), ("messages", "hi", "messages"), ("messages", [{}], "messages"),
        ("messages", [{"role": "king", "content": "x"}], "messages"), ("messages", [{"role": "user"}], "messages"),
        ("messages", [{"role": "user", "content": 5}], "messages"),
        ("messages", [{"role": "user", "content": "x"}] * 5000, "messages"),
        ("messages", [{"role": "user", "content": "x", "name": 5}], "messages"),
        ("messages", [{"role": "tool", "tool_call_id": "gone", "content": "x"}], "messages"),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}], "messages"),
        ("response_format", {"type": "xml"}, "response_format"),
        ("response_format", {"type": "json_schema"}, "response_format"),
        ("stream_options", {"include_usage": True}, "stream_options"),
        ("tool_choice", "required", "tool_choice"),
        ("tool_choice", {"type": "function", "function": {"name": "x"}}, "tool_choice"),
        ("structured_outputs", {}, "structured_outputs"),
        ("structured_outputs", {"regex": "a", "choice": ["b"]}, "structured_outputs"),
        ("guided_choice", [], "guided_choice"), ("guided_json", "{", "guided_json"), ("guided_regex", "", "guided_regex"),
        ("model", "m" * 1000, "model"), ("model", 5, "model"),
    ],
)  # fmt: skip
def test_absurd_values_are_refused_by_name(running: Running, field: str, value: Any, param: str) -> None:
    answer = send(running, {**HI, field: value})
    refused(answer)
    assert (answer.json()["error"]["param"] or "").split(".")[0] == param, answer.text


@pytest.mark.parametrize(
    "field",
    ["functions", "audio", "web_search_options", "store", "best_of", "chat_template",
     "documents", "n_discard", "prompt_embeds", "suffix"],
)  # fmt: skip
def test_a_known_field_that_is_not_supported_is_refused_with_its_name_and_a_reason(
    running: Running, field: str
) -> None:
    answer = send(running, {**HI, field: {"x": 1} if field != "best_of" else 3})
    assert refused(answer).startswith(f"{field} is not supported: ")
    assert answer.json()["error"]["param"] == field
    assert send(running, {**HI, field: None}).status_code == 200


def test_an_effort_is_refused_where_the_chat_template_has_none(running: Running) -> None:
    for effort in ("low", "minimal"):
        answer = send(running, {**HI, "reasoning_effort": effort})
        assert refused(answer).startswith("reasoning_effort is not supported: ")
        assert answer.json()["error"]["param"] == "reasoning_effort"
    refused(send(running, {**HI, "reasoning_effort": {"x": 1}}))
    assert send(running, {**HI, "reasoning_effort": None}).status_code == 200


@pytest.mark.parametrize("field", ["temprature", "maxTokens", "", "a" * 10_000, "__class__", "model_config", "é"])
def test_an_unknown_field_is_never_ignored(running: Running, field: str) -> None:
    assert "is not known" in refused(send(running, {**HI, field: 1}))
    if field == "temprature":
        assert "did you mean temperature?" in refused(send(running, {**HI, field: 1}))


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings", "/v1/responses", "/tokenize", "/detokenize"])
@pytest.mark.parametrize(
    "body", [{}, {"x": 1}, {"prompt": None}, {"input": {}}, {"prompt": [[]]}, {"tokens": ["a"]}, {"prompt": [True]}]
)
def test_every_route_checks_every_field(running: Running, path: str, body: Any) -> None:
    assert send(running, body, path).status_code in (400, 501)


@pytest.mark.parametrize(
    ("field", "value", "neutral"),
    [("allowed_token_ids", [5], None), ("bad_words", ["x"], []), ("skip_special_tokens", False, True),
     ("include_stop_str_in_output", True, False), ("min_tokens", 2, 0)],
)  # fmt: skip
def test_what_only_a_model_of_ours_obeys_is_refused_of_others_unless_it_changes_nothing(
    running: Running, field: str, value: Any, neutral: Any
) -> None:
    assert f"{field} needs a model that runs here" in refused(send(running, {**HI, field: value}))
    assert send(running, {**HI, field: neutral}).status_code == 200
    assert send(running, {**HI, field: None}).status_code == 200


@pytest.mark.parametrize("field", ["logprobs", "prompt_logprobs"])
def test_what_only_tokens_tell_is_refused_even_where_it_is_0(running: Running, field: str) -> None:
    assert f"{field} needs a model that runs here" in refused(
        send(running, {"prompt": "x", field: 0}, "/v1/completions")
    )


def test_half_a_surrogate_pair_harms_nobody(running: Running) -> None:
    body = b'{"messages": [{"role": "user", "content": "\\ud800"}]}'
    assert send(running, body).status_code in (200, 400)
    assert send(running, b'{"messages": [{"role": "user", "content": "x"}], "\\ud800": 1}').status_code == 400


def test_paths_and_methods_that_are_not_there(running: Running) -> None:
    for path in (
        "/nope",
        "/v1/models/",
        "/../etc/passwd",
        "/v1/chat/completions/../../health",
        "/%00",
        "//health",
        "/admin",
    ):
        connection = httpx.Client(base_url=running.url)
        answer = connection.send(connection.build_request("GET", running.url + path))
        assert answer.status_code in (404, 405), path
        connection.close()
    answer = HTTP.get(running.url + CHAT)
    assert answer.status_code == 405 and answer.headers["allow"] == "POST"
    assert HTTP.request("TRACE", running.url + "/health").status_code == 405


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = json.dumps(HI).encode()


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + SMUGGLED,
        HEAD + b"Content-Length: 4\r\nContent-Length: 100\r\n\r\n{}{}" + SMUGGLED,
        HEAD + b"Content-Length : 4\r\n\r\n{}{}" + SMUGGLED,
        HEAD + b"Content-Length: +4\r\n\r\n{}{}" + SMUGGLED,
        HEAD + b"Content-Length: 0x4\r\n\r\n{}{}" + SMUGGLED,
        HEAD + b"Content-Length: -1\r\n\r\n" + SMUGGLED,
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
        HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
        HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n" + SMUGGLED,
        HEAD + b"X: a\rContent-Length: 3\r\n\r\n" + SMUGGLED,
        HEAD + b"X: a\x00b\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
        HEAD + b"Host: other\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
        b"POST  /v1/chat/completions  HTTP/1.1\r\nHost: localhost\r\n\r\n" + SMUGGLED,
        b"POST /v1/chat/completions HTTP/9.9\r\nHost: localhost\r\n\r\n" + SMUGGLED,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + b"\x00" * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        HEAD + b"".join(b"X-%d: %s\r\n" % (i, b"a" * 1000) for i in range(100)) + b"\r\n",
        HEAD + b"X: " + b"a" * 200_000 + b"\r\n\r\n",
        HEAD + b"".join(b"X-%d: a\r\n" % i for i in range(10_000)) + b"\r\n",
    ],
)
def test_a_request_smuggled_behind_another_is_never_served(running: Running, data: bytes) -> None:
    before = dict(running.telemetry.metrics.requests)
    answer = running.raw(data)
    assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 501", b"HTTP/1.1 505", b""), answer[:200]
    after = running.telemetry.metrics.requests
    assert after.get(("other", "404"), 0) == before.get(("other", "404"), 0)  # nobody got to /smuggled


def head_of(size: int, padding: bytes) -> bytes:
    """A request's head of that many bytes."""
    head = b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: %s\r\n\r\n"
    return head % (padding * (size - len(head) + 2 - (padding == b" ")) + (b"x" if padding == b" " else b""))


@pytest.mark.parametrize("padding", [b"a", b" "])
@pytest.mark.parametrize("packets", [1, 2])
@pytest.mark.parametrize("is_second", [False, True])
def test_a_head_of_32_kib_is_the_longest(running: Running, padding: bytes, packets: int, is_second: bool) -> None:
    first = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n" if is_second else b""
    for size, expected in ((HEADER_BYTES, b"200"), (HEADER_BYTES + 1, b"400"), (40 << 10, b"400")):
        head = head_of(size, padding)
        assert len(head) == size
        with running.connect() as connection:
            connection.settimeout(10)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(first)
            for part in (head[: size // packets], head[size // packets :]):
                connection.sendall(part)
            answer = read_all(connection)
        statuses = re.findall(rb"HTTP/1\.1 (\d+) ", answer)
        assert statuses == [b"200"] * is_second + [expected]


CHUNKED = HEAD.replace(b"localhost", b"localhost\r\nTransfer-Encoding: chunked") + b"\r\n"


@pytest.mark.parametrize("method", [b"POST", b"GET"])
def test_a_body_of_tiny_chunks_is_refused_before_it_takes_the_servers_time(running: Running, method: bytes) -> None:
    """Each chunk costs the same, however small: 43,000 of one byte in one read stopped the server for 4 s."""
    tiny = b"1\r\nx\r\n"
    answer = running.raw(CHUNKED.replace(b"POST", method) + tiny * 5000)
    assert b"HTTP/1.1 400" in answer and b"its chunks too small" in answer


def test_chunks_of_a_reasonable_size_are_taken_on_each_request_of_a_connection(running: Running) -> None:
    padded = json.dumps(HI).encode().ljust(64 * 1500)
    for size, count in ((64, 1), (1, 256), (4096, 1)):
        body = padded if size > 1 else BODY[: count - 1].ljust(count - 1)
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[at : at + size]), body[at : at + size])
                          for at in range(0, len(body), size)) + b"0\r\n\r\n"  # fmt: skip
        answer = running.raw(
            (CHUNKED + chunks) * 2 + b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        assert answer.count(b"HTTP/1.1 200") == 3, (size, answer[:300])


def test_a_body_that_goes_on_after_its_answer_ends_the_connection(running: Running) -> None:
    with running.connect() as connection:
        connection.settimeout(20)
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        with pytest.raises(ConnectionError):
            for _ in range(8 * UNREAD_BYTES >> 20):
                connection.sendall(b"100000\r\n" + b"x" * (1 << 20) + b"\r\n")


MANY = 9_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {**HI, **dict.fromkeys(map(str, range(MANY)), 1)}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "x"}] * 4096}] * 12}),
        ("/v1/completions", {"prompt": [[None] * 100_000]}),
        ("/v1/completions", {"prompt": [["a"] * 100] * 2000}),
        ("/detokenize", {"tokens": ["a"] * 400_000}),
        ("/v1/responses", {"input": [{"type": "x"}] * 4096}),
    ],
)
def test_a_body_of_many_faults_is_refused_without_listing_them(
    running: Running, path: str, body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """400,000 faults in a body of 1.2 MB stopped the server for 9 s."""
    listed: list[int] = []
    fault = request_schema._fault
    monkeypatch.setattr(
        request_schema, "_fault", lambda kind, error: listed.append(error.error_count()) or fault(kind, error)
    )
    refused(send(running, body, path))
    assert listed and max(listed) <= MANY


def test_an_object_of_more_keys_than_a_request_needs_is_refused(running: Running) -> None:
    for count, said in ((10_000, "not known"), (10_001, "at most 10000")):
        assert said in refused(send(running, dict.fromkeys(map(str, range(count)), 1)))


def test_a_client_with_a_key_does_not_go_before_others_unless_its_key_says_so() -> None:
    """30 s of waiting make up for one priority: with -1000 a client kept all others waiting for eight hours."""

    def asked(priority: int | None, limits: ClientLimits) -> object:
        body = request_schema.ChatRequest.model_validate({**HI, "priority": priority})
        return request_parsing.sampling(body, limits, max_tokens=1, top_logprobs=0, grammar=None)

    for priority in (None, 0, 1, 1000):
        assert asked(priority, ClientLimits())
    for least in (0, -5):
        assert asked(least, ClientLimits(min_priority=least))
        with pytest.raises(Refusal, match=f"at least {least}"):
            asked(least - 1, ClientLimits(min_priority=least))
    assert asked(-1000, Keys().anyone.limits) and asked(-1000, read_keys(None, {}, ClientLimits()).anyone.limits)
    env = read_keys(None, {"FIRSTHAND_API_KEY": "k" * 16}, ClientLimits())
    assert env.clients[0].limits.min_priority == 0
    with pytest.raises(ConfigError, match="min_priority is True"):
        ClientLimits(min_priority=True)


def test_another_host_is_refused_where_there_are_no_keys(running: Running) -> None:
    for host, status in (
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("localhost:99", 200),
        ("[::1]:8", 200),
    ):
        answer = send(running, HI, headers={"host": host})
        assert answer.status_code == status, host


def test_two_requests_at_once_on_one_connection_are_answered_in_order(running: Running) -> None:
    one = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    answer = running.raw(one + b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200") == 2 and answer.rindex(b"version") > answer.index(b"choices")


def test_a_connection_that_breaks_anywhere_leaves_nothing_behind(running: Running) -> None:
    whole = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    for cut in range(1, len(whole), 23):
        with running.connect() as connection:
            connection.sendall(whole[:cut])
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    until(lambda: running.admission.in_flight == 0 and not running.admission.active)
    assert running.admission.by_client == {}
    assert send(running, HI).status_code == 200


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"messages": []}, "messages is an empty list: give one or more"),
        ({**HI, "allowed_token_ids": []}, "allowed_token_ids is an empty list: give one or more"),
        ({"messages": HI["messages"] * 5000}, "messages is a list of more than 4,096: give fewer"),
    ],
)  # fmt: skip
def test_a_list_of_a_wrong_length_is_told_in_our_own_words(body: Any, said: str) -> None:
    with pytest.raises(Refusal, match=re.escape(said)):
        request_schema.read(request_schema.ChatRequest, body)
