"""Contexts of a remote agent belong to the client of `firsthand serve` that they began with, whatever others say."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("a2a")

from firsthand.agent import Agent
from firsthand.benchmark import NamedSetting
from firsthand.context import Context
from firsthand.message import assistant, user
from firsthand.model import Sampling
from firsthand.patterns.direct import direct
from firsthand.providers.a2a import RemoteAgent
from firsthand.rollout import Place, rollouts
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.admission.api_keys import Client, Keys
from firsthand.serve.agents.agent_doors import opened_sessions
from firsthand.serve.agents.session_settings import SessionSettings
from firsthand.serve.http.mounted_app import MountedApp
from firsthand.serve.http.replies import reply
from firsthand.system import conversation_owner
from firsthand.task import Task
from served import Running, serving

KEYS = {name: f"{name}-secret-of-sixteen" for name in ("ann", "bob")}
HTTP = httpx.Client(timeout=60)
CLIENTS = tuple(Client(name, ClientLimits(), hashlib.sha256(key.encode()).digest()) for name, key in KEYS.items())


class FakeAgent(BaseHTTPRequestHandler):
    """Greets, and in a context that goes on asks before it pays: a task that waits is answered by what is sent to it."""

    protocol_version = "HTTP/1.1"
    contexts: dict[str, list[str]]
    paid: list[str]

    def do_GET(self) -> None:
        interface = {
            "url": f"http://127.0.0.1:{self.server.server_address[1]}/rpc",  # type: ignore[str-bytes-safe]
            "protocolBinding": "JSONRPC", "protocolVersion": "1.0",
        }  # fmt: skip
        self.say({
            "name": "bank", "description": "d", "version": "1", "capabilities": {"streaming": False}, "skills": [],
            "defaultInputModes": ["text"], "defaultOutputModes": ["text"], "supportedInterfaces": [interface],
        })  # fmt: skip

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        message = request["params"]["message"]
        context = message.get("contextId") or f"c{len(self.contexts) + 1}"
        text = message["parts"][0]["text"]
        self.contexts.setdefault(context, []).append(text)
        if message.get("taskId"):
            self.paid.append(context)
        said = {"messageId": "m", "contextId": context, "role": "ROLE_AGENT", "parts": [{"text": "Hello!"}]}
        result: Any = {"message": said}
        if text == "pay":
            asked = {"state": "TASK_STATE_INPUT_REQUIRED", "message": {**said, "parts": [{"text": "Sure?"}]}}
            result = {"task": {"id": f"t-{context}", "contextId": context, "status": asked}}
        self.say({"jsonrpc": "2.0", "id": request["id"], "result": result})

    def say(self, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def bank() -> Iterator[Any]:
    kind = type("Bank", (FakeAgent,), {"contexts": {}, "paid": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    kind.url = f"http://127.0.0.1:{server.server_address[1]}"  # type: ignore[attr-defined]
    try:
        yield kind
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def told(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]


def chat(running: Running, name: str, *texts: str, path: str = "chat/completions", **fields: Any) -> None:
    body = {"input" if path == "responses" else "messages": told(*texts), **fields}
    headers = {"authorization": f"Bearer {KEYS[name]}"}
    answer = HTTP.post(f"{running.url}/v1/{path}", json={"model": "demo", **body}, headers=headers)
    assert answer.status_code == 200, answer.text


def test_no_client_goes_on_in_anothers_context_or_answers_the_task_that_waits_there(bank: Any) -> None:
    with serving(RemoteAgent(bank.url, key=""), name="demo", keys=Keys(CLIENTS)) as running:
        chat(running, "ann", "Hello")
        chat(running, "ann", "Hello", "Hello!", "pay")
        assert bank.contexts == {"c1": ["Hello", "pay"]}
        for fields in ({}, {"stream": True}, {"path": "responses"}, {"path": "messages", "max_tokens": 9}):
            chat(running, "bob", "Hello", "Hello!", "pay", "Sure?", "yes", **fields)
        assert bank.paid == [] and bank.contexts["c1"] == ["Hello", "pay"] and len(bank.contexts) == 5
        chat(running, "ann", "Hello", "Hello!", "pay", "Sure?", "yes", user="eve")
        assert bank.paid == [] and len(bank.contexts) == 6
        chat(running, "ann", "Hello", "Hello!", "pay", "Sure?", "yes")
        assert bank.paid == ["c1"] and bank.contexts["c1"] == ["Hello", "pay", "yes"]


def test_each_users_conversation_goes_on_in_its_own_context(bank: Any) -> None:
    with serving(RemoteAgent(bank.url, key=""), name="demo", keys=Keys(CLIENTS)) as running:
        for name, fields in (("ann", {}), ("ann", {"user": "u"}), ("bob", {"user": "u"})):
            chat(running, name, "Hello", **fields)
            chat(running, name, "Hello", "Hello!", "more", **fields, stream=True)
        assert list(bank.contexts.values()) == [["Hello", "more"]] * 3


def test_the_owner_of_every_route_is_its_client() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reply({"owner": conversation_owner.current()})(scope, receive, send)

    def apps(parts: Any) -> list[MountedApp]:
        return [MountedApp(app, route_of=lambda path: path if path == "/own" else None)]

    with serving(name="demo", keys=Keys(CLIENTS), apps=apps) as running:
        found = [
            HTTP.get(f"{running.url}/own", headers={"authorization": f"Bearer {key}"}).json() for key in KEYS.values()
        ]
    assert found == [{"owner": "client/ann"}, {"owner": "client/bob"}] and conversation_owner.current() == ""


def test_outside_of_a_server_a_conversation_goes_on_as_before(bank: Any) -> None:
    agent = RemoteAgent(bank.url, key="")

    async def main() -> None:
        for talk in ([user("Hello")], [user("Hello"), assistant("Hello!"), user("more")]):
            async for _ in agent.stream(talk, Sampling()):
                pass

    asyncio.run(main())
    assert bank.contexts == {"c1": ["Hello", "more"]}


def test_sessions_of_a_served_agent_have_contexts_of_their_own(bank: Any, tmp_path: Path) -> None:
    async def main() -> None:
        agent = Agent("clerk", RemoteAgent(bank.url, key=""), direct)
        with opened_sessions(agent, tmp_path, tmp_path / "s", SessionSettings(poll_s=0.01)) as sessions:
            async with sessions.running():
                for text in ("Hello", "more"):
                    for name in KEYS:
                        turn = sessions.submit(name, text, context=name)
                        async with aclosing(sessions.follow(turn.id, name)) as news:
                            assert [each async for each in news]

    asyncio.run(main())
    assert bank.contexts == {"c1": ["Hello", "more"], "c2": ["Hello", "more"]}


def test_attempts_at_equal_tasks_have_contexts_of_their_own(bank: Any) -> None:
    async def talks(task: Task, ctx: Context) -> str:
        ctx = await ctx.say("Hello").generate()
        return (await ctx.say("more").generate()).text

    async def main() -> None:
        agent = Agent("clerk", RemoteAgent(bank.url, key=""), talks)
        places = [Place(agent, NamedSetting("b"), Task("1", "Q"), epoch) for epoch in range(3)]
        assert [trace.error async for trace in rollouts(places)] == [None] * 3

    asyncio.run(main())
    assert list(bank.contexts.values()) == [["Hello", "more"]] * 3 and conversation_owner.current() == ""
