"""What a message of A2A says, and what cards, paths and keys the door has, without a wire."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from a2a.types.a2a_pb2 import (
    Message,
    Part,
    Role,
)
from a2a.utils.errors import ContentTypeNotSupportedError, InvalidParamsError
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value

from firsthand import __version__
from firsthand.errors import ConfigError
from firsthand.loop.form import FormField
from firsthand.loop.listener import Began
from firsthand.serve.a2a.a2a_app import _is_deep, _route_of
from firsthand.serve.a2a.a2a_door import a2a_door
from firsthand.serve.a2a.a2a_settings import A2ASettings
from firsthand.serve.a2a.agent_card import CardFacts, extended_card, make_card, read_signing_key
from firsthand.serve.a2a.grpc_door import _client
from firsthand.serve.a2a.turn_executor import TurnExecutor, _questions, _signs_in, decisions, text_of
from firsthand.serve.admission.active_request import ActiveRequest, attach
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.admission.api_keys import Client, Keys
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.agents import agent_doors
from firsthand.serve.agents.agent_doors import ServedAgent, agent_models, open_doors, opened_sessions
from firsthand.serve.agents.asked_approval import AskedApproval
from firsthand.serve.agents.caller_middleware import CallerMiddleware
from firsthand.serve.agents.session_store import SessionTurn
from firsthand.serve.agents.shown_steps import step_line
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings
from firsthand.trace import Call
from served_agent import Desk, clerk


def data(body: Any) -> Part:
    return Part(data=ParseDict(body, Value()))


def message(*parts: Part) -> Message:
    return Message(message_id="m", role=Role.ROLE_USER, parts=list(parts))


def approval(id: str, **more: Any) -> AskedApproval:
    fields = {"tool": "pay", "effect": "external", "arguments": {"a": 1}, "question": f"{id}?"} | more
    return AskedApproval(id, "t", "0:1", fields.pop("tool"), fields.pop("effect"), fields.pop("arguments"),
                         fields.pop("question"), "pending", "", "", "ann", **fields)  # fmt: skip


def test_the_text_of_a_message_is_its_texts_and_data_in_lines() -> None:
    assert text_of(message(Part(text="a"), data({"b": 1, "a": "é"}), Part(text=" c "))) == 'a\n{"a":"é","b":1.0}\n c '
    for empty in (message(), message(Part(text=" \n"))):
        with pytest.raises(InvalidParamsError, match="the message says nothing"):
            text_of(empty)
    for part, said in ((Part(url="http://x", media_type="image/png"), r"is url \(image/png\)"), (Part(), "is empty")):
        with pytest.raises(ContentTypeNotSupportedError, match=said):
            text_of(message(Part(text="a"), part))


def test_a_bare_yes_answers_one_question_alone_and_data_names_its_own() -> None:
    one, two = approval("apr_1"), approval("apr_2")
    both = [one, two]
    for parts, pending, expected in (
        ([Part(text="Yes.")], [one], {"apr_1": (True, None)}),
        ([Part(text="no")], [one], {"apr_1": (False, None)}),
        ([Part(text="well")], [one], {}),
        ([Part(text="yes")], both, {}),
        ([Part(text="yes")], [], {}),
        ([data({"allowed": False})], [one], {"apr_1": (False, None)}),
        ([data({"allowed": True})], both, {}),
        ([data({"approval": "apr_2", "allowed": True}), data({"approval": "apr_1", "allowed": False})], both,
         {"apr_2": (True, None), "apr_1": (False, None)}),
        ([data({"approval": "apr_9", "allowed": True})], [one], {}),
        ([data({"content": {"n": "x"}})], [one], {"apr_1": (True, {"n": "x"})}),
        ([data({"content": {}})], [one], {"apr_1": (True, {})}),
        ([data({"content": {}, "allowed": False})], [one], {"apr_1": (False, {})}),
        ([data({"content": "x"})], [one], {}),
        ([data({"allowed": "yes"})], [one], {}),
        ([data({"allowed": True, "approval": each}) for each in (["apr_1"], {"apr_1": 1}, None, 1)], [one], {}),
        ([data(["yes"])], [one], {}),
        ([data({"allowed": True}), Part(text="no")], [one], {}),
        ([Part(text="no"), Part(text="yes")], [one], {}),
        ([Part(text="yes"), data({"content": {"n": 1}}), Part(text="ok")], [one], {"apr_1": (True, {"n": 1})}),
        ([data({"content": {"n": 1}}), data({"content": {"n": 2}})], [one], {}),
        ([data({"approval": "apr_1", "allowed": each}) for each in (True, False, True)]
         + [data({"approval": "apr_2", "allowed": False})], both, {"apr_2": (False, None)}),
    ):  # fmt: skip
        assert decisions(message(*parts), pending, {each.id for each in pending}) == expected, parts


def test_questions_and_steps_as_a_person_and_a_program_read_them() -> None:
    form = approval("apr_1", form=(FormField("n", "integer", required=True),))
    page = approval("apr_2", tool="mail__elicitation", arguments={}, opens="https://x")
    call = approval("apr_4", tool="mail__elicitation", arguments={"open": "https://x", "message": "Sign in"})
    bodies = [MessageToDict(part.data) for part in _questions([form, approval("apr_3")])]
    assert bodies[1] == {"approval": "apr_3", "tool": "pay", "effect": "external", "arguments": {"a": 1.0}}
    assert bodies[0]["schema"]["required"] == ["n"]
    assert [_signs_in(each) for each in ([], [page], [page, form], [call])] == [False, True, False, False]
    shown = [MessageToDict(part.data) for part in _questions([page, call])]
    assert shown[0]["opens"] == "https://x" and "opens" not in shown[1]
    assert (
        step_line(Began("0:1", "tool", 0, {"name": "pay", "arguments": {"b": 1, "a": "é"}})) == 'pay({"a":"é","b":1})'
    )
    assert step_line(Began("0:1", "generate", 0)) == "" and step_line("x") == ""
    long = Began("0:1", "tool", 0, {"name": "pay", "arguments": {"a": "x" * 600}})
    assert len(step_line(long)) == len("pay()") + 500
    for detail, error, shown in (
        ({"result": "ok"}, "bad", "-> ok"), ({}, "bad", "-> bad"), ({}, None, "-> "),
        ({"result": "y" * 501}, None, "-> " + "y" * 500),
    ):  # fmt: skip
        assert step_line(Call("0:1", "tool", 0, 0.0, 0.1, "r", detail=detail, error=error)) == shown


class Told:
    """Takes what a task is told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def new_agent_message(self, parts: Any) -> str:
        return "|".join(each.text for each in parts if each.text)

    async def add_artifact(self, parts: Any, **more: Any) -> None:
        self.said.append((f"artifact {more['artifact_id']} {more['name']} {more['last_chunk']}", parts[0].text))

    def __getattr__(self, kind: str) -> Any:
        async def tell(message: str = "") -> None:
            self.said.append((kind, message))

        return tell


