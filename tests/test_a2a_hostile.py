"""A2A with peers that mean harm or are broken: every request is refused or bounded, every attempt ends with a Trace."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from a2a.types.a2a_pb2 import Task as WireTask
from a2a.types.a2a_pb2 import TaskPushNotificationConfig, TaskState
from a2a.utils.errors import InvalidParamsError

from firsthand.agent import Agent
from firsthand.loop.concurrency import Retry
from firsthand.patterns.direct import direct
from firsthand.providers import a2a as provider
from firsthand.providers import a2a_answer, a2a_transport
from firsthand.providers.a2a import RemoteAgent
from firsthand.rollout import rollout
from firsthand.serve.a2a.a2a_handler import ClientUser
from firsthand.serve.a2a.sqlite_tasks import MAX_WEBHOOKS, SqlitePushConfigs, SqliteTaskStore
from firsthand.serve.a2a.webhooks import WebhookSender, check_webhook
from firsthand.serve.agents.session_store import SessionStore
from firsthand.task import Task
from firsthand.tools.web.addresses import parse_rules
from firsthand.trace import Trace
from served import until
from served_agent import Desk, RunningAgent, clerk, serving_agent

JSON = {"content-type": "application/json", "A2A-Version": "1.0"}
PORTS = "+".join(map(str, range(1024, 65536)))


# -- a peer that we ask --


class Peer:
    """An agent that does as it is told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[tuple[str, str]] = []
        self.card: dict[str, Any] = {}
        self.answer: Callable[[BaseHTTPRequestHandler, dict[str, Any]], None] = lambda request, body: None
        self.stop = threading.Event()


@contextmanager
def peer() -> Iterator[Peer]:
    found = Peer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append((self.path, self.headers.get("authorization", "")))
            reply(self, found.card)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            found.asked.append((body["method"], self.headers.get("authorization", "")))
            found.answer(self, body)

        def handle(self) -> None:
            with suppress(OSError):
                super().handle()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    found.card = card(found.url)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield found
    finally:
        found.stop.set()
        server.shutdown()
        thread.join()
        server.server_close()


