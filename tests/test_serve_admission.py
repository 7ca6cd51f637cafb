"""Who gets in, and what is refused before it costs anything: keys, limits, framing, hosts, logs, ends."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from firsthand.errors import ConfigError, QueueFull
from firsthand.message import assistant
from firsthand.model import Completion, Delta, Usage
from firsthand.providers.scripted import Scripted
from firsthand.serve.admission.admission_settings import AdmissionSettings, ClientLimits, check_binding
from firsthand.serve.admission.api_keys import Client, Keys, read_keys
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.openai.choices import WholeAnswer, total, usage_json
from firsthand.serve.telemetry.metrics import Histogram, Metrics
from served import Running, serving, until
from thorough import repetitions

HTTP = httpx.Client(verify=False, timeout=60)
"""One client for all: making one takes longer than most requests."""

ALICE, BOB = "alice-secret-0123456789", "bob-secret-0123456789ab"
HI = {"messages": [{"role": "user", "content": "Hi"}]}
CHAT = "/v1/chat/completions"


def echo(messages: Any, sampling: Any, index: int) -> str:
    return str(messages[-1].text)


def keys(tmp_path: Path, text: str = "") -> Keys:
    file = tmp_path / "keys.toml"
    file.write_text(text or f'[alice]\nkey = "{ALICE}"\nconcurrency = 2\nmax_tokens = 32\n[bob]\nkey = "{BOB}"\n')
    return read_keys(file, {}, ClientLimits(body_bytes=20_000))


def post(running: Running, body: Any = HI, path: str = CHAT, **options: Any) -> httpx.Response:
    return HTTP.post(running.url + path, json=body, timeout=30, **options)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def said(response: httpx.Response) -> str:
    return str(response.json()["error"]["message"])


@pytest.fixture(scope="module")
def without_keys() -> Iterator[Running]:
    with serving(Scripted(echo, name="scripted"), name="demo", body_s=1.0) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("guarded")
    with serving(
        Scripted(echo, name="scripted", delay_s=0.2), keys=keys(folder), log=folder / "log.jsonl", max_requests=6
    ) as running:
        yield running


def test_a_key_is_needed_everywhere_but_for_health(guarded: Running) -> None:
    from firsthand.serve.http.status_routes import STATUS_ROUTES
    from firsthand.serve.openai.openai_app import ROUTES

    for path, (method, _) in (STATUS_ROUTES | ROUTES).items():
        status = HTTP.request(method, guarded.url + path).status_code
        assert status == (200 if path.startswith("/health") else 401), path
    assert said(post(guarded)) == "an API key is needed: send the header Authorization: Bearer KEY, or X-Api-Key: KEY"


@pytest.mark.parametrize(
    "header", [f"Bearer {ALICE}x", f"Basic {ALICE}", ALICE, "Bearer", f"bearer {ALICE[:-1]}", "Bearer é"]
)
def test_wrong_keys_are_refused(guarded: Running, header: str) -> None:
    answer = post(guarded, headers={"authorization": header.encode("utf-8")})
    assert answer.status_code == 401 and said(answer).startswith("the API key is wrong")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_each_client_has_its_own_limits(guarded: Running) -> None:
    body = {**HI, "max_tokens": 33}
    answer = post(guarded, body, headers=bearer(ALICE))
    assert answer.status_code == 400 and said(answer) == "max_tokens is 33: at most 32 are given"
    assert post(guarded, body, headers=bearer(BOB)).status_code == 200


def test_a_client_with_too_much_under_way_waits_and_others_do_not(guarded: Running) -> None:
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: answers.append(post(guarded, headers=bearer(ALICE)))) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert post(guarded, headers=bearer(BOB)).status_code == 200
    for thread in threads:
        thread.join()
    codes = sorted(answer.status_code for answer in answers)
    assert codes.count(200) >= 2 and codes.count(429) >= 1 and set(codes) == {200, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["retry-after"]) >= 1 and "alice" in said(refused)
    until(lambda: guarded.admission.by_client == {} and guarded.admission.in_flight == 0)


def test_a_body_that_is_too_long_is_refused_whether_it_says_so_or_not(guarded: Running) -> None:
    big = {"messages": [{"role": "user", "content": "x" * 30_000}]}
    assert post(guarded, big, headers=bearer(BOB)).status_code == 413

    def chunks() -> Iterator[bytes]:
        yield from [b"x" * 5000] * 10

    headers = {**bearer(BOB), "content-type": "application/json"}
    assert HTTP.post(guarded.url + CHAT, content=chunks(), headers=headers).status_code == 413


def test_the_log_has_a_line_for_each_request_and_no_texts(guarded: Running) -> None:
    secret = "a very private sentence"
    answer = post(
        guarded, {"messages": [{"role": "user", "content": secret}]}, headers={**bearer(BOB), "x-request-id": "mine-1"}
    )
    assert answer.headers["x-request-id"] == "mine-1"
    own_id = answer.json()["id"].removeprefix("chatcmpl-")
    assert len(own_id) == 24 and own_id != "mine-1"
    until(
        lambda: '"mine-1"' in Path(guarded.telemetry.settings.log).read_text()
    )  # a line is written when its answer has gone out
    text = Path(guarded.telemetry.settings.log).read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    line = next(line for line in lines if line.get("id") == "mine-1")
    assert (line["client"], line["status"], line["route"], line["completion_tokens"]) == ("bob", 200, CHAT, 4)
    assert line["own_id"] == own_id and all("own_id" not in other for other in lines if len(other.get("id", "")) == 24)
    assert secret not in text and ALICE not in text and BOB not in text
    assert Path(guarded.telemetry.settings.log).stat().st_mode & 0o077 == 0


def test_what_is_sent_goes_out_at_once(without_keys: Running) -> None:
    """Without TCP_NODELAY the kernel holds tokens back, up to 40 ms each."""
    with without_keys.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.recv(100)
        served = [each.transport.get_extra_info("socket") for each in without_keys.server.server_state.connections]
        assert served and all(each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for each in served)


def test_a_request_id_that_could_forge_a_log_is_not_taken(without_keys: Running) -> None:
    answer = post(without_keys, headers={"x-request-id": 'a"} {"event": "forged"'})
    assert len(answer.headers["x-request-id"]) == 24


def test_a_full_disk_under_the_log_stops_nothing() -> None:
    with serving(Scripted(echo, name="scripted"), log="/dev/full") as running:
        assert [post(running).status_code for _ in range(3)] == [200] * 3
        assert "firsthand_log_failures_total" in HTTP.get(f"{running.url}/metrics").text
        assert running.telemetry.metrics.log_failures >= 3


@pytest.mark.slow
def test_more_requests_than_there_is_room_for_get_429_with_retry_after() -> None:
    with serving(Scripted(echo, name="scripted", delay_s=0.3), max_requests=4) as running:
        answers: list[httpx.Response] = []
        threads = [threading.Thread(target=lambda: answers.append(post(running))) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        codes = [answer.status_code for answer in answers]
        assert set(codes) == {200, 429} and codes.count(200) >= 4
        assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 429)
        assert post(running).status_code == 200


def test_the_engines_full_queue_is_429_too() -> None:
    with serving(Scripted(echo, name="scripted", error=QueueFull("20 requests wait (at most 20 may)"))) as running:
        for stream in (False, True):
            answer = post(running, {**HI, "stream": stream})
            assert answer.status_code == 429 and answer.headers["retry-after"] == "1"


def test_a_client_that_leaves_ends_its_request() -> None:
    with serving(Scripted(echo, name="scripted", delay_s=60)) as running:
        for stream in (False, True):
            body = json.dumps({**HI, "stream": stream}).encode()
            with running.connect() as connection:
                connection.sendall(head(len(body)) + body)
                until(lambda: running.admission.in_flight == 1)
            until(lambda: running.admission.in_flight == 0)
        assert running.telemetry.metrics.disconnects == 2
        assert 'code="499"' in HTTP.get(f"{running.url}/metrics").text


@pytest.mark.slow
def test_an_answer_that_takes_too_long_is_cut_before_and_in_the_stream(tmp_path: Path) -> None:
    known = keys(tmp_path, f'[bob]\nkey = "{BOB}"\nrequest_s = 0.3\n')
    with serving(Scripted(echo, name="scripted", delay_s=30), keys=known) as running:
        answer = post(running, headers=bearer(BOB))
        assert answer.status_code == 504 and said(answer) == "the answer took more than 0.3 s"
        assert post(running, {**HI, "stream": True}, headers=bearer(BOB)).status_code == 504
        until(lambda: running.admission.in_flight == 0)


def test_a_client_that_has_had_its_tokens_of_the_minute_waits(tmp_path: Path) -> None:
    known = keys(tmp_path, f'[alice]\nkey = "{ALICE}"\ntokens_per_minute = 5\n[bob]\nkey = "{BOB}"\n')
    with serving(Scripted(echo, name="scripted"), keys=known) as running:
        codes = [post(running, headers=bearer(ALICE)) for _ in range(4)]
        assert [answer.status_code for answer in codes] == [200, 200, 200, 429]  # 2 tokens each: 6 reach the limit
        assert 50 <= int(codes[-1].headers["retry-after"]) <= 60 and "had its 5 tokens" in said(codes[-1])
        assert post(running, headers=bearer(BOB)).status_code == 200
        had = running.admission._spent["alice"]
        had[0] = (had[0][0] - 60, had[0][1])  # a minute ago
        assert post(running, headers=bearer(ALICE)).status_code == 200


@pytest.mark.slow
def test_wrong_keys_at_speed_open_nothing_and_shut_nobody_out(guarded: Running) -> None:
    with httpx.Client(base_url=guarded.url) as session:
        for place in range(150):
            guess = {"authorization": f"Bearer {ALICE[:-3]}{place:03d}"}
            assert session.post(CHAT, json=HI, headers=guess).status_code == 401
    assert post(guarded, headers=bearer(ALICE)).status_code == 200


@pytest.mark.slow
def test_ten_times_the_queue_is_answered_or_refused_and_leaves_nothing() -> None:
    import gc

    model = Scripted(echo, name="scripted", delay_s=0.05)
    with serving(model, max_requests=20) as running:
        codes: list[int] = []
        before, end = resident_bytes(), time.monotonic() + repetitions(60, 6)

        def client() -> None:
            with httpx.Client(base_url=running.url, timeout=30, verify=False) as session:
                while time.monotonic() < end:
                    codes.append(session.post(CHAT, json=HI).status_code)

        threads = [threading.Thread(target=client) for _ in range(200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(codes) == {200, 429} and codes.count(200) > 100
        assert post(running).status_code == 200
        until(lambda: running.admission.in_flight == 0)
        model.asked.clear()  # it keeps what it was asked
        gc.collect()
        assert running.admission.active == set() and running.admission.by_client == {}
        assert resident_bytes() < before + (64 << 20)  # the threads of two hundred clients were in this process too


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_when_told_to_stop_what_is_under_way_ends_and_nothing_new_begins() -> None:
    class Held(Scripted):
        """Answers when it is let go."""

        go = threading.Event()

        async def complete(self, *asked: Any, **rest: Any) -> list[Completion]:
            await asyncio.to_thread(self.go.wait, 60)
            return await super().complete(*asked, **rest)

    with serving(Held(echo, name="scripted")) as running:

        def is_shut() -> bool:
            try:
                post(running)
            except httpx.TransportError:
                return True
            return False

        answers: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: answers.append(post(running)))
        thread.start()
        until(lambda: running.admission.in_flight == 1)
        running.stop()
        until(lambda: running.admission.is_draining)
        until(is_shut)
        Held.go.set()
        thread.join()
        assert answers[0].status_code == 200 and answers[0].json()["choices"][0]["message"]["content"] == "Hi"
        running.thread.join(60)
        assert not running.thread.is_alive()


@pytest.mark.slow
def test_what_does_not_end_in_time_when_stopping_is_told_why() -> None:
    with serving(Scripted(echo, name="scripted", delay_s=30), drain_s=0.3) as running:
        answers: list[httpx.Response] = []
        threads = [
            threading.Thread(target=lambda s=stream: answers.append(post(running, {**HI, "stream": s})))
            for stream in (False, True)
        ]
        for thread in threads:
            thread.start()
        until(lambda: running.admission.in_flight == 2)
        running.stop()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [503, 503] and "is stopping" in said(answers[0])


def test_binding_wider_without_a_key_is_refused() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.4", "example.com"):
        with pytest.raises(ConfigError, match="which others can reach, and there are no API keys"):
            check_binding(host, False)
        check_binding(host, True)
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        check_binding(host, False)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "names no client"),
        ("x = 1", "is no client"),
        ("[a]\nkey = 'short'", "give 16 or more"),
        ("[a]\nkey = 'with blanks in it, long enough'", "without blanks"),
        ("[a]\nkey = 'long-enough-0123456789'\nmax_token = 3", "did you mean 'max_tokens'"),
        ("[a]\nkey = 'long-enough-0123456789'\nmax_tokens = 'many'", "max_tokens is 'many'"),
        ("[a]\nkey = 'long-enough-0123456789'\nmax_tokens = true", "max_tokens is True"),
        ("[a]\nkey = 'long-enough-0123456789'\nload_adapter = true", "did you mean 'load_adapters'"),
        ("[a]\nkey = 'long-enough-0123456789'\nload_adapters = 1", "load_adapters = 1: write true or false"),
        ("[a]\nsha256 = 'abc'", "needs either key"),
        ("[a]\nkey = 'long-enough-0123456789'\n[b]\nkey = 'long-enough-0123456789'", "the same API key"),
        ("[a\nkey = 'super-secret-value-here'", "is not valid TOML"),
        ("\udcff", "is not valid TOML"),
    ],
)
def test_a_file_of_keys_that_cannot_be_meant_is_refused_without_showing_a_key(
    tmp_path: Path, text: str, problem: str
) -> None:
    file = tmp_path / "keys.toml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=problem) as caught:
        read_keys(file, {}, ClientLimits())
    assert "0123456789" not in str(caught.value) and "super-secret" not in str(caught.value)


def test_a_digest_stands_for_a_key_and_the_environment_has_one_too(tmp_path: Path) -> None:
    import hashlib

    file = tmp_path / "keys.toml"
    file.write_text(f'[a]\nsha256 = "{hashlib.sha256(ALICE.encode()).hexdigest()}"\n')
    known = read_keys(file, {"FIRSTHAND_API_KEY": BOB}, ClientLimits())
    assert known.find(f"Bearer {ALICE}").name == "a" and known.find(f"Bearer {BOB}").name == "env"  # type: ignore[union-attr]
    assert known.find("Bearer nobody") is None and known.find(None) is None


@pytest.mark.parametrize("secret", ["x" * 16, "!~" * 8, "x" * 300])
def test_a_key_of_16_signs_is_enough_and_one_less_is_not(tmp_path: Path, secret: str) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(f'[a]\nkey = "{secret}"\nmax_tokens = 7\nload_adapters = true\n[b]\nkey = "{ALICE}"\n')
    first, second = read_keys(file, {}, ClientLimits(max_tokens=9, concurrency=2)).clients
    assert (first.name, first.load_adapters, first.limits) == ("a", True, ClientLimits(max_tokens=7, concurrency=2))
    assert (second.name, second.load_adapters, second.limits) == ("b", False, ClientLimits(max_tokens=9, concurrency=2))
    known = read_keys(None, {"FIRSTHAND_API_KEY": f" {secret}\n"}, ClientLimits())
    for header in (f"Bearer {secret}", f"bearer  {secret} "):
        assert known.find(header) == known.clients[0] and known.clients[0].load_adapters
    for header in (f"Basic {secret}", secret, f"Bearer {secret[:-1]}", f"Bearer {secret}x", "Bearer", ""):
        assert known.find(header) is None
    with pytest.raises(ConfigError, match="has 15 characters: give 16 or more"):
        read_keys(None, {"FIRSTHAND_API_KEY": secret[:15]}, ClientLimits())


@pytest.mark.parametrize(
    ("allowed", "has_keys", "host", "status"),
    [
        ((), False, "localhost:8000", 0), ((), False, "127.0.0.1", 0), ((), False, "[::1]:80", 0), ((), False, None, 0),
        ((), False, "evil.example", 421), ((), False, "evil.example:80", 421), ((), True, "evil.example", 0),
        (("my.host",), False, "my.host", 0), (("my.host",), False, "my.host:8000", 0), (("my.host",), True, "evil", 421),
        (("my.host",), False, "localhost", 421), (("my.host",), False, None, 421), (("a", "b"), True, "b:1", 0),
    ],
)  # fmt: skip
def test_a_host_header_is_checked_against_the_list_or_else_this_machine(
    allowed: tuple[str, ...], has_keys: bool, host: str | None, status: int
) -> None:
    keys = Keys((Client("a", ClientLimits(), b"x"),)) if has_keys else Keys()
    admission = Admission(keys, AdmissionSettings(allow_host=allowed))
    if not status:
        admission.check_host(host)
        return
    with pytest.raises(Refusal) as caught:
        admission.check_host(host)
    assert caught.value.status == status


def test_a_histogram_counts_a_value_on_a_bound_below_it_and_adds_up() -> None:
    values = [0.0, 0.01, 0.0100001, 0.5, 0.5, 7.25, 1e9]
    found = Histogram((0.01, 0.5, 10.0))
    for value in values:
        found.observe(value)
    lines = dict(line.rsplit(" ", 1) for line in found.lines("h"))
    for bound, label in ((0.01, "0.01"), (0.5, "0.5"), (10.0, "10"), (float("inf"), "+Inf")):
        assert int(lines.pop(f'h_bucket{{le="{label}"}}')) == sum(value <= bound for value in values)
    assert float(lines.pop("h_sum")) == pytest.approx(sum(values)) and lines.pop("h_count") == "7" and lines == {}
    metrics = Metrics()
    assert metrics.mean_request_s() == 1.0  # before the first has ended
    for seconds in (0.5, 3.0, 700.0):
        metrics.count_request("/v1/chat", 200, seconds)
    assert metrics.mean_request_s() == pytest.approx(703.5 / 3)


def test_every_number_of_an_engine_is_told_with_its_kind_and_shares_only_of_something() -> None:
    metrics = Metrics()
    metrics.count_request("/v1/chat", 200, 1.0)
    metrics.count_request("/v1/chat", 200, 1.0)
    metrics.count_request("/v1/chat", 429, 1.0)
    metrics.tokens |= {"prompt": 7, "cached": 3}
    engine = {"running": 2.0, "num_blocks": 8.0, "used_blocks": 2.0, "prompt_tokens": 40.0, "cached_tokens": 10.0}
    told = metrics.text(engine, ready=True, in_flight=5).splitlines()
    numbers = dict(line.rsplit(" ", 1) for line in told if not line.startswith("#"))
    wanted = {
        'requests_total{route="/v1/chat",code="200"}': "2", 'requests_total{route="/v1/chat",code="429"}': "1",
        'tokens_total{kind="prompt"}': "7", 'tokens_total{kind="cached"}': "3", 'tokens_total{kind="completion"}': "0",
        "requests_in_flight": "5", "ready": "1", "engine_running": "2", "engine_prompt_tokens_total": "40",
        "engine_kv_usage_ratio": "0.25", "engine_cache_hit_ratio": "0.25", "request_seconds_count": "3",
    }  # fmt: skip
    assert {name: numbers.get(f"firsthand_{name}") for name in wanted} == wanted
    assert (
        "# TYPE firsthand_engine_prompt_tokens_total counter" in told
        and "# TYPE firsthand_engine_running gauge" in told
    )
    assert "firsthand_engine_waiting" not in numbers  # which this engine does not tell
    empty = metrics.text({"num_blocks": 0.0, "used_blocks": 0.0, "prompt_tokens": 0.0}, ready=False, in_flight=0)
    assert "ratio" not in empty and "firsthand_ready 0" in empty


def test_an_answer_put_together_from_pieces_has_all_of_each() -> None:
    whole = Completion(assistant("ab c"), "stop", Usage(3, 1, 4))
    pieces = [
        Delta("a", None, None, 0, (1,), (-0.5,), ((("a", -0.5), ("b", -1.0)),)),
        Delta("b ", None, None, 0, (2, 3), (-1.5, -2.0), ((("b", -1.5),), ((" ", -2.0),))),
        Delta("c", whole, None, 0, (4,), (-2.5,), ((("c", -2.5),),)),
        Delta("", None),
    ]
    found = WholeAnswer()
    with pytest.raises(Refusal):
        _ = found.whole
    for piece in pieces:
        found.add(piece)
    assert (found.text, found.token_ids, found.logprobs) == ("ab c", [1, 2, 3, 4], [-0.5, -1.5, -2.0, -2.5])
    assert found.top_logprobs == [top for piece in pieces for top in piece.top_logprobs] and found.whole is whole
    assert usage_json(total([whole, whole])) == {
        "prompt_tokens": 6, "completion_tokens": 8, "total_tokens": 14, "prompt_tokens_details": {"cached_tokens": 2},
    }  # fmt: skip


@pytest.mark.slow
def test_headers_that_come_too_slowly_or_never_close_the_connection(without_keys: Running) -> None:
    for begun in (b"", b"GET /health HTTP/1.1\r\nHost: loc"):
        with without_keys.connect() as connection:
            connection.sendall(begun)
            connection.settimeout(60)
            start = time.monotonic()
            with suppress(ConnectionError):
                assert connection.recv(10) == b""
            assert time.monotonic() - start > 0.5


@pytest.mark.slow
def test_a_body_that_never_comes_is_408(without_keys: Running) -> None:
    assert without_keys.raw(head(50) + b"{").startswith(b"HTTP/1.1 408")


@pytest.mark.slow
def test_a_reader_that_reads_nothing_is_dropped() -> None:
    much = Keys((), Client("anyone", ClientLimits(max_tokens=10**6)))
    with serving(Scripted(["word " * 40_000], name="scripted"), keys=much, stall_s=0.5) as running:
        with running.connect() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            body = json.dumps({**HI, "stream": True}).encode()
            connection.sendall(head(len(body)) + body)
            until(lambda: running.admission.in_flight == 1)
            until(lambda: running.admission.in_flight == 0, 10)
        until(lambda: running.telemetry.metrics.disconnects == 1)  # it is counted a moment later


def head(length: int) -> bytes:
    """The head of a chat's request."""
    fields = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    return f"POST {CHAT} HTTP/1.1\r\n{fields}".encode()
