"""Parts of the server without a socket: admission, refusals, replies, routes, metrics, keys and bodies, at their limits."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import (
    ConfigError,
    DataError,
    FirsthandError,
    LimitExceeded,
    PromptTooLong,
    QueueFull,
    TemplateError,
    TransientError,
    UnknownName,
)
from firsthand.message import assistant
from firsthand.model import Completion, Delta, Usage
from firsthand.serve.admission.active_request import ActiveRequest
from firsthand.serve.admission.admission_settings import (
    AdmissionSettings,
    ClientLimits,
    check_binding,
    is_loopback,
)
from firsthand.serve.admission.api_keys import Client, Keys, check_loaders, read_keys
from firsthand.serve.admission.metered_answers import metered
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.anthropic.anthropic_errors import anthropic_error
from firsthand.serve.anthropic.message_parts import ended_json, tool_input, usage_json
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.http.mounted_app import MountedApp, find_app
from firsthand.serve.http.refusals import Refusal, refusal_of
from firsthand.serve.http.replies import EventForm, event, refused, reply
from firsthand.serve.http.request_body import MAX_DEPTH, parse_object, read_body
from firsthand.serve.telemetry.metrics import BETWEEN_S, FIRST_S, Histogram, Metrics
from firsthand.serve.telemetry.request_log import RequestLog
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings

ANN = Client("ann", ClientLimits(concurrency=2, tokens_per_minute=10))
BOB = Client("bob", ClientLimits(concurrency=1))


# -- admission --


def test_slots_are_held_by_client_and_by_all_and_given_back() -> None:
    admission = Admission(Keys((ANN, BOB)), AdmissionSettings(max_requests=3), mean_request_s=lambda: 7.6)
    with admission.slot(ANN), admission.slot(BOB):
        assert (admission.in_flight, admission.by_client) == (2, {"ann": 1, "bob": 1})
        with pytest.raises(Refusal) as caught, admission.slot(BOB):
            pass
        assert caught.value.message == "1 requests of bob are under way, as many as it may have: wait for one to end"
        assert (caught.value.status, caught.value.code, caught.value.headers) == (
            429,
            "rate_limit_exceeded",
            {"retry-after": "8"},
        )
        with admission.slot(ANN):
            assert admission.by_client == {"ann": 2, "bob": 1}
            with pytest.raises(Refusal) as caught, admission.slot(Client("eve", ClientLimits())):
                pass
            assert caught.value.message == "3 requests are under way: try again later"
            assert (caught.value.code, caught.value.headers["retry-after"]) == ("overloaded", "8")
        assert admission.by_client == {"ann": 1, "bob": 1}
    assert (admission.in_flight, admission.by_client) == (0, {})
    for mean_s, retry in ((0.2, "1"), (61.0, "60"), (60.4, "60"), (1.6, "2")):
        full = Admission(settings=AdmissionSettings(max_requests=1), mean_request_s=lambda mean_s=mean_s: mean_s)
        with full.slot(BOB), pytest.raises(Refusal) as caught, full.slot(ANN):
            pass
        assert caught.value.headers["retry-after"] == retry


def test_an_allowance_of_tokens_is_used_up_at_its_number_and_freed_by_the_oldest() -> None:
    admission = Admission(Keys((ANN, BOB)))
    admission.charge(BOB, 10**6)
    admission.charge(ANN, 0)
    assert admission.wait_for_tokens_s(BOB) == admission.wait_for_tokens_s(ANN) == 0.0
    admission.charge(ANN, 9)
    assert admission.wait_for_tokens_s(ANN) == 0.0
    now = time.monotonic()
    spent = admission._spent["ann"]
    spent.clear()
    spent.extend([(now - 61.0, 50), (now - 50.0, 4), (now - 20.0, 4), (now - 10.0, 6)])
    assert admission.wait_for_tokens_s(ANN) == pytest.approx(40.0, abs=0.5), "10 without the oldest are too many"
    spent.clear()
    spent.extend([(now - 50.0, 4), (now - 20.0, 4), (now - 10.0, 2)])
    assert admission.wait_for_tokens_s(ANN) == pytest.approx(10.0, abs=0.5), "10 of 10 are used up"
    spent.clear()
    spent.extend([(now - 50.0, 1), (now - 20.0, 4), (now - 10.0, 9)])
    assert admission.wait_for_tokens_s(ANN) == pytest.approx(40.0, abs=0.5)
    with pytest.raises(Refusal) as caught, admission.slot(ANN):
        pass
    assert caught.value.message == "ann has had its 10 tokens of this minute: wait"
    assert 39 <= int(caught.value.headers["retry-after"]) <= 40
    assert admission.in_flight == 0


def test_hosts_and_keys_are_checked() -> None:
    open_, keyed = Admission(), Admission(Keys((ANN,)))
    for host in (None, "", "localhost", "localhost:80", "127.0.0.1:8000", "[::1]:80", "[::1]"):
        open_.check_host(host)
    for host in ("evil.example", "evil.example:80", "10.0.0.1"):
        with pytest.raises(Refusal, match=f"only this machine is served, not '{host.partition(':')[0]}'") as caught:
            open_.check_host(host)
        assert caught.value.status == 421
        keyed.check_host(host)
    named = Admission(settings=AdmissionSettings(allow_host=("a.example",)))
    named.check_host("a.example:443")
    for host in ("b.example", "localhost", None):
        with pytest.raises(Refusal, match="this server is not") as caught:
            named.check_host(host)
        assert caught.value.headers == {"connection": "close"}
    open_.check_open()
    open_.drain()
    with pytest.raises(Refusal, match="the server is stopping") as caught:
        open_.check_open()
    assert (caught.value.status, caught.value.code) == (503, "draining")
    assert caught.value.headers == {"retry-after": "5", "connection": "close"}


KEY, OTHER = "k" * 16, "o" * 16


def test_a_key_is_found_under_its_client_and_in_either_header() -> None:
    clients = [
        Client(name, ClientLimits(), hashlib.sha256(key.encode()).digest())
        for name, key in (("ann", KEY), ("bob", OTHER))
    ]
    admission = Admission(Keys(tuple(clients)))
    assert admission.client(f"Bearer {KEY}").name == "ann" and admission.client(f"bearer  {OTHER} ").name == "bob"
    assert admission.client(None, OTHER).name == "bob"
    for authorization, api_key, said in (
        (None, None, "an API key is needed"),
        (f"Basic {KEY}", None, "the API key is wrong"),
        (KEY, None, "the API key is wrong"),
        ("Bearer " + "x" * 16, KEY, "the API key is wrong"),
        (None, "x", "the API key is wrong"),
    ):
        with pytest.raises(Refusal, match=said) as caught:
            admission.client(authorization, api_key)
        assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
        assert caught.value.headers == {"www-authenticate": "Bearer"}
    assert Admission().client("Basic x").name == "anyone"


def test_a_file_of_keys_gives_each_client_its_own_limits(tmp_path: Path) -> None:
    digest, path, limits = (
        hashlib.sha256(OTHER.encode()).hexdigest(),
        tmp_path / "keys.toml",
        ClientLimits(max_tokens=9),
    )
    path.write_text(
        f'[ann]\nkey = "{KEY}"\nconcurrency = 4\nload_adapters = true\n[bob]\nsha256 = "{digest.upper()}"\n'
    )
    keys = read_keys(path, {"FIRSTHAND_API_KEY": " " + "e" * 16 + "\n"}, limits)
    ann, bob, env = keys.clients
    assert ann == Client("ann", ClientLimits(concurrency=4, max_tokens=9), hashlib.sha256(KEY.encode()).digest(), True)
    assert bob == Client("bob", limits, bytes.fromhex(digest), False)
    assert env == Client("env", limits, hashlib.sha256(b"e" * 16).digest(), True)
    assert keys.anyone == Client("anyone", ClientLimits(max_tokens=9, min_priority=-1000), load_adapters=True)
    assert read_keys(None, {}, limits).clients == ()
    check_loaders(keys, tmp_path)
    check_loaders(Keys((bob,)), None)
    check_loaders(Keys(), tmp_path)
    with pytest.raises(ConfigError, match="no key may load adapters"):
        check_loaders(Keys((bob,)), tmp_path)
    for text, said in (
        ("", "names no client"),
        ("x = 1\n", "'x' in the file of keys is no client"),
        ('["a b"]\nkey = "' + KEY + '"\n', "'a b' in the file of keys is no client"),
        (f'[a]\nkey = "{KEY}"\nconcurency = 1\n', "'concurency' that is not known: did you mean 'concurrency'"),
        (f'[a]\nkey = "{KEY}"\nload_adapters = 1\n', "has load_adapters = 1: write true or false"),
        (f'[a]\nkey = "{KEY}"\nsha256 = "{digest}"\n', "needs either key, a text, or sha256"),
        (f'[a]\nsha256 = "{digest[1:]}"\n', "needs either key"),
        ("[a]\n", "needs either key"),
        (f'[a]\nkey = "{KEY[1:]}"\n', "the key of 'a' has 15 characters: give 16 or more"),
        (f'[a]\nkey = "{KEY} x"\n', "has 18 characters"),
        (f'[a]\nkey = "{KEY}"\n[b]\nkey = "{KEY}"\n', "two clients have the same API key"),
        ("[a\n", "is not valid TOML"),
        (f'[a]\nkey = "{KEY}"\nconcurrency = 0\n', "concurrency is 0: give a whole number from 1"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            read_keys(path, {}, limits)
        assert said in str(caught.value), text
    path.write_text("#" * ((1 << 20) + 1))
    with pytest.raises(ConfigError, match="has 1048577 bytes: at most 1048576 are read"):
        read_keys(path, {}, limits)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_keys(tmp_path / "none", {}, limits)


def test_limits_and_addresses_are_checked_at_their_ends(tmp_path: Path) -> None:
    ClientLimits(concurrency=1, max_tokens=1, max_answers=1, body_bytes=1, request_s=1e-9, tokens_per_minute=0)
    for name in ("concurrency", "max_tokens", "max_answers", "body_bytes"):
        for value in (0, True, 1.5):
            with pytest.raises(ConfigError, match=f"{name} is {value}: give a whole number from 1"):
                ClientLimits(**{name: value})
    for name, value in (("tokens_per_minute", -1), ("tokens_per_minute", 1.5), ("min_priority", True), ("min_priority", 0.5),
                        ("request_s", 0), ("request_s", 1e6), ("request_s", "9")):  # fmt: skip
        with pytest.raises(ConfigError, match=f"{name} is "):
            ClientLimits(**{name: value})
    for name in ("body_s", "stall_s", "drain_s"):
        AdmissionSettings(**{name: 999_999.0})
        for seconds in (0.0, 1e6):
            with pytest.raises(ConfigError, match=f"{name} is {seconds}"):
                AdmissionSettings(**{name: seconds})
    with pytest.raises(ConfigError, match="max_requests is 0"):
        AdmissionSettings(max_requests=0)
    assert [is_loopback(host) for host in ("localhost", "127.9.9.9", "[::1]", "::1", "0.0.0.0", "a.localhost", "")] == [
        True, True, True, True, False, False, False,
    ]  # fmt: skip
    check_binding("0.0.0.0", True)
    check_binding("127.0.0.1", False)
    with pytest.raises(ConfigError, match="host is '0.0.0.0', which others can reach"):
        check_binding("0.0.0.0", False)
    pem = tmp_path / "a.pem"
    pem.write_text("x")
    assert (ListenAddress(port=0).port, ListenAddress(port=65535).port, ListenAddress(tls_cert=pem, tls_key=pem).port) == (
        0, 65535, 8000,
    )  # fmt: skip
    for fields, said in (({"port": 65536}, "port is 65536"), ({"port": -1}, "port is -1"), ({"tls_cert": pem}, "TLS needs both"),
                         ({"tls_key": pem}, "TLS needs both"), ({"tls_cert": pem, "tls_key": tmp_path / "b"}, "no file")):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            ListenAddress(**fields)


# -- refusals and replies --


class Bug(FirsthandError):
    """An error of no other kind."""


@pytest.mark.parametrize(
    "error, status, param, code, headers",
    [
        (PromptTooLong("long"), 400, "messages", "context_length_exceeded", {}),
        (ConfigError("x"), 400, None, None, {}),
        (TemplateError("x"), 400, None, None, {}),
        (LimitExceeded("tokens", "x"), 400, None, None, {}),
        (QueueFull("x"), 429, None, "queue_full", {"retry-after": "1"}),
        (TransientError("x"), 503, None, "try_again", {"retry-after": "1"}),
        (TransientError("x", 2.6), 503, None, "try_again", {"retry-after": "3"}),
        (TransientError("x", 0.2), 503, None, "try_again", {"retry-after": "1"}),
        (UnknownName("x"), 404, None, None, {}),
        (DataError("x"), 501, None, None, {}),
        (Bug("x"), 500, None, None, {}),
        (KeyError("secret"), 500, None, "internal_error", {}),
    ],
)
def test_each_error_has_its_status_and_code(error: Any, status: int, param: Any, code: Any, headers: Any) -> None:
    found = refusal_of(error)
    assert (found.status, found.param, found.code, found.headers) == (status, param, code, headers)
    assert "secret" not in found.message and refusal_of(found) is found


def test_a_refusal_is_one_line_of_at_most_a_thousand_characters() -> None:
    for status, kind, theirs in (
        (400, "invalid_request_error", "invalid_request_error"), (401, "authentication_error", "authentication_error"),
        (403, "permission_error", "permission_error"), (404, "not_found_error", "not_found_error"),
        (405, "invalid_request_error", "invalid_request_error"), (408, "timeout_error", "invalid_request_error"),
        (411, "invalid_request_error", "invalid_request_error"), (413, "invalid_request_error", "request_too_large"),
        (415, "invalid_request_error", "invalid_request_error"), (421, "server_error", "invalid_request_error"),
        (429, "rate_limit_error", "rate_limit_error"), (499, "server_error", "invalid_request_error"),
        (500, "server_error", "api_error"), (503, "server_error", "overloaded_error"), (504, "server_error", "timeout_error"),
    ):  # fmt: skip
        refusal = Refusal(status, " a\n b ", param="p", code="c", headers={"x": "y"})
        assert refusal.to_json() == {"error": {"message": "a b", "type": kind, "param": "p", "code": "c"}}
        assert anthropic_error(refusal) == {"type": "error", "error": {"type": theirs, "message": "a b"}}
        assert json.loads(refusal.body()) == refusal.to_json()
    assert len(Refusal(400, "x" * 5000).to_json()["error"]["message"]) == 1000
    request = ActiveRequest("r", ANN, "/v1/messages", error_json=anthropic_error)
    for who, body in ((None, Refusal(429, "a").to_json()), (request, anthropic_error(Refusal(429, "a")))):
        made = refused(Refusal(429, "a", headers={"retry-after": "3"}), who)
        assert (json.loads(made.content), made.status, made.headers) == (body, 429, {"retry-after": "3"})


def test_events_and_replies_are_utf_8_with_what_cannot_be_replaced() -> None:
    assert event({"a": "é", "b": [1, 2]}) == 'data: {"a":"é","b":[1,2]}\n\n'.encode()
    assert event({"a": "\ud83d"}, "kind") == b'event: kind\ndata: {"a":"?"}\n\n'
    form = EventForm({"x": 1, "choices": [{"text": EventForm.GAP}], "y": 2})
    assert form.event('"q"\n') == event({"x": 1, "choices": [{"text": '"q"\n'}], "y": 2})
    made = reply({"a": "é\ud83d"}, status=201, headers={"x": "y"})
    assert (made.content, made.status, made.headers) == ('{"a": "é?"}'.encode(), 201, {"x": "y"})
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(made({}, None, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 201 and dict(sent[0]["headers"]) == {
        b"content-type": b"application/json", b"content-length": b"12", b"x": b"y",
    }  # fmt: skip


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An app."""


