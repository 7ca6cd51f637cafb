"""Forms that a tool's server asks a person to fill in, answered over each door of a served agent, and by another process."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("a2a")
pytest.importorskip("mcp")

import mcp_types as types
from a2a.client import ClientConfig, ClientFactory
from a2a.types.a2a_pb2 import Message, Part, Role, SendMessageRequest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value
from mcp import Client

from firsthand.agent import Agent
from firsthand.commands.sessions import Config, main
from firsthand.errors import ConfigError
from firsthand.loop.calling import caller
from firsthand.loop.form import checked_answers, fields_from_json, fields_to_json, form_fields, form_schema
from firsthand.message import ToolCall, assistant
from firsthand.model import ToolSpec
from firsthand.patterns.react import react
from firsthand.providers.scripted import Scripted
from firsthand.serve.agents.asked_approval import AskedApproval
from firsthand.tool import Tool, tool_from_function
from firsthand.tools.mcp.remote_tools import EachAttempt
from firsthand.tools.mcp.server_declaration import ServerDeclaration
from served import until
from served_agent import RunningAgent, serving_agent

SCHEMA = {
    "type": "object",
    "properties": {
        "seat": {"type": "string", "enum": ["aisle", "window"], "description": "Which side?"},
        "bags": {"type": "integer", "minimum": 0, "maximum": 3},
        "meal": {"type": "boolean", "default": True},
        "extras": {"type": "array", "items": {"enum": ["quiet", "table"]}},
    },
    "required": ["seat", "bags"],
}
FIELDS = form_fields(SCHEMA)
FILLED = {"seat": "aisle", "bags": 2, "meal": True}


def booking() -> Tool:
    def none() -> None:
        return None

    async def book() -> str:
        """Book a seat."""
        position = caller()
        assert position is not None
        spec = ToolSpec("line__elicitation", "The airline asks you.", {"type": "object", "properties": {}})
        asked = Tool(spec, "external", none, dict, origin="the airline")
        answers = await position.context.attempt.agent.approval.fill(asked, "Which seat?", FIELDS)
        return json.dumps(answers)

    return tool_from_function(book, effect="external")


def script(messages: Any, sampling: Any, index: int) -> Any:
    last = messages[-1]
    return last.parts[-1].content if last.role == "tool" else assistant("", ToolCall("c0", "book", {}))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    agent = Agent("clerk", Scripted(script), react, {"native": True}, (booking(),))
    with serving_agent(agent, tmp_path_factory.mktemp("forms")) as found:
        yield found
        assert found.bugs == []


def chat(running: RunningAgent, *messages: Any) -> Any:
    """The reply to a chat; a new one opens with words of its own, since a client that asks the same again finds its turn."""
    body = {"messages": messages or [{"role": "user", "content": f"book {secrets.token_hex(4)}"}]}
    return httpx.post(running.url + "/v1/chat/completions", json=body, timeout=30)


def asked(running: RunningAgent) -> tuple[Any, AskedApproval]:
    """A chat's message that asks, and the form that waits."""
    message = chat(running).json()["choices"][0]["message"]
    (call,) = message["tool_calls"]
    return message, running.sessions.store.approval(json.loads(call["function"]["arguments"])["approval"])