def test_a_settled_turn_is_told_once_in_its_own_state(tmp_path: Path) -> None:
    with opened_sessions(clerk(Desk()), tmp_path, tmp_path / "s") as sessions:
        executor, store = TurnExecutor(sessions), sessions.store
        session = store.open_session("ann", "c")
        turn = store.add_turn(session.id, "q", id="wait")
        store.asked("wait", "1", "pay", "external", {}, "Pay?")

        def settled(id: str, state: Any, answer: str | None = None, error: str | None = None) -> Any:
            told = Told()
            made = SessionTurn(id, session.id, turn.number, state, "q", answer, error, "ann", "c")
            asyncio.run(executor._settle(told, made))  # type: ignore[arg-type]
            return told.said

        assert settled("a", "completed", "42") == [("artifact answer answer True", "42"), ("complete", "")]
        assert settled("a", "completed", "42") == [] and settled("a", "canceled") == []
        assert settled("b", "completed") == [("artifact answer answer True", ""), ("complete", "")]
        assert settled("c", "failed", error="why") == [("failed", "why")]
        assert settled("d", "failed") == [("failed", "it failed")]
        assert settled("e", "rejected", error="why") == [("reject", "why")]
        assert settled("f", "rejected") == [("reject", "it was refused")]
        assert settled("g", "canceled") == [("cancel", "")]
        for _ in range(2):
            assert settled("wait", "input_required") == [("requires_input", "Pay?")]
        store.answer(store.pending("wait")[0].id, True, by="x")
        store.asked("wait", "2", "mail__elicitation", "external", {}, "Open?", opens="https://x")
        assert settled("wait", "input_required") == [("requires_auth", "Open?")]


