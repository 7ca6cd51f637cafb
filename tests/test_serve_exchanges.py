"""Requests through the admission middleware by hand: what the app gets, what the client gets, what is written down."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from exchanges_by_hand import HOST, Exchanges, start
from firsthand.errors import ConfigError, DataError, PromptTooLong, QueueFull, TransientError, UnknownName
from firsthand.serve.admission.active_request import ActiveRequest, request_of
from firsthand.serve.admission.admission_settings import AdmissionSettings, ClientLimits
from firsthand.serve.admission.api_keys import Client, Keys
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.http.mounted_app import MountedApp, Target, find_app
from firsthand.serve.http.refusals import Refusal, bad, in_names_of, refusal_of


async def echo(scope: Any, receive: Any, send: Any) -> None:
    message = await receive()
    client = request_of(scope).client.name
    await start(send, json.dumps([scope.get("root_path"), scope["path"], client, message["body"].decode()]).encode())


def test_an_app_gets_the_body_and_its_prefix_and_the_answer_the_requests_id(tmp_path: Path) -> None:
    served = Exchanges(echo, log=str(tmp_path / "log"))
    status, fields, body = served.ask(b'{"q": 1}', headers=[HOST, (b"x-request-id", b"a-Z_9" + b"x" * 59)])
    assert (status, fields, json.loads(body)) == (
        201, {"x-own": "1", "x-request-id": "a-Z_9" + "x" * 59}, ["/a", "/a/x", "anyone", '{"q": 1}'],
    )  # fmt: skip
    for wrong in (b"a b", b"", b"x" * 65, b"\xff"):
        made = served.ask(headers=[HOST, (b"x-request-id", wrong)])[1]["x-request-id"]
        assert len(made) == 24 and set(made) <= set("0123456789abcdef")
    assert json.loads(served.ask(path="/b")[2])[:2] == [None, "/b"], "without a prefix nothing is added"
    served.telemetry.close()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    first = {key: value for key, value in lines[0].items() if key not in ("at", "seconds", "own_id")}
    assert len(lines[0]["own_id"]) == 24 and [each for each in lines[1:] if "own_id" in each] == []
    assert first == {
        "event": "request", "id": "a-Z_9" + "x" * 59, "client": "anyone", "method": "POST", "route": "/a/x", "status": 201,
    }  # fmt: skip
    assert 0 <= lines[0]["seconds"] < 20 and lines[-1]["route"] == "other" and len(lines) == 6
    assert served.telemetry.metrics.requests == {("/a/x", "201"): 5, ("other", "201"): 1}
    assert (served.telemetry.metrics.disconnects, served.admission.active, served.admission.in_flight) == (0, set(), 0)


def test_an_error_in_the_middle_of_an_answer_is_raised_and_a_broken_connection_is_not() -> None:
    def raises(error: Exception, *, begun: bool) -> Exchanges:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if begun:
                await start(send, more=True)
            raise error

        return Exchanges(app)

    with pytest.raises(ValueError, match="a bug"):
        raises(ValueError("a bug"), begun=True).ask()
    broken = raises(ConnectionResetError("gone"), begun=True)
    assert broken.ask()[0] == 201 and broken.telemetry.metrics.requests == {("/a/x", "499"): 1}
    assert broken.telemetry.metrics.disconnects == 1
    before = raises(ValueError("a secret bug"), begun=False)
    assert before.refused() == (500, "the server met a bug of its own; its log has the details", None)
    assert before.telemetry.metrics.requests == {("/a/x", "500"): 1} and before.telemetry.metrics.disconnects == 0
    assert raises(bad("no such thing"), begun=False).refused() == (400, "no such thing", None)


def test_what_two_readers_could_read_differently_is_refused_and_the_connection_closed() -> None:
    served = Exchanges(echo, most_values=3)
    assert served.refused(version="2") == (505, "this server speaks HTTP/1.1", "close")
    assert served.ask(version="1.0")[0] == 201
    both = [HOST, (b"content-length", b"2"), (b"transfer-encoding", b"chunked")]
    assert served.refused(headers=both) == (
        400, "a request has either Content-Length or Transfer-Encoding, not both", "close",
    )  # fmt: skip
    for name in (b"host", b"authorization", b"x-api-key", b"content-length", b"content-type", b"transfer-encoding",
                 b"x-request-id"):  # fmt: skip
        twice = [HOST, (name, b"1"), *([] if name == b"host" else [(name, b"1")])]
        assert served.refused(headers=twice) == (400, f"the header {name.decode()} comes twice", "close")
    assert served.ask(headers=[HOST, (b"accept", b"1"), (b"accept", b"1")])[0] == 201
    assert served.refused(headers=[HOST, (b"content-encoding", b"gzip")]) == (
        415, "Content-Encoding is not taken: send the JSON as it is", None,
    )  # fmt: skip
    for fits in (b"[1, 2]", b"[1, 2, 3]", b'["a, b, c, d, [e", "{,,,,"]'):  # brackets and commas outside of texts count
        assert served.ask(fits)[0] == 201
    assert served.refused(body=b"[1, 2, 3, 4]") == (
        413,
        "the body holds more than 3 JSON values: send less at once",
        None,
    )
    assert served.refused(headers=[(b"host", b"evil.example:80")]) == (
        421, "without API keys only this machine is served, not 'evil.example'", None,
    )  # fmt: skip
    assert (served.admission.in_flight, served.admission.by_client) == (0, {})


def test_requests_of_unwork_methods_and_open_routes_hold_no_slot_and_draining_stops_the_others(
    tmp_path: Path,
) -> None:
    async def slots(scope: Any, receive: Any, send: Any) -> None:
        await start(send, f"{served.admission.in_flight} {served.admission.by_client}".encode())

    served = Exchanges(
        slots, log=str(tmp_path / "log"), work_methods=frozenset({"POST"}), open_routes=frozenset({"/a/health"}),
        free_requests=frozenset({"GET /a/x"}),
    )  # fmt: skip
    assert served.ask()[2] == b"1 {'anyone': 1}" and served.ask(method="GET")[2] == b"0 {}"
    served.admission.drain()
    status, fields, body = served.ask()
    assert (status, fields["retry-after"], fields["connection"]) == (503, "5", "close")
    assert json.loads(body)["error"] == {
        "message": "the server is stopping: ask another one", "type": "server_error", "param": None, "code": "draining",
    }  # fmt: skip
    assert served.ask(method="GET")[0] == 201 and served.ask(path="/a/health")[2] == b"0 {}"
    served.telemetry.close()
    assert [json.loads(line)["status"] for line in (tmp_path / "log").read_text().splitlines()] == [201, 201, 503, 201]

    def not_ready() -> None:
        raise Refusal(503, "the model is being loaded")

    assert Exchanges(slots, check_ready=not_ready).refused() == (503, "the model is being loaded", None)


def test_a_client_that_leaves_or_an_answer_that_takes_too_long_ends_the_app() -> None:
    ended: list[str] = []

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    served = Exchanges(slow)
    assert served.ask(leaves=True)[0] == 0 and ended == ["cancelled"]
    assert served.telemetry.metrics.requests == {("/a/x", "499"): 1} and served.telemetry.metrics.disconnects == 1
    keys = Keys(anyone=Client("anyone", ClientLimits(request_s=0.01)))
    late = Exchanges(slow, admission=Admission(keys))
    status, _, body = late.ask()
    assert (status, json.loads(body)["error"]["message"], json.loads(body)["error"]["code"]) == (
        504, "the answer took more than 0.01 s", "timeout",
    )  # fmt: skip
    assert late.telemetry.metrics.requests == {("/a/x", "504"): 1} and late.telemetry.metrics.disconnects == 0
    assert len(ended) == 2 and late.admission.active == set()


def test_slots_of_the_server_and_of_a_client_run_out_at_their_number() -> None:
    means = [7.4]
    admission = Admission(settings=AdmissionSettings(max_requests=2), mean_request_s=lambda: means[-1])
    ann, bob = Client("ann", ClientLimits(concurrency=1)), Client("bob", ClientLimits(concurrency=5))

    def refusal(client: Client) -> tuple[int, str, str | None, dict[str, str]]:
        with pytest.raises(Refusal) as told, admission.slot(client):
            pass
        return told.value.status, told.value.message, told.value.code, told.value.headers

    with admission.slot(ann):
        assert refusal(ann) == (
            429, "1 requests of ann are under way, as many as it may have: wait for one to end", "rate_limit_exceeded",
            {"retry-after": "7"},
        )  # fmt: skip
        means.append(9.6)
        with admission.slot(bob):
            assert (admission.in_flight, admission.by_client) == (2, {"ann": 1, "bob": 1})
            assert refusal(bob) == (
                429, "2 requests are under way: try again later", "overloaded", {"retry-after": "10"},
            )  # fmt: skip
        assert (admission.in_flight, admission.by_client) == (1, {"ann": 1})
    assert (admission.in_flight, admission.by_client) == (0, {})
    for mean_s, wait in ((0.2, 1), (1.6, 2), (60.4, 60), (900.0, 60)):
        assert Admission(mean_request_s=lambda mean_s=mean_s: mean_s)._retry_after_s() == wait
    assert Admission()._retry_after_s() == 1
    limited = Client("cat", ClientLimits(tokens_per_minute=10))
    admission.charge(limited, 0)
    admission.charge(ann, 5)
    assert admission._spent == {}
    admission.charge(limited, 9)
    assert admission.wait_for_tokens_s(limited) == 0
    admission.charge(limited, 1)
    assert 59 < admission.wait_for_tokens_s(limited) <= 60
    assert refusal(limited)[1:] == (
        "cat has had its 10 tokens of this minute: wait", "rate_limit_exceeded", {"retry-after": "60"},
    )  # fmt: skip
    first, second = admission._spent["cat"]
    admission._spent["cat"][0] = (first[0] - 50, 9)
    assert 9 < admission.wait_for_tokens_s(limited) <= 10, "without the first there is room again"
    admission._spent["cat"][0] = (first[0] - 60, 9)
    assert admission.wait_for_tokens_s(limited) == 0 and list(admission._spent["cat"]) == [second]


def test_hosts_are_known_by_name_without_their_port() -> None:
    open_here = Admission()
    for host in (None, "", "localhost", "localhost:80", "127.0.0.1:8000", "[::1]:80", "[::1]"):
        open_here.check_host(host)
    named = Admission(settings=AdmissionSettings(allow_host=("a.example", "")))
    for host in (None, "", "a.example", "a.example:443"):
        named.check_host(host)
    for host in ("b.example", "a.example.evil", "localhost"):
        with pytest.raises(Refusal) as told:
            named.check_host(host)
        assert (told.value.status, told.value.message) == (421, f"this server is not {host!r}")
        assert told.value.headers == {"connection": "close"}


def test_a_request_is_cancelled_once_for_its_first_reason() -> None:
    async def main() -> None:
        request = ActiveRequest("i", Client("c", ClientLimits()), "/r")
        first, second = Refusal(504, "late"), Refusal(503, "stopping")
        request.cancel(first)
        assert request.cancelled is None, "nothing is under way yet"
        request.task = asyncio.create_task(asyncio.sleep(30))
        request.cancel(first)
        request.cancel(second)
        assert request.cancelled is first
        with pytest.raises(asyncio.CancelledError):
            await request.task
        done = ActiveRequest("i", request.client, "/r", task=request.task)
        done.cancel(first)
        assert done.cancelled is None

    asyncio.run(main())


def test_the_app_of_the_longest_prefix_or_the_first_that_knows_the_path_gets_a_request() -> None:
    def app(prefix: str, *routes: str) -> MountedApp:
        return MountedApp(echo, prefix, route_of=lambda path: path if path in routes else None)

    outer, inner, first, second = app("/a", "/", "/x", "/x/"), app("/a/b", "/"), app("", "/v1"), app("", "/v1", "/v2")
    fallback = app("")
    apps = [first, outer, inner, second]
    for path, expected in {
        "/a": Target(outer, "/a"), "/a/x": Target(outer, "/a/x"), "/a/x/": Target(outer, "/a/x"),
        "/a/y": Target(outer, "other"), "/a/b": Target(inner, "/a/b"), "/a/b/": Target(inner, "/a/b"),
        "/a/bc": Target(outer, "other"), "/ab": Target(fallback, "other"), "/v1": Target(first, "/v1"),
        "/v2": Target(second, "/v2"), "/v3": Target(fallback, "other"),
    }.items():  # fmt: skip
        found = find_app(apps, path, fallback)
        assert found.app is expected.app and found.route == expected.route, path
        assert find_app(apps[::-1], path, fallback).app is (second if path == "/v1" else expected.app)
    for prefix in ("a", "/a/", "/"):
        with pytest.raises(ConfigError, match=f"prefix is '{prefix}': give a path such as '/mcp', or nothing"):
            MountedApp(echo, prefix)


def test_errors_become_refusals_of_their_kind() -> None:
    def seen(error: Exception) -> tuple[int, str | None, str | None, dict[str, str]]:
        found = refusal_of(error)
        assert found.message == ("the server met a bug of its own; its log has the details"
                                 if found.code == "internal_error" else str(error))  # fmt: skip
        return found.status, found.param, found.code, found.headers

    assert seen(PromptTooLong("p")) == (400, "messages", "context_length_exceeded", {})
    assert seen(ConfigError("c")) == (400, None, None, {}) and seen(UnknownName("u")) == (404, None, None, {})
    assert seen(QueueFull("q")) == (429, None, "queue_full", {"retry-after": "1"})
    for after, wait in ((None, "1"), (0.2, "1"), (2.6, "3")):
        error = TransientError("t", retry_after_s=after)
        assert seen(error) == (503, None, "try_again", {"retry-after": wait})
    assert seen(DataError("d")) == (501, None, None, {}) and seen(KeyError("k")) == (500, None, "internal_error", {})
    own = bad("x", "field", "why")
    assert refusal_of(own) is own
    assert bad("a  b\n c" + "d" * 1000, "field", "why").to_json() == {
        "error": {"message": "a b c" + "d" * 995, "type": "invalid_request_error", "param": "field", "code": "why"}
    }
    kinds = [Refusal(status, "m").to_json()["error"]["type"] for status in (401, 403, 404, 408, 413, 429, 421, 500)]
    assert kinds == ["authentication_error", "permission_error", "not_found_error", "timeout_error",
                     "invalid_request_error", "rate_limit_error", "server_error", "server_error"]  # fmt: skip


def test_a_refusal_of_the_chat_is_told_in_another_interfaces_names() -> None:
    def told(message: str, param: str | None) -> tuple[str, str | None]:
        with pytest.raises(Refusal) as refusal, in_names_of({"messages": "input", "messages.0": "instructions"}):
            raise bad(message, param)
        return refusal.value.message, refusal.value.param

    assert told("messages is empty, x.messages and messages_2 are not", "messages") == (
        "input is empty, x.messages and messages_2 are not", "input",
    )  # fmt: skip
    assert told("messages.0.content is wrong", "messages.0.content") == (
        "instructions.content is wrong", "instructions.content",
    )  # fmt: skip
    assert told("messages.1 is wrong", "messages.1") == ("input.1 is wrong", "input.1")
    assert told("messagesx is wrong", "messagesx") == ("messagesx is wrong", "messagesx")
    assert told("messages are wrong", None) == ("messages are wrong", None)