def test_the_longest_prefix_has_a_path_and_then_the_first_that_knows_it() -> None:
    def known(*paths: str) -> Any:
        return lambda path: path if path in paths else None

    root, also = MountedApp(nothing, route_of=known("/a", "/b")), MountedApp(nothing, route_of=known("/b", "/c"))
    short, long = (
        MountedApp(nothing, "/m", route_of=known("/", "/x")),
        MountedApp(nothing, "/m/n", route_of=known("/x/")),
    )
    fallback = MountedApp(nothing)
    for apps in ([root, also, short, long], [long, short, root, also]):
        for path, app, route in (
            ("/a", root, "/a"), ("/b", root, "/b"), ("/c", also, "/c"), ("/d", fallback, "other"), ("/m", short, "/m"),
            ("/m/x", short, "/m/x"), ("/m/y", short, "other"), ("/m/n/x/", long, "/m/n/x"), ("/m/n", long, "other"),
            ("/mn", fallback, "other"), ("/m/nx", short, "other"),
        ):  # fmt: skip
            assert find_app(apps, path, fallback) == (app, route), path
    for prefix in ("mcp", "/mcp/", "/"):
        with pytest.raises(ConfigError, match="give a path such as '/mcp', or nothing"):
            MountedApp(nothing, prefix)