def card(url: str) -> dict[str, Any]:
    return {
        "name": "peer",
        "description": "a peer",
        "version": "1",
        "supportedInterfaces": [{"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
        "capabilities": {"streaming": True},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [],
    }


def reply(request: BaseHTTPRequestHandler, body: Any, status: int = 200) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    request.send_response(status)
    request.send_header("content-type", "application/json")
    request.send_header("content-length", str(len(raw)))
    request.end_headers()
    request.wfile.write(raw)


def stream(request: BaseHTTPRequestHandler, *events: bytes) -> None:
    request.send_response(200)
    request.send_header("content-type", "text/event-stream")
    request.end_headers()
    for each in events:
        request.wfile.write(each)
    request.wfile.flush()


def event(body: dict[str, Any], result: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps({"jsonrpc": "2.0", "id": body["id"], "result": result}).encode() + b"\n\n"


def task(state: str, text: str = "") -> dict[str, Any]:
    status: dict[str, Any] = {"state": f"TASK_STATE_{state}"}
    if text:
        status["message"] = {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": text}]}
    return {"id": "t1", "contextId": "c1", "status": status}


def attempt(url: str, **options: Any) -> Trace:
    """One attempt with the remote agent as its model."""
    options = {"timeout_s": 10.0, "idle_s": 1.0, "key": "our-own-secret-key"} | options
    agent = Agent("r", RemoteAgent(url, **options), direct, retry=Retry(attempts=1))
    return asyncio.run(rollout(agent, Task("t", "What is 2 + 2?")))


def failed(trace: Trace, *said: str) -> None:
    """The trace says what happened, in one sentence, and holds the call."""
    assert trace.error is not None and trace.error.traceback is None, trace
    assert all(each in trace.error.message for each in said), trace.error.message
    assert len(trace.error.message) < 700 and trace.calls[-1].error == trace.error.message


def test_a_peer_that_dies_before_it_answers() -> None:
    with peer() as found:
        found.answer = lambda request, body: request.connection.shutdown(socket.SHUT_RDWR)
        failed(attempt(found.url), "broke off or broke the protocol", "see on its side what was done")
        assert [method for method, _ in found.asked][1:] == ["SendStreamingMessage"], "it is not asked twice"


@pytest.mark.slow
def test_a_peer_that_dies_in_the_middle_is_asked_about_its_task() -> None:
    with peer() as found:
        looked: list[int] = []

        def answer(request: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
            if body["method"] == "SendStreamingMessage":
                stream(request, event(body, {"task": task("WORKING")}))
                request.connection.shutdown(socket.SHUT_RDWR)
            else:
                looked.append(1)
                state = task("COMPLETED") | {"artifacts": [{"artifactId": "a", "parts": [{"text": "4"}]}]}
                reply(
                    request,
                    {"jsonrpc": "2.0", "id": body["id"], "result": state if len(looked) > 1 else task("WORKING")},
                )

        found.answer = answer
        trace = attempt(found.url)
        assert trace.error is None and trace.answer == "4" and len(looked) == 2


@pytest.mark.slow
def test_a_peer_that_dies_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider, "_LOST_S", 0.4)
    with peer() as found:

        def answer(request: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
            if body["method"] == "SendStreamingMessage":
                stream(request, event(body, {"task": task("WORKING")}))
            request.connection.shutdown(socket.SHUT_RDWR)

        found.answer = answer
        failed(attempt(found.url), "did not come back", "its task is t1")


@pytest.mark.slow
def test_a_peer_that_never_answers() -> None:
    with peer() as found:
        found.answer = lambda request, body: found.stop.wait(30) and None
        failed(attempt(found.url, idle_s=0.3), "broke off or broke the protocol")
        failed(attempt(found.url, timeout_s=0.3), "gave no answer within 0.3 s", "it gave no task")


def test_a_peer_that_sends_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(a2a_transport, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr(a2a_answer, "MAX_EVENTS", 50)
    with peer() as found:

        def comments(request: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
            stream(request)
            while not found.stop.is_set():
                request.wfile.write(b": " + b"x" * 65536 + b"\n\n")

        def updates(request: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
            if body["method"] == "CancelTask":
                reply(request, {"jsonrpc": "2.0", "id": body["id"], "result": task("CANCELED")})
                return
            stream(request, *[event(body, {"task": task("WORKING")})] * 60)
            found.stop.wait(30)

        found.answer = comments
        failed(attempt(found.url), "more than 1 MiB in one response")
        found.answer = updates
        failed(attempt(found.url), "more than 50 events and no answer")
        assert found.asked[-1][0] == "CancelTask", "its task is cancelled"


def test_a_compressed_response_is_refused_before_it_is_unpacked() -> None:
    with peer() as found:

        def bomb(request: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
            raw = gzip.compress(b" " * 20_000_000)
            request.send_response(200)
            request.send_header("content-type", "application/json")
            request.send_header("content-encoding", "gzip")
            request.send_header("content-length", str(len(raw)))
            request.end_headers()
            request.wfile.write(raw)

        found.answer = bomb
        failed(attempt(found.url), "sent a compressed response")


@pytest.mark.parametrize(
    "frame",
    [b"data: {\n\n", b"data: []\n\n", b"data: " + b"[" * 100_000 + b"\n\n", b"\xff\xfe\x00\n\n", b"data: {}\n\n",
     b'data: {"jsonrpc": "2.0", "id": 1, "result": {"task": 5}}\n\n',
     b'data: {"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "no"}}\n\n'],
)  # fmt: skip
def test_malformed_frames_are_an_error_of_the_attempt(frame: bytes) -> None:
    with peer() as found:
        found.answer = lambda request, body: stream(request, frame)
        trace = attempt(found.url)
        assert trace.error is not None and trace.error.kind == "ModelError" and trace.error.traceback is None


@pytest.mark.parametrize("state", ["FAILED", "REJECTED", "CANCELED", "AUTH_REQUIRED"])
def test_a_task_that_ends_badly_says_so(state: str) -> None:
    with peer() as found:
        found.answer = lambda request, body: stream(request, event(body, {"task": task(state, "because of x")}))
        failed(attempt(found.url), f"ended with {state.lower().replace('_', ' ')}", "because of x")


def test_a_card_that_sends_its_readers_elsewhere_gets_no_key() -> None:
    with peer() as found, peer() as other:
        found.card = card(other.url)
        failed(attempt(found.url), "another address", other.url)
        assert other.asked == []


def test_a_card_with_a_host_of_combining_marks_is_read_in_linear_time() -> None:
    with peer() as found:
        found.card = card("http://a" + "\u0301" * 20_000 + "\u0316" * 20_000)
        began = time.process_time()  # of all threads
        failed(attempt(found.url), "another address")
        assert time.process_time() - began < 3


def test_a_card_gives_no_user_name_that_takes_the_place_of_the_key() -> None:
    with peer() as found:
        found.card = card(found.url.replace("//", "//somebody@"))
        failed(attempt(found.url), "another address", "somebody@")
        assert len(found.asked) == 1


TEXT = "{,[" * 2_000
"""Of values no more than one."""


def message(body: dict[str, Any], parts: list[Any]) -> dict[str, Any]:
    result = {"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": parts}}
    return {"jsonrpc": "2.0", "id": body["id"], "result": result}


@pytest.mark.parametrize("parts, refused", [(900, False), (1_100, True)])
@pytest.mark.parametrize("place", ["card", "answer", "lines", "event", "data lines"])
def test_a_response_of_too_many_values_is_refused_before_an_sdk_reads_it(
    place: str, parts: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firsthand.providers.a2a_transport.MAX_VALUES", 2_050)
    many: list[Any] = [{"text": TEXT}, *[{}] * parts]

    def answer(request: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        whole = json.dumps(message(body, many if place != "card" else [{"text": "4"}]), indent=1)
        if place == "event":
            stream(request, b"data: " + json.dumps(json.loads(whole)).encode() + b"\n\n")
        elif place == "data lines":
            stream(request, *[b"data: " + each.encode() + b"\r\n" for each in whole.split("\n")], b"\r\n")
        else:
            reply(request, whole.encode() if place == "lines" else json.dumps(json.loads(whole)).encode())

    with peer() as found:
        found.answer = answer
        if place == "card":
            found.card |= {"skills": [{}] * parts, "description": TEXT}
        trace = attempt(found.url)
    if refused:
        failed(trace, "more than 2,050 JSON values at once")
    else:
        assert trace.error is None and trace.answer is not None, trace.error


def test_a_stream_of_many_small_events_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firsthand.providers.a2a_transport.MAX_VALUES", 60)

    def answer(request: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        working = [event(body, {"task": task("WORKING")}) for _ in range(40)]
        stream(request, *working, b"data: " + json.dumps(message(body, [{"text": TEXT}])).encode() + b"\n\n")

    with peer() as found:
        found.answer = answer
        trace = attempt(found.url)
    assert trace.error is None and trace.answer == TEXT


def test_a_redirect_is_not_followed() -> None:
    with peer() as found, peer() as other:

        def away(request: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
            request.send_response(307)
            request.send_header("location", other.url)
            request.send_header("content-length", "0")
            request.end_headers()

        found.answer = away
        failed(attempt(found.url), "broke off or broke the protocol")
        assert other.asked == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"name": 5}', b"[" * 100_000, b'{"supportedInterfaces": []}'])
def test_a_card_that_is_none(body: bytes) -> None:
    with peer() as found:
        found.card = body  # type: ignore[assignment]
        trace = attempt(found.url)
        assert trace.error is not None and trace.error.kind == "ModelError" and trace.error.traceback is None


def test_a_peer_that_wants_a_key_is_named_with_the_variable() -> None:
    with peer() as found:
        found.answer = lambda request, body: reply(request, {}, 401)
        failed(attempt(found.url), "401")
        assert found.asked[-1] == ("SendStreamingMessage", "Bearer our-own-secret-key")


# -- clients that ask us --


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    with serving_agent(clerk(Desk()), tmp_path_factory.mktemp("a2a")) as found:
        yield found


def rpc(running: RunningAgent, method: str, params: Any) -> dict[str, Any]:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    answer = httpx.post(running.url + "/a2a", json=body, headers=JSON, timeout=20)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def said(text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": text}], **more}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700), (b"", -32700), (b"\xff", -32700), (b"[]", -32600), (b"null", -32600), (b'"x"', -32600),
        (b'{"jsonrpc": "1.0", "method": "GetTask", "id": 1}', -32600), (b'{"jsonrpc": "2.0", "id": 1}', -32600),
        (b'{"jsonrpc": "2.0", "method": "Nothing", "id": 1}', -32601),
        (b'{"jsonrpc": "2.0", "method": "SendMessage", "id": 1, "params": {}}', -32602),
        (b'{"jsonrpc": "2.0", "method": "SendMessage", "id": 1, "params": 5}', -32600),
        (b"[" * 40_000, -32600), (b'{"a":' * 40_000, -32600),
    ],
)  # fmt: skip
def test_a_body_that_is_no_request_is_refused_by_code(running: RunningAgent, body: bytes, code: int) -> None:
    answer = httpx.post(running.url + "/a2a", content=body, headers=JSON, timeout=20)
    assert answer.status_code == 200 and answer.json()["error"]["code"] == code, answer.text
    assert rpc(running, "SendMessage", said())["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"


@pytest.mark.parametrize("path", ["/a2a", "/a2a/rest/message:send"])
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_another_content_type_is_refused_so_that_no_web_page_can_post_here(
    running: RunningAgent, path: str, kind: str
) -> None:
    headers = {**JSON, "content-type": kind}
    answer = httpx.post(running.url + path, content=json.dumps(said()), headers=headers, timeout=20)
    assert answer.status_code == 415 and "send application/json" in answer.text


def test_another_version_and_unknown_paths_are_refused(running: RunningAgent) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": said()}
    answer = httpx.post(running.url + "/a2a", json=body, headers={**JSON, "A2A-Version": "9.0"}, timeout=20)
    assert answer.json()["error"]["code"] == -32009
    for path in ("/a2a/rest/tenant/tasks", "/a2a/x", "/a2a/rest/tasks/x/y", "/x/message:send"):
        assert httpx.get(running.url + path, headers=JSON).status_code == 404


@pytest.mark.parametrize(
    "params",
    [
        {"pageSize": 0}, {"pageSize": 101}, {"pageSize": -1}, {"pageToken": "nonsense"}, {"pageToken": "e30"},
        {"pageToken": "eyJ0cyI6MTAwMDAwMDAwMDAwMDAwMDAwMDAwMDAsImlkIjoieCJ9"}, {"historyLength": -1},
    ],
)  # fmt: skip
def test_lists_with_absurd_values_are_refused(running: RunningAgent, params: dict[str, Any]) -> None:
    assert rpc(running, "ListTasks", params)["error"]["code"] in (-32602, -32600)


def test_ids_of_others_and_of_nobody_are_the_same(running: RunningAgent) -> None:
    for method in ("GetTask", "CancelTask", "SubscribeToTask"):
        for id in ("nobody", "x' OR 1=1 --", "é" * 200):
            assert rpc(running, method, {"id": id})["error"]["code"] == -32001
    assert rpc(running, "SendMessage", said(taskId="nobody"))["error"]["code"] == -32001


def test_a_message_to_a_task_that_is_over_or_of_another_context_is_refused(running: RunningAgent) -> None:
    task = rpc(running, "SendMessage", said())["result"]["task"]
    assert "error" in rpc(running, "SendMessage", said(taskId=task["id"]))
    asked = rpc(running, "SendMessage", said("pay 1"))["result"]["task"]
    assert asked["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
    assert rpc(running, "SendMessage", said("yes", taskId=asked["id"], contextId="another"))["error"]["code"] == -32602
    assert rpc(running, "CancelTask", {"id": asked["id"]})["result"]["status"]["state"] == "TASK_STATE_CANCELED"
    assert rpc(running, "CancelTask", {"id": asked["id"]})["error"]["code"] == -32002


@pytest.mark.slow
def test_a_cancel_and_an_answer_that_race_have_one_winner(running: RunningAgent) -> None:
    for _ in range(5):
        asked = rpc(running, "SendMessage", said("pay 2"))["result"]["task"]["id"]
        results: dict[str, dict[str, Any]] = {}

        def call(name: str, method: str, params: Any, results: dict[str, Any] = results) -> None:
            results[name] = rpc(running, method, params)

        threads = [
            threading.Thread(target=call, args=("cancel", "CancelTask", {"id": asked})),
            threading.Thread(target=call, args=("answer", "SendMessage", said("yes", taskId=asked))),
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        wire = rpc(running, "GetTask", {"id": asked})["result"]["status"]["state"]
        turn = running.sessions.store.turn(asked)
        assert wire == f"TASK_STATE_{turn.state.upper()}" and turn.is_over, "both tell the same end"
        assert ("result" in results["cancel"]) == (turn.state == "canceled")
        trace = running.sessions.trace(turn.session)
        assert trace is not None and trace.final_state["turns"][-1]["state"] == turn.state
    assert running.bugs == []


def test_an_endless_or_slow_body_holds_no_slot_for_ever(running: RunningAgent) -> None:
    head = (
        b"POST /a2a HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 99999999\r\n\r\n"
    )
    assert b" 413 " in running.raw(head)
    chunks = (
        b"POST /a2a HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    assert b" 400 " in running.raw(chunks + b"1\r\nx\r\n" * 5000)
    until(lambda: running.admission.in_flight == 0)


# -- webhooks --


@pytest.mark.slow
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/x", "http://localhost/x", "http://[::1]/", "http://0.0.0.0/", "http://2130706433/", "http://0x7f.1/",
        "http://[::ffff:127.0.0.1]/", "http://169.254.169.254/latest/meta-data", "http://10.0.0.1/", "http://192.168.1.1/",
        "http://100.64.0.1/", "https://[fe80::1]/", "http://metadata.test/", "ftp://example.com/", "file:///etc/passwd",
        "http://user:pw@example.com/", "http://example.com:22/", "http://", "nonsense", "http://exa mple.com/", "http://a\r\nb/",
    ],
)  # fmt: skip
def test_webhooks_to_our_own_network_are_refused_when_they_are_set(running: RunningAgent, url: str) -> None:
    async def resolver(host: str, port: int) -> list[str]:
        return {"metadata.test": ["169.254.169.254"], "localhost": ["127.0.0.1"]}.get(host, ["93.184.216.34"])

    with pytest.raises(InvalidParamsError, match="was refused"):
        asyncio.run(check_webhook(TaskPushNotificationConfig(url=url), parse_rules("", "80+443"), resolver))
    asked = rpc(running, "SendMessage", said("pay 1"))["result"]["task"]["id"]
    if url != "http://metadata.test/":
        config = {"taskId": asked, "id": "h", "url": url}
        assert rpc(running, "CreateTaskPushNotificationConfig", config)["error"]["code"] == -32602
        begun = rpc(
            running, "SendMessage", said("hi") | {"configuration": {"taskPushNotificationConfig": {"url": url}}}
        )
        assert begun["error"]["code"] == -32602
    rpc(running, "CancelTask", {"id": asked})


def test_a_name_that_turns_to_our_own_network_is_not_called(tmp_path: Path) -> None:
    """Its address was public when the webhook was set, and is loopback when it is called."""
    store = SessionStore(tmp_path, create=True)
    configs, failures = SqlitePushConfigs(store.database), []
    with peer() as found:
        port = int(found.url.rpartition(":")[2])
        rules = parse_rules("", PORTS)

        async def main() -> None:
            answers = iter([["93.184.216.34"], *[["127.0.0.1"]] * 5])

            async def resolver(host: str, port: int) -> list[str]:
                return next(answers)

            config = TaskPushNotificationConfig(task_id="t", id="h", url=f"http://rebind.test:{port}/")
            await check_webhook(config, rules, resolver)
            await configs.set_info("t", config, _context("anyone"))
            sender = WebhookSender(configs, rules, resolver=resolver)
            sender.on_failure = lambda task, why: failures.append(why)
            await sender.send_notification("t", WireTask(id="t"))
            while not failures:
                await asyncio.sleep(0.005)
            await sender.aclose()

        asyncio.run(main())
        assert found.asked == [] and "no public address" in failures[0]


def test_a_webhook_that_hangs_or_redirects_holds_nothing_up(tmp_path: Path) -> None:
    store = SessionStore(tmp_path, create=True)
    configs, failures = SqlitePushConfigs(store.database), []
    with peer() as found, peer() as other:

        def away(request: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
            request.send_response(302)
            request.send_header("location", other.url)
            request.send_header("content-length", "0")
            request.end_headers()

        found.answer = away
        rules = parse_rules("127.0.0.0/8", PORTS)

        async def main() -> float:
            await configs.set_info("t", TaskPushNotificationConfig(id="h", url=found.url), _context("anyone"))
            sender = WebhookSender(configs, rules)
            sender.on_failure = lambda task, why: failures.append(why)
            began = time.monotonic()
            await sender.send_notification("t", WireTask(id="t"))
            took = time.monotonic() - began
            await sender.aclose()
            return took

        assert asyncio.run(main()) < 1 and other.asked == []


def test_webhooks_of_a_task_are_bounded_and_their_headers_are_plain(tmp_path: Path) -> None:
    store = SessionStore(tmp_path, create=True)
    configs = SqlitePushConfigs(store.database)

    async def main() -> None:
        for number in range(MAX_WEBHOOKS):
            await configs.set_info("t", TaskPushNotificationConfig(id=str(number), url="http://a/"), _context("anyone"))
        with pytest.raises(InvalidParamsError, match="delete one first"):
            await configs.set_info("t", TaskPushNotificationConfig(id="more", url="http://a/"), _context("anyone"))
        await configs.set_info("t", TaskPushNotificationConfig(id="0", url="http://b/"), _context("anyone"))
        assert await configs.get_info("t", _context("somebody")) == []
        for token in ("a\r\nx-forged: 1", "x" * 5000, "é"):
            with pytest.raises(InvalidParamsError, match="printable ASCII"):
                config = TaskPushNotificationConfig(url="http://93.184.216.34/", token=token)
                await check_webhook(config, parse_rules("", "80"))

    asyncio.run(main())


def test_a_task_that_is_over_stays_so_whoever_writes_later(tmp_path: Path) -> None:
    tasks = SqliteTaskStore(SessionStore(tmp_path, create=True).database)

    async def main() -> None:
        done = WireTask(id="t", context_id="c")
        done.status.state = TaskState.TASK_STATE_CANCELED
        await tasks.save(done, _context("alice"))
        late = WireTask(id="t", context_id="c")
        late.status.state = TaskState.TASK_STATE_WORKING
        await tasks.save(late, _context("alice"))
        late.status.state = TaskState.TASK_STATE_COMPLETED
        await tasks.save(late, _context("alice"))
        found = await tasks.get("t", _context("alice"))
        assert found is not None and found.status.state == TaskState.TASK_STATE_CANCELED
        done.metadata["x"] = "forged"
        await tasks.save(done, _context("bob"))
        found = await tasks.get("t", _context("alice"))
        assert found is not None and not found.metadata, "another client's write changes nothing"
        assert await tasks.get("t", _context("bob")) is None and tasks.open_tasks() == {}

    asyncio.run(main())


def _context(name: str) -> Any:
    from a2a.server.context import ServerCallContext

    return ServerCallContext(user=ClientUser(name))
