"""Who may ask and how much: slots, allowances, keys, limits and addresses; and what a refusal says."""

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
    GrammarIgnored,
    LimitExceeded,
    ModelError,
    PromptTooLong,
    QueueFull,
    TemplateError,
    TransientError,
    UnknownName,
)
from firsthand.serve.admission.active_request import ActiveRequest
from firsthand.serve.admission.admission_settings import (
    AdmissionSettings,
    ClientLimits,
    check_binding,
    is_loopback,
)
from firsthand.serve.admission.api_keys import Client, Keys, check_loaders, read_keys
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.anthropic.anthropic_errors import anthropic_error
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.http.refusals import Refusal, refusal_of
from firsthand.serve.http.replies import EventForm, event, refused, reply

ANN = Client("ann", ClientLimits(concurrency=2, tokens_per_minute=10))


BOB = Client("bob", ClientLimits(concurrency=1))


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
        f'[cat]\nsha256 = "{"0f" * 32}"\nload_adapters = true\nmax_answers = 3\n'
    )
    keys = read_keys(path, {"FIRSTHAND_API_KEY": " " + "e" * 16 + "\n"}, limits)
    ann, bob, cat, env = keys.clients
    assert ann == Client("ann", ClientLimits(concurrency=4, max_tokens=9), hashlib.sha256(KEY.encode()).digest(), True)
    assert bob == Client("bob", limits, bytes.fromhex(digest), False)
    assert cat == Client("cat", ClientLimits(max_tokens=9, max_answers=3), b"\x0f" * 32, True)
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
        (f'[env]\nkey = "{KEY}"\n', "'env', which stands for the key in FIRSTHAND_API_KEY: give it another name"),
        (
            f'[a]\nkey = "{KEY}"\n[anyone]\nsha256 = "{digest}"\n',
            "'anyone', which stands for all clients of a server w",
        ),
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
    with pytest.raises(ConfigError, match=r"host is '0\.0\.0\.0', which others can reach"):
        check_binding("0.0.0.0", False)
    pem = tmp_path / "a.pem"
    pem.write_text("x")
    assert (ListenAddress(port=0).port, ListenAddress(port=65535).port, ListenAddress(tls_cert=pem, tls_key=pem).port) == (
        0, 65535, 8000,
    )  # fmt: skip
    for fields, said in (({"port": 65536}, "port is 65536"), ({"port": -1}, "port is -1"),
    ({"tls_cert": pem}, "TLS needs both"),
                         ({"tls_key": pem}, "TLS needs both"),
                         ({"tls_cert": pem, "tls_key": tmp_path / "b"}, "no file")):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            ListenAddress(**fields)


class Bug(FirsthandError):
    """An error of no other kind."""


def lasting(status: int, field: str | None = None) -> ModelError:
    """What an endpoint refused for good."""
    error = ModelError("x")
    error.refused_as, error.refused_field = status, field
    return error


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
        (GrammarIgnored("x"), 502, None, "grammar_ignored", {}),
        (DataError("x"), 501, None, None, {}),
        (ModelError("x"), 500, None, None, {}),
        (lasting(400, "seed"), 400, "seed", None, {"x-should-retry": "false"}),
        (lasting(502), 502, None, "upstream_refused", {"x-should-retry": "false"}),
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
        (409, "invalid_request_error", "invalid_request_error"),
        (411, "invalid_request_error", "invalid_request_error"), (413, "invalid_request_error", "request_too_large"),
        (415, "invalid_request_error", "invalid_request_error"), (421, "server_error", "invalid_request_error"),
        (429, "rate_limit_error", "rate_limit_error"), (499, "server_error", "invalid_request_error"),
        (500, "server_error", "api_error"), (502, "server_error", "api_error"), (503, "server_error", "overloaded_error"),
        (504, "server_error", "timeout_error"),
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