# -- bodies --


def test_a_body_is_read_up_to_its_limit() -> None:
    def read(*pieces: bytes, most: int = 4, declared: str | None = None, leaves: bool = False) -> bytes:
        waiting = list(pieces)

        async def receive() -> Any:
            if not waiting:
                if leaves:
                    return {"type": "http.disconnect"}
                await asyncio.sleep(9)
            body = waiting.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(waiting) or leaves}

        return asyncio.run(read_body(receive, most, 0.02, declared))

    assert (
        read(b"ab", b"", b"cd") == b"abcd" and read(b"abcd", declared="4") == b"abcd" and read(b"", declared="0") == b""
    )
    for pieces, declared, status, said in (
        ((b"abc", b"de"), None, 413, "the body has more than 4 bytes"),
        ((b"a",), "5", 413, "the body has more than 4 bytes"),
        ((b"a",), "0" * 19, 413, "more than 4 bytes"),
        ((b"a",), "-1", 400, "Content-Length is '-1'"),
        ((b"a",), "\u0663", 400, "a number was expected"),
        ((), None, 408, "the body did not come within 0.02 s"),
    ):
        with pytest.raises(Refusal, match=said) as caught:
            read(*pieces, declared=declared)
        assert caught.value.status == status
        assert caught.value.headers == ({} if status == 400 else {"connection": "close"})


