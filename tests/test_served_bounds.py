"""What one client of a served agent may take: values of a request, sessions, tasks, calls that wait, calls over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("mcp")
pytest.importorskip("a2a")

import grpc
import httpx
import mcp_types as types
from a2a.types import ListTasksRequest, Message, Part, Role, SendMessageRequest
from a2a.types.a2a_pb2_grpc import A2AServiceStub
from mcp import MCPError

from firsthand.serve.a2a.agent_card import REST_PATH
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.admission.api_keys import Client, Keys
from firsthand.serve.mcp import mcp_transports, running_call, server_tasks
from firsthand.serve.mcp.exchange import ParkedExchange
from firsthand.serve.mcp.running_call import ParkedCalls, RunningCall
from firsthand.serve.mcp.served_tool import ServedTool
from firsthand.serve.mcp.server_tasks import ServerTasks
from served_agent import Desk, RunningAgent, clerk, serving_agent

KEYS = {"alice": "alice-key-0123456789", "bob": "bob-key-0123456789ab"}


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.go.set()


@pytest.fixture
def running(tmp_path: Path, desk: Desk) -> Iterator[RunningAgent]:
    limits = ClientLimits(concurrency=2)
    known = Keys(tuple(Client(name, limits, sha256(key.encode()).digest()) for name, key in KEYS.items()))
    with serving_agent(clerk(desk), tmp_path, keys=known, grpc_port=0) as found:
        yield found
        desk.go.set()


def post(running: RunningAgent, path: str, body: Any, name: str = "alice", **headers: str) -> httpx.Response:
    sent = {"accept": "application/json, text/event-stream", "authorization": f"Bearer {KEYS[name]}", **headers}
    return httpx.post(running.url + path, json=body, headers=sent, timeout=30)


def hello(**capabilities: Any) -> dict[str, Any]:
    about = {"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": {"name": "c", "version": "1"}}
    return {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": about}


@pytest.mark.slow
def test_a_request_of_too_many_values_is_refused_before_an_sdk_reads_it(running: RunningAgent) -> None:
    dense = [{}] * 110_000
    part = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": {"metadata": {"a": dense}}}}
    for path, body in (("/mcp", hello(experimental={"a": dense})), ("/a2a", part), (f"{REST_PATH}/message:send", part)):
        reply = post(running, path, body)
        assert (reply.status_code, "JSON values" in reply.text) == (413, True), path
    words = {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"_meta": {"words": "a, {b} [c], " * 100_000}}}
    assert "JSON values" not in post(running, "/mcp", words).text, "commas of a text are no values"


@pytest.mark.slow
def test_what_opens_a_session_is_small_and_sessions_are_counted_by_client(
    running: RunningAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_transports, "MAX_OWN_SESSIONS", 3)
    for more in ({"a": [0] * 3_000}, {"a": "x" * 70_000}):
        assert post(running, "/mcp", hello(experimental=more)).status_code == 413
    opened = [post(running, "/mcp", hello()) for _ in range(4)]
    assert [each.status_code for each in opened] == [200, 200, 200, 429]
    his = post(running, "/mcp", hello(), "bob")
    assert his.status_code == 200
    session = opened[0].headers["mcp-session-id"]
    long = {"jsonrpc": "2.0", "id": 2, "method": "ping", "params": {"_meta": {"a": "x" * 70_000}}}
    assert post(running, "/mcp", long, **{"mcp-session-id": session}).status_code == 200, "it opens none"
    assert post(running, "/mcp", long, "bob", **{"mcp-session-id": session}).status_code == 404, "it is hers"
    headers = {"authorization": f"Bearer {KEYS['alice']}", "mcp-session-id": session}
    assert httpx.delete(running.url + "/mcp", headers=headers).status_code == 200
    assert post(running, "/mcp", hello()).status_code == 200


@pytest.mark.slow
def test_calls_over_grpc_hold_a_clients_slots(running: RunningAgent, desk: Desk) -> None:
    card = httpx.get(running.url + "/.well-known/agent-card.json").json()
    address = next(each["url"] for each in card["supportedInterfaces"] if each["protocolBinding"] == "GRPC")
    hers, his = ([("authorization", f"Bearer {KEYS[name]}")] for name in ("alice", "bob"))
    waiting = SendMessageRequest(message=Message(message_id="m", role=Role.ROLE_USER, parts=[Part(text="wait")]))
    with grpc.insecure_channel(address) as channel:
        stub = A2AServiceStub(channel)
        streams = []
        for number in range(2):
            waiting.message.message_id = f"m{number}"
            stream = stub.SendStreamingMessage(waiting, metadata=hers)
            next(stream)
            streams.append(stream)
        for call in (
            lambda: stub.ListTasks(ListTasksRequest(), metadata=hers),
            lambda: next(stub.SendStreamingMessage(waiting, metadata=hers)),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                call()
            assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "alice" in refused.value.details()
        assert post(running, "/a2a", {}).status_code == 429, "they are the slots of HTTP"
        assert not stub.ListTasks(ListTasksRequest(), metadata=his).tasks
        desk.go.set()
        for stream in streams:
            assert list(stream)
        assert len(stub.ListTasks(ListTasksRequest(), metadata=hers).tasks) == 2


async def _forever() -> Any:
    await asyncio.Event().wait()


async def _done() -> Any:
    return types.CallToolResult(content=[])


def test_one_clients_tasks_push_out_and_hold_up_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_tasks, "MAX_OWN_TASKS", 3)

    async def main() -> None:
        tasks = ServerTasks()

        def begin(work: Any, owner: str | None) -> str:
            return tasks.begin(
                RunningCall("t", work(), ParkedExchange(None, {}, {}, client=owner)), owner, "t", {}
            ).call.id

        his = begin(_done, "bob")
        hers = [begin(_done, "alice") for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        fourth = begin(_forever, "alice")
        assert set(tasks.tasks) == {his, *hers[1:], fourth}, "her own oldest is forgotten"
        for _ in range(2):
            begin(_forever, "alice")
        with pytest.raises(MCPError, match="3 tasks of yours"):
            work = RunningCall("t", _forever(), ParkedExchange(None, {}, {}, client="alice"))
            tasks.begin(work, "alice", "t", {})
        assert his in tasks.tasks
        for _ in range(5):
            begin(_forever, None)  # over standard input there is one client
        begin(_forever, "bob")
        work.task.cancel()
        await tasks.close()

    asyncio.run(main())


def test_calls_that_wait_are_given_up_for_their_own_client_and_continued_by_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running_call, "MAX_PARKED", 4)

    async def main() -> None:
        parked = ParkedCalls(lambda *_: None)

        def wait(owner: str) -> RunningCall:
            call = RunningCall("t", _forever(), ParkedExchange(None, {}, {}, client=owner))
            parked._park(call)
            return call

        his, hers = wait("bob"), [wait("alice") for _ in range(3)]
        parked._forget_old()
        await asyncio.sleep(0)
        assert not his.task.done() and [each.task.done() for each in hers] == [True, False, False]
        request = SimpleNamespace(scope={}, headers={})
        monkeypatch.setattr(running_call, "client_of", lambda ctx: "alice")
        params = types.CallToolRequestParams(name="t", request_state=his.id)
        with pytest.raises(MCPError, match="waits for no input"):
            await asyncio.wait_for(parked.call(None, request, params), 2)  # type: ignore[arg-type]
        assert not his.task.done() and his.id in parked._calls
        his.since -= running_call.PARKED_S + 1
        parked._forget_old()
        await asyncio.sleep(0)
        assert his.task.done()
        await parked.close()

    asyncio.run(main())


def test_a_call_whose_client_leaves_is_ended_and_one_whose_tool_fails_is_not_kept() -> None:
    ended: list[str] = []

    async def run(arguments: Any, exchange: Any) -> str:
        try:
            await asyncio.sleep(arguments["s"])
            raise RuntimeError("a bug")
        finally:
            ended.append(f"{arguments['s']}")

    async def main() -> None:
        ctx: Any = SimpleNamespace(session=SimpleNamespace(client_capabilities=None), request=None)
        parked, tool = ParkedCalls(lambda *_: None), ServedTool("t", "d", {"type": "object"}, run)
        under_way = asyncio.create_task(
            parked.call(tool, ctx, types.CallToolRequestParams(name="t", arguments={"s": 60}))
        )
        for _ in range(3):
            await asyncio.sleep(0)
        assert not ended
        under_way.cancel()
        await asyncio.wait({under_way})
        await asyncio.sleep(0)
        assert under_way.cancelled() and ended == ["60"] and not parked._calls
        with pytest.raises(RuntimeError, match="a bug"):
            await parked.call(tool, ctx, types.CallToolRequestParams(name="t", arguments={"s": 0}))
        assert ended == ["60", "0"] and not parked._calls

    asyncio.run(main())