def test_a_card_tells_where_and_how_the_agent_is_reached() -> None:
    agent = clerk(Desk())
    bare = MessageToDict(make_card(agent, "http://h", CardFacts()))
    assert bare == {
        "name": "clerk",
        "description": "clerk, an agent served by firsthand",
        "version": __version__,
        "provider": {"organization": "firsthand", "url": "http://h"},
        "supportedInterfaces": [
            {"url": "http://h/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
            {"url": "http://h/a2a/rest", "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"},
        ],
        "capabilities": {"streaming": True, "pushNotifications": True, "extendedAgentCard": True},
        "defaultInputModes": ["text/plain", "application/json"],
        "defaultOutputModes": ["text/plain", "application/json"],
        "skills": [
            {
                "id": "answer",
                "name": "clerk",
                "description": "clerk, an agent served by firsthand",
                "tags": ["agent"],
            }
        ],
    }
    facts = CardFacts("Pays.", ("pay 5", "wait"), needs_key=True, pushes=False, grpc="h:9")
    card = make_card(agent, "http://h", facts)
    full = MessageToDict(card)
    assert full["description"] == full["skills"][0]["description"] == "Pays."
    assert full["skills"][0]["examples"] == ["pay 5", "wait"] and "pushNotifications" not in {
        key for key, value in full["capabilities"].items() if value
    }
    assert full["supportedInterfaces"][2] == {"url": "h:9", "protocolBinding": "GRPC", "protocolVersion": "1.0"}
    assert full["securitySchemes"] == {"bearer": {"httpAuthSecurityScheme": {"scheme": "Bearer"}}}
    assert len(full["securityRequirements"]) == 1
    extended = MessageToDict(extended_card(card, agent))
    assert [(each["id"], each["name"], each["tags"]) for each in extended["skills"][1:]] == [
        ("tool:pay", "pay", ["tool", "irreversible"]), ("tool:wait", "wait", ["tool", "read"]),
    ]  # fmt: skip
    assert extended["skills"][1]["description"] == "Pay an amount." and len(card.skills) == 1


def asked(app: Any, method: str, path: str, content: bytes = b"", **headers: str) -> httpx.Response:
    """The app's answer to a request that the server has admitted."""

    async def admitted(scope: Any, receive: Any, send: Any) -> None:
        kind = dict(scope["headers"]).get(b"content-type", b"").decode() or None
        attach(scope, ActiveRequest("r", Client("ann", ClientLimits()), "/a2a", kind, content))
        await app(scope, receive, send)

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(admitted)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            shown = {key.replace("_", "-"): value for key, value in headers.items()}
            return await client.request(method, path, content=content, headers=shown)

    return asyncio.run(run())


def test_the_door_shows_its_public_address_and_refuses_bodies_the_sdk_should_not_read(tmp_path: Path) -> None:
    keys = Keys((Client("ann", ClientLimits(), b"x"),))
    with opened_sessions(clerk(Desk()), tmp_path, tmp_path / "s") as sessions:
        for settings, url in (
            (A2ASettings(public_url="https://out"), "https://out/a2a"),
            (A2ASettings(), "http://in/a2a"),
        ):
            door = a2a_door(
                sessions, Admission(keys), ListenAddress(), settings, url="http://in", description="D.", examples=("e",)
            )
            found = asked(door.app, "GET", "/.well-known/agent-card.json")
            card = found.json()
            assert card["supportedInterfaces"][0]["url"] == url and card["description"] == "D."
            assert card["skills"][0]["examples"] == ["e"] and "securitySchemes" in card
            assert found.headers["cache-control"] == "public, max-age=300" and "last-modified" in found.headers
        assert door.open_routes == {"/.well-known/agent-card.json"} and door.most_values == 50_000
        assert door.work_methods == {"POST"}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "x"}}).encode()
        fine = asked(door.app, "POST", "/a2a", body, content_type="Application/JSON; charset=utf-8", a2a_version="1.0")
        assert fine.json()["error"]["code"] == -32001 and "last-modified" not in fine.headers
        deep = b"[" * 65 + b"]" * 65
        for path, content, kind, status, said in (
            ("/a2a", body, "text/plain", 415, "Content-Type is 'text/plain'"),
            ("/a2a", b"{}", "", 415, "Content-Type is 'missing'"),
            ("/a2a/rest/message:send", b"{}", "text/plain", 415, "Content-Type is 'text/plain'"),
            ("/a2a", b"\xff", "application/json", 200, "not valid UTF-8"),
            ("/a2a/rest/message:send", b"\xff", "application/a2a+json", 400, "not valid UTF-8"),
            ("/a2a", deep, "application/json", 200, "more than 64 deep"),
            ("/a2a/rest/message:send", deep, "application/json", 400, "more than 64 deep"),
        ):
            answer = asked(door.app, "POST", path, content, **({"content_type": kind} if kind else {}))
            assert answer.status_code == status and said in answer.json()["error"]["message"], (path, kind)
            if "rest" in path:
                assert answer.json()["error"]["code"] == status