def test_a_body_is_one_object_of_strict_json() -> None:
    def of(raw: bytes, kind: str | None = "application/json") -> Any:
        return parse_object(raw, kind)

    assert of(b'{"a": [1, "x"]}', " Application/JSON ; charset=utf-8") == {"a": [1, "x"]}
    deepest = b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}"
    assert of(deepest)["a"] and of(b'{"a": "' + b"[" * 100 + b'"}') == {"a": "[" * 100}
    assert of(b'{"a": [' + b",".join([b"[]"] * 100) + b"]}")["a"] == [[]] * 100
    for raw, kind, status, said in (
        (b"{}", "text/plain", 415, "Content-Type is 'text/plain': send application/json"),
        (b"{}", None, 415, "Content-Type is 'missing'"),
        (b'{"a": "\xff"}', "application/json", 400, "not valid UTF-8 (byte 7)"),
        (deepest.replace(b"[]", b"[[]]"), "application/json", 400, "more than 64 deep"),
        (b"[]", "application/json", 400, "the body is a JSON list: an object was expected"),
        (b'{"a": 1, "b": 2, "a": 3}', "application/json", 400, "the key 'a' comes twice"),
        (b'{"a": NaN}', "application/json", 400, "NaN is no JSON"),
        (b'{"a": }', "application/json", 400, "the body is not valid JSON"),
        (b'{"a": [' + b"1," * 500_001 + b"1]}", "application/json", 400, "the body holds more than 500000 values"),
        (b"{" + b",".join(b'"%d":1' % at for at in range(10_001)) + b"}", "application/json", 400, "has 10001 keys"),
    ):
        with pytest.raises(Refusal) as caught:
            of(raw, kind)
        assert caught.value.status == status and said in caught.value.message