def test_an_openai_client_fills_in_a_form_and_what_does_not_fit_leaves_it_open(running: RunningAgent) -> None:
    message, form = asked(running)
    assert json.loads(message["tool_calls"][0]["function"]["arguments"])["schema"] == form_schema(FIELDS)

    def reply(content: str) -> Any:
        question = {"role": "user", "content": running.sessions.store.turn(form.turn).prompt}
        return chat(
            running,
            question,
            message,
            {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": content},
        )

    for content, said in (
        ("yes", "needs seat"),
        ('{"allowed": true, "content": {"seat": "roof", "bags": 1}}', "'roof' is none of"),
        ('{"allowed": true, "content": {"seat": "aisle", "bags": 4}}', "3 or less"),
    ):
        refused = reply(content)
        assert refused.status_code == 400 and said in refused.json()["error"]["message"]
    assert running.sessions.store.approval(form.id).state == "pending"
    done = reply('{"allowed": true, "content": {"seat": "aisle", "bags": 2}}')
    assert json.loads(done.json()["choices"][0]["message"]["content"]) == FILLED


@pytest.mark.parametrize("allowed", [True, False])
def test_a_form_is_answered_by_its_route(running: RunningAgent, allowed: bool) -> None:
    _, form = asked(running)
    listed = httpx.get(running.url + "/approvals").json()["data"]
    assert next(each for each in listed if each["id"] == form.id)["schema"]["required"] == ["seat", "bags"]
    body = {"allowed": allowed, "content": {"seat": "aisle", "bags": 2}} if allowed else {"allowed": False}
    assert httpx.post(f"{running.url}/approvals/{form.id}", json=body).status_code == 200
    until(lambda: running.sessions.store.turn(form.turn).is_over)
    found = running.sessions.store.turn(form.turn)
    assert (found.state, json.loads(found.answer or "")) == ("completed", FILLED if allowed else None)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_an_mcp_clients_user_fills_in_a_form(running: RunningAgent, mode: str) -> None:
    heard = []

    async def fill(context: Any, params: Any) -> Any:
        heard.append(params.requested_schema)
        return types.ElicitResult(action="accept", content={"seat": "aisle", "bags": 2})

    async def work() -> Any:
        async with Client(f"{running.url}/mcp", mode=mode, elicitation_callback=fill) as client:
            return await client.call_tool("ask", {"question": "book"})

    result = asyncio.run(work())
    assert json.loads(result.content[0].text) == FILLED
    assert [form_fields(each) for each in heard] == [FIELDS]


def test_an_a2a_client_fills_in_a_form_and_is_told_what_does_not_fit(running: RunningAgent) -> None:
    def message(data: Any = None, **more: Any) -> SendMessageRequest:
        part = Part(text="book") if data is None else Part(data=ParseDict(data, Value()))
        return SendMessageRequest(
            message=Message(message_id=secrets.token_hex(8), role=Role.ROLE_USER, parts=[part], **more)
        )

    async def work() -> tuple[Any, str, str]:
        async with httpx.AsyncClient(timeout=20) as http:
            client = await ClientFactory(ClientConfig(httpx_client=http, streaming=False)).create_from_url(running.url)

            async def say(request: SendMessageRequest) -> Any:
                return [event async for event in client.send_message(request)][-1].task

            task = await say(message())
            shown = MessageToDict(task.status.message.parts[1].data)
            wrong = await say(message({"content": {"seat": "aisle"}}, task_id=task.id))
            done = await say(message({"content": {"seat": "aisle", "bags": 2}}, task_id=task.id))
            return shown, wrong.status.message.parts[0].text, done.artifacts[0].parts[0].text

    shown, wrong, answer = asyncio.run(work())
    assert set(form_fields(shown["schema"])) == set(FIELDS) and "needs bags" in wrong
    assert json.loads(answer) == FILLED


def test_a_form_is_filled_in_by_another_process(running: RunningAgent, capsys: pytest.CaptureFixture[str]) -> None:
    _, form = asked(running)
    folder = str(running.sessions.run.path)
    with pytest.raises(ConfigError, match="give a JSON object"):
        main(Config(folder, approve=form.id, answers="seat=aisle"))
    with pytest.raises(ConfigError, match="has no field 'door'"):
        main(Config(folder, approve=form.id, answers='{"door": 1}'))
    with pytest.raises(ConfigError, match="name it with approve"):
        Config(folder, answers="{}")
    assert main(Config(folder)) == 0
    assert "seat: Which side? (string: aisle, window)" in capsys.readouterr().out
    assert main(Config(folder, approve=form.id, answers='{"seat": "aisle", "bags": 2}')) == 0
    until(lambda: running.sessions.store.turn(form.turn).is_over)
    assert json.loads(running.sessions.store.turn(form.turn).answer or "") == FILLED


def test_answers_are_held_to_their_form() -> None:
    assert fields_from_json(json.loads(json.dumps(fields_to_json(FIELDS)))) == FIELDS
    assert form_fields(form_schema(FIELDS)) == FIELDS
    given = {"seat": "window", "bags": 3.0, "meal": False, "extras": ["table"]}
    assert checked_answers(FIELDS, given) == {**given, "bags": 3}
    for wrong, said in (
        ({"bags": 1}, "needs seat"),
        ({"seat": "aisle", "bags": True}, "is no integer"),
        ({"seat": "aisle", "bags": 1.5}, "is no integer"),
        ({"seat": "aisle", "bags": -1}, "0 or more"),
        ({"seat": 1, "bags": 1}, "is no string"),
        ({"seat": "aisle", "bags": 1, "meal": "yes"}, "is no boolean"),
        ({"seat": "aisle", "bags": 1, "extras": ["quiet", 7]}, "no list of texts"),
        ({"seat": "aisle", "bags": 1, "extras": ["bar"]}, "'bar' is none of"),
    ):
        with pytest.raises(ConfigError, match=said):
            checked_answers(FIELDS, wrong)
    free = form_fields({"properties": {"text": {"type": "string"}}})
    assert checked_answers(free, {}) == {}
    with pytest.raises(ConfigError, match="more than 4,000"):
        checked_answers(free, {"text": "x" * 4001})


@pytest.mark.slow
def test_a_form_of_an_mcp_server_waits_in_a_served_agent_for_its_answer(tmp_path: Path) -> None:
    peer = Path(__file__).parent / "mcp_peers" / "hostile_server.py"
    source = EachAttempt(
        ServerDeclaration("peer", command=sys.executable, args=(str(peer), "elicitation"), trusted=True)
    )

    def calls(messages: Any, sampling: Any, index: int) -> Any:
        last = messages[-1]
        return (
            last.parts[-1].content if last.role == "tool" else assistant("", ToolCall("c", "peer__echo", {"text": "x"}))
        )

    agent = Agent("clerk", Scripted(calls), react, {"native": True}, (source,))
    with serving_agent(agent, tmp_path) as running:
        _, form = asked(running)
        assert form.form is not None and [each.name for each in form.form] == ["seat", "bags"]
        assert running.sessions.store.answer(form.id, True, by="shell", content={"seat": "window"})
        until(lambda: running.sessions.store.turn(form.turn).is_over)
        found = running.sessions.store.turn(form.turn)
        assert json.loads(found.answer or "") == {"action": "accept", "content": {"seat": "window"}}