def test_the_doors_of_an_agent_are_apps_and_the_first_runs_its_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_doors, "speaks_mcp", lambda: False)
    with opened_sessions(clerk(Desk()), tmp_path, tmp_path / "s") as sessions:
        models, admission = agent_models(sessions), Admission()
        assert models.name == "clerk" and models.find("clerk").thinks and models.tokens is None
        doors = open_doors(
            ServedAgent(
                sessions, models, admission, ServerTelemetry(TelemetrySettings(log="none")), ListenAddress(port=8123),
                "http://h:8123", "Pays.", ("pay 5",), a2a=A2ASettings(public_url="https://p.example"),
            )
        )  # fmt: skip
        assert [door.prefix for door in doors] == [""] * 3 and isinstance(doors[1].app, CallerMiddleware)
        paths = ("/approvals", "/v1/chat/completions", "/a2a")
        assert [[door.route_of(path) for path in paths] for door in doors] == [
            ["/approvals", None, None], [None, "/v1/chat/completions", None], [None, None, "/a2a"],
        ]  # fmt: skip
        assert [each.lifespan is None for each in doors] == [False, True, False] and len(sessions.on_begin) == 1
        sent: list[Any] = []

        async def send(event: Any) -> None:
            sent.append(event)

        path = "/.well-known/agent-card.json"
        scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}
        asyncio.run(doors[2].app(scope, None, send))  # type: ignore[arg-type]
        card = json.loads(sent[1]["body"])
        assert (card["name"], card["description"], card["skills"][0]["examples"]) == ("clerk", "Pays.", ["pay 5"])
        assert card["supportedInterfaces"][0]["url"] == "https://p.example/a2a" and "securitySchemes" not in card


def test_paths_have_as_many_patterns_as_there_are_routes() -> None:
    for path, route in (
        ("/.well-known/agent-card.json", "/.well-known/agent-card.json"), ("/a2a", "/a2a"), ("/a2a/", "/a2a"),
        ("/a2a/x", None),
        ("/a2a/rest/message:send", "/a2a/rest/message:send"), ("/a2a/rest/message:stream", "/a2a/rest/message:stream"),
        ("/a2a/rest/tasks", "/a2a/rest/tasks"), ("/a2a/rest/tasks/1", "/a2a/rest/tasks/{id}"),
        ("/a2a/rest/tasks/1:cancel", "/a2a/rest/tasks/{id}:cancel"),
        ("/a2a/rest/tasks/1:subscribe", "/a2a/rest/tasks/{id}:subscribe"),
        ("/a2a/rest/tasks/1/pushNotificationConfigs", "/a2a/rest/tasks/{id}/pushNotificationConfigs"),
        ("/a2a/rest/tasks/1/pushNotificationConfigs/2", "/a2a/rest/tasks/{id}/pushNotificationConfigs/{config}"),
        ("/a2a/rest/tasks/1/pushNotificationConfigs/2:cancel", "/a2a/rest/tasks/{id}/pushNotificationConfigs/{config}"),
        ("/a2a/rest/extendedAgentCard", "/a2a/rest/extendedAgentCard"), ("/a2a/rest/other", None), ("/x", None),
    ):  # fmt: skip
        assert _route_of(path) == route, path
    assert not _is_deep(b"[" * 64) and _is_deep(b"[" * 65) and not _is_deep(b'"' + b"[" * 99 + b'"')
    assert not _is_deep(b"[]" * 99) and _is_deep(b'{"a":' * 65) and not _is_deep(b'"\\"' + b"[" * 99)


def test_a_signing_key_is_of_one_curve_and_a_port_is_one(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    path = tmp_path / "key.pem"
    for curve, fine in ((SECP256R1(), True), (SECP384R1(), False)):
        pem = generate_private_key(curve).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(pem)
        if fine:
            assert read_signing_key(path) == pem
        else:
            with pytest.raises(ConfigError, match="holds a key of another kind"):
                read_signing_key(path)
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption

    locked = generate_private_key(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw")
    )
    for content in (b"x", b"", locked):
        path.write_bytes(content)
        with pytest.raises(ConfigError) as told:
            read_signing_key(path)
        assert str(told.value) == f"{str(path)!r} holds no private key in PEM without a password"
    for missing, why in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError) as told:
            read_signing_key(missing)
        assert str(told.value) == f"the key {str(missing)!r} cannot be read: {why}"
    assert [A2ASettings(grpc_port=port).grpc_port for port in (None, 0, 65535)] == [None, 0, 65535]
    for port in (-1, 65536):
        with pytest.raises(ConfigError, match=f"grpc_port is {port}"):
            A2ASettings(grpc_port=port)


def test_a_call_over_grpc_has_its_key_once() -> None:
    import hashlib

    keys = Keys((Client("ann", ClientLimits(), hashlib.sha256(b"k" * 16).digest()),))
    mine = ("Authorization", "Bearer " + "k" * 16)
    assert _client(keys, [mine, ("other", "x")]) is keys.clients[0]
    for metadata in ([], [mine, mine], [("authorization", "Bearer x")], [("authorization", b"Bearer " + b"k" * 16)]):
        assert _client(keys, metadata) is None
    assert _client(Keys(), []) == Keys().anyone and _client(Keys(), [mine, mine]) is None