# -- telemetry --


def test_a_histogram_counts_up_to_its_bounds() -> None:
    histogram = Histogram((0.5, 1.0))
    for value in (0.5, 0.25, 0.75, 2.0):
        histogram.observe(value)
    assert list(histogram.lines("h")) == [
        'h_bucket{le="0.5"} 2', 'h_bucket{le="1"} 3', 'h_bucket{le="+Inf"} 4', "h_sum 3.5", "h_count 4",
    ]  # fmt: skip
    assert list(FIRST_S) == sorted(FIRST_S) and list(BETWEEN_S) == sorted(BETWEEN_S)


def test_the_metrics_of_a_server_are_told_one_by_one() -> None:
    metrics = Metrics()
    assert metrics.mean_request_s() == 1.0
    metrics.count_request("/b", 200, 2.0)
    metrics.count_request("/a", 404, 1.0)
    metrics.count_request("/b", 200, 6.0)
    metrics.tokens.update(prompt=5, cached=2, completion=3)
    metrics.disconnects, metrics.log_failures = 4, 7
    metrics.first_token.observe(0.25)
    metrics.between_tokens.observe(0.5)
    assert metrics.mean_request_s() == 3.0
    engine = {
        "running": 2.0,
        "num_blocks": 8.0,
        "used_blocks": 6.0,
        "prompt_tokens": 10.0,
        "cached_tokens": 4.0,
        "odd": 1.0,
    }
    lines = metrics.text(engine, ready=True, in_flight=9).splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#") and "_bucket" not in line)
    assert values == {
        "firsthand_time_to_first_token_seconds_sum": "0.25", "firsthand_time_to_first_token_seconds_count": "1",
        "firsthand_inter_token_latency_seconds_sum": "0.5", "firsthand_inter_token_latency_seconds_count": "1",
        "firsthand_request_seconds_sum": "9", "firsthand_request_seconds_count": "3",
        'firsthand_requests_total{route="/a",code="404"}': "1", 'firsthand_requests_total{route="/b",code="200"}': "2",
        'firsthand_tokens_total{kind="prompt"}': "5", 'firsthand_tokens_total{kind="cached"}': "2",
        'firsthand_tokens_total{kind="completion"}': "3", "firsthand_requests_in_flight": "9",
        "firsthand_disconnects_total": "4", "firsthand_log_failures_total": "7", "firsthand_ready": "1",
        "firsthand_engine_running": "2", "firsthand_engine_num_blocks": "8", "firsthand_engine_used_blocks": "6",
        "firsthand_engine_prompt_tokens_total": "10", "firsthand_engine_cached_tokens_total": "4",
        "firsthand_engine_kv_usage_ratio": "0.75", "firsthand_engine_cache_hit_ratio": "0.4",
    }  # fmt: skip
    assert "# TYPE firsthand_engine_prompt_tokens_total counter" in lines and "# TYPE firsthand_ready gauge" in lines
    routes = [line for line in lines if line.startswith("firsthand_requests_total")]
    assert routes == sorted(routes)
    bare = metrics.text({"num_blocks": 0.0, "prompt_tokens": 0.0}, ready=False, in_flight=0)
    assert "ratio" not in bare and "firsthand_ready 0" in bare and bare.endswith("\n")


def test_answers_are_metered_by_their_first_piece_their_gaps_and_their_end() -> None:
    telemetry, admission = ServerTelemetry(TelemetrySettings(log="none")), Admission(Keys((ANN,)))
    request = ActiveRequest("r", ANN, "/x")
    done = Completion(assistant("ab"), "stop", Usage(3, 1, 2))

    async def pieces() -> Any:
        yield Delta("", index=0)
        yield Delta("a", index=0)
        yield Delta("", index=1, token_ids=(5,))
        yield Delta("b", index=0)
        yield Delta("whole", done, index=0)
        yield Delta("", Completion(assistant("c"), "stop", Usage(0, 0, 4)), index=1)

    async def run() -> list[str]:
        return [delta.text async for delta in metered(pieces(), request, admission, telemetry)]

    assert asyncio.run(run()) == ["", "a", "", "b", "whole", ""]
    metrics = telemetry.metrics
    assert (sum(metrics.first_token.counts), sum(metrics.between_tokens.counts)) == (2, 1)
    assert metrics.tokens == {"prompt": 3, "cached": 1, "completion": 6}
    notes = {key: value for key, value in request.notes.items() if key != "ttft_ms"}
    assert notes == {"prompt_tokens": 3, "cached_tokens": 1, "completion_tokens": 6} and request.notes["ttft_ms"] < 1000
    assert [count for _, count in admission._spent["ann"]] == [5, 4]


def test_a_log_line_leaves_out_what_is_none_and_counts_what_it_cannot_write(tmp_path: Path) -> None:
    metrics, path = Metrics(), tmp_path / "log"
    log = RequestLog(path, metrics)
    log.write("request", id="é", status=0, error=None, where=Path("x"))
    (line,) = path.read_text().splitlines()
    body = json.loads(line)
    at = body.pop("at")
    assert body == {"event": "request", "id": "é", "status": 0, "where": "x"} and at.endswith("+00:00")
    assert path.stat().st_mode & 0o777 == 0o600
    log.close()
    log.write("late")
    log.close()
    assert len(path.read_text().splitlines()) == 1 and metrics.log_failures == 0
    full = RequestLog("/dev/full", metrics)
    full.write("x")
    assert metrics.log_failures == 1
    full.close()
    with pytest.raises(ConfigError, match="the log .* cannot be opened"):
        RequestLog(tmp_path / "no" / "log", metrics)
    RequestLog(None, metrics).write("x")


# -- Anthropic's parts --


def test_the_end_of_a_message_has_its_reason_and_counts() -> None:
    class Job:
        class sampling:
            max_tokens = 5

    for reason, stopped, tokens, expected in (
        ("stop", None, 5, ("end_turn", None)), ("stop", "###", 5, ("stop_sequence", "###")), ("length", "x", 5, ("max_tokens", None)),
        ("length", None, 4, ("model_context_window_exceeded", None)), ("length", None, 0, ("max_tokens", None)),
        ("tool_calls", "x", 5, ("tool_use", None)), ("content_filter", None, 5, ("refusal", None)),
    ):  # fmt: skip
        completion = Completion(assistant(""), reason, Usage(0, 0, tokens), stop_string=stopped)  # type: ignore[arg-type]
        found = ended_json(Job, completion)  # type: ignore[arg-type]
        assert (found["stop_reason"], found["stop_sequence"]) == expected
    assert usage_json(Usage(10, 3, 4, cache_write_tokens=2)) == {
        "input_tokens": 5, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 3, "output_tokens": 4,
    }  # fmt: skip
    assert usage_json(Usage(1, 3, 4))["input_tokens"] == 0
    from firsthand.message import ToolCall

    assert tool_input(ToolCall("1", "a", {"x": 1})) == {"x": 1}
    assert tool_input(ToolCall("1", "a", {}, "{")) == {"INVALID_JSON": "{"}
